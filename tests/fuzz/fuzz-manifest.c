/* SPDX-License-Identifier: BSD-3-Clause */
/* Any text as a manifest: refused with one error, or a manifest that is
 * written and read again as the same.
 */

#include "text-fuzz.h"

static esp_uuid uuid;

static void
check_manifest (const struct esp_manifest *m)
{
  struct esp_manifest again = { 0 };
  size_t len, len2;
  char *text = esp_manifest_format (m, NULL, &len), *text2;

  for (size_t i = 0; i < m->nvariants; ++i) {
    const struct esp_variant *v = &m->variants[i];

    FUZZ_REQUIRE (v->shift >= ESP_SEGMENT_SHIFT_MIN &&
                  v->shift <= ESP_SEGMENT_SHIFT_MAX);
    FUZZ_REQUIRE (v->segments <= ESP_INDEX_SEGMENTS_MAX &&
                  v->index_size == esp_index_bytes (v->segments, v->key[0]));
    FUZZ_REQUIRE (v->id[0] && v->id[0] != '.' && !strpbrk (v->id, "/%\n"));
  }
  FUZZ_REQUIRE (text);
  FUZZ_REQUIRE (esp_manifest_parse (text, len, &uuid, NULL, "x", &again)
                == 0);
  text2 = esp_manifest_format (&again, NULL, &len2);
  FUZZ_REQUIRE (text2 && len == len2 && memcmp (text, text2, len) == 0);
  esp_manifest_clear (&again);
  free (text);
  free (text2);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct esp_manifest m = { 0 };
  size_t len;

  if (size == 0)
    return 0;
  if (!text_trust) {
    text_begin ();
    esp_uuid_parse ("7c9e6679-7425-40de-944b-e07fc1f90ae7", &uuid);
  }
  char *text = text_make ("manifest", data, size, &len);
  unsigned before = fuzz_errors;
  int r = esp_manifest_parse (text, len, &uuid, data[0] & TEXT_TRUST
                              ? text_trust : NULL, "x", &m);
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  text_require_signed (data[0], r);
  if (r == 0)
    check_manifest (&m);
  esp_manifest_clear (&m);
  free (text);
  return 0;
}
