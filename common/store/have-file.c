/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes of the file `have` (docs/formats.md, "have"): a header, a state
 * for each entry, an age for each entry.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/have-internal.h"
#include "util/endian.h"
#include "util/host.h"
#include "util/lock.h"
#include "util/sum.h"

/* Over the constant fields and the states, so that neither passes with
 * others.
 */
uint64_t
have_sum (const struct have_header *h, const uint8_t *states, size_t n)
{
  uint8_t fixed[offsetof (struct have_header, sum)];

  memcpy (fixed, (const void *) h, sizeof fixed);
  /* The mark itself is 0 or all ones: not part of it. */
  memset (fixed + offsetof (struct have_header, clean), 0, 4);
  return XXH3_64bits_withSeed (states, n, esp_sum (fixed, sizeof fixed));
}

static int
damaged (const char *where)
{
  errno = EBADMSG;
  esp_error ("%s: " ESP_RP_HAVE " is damaged, or not that of its segments",
             where);
  return -1;
}

int
have_parse (const void *buf, size_t len, size_t n, unsigned shift,
            const char *where, bool *believed)
{
  const uint8_t *p = buf;
  uint32_t clean;

  *believed = false;
  if (len < HAVE_HEADER || memcmp (p, HAVE_MAGIC, 8) != 0)
    return damaged (where);
  if (esp_get32 (p + 8) != HAVE_VERSION) {
    /* No checksum covers it, but no damage is likely to look like this. */
    if (esp_get32 (p + 8) == 0 || esp_get32 (p + 8) > 255)
      return damaged (where);
    errno = ENOTSUP;
    esp_error ("%s: made by a newer espalier (version %u of " ESP_RP_HAVE
               "; this one knows %u)", where, esp_get32 (p + 8), HAVE_VERSION);
    return -1;
  }
  clean = esp_get32 (p + 12);
  if (esp_get64 (p + 16) != n || esp_get32 (p + 24) != shift ||
      n > (SIZE_MAX - HAVE_HEADER) / 2 || len != HAVE_HEADER + 2 * n ||
      (clean != 0 && clean != HAVE_CLEAN))
    return damaged (where);
  *believed = clean &&
    esp_get64 (p + 48) == have_sum (buf, p + HAVE_HEADER, n);
  for (size_t i = 0; i < n && *believed; i++)
    *believed = p[HAVE_HEADER + i] <= ESP_HAVE_CHECKED;
  return 0;
}

void *
have_format (size_t n, unsigned shift, const uint8_t *states, size_t *len)
{
  uint8_t *p;

  *len = HAVE_HEADER + 2 * n;
  p = calloc (1, *len);
  if (p == NULL) {
    esp_error ("malloc: " ESP_RP_HAVE ": %m");
    return NULL;
  }
  memcpy (p, HAVE_MAGIC, 8);
  esp_put32 (p + 8, HAVE_VERSION);
  esp_put32 (p + 12, HAVE_CLEAN);
  esp_put64 (p + 16, n);
  esp_put32 (p + 24, shift);
  memcpy (p + 32, esp_boot_id (), 16);
  if (states)
    memcpy (p + HAVE_HEADER, states, n);
  esp_put64 (p + 48, have_sum ((const struct have_header *) p,
                               p + HAVE_HEADER, n));
  return p;
}
