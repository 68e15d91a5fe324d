/* SPDX-License-Identifier: BSD-3-Clause */
/* Maps on disk (docs/formats.md, "map").
 *
 * The file is made of pages of 4 KiB, each with two slots; a sequence
 * number, the generation, says which slot is newer: odd ones are in slot
 * A, even ones in B.  A write goes to the slot that does not have the
 * newest durable generation, so whatever becomes of it, the older one can
 * be read.  Generations advance only when the file was synced: what was
 * written without a sync is written again in the same place, and never over
 * the slot that a power loss would need.
 *
 * Page 0 is the header.  Its `clean` mark says that no write was under way:
 * then the digest of all states stands beside it, and damage to a page
 * whose other slot is older, or empty, is found.  Without the mark a page
 * of which only slot A has something, and that is damaged, is a first write
 * that was torn: nothing that was synced is in it.
 *
 * Order of a write: the mark goes away durably, pages, sync.  Order of the
 * mark: pages durable, header, sync.
 */

#include <config.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/mappriv.h"
#include "util/cleanup.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/host.h"
#include "util/sum.h"

static void
seal (uint8_t *slot, uint64_t page, uint64_t generation)
{
  memset (slot, 0, SLOT_HEAD);
  esp_put32 (slot + H_MAGIC, MAP_MAGIC);
  esp_put32 (slot + H_VERSION, MAP_VERSION);
  esp_put64 (slot + H_PAGE, page);
  esp_put64 (slot + H_GEN, generation);
  esp_put64 (slot + H_SUM, esp_sum (slot + 8, SLOT - 8));
}

static int
put_slot (struct esp_map *map, int fd, uint8_t *slot, uint64_t page)
{
  uint64_t generation = map->generation[page] + 1;

  /* Until it is written the slot is worth nothing. */
  map->unsynced[page / 64] &= ~(UINT64_C (1) << (page % 64));
  seal (slot, page, generation);
  if (esp_pwrite_all (fd, slot, SLOT, map_slot_offset (page, generation)) == -1) {
    esp_error ("write: map: %m");
    return -1;
  }
  map->unsynced[page / 64] |= UINT64_C (1) << (page % 64);
  return 0;
}

/* Make durable what was written. */
static int
sync_file (struct esp_map *map, int fd)
{
  uint64_t any = 0;

  for (uint64_t i = 0; i < map_page_bits (map); ++i)
    any |= map->unsynced[i];
  if (!any)
    return 0;
  if (esp_sync_data (fd) == -1) {
    esp_error ("fdatasync: map: %m");
    return -1;
  }
  for (uint64_t i = 0; i < map_page_bits (map); ++i) {
    for (uint64_t bits = map->unsynced[i]; bits; bits &= bits - 1)
      map->generation[i * 64 + __builtin_ctzll (bits)]++;
    map->unsynced[i] = 0;
  }
  return 0;
}

static int
put_header (struct esp_map *map, int fd, bool clean)
{
  uint8_t slot[SLOT] = { 0 };
  uint8_t *p = slot + SLOT_HEAD;

  esp_put64 (p + P_SIZE, map->size);
  esp_put32 (p + P_BLOCK_SHIFT, ESP_BLOCK_SHIFT);
  esp_put32 (p + P_TILE_SHIFT, ESP_TILE_SHIFT);
  esp_put32 (p + P_CLEAN, clean);
  esp_put32 (p + P_PAGE_TILES, ESP_MAP_PAGE_TILES);
  esp_put64 (p + P_DIGEST, clean ? esp_map_digest (map) : 0);
  if (put_slot (map, fd, slot, 0) == -1 || sync_file (map, fd) == -1)
    return -1;
  map->clean = clean;
  return 0;
}

int
esp_map_mark_clean (struct esp_map *map)
{
  assert (map->fd >= 0);
  if (map->clean)
    return 0;
  if (sync_file (map, map->fd) == -1)
    return -1;
  return put_header (map, map->fd, true);
}

static int
put_present (struct esp_map *map, int fd)
{
  for (uint64_t page = 1; page <= map->npages; ++page) {
    uint8_t slot[SLOT];

    if (!esp_map_present (map, page))
      continue;
    esp_map_get_page (map, page, slot + SLOT_HEAD);
    if (put_slot (map, fd, slot, page) == -1)
      return -1;
  }
  return 0;
}

static int
fill_file (struct esp_map *map, int fd)
{
  if (ftruncate (fd, map_file_size (map)) == -1) {
    esp_error ("ftruncate: map: %m");
    return -1;
  }
  /* The file is not visible yet: one sync for header and pages. */
  for (uint64_t i = 0; i < map_page_bits (map); ++i)
    atomic_exchange (&map->dirty[i], 0);
  if (put_present (map, fd) == -1 || put_header (map, fd, false) == -1)
    return -1;
  return 0;
}

/* Nothing of MAP is on disk. */
static void
forget_file (struct esp_map *map)
{
  memset (map->generation, 0, (map->npages + 1) * 8);
  memset (map->unsynced, 0, map_page_bits (map) * 8);
  map->clean = false;
}

int
esp_map_create (struct esp_map *map, int dirfd, const char *name)
{
  CLEANUP_FREE char *tmp = esp_asprintf ("%s.new", name);
  if (!tmp) {
    esp_error ("map: out of memory: %m");
    return -1;
  }
  assert (map->fd == -1);
  forget_file (map);

  CLEANUP_CLOSE int fd = openat (dirfd, tmp, O_RDWR | O_CREAT | O_TRUNC |
                                 O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd == -1) {
    esp_error ("open: %s: %m", tmp);
    return -1;
  }
  int r = fill_file (map, fd);
  if (r == 0 && (r = renameat2 (dirfd, tmp, dirfd, name,
                                RENAME_NOREPLACE)) == -1)
    esp_error ("rename: %s: %m", tmp);
  if (r == -1) {
    int saved = errno;
    unlinkat (dirfd, tmp, 0);
    /* All of it is to be written, should the caller try again. */
    for (uint64_t page = 1; page <= map->npages; ++page)
      if (esp_map_present (map, page))
        map_mark (map->dirty, page);
    forget_file (map);
    errno = saved;
    return -1;
  }
  map->fd = esp_steal_fd (&fd);
  return 0;
}

/* --- snapshots -------------------------------------------------------- */

struct esp_map_snapshot {
  uint64_t n;                   /* pages */
  uint8_t *slots;               /* of each page in `taken`, in order */
  uint64_t taken[];             /* a bit a page */
};

static void
free_snapshot (struct esp_map_snapshot *s)
{
  free (s->slots);
  free (s);
}

/* Call FN for each page of S; it returns 0 to go on. */
static int
each_taken (struct esp_map *map, struct esp_map_snapshot *s,
            int (*fn) (struct esp_map *map, uint64_t page, uint8_t *slot))
{
  uint64_t n = 0;

  for (uint64_t i = 0; i < map_page_bits (map); ++i)
    for (uint64_t bits = s->taken[i]; bits; bits &= bits - 1, ++n)
      if (fn (map, i * 64 + __builtin_ctzll (bits),
              s->slots ? s->slots + n * SLOT : NULL) == -1)
        return -1;
  return 0;
}

static int
dirty_page (struct esp_map *map, uint64_t page, uint8_t *slot)
{
  (void) slot;
  map_mark (map->dirty, page);
  return 0;
}

void
esp_map_discard_snapshot (struct esp_map *map, struct esp_map_snapshot *s)
{
  if (!s)
    return;
  int saved = errno;
  each_taken (map, s, dirty_page);
  free_snapshot (s);
  errno = saved;
}

static bool
is_dirty (const struct esp_map *map)
{
  for (uint64_t i = 0; i < map_page_bits (map); ++i)
    if (atomic_load (&map->dirty[i]))
      return true;
  return false;
}

static int
copy_page (struct esp_map *map, uint64_t page, uint8_t *slot)
{
  esp_map_get_page (map, page, slot + SLOT_HEAD);
  return 0;
}

struct esp_map_snapshot *
esp_map_snapshot (struct esp_map *map, bool *empty)
{
  struct esp_map_snapshot *s;

  *empty = !is_dirty (map);
  if (*empty)
    return NULL;
  s = calloc (1, sizeof *s + map_page_bits (map) * 8);
  if (!s) {
    esp_error ("map: out of memory: %m");
    return NULL;
  }
  for (uint64_t i = 0; i < map_page_bits (map); ++i)
    if (atomic_load (&map->dirty[i])) {
      s->taken[i] = atomic_exchange (&map->dirty[i], 0);
      s->n += __builtin_popcountll (s->taken[i]);
    }
  s->slots = malloc (s->n * SLOT);
  if (!s->slots) {
    esp_error ("map: out of memory: %m");
    esp_map_discard_snapshot (map, s);
    return NULL;
  }
  each_taken (map, s, copy_page);
  return s;
}

static int
write_page (struct esp_map *map, uint64_t page, uint8_t *slot)
{
  return put_slot (map, map->fd, slot, page);
}

int
esp_map_write (struct esp_map *map, struct esp_map_snapshot *s, bool sync)
{
  assert (map->fd >= 0);
  if (s && ((map->clean && put_header (map, map->fd, false) == -1) ||
            each_taken (map, s, write_page) == -1)) {
    esp_map_discard_snapshot (map, s);
    return -1;
  }
  if (sync && sync_file (map, map->fd) == -1) {
    esp_map_discard_snapshot (map, s);
    return -1;
  }
  if (s)
    free_snapshot (s);
  return 0;
}
