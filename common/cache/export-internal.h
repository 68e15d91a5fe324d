/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks behind the cache: not for others than export*.c. */

#ifndef ESPALIER_CACHE_EXPORT_INTERNAL_H
#define ESPALIER_CACHE_EXPORT_INTERNAL_H

#include "cache/export.h"

struct esp_cdisk {
  struct esp_memory *memory;
  struct esp_shared *shared;    /* or NULL */
  struct esp_cache_key key;     /* of segment 0 */
  uint64_t size;
  uint32_t block_max;           /* of one read below */
  bool whole;                   /* a miss always fetches its whole segment */
  struct esp_stats_row *row;
  struct esp_stats_row nobody;  /* ROW, where none was given */
};

/* What of [OFFSET, END) lies in OFFSET's segment. */
struct cdisk_part {
  struct esp_cache_key key;
  uint32_t at, len;             /* in the segment */
};

static inline struct cdisk_part
cdisk_part (const struct esp_cdisk *disk, uint64_t offset, uint64_t end)
{
  uint32_t segment = UINT32_C (1) << disk->key.shift;
  struct cdisk_part p = { .key = disk->key };

  p.key.segment = (uint32_t) (offset >> disk->key.shift);
  p.at = (uint32_t) offset & (segment - 1);
  p.len = segment - p.at;
  if (p.len > end - offset)
    p.len = (uint32_t) (end - offset);
  return p;
}

/* How many segments [OFFSET, END) touches; it is not empty. */
static inline uint32_t
cdisk_parts (const struct esp_cdisk *disk, uint64_t offset, uint64_t end)
{
  unsigned shift = disk->key.shift;

  return (uint32_t) (((end - 1) >> shift) - (offset >> shift)) + 1;
}

/* How long SEGMENT is: the disk's last one may be short. */
static inline uint32_t
cdisk_segment_len (const struct esp_cdisk *disk, uint32_t segment)
{
  uint64_t begin = (uint64_t) segment << disk->key.shift;
  uint32_t len = UINT32_C (1) << disk->key.shift;

  return len < disk->size - begin ? len : (uint32_t) (disk->size - begin);
}

/* Read [OFFSET, END), of which the beginning is not in memory (nothing where
 * it is empty).  As esp_cdisk_read.
 */
extern int cdisk_miss (struct esp_cdisk *disk,
                       const struct esp_cdisk_below *below, uint8_t *buf,
                       uint64_t offset, uint64_t end, int *err);

#endif /* ESPALIER_CACHE_EXPORT_INTERNAL_H */
