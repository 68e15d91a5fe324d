/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks behind the cache: what is read below, how much of it, and when. */

#include "export-test.h"

#define SHIFT 16u
#define SEG (1u << SHIFT)

struct rig {
  struct plugin p;
  struct esp_memory *memory;
  struct esp_cdisk *disk;
};

static void
rig_up (struct rig *r, uint64_t size, uint64_t max)
{
  plugin_init (&r->p, size);
  r->memory = esp_memory_new (max, SHIFT);
  assert_non_null (r->memory);
  r->disk = plugin_open (&r->p, r->memory, NULL, SHIFT);
}

static void
rig_down (struct rig *r)
{
  esp_cdisk_close (r->disk);
  esp_memory_free (r->memory);
  plugin_clear (&r->p);
}

/* --- what comes back -------------------------------------------------------- */

static void
test_edges (void **state)
{
  static const uint32_t lengths[] = { 1, 511, 512, 4095, 4096, 4097, 8192,
                                      SEG - 1, SEG, SEG + 1, 3 * SEG + 17 };
  struct rig r;

  (void) state;
  rig_up (&r, 5 * SEG + 4096 * 3 + 777, 64 * M);
  for (uint64_t edge = 0; edge <= r.p.size; edge += edge < 5 * SEG ? SEG : 1)
    for (int d = -4097; d <= 4097; d += 683)
      for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; ++i) {
        if ((d < 0 && (uint64_t) -d > edge) || edge + d >= r.p.size)
          continue;
        uint64_t at = edge + d;
        uint32_t n = lengths[i];
        if (n > r.p.size - at)
          n = (uint32_t) (r.p.size - at);
        if (edge > 5 * SEG && edge < r.p.size - 1)
          break;
        plugin_check (&r.p, r.disk, n, at);
      }
  plugin_check (&r.p, r.disk, (uint32_t) r.p.size, 0);
  rig_down (&r);
}

static void
test_last_byte_and_nothing (void **state)
{
  const uint64_t sizes[] = { 1, 511, 4096, SEG - 1, SEG, SEG + 1,
                             2 * SEG + 4097 };
  struct rig r;

  (void) state;
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    rig_up (&r, sizes[i], M);
    plugin_check (&r.p, r.disk, 1, sizes[i] - 1);
    plugin_check (&r.p, r.disk, 0, sizes[i]);
    plugin_check (&r.p, r.disk, 0, 0);
    plugin_check (&r.p, r.disk, (uint32_t) sizes[i], 0);
    rig_down (&r);
  }
}

static void
test_second_read_is_a_hit (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 8 * M, 64 * M);
  plugin_check (&r.p, r.disk, 8 * M, 0);
  plugin_mark (&r.p);
  plugin_check (&r.p, r.disk, 8 * M, 0);
  plugin_check (&r.p, r.disk, 12345, 777777);
  assert_int_equal (r.p.reads, 0);
  rig_down (&r);
}

static void
test_without_memory_all_is_read_below (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, M, 0);
  plugin_check (&r.p, r.disk, 4096, 8192);
  plugin_check (&r.p, r.disk, 4096, 8192);
  plugin_check (&r.p, r.disk, M, 0);
  assert_true (r.p.reads >= 3);
  rig_down (&r);
}

static void
test_names_sizes_and_ids_are_apart (void **state)
{
  struct plugin a, b, c;
  struct esp_memory *memory = esp_memory_new (64 * M, SHIFT);

  (void) state;
  plugin_init (&a, M);
  plugin_init (&b, M);
  plugin_init (&c, M + 4096);
  memset (b.bytes, 'b', M);
  memset (c.bytes, 'c', M);
  const struct esp_cdisk_params of_b = {
    .id = "", .name = "other", .size = M, .shift = SHIFT
  }, of_a_again = {
    .id = "x", .name = "disk", .size = M, .shift = SHIFT
  };
  struct esp_cdisk *da = plugin_open (&a, memory, NULL, SHIFT);
  struct esp_cdisk *db = esp_cdisk_open (memory, NULL, &of_b);
  struct esp_cdisk *dc = plugin_open (&c, memory, NULL, SHIFT);
  struct esp_cdisk *dx = esp_cdisk_open (memory, NULL, &of_a_again);
  for (int i = 0; i < 2; ++i) {
    plugin_check (&a, da, M, 0);
    plugin_check (&b, db, M, 0);
    plugin_check (&c, dc, M, 0);
    plugin_check (&b, dx, M, 0);
  }
  esp_cdisk_close (da);
  esp_cdisk_close (db);
  esp_cdisk_close (dc);
  esp_cdisk_close (dx);
  esp_memory_free (memory);
  plugin_clear (&a);
  plugin_clear (&b);
  plugin_clear (&c);
}

static void
test_too_many_segments (void **state)
{
  struct esp_memory *memory = esp_memory_new (M, SHIFT);
  const struct esp_cdisk_params p = {
    .id = "", .name = "", .size = UINT64_C (1) << 50, .shift = SHIFT
  };

  (void) state;
  assert_null (esp_cdisk_open (memory, NULL, &p));
  assert_int_equal (errno, EFBIG);
  assert_non_null (strstr (unit_error, "segcache-segment"));
  esp_memory_free (memory);
}

/* --- how much is read below --------------------------------------------------- */

static void
test_small_reads_stay_small (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 256 * SEG, 64 * M);
  for (unsigned i = 0; i < 256; ++i)
    plugin_check (&r.p, r.disk, 4096, i * SEG + 4096 * (i % 16));
  assert_int_equal (r.p.reads, 256);
  assert_int_equal (r.p.read_bytes, 256 * 4096);
  /* unaligned ones: the blocks that they touch */
  plugin_mark (&r.p);
  esp_cdisk_close (r.disk);
  esp_memory_free (r.memory);
  r.memory = esp_memory_new (64 * M, SHIFT);
  r.disk = plugin_open (&r.p, r.memory, NULL, SHIFT);
  for (unsigned i = 0; i < 256; ++i)
    plugin_check (&r.p, r.disk, 4096, i * SEG + 1000);
  assert_int_equal (r.p.read_bytes, 256 * 8192);
  rig_down (&r);
}

/* A client that reads on in small steps gets there in a few reads, and nothing
 * is read twice.
 */
static void
test_reading_on_widens (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 4 * SEG, 64 * M);
  for (unsigned at = 0; at < 4 * SEG; at += 4096)
    plugin_check (&r.p, r.disk, 4096, at);
  assert_int_equal (r.p.read_bytes, 4 * SEG);
  assert_true (r.p.reads <= 4 * 4);
  rig_down (&r);
}

static void
test_large_reads_are_one (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 40 * M, 128 * M);
  plugin_check (&r.p, r.disk, 32 * M, 0);
  assert_true (r.p.reads <= 3);         /* 512 segments */
  assert_int_equal (r.p.read_bytes, 32 * M);
  plugin_mark (&r.p);
  plugin_check (&r.p, r.disk, 4 * M - 1000, 34 * M + 500);
  assert_true (r.p.reads <= 3);
  assert_true (r.p.read_bytes <= 4 * M + 8192);
  rig_down (&r);
}

static void
test_holes_between_hits (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 16 * SEG, 64 * M);
  plugin_check (&r.p, r.disk, SEG, 3 * SEG);
  plugin_check (&r.p, r.disk, 2 * SEG, 7 * SEG);
  plugin_mark (&r.p);
  plugin_check (&r.p, r.disk, 16 * SEG, 0);
  assert_int_equal (r.p.reads, 3);
  assert_int_equal (r.p.read_bytes, 13 * SEG);
  rig_down (&r);
}

static void
test_block_sizes_of_the_plugin (void **state)
{
  struct plugin p;
  struct esp_memory *memory = esp_memory_new (64 * M, SHIFT);
  struct esp_cdisk_params params = {
    .id = "", .name = "", .size = 2 * M, .shift = SHIFT,
    .block_min = 16384, .block_max = 48 * K,
  };

  (void) state;
  plugin_init (&p, 2 * M);
  struct esp_cdisk *disk = esp_cdisk_open (memory, NULL, &params);
  plugin_check (&p, disk, 100, 5000);
  assert_int_equal (p.read_bytes, SEG);
  plugin_check (&p, disk, 2 * M, 0);
  assert_true (p.largest <= 48 * K);
  esp_cdisk_close (disk);
  esp_memory_free (memory);
  plugin_clear (&p);
}

static void
test_fetch_brings_it_in (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 16 * M, 64 * M);
  const struct esp_cdisk_below b = plugin_below (&r.p);
  esp_cdisk_fetch (r.disk, &b, 12 * M, M);
  plugin_mark (&r.p);
  plugin_check (&r.p, r.disk, 12 * M, M);
  assert_int_equal (r.p.reads, 0);
  /* what cannot be read is left out */
  r.p.bad_at = 14 * M;
  r.p.bad_len = 1;
  r.p.bad_errno = EIO;
  esp_cdisk_fetch (r.disk, &b, 3 * M, 13 * M);
  r.p.bad_len = 0;
  plugin_check (&r.p, r.disk, 3 * M, 13 * M);
  rig_down (&r);
}

/* --- errors --------------------------------------------------------------------- */

static void
test_an_error_fails_only_who_reads_it (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 4 * SEG, 64 * M);
  r.p.bad_at = SEG + 5 * 4096;
  r.p.bad_len = 4096;
  r.p.bad_errno = ENXIO;
  plugin_check_error (&r.p, r.disk, 4096, SEG + 5 * 4096, ENXIO);
  plugin_check_error (&r.p, r.disk, 4 * SEG, 0, ENXIO);
  /* all around it, whatever is read along */
  for (unsigned i = 0; i < 16; ++i)
    if (i != 5)
      plugin_check (&r.p, r.disk, 4096, SEG + i * 4096);
  plugin_check (&r.p, r.disk, SEG, 0);
  plugin_check (&r.p, r.disk, 5 * 4096, SEG);
  plugin_check (&r.p, r.disk, SEG, SEG + 6 * 4096);
  plugin_check_error (&r.p, r.disk, 1, SEG + 6 * 4096 - 1, ENXIO);
  /* and when it is well again */
  r.p.bad_len = 0;
  plugin_check (&r.p, r.disk, 4 * SEG, 0);
  rig_down (&r);
}

static void
test_large_read_fails_whole (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 4 * M, 64 * M);
  r.p.bad_at = 3 * M;
  r.p.bad_len = 1;
  r.p.bad_errno = EREMOTEIO;
  plugin_check_error (&r.p, r.disk, 4 * M, 0, EREMOTEIO);
  r.p.bad_len = 0;
  plugin_check (&r.p, r.disk, 4 * M, 0);
  rig_down (&r);
}

/* --- threads -------------------------------------------------------------------- */

struct reader {
  struct rig *r;
  uint32_t count;
  uint64_t offset;
  bool (*ending) (void);
  pthread_t thread;
  int result, err;
};

static void *
reader_run (void *arg)
{
  struct reader *t = arg;
  struct esp_cdisk_below b = plugin_below (&t->r->p);
  /* each its own connection */
  struct esp_cdisk *disk = plugin_open (&t->r->p, t->r->memory, NULL, SHIFT);
  uint8_t *buf = malloc (t->count);

  b.ending = t->ending;
  t->result = esp_cdisk_read (disk, &b, buf, t->count, t->offset, &t->err);
  if (t->result == 0 &&
      memcmp (buf, t->r->p.bytes + t->offset, t->count) != 0)
    t->result = 1;
  free (buf);
  esp_cdisk_close (disk);
  return NULL;
}

static void
readers_start (struct reader *t, unsigned n, struct rig *r, uint32_t count,
               uint64_t offset, uint64_t step)
{
  for (unsigned i = 0; i < n; ++i) {
    t[i] = (struct reader) { .r = r, .count = count,
                             .offset = offset + i * step };
    assert_int_equal (pthread_create (&t[i].thread, NULL, reader_run, &t[i]),
                      0);
  }
}

static void
readers_end (struct reader *t, unsigned n, int want)
{
  for (unsigned i = 0; i < n; ++i) {
    pthread_join (t[i].thread, NULL);
    assert_int_equal (t[i].result, want);
  }
}

/* Wait until N waits were counted, or all wait that will. */
static void
wait_for_waiters (struct rig *r, unsigned n)
{
  (void) r;
  (void) n;
  plugin_sleep (100000);        /* nothing tells who has begun to wait */
}

static void
test_one_fetch_for_all (void **state)
{
  struct rig r;
  struct reader t[8];

  (void) state;
  rig_up (&r, 32 * SEG, 64 * M);
  plugin_hang (&r.p, 0, true);
  readers_start (t, 8, &r, SEG, 4 * SEG, 0);
  plugin_wait_hanging (&r.p, 1);
  wait_for_waiters (&r, 7);
  plugin_hang (&r.p, 0, false);
  readers_end (t, 8, 0);
  assert_int_equal (r.p.reads, 1);
  /* small reads of one block too */
  plugin_mark (&r.p);
  plugin_hang (&r.p, 0, true);
  readers_start (t, 8, &r, 512, 20 * SEG, 512);
  plugin_wait_hanging (&r.p, 1);
  wait_for_waiters (&r, 7);
  plugin_hang (&r.p, 0, false);
  readers_end (t, 8, 0);
  assert_int_equal (r.p.reads, 1);
  rig_down (&r);
}

/* Large reads that cross each other: each byte comes once, nobody waits for
 * ever.
 */
static void
test_crossing_reads (void **state)
{
  struct rig r;
  struct reader t[8];

  (void) state;
  for (unsigned round = 0; round < 20; ++round) {
    rig_up (&r, 32 * SEG, 64 * M);
    r.p.delay_us = 500;
    readers_start (t, 8, &r, 16 * SEG, 0, 2 * SEG);
    readers_end (t, 8, 0);
    assert_int_equal (r.p.read_bytes, 30 * SEG);
    rig_down (&r);
  }
}

static void
test_hits_pass_hanging_misses (void **state)
{
  struct rig r;
  struct reader t[16];

  (void) state;
  rig_up (&r, 64 * SEG, 64 * M);
  plugin_check (&r.p, r.disk, 16 * SEG, 0);
  plugin_hang (&r.p, 16 * SEG, true);
  readers_start (t, 16, &r, 4096, 20 * SEG, SEG);
  plugin_wait_hanging (&r.p, 16);
  for (unsigned i = 0; i < 1000; ++i)
    plugin_check (&r.p, r.disk, 4096, i % 256 * 4096);
  assert_int_equal (r.p.hanging, 16);
  plugin_hang (&r.p, 0, false);
  readers_end (t, 16, 0);
  rig_down (&r);
}

/* In the same segment, too. */
static void
test_hits_pass_misses_beside_them (void **state)
{
  struct rig r;
  struct reader t[1];

  (void) state;
  rig_up (&r, 4 * SEG, 64 * M);
  plugin_check (&r.p, r.disk, 4096, 0);
  plugin_hang (&r.p, 4096, true);
  readers_start (t, 1, &r, SEG - 4096, 4096, 0);
  plugin_wait_hanging (&r.p, 1);
  plugin_check (&r.p, r.disk, 4096, 0);
  plugin_hang (&r.p, 0, false);
  readers_end (t, 1, 0);
  rig_down (&r);
}

static bool
yes (void)
{
  return true;
}

static void
test_waiting_ends_with_the_server (void **state)
{
  struct rig r;
  struct reader t[1], w = { .r = &r, .count = 4096, .ending = yes };

  (void) state;
  rig_up (&r, 4 * SEG, 64 * M);
  plugin_hang (&r.p, 0, true);
  readers_start (t, 1, &r, 4096, 0, 0);
  plugin_wait_hanging (&r.p, 1);
  reader_run (&w);
  assert_int_equal (w.result, -1);
  assert_int_equal (w.err, ESHUTDOWN);
  plugin_hang (&r.p, 0, false);
  readers_end (t, 1, 0);
  rig_down (&r);
}

/* Who waited for a fetch that failed tries for himself, and not one behind
 * another for ever.
 */
static void
test_failed_fetch_fails_its_owner (void **state)
{
  struct rig r;
  struct reader t[16];

  (void) state;
  rig_up (&r, 4 * SEG, 64 * M);
  r.p.bad_at = 0;
  r.p.bad_len = SEG;
  r.p.bad_errno = EIO;
  r.p.delay_us = 50000;
  readers_start (t, 16, &r, 4096, 0, 0);
  readers_end (t, 16, -1);
  assert_true (r.p.reads <= 2 * 16);
  assert_true (r.p.most >= 8);
  r.p.bad_len = 0;
  plugin_check (&r.p, r.disk, SEG, 0);
  rig_down (&r);
}

/* --- writes ---------------------------------------------------------------------- */

static void
write_through (struct rig *r, struct esp_cdisk *disk, uint8_t c,
               uint32_t count, uint64_t offset, int result)
{
  uint8_t *buf = malloc (count + 1);
  int err;

  memset (buf, c, count + 1);
  struct esp_cdisk_write *w = esp_cdisk_write_begin (disk, offset, count,
                                                     &err);
  assert_non_null (w);
  memset (r->p.bytes + offset, c, result == 0 ? count : count / 2);
  esp_cdisk_write_end (w, result == 0 ? buf : NULL);
  free (buf);
}

static void
test_writes_are_read (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 8 * SEG + 100, 64 * M);
  struct esp_cdisk *other = plugin_open (&r.p, r.memory, NULL, SHIFT);
  plugin_check (&r.p, other, (uint32_t) r.p.size, 0);
  write_through (&r, r.disk, 1, 100, 5000, 0);
  write_through (&r, r.disk, 2, 3 * SEG, SEG + 77, 0);
  write_through (&r, r.disk, 3, 100, 8 * SEG, 0);
  write_through (&r, r.disk, 4, 0, 0, 0);
  plugin_check (&r.p, other, (uint32_t) r.p.size, 0);
  write_through (&r, other, 5, 5000, SEG, -1);
  plugin_check (&r.p, r.disk, (uint32_t) r.p.size, 0);
  esp_cdisk_close (other);
  rig_down (&r);
}

static void
test_written_blocks_are_hits (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 4 * SEG, 64 * M);
  plugin_check (&r.p, r.disk, 4 * SEG, 0);
  write_through (&r, r.disk, 9, 8192, SEG, 0);
  plugin_mark (&r.p);
  plugin_check (&r.p, r.disk, 4 * SEG, 0);
  assert_int_equal (r.p.reads, 0);
  rig_down (&r);
}

/* A fetch that began before a write does not cover it. */
static void
test_a_late_fetch_does_not_cover_a_write (void **state)
{
  struct rig r;
  struct reader t[1];
  int err;

  (void) state;
  rig_up (&r, 4 * SEG, 64 * M);
  plugin_hang (&r.p, 0, true);
  readers_start (t, 1, &r, SEG, 0, 0);
  plugin_wait_hanging (&r.p, 1);
  struct esp_cdisk_write *w = esp_cdisk_write_begin (r.disk, 4096, 100, &err);
  plugin_hang (&r.p, 0, false);         /* it reads what was before */
  pthread_join (t[0].thread, NULL);
  assert_int_equal (t[0].result, 0);
  memset (r.p.bytes + 4096, 7, 100);
  esp_cdisk_write_end (w, NULL);
  plugin_check (&r.p, r.disk, SEG, 0);
  rig_down (&r);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_edges),
    cmocka_unit_test (test_last_byte_and_nothing),
    cmocka_unit_test (test_second_read_is_a_hit),
    cmocka_unit_test (test_without_memory_all_is_read_below),
    cmocka_unit_test (test_names_sizes_and_ids_are_apart),
    cmocka_unit_test (test_too_many_segments),
    cmocka_unit_test (test_small_reads_stay_small),
    cmocka_unit_test (test_reading_on_widens),
    cmocka_unit_test (test_large_reads_are_one),
    cmocka_unit_test (test_holes_between_hits),
    cmocka_unit_test (test_block_sizes_of_the_plugin),
    cmocka_unit_test (test_fetch_brings_it_in),
    cmocka_unit_test (test_an_error_fails_only_who_reads_it),
    cmocka_unit_test (test_large_read_fails_whole),
    cmocka_unit_test (test_one_fetch_for_all),
    cmocka_unit_test (test_crossing_reads),
    cmocka_unit_test (test_hits_pass_hanging_misses),
    cmocka_unit_test (test_hits_pass_misses_beside_them),
    cmocka_unit_test (test_waiting_ends_with_the_server),
    cmocka_unit_test (test_failed_fetch_fails_its_owner),
    cmocka_unit_test (test_writes_are_read),
    cmocka_unit_test (test_written_blocks_are_hits),
    cmocka_unit_test (test_a_late_fetch_does_not_cover_a_write),
  };

  unit_init ();
  return cmocka_run_group_tests_name ("export", tests, NULL, NULL);
}
