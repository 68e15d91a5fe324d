/* SPDX-License-Identifier: BSD-3-Clause */
/* AES-256-GCM (NIST SP 800-38D) with nonces of 96 bits, and HKDF.
 *
 * A key belongs to one thing, and is derived with its random salt: a pack of
 * a center, or one value of the segment cache.  A pack's segments have
 * random nonces: under one key there are at most 2^30 of them and an index,
 * and the chance that two share a nonce is below 2^-37.  Counting the nonces
 * instead would repeat one as soon as an upload is resumed with another
 * version of zstd, whose output differs.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>

#include "util/aead.h"

/* Fetched once: a fetch takes OpenSSL's locks. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *gcm;
static EVP_KDF *kdf;

static void
fetch (void)
{
  gcm = EVP_CIPHER_fetch (NULL, "AES-256-GCM", NULL);
  kdf = EVP_KDF_fetch (NULL, "HKDF", NULL);
}

EVP_CIPHER_CTX *
aead_new (const uint8_t key[AEAD_KEY], bool encrypt)
{
  CLEANUP_CIPHER_CTX EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new ();

  pthread_once (&once, fetch);
  if (!ctx || !gcm ||
      !EVP_CipherInit_ex2 (ctx, gcm, key, NULL, encrypt, NULL))
    return NULL;
  return ESP_STEAL (ctx);
}

/* Begin a message: the key stays, the nonce is new. */
static bool
begin (EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const void *aad, size_t len)
{
  int n;

  return EVP_CipherInit_ex2 (ctx, NULL, NULL, nonce, -1, NULL) &&
    EVP_CipherUpdate (ctx, NULL, &n, aad, (int) len);
}

static int
no_sealing (void)
{
  ERR_clear_error ();           /* or libcurl's TLS may take it for its own */
  errno = EIO;
  return -1;
}

int
aead_seal_with (EVP_CIPHER_CTX *ctx, const uint8_t nonce[AEAD_NONCE],
                const void *aad, size_t aad_len, const void *in, size_t len,
                void *out, uint8_t tag[AEAD_TAG])
{
  uint8_t none[1];
  int n;

  if (begin (ctx, nonce, aad, aad_len) &&
      EVP_CipherUpdate (ctx, out, &n, in, (int) len) &&
      EVP_CipherFinal_ex (ctx, none, &n) &&
      EVP_CIPHER_CTX_ctrl (ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, tag))
    return 0;
  return no_sealing ();
}

bool
aead_open_with (EVP_CIPHER_CTX *ctx, const uint8_t nonce[AEAD_NONCE],
                const void *aad, size_t aad_len, const void *in, size_t len,
                void *head_out, size_t head, void *out,
                const uint8_t tag[AEAD_TAG])
{
  uint8_t expect[AEAD_TAG], none[1];
  int got;

  if (len < head)
    return false;
  memcpy (expect, tag, AEAD_TAG);       /* ctrl takes no constant */
  if (begin (ctx, nonce, aad, aad_len) &&
      (head == 0 ||
       EVP_CipherUpdate (ctx, head_out, &got, in, (int) head)) &&
      (len == head ||
       EVP_CipherUpdate (ctx, out, &got, (const uint8_t *) in + head,
                         (int) (len - head))) &&
      EVP_CIPHER_CTX_ctrl (ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, expect) &&
      EVP_CipherFinal_ex (ctx, none, &got) > 0)
    return true;
  ERR_clear_error ();
  return false;
}

int
aead_seal (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
           const void *in, size_t len, uint8_t *out)
{
  uint8_t *text = out + AEAD_NONCE;

  if (RAND_bytes (out, AEAD_NONCE) != 1)
    return no_sealing ();
  return aead_seal_with (ctx, out, aad, aad_len, in, len, text, text + len);
}

bool
aead_open (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
           const uint8_t *in, size_t len, void *head_out, size_t head,
           void *out)
{
  return len >= AEAD_OVERHEAD + head &&
    aead_open_with (ctx, in, aad, aad_len, in + AEAD_NONCE,
                    len - AEAD_OVERHEAD, head_out, head, out,
                    in + len - AEAD_TAG);
}

ESP_DEFINE_CLEANUP (kdf_ctx, EVP_KDF_CTX *, EVP_KDF_CTX_free)

int
aead_hkdf (const uint8_t secret[AEAD_KEY], const uint8_t *salt,
           size_t salt_len, const char *info, uint8_t *out, size_t n)
{
  OSSL_PARAM params[] = {
    OSSL_PARAM_construct_utf8_string (OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
    OSSL_PARAM_construct_octet_string (OSSL_KDF_PARAM_KEY, (void *) secret,
                                       AEAD_KEY),
    OSSL_PARAM_construct_octet_string (OSSL_KDF_PARAM_SALT, (void *) salt,
                                       salt_len),
    OSSL_PARAM_construct_octet_string (OSSL_KDF_PARAM_INFO, (void *) info,
                                       strlen (info)),
    OSSL_PARAM_construct_end (),
  };

  pthread_once (&once, fetch);
  ESP_CLEANUP (kdf_ctx) EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new (kdf) : NULL;
  if (ctx && EVP_KDF_derive (ctx, out, n, params) == 1)
    return 0;
  ERR_clear_error ();
  errno = ENOMEM;
  return -1;
}
