/* SPDX-License-Identifier: BSD-3-Clause */
/* The worked example at the end of docs/formats.md is what it says: its bytes,
 * read from the page, are a signed manifest, its map, its index and its pack.
 */

#include "center-test.h"

#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/file.h"

ESP_DEFINE_CLEANUP (map, struct esp_map *, esp_map_free)
ESP_DEFINE_CLEANUP (packer, struct esp_packer *, esp_packer_free)
ESP_DEFINE_CLEANUP (trust, struct esp_trust *, esp_trust_free)

/* The public key of RFC 8032, section 7.1, test 1. */
#define PUBLIC \
  "-----BEGIN PUBLIC KEY-----\n" \
  "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n" \
  "-----END PUBLIC KEY-----\n"

/* The N-th block (from 0) behind "## An example", malloced. */
static char *
block (unsigned n, size_t *len)
{
  const char *top = getenv ("ESPALIER_SRCDIR");
  CLEANUP_FREE char *path = esp_asprintf ("%s/docs/formats.md",
                                          top ? top : ".");
  CLEANUP_FREE char *page = NULL;
  char *p, *end;

  if (esp_read_file (AT_FDCWD, path, 1 << 20, &page, len) == -1)
    fail_msg ("%s: %s", path, strerror (errno));
  assert_non_null (p = strstr (page, "\n## An example\n"));
  for (;; --n, p = end + 4) {
    assert_non_null (p = strstr (p, "\n```\n"));
    p += 5;
    assert_non_null (end = strstr (p, "\n```\n"));
    if (n == 0)
      break;
  }
  *len = (size_t) (end + 1 - p);
  return strndup (p, *len);
}

/* The same, of hexadecimal bytes. */
static uint8_t *
bytes (unsigned n, size_t *len)
{
  size_t text_len;
  CLEANUP_FREE char *text = block (n, &text_len);
  uint8_t *out = malloc (text_len);
  char *p = text;

  for (*len = 0; p[strspn (p, " \n")]; ++*len)
    out[*len] = (uint8_t) strtoul (p, &p, 16);
  return out;
}

static struct esp_trust *
trust_rfc (const char *dir)
{
  CLEANUP_FREE char *path = esp_asprintf ("%s/s", dir);
  CLEANUP_FREE char *pub = esp_asprintf ("%s/pub", dir);
  FILE *f = fopen (pub, "w");
  struct esp_store *store;
  struct esp_trust *trust;

  fputs (PUBLIC, f);
  fclose (f);
  assert_int_equal (esp_store_init (path), 0);
  assert_non_null (store = esp_store_open (path));
  assert_int_equal (esp_trust_add (store, "rfc", pub), 0);
  assert_non_null (trust = esp_trust_load (store));
  esp_store_close (store);
  return trust;
}

static void
the_example_is_right (void **state)
{
  char *dir = unit_mkdir ();
  ESP_CLEANUP (trust) struct esp_trust *trust = trust_rfc (dir);
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };
  CLEANUP_INDEX struct esp_index x = { 0 };
  uint8_t raw[8192];
  uint64_t run;
  size_t n;
  esp_uuid uuid;

  (void) state;
  unit_rmdir (dir);
  CLEANUP_FREE char *text = block (3, &n);
  esp_uuid_parse ("7c9e6679-7425-40de-944b-e07fc1f90ae7", &uuid);
  assert_int_equal (esp_manifest_parse (text, n, &uuid, trust, "x", &m), 0);
  CLEANUP_FREE uint8_t *packed = bytes (0, &n);
  ESP_CLEANUP (map) struct esp_map *map = esp_manifest_map (&m, packed, n,
                                                            "x");
  assert_non_null (map);
  assert_int_equal (esp_map_run (map, 20, 236, &run), ESP_DATA);
  assert_int_equal (run, 2);
  assert_int_equal (esp_map_run (map, 30, 226, &run), ESP_ZERO);
  assert_int_equal (run, 1);
  CLEANUP_FREE uint8_t *index = bytes (2, &n);
  assert_int_equal (esp_index_unpack (index, n, &m.variants[0], map, NULL,
                                      "x", &x), 0);
  CLEANUP_FREE uint8_t *pack = bytes (1, &n);
  assert_int_equal (n, m.variants[0].pack_size);
  assert_int_equal (n, x.segments[0].stored);
  ESP_CLEANUP (packer) struct esp_packer *p = esp_packer_new
    (m.variants[0].codec, 0, NULL);
  assert_int_equal (esp_unpack_segment (p, 1, pack, n, raw, sizeof raw,
                                        &x.segments[0].digest, false, "x"),
                    0);
  assert_true (raw[0] == 'A' && raw[4095] == 'A' && raw[4096] == 'B' &&
               raw[8191] == 'B');
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (the_example_is_right),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
