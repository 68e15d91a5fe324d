/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations on restore points.  A change of the tree takes the catalog's
 * write transaction, looks again at what it decided on, and refuses with
 * reasons.
 */

#ifndef ESPALIER_RP_H
#define ESPALIER_RP_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "store/image.h"
#include "store/map.h"
#include "store/store.h"
#include "util/progress.h"

#pragma GCC visibility push(default)

#define ESP_RP_META_KIND "restore-point"
#define ESP_RP_META_VERSION 2           /* 1 but for delayed ones */

/* The document `meta` of a restore point: all that the catalog's row has
 * (but the path of a root in place: the caller adds its object "in-place",
 * store/inplace.h), and the digest of its map.  esp_rp_from_meta checks every field
 * (EBADMSG, reported).  The caller json_decrefs what esp_rp_to_meta returns.
 */
extern json_t *esp_rp_to_meta (const struct esp_rp *rp, uint64_t map_digest);
extern int esp_rp_from_meta (json_t *meta, struct esp_rp *rp,
                             uint64_t *map_digest, const char *where);
extern int esp_rp_load_meta (struct esp_store *store, const esp_uuid *uuid,
                             struct esp_rp *rp, uint64_t *map_digest);
/* Can RP's note and resources be stored?  -1 (EINVAL, reported) when one is too
 * long or not UTF-8.  esp_rp_to_meta asks, too; ask before long work.
 */
extern int esp_rp_check_words (const struct esp_rp *rp);
/* Load the map of a restore point, its digest checked against its meta (an
 * interrupted merge leaves either of two; a map of a smaller size is grown:
 * so do not compare with *MAP_DIGEST yourself).
 */
extern struct esp_map *esp_rp_load_map (struct esp_store *store,
                                        const esp_uuid *uuid);

/* --- drafts: a restore point in the making ---------------------------- */
/* Fill `data` through data_fd (natural offsets, whole blocks, a size that
 * is a multiple of 4 KiB) and `map` with esp_map_set; then commit.
 */
struct esp_draft {
  struct esp_store *store;
  struct esp_rp rp;             /* name, parent, size, note, resources … */
  struct esp_map *map;
  int dir_fd;                   /* in tmp/, locked */
  char tmp_name[64];
  int data_fd;
  int parent_lock;              /* holds the parent, shared; -1: a root */
  /* Inside the library only: */
  const struct delayed_parts *delayed;
  int parent_dir;               /* of a parent that is a draft, too; else -1 */
};

/* Begin the restore point NAME over PARENT (NULL: a root) with a disk of
 * SIZE bytes.  Refuses names that are taken, sizes of 0, beyond
 * ESP_DISK_MAX, smaller than the parent's.  The caller may then set
 * draft->rp.note (malloced) and resources.
 */
extern struct esp_draft *esp_draft_begin (struct esp_store *store,
                                          const char *name,
                                          const struct esp_rp *parent,
                                          uint64_t size);
/* Make it durable and visible: sync, chain map, meta, rename, catalog.
 * *UUID when not NULL.  On an error nothing is visible.  Frees DRAFT in
 * both cases.
 */
extern int esp_draft_commit (struct esp_draft *draft, esp_uuid *uuid);
/* Forget it and its files.  NULL is allowed. */
extern void esp_draft_abort (struct esp_draft *draft);

/* A root in place: PATH is an absolute path of a raw file or a block
 * device.  Its identity (device, inode, size, times; for a device also a
 * digest of samples) goes into meta and is looked at whenever it is opened,
 * and while it is read.
 */
extern int esp_rp_create_in_place (struct esp_store *store, const char *name,
                                   const char *path, const char *note,
                                   const struct esp_resource *resources,
                                   size_t nresources, esp_uuid *uuid);

/* What a client wrote becomes the restore point NAME without copying: the
 * overlay's directory is completed with chain and meta and renamed.  The
 * client's next connection has a fresh overlay.  EBUSY, naming the holder,
 * while it is connected; ENOENT where there is no overlay; ENODATA where
 * nothing was written.  SIZE: 0, or a larger size for the new disk.
 */
extern int esp_rp_create_from_overlay (struct esp_store *store,
                                       const char *name,
                                       const struct esp_export *overlay,
                                       uint64_t size, const char *note,
                                       const struct esp_resource *resources,
                                       size_t nresources, esp_uuid *uuid);

/* Change name, note or resources: meta, then the catalog. */
extern int esp_rp_rename (struct esp_store *store, const esp_uuid *uuid,
                          const char *name);
extern int esp_rp_set_note (struct esp_store *store, const esp_uuid *uuid,
                            const char *note);
extern int esp_rp_set_resources (struct esp_store *store,
                                 const esp_uuid *uuid,
                                 const struct esp_resource *resources,
                                 size_t nresources);

/* Delete a restore point.  EBUSY with every reason listed: children,
 * venues, overlays over it, processes that have it open.
 */
extern int esp_rp_delete (struct esp_store *store, const esp_uuid *uuid);

/* Fold restore point UUID into its only child, which then has both's
 * blocks and UUID's parent; UUID goes away, the bytes of every tip stay the
 * same.  Refused as a deletion is, and while the child or what descends
 * from it is open.  After a crash at any instant all tips still read right.
 */
extern int esp_rp_merge (struct esp_store *store, const esp_uuid *uuid,
                         esp_progress_fn progress, void *arg);

/* Blocks that differ between two tips, by the chain maps and, where those
 * cannot tell, by the bytes.  Different sizes: the longer one's rest
 * differs where it is not zero.
 */
struct esp_rp_diff {
  uint64_t blocks;              /* that differ */
  uint64_t bytes;               /* that differ inside those */
};
extern int esp_rp_diff (struct esp_store *store, const esp_uuid *a,
                        const esp_uuid *b, struct esp_rp_diff *out,
                        esp_progress_fn progress, void *arg);

#pragma GCC visibility pop
#endif /* ESPALIER_RP_H */
