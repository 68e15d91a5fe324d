/* SPDX-License-Identifier: BSD-3-Clause */
/* The cluster: memcached nodes, leases on them, and who is left out.  Only
 * shared.c calls it, and tests.
 */

#ifndef ESPALIER_CACHE_CLUSTER_H
#define ESPALIER_CACHE_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/shared.h"
#include "cache/value.h"

#pragma GCC visibility push(default)

struct esp_cluster;
/* Check a list of nodes ("host:port,…") or the text of a file: EINVAL,
 * reported with WHERE.
 */
extern int esp_nodes_check (const char *text, const char *where);

/* Look at PARAMS' nodes (which are read, where they are in a file), sasl_file
 * and TLS, without asking any node: EINVAL and others, reported.
 */
extern int esp_cluster_check (const struct esp_shared_params *params);

/* NULL, reported.  SEALER stays the caller's and outlives it.  Of PARAMS:
 * nodes, sasl_file, TLS and the times.  A nodes file that is missing or wrong by
 * now is a warning.  Starts two threads; waits up to timeout_ms until the nodes
 * were asked for the first time.
 */
extern struct esp_cluster *esp_cluster_open
  (const struct esp_shared_params *params, const struct esp_sealer *sealer);
extern void esp_cluster_close (struct esp_cluster *cluster);

/* As esp_shared_get and the others, of this tier alone. */
extern enum esp_shared_answer
esp_cluster_get (struct esp_cluster *cluster,
                 const struct esp_cache_key *key, void *buf, size_t len,
                 unsigned flags, struct esp_shared_ticket *ticket);
extern void esp_cluster_lied (struct esp_cluster *cluster,
                              const struct esp_cache_key *key,
                              struct esp_shared_ticket *ticket);
extern void esp_cluster_put (struct esp_cluster *cluster,
                             const struct esp_cache_key *key,
                             const void *buf, size_t len, unsigned flags,
                             struct esp_shared_ticket *ticket);
extern void esp_cluster_give_up (struct esp_cluster *cluster,
                                 const struct esp_cache_key *key,
                                 struct esp_shared_ticket *ticket);
extern void esp_cluster_write_begin (struct esp_cluster *cluster,
                                     const struct esp_cache_key *key);
extern void esp_cluster_write_end (struct esp_cluster *cluster,
                                   const struct esp_cache_key *key);

struct esp_cluster_counters {
  uint64_t hits, misses, bytes_read, bytes_written;
  uint64_t leases, waits, waited_us, takeovers; /* takeovers: of a lease that
                                                 * ran out, or after wait_ms */
  uint64_t errors, lies, full;
};
struct esp_node_counters {
  char name[300];               /* "host:port" or "unix:/path" */
  bool out;
  uint64_t hits, misses, errors, timeouts, lies;
  uint64_t answer_us;           /* mean time of an answer */
};
extern void esp_cluster_counters (struct esp_cluster *cluster,
                                  struct esp_cluster_counters *out);
/* Up to MAX nodes; how many there are. */
extern size_t esp_cluster_nodes (struct esp_cluster *cluster,
                                 struct esp_node_counters *out, size_t max);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_CLUSTER_H */
