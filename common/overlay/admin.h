/* SPDX-License-Identifier: BSD-3-Clause */
/* The operator's side of overlays: list, show, reset; and keeping one as
 * a restore point (used by store/rp).  No client's data is read here.
 */

#ifndef ESPALIER_OVERLAY_ADMIN_H
#define ESPALIER_OVERLAY_ADMIN_H

#include "overlay/overlay.h"

#pragma GCC visibility push(default)

struct esp_overlay_info {
  char *venue, *disk, *client;  /* as in export names where they are valid */
  enum esp_overlay_mode mode;
  esp_uuid tip;                 /* null: over another plugin */
  uint64_t size;                /* of the disk */
  uint64_t used;                /* bytes on disk now, live */
  uint64_t quota;               /* as its holder said last; 0: none */
  uint64_t created, last_seen;  /* seconds since the epoch */
  bool empty;                   /* nothing was written yet: mode, tip, size
                                 * and created are not known */
  bool held;                    /* a process has it now: see holder */
  struct esp_holder holder;
  char *damage;                 /* NULL, or what is wrong with its files */
};
struct esp_overlay_info_list { struct esp_overlay_info *o; size_t n; };
extern void esp_overlay_info_clear (struct esp_overlay_info *info);
extern void esp_overlay_info_list_clear (struct esp_overlay_info_list *list);
#define CLEANUP_OVERLAY_INFO \
  __attribute__ ((cleanup (esp_overlay_info_clear)))
#define CLEANUP_OVERLAY_INFO_LIST \
  __attribute__ ((cleanup (esp_overlay_info_list_clear)))

/* All overlays below overlays/ (descriptor OVERLAYS_FD), by name; of one
 * venue where VENUE is not NULL.  esp_overlay_info also reads the map of
 * one that nobody holds, for its damage.
 */
extern int esp_overlay_list (int overlays_fd, const char *venue,
                             struct esp_overlay_info_list *out);
/* With those that hold nothing and that nobody ever had (for gc). */
extern int esp_overlay_list_all (int overlays_fd,
                                 struct esp_overlay_info_list *out);
extern int esp_overlay_info (int overlays_fd, const struct esp_overlay_id *id,
                             struct esp_overlay_info *out);

/* Remove it: the client's next connection begins anew.  EBUSY names the
 * holder.  ENOENT where there is none.
 */
extern int esp_overlay_reset (int overlays_fd,
                              const struct esp_overlay_id *id);

/* Remove it if there is nothing to be found again: a DISCARD overlay that
 * nobody has had for its grace (or since another boot), or one into
 * which nothing was written.  1 when it went (with DRY_RUN: when it would),
 * 0 when it stays, -1 for an error.
 */
extern int esp_overlay_expire (int overlays_fd,
                               const struct esp_overlay_id *id,
                               bool dry_run);

/* Take overlay ID for the making of a restore point: its lock is held by
 * *LOCK_FD, *DIR_FD is its directory, *PARENT_FD that of its parent
 * directory, MAP its states (caller frees), the tip and size are given.
 * Data is synced.  The caller renames the directory away, or closes the
 * descriptors to let go.
 */
extern int esp_overlay_take (int overlays_fd, const struct esp_overlay_id *id,
                             int *parent_fd, int *dir_fd, int *lock_fd,
                             struct esp_map **map, esp_uuid *tip,
                             uint64_t *size);
/* Names of an overlay's own files inside its directory, which a restore
 * point does not have.
 */
#define ESP_OVERLAY_DOC "overlay"
#define ESP_OVERLAY_LOCK "lock"

#pragma GCC visibility pop
#endif /* ESPALIER_OVERLAY_ADMIN_H */
