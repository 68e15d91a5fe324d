/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes that are killed, stopped and restarted while they are used. */

#define TIMEOUT 1000u
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
  mc_stop (b, 1);
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

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = { T (test_faults_under_load) };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
