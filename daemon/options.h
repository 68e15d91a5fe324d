/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line. */

#ifndef ESPALIERD_OPTIONS_H
#define ESPALIERD_OPTIONS_H

#include <stdbool.h>

#include "config.h"

enum options_action { ACTION_RUN, ACTION_HELP, ACTION_VERSION, ACTION_CHECK,
                      ACTION_PRINT };
struct options {
  enum options_action action;
  bool verbose;
  struct config_source source;  /* points into argv */
};
/* 0, or 2, reported: exit with it. */
extern int options_parse (int argc, char **argv, struct options *out);
extern void options_clear (struct options *options);
extern void options_help (void);

#endif /* ESPALIERD_OPTIONS_H */
