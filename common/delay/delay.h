/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed load: makes local what is read and is not there yet, once, and
 * checked; and, behind that, what will be read.  docs/delayed-load.md has the
 * states, threads, lock order and failure cases.
 *
 * One esp_delay for each process and store.  It fetches through
 * center/origin.h and keeps through store/have.h.
 */

#ifndef ESPALIER_DELAY_H
#define ESPALIER_DELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "stats/stats.h"
#include "store/image.h"
#include "store/store.h"
#include "util/progress.h"

#pragma GCC visibility push(default)

struct esp_delay_params {
  unsigned threads;             /* fetching at once; 0: 16 */
  uint64_t rate;                /* bytes a second of background hydration on
                                 * the wire; 0: no limit */
  uint64_t max;                 /* bytes of delayed restore points that may be
                                 * local; 0: no limit */
  uint64_t readahead;           /* at most, for each reader; 0: 16M */
#define ESP_READAHEAD_OFF 1
  bool background;              /* hydrate what is open, and what was wished */
  bool profile;                 /* learn and use boot profiles */
  /* Asked, about four times a second, by a thread that waits in
   * esp_delay_read: is the server ending, or the client gone?  Then the read
   * fails with EIO.  NULL: it never is.
   */
  bool (*ending) (void);
};

/* Start the engine (threads; behind the fork), and make it the fetcher of
 * reads that miss (esp_have_set_fetcher).  What centers and restore points do
 * is counted for all to see (stats/stats.h), in the store's directory.
 */
struct esp_delay;
extern struct esp_delay *esp_delay_start (struct esp_store *store,
                                          const struct esp_delay_params *p);
/* Cancels background work, waits for what clients wait for; no reader may be
 * open any more.
 */
extern void esp_delay_stop (struct esp_delay *delay);

/* --- readers: one for each connection --------------------------------- */
struct esp_delay_reader;
extern struct esp_delay_reader *esp_delay_reader_open
  (struct esp_delay *delay, struct esp_image *image);
/* Its misses and waits are counted in ROW too (a client's; NULL: in none), which
 * must outlive its reads.  Before the first read.
 */
extern void esp_delay_reader_count (struct esp_delay_reader *reader,
                                    struct esp_stats_row *row);
/* Ends its boot recording; merges it into the tip's profile. */
extern void esp_delay_reader_close (struct esp_delay_reader *reader);

/* Return when all that a read of [OFFSET, OFFSET+COUNT) needs is local and
 * checked.  Also moves the read-ahead and the recording.  Costs a few loads
 * when all restore points of the chain are complete.  -1 with *ERR, reported
 * with the cause.
 */
extern int esp_delay_read (struct esp_delay_reader *reader, uint64_t offset,
                           uint64_t count, int *err);
/* Begin to fetch; waits for nothing. */
extern int esp_delay_prefetch (struct esp_delay_reader *reader,
                               uint64_t offset, uint64_t count);

/* The same for UUID's own data, without a reader: as esp_fetch_fn. */
extern int esp_delay_fetch (struct esp_delay *delay, const esp_uuid *uuid,
                            uint64_t offset, uint64_t len);

/* --- hydration --------------------------------------------------------- */
/* Make all of UUID's chain local and durable now (for the command line; a
 * server that does it already is joined, not doubled).  ECANCELED when
 * PROGRESS says so; what came stays.
 */
extern int esp_delay_hydrate (struct esp_delay *delay, const esp_uuid *uuid,
                              esp_progress_fn progress, void *arg);
/* Ask the servers of this store to hydrate UUID's chain in the background,
 * whether clients have it open or not; kept until it is done.  And not.
 */
extern int esp_hydrate_wish (struct esp_store *store, const esp_uuid *uuid,
                             bool wish);
extern bool esp_hydrate_wished (struct esp_store *store,
                                const esp_uuid *uuid);
/* Does a process run that fulfils wishes? */
extern bool esp_hydrate_server (struct esp_store *store);

/* --- live counters ----------------------------------------------------- */
struct esp_delay_counters {
  uint64_t reads, hits, misses; /* of reads: all was local, or not */
  uint64_t waited_us;           /* that readers waited for fetches */
  uint64_t requests, segments, bytes_wire, bytes_raw;   /* fetched */
  uint64_t ahead_segments, ahead_used;  /* by read-ahead and profile */
  uint64_t background_segments, evicted_segments, healed_segments;
  uint64_t hedged, errors, lies;
  uint64_t from_memory, from_dir, from_cluster; /* segments of the cache */
  uint64_t cluster_waits;       /* segments that another server fetched
                                 * meanwhile */
};
extern void esp_delay_counters (const struct esp_delay *delay,
                                struct esp_delay_counters *out);

#pragma GCC visibility pop
#endif /* ESPALIER_DELAY_H */
