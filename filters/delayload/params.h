/* SPDX-License-Identifier: BSD-3-Clause */
/* The delayload filter's parameters: not changed once the server runs. */

#ifndef ESPALIER_DELAYLOAD_PARAMS_H
#define ESPALIER_DELAYLOAD_PARAMS_H

#include <nbdkit-filter.h>

#include "delay/delay.h"

extern struct esp_delay_params delayload_params;

/* nbdkit's .config and .config_help. */
extern int delayload_config (nbdkit_next_config *next,
                             nbdkit_backend *nxdata, const char *key,
                             const char *value);
#define DELAYLOAD_HELP                                                     \
  "delayload-background=on|off\n"                                          \
  "                       Fetch in the background what nobody reads yet\n" \
  "                       (default: on).\n"                                \
  "delayload-rate=<SIZE>  Bytes a second of the background (default: no\n" \
  "                       limit).\n"                                       \
  "delayload-max=<SIZE>   What fetched restore points may take in all\n"   \
  "                       (default: no limit).\n"                          \
  "delayload-profile=on|off\n"                                             \
  "                       Learn and use the order of boots (default:\n"    \
  "                       on).\n"                                          \
  "delayload-readahead=<SIZE>\n"                                           \
  "                       At most so much ahead of a client that reads\n"  \
  "                       on (default: 16M; 0: nothing).\n"                \
  "delayload-threads=<N>  Fetches at once from one center (default: 16).\n" \
  "store=<DIR>            The store."

#endif /* ESPALIER_DELAYLOAD_PARAMS_H */
