/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages of a map as bytes: what its file has in a slot (mapfile.c,
 * mapload.c), and what a center keeps of it.
 */

#include <config.h>

#include <string.h>

#include "store/mappriv.h"
#include "util/endian.h"

bool
esp_map_get_page (const struct esp_map *map, uint64_t page,
                  uint8_t states[ESP_MAP_PAGE_BYTES])
{
  uint64_t first, any = 0, n = map_page_words (map, page, &first);

  for (uint64_t i = 0; i < n; ++i) {
    uint64_t x = atomic_load (&map->words[first + i]);

    any |= x;
    esp_put64 (states + i * 8, x);
  }
  memset (states + n * 8, 0, ESP_MAP_PAGE_BYTES - n * 8);
  return any != 0;
}

/* Are blocks behind the end of the disk absent, and is 3 nowhere? */
static bool
states_ok (const struct esp_map *map, const uint8_t *states, uint64_t first)
{
  uint64_t blocks = esp_blocks (map->size);

  for (uint64_t i = 0; i < ESP_MAP_PAGE_WORDS; ++i) {
    uint64_t x = esp_get64 (states + i * 8);
    uint64_t block = (first + i) * ESP_WORD_BLOCKS;

    if (x & (x >> 1) & ESP_STATES_LOW)
      return false;
    if (block >= blocks ? x != 0
        : blocks - block < ESP_WORD_BLOCKS && x >> (2 * (blocks - block)))
      return false;
  }
  return true;
}

bool
map_put_page (struct esp_map *map, uint64_t page, const uint8_t *states)
{
  uint64_t first, n = map_page_words (map, page, &first);

  if (!states_ok (map, states, first))
    return false;
  for (uint64_t i = 0; i < n; ++i)
    atomic_store_explicit (&map->words[first + i], esp_get64 (states + i * 8),
                           memory_order_relaxed);
  map_mark (map->present, page);
  return true;
}

bool
esp_map_set_page (struct esp_map *map, uint64_t page,
                  const uint8_t states[ESP_MAP_PAGE_BYTES])
{
  if (!map_put_page (map, page, states))
    return false;
  map_mark (map->dirty, page);
  return true;
}
