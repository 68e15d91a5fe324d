/* SPDX-License-Identifier: BSD-3-Clause */
/* Live counters: each process writes its own file once a second, anybody who
 * may read the directory reads it, while the process runs.  docs/formats.md,
 * "Live counters", has the bytes.
 */

#ifndef ESPALIER_STATS_H
#define ESPALIER_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

#pragma GCC visibility push(default)

/* What a row is about, and what its counters mean.  G: a gauge, else it only
 * grows.  Stable: the numbers stand in files and the names in JSON; new ones
 * are added at the end.
 */
enum esp_stats_kind {
  ESP_STATS_PROCESS = 1,        /* name: "" */
  ESP_STATS_TIER,               /* "memory", "dir", "cluster" */
  ESP_STATS_NODE,               /* a cache node, as it was given */
  ESP_STATS_CENTER,             /* a center's name */
  ESP_STATS_VENUE,              /* "venue/disk" or "rp:name" */
  ESP_STATS_CLIENT,             /* a connection: its export name */
  ESP_STATS_EXPORT,             /* of another plugin: its name */
  ESP_STATS_RP,                 /* a restore point: its UUID's text */
  ESP_STATS_KINDS
};

/* VENUE, CLIENT, EXPORT: what clients asked. */
enum esp_stats_disk {
  ESP_DISK_READS, ESP_DISK_READ_BYTES, ESP_DISK_WRITES, ESP_DISK_WRITE_BYTES,
  ESP_DISK_MISSES,              /* reads that waited for a fetch */
  ESP_DISK_WAITED_US,
  ESP_DISK_ERRORS,
  ESP_DISK_CONNECTIONS,         /* G */
  ESP_DISK_SINCE,               /* G: CLIENT: seconds since 1970 */
};
/* RP: where its segments came from. */
enum esp_stats_rp {
  ESP_RP_CENTER_SEGMENTS, ESP_RP_CENTER_BYTES,  /* bytes of raw */
  ESP_RP_DIR_SEGMENTS, ESP_RP_DIR_BYTES,
  ESP_RP_CLUSTER_SEGMENTS, ESP_RP_CLUSTER_BYTES,
  ESP_RP_MEMORY_SEGMENTS, ESP_RP_MEMORY_BYTES,
  ESP_RP_WAITS, ESP_RP_LIES, ESP_RP_FAILED,
};
enum esp_stats_tier {
  ESP_TIER_HITS, ESP_TIER_MISSES, ESP_TIER_READ_BYTES, ESP_TIER_WRITE_BYTES,
  ESP_TIER_WAITS, ESP_TIER_WAITED_US, ESP_TIER_EVICTIONS, ESP_TIER_ERRORS,
  ESP_TIER_LIES, ESP_TIER_LEASES, ESP_TIER_TAKEOVERS,
  ESP_TIER_ENTRIES, ESP_TIER_BYTES, ESP_TIER_MAX,       /* G */
};
enum esp_stats_node {
  ESP_NODE_OUT,                 /* G: 1: left out */
  ESP_NODE_HITS, ESP_NODE_MISSES, ESP_NODE_ERRORS, ESP_NODE_TIMEOUTS,
  ESP_NODE_LIES, ESP_NODE_ANSWER_US,    /* the last: G */
};
enum esp_stats_center {
  ESP_CENTER_OUT,               /* G */
  ESP_CENTER_REQUESTS, ESP_CENTER_BYTES, ESP_CENTER_ERRORS,
  ESP_CENTER_FIRST_BYTE_US, ESP_CENTER_BYTES_SECOND,    /* G */
};
enum esp_stats_process {
  ESP_PROCESS_CONNECTIONS,      /* G */
  ESP_PROCESS_SINCE,            /* G: seconds since 1970 */
};
#define ESP_STATS_COUNTERS 16

/* What counter N of KIND is called in JSON ("read_bytes"), NULL beyond the
 * last; *GAUGE says whether it is one.
 */
extern const char *esp_stats_counter_name (enum esp_stats_kind kind,
                                           unsigned n, bool *gauge);
extern const char *esp_stats_kind_name (enum esp_stats_kind kind);

/* --- writing --------------------------------------------------------------- */
/* The counters of this process: DIR/PID, for all modules of the process
 * (counted); PROGRAM is kept for people.  DIR is made if it is not there, what
 * is above it is not.  Behind the fork.  Where the directory cannot be
 * written, counting goes on in memory (a debug message): never NULL but for
 * memory.  A second open with another DIR is the first.
 */
struct esp_stats;
extern struct esp_stats *esp_stats_open (const char *dir,
                                         const char *program);
extern void esp_stats_close (struct esp_stats *stats);
/* The directory of a store's counters: STORE/run/stats, malloced. */
extern char *esp_stats_dir (struct esp_store *store);

/* A row, shared by who asks for the same KIND and NAME and counted; of a
 * CLIENT each is a new one.  Never NULL: when all rows are taken, one that
 * nobody sees.  The end of a NAME of more than 367 bytes is shown as a hash.
 *
 * Rows of venues, exports, restore points and centers stay, with their
 * counters, when the last who asked put them, and are found again; the
 * others go.
 */
struct esp_stats_row {
  _Atomic uint64_t c[ESP_STATS_COUNTERS];
};
extern struct esp_stats_row *esp_stats_row (struct esp_stats *stats,
                                            enum esp_stats_kind kind,
                                            const char *name);
extern void esp_stats_row_put (struct esp_stats *stats,
                               struct esp_stats_row *row);
/* A connection: a CLIENT row called NAME, of which all that grows is added to
 * the row (KIND, DISK) too, at each tick; so no two connections write to the
 * same memory.  Counts connections, and has SINCE.  It ends with the last
 * reference, or with STATS.  NULL: out of memory; all below take that.
 */
extern struct esp_stats_row *esp_stats_client (struct esp_stats *stats,
                                               const char *name,
                                               enum esp_stats_kind kind,
                                               const char *disk);
extern struct esp_stats_row *esp_stats_client_ref (struct esp_stats_row *row);
extern void esp_stats_client_put (struct esp_stats_row *row);

#define ESP_STATS_ADD(row, n, by) \
  atomic_fetch_add_explicit (&(row)->c[n], (by), memory_order_relaxed)
#define ESP_STATS_SET(row, n, to) \
  atomic_store_explicit (&(row)->c[n], (to), memory_order_relaxed)

/* A client's request for N bytes ended as R says (0, or -1), which is returned
 * with errno as it was.  Zeroes and trims are writes of no bytes.
 */
static inline int
esp_stats_read (struct esp_stats_row *client, int r, uint64_t n)
{
  if (client && r == -1)
    ESP_STATS_ADD (client, ESP_DISK_ERRORS, 1);
  else if (client) {
    ESP_STATS_ADD (client, ESP_DISK_READS, 1);
    ESP_STATS_ADD (client, ESP_DISK_READ_BYTES, n);
  }
  return r;
}

static inline int
esp_stats_write (struct esp_stats_row *client, int r, uint64_t n)
{
  if (client && r == -1)
    ESP_STATS_ADD (client, ESP_DISK_ERRORS, 1);
  else if (client) {
    ESP_STATS_ADD (client, ESP_DISK_WRITES, 1);
    ESP_STATS_ADD (client, ESP_DISK_WRITE_BYTES, n);
  }
  return r;
}

/* Called about once a second by a thread of STATS, so that engines that keep
 * counters of their own copy them into rows; and once by _off_tick, behind
 * which it is not called any more (or at the end).  It must not call either.
 */
typedef void (*esp_stats_fn) (void *arg);
extern int esp_stats_on_tick (struct esp_stats *stats, esp_stats_fn fn,
                              void *arg);
extern void esp_stats_off_tick (struct esp_stats *stats, esp_stats_fn fn,
                                void *arg);

/* --- reading ---------------------------------------------------------------- */
/* All processes that run and count in DIR: FN for each row, as it was written
 * at most about a second ago (the caller's own: now).  Files of processes
 * that ended are removed.  FN returns -1 to stop, which is returned (nothing
 * reported).  A file that is damaged or of another version is passed over (a
 * warning); a DIR that is not there has none.
 */
struct esp_stats_seen {
  int pid;
  const char *program;
  unsigned row;                 /* its number: the same as long as it is the
                                 * same row of this process */
  uint64_t since;               /* of the process, seconds since 1970 */
  uint64_t at;                  /* when it wrote rows last: microseconds of
                                 * CLOCK_MONOTONIC; while nothing changes, it
                                 * writes none */
  enum esp_stats_kind kind;
  const char *name;
  uint64_t c[ESP_STATS_COUNTERS];
};
extern int esp_stats_each (const char *dir,
                           int (*fn) (void *arg,
                                      const struct esp_stats_seen *row),
                           void *arg);

#pragma GCC visibility pop
#endif /* ESPALIER_STATS_H */
