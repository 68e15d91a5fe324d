/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier under threads.
 *
 * Against a naive twin: threads read, fill and write at random through a cache
 * that is far too small, and each sector that is read must be at least as new
 * as the newest write of it that was acknowledged before the read began.
 *
 * And: threads read what others push out at the same time, as fast as they
 * can; what was read must be of the segment that was asked for.
 */

#include "unit.h"

#include <pthread.h>
#include <sched.h>

#include "cache/memory.h"

#define SHIFT 16u
#define SEGMENT (1u << SHIFT)
#define SECTOR 512u
#define SEGMENT_SECTORS (SEGMENT / SECTOR)
#define SEGMENTS 6u
#define LAST_LEN (SEGMENT / 2 + 3 * SECTOR)     /* of the last segment */
#define FRAMES 40u
#define THREADS 4u
#define OPERATIONS 12000u
#define HISTORY 64u

/* A sector of the disk below: what it was, and when, newest last. */
struct sector {
  pthread_mutex_t lock;
  uint64_t values[HISTORY], times[HISTORY];
  unsigned stores;
  uint64_t acknowledged;        /* the time of the newest such store */
};

static struct sector disk[SEGMENTS][SEGMENT_SECTORS];
static _Atomic uint64_t clock_now = 1, values = 1;
static _Atomic uint64_t stale_reads, good_reads;
static struct esp_memory *memory;

static struct esp_cache_key
key_of (uint32_t segment)
{
  return (struct esp_cache_key) { .id = "of the model ..", .shift = SHIFT,
    .kind = ESP_CACHE_EXPORT, .segment = segment };
}

static uint32_t
segment_len (uint32_t segment)
{
  return segment == SEGMENTS - 1 ? LAST_LEN : SEGMENT;
}

/* --- the disk below --------------------------------------------------- */
static uint64_t
sector_store (struct sector *s, uint64_t value)
{
  uint64_t now;

  pthread_mutex_lock (&s->lock);
  now = clock_now++;
  s->values[s->stores % HISTORY] = value;
  s->times[s->stores % HISTORY] = now;
  s->stores++;
  pthread_mutex_unlock (&s->lock);
  return now;
}

static uint64_t
sector_value (struct sector *s)
{
  uint64_t value;

  pthread_mutex_lock (&s->lock);
  value = s->values[(s->stores - 1) % HISTORY];
  pthread_mutex_unlock (&s->lock);
  return value;
}

/* When VALUE was stored; 0: it never was, or long ago. */
static uint64_t
sector_time (struct sector *s, uint64_t value)
{
  uint64_t time = 0;

  pthread_mutex_lock (&s->lock);
  for (unsigned i = 0; i < HISTORY; ++i)
    if (s->values[i] == value && s->times[i] > time)
      time = s->times[i];
  pthread_mutex_unlock (&s->lock);
  return time;
}

static void
sector_acknowledge (struct sector *s, uint64_t time)
{
  pthread_mutex_lock (&s->lock);
  if (s->acknowledged < time)
    s->acknowledged = time;
  pthread_mutex_unlock (&s->lock);
}

static uint64_t
sector_acknowledged (struct sector *s)
{
  uint64_t time;

  pthread_mutex_lock (&s->lock);
  time = s->acknowledged;
  pthread_mutex_unlock (&s->lock);
  return time;
}

/* --- what a sector with a value looks like ---------------------------- */
static void
show (uint8_t *buf, uint64_t value)
{
  for (unsigned i = 0; i < SECTOR; i += 8)
    memcpy (buf + i, &value, 8);
}

/* Reads that meet a write may have some words of each. */
static void
check (struct sector *s, const uint8_t *buf, uint64_t acknowledged)
{
  uint64_t value, last = UINT64_MAX;

  for (unsigned i = 0; i < SECTOR; i += 8) {
    memcpy (&value, buf + i, 8);
    if (value == last)
      continue;
    last = value;
    if (sector_time (s, value) < acknowledged)
      stale_reads++;
    else
      good_reads++;
  }
}

/* --- threads ---------------------------------------------------------- */
struct worker {
  pthread_t thread;
  unsigned seed;
  unsigned hits, fetches, waits, writes;
};

static unsigned
pick (struct worker *w, unsigned n)
{
  return (unsigned) rand_r (&w->seed) / 3 % n;
}

static void
maybe_yield (struct worker *w)
{
  if (pick (w, 2) == 0)
    sched_yield ();
}

/* Some whole sectors of a segment, often few. */
static void
pick_range (struct worker *w, uint32_t segment, uint32_t *at, uint32_t *len)
{
  uint32_t sectors = segment_len (segment) / SECTOR;
  uint32_t from = pick (w, sectors), most = sectors - from;

  if (pick (w, 4) != 0 && most > 24)
    most = 24;
  *at = from;
  *len = 1 + pick (w, most);
  if (pick (w, 2) == 0) {       /* whole blocks */
    *at = from / 8 * 8;
    *len = (*len + 7) / 8 * 8;
    if (*len > sectors - *at)
      *len = sectors - *at;
  }
  *at *= SECTOR;
  *len *= SECTOR;
}

static void
fetch (struct worker *w, uint32_t segment, uint8_t *buf, uint32_t at,
       uint32_t len)
{
  for (uint32_t i = 0; i < len; i += SECTOR) {
    show (buf + i, sector_value (&disk[segment][(at + i) / SECTOR]));
    if (pick (w, 16) == 0)
      sched_yield ();
  }
}

static void
fill (struct worker *w, uint32_t segment, struct esp_fill *f)
{
  uint8_t bytes[SEGMENT];

  w->fetches++;
  switch (pick (w, 8)) {
  case 0:
    maybe_yield (w);
    esp_memory_fill_end (memory, f, NULL);
    break;
  case 1:
    fetch (w, segment, bytes, 0, segment_len (segment));
    esp_memory_fill_end_all (memory, f, bytes, segment_len (segment));
    break;
  default:
    fetch (w, segment, bytes, f->at, f->len);
    maybe_yield (w);
    esp_memory_fill_end (memory, f, bytes);
  }
}

/* True: it came out of the cache. */
static bool
get (struct worker *w, uint32_t segment, uint8_t *buf, uint32_t at,
     uint32_t len)
{
  struct esp_cache_key key = key_of (segment);
  struct esp_fill f;

  if (esp_memory_read (memory, &key, buf, at, len))
    return true;
  for (;;)
    switch (esp_memory_miss (memory, &key, buf, at, len,
                             segment_len (segment), pick (w, 4) == 0, &f)) {
    case ESP_MEMORY_HERE:
      return true;
    case ESP_MEMORY_FETCH:
      fill (w, segment, &f);
      return false;
    case ESP_MEMORY_WAIT:
      w->waits++;
      esp_memory_wait (memory, &key, at, len, 1 + pick (w, 50));
    }
}

static void
read_some (struct worker *w)
{
  uint32_t segment = pick (w, SEGMENTS), at, len;
  uint64_t acknowledged[SEGMENT_SECTORS];
  uint8_t buf[SEGMENT];

  pick_range (w, segment, &at, &len);
  for (uint32_t i = 0; i < len / SECTOR; ++i)
    acknowledged[i] = sector_acknowledged (&disk[segment][at / SECTOR + i]);
  if (!get (w, segment, buf, at, len))
    return;
  w->hits++;
  for (uint32_t i = 0; i < len / SECTOR; ++i)
    check (&disk[segment][at / SECTOR + i], buf + i * SECTOR,
           acknowledged[i]);
}

static void
write_some (struct worker *w)
{
  uint32_t segment = pick (w, SEGMENTS), at, len;
  struct esp_cache_key key = key_of (segment);
  struct esp_memory_write write;
  uint64_t times[SEGMENT_SECTORS], value = values++;
  uint8_t buf[SEGMENT];
  unsigned how = pick (w, 8);   /* 0: it fails below, half done */

  w->writes++;
  pick_range (w, segment, &at, &len);
  for (uint32_t i = 0; i < len; i += SECTOR)
    show (buf + i, value);
  if (esp_memory_write_begin (memory, &key, at, len, &write) == -1)
    abort ();
  maybe_yield (w);
  for (uint32_t i = 0; i < (how == 0 ? len / 2 : len) / SECTOR; ++i)
    times[i] = sector_store (&disk[segment][at / SECTOR + i], value);
  maybe_yield (w);
  esp_memory_write_end (memory, &write, how < 2 ? NULL : buf);
  for (uint32_t i = 0; i < len / SECTOR && how != 0; ++i)
    sector_acknowledge (&disk[segment][at / SECTOR + i], times[i]);
}

static void *
work (void *arg)
{
  struct worker *w = arg;

  for (unsigned i = 0; i < OPERATIONS; ++i)
    if (pick (w, 5) == 0)
      write_some (w);
    else
      read_some (w);
  return NULL;
}

/* --- the test --------------------------------------------------------- */
static void
make_disk (void)
{
  for (unsigned i = 0; i < SEGMENTS; ++i)
    for (unsigned j = 0; j < SEGMENT_SECTORS; ++j) {
      pthread_mutex_init (&disk[i][j].lock, NULL);
      sector_acknowledge (&disk[i][j], sector_store (&disk[i][j], values++));
    }
}

/* All of it is written without bytes: nothing is left, no frame, no entry that
 * is in no queue.
 */
static void
check_that_nothing_leaks (void)
{
  struct esp_memory_counters c;

  for (unsigned i = 0; i < SEGMENTS; ++i) {
    struct esp_cache_key key = key_of (i);
    struct esp_memory_write w;
    assert_int_equal (esp_memory_write_begin (memory, &key, 0,
                                              segment_len (i), &w), 0);
    esp_memory_write_end (memory, &w, NULL);
  }
  esp_memory_counters (memory, &c);
  assert_int_equal (c.bytes, 0);
  assert_true (c.entries <= SEGMENTS);
}

static void
reads_are_never_older_than_acknowledged_writes (void **state)
{
  unsigned seed = unit_seed ();
  struct worker workers[THREADS] = { 0 }, sum = { 0 };
  struct esp_memory_counters c;

  (void) state;
  memory = esp_memory_new (FRAMES * 4096, SHIFT);
  make_disk ();
  for (unsigned i = 0; i < THREADS; ++i) {
    workers[i].seed = seed + i * 7919;
    assert_int_equal (pthread_create (&workers[i].thread, NULL, work,
                                      &workers[i]), 0);
  }
  for (unsigned i = 0; i < THREADS; ++i) {
    pthread_join (workers[i].thread, NULL);
    sum.hits += workers[i].hits;
    sum.fetches += workers[i].fetches;
    sum.waits += workers[i].waits;
    sum.writes += workers[i].writes;
  }
  esp_memory_counters (memory, &c);
  printf ("# %u hits, %u fetches, %u waits, %u writes, %llu evictions\n",
          sum.hits, sum.fetches, sum.waits, sum.writes,
          (unsigned long long) c.evictions);
  assert_int_equal (stale_reads, 0);
  assert_true (good_reads > 0);
  assert_true (sum.hits > 100 && sum.waits > 0 && c.evictions > 100);
  assert_true (c.bytes <= FRAMES * 4096);
  check_that_nothing_leaks ();
  esp_memory_free (memory);
}

/* --- reads without locks ---------------------------------------------- */
#define CHURN_KEYS 64u
#define CHURNS 6000u

static _Atomic uint32_t newest;
static _Atomic bool churned;

static void
churn_read (struct worker *w)
{
  static _Thread_local uint64_t buf[SEGMENT / 8];
  uint32_t segment = (newest - pick (w, 3)) % CHURN_KEYS;
  struct esp_cache_key key = key_of (segment);

  if (!esp_memory_read (memory, &key, buf, 0, SEGMENT))
    return;
  w->hits++;
  for (unsigned i = 0; i < SEGMENT / 8; i += 64)
    if (buf[i] != segment)
      stale_reads++;
}

static void *
churn_reader (void *arg)
{
  while (!churned)
    churn_read (arg);
  return NULL;
}

static void
churn_fill (uint32_t segment)
{
  static uint64_t bytes[SEGMENT / 8];
  struct esp_cache_key key = key_of (segment);
  struct esp_fill f;

  for (unsigned i = 0; i < SEGMENT / 8; ++i)
    bytes[i] = segment;
  if (esp_memory_miss (memory, &key, bytes, 0, SEGMENT, SEGMENT, true, &f)
      == ESP_MEMORY_FETCH)
    esp_memory_fill_end (memory, &f, bytes);
}

/* Its frames become another's, the entry stays. */
static void
churn_write (uint32_t segment)
{
  struct esp_cache_key key = key_of (segment);
  struct esp_memory_write write;

  assert_int_equal (esp_memory_write_begin (memory, &key, 0, SEGMENT, &write),
                    0);
  esp_memory_write_end (memory, &write, NULL);
}

static void
reads_meet_no_other_segments_bytes (void **state)
{
  struct worker readers[2] = { { .seed = 1 }, { .seed = 2 } };

  (void) state;
  stale_reads = 0;
  memory = esp_memory_new (2 * SEGMENT, SHIFT);
  for (unsigned i = 0; i < 2; ++i)
    assert_int_equal (pthread_create (&readers[i].thread, NULL, churn_reader,
                                      &readers[i]), 0);
  for (unsigned i = 0; i < CHURNS; ++i) {
    churn_fill (i % CHURN_KEYS);
    newest = i % CHURN_KEYS + CHURN_KEYS;
    if (i % 3)
      churn_write (i % CHURN_KEYS);
  }
  churned = true;
  for (unsigned i = 0; i < 2; ++i)
    pthread_join (readers[i].thread, NULL);
  printf ("# %u hits\n", readers[0].hits + readers[1].hits);
  assert_int_equal (stale_reads, 0);
  assert_true (readers[0].hits + readers[1].hits > 0);
  esp_memory_free (memory);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (reads_are_never_older_than_acknowledged_writes),
    cmocka_unit_test (reads_meet_no_other_segments_bytes),
  };
  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
