/* SPDX-License-Identifier: BSD-3-Clause */
/* Maps in memory against a naive array of states; threads that set. */

#include "unit.h"

#include <pthread.h>

#include "store/map.h"

#define KIB UINT64_C (1024)
#define MIB (KIB * KIB)

static uint64_t
rnd (unsigned *seed, uint64_t n)
{
  return ((uint64_t) rand_r (seed) << 31 | rand_r (seed)) % n;
}

static void
new_map_is_absent (void **state)
{
  struct esp_map *map = esp_map_new (5 * MIB + 1);
  uint64_t run;

  (void) state;
  assert_int_equal (esp_map_run (map, 0, 1281, &run), ESP_ABSENT);
  assert_int_equal (run, 1281);
  assert_int_equal (esp_map_count (map, ESP_ABSENT), 1281);
  assert_int_equal (esp_map_digest (map), 0);
  esp_map_free (map);
}

/* The naive twin of a map: a byte a block. */
struct model {
  struct esp_map *map;
  uint8_t *states;
  uint64_t n;
};

static void
random_set (struct model *m, unsigned *seed)
{
  uint64_t block = rnd (seed, m->n);
  uint64_t len = rnd (seed, 3) ? rnd (seed, 100) : rnd (seed, m->n);
  enum esp_state s = rnd (seed, 3);
  int64_t added, expected = 0;

  if (len > m->n - block)
    len = m->n - block;
  for (uint64_t i = block; i < block + len; ++i) {
    expected += (s == ESP_DATA) - (m->states[i] == ESP_DATA);
    m->states[i] = s;
  }
  added = 42;
  esp_map_set (m->map, block, len, s, &added);
  assert_int_equal (added, expected);
}

static void
random_run (struct model *m, unsigned *seed)
{
  uint64_t block = rnd (seed, m->n), max = rnd (seed, m->n - block) + 1;
  uint64_t run, expected = 1;

  while (expected < max &&
         m->states[block + expected] == m->states[block])
    expected++;
  assert_int_equal (esp_map_run (m->map, block, max, &run),
                    m->states[block]);
  assert_int_equal (run, expected);
}

static void
check_counts (const struct model *m)
{
  uint64_t count[3] = { 0 };

  for (uint64_t i = 0; i < m->n; ++i)
    count[m->states[i]]++;
  for (unsigned s = 0; s < 3; ++s)
    assert_int_equal (esp_map_count (m->map, s), count[s]);
}

static void
random_sets_and_runs_match_an_array (void **state)
{
  unsigned seed = unit_seed ();

  (void) state;
  for (unsigned round = 0; round < 20; ++round) {
    uint64_t size = 1 + rnd (&seed, 200 * MIB);
    struct model m = { .map = esp_map_new (size), .n = esp_blocks (size) };

    m.states = calloc (m.n, 1);
    for (unsigned i = 0; i < 300; ++i) {
      random_set (&m, &seed);
      random_run (&m, &seed);
      random_run (&m, &seed);
    }
    check_counts (&m);
    esp_map_free (m.map);
    free (m.states);
  }
}

static void
digest_sees_every_block_and_no_history (void **state)
{
  struct esp_map *a = esp_map_new (130 * MIB), *b = esp_map_new (130 * MIB);
  uint64_t none, one;

  (void) state;
  esp_map_set (a, 7, 30000, ESP_DATA, NULL);
  none = esp_map_digest (a);
  for (uint64_t block = 1; block < 33280; block += 997) {
    uint64_t run;
    enum esp_state s = esp_map_run (a, block, 1, &run);
    esp_map_set (a, block, 1, s == ESP_DATA ? ESP_ZERO : ESP_DATA, NULL);
    one = esp_map_digest (a);
    assert_int_not_equal (one, none);
    esp_map_set (a, block, 1, s, NULL);
    assert_int_equal (esp_map_digest (a), none);
  }
  /* The same by another way: from the end, and with detours. */
  esp_map_set (b, 0, 33280, ESP_ZERO, NULL);
  esp_map_set (b, 7, 33273, ESP_DATA, NULL);
  esp_map_set (b, 0, 7, ESP_ABSENT, NULL);
  esp_map_set (a, 7, 33273, ESP_DATA, NULL);
  assert_int_equal (esp_map_digest (a), esp_map_digest (b));
  esp_map_free (a);
  esp_map_free (b);
}

static void
digest_tells_tiles_apart (void **state)
{
  struct esp_map *a = esp_map_new (8 * MIB), *b = esp_map_new (8 * MIB);

  (void) state;
  esp_map_set (a, 0, 256, ESP_DATA, NULL);
  esp_map_set (b, 256, 256, ESP_DATA, NULL);
  assert_int_not_equal (esp_map_digest (a), esp_map_digest (b));
  esp_map_free (a);
  esp_map_free (b);
}

static void
copy_grows_and_is_equal (void **state)
{
  struct esp_map *a = esp_map_new (3 * MIB + 5), *b;
  uint64_t run;

  (void) state;
  esp_map_set (a, 3, 700, ESP_DATA, NULL);
  b = esp_map_copy (a, 900 * MIB);
  assert_int_equal (esp_map_digest (a), esp_map_digest (b));
  assert_int_equal (esp_map_run (b, 3, 230000, &run), ESP_DATA);
  assert_int_equal (run, 700);
  assert_int_equal (esp_map_run (b, 703, 229697, &run), ESP_ABSENT);
  assert_int_equal (run, 229697);
  esp_map_free (a);
  esp_map_free (b);
}

static void
disk_beyond_the_largest_is_refused (void **state)
{
  (void) state;
  unit_error[0] = 0;
  assert_null (esp_map_new (ESP_DISK_MAX + 1));
  assert_int_equal (errno, EFBIG);
  assert_string_not_equal (unit_error, "");
}

/* --- threads ---------------------------------------------------------- */

#define THREADS 4
#define BLOCKS 20000u

static struct esp_map *shared;

struct setter { unsigned seed; int64_t added; };

static void *
set_many (void *arg)
{
  struct setter *t = arg;

  for (unsigned i = 0; i < 4000; ++i) {
    int64_t added;
    uint64_t block = rnd (&t->seed, BLOCKS - 64);
    enum esp_state s = rnd (&t->seed, 3) ? ESP_DATA : ESP_ZERO;

    esp_map_set (shared, block, 1 + rnd (&t->seed, 64), s, &added);
    t->added += added;
  }
  return NULL;
}

static void
concurrent_setters_count_each_block_once (void **state)
{
  struct setter t[THREADS];
  pthread_t id[THREADS];
  int64_t sum = 0;
  unsigned seed = unit_seed ();

  (void) state;
  shared = esp_map_new (BLOCKS * ESP_BLOCK_SIZE);
  for (unsigned i = 0; i < THREADS; ++i) {
    t[i] = (struct setter) { .seed = seed + i };
    assert_int_equal (pthread_create (&id[i], NULL, set_many, &t[i]), 0);
  }
  for (unsigned i = 0; i < THREADS; ++i) {
    pthread_join (id[i], NULL);
    sum += t[i].added;
  }
  assert_int_equal (sum, esp_map_count (shared, ESP_DATA));
  esp_map_free (shared);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (new_map_is_absent),
    cmocka_unit_test (random_sets_and_runs_match_an_array),
    cmocka_unit_test (digest_sees_every_block_and_no_history),
    cmocka_unit_test (digest_tells_tiles_apart),
    cmocka_unit_test (copy_grows_and_is_equal),
    cmocka_unit_test (disk_beyond_the_largest_is_refused),
    cmocka_unit_test (concurrent_setters_count_each_block_once),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
