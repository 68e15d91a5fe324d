/* SPDX-License-Identifier: BSD-3-Clause */
/* What is needed for TLS to cache nodes, from its files.
 *
 * Trusted is what stands in the one file of authorities, and nothing of the
 * system's; an authority of the middle will do there.  TLS 1.2 is the least,
 * nobody renegotiates, and no session is kept: connections live long.  The end
 * of a connection need not be announced, since answers have lengths.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "cache/tls.h"
#include "center/keyfile.h"
#include "util/cleanup.h"
#include "util/host.h"

static int
bad (const char *name, const char *what)
{
  ERR_clear_error ();           /* or libcurl's TLS may take it for its own */
  errno = EINVAL;
  esp_error ("%s: %s", name, what);
  return -1;
}

int
tls_check_params (const struct esp_shared_params *p)
{
  if (!p->tls_certificate != !p->tls_key)
    return bad (p->tls_key ? "segcache-tls-key" : "segcache-tls-certificate",
                "give segcache-tls-certificate and segcache-tls-key, or none "
                "of them");
  if (p->tls_certificate && !p->tls_ca)
    return bad ("segcache-tls-certificate",
                "give segcache-tls-ca, too: it is what turns TLS on");
  if (p->tls_ca && !p->nodes)
    return bad ("segcache-tls-ca", "give segcache-nodes, too: TLS is for them");
  return 0;
}

/* OpenSSL does not say well why it cannot open a file. */
static int
check_readable (const char *path)
{
  CLEANUP_CLOSE int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

  if (fd == -1)
    esp_error ("open: %s: %m", path);
  return fd == -1 ? -1 : 0;
}

static int
load_ca (SSL_CTX *ctx, const char *path)
{
  if (check_readable (path) == -1)
    return -1;
  if (SSL_CTX_load_verify_file (ctx, path) != 1)
    return bad (path, "there is no certificate of an authority in it (PEM)");
  return 0;
}

static int
load_certificate (SSL_CTX *ctx, const char *path)
{
  if (check_readable (path) == -1)
    return -1;
  if (SSL_CTX_use_certificate_chain_file (ctx, path) != 1)
    return bad (path, "there is no certificate in it that can be used (PEM)");
  return 0;
}

/* A key with a password: nobody is asked for it. */
static int
no_password (char *buf, int size, int writing, void *arg)
{
  (void) buf, (void) size, (void) writing, (void) arg;
  return -1;
}

static EVP_PKEY *
read_key (const char *path)
{
  char text[KEYFILE_MAX];
  ssize_t n = keyfile_read (AT_FDCWD, path, KEYFILE_SECRET, path, text);
  EVP_PKEY *key = NULL;

  if (n == -1) {
    if (errno == ENOENT)
      esp_error ("open: %s: %m", path);
    return NULL;
  }
  BIO *bio = BIO_new_mem_buf (text, (int) n);
  if (bio)
    key = PEM_read_bio_PrivateKey (bio, NULL, no_password, NULL);
  BIO_free (bio);
  OPENSSL_cleanse (text, sizeof text);
  if (!key)
    bad (path, "there is no private key without a password in it (PEM)");
  return key;
}

static int
load_key (SSL_CTX *ctx, const char *path)
{
  EVP_PKEY *key = read_key (path);

  if (!key)
    return -1;
  /* Looks at the certificate, too. */
  int ok = SSL_CTX_use_PrivateKey (ctx, key) == 1 &&
    SSL_CTX_check_private_key (ctx) == 1;
  EVP_PKEY_free (key);
  return ok ? 0 : bad (path, "this is not the key of the certificate");
}

static int
load_files (SSL_CTX *ctx, const struct esp_shared_params *p)
{
  if (load_ca (ctx, p->tls_ca) == -1)
    return -1;
  if (!p->tls_certificate)
    return 0;
  return load_certificate (ctx, p->tls_certificate) == -1 ||
    load_key (ctx, p->tls_key) == -1 ? -1 : 0;
}

static int
set_rules (SSL_CTX *ctx)
{
  SSL_CTX_set_options (ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                       SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode (ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                    SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode (ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_read_ahead (ctx, 1);      /* a record is one system call */
  SSL_CTX_set_verify (ctx, SSL_VERIFY_PEER, NULL);
  X509_VERIFY_PARAM_set_flags (SSL_CTX_get0_param (ctx),
                               X509_V_FLAG_PARTIAL_CHAIN);
  if (SSL_CTX_set_min_proto_version (ctx, TLS1_2_VERSION) == 1)
    return 0;
  return bad ("segcache-tls-ca", "OpenSSL cannot do TLS 1.2");
}

struct esp_tls *
tls_new (const struct esp_shared_params *params)
{
  struct esp_tls *tls = calloc (1, sizeof *tls);

  if (tls) {
    tls->ctx = SSL_CTX_new (TLS_client_method ());
    tls->method = tls_bio_method ();
  }
  if (!tls || !tls->ctx || !tls->method) {
    errno = ENOMEM;
    esp_error ("segcache-tls-ca: OpenSSL: %m");
  }
  else if (set_rules (tls->ctx) == 0 && load_files (tls->ctx, params) == 0)
    return tls;
  int err = errno;
  tls_free (tls);
  errno = err;
  return NULL;
}

void
tls_free (struct esp_tls *tls)
{
  if (!tls)
    return;
  SSL_CTX_free (tls->ctx);
  BIO_meth_free (tls->method);
  free (tls);
}
