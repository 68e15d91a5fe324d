/* SPDX-License-Identifier: BSD-3-Clause */
/* A node that speaks TLS well and then feeds it what never becomes an answer.
 * OpenSSL swallows all of that in one call.
 */

#include "tls-test.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#define SEG 65536u

enum flood { TICKETS, KEY_UPDATES, EMPTY_RECORDS, FLOODS };

struct flooder {
  SSL_CTX *ctx;
  int fd;
  unsigned port;
  enum flood flood;
  _Atomic bool stop, flooded;
  pthread_t thread;
};

static bool
feed (struct flooder *f, SSL *ssl)
{
  static const char record[] = { 23, 3, 3, 0, 0 };

  switch (f->flood) {
  case TICKETS:
    return SSL_new_session_ticket (ssl) == 1 && SSL_do_handshake (ssl) == 1;
  case KEY_UPDATES:
    return SSL_key_update (ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 &&
      SSL_do_handshake (ssl) == 1;
  default:                      /* which is no TLS 1.3 */
    return send_all (SSL_get_fd (ssl), record, sizeof record);
  }
}

static bool
say (SSL *ssl, const char *text)
{
  return SSL_write (ssl, text, (int) strlen (text)) > 0;
}

/* One question; false: it is over. */
static bool
reply (struct flooder *f, SSL *ssl)
{
  char ask[400];
  int n = SSL_read (ssl, ask, sizeof ask - 1);

  ask[n > 0 ? n : 0] = 0;
  if (strncmp (ask, "version", 7) == 0)
    return say (ssl, "VERSION 1.6.18\r\n");
  if (strncmp (ask, "stats", 5) == 0)
    return say (ssl, "STAT item_size_max 1048576\r\nEND\r\n");
  if (n <= 0)
    return false;
  f->flooded = true;
  while (!f->stop && feed (f, ssl))
    ;
  return false;
}

static void
serve (struct flooder *f, int fd)
{
  SSL *ssl = SSL_new (f->ctx);
  struct timeval t = { .tv_sec = 10 };

  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  SSL_set_fd (ssl, fd);
  if (SSL_accept (ssl) == 1)
    while (!f->stop && reply (f, ssl))
      ;
  ERR_clear_error ();
  SSL_free (ssl);
  close (fd);
}

static void *
flooder_main (void *arg)
{
  struct flooder *f = arg;

  while (!f->stop) {
    struct pollfd p = { .fd = f->fd, .events = POLLIN };
    if (poll (&p, 1, 10) > 0)
      serve (f, accept (f->fd, NULL, NULL));
  }
  return NULL;
}

static void
flooder_start (struct flooder *f, enum flood flood)
{
  struct sockaddr_in a = {
    .sin_family = AF_INET, .sin_addr = { htonl (INADDR_LOOPBACK) }
  };
  socklen_t len = sizeof a;

  *f = (struct flooder) { .flood = flood };
  f->ctx = SSL_CTX_new (TLS_server_method ());
  assert_int_equal (SSL_CTX_use_certificate_chain_file
                    (f->ctx, cert ("node.pem")), 1);
  assert_int_equal (SSL_CTX_use_PrivateKey_file
                    (f->ctx, cert ("node.key"), SSL_FILETYPE_PEM), 1);
  f->fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal (bind (f->fd, (struct sockaddr *) &a, sizeof a), 0);
  assert_int_equal (listen (f->fd, 16), 0);
  assert_int_equal (getsockname (f->fd, (struct sockaddr *) &a, &len), 0);
  f->port = ntohs (a.sin_port);
  pthread_create (&f->thread, NULL, flooder_main, f);
}

static void
flooder_end (struct flooder *f)
{
  f->stop = true;
  pthread_join (f->thread, NULL);
  close (f->fd);
  SSL_CTX_free (f->ctx);
}

static void
test_floods (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;

  for (int i = 0; i < FLOODS; ++i) {
    struct flooder f;
    char nodes[60];
    struct esp_cache_key k = key_of (ESP_CACHE_RP, 1, 16);
    struct esp_shared_ticket t = { 0 };
    uint8_t buf[SEG];

    flooder_start (&f, (enum flood) i);
    snprintf (nodes, sizeof nodes, "127.0.0.1:%u", f.port);
    struct esp_shared_params p = {
      .nodes = nodes, .tls_ca = cert ("ca.pem"), .timeout_ms = 500
    };
    struct esp_cluster *c = esp_cluster_open (&p, b->sealer);
    wait_out (c, 0);
    uint64_t begin = now_ms ();
    assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &t),
                      ESP_SHARED_MISS);
    /* Four time-outs, and what a busy machine needs. */
    assert_true (now_ms () - begin < 5 * 500);
    assert_true (f.flooded);
    assert_true (counters (c).errors + counters (c).lies > 0);
    esp_cluster_close (c);
    flooder_end (&f);
  }
}

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_floods, bench_setup, bench_teardown),
  };

  signal (SIGPIPE, SIG_IGN);    /* the flooder's own, by OpenSSL's sockets */
  unit_init ();
  return cmocka_run_group_tests (tests, certs_setup, certs_teardown);
}
