/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fuzzers of a center's objects share: a map, and a key. */

#ifndef ESPALIER_CENTER_FUZZ_H
#define ESPALIER_CENTER_FUZZ_H

#include "patch.h"

#include "center/format.h"
#include "center/keys.h"
#include "util/endian.h"
#include "util/sum.h"

#define CENTER_SIZE ((UINT64_C (130) << 20) + 5000)     /* 3 pages of a map */

/* Data and zeroes in some segments. */
static inline struct esp_map *
center_map (void)
{
  struct esp_map *map = esp_map_new (CENTER_SIZE);

  FUZZ_REQUIRE (map);
  esp_map_set (map, 10, 3, ESP_DATA, NULL);
  esp_map_set (map, 60, 10, ESP_DATA, NULL);
  esp_map_set (map, 100, 700, ESP_ZERO, NULL);
  esp_map_set (map, 33270, 12, ESP_DATA, NULL);
  return map;
}

static inline struct esp_segment_key *
center_key (void)
{
  uint8_t secret[32] = { 1 }, salt[ESP_SALT_SIZE] = { 2 };
  struct esp_segment_key *key = esp_segment_key_from (secret, salt);

  FUZZ_REQUIRE (key);
  return key;
}

/* SOUND with DATA's changes, in memory of its own and of the exact size. */
static inline uint8_t *
center_patched (const void *sound, size_t *len, const struct part *parts,
                unsigned nparts, const uint8_t *data, size_t size)
{
  uint8_t *file = malloc (*len ? *len : 1), *copy;

  memcpy (file, sound, *len);
  patch_apply (file, len, parts, nparts, data, size);
  copy = malloc (*len ? *len : 1);
  memcpy (copy, file, *len);
  free (file);
  return copy;
}

#endif /* ESPALIER_CENTER_FUZZ_H */
