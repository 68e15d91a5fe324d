/* SPDX-License-Identifier: BSD-3-Clause */
/* Map files: a loss of power at any write, torn anywhere; damage; files
 * that others made up.
 *
 * pwrite and fdatasync are ours here: they record what the library does, so
 * that each state in which a loss of power may leave the file can be made.
 */

#include "unit.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "store/map.h"
#include "util/endian.h"
#include "util/sum.h"

#define MIB (UINT64_C (1) << 20)
#define SLOT 4096u
#define SIZE (200 * MIB + 5000)         /* 4 pages, the last one partial */
#define PAGES 4u
#define FILE_SIZE (2 * SLOT * (PAGES + 1))

static char *dir;
static int dirfd_ = -1;

static uint64_t
rnd (unsigned *seed, uint64_t n)
{
  return ((uint64_t) rand_r (seed) << 31 | rand_r (seed)) % n;
}

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  dirfd_ = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return dirfd_ == -1 ? -1 : 0;
}

static int
teardown (void **state)
{
  (void) state;
  close (dirfd_);
  unit_rmdir (dir);
  return 0;
}

/* --- recording -------------------------------------------------------- */

struct event {
  uint64_t offset;              /* of a write of one slot */
  uint8_t slot[SLOT];
  bool sync;                    /* no write but a sync */
};

static struct event events[200];
static unsigned nevents;
static bool recording;

/* The library's calls must come here too. */
#pragma GCC visibility push(default)
ssize_t
pwrite (int fd, const void *buf, size_t n, off_t offset)
{
  if (recording) {
    assert_int_equal (n, SLOT);
    assert_true (nevents < 200);
    events[nevents].offset = offset;
    events[nevents].sync = false;
    memcpy (events[nevents++].slot, buf, SLOT);
  }
  return syscall (SYS_pwrite64, fd, buf, n, offset);
}

int
fdatasync (int fd)
{
  (void) fd;
  if (recording) {
    assert_true (nevents < 200);
    events[nevents++].sync = true;
  }
  return 0;
}
#pragma GCC visibility pop

/* --- losses of power -------------------------------------------------- */

/* The file as it is for sure, what was written since the last sync, and
 * what each page may have after a loss of power.
 */
struct model {
  uint8_t durable[FILE_SIZE];
  struct event pending[200];
  unsigned npending;
  uint64_t allowed[PAGES + 1][200];     /* hashes of a page's words */
  unsigned nallowed[PAGES + 1];
  unsigned seed;
};

static uint64_t
page_hash (const struct esp_map *map, uint64_t page)
{
  uint64_t first = (page - 1) * ESP_MAP_PAGE_WORDS;
  uint64_t n = map->nwords - first;

  if (n > ESP_MAP_PAGE_WORDS)
    n = ESP_MAP_PAGE_WORDS;
  return esp_sum ((const void *) (map->words + first), n * 8);
}

/* LEN bytes of a slot arrived: the first ones, or the last ones. */
static void
tear (uint8_t *file, const struct event *e, unsigned len, bool tail)
{
  unsigned from = tail ? SLOT - len : 0;

  memcpy (file + e->offset + from, e->slot + from, len);
}

static void
check_file (const struct model *m, const uint8_t *file)
{
  int fd = openat (dirfd_, "crash", O_RDWR | O_CREAT | O_TRUNC, 0644);

  assert_int_equal (syscall (SYS_pwrite64, fd, file, FILE_SIZE, 0), FILE_SIZE);
  close (fd);
  unit_error[0] = 0;
  struct esp_map *map = esp_map_load (dirfd_, "crash", SIZE, false);
  if (!map)
    fail_msg ("after a loss of power: %s", unit_error);
  for (unsigned page = 1; page <= PAGES; ++page) {
    uint64_t h = page_hash (map, page);
    bool ok = false;

    for (unsigned i = 0; i < m->nallowed[page]; ++i)
      ok |= m->allowed[page][i] == h;
    assert_true (ok);
  }
  esp_map_free (map);
}

/* The last pending write is torn so, the others at random. */
static void
lose_power (struct model *m, unsigned len, bool tail)
{
  uint8_t file[FILE_SIZE];

  memcpy (file, m->durable, FILE_SIZE);
  for (unsigned i = 0; i + 1 < m->npending; ++i)
    switch (rnd (&m->seed, 4)) {
    case 0:
      break;
    case 1:
      tear (file, &m->pending[i], rnd (&m->seed, 9) * 512, rnd (&m->seed, 2));
      break;
    case 2:
      tear (file, &m->pending[i], rnd (&m->seed, SLOT), rnd (&m->seed, 2));
      break;
    default:
      tear (file, &m->pending[i], SLOT, false);
    }
  if (m->npending)
    tear (file, &m->pending[m->npending - 1], len, tail);
  check_file (m, file);
}

static void
lose_power_everyhow (struct model *m)
{
  for (unsigned len = 0; len <= SLOT; len += 512) {
    lose_power (m, len, false);
    lose_power (m, len, true);
    lose_power (m, rnd (&m->seed, SLOT), rnd (&m->seed, 2));
  }
}

/* Replay what was recorded; MAP has the states that were written. */
static void
replay (struct model *m, const struct esp_map *map)
{
  for (unsigned i = 0; i < nevents; ++i) {
    if (events[i].sync) {
      for (unsigned j = 0; j < m->npending; ++j) {
        uint64_t page = m->pending[j].offset / (2 * SLOT);

        tear (m->durable, &m->pending[j], SLOT, false);
        /* The newest one only. */
        m->allowed[page][0] = m->allowed[page][m->nallowed[page] - 1];
        m->nallowed[page] = 1;
      }
      m->npending = 0;
    }
    else {
      uint64_t page = events[i].offset / (2 * SLOT);

      assert_true (m->npending < 200);
      m->pending[m->npending++] = events[i];
      if (page > 0)
        m->allowed[page][m->nallowed[page]++] = page_hash (map, page);
      else
        m->nallowed[0]++;
    }
    lose_power_everyhow (m);
  }
  nevents = 0;
}

static void
random_sets (struct esp_map *map, unsigned *seed)
{
  uint64_t blocks = esp_blocks (SIZE);

  for (unsigned i = rnd (seed, 4); i < 5; ++i) {
    uint64_t block = rnd (seed, blocks);
    esp_map_set (map, block, 1 + rnd (seed, (blocks - block) / 8 + 1),
                 rnd (seed, 3), NULL);
  }
}

static void
flush (struct esp_map *map, bool sync)
{
  bool empty;
  struct esp_map_snapshot *s = esp_map_snapshot (map, &empty);

  assert_true (empty == !s);
  assert_int_equal (esp_map_write (map, s, sync), 0);
}

/* The library's calls are seen, or nothing here would test anything. */
static void
calls_are_recorded (void **state)
{
  struct esp_map *map = esp_map_new (SIZE);

  (void) state;
  unlinkat (dirfd_, "map", 0);
  recording = true;
  assert_int_equal (esp_map_create (map, dirfd_, "map"), 0);
  recording = false;
  assert_int_equal (nevents, 2);
  assert_int_equal (events[0].offset, 0);
  assert_true (events[1].sync);
  nevents = 0;
  esp_map_free (map);
}

static void
begin_model (struct model *m, const struct esp_map *map)
{
  int fd = openat (dirfd_, "map", O_RDONLY);

  assert_int_equal (pread (fd, m->durable, FILE_SIZE, 0), FILE_SIZE);
  close (fd);
  m->nallowed[0] = 1;
  for (unsigned page = 1; page <= PAGES; ++page) {
    m->allowed[page][0] = page_hash (map, page);
    m->nallowed[page] = 1;
  }
}

static void
power_lost_at_any_write_leaves_old_or_new_pages (void **state)
{
  struct esp_map *map = esp_map_new (SIZE);
  struct model *m = calloc (1, sizeof *m);

  (void) state;
  m->seed = unit_seed ();
  random_sets (map, &m->seed);
  unlinkat (dirfd_, "map", 0);
  assert_int_equal (esp_map_create (map, dirfd_, "map"), 0);
  begin_model (m, map);

  for (unsigned step = 0; step < 25; ++step) {
    recording = true;
    if (rnd (&m->seed, 4) == 0) {
      if (rnd (&m->seed, 2))
        random_sets (map, &m->seed);
      flush (map, rnd (&m->seed, 2));
      assert_int_equal (esp_map_mark_clean (map), 0);
    }
    else {
      random_sets (map, &m->seed);
      flush (map, rnd (&m->seed, 3) != 0);
    }
    recording = false;
    replay (m, map);
    if (rnd (&m->seed, 4) == 0) {
      /* A restart: what was not synced yet is still in the page cache. */
      uint64_t digest = esp_map_digest (map);
      esp_map_free (map);
      recording = true;
      map = esp_map_load (dirfd_, "map", SIZE, true);
      recording = false;
      assert_non_null (map);
      assert_int_equal (esp_map_digest (map), digest);
      replay (m, map);
    }
  }
  esp_map_free (map);
  free (m);
}

/* --- damage ----------------------------------------------------------- */

static struct esp_map *
make_file (const char *name, uint64_t size, bool clean)
{
  struct esp_map *map = esp_map_new (size);

  unlinkat (dirfd_, name, 0);
  esp_map_set (map, 100, 3000, ESP_DATA, NULL);
  if (size > 64 * MIB)
    esp_map_set (map, 16500, 10, ESP_ZERO, NULL);
  assert_int_equal (esp_map_create (map, dirfd_, name), 0);
  esp_map_set (map, 5, 1, ESP_DATA, NULL);
  flush (map, true);
  if (clean)
    assert_int_equal (esp_map_mark_clean (map), 0);
  return map;
}

static void
flipped_bytes_of_a_clean_file_are_found (void **state)
{
  struct esp_map *map = make_file ("map", SIZE, true);
  uint64_t digest = esp_map_digest (map);
  unsigned seed = unit_seed (), found = 0;
  int fd = openat (dirfd_, "map", O_RDWR);

  (void) state;
  esp_map_free (map);
  for (unsigned i = 0; i < 4000; ++i) {
    /* Header bytes of each slot first, then anything. */
    uint64_t at = i < FILE_SIZE / SLOT * 40 ? i / 40 * SLOT + i % 40
      : rnd (&seed, FILE_SIZE);
    uint8_t byte, wrong;

    assert_int_equal (pread (fd, &byte, 1, at), 1);
    wrong = byte ^ (1 + rnd (&seed, 255));
    assert_int_equal (pwrite (fd, &wrong, 1, at), 1);
    map = esp_map_load (dirfd_, "map", SIZE, false);
    if (map)
      assert_int_equal (esp_map_digest (map), digest);
    else {
      assert_int_equal (errno, EBADMSG);
      found++;
    }
    esp_map_free (map);
    assert_int_equal (pwrite (fd, &byte, 1, at), 1);
  }
  assert_true (found > 100);
  close (fd);
}

static void
older_slot_of_a_clean_file_does_not_pass_for_the_newer (void **state)
{
  struct esp_map *map = make_file ("map", SIZE, true);
  int fd = openat (dirfd_, "map", O_RDWR);

  (void) state;
  esp_map_free (map);
  /* Page 1 was written twice: the newer one is in slot B. */
  assert_int_equal (pwrite (fd, "x", 1, 3 * SLOT + 100), 1);
  assert_null (esp_map_load (dirfd_, "map", SIZE, false));
  assert_int_equal (errno, EBADMSG);
  close (fd);
}

static void
page_without_any_good_slot_is_damage (void **state)
{
  struct esp_map *map = make_file ("map", SIZE, false);
  int fd = openat (dirfd_, "map", O_RDWR);

  (void) state;
  esp_map_free (map);
  assert_int_equal (pwrite (fd, "x", 1, 3 * SLOT + 100), 1);
  map = esp_map_load (dirfd_, "map", SIZE, false);
  assert_non_null (map);
  esp_map_free (map);
  assert_int_equal (pwrite (fd, "x", 1, 2 * SLOT + 100), 1);
  assert_null (esp_map_load (dirfd_, "map", SIZE, false));
  assert_int_equal (errno, EBADMSG);
  close (fd);
}

static void
wrong_length_or_size_is_damage (void **state)
{
  struct esp_map *map = make_file ("map", SIZE, true);
  int fd = openat (dirfd_, "map", O_RDWR);

  (void) state;
  esp_map_free (map);
  assert_null (esp_map_load (dirfd_, "map", SIZE + 4096, false));
  assert_int_equal (errno, EBADMSG);
  assert_null (esp_map_load (dirfd_, "map", 2 * SIZE, false));
  assert_int_equal (errno, EBADMSG);
  assert_int_equal (ftruncate (fd, FILE_SIZE - 1), 0);
  assert_null (esp_map_load (dirfd_, "map", SIZE, false));
  assert_int_equal (errno, EBADMSG);
  assert_int_equal (ftruncate (fd, 0), 0);
  assert_null (esp_map_load (dirfd_, "map", SIZE, false));
  close (fd);
}

/* Change four bytes of a slot and make its checksum right again. */
static void
patch (uint64_t slot_at, unsigned at, uint32_t value)
{
  uint8_t slot[SLOT];
  int fd = openat (dirfd_, "map", O_RDWR);

  assert_int_equal (pread (fd, slot, SLOT, slot_at), SLOT);
  esp_put32 (slot + at, value);
  esp_put64 (slot, esp_sum (slot + 8, SLOT - 8));
  assert_int_equal (pwrite (fd, slot, SLOT, slot_at), SLOT);
  close (fd);
}

static void
right_checksum_does_not_make_it_right (void **state)
{
  static const struct { uint64_t slot; unsigned at; uint32_t v; int err; } bad[] = {
    { 0, 12, 2, ENOTSUP },                      /* header: version */
    { 2 * SLOT, 12, 9, ENOTSUP },               /* page 1: version */
    { 2 * SLOT, 16, 2, EBADMSG },               /* another page's number */
    { 2 * SLOT, 24, 2, EBADMSG },               /* generation of slot B */
    { 2 * SLOT, 40, 1, EBADMSG },               /* padding */
    { 2 * SLOT, 64, 3, EBADMSG },               /* a state of 3 */
    { 8 * SLOT, 64 + 704, 0x10, EBADMSG },      /* behind the end */
    { 8 * SLOT, 64 + 4000, 1, EBADMSG },
    { 0, 64 + 8, 13, EBADMSG },                 /* block shift */
  };

  (void) state;
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    struct esp_map *map = esp_map_new (SIZE);

    unlinkat (dirfd_, "map", 0);
    esp_map_set (map, 0, esp_blocks (SIZE), ESP_DATA, NULL);
    assert_int_equal (esp_map_create (map, dirfd_, "map"), 0);
    esp_map_free (map);
    patch (bad[i].slot, bad[i].at, bad[i].v);
    map = esp_map_load (dirfd_, "map", SIZE, false);
    /* A page of which slot A alone is damaged reads as a torn first write
     * in a file that was not closed.
     */
    if (map && bad[i].err == EBADMSG && bad[i].at < 64 && bad[i].slot > 0) {
      uint64_t run;
      assert_int_equal (esp_map_run (map, 0, 1, &run), ESP_ABSENT);
    }
    else {
      assert_null (map);
      assert_int_equal (errno, bad[i].err);
    }
    esp_map_free (map);
  }
}

/* --- threads ---------------------------------------------------------- */

#define THREADS 3u

static struct esp_map *shared;
static pthread_mutex_t flush_lock = PTHREAD_MUTEX_INITIALIZER;

/* What a thread has set before it flushes is in the file behind it, while
 * others set blocks of the same words.
 */
static void *
set_flush_and_look (void *arg)
{
  unsigned id = (uintptr_t) arg, seed = id + 1;

  for (unsigned i = 0; i < 60; ++i) {
    uint64_t block = rnd (&seed, 300) * THREADS + id, run;
    enum esp_state s = rnd (&seed, 3);

    if (i % 2)
      block += 16128;           /* the other page */
    for (unsigned j = 0; j < 50; ++j)
      esp_map_set (shared, block, 1, j % 3, NULL);
    esp_map_set (shared, block, 1, s, NULL);
    pthread_mutex_lock (&flush_lock);
    flush (shared, true);
    struct esp_map *map = esp_map_load (dirfd_, "map", SIZE, false);
    if (!map || esp_map_run (map, block, 1, &run) != s)
      abort ();
    esp_map_free (map);
    pthread_mutex_unlock (&flush_lock);
  }
  return NULL;
}

static void
what_was_set_before_a_flush_is_in_the_file (void **state)
{
  pthread_t id[THREADS];

  (void) state;
  shared = make_file ("map", SIZE, true);
  for (unsigned i = 0; i < THREADS; ++i)
    assert_int_equal (pthread_create (&id[i], NULL, set_flush_and_look,
                                      (void *) (uintptr_t) i), 0);
  for (unsigned i = 0; i < THREADS; ++i)
    pthread_join (id[i], NULL);
  esp_map_free (shared);
}

/* --- the rest --------------------------------------------------------- */

static void
create_leaves_what_is_there (void **state)
{
  struct esp_map *map = make_file ("map", SIZE, true);
  struct esp_map *other = esp_map_new (SIZE);

  (void) state;
  esp_map_set (other, 7, 7, ESP_ZERO, NULL);
  assert_int_equal (esp_map_create (other, dirfd_, "map"), -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (faccessat (dirfd_, "map.new", F_OK, 0), -1);
  unlinkat (dirfd_, "map2", 0);
  assert_int_equal (esp_map_create (other, dirfd_, "map2"), 0);
  esp_map_free (other);
  other = esp_map_load (dirfd_, "map2", SIZE, false);
  assert_int_equal (esp_map_count (other, ESP_ZERO), 7);
  esp_map_free (other);
  esp_map_free (map);
}

static void
discarded_snapshot_is_dirty_again (void **state)
{
  struct esp_map *map = make_file ("map", SIZE, true);
  bool empty;

  (void) state;
  assert_null (esp_map_snapshot (map, &empty));
  assert_true (empty);
  esp_map_set (map, 40000, 5, ESP_DATA, NULL);
  struct esp_map_snapshot *s = esp_map_snapshot (map, &empty);
  assert_non_null (s);
  esp_map_discard_snapshot (map, s);
  flush (map, true);
  uint64_t digest = esp_map_digest (map);
  esp_map_free (map);
  map = esp_map_load (dirfd_, "map", SIZE, false);
  assert_int_equal (esp_map_digest (map), digest);
  esp_map_free (map);
}

static void
large_map_is_sparse (void **state)
{
  const uint64_t size = UINT64_C (1) << 40;
  struct esp_map *map = make_file ("large", size, false);
  struct stat st;
  uint64_t run;

  (void) state;
  esp_map_set (map, (1 << 28) - 1, 1, ESP_ZERO, NULL);
  flush (map, true);
  assert_int_equal (esp_map_mark_clean (map), 0);
  uint64_t digest = esp_map_digest (map);
  esp_map_free (map);
  assert_int_equal (fstatat (dirfd_, "large", &st, 0), 0);
  assert_true (st.st_blocks * 512 < 100000);
  map = esp_map_load (dirfd_, "large", size, false);
  assert_int_equal (esp_map_digest (map), digest);
  assert_int_equal (esp_map_run (map, 16510, (1 << 28) - 16510, &run), ESP_ABSENT);
  assert_int_equal (run, (1 << 28) - 16511);
  esp_map_free (map);
  unlinkat (dirfd_, "large", 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (calls_are_recorded),
    cmocka_unit_test (power_lost_at_any_write_leaves_old_or_new_pages),
    cmocka_unit_test (flipped_bytes_of_a_clean_file_are_found),
    cmocka_unit_test (older_slot_of_a_clean_file_does_not_pass_for_the_newer),
    cmocka_unit_test (page_without_any_good_slot_is_damage),
    cmocka_unit_test (wrong_length_or_size_is_damage),
    cmocka_unit_test (right_checksum_does_not_make_it_right),
    cmocka_unit_test (what_was_set_before_a_flush_is_in_the_file),
    cmocka_unit_test (create_leaves_what_is_there),
    cmocka_unit_test (discarded_snapshot_is_dirty_again),
    cmocka_unit_test (large_map_is_sparse),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, setup, teardown);
}
