/* SPDX-License-Identifier: BSD-3-Clause */
/* Inputs of the fuzzers of signed documents: a byte of flags, then the text,
 * or, with TEXT_BODY, only its JSON, which gets a right first line; with
 * TEXT_SIGNED it gets a right signature, too; TEXT_TRUST: signatures are
 * looked at.
 */

#ifndef ESPALIER_TEXT_FUZZ_H
#define ESPALIER_TEXT_FUZZ_H

#include "center-fuzz.h"

#include <inttypes.h>

enum { TEXT_BODY = 1, TEXT_SIGNED = 2, TEXT_TRUST = 4 };

static struct esp_signer *text_signer;
static struct esp_trust *text_trust;

static inline void
text_begin (void)
{
  struct esp_store *store;
  char path[300];

  patch_begin ();
  snprintf (path, sizeof path, "%s/store", patch_dir);
  FUZZ_REQUIRE (esp_store_init (path) == 0);
  store = esp_store_open (path);
  FUZZ_REQUIRE (store);
  text_signer = esp_signer_load (store, true);
  text_trust = esp_trust_load (store);
  FUZZ_REQUIRE (text_signer && text_trust);
  esp_store_close (store);
}

/* The text that DATA stands for, in memory of the exact size. */
static inline char *
text_make (const char *kind, const uint8_t *data, size_t size, size_t *len)
{
  unsigned flags = data[0];
  char *head = NULL, *text;

  data++;
  size--;
  if (flags & TEXT_BODY &&
      asprintf (&head, "espalier-%s 1 xxh3:%016" PRIx64 "\n", kind,
                esp_sum (data, size)) == -1)
    abort ();
  size_t n = head ? strlen (head) : 0;
  text = malloc (n + size + 1);
  memcpy (text, head ? head : "", n);
  memcpy (text + n, data, size);
  text[n + size] = 0;
  *len = n + size;
  free (head);
  if (flags & TEXT_SIGNED && strlen (text) == *len) {
    char *sign = esp_sign_text (text_signer, kind, text, len);

    FUZZ_REQUIRE (sign);
    free (text);
    text = sign;
  }
  char *exact = malloc (*len ? *len : 1);
  memcpy (exact, text, *len);
  free (text);
  return exact;
}

/* Nobody but the key's owner makes what is trusted. */
static inline void
text_require_signed (unsigned flags, int r)
{
  if (r == 0 && flags & TEXT_TRUST)
    FUZZ_REQUIRE (flags & TEXT_SIGNED);
}

#endif /* ESPALIER_TEXT_FUZZ_H */
