/* SPDX-License-Identifier: BSD-3-Clause */
/* The tiers that processes and servers share: this host's directory, then
 * the cluster; before them, where it is asked for, memory for restore points'
 * segments.  One for each process.  docs/segment-cache.md has the states.
 */

#ifndef ESPALIER_CACHE_SHARED_H
#define ESPALIER_CACHE_SHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"

#pragma GCC visibility push(default)

struct esp_shared_params {
  uint64_t memory;              /* bytes for segments of kind RP; 0: none */
  const char *dir;              /* this host's directory, or NULL */
  uint64_t dir_max;             /* bytes of it; 0: 10G */
  const char *nodes;            /* "host:port,unix:/path", or a file with one
                                 * a line (a name with a slash); or NULL */
  const char *key_file;         /* 32 bytes in base64 (espalier key export), or
                                 * NULL: values are only checked */
  const char *sasl_file;        /* "user:password", or NULL */
  const char *tls_ca;           /* who signed nodes' certificates (PEM), and TLS
                                 * to all but Unix sockets; or NULL */
  const char *tls_certificate, *tls_key;        /* ours (PEM), or both NULL */
  unsigned timeout_ms;          /* of a node; 0: 250 */
  unsigned lease_ms;            /* 0: 3000 */
  unsigned wait_ms;             /* at most, for another's fetch; 0: 10000 */
};

/* Check the parameters as far as that goes without opening anything (for
 * config_complete): EINVAL, reported.
 */
extern int esp_shared_check (const struct esp_shared_params *params);

/* Behind the fork: threads.  A dead node, or a directory that cannot be used,
 * is a warning.  NULL, reported: a key file that is none, or no memory.
 */
struct esp_shared;
extern struct esp_shared *esp_shared_open
  (const struct esp_shared_params *params);
extern void esp_shared_close (struct esp_shared *shared);

/* Its tiers, for their counters; NULL where there is none. */
struct esp_memory;
struct esp_cdir;
struct esp_cluster;
extern struct esp_memory *esp_shared_memory (struct esp_shared *shared);
extern struct esp_cdir *esp_shared_dir (struct esp_shared *shared);
extern struct esp_cluster *esp_shared_cluster (struct esp_shared *shared);

/* The one that the delay engine asks, for this process; NULL: none.  Taken
 * away (which waits for those who are in a call) before it is closed.
 */
extern void esp_shared_set (struct esp_shared *shared);
extern struct esp_shared *esp_shared_ref (void);        /* or NULL */
extern void esp_shared_unref (struct esp_shared *shared);

/* --- reading ------------------------------------------------------------- */
enum esp_shared_answer {
  ESP_SHARED_HIT,               /* all LEN bytes are in BUF; they are what was
                                 * put, as far as the check goes */
  ESP_SHARED_MISS,              /* fetch it; then put, or give up */
  ESP_SHARED_BUSY,              /* another one fetches it: ask again in
                                 * ticket.again_ms, with the same ticket */
};

enum esp_shared_from { ESP_FROM_MEMORY, ESP_FROM_DIR, ESP_FROM_CLUSTER };

/* What one fetch holds.  Zero it before the first get. */
struct esp_shared_ticket {
  uint64_t again_ms;            /* BUSY: ask again in so many milliseconds */
  enum esp_shared_from from;    /* HIT: who gave it */
  /* Private from here. */
  uint64_t waited_since;        /* 0: did not wait yet */
  unsigned tries;
  size_t len;                   /* that was asked for */
  uint64_t epoch;               /* of the directory's set */
  bool has_epoch;
  uint64_t lease;               /* 0: none */
  unsigned node;
  uint64_t nodes_version;
};

#define ESP_SHARED_SECRET 1u    /* came encrypted: never in the clear to nodes */
#define ESP_SHARED_LOOK 2u      /* take no lease, wait for nobody: HIT or MISS */

/* Ask for LEN bytes of KEY's segment. */
extern enum esp_shared_answer
esp_shared_get (struct esp_shared *shared, const struct esp_cache_key *key,
                void *buf, size_t len, unsigned flags,
                struct esp_shared_ticket *ticket);
/* The bytes of a HIT were wrong by the caller's own digest: they are removed
 * and who gave them is counted.  Then as after MISS, with that ticket.
 */
extern void esp_shared_lied (struct esp_shared *shared,
                             const struct esp_cache_key *key,
                             struct esp_shared_ticket *ticket);
/* Fetched: keep it for others, and end the lease.  Errors are nobody's but
 * the cache's (counted, said seldom).
 */
extern void esp_shared_put (struct esp_shared *shared,
                            const struct esp_cache_key *key, const void *buf,
                            size_t len, unsigned flags,
                            struct esp_shared_ticket *ticket);
/* Not fetched (an error, or it was here already): end the lease. */
extern void esp_shared_give_up (struct esp_shared *shared,
                                const struct esp_cache_key *key,
                                struct esp_shared_ticket *ticket);

/* --- writing (exports) ----------------------------------------------------- */
/* Around a write of any bytes of KEY's segment: behind _end nobody gets, or
 * puts, what was there before.
 */
extern void esp_shared_write_begin (struct esp_shared *shared,
                                    const struct esp_cache_key *key);
extern void esp_shared_write_end (struct esp_shared *shared,
                                  const struct esp_cache_key *key);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_SHARED_H */
