/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes that are killed, stopped, restarted, full. */

#define TIMEOUT 2000u
#define LEASE 2500u
#include "cluster-test.h"

#define KIB 1024u
#define SEG (64 * KIB)
#define RP(n) key_of (ESP_CACHE_RP, (n), 16)
#define KEYS 24u

/* Three nodes, a server, all keys on them. */
static struct esp_cluster *
three (struct bench *b)
{
  for (unsigned i = 0; i < 3; ++i)
    mc_start (b, i, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 3));
  wait_out (c, 0);
  for (unsigned i = 0; i < KEYS; ++i) {
    struct esp_cache_key k = RP (i);
    fetch (c, &k, SEG, NULL);
  }
  return c;
}

/* Get all keys, right; how many were fetched. */
static unsigned
get_keys (struct esp_cluster *c)
{
  _Atomic unsigned fetched = 0;

  for (unsigned i = 0; i < KEYS; ++i) {
    struct esp_cache_key k = RP (i);
    fetch (c, &k, SEG, &fetched);
  }
  return fetched;
}

static void
test_killed_and_restarted (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  struct esp_cluster *c = three (b);

  assert_int_equal (get_keys (c), 0);
  mc_kill (b, 1);
  /* What it had is fetched again, once: it goes to the other nodes. */
  unsigned lost = get_keys (c);
  assert_true (lost > 0 && lost < KEYS);
  assert_int_equal (cluster_out (c), 1);
  assert_int_equal (get_keys (c), 0);
  assert_non_null (strstr (unit_error, "left out"));
  mc_start (b, 1, NULL);
  wait_out (c, 0);
  /* It is empty: its share is fetched once more. */
  assert_int_equal (get_keys (c), lost);
  assert_int_equal (get_keys (c), 0);
  esp_cluster_close (c);
}

static void
test_stopped (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  struct esp_cluster *c = three (b);
  uint64_t begin, longest = 0;
  struct esp_node_counters n[3];

  mc_stop (b, 0);
  begin = now_ms ();
  for (unsigned i = 0; i < KEYS; ++i) {
    struct esp_cache_key k = RP (i);
    uint64_t t = now_ms ();
    fetch (c, &k, SEG, NULL);
    if (now_ms () - t > longest)
      longest = now_ms () - t;
  }
  /* One time-out, once. */
  assert_true (longest >= TIMEOUT - 10 && longest < 2 * TIMEOUT);
  assert_true (now_ms () - begin < 3 * TIMEOUT);
  assert_int_equal (cluster_out (c), 1);
  esp_cluster_nodes (c, n, 3);
  assert_int_equal (n[0].timeouts, 1);
  begin = now_ms ();
  assert_int_equal (get_keys (c), 0);
  assert_true (now_ms () - begin < TIMEOUT);
  kill (b->mc[0].pid, SIGCONT);
  wait_out (c, 0);
  /* What it had is still there. */
  assert_int_equal (get_keys (c), 0);
  esp_cluster_close (c);
}

/* A node of a server that starts is stopped: the others are used. */
static void
test_stopped_at_the_start (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;

  mc_start (b, 0, NULL);
  mc_start (b, 1, NULL);
  mc_stop (b, 0);
  uint64_t begin = now_ms ();
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 2));
  assert_true (now_ms () - begin < 2 * TIMEOUT);
  wait_out (c, 1);
  assert_int_equal (get_keys (c), KEYS);
  assert_int_equal (get_keys (c), 0);
  kill (b->mc[0].pid, SIGCONT);
  wait_out (c, 0);
  esp_cluster_close (c);
}

static void
test_no_node (void **state)
{
  struct bench *b = *state;
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 2));

  assert_int_equal (cluster_out (c), 2);
  assert_int_equal (get_keys (c), KEYS);
  assert_int_equal (counters (c).bytes_written, 0);
  assert_int_equal (counters (c).leases, 0);
  esp_cluster_close (c);
}

/* A node that refuses to forget: it answers, and is not given anything. */
static void
test_full (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  static const char *const options[] = { "-M", "-m", "4", NULL };
  uint8_t buf[SEG];
  unsigned i, kept = 0;

  mc_start (b, 0, options);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  for (i = 0; i < 400 && counters (c).full == 0; ++i) {
    struct esp_cache_key k = RP (i);
    fetch (c, &k, SEG, NULL);
  }
  assert_true (counters (c).full > 0);
  uint64_t full = counters (c).full, written = counters (c).bytes_written;
  uint64_t leases = counters (c).leases;
  for (unsigned j = 1000; j < 1050; ++j) {
    struct esp_cache_key k = RP (j);
    fetch (c, &k, SEG, NULL);
  }
  assert_int_equal (counters (c).full, full);
  assert_int_equal (counters (c).bytes_written, written);
  assert_int_equal (counters (c).leases, leases);
  assert_int_equal (cluster_out (c), 0);
  for (unsigned j = 0; j < i; ++j) {
    struct esp_cache_key k = RP (j);
    struct esp_shared_ticket t = { 0 };
    if (esp_cluster_get (c, &k, buf, SEG, ESP_SHARED_LOOK, &t)
        == ESP_SHARED_HIT) {
      assert_true (is_bytes (buf, SEG, j, 0));
      ++kept;
    }
  }
  assert_int_equal (kept, written / SEG);
  esp_cluster_close (c);
}

/* Restarted with smaller items, between two questions: its limit is asked
 * again, and then segments go there in parts.
 */
static void
test_smaller_items (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  static const char *const large[] = { "-I", "2m", NULL };
  static const char *const small[] = {
    "-I", "128k", "-o", "slab_chunk_max=65536", NULL
  };
  size_t len = 1u << 20;
  CLEANUP_FREE uint8_t *buf = malloc (len);
  enum esp_shared_answer a = ESP_SHARED_MISS;

  mc_start (b, 0, large);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  struct esp_cache_key k = key_of (ESP_CACHE_RP, 1, 20);
  fetch (c, &k, len, NULL);
  mc_kill (b, 0);
  mc_start (b, 0, small);
  for (uint64_t begin = now_ms ();
       a != ESP_SHARED_HIT && now_ms () - begin < 20000;) {
    struct esp_shared_ticket t = { 0 };
    fetch (c, &k, len, NULL);
    a = esp_cluster_get (c, &k, buf, len, ESP_SHARED_LOOK, &t);
    usleep (20000);
  }
  assert_int_equal (a, ESP_SHARED_HIT);
  assert_true (is_bytes (buf, len, 1, 0));
  assert_int_equal (cluster_out (c), 0);
  assert_true (counters (c).errors > 0);
  esp_cluster_close (c);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    T (test_killed_and_restarted), T (test_stopped),
    T (test_stopped_at_the_start), T (test_no_node),
    T (test_full), T (test_smaller_items),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
