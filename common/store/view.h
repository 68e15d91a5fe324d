/* SPDX-License-Identifier: BSD-3-Clause */
/* Views: a tip's fragmented tiles, each as one piece of memory.  Inside the
 * library only; the design note is in view.c.
 */

#ifndef ESPALIER_VIEW_H
#define ESPALIER_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

struct view;

/* A part of a tile: LEN bytes at OFFSET of the disk; it begins with a block.
 * SRC is where a mapping of a file has them; NULL: they are zero.  SERIAL is
 * that of the mapping: a later mapping has a higher one, and none has 0.
 */
struct view_part {
  uint64_t offset, len;
  const void *src;
  uint64_t serial;
};

enum view_state {
  VIEW_UNKNOWN,                 /* nobody asked for the tile: view_add */
  VIEW_HAS,
  VIEW_HAS_NOT,                 /* it reads as well without, or must */
};

/* The view of restore point UUID of STORE, a disk of SIZE bytes: an idle one,
 * or a new one with nothing in it.  All tiles are UNKNOWN.  NULL, not
 * reported, where memory or address space is short.
 */
extern struct view *view_get (struct esp_store *store, const esp_uuid *uuid,
                              uint64_t size);

/* End its use: it stays, idle, where views are kept.  NULL is allowed. */
extern void view_put (struct view *v);

/* What is known of TILE.  Lock-free. */
extern enum view_state view_state (const struct view *v, uint64_t tile);

/* Let the view have TILE, whose parts are the N at PART, in order and without
 * gaps; with N 0 or where it cannot be, the tile is one that it HAS_NOT.
 * Nothing is reported.  Many threads at once.
 */
extern void view_add (struct view *v, uint64_t tile,
                      const struct view_part *part, unsigned n);

/* The memory of the disk's byte OFFSET, in a tile that the view HAS.  Behind
 * it are files: guard the access.
 */
extern const void *view_at (const struct view *v, uint64_t offset);

/* May views that nobody uses stay?  (See idle.c; not by default.) */
extern void view_keep_idle (bool keep);
/* Free those that nobody used for SECONDS; 0: all. */
extern void view_trim (unsigned seconds);

#endif /* ESPALIER_VIEW_H */
