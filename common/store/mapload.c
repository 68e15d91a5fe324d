/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading map files (docs/formats.md, "map"; mapfile.c has the design).
 * Nothing in the file is trusted.  Holes are passed over, so that the
 * mostly empty map of a large disk loads fast.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/cleanups.h"
#include "store/mappriv.h"
#include "util/cleanup.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/host.h"
#include "util/sum.h"

/* What is in a slot. */
enum slot { EMPTY, VALID, DAMAGED, UNKNOWN };

static bool
all_zero (const uint8_t *p, size_t n)
{
  return n == 0 || (p[0] == 0 && memcmp (p, p + 1, n - 1) == 0);
}

struct load {
  struct esp_map *map;
  const char *name;
  bool clean;
  uint64_t digest;
};

static int
damaged (const struct load *l, const char *what)
{
  errno = EBADMSG;
  esp_error ("%s: the map is damaged: %s", l->name, what);
  return -1;
}

/* What is in slot B (or A) of PAGE? */
static enum slot
look (const uint8_t *slot, uint64_t page, bool b)
{
  if (all_zero (slot, SLOT))
    return EMPTY;
  if (esp_get64 (slot + H_SUM) != esp_sum (slot + 8, SLOT - 8) ||
      esp_get32 (slot + H_MAGIC) != MAP_MAGIC)
    return DAMAGED;
  if (esp_get32 (slot + H_VERSION) != MAP_VERSION)
    return UNKNOWN;
  uint64_t generation = esp_get64 (slot + H_GEN);
  if (esp_get64 (slot + H_PAGE) != page || generation == 0 ||
      (generation % 2 == 0) != b ||
      !all_zero (slot + H_END, SLOT_HEAD - H_END))
    return DAMAGED;
  return VALID;
}

/* The newer valid slot of the two of PAGE in *SLOT, NULL where there is
 * none and that is no damage.
 */
static int
choose (const struct load *l, const uint8_t *pair, uint64_t page,
        const uint8_t **slot)
{
  const uint8_t *a = pair, *b = pair + SLOT;
  enum slot in_a = look (a, page, false), in_b = look (b, page, true);

  *slot = NULL;
  if (in_a == UNKNOWN || in_b == UNKNOWN) {
    errno = ENOTSUP;
    esp_error ("%s: the map has a version that this Espalier does not know: "
               "use a newer one", l->name);
    return -1;
  }
  if (in_a == VALID)
    *slot = a;
  if (in_b == VALID && (!*slot || esp_get64 (b + H_GEN) > esp_get64 (a + H_GEN)))
    *slot = b;
  /* Nothing in B, and A damaged: a torn first write, or damage that the
   * digest finds if the file was closed cleanly.
   */
  if (!*slot && in_b == DAMAGED)
    return damaged (l, "neither slot of a page can be read");
  return 0;
}

static int
load_header (struct load *l, int fd)
{
  uint8_t pair[2 * SLOT];
  const uint8_t *slot;

  if (esp_pread_all (fd, pair, sizeof pair, 0) == -1) {
    esp_error ("read: %s: %m", l->name);
    return -1;
  }
  if (choose (l, pair, 0, &slot) == -1)
    return -1;
  if (!slot)
    return damaged (l, "it has no header");

  const uint8_t *p = slot + SLOT_HEAD;
  if (esp_get64 (p + P_SIZE) != l->map->size)
    return damaged (l, "it is of a disk of another size");
  if (esp_get32 (p + P_BLOCK_SHIFT) != ESP_BLOCK_SHIFT ||
      esp_get32 (p + P_TILE_SHIFT) != ESP_TILE_SHIFT ||
      esp_get32 (p + P_PAGE_TILES) != ESP_MAP_PAGE_TILES ||
      esp_get32 (p + P_CLEAN) > 1 ||
      !all_zero (p + P_END, SLOT - SLOT_HEAD - P_END))
    return damaged (l, "its header makes no sense");
  l->clean = esp_get32 (p + P_CLEAN);
  l->digest = esp_get64 (p + P_DIGEST);
  l->map->generation[0] = esp_get64 (slot + H_GEN);
  return 0;
}

static int
load_page (struct load *l, const uint8_t *pair, uint64_t page)
{
  struct esp_map *map = l->map;
  const uint8_t *slot;

  if (choose (l, pair, page, &slot) == -1)
    return -1;
  if (!slot)
    return 0;
  if (!map_put_page (map, page, slot + SLOT_HEAD))
    return damaged (l, "a page has states that make no sense");
  map->generation[page] = esp_get64 (slot + H_GEN);
  return 0;
}

#define BATCH 32u               /* pages that are read at once */

/* Load pages [PAGE, END), which have data in the file. */
static int
load_pages (struct load *l, int fd, uint64_t page, uint64_t end)
{
  CLEANUP_FREE uint8_t *buf = malloc (BATCH * 2 * SLOT);

  if (!buf) {
    esp_error ("map: out of memory: %m");
    return -1;
  }
  while (page < end) {
    uint64_t n = end - page < BATCH ? end - page : BATCH;

    if (esp_pread_all (fd, buf, n * 2 * SLOT, page * 2 * SLOT) == -1) {
      esp_error ("read: %s: %m", l->name);
      return -1;
    }
    for (uint64_t i = 0; i < n; ++i, ++page)
      if (load_page (l, buf + i * 2 * SLOT, page) == -1)
        return -1;
  }
  return 0;
}

/* Load all pages; holes of the file are passed over. */
static int
load_all (struct load *l, int fd)
{
  uint64_t page = 1, last = l->map->npages;

  while (page <= last) {
    off_t data = lseek (fd, page * 2 * SLOT, SEEK_DATA);
    if (data == -1 && errno == ENXIO)
      return 0;                 /* only a hole up to the end */
    off_t hole = data == -1 ? -1 : lseek (fd, data, SEEK_HOLE);
    if (hole == -1) {
      esp_error ("lseek: %s: %m", l->name);
      return -1;
    }
    uint64_t end = (hole + 2 * SLOT - 1) / (2 * SLOT);
    page = data / (2 * SLOT);
    if (end > last + 1)
      end = last + 1;
    if (load_pages (l, fd, page, end) == -1)
      return -1;
    page = end;
  }
  return 0;
}

static int
check_length (const struct load *l, int fd)
{
  struct stat st;

  if (fstat (fd, &st) == -1) {
    esp_error ("stat: %s: %m", l->name);
    return -1;
  }
  if (!S_ISREG (st.st_mode) || (uint64_t) st.st_size != map_file_size (l->map))
    return damaged (l, "it has the wrong length");
  return 0;
}

static int
load_file (struct load *l, int fd, bool writable)
{
  if (check_length (l, fd) == -1 || load_header (l, fd) == -1 ||
      load_all (l, fd) == -1)
    return -1;
  if (l->clean && esp_map_digest (l->map) != l->digest)
    return damaged (l, "pages are missing or old");
  l->map->clean = l->clean;
  /* After a kill the newest slots may be in the page cache only; the first
   * write would go over the older, durable ones.
   */
  if (writable && !l->clean && fdatasync (fd) == -1) {
    esp_error ("fdatasync: %s: %m", l->name);
    return -1;
  }
  return 0;
}

struct esp_map *
esp_map_load (int dirfd, const char *name, uint64_t size, bool writable)
{
  ESP_CLEANUP (map) struct esp_map *map = esp_map_new (size);
  struct load l = { .map = map, .name = name };

  if (!map)
    return NULL;
  CLEANUP_CLOSE int fd = openat (dirfd, name, (writable ? O_RDWR : O_RDONLY) |
                                 O_NOFOLLOW | O_CLOEXEC);
  if (fd == -1) {
    esp_error ("open: %s: %m", name);
    return NULL;
  }
  if (load_file (&l, fd, writable) == -1)
    return NULL;
  if (writable)
    map->fd = esp_steal_fd (&fd);
  return ESP_STEAL (map);
}
