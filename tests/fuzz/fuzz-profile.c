/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a boot profile, with right or wrong checksums: refused with
 * one error, or a profile that keeps its bounds and is written as it was.
 */

#include "center-fuzz.h"

static uint8_t *sound;
static size_t sound_len;

static void
begin (void)
{
  static struct esp_profile_unit units[] = {
    { 5, 7, 16 }, { 1, 1, 40 }, { 2, 3, 40 }, { 2000, 4, 77 },
  };
  struct esp_profile p = { .boots = 3, .n = 4, .units = units };

  sound = esp_profile_pack (&p, &sound_len);
  FUZZ_REQUIRE (sound);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct esp_profile p = { 0 };

  if (!sound)
    begin ();
  struct part parts[2] = { { 0, 32 }, { 32, sound_len - 32 } };
  size_t len = sound_len, again_len;
  uint8_t *buf = center_patched (sound, &len, parts, 2, data, size);
  if (size > 0 && data[0] & PATCH_SEAL && len >= 16)
    esp_put64 (buf + 8, esp_sum (buf + 16, len - 16));

  unsigned before = fuzz_errors;
  int r = esp_profile_unpack (buf, len, CENTER_SIZE, "x", &p);
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == 0) {
    void *again = esp_profile_pack (&p, &again_len);

    for (size_t i = 0; i < p.n; ++i)
      FUZZ_REQUIRE ((uint64_t) p.units[i].unit << ESP_PROFILE_SHIFT
                    < CENTER_SIZE);
    FUZZ_REQUIRE (again && again_len == len && memcmp (again, buf, len) == 0);
    free (again);
  }
  esp_profile_clear (&p);
  free (buf);
  return 0;
}
