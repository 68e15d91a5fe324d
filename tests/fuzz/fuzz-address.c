/* SPDX-License-Identifier: BSD-3-Clause */
/* Any text as a key, a network, a list of networks, an address, what a machine
 * says of itself: refused with one error, or canonical; a damaged list lets
 * nobody in; a name is one that export names can have.
 */

#include "fuzz.h"

#include "boot/address.h"

static void
key (const char *s)
{
  char one[ESP_CLIENT_KEY_MAX + 1], two[ESP_CLIENT_KEY_MAX + 1];
  enum esp_client_kind a, b;
  unsigned before = fuzz_errors;
  int r = esp_client_key_parse (s, &a, one);

  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == -1)
    return;
  FUZZ_REQUIRE (esp_client_key_parse (one, &b, two) == 0);
  FUZZ_REQUIRE (a == b && strcmp (one, two) == 0);
}

static void
networks (const char *list, const char *address)
{
  unsigned before = fuzz_errors;
  CLEANUP_FREE char *one = esp_networks_canonical (list);

  FUZZ_REQUIRE (fuzz_errors == before + !one);
  if (!one) {
    FUZZ_REQUIRE (!*address || !esp_networks_allow (list, address));
    return;
  }
  CLEANUP_FREE char *two = esp_networks_canonical (one);
  FUZZ_REQUIRE (two && strcmp (one, two) == 0);
  FUZZ_REQUIRE (esp_networks_allow (list, address) ==
                esp_networks_allow (one, address));
}

static void
machine (const char *mac, const char *uuid, const char *address)
{
  char name[ESP_NAME_MAX + 1];

  esp_client_name (NULL, mac, uuid, address, name);
  FUZZ_REQUIRE (!*name || esp_client_ok (name));
}

/* Three texts, with line feeds between them. */
int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *text = malloc (size + 1);
  char *part[3] = { text, NULL, NULL };

  if (!text)
    return 0;
  memcpy (text, data, size);
  text[size] = 0;
  for (int i = 1; i < 3; ++i) {
    part[i] = part[i - 1] + strcspn (part[i - 1], "\n");
    if (*part[i])
      *part[i]++ = 0;
  }
  key (part[0]);
  networks (part[0], part[1]);
  machine (part[0], part[1], part[2]);
  machine (part[1], part[0], part[2]);
  return 0;
}
