/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of a pull share.  Not for others. */

#ifndef ESPALIER_CENTER_PULL_INTERNAL_H
#define ESPALIER_CENTER_PULL_INTERNAL_H

#include "center/center-internal.h"
#include "store/have.h"

/* One restore point that is to come. */
struct pulled {
  struct esp_manifest m;
  const struct esp_variant *variant;    /* of m */
  struct esp_map *map;
  struct esp_index index;
  struct esp_profile profile;
};

struct pull {
  struct esp_center *center;
  const struct esp_pull_options *options;
  struct esp_transfer *done;
  /* What is to come, tip first; and the first of the chain that the store
   * has already (null: none).
   */
  struct pulled *item;
  size_t n;
  esp_uuid local;
};
extern void pull_clear (struct pull *pull);
#define CLEANUP_PULL __attribute__ ((cleanup (pull_clear)))

/* --- pull-chain.c ------------------------------------------------------- */
/* The manifests of UUID and what it stands on, as far as the store has it
 * not.
 */
extern int pull_chain (struct pull *pull, const esp_uuid *uuid);

/* --- pull-variant.c ------------------------------------------------------ */
/* The variant of M to pull: what the options ask for, else the best.  SHIFT:
 * the segment size that it must have (0: any).  NULL: there is none, reported
 * unless SHIFT.
 */
extern const struct esp_variant *pull_choose (struct pull *pull,
                                              const struct esp_manifest *m,
                                              unsigned shift);
/* The center becomes a further source of what the store has of UUID's chain. */
extern int pull_add_sources (struct pull *pull, const esp_uuid *uuid);

#endif /* ESPALIER_CENTER_PULL_INTERNAL_H */
