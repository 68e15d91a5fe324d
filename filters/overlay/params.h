/* SPDX-License-Identifier: BSD-3-Clause */
/* The overlay filter's parameters: not changed once the server runs. */

#ifndef ESPALIER_FILTER_PARAMS_H
#define ESPALIER_FILTER_PARAMS_H

#include <stdbool.h>

#include <nbdkit-filter.h>

#include "client.h"
#include "overlay/overlay.h"

extern struct esp_overlay_params params;
extern enum client_from params_client;  /* overlay-client */
extern char *params_dir;        /* where overlays are; NULL: memory */
extern bool params_private_only;        /* it is for files without a name */

/* nbdkit's .config, .config_complete and .config_help. */
extern int params_config (nbdkit_next_config *next, nbdkit_backend *nxdata,
                          const char *key, const char *value);
extern int params_config_complete (nbdkit_next_config_complete *next,
                                   nbdkit_backend *nxdata);
#define PARAMS_HELP                                                       \
  "overlay-mode=keep|discard|memory\n"                                    \
  "                       What becomes of what a client wrote (default:\n" \
  "                       keep).\n"                                       \
  "overlay-client=connection|peer|export\n"                               \
  "                       Who a client is that asks for an export without\n" \
  "                       @CLIENT (default: connection).\n"               \
  "overlay-quota=<SIZE>   What a client may keep (default: no limit).\n"  \
  "overlay-min-free=<SIZE>\n"                                             \
  "                       What stays free of the file system (default:\n" \
  "                       256M).\n"                                       \
  "overlay-grace=<SECONDS>\n"                                             \
  "                       How long discard waits for the client to come\n" \
  "                       back (default: 30).\n"                          \
  "overlay-dir=<DIR>      Where overlays are (default: in the store).\n"  \
  "store=<DIR>            The store."

extern void params_free (void);

#endif /* ESPALIER_FILTER_PARAMS_H */
