/* SPDX-License-Identifier: BSD-3-Clause */
/* An image: a restore point as a tip, read as one flat disk.  Shared by all
 * connections of the process; layers are opened when they are first read,
 * mapped (pread where address space is short), and shared by all images
 * that have them in their chain.  Layers keep no descriptor open while they
 * are mapped.
 *
 * While an image is open its restore point's directory is locked (shared):
 * nobody deletes it, or merges it or anything it is made of.
 */

#ifndef ESPALIER_IMAGE_H
#define ESPALIER_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "chain/chain.h"
#include "store/store.h"

#pragma GCC visibility push(default)

struct esp_image;

/* Open restore point UUID of STORE; a further open of one that is open
 * only counts.  ENOENT when it is not there (any more).
 */
extern struct esp_image *esp_image_open (struct esp_store *store,
                                         const esp_uuid *uuid);
extern void esp_image_close (struct esp_image *image);

extern uint64_t esp_image_size (const struct esp_image *image);
extern const esp_uuid *esp_image_uuid (const struct esp_image *image);
extern struct esp_chain *esp_image_chain (struct esp_image *image);

/* Read COUNT bytes at OFFSET, within the disk.  EIO when a layer is cut
 * short, damaged or unreadable; ESTALE (reported as such) when a root store
 * in place was changed behind our back.  Many threads at once.
 */
extern int esp_image_pread (struct esp_image *image, void *buf,
                            uint64_t count, uint64_t offset);

/* Walk the runs of [OFFSET, OFFSET+COUNT): FN gets clipped, joined runs in
 * order (state DATA, ZERO, or ABSENT for a hole); it returns 0 to go on, 1
 * to stop (the walk then returns 0), -1 for an error.
 */
typedef int (*esp_extent_fn) (void *arg, uint64_t offset, uint64_t len,
                              enum esp_state state);
extern int esp_image_extents (struct esp_image *image, uint64_t offset,
                              uint64_t count, esp_extent_fn fn, void *arg);

/* Bring [OFFSET, OFFSET+COUNT) into the page cache, without waiting. */
extern int esp_image_cache (struct esp_image *image, uint64_t offset,
                            uint64_t count);

/* For hosts that serve: keep layers mapped for half a minute when their last
 * image is closed, so that a client that comes again soon finds them warm.
 * They lock nothing; only the space of a restore point that is deleted comes
 * back no earlier.  Starts a thread: call it behind the fork.  Turn it off
 * (which cannot fail) before the store is closed.
 */
extern int esp_image_keep_idle (bool keep);

#pragma GCC visibility pop
#endif /* ESPALIER_IMAGE_H */
