/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files that implement store/scrub.h share.  Not for others. */

#ifndef ESPALIER_SCRUB_INTERNAL_H
#define ESPALIER_SCRUB_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "store/map.h"
#include "store/rp-internal.h"

/* The runs of data in a segment, one after another: raw is what they hold. */
struct segment_run {
  const struct esp_map *map;
  uint64_t next, end;           /* blocks */
  uint64_t offset, len;         /* the run, in bytes */
};
extern struct segment_run segment_runs (const struct esp_map *map,
                                        unsigned shift, uint32_t number);
extern bool segment_next (struct segment_run *run);

/* Bytes of the disk that segment NUMBER covers. */
extern uint64_t scrub_extent (const struct esp_rp *rp, unsigned shift,
                              uint32_t number);

/* Write RAW, which was checked, over segment NUMBER of the stored restore
 * point RP, durably.  The caller holds RP's lock (shared will do).
 */
extern int scrub_write (struct esp_store *store, const struct esp_rp *rp,
                        const struct esp_map *map, unsigned shift,
                        uint32_t number, const uint8_t *raw);

#endif /* ESPALIER_SCRUB_INTERNAL_H */
