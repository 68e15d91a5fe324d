/* SPDX-License-Identifier: BSD-3-Clause */
/* Sealed values: a head of 96 bytes, then the data.
 *
 * The head says whose value it is, so that one that was put in another's
 * place does not open, and has the check, or the tag, over all the rest of
 * it and the data.  The check is XXH3 with 128 bits over the head and the
 * XXH3 of the data, rather than over both in one, since they may be in
 * different places.
 *
 * With a secret each value has an AES key and a nonce of its own, derived by
 * HKDF with 16 random bytes: there may be any number of values, made by any
 * number of processes that know nothing of each other, and no nonce comes
 * twice under a key (two of 2^48 values share the 16 bytes with a chance
 * below 2^-32; a counter, or 96 random bits under one key, would not do).
 *
 * The head says under which secret, by an id that is derived from it and
 * tells nothing of it: while an operator changes the secret on one server after
 * another, what the others seal is not for us, and nobody's lie.
 */

#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <xxhash.h>

#include "cache/value.h"
#include "center/keyfile.h"
#include "util/aead.h"
#include "util/endian.h"
#include "util/host.h"

#define MAGIC "ESPVALUE"
#define VALUE_VERSION 1u
#define INFO "espalier cache value 1"
#define INFO_ID "espalier cache key id 1"

/* Offsets in the head. */
enum {
  AT_VERSION = 8, AT_DATA = 12, AT_KEY = 16, AT_PART = 38, AT_PARTS = 40,
  AT_LENGTH = 44, AT_SEALER = 48, AT_PUT = 56, AT_SALT = 64, AT_TAG = 80
};
#define SALT 16

static_assert (AT_KEY + ESP_CACHE_KEY_PACKED == AT_PART, "the key's place");
static_assert (AT_TAG + AEAD_TAG == ESP_VALUE_HEAD, "the head's size");

struct esp_sealer {
  uint64_t id;                  /* 0: there is no secret */
  uint8_t secret[AEAD_KEY];
};

/* --- sealers --------------------------------------------------------------- */

static int
take_secret (struct esp_sealer *sealer, const uint8_t *secret)
{
  static const uint8_t salt[32];
  uint8_t id[8];

  if (aead_hkdf (secret, salt, sizeof salt, INFO_ID, id, sizeof id) == -1)
    return -1;
  memcpy (sealer->secret, secret, sizeof sealer->secret);
  sealer->id = esp_get64 (id);
  if (sealer->id == 0)
    sealer->id = 1;             /* one secret of 2^64 */
  return 0;
}

struct esp_sealer *
esp_sealer_new (const uint8_t *secret)
{
  struct esp_sealer *sealer = calloc (1, sizeof *sealer);

  if (sealer && (!secret || take_secret (sealer, secret) == 0))
    return sealer;
  esp_error ("segment cache: %m");
  esp_sealer_free (sealer);
  return NULL;
}

struct esp_sealer *
esp_sealer_from_file (const char *path)
{
  uint8_t secret[AEAD_KEY];
  struct esp_sealer *sealer;

  if (secret_load (NULL, NULL, path, secret) == -1)
    return NULL;
  sealer = esp_sealer_new (secret);
  OPENSSL_cleanse (secret, sizeof secret);
  return sealer;
}

void
esp_sealer_free (struct esp_sealer *sealer)
{
  if (!sealer)
    return;
  OPENSSL_cleanse (sealer, sizeof *sealer);
  free (sealer);
}

bool
esp_sealer_secret (const struct esp_sealer *sealer)
{
  return sealer->id != 0;
}

uint64_t
esp_sealer_id (const struct esp_sealer *sealer)
{
  return sealer->id;
}

/* --- the head -------------------------------------------------------------- */

/* Can LEN bytes be PART of a segment of KEY? */
static bool
part_ok (const struct esp_cache_key *key, const struct esp_value_part *part,
         size_t len)
{
  return key->shift >= ESP_SEGMENT_SHIFT_MIN &&
    key->shift <= ESP_SEGMENT_SHIFT_MAX &&
    part->length > 0 && part->length <= 1u << key->shift &&
    part->part < part->parts && len > 0 && len <= part->length &&
    (part->parts > 1 || len == part->length);
}

/* All but the salt and the tag, which become zero. */
static void
head_write (uint8_t *head, const struct esp_sealer *sealer,
            const struct esp_cache_key *key,
            const struct esp_value_part *part, size_t len)
{
  memset (head, 0, ESP_VALUE_HEAD);
  memcpy (head, MAGIC, 8);
  esp_put32 (head + AT_VERSION, VALUE_VERSION);
  esp_cache_key_pack (key, head + AT_KEY);
  esp_put16 (head + AT_PART, part->part);
  esp_put16 (head + AT_PARTS, part->parts);
  esp_put32 (head + AT_LENGTH, part->length);
  esp_put32 (head + AT_DATA, (uint32_t) len);
  esp_put64 (head + AT_SEALER, sealer->id);
  esp_put64 (head + AT_PUT, part->put);
}

/* Magic and version are right. */
static bool
head_read (const uint8_t *head, struct esp_cache_key *key, size_t *len,
           struct esp_value_part *part)
{
  const uint8_t *k = head + AT_KEY;

  key->kind = k[0];
  memcpy (key->id, k + 1, sizeof key->id);
  key->segment = esp_get32 (k + 17);
  key->shift = k[21];
  *len = esp_get32 (head + AT_DATA);
  part->length = esp_get32 (head + AT_LENGTH);
  part->part = esp_get16 (head + AT_PART);
  part->parts = esp_get16 (head + AT_PARTS);
  part->put = esp_get64 (head + AT_PUT);
  return part_ok (key, part, *len);
}

bool
esp_value_whose (const uint8_t head[ESP_VALUE_HEAD],
                 struct esp_cache_key *key, size_t *len,
                 struct esp_value_part *part)
{
  return memcmp (head, MAGIC, 8) == 0 &&
    esp_get32 (head + AT_VERSION) == VALUE_VERSION &&
    head_read (head, key, len, part);
}

uint64_t
esp_value_sealed (const uint8_t head[ESP_VALUE_HEAD])
{
  return esp_get64 (head + AT_SEALER);
}

enum esp_value_result
esp_value_peek (const struct esp_sealer *sealer,
                const struct esp_cache_key *key,
                const uint8_t head[ESP_VALUE_HEAD], size_t *len,
                struct esp_value_part *part)
{
  uint8_t packed[ESP_CACHE_KEY_PACKED];
  struct esp_cache_key says;

  if (memcmp (head, MAGIC, 8) != 0)
    return ESP_VALUE_BAD;
  if (esp_get32 (head + AT_VERSION) != VALUE_VERSION ||
      esp_value_sealed (head) != sealer->id)
    return ESP_VALUE_OTHER;
  esp_cache_key_pack (key, packed);
  return head_read (head, &says, len, part) &&
    memcmp (head + AT_KEY, packed, sizeof packed) == 0
    ? ESP_VALUE_OK : ESP_VALUE_BAD;
}

/* --- the check ------------------------------------------------------------- */

static void
check_of (const uint8_t *head, const void *data, size_t len,
          uint8_t check[AEAD_TAG])
{
  uint8_t all[AT_TAG + sizeof (XXH128_canonical_t)];
  XXH128_canonical_t sum;

  XXH128_canonicalFromHash (&sum, XXH3_128bits (data, len));
  memcpy (all, head, AT_TAG);
  memcpy (all + AT_TAG, &sum, sizeof sum);
  XXH128_canonicalFromHash (&sum, XXH3_128bits (all, sizeof all));
  memcpy (check, &sum, AEAD_TAG);
}

/* --- encryption ------------------------------------------------------------ */

static EVP_CIPHER_CTX *
value_cipher (const struct esp_sealer *sealer, const uint8_t *salt,
              bool encrypt, uint8_t nonce[AEAD_NONCE])
{
  uint8_t okm[AEAD_KEY + AEAD_NONCE] = { 0 };
  EVP_CIPHER_CTX *ctx = NULL;

  if (aead_hkdf (sealer->secret, salt, SALT, INFO, okm, sizeof okm) == 0)
    ctx = aead_new (okm, encrypt);
  memcpy (nonce, okm + AEAD_KEY, AEAD_NONCE);
  OPENSSL_cleanse (okm, sizeof okm);
  return ctx;
}

static bool
encrypt (const struct esp_sealer *sealer, uint8_t *head, const void *data,
         size_t len, void *out)
{
  CLEANUP_CIPHER_CTX EVP_CIPHER_CTX *ctx = NULL;
  uint8_t nonce[AEAD_NONCE];

  if (RAND_bytes (head + AT_SALT, SALT) != 1) {
    ERR_clear_error ();
    return false;
  }
  ctx = value_cipher (sealer, head + AT_SALT, true, nonce);
  return ctx && aead_seal_with (ctx, nonce, head, AT_TAG, data, len, out,
                                head + AT_TAG) == 0;
}

static bool
decrypt (const struct esp_sealer *sealer, const uint8_t *head,
         const void *data, size_t len, void *out)
{
  CLEANUP_CIPHER_CTX EVP_CIPHER_CTX *ctx = NULL;
  uint8_t nonce[AEAD_NONCE];

  ctx = value_cipher (sealer, head + AT_SALT, false, nonce);
  return ctx && aead_open_with (ctx, nonce, head, AT_TAG, data, len, NULL, 0,
                                out, head + AT_TAG);
}

/* --- sealing, opening ------------------------------------------------------ */

const void *
esp_value_seal_apart (const struct esp_sealer *sealer,
                      const struct esp_cache_key *key,
                      const struct esp_value_part *part, const void *data,
                      size_t len, void *room, uint8_t head[ESP_VALUE_HEAD])
{
  if (!part_ok (key, part, len))
    return NULL;
  head_write (head, sealer, key, part, len);
  if (sealer->id != 0)
    return encrypt (sealer, head, data, len, room) ? room : NULL;
  check_of (head, data, len, head + AT_TAG);
  return data;
}

size_t
esp_value_seal (const struct esp_sealer *sealer,
                const struct esp_cache_key *key,
                const struct esp_value_part *part, const void *data,
                size_t len, void *out)
{
  uint8_t *head = out, *room = head + ESP_VALUE_HEAD;
  const void *sealed = esp_value_seal_apart (sealer, key, part, data, len,
                                             room, head);

  if (!sealed)
    return 0;
  if (sealed != room)
    memcpy (room, sealed, len);
  return ESP_VALUE_HEAD + len;
}

/* DATA, behind HEAD which esp_value_peek found right, to OUT (may be DATA). */
static bool
open_data (const struct esp_sealer *sealer, const uint8_t *head,
           const void *data, size_t len, void *out)
{
  uint8_t check[AEAD_TAG];

  if (sealer->id != 0)
    return decrypt (sealer, head, data, len, out);
  check_of (head, data, len, check);
  if (memcmp (check, head + AT_TAG, sizeof check) != 0)
    return false;
  if (out != data)
    memcpy (out, data, len);
  return true;
}

enum esp_value_result
esp_value_open_apart (const struct esp_sealer *sealer,
                      const struct esp_cache_key *key,
                      const uint8_t head[ESP_VALUE_HEAD], void *data,
                      size_t len)
{
  struct esp_value_part part;
  size_t says;
  enum esp_value_result r = esp_value_peek (sealer, key, head, &says, &part);

  if (r != ESP_VALUE_OK)
    return r;
  return says == len && open_data (sealer, head, data, len, data)
    ? ESP_VALUE_OK : ESP_VALUE_BAD;
}

enum esp_value_result
esp_value_open (const struct esp_sealer *sealer,
                const struct esp_cache_key *key, const void *value,
                size_t value_len, void *out, size_t room, size_t *len,
                struct esp_value_part *part)
{
  const uint8_t *head = value;
  enum esp_value_result r;

  if (value_len < ESP_VALUE_HEAD)
    return ESP_VALUE_BAD;
  r = esp_value_peek (sealer, key, head, len, part);
  if (r != ESP_VALUE_OK)
    return r;
  return *len == value_len - ESP_VALUE_HEAD && *len <= room &&
    open_data (sealer, head, head + ESP_VALUE_HEAD, *len, out)
    ? ESP_VALUE_OK : ESP_VALUE_BAD;
}
