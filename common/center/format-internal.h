/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the formats and keys share.  Not for others. */

#ifndef ESPALIER_FORMAT_INTERNAL_H
#define ESPALIER_FORMAT_INTERNAL_H

#include <openssl/evp.h>
#include <jansson.h>

#include "center/format.h"
#include "center/variant-json.h"
#include "store/cleanups.h"
#include "util/aead.h"
#include "util/cleanup.h"
#include "util/host.h"

ESP_DEFINE_CLEANUP (pkey, EVP_PKEY *, EVP_PKEY_free)
ESP_DEFINE_CLEANUP (bio, BIO *, BIO_free)
#define CLEANUP_PKEY ESP_CLEANUP (pkey)
#define CLEANUP_BIO ESP_CLEANUP (bio)

/* Report "WHERE: is damaged: WHY" with EBADMSG.  Returns -1. */
extern int format_damaged (const char *where, const char *why);
/* Report "WHERE: WHAT" with ENOMEM.  Returns -1. */
extern int format_no_memory (const char *where);

/* A variant's key: keys.h has who makes it. */
struct esp_segment_key {
  uint8_t aes[AEAD_KEY];
};

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
