/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier: what it keeps, fills and who waits, writes, bounds.
 * test-memory-policy.c has who goes when, test-memory-model.c threads and
 * chance.
 */

#include "memory-test.h"

#include <pthread.h>
#include <sched.h>

/* --- fills ------------------------------------------------------------ */
static void
what_was_filled_is_read (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);

  (void) state;
  assert_false (reads (m, 3, 0, 1));
  assert_false (use (m, 3, 8 * KiB, 8 * KiB));
  assert_reads_disk (m, 3, 8 * KiB, 8 * KiB);
  assert_reads_disk (m, 3, 9 * KiB + 1, 5 * KiB);
  assert_false (reads (m, 3, 8 * KiB - 1, 2));
  assert_false (reads (m, 3, 16 * KiB - 1, 2));
  assert_false (reads (m, 4, 8 * KiB, 1));
  assert_int_equal (counts (m).bytes, 8 * KiB);
  assert_int_equal (counts (m).entries, 1);
  assert_int_equal (counts (m).hits, 2);
  assert_int_equal (counts (m).bytes_read, 13 * KiB);
}

static void
keys_differ_in_each_part (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_cache_key key = key_of (1), k;

  (void) state;
  use (m, 1, 0, BLOCK);
  assert_true (esp_memory_read (m, &key, buf, 0, BLOCK));
  k = key, k.id[0]++;
  assert_false (esp_memory_read (m, &k, buf, 0, BLOCK));
  k = key, k.id[15]++;
  assert_false (esp_memory_read (m, &k, buf, 0, BLOCK));
  k = key, k.shift--;
  assert_false (esp_memory_read (m, &k, buf, 0, BLOCK));
  k = key, k.kind = ESP_CACHE_RP;
  assert_false (esp_memory_read (m, &k, buf, 0, BLOCK));
}

static void
a_miss_fetches_more_each_time (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 130 * KiB + 5, KiB, false, &fill),
                    ESP_MEMORY_FETCH);
  assert_int_equal (fill.at, 128 * KiB);
  assert_int_equal (fill.len, 4 * KiB);
  assert_false (fill.whole);
  end (m, 0, &fill);
  assert_int_equal (miss (m, 0, 70 * KiB, KiB, false, &fill),
                    ESP_MEMORY_FETCH);
  assert_int_equal (fill.at, 64 * KiB);
  assert_int_equal (fill.len, 32 * KiB);
  end (m, 0, &fill);
  assert_int_equal (miss (m, 0, 0, 1, false, &fill), ESP_MEMORY_FETCH);
  assert_true (fill.whole);
  end (m, 0, &fill);
  assert_reads_disk (m, 0, 0, SEGMENT);
}

static void
the_whole_segment_where_it_is_asked_for (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_fill fill;

  (void) state;
  use (m, 0, 0, BLOCK);
  assert_int_equal (miss (m, 0, 8 * KiB, 1, true, &fill), ESP_MEMORY_FETCH);
  assert_true (fill.whole);
  assert_int_equal (fill.at, 0);
  assert_int_equal (fill.len, SEGMENT);
  end (m, 0, &fill);
  assert_reads_disk (m, 0, 0, SEGMENT);
}

static void
more_may_come_than_was_asked_for (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 0, BLOCK, false, &fill), ESP_MEMORY_FETCH);
  write_begin (m, 0, 128 * KiB, BLOCK, &w);
  assert_false (esp_memory_fill_stale (m, &fill));
  esp_memory_write_end (m, &w, NULL);
  get_disk (other, 0, 0, SEGMENT);
  esp_memory_fill_end_all (m, &fill, other, SEGMENT);
  assert_reads_disk (m, 0, 0, 128 * KiB);
  assert_false (reads (m, 0, 128 * KiB, 1));
  assert_reads_disk (m, 0, 132 * KiB, SEGMENT - 132 * KiB);
}

static void
the_last_segment_may_be_short (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_cache_key key = key_of (9);
  struct esp_fill fill;

  (void) state;
  assert_int_equal (esp_memory_miss (m, &key, buf, 9000, 1000, 10000, true,
                                     &fill), ESP_MEMORY_FETCH);
  assert_int_equal (fill.len, 10000);
  assert_true (fill.whole);
  end (m, 9, &fill);
  assert_reads_disk (m, 9, 0, 10000);
  assert_int_equal (counts (m).bytes, 12 * KiB);
}

static void
a_fill_that_failed_leaves_nothing (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 0, BLOCK, true, &fill), ESP_MEMORY_FETCH);
  esp_memory_fill_end (m, &fill, NULL);
  assert_int_equal (counts (m).entries, 0);
  assert_false (use (m, 0, 0, BLOCK));
  assert_reads_disk (m, 0, 0, BLOCK);
}

static void
who_needs_what_is_on_its_way_waits (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_fill fill, beside;

  (void) state;
  assert_int_equal (miss (m, 0, 8 * KiB, BLOCK, false, &fill),
                    ESP_MEMORY_FETCH);
  assert_int_equal (miss (m, 0, 4 * KiB, 2 * BLOCK, false, &beside),
                    ESP_MEMORY_WAIT);
  /* Beside it, and not into it. */
  assert_int_equal (miss (m, 0, 4 * KiB, BLOCK, false, &beside),
                    ESP_MEMORY_FETCH);
  assert_int_equal (beside.at, 0);
  assert_int_equal (beside.len, 8 * KiB);
  end (m, 0, &beside);
  end (m, 0, &fill);
  assert_int_equal (miss (m, 0, 4 * KiB, 2 * BLOCK, false, &beside),
                    ESP_MEMORY_HERE);
  get_disk (other, 0, 4 * KiB, 2 * BLOCK);
  assert_memory_equal (buf, other, 2 * BLOCK);
}

struct waiter {
  struct esp_memory *m;
  _Atomic bool woke;
  pthread_t thread;
};

static void *
wait_for_it (void *arg)
{
  struct waiter *w = arg;
  struct esp_cache_key key = key_of (0);

  assert_true (esp_memory_wait (w->m, &key, 0, BLOCK, 60000));
  w->woke = true;
  return NULL;
}

/* Waits are counted when they begin. */
static void
start_waiter (struct waiter *w)
{
  assert_int_equal (pthread_create (&w->thread, NULL, wait_for_it, w), 0);
  while (counts (w->m).waits == 0)
    sched_yield ();
  assert_false (w->woke);
}

static void
who_waits_is_woken_also_by_a_failure (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct waiter w = { .m = m };
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 0, BLOCK, false, &fill), ESP_MEMORY_FETCH);
  start_waiter (&w);
  esp_memory_fill_end (m, &fill, NULL);
  pthread_join (w.thread, NULL);
  assert_int_equal (counts (m).waits, 1);
  assert_int_equal (counts (m).entries, 0);
}

static void
waiting_has_an_end (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_cache_key key = key_of (0);
  struct esp_fill fill;

  (void) state;
  assert_true (esp_memory_wait (m, &key, 0, BLOCK, 60000));    /* none */
  assert_int_equal (counts (m).waits, 0);
  assert_int_equal (miss (m, 0, 0, BLOCK, false, &fill), ESP_MEMORY_FETCH);
  assert_false (esp_memory_wait (m, &key, 0, BLOCK, 20));
  assert_int_equal (counts (m).waits, 1);
  assert_true (counts (m).waited_us >= 20000);
  end (m, 0, &fill);
}

/* --- writes ----------------------------------------------------------- */
static void
a_write_is_read_and_what_was_there_is_not (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;

  (void) state;
  use (m, 0, 0, 16 * KiB);
  write_begin (m, 0, 4 * KiB, 8 * KiB, &w);
  assert_false (reads (m, 0, 4 * KiB, 1));
  assert_false (reads (m, 0, 12 * KiB - 1, 1));
  assert_reads_disk (m, 0, 0, 4 * KiB);
  assert_reads_disk (m, 0, 12 * KiB, 4 * KiB);
  memset (other, 'w', 8 * KiB);
  esp_memory_write_end (m, &w, other);
  assert_true (reads (m, 0, 4 * KiB, 8 * KiB));
  assert_memory_equal (buf, other, 8 * KiB);
  assert_true (reads (m, 0, 0, 16 * KiB));
}

static void
parts_of_blocks_are_forgotten (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;

  (void) state;
  use (m, 0, 0, 16 * KiB);
  write_begin (m, 0, 2 * KiB, 7 * KiB, &w);
  memset (other, 'w', 7 * KiB);
  esp_memory_write_end (m, &w, other);
  assert_false (reads (m, 0, 0, 1));
  assert_true (reads (m, 0, 4 * KiB, 4 * KiB));
  assert_int_equal (buf[0], 'w');
  assert_false (reads (m, 0, 11 * KiB, 1));
  assert_reads_disk (m, 0, 12 * KiB, 4 * KiB);
  /* Within one block. */
  write_begin (m, 0, 13 * KiB, KiB, &w);
  esp_memory_write_end (m, &w, other);
  assert_false (reads (m, 0, 12 * KiB, 1));
}

static void
a_write_without_bytes_is_forgotten (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;

  (void) state;
  use (m, 0, 0, 8 * KiB);
  write_begin (m, 0, 0, 4 * KiB, &w);
  esp_memory_write_end (m, &w, NULL);
  assert_false (reads (m, 0, 0, 1));
  assert_reads_disk (m, 0, 4 * KiB, 4 * KiB);
  assert_int_equal (counts (m).bytes, 4 * KiB);
}

static void
a_fill_never_covers_a_write_that_began_later (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 0, 16 * KiB, false, &fill), ESP_MEMORY_FETCH);
  assert_false (esp_memory_fill_stale (m, &fill));
  write_begin (m, 0, 4 * KiB, 4 * KiB, &w);
  memset (buf, 'w', 4 * KiB);
  esp_memory_write_end (m, &w, buf);
  assert_true (esp_memory_fill_stale (m, &fill));
  end (m, 0, &fill);
  assert_reads_disk (m, 0, 0, 4 * KiB);
  assert_true (reads (m, 0, 4 * KiB, 4 * KiB));
  assert_int_equal (buf[0], 'w');
  assert_reads_disk (m, 0, 8 * KiB, 8 * KiB);
}

static void
a_fill_that_begins_during_a_write_does_not_cover_it (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;
  struct esp_fill fill, again;

  (void) state;
  write_begin (m, 0, 0, 4 * KiB, &w);
  assert_int_equal (miss (m, 0, 0, 8 * KiB, false, &fill), ESP_MEMORY_FETCH);
  assert_true (esp_memory_fill_stale (m, &fill));
  memset (buf, 'w', 4 * KiB);
  esp_memory_write_end (m, &w, NULL);
  /* Nobody who comes behind the write waits for such a fill. */
  assert_int_equal (miss (m, 0, 0, 4 * KiB, false, &again), ESP_MEMORY_FETCH);
  assert_false (esp_memory_fill_stale (m, &again));
  end (m, 0, &fill);
  assert_false (reads (m, 0, 0, 1));
  assert_reads_disk (m, 0, 4 * KiB, 4 * KiB);
  end (m, 0, &again);
  assert_reads_disk (m, 0, 0, 8 * KiB);
}

/* Which will not bring it. */
static void
who_fetches_more_also_fetches_what_a_stale_fill_was_to_bring (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;
  struct esp_fill fill, more;

  (void) state;
  assert_int_equal (miss (m, 0, 4 * KiB, 4 * KiB, false, &fill),
                    ESP_MEMORY_FETCH);
  write_begin (m, 0, 4 * KiB, 4 * KiB, &w);
  esp_memory_write_end (m, &w, NULL);
  assert_int_equal (miss (m, 0, 0, 4 * KiB, false, &more), ESP_MEMORY_FETCH);
  assert_int_equal (more.len, 32 * KiB);
  end (m, 0, &more);
  esp_memory_fill_end (m, &fill, NULL);
  assert_reads_disk (m, 0, 0, 32 * KiB);
}

static void
a_fill_elsewhere_in_the_segment_is_kept (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write w;
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 0, 4 * KiB, false, &fill), ESP_MEMORY_FETCH);
  write_begin (m, 0, 4 * KiB, 4 * KiB, &w);
  assert_false (esp_memory_fill_stale (m, &fill));
  end (m, 0, &fill);
  assert_reads_disk (m, 0, 0, 4 * KiB);
  esp_memory_write_end (m, &w, NULL);
}

static void
writes_that_meet_keep_neither (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_memory_write a, b;

  (void) state;
  memset (other, 'w', 12 * KiB);
  write_begin (m, 0, 0, 8 * KiB, &a);
  write_begin (m, 0, 4 * KiB, 8 * KiB, &b);
  esp_memory_write_end (m, &a, other);
  assert_true (reads (m, 0, 0, 4 * KiB));
  assert_false (reads (m, 0, 4 * KiB, 1));
  esp_memory_write_end (m, &b, other);
  assert_false (reads (m, 0, 4 * KiB, 1));
  assert_true (reads (m, 0, 8 * KiB, 4 * KiB));
}

/* A write wakes those who wait for what it overtook: they must not take it. */
static void
a_write_wakes_who_waits_for_a_fill (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct waiter waiter = { .m = m };
  struct esp_memory_write w;
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 0, BLOCK, false, &fill), ESP_MEMORY_FETCH);
  start_waiter (&waiter);
  write_begin (m, 0, 0, BLOCK, &w);
  pthread_join (waiter.thread, NULL);
  esp_memory_write_end (m, &w, NULL);
  esp_memory_fill_end (m, &fill, NULL);
  assert_int_equal (counts (m).entries, 0);
}

/* --- bounds ----------------------------------------------------------- */
static void
no_more_than_the_bound (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
  struct esp_fill fill;

  (void) state;
  for (uint32_t i = 0; i < 100; ++i) {
    assert_int_equal (miss (m, i, 0, BLOCK, true, &fill), ESP_MEMORY_FETCH);
    end (m, i, &fill);
    assert_true (counts (m).bytes <= 1 << 20);
    assert_reads_disk (m, i, 0, SEGMENT);
  }
  assert_int_equal (counts (m).bytes, 1 << 20);
  assert_true (counts (m).evictions >= 96);
}

static void
no_more_entries_than_their_bound (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (64 << 20, SHIFT);

  (void) state;
  for (uint32_t i = 0; i < 16384; ++i)
    use (m, i, 0, BLOCK);
  assert_true (counts (m).entries > 8000);
  assert_true (counts (m).entries < 12000);
  assert_int_equal (counts (m).bytes, counts (m).entries * BLOCK);
}

static void
nothing_is_kept_without_a_bound (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (0, SHIFT);
  struct esp_memory_write w;
  struct esp_fill fill;

  (void) state;
  assert_false (use (m, 0, 0, BLOCK));
  assert_false (use (m, 0, 0, BLOCK));
  write_begin (m, 0, 0, BLOCK, &w);
  assert_int_equal (miss (m, 0, 0, BLOCK, false, &fill), ESP_MEMORY_FETCH);
  esp_memory_write_end (m, &w, other);
  assert_true (esp_memory_fill_stale (m, &fill));
  end (m, 0, &fill);
  assert_false (reads (m, 0, 0, BLOCK));
  assert_int_equal (counts (m).entries, 0);
  assert_int_equal (counts (m).bytes, 0);
}

/* What is in use stays; what has no room is not kept. */
static void
what_is_in_use_stays (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (SEGMENT, SHIFT);
  struct esp_memory_write w;
  struct esp_fill fill;

  (void) state;
  assert_int_equal (miss (m, 0, 0, BLOCK, true, &fill), ESP_MEMORY_FETCH);
  end (m, 0, &fill);
  write_begin (m, 0, 0, BLOCK, &w);
  assert_int_equal (miss (m, 1, 0, 8 * KiB, false, &fill), ESP_MEMORY_FETCH);
  end (m, 1, &fill);
  assert_reads_disk (m, 1, 0, BLOCK);
  assert_false (reads (m, 1, BLOCK, 1));
  assert_reads_disk (m, 0, BLOCK, SEGMENT - BLOCK);
  esp_memory_write_end (m, &w, NULL);
}

/* Writes of more than there may be entries are on their way at once; too many
 * are refused, and a fill is then nobody's but the reader's.
 */
static void
entries_in_use_have_a_bound (void **state)
{
  enum { MOST = 1 << (34 - SHIFT) };
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (0, SHIFT);
  CLEANUP_FREE struct esp_memory_write *w = calloc (MOST + 1000, sizeof *w);
  struct esp_cache_key key;
  struct esp_fill fill;
  uint32_t n = 0;

  (void) state;
  for (; n < MOST + 1000; ++n) {
    key = key_of (n);
    if (esp_memory_write_begin (m, &key, 0, BLOCK, &w[n]) == -1)
      break;
  }
  assert_true (n >= MOST && n < MOST + 1000);
  assert_int_equal (counts (m).entries, n);
  assert_int_equal (miss (m, n, 4 * KiB, KiB, false, &fill), ESP_MEMORY_FETCH);
  assert_int_equal (fill.at, 4 * KiB);
  assert_int_equal (fill.len, 4 * KiB);
  assert_true (esp_memory_fill_stale (m, &fill));
  end (m, n, &fill);
  while (n > 0)
    esp_memory_write_end (m, &w[--n], NULL);
  assert_int_equal (counts (m).entries, 0);
  write_begin (m, 7, 0, BLOCK, &w[0]);
  esp_memory_write_end (m, &w[0], NULL);
}

static void
segments_of_several_sizes_share_it (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, 22);
  struct esp_cache_key small = key_of (0), large = key_of (0);
  struct esp_fill fill;

  (void) state;
  small.shift = 16;
  large.shift = 22;
  memset (buf, 's', SEGMENT);
  assert_int_equal (esp_memory_miss (m, &small, buf, 0, BLOCK, 1 << 16, true,
                                     &fill), ESP_MEMORY_FETCH);
  assert_int_equal (fill.len, 1 << 16);
  esp_memory_fill_end (m, &fill, buf);
  assert_int_equal (esp_memory_miss (m, &large, buf, 3 << 20, BLOCK, 1 << 22,
                                     false, &fill), ESP_MEMORY_FETCH);
  memset (other, 'l', BLOCK);
  esp_memory_fill_end (m, &fill, other);
  assert_true (esp_memory_read (m, &large, buf, 3 << 20, BLOCK));
  assert_int_equal (buf[0], 'l');
  assert_true (esp_memory_read (m, &small, buf, 60 * KiB, BLOCK));
  assert_int_equal (buf[0], 's');
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (what_was_filled_is_read),
    cmocka_unit_test (keys_differ_in_each_part),
    cmocka_unit_test (a_miss_fetches_more_each_time),
    cmocka_unit_test (the_whole_segment_where_it_is_asked_for),
    cmocka_unit_test (more_may_come_than_was_asked_for),
    cmocka_unit_test (the_last_segment_may_be_short),
    cmocka_unit_test (a_fill_that_failed_leaves_nothing),
    cmocka_unit_test (who_needs_what_is_on_its_way_waits),
    cmocka_unit_test (who_waits_is_woken_also_by_a_failure),
    cmocka_unit_test (waiting_has_an_end),
    cmocka_unit_test (a_write_is_read_and_what_was_there_is_not),
    cmocka_unit_test (parts_of_blocks_are_forgotten),
    cmocka_unit_test (a_write_without_bytes_is_forgotten),
    cmocka_unit_test (a_fill_never_covers_a_write_that_began_later),
    cmocka_unit_test (a_fill_that_begins_during_a_write_does_not_cover_it),
    cmocka_unit_test (who_fetches_more_also_fetches_what_a_stale_fill_was_to_bring),
    cmocka_unit_test (a_fill_elsewhere_in_the_segment_is_kept),
    cmocka_unit_test (writes_that_meet_keep_neither),
    cmocka_unit_test (a_write_wakes_who_waits_for_a_fill),
    cmocka_unit_test (no_more_than_the_bound),
    cmocka_unit_test (no_more_entries_than_their_bound),
    cmocka_unit_test (nothing_is_kept_without_a_bound),
    cmocka_unit_test (what_is_in_use_stays),
    cmocka_unit_test (entries_in_use_have_a_bound),
    cmocka_unit_test (segments_of_several_sizes_share_it),
  };
  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
