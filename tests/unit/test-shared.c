/* SPDX-License-Identifier: BSD-3-Clause */
/* The shared tiers together: which is asked first, what fills which, what is
 * forgotten, what goes nowhere.
 */

#include "cluster-test.h"

#include "cache/dir.h"
#include "cache/memory.h"
#include "cache/shared.h"

#define LEN 100000u
#define MIB (UINT64_C (1) << 20)

static unsigned char want[LEN], got[LEN];

static void
shared_end (struct esp_shared **s)
{
  esp_shared_close (*s);
}
#define CLEANUP_SHARED __attribute__ ((cleanup (shared_end)))

static struct esp_cache_key
key_no (enum esp_cache_kind kind, uint32_t segment)
{
  return (struct esp_cache_key) { .id = { 1, 2, 3 }, .segment = segment,
                                  .shift = 18, .kind = (uint8_t) kind };
}

static const char *
in_dir (struct bench *b)
{
  static char path[120];

  snprintf (path, sizeof path, "%s/cache", b->dir);
  return path;
}

static struct esp_shared *
shared_open (const struct esp_shared_params *p)
{
  struct esp_shared *s = esp_shared_open (p);

  if (!s)
    fail_msg ("%s", unit_error);
  return s;
}

static enum esp_shared_answer
ask_for (struct esp_shared *s, const struct esp_cache_key *key,
         unsigned flags, struct esp_shared_ticket *t)
{
  memset (got, 0, sizeof got);
  *t = (struct esp_shared_ticket) { 0 };
  return esp_shared_get (s, key, got, LEN, flags, t);
}

/* It misses; what comes then is put. */
static void
fetch_it (struct esp_shared *s, const struct esp_cache_key *key,
          unsigned flags)
{
  struct esp_shared_ticket t;

  assert_int_equal (ask_for (s, key, flags, &t), ESP_SHARED_MISS);
  esp_shared_put (s, key, want, LEN, flags, &t);
}

static void
hit_in (struct esp_shared *s, const struct esp_cache_key *key,
        enum esp_shared_from from)
{
  struct esp_shared_ticket t;

  assert_int_equal (ask_for (s, key, 0, &t), ESP_SHARED_HIT);
  assert_int_equal (t.from, from);
  assert_memory_equal (got, want, LEN);
}

static int
setup (void **state)
{
  for (unsigned i = 0; i < LEN; i++)
    want[i] = (unsigned char) rand ();
  return bench_setup (state);
}

static void
test_memory_then_directory (void **state)
{
  struct esp_shared_params p = { .memory = 4 * MIB, .dir = in_dir (*state),
                                 .dir_max = 16 * MIB };
  struct esp_cache_key key = key_no (ESP_CACHE_RP, 7);
  struct esp_shared *s = shared_open (&p);

  fetch_it (s, &key, 0);
  hit_in (s, &key, ESP_FROM_MEMORY);
  esp_shared_close (s);
  CLEANUP_SHARED struct esp_shared *again = shared_open (&p);
  hit_in (again, &key, ESP_FROM_DIR);
  hit_in (again, &key, ESP_FROM_MEMORY);
}

static void
test_cluster_fills_the_others (void **state)
{
  struct bench *b = *state;

  if (!have_memcached ())
    skip ();
  mc_start (b, 0, NULL);
  struct esp_shared_params one = { .nodes = mc_list (b, 0, 1) };
  struct esp_shared_params all = { .nodes = one.nodes, .memory = MIB,
                                   .dir = in_dir (b), .dir_max = 16 * MIB };
  struct esp_cache_key key = key_no (ESP_CACHE_RP, 8);
  CLEANUP_SHARED struct esp_shared *s = shared_open (&one);
  fetch_it (s, &key, 0);
  hit_in (s, &key, ESP_FROM_CLUSTER);
  struct esp_shared *other = shared_open (&all);
  hit_in (other, &key, ESP_FROM_CLUSTER);
  hit_in (other, &key, ESP_FROM_MEMORY);
  esp_shared_close (other);
  mc_kill (b, 0);
  CLEANUP_SHARED struct esp_shared *third = shared_open (&all);
  hit_in (third, &key, ESP_FROM_DIR);
}

/* Without a key file it stays on this host. */
static void
test_secret (void **state)
{
  struct bench *b = *state;

  if (!have_memcached ())
    skip ();
  mc_start (b, 0, NULL);
  struct esp_shared_params p = { .nodes = mc_list (b, 0, 1),
                                 .dir = in_dir (b), .dir_max = 16 * MIB };
  struct esp_shared_params bare = { .nodes = p.nodes };
  struct esp_cache_key key = key_no (ESP_CACHE_RP, 9);
  struct esp_shared_ticket t;
  CLEANUP_SHARED struct esp_shared *s = shared_open (&p);
  fetch_it (s, &key, ESP_SHARED_SECRET);
  hit_in (s, &key, ESP_FROM_DIR);
  CLEANUP_SHARED struct esp_shared *other = shared_open (&bare);
  assert_int_equal (ask_for (other, &key, ESP_SHARED_LOOK, &t),
                    ESP_SHARED_MISS);
}

/* Whoever ends while it fetches keeps nobody waiting. */
static void
test_closed_in_a_fetch (void **state)
{
  struct bench *b = *state;

  if (!have_memcached ())
    skip ();
  mc_start (b, 0, NULL);
  struct esp_shared_params p = { .nodes = mc_list (b, 0, 1) };
  struct esp_cache_key key = key_no (ESP_CACHE_RP, 13);
  struct esp_shared_ticket t;
  CLEANUP_SHARED struct esp_shared *other = shared_open (&p);
  struct esp_shared *s = shared_open (&p);
  assert_int_equal (ask_for (s, &key, 0, &t), ESP_SHARED_MISS);
  assert_int_equal (ask_for (other, &key, 0, &t), ESP_SHARED_BUSY);
  esp_shared_close (s);
  assert_int_equal (ask_for (other, &key, 0, &t), ESP_SHARED_MISS);
}

/* What was wrong is gone from all of this host; what is put then stays. */
static void
test_lied (void **state)
{
  struct esp_shared_params p = { .memory = 4 * MIB, .dir = in_dir (*state),
                                 .dir_max = 16 * MIB };
  struct esp_cache_key key = key_no (ESP_CACHE_RP, 10);
  struct esp_shared_ticket t;
  struct esp_shared *s = shared_open (&p);

  want[5] ^= 1;
  fetch_it (s, &key, 0);
  want[5] ^= 1;
  assert_int_equal (ask_for (s, &key, 0, &t), ESP_SHARED_HIT);
  esp_shared_lied (s, &key, &t);
  struct esp_shared_ticket look;
  assert_int_equal (ask_for (s, &key, ESP_SHARED_LOOK, &look), ESP_SHARED_MISS);
  esp_shared_put (s, &key, want, LEN, 0, &t);
  hit_in (s, &key, ESP_FROM_MEMORY);
  esp_shared_close (s);
  CLEANUP_SHARED struct esp_shared *again = shared_open (&p);
  hit_in (again, &key, ESP_FROM_DIR);
}

/* An export's segments have a memory of their own; a fetch that began before
 * a write is kept nowhere.
 */
static void
test_exports (void **state)
{
  struct esp_shared_params p = { .memory = 4 * MIB, .dir = in_dir (*state),
                                 .dir_max = 16 * MIB };
  struct esp_cache_key key = key_no (ESP_CACHE_EXPORT, 11);
  struct esp_shared_ticket t;
  CLEANUP_SHARED struct esp_shared *s = shared_open (&p);

  fetch_it (s, &key, 0);
  hit_in (s, &key, ESP_FROM_DIR);
  hit_in (s, &key, ESP_FROM_DIR);
  esp_shared_write_begin (s, &key);
  assert_int_equal (ask_for (s, &key, 0, &t), ESP_SHARED_MISS);
  esp_shared_write_end (s, &key);
  esp_shared_put (s, &key, want, LEN, 0, &t);
  assert_int_equal (ask_for (s, &key, 0, &t), ESP_SHARED_MISS);
}

static void
test_bad_parameters (void **state)
{
  struct bench *b = *state;
  char file[120];

  snprintf (file, sizeof file, "%s/file", b->dir);
  fclose (fopen (file, "w"));
  const struct esp_shared_params bad[] = {
    { .dir = file }, { .dir = in_dir (b), .dir_max = 4096 },
    { .key_file = "/nowhere/key" }, { .nodes = "host:port:x" },
    { .key_file = file },
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    unit_error[0] = 0;
    assert_int_equal (esp_shared_check (&bad[i]), -1);
    assert_true (unit_error[0] != 0);
  }
  struct esp_shared_params good = { .dir = in_dir (b) };
  assert_int_equal (esp_shared_check (&good), 0);
  assert_null (esp_shared_open (&bad[2]));
  /* A directory that cannot be used is no reason not to begin. */
  CLEANUP_SHARED struct esp_shared *s = shared_open (&bad[0]);
  struct esp_cache_key key = key_no (ESP_CACHE_RP, 12);
  fetch_it (s, &key, 0);
}

/* --- the process's one ------------------------------------------------------------ */

static atomic_bool taken;

static void *
take_away (void *arg)
{
  (void) arg;
  esp_shared_set (NULL);
  taken = true;
  return NULL;
}

/* Whoever takes it away waits for those who are in it; nobody comes in. */
static void
test_taken_away (void **state)
{
  struct esp_shared_params p = { .memory = MIB };
  CLEANUP_SHARED struct esp_shared *s = shared_open (&p);
  pthread_t thread;

  (void) state;
  assert_null (esp_shared_ref ());
  esp_shared_set (s);
  assert_ptr_equal (esp_shared_ref (), s);
  pthread_create (&thread, NULL, take_away, NULL);
  struct esp_shared *more;
  while ((more = esp_shared_ref ()) != NULL) {
    esp_shared_unref (more);
    usleep (1000);
  }
  assert_false (taken);
  esp_shared_unref (s);
  pthread_join (thread, NULL);
  assert_true (taken);
  esp_shared_unref (NULL);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, setup, bench_teardown)
    T (test_memory_then_directory),
    T (test_cluster_fills_the_others),
    T (test_secret),
    T (test_closed_in_a_fetch),
    T (test_lied),
    T (test_exports),
    T (test_bad_parameters),
    T (test_taken_away),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
