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

#pragma GCC visibility push(default)

/* What stands below, for one call: 0, or -1 with *ERR. */
struct esp_below {
  void *arg;
  int (*pread) (void *arg, void *buf, uint32_t count, uint64_t offset,
                int *err);
};

/* One for each connection; what it caches is shared by all of MEMORY and
 * SHARED (NULL: none) under its id.
 */
struct esp_export;
extern struct esp_export *esp_export_open (struct esp_memory *memory,
                                           struct esp_shared *shared,
                                           const char *id, const char *name,
                                           uint64_t size, unsigned shift);
extern void esp_export_close (struct esp_export *export);

/* Read [OFFSET, OFFSET+COUNT), within the disk.  Errors are those of BELOW. */
extern int esp_export_read (struct esp_export *export,
                            const struct esp_below *below, void *buf,
                            uint32_t count, uint64_t offset, int *err);
/* Fetch it, as for .cache: its own errors are nobody's. */
extern int esp_export_cache (struct esp_export *export,
                             const struct esp_below *below, uint32_t count,
                             uint64_t offset);
/* Around anything that changes [OFFSET, OFFSET+COUNT) below.  BYTES as for
 * esp_memory_write_end.  _begin: -1 with *ERR: do not write.
 */
struct esp_export_write;
extern struct esp_export_write *
esp_export_write_begin (struct esp_export *export, uint64_t offset,
                        uint64_t count, int *err);
extern void esp_export_write_end (struct esp_export_write *write,
                                  const void *bytes);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_EXPORT_H */
