/* SPDX-License-Identifier: BSD-3-Clause */
/* What the verbs of an overlay promise: reading through, partial blocks,
 * fills against newer writes, flushes, quota and floor, errors.
 */

#include "overlay-test.h"
#include "overlay-hooks.h"

#define MIB (UINT64_C (1) << 20)

static void
reads_go_down_at_once_until_something_is_written (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, 4 * MIB);
  env_open (&e);
  assert_below (&e, 1000, 3 * MIB);
  assert_int_equal (e.disk.reads, 1);
  OK (WRITE (&e, "x", 1, 0));
  e.disk.reads = 0;
  assert_below (&e, 4096, 3 * MIB);
  assert_int_equal (e.disk.reads, 1);
  env_end (&e);
}

static void
whole_blocks_never_read_below (void **state)
{
  struct env e;
  uint8_t *buf = calloc (1, 2 * MIB);

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, 2 * MIB + 100);
  env_open (&e);
  OK (WRITE (&e, buf, 2 * MIB, 0));
  OK (WRITE (&e, buf, 100, 2 * MIB));   /* the last block, to its end */
  OK (ZERO (&e, 8192, 4096));
  OK (WRITE (&e, "x", 1, 5000));        /* part of a block that is zero */
  assert_int_equal (e.disk.reads, 0);
  free (buf);
  env_end (&e);
}

static void
part_of_a_block_keeps_the_rest_of_below (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB + 700);
  env_open (&e);
  OK (WRITE (&e, "abc", 3, 4096 * 5 - 1));      /* across two blocks */
  OK (WRITE (&e, "d", 1, MIB + 350));           /* the short last block */
  assert_below (&e, 0, 4096 * 5 - 1);
  assert_bytes (&e, 4096 * 5 - 1, 1, 'a');
  assert_bytes (&e, 4096 * 5 + 1, 1, 'c');
  assert_below (&e, 4096 * 5 + 2, MIB + 350 - 4096 * 5 - 2);
  assert_bytes (&e, MIB + 350, 1, 'd');
  assert_below (&e, MIB + 351, 349);
  env_end (&e);
}

static void
data_behind_the_end_of_the_disk_is_zero (void **state)
{
  struct env e;
  uint8_t buf[4096];
  char path[512];

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, 5000);
  env_open (&e);
  OK (WRITE (&e, "x", 1, 4999));
  snprintf (path, sizeof path, "%s/cafe/0/seat-7/data", e.dir);
  int fd = open (path, O_RDONLY);
  assert_int_equal (pread (fd, buf, 4096, 4096), 4096);
  close (fd);
  assert_int_equal (buf[5000 - 4097], 'x');
  for (unsigned i = 5000 - 4096; i < 4096; ++i)
    assert_int_equal (buf[i], 0);
  env_end (&e);
}

static void
zero_gives_space_back (void **state)
{
  struct env e;
  struct esp_overlay_info info;
  uint8_t *buf = malloc (8 * MIB);

  (void) state;
  memset (buf, 7, 8 * MIB);
  env_init (&e, ESP_OVERLAY_KEEP, 8 * MIB);
  env_open (&e);
  OK (WRITE (&e, buf, 8 * MIB, 0));
  assert_int_equal (esp_overlay_used (e.o), 8 * MIB);
  OK (ZERO (&e, 7 * MIB, 4096));
  assert_bytes (&e, 4096, 7 * MIB, 0);
  assert_int_equal (esp_overlay_used (e.o), MIB);
  OK (FLUSH (&e));
  int fd = esp_open_dir (AT_FDCWD, e.dir);
  assert_int_equal (esp_overlay_info (fd, &seat7, &info), 0);
  assert_true (info.used >= MIB && info.used < 2 * MIB);
  esp_overlay_info_clear (&info);
  close (fd);
  free (buf);
  env_end (&e);
}

static void
error_of_below_changes_nothing (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  e.disk.error = EREMOTEIO;
  FAILS (WRITE (&e, "x", 1, 10), EREMOTEIO);
  e.disk.error = 0;
  assert_below (&e, 0, MIB);
  assert_int_equal (esp_overlay_used (e.o), 0);
  env_end (&e);
}

/* --- a slow fill ---------------------------------------------------------- */

struct slow {
  struct env *e;
  pthread_barrier_t reading, go_on;
  _Atomic int armed;            /* the first read below stops */
};

static void
stop_in_read (void *arg)
{
  struct slow *s = arg;

  if (atomic_exchange (&s->armed, 0)) {
    pthread_barrier_wait (&s->reading);
    pthread_barrier_wait (&s->go_on);
  }
}

static void *
fill_slowly (void *arg)
{
  struct slow *s = arg;
  int err = 0;

  return (void *) (intptr_t) esp_overlay_pwrite (s->e->o, &s->e->below, "F",
                                                 1, 100, false, &err);
}

/* Begin a write of byte 100 that stops in its read below; do MEANWHILE;
 * let it go on.
 */
static void
with_slow_fill (struct env *e, void (*meanwhile) (struct env *e))
{
  struct slow s = { .e = e, .armed = 1 };
  pthread_t t;
  void *r;

  pthread_barrier_init (&s.reading, NULL, 2);
  pthread_barrier_init (&s.go_on, NULL, 2);
  e->disk.on_read = stop_in_read;
  e->disk.arg = &s;
  assert_int_equal (pthread_create (&t, NULL, fill_slowly, &s), 0);
  pthread_barrier_wait (&s.reading);
  meanwhile (e);
  pthread_barrier_wait (&s.go_on);
  pthread_join (t, &r);
  assert_null (r);
  e->disk.on_read = NULL;
}

static void
write_flush_and_read (struct env *e)
{
  uint8_t buf[4096];

  memset (buf, 'W', sizeof buf);
  OK (WRITE (e, buf, 4096, 0));
  OK (WRITE (e, buf, 1, 3 * 4096 + 5)); /* another fill in the same tile */
  OK (FLUSH (e));
  assert_bytes (e, 0, 4096, 'W');
}

static void
slow_fill_never_overwrites_a_newer_write (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  with_slow_fill (&e, write_flush_and_read);
  assert_bytes (&e, 0, 100, 'W');
  assert_bytes (&e, 100, 1, 'F');
  assert_bytes (&e, 101, 4096 - 101, 'W');
  env_end (&e);
}

static void
zero_the_block (struct env *e)
{
  OK (ZERO (e, 4096, 0));
}

static void
slow_fill_never_brings_back_what_was_zeroed (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  with_slow_fill (&e, zero_the_block);
  assert_bytes (&e, 0, 100, 0);
  assert_bytes (&e, 100, 1, 'F');
  assert_bytes (&e, 101, 4096 - 101, 0);
  env_end (&e);
}

/* --- quota and floor ------------------------------------------------------ */

static void
quota_refuses_growth_only (void **state)
{
  struct env e;
  uint8_t buf[4 * 4096] = { 1 };

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  e.params.quota = 4 * 4096;
  env_open (&e);
  OK (WRITE (&e, buf, 4 * 4096, 0));
  FAILS (WRITE (&e, buf, 4096, 65536), ENOSPC);
  assert_non_null (strstr (unit_error, "overlay-quota is reached"));
  unit_error[0] = 0;
  FAILS (WRITE (&e, buf, 1, 65536), ENOSPC);
  assert_string_equal (unit_error, "");         /* once an episode */
  assert_below (&e, 65536, 4096);
  OK (WRITE (&e, buf, 4 * 4096, 0));            /* rewriting is free */
  OK (WRITE (&e, buf, 17, 4090));
  OK (ZERO (&e, 4096, 0));
  OK (ZERO (&e, 65536, 131072));                /* and zeroes are */
  OK (WRITE (&e, buf, 4096, 65536));
  FAILS (WRITE (&e, buf, 4096, 0), ENOSPC);
  env_end (&e);
}

struct filler { struct env *e; unsigned self; unsigned written; };

static void *
fill_up (void *arg)
{
  struct filler *f = arg;
  uint8_t buf[4096] = { 2 };
  int err;

  for (unsigned i = f->self; i < 256; i += 4)
    if (esp_overlay_pwrite (f->e->o, &f->e->below, buf, i % 3 ? 4096 : 7,
                            UINT64_C (4096) * i, false, &err) == 0)
      f->written++;
    else if (err != ENOSPC)
      f->written += 100000;
  return NULL;
}

static void
quota_is_exact_under_threads (void **state)
{
  struct env e;
  struct filler f[4];
  pthread_t t[4];
  unsigned written = 0;

  (void) state;
  env_init (&e, ESP_OVERLAY_MEMORY, MIB);
  e.params.quota = 100 * 4096;
  env_open (&e);
  for (unsigned i = 0; i < 4; ++i) {
    f[i] = (struct filler) { &e, i, 0 };
    pthread_create (&t[i], NULL, fill_up, &f[i]);
  }
  for (unsigned i = 0; i < 4; ++i) {
    pthread_join (t[i], NULL);
    written += f[i].written;
  }
  assert_int_equal (written, 100);
  assert_int_equal (esp_overlay_used (e.o), 100 * 4096);
  env_end (&e);
}

static void
floor_of_free_space_refuses_growth (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  e.params.min_free = UINT64_C (1) << 60;
  env_open (&e);
  FAILS (WRITE (&e, "x", 1, 0), ENOSPC);
  assert_non_null (strstr (unit_error, "overlay-min-free"));
  OK (ZERO (&e, 4096, 0));
  assert_int_equal (esp_overlay_used (e.o), 0);
  env_end (&e);
}

/* --- errors of the file system -------------------------------------------- */

static int
data_is_full (int fd, const void *buf, size_t n, off_t at)
{
  (void) buf, (void) n, (void) at;
  if (!hook_is (fd, "data"))
    return 0;
  errno = ENOSPC;
  return -1;
}

static void
full_disk_leaves_states_right (void **state)
{
  struct env e;
  uint8_t buf[8192] = { 9 };

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  OK (WRITE (&e, buf, 4096, 0));
  hook_pwrite = data_is_full;
  FAILS (WRITE (&e, buf, 8192, 4096), ENOSPC);
  FAILS (WRITE (&e, buf, 5, 40000), ENOSPC);
  hook_pwrite = NULL;
  assert_below (&e, 4096, MIB - 4096);
  assert_int_equal (esp_overlay_used (e.o), 4096);
  OK (FLUSH (&e));
  env_end (&e);
}

static int syncs_of_data;

static int
data_does_not_sync (int fd)
{
  if (!hook_is (fd, "data"))
    return 0;
  if (syncs_of_data++)
    return 0;                   /* as the kernel: the second one succeeds */
  errno = EIO;
  return -1;
}

static void
failed_sync_fails_flushes_until_reopened (void **state)
{
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  OK (WRITE (&e, "1", 1, 0));
  OK (FLUSH (&e));
  OK (WRITE (&e, "2", 1, 8192));
  hook_fdatasync = data_does_not_sync;
  FAILS (FLUSH (&e), EIO);
  FAILS (FLUSH (&e), EIO);
  OK (WRITE (&e, "3", 1, 16384));
  FAILS (FLUSH (&e), EIO);
  hook_fdatasync = NULL;
  assert_int_equal (syncs_of_data, 1);
  env_close (&e);
  env_open (&e);
  assert_bytes (&e, 0, 1, '1');         /* what was flushed */
  assert_below (&e, 8192, 1);           /* and nothing that was not */
  OK (WRITE (&e, "4", 1, 8192));
  OK (FLUSH (&e));
  env_end (&e);
}

static void
data_cut_short_is_an_error_of_the_read (void **state)
{
  struct env e;
  char path[512];
  uint8_t *buf = calloc (1, MIB);

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  OK (WRITE (&e, buf, MIB, 0));
  OK (FLUSH (&e));
  snprintf (path, sizeof path, "%s/cafe/0/seat-7/data", e.dir);
  assert_int_equal (truncate (path, 65536), 0);
  FAILS (READ (&e, buf, 4096, MIB - 4096), EIO);
  assert_bytes (&e, 0, 4096, 0);
  free (buf);
  env_end (&e);
}

/* --- flush ---------------------------------------------------------------- */

static pthread_barrier_t in_sync, leave_sync;
static _Atomic int sync_stops, syncs;

static int
stop_in_sync (int fd)
{
  if (!hook_is (fd, "data"))
    return 0;
  atomic_fetch_add (&syncs, 1);
  if (atomic_exchange (&sync_stops, 0)) {
    pthread_barrier_wait (&in_sync);
    pthread_barrier_wait (&leave_sync);
  }
  return 0;
}

static void *
flush_thread (void *arg)
{
  struct env *e = arg;
  int err = 0;

  return (void *) (intptr_t) esp_overlay_flush (e->o, &err);
}

/* One that runs, and eight that come meanwhile: two syncs in all. */
static void
flushes_that_wait_share_the_next_one (void **state)
{
  struct env e;
  pthread_t t[9];

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  pthread_barrier_init (&in_sync, NULL, 2);
  pthread_barrier_init (&leave_sync, NULL, 2);
  sync_stops = 1;
  hook_fdatasync = stop_in_sync;
  OK (WRITE (&e, "1", 1, 0));
  pthread_create (&t[8], NULL, flush_thread, &e);
  pthread_barrier_wait (&in_sync);
  OK (WRITE (&e, "2", 1, 8192));        /* not in the flush that runs */
  for (unsigned i = 0; i < 8; ++i)
    pthread_create (&t[i], NULL, flush_thread, &e);
  pthread_barrier_wait (&leave_sync);
  for (unsigned i = 0; i < 9; ++i) {
    void *r;
    pthread_join (t[i], &r);
    assert_null (r);
  }
  OK (FLUSH (&e));                      /* nothing to do */
  hook_fdatasync = NULL;
  assert_int_equal (syncs, 2);
  env_end (&e);
}

/* --- extents -------------------------------------------------------------- */

struct seen { unsigned n; struct { uint64_t at, len; int state; } run[16]; };

static int
see (void *arg, uint64_t offset, uint64_t len, enum esp_state state)
{
  struct seen *s = arg;

  assert_true (s->n < 16);
  s->run[s->n].at = offset;
  s->run[s->n].len = len;
  s->run[s->n++].state = state;
  return 0;
}

static void
assert_run (const struct seen *s, unsigned i, uint64_t at, uint64_t len,
            int state)
{
  assert_true (i < s->n);
  assert_int_equal (s->run[i].at, at);
  assert_int_equal (s->run[i].len, len);
  assert_int_equal (s->run[i].state, state);
}

#define EXTENTS(e, at, n, one, s) \
  esp_overlay_extents ((e)->o, &(e)->below, at, n, one, see, s, err)

static void
extents_join_what_is_above_and_below (void **state)
{
  struct env e;
  struct seen s = { 0 }, one = { 0 };
  uint8_t buf[4096] = { 1 };

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, MIB);
  env_open (&e);
  OK (WRITE (&e, buf, 4096, 32768));    /* joins the data below it */
  OK (ZERO (&e, 4096, 65536));
  OK (EXTENTS (&e, 100, 80000, false, &s));
  assert_int_equal (s.n, 4);
  assert_run (&s, 0, 100, 32768 + 4096 - 100, ESP_DATA);
  assert_run (&s, 1, 32768 + 4096, 28672, ESP_ABSENT);
  assert_run (&s, 2, 65536, 4096, ESP_ZERO);
  assert_run (&s, 3, 69632, 80100 - 69632, ESP_DATA);
  OK (EXTENTS (&e, 100, 80000, true, &one));
  assert_int_equal (one.n, 1);
  assert_run (&one, 0, 100, 32768 + 4096 - 100, ESP_DATA);
  env_end (&e);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (reads_go_down_at_once_until_something_is_written),
    cmocka_unit_test (whole_blocks_never_read_below),
    cmocka_unit_test (part_of_a_block_keeps_the_rest_of_below),
    cmocka_unit_test (data_behind_the_end_of_the_disk_is_zero),
    cmocka_unit_test (zero_gives_space_back),
    cmocka_unit_test (error_of_below_changes_nothing),
    cmocka_unit_test (slow_fill_never_overwrites_a_newer_write),
    cmocka_unit_test (slow_fill_never_brings_back_what_was_zeroed),
    cmocka_unit_test (quota_refuses_growth_only),
    cmocka_unit_test (quota_is_exact_under_threads),
    cmocka_unit_test (floor_of_free_space_refuses_growth),
    cmocka_unit_test (full_disk_leaves_states_right),
    cmocka_unit_test (failed_sync_fails_flushes_until_reopened),
    cmocka_unit_test (data_cut_short_is_an_error_of_the_read),
    cmocka_unit_test (flushes_that_wait_share_the_next_one),
    cmocka_unit_test (extents_join_what_is_above_and_below),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
