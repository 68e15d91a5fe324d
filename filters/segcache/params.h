/* SPDX-License-Identifier: BSD-3-Clause */
/* The segcache filter's parameters: not changed once the server runs. */

#ifndef ESPALIER_SEGCACHE_PARAMS_H
#define ESPALIER_SEGCACHE_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include <nbdkit-filter.h>

#include "cache/shared.h"

struct segcache_params {
  struct esp_shared_params shared;      /* but its memory */
  uint64_t memory;              /* bytes, 0: none */
  const char *id;               /* segcache-id; else what stands for the
                                 * plugin's parameters */
  unsigned shift;               /* of exports' segments */
  const char *stats;            /* segcache-stats, absolute, or NULL */
  bool overlay_below;           /* set before all others, by .load */
};
extern struct segcache_params segcache_params;

/* Is there a directory, or are there nodes? */
extern bool segcache_has_shared (void);

/* nbdkit's .config, .config_complete and .config_help. */
extern int segcache_config (nbdkit_next_config *next, nbdkit_backend *nxdata,
                            const char *key, const char *value);
extern int segcache_config_complete (nbdkit_next_config_complete *next,
                                     nbdkit_backend *nxdata);
#define SEGCACHE_HELP                                                       \
  "segcache-memory=<SIZE> Memory of this process (default: 256M; over\n"    \
  "                       venue: none).\n"                                  \
  "segcache-dir=<DIR>     A directory that processes of this host share.\n" \
  "segcache-max=<SIZE>    What that directory may take (default: 10G).\n"   \
  "segcache-nodes=<HOST:PORT,...>|<FILE>\n"                                 \
  "                       memcached nodes that servers share.\n"            \
  "segcache-key-file=<FILE>\n"                                              \
  "                       Encrypt what the directory and the nodes hold.\n" \
  "segcache-sasl-file=<FILE>\n"                                             \
  "                       USER:PASSWORD for the nodes.\n"                   \
  "segcache-tls-ca=<FILE> TLS to the nodes: who signed their certificates.\n" \
  "segcache-tls-certificate=<FILE>\n"                                       \
  "segcache-tls-key=<FILE>\n"                                               \
  "                       This server's, where the nodes want one.\n"       \
  "segcache-id=<TEXT>     What tells exports of the same name and size\n"   \
  "                       apart, on several servers.\n"                     \
  "segcache-names=each|one\n"                                               \
  "                       Has the plugin a disk for each export name?\n"   \
  "segcache-segment=<SIZE>\n"                                               \
  "                       64K to 4M: what is shared at once (default:\n"    \
  "                       256K; venue's have their own).\n"                 \
  "segcache-timeout=<MS>  How long a node is waited for (default: 250).\n"  \
  "segcache-lease=<MS>    How long a fetch may be silent (default: 3000).\n" \
  "segcache-wait=<MS>     How long another server's fetch is waited for\n"  \
  "                       (default: 10000).\n"                              \
  "segcache-stats=<DIR>   Where live counters go (over venue: into the\n"   \
  "                       store).\n"                                        \
  "store=<DIR>            The store."

extern void segcache_params_free (void);

#endif /* ESPALIER_SEGCACHE_PARAMS_H */
