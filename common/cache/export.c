/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks of any plugin behind the cache.
 *
 * A request is walked segment by segment.  What memory has is copied at once,
 * without waiting for anybody; from the first segment on that it has not, the
 * rest of the request is export-miss.c's.
 *
 * Coherence is memory.c's and shared.c's: a write tells both before it goes
 * below and after it is back, in this order, so that who misses meanwhile
 * keeps nothing that is older than the write.  Memory comes first at the
 * beginning and last in the end: while the shared tiers do not know of the
 * write, nothing that they give stays in memory.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "cache/export-internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#define BLOCK 4096u             /* memory's unit */

static bool
keeps_nothing (struct esp_memory *memory)
{
  struct esp_memory_counters c;

  esp_memory_counters (memory, &c);
  return c.max == 0;
}

struct esp_cdisk *
esp_cdisk_open (struct esp_memory *memory, struct esp_shared *shared,
                const struct esp_cdisk_params *p)
{
  if (p->size > 0 && (p->size - 1) >> p->shift > UINT32_MAX) {
    errno = EFBIG;
    esp_error ("segcache: the disk is too large for segments of %uK: "
               "give a larger segcache-segment", 1u << (p->shift - 10));
    return NULL;
  }
  struct esp_cdisk *disk = calloc (1, sizeof *disk);
  if (!disk) {
    esp_error ("calloc: %m");
    return NULL;
  }
  disk->memory = memory;
  disk->shared = shared;
  disk->key.kind = ESP_CACHE_EXPORT;
  disk->key.shift = (uint8_t) p->shift;
  esp_cache_export_id (p->id, p->name, p->size, disk->key.id);
  disk->size = p->size;
  disk->block_max = p->block_max ? p->block_max : UINT32_MAX;
  /* Parts are memory's: without it, and where the plugin wants larger ones,
   * there is no use in them.
   */
  disk->whole = p->block_min > BLOCK || (shared && keeps_nothing (memory));
  disk->row = p->row ? p->row : &disk->nobody;
  return disk;
}

void
esp_cdisk_close (struct esp_cdisk *disk)
{
  free (disk);
}

/* --- reads ----------------------------------------------------------------- */

/* How much of the request memory gave, from its beginning. */
static uint32_t
read_memory (struct esp_cdisk *disk, uint8_t *buf, uint32_t count,
             uint64_t offset)
{
  const uint64_t end = offset + count;
  uint32_t done = 0;

  while (done < count) {
    struct cdisk_part p = cdisk_part (disk, offset + done, end);
    if (!esp_memory_read (disk->memory, &p.key, buf + done, p.at, p.len))
      break;
    done += p.len;
  }
  return done;
}

static int
read_missed (struct esp_cdisk *disk, const struct esp_cdisk_below *below,
             uint8_t *buf, uint64_t offset, uint64_t end, int *err)
{
  uint64_t begin = esp_now_us ();
  int r = cdisk_miss (disk, below, buf, offset, end, err);

  ESP_STATS_ADD (disk->row, ESP_DISK_MISSES, 1);
  ESP_STATS_ADD (disk->row, ESP_DISK_WAITED_US, esp_now_us () - begin);
  return r;
}

int
esp_cdisk_read (struct esp_cdisk *disk, const struct esp_cdisk_below *below,
                void *buf, uint32_t count, uint64_t offset, int *err)
{
  uint32_t done = read_memory (disk, buf, count, offset);

  if (done == count)
    return 0;
  return read_missed (disk, below, (uint8_t *) buf + done, offset + done,
                      offset + count, err);
}

/* A hint: where there is no room nothing is fetched, and errors are for who
 * reads.
 */
void
esp_cdisk_fetch (struct esp_cdisk *disk, const struct esp_cdisk_below *below,
                 uint32_t count, uint64_t offset)
{
  enum { MOST = 4 << 20 };
  uint32_t room = count < MOST ? count : MOST;
  CLEANUP_FREE uint8_t *nowhere = malloc (room);
  int err = 0;

  while (nowhere && count > 0) {
    uint32_t n = count < room ? count : room;
    uint32_t done = read_memory (disk, nowhere, n, offset);
    if (cdisk_miss (disk, below, nowhere, offset + done, offset + n,
                    &err) == -1)
      return;                   /* each further one may cost a time-out */
    count -= n;
    offset += n;
  }
}

/* --- writes ---------------------------------------------------------------- */

struct esp_cdisk_write {
  struct esp_cdisk *disk;
  uint64_t offset, end;
  uint32_t begun;               /* of WRITE */
  struct esp_memory_write write[];
};

static int
begin_part (struct esp_cdisk_write *w, const struct cdisk_part *p)
{
  struct esp_cdisk *disk = w->disk;

  if (esp_memory_write_begin (disk->memory, &p->key, p->at, p->len,
                              &w->write[w->begun]) == -1)
    return -1;
  w->begun++;
  if (disk->shared)
    esp_shared_write_begin (disk->shared, &p->key);
  return 0;
}

struct esp_cdisk_write *
esp_cdisk_write_begin (struct esp_cdisk *disk, uint64_t offset,
                       uint32_t count, int *err)
{
  const uint64_t end = offset + count;
  size_t n = count ? cdisk_parts (disk, offset, end) : 0;
  struct esp_cdisk_write *w = malloc (sizeof *w + n * sizeof *w->write);

  if (!w) {
    *err = ENOMEM;
    return NULL;
  }
  *w = (struct esp_cdisk_write) { .disk = disk, .offset = offset, .end = end };
  while (offset < end) {
    struct cdisk_part p = cdisk_part (disk, offset, end);
    if (begin_part (w, &p) == -1) {
      esp_cdisk_write_end (w, NULL);
      *err = ENOMEM;
      return NULL;
    }
    offset += p.len;
  }
  return w;
}

void
esp_cdisk_write_end (struct esp_cdisk_write *w, const void *bytes)
{
  struct esp_cdisk *disk = w->disk;
  const uint8_t *from = bytes;
  uint64_t offset = w->offset;

  for (uint32_t i = 0; i < w->begun; ++i) {
    struct cdisk_part p = cdisk_part (disk, offset, w->end);
    if (disk->shared)
      esp_shared_write_end (disk->shared, &p.key);
    esp_memory_write_end (disk->memory, &w->write[i],
                          from ? from + (offset - w->offset) : NULL);
    offset += p.len;
  }
  free (w);
}
