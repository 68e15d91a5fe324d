/* SPDX-License-Identifier: BSD-3-Clause */
/* Any JSON as the documents `clients` (first byte even) and `needs` (odd):
 * refused with one error, or lists whose fields keep their bounds and that
 * are written as they were read.
 */

#include "fuzz.h"

#include "boot/address.h"
#include "store/site.h"
#include "util/doc.h"

/* DATA with the first line of a document of KIND. */
static char *
document (const char *kind, const uint8_t *data, size_t size, size_t *len)
{
  json_t *root = json_loadb ((const char *) data, size,
                             JSON_REJECT_DUPLICATES, NULL);
  char *text = NULL;

  if (root && json_is_object (root))
    text = esp_doc_format (kind, 1, root, len);
  json_decref (root);
  return text;
}

static void
check_clients (const struct esp_client_list *list)
{
  FUZZ_REQUIRE (list->n <= ESP_CLIENTS_MAX);
  for (size_t i = 0; i < list->n; ++i) {
    const struct esp_client *x = &list->client[i];
    char key[ESP_CLIENT_KEY_MAX + 1];
    enum esp_client_kind kind;

    FUZZ_REQUIRE (esp_client_key_parse (x->key, &kind, key) == 0);
    FUZZ_REQUIRE (kind == x->kind && strcmp (key, x->key) == 0);
    FUZZ_REQUIRE (!x->name[0] || esp_client_ok (x->name));
    FUZZ_REQUIRE (!x->name[0] || x->kind != ESP_CLIENT_NETWORK);
    FUZZ_REQUIRE (!x->venue[0] || esp_name_ok (x->venue));
    FUZZ_REQUIRE (x->chap && x->boot <= ESP_BOOT_NBDROOT);
    for (size_t j = 0; j < i; ++j) {
      FUZZ_REQUIRE (strcmp (list->client[j].key, x->key) != 0);
      FUZZ_REQUIRE (!x->name[0] || strcmp (list->client[j].name, x->name) != 0);
    }
  }
}

static void
check_needs (const struct esp_need_list *list)
{
  FUZZ_REQUIRE (list->n <= ESP_NEEDS_MAX);
  for (size_t i = 0; i < list->n; ++i) {
    const struct esp_need *x = &list->need[i];

    FUZZ_REQUIRE (x->name[0] && !strpbrk (x->name, "\n\r\x1b\x7f"));
    FUZZ_REQUIRE (!strchr (x->description, '\n'));
    FUZZ_REQUIRE (x->nresources <= ESP_NEED_RESOURCES_MAX);
    for (size_t j = 0; j < x->nresources; ++j)
      FUZZ_REQUIRE (x->resources[j].kind && x->resources[j].name[0] &&
                    x->resources[j].version);
    for (size_t j = 0; j < i; ++j)
      FUZZ_REQUIRE (strcmp (list->need[j].name, x->name) != 0);
  }
}

/* Written once it is canonical: written again it is the same. */
static void
clients (const char *text, size_t len)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 }, again = { 0 };
  unsigned before = fuzz_errors;
  size_t one, two;
  int r = esp_site_parse_clients (text, len, &list);

  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == -1)
    return;
  check_clients (&list);
  CLEANUP_FREE char *a = esp_site_format_clients (&list, &one);
  FUZZ_REQUIRE (a && esp_site_parse_clients (a, one, &again) == 0);
  CLEANUP_FREE char *b = esp_site_format_clients (&again, &two);
  FUZZ_REQUIRE (b && one == two && memcmp (a, b, one) == 0);
}

static void
needs (const char *text, size_t len)
{
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 }, again = { 0 };
  unsigned before = fuzz_errors;
  size_t one, two;
  int r = esp_site_parse_needs (text, len, &list);

  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == -1)
    return;
  check_needs (&list);
  CLEANUP_FREE char *a = esp_site_format_needs (&list, &one);
  FUZZ_REQUIRE (a && esp_site_parse_needs (a, one, &again) == 0);
  CLEANUP_FREE char *b = esp_site_format_needs (&again, &two);
  FUZZ_REQUIRE (b && one == two && memcmp (a, b, one) == 0);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *text = NULL;
  size_t len;
  bool odd;

  if (size == 0)
    return 0;
  odd = data[0] & 1;
  text = document (odd ? ESP_NEEDS_KIND : ESP_CLIENTS_KIND, data + 1, size - 1,
                   &len);
  if (!text)
    return 0;
  if (odd)
    needs (text, len);
  else
    clients (text, len);
  return 0;
}
