/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a sealed value, whole or a part, by check or by secret: it
 * opens only with the bytes that were sealed.
 */

#include "patch.h"

#include "cache/value.h"

enum { SECRET = 4, PART = 8, RAW = 16 };

#define LEN 4096u
#define VALUE (LEN + ESP_VALUE_OVERHEAD)

static const struct esp_cache_key key = { .id = { 1, 2, 3 }, .segment = 7,
                                          .shift = 16 };
static struct esp_sealer *sealers[2];
static uint8_t raw[LEN], sound[4][VALUE];

static void
begin (void)
{
  uint8_t secret[32] = { 1 };

  for (unsigned i = 0; i < LEN; ++i)
    raw[i] = (uint8_t) (i * i % 251);
  sealers[0] = esp_sealer_new (NULL);
  sealers[1] = esp_sealer_new (secret);
  for (unsigned i = 0; i < 4; ++i) {
    struct esp_value_part part = {
      .length = i & 2 ? 3 * LEN : LEN, .part = i & 2 ? 1 : 0,
      .parts = i & 2 ? 3 : 1, .put = 9,
    };
    FUZZ_REQUIRE (esp_value_seal (sealers[i & 1], &key, &part, raw, LEN,
                                  sound[i]) == VALUE);
  }
}

/* VALUE, in memory of its exact size, by the sealer WHICH. */
static void
look (const uint8_t *value, size_t len, unsigned which)
{
  struct esp_value_part part;
  uint8_t *out = malloc (LEN);
  size_t got;

  if (esp_value_open (sealers[which & 1], &key, value, len, out, LEN, &got,
                      &part) == ESP_VALUE_OK) {
    FUZZ_REQUIRE (got <= LEN && got <= part.length &&
                  part.part < part.parts && part.length <= 65536);
    FUZZ_REQUIRE (got == LEN && memcmp (out, raw, LEN) == 0);
    FUZZ_REQUIRE (part.parts == (which & 2 ? 3 : 1));
  }
  free (out);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  unsigned flags = size > 0 ? data[0] : 0;
  unsigned which = (flags & SECRET ? 1 : 0) + (flags & PART ? 2 : 0);
  struct part parts[2] = { { 0, ESP_VALUE_HEAD }, { 0, VALUE } };
  size_t len = VALUE;
  uint8_t *value, *exact;

  if (!sealers[0])
    begin ();
  if (flags & RAW) {            /* not a change, but the whole */
    look (data + 1, size - 1, which);
    return 0;
  }
  value = malloc (VALUE);
  memcpy (value, sound[which], VALUE);
  patch_apply (value, &len, parts, 2, data, size);
  exact = malloc (len ? len : 1);
  memcpy (exact, value, len);
  look (exact, len, which);
  free (exact);
  free (value);
  return 0;
}
