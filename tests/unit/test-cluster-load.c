/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes that are killed, stopped and restarted while they are used; leases that
 * are held for longer than they last.
 */

#define TIMEOUT 1000u
#define LEASE 2500u
#define WAIT 60000u
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

/* Killed under load: every byte is right, whatever happens. */
struct load {
  struct esp_cluster *c;
  _Atomic bool *stop;
  unsigned seed;
};

static void *
load_main (void *arg)
{
  struct load *l = arg;

  for (unsigned i = l->seed; !*l->stop; i = i * 7 + 3) {
    struct esp_cache_key k = RP (i % 100);
    fetch (l->c, &k, SEG, NULL);
  }
  return NULL;
}

static void
test_faults_under_load (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  struct esp_cluster *c = three (b);
  _Atomic bool stop = false;
  struct load l[4];
  pthread_t t[4];

  for (unsigned i = 0; i < 4; ++i) {
    l[i] = (struct load) { c, &stop, i };
    pthread_create (&t[i], NULL, load_main, &l[i]);
  }
  usleep (50000);
  mc_kill (b, 0);
  usleep (100000);
  kill (b->mc[1].pid, SIGSTOP);
  usleep (TIMEOUT * 1500);
  mc_start (b, 0, NULL);
  kill (b->mc[1].pid, SIGCONT);
  wait_out (c, 0);
  stop = true;
  for (unsigned i = 0; i < 4; ++i)
    pthread_join (t[i], NULL);
  assert_int_equal (counters (c).lies, 0);
  esp_cluster_close (c);
}

/* While its holder lives, a lease of 2.5 s (up to 4 s in memcached's clock) is
 * still there after 5 s; when the holder is gone, it ends.
 */
static void
test_renewed_then_taken_over (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG];
  struct esp_cache_key k = RP (4);
  struct esp_shared_ticket t = { 0 }, u = { 0 };

  mc_start (b, 0, NULL);
  struct esp_cluster *one = cluster_open (b, mc_list (b, 0, 1));
  struct esp_cluster *two = cluster_open (b, mc_list (b, 0, 1));
  uint64_t begin = now_ms ();
  assert_int_equal (esp_cluster_get (one, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  while (now_ms () - begin < 5000) {
    assert_int_equal (esp_cluster_get (two, &k, buf, SEG, 0, &u),
                      ESP_SHARED_BUSY);
    usleep (100000);
  }
  esp_cluster_close (one);
  u = (struct esp_shared_ticket) { 0 };
  begin = now_ms ();
  assert_int_equal (get_all (two, &k, buf, SEG, &u), ESP_SHARED_MISS);
  assert_true (now_ms () - begin < WAIT / 2);
  assert_int_not_equal (u.lease, 0);
  assert_int_equal (counters (two).takeovers, 1);
  assert_true (counters (two).waited_us > 0);
  esp_cluster_give_up (two, &k, &u);
  esp_cluster_close (two);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    T (test_faults_under_load), T (test_renewed_then_taken_over),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
