/* SPDX-License-Identifier: BSD-3-Clause */
/* A directory under threads and processes, of which some are killed: against
 * a naive twin, that knows of each key what was written below, and up to
 * which version that was acknowledged.
 *
 * A write is as the filter does it: forget, change what is below, forget;
 * then it is acknowledged.  A read that hits must give, in each part, a
 * version that is not older than what was acknowledged before it began.  A
 * read that misses fetches what is below, and puts it.
 */

#include "cdir-test.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define KEYS 24u
#define SHIFT 17u               /* two parts */
#define LEN (1u << SHIFT)
#define WORKERS 4u

/* Shared by all processes. */
static struct {
  _Atomic uint32_t next[KEYS], below[KEYS], acked[KEYS];
  atomic_uint hits, puts, forgets, wrong, stale;
  atomic_bool stop;
} *twin;

static void
raise_to (_Atomic uint32_t *to, uint32_t version)
{
  uint32_t now = atomic_load (to);

  while (now < version && !atomic_compare_exchange_weak (to, &now, version))
    ;
}

/* Half of the keys are restore points', which have version 0 for ever. */
static struct esp_cache_key
numbered (unsigned k)
{
  return cdir_key (k % 2 ? ESP_CACHE_EXPORT : ESP_CACHE_RP, k, SHIFT);
}

static void
write_one (struct esp_cdir *d, unsigned k)
{
  struct esp_cache_key key = numbered (k);
  uint32_t version;

  if (key.kind == ESP_CACHE_RP) {
    esp_cdir_forget (d, &key);  /* as one that lied */
    return;
  }
  version = atomic_fetch_add (&twin->next[k], 1) + 1;
  esp_cdir_forget (d, &key);
  raise_to (&twin->below[k], version);
  esp_cdir_forget (d, &key);
  raise_to (&twin->acked[k], version);
  atomic_fetch_add (&twin->forgets, 1);
}

static void
read_one (struct esp_cdir *d, unsigned k, void *buf)
{
  struct esp_cache_key key = numbered (k);
  uint32_t acked = atomic_load (&twin->acked[k]), version;
  uint64_t epoch;

  if (esp_cdir_get (d, &key, buf, LEN, &epoch)) {
    version = cdir_version (&key, buf, LEN);
    atomic_fetch_add (&twin->hits, 1);
    if (version == UINT32_MAX)
      atomic_fetch_add (&twin->wrong, 1);
    else if (version < acked)
      atomic_fetch_add (&twin->stale, 1);
    return;
  }
  cdir_fill (&key, atomic_load (&twin->below[k]), buf, LEN);
  if (esp_cdir_put (d, &key, buf, LEN, epoch))
    atomic_fetch_add (&twin->puts, 1);
}

/* Until it is told to stop, or N times. */
static void
work (struct esp_cdir *d, uint64_t seed, unsigned n)
{
  CLEANUP_FREE void *buf = malloc (LEN);

  for (uint64_t i = 0; i < n && !atomic_load (&twin->stop); ++i) {
    uint64_t r = XXH3_64bits_withSeed (&i, sizeof i, seed);
    unsigned k = (unsigned) (r >> 8) % KEYS;

    if (r % 8 == 0)
      write_one (d, k);
    else
      read_one (d, k, buf);
  }
}

static void
verdict (void)
{
  printf ("# %u hits, %u puts, %u forgets\n", atomic_load (&twin->hits),
          atomic_load (&twin->puts), atomic_load (&twin->forgets));
  assert_int_equal (atomic_load (&twin->wrong), 0);
  assert_int_equal (atomic_load (&twin->stale), 0);
  /* On a busy machine, with sanitizers, too. */
  assert_true (atomic_load (&twin->hits) > 50);
  assert_true (atomic_load (&twin->puts) > 20);
  assert_true (atomic_load (&twin->forgets) > 10);
}

static int
setup (void **state)
{
  twin = mmap (NULL, sizeof *twin, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true (twin != MAP_FAILED);
  return cdir_setup (state);
}

static int
teardown (void **state)
{
  munmap (twin, sizeof *twin);
  return cdir_teardown (state);
}

/* --- one thread: exactly the twin ----------------------------------------- */

/* Nothing is put out here (half of the room is used): what was put is there
 * until it is forgotten.
 */
static void
as_the_twin (void **state)
{
  CLEANUP_CDIR struct esp_cdir *one = cdir_open (), *two = cdir_open ();
  struct esp_cdir *d[2] = { one, two };
  CLEANUP_FREE void *buf = malloc (LEN);
  bool there[KEYS] = { false };
  uint32_t version[KEYS] = { 0 };
  uint64_t seed = unit_seed (), epoch;

  (void) state;
  for (uint64_t i = 0; i < 2000; ++i) {
    uint64_t r = XXH3_64bits_withSeed (&i, sizeof i, seed);
    unsigned k = (unsigned) (r >> 8) % KEYS;
    struct esp_cache_key key = numbered (k);
    struct esp_cdir *by = d[r >> 40 & 1];

    if (r % 4 == 0) {
      esp_cdir_forget (by, &key);
      there[k] = false;
      ++version[k];
      continue;
    }
    assert_int_equal (esp_cdir_get (by, &key, buf, LEN, &epoch), there[k]);
    if (there[k])
      assert_int_equal (cdir_version (&key, buf, LEN), version[k]);
    else if (r % 4 == 1) {
      cdir_fill (&key, version[k], buf, LEN);
      assert_true (esp_cdir_put (by, &key, buf, LEN, epoch));
      there[k] = true;
    }
  }
}

/* --- threads --------------------------------------------------------------- */

struct worker { struct esp_cdir *dir; uint64_t seed; pthread_t thread; };

static void *
thread (void *arg)
{
  struct worker *w = arg;

  work (w->dir, w->seed, 1500);
  return NULL;
}

static void
threads (void **state)
{
  CLEANUP_CDIR struct esp_cdir *one = cdir_open (), *two = cdir_open ();
  struct esp_cdir *d[2] = { one, two };
  struct worker w[WORKERS];
  uint64_t seed = unit_seed ();

  (void) state;
  for (unsigned i = 0; i < WORKERS; ++i) {
    w[i] = (struct worker) { .dir = d[i % 2], .seed = seed + i };
    assert_int_equal (pthread_create (&w[i].thread, NULL, thread, &w[i]), 0);
  }
  for (unsigned i = 0; i < WORKERS; ++i)
    pthread_join (w[i].thread, NULL);
  verdict ();
  assert_string_equal (unit_error, "");
}

/* --- processes that are killed ----------------------------------------------- */

static pid_t
begin (uint64_t seed)
{
  pid_t pid = fork ();

  assert_true (pid >= 0);
  if (pid > 0)
    return pid;
  struct esp_cdir *d = esp_cdir_open (cdir_where, MAX, cdir_check);
  if (d)
    work (d, seed, UINT32_MAX);
  _exit (d ? 0 : 1);
}

static void
end (pid_t pid, bool killed)
{
  int status;

  if (killed)
    kill (pid, SIGKILL);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (killed ? WIFSIGNALED (status) || WEXITSTATUS (status) == 0
               : WIFEXITED (status) && WEXITSTATUS (status) == 0);
}

static void
killed_at_random (void **state)
{
  uint64_t seed = unit_seed (), kills = 0;
  time_t until = time (NULL) + 3;
  pid_t pid[WORKERS];

  (void) state;
  fflush (NULL);
  for (unsigned i = 0; i < WORKERS; ++i)
    pid[i] = begin (seed + i);
  while (time (NULL) < until) {
    uint64_t r = XXH3_64bits_withSeed (&kills, sizeof kills, seed);
    unsigned who = r % WORKERS;

    nanosleep (&(struct timespec) { .tv_nsec = (long) (r >> 8) % 40000000 },
               NULL);
    end (pid[who], true);
    ++kills;
    pid[who] = begin (seed + 100 + kills);
  }
  atomic_store (&twin->stop, true);
  for (unsigned i = 0; i < WORKERS; ++i)
    end (pid[i], false);
  printf ("# %u killed\n", (unsigned) kills);
  assert_true (kills > 10);
  verdict ();
  /* Who comes then finds it sound. */
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  for (unsigned k = 0; k < KEYS; ++k) {
    struct esp_cache_key key = numbered (k);
    uint32_t below = atomic_load (&twin->below[k]);

    esp_cdir_forget (d, &key);
    assert_true (cdir_put (d, &key, below, LEN));
    assert_true (cdir_has (d, &key, below, LEN));
  }
  assert_string_equal (unit_error, "");
}

/* --- opening ------------------------------------------------------------------ */

/* Two bounds in turn: whoever is alone makes the file anew. */
static int
open_and_close (unsigned n, unsigned who)
{
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, who, SHIFT);

  for (unsigned i = 0; i < n; ++i) {
    struct esp_cdir *d = esp_cdir_open (cdir_where, MAX + (i + who) % 2,
                                        cdir_check);
    if (!d || (cdir_put (d, &key, 3, LEN) && !cdir_has (d, &key, 3, LEN))) {
      fprintf (stderr, "# process %u, open %u: %s\n", who, i, unit_error);
      return 1;
    }
    esp_cdir_close (d);
  }
  /* That another one has it open with the other bound is said. */
  return unit_error[0] && !strstr (unit_error, "others use it with") ? 1 : 0;
}

static void
opened_by_many (void **state)
{
  pid_t pid[WORKERS];

  (void) state;
  fflush (NULL);
  for (unsigned i = 0; i < WORKERS; ++i) {
    pid[i] = fork ();
    assert_true (pid[i] >= 0);
    if (pid[i] == 0)
      _exit (open_and_close (40, i));
  }
  for (unsigned i = 0; i < WORKERS; ++i)
    end (pid[i], false);
}

/* Also in the middle of making it. */
static void
killed_while_it_opens (void **state)
{
  uint64_t seed = unit_seed ();

  (void) state;
  fflush (NULL);
  for (uint64_t i = 0; i < 40; ++i) {
    uint64_t r = XXH3_64bits_withSeed (&i, sizeof i, seed);
    pid_t pid = fork ();

    assert_true (pid >= 0);
    if (pid == 0)
      _exit (open_and_close (UINT32_MAX, 0));
    nanosleep (&(struct timespec) { .tv_nsec = (long) (r % 8000000) }, NULL);
    end (pid, true);
    assert_int_equal (open_and_close (1, 1), 0);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (as_the_twin),
    TEST (threads),
    TEST (killed_at_random),
    TEST (opened_by_many),
    TEST (killed_while_it_opens),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
