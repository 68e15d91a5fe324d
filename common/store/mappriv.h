/* SPDX-License-Identifier: BSD-3-Clause */
/* What map.c (in memory), mapfile.c (writing) and mapload.c (reading)
 * share.
 */

#ifndef ESPALIER_MAPPRIV_H
#define ESPALIER_MAPPRIV_H

#include <assert.h>

#include "store/map.h"

/* --- the file (docs/formats.md, "map") -------------------------------- */
#define SLOT 4096u              /* bytes of a slot */
#define SLOT_HEAD 64u           /* of them, its header */
#define MAP_MAGIC 0x50414d45u   /* "EMAP" */
#define MAP_VERSION 1u

/* Offsets in a slot's header. */
enum { H_SUM = 0, H_MAGIC = 8, H_VERSION = 12, H_PAGE = 16, H_GEN = 24,
       H_END = 32 };
/* Offsets in the payload of page 0. */
enum { P_SIZE = 0, P_BLOCK_SHIFT = 8, P_TILE_SHIFT = 12, P_CLEAN = 16,
       P_PAGE_TILES = 20, P_DIGEST = 24, P_END = 32 };

static_assert (SLOT_HEAD + ESP_MAP_PAGE_WORDS * 8 == SLOT, "a page fits");

/* Where a slot of PAGE stands, and how long the file is. */
static inline uint64_t
map_slot_offset (uint64_t page, uint64_t generation)
{
  return (2 * page + (generation % 2 == 0)) * SLOT;
}

static inline uint64_t
map_file_size (const struct esp_map *map)
{
  return 2 * (map->npages + 1) * SLOT;
}

/* --- in memory -------------------------------------------------------- */

/* The words of a page: [*first, *first + result). */
static inline uint64_t
map_page_words (const struct esp_map *map, uint64_t page, uint64_t *first)
{
  *first = (page - 1) * ESP_MAP_PAGE_WORDS;
  uint64_t left = map->nwords - *first;
  return left < ESP_MAP_PAGE_WORDS ? left : ESP_MAP_PAGE_WORDS;
}

/* The number of words of a table with a bit for each page, 0 included. */
static inline uint64_t
map_page_bits (const struct esp_map *map)
{
  return map->npages / 64 + 1;
}

/* Set PAGE's bit in a table that other threads use. */
static inline void
map_mark (_Atomic uint64_t *table, uint64_t page)
{
  uint64_t bit = UINT64_C (1) << (page % 64);

  /* The load is sequentially consistent: see esp_map_set. */
  if (!(atomic_load (&table[page / 64]) & bit))
    atomic_fetch_or (&table[page / 64], bit);
}

/* esp_map_set_page without the mark: the page is what the file has. */
extern bool map_put_page (struct esp_map *map, uint64_t page,
                          const uint8_t *states);

#endif /* ESPALIER_MAPPRIV_H */
