/* SPDX-License-Identifier: BSD-3-Clause */
/* A wire under TLS, by OpenSSL.
 *
 * OpenSSL's own sockets would raise SIGPIPE and know no deadline.  Its bytes
 * therefore go through a BIO over the wire's socket: sends have MSG_NOSIGNAL,
 * and behind the turn's end nothing is received any more, so that a node which
 * feeds OpenSSL what never becomes an answer (tickets, key updates, half
 * records) keeps nobody longer than any other.
 *
 * Nothing here waits: who calls is told what to wait for.  A record of an
 * answer is decrypted in OpenSSL's buffer and copied once, to where the caller
 * wants it.
 */

#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "cache/cluster-internal.h"
#include "cache/tls.h"
#include "cache/wire-internal.h"

/* --- bytes ------------------------------------------------------------------ */

static bool
transient (void)
{
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static int
bio_read (BIO *bio, char *buf, int n)
{
  struct esp_wire *w = BIO_get_data (bio);
  bool late = esp_now_us () >= w->until_us;
  ssize_t r = late ? -1 : recv (w->fd, buf, (size_t) n, 0);

  BIO_clear_retry_flags (bio);
  if (r == -1 && (late || transient ()))
    BIO_set_retry_read (bio);
  return (int) r;
}

static int
bio_write (BIO *bio, const char *buf, int n)
{
  struct esp_wire *w = BIO_get_data (bio);
  ssize_t r = send (w->fd, buf, (size_t) n,
                    MSG_NOSIGNAL | (w->more ? MSG_MORE : 0));

  BIO_clear_retry_flags (bio);
  if (r == -1 && transient ())
    BIO_set_retry_write (bio);
  return (int) r;
}

static long
bio_ctrl (BIO *bio, int cmd, long num, void *ptr)
{
  (void) bio, (void) num, (void) ptr;
  return cmd == BIO_CTRL_FLUSH;
}

BIO_METHOD *
tls_bio_method (void)
{
  BIO_METHOD *m = BIO_meth_new (BIO_TYPE_SOURCE_SINK, "cache node");

  if (m && BIO_meth_set_read (m, bio_read) &&
      BIO_meth_set_write (m, bio_write) && BIO_meth_set_ctrl (m, bio_ctrl))
    return m;
  BIO_meth_free (m);
  return NULL;
}

/* --- what went wrong ---------------------------------------------------------- */

static enum esp_wire_result
of_verify (long result)
{
  switch (result) {
  case X509_V_ERR_CERT_HAS_EXPIRED:
  case X509_V_ERR_CERT_NOT_YET_VALID:
    return ESP_WIRE_TLS_EXPIRED;
  case X509_V_ERR_HOSTNAME_MISMATCH:
  case X509_V_ERR_IP_ADDRESS_MISMATCH:
    return ESP_WIRE_TLS_MISNAMED;
  default:
    return ESP_WIRE_TLS_UNTRUSTED;
  }
}

/* The alerts that a node sends which does not like our certificate. */
static bool
is_refusal (int reason)
{
  switch (reason - SSL_AD_REASON_OFFSET) {
  case SSL_AD_HANDSHAKE_FAILURE:        /* TLS 1.2: there is none */
  case SSL_AD_BAD_CERTIFICATE:
  case SSL_AD_UNSUPPORTED_CERTIFICATE:
  case SSL_AD_CERTIFICATE_REVOKED:
  case SSL_AD_CERTIFICATE_EXPIRED:
  case SSL_AD_CERTIFICATE_UNKNOWN:
  case SSL_AD_UNKNOWN_CA:
  case SSL_AD_ACCESS_DENIED:
  case SSL_AD_CERTIFICATE_REQUIRED:
    return true;
  default:
    return false;
  }
}

static enum esp_wire_result
why_failed (struct esp_wire *w)
{
  long verified = SSL_get_verify_result (w->ssl);
  int reason = ERR_GET_REASON (ERR_peek_error ());

  ERR_clear_error ();           /* or libcurl's TLS may take it for its own */
  if (verified != X509_V_OK)
    return of_verify (verified);
  if (is_refusal (reason))
    return ESP_WIRE_TLS_REFUSED;
  return SSL_is_init_finished (w->ssl) ? ESP_WIRE_GARBAGE : ESP_WIRE_TLS_NONE;
}

/* Of a call that gave R, which is not what was hoped for.  OK: wait for EVENTS
 * and call again.
 */
static enum esp_wire_result
outcome (struct esp_wire *w, int r, short *events)
{
  switch (SSL_get_error (w->ssl, r)) {
  case SSL_ERROR_WANT_READ:
    *events = POLLIN;
    return ESP_WIRE_OK;
  case SSL_ERROR_WANT_WRITE:
    *events = POLLOUT;
    return ESP_WIRE_OK;
  case SSL_ERROR_SSL:
    return why_failed (w);
  default:                      /* it was closed, with and without a word */
    ERR_clear_error ();
    return SSL_is_init_finished (w->ssl) ? wire_lost (w) : ESP_WIRE_TLS_NONE;
  }
}

/* --- the handshake ----------------------------------------------------------- */

/* Only a certificate for HOST will do, whose subjectAltName says so. */
static bool
expect_host (SSL *ssl, const char *host)
{
  char name[256] = "";
  struct in6_addr a;
  size_t n = strcspn (host, "%");       /* what is behind it is a zone */

  memcpy (name, host, n < sizeof name ? n : sizeof name - 1);
  if (inet_pton (AF_INET, name, &a) == 1 || inet_pton (AF_INET6, name, &a) == 1)
    return X509_VERIFY_PARAM_set1_ip_asc (SSL_get0_param (ssl), name) == 1;
  n = strlen (name);
  if (n > 0 && name[n - 1] == '.')
    name[n - 1] = 0;
  SSL_set_hostflags (ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                     X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  return name[0] && SSL_set1_host (ssl, name) == 1 &&
    SSL_set_tlsext_host_name (ssl, name) == 1;
}

static bool
prepare (struct esp_wire *w, const struct esp_tls *tls, const char *host)
{
  BIO *bio = BIO_new (tls->method);

  w->ssl = SSL_new (tls->ctx);
  if (!bio || !w->ssl) {
    BIO_free (bio);
    return false;
  }
  BIO_set_data (bio, w);
  BIO_set_init (bio, 1);
  SSL_set_bio (w->ssl, bio, bio);       /* its own from here on */
  return expect_host (w->ssl, host);
}

enum esp_wire_result
wire_tls_start (struct esp_wire *w, const struct esp_tls *tls,
                const char *host)
{
  ERR_clear_error ();
  if (!prepare (w, tls, host)) {
    ERR_clear_error ();
    return ESP_WIRE_CLOSED;
  }
  for (;;) {
    short events = 0;
    int r = SSL_connect (w->ssl);
    enum esp_wire_result e;

    if (r == 1)
      return ESP_WIRE_OK;
    e = outcome (w, r, &events);
    if (e != ESP_WIRE_OK)
      return e;
    e = wire_wait (w, events);
    if (e != ESP_WIRE_OK)
      return e == ESP_WIRE_TIMEOUT ? ESP_WIRE_TLS_LATE : e;
  }
}

void
wire_tls_end (struct esp_wire *w)
{
  SSL_free (w->ssl);
}

/* --- data -------------------------------------------------------------------- */

static bool
has_more (const struct iovec *iov, size_t n)
{
  for (size_t i = 1; i < n; ++i)
    if (iov[i].iov_len > 0)
      return true;
  return false;
}

enum esp_wire_result
wire_tls_send (struct esp_wire *w, const struct iovec *iov, size_t n,
               size_t *sent, short *events)
{
  size_t i = 0;

  *sent = 0;
  while (i < n && iov[i].iov_len == 0)
    ++i;
  if (i == n)
    return ESP_WIRE_OK;
  iov += i;
  n -= i;
  ERR_clear_error ();
  w->more = has_more (iov, n);  /* small records go together */
  if (SSL_write_ex (w->ssl, iov->iov_base, iov->iov_len, sent) == 1)
    return ESP_WIRE_OK;
  *sent = 0;
  return outcome (w, 0, events);
}

enum esp_wire_result
wire_tls_receive (struct esp_wire *w, const struct iovec *iov, size_t *got,
                  short *events)
{
  ERR_clear_error ();
  w->more = false;
  if (SSL_read_ex (w->ssl, iov->iov_base, iov->iov_len, got) == 1)
    return ESP_WIRE_OK;
  *got = 0;
  return outcome (w, 0, events);
}
