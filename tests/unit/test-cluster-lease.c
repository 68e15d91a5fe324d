/* SPDX-License-Identifier: BSD-3-Clause */
/* Leases: who holds one, who waits, who takes over. */

/* Long enough that nobody misses one on a busy machine. */
#define TIMEOUT 20000u
#define LEASE 2500u
#define WAIT 60000u
#include "cluster-test.h"

#define KIB 1024u
#define SEG (64 * KIB)
#define RP(n) key_of (ESP_CACHE_RP, (n), 16)

static void
test_busy_then_hit (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG], want[SEG];
  struct esp_cache_key k = RP (2);
  struct esp_shared_ticket t = { 0 }, u = { 0 };

  mc_start (b, 0, NULL);
  struct esp_cluster *one = cluster_open (b, mc_list (b, 0, 1));
  struct esp_cluster *two = cluster_open (b, mc_list (b, 0, 1));
  assert_int_equal (esp_cluster_get (one, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  for (unsigned ms = 2; ms <= 64; ms *= 2) {
    assert_int_equal (esp_cluster_get (two, &k, buf, SEG, 0, &u),
                      ESP_SHARED_BUSY);
    assert_int_equal (u.again_ms, ms > 32 ? 32 : ms);
  }
  fill_bytes (want, SEG, 2, 0);
  esp_cluster_put (one, &k, want, SEG, 0, &t);
  assert_int_equal (esp_cluster_get (two, &k, buf, SEG, 0, &u),
                    ESP_SHARED_HIT);
  assert_memory_equal (buf, want, SEG);
  assert_int_equal (counters (two).waits, 1);
  assert_int_equal (counters (two).takeovers, 0);
  esp_cluster_close (one);
  esp_cluster_close (two);
}

static void
test_give_up (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG];
  struct esp_cache_key k = RP (3);
  struct esp_shared_ticket t = { 0 }, u = { 0 };

  mc_start (b, 0, NULL);
  struct esp_cluster *one = cluster_open (b, mc_list (b, 0, 1));
  struct esp_cluster *two = cluster_open (b, mc_list (b, 0, 1));
  assert_int_equal (esp_cluster_get (one, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  assert_int_equal (esp_cluster_get (two, &k, buf, SEG, 0, &u),
                    ESP_SHARED_BUSY);
  esp_cluster_give_up (one, &k, &t);
  assert_int_equal (esp_cluster_get (two, &k, buf, SEG, 0, &u),
                    ESP_SHARED_MISS);
  assert_int_equal (counters (two).leases, 1);
  assert_int_equal (counters (two).takeovers, 1);
  /* Who gave up does not put any more. */
  esp_cluster_put (one, &k, buf, SEG, 0, &t);
  assert_int_equal (counters (one).bytes_written, 0);
  esp_cluster_give_up (two, &k, &u);
  esp_cluster_close (one);
  esp_cluster_close (two);
}

/* A process that takes a lease on K and keeps it until it is killed. */
static pid_t
holder_start (struct bench *b, const struct esp_cache_key *k)
{
  int told[2];
  char byte = 0;

  assert_int_equal (pipe (told), 0);
  pid_t pid = fork ();
  assert_true (pid >= 0);
  if (pid == 0) {
    uint8_t buf[SEG];
    struct esp_shared_ticket t = { 0 };
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
    byte = esp_cluster_get (c, k, buf, SEG, 0, &t) == ESP_SHARED_MISS;
    if (write (told[1], &byte, 1) == 1)
      pause ();
    _exit (0);
  }
  close (told[1]);
  assert_int_equal (read (told[0], &byte, 1), 1);
  assert_int_equal (byte, 1);
  close (told[0]);
  return pid;
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
  struct esp_shared_ticket u = { 0 };

  mc_start (b, 0, NULL);
  pid_t one = holder_start (b, &k);
  struct esp_cluster *two = cluster_open (b, mc_list (b, 0, 1));
  uint64_t begin = now_ms ();
  while (now_ms () - begin < 5000) {
    assert_int_equal (esp_cluster_get (two, &k, buf, SEG, 0, &u),
                      ESP_SHARED_BUSY);
    usleep (100000);
  }
  kill (one, SIGKILL);
  waitpid (one, NULL, 0);
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

static void
test_wait_is_bounded (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG];
  struct esp_cache_key k = RP (5), l = RP (6);
  struct esp_shared_ticket t = { 0 }, u = { 0 }, v = { 0 }, w = { 0 };

  mc_start (b, 0, NULL);
  struct esp_shared_params p = {
    .nodes = mc_list (b, 0, 1), .timeout_ms = TIMEOUT, .wait_ms = 150,
  };
  struct esp_cluster *c = esp_cluster_open (&p, b->sealer);
  assert_non_null (c);
  get_all (c, &k, buf, SEG, &t);
  get_all (c, &l, buf, SEG, &v);
  uint64_t begin = now_ms ();
  assert_int_equal (get_all (c, &k, buf, SEG, &u), ESP_SHARED_MISS);
  assert_true (now_ms () - begin >= 140);
  assert_true (now_ms () - begin < 30000);
  assert_int_equal (u.lease, 0);
  /* The next one does not wait for leases of that node at all. */
  assert_int_equal (esp_cluster_get (c, &l, buf, SEG, 0, &w),
                    ESP_SHARED_MISS);
  assert_int_equal (w.lease, 0);
  esp_cluster_give_up (c, &k, &t);
  esp_cluster_give_up (c, &l, &v);
  esp_cluster_close (c);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    T (test_busy_then_hit), T (test_give_up),
    T (test_renewed_then_taken_over), T (test_wait_is_bounded),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
