/* SPDX-License-Identifier: BSD-3-Clause */
/* Cache nodes with TLS: that it works, and who is left out, and why. */

#include "tls-test.h"

#define SEG 65536u
#define MIB (1u << 20)
#define RP(n) key_of (ESP_CACHE_RP, (n), 16)
#define RP_MIB(n) key_of (ESP_CACHE_RP, (n), 20)

static const struct node_how node_right = { .cert = "node" };

/* A server whose node has PORT of 127.0.0.1, and whose certificate is CLIENT
 * (or NULL).
 */
static struct esp_cluster *
tls_open_as (struct bench *b, unsigned port, const char *client)
{
  char nodes[60], pem[40], key[40];

  snprintf (nodes, sizeof nodes, "127.0.0.1:%u", port);
  snprintf (pem, sizeof pem, "%s.pem", client ? client : "");
  snprintf (key, sizeof key, "%s.key", client ? client : "");
  struct esp_shared_params p = {
    .nodes = nodes, .timeout_ms = TIMEOUT, .lease_ms = LEASE, .wait_ms = WAIT,
    .tls_ca = cert ("ca.pem"),
    .tls_certificate = client ? cert (pem) : NULL,
    .tls_key = client ? cert (key) : NULL,
  };
  unit_error[0] = 0;
  struct esp_cluster *c = esp_cluster_open (&p, b->sealer);

  if (!c)
    fail_msg ("%s", unit_error);
  return c;
}

static struct esp_cluster *
tls_open (struct bench *b, unsigned port)
{
  return tls_open_as (b, port, NULL);
}

/* Fetch segment N twice: once from elsewhere, once from the node. */
static void
assert_works (struct esp_cluster *c, unsigned n)
{
  _Atomic unsigned fetched = 0;
  struct esp_cache_key k = RP (n);

  wait_out (c, 0);
  fetch (c, &k, SEG, &fetched);
  fetch (c, &k, SEG, &fetched);
  assert_int_equal (fetched, 1);
}

/* Closes C: it warned that its node is left out, with TEXT. */
static void
assert_left_out (struct esp_cluster *c, const char *text)
{
  for (unsigned i = 0; i < 3000 && !unit_error[0]; ++i)
    usleep (1000);
  esp_cluster_close (c);        /* whose threads write there */
  if (!strstr (unit_error, text) || !strstr (unit_error, "left out"))
    fail_msg ("\"%s\" is not in \"%s\"", text, unit_error);
}

static void
test_values (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  unsigned port = node_start (b, 0, &node_right);
  struct esp_cluster *one = tls_open (b, port), *two = tls_open (b, port);
  _Atomic unsigned fetched = 0;

  for (unsigned i = 0; i < 20; ++i) {
    struct esp_cache_key k = RP (i), large = RP_MIB (i);
    fetch (one, &k, SEG, &fetched);
    fetch (two, &k, SEG, &fetched);
    fetch (two, &large, MIB, &fetched);         /* in parts */
    fetch (one, &large, MIB, &fetched);
  }
  assert_int_equal (fetched, 40);
  assert_int_equal (counters (one).hits, 20);
  assert_int_equal (counters (two).hits, 20);
  assert_int_equal (counters (one).errors + counters (two).errors, 0);
  esp_cluster_close (one);
  esp_cluster_close (two);
}

static void
test_lease (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  unsigned port = node_start (b, 0, &node_right);
  struct esp_cluster *one = tls_open (b, port), *two = tls_open (b, port);
  struct esp_shared_ticket t = { 0 }, u = { 0 };
  struct esp_cache_key k = RP (1);
  uint8_t buf[SEG];

  assert_int_equal (esp_cluster_get (one, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  assert_int_equal (esp_cluster_get (two, &k, buf, SEG, 0, &u),
                    ESP_SHARED_BUSY);
  fill_bytes (buf, SEG, 1, 0);
  esp_cluster_put (one, &k, buf, SEG, 0, &t);
  memset (buf, 0, sizeof buf);
  assert_int_equal (get_all (two, &k, buf, SEG, &u), ESP_SHARED_HIT);
  assert_true (is_bytes (buf, SEG, 1, 0));
  esp_cluster_close (one);
  esp_cluster_close (two);
}

static void *
many_main (void *arg)
{
  for (unsigned i = 0; i < 60; ++i) {
    struct esp_cache_key k = RP (i % 16), large = RP_MIB (i % 4);
    fetch (arg, &k, SEG, NULL);
    fetch (arg, &large, MIB, NULL);
  }
  return NULL;
}

static void
test_many_threads (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct esp_cluster *c = tls_open (b, node_start (b, 0, &node_right));
  pthread_t t[6];

  wait_out (c, 0);
  for (unsigned i = 0; i < 6; ++i)
    pthread_create (&t[i], NULL, many_main, c);
  for (unsigned i = 0; i < 6; ++i)
    pthread_join (t[i], NULL);
  assert_int_equal (counters (c).lies + counters (c).errors, 0);
  assert_true (counters (c).hits >= 6 * 120 - 6 * 20);
  esp_cluster_close (c);
}

/* A node by its name; its address stands not in the certificate. */
static void
test_name (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct node_how how = { .cert = "named" };
  unsigned port = node_start (b, 0, &how);
  char nodes[40];

  snprintf (nodes, sizeof nodes, "LocalHost:%u", port);
  struct esp_shared_params p = {
    .nodes = nodes, .tls_ca = cert ("ca.pem"), .timeout_ms = TIMEOUT
  };
  struct esp_cluster *c = esp_cluster_open (&p, b->sealer);
  assert_works (c, 1);
  esp_cluster_close (c);
  assert_left_out (tls_open (b, port), "is not for this name");
}

static void
test_untrusted (void **state)
{
  NEEDS_TLS ();
  static const struct { struct node_how how; const char *text; } wrong[] = {
    { { .cert = "stranger" }, "is not from an authority" },
    { { .cert = "misnamed" }, "is not for this name" },
    { { .cert = "expired" }, "has expired" },
    { { .cert = "node", .version = "1" }, "does not speak TLS 1.2" },
    { { .cert = NULL }, "speak TLS" },  /* it may be silent, too */
  };
  struct bench *b = *state;

  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    unsigned port = node_start (b, 0, &wrong[i].how);
    assert_left_out (tls_open (b, port), wrong[i].text);
    mc_kill (b, 0);
  }
}

/* What is left out costs nothing, and is nobody's cache. */
static void
test_left_out_is_not_asked (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct node_how how = { .cert = "stranger" };
  struct middle *m = middle_start (node_start (b, 0, &how), PASS);
  struct esp_cluster *c = tls_open (b, m->port);
  _Atomic unsigned fetched = 0;

  wait_out (c, 1);
  for (unsigned i = 0; i < 50; ++i) {
    struct esp_cache_key k = RP (i % 5);
    fetch (c, &k, SEG, &fetched);
  }
  assert_int_equal (fetched, 50);
  assert_true (m->accepted < 10);
  esp_cluster_close (c);
  middle_end (m);
}

static void
test_tls_1_2 (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct node_how how = { .cert = "node", .version = "2" };
  struct esp_cluster *c = tls_open (b, node_start (b, 0, &how));
  struct esp_cache_key k = RP_MIB (7);
  _Atomic unsigned fetched = 0;

  assert_works (c, 1);
  fetch (c, &k, MIB, &fetched);
  fetch (c, &k, MIB, &fetched);
  assert_int_equal (fetched, 1);
  esp_cluster_close (c);
}

static void
test_client_certificate (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  static const char *const versions[] = { "2", "3" };

  for (unsigned i = 0; i < 2; ++i) {
    char options[300];
    struct node_how how = {
      .cert = "node", .options = options, .version = versions[i]
    };
    snprintf (options, sizeof options, "ssl_verify_mode=2,ssl_ca_cert=%s",
              cert ("clients.pem"));
    unsigned port = node_start (b, 0, &how);
    assert_left_out (tls_open (b, port), "segcache-tls-certificate");
    assert_left_out (tls_open_as (b, port, "stranger"),
                     "segcache-tls-certificate");
    struct esp_cluster *c = tls_open_as (b, port, "client");
    assert_works (c, 1);
    esp_cluster_close (c);
    mc_kill (b, 0);
  }
}

/* The connections that were idle are of no use; a new one works. */
static void
test_idle_ones_end (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct middle *m = middle_start (node_start (b, 0, &node_right), PASS);
  struct esp_cluster *c = tls_open (b, m->port);

  assert_works (c, 1);
  m->drop = true;
  usleep (100000);
  m->drop = false;
  struct esp_cache_key k = RP (1);
  _Atomic unsigned fetched = 0;
  fetch (c, &k, SEG, &fetched);
  assert_int_equal (fetched, 0);
  assert_int_equal (cluster_out (c), 0);
  esp_cluster_close (c);
  middle_end (m);
}

static void
test_garbage_handshake (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct middle *m = middle_start (node_start (b, 0, &node_right), GARBAGE);

  assert_left_out (tls_open (b, m->port), "does not speak TLS");
  middle_end (m);
}

/* Who hangs in the handshake, at once, amid it or a byte at a time, costs one
 * time-out.
 */
static void
test_handshake_hangs (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct middle *m = middle_start (node_start (b, 0, &node_right), PASS);
  static const enum mode modes[] = { HANG, STALL, SLOW };

  for (unsigned i = 0; i < 3; ++i) {
    struct esp_cluster *c = tls_open (b, m->port);
    struct esp_node_counters n;

    assert_works (c, i);
    m->limit = 150;
    m->mode = (int) modes[i];
    m->drop = true;
    usleep (100000);
    m->drop = false;
    uint64_t begin = now_ms ();
    for (unsigned j = 0; j < 20; ++j) {
      struct esp_cache_key k = RP (j);
      fetch (c, &k, SEG, NULL);
    }
    uint64_t took = now_ms () - begin;
    esp_cluster_nodes (c, &n, 1);
    assert_in_range (took, TIMEOUT - 10, 2 * TIMEOUT - 1);
    assert_int_equal (n.timeouts, 1);
    assert_true (n.out);
    m->mode = PASS;
    wait_out (c, 0);
    assert_left_out (c, "no TLS handshake in time");
  }
  middle_end (m);
}

static void
test_answer_trickles (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct middle *m = middle_start (node_start (b, 0, &node_right), PASS);
  struct esp_cluster *c = tls_open (b, m->port);
  struct esp_cache_key k = RP (1);
  uint8_t buf[SEG];
  struct esp_shared_ticket t = { 0 };

  assert_works (c, 1);
  m->mode = SLOW;
  uint64_t begin = now_ms ();
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &t),
                    ESP_SHARED_MISS);
  assert_in_range (now_ms () - begin, TIMEOUT, 5 * TIMEOUT - 1);
  assert_int_equal (cluster_out (c), 1);
  m->mode = PASS;
  m->drop = true;
  usleep (100000);
  m->drop = false;
  wait_out (c, 0);
  esp_cluster_close (c);
  middle_end (m);
}

static void
test_closed_amid_a_value (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct middle *m = middle_start (node_start (b, 0, &node_right), PASS);
  static const size_t limits[] = { 40, 20000, 33000, 65000 };
  struct esp_cache_key k = RP (1);
  uint8_t buf[SEG];

  for (unsigned i = 0; i < 4; ++i) {
    struct esp_cluster *c = tls_open (b, m->port);
    struct esp_shared_ticket t = { 0 }, u = { 0 };

    assert_works (c, 10 + i);
    fetch (c, &k, SEG, NULL);
    m->limit = limits[i];
    m->mode = CUT;
    assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &t),
                      ESP_SHARED_MISS);
    assert_int_equal (cluster_out (c), 1);
    m->mode = PASS;
    wait_out (c, 0);
    assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &u),
                      ESP_SHARED_HIT);
    assert_true (is_bytes (buf, SEG, 1, 0));
    esp_cluster_close (c);
  }
  middle_end (m);
}

/* A Unix socket is of this host: no TLS there. */
static void
test_unix_socket (void **state)
{
  NEEDS_TLS ();
  struct bench *b = *state;
  struct esp_shared_params p = {
    .tls_ca = cert ("ca.pem"), .timeout_ms = TIMEOUT
  };

  mc_start (b, 0, NULL);
  p.nodes = mc_list (b, 0, 1);
  struct esp_cluster *c = esp_cluster_open (&p, b->sealer);
  assert_works (c, 1);
  esp_cluster_close (c);
}

static void
test_bad_files (void **state)
{
  NEEDS_TLS ();
  (void) state;
  const char *const ca = cert ("ca.pem"), *const key = cert ("client.key");
  const char *const pem = cert ("client.pem"), *const log = cert ("log");
  const struct { const char *ca, *certificate, *key, *nodes, *text; } bad[] = {
    { cert ("none.pem"), NULL, NULL, "a:1", "none.pem: No such file" },
    { log, NULL, NULL, "a:1", "no certificate of an authority" },
    { ca, pem, NULL, "a:1", "segcache-tls-certificate: give" },
    { ca, NULL, key, "a:1", "segcache-tls-key: give" },
    { NULL, pem, key, "a:1", "give segcache-tls-ca, too" },
    { ca, NULL, NULL, NULL, "give segcache-nodes, too" },
    { ca, log, key, "a:1", "log: there is no certificate" },
    { ca, cert ("none.pem"), key, "a:1", "none.pem: No such file" },
    { ca, pem, cert ("none.key"), "a:1", "none.key: No such file" },
    { ca, pem, cert ("node.key"), "a:1", "not the key of the certificate" },
    { ca, pem, cert ("locked.key"), "a:1", "without a password" },
  };

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    struct esp_shared_params p = {
      .nodes = bad[i].nodes, .tls_ca = bad[i].ca,
      .tls_certificate = bad[i].certificate, .tls_key = bad[i].key,
    };
    unit_error[0] = 0;
    assert_int_equal (esp_shared_check (&p), -1);
    if (!strstr (unit_error, bad[i].text))
      fail_msg ("\"%s\" is not in \"%s\"", bad[i].text, unit_error);
  }
}

static void
test_key_that_others_may_read (void **state)
{
  NEEDS_TLS ();
  (void) state;
  const char *key = cert ("client.key");
  struct esp_shared_params p = {
    .nodes = "a:1", .tls_ca = cert ("ca.pem"),
    .tls_certificate = cert ("client.pem"), .tls_key = key,
  };

  assert_int_equal (esp_shared_check (&p), 0);
  assert_int_equal (chmod (key, 0644), 0);
  assert_int_equal (esp_shared_check (&p), -1);
  assert_non_null (strstr (unit_error, "others may read it"));
  assert_int_equal (chmod (key, 0600), 0);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    T (test_values), T (test_lease), T (test_many_threads), T (test_name),
    T (test_untrusted), T (test_left_out_is_not_asked), T (test_tls_1_2),
    T (test_client_certificate), T (test_idle_ones_end),
    T (test_garbage_handshake), T (test_handshake_hangs),
    T (test_answer_trickles), T (test_closed_amid_a_value),
    T (test_unix_socket), T (test_bad_files),
    T (test_key_that_others_may_read),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, certs_setup, certs_teardown);
}
