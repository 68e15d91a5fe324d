/* SPDX-License-Identifier: BSD-3-Clause */
/* Exports, while the list of nodes changes: a key that belonged to one node,
 * was written while it belonged to another, and comes back to the first.
 */

#define TIMEOUT 5000u
#include "cluster-test.h"

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

static unsigned
hits_of (struct esp_cluster *c, uint32_t version)
{
  unsigned hits = 0;

  for (unsigned i = 0; i < KEYS; ++i)
    hits += get_or_put (c, i, version) == ESP_SHARED_HIT;
  return hits;
}

static void
test_change_and_back (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  char path[200];

  for (unsigned i = 0; i < 2; ++i)
    mc_start (b, i, NULL);
  snprintf (path, sizeof path, "%s/nodes", b->dir);
  write_nodes (path, mc_list (b, 0, 2));
  struct esp_cluster *c = cluster_open (b, path);
  wait_out (c, 0);
  assert_int_equal (hits_of (c, 1), 0);
  assert_int_equal (hits_of (c, 1), KEYS);

  write_nodes (path, mc_list (b, 0, 1));
  wait_nodes (c, 1);
  /* What was on the node that stays is still found. */
  unsigned stay = hits_of (c, 1);
  assert_true (stay > 0 && stay < KEYS);
  assert_int_equal (hits_of (c, 1), KEYS);
  for (unsigned i = 0; i < KEYS; ++i) {
    struct esp_cache_key k = EXPORT (i);
    esp_cluster_write_begin (c, &k);
    esp_cluster_write_end (c, &k);
  }
  assert_int_equal (hits_of (c, 2), 0);
  write_nodes (path, mc_list (b, 0, 2));
  wait_nodes (c, 2);
  /* So it is now; the other node is not used for some seconds, and then has
   * the new versions.
   */
  assert_int_equal (hits_of (c, 2), stay);
  assert_int_equal (hits_of (c, 2), stay);
  for (uint64_t begin = now_ms ();
       hits_of (c, 2) < KEYS && now_ms () - begin < 30000;)
    usleep (100000);
  assert_int_equal (hits_of (c, 2), KEYS);
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
