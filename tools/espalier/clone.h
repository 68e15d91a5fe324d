/* SPDX-License-Identifier: BSD-3-Clause */
/* The command venue clone, for the table of commands in venue.c. */

#ifndef ESPALIER_CLI_CLONE_H
#define ESPALIER_CLI_CLONE_H

#include "espalier.h"

extern const struct opt venue_clone_options[];
extern int venue_clone_run (const struct args *args);

#endif /* ESPALIER_CLI_CLONE_H */
