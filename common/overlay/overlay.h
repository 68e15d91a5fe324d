/* SPDX-License-Identifier: BSD-3-Clause */
/* Overlays: what one client wrote, over a disk that it only reads.
 *
 * All connections of a client in this process share one esp_overlay; a lock
 * file keeps other processes away.  The disk below is reached through
 * functions of the connection that asks, since in nbdkit each has its own.
 * See docs/overlay.md for states, files, lock order and failure cases.
 */

#ifndef ESPALIER_OVERLAY_H
#define ESPALIER_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "store/image.h"
#include "util/lock.h"
#include "util/name.h"

#pragma GCC visibility push(default)

enum esp_overlay_mode {
  ESP_OVERLAY_KEEP,             /* found again; durable after a flush */
  ESP_OVERLAY_DISCARD,          /* fresh when nobody came for `grace` */
  ESP_OVERLAY_MEMORY,           /* never on disk; ends with the last connection */
};

struct esp_overlay_params {
  enum esp_overlay_mode mode;
  uint64_t quota;               /* bytes a client may keep; 0: no limit */
  uint64_t min_free;            /* bytes of the file system that stay free */
  unsigned grace;               /* seconds, for DISCARD */
};

/* Where overlays are kept: overlays/ of a store, or DIR for other plugins
 * (the same layout below it), which exists; NULL for ESP_OVERLAY_MEMORY.  One place for each process and path.
 */
struct esp_overlay_place;
extern struct esp_overlay_place *esp_overlay_place_open
  (const char *dir, const struct esp_overlay_params *params);
/* Waits for nobody; overlays still open stay valid until they are closed. */
extern void esp_overlay_place_close (struct esp_overlay_place *place);
/* Start the thread that resets DISCARD overlays whose grace is over, after
 * starting the grace of those whose holder died.  After the fork.
 */
extern int esp_overlay_place_start (struct esp_overlay_place *place);

/* An overlay's name: three components of a path, already encoded
 * (esp_path_component), "cafe", "0", "seat-7".
 */
struct esp_overlay_id {
  const char *venue, *disk, *client;
};

/* What a kept overlay was made over; all zero where there is none yet. */
struct esp_overlay_base {
  bool exists;
  esp_uuid tip;                 /* null over plugins other than venue */
  uint64_t size;                /* of the disk, bytes */
};

/* Look before the disk below is opened: *BASE says which tip a kept (or not
 * yet expired) overlay goes on with.  An expired DISCARD overlay counts as
 * none.
 */
extern int esp_overlay_peek (struct esp_overlay_place *place,
                             const struct esp_overlay_id *id,
                             struct esp_overlay_base *base);

/* Open ID (or count one more connection) over a disk of SIZE bytes whose
 * tip is TIP (null: unknown).  EBUSY naming the holder where another
 * process has it; ESTALE where it exists over another tip or size (the
 * caller peeked before somebody else made it: look again; the one error that
 * is not reported).  ID NULL: a
 * private one, without a name, that nobody else can open.
 */
struct esp_overlay;
extern struct esp_overlay *esp_overlay_open (struct esp_overlay_place *place,
                                             const struct esp_overlay_id *id,
                                             const esp_uuid *tip,
                                             uint64_t size);
/* The last close flushes (KEEP), starts the grace (DISCARD), or forgets; an
 * overlay into which nothing was written leaves nothing behind.
 */
extern void esp_overlay_close (struct esp_overlay *overlay);

/* The disk below.  Functions return 0, or -1 with *ERR set; they have
 * reported their error.
 */
struct esp_below {
  void *ctx;
  int (*pread) (void *ctx, void *buf, uint64_t count, uint64_t offset,
                int *err);
  /* Tell the runs below through FN (esp_extent_fn's rules). */
  int (*extents) (void *ctx, uint64_t offset, uint64_t count,
                  bool req_one, esp_extent_fn fn, void *arg, int *err);
  /* May be NULL: caching below is not possible. */
  int (*cache) (void *ctx, uint64_t offset, uint64_t count, int *err);
};

/* The verbs.  Ranges are within the disk.  They return 0, or -1 with *ERR
 * (ENOSPC for quota and floor, EIO, …).  Any number of threads.
 */
extern int esp_overlay_pread (struct esp_overlay *o,
                              const struct esp_below *below, void *buf,
                              uint64_t count, uint64_t offset, int *err);
extern int esp_overlay_pwrite (struct esp_overlay *o,
                               const struct esp_below *below,
                               const void *buf, uint64_t count,
                               uint64_t offset, bool fua, int *err);
/* zero and trim are one: the range reads as zero and takes no space.
 * Partial blocks at both ends are written.
 */
extern int esp_overlay_zero (struct esp_overlay *o,
                             const struct esp_below *below, uint64_t count,
                             uint64_t offset, bool fua, int *err);
extern int esp_overlay_flush (struct esp_overlay *o, int *err);
extern int esp_overlay_extents (struct esp_overlay *o,
                                const struct esp_below *below,
                                uint64_t offset, uint64_t count,
                                bool req_one, esp_extent_fn fn, void *arg,
                                int *err);
extern int esp_overlay_cache (struct esp_overlay *o,
                              const struct esp_below *below,
                              uint64_t offset, uint64_t count, int *err);

/* Bytes that count against the quota now. */
extern uint64_t esp_overlay_used (const struct esp_overlay *o);

#pragma GCC visibility pop
#endif /* ESPALIER_OVERLAY_H */
