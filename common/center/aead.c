/* SPDX-License-Identifier: BSD-3-Clause */
/* AES-256-GCM (NIST SP 800-38D) with random nonces of 96 bits.
 *
 * A key belongs to one pack: it is derived with the pack's random salt.  So
 * under one key there are at most 2^30 segments and an index, and the chance
 * that two of them share a nonce is below 2^-37.  Counting the nonces instead
 * would repeat one as soon as an upload is resumed with another version of
 * zstd, whose output differs.
 */

#include <config.h>

#include <pthread.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include "center/format-internal.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *gcm;

static void
fetch (void)
{
  gcm = EVP_CIPHER_fetch (NULL, "AES-256-GCM", NULL);
}

EVP_CIPHER_CTX *
aead_new (const struct esp_segment_key *key, bool encrypt)
{
  CLEANUP_CIPHER_CTX EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new ();

  pthread_once (&once, fetch);
  if (!ctx || !gcm ||
      !EVP_CipherInit_ex2 (ctx, gcm, key->aes, NULL, encrypt, NULL))
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

int
aead_seal (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
           const void *in, size_t len, uint8_t *out)
{
  uint8_t *text = out + AEAD_NONCE;
  int n;

  if (RAND_bytes (out, AEAD_NONCE) == 1 &&
      begin (ctx, out, aad, aad_len) &&
      EVP_CipherUpdate (ctx, text, &n, in, (int) len) &&
      EVP_CipherFinal_ex (ctx, text + len, &n) &&
      EVP_CIPHER_CTX_ctrl (ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, text + len))
    return 0;
  ERR_clear_error ();           /* or libcurl's TLS may take it for its own */
  errno = EIO;
  return -1;
}

bool
aead_open (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
           const uint8_t *in, size_t len, void *head_out, size_t head,
           void *out)
{
  uint8_t tag[AEAD_TAG], none[1];
  size_t n = len - AEAD_OVERHEAD;
  int got;

  if (len < AEAD_OVERHEAD + head)
    return false;
  memcpy (tag, in + len - AEAD_TAG, AEAD_TAG);
  if (begin (ctx, in, aad, aad_len) &&
      (head == 0 ||
       EVP_CipherUpdate (ctx, head_out, &got, in + AEAD_NONCE, (int) head)) &&
      (n == head ||
       EVP_CipherUpdate (ctx, out, &got, in + AEAD_NONCE + head,
                         (int) (n - head))) &&
      EVP_CIPHER_CTX_ctrl (ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, tag) &&
      EVP_CipherFinal_ex (ctx, none, &got) > 0)
    return true;
  ERR_clear_error ();
  return false;
}
