/* SPDX-License-Identifier: BSD-3-Clause */
/* Maps in memory.
 *
 * The words are anonymous memory that is not reserved: a word that nobody
 * set costs nothing, so a map is made for a disk of any size.  Huge pages
 * are refused for it, or one block would cost 2 MiB.  `present` says for
 * each page (63 tiles) whether it may have anything, so that walks skip the
 * rest without touching it.
 *
 * Threads set blocks while others read and one takes snapshots.  A setter
 * marks `present`, changes its words, then marks `dirty`; a snapshot takes
 * the dirty bits away and then copies the words.  All four accesses are
 * sequentially consistent: a setter that finds the dirty bit set already,
 * and so does not write it, has its words seen by whoever takes that bit
 * away.  (A setter that finds its words as it wants them still marks them
 * dirty: the thread that changed them may not have come to that yet.)
 */

#include <config.h>

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/cleanups.h"
#include "store/mappriv.h"
#include "util/cleanup.h"
#include "util/host.h"

static _Atomic uint64_t *
alloc_words (uint64_t nwords)
{
  void *p;

  if (nwords == 0)              /* mmap refuses 0 bytes */
    nwords = 1;
  p = mmap (NULL, nwords * 8, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return NULL;
  /* Only memory is at stake if this fails. */
  (void) madvise (p, nwords * 8, MADV_NOHUGEPAGE);
  return p;
}

struct esp_map *
esp_map_new (uint64_t size)
{
  if (size > ESP_DISK_MAX) {
    errno = EFBIG;
    esp_error ("map: a disk has at most 64 TiB: %m");
    return NULL;
  }

  ESP_CLEANUP (map) struct esp_map *map = calloc (1, sizeof *map);
  if (map) {
    map->fd = -1;
    map->size = size;
    map->nwords = esp_state_words (size);
    map->npages =
      (esp_tiles (size) + ESP_MAP_PAGE_TILES - 1) / ESP_MAP_PAGE_TILES;
    map->words = alloc_words (map->nwords);
    map->dirty = calloc (map_page_bits (map), 8);
    map->present = calloc (map_page_bits (map), 8);
    map->unsynced = calloc (map_page_bits (map), 8);
    map->generation = calloc (map->npages + 1, 8);
  }
  if (!map || !map->words || !map->dirty || !map->present || !map->unsynced ||
      !map->generation) {
    esp_error ("map: out of memory: %m");
    return NULL;
  }
  return ESP_STEAL (map);
}

void
esp_map_free (struct esp_map *map)
{
  if (!map)
    return;
  if (map->words)
    munmap ((void *) map->words, (map->nwords ? map->nwords : 1) * 8);
  if (map->fd >= 0)
    close (map->fd);
  free ((void *) map->dirty);
  free ((void *) map->present);
  free (map->unsynced);
  free (map->generation);
  free (map);
}

static inline uint64_t
word (const struct esp_map *map, uint64_t w)
{
  return atomic_load_explicit (&map->words[w], memory_order_acquire);
}

/* The first word behind W of a page that may have something, at most END:
 * the caller knows that W itself is of a page that has nothing.
 */
static uint64_t
skip_absent (const struct esp_map *map, uint64_t w, uint64_t end)
{
  uint64_t page = w / ESP_MAP_PAGE_WORDS + 1;

  do {
    w = page * ESP_MAP_PAGE_WORDS;
    page++;
  } while (w < end && !esp_map_present (map, page));
  return w < end ? w : end;
}

enum esp_state
esp_map_run (const struct esp_map *map, uint64_t block, uint64_t max,
             uint64_t *run)
{
  uint64_t w = block / ESP_WORD_BLOCKS;
  unsigned shift = 2 * (block % ESP_WORD_BLOCKS);
  uint64_t end = (block + max + ESP_WORD_BLOCKS - 1) / ESP_WORD_BLOCKS;

  assert (max > 0 && end <= map->nwords);

  uint64_t x = word (map, w) >> shift;
  enum esp_state s = x & 3;
  uint64_t fill = esp_states_fill (s);
  uint64_t n = 0;

  x ^= fill >> shift;
  if (x)
    n = __builtin_ctzll (x) / 2;
  else {
    for (w++; w < end; ) {
      if (s == ESP_ABSENT &&
          !esp_map_present (map, w / ESP_MAP_PAGE_WORDS + 1)) {
        w = skip_absent (map, w, end);
        continue;
      }
      x = word (map, w) ^ fill;
      if (x)
        break;
      w++;
    }
    n = w * ESP_WORD_BLOCKS - block;
    if (x && w < end)
      n += __builtin_ctzll (x) / 2;
  }
  *run = n < max ? n : max;
  return s;
}

/* Set the blocks of MASK in one word; the number of blocks that became DATA
 * less those that no longer are.
 */
static int
set_word (_Atomic uint64_t *w, uint64_t mask, uint64_t fill)
{
  uint64_t new, old = atomic_load_explicit (w, memory_order_relaxed);

  do
    new = (old & ~mask) | (fill & mask);
  while (!atomic_compare_exchange_weak (w, &old, new));
  return __builtin_popcountll (new & ESP_STATES_LOW) -
    __builtin_popcountll (old & ESP_STATES_LOW);
}

void
esp_map_set (struct esp_map *map, uint64_t block, uint64_t n,
             enum esp_state s, int64_t *added)
{
  uint64_t fill = esp_states_fill (s);
  int64_t sum = 0;

  assert (block + n >= block && block + n <= esp_blocks (map->size));

  while (n > 0) {
    /* One page at a time: its marks stand around its words. */
    uint64_t page = esp_map_page (block);
    uint64_t left = page * ESP_MAP_PAGE_TILES * ESP_TILE_BLOCKS - block;
    uint64_t in_page = n < left ? n : left;

    n -= in_page;
    map_mark (map->present, page);
    while (in_page > 0) {
      unsigned first = block % ESP_WORD_BLOCKS;
      unsigned k = ESP_WORD_BLOCKS - first;

      if (k > in_page)
        k = in_page;
      sum += set_word (&map->words[block / ESP_WORD_BLOCKS],
                       esp_states_mask (first, k), fill);
      block += k;
      in_page -= k;
    }
    map_mark (map->dirty, page);
  }
  if (added)
    *added = sum;
}

/* Call FN for each page that may have something. */
static void
each_page (const struct esp_map *map,
           void (*fn) (void *arg, uint64_t first, uint64_t n), void *arg)
{
  for (uint64_t i = 0; i < map_page_bits (map); ++i) {
    uint64_t bits = atomic_load_explicit (&map->present[i],
                                          memory_order_acquire);
    for (; bits; bits &= bits - 1) {
      uint64_t first, page = i * 64 + __builtin_ctzll (bits);
      uint64_t n = map_page_words (map, page, &first);

      fn (arg, first, n);
    }
  }
}

struct count {
  const struct esp_map *map;
  uint64_t data, zero;
};

static void
count_page (void *arg, uint64_t first, uint64_t n)
{
  struct count *c = arg;

  for (uint64_t w = first; w < first + n; ++w) {
    uint64_t x = word (c->map, w);
    c->data += __builtin_popcountll (x & ESP_STATES_LOW);
    c->zero += __builtin_popcountll (x & ESP_STATES_HIGH);
  }
}

uint64_t
esp_map_count (const struct esp_map *map, enum esp_state s)
{
  struct count c = { .map = map };

  each_page (map, count_page, &c);
  return s == ESP_DATA ? c.data : s == ESP_ZERO ? c.zero :
    esp_blocks (map->size) - c.data - c.zero;
}

struct digest {
  const struct esp_map *map;
  uint64_t sum;
};

/* The sum of the hashes of all tiles that are not all absent, each hash
 * seeded with the number of its tile: order and layout do not matter.
 */
static void
digest_page (void *arg, uint64_t first, uint64_t n)
{
  struct digest *d = arg;

  for (uint64_t w = first; w < first + n; w += ESP_TILE_WORDS) {
    uint64_t tile[ESP_TILE_WORDS], any = 0;

    for (unsigned i = 0; i < ESP_TILE_WORDS; ++i) {
      tile[i] = htole64 (word (d->map, w + i));
      any |= tile[i];
    }
    if (any)
      d->sum += XXH3_64bits_withSeed (tile, sizeof tile, w / ESP_TILE_WORDS);
  }
}

uint64_t
esp_map_digest (const struct esp_map *map)
{
  struct digest d = { .map = map };

  each_page (map, digest_page, &d);
  return d.sum;
}

struct copy {
  const struct esp_map *from;
  struct esp_map *to;
};

/* Pages cover the same tiles whatever the size, so a page that is short in
 * FROM is the beginning of one in TO.
 */
static void
copy_page (void *arg, uint64_t first, uint64_t n)
{
  struct copy *c = arg;
  uint64_t page = first / ESP_MAP_PAGE_WORDS + 1;

  for (uint64_t w = first; w < first + n; ++w)
    atomic_store_explicit (&c->to->words[w], word (c->from, w),
                           memory_order_relaxed);
  map_mark (c->to->present, page);
  map_mark (c->to->dirty, page);
}

struct esp_map *
esp_map_copy (const struct esp_map *map, uint64_t new_size)
{
  assert (new_size >= map->size);

  struct copy c = { .from = map, .to = esp_map_new (new_size) };
  if (c.to)
    each_page (map, copy_page, &c);
  return c.to;
}
