/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed load with a segment cache: what it has is not fetched, what another
 * server fetches is waited for, and each lease is put or given up once.
 */

#include "cache-fake.h"

#include <signal.h>
#include <sys/resource.h>

/* --- hits and misses -------------------------------------------------------------- */

static void
test_hits (void **state)
{
  struct scene s;

  scene_begin (state, &s, ITEM_VALUE);
  disk_verify (&s.disk, 100000);
  assert_int_equal (fake_requests (), 0);
  assert_int_equal (counters (&s).from_cluster, ENTRIES);
  assert_int_equal (counters (&s).segments, 0);
  assert_int_equal (total (cache.asked) + total (cache.looked), ENTRIES);
  scene_end (&s);
}

static void
test_counted_by_tier (void **state)
{
  struct scene s;

  scene_begin (state, &s, ITEM_VALUE);
  cache.from = ESP_FROM_DIR;
  assert_int_equal (read_of (&s, 0), 0);
  cache.from = ESP_FROM_MEMORY;
  assert_int_equal (read_of (&s, ENTRIES / 2), 0);
  assert_int_equal (counters (&s).from_dir, 1);
  assert_int_equal (counters (&s).from_memory, 1);
  assert_int_equal (counters (&s).from_cluster, 0);
  scene_end (&s);
}

static void
test_misses_are_put (void **state)
{
  struct scene s;

  scene_begin (state, &s, ITEM_NONE);
  disk_verify (&s.disk, DISK);
  for (size_t e = 0; e < ENTRIES; e++)
    assert_int_equal (fake_fetched (e), 1);
  assert_int_equal (counters (&s).segments, ENTRIES);
  disk_close (&s.disk);
  esp_delay_stop (s.delay);
  for (size_t e = 0; e < ENTRIES; e++)
    assert_int_equal (cache.puts[e], 1);
  scene_start (&s, 1);
  scene_end (&s);
}

/* A large read stays few large requests. */
static void
test_misses_fly_together (void **state)
{
  struct scene s;

  scene_make (state, &s, ITEM_NONE);
  scene_start (&s, 1);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  assert_true (fake_requests () <= 2);
  scene_end (&s);
}

static void
test_some_hits (void **state)
{
  struct scene s;
  unsigned misses = 0;

  scene_make (state, &s, ITEM_NONE);
  for (size_t i = 0; i < ENTRIES; i++)
    if (rand () % 2)
      cache.item[i] = ITEM_VALUE;
    else
      misses++;
  scene_start (&s, 4);
  disk_verify (&s.disk, 300000);
  assert_int_equal (counters (&s).segments, misses);
  assert_int_equal (counters (&s).from_cluster, ENTRIES - misses);
  for (size_t e = 0; e < ENTRIES; e++)
    assert_true (look (&cache.asked[e]) <= 1);
  scene_end (&s);
  assert_int_equal (total (cache.puts), misses);
}

static void
test_lies (void **state)
{
  struct scene s;

  cache.lies = true;
  scene_begin (state, &s, ITEM_VALUE);
  disk_verify (&s.disk, 300000);
  assert_int_equal (counters (&s).segments, ENTRIES);
  assert_int_equal (counters (&s).lies, ENTRIES);
  scene_end (&s);
  assert_int_equal (cache.lied, ENTRIES);
  assert_int_equal (total (cache.puts), ENTRIES);
}

/* Whoever reads does not wait for a put. */
static void
test_slow_put (void **state)
{
  struct scene s;

  cache.slow_put = true;
  scene_begin (state, &s, ITEM_NONE);
  uint64_t begin = now_us ();
  assert_int_equal (read_of (&s, 0), 0);
  assert_true (now_us () - begin < 300000);
  scene_end (&s);
}

/* What cannot be fetched is given up. */
static void
test_broken_center (void **state)
{
  struct scene s;

  fakes[0].fails = EIO;
  scene_begin (state, &s, ITEM_NONE);
  assert_int_equal (disk_read (&s.disk, 0, DISK), EIO);
  for (int i = 0; i < 2000 && look (&cache.given_up) < ENTRIES; i++)
    usleep (1000);
  assert_int_equal (look (&cache.given_up), ENTRIES);
  set_items (0, ENTRIES, ITEM_VALUE);   /* another has one */
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  scene_end (&s);
}

/* A full disk fails who waits, with its cause; the cache is not blamed. */
static void
test_cannot_be_kept (void **state)
{
  struct scene s;
  struct rlimit old, small = { .rlim_cur = 0 };

  scene_make (state, &s, ITEM_VALUE);
  scene_start (&s, 4);
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &old);
  small.rlim_max = old.rlim_max;
  setrlimit (RLIMIT_FSIZE, &small);
  int err = disk_read (&s.disk, 0, DISK);
  setrlimit (RLIMIT_FSIZE, &old);
  assert_int_equal (err, EIO);
  assert_non_null (strstr (unit_error, strerror (EFBIG)));
  assert_int_equal (counters (&s).from_cluster, 0);
  assert_int_equal (look (&cache.lied), 0);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  assert_int_equal (fake_requests (), 0);
  scene_end (&s);
}

/* Of a plain image nobody knows a digest before its first fetch. */
static void
test_plain_is_not_asked (void **state)
{
  struct tree *t = *state;
  struct scene s = { .t = t };

  delayed_prepare (t, &s.d, -1, DISK, 20000);
  assert_int_equal (delayed_make (t, &s.d, true), 0);
  t->n++;
  fake_has (&s.d);
  cache.d = &s.d;
  scene_start (&s, 2);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  assert_int_equal (total (cache.asked), 0);
  scene_end (&s);
}

/* --- what another server fetches ----------------------------------------------------- */

static void
test_busy (void **state)
{
  struct scene s;
  pthread_t thread;
  void *r;

  scene_begin (state, &s, ITEM_OTHERS);
  pthread_create (&thread, NULL, read_all, &s);
  while (look (&cache.busy) < 3 * ENTRIES)
    usleep (1000);
  set_items (0, ENTRIES, ITEM_VALUE);
  pthread_join (thread, &r);
  assert_int_equal ((int) (intptr_t) r, 0);
  assert_int_equal (fake_requests (), 0);
  assert_int_equal (counters (&s).cluster_waits, ENTRIES);
  assert_int_equal (counters (&s).from_cluster, ENTRIES);
  scene_end (&s);
}

/* The ticket remembers how often it was asked: waiting has an end. */
static void
test_takeover (void **state)
{
  struct scene s;

  cache.patience = 5;
  scene_begin (state, &s, ITEM_OTHERS);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  for (size_t e = 0; e < ENTRIES; e++) {
    assert_int_equal (look (&cache.asked[e]), 6);
    assert_int_equal (fake_fetched (e), 1);
  }
  scene_end (&s);
}

/* One thread goes on to what nobody fetches, and is there for others. */
static void
test_busy_holds_up_nobody (void **state)
{
  struct scene s;
  pthread_t thread;
  void *r;

  scene_make (state, &s, ITEM_NONE);
  set_items (0, ENTRIES / 2, ITEM_OTHERS);
  scene_start (&s, 1);
  pthread_create (&thread, NULL, read_all, &s);
  while (look (&cache.busy) < ENTRIES)
    usleep (1000);
  for (size_t e = 0; e < ENTRIES; e++)
    assert_int_equal (fake_fetched (e), e >= ENTRIES / 2);
  set_items (0, ENTRIES / 2, ITEM_VALUE);
  pthread_join (thread, &r);
  assert_int_equal ((int) (intptr_t) r, 0);
  scene_end (&s);
}

struct reading {
  pthread_t thread;
  struct scene *s;
  uint32_t number;
};

static void *
read_number (void *arg)
{
  struct reading *r = arg;

  return (void *) (intptr_t) read_of (r->s, r->number);
}

static void
reading_begin (struct reading *r, struct scene *s, uint32_t number)
{
  *r = (struct reading) { .s = s, .number = number };
  pthread_create (&r->thread, NULL, read_number, r);
}

static void
reading_end (struct reading *r)
{
  void *err;

  pthread_join (r->thread, &err);
  assert_int_equal ((int) (intptr_t) err, 0);
}

/* No hit waits for the misses that keep all threads busy, nor does what comes
 * into the cache while they do.
 */
static void
test_hit_beside_misses (void **state)
{
  struct scene s;
  struct reading misses[2], late;

  scene_make (state, &s, ITEM_NONE);
  scene_start (&s, 2);
  fakes[0].hangs = true;
  set_items (20, 1, ITEM_VALUE);
  reading_begin (&misses[0], &s, 0);
  reading_begin (&misses[1], &s, 10);
  while (fakes[0].flying < 2)
    usleep (1000);
  assert_int_equal (read_of (&s, 20), 0);
  reading_begin (&late, &s, 30);
  while (look (&cache.looked[30]) < 3)
    usleep (1000);
  set_items (30, 1, ITEM_VALUE);
  reading_end (&late);
  assert_int_equal (fakes[0].requests, 2);
  assert_int_equal (fakes[0].flying, 2);
  fakes[0].hangs = false;
  reading_end (&misses[0]);
  reading_end (&misses[1]);
  scene_end (&s);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, setup, delay_teardown)
    T (test_hits),
    T (test_counted_by_tier),
    T (test_misses_are_put),
    T (test_misses_fly_together),
    T (test_some_hits),
    T (test_lies),
    T (test_slow_put),
    T (test_broken_center),
    T (test_cannot_be_kept),
    T (test_plain_is_not_asked),
    T (test_busy),
    T (test_takeover),
    T (test_busy_holds_up_nobody),
    T (test_hit_beside_misses),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
