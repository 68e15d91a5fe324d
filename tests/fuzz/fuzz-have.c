/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of `segments` and `have`, with right or wrong checksums: they
 * are refused with one error, or they are tables that make sense.
 */

#include "patch.h"

#include "store/have-internal.h"
#include "util/sum.h"

#define SIZE ((UINT64_C (9) << 20) + 5000)
#define SHIFT 16u
#define N 40u
#define SEGMENTS_LEN (SEGMENTS_HEADER + N * SEGMENTS_ENTRY)
#define HAVE_LEN (HAVE_HEADER + 2 * N)

static void *sound_segments, *sound_have;
static uint8_t file[HAVE_LEN + SEGMENTS_LEN] __attribute__ ((aligned (64)));

static struct part segments_parts[] = {
  { 0, SEGMENTS_HEADER }, { SEGMENTS_HEADER, 200 }, { 0, SEGMENTS_LEN },
};
static struct part have_parts[] = {
  { 0, 64 }, { HAVE_HEADER, 2 * N }, { 0, HAVE_LEN },
};

static void
begin (void)
{
  struct esp_segment s[N] = { { 0 } };
  const struct esp_index table = { SHIFT, N, s };
  uint8_t states[N];
  size_t len;

  for (unsigned i = 0; i < N; i++) {
    s[i].number = 3 * i;
    memset (&s[i].digest, i + 1, sizeof s[i].digest);
    states[i] = i % 3;
  }
  sound_segments = segments_format (&table, SIZE, false, &len);
  FUZZ_REQUIRE (sound_segments && len == SEGMENTS_LEN);
  sound_have = have_format (N, SHIFT, states, &len);
  FUZZ_REQUIRE (sound_have && len == HAVE_LEN);
}

static void
seal_segments (size_t len)
{
  if (len < SEGMENTS_HEADER)
    return;
  esp_put64 (file + 40, esp_get32 (file + 32) ? 0
             : esp_sum (file + SEGMENTS_HEADER, len - SEGMENTS_HEADER));
  esp_put64 (file + 56, esp_sum (file, 56));
}

static void
fuzz_segments (const uint8_t *data, size_t size)
{
  size_t len = SEGMENTS_LEN;
  unsigned before = fuzz_errors;
  struct segments s;
  esp_digest d;

  memcpy (file, sound_segments, len);
  patch_apply (file, &len, segments_parts, 3, data, size);
  if (data[0] & PATCH_SEAL)
    seal_segments (len);
  int r = segments_parse (file, len, SIZE, "x", &s);
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == -1)
    return;
  FUZZ_REQUIRE (s.shift >= 16 && s.shift <= 22);
  FUZZ_REQUIRE (s.n <= (SIZE >> s.shift) + 1);
  for (size_t i = 0; i < s.n; i++) {
    FUZZ_REQUIRE ((uint64_t) segments_number (&s, i) << s.shift < SIZE);
    (void) segments_digest (&s, i, &d);
  }
}

static void
fuzz_have (const uint8_t *data, size_t size)
{
  size_t len = HAVE_LEN;
  unsigned before = fuzz_errors;
  bool believed = true;

  memcpy (file, sound_have, len);
  patch_apply (file, &len, have_parts, 3, data, size);
  if ((data[0] & PATCH_SEAL) && len == HAVE_LEN)
    esp_put64 (file + 48, have_sum ((struct have_header *) file,
                                    file + HAVE_HEADER, N));
  int r = have_parse (file, len, N, SHIFT, "x", &believed);
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  FUZZ_REQUIRE (r == 0 || !believed);
  for (unsigned i = 0; believed && i < N; i++)
    FUZZ_REQUIRE (file[HAVE_HEADER + i] <= ESP_HAVE_CHECKED);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  if (!sound_have)
    begin ();
  if (size < 2)
    return 0;
  if (data[0] & 1)
    fuzz_have (data + 1, size - 1);
  else
    fuzz_segments (data + 1, size - 1);
  return 0;
}
