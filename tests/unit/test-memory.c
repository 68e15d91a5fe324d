/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier: what it keeps, fills and who waits, writes; the policy
 * against a plain twin.  test-memory-model.c has threads and chance.
 */

#include "unit.h"

#include <pthread.h>
#include <sched.h>

#include "cache/memory.h"
#include "cache/memory-internal.h"
#include "cache/s3fifo.h"
#include "util/cleanup.h"

#define SHIFT 18u
#define SEGMENT (1u << SHIFT)
#define KiB 1024u

ESP_DEFINE_CLEANUP (memory, struct esp_memory *, esp_memory_free)
#define CLEANUP_MEMORY ESP_CLEANUP (memory)

static struct esp_cache_key
key_of (uint32_t segment)
{
  return (struct esp_cache_key) { .id = "an export's id.", .shift = SHIFT,
    .kind = ESP_CACHE_EXPORT, .segment = segment };
}

/* What the disk has at an offset of a segment. */
static uint8_t
byte_of (uint32_t segment, uint32_t at)
{
  return (uint8_t) (segment * 31 + at / 512 * 7 + at);
}

static void
get_disk (uint8_t *buf, uint32_t segment, uint32_t at, uint32_t len)
{
  for (uint32_t i = 0; i < len; ++i)
    buf[i] = byte_of (segment, at + i);
}

static uint8_t buf[SEGMENT], other[SEGMENT];

static bool
reads (struct esp_memory *m, uint32_t segment, uint32_t at, uint32_t len)
{
  struct esp_cache_key key = key_of (segment);

  return esp_memory_read (m, &key, buf, at, len);
}

static void
assert_reads_disk (struct esp_memory *m, uint32_t segment, uint32_t at,
                   uint32_t len)
{
  assert_true (reads (m, segment, at, len));
  get_disk (other, segment, at, len);
  assert_memory_equal (buf, other, len);
}

static enum esp_memory_miss
miss (struct esp_memory *m, uint32_t segment, uint32_t at, uint32_t len,
      bool whole, struct esp_fill *fill)
{
  struct esp_cache_key key = key_of (segment);

  return esp_memory_miss (m, &key, buf, at, len, SEGMENT, whole, fill);
}

static void
end (struct esp_memory *m, uint32_t segment, struct esp_fill *fill)
{
  get_disk (other, segment, fill->at, fill->len);
  esp_memory_fill_end (m, fill, other);
}

/* A read as the filter does it; false: it was a miss. */
static bool
use (struct esp_memory *m, uint32_t segment, uint32_t at, uint32_t len)
{
  struct esp_fill fill;

  if (reads (m, segment, at, len))
    return true;
  assert_int_equal (miss (m, segment, at, len, false, &fill),
                    ESP_MEMORY_FETCH);
  end (m, segment, &fill);
  return false;
}

static void
write_begin (struct esp_memory *m, uint32_t segment, uint32_t at,
             uint32_t len, struct esp_memory_write *w)
{
  struct esp_cache_key key = key_of (segment);

  assert_int_equal (esp_memory_write_begin (m, &key, at, len, w), 0);
}

static struct esp_memory_counters
counts (struct esp_memory *m)
{
  struct esp_memory_counters c;

  esp_memory_counters (m, &c);
  return c;
}

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

/* --- scans ------------------------------------------------------------ */
/* A hot set of half the cache; a scan of ten times the cache, in requests of
 * SIZE bytes, while the hot set is read at random, 4 KiB for each 16 KiB of
 * the scan.  Hits in %.
 */
static double
hot_hits_during_scan (uint32_t size)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (4 << 20, SHIFT);
  unsigned seed = 1, hits = 0, reads_of_hot = 0;
  const uint32_t hot = (2 << 20) / SEGMENT;

  for (unsigned i = 0; i < 200 * hot; ++i)
    use (m, (uint32_t) rand_r (&seed) % hot,
         (uint32_t) rand_r (&seed) % 64 * BLOCK, BLOCK);
  for (uint64_t at = 0; at < 40 << 20; at += size) {
    uint32_t in = at % SEGMENT;
    uint32_t n = SEGMENT - in < size ? SEGMENT - in : size;
    use (m, 1000 + (uint32_t) (at / SEGMENT), in, n);
    if (n < size)
      use (m, 1001 + (uint32_t) (at / SEGMENT), 0, size - n);
    for (; reads_of_hot < at / 16384; ++reads_of_hot)
      hits += use (m, (uint32_t) rand_r (&seed) % hot,
                   (uint32_t) rand_r (&seed) % 64 * BLOCK, BLOCK);
  }
  return 100.0 * hits / reads_of_hot;
}

static void
a_scan_leaves_the_hot_set (void **state)
{
  static const uint32_t sizes[] = { 4096, 65536, SEGMENT, 63 * 512, 512 };

  (void) state;
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    double hits = hot_hits_during_scan (sizes[i]);
    printf ("# scan in requests of %u: %.2f %% of the hot set's reads hit\n",
            sizes[i], hits);
    assert_true (hits > 95);
  }
}

/* The uses that the policy knows of the first entry that was made. */
static unsigned
uses (struct esp_memory *m)
{
  return atomic_load (&entry_at (m, 1)->node.uses);
}

static void
pass (struct esp_memory *m, uint32_t size)
{
  for (uint32_t at = 0; at < SEGMENT; at += size)
    assert_true (reads (m, 0, at, SEGMENT - at < size ? SEGMENT - at : size));
}

static void
a_pass_is_one_use_whatever_its_requests (void **state)
{
  static const uint32_t sizes[] = { SEGMENT, 64 * KiB, 4096, 63 * 512, 512 };

  (void) state;
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
    struct esp_fill fill;
    assert_int_equal (miss (m, 0, 0, SEGMENT, true, &fill), ESP_MEMORY_FETCH);
    end (m, 0, &fill);
    assert_int_equal (uses (m), 0);
    pass (m, sizes[i]);
    assert_int_equal (uses (m), 1);
    pass (m, sizes[i]);
    assert_int_equal (uses (m), 2);
  }
}

static void
a_block_again_and_again_is_used_each_time (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);

  (void) state;
  use (m, 0, 8 * KiB, BLOCK);
  for (unsigned i = 0; i < 5; ++i) {
    assert_int_equal (uses (m), i < 3 ? i : 3);
    assert_true (reads (m, 0, 8 * KiB, BLOCK));
  }
}

/* --- the policy against a plain twin ---------------------------------- */
#define NODES 300
#define TWIN_STEPS 256

/* The twin: arrays that are searched and shifted. */
struct twin {
  int small[NODES], main[NODES];        /* oldest first */
  int nsmall, nmain;
  int ghosts[NODES];
  uint32_t ghost_weight[NODES];
  int nghosts;
  uint32_t weight[NODES];
  int uses[NODES];
  uint64_t max;
  int ghosts_max;
};

static int
take_first (int *list, int *n)
{
  int first = list[0];

  memmove (list, list + 1, (size_t) --*n * sizeof *list);
  return first;
}

static uint64_t
twin_weight (const struct twin *t, const int *list, int n)
{
  uint64_t sum = 0;

  for (int i = 0; i < n; ++i)
    sum += t->weight[list[i]];
  return sum;
}

static void
twin_insert (struct twin *t, int id)
{
  for (int i = 0; i < t->nghosts; ++i)
    if (t->ghosts[i] == id) {
      t->ghosts[i] = -1;
      t->ghost_weight[i] = 0;
      t->main[t->nmain++] = id;
      return;
    }
  t->small[t->nsmall++] = id;
}

static void
twin_ghost (struct twin *t, int id)
{
  for (;;) {
    uint64_t sum = t->weight[id];
    for (int i = 0; i < t->nghosts; ++i)
      sum += t->ghost_weight[i];
    if (t->nghosts == 0 || (t->nghosts < t->ghosts_max && sum <= 2 * t->max))
      break;
    memmove (t->ghost_weight, t->ghost_weight + 1,
             (size_t) (t->nghosts - 1) * sizeof *t->ghost_weight);
    take_first (t->ghosts, &t->nghosts);
  }
  t->ghost_weight[t->nghosts] = t->weight[id];
  t->ghosts[t->nghosts++] = id;
}

static int
twin_pop (struct twin *t, bool *small)
{
  for (int step = 0; t->nsmall + t->nmain > 0; ++step) {
    *small = t->nsmall > 0
      && (t->nmain == 0
          || twin_weight (t, t->small, t->nsmall) > t->max / 10);
    int id = *small ? take_first (t->small, &t->nsmall)
      : take_first (t->main, &t->nmain);
    if (step >= TWIN_STEPS || t->uses[id] == 0)
      return id;
    t->uses[id] = *small ? 0 : t->uses[id] - 1;
    t->main[t->nmain++] = id;
  }
  return -1;
}

struct both {
  struct esp_s3 s3;
  struct esp_s3_node nodes[NODES];
  struct twin twin;
};

static void
both_let_one_go (struct both *p)
{
  struct esp_s3_node *node = esp_s3_pop (&p->s3);
  bool small;
  int id = twin_pop (&p->twin, &small);

  assert_int_equal (node - p->nodes, id);
  esp_s3_gone (&p->s3, node);
  node->uses = 0;
  p->twin.uses[id] = 0;
  if (small && p->twin.weight[id] > 0)
    twin_ghost (&p->twin, id);
}

/* The next one cannot go, and weighs something else meanwhile. */
static void
both_back (struct both *p, uint32_t weight)
{
  struct esp_s3_node *node = esp_s3_pop (&p->s3);
  struct twin *t = &p->twin;
  bool small;
  int id = twin_pop (t, &small);

  if (!node)
    return;
  assert_int_equal (node - p->nodes, id);
  weight %= node->weight + 1;
  esp_s3_weigh (&p->s3, node, weight);
  t->weight[id] = weight;
  esp_s3_back (&p->s3, node);
  if (small)
    t->small[t->nsmall++] = id;
  else
    t->main[t->nmain++] = id;
}

static void
both_come_or_use (struct both *p, int id, uint32_t weight)
{
  if (p->nodes[id].where != ESP_S3_OUT) {
    esp_s3_use (&p->nodes[id]);
    p->twin.uses[id] += p->twin.uses[id] < 3;
    return;
  }
  while (p->s3.small.weight + p->s3.main.weight + weight > p->twin.max)
    both_let_one_go (p);
  p->twin.weight[id] = weight;
  esp_s3_insert (&p->s3, &p->nodes[id], weight);
  twin_insert (&p->twin, id);
}

static void
the_policy_is_that_of_a_plain_twin (void **state)
{
  static struct both p = { .twin = { .max = 1000, .ghosts_max = 100 } };
  struct twin *t = &p.twin;
  unsigned seed = unit_seed ();

  (void) state;
  assert_int_equal (esp_s3_init (&p.s3, t->max, (uint32_t) t->ghosts_max), 0);
  for (int i = 0; i < NODES; ++i)
    p.nodes[i].hash = (uint64_t) i << (i % 3 * 20);
  for (int n = 0; n < 100000; ++n) {
    int r1 = rand_r (&seed) % NODES, r2 = rand_r (&seed) % NODES;
    uint32_t weight = (uint32_t) rand_r (&seed) % 65;
    if (rand_r (&seed) % 50 == 0)
      both_back (&p, weight);
    else
      both_come_or_use (&p, r1 < r2 ? r1 : r2, weight);
    assert_int_equal (p.s3.small.weight, twin_weight (t, t->small, t->nsmall));
    assert_int_equal (p.s3.main.weight, twin_weight (t, t->main, t->nmain));
  }
  esp_s3_destroy (&p.s3);
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
    cmocka_unit_test (a_fill_elsewhere_in_the_segment_is_kept),
    cmocka_unit_test (writes_that_meet_keep_neither),
    cmocka_unit_test (a_write_wakes_who_waits_for_a_fill),
    cmocka_unit_test (no_more_than_the_bound),
    cmocka_unit_test (no_more_entries_than_their_bound),
    cmocka_unit_test (nothing_is_kept_without_a_bound),
    cmocka_unit_test (what_is_in_use_stays),
    cmocka_unit_test (segments_of_several_sizes_share_it),
    cmocka_unit_test (a_scan_leaves_the_hot_set),
    cmocka_unit_test (a_pass_is_one_use_whatever_its_requests),
    cmocka_unit_test (a_block_again_and_again_is_used_each_time),
    cmocka_unit_test (the_policy_is_that_of_a_plain_twin),
  };
  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
