/* SPDX-License-Identifier: BSD-3-Clause */
/* Any text as a reference: refused with one error, or a venue that is written
 * and read again as the same.
 */

#include "text-fuzz.h"

static void
check_reference (const struct esp_reference *r)
{
  struct esp_reference again = { 0 };
  size_t len;
  char *text = esp_reference_format (r, NULL, &len);

  FUZZ_REQUIRE (r->venue.ndisks >= 1 &&
                r->venue.ndisks <= ESP_DISK_NUMBER_MAX + 1);
  FUZZ_REQUIRE (strcmp (r->venue.id, "cafe") == 0);
  FUZZ_REQUIRE (text);
  FUZZ_REQUIRE (esp_reference_parse (text, len, "cafe", NULL, "x", &again)
                == 0);
  FUZZ_REQUIRE (again.venue.revision == r->venue.revision &&
                again.venue.ndisks == r->venue.ndisks &&
                memcmp (again.venue.disks, r->venue.disks,
                        r->venue.ndisks * sizeof (esp_uuid)) == 0);
  esp_reference_clear (&again);
  free (text);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct esp_reference ref = { 0 };
  size_t len;

  if (size == 0)
    return 0;
  if (!text_trust)
    text_begin ();
  char *text = text_make ("reference", data, size, &len);
  unsigned before = fuzz_errors;
  int r = esp_reference_parse (text, len, "cafe", data[0] & TEXT_TRUST
                               ? text_trust : NULL, "x", &ref);
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  text_require_signed (data[0], r);
  if (r == 0)
    check_reference (&ref);
  esp_reference_clear (&ref);
  free (text);
  return 0;
}
