/* SPDX-License-Identifier: BSD-3-Clause */
/* Any string as an export name, a name, a size, a UUID: what is accepted is
 * harmless and comes back the same, what is refused has one error.
 */

#include "fuzz.h"

#include <strings.h>

#include "util/cleanup.h"
#include "util/name.h"

static void
check_part (const char *s)
{
  CLEANUP_FREE char *c = esp_path_component (s);

  FUZZ_REQUIRE (strlen (s) >= 1 && strlen (s) <= ESP_NAME_MAX);
  FUZZ_REQUIRE (s[0] != '.' && s[0] != '-');
  FUZZ_REQUIRE (!strpbrk (s, "/@+ \t\n\r\\'\"%;"));
  FUZZ_REQUIRE (strlen (c) <= 255 && !strchr (c, '/') && c[0] != '.');
}

/* A ticket is what stands behind the first '+', and can be put back. */
static void
check_ticket (const char *s, const struct esp_export *e, const char *canonical)
{
  CLEANUP_FREE char *with = NULL;
  const char *plus = strchr (s, '+');
  struct esp_export again;

  FUZZ_REQUIRE (strcmp (e->ticket, plus ? plus + 1 : "") == 0);
  FUZZ_REQUIRE (!strchr (canonical, '+'));
  if (!plus)
    return;
  FUZZ_REQUIRE (*e->ticket && strlen (e->ticket) <= ESP_TICKET_MAX);
  FUZZ_REQUIRE (!strpbrk (e->ticket, "=+/@ "));
  FUZZ_REQUIRE (asprintf (&with, "%s+%s", canonical, e->ticket) > 0);
  FUZZ_REQUIRE (strlen (with) < ESP_EXPORT_MAX);
  FUZZ_REQUIRE (esp_export_parse (with, &again) == 0);
  FUZZ_REQUIRE (strcmp (again.ticket, e->ticket) == 0);
  FUZZ_REQUIRE (strcmp (again.name, e->name) == 0);
}

static void
check_export (const char *s)
{
  struct esp_export e, again;
  char text[ESP_EXPORT_MAX], twice[ESP_EXPORT_MAX];
  unsigned before = fuzz_errors;
  int r = esp_export_parse (s, &e);

  FUZZ_REQUIRE (fuzz_errors == before + (r < 0));
  if (r < 0)
    return;
  FUZZ_REQUIRE (esp_name_ok (e.name) && e.disk <= ESP_DISK_NUMBER_MAX);
  check_part (e.name);
  if (e.client[0]) {
    FUZZ_REQUIRE (esp_client_ok (e.client));
    check_part (e.client);
  }
  esp_export_format (&e, text, sizeof text);
  check_ticket (s, &e, text);
  FUZZ_REQUIRE (esp_export_parse (text, &again) == 0);
  FUZZ_REQUIRE (again.is_rp == e.is_rp && again.disk == e.disk);
  FUZZ_REQUIRE (strcmp (again.name, e.name) == 0);
  FUZZ_REQUIRE (strcmp (again.client, e.client) == 0);
  FUZZ_REQUIRE (strcmp (esp_export_format (&again, twice, sizeof twice),
                        text) == 0);
}

static void
check_size (const char *s)
{
  uint64_t n = UINT64_MAX;
  char text[16];
  unsigned before = fuzz_errors;
  int r = esp_size_parse (s, "x", &n);

  FUZZ_REQUIRE (fuzz_errors == before + (r < 0));
  FUZZ_REQUIRE (r < 0 ? n == UINT64_MAX : n <= INT64_MAX);
  FUZZ_REQUIRE (strlen (esp_size_format (n, text)) <= 5);
}

static void
check_uuid (const char *s)
{
  esp_uuid u, again;
  char text[ESP_UUID_TEXT];

  if (esp_uuid_parse (s, &u) < 0)
    return;
  FUZZ_REQUIRE (strcasecmp (esp_uuid_text (&u, text), s) == 0);
  FUZZ_REQUIRE (esp_uuid_parse (text, &again) == 0 && esp_uuid_eq (&u, &again));
}

/* A component names one input: decode it where it was not cut. */
static void
check_component (const char *s)
{
  CLEANUP_FREE char *c = esp_path_component (s);
  const char *p = c;
  unsigned byte;

  FUZZ_REQUIRE (c[0] && strlen (c) <= 255 && c[0] != '.' && !strchr (c, '/'));
  if (strstr (c, "%%") || *s == 0)
    return;
  for (; *p; ++s, p += *p == '%' ? 3 : 1) {
    byte = (unsigned char) *p;
    FUZZ_REQUIRE (*p != '%' || sscanf (p + 1, "%2X", &byte) == 1);
    FUZZ_REQUIRE ((unsigned char) *s == byte);
  }
  FUZZ_REQUIRE (*s == 0);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *s = malloc (size + 1);
  char small[24];

  memcpy (s, data, size);
  s[size] = 0;
  check_export (s);
  check_size (s);
  check_uuid (s);
  check_component (s);
  FUZZ_REQUIRE (strlen (esp_escape (s, small, sizeof small)) < sizeof small);
  FUZZ_REQUIRE (strlen (esp_export_escape (s, small, sizeof small))
                < sizeof small);
  return 0;
}
