/* SPDX-License-Identifier: BSD-3-Clause */
/* Looking after a store: check, repair, rebuild, gc, stats. */

#ifndef ESPALIER_CHECK_H
#define ESPALIER_CHECK_H

#include "store/store.h"
#include "util/progress.h"

#pragma GCC visibility push(default)

/* One finding of a check. */
struct esp_finding {
  enum { ESP_DAMAGE, ESP_ORPHAN, ESP_DISAGREEMENT, ESP_LEFTOVER } kind;
  const char *object;           /* "restore point base", "venue cafe", … */
  const char *problem;          /* what is wrong */
  const char *remedy;           /* what --repair does, or did, or NULL */
  bool mended;
};
typedef void (*esp_finding_fn) (void *arg, const struct esp_finding *f);

/* Check all of STORE (opened normally or as damaged), tell each finding.
 * With REPAIR mend what can be mended without losing anything (chain maps
 * from maps, the catalog from documents, orphans adopted) and move the rest
 * to STORE/damaged/ with a note.  *UNMENDED gets the number of findings
 * that remain.  -1 only when the check itself failed.
 */
extern int esp_store_check (struct esp_store *store, bool repair,
                            esp_finding_fn fn, void *arg,
                            unsigned *unmended);

/* Make catalog.db anew from meta and venue documents: written beside the
 * old one, which is kept as catalog.db.old, and renamed.  What cannot be
 * read is told through FN and left out.  Counts may be NULL.
 */
extern int esp_store_rebuild (const char *path, esp_finding_fn fn, void *arg,
                              unsigned *rps, unsigned *venues);

/* Remove leftovers: drafts and removals in tmp/ that nobody holds, empty
 * overlay directories, discard-mode overlays whose grace is over and that
 * nobody holds.  *FREED bytes, *REMOVED objects.
 */
extern int esp_store_gc (struct esp_store *store, bool dry_run,
                         void (*fn) (void *arg, const char *what,
                                     uint64_t bytes),
                         void *arg, uint64_t *freed, unsigned *removed);

struct esp_store_stats {
  unsigned rps, roots, in_place, delayed, venues, overlays;
  uint64_t rp_data;             /* bytes of disk in data files */
  uint64_t rp_maps;             /* in all other files of theirs */
  uint64_t delayed_data;        /* bytes of own data of delayed ones, and */
  uint64_t delayed_local;       /* how many of them are local */
  uint64_t overlay_data;        /* of disk in overlays */
  uint64_t catalog;             /* catalog.db with its WAL */
  uint64_t leftovers;           /* in tmp/ and damaged/ */
  uint64_t virtual_size;        /* the sum of all tips' disks */
  uint64_t fs_size, fs_free;    /* of the file system */
  unsigned max_depth;
};
extern int esp_store_stats (struct esp_store *store,
                            struct esp_store_stats *out);

#pragma GCC visibility pop
#endif /* ESPALIER_CHECK_H */
