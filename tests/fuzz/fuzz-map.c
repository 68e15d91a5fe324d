/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a map file, with right or wrong checksums: it is refused
 * with one error, or is a map of states that make sense, which can be
 * written to and read again.
 */

#include "patch.h"

#include "store/map.h"
#include "util/endian.h"
#include "util/sum.h"

#define SIZE ((UINT64_C (130) << 20) + 5000)    /* 3 pages, the last partial */
#define SLOT 4096u
#define LEN (2 * SLOT * 4)

static char *sound;
static uint8_t file[LEN];

/* Each slot's header and the beginning of its payload; or anything. */
static struct part parts[9];

static void
flush (struct esp_map *map)
{
  bool empty;
  struct esp_map_snapshot *s = esp_map_snapshot (map, &empty);

  FUZZ_REQUIRE (empty || s);
  FUZZ_REQUIRE (esp_map_write (map, s, true) == 0);
}

static void
begin (void)
{
  struct esp_map *map = esp_map_new (SIZE);
  size_t len;

  patch_begin ();
  esp_map_set (map, 100, 33000, ESP_DATA, NULL);
  FUZZ_REQUIRE (esp_map_create (map, patch_dirfd, "sound") == 0);
  esp_map_set (map, 1, 4, ESP_ZERO, NULL);
  flush (map);
  FUZZ_REQUIRE (esp_map_mark_clean (map) == 0);
  esp_map_free (map);
  FUZZ_REQUIRE (esp_read_file (patch_dirfd, "sound", LEN, &sound, &len) == 0);
  FUZZ_REQUIRE (len == LEN);
  for (unsigned i = 0; i < 8; ++i)
    parts[i] = (struct part) { i * SLOT, 128 };
  parts[8] = (struct part) { 0, LEN };
}

static void
seal (void)
{
  for (uint8_t *slot = file; slot < file + LEN; slot += SLOT)
    if (esp_get32 (slot + 8) != 0)
      esp_put64 (slot, esp_sum (slot + 8, SLOT - 8));
}

static void
use (struct esp_map *map)
{
  uint64_t blocks = esp_blocks (SIZE), run, sum = 0;

  for (uint64_t b = 0; b < blocks; b += run)
    FUZZ_REQUIRE (esp_map_run (map, b, blocks - b, &run) <= ESP_ZERO);
  for (unsigned s = 0; s < 3; ++s)
    sum += esp_map_count (map, s);
  FUZZ_REQUIRE (sum == blocks);
  esp_map_set (map, 77, 30000, ESP_DATA, NULL);
  flush (map);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  size_t len = LEN;

  if (!sound)
    begin ();
  memcpy (file, sound, LEN);
  patch_apply (file, &len, parts, 9, data, size);
  if (size > 0 && data[0] & PATCH_SEAL)
    seal ();
  patch_write (file, len);

  unsigned before = fuzz_errors;
  struct esp_map *map = esp_map_load (patch_dirfd, "x", SIZE, true);
  FUZZ_REQUIRE (fuzz_errors == before + (map == NULL));
  if (!map)
    return 0;
  use (map);
  uint64_t digest = esp_map_digest (map);
  esp_map_free (map);
  map = esp_map_load (patch_dirfd, "x", SIZE, false);
  FUZZ_REQUIRE (map && esp_map_digest (map) == digest);
  esp_map_free (map);
  return 0;
}
