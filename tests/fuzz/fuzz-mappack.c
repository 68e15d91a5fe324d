/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a packed map, of what is packed in it (PATCH_SEAL: then it is
 * packed again, with a right checksum), or of both: refused with one error,
 * or a map that packs to the same map.
 */

#include "center-fuzz.h"

#include <zstd.h>

#define HEAD 48u
#define RECORD (4 + ESP_MAP_PAGE_BYTES)
#define PAGES 3u                /* at most; center_map has 2 */

static uint8_t *sound;
static size_t sound_len;
static uint8_t records[PAGES * RECORD];
static size_t records_len;

static void
begin (void)
{
  struct esp_map *map = center_map ();

  sound = esp_map_pack (map, &sound_len);
  FUZZ_REQUIRE (sound);
  records_len = ZSTD_decompress (records, sizeof records, sound + HEAD,
                                 sound_len - HEAD);
  FUZZ_REQUIRE (records_len == 2 * RECORD);
  esp_map_free (map);
}

/* The checksum of whatever stands in the records (docs/formats.md, "map"). */
static uint64_t
digest_of (const uint8_t *p, size_t len)
{
  static const uint8_t none[64];
  uint64_t sum = 0;

  for (; len >= RECORD; p += RECORD, len -= RECORD)
    for (unsigned i = 0; i < ESP_MAP_PAGE_TILES; ++i)
      if (memcmp (p + 4 + 64 * i, none, 64) != 0)
        sum += XXH3_64bits_withSeed (p + 4 + 64 * i, 64,
                                     (esp_get32 (p) - UINT64_C (1))
                                     * ESP_MAP_PAGE_TILES + i);
  return sum;
}

/* An object that has changed records in it. */
static uint8_t *
repacked (size_t *len, const uint8_t *data, size_t size)
{
  struct part parts[4] = { { 0, 64 }, { RECORD, 64 },
                           { RECORD - 64, 64 }, { 0, records_len } };
  size_t n = records_len, bound;
  uint8_t *p = center_patched (records, &n, parts, 4, data, size), *out;

  bound = ZSTD_compressBound (n);
  out = malloc (HEAD + bound);
  memcpy (out, sound, HEAD);
  *len = HEAD + ZSTD_compress (out + HEAD, bound, p, n, 1);
  esp_put64 (out + 32, digest_of (p, n));
  esp_put64 (out + 24, n / RECORD);
  esp_put64 (out + 40, *len - HEAD);
  free (p);
  return out;
}

static void
check_map (const struct esp_map *map)
{
  uint64_t blocks = esp_blocks (CENTER_SIZE), run;
  size_t len;
  void *again;
  struct esp_map *twice;

  for (uint64_t b = 0; b < blocks; b += run)
    FUZZ_REQUIRE (esp_map_run (map, b, blocks - b, &run) <= ESP_ZERO);
  again = esp_map_pack (map, &len);
  FUZZ_REQUIRE (again);
  twice = esp_map_unpack (again, len, CENTER_SIZE, "x");
  FUZZ_REQUIRE (twice && esp_map_digest (twice) == esp_map_digest (map));
  esp_map_free (twice);
  free (again);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  uint8_t *buf;
  size_t len;

  if (!sound)
    begin ();
  if (size > 0 && data[0] & PATCH_SEAL)
    buf = repacked (&len, data, size);
  else {
    struct part parts[2] = { { 0, HEAD }, { HEAD, sound_len - HEAD } };

    len = sound_len;
    buf = center_patched (sound, &len, parts, 2, data, size);
  }
  unsigned before = fuzz_errors;
  struct esp_map *map = esp_map_unpack (buf, len, CENTER_SIZE, "x");
  FUZZ_REQUIRE (fuzz_errors == before + (map == NULL));
  if (map)
    check_map (map);
  esp_map_free (map);
  free (buf);
  return 0;
}
