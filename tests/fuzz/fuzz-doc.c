/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a document: refused with one error, or JSON that comes back
 * the same.  The first byte of the input chooses: even, the rest is the
 * document; odd, the rest is a body that gets a right first line, so that
 * the fuzzer need not guess checksums.
 */

#include "fuzz.h"

#include <inttypes.h>

#include "util/cleanup.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/sum.h"

/* Use what a reader of documents uses, on every member. */
static void
look_at (json_t *root)
{
  const char *key;
  json_t *v;

  json_object_foreach (root, key, v) {
    bool bad = false;
    const char *s = esp_doc_string (root, key, &bad);
    FUZZ_REQUIRE (bad == (s == NULL));
    FUZZ_REQUIRE (!s || json_is_string (v));
    bad = false;
    uint64_t n = esp_doc_u64 (root, key, 7, &bad);
    FUZZ_REQUIRE (bad != (json_is_integer (v) && n <= INT64_MAX
                          && json_integer_value (v) == (json_int_t) n));
    bad = false;
    json_t *a = esp_doc_array (root, key, &bad);
    FUZZ_REQUIRE (a ? a == v && !bad : bad);
  }
}

/* What is written from ROOT must be read as ROOT. */
static void
round_trip (json_t *root)
{
  CLEANUP_FREE char *text = json_dumps (root, JSON_INDENT (2));

  FUZZ_REQUIRE (text);
  json_t *again = json_loads (text, JSON_REJECT_DUPLICATES, NULL);
  FUZZ_REQUIRE (json_equal (root, again));
  json_decref (again);
}

static void
parse (const char *buf, size_t len)
{
  unsigned before = fuzz_errors;
  json_t *root = esp_doc_parse (buf, len, "venue", 2, "x");

  FUZZ_REQUIRE (fuzz_errors == before + (root == NULL));
  if (!root)
    return;
  FUZZ_REQUIRE (json_is_object (root));
  look_at (root);
  round_trip (root);
  json_decref (root);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *head = NULL;

  if (size == 0)
    return 0;
  head = data[0] % 2 == 0 ? strdup ("")
    : esp_asprintf ("espalier-venue 1 xxh3:%016" PRIx64 "\n",
                    esp_sum (data + 1, size - 1));
  size_t n = strlen (head);
  /* A copy of the exact size: a read beyond its end is found. */
  CLEANUP_FREE char *copy = malloc (n + size - 1);
  memcpy (copy, head, n);
  memcpy (copy + n, data + 1, size - 1);
  parse (copy, n + size - 1);
  return 0;
}
