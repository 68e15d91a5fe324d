/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS to cache nodes: what all connections have in common.  Only for
 * common/cache.
 */

#ifndef ESPALIER_CACHE_TLS_H
#define ESPALIER_CACHE_TLS_H

#include <openssl/ssl.h>

#include "cache/shared.h"
#include "cache/wire.h"

struct esp_tls {
  SSL_CTX *ctx;
  BIO_METHOD *method;           /* of wire-tls.c, over a wire's socket */
};

/* Are the parameters given together that belong together?  EINVAL, reported. */
extern int tls_check_params (const struct esp_shared_params *params);

/* Load PARAMS' tls_ca, and its tls_certificate and tls_key where they are
 * given.  NULL, reported: a file that is not there, that is none, that do not
 * belong together, or a key that others may read.  tls_free frees it, behind
 * all connections.
 */
extern struct esp_tls *tls_new (const struct esp_shared_params *params);
extern void tls_free (struct esp_tls *tls);

/* How a wire's bytes come and go (wire-tls.c); NULL: no memory. */
extern BIO_METHOD *tls_bio_method (void);

#endif /* ESPALIER_CACHE_TLS_H */
