/* SPDX-License-Identifier: BSD-3-Clause */
/* Packing a restore point's segments by several threads, in order.  Inside
 * the library only.
 */

#ifndef ESPALIER_CENTER_PACKING_H
#define ESPALIER_CENTER_PACKING_H

#include <stddef.h>
#include <stdint.h>

#include "center/format.h"
#include "store/layer.h"

struct packing {
  struct layer *layer;          /* whose blocks */
  const struct esp_map *map;
  unsigned shift;
  enum esp_codec codec;
  int level;
  const struct esp_segment_key *key;    /* NULL: not encrypted */
  unsigned threads;
  /* One for each segment that has data: NUMBER is filled in by the caller,
   * STORED and DIGEST by packing_run.
   */
  struct esp_segment *segments;
  size_t n;
};

/* The segments of MAP that have data: a malloced table of *N with NUMBER
 * filled in.  NULL with ENOMEM, reported.
 */
extern struct esp_segment *packing_segments (const struct esp_map *map,
                                             unsigned shift, size_t *n);

/* Pack entries [FIRST, FIRST+N); EMIT gets each in order, by this thread, with
 * the length of raw.  It returns 0, or -1 (reported) to end it.
 */
typedef int (*packing_fn) (void *arg, size_t entry, const void *stored,
                           size_t len, size_t raw);
extern int packing_run (struct packing *p, size_t first, size_t n,
                        packing_fn emit, void *arg);

/* Read the raw bytes of segment NUMBER (at most 1 << SHIFT); *LEN gets their
 * number.
 */
extern int packing_raw (struct layer *layer, const struct esp_map *map,
                        unsigned shift, uint32_t number, void *raw,
                        size_t *len);

#endif /* ESPALIER_CENTER_PACKING_H */
