/* SPDX-License-Identifier: BSD-3-Clause */
/* AES-256-GCM and HKDF-SHA256, for what is stored where others may read or
 * write it.  Only the library uses it.  Nothing reports.
 */

#ifndef ESPALIER_AEAD_H
#define ESPALIER_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>

#include "util/cleanup.h"

#define AEAD_KEY 32
#define AEAD_NONCE 12
#define AEAD_TAG 16
#define AEAD_OVERHEAD (AEAD_NONCE + AEAD_TAG)

ESP_DEFINE_CLEANUP (cipher_ctx, EVP_CIPHER_CTX *, EVP_CIPHER_CTX_free)
#define CLEANUP_CIPHER_CTX ESP_CLEANUP (cipher_ctx)

/* A context with KEY in it, for sealing (ENCRYPT) or opening; NULL: no
 * memory.
 */
extern EVP_CIPHER_CTX *aead_new (const uint8_t key[AEAD_KEY], bool encrypt);

/* What IN[0 .. LEN) becomes to OUT, and TAG.  IN may be OUT.  AAD is
 * authenticated, too.  NONCE never repeats under a key: the caller's care.
 * -1: with errno EIO.
 */
extern int aead_seal_with (EVP_CIPHER_CTX *ctx,
                           const uint8_t nonce[AEAD_NONCE], const void *aad,
                           size_t aad_len, const void *in, size_t len,
                           void *out, uint8_t tag[AEAD_TAG]);
/* The opposite: the first HEAD bytes of the plain text to HEAD_OUT, the rest
 * to OUT.  False: it was not sealed with this key, nonce and AAD, or is
 * damaged; then nothing of the outputs may be used.
 */
extern bool aead_open_with (EVP_CIPHER_CTX *ctx,
                            const uint8_t nonce[AEAD_NONCE], const void *aad,
                            size_t aad_len, const void *in, size_t len,
                            void *head_out, size_t head, void *out,
                            const uint8_t tag[AEAD_TAG]);

/* The same with a random nonce, all in one piece: OUT = nonce | what IN
 * becomes | tag; LEN is that of IN.  IN may be OUT + AEAD_NONCE.
 */
extern int aead_seal (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
                      const void *in, size_t len, uint8_t *out);
extern bool aead_open (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
                       const uint8_t *in, size_t len, void *head_out,
                       size_t head, void *out);

/* HKDF with SHA-256 (RFC 5869): N bytes of SECRET with SALT for INFO.  -1
 * with errno ENOMEM.
 */
extern int aead_hkdf (const uint8_t secret[AEAD_KEY], const uint8_t *salt,
                      size_t salt_len, const char *info, uint8_t *out,
                      size_t n);

#endif /* ESPALIER_AEAD_H */
