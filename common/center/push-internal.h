/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of a push share.  Not for others. */

#ifndef ESPALIER_CENTER_PUSH_INTERNAL_H
#define ESPALIER_CENTER_PUSH_INTERNAL_H

#include <pthread.h>

#include "center/center-internal.h"
#include "center/journal.h"
#include "center/packing.h"

ESP_DEFINE_CLEANUP (layer, struct layer *, layer_put)
#define CLEANUP_LAYER ESP_CLEANUP (layer)
#define CLEANUP_JOURNAL __attribute__ ((cleanup (journal_clear)))

/* Parts of packs, but the last; a pack of at most one part goes as one
 * object.
 */
#define PUSH_PART (UINT64_C (16) << 20)

/* One push, of a chain. */
struct push {
  struct esp_center *center;
  const struct esp_push_options *options;
  struct esp_transfer *done;
  struct esp_variant wish;      /* what --variant says */
  int level;
  struct esp_signer *signer;    /* NULL: --no-sign */
  char *pushed_by;
  pthread_mutex_t lock;         /* protects done, and what follows */
  uint64_t total, moved, told;  /* bytes of raw: all, packed, last shown */
};

/* One restore point of it. */
struct push_rp {
  struct push *push;
  struct esp_rp rp;
  struct layer *layer;
  struct esp_map *map;
  void *map_bytes;              /* packed, as it is at the center */
  size_t map_len;
  esp_digest map_digest;        /* of map_bytes */
  struct esp_variant variant;
  struct esp_segment_key *key;
  struct esp_segment *segments;
  size_t n;
  unsigned threads;             /* that pack it */
  int taken;                    /* PUSH_TAKEN, or 0 */
  int journal;                  /* of a pack in parts, locked; or -1 */
  char pack[ESP_OBJECT_MAX];    /* names of objects */
  char index[ESP_OBJECT_MAX];
};

/* The center has the variant all the same: somebody else pushed it. */
#define PUSH_TAKEN 1

/* --- push-pack.c -------------------------------------------------------- */
/* Pack P and put it; P->segments gets offsets and digests, the variant
 * pack_size.  0, PUSH_TAKEN, or -1.
 */
extern int push_pack (struct push_rp *p);
/* Is the pack at the center, as far as one can tell without reading it all,
 * what P's segments say?  1, 0, or -1.
 */
extern int push_pack_is_ours (struct push_rp *p);
/* The variant ID of M, or NULL. */
extern const struct esp_variant *push_lists (const struct esp_manifest *m,
                                             const char *id);
/* Does the manifest list the variant now?  1, 0, -1. */
extern int push_is_listed (struct push_rp *p);
/* Wait a while for a manifest that lists the variant: PUSH_TAKEN, 0 (nobody
 * seems to work on it), or -1.
 */
extern int push_wait_for_other (struct push_rp *p);
/* Called as raw bytes are packed: progress.  -1: ECANCELED, reported. */
extern int push_tell (struct push *push, uint64_t raw);
/* Segments are complete: offsets, and what the store knew of digests. */
extern int push_settle (struct push_rp *p);

/* --- push-parts.c -------------------------------------------------------- */
/* As push_pack, for packs of several parts: a journal, a multipart upload. */
extern int push_parts (struct push_rp *p);

/* --- push-rp.c ------------------------------------------------------------ */
/* Send what RP's manifest will name: map, pack, index.  Several restore points
 * may do this at once.  P is cleared by push_rp_clear, also after an error.
 */
extern int push_send (struct push *push, const struct esp_rp *rp,
                      unsigned threads, struct push_rp *p);
/* And its manifest; its parent's is there. */
extern int push_commit (struct push_rp *p);
extern void push_rp_clear (struct push_rp *p);
/* Count what was sent. */
extern void push_count (struct push *push, uint64_t stored, uint64_t resumed);

/* --- profiles.c ------------------------------------------------------------ */
/* The store's boot profile of UUID goes to the center, merged with the one
 * that is there; and the other way round.
 */
extern int center_profile_push (struct esp_center *center,
                                const esp_uuid *uuid, uint64_t disk_size);
extern int center_profile_get (struct esp_center *center,
                               const esp_uuid *uuid, uint64_t disk_size,
                               struct esp_profile *out,
                               struct esp_object *version);
extern int center_profile_pull (struct esp_center *center,
                                const esp_uuid *uuid, uint64_t disk_size);

#endif /* ESPALIER_CENTER_PUSH_INTERNAL_H */
