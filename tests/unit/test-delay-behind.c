/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed load behind and before the reads: read-ahead, hydration, wishes,
 * the bound.
 */

#include "delay-test.h"

#define DISK (UINT64_C (16) << 20)

static int
setup (void **state)
{
  fake_init (1);
  return tree_setup (state);
}

static struct esp_delay *
start (struct tree *t, const struct esp_delay_params *p)
{
  struct esp_delay *delay = esp_delay_start (t->store, p);

  if (!delay)
    fail_msg ("%s", unit_error);
  return delay;
}

static struct esp_delay_counters
counters (struct esp_delay *delay)
{
  struct esp_delay_counters c;

  esp_delay_counters (delay, &c);
  return c;
}

static bool
is_complete (struct delayed *d)
{
  struct esp_have *h = delayed_open (d);
  bool r = esp_have_complete (h);

  esp_have_close (h);
  return r;
}

/* Nothing flies any more. */
static void
settle (void)
{
  unsigned before;

  do {
    before = fake_requests ();
    usleep (30000);
  } while (fakes[0].flying > 0 || fake_requests () != before);
}

/* Wait until N segments came, at most 60 s. */
static void
wait_for_segments (struct esp_delay *delay, uint64_t n)
{
  for (int i = 0; i < 6000 && counters (delay).segments < n; i++)
    usleep (10000);
}

static bool
wait_until_complete (struct delayed *d)
{
  for (int i = 0; i < 6000 && !is_complete (d); i++)
    usleep (10000);
  return is_complete (d);
}

static uint64_t
local_bytes (struct delayed *d)
{
  uint64_t n;

  assert_int_equal (esp_have_peek (d->t->store, &d->t->m[d->member].uuid, &n),
                    0);
  return n;
}

/* --- read-ahead ------------------------------------------------------------- */

/* A reader that goes on finds it there, if it reads slowly enough. */
static void
test_ahead_grows (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 100000);
  fakes[0].first_us = 2000;
  struct esp_delay *delay = delay_start (t, 8);
  struct disk disk = disk_open (delay, t, 0);
  for (uint64_t at = 0; at < DISK; at += 65536) {
    unsigned before;
    assert_int_equal (disk_read (&disk, at, 65536), 0);
    do {
      before = fake_requests ();
      usleep (2000);
    } while (fakes[0].flying > 0 || fake_requests () != before);
  }
  struct esp_delay_counters c = counters (delay);
  printf ("# %u misses, %u used\n", (unsigned) c.misses,
          (unsigned) c.ahead_used);
  assert_true (c.misses <= 48);         /* of 256 */
  assert_true (c.ahead_used >= 60);
  assert_int_equal (c.segments, d.index.n);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* One that jumps about has nothing fetched for it that it does not read. */
static void
test_no_ahead_for_jumps (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 100000);
  struct esp_delay *delay = delay_start (t, 8);
  struct disk disk = disk_open (delay, t, 0);
  for (uint64_t i = 0; i < 15; i++)
    assert_int_equal (disk_read (&disk, i * 7 % 16 << 20, 4096), 0);
  settle ();
  assert_int_equal (counters (delay).ahead_segments, 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* Many short runs: what is fetched for nothing is bounded by what is read. */
static void
test_ahead_is_bounded (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 100000);
  struct esp_delay *delay = delay_start (t, 8);
  struct disk disk = disk_open (delay, t, 0);
  for (uint64_t i = 0; i < 16; i++)
    for (uint64_t k = 0; k < 4; k++)
      assert_int_equal (disk_read (&disk, (i << 20) + k * 65536, 65536), 0);
  settle ();
  assert_true (counters (delay).segments <= 3 * 64);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

static void
test_readahead_off (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct esp_delay_params p = { .readahead = ESP_READAHEAD_OFF };

  delay_one (state, &d, DISK, 100000);
  struct esp_delay *delay = start (t, &p);
  struct disk disk = disk_open (delay, t, 0);
  for (uint64_t at = 0; at < DISK / 2; at += 65536)
    assert_int_equal (disk_read (&disk, at, 65536), 0);
  settle ();
  assert_int_equal (counters (delay).ahead_segments, 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

static void
test_prefetch (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 100000);
  struct esp_delay *delay = delay_start (t, 8);
  struct disk disk = disk_open (delay, t, 0);
  assert_int_equal (esp_delay_prefetch (disk.reader, 1 << 20, 1 << 20), 0);
  wait_for_segments (delay, 16);
  settle ();
  assert_int_equal (counters (delay).segments, 16);
  assert_int_equal (disk_read (&disk, 1 << 20, 1 << 20), 0);
  assert_int_equal (counters (delay).misses, 0);
  assert_int_equal (counters (delay).ahead_used, 16);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* --- hydration ---------------------------------------------------------------- */

static const struct esp_delay_params background = { .background = true };

/* What is open becomes local, over two connections. */
static void
test_background (void **state)
{
  struct tree *t = *state;
  struct delayed a, b;

  delayed_add (t, &a, -1, DISK, 3000);
  fake_has (&a);
  delayed_add (t, &b, 0, DISK, 3000);
  fake_has (&b);
  fakes[0].first_us = 1000;
  struct esp_delay *delay = start (t, &background);
  struct disk disk = disk_open (delay, t, 1);
  assert_true (wait_until_complete (&a) && wait_until_complete (&b));
  assert_true (fakes[0].most <= 2);
  assert_int_equal (fakes[0].background, fakes[0].requests);
  disk_verify (&disk, 100000);
  assert_int_equal (counters (delay).misses, 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&a);
  delayed_clear (&b);
}

static void
test_rate (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct esp_delay_params p = { .background = true, .rate = 4 << 20 };

  delay_one (state, &d, DISK, 100000);
  struct esp_delay *delay = start (t, &p);
  uint64_t begin = now_us (), n = 0, us = 0;
  struct disk disk = disk_open (delay, t, 0);
  /* However busy the machine is: it goes on, and never too fast. */
  while (n < 3 << 20 && us < 60000000) {
    usleep (10000);
    n = counters (delay).bytes_wire;
    us = now_us () - begin;
  }
  assert_true (n >= 3 << 20);
  assert_true (n <= p.rate * us / 1000000 + (2 << 20));
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* A demand is not held up by the background. */
static void
test_demand_first (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct esp_delay_params p = { .background = true, .rate = 65536 };

  delay_one (state, &d, DISK, 100000);
  struct esp_delay *delay = start (t, &p);
  struct disk disk = disk_open (delay, t, 0);
  while (fakes[0].background == 0)
    usleep (1000);
  uint64_t begin = now_us ();
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  assert_true (now_us () - begin < 1500000);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

static void
test_wish (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 3000);
  const esp_uuid *uuid = &t->m[0].uuid;
  assert_false (esp_hydrate_wished (t->store, uuid));
  assert_int_equal (esp_hydrate_wish (t->store, uuid, false), 0);
  assert_int_equal (esp_hydrate_wish (t->store, uuid, true), 0);
  assert_true (esp_hydrate_wished (t->store, uuid));
  assert_false (esp_hydrate_server (t->store));
  struct esp_delay *delay = start (t, &background);
  for (int i = 0; i < 6000 && esp_hydrate_wished (t->store, uuid); i++)
    usleep (10000);
  assert_true (esp_hydrate_server (t->store));
  assert_false (esp_hydrate_wished (t->store, uuid));
  assert_true (is_complete (&d));
  esp_delay_stop (delay);
  assert_false (esp_hydrate_server (t->store));
  delayed_clear (&d);
}

/* The center is gone for a while: the background goes on when it is back. */
static void
test_background_waits (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 3000);
  fakes[0].fails = EIO;
  struct esp_delay *delay = start (t, &background);
  struct disk disk = disk_open (delay, t, 0);
  while (fakes[0].requests == 0)
    usleep (1000);
  usleep (300000);
  assert_true (fakes[0].requests < 10);
  fakes[0].fails = 0;
  assert_true (wait_until_complete (&d));
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

static int
stop_soon (void *arg, uint64_t done, uint64_t total)
{
  (void) arg;
  assert_true (done <= total);
  return done > 0 ? -1 : 0;
}

static void
test_now (void **state)
{
  struct tree *t = *state;
  struct delayed a, b;

  delayed_add (t, &a, -1, DISK, 100000);
  fake_has (&a);
  delayed_add (t, &b, 0, DISK, 3000);
  fake_has (&b);
  fakes[0].segment_us = 10000;
  struct esp_delay *delay = delay_start (t, 4);
  assert_int_equal (esp_delay_hydrate (delay, &t->m[1].uuid, stop_soon, NULL),
                    -1);
  assert_int_equal (errno, ECANCELED);
  uint64_t came = local_bytes (&a);
  assert_true (came > 0 && !is_complete (&b));
  fakes[0].fails = EIO;         /* before what is still queued gets quick */
  fakes[0].segment_us = 0;
  settle ();
  assert_int_equal (esp_delay_hydrate (delay, &t->m[1].uuid, NULL, NULL), -1);
  assert_non_null (strstr (unit_error, "the center is gone"));
  fakes[0].fails = 0;
  /* Until it is tried again. */
  for (int i = 0; i < 300 && !is_complete (&b); i++) {
    usleep (100000);
    esp_delay_hydrate (delay, &t->m[1].uuid, NULL, NULL);
  }
  assert_true (is_complete (&a) && is_complete (&b));
  esp_delay_stop (delay);
  delayed_clear (&a);
  delayed_clear (&b);
}

/* --- the bound ------------------------------------------------------------------ */

struct client {
  pthread_t thread;
  struct esp_delay *delay;
  struct tree *t;
  unsigned seed;
  int wrong;
};

static bool
enough_evicted (struct esp_delay *delay)
{
  return counters (delay).evicted_segments > 100;
}

static void *
client_run (void *arg)
{
  struct client *c = arg;
  struct disk disk = disk_open (c->delay, c->t, 0);
  uint64_t begin = now_us (), us = 0;

  /* On a busy machine it takes longer until enough was given back. */
  for (; us < 3000000 || (us < 60000000 && !enough_evicted (c->delay));
       us = now_us () - begin) {
    uint64_t n = (unsigned) rand_r (&c->seed) % 100000 + 1;
    if (disk_read (&disk, (unsigned) rand_r (&c->seed) % (DISK - n), n) != 0)
      c->wrong++;
  }
  disk_close (&disk);
  return NULL;
}

/* Reads that race with what is given back see the right bytes, always. */
static void
test_bound (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct esp_delay_params p = { .background = true, .max = 4 << 20 };
  struct client c[4];

  delay_one (state, &d, DISK, 100000);
  struct esp_delay *delay = start (t, &p);
  for (int i = 0; i < 4; i++) {
    c[i] = (struct client) { .delay = delay, .t = t,
                             .seed = (unsigned) rand () };
    pthread_create (&c[i].thread, NULL, client_run, &c[i]);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join (c[i].thread, NULL);
    assert_int_equal (c[i].wrong, 0);
  }
  assert_true (enough_evicted (delay));
  for (int i = 0; i < 6000 && local_bytes (&d) > 5 << 20; i++)
    usleep (10000);
  assert_true (local_bytes (&d) <= 5 << 20);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, setup, delay_teardown)
    T (test_ahead_grows),
    T (test_no_ahead_for_jumps),
    T (test_ahead_is_bounded),
    T (test_readahead_off),
    T (test_prefetch),
    T (test_background),
    T (test_rate),
    T (test_demand_first),
    T (test_wish),
    T (test_background_waits),
    T (test_now),
    T (test_bound),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
