/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed load with a segment cache: its end, what is secret, hydration. */

#include "cache-fake.h"

/* --- the end ------------------------------------------------------------------------ */

static void
prefetch_all (struct scene *s)
{
  assert_true (esp_delay_prefetch (s->disk.reader, 0, DISK) >= 0);
}

/* An engine that ends gives up what it holds, and waits for nobody. */
static void
test_stop (void **state)
{
  struct scene s;

  scene_make (state, &s, ITEM_NONE);
  set_items (0, ENTRIES / 4, ITEM_OTHERS);
  scene_start (&s, 4);
  fakes[0].hangs = true;
  prefetch_all (&s);
  while (fakes[0].flying == 0 || look (&cache.busy) < ENTRIES / 4)
    usleep (1000);
  assert_true (look (&cache.open) > 0);
  uint64_t begin = now_us ();
  scene_end (&s);
  assert_true (now_us () - begin < 1000000);
  assert_int_equal (cache.item[0], ITEM_OTHERS);
  assert_int_equal (cache.item[ENTRIES - 1], ITEM_NONE);
}

/* --- secrets -------------------------------------------------------------------------- */

static void
test_in_the_clear (void **state)
{
  struct scene s;

  scene_begin (state, &s, ITEM_NONE);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  scene_end (&s);
  assert_int_equal (cache.flags_seen & ESP_SHARED_SECRET, 0);
}

static void
test_secret (void **state)
{
  struct scene s;

  fake_init (2);                /* of two centers one has it encrypted */
  fake_encrypted = true;
  scene_begin (state, &s, ITEM_NONE);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  scene_end (&s);
  assert_true (total (cache.puts) == ENTRIES);
  assert_int_equal (cache.flags_not & ESP_SHARED_SECRET, 0);
}

/* Nothing is known of where it came from. */
static void
test_unknown_is_secret (void **state)
{
  struct scene s;

  nfakes = 0;
  scene_begin (state, &s, ITEM_VALUE);
  assert_int_equal (read_of (&s, 0), 0);
  set_items (ENTRIES - 1, 1, ITEM_NONE);
  assert_int_equal (read_of (&s, ENTRIES - 1), EIO);
  scene_end (&s);
  assert_int_equal (cache.flags_not & ESP_SHARED_SECRET, 0);
  assert_int_equal (cache.given_up, 1);
}

/* --- hydration -------------------------------------------------------------------------- */

static bool
is_complete (struct scene *s)
{
  struct esp_have *have = delayed_open (&s->d);
  bool complete = esp_have_complete (have);

  esp_have_close (have);
  return complete;
}

/* It asks too; its rate is for what comes from centers. */
static void
test_hydration (void **state)
{
  struct scene s;
  struct esp_delay_params p = { .background = true, .rate = 65536 };

  scene_make (state, &s, ITEM_VALUE);
  s.delay = esp_delay_start (s.t->store, &p);
  assert_non_null (s.delay);
  s.disk = disk_open (s.delay, s.t, 0);
  for (int i = 0; i < 5000 && !is_complete (&s); i++)
    usleep (1000);
  assert_true (is_complete (&s));
  assert_int_equal (fake_requests (), 0);
  assert_int_equal (counters (&s).from_cluster, ENTRIES);
  assert_int_equal (counters (&s).background_segments, ENTRIES);
  scene_end (&s);
}

static void *
read_first (void *arg)
{
  return (void *) (intptr_t) read_of (arg, 0);
}

/* While somebody waits for a center, hydration leaves the cache alone. */
static void
test_hydration_makes_way (void **state)
{
  struct scene s;
  struct esp_delay_params p = { .background = true, .threads = 4,
                                .readahead = ESP_READAHEAD_OFF };
  pthread_t thread;
  void *r;

  scene_make (state, &s, ITEM_VALUE);
  cache.item[0] = ITEM_NONE;
  fakes[0].hangs = true;
  s.delay = esp_delay_start (s.t->store, &p);
  assert_non_null (s.delay);
  usleep (100000);              /* the keeper looks again in two seconds */
  s.disk = disk_open (s.delay, s.t, 0);
  pthread_create (&thread, NULL, read_first, &s);
  usleep (2500000);
  assert_int_equal (total (cache.asked), 1);
  fakes[0].hangs = false;
  pthread_join (thread, &r);
  assert_int_equal ((int) (intptr_t) r, 0);
  uint64_t begin = now_us ();
  while (!is_complete (&s) && now_us () - begin < 1500000)
    usleep (1000);
  assert_true (is_complete (&s));       /* woken, not by the clock */
  scene_end (&s);
}

/* The cache may be taken away while something is fetched for it. */
static void
test_taken_away (void **state)
{
  struct scene s;
  pthread_t thread;
  void *r;

  scene_begin (state, &s, ITEM_NONE);
  fakes[0].hangs = true;
  pthread_create (&thread, NULL, read_all, &s);
  while (look (&cache.open) < ENTRIES || look (&cache.refs) > 0)
    usleep (1000);              /* no call lasts as long as the fetch */
  pthread_mutex_lock (&cache.lock);
  cache.on = false;
  pthread_mutex_unlock (&cache.lock);
  fakes[0].hangs = false;
  pthread_join (thread, &r);
  assert_int_equal ((int) (intptr_t) r, 0);
  disk_close (&s.disk);
  esp_delay_stop (s.delay);
  assert_int_equal (total (cache.puts) + cache.given_up, 0);
  cache.open = 0;               /* its own end is the end of its leases */
  scene_start (&s, 1);
  scene_end (&s);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, setup, delay_teardown)
    T (test_stop),
    T (test_in_the_clear),
    T (test_secret),
    T (test_unknown_is_secret),
    T (test_hydration),
    T (test_hydration_makes_way),
    T (test_taken_away),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
