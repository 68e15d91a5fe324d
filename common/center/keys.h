/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys of a store: STORE/keys/ (directory 0700, files 0600).
 *
 *   NAME.key        32 random bytes in base64: encrypts variants
 *   tickets.key     the same: what the site's tickets are issued with
 *                   (boot/ticket.h)
 *   signing.pem     Ed25519, private (PKCS#8): signs what is pushed
 *   trusted/NAME.pub  Ed25519, public (SubjectPublicKeyInfo PEM): whose
 *                   signatures are believed; the store's own always is
 *
 * A file that others may read is refused (EACCES, says chmod 600).  Keys are
 * never printed, never on a command line, and wiped when they are freed.
 */

#ifndef ESPALIER_KEYS_H
#define ESPALIER_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "center/format.h"
#include "store/store.h"

#pragma GCC visibility push(default)

/* --- secrets of variants ---------------------------------------------- */
struct esp_key_info {
  char name[ESP_KEY_NAME_MAX + 1];
  char kind[12];                /* "variant", "tickets", "signing",
                                 * "trusted" */
  char id[17];                  /* of the key: a fingerprint, 16 hex digits */
};
struct esp_key_info_list { struct esp_key_info *key; size_t n; };
extern void esp_key_info_list_clear (struct esp_key_info_list *list);
extern int esp_key_list (struct esp_store *store,
                         struct esp_key_info_list *out);

/* Make a new random key NAME (EEXIST, reported); or copy one from FILE. */
extern int esp_key_create (struct esp_store *store, const char *name);
extern int esp_key_import (struct esp_store *store, const char *name,
                           const char *file);
/* Copy key NAME to the new FILE (0600). */
extern int esp_key_export (struct esp_store *store, const char *name,
                           const char *file);
/* EBUSY, naming them, while restore points that are not all local have no
 * source but variants with this key, unless FORCE.
 */
extern int esp_key_delete (struct esp_store *store, const char *name,
                           bool force);

/* The key for VARIANT's pack: HKDF-SHA256 of the secret with the variant's
 * salt; checked against key_check.  NAME.key of the store, or FILE where it
 * is not NULL.  ENOKEY: no such key (says `espalier key import`);
 * EKEYREJECTED: a wrong one.  esp_segment_key_begin makes a new variant's
 * salt and key_check.
 */
extern struct esp_segment_key *esp_segment_key_load
  (struct esp_store *store, const struct esp_variant *variant,
   const char *file);
extern struct esp_segment_key *esp_segment_key_begin
  (struct esp_store *store, struct esp_variant *variant, const char *file);
extern void esp_segment_key_free (struct esp_segment_key *key);
/* For tests and fuzzing: from 32 bytes. */
extern struct esp_segment_key *esp_segment_key_from
  (const uint8_t secret[32], const uint8_t salt[ESP_SALT_SIZE]);

/* --- signatures ------------------------------------------------------- */
/* The store's signing key, made when there is none and CREATE. */
extern struct esp_signer *esp_signer_load (struct esp_store *store,
                                           bool create);
extern void esp_signer_free (struct esp_signer *signer);
/* The public key as PEM, malloced: what other servers trust. */
extern char *esp_signer_public (const struct esp_signer *signer);

/* The keys that STORE trusts.  Never empty (its own, if it has one). */
extern struct esp_trust *esp_trust_load (struct esp_store *store);
extern void esp_trust_free (struct esp_trust *trust);
/* Trust the public key in FILE (PEM) under NAME; no longer. */
extern int esp_trust_add (struct esp_store *store, const char *name,
                          const char *file);
extern int esp_trust_remove (struct esp_store *store, const char *name);

/* A signed text: BODY, then a line
 *   ed25519 KEYID BASE64\n
 * over "espalier-signed-KIND\n" and BODY.  esp_verify_text sets *BODY_LEN;
 * with TRUST NULL it only cuts a signature off.  EKEYREJECTED: no
 * signature, a wrong one, or a key that is not trusted (the message says which, and
 * what to do).
 */
extern char *esp_sign_text (const struct esp_signer *signer, const char *kind,
                            const char *body, size_t *len);
extern int esp_verify_text (const struct esp_trust *trust, const char *kind,
                            const char *text, size_t len, size_t *body_len,
                            const char *where);

#pragma GCC visibility pop
#endif /* ESPALIER_KEYS_H */
