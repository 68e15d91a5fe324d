/* SPDX-License-Identifier: BSD-3-Clause */
/* Exports, while the list of nodes changes: a key that belonged to one node,
 * was written while it belonged to another, and comes back to the first.
 */

#define TIMEOUT 5000u
#include "cluster-test.h"

#include <sys/stat.h>

#define SEG 65536u
#define KEYS 16u
#define EXPORT(n) key_of (ESP_CACHE_EXPORT, (n), 16)

static void
write_nodes (const char *path, const char *text)
{
  char temp[220];

  snprintf (temp, sizeof temp, "%s.new", path);
  FILE *f = fopen (temp, "w");
  fputs (text, f);
  fclose (f);
  assert_int_equal (rename (temp, path), 0);
}

static void
wait_nodes (struct esp_cluster *c, size_t n)
{
  for (unsigned i = 0; i < 6000 && esp_cluster_nodes (c, NULL, 0) != n; ++i)
    usleep (10000);
  assert_int_equal (esp_cluster_nodes (c, NULL, 0), n);
}

/* Nobody fetched it: look, and put VERSION where there is nothing.  What it
 * was.
 */
static enum esp_shared_answer
get_or_put (struct esp_cluster *c, unsigned n, uint32_t version)
{
  struct esp_cache_key k = EXPORT (n);
  struct esp_shared_ticket t = { 0 };
  uint8_t buf[SEG];
  enum esp_shared_answer a = get_all (c, &k, buf, SEG, &t);

  if (a == ESP_SHARED_HIT)
    assert_true (is_bytes (buf, SEG, n, version));
  fill_bytes (buf, SEG, n, version);
  esp_cluster_put (c, &k, buf, SEG, 0, &t);
  return a;
}

static void
test_change_and_back (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  struct timespec long_ago[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
  char path[200];

  for (unsigned i = 0; i < 2; ++i)
    mc_start (b, i, NULL);
  snprintf (path, sizeof path, "%s/nodes", b->dir);
  write_nodes (path, mc_list (b, 0, 2));
  assert_int_equal (utimensat (AT_FDCWD, path, long_ago, 0), 0);
  struct esp_cluster *c = cluster_open (b, path);
  wait_out (c, 0);
  for (unsigned i = 0; i < KEYS; ++i)
    get_or_put (c, i, 1);
  for (unsigned i = 0; i < KEYS; ++i)
    assert_int_equal (get_or_put (c, i, 1), ESP_SHARED_HIT);

  write_nodes (path, mc_list (b, 0, 1));
  wait_nodes (c, 1);
  /* Restore points never change: they go on. */
  struct esp_cache_key rp = key_of (ESP_CACHE_RP, 1, 16);
  fetch (c, &rp, SEG, NULL);
  assert_int_equal (counters (c).hits, KEYS);
  for (unsigned i = 0; i < KEYS; ++i) {
    struct esp_cache_key k = EXPORT (i);
    esp_cluster_write_begin (c, &k);
    esp_cluster_write_end (c, &k);
  }
  write_nodes (path, mc_list (b, 0, 2));
  wait_nodes (c, 2);
  /* For some seconds no export uses the nodes, then all do: the new version. */
  assert_int_equal (get_or_put (c, 0, 2), ESP_SHARED_MISS);
  unsigned hits = 0;
  for (uint64_t begin = now_ms (); hits < KEYS && now_ms () - begin < 30000;) {
    hits = 0;
    for (unsigned i = 0; i < KEYS; ++i)
      hits += get_or_put (c, i, 2) == ESP_SHARED_HIT;
    usleep (100000);
  }
  assert_int_equal (hits, KEYS);
  esp_cluster_close (c);
}

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_change_and_back, bench_setup,
                                     bench_teardown),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
