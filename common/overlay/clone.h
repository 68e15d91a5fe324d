/* SPDX-License-Identifier: BSD-3-Clause */
/* Many kept overlays at once: what store/clone.c uses to make the disks of
 * many clients.  IDS are the caller's and stay as they are until the end.
 */

#ifndef ESPALIER_OVERLAY_CLONE_H
#define ESPALIER_OVERLAY_CLONE_H

#include "overlay/overlay.h"

/* Write, durably, into the directory DIR_FD what all clones of one disk of
 * SIZE bytes over TIP have.
 */
extern int esp_overlay_pattern (int dir_fd, const esp_uuid *tip,
                                uint64_t size);

/* Lock all N names; EEXIST with a list of those that have an overlay, or a
 * client, now: then nothing is left of the others.
 */
struct esp_overlay_bulk;
extern struct esp_overlay_bulk *esp_overlay_bulk_lock
  (int overlays_fd, const struct esp_overlay_id *ids, size_t n);
/* Make the overlays [FIRST, FIRST+N) like the pattern; nothing is synced. */
extern int esp_overlay_bulk_make (struct esp_overlay_bulk *b, size_t first,
                                  size_t n, int pattern_fd);
/* Remove all of them again. */
extern void esp_overlay_bulk_undo (struct esp_overlay_bulk *b);
/* Let clients in. */
extern void esp_overlay_bulk_free (struct esp_overlay_bulk *b);

/* Make those that are missing; those that are there stay. */
extern int esp_overlay_clones_finish (int overlays_fd,
                                      const struct esp_overlay_id *ids,
                                      size_t n, int pattern_fd);

#endif /* ESPALIER_OVERLAY_CLONE_H */
