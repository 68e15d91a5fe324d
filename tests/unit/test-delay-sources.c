/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed load from several centers: the best one, a slow one, a broken one,
 * a lying one.
 */

#include "delay-test.h"

#define DISK (UINT64_C (8) << 20)

static int
setup (void **state)
{
  fake_init (2);
  return tree_setup (state);
}

/* One delayed root, its engine, a reader. */
struct scene {
  struct delayed d;
  struct esp_delay *delay;
  struct disk disk;
  uint64_t at;                  /* the next that was not read yet */
};

static void
scene_begin (void **state, struct scene *s)
{
  delay_one (state, &s->d, DISK, 20000);
  s->delay = delay_start (*state, 4);
  s->disk = disk_open (s->delay, *state, 0);
  s->at = 0;
}

static void
scene_end (struct scene *s)
{
  disk_close (&s->disk);
  esp_delay_stop (s->delay);
  delayed_clear (&s->d);
}

static struct esp_delay_counters
counters (struct scene *s)
{
  struct esp_delay_counters c;

  esp_delay_counters (s->delay, &c);
  return c;
}

/* Read one segment that is not local: far from the last, so that nothing is
 * fetched ahead.
 */
static int
read_next (struct scene *s)
{
  uint64_t at = s->at % 8 * (DISK / 8) + s->at / 8 * SEGMENT;
  uint64_t n, block = at / ESP_BLOCK_SIZE;

  s->at++;
  while (esp_map_run (s->d.map, block, 1, &n) != ESP_DATA)
    block++;
  return disk_read (&s->disk, block * ESP_BLOCK_SIZE, 1);
}

static void
test_best_first (void **state)
{
  struct scene s;

  fakes[0].first_us = 300000;
  scene_begin (state, &s);
  for (int i = 0; i < 16; i++)
    assert_int_equal (read_next (&s), 0);
  /* On a busy machine the other one is late, too, and is hedged. */
  assert_true (fakes[0].requests <= 2 + counters (&s).hedged);
  assert_true (fakes[1].requests >= 14);
  scene_end (&s);
}

static void *
read_one (void *arg)
{
  return (void *) (intptr_t) read_next (arg);
}

static void
wait_for_quiet (void)
{
  while (fakes[0].flying + fakes[1].flying > 0)
    usleep (1000);
}

static void
test_hedged (void **state)
{
  struct scene s;

  scene_begin (state, &s);
  for (int i = 0; i < 4; i++)   /* both are known to be quick */
    assert_int_equal (read_next (&s), 0);
  wait_for_quiet ();
  uint64_t hedged = counters (&s).hedged;       /* on a busy machine */
  fakes[0].hangs = fakes[1].hangs = true;
  uint64_t begin = now_us ();
  unsigned asked = fake_requests ();
  pthread_t thread;
  pthread_create (&thread, NULL, read_one, &s);
  while (fake_requests () < asked + 2 && now_us () - begin < 60000000)
    usleep (1000);
  assert_int_equal (fakes[0].flying, 1);
  assert_int_equal (fakes[1].flying, 1);
  fakes[1].hangs = false;       /* the first answer counts */
  void *r;
  pthread_join (thread, &r);
  assert_int_equal ((int) (intptr_t) r, 0);
  wait_for_quiet ();            /* the other is cancelled */
  assert_int_equal (counters (&s).hedged, hedged + 1);
  assert_int_equal (counters (&s).errors, 0);
  fakes[0].hangs = false;
  assert_int_equal (read_next (&s), 0);
  scene_end (&s);
}

/* An error is followed by the next center at once; the broken one is left
 * out, and asked again when it is time.
 */
static void
test_breaker (void **state)
{
  struct scene s;

  fakes[0].fails = EIO;
  fakes[1].first_us = 5000;
  scene_begin (state, &s);
  for (int i = 0; i < 8; i++)
    assert_int_equal (read_next (&s), 0);
  assert_int_equal (fakes[0].requests, 1);
  assert_int_equal (counters (&s).errors, 1);
  usleep (1100000);             /* its time has come; it fails again */
  assert_int_equal (read_next (&s), 0);
  assert_int_equal (read_next (&s), 0);
  assert_int_equal (fakes[0].requests, 2);
  fakes[0].fails = 0;
  fakes[1].first_us = 90000;    /* so that the other one is the better */
  usleep (2100000);
  for (int i = 0; i < 16; i++)
    assert_int_equal (read_next (&s), 0);
  assert_true (fakes[0].requests > 3);
  scene_end (&s);
}

/* A lone center that answers at once, if only with errors, is asked by each
 * demand: that the first one was tried again for a while is not its fault.
 */
static void
test_lone_center_is_back (void **state)
{
  struct scene s;

  nfakes = 1;
  fakes[0].fails = EIO;
  fakes[0].first_us = 1200000;  /* tries, and pauses between them */
  scene_begin (state, &s);
  assert_int_equal (read_next (&s), EIO);
  fakes[0].fails = 0;
  fakes[0].first_us = 0;
  assert_int_equal (read_next (&s), 0);
  scene_end (&s);
}

/* One that times out is not, or each demand would take so long. */
static void
test_lone_center_hangs (void **state)
{
  struct scene s;

  nfakes = 1;
  fakes[0].fails = ETIMEDOUT;
  fakes[0].first_us = 1200000;
  scene_begin (state, &s);
  assert_int_equal (read_next (&s), EIO);
  assert_int_equal (read_next (&s), EIO);
  assert_int_equal (fakes[0].requests, 1);
  assert_non_null (strstr (unit_error, "the center is gone"));
  scene_end (&s);
}

static void
test_all_broken (void **state)
{
  struct scene s;

  fakes[0].fails = fakes[1].fails = EIO;
  scene_begin (state, &s);
  assert_int_equal (read_next (&s), EIO);
  assert_non_null (strstr (unit_error, "the center is gone"));
  fakes[1].fails = 0;
  assert_int_equal (read_next (&s), 0);
  scene_end (&s);
}

static void
test_liar (void **state)
{
  struct scene s;

  fakes[0].lies = -1;
  scene_begin (state, &s);
  for (int i = 0; i < 12; i++)
    assert_int_equal (read_next (&s), 0);
  /* Once, and perhaps beside one that was late. */
  assert_in_range (counters (&s).lies, 1, 2);
  assert_in_range (fakes[0].requests, 1, 2);
  assert_non_null (strstr (unit_error, "center-0 gave wrong bytes"));
  scene_end (&s);
}

/* Both have one segment that is wrong: another one each. */
static void
test_two_half_liars (void **state)
{
  struct scene s;

  fakes[0].bad_entry = 3;
  fakes[1].bad_entry = 9;
  scene_begin (state, &s);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  scene_end (&s);
}

static void
test_cut_off (void **state)
{
  struct scene s;

  fakes[0].cut_after = 1;
  scene_begin (state, &s);
  assert_int_equal (disk_read (&s.disk, 0, DISK), 0);
  for (size_t e = 0; e < s.d.index.n; e++)
    assert_int_equal (fake_fetched (e), 1);
  scene_end (&s);
}

/* A center that hangs takes no thread from restore points of another. */
static void *
read_all (void *arg)
{
  disk_read (arg, 0, DISK);
  return NULL;
}

static void
test_dead_center_delays_nobody (void **state)
{
  struct tree *t = *state;
  struct delayed a, b;
  pthread_t thread;

  fake_init (1);
  delayed_add (t, &a, -1, DISK, 20000);
  fake_has (&a);
  struct esp_delay *delay = delay_start (t, 2);
  struct disk one = disk_open (delay, t, 0);
  fakes[0].hangs = true;
  pthread_create (&thread, NULL, read_all, &one);
  while (fakes[0].flying < 2)
    usleep (1000);
  fake_first = 2;               /* of what is opened from here on */
  delayed_add (t, &b, -1, DISK, 20000);
  fake_has (&b);
  struct disk two = disk_open (delay, t, 1);
  assert_int_equal (disk_read (&two, 0, DISK), 0);
  assert_int_equal (fakes[0].flying, 2);
  fakes[0].hangs = false;
  pthread_join (thread, NULL);
  disk_close (&one);
  disk_close (&two);
  esp_delay_stop (delay);
  fake_first = 0;
  delayed_clear (&a);
  delayed_clear (&b);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, setup, delay_teardown)
    T (test_best_first),
    T (test_hedged),
    T (test_breaker),
    T (test_lone_center_is_back),
    T (test_lone_center_hangs),
    T (test_all_broken),
    T (test_liar),
    T (test_two_half_liars),
    T (test_cut_off),
    T (test_dead_center_delays_nobody),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
