/* SPDX-License-Identifier: BSD-3-Clause */
/* Exports, which are written: no fill that began before a write is found
 * behind it.
 */

#include "cluster-test.h"

#define SEG 65536u
#define EXPORT(n) key_of (ESP_CACHE_EXPORT, (n), 16)

static enum esp_shared_answer
look (struct esp_cluster *c, const struct esp_cache_key *k, uint8_t *buf)
{
  struct esp_shared_ticket t = { 0 };

  return esp_cluster_get (c, k, buf, SEG, ESP_SHARED_LOOK, &t);
}

/* Version VERSION of K is on its node. */
static void
keep (struct esp_cluster *c, const struct esp_cache_key *k, uint32_t version)
{
  uint8_t buf[SEG];
  struct esp_shared_ticket t = { 0 };

  assert_int_equal (get_all (c, k, buf, SEG, &t), ESP_SHARED_MISS);
  fill_bytes (buf, SEG, k->segment, version);
  esp_cluster_put (c, k, buf, SEG, 0, &t);
  assert_int_equal (look (c, k, buf), ESP_SHARED_HIT);
  assert_true (is_bytes (buf, SEG, k->segment, version));
}

/* A fill of server ONE that began before, or in, a write of server TWO. */
static void
check_fill (struct esp_cluster *one, struct esp_cluster *two, bool within)
{
  struct esp_cache_key k = EXPORT (within);
  struct esp_shared_ticket t = { 0 };
  uint8_t buf[SEG];

  if (within)
    esp_cluster_write_begin (two, &k);
  esp_cluster_get (one, &k, buf, SEG, 0, &t);
  if (!within) {
    assert_int_not_equal (t.lease, 0);
    esp_cluster_write_begin (two, &k);
  }
  esp_cluster_write_end (two, &k);
  fill_bytes (buf, SEG, k.segment, 1);
  esp_cluster_put (one, &k, buf, SEG, 0, &t);
  assert_int_equal (look (one, &k, buf), ESP_SHARED_MISS);
  assert_int_equal (look (two, &k, buf), ESP_SHARED_MISS);
  keep (one, &k, 2);
  assert_int_equal (look (two, &k, buf), ESP_SHARED_HIT);
  assert_true (is_bytes (buf, SEG, k.segment, 2));
}

static void
test_fill_before_write (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;

  mc_start (b, 0, NULL);
  struct esp_cluster *one = cluster_open (b, mc_list (b, 0, 1));
  struct esp_cluster *two = cluster_open (b, mc_list (b, 0, 1));
  check_fill (one, two, false);
  check_fill (one, two, true);
  esp_cluster_close (one);
  esp_cluster_close (two);
}

/* Readers bypass the cache while a segment is written. */
static void
test_read_within_write (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  struct esp_cache_key k = EXPORT (1);
  struct esp_shared_ticket t = { 0 };
  uint8_t buf[SEG];

  mc_start (b, 0, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  keep (c, &k, 1);
  esp_cluster_write_begin (c, &k);
  assert_int_equal (esp_cluster_get (c, &k, buf, SEG, 0, &t),
                    ESP_SHARED_MISS);
  assert_int_equal (t.lease, 0);
  assert_int_equal (counters (c).waits, 0);
  esp_cluster_write_end (c, &k);
  keep (c, &k, 2);
  esp_cluster_close (c);
}

/* An export's segments have no other node while theirs is away. */
static void
test_no_other_node (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  uint8_t buf[SEG];
  unsigned away = 0;

  mc_start (b, 0, NULL);
  mc_start (b, 1, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 2));
  wait_out (c, 0);
  for (unsigned i = 0; i < 20; ++i)
    keep (c, &(struct esp_cache_key[]) { EXPORT (i) }[0], 1);
  mc_kill (b, 0);
  for (unsigned i = 0; i < 20; ++i) {
    struct esp_cache_key k = EXPORT (i);
    struct esp_shared_ticket t = { 0 };
    if (esp_cluster_get (c, &k, buf, SEG, 0, &t) == ESP_SHARED_HIT)
      continue;
    assert_int_equal (t.lease, 0);
    ++away;
  }
  assert_true (away > 0 && away < 20);
  esp_cluster_close (c);
}

/* A node that hangs while it should forget does so before it is asked again. */
static void
check_pending (struct bench *b, unsigned keys)
{
  uint8_t buf[SEG];

  mc_start (b, 0, NULL);
  struct esp_cluster *c = cluster_open (b, mc_list (b, 0, 1));
  for (unsigned i = 0; i < 20; ++i)
    keep (c, &(struct esp_cache_key[]) { EXPORT (i) }[0], 1);
  mc_stop (b, 0);
  for (unsigned i = 0; i < keys; ++i) {
    struct esp_cache_key k = EXPORT (i % 2 ? i : i % 20);
    esp_cluster_write_begin (c, &k);
    esp_cluster_write_end (c, &k);
  }
  kill (b->mc[0].pid, SIGCONT);
  wait_out (c, 0);
  for (unsigned i = 0; i < 20; i += 2)
    assert_int_equal (look (c, &(struct esp_cache_key[]) { EXPORT (i) }[0], buf),
                      ESP_SHARED_MISS);
  /* Restore points never change: they may be asked for there in any case. */
  struct esp_cache_key rp = key_of (ESP_CACHE_RP, 1, 16);
  fetch (c, &rp, SEG, NULL);
  assert_int_equal (look (c, &rp, buf), ESP_SHARED_HIT);
  struct esp_cache_key k = EXPORT (0);
  struct esp_shared_ticket t = { 0 };
  esp_cluster_get (c, &k, buf, SEG, 0, &t);
  assert_int_equal (t.lease != 0, keys <= 65536);
  esp_cluster_give_up (c, &k, &t);
  esp_cluster_close (c);
}

static void
test_pending (void **state)
{
  NEEDS_MEMCACHED ();
  check_pending (*state, 40);
}

static void
test_too_much_pending (void **state)
{
  NEEDS_MEMCACHED ();
  check_pending (*state, 2 * 66000);
}

/* --- model ------------------------------------------------------------------------ */
#define SEGMENTS 6u
#define STEPS 500u
#define WORKERS 3u              /* of each server */

/* The disk below: of each segment the version that lies there, the newest one
 * whose write was acknowledged, and whether someone writes.
 */
struct disk {
  pthread_mutex_t lock;
  uint32_t below[SEGMENTS], acknowledged[SEGMENTS];
  bool writing[SEGMENTS];
};

struct worker {
  struct esp_cluster *c;
  struct disk *d;
  unsigned seed;
  char why[120];
};

static uint32_t
below (struct disk *d, unsigned n)
{
  ESP_LOCK_SCOPE (&d->lock);
  return d->below[n];
}

static void
do_write (struct worker *w, unsigned n)
{
  struct esp_cache_key k = EXPORT (n);
  struct disk *d = w->d;
  uint32_t version;

  pthread_mutex_lock (&d->lock);
  bool busy = d->writing[n];
  d->writing[n] = true;
  pthread_mutex_unlock (&d->lock);
  if (busy)
    return;
  esp_cluster_write_begin (w->c, &k);
  pthread_mutex_lock (&d->lock);
  version = ++d->below[n];
  pthread_mutex_unlock (&d->lock);
  if (rand_r (&w->seed) % 2)
    usleep (rand_r (&w->seed) % 300);
  esp_cluster_write_end (w->c, &k);
  pthread_mutex_lock (&d->lock);
  d->acknowledged[n] = version;
  d->writing[n] = false;
  pthread_mutex_unlock (&d->lock);
}

static void
do_read (struct worker *w, unsigned n, uint8_t *buf)
{
  struct esp_cache_key k = EXPORT (n);
  struct disk *d = w->d;
  struct esp_shared_ticket t = { 0 };
  uint32_t least, version;

  pthread_mutex_lock (&d->lock);
  least = d->acknowledged[n];
  pthread_mutex_unlock (&d->lock);
  enum esp_shared_answer a = get_all (w->c, &k, buf, SEG, &t);
  if (a == ESP_SHARED_HIT) {
    memcpy (&version, buf, sizeof version);
    uint32_t most = below (d, n);
    if (version < least || version > most)
      snprintf (w->why, sizeof w->why, "segment %u: version %u, not %u to %u",
                n, version, least, most);
    return;
  }
  version = below (d, n);
  usleep (rand_r (&w->seed) % 300);
  memset (buf, 0, SEG);
  memcpy (buf, &version, sizeof version);
  esp_cluster_put (w->c, &k, buf, SEG, 0, &t);
}

static void *
worker_main (void *arg)
{
  struct worker *w = arg;
  CLEANUP_FREE uint8_t *buf = malloc (SEG);

  for (unsigned i = 0; i < STEPS && !w->why[0]; ++i) {
    unsigned n = (unsigned) rand_r (&w->seed) % SEGMENTS;
    if (rand_r (&w->seed) % 5 == 0)
      do_write (w, n);
    else
      do_read (w, n, buf);
  }
  return NULL;
}

/* SERVERS write and read, the second one with SEALER; FAULT (NULL: none) happens
 * meanwhile.
 */
static void
model (struct bench *b, unsigned servers, const struct esp_sealer *sealer,
       void (*fault) (struct bench *b))
{
  static struct disk d;
  struct worker w[2 * WORKERS];
  struct esp_cluster *c[2];
  pthread_t t[2 * WORKERS];
  unsigned seed = unit_seed ();

  memset (&d, 0, sizeof d);
  pthread_mutex_init (&d.lock, NULL);
  for (unsigned i = 0; i < 2; ++i)
    mc_start (b, i, NULL);
  for (unsigned i = 0; i < servers; ++i) {
    c[i] = cluster_open_with (i == 1 ? sealer : b->sealer, mc_list (b, 0, 2));
    wait_out (c[i], 0);
  }
  for (unsigned i = 0; i < servers * WORKERS; ++i) {
    w[i] = (struct worker) { c[i % servers], &d, seed + i, "" };
    pthread_create (&t[i], NULL, worker_main, &w[i]);
  }
  if (fault)
    fault (b);
  for (unsigned i = 0; i < servers * WORKERS; ++i)
    pthread_join (t[i], NULL);
  uint64_t hits = 0;
  for (unsigned i = 0; i < servers * WORKERS; ++i)
    if (w[i].why[0])
      fail_msg ("seed %u: %s", seed, w[i].why);
  for (unsigned i = 0; i < servers; ++i) {
    hits += counters (c[i]).hits;
    assert_true (fault || counters (c[i]).lies == 0);
    esp_cluster_close (c[i]);
  }
  assert_true (hits > 50);
}

static void
test_model (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;

  model (b, 2, b->sealer, NULL);
}

/* Two secrets: what one server writes the other does not find as it was. */
static void
test_model_with_secrets (void **state)
{
  NEEDS_MEMCACHED ();
  static const uint8_t secret[32] = { 1 };
  struct esp_sealer *sealer = esp_sealer_new (secret);

  model (*state, 2, sealer, NULL);
  esp_sealer_free (sealer);
}

static void
stop_and_kill (struct bench *b)
{
  usleep (50000);
  mc_stop (b, 0);
  usleep (50000);
  mc_kill (b, 1);
  usleep (20000);
  mc_start (b, 1, NULL);
  kill (b->mc[0].pid, SIGCONT);
}

static void
test_model_with_faults (void **state)
{
  NEEDS_MEMCACHED ();
  model (*state, 1, NULL, stop_and_kill);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    T (test_fill_before_write), T (test_read_within_write),
    T (test_no_other_node), T (test_pending), T (test_too_much_pending),
    T (test_model), T (test_model_with_secrets), T (test_model_with_faults),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
