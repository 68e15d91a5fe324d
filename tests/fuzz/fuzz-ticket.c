/* SPDX-License-Identifier: BSD-3-Clause */
/* Any string as an export name with a ticket, or as a ticket: nobody gets in
 * who does not know the key; and what was issued for a name is let in.
 */

#include "fuzz.h"

#include "boot/ticket.h"
#include "util/cleanup.h"
#include "util/name.h"

ESP_DEFINE_CLEANUP (ticket_key, struct esp_ticket_key *, esp_ticket_key_free)

/* Nothing that a fuzzer makes has a MAC of 128 bits. */
static void
check_forged (const struct esp_ticket_key *key, const struct esp_export *e,
              uint64_t now)
{
  struct esp_ticket out;
  enum esp_ticket_state st = esp_ticket_check (key, e, "10.0.0.7", now, &out);

  FUZZ_REQUIRE (st == (e->ticket[0] ? ESP_TICKET_FORGED : ESP_TICKET_NONE));
}

static void
check_issued (const struct esp_ticket_key *key, const struct esp_export *e)
{
  struct esp_ticket t = { .export = *e, .address = "10.0.0.7",
                          .readonly = !e->client[0] }, out;
  char text[ESP_EXPORT_MAX], plain[ESP_EXPORT_MAX];
  struct esp_export with;

  FUZZ_REQUIRE (esp_ticket_issue (key, &t, 60, 600, text) == 0);
  FUZZ_REQUIRE (esp_export_parse (text, &with) == 0);
  FUZZ_REQUIRE (esp_ticket_check (key, &with, "10.0.0.7", t.issued, &out)
                == ESP_TICKET_OK);
  FUZZ_REQUIRE (out.readonly == t.readonly);
  FUZZ_REQUIRE (esp_ticket_check (key, &with, "10.0.0.8", t.issued, &out)
                == ESP_TICKET_FORGED);
  esp_export_format (&with, plain, sizeof plain);
  FUZZ_REQUIRE (!strchr (plain, '+') && strncmp (plain, text, strlen (plain))
                == 0);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const uint8_t secret[32] = { 1, 2, 3 };
  ESP_CLEANUP (ticket_key) struct esp_ticket_key *key =
    esp_ticket_key_from (secret);
  CLEANUP_FREE char *s = malloc (size + 1);
  uint64_t now = 0;
  struct esp_export e;

  memcpy (s, data, size);
  s[size] = 0;
  memcpy (&now, data, size < sizeof now ? size : sizeof now);
  if (esp_export_parse (s, &e) == 0) {
    check_forged (key, &e, now);
    check_issued (key, &e);
  }
  esp_export_parse ("cafe@x", &e);
  snprintf (e.ticket, sizeof e.ticket, "%s", s);
  check_forged (key, &e, now);
  return 0;
}
