/* SPDX-License-Identifier: BSD-3-Clause */
/* root add --delayed, for root.c (whose images are another struct
 * esp_source).
 */

#ifndef ESPALIER_CLI_PLAIN_H
#define ESPALIER_CLI_PLAIN_H

#include "espalier.h"

/* Make the image at URL a delayed root store NAME; the options are those of
 * ARGS.  An exit code.
 */
extern int plain_add (const struct args *args, const char *name,
                      const char *url, const char *note,
                      const struct esp_resource *resources, size_t nresources,
                      esp_uuid *uuid);
/* Is --segment a segment size?  0, or CLI_USAGE. */
extern int plain_check (const struct args *args);

#endif /* ESPALIER_CLI_PLAIN_H */
