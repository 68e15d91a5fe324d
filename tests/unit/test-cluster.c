/* SPDX-License-Identifier: BSD-3-Clause */
/* The cluster with nodes that work: values, sizes, several servers. */

/* Long enough that nobody misses one on a busy machine. */
#define TIMEOUT 20000u
#define LEASE 2500u
#define WAIT 60000u
#include "cluster-test.h"

#define KIB 1024u
#define SEG (64 * KIB)
#define RP(n) key_of (ESP_CACHE_RP, (n), 16)

static void
test_hit (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG], want[SEG];
  struct esp_cache_key k = RP (7);
  struct esp_shared_ticket t = { 0 };

  mc_start (b, 0, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  fill_bytes (want, SEG, 7, 0);
  esp_cluster_put (c, &k, want, SEG, 0, &t);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &t), ESP_SHARED_HIT);
  assert_memory_equal (buf, want, SEG);
  assert_int_equal (t.from, ESP_FROM_CLUSTER);
  struct esp_cluster_counters n = counters (c);
  assert_int_equal (n.hits, 1);
  assert_int_equal (n.misses, 1);
  assert_int_equal (n.leases, 1);
  assert_int_equal (n.bytes_read, SEG);
  assert_int_equal (n.bytes_written, SEG);
  assert_int_equal (n.errors + n.lies + n.full + n.waits + n.takeovers, 0);
  struct esp_node_counters node;
  assert_int_equal (esp_cluster_nodes (c, &node, 1), 1);
  assert_int_equal (node.hits, 1);
  assert_int_equal (node.misses, 1);
  assert_true (node.answer_us > 0);
  esp_cluster_close (c);
}

/* A shorter last segment; another length is no hit. */
static void
test_lengths (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  static const size_t lengths[] = { 1, 95, 96, 4095, 4096, 5000, SEG };
  uint8_t buf[SEG];

  mc_start (b, 0, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  for (uint32_t i = 0; i < 7; ++i) {
    struct esp_cache_key k = RP (i);
    fetch (c, &k, lengths[i], NULL);
    struct esp_shared_ticket t = { 0 };
    assert_int_equal (esp_cluster_get (c, &k, buf, lengths[i], 0, &t),
                      ESP_SHARED_HIT);
    assert_true (is_bytes (buf, lengths[i], i, 0));
  }
  assert_int_equal (counters (c).lies, 0);
  struct esp_cache_key k = RP (3);
  struct esp_shared_ticket t = { 0 };
  assert_int_equal (esp_cluster_get (c, &k, buf, 4096, ESP_SHARED_LOOK, &t),
                    ESP_SHARED_MISS);
  assert_int_equal (counters (c).lies, 1);
  esp_cluster_close (c);
}

static void
test_look_takes_no_lease (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG];
  struct esp_cache_key k = RP (1);
  struct esp_shared_ticket t = { 0 }, u = { 0 };

  mc_start (b, 0, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &t),
                    ESP_SHARED_MISS);
  assert_int_equal (counters (c).leases, 0);
  esp_cluster_put (c, &k, buf, SEG, 0, &t);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  assert_int_equal (counters (c).leases, 1);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &u),
                    ESP_SHARED_MISS);
  assert_int_equal (counters (c).waits, 0);
  esp_cluster_give_up (c, &k, &t);
  esp_cluster_close (c);
}

static void
test_lied (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG] = { 0 };
  struct esp_cache_key k = RP (8);
  struct esp_shared_ticket t = { 0 }, u = { 0 };

  mc_start (b, 0, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  esp_cluster_get (c, &k, buf, SEG, 0, &t);
  esp_cluster_put (c, &k, buf, SEG, 0, &t);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &t), ESP_SHARED_HIT);
  esp_cluster_lied (c, &k, &t);
  assert_int_not_equal (t.lease, 0);
  assert_int_equal (counters (c).lies, 1);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &u),
                    ESP_SHARED_BUSY);
  esp_cluster_give_up (c, &k, &t);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &u),
                    ESP_SHARED_MISS);
  esp_cluster_close (c);
}

/* What came encrypted goes to nodes only encrypted. */
static void
test_secret (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  static const uint8_t secret[32] = { 1, 2, 3 };
  uint8_t buf[SEG], want[SEG];
  struct esp_cache_key k = RP (9);
  struct esp_shared_ticket t = { 0 }, u = { 0 };

  mc_start (b, 0, NULL);
  struct esp_cluster *clear = cluster_open (b, mc_list (b, 0, 1));
  assert_int_equal (esp_cluster_get (clear, &k, buf, SEG, ESP_SHARED_SECRET,
                                     &t), ESP_SHARED_MISS);
  assert_int_equal (t.lease, 0);
  /* Even with a lease that was taken without the flag. */
  esp_cluster_get (clear, &k, buf, SEG, 0, &u);
  esp_cluster_put (clear, &k, buf, SEG, ESP_SHARED_SECRET, &u);
  assert_int_equal (counters (clear).bytes_written, 0);

  struct esp_sealer *s = esp_sealer_new (secret);
  struct esp_shared_params p = { .nodes = mc_list (b, 0, 1) };
  struct esp_cluster *c = esp_cluster_open (&p, s);
  fill_bytes (want, SEG, 9, 0);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_SECRET, &t),
                    ESP_SHARED_MISS);
  esp_cluster_put (c, &k, want, SEG, ESP_SHARED_SECRET, &t);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_SECRET, &t),
                    ESP_SHARED_HIT);
  assert_memory_equal (buf, want, SEG);
  /* Who has no key does not find it. */
  u = (struct esp_shared_ticket) { 0 };
  assert_int_equal (esp_cluster_get (clear, &k, buf, SEG, 0, &u),
                    ESP_SHARED_MISS);
  assert_int_equal (counters (clear).lies, 0);
  esp_cluster_close (clear);
  esp_cluster_close (c);
  esp_sealer_free (s);
}

/* --- sizes ---------------------------------------------------------------------- */

static void
check_sizes (struct bench *b, const char *limit, const char *chunk)
{
  const char *options[] = { "-m", "64", "-I", limit, "-o", chunk, NULL };
  size_t mib = 1u << 20;
  CLEANUP_FREE uint8_t *buf = malloc (4 * mib);

  mc_start (b, 0, options);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  for (uint8_t shift = 16; shift <= 22; ++shift) {
    struct esp_cache_key k = key_of (ESP_CACHE_RP, shift, shift);
    size_t len = (size_t) 1 << shift;
    struct esp_shared_ticket t = { 0 };

    fetch (c, &k, len, NULL);
    memset (buf, 0, len);
    assert_int_equal (esp_cluster_get (c, &k, buf, len, 0, &t),
                      ESP_SHARED_HIT);
    assert_true (is_bytes (buf, len, shift, 0));
  }
  assert_int_equal (counters (c).errors + counters (c).full, 0);
  esp_cluster_close (c);
}

static void
test_items_of_128k (void **state)
{
  NEEDS_MEMCACHED ();
  check_sizes (*state, "128k", "slab_chunk_max=65536");
}

static void
test_items_of_1m (void **state)
{
  NEEDS_MEMCACHED ();
  check_sizes (*state, "1m", "slab_chunk_max=524288");
}

static void
test_items_of_8m (void **state)
{
  NEEDS_MEMCACHED ();
  check_sizes (*state, "8m", "slab_chunk_max=524288");
}

/* --- single flight ---------------------------------------------------------------- */
#define KEYS 48
#define THREADS 6

struct flight {
  struct esp_cluster *c;
  _Atomic unsigned *fetched;    /* for each key */
  unsigned first;
};

static void *
flight_main (void *arg)
{
  struct flight *f = arg;

  for (unsigned i = 0; i < KEYS; ++i) {
    unsigned n = (f->first + i) % KEYS;
    struct esp_cache_key k = RP (n);
    fetch (f->c, &k, SEG, &f->fetched[n]);
  }
  return NULL;
}

/* Two servers, some threads each, three nodes: each segment is fetched once. */
static void
test_single_flight (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  static _Atomic unsigned fetched[KEYS];
  struct esp_cluster *c[2];
  struct flight f[2 * THREADS];
  pthread_t t[2 * THREADS];

  for (unsigned i = 0; i < 3; ++i)
    mc_start (b, i, NULL);
  for (unsigned i = 0; i < 2; ++i) {
    c[i] = cluster_open (b, mc_list (b, 0, 3));
    wait_out (c[i], 0);
  }
  for (unsigned i = 0; i < 2 * THREADS; ++i) {
    f[i] = (struct flight) { c[i % 2], fetched, i / 4 * 5 };
    assert_int_equal (pthread_create (&t[i], NULL, flight_main, &f[i]), 0);
  }
  for (unsigned i = 0; i < 2 * THREADS; ++i)
    pthread_join (t[i], NULL);
  for (unsigned i = 0; i < KEYS; ++i)
    assert_int_equal (fetched[i], 1);
  struct esp_node_counters n[3];
  esp_cluster_nodes (c[0], n, 3);
  for (unsigned i = 0; i < 3; ++i)
    assert_true (n[i].hits > 0);
  esp_cluster_close (c[0]);
  esp_cluster_close (c[1]);
}

/* --- nodes that want a password ----------------------------------------------------- */

static void
test_login_file (void **state)
{
  struct bench *b = *state;
  char path[200];
  struct esp_shared_params p = { .nodes = "a:1", .sasl_file = path };

  snprintf (path, sizeof path, "%s/login", b->dir);
  assert_int_equal (esp_cluster_check (&p), -1);
  static const struct { const char *text; int ok; } cases[] = {
    { "user:password\n", 0 }, { "u:p:q", 0 }, { "", -1 }, { "user", -1 },
    { ":p", -1 }, { "u:\n", -1 },
  };
  for (unsigned i = 0; i < 6; ++i) {
    FILE *f = fopen (path, "w");
    fputs (cases[i].text, f);
    fclose (f);
    assert_int_equal (esp_cluster_check (&p), cases[i].ok);
  }
}

/* memcached -S, as the manual says to set it up. */
static void
sasl_start (struct bench *b)
{
  static const char *const options[] = { "-S", NULL };
  CLEANUP_FREE char *cmd = NULL;
  char path[200];

  snprintf (path, sizeof path, "%s/memcached.conf", b->dir);
  FILE *f = fopen (path, "w");
  fprintf (f, "mech_list: plain\npwcheck_method: auxprop\n"
           "auxprop_plugin: sasldb\nsasldb_path: %s/db\n", b->dir);
  fclose (f);
  assert_true (asprintf (&cmd, "printf secret | saslpasswd2 -p -c -u here "
                         "-a memcached -f '%s/db' user", b->dir) > 0);
  assert_int_equal (system (cmd), 0);
  setenv ("SASL_CONF_PATH", b->dir, 1);
  mc_start (b, 0, options);
  unsetenv ("SASL_CONF_PATH");
}

static struct esp_cluster *
sasl_open (struct bench *b, const char *login)
{
  char path[200];
  struct esp_shared_params p = {
    .nodes = mc_list (b, 0, 1), .sasl_file = path, .lease_ms = 1000,
  };

  snprintf (path, sizeof path, "%s/login", b->dir);
  FILE *f = fopen (path, "w");
  fputs (login, f);
  fclose (f);
  struct esp_cluster *c = esp_cluster_open (&p, b->sealer);
  assert_non_null (c);
  return c;
}

/* All that is asked, in the binary protocol. */
static void
check_binary (struct esp_cluster *c)
{
  struct esp_cache_key k = RP (1), l = key_of (ESP_CACHE_RP, 1, 22);
  struct esp_cache_key e = key_of (ESP_CACHE_EXPORT, 1, 16);
  CLEANUP_FREE uint8_t *buf = malloc (4u << 20);
  struct esp_shared_ticket t = { 0 }, u = { 0 };

  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &u),
                    ESP_SHARED_BUSY);
  usleep (600000);              /* the lease is renewed once */
  fill_bytes (buf, SEG, 1, 0);
  esp_cluster_put (c, &k, buf, SEG, 0, &t);
  memset (buf, 0, SEG);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &u),
                    ESP_SHARED_HIT);
  assert_true (is_bytes (buf, SEG, 1, 0));
  fetch (c, &l, 4u << 20, NULL);        /* in parts */
  assert_int_equal (esp_cluster_get (c, &l, buf, 4u << 20, 0, &u),
                    ESP_SHARED_HIT);
  assert_true (is_bytes (buf, 4u << 20, 1, 0));
  t = (struct esp_shared_ticket) { 0 };
  esp_cluster_get (c, &e, buf, SEG, 0, &t);
  esp_cluster_write_begin (c, &e);
  esp_cluster_write_end (c, &e);
  esp_cluster_put (c, &e, buf, SEG, 0, &t);
  assert_int_equal (esp_cluster_get (c, &e, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  esp_cluster_give_up (c, &e, &t);
  assert_int_equal (counters (c).errors + counters (c).lies, 0);
}

static void
test_password (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;

  if (system ("command -v saslpasswd2 >/dev/null 2>&1") != 0) {
    print_message ("# saslpasswd2 is not installed\n");
    skip ();
  }
  sasl_start (b);
  struct esp_cluster *c = sasl_open (b, "user@here:secret\n");
  assert_int_equal (cluster_out (c), 0);
  check_binary (c);
  esp_cluster_close (c);
  unit_error[0] = 0;
  c = sasl_open (b, "user@here:wrong\n");
  assert_int_equal (cluster_out (c), 1);
  assert_non_null (strstr (unit_error, "password"));
  esp_cluster_close (c);
  /* Without a password the text protocol is spoken, and is not answered. */
  struct esp_shared_params p = { .nodes = mc_list (b, 0, 1), .timeout_ms = 50 };
  c = esp_cluster_open (&p, b->sealer);
  assert_non_null (c);
  assert_int_equal (cluster_out (c), 1);
  esp_cluster_close (c);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    T (test_hit), T (test_lengths), T (test_look_takes_no_lease),
    T (test_lied), T (test_secret), T (test_items_of_128k), T (test_items_of_1m),
    T (test_items_of_8m), T (test_single_flight), T (test_login_file),
    T (test_password),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
