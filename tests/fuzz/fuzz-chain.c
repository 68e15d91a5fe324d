/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a chain map, with right or wrong checksums: look-ups give
 * an error or an answer within bounds, what passes the check gives no error
 * at all, and a child's chain map built over it is sound or is not built.
 */

#include "patch.h"

#include "chain/chain.h"
#include "util/endian.h"
#include "util/sum.h"

#define SIZE ((UINT64_C (5) << 20) - 30000)
#define BLOCKS 1273u
#define DEPTH 3u

/* docs/formats.md, "chain". */
#define OWNERS_AT 4096u
#define BODY_AT 8192u
#define CHUNK 65536u

static char *sound;
static size_t sound_len;
static uint8_t *file;
static struct part parts[6];

static void
make_sound (void)
{
  struct esp_chain *parent = NULL;
  char name[] = "0";

  for (unsigned d = 0; d < DEPTH; ++d, ++name[0]) {
    struct esp_map *map = esp_map_new (SIZE);
    esp_uuid u = { .b = { d + 1 } };

    esp_map_set (map, 100 + d * 300, 290, ESP_DATA, NULL);
    esp_map_set (map, 900 + d * 7, 5, ESP_ZERO, NULL);
    FUZZ_REQUIRE (esp_chain_build (patch_dirfd, name, &u, map, parent) == 0);
    esp_map_free (map);
    esp_chain_close (parent);
    parent = esp_chain_open (patch_dirfd, name);
  }
  FUZZ_REQUIRE (esp_chain_subtables (parent) > 1);
  esp_chain_close (parent);
  name[0]--;
  FUZZ_REQUIRE (esp_read_file (patch_dirfd, name, 1 << 20, &sound,
                               &sound_len) == 0);
}

static void
begin (void)
{
  patch_begin ();
  make_sound ();
  file = malloc (sound_len);
  size_t sums_at = esp_get64 (sound + 72);
  parts[0] = (struct part) { 0, 128 };
  parts[1] = (struct part) { OWNERS_AT, DEPTH * 16 };
  parts[2] = (struct part) { BODY_AT, 64 };
  parts[3] = (struct part) { BODY_AT + CHUNK, sums_at - BODY_AT - CHUNK };
  parts[4] = (struct part) { sums_at, sound_len - sums_at };
  parts[5] = (struct part) { 0, sound_len };
}

/* Right checksums for whatever stands in FILE, as the sound one is laid
 * out.
 */
static void
seal (void)
{
  size_t sums_at = esp_get64 (sound + 72), n = sums_at - BODY_AT;

  for (size_t i = 0; i * CHUNK < n; ++i) {
    size_t len = n - i * CHUNK < CHUNK ? n - i * CHUNK : CHUNK;
    esp_put64 (file + sums_at + 8 * i,
               esp_sum (file + BODY_AT + i * CHUNK, len));
  }
  esp_put64 (file + 104, esp_sum (file + OWNERS_AT, DEPTH * 16));
  esp_put64 (file + 112, esp_sum (file + sums_at, sound_len - sums_at));
  esp_put64 (file + 4088, esp_sum (file, 4088));
}

/* Look at all of CHAIN; the number of errors. */
static unsigned
use (struct esp_chain *chain)
{
  uint64_t blocks = esp_blocks (esp_chain_size (chain)), n;
  unsigned errors = 0, owner;

  for (uint64_t b = 0; b < blocks && errors < 20; b += n) {
    struct esp_run run;

    n = 1;
    if (esp_chain_run (chain, b, blocks - b, &run) == -1) {
      errors++;
      continue;
    }
    n = run.nblocks;
    FUZZ_REQUIRE (n >= 1 && n <= blocks - b);
    FUZZ_REQUIRE (run.state <= ESP_ZERO);
    FUZZ_REQUIRE (run.owner <= esp_chain_depth (chain));
    FUZZ_REQUIRE ((run.owner == 0) == (run.state == ESP_ABSENT));
  }
  if (esp_chain_newest (chain, 0, esp_chain_size (chain), &owner) == -1)
    errors++;
  else
    FUZZ_REQUIRE (owner <= esp_chain_depth (chain));
  return errors;
}

static void
build_over (struct esp_chain *parent)
{
  struct esp_map *map = esp_map_new (esp_chain_size (parent) + 5000000);
  esp_uuid u = { .b = { 99 } };
  uint64_t bad_at;

  FUZZ_REQUIRE (map);
  esp_map_set (map, 3, 7, ESP_ZERO, NULL);
  if (esp_chain_build (patch_dirfd, "y", &u, map, parent) == 0) {
    struct esp_chain *child = esp_chain_open (patch_dirfd, "y");
    FUZZ_REQUIRE (child);
    FUZZ_REQUIRE (esp_chain_check (child, &bad_at) == 0);
    FUZZ_REQUIRE (use (child) == 0);
    esp_chain_close (child);
    unlinkat (patch_dirfd, "y", 0);
  }
  esp_map_free (map);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  uint64_t bad_at;

  if (!file)
    begin ();
  size_t len = sound_len;
  memcpy (file, sound, len);
  patch_apply (file, &len, parts, 6, data, size);
  if (size > 0 && data[0] & PATCH_SEAL)
    seal ();
  patch_write (file, len);

  unsigned before = fuzz_errors;
  struct esp_chain *chain = esp_chain_open (patch_dirfd, "x");
  FUZZ_REQUIRE (fuzz_errors == before + (chain == NULL));
  if (!chain)
    return 0;
  unsigned errors = use (chain);
  FUZZ_REQUIRE (fuzz_errors == before + (errors > 0));
  if (esp_chain_check (chain, &bad_at) == 0)
    FUZZ_REQUIRE (errors == 0);
  if (errors == 0)
    build_over (chain);
  esp_chain_close (chain);
  return 0;
}
