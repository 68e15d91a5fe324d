/* SPDX-License-Identifier: BSD-3-Clause */
/* SHA-256 of segments, indexes and maps. */

#include <config.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "center/format-internal.h"

/* Looked up once: OpenSSL's own look-up takes locks at each call. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;

static void
fetch (void)
{
  sha256 = EVP_MD_fetch (NULL, "SHA256", NULL);
}

void
esp_digest_of (const void *buf, size_t len, esp_digest *out)
{
  pthread_once (&once, fetch);
  /* It fails only without memory for a few bytes, or in an OpenSSL without
   * SHA-256.  No digest may stand for the right one then.
   */
  if (!sha256 || !EVP_Digest (buf, len, out->b, NULL, sha256, NULL)) {
    esp_error ("SHA-256: OpenSSL cannot compute it");
    abort ();
  }
}

bool
esp_digest_eq (const esp_digest *a, const esp_digest *b)
{
  return memcmp (a->b, b->b, sizeof a->b) == 0;
}

const char *
esp_digest_hex (const esp_digest *d, char buf[65])
{
  static const char digits[] = "0123456789abcdef";

  for (size_t i = 0; i < sizeof d->b; ++i) {
    buf[2 * i] = digits[d->b[i] >> 4];
    buf[2 * i + 1] = digits[d->b[i] & 15];
  }
  buf[2 * sizeof d->b] = 0;
  return buf;
}

static int
digit (char c)
{
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
    : -1;
}

bool
esp_digest_parse (const char *hex, esp_digest *out)
{
  esp_digest d;

  if (strlen (hex) != 2 * sizeof d.b)
    return false;
  for (size_t i = 0; i < sizeof d.b; ++i) {
    int high = digit (hex[2 * i]), low = digit (hex[2 * i + 1]);

    if (high < 0 || low < 0)
      return false;
    d.b[i] = (uint8_t) (high << 4 | low);
  }
  *out = d;
  return true;
}

int
format_damaged (const char *where, const char *why)
{
  errno = EBADMSG;
  esp_error ("%s: is damaged: %s", where, why);
  return -1;
}

int
format_no_memory (const char *where)
{
  errno = ENOMEM;
  esp_error ("%s: %m", where);
  return -1;
}
