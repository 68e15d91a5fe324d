/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of an index that an unsigned manifest vouches for: refused with
 * one error, or exactly the segments of the map, one behind another.
 */

#include "center-fuzz.h"

enum { ENCRYPTED = 4 };         /* in the first byte, beside patch.h's */

static struct esp_map *map;
static struct esp_segment_key *key;
static struct esp_variant variants[2];
static void *sound[2];
static size_t sound_len[2];

static void
begin (void)
{
  static struct esp_segment s[4];
  struct esp_index x = { .shift = 18, .segments = s };
  uint64_t at = 0;

  map = center_map ();
  key = center_key ();
  for (uint32_t n = 0; n < 600; ++n)
    if (esp_segment_blocks (map, 18, n) > 0) {
      FUZZ_REQUIRE (x.n < 4);
      s[x.n++] = (struct esp_segment) { .number = n, .stored = 3000,
                                        .offset = at };
      at += 3000;
    }
  for (unsigned i = 0; i < 2; ++i) {
    variants[i] = (struct esp_variant) { .shift = 18, .segments = x.n,
                                         .pack_size = at };
    sound[i] = esp_index_pack (&x, i ? key : NULL, &sound_len[i]);
    FUZZ_REQUIRE (sound[i]);
  }
  strcpy (variants[1].key, "k");
}

static void
check_index (const struct esp_index *x, const struct esp_variant *v)
{
  uint64_t at = 0;

  FUZZ_REQUIRE (x->n == v->segments && x->shift == 18);
  for (size_t i = 0; i < x->n; ++i) {
    unsigned blocks = esp_segment_blocks (map, 18, x->segments[i].number);

    FUZZ_REQUIRE (blocks > 0 && x->segments[i].offset == at);
    FUZZ_REQUIRE (x->segments[i].stored <=
                  4096 * blocks + ESP_SEGMENT_OVERHEAD);
    FUZZ_REQUIRE (esp_index_find (x, x->segments[i].number) ==
                  &x->segments[i]);
    at += x->segments[i].stored;
  }
  FUZZ_REQUIRE (at == v->pack_size);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  unsigned e = size > 0 && data[0] & ENCRYPTED ? 1 : 0;
  struct esp_index x = { 0 };

  if (!map)
    begin ();
  struct part parts[2] = { { 0, 32 }, { 32, sound_len[e] - 32 } };
  struct esp_variant v = variants[e];
  size_t len = sound_len[e];
  uint8_t *buf = center_patched (sound[e], &len, parts, 2, data, size);
  v.index_size = len;
  esp_digest_of (buf, len, &v.index_digest);

  unsigned before = fuzz_errors;
  int r = esp_index_unpack (buf, len, &v, map, e ? key : NULL, "x", &x);
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == 0)
    check_index (&x, &v);
  /* Whoever has not the key cannot change a byte. */
  if (r == 0 && e)
    FUZZ_REQUIRE (len == sound_len[e] && memcmp (buf, sound[e], len) == 0);
  esp_index_clear (&x);
  free (buf);
  return 0;
}
