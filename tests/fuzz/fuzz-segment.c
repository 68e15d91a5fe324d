/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a stored segment, compressed or not, encrypted or not:
 * refused with one error, or, where the digest is looked at, the same bytes.
 */

#include "center-fuzz.h"

enum { ENCRYPTED = 4, COMPRESSED = 8, NO_DIGEST = 16 };

#define LEN 4096u

static uint8_t raw[LEN], stored[4][LEN + ESP_SEGMENT_OVERHEAD];
static size_t stored_len[4];
static struct esp_packer *packers[4];
static esp_digest digest;

static void
begin (void)
{
  struct esp_segment_key *key = center_key ();

  for (unsigned i = 0; i < LEN; ++i)
    raw[i] = (uint8_t) (i * i % 251 % 17);
  for (unsigned i = 0; i < 4; ++i) {
    packers[i] = esp_packer_new (i & 2 ? ESP_CODEC_ZSTD : ESP_CODEC_NONE, 3,
                                 i & 1 ? key : NULL);
    FUZZ_REQUIRE (packers[i]);
    FUZZ_REQUIRE (esp_pack_segment (packers[i], 7, raw, LEN, stored[i],
                                    &stored_len[i], &digest) == 0);
  }
  esp_segment_key_free (key);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  unsigned flags = size > 0 ? data[0] : 0;
  unsigned i = (flags & ENCRYPTED ? 1 : 0) + (flags & COMPRESSED ? 2 : 0);
  bool look = !(flags & NO_DIGEST);

  if (!packers[0])
    begin ();
  struct part parts[2] = { { 0, 16 }, { 0, stored_len[i] } };
  size_t len = stored_len[i];
  uint8_t *buf = center_patched (stored[i], &len, parts, 2, data, size);
  uint8_t *out = malloc (LEN);

  unsigned before = fuzz_errors;
  int r = esp_unpack_segment (packers[i], 7, buf, len, out, LEN,
                              look ? &digest : NULL, false, "x");
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == 0 && (look || i & 1))
    FUZZ_REQUIRE (memcmp (out, raw, LEN) == 0);
  free (out);
  free (buf);
  return 0;
}
