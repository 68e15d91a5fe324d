/* SPDX-License-Identifier: BSD-3-Clause */
/* Files with keys: small, private, whole or not there.  For center/, and the
 * segment cache's key file.
 */

#ifndef ESPALIER_KEYFILE_H
#define ESPALIER_KEYFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <openssl/evp.h>

#include "center/keys.h"

#define KEYFILE_MAX 8192        /* bytes of a file with a key */

/* What is asked of a file's mode: nobody else reads it; nobody else writes
 * it; nothing (a public key that the operator names).
 */
enum keyfile_mode { KEYFILE_SECRET, KEYFILE_PUBLIC, KEYFILE_GIVEN };

/* Read NAME of DIRFD into BUF, with a NUL behind it; the length, or -1.
 * ENOENT is not reported.  SHOWN names it in messages.
 */
extern ssize_t keyfile_read (int dirfd, const char *name,
                             enum keyfile_mode mode, const char *shown,
                             char buf[KEYFILE_MAX]);
/* Write the new file NAME, 0600, durable.  EEXIST is not reported. */
extern int keyfile_create (int dirfd, const char *name, const char *shown,
                           const void *buf, size_t len);

/* Strict base64 of exactly N bytes (a multiple of 3 with padding is one
 * spelling only).
 */
extern bool base64_decode (const char *text, size_t len, uint8_t *out,
                           size_t n);

/* STORE's keys/, -1 (reported) where it cannot be opened: do not close. */
extern int keys_fd (struct esp_store *store);
/* keys/trusted, made where CREATE; -1 with ENOENT, not reported, where it is
 * not there.  The caller closes it.
 */
extern int trusted_fd (struct esp_store *store, bool create);
/* A key's name: EINVAL, reported. */
extern int key_check_name (const char *name);

/* The 32 bytes of the key NAME of STORE, or of FILE. */
extern int secret_load (struct esp_store *store, const char *name,
                        const char *file, uint8_t secret[32]);
/* What a fingerprint is: of a secret, of a public key. */
extern void secret_id (const uint8_t secret[32], char id[17]);
extern int public_id (EVP_PKEY *key, char id[17]);

/* The public key in the text of a PEM file; NULL, reported: none of Ed25519.
 * SHOWN names the file.
 */
extern EVP_PKEY *public_parse (const char *pem, size_t len,
                               const char *shown);
/* The public half of SIGNER's key, which stays its own. */
extern EVP_PKEY *signer_key (const struct esp_signer *signer);

/* --- trust.c ---------------------------------------------------------- */
struct trusted_key {
  char name[ESP_KEY_NAME_MAX + 1];
  char id[17];
  EVP_PKEY *key;
};
extern const struct trusted_key *trust_find (const struct esp_trust *trust,
                                             const char *id);
/* The key in keys/trusted/ENTRY, DIRFD being that directory. */
extern EVP_PKEY *trusted_read (int dirfd, const char *entry);
/* The name of the key in the file ENTRY; false: it is no key's file. */
extern bool key_entry_name (const char *entry, const char *suffix,
                            char name[ESP_KEY_NAME_MAX + 1]);

#define SIGNING_FILE "signing.pem"
#define TRUSTED_DIR "trusted"
#define KEY_SUFFIX ".key"
#define PUB_SUFFIX ".pub"

#endif /* ESPALIER_KEYFILE_H */
