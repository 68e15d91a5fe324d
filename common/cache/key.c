/* SPDX-License-Identifier: BSD-3-Clause */
/* The names of cached segments. */

#include <config.h>

#include <string.h>
#include <xxhash.h>

#include "cache/key.h"
#include "center/format.h"
#include "util/cleanup.h"
#include "util/endian.h"

void
esp_cache_key_pack (const struct esp_cache_key *key,
                    uint8_t out[ESP_CACHE_KEY_PACKED])
{
  out[0] = key->kind;
  memcpy (out + 1, key->id, sizeof key->id);
  esp_put32 (out + 17, key->segment);
  out[21] = key->shift;
}

/* A digest of digests: no two triples give the same bytes. */
void
esp_cache_export_id (const char *id, const char *name, uint64_t size,
                     uint8_t out[16])
{
  uint8_t packed[2 * ESP_DIGEST_SIZE + 8];
  esp_digest d;

  esp_digest_of (id, strlen (id), &d);
  memcpy (packed, d.b, ESP_DIGEST_SIZE);
  esp_digest_of (name, strlen (name), &d);
  memcpy (packed + ESP_DIGEST_SIZE, d.b, ESP_DIGEST_SIZE);
  esp_put64 (packed + 2 * ESP_DIGEST_SIZE, size);
  esp_digest_of (packed, sizeof packed, &d);
  memcpy (out, d.b, 16);
}

char *
esp_cache_key_text (const struct esp_cache_key *key,
                    char out[ESP_CACHE_KEY_TEXT])
{
  static const char digits[] = "0123456789abcdef";
  uint8_t packed[ESP_CACHE_KEY_PACKED];

  esp_cache_key_pack (key, packed);
  for (unsigned i = 0; i < sizeof packed; ++i) {
    out[2 * i] = digits[packed[i] >> 4];
    out[2 * i + 1] = digits[packed[i] & 15];
  }
  out[2 * sizeof packed] = 0;
  return out;
}

uint64_t
esp_cache_key_hash (const struct esp_cache_key *key)
{
  uint8_t packed[ESP_CACHE_KEY_PACKED];

  esp_cache_key_pack (key, packed);
  return XXH3_64bits (packed, sizeof packed);
}
