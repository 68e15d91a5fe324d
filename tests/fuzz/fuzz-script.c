/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a venue's name, title, description, command line, secret: iPXE
 * does the same with the script as if they were "x".
 */

#include "fuzz.h"

#include "boot/ascii.h"
#include "script-hostile.h"
#include "util/cleanup.h"

static void
check_ascii (const char *s, enum esp_ascii_rest rest)
{
  size_t lost;
  CLEANUP_FREE char *t = esp_ascii (s, rest, &lost);

  FUZZ_REQUIRE (t && t[0] != ' ' && !strstr (t, "  "));
  FUZZ_REQUIRE (*t == 0 || t[strlen (t) - 1] != ' ');
  for (const char *p = t; *p; ++p)
    FUZZ_REQUIRE (*p >= ' ' && *p <= '~');
  FUZZ_REQUIRE (lost <= strlen (s));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *s = malloc (size + 1);

  memcpy (s, data, size);
  s[size] = 0;
  check_ascii (s, ESP_ASCII_CODES);
  check_ascii (s, ESP_ASCII_MARK);
  for (unsigned which = 0; which < HOSTILE_SCRIPTS; ++which)
    FUZZ_REQUIRE (hostile_is_harmless (which, s));
  return 0;
}
