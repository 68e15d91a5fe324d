/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the formats and keys share.  Not for others. */

#ifndef ESPALIER_FORMAT_INTERNAL_H
#define ESPALIER_FORMAT_INTERNAL_H

#include <openssl/evp.h>
#include <jansson.h>

#include "center/format.h"
#include "center/variant-json.h"
#include "store/cleanups.h"
#include "util/cleanup.h"
#include "util/host.h"

ESP_DEFINE_CLEANUP (cipher_ctx, EVP_CIPHER_CTX *, EVP_CIPHER_CTX_free)
ESP_DEFINE_CLEANUP (pkey, EVP_PKEY *, EVP_PKEY_free)
ESP_DEFINE_CLEANUP (bio, BIO *, BIO_free)
#define CLEANUP_CIPHER_CTX ESP_CLEANUP (cipher_ctx)
#define CLEANUP_PKEY ESP_CLEANUP (pkey)
#define CLEANUP_BIO ESP_CLEANUP (bio)

/* Report "WHERE: is damaged: WHY" with EBADMSG.  Returns -1. */
extern int format_damaged (const char *where, const char *why);
/* Report "WHERE: WHAT" with ENOMEM.  Returns -1. */
extern int format_no_memory (const char *where);

/* --- AES-256-GCM (aead.c) --------------------------------------------- */
#define AEAD_KEY 32
#define AEAD_NONCE 12
#define AEAD_TAG 16
#define AEAD_OVERHEAD (AEAD_NONCE + AEAD_TAG)

/* A variant's key: keys.h has who makes it. */
struct esp_segment_key {
  uint8_t aes[AEAD_KEY];
};

/* A context with KEY in it, for aead_seal or aead_open; NULL: no memory (not
 * reported).
 */
extern EVP_CIPHER_CTX *aead_new (const struct esp_segment_key *key,
                                 bool encrypt);

/* OUT = nonce (random) | what IN[0 .. LEN) becomes | tag.  IN may be OUT +
 * AEAD_NONCE.  AAD is authenticated, too.  -1: no random bytes (not
 * reported).
 */
extern int aead_seal (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
                      const void *in, size_t len, uint8_t *out);

/* The opposite: the first HEAD bytes of the plain text to HEAD_OUT, the rest
 * to OUT; LEN is that of IN.  False: it was not sealed with this key and AAD,
 * or is damaged; then nothing of the outputs may be used.
 */
extern bool aead_open (EVP_CIPHER_CTX *ctx, const void *aad, size_t aad_len,
                       const uint8_t *in, size_t len, void *head_out,
                       size_t head, void *out);

/* --- text.c: what manifests and references share ---------------------- */
#define PUSHED_BY_MAX 256u
/* The fields pushed-by and pushed, into DOC (takes it; NULL is passed on). */
extern json_t *text_add_pushed (json_t *doc, const char *by, uint64_t when);
extern bool text_read_pushed (json_t *doc, char **by, uint64_t *when);
/* DOC as the signed text of a document of KIND; WHERE for messages. */
extern char *text_format (json_t *doc, const char *kind, int version,
                          const struct esp_signer *signer, const char *where,
                          size_t *len);
/* The opposite, signature checked. */
extern json_t *text_parse (const char *text, size_t len, const char *kind,
                           int version, const struct esp_trust *trust,
                           const char *where);

#endif /* ESPALIER_FORMAT_INTERNAL_H */
