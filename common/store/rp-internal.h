/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files that implement store/rp.h share.  Not for others. */

#ifndef ESPALIER_RP_INTERNAL_H
#define ESPALIER_RP_INTERNAL_H

#include <jansson.h>

#include "store/cleanups.h"
#include "store/rp.h"
#include "util/cleanup.h"

ESP_DEFINE_CLEANUP (chain, struct esp_chain *, esp_chain_close)
ESP_DEFINE_CLEANUP (image, struct esp_image *, esp_image_close)
#define CLEANUP_CHAIN ESP_CLEANUP (chain)
#define CLEANUP_IMAGE ESP_CLEANUP (image)

/* The length of a data file for a disk of SIZE bytes: whole blocks. */
static inline uint64_t
esp_data_length (uint64_t size)
{
  return esp_blocks (size) << ESP_BLOCK_SHIFT;
}

/* --- meta.c ----------------------------------------------------------- */
/* The document of UUID as JSON, every field checked; RP and DIGEST may be
 * NULL.  The caller json_decrefs it.
 */
extern json_t *esp_meta_load (struct esp_store *store, const esp_uuid *uuid,
                              struct esp_rp *rp, uint64_t *digest);
/* Write META (checked first) into the directory DIR_FD. */
extern int esp_meta_save (int dir_fd, json_t *meta, const char *where);

/* Optional fields that other files set and clear. */
#define ESP_META_IN_PLACE "in-place"          /* where a root is, what it was */
#define ESP_META_DIGEST "map-digest"
#define ESP_META_DIGEST_NEXT "map-digest-next"  /* while a merge runs */
#define ESP_META_MAP_SIZE "map-size"          /* what `map` covers */
/* A digest as 16 hexadecimal digits.  Returns BUF. */
extern const char *esp_digest_text (uint64_t digest, char buf[17]);

/* --- rp.c ------------------------------------------------------------- */
/* Lock the directory of restore point RP, shared or exclusive.  Returns the
 * descriptor that holds the lock, or -1 (EBUSY: somebody has it open, or is
 * merging it; reported).
 */
extern int esp_rp_lock (struct esp_store *store, const struct esp_rp *rp,
                        bool exclusive);

/* EROFS, reported, on a store that cannot be written. */
extern int esp_rp_writable (struct esp_store *store);

/* EEXIST, reported, when NAME is taken; EINVAL when it is none. */
extern int esp_rp_check_name (struct esp_store *store, const char *name);

/* A restore point whose directory, FROM_FD/FROM (open as DIR_FD, locked), is
 * complete and durable.
 */
struct rp_made {
  struct esp_rp *rp;            /* its depth is set */
  int from_fd;                  /* the same of all */
  const char *from;
  int dir_fd;
  bool moved;                   /* esp_rp_publish: it is in restore-points/ */
};

/* Make N of them visible, parents before children, all or none: in one
 * transaction look again at each one's name and parent, move its directory to
 * restore-points/ and insert its row; sync both directories, commit.  On an
 * error the directories are back where they were.
 */
extern int esp_rp_publish (struct esp_store *store, struct rp_made *made,
                           size_t n);

/* A private copy of resources into RP. */
extern int esp_rp_copy_resources (struct esp_rp *rp,
                                  const struct esp_resource *resources,
                                  size_t nresources);

/* Write the chain of RP with MAP, over its parent's, as the new file NAME
 * in DIR_FD (an old one is removed first).  PARENT_FD: the parent's directory,
 * where it is not in restore-points/ yet; else -1.
 */
extern int esp_rp_build_chain (struct esp_store *store,
                               const struct esp_rp *rp, int parent_fd,
                               const struct esp_map *map, int dir_fd,
                               const char *name);

/* Open the chain of UUID. */
extern struct esp_chain *esp_rp_open_chain (struct esp_store *store,
                                            const esp_uuid *uuid);

/* Why UUID cannot be removed: children (unless MERGE), venues, overlays.
 * Returns 0, or -1 with EBUSY and one message that lists all.
 */
extern int esp_rp_check_unused (struct esp_store *store,
                                const struct esp_rp *rp, bool merge);

/* Open the file of the root in place UUID for reading, its identity
 * checked (ESTALE).
 */
extern int esp_rp_open_in_place (struct esp_store *store,
                                 const esp_uuid *uuid);

/* --- draft.c ------------------------------------------------------------ */
/* A draft over PARENT, which is a draft itself that stays until this one is
 * gone or published with it.
 */
extern struct esp_draft *draft_begin_over (struct esp_store *store,
                                           const char *name,
                                           struct esp_draft *parent,
                                           uint64_t size);
/* Write its files; nothing is durable yet.  Its map and its data are closed. */
extern int draft_complete (struct esp_draft *draft);
/* Make N completed drafts durable, then visible, all or none; parents stand
 * before their children.  Frees none of them.
 */
extern int drafts_publish (struct esp_draft **drafts, size_t n);
/* Of one that is published. */
extern void draft_free (struct esp_draft *draft);

/* --- profile.c ---------------------------------------------------------- */
/* PARENT is about to be merged into its only CHILD, whose directory DIR is
 * locked exclusively and whose chain is still the old one: the child, if it
 * has no profile of its own, takes over the parent's, less what it
 * overwrote.  Only advice is lost where that fails: a warning.
 */
extern void profile_take_over (struct esp_store *store,
                               const struct esp_rp *child,
                               const esp_uuid *parent, int dir);

/* --- delayed.c --------------------------------------------------------- */
/* The files of a delayed restore point beside data, map, chain and meta,
 * written into DIR, each durable once DIR is synced.
 */
struct delayed_parts;
extern int delayed_write_files (int dir, const struct esp_map *map,
                                const struct delayed_parts *parts);

/* 0 where RP is no delayed one, or all of it is local, checked and durable;
 * else EBUSY, reported: it cannot be WHAT ("merged") yet.  _locked: the same
 * for who has its directory DIR locked exclusively, and called the other one
 * before.
 */
extern int delayed_require_whole (struct esp_store *store,
                                  const struct esp_rp *rp, const char *what);
extern int delayed_require_whole_locked (int dir, const struct esp_rp *rp,
                                         const char *what);
/* A whole delayed restore point becomes a stored one; of a stored one
 * `segments` goes, which a change of its blocks makes wrong.  DIR is its
 * directory.
 */
extern int delayed_to_stored (struct esp_store *store, struct esp_rp *rp,
                              int dir);

/* For tests only: called at each step of which a crash must be harmless. */
extern __attribute__ ((visibility ("default")))
void (*esp_rp_test_step) (const char *step);

static inline void
esp_rp_step (const char *step)
{
  if (__builtin_expect (esp_rp_test_step != NULL, 0))
    esp_rp_test_step (step);
}

#endif /* ESPALIER_RP_INTERNAL_H */
