/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed load: each byte once, each byte right, whoever asks. */

#include "delay-test.h"
#include "delay/internal.h"

#include <signal.h>
#include <sys/prctl.h>

#define DISK (UINT64_C (8) << 20)

static int
setup (void **state)
{
  fake_init (1);
  return tree_setup (state);
}

/* Every entry was fetched once, and nothing else. */
static void
each_once (const struct delayed *d)
{
  for (size_t e = 0; e < d->index.n; e++)
    if (fake_fetched (e) != 1)
      fail_msg ("entry %zu was fetched %u times", e, fake_fetched (e));
}

/* The place of a block that has to be fetched. */
static uint64_t
some_data (const struct delayed *d, uint64_t from)
{
  uint64_t n, block = from / ESP_BLOCK_SIZE;

  while (esp_map_run (d->map, block, 1, &n) != ESP_DATA)
    block++;
  return block * ESP_BLOCK_SIZE;
}

static void
test_read (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct esp_delay_counters c;

  delay_one (state, &d, DISK + 12800, 1200);
  struct esp_delay *delay = delay_start (t, 0);
  struct disk disk = disk_open (delay, t, 0);
  disk_verify (&disk, 50000);
  each_once (&d);
  disk_verify (&disk, 50000);
  each_once (&d);
  esp_delay_counters (delay, &c);
  assert_int_equal (c.segments, d.index.n);
  assert_int_equal (c.reads, c.hits + c.misses);
  assert_true (c.misses > 0 && c.hits > c.reads / 2);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* Only the segments that a read needs, when nobody reads on. */
static void
test_only_what_is_read (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 4000);
  struct esp_delay *delay = delay_start (t, 0);
  struct disk disk = disk_open (delay, t, 0);
  assert_int_equal (disk_read (&disk, some_data (&d, 3 * SEGMENT), 2), 0);
  unsigned n = 0;
  for (size_t e = 0; e < d.index.n; e++)
    n += fake_fetched (e);
  assert_int_equal (n, 1);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* A chain: stored over delayed over delayed over stored. */
static void
test_chain (void **state)
{
  struct tree *t = *state;
  struct delayed a, b;

  tree_add (t, -1, DISK, 300);
  delayed_add (t, &a, 0, DISK, 300);
  fake_has (&a);
  delayed_add (t, &b, 1, DISK + 4096, 300);
  fake_has (&b);
  tree_add (t, 2, DISK + 4096, 200);
  struct esp_delay *delay = delay_start (t, 0);
  struct disk disk = disk_open (delay, t, 3);
  disk_verify (&disk, 70000);
  disk_close (&disk);
  disk = disk_open (delay, t, 1);
  disk_verify (&disk, 4096);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&a);
  delayed_clear (&b);
}

struct client {
  pthread_t thread;
  struct esp_delay *delay;
  struct tree *t;
  int member, wrong;
  unsigned seed;
};

static void *
client_run (void *arg)
{
  struct client *c = arg;
  struct disk disk = disk_open (c->delay, c->t, c->member);
  uint64_t size = c->t->m[c->member].size;

  for (int i = 0; i < 150; i++) {
    uint64_t n = (unsigned) rand_r (&c->seed) % 200000 + 1;
    uint64_t at = (unsigned) rand_r (&c->seed) % (size - n);
    if (disk_read (&disk, at, n) != 0)
      c->wrong++;
  }
  disk_close (&disk);
  return NULL;
}

static void
run_clients (struct esp_delay *delay, struct tree *t, int member, int n)
{
  struct client *c = calloc (n, sizeof *c);

  for (int i = 0; i < n; i++) {
    c[i] = (struct client) { .delay = delay, .t = t, .member = member,
                             .seed = (unsigned) rand () };
    assert_int_equal (pthread_create (&c[i].thread, NULL, client_run, &c[i]),
                      0);
  }
  for (int i = 0; i < n; i++) {
    pthread_join (c[i].thread, NULL);
    assert_int_equal (c[i].wrong, 0);
  }
  free (c);
}

static void
test_64_clients (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 1500);
  fakes[0].first_us = 2000;
  struct esp_delay *delay = delay_start (t, 8);
  run_clients (delay, t, 0, 64);
  for (size_t e = 0; e < d.index.n; e++)
    assert_true (fake_fetched (e) <= 1);
  assert_true (fakes[0].most <= 8);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

static void *
read_slowly (void *arg)
{
  struct disk *disk = arg;

  return (void *) (intptr_t) disk_read (disk, 0, DISK);
}

/* Wait until N requests are on their way. */
static void
wait_for_flying (unsigned n)
{
  while (fakes[0].flying < n)
    usleep (1000);
}

/* One big read uses the connections, and not one request a segment. */
static void
test_parallel (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  pthread_t thread;
  void *r;

  delay_one (state, &d, DISK, 20000);
  fakes[0].hangs = true;
  struct esp_delay *delay = delay_start (t, 4);
  struct disk disk = disk_open (delay, t, 0);
  pthread_create (&thread, NULL, read_slowly, &disk);
  wait_for_flying (4);
  fakes[0].hangs = false;
  pthread_join (thread, &r);
  assert_null (r);
  each_once (&d);
  assert_int_equal (fakes[0].most, 4);
  assert_true (fakes[0].requests >= 4 && fakes[0].requests <= 16);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* A hit is not held up by the miss of another client: it would be for ever. */
static void
test_hit_beside_miss (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  pthread_t thread;

  delay_one (state, &d, DISK, 20000);
  struct esp_delay *delay = delay_start (t, 2);
  struct disk one = disk_open (delay, t, 0), two = disk_open (delay, t, 0);
  assert_int_equal (disk_read (&one, 5 * SEGMENT, 4096), 0);
  fakes[0].hangs = true;
  pthread_create (&thread, NULL, read_slowly, &two);
  wait_for_flying (2);
  alarm (60);
  assert_int_equal (disk_read (&one, 5 * SEGMENT, 4096), 0);
  alarm (0);
  assert_int_equal (fakes[0].flying, 2);
  fakes[0].hangs = false;
  pthread_join (thread, NULL);
  disk_close (&one);
  disk_close (&two);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* The first segments of a request that is cut off are kept; the rest fails
 * with the cause, and the next read asks for it again.
 */
static void
test_partial_failure (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct esp_delay_counters c;

  delay_one (state, &d, DISK, 20000);
  fakes[0].cut_after = 2;
  struct esp_delay *delay = delay_start (t, 1);
  struct disk disk = disk_open (delay, t, 0);
  assert_int_equal (disk_read (&disk, 0, DISK), EIO);
  assert_non_null (strstr (unit_error, "center-0: cut off"));
  esp_delay_counters (delay, &c);
  assert_true (c.segments >= 2);
  assert_int_equal (disk_read (&disk, 0, SEGMENT), 0);
  fakes[0].cut_after = -1;
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  each_once (&d);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* One segment is always wrong at the only center: only it fails. */
static void
test_one_wrong_segment (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 20000);
  fakes[0].bad_entry = 3;
  struct esp_delay *delay = delay_start (t, 1);
  struct disk disk = disk_open (delay, t, 0);
  assert_int_equal (disk_read (&disk, 0, DISK), EIO);
  assert_non_null (strstr (unit_error, "digest"));
  assert_int_equal (fake_fetched (3), 2);
  for (size_t e = 0; e < d.index.n; e++)
    if (e != 3)
      assert_int_equal (fake_fetched (e), 1);
  assert_int_equal (disk_read (&disk, 4 * SEGMENT, DISK - 4 * SEGMENT), 0);
  fakes[0].bad_entry = -1;
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* Bytes that were hurt on the way are asked for again. */
static void
test_hurt_on_the_way (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 20000);
  fakes[0].lies = 1;
  struct esp_delay *delay = delay_start (t, 0);
  struct disk disk = disk_open (delay, t, 0);
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* A center that is gone comes back: found by the next read. */
static void
test_gone_and_back (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 20000);
  fakes[0].fails = ECONNREFUSED;
  struct esp_delay *delay = delay_start (t, 0);
  struct disk disk = disk_open (delay, t, 0);
  for (int i = 0; i < 4; i++) {
    assert_int_equal (disk_read (&disk, some_data (&d, 0), 4096), EIO);
    assert_non_null (strstr (unit_error, "the center is gone"));
  }
  fakes[0].fails = 0;
  assert_int_equal (disk_read (&disk, some_data (&d, 0), 4096), 0);
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* Sixty-four processes' worth of trouble in three: each entry once. */
static void
child (struct tree *t, unsigned seed)
{
  esp_store_close (t->store);
  t->store = esp_store_open (t->dir);
  srand (seed);
  struct esp_delay *delay = delay_start (t, 4);
  struct disk disk = disk_open (delay, t, 0);
  for (int i = 0; i < 100; i++) {
    uint64_t n = (unsigned) rand () % 200000 + 1;
    if (disk_read (&disk, (unsigned) rand () % (DISK - n), n) != 0)
      _exit (2);
  }
  if (disk_read (&disk, 0, DISK) != 0)
    _exit (3);
  disk_close (&disk);
  esp_delay_stop (delay);
  _exit (0);
}

static void
test_processes (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  pid_t pid[3];
  int status;

  delay_one (state, &d, DISK, 1500);
  fakes[0].first_us = 1000;
  esp_store_close (t->store);
  t->store = NULL;
  for (int i = 0; i < 3; i++)
    if ((pid[i] = fork ()) == 0) {
      tree_open (t);
      child (t, (unsigned) i);
    }
  for (int i = 0; i < 3; i++) {
    assert_int_equal (waitpid (pid[i], &status, 0), pid[i]);
    assert_int_equal (status, 0);
  }
  each_once (&d);
  tree_open (t);
  delayed_clear (&d);
}

/* A process that is killed while it fetches: another one goes on. */
static void
test_killed (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  int status;

  delay_one (state, &d, DISK, 20000);
  fakes[0].hangs = true;
  esp_store_close (t->store);
  t->store = NULL;
  pid_t pid = fork ();
  if (pid == 0) {
    tree_open (t);
    struct esp_delay *delay = delay_start (t, 4);
    struct disk disk = disk_open (delay, t, 0);
    disk_read (&disk, some_data (&d, 0), 4096);
    _exit (1);
  }
  wait_for_flying (1);
  tree_open (t);
  struct esp_delay *delay = delay_start (t, 4);
  struct disk disk = disk_open (delay, t, 0);
  pthread_t thread;
  void *r;
  pthread_create (&thread, NULL, read_slowly, &disk);
  wait_for_flying (1 + 4);
  kill (pid, SIGKILL);          /* still at it */
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFSIGNALED (status));
  fakes[0].hangs = false;
  pthread_join (thread, &r);
  assert_null (r);
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  each_once (&d);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* One that is stopped while it fetches keeps its locks: who needs the same
 * gets an error in the end, and the data when the other one goes on.
 */
static void
test_stopped (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  int status;

  delay_one (state, &d, DISK, 1500);
  fakes[0].hangs = true;
  esp_store_close (t->store);
  t->store = NULL;
  pid_t pid = fork ();
  if (pid == 0) {
    tree_open (t);
    struct esp_delay *delay = delay_start (t, 4);
    struct disk disk = disk_open (delay, t, 0);
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    _exit (disk_read (&disk, some_data (&d, 0), 4096) == 0 ? 0 : 1);
  }
  wait_for_flying (1);
  assert_int_equal (kill (pid, SIGSTOP), 0);
  /* Its threads stop one after another; now all have. */
  assert_int_equal (waitpid (pid, &status, WUNTRACED), pid);
  assert_true (WIFSTOPPED (status));
  fakes[0].hangs = false;
  tree_open (t);
  struct esp_delay *delay = delay_start (t, 4);
  struct disk disk = disk_open (delay, t, 0);
  esp_delay_test_elsewhere_max = 200000;
  assert_int_equal (disk_read (&disk, some_data (&d, 0), 4096), EIO);
  assert_non_null (strstr (unit_error, "is it stopped?"));
  esp_delay_test_elsewhere_max = 60000000;
  assert_int_equal (kill (pid, SIGCONT), 0);
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* Reads past readers (the command line's) fetch too, and ahead. */
static void
test_fetcher (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  delay_one (state, &d, DISK, 20000);
  struct esp_delay *delay = delay_start (t, 0);
  tree_verify (t, 0);
  each_once (&d);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

/* After a loss of power all is checked; what was hurt comes anew. */
static void
test_heals (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct esp_delay_counters c;
  unsigned char boot[16] = "another boot";

  delay_one (state, &d, DISK, 20000);
  struct esp_delay *delay = delay_start (t, 0);
  struct disk disk = disk_open (delay, t, 0);
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_patch (&d, "data", some_data (&d, 0) + 77, "hurt", 4);
  delayed_patch (&d, "have", offsetof (struct have_header, clean),
                 "\0\0\0\0", 4);
  delayed_patch (&d, "have", offsetof (struct have_header, boot), boot, 16);
  delay = delay_start (t, 0);
  disk = disk_open (delay, t, 0);
  assert_int_equal (disk_read (&disk, 0, DISK), 0);
  esp_delay_counters (delay, &c);
  assert_int_equal (c.healed_segments, 1);
  assert_int_equal (c.segments, 1);
  disk_close (&disk);
  esp_delay_stop (delay);
  delayed_clear (&d);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, setup, delay_teardown)
    T (test_read),
    T (test_only_what_is_read),
    T (test_chain),
    T (test_64_clients),
    T (test_parallel),
    T (test_hit_beside_miss),
    T (test_partial_failure),
    T (test_one_wrong_segment),
    T (test_hurt_on_the_way),
    T (test_gone_and_back),
    T (test_processes),
    T (test_killed),
    T (test_stopped),
    T (test_fetcher),
    T (test_heals),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
