/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk of any plugin behind the cache: what the segcache filter does over
 * other plugins than venue, without nbdkit.
 */

#ifndef ESPALIER_CACHE_EXPORT_H
#define ESPALIER_CACHE_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/memory.h"
#include "cache/shared.h"
#include "stats/stats.h"

#pragma GCC visibility push(default)

/* What stands below, for one call: 0, or -1 with *ERR.  May be called by
 * several threads at once.
 */
struct esp_cdisk_below {
  void *arg;
  int (*pread) (void *arg, void *buf, uint32_t count, uint64_t offset,
                int *err);
  /* Asked, some times a second, by a thread that waits for another's fetch:
   * is the server ending, or the client gone?  Then the read fails with
   * ESHUTDOWN.  NULL: it never is.
   */
  bool (*ending) (void);
};

struct esp_cdisk_params {
  const char *id;               /* segcache-id, "" for none */
  const char *name;             /* of the export */
  uint64_t size;                /* bytes */
  unsigned shift;               /* of a segment, as MEMORY's */
  uint32_t block_min, block_max;        /* what reads below must be multiples
                                         * of, at most; 0: any */
  struct esp_stats_row *row;    /* or NULL: where ESP_DISK_MISSES and
                                 * ESP_DISK_WAITED_US are counted */
};

/* One for each connection; what it caches is shared by all of MEMORY and
 * SHARED (NULL: none) that have the same id, name and size.  ROW, MEMORY and
 * SHARED outlive it.  NULL, reported: EFBIG (too many segments), ENOMEM.
 */
struct esp_cdisk;
extern struct esp_cdisk *esp_cdisk_open (struct esp_memory *memory,
                                         struct esp_shared *shared,
                                         const struct esp_cdisk_params *p);
extern void esp_cdisk_close (struct esp_cdisk *disk);

/* Read [OFFSET, OFFSET+COUNT), within the disk.  -1 with *ERR, not reported:
 * those of BELOW, ENOMEM, ESHUTDOWN.
 */
extern int esp_cdisk_read (struct esp_cdisk *disk,
                           const struct esp_cdisk_below *below, void *buf,
                           uint32_t count, uint64_t offset, int *err);
/* Bring its segments in.  What cannot be read is left out: there are no
 * errors.
 */
extern void esp_cdisk_fetch (struct esp_cdisk *disk,
                             const struct esp_cdisk_below *below,
                             uint32_t count, uint64_t offset);

/* Around anything that changes [OFFSET, OFFSET+COUNT) below.  BYTES as for
 * esp_memory_write_end.  _begin: NULL with *ERR, not reported: do not write.
 */
struct esp_cdisk_write;
extern struct esp_cdisk_write *
esp_cdisk_write_begin (struct esp_cdisk *disk, uint64_t offset,
                       uint32_t count, int *err);
extern void esp_cdisk_write_end (struct esp_cdisk_write *write,
                                 const void *bytes);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_EXPORT_H */
