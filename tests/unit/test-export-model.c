/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks behind the cache, read and written by several threads at once: no read
 * returns what is older than the newest write that was acknowledged before
 * the read began.
 *
 * The disk is cells of 512 bytes.  Each write fills its cells with its own
 * number.  The plugin puts writes in an order (SEQ) when it takes them; a
 * write that is acknowledged raises its cells' FLOOR to its place in that
 * order; a reader notes the floors, reads, and looks up the places of the
 * numbers that it read.
 */

#include "cluster-test.h"
#include "export-test.h"

#include <assert.h>
#include <sched.h>

#include "util/cleanup.h"

#define CELL 512u
#define CELLS (6 * 128u + 37)   /* 6 segments of 64K and a bit */
#define SIZE ((uint64_t) CELLS * CELL - 100)
#define WRITES 200000u
#define THREADS 6u

struct world {
  pthread_mutex_t lock;         /* the plugin takes one request at a time */
  uint32_t cells[CELLS];        /* what the plugin has: numbers of writes */
  uint32_t seq;                 /* under lock */
  uint32_t seq_of[WRITES];      /* under lock */
  _Atomic uint32_t floor[CELLS];
  _Atomic uint32_t next;        /* number */
  _Atomic bool stop;
  _Atomic uint64_t reads;
  bool failures;
  unsigned seed;
};

static struct world *w;

/* --- the plugin ---------------------------------------------------------------- */

static unsigned
rnd (unsigned *seed, unsigned n)
{
  return (unsigned) rand_r (seed) % n;
}

static void
pause_a_bit (unsigned *seed)
{
  switch (rnd (seed, 8)) {
  case 0: plugin_sleep (rnd (seed, 400)); break;
  case 1: sched_yield (); break;
  default: break;
  }
}

static void
put_cells (uint8_t *buf, const uint32_t *cells, uint32_t count,
           uint64_t offset)
{
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t at = offset + i;
    uint32_t v = cells[at / CELL];
    buf[i] = (uint8_t) (v >> 8 * (at & 3));
  }
}

static __thread unsigned my_seed;

static int
model_pread (void *arg, void *buf, uint32_t count, uint64_t offset, int *err)
{
  (void) arg;
  assert (offset + count <= SIZE);
  if (w->failures && rnd (&my_seed, 20) == 0) {
    *err = EIO;
    return -1;
  }
  pause_a_bit (&my_seed);
  pthread_mutex_lock (&w->lock);
  put_cells (buf, w->cells, count, offset);
  pthread_mutex_unlock (&w->lock);
  pause_a_bit (&my_seed);
  return 0;
}

/* Returns -1 where only some of it was written. */
static int
model_pwrite (uint32_t number, uint32_t first, uint32_t n)
{
  bool fail = w->failures && rnd (&my_seed, 10) == 0;

  pause_a_bit (&my_seed);
  pthread_mutex_lock (&w->lock);
  w->seq_of[number] = ++w->seq;
  for (uint32_t i = 0; i < (fail ? n / 2 : n); ++i)
    w->cells[first + i] = number;
  pthread_mutex_unlock (&w->lock);
  pause_a_bit (&my_seed);
  return fail ? -1 : 0;
}

/* --- clients --------------------------------------------------------------------- */

static void
raise_floor (uint32_t cell, uint32_t to)
{
  uint32_t was = atomic_load (&w->floor[cell]);

  while (was < to &&
         !atomic_compare_exchange_weak (&w->floor[cell], &was, to))
    ;
}

static uint64_t
end_of (uint32_t cell)
{
  uint64_t end = (uint64_t) cell * CELL;

  return end < SIZE ? end : SIZE;
}

static void
do_write (struct esp_cdisk *disk)
{
  uint32_t first = rnd (&my_seed, CELLS);
  uint32_t n = 1 + rnd (&my_seed, rnd (&my_seed, 6) ? 9 : 200);
  uint32_t number = atomic_fetch_add (&w->next, 1);
  int err;

  if (number >= WRITES)
    return;
  if (n > CELLS - first)
    n = CELLS - first;
  uint64_t offset = (uint64_t) first * CELL;
  uint32_t count = (uint32_t) (end_of (first + n) - offset);
  CLEANUP_FREE uint8_t *buf = malloc (count);
  for (uint32_t i = 0; i < count; ++i)
    buf[i] = (uint8_t) (number >> 8 * (i & 3));
  struct esp_cdisk_write *write = esp_cdisk_write_begin (disk, offset, count,
                                                         &err);
  assert (write);
  int r = model_pwrite (number, first, n);
  bool zero = rnd (&my_seed, 5) == 0;   /* the cache is not told the bytes */
  esp_cdisk_write_end (write, r == 0 && !zero ? buf : NULL);
  for (uint32_t i = 0; r == 0 && i < n; ++i)
    raise_floor (first + i, w->seq_of[number]);
}

static void
check_cell (const uint8_t *bytes, uint32_t len, uint32_t cell, uint32_t floor)
{
  uint32_t number = 0, at;

  memcpy (&number, bytes, 4);
  for (at = 0; at < len; ++at)
    if (bytes[at] != (uint8_t) (number >> 8 * (at & 3))) {
      fprintf (stderr, "cell %u is torn at %u (seed %u)\n", cell, at, w->seed);
      abort ();
    }
  pthread_mutex_lock (&w->lock);
  uint32_t seq = number < WRITES ? w->seq_of[number] : 0;
  pthread_mutex_unlock (&w->lock);
  if (seq < floor) {
    fprintf (stderr, "cell %u: read write %u, which is number %u, but %u was "
             "acknowledged (seed %u)\n", cell, number, seq, floor, w->seed);
    abort ();
  }
}

static void
do_read (struct esp_cdisk *disk)
{
  static const struct esp_cdisk_below below = { .pread = model_pread };
  static __thread uint32_t floors[CELLS];
  uint64_t offset = (uint64_t) rnd (&my_seed, (unsigned) SIZE);
  uint32_t count = 1 + rnd (&my_seed, rnd (&my_seed, 12) ? 9000 : SIZE);
  int err;

  if (rnd (&my_seed, 3) == 0)
    offset = offset / 4096 * 4096;
  if (count > SIZE - offset)
    count = (uint32_t) (SIZE - offset);
  for (uint32_t c = offset / CELL; c < CELLS; ++c)
    floors[c] = atomic_load (&w->floor[c]);
  CLEANUP_FREE uint8_t *buf = malloc (count);
  if (esp_cdisk_read (disk, &below, buf, count, offset, &err) == -1) {
    assert (w->failures && err == EIO);
    return;
  }
  atomic_fetch_add (&w->reads, 1);
  for (uint32_t c = (offset + CELL - 1) / CELL;
       end_of (c + 1) <= offset + count && c < CELLS; ++c)
    check_cell (buf + (end_of (c) - offset),
                (uint32_t) (end_of (c + 1) - end_of (c)), c, floors[c]);
}

struct client {
  struct esp_cdisk *disk;
  unsigned seed;
  unsigned writes;              /* of ten requests */
  pthread_t thread;
};

static void *
client_run (void *arg)
{
  const struct client *c = arg;

  my_seed = c->seed;
  while (!atomic_load (&w->stop))
    if (rnd (&my_seed, 10) < c->writes)
      do_write (c->disk);
    else
      do_read (c->disk);
  return NULL;
}

/* --- the rounds -------------------------------------------------------------------- */

static void
world_new (bool failures)
{
  w = calloc (1, sizeof *w);
  assert_non_null (w);
  pthread_mutex_init (&w->lock, NULL);
  w->next = 1;
  w->failures = failures;
  w->seed = unit_seed ();
}

static struct esp_cdisk *
open_disk (struct esp_memory *memory, struct esp_shared *shared)
{
  const struct esp_cdisk_params p = {
    .id = "", .name = "model", .size = SIZE, .shift = 16,
  };
  struct esp_cdisk *disk = esp_cdisk_open (memory, shared, &p);

  assert_non_null (disk);
  return disk;
}

/* All that is read at rest is what the plugin has. */
static void
check_at_rest (struct esp_cdisk *disk)
{
  static const struct esp_cdisk_below below = { .pread = model_pread };
  uint8_t *got = malloc (SIZE), *want = malloc (SIZE);
  int err;

  w->failures = false;
  put_cells (want, w->cells, SIZE, 0);
  assert_int_equal (esp_cdisk_read (disk, &below, got, SIZE, 0, &err), 0);
  assert_memory_equal (got, want, SIZE);
  free (got);
  free (want);
}

/* In the middle of a storm; or NULL. */
static void (*meanwhile) (void *arg);
static void *meanwhile_arg;

/* THREADS clients on the connections DISKS for MS. */
static void
storm (struct esp_cdisk **disks, unsigned n, unsigned ms)
{
  struct client c[THREADS];

  for (unsigned i = 0; i < THREADS; ++i) {
    c[i] = (struct client) { .disk = disks[i % n], .seed = w->seed + i,
                             .writes = i % 3 };
    assert_int_equal (pthread_create (&c[i].thread, NULL, client_run, &c[i]),
                      0);
  }
  struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };
  nanosleep (&t, NULL);
  if (meanwhile) {
    meanwhile (meanwhile_arg);
    nanosleep (&t, NULL);
  }
  atomic_store (&w->stop, true);
  for (unsigned i = 0; i < THREADS; ++i)
    pthread_join (c[i].thread, NULL);
  for (unsigned i = 0; i < n; ++i)
    check_at_rest (disks[i]);
  assert_true (w->reads > 20 && w->next > 20);
  printf ("# %llu reads, %u writes\n", (unsigned long long) w->reads,
          (unsigned) w->next);
}

static void
one_process (uint64_t max, unsigned connections, bool failures)
{
  struct esp_memory *memory = esp_memory_new (max, 16);
  struct esp_cdisk *disks[2] = { 0 };

  world_new (failures);
  for (unsigned i = 0; i < connections; ++i)
    disks[i] = open_disk (memory, NULL);
  storm (disks, connections, 1200);
  for (unsigned i = 0; i < connections; ++i)
    esp_cdisk_close (disks[i]);
  esp_memory_free (memory);
  free (w);
}

static void
test_one_connection (void **state)
{
  (void) state;
  one_process (64 * M, 1, false);
}

static void
test_two_connections (void **state)
{
  (void) state;
  one_process (64 * M, 2, false);
}

static void
test_small_memory (void **state)
{
  (void) state;
  one_process (128 * K, 2, false);
}

static void
test_no_memory (void **state)
{
  (void) state;
  one_process (0, 2, false);
}

static void
test_failures (void **state)
{
  (void) state;
  one_process (256 * K, 2, true);
}

/* Two processes that share PARAMS' tiers; what they hold in memory the other
 * one could not know of.
 */
static void
two_processes (const struct esp_shared_params *params, const uint64_t max[2],
               bool failures)
{
  struct esp_memory *memory[2];
  struct esp_shared *shared[2];
  struct esp_cdisk *disks[2];

  world_new (failures);
  for (unsigned i = 0; i < 2; ++i) {
    memory[i] = esp_memory_new (max[i], 16);
    shared[i] = esp_shared_open (params);
    assert_non_null (shared[i]);
    disks[i] = open_disk (memory[i], shared[i]);
  }
  storm (disks, max[0] ? 1 : 2, 1500);
  check_at_rest (disks[1]);
  for (unsigned i = 0; i < 2; ++i) {
    esp_cdisk_close (disks[i]);
    esp_shared_close (shared[i]);
    esp_memory_free (memory[i]);
  }
  free (w);
}

static void
on_a_directory (const uint64_t max[2], bool failures)
{
  char *dir = unit_mkdir ();
  const struct esp_shared_params params = { .dir = dir, .dir_max = 32 * M };

  two_processes (&params, max, failures);
  unit_rmdir (dir);
}

static void
test_two_processes_on_a_directory (void **state)
{
  const uint64_t max[2] = { 0, 0 };

  (void) state;
  on_a_directory (max, false);
  on_a_directory (max, true);
}

/* With memory above the directory; then another process finds it. */
static void
test_memory_over_a_directory (void **state)
{
  const uint64_t max[2] = { 128 * K, 0 };

  (void) state;
  on_a_directory (max, false);
}

/* --- nodes ------------------------------------------------------------------------- */

static void
on_nodes (struct bench *b, const uint64_t max[2], bool failures)
{
  if (!have_memcached ())
    skip ();
  mc_start (b, 0, NULL);
  mc_start (b, 1, NULL);
  const struct esp_shared_params params = {
    .nodes = mc_list (b, 0, 2), .timeout_ms = 5000,
  };
  two_processes (&params, max, failures);
}

static void
test_two_processes_on_nodes (void **state)
{
  const uint64_t max[2] = { 0, 0 };

  on_nodes (*state, max, true);
}

static void
kill_and_start (void *arg)
{
  mc_kill (arg, 0);
  plugin_sleep (300000);
  mc_start (arg, 0, NULL);
}

/* One process, since another one may reach a node that this one does not. */
static void
test_a_node_that_dies (void **state)
{
  const uint64_t max[2] = { 128 * K, 0 };

  meanwhile = kill_and_start;
  meanwhile_arg = *state;
  on_nodes (*state, max, true);
  meanwhile = NULL;
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_one_connection),
    cmocka_unit_test (test_two_connections),
    cmocka_unit_test (test_small_memory),
    cmocka_unit_test (test_no_memory),
    cmocka_unit_test (test_failures),
    cmocka_unit_test (test_two_processes_on_a_directory),
    cmocka_unit_test (test_memory_over_a_directory),
    cmocka_unit_test_setup_teardown (test_two_processes_on_nodes, bench_setup,
                                     bench_teardown),
    cmocka_unit_test_setup_teardown (test_a_node_that_dies, bench_setup,
                                     bench_teardown),
  };

  unit_init ();
  return cmocka_run_group_tests_name ("export-model", tests, NULL, NULL);
}
