/* SPDX-License-Identifier: BSD-3-Clause */
/* Overlays against a naive twin: an array of bytes.  Random requests of one
 * thread with reopening in between, and of several threads whose sectors
 * and blocks lie between each other's, so that fills, writes and zeroes of
 * one block meet.
 */

#include "overlay-test.h"

#define REQUESTS 4000

static void
twin_apply (uint8_t *twin, unsigned op, const uint8_t *buf, uint64_t n,
            uint64_t at)
{
  if (op == 0)
    memcpy (twin + at, buf, n);
  else
    memset (twin + at, 0, n);
}

static uint64_t
random_length (unsigned *seed, uint64_t max)
{
  static const uint64_t limits[] = { 16, 512, 8192, 300000, 3000000 };
  uint64_t n = (uint64_t) rand_r (seed) % limits[rand_r (seed) % 5] + 1;

  if (rand_r (seed) % 2)
    n = (n + 4095) / 4096 * 4096;
  return n < max ? n : max;
}

static void
one_request (struct env *e, uint8_t *twin, uint8_t *buf, unsigned *seed)
{
  uint64_t n = random_length (seed, e->disk.size);
  uint64_t at = (uint64_t) rand_r (seed) % (e->disk.size - n + 1);
  unsigned op = rand_r (seed) % 8;

  if (rand_r (seed) % 2)
    at &= ~UINT64_C (4095);
  if (rand_r (seed) % 16 == 0)
    at = e->disk.size - n;              /* the end of the disk */
  if (op < 3) {
    for (uint64_t i = 0; i < n; ++i)
      buf[i] = (uint8_t) rand_r (seed);
    OK (WRITE (e, buf, n, at));
    twin_apply (twin, 0, buf, n, at);
  }
  else if (op < 5) {
    OK (ZERO (e, n, at));
    twin_apply (twin, 1, NULL, n, at);
  }
  else if (op == 5)
    OK (FLUSH (e));
  else {
    OK (READ (e, buf, n, at));
    assert_memory_equal (buf, twin + at, n);
  }
}

static void
model (enum esp_overlay_mode mode, uint64_t size, unsigned *seed)
{
  struct env e;

  env_init (&e, mode, size);
  uint8_t *twin = malloc (size), *buf = malloc (size);
  memcpy (twin, e.disk.bytes, size);
  env_open (&e);
  for (unsigned i = 0; i < REQUESTS; ++i) {
    one_request (&e, twin, buf, seed);
    if (mode != ESP_OVERLAY_MEMORY && rand_r (seed) % 200 == 0) {
      env_close (&e);
      env_open (&e);
    }
  }
  OK (READ (&e, buf, size, 0));
  assert_memory_equal (buf, twin, size);
  assert_string_equal (unit_error, "");
  env_end (&e);
  free (twin);
  free (buf);
}

static void
random_requests_agree_with_a_twin (void **state)
{
  unsigned seed = unit_seed ();

  (void) state;
  model (ESP_OVERLAY_KEEP, (5 << 20) + 1234, &seed);
  model (ESP_OVERLAY_DISCARD, 3 << 20, &seed);
  model (ESP_OVERLAY_MEMORY, (2 << 20) - 511, &seed);
  model (ESP_OVERLAY_KEEP, 700, &seed);
}

/* --- threads -------------------------------------------------------------- */

#define THREADS 4
#ifdef __SANITIZE_THREAD__      /* 20 times as slow */
#define ROUNDS 400
#else
#define ROUNDS 1500
#endif

struct worker {
  struct env *e;
  uint8_t *twin;                /* of the whole disk: own units only */
  unsigned self, seed;
  char failed[128];
};

/* Unit U of the first half is a sector, of the second half a block; thread
 * T has those with U modulo THREADS = T.
 */
static void
random_unit (struct worker *w, uint64_t *at, uint64_t *n)
{
  uint64_t half = w->e->disk.size / 2;

  *n = rand_r (&w->seed) % 2 ? 512 : 4096;
  uint64_t units = half / *n / THREADS;
  *at = (*n == 512 ? 0 : half) +
    ((uint64_t) rand_r (&w->seed) % units * THREADS + w->self) * *n;
}

static int
one_step (struct worker *w)
{
  uint8_t buf[4096];
  uint64_t at, n;
  int err = 0;
  unsigned op = rand_r (&w->seed) % 16;

  random_unit (w, &at, &n);
  if (op < 7) {
    memset (buf, rand_r (&w->seed), n);
    memcpy (w->twin + at, buf, n);
    return esp_overlay_pwrite (w->e->o, &w->e->below, buf, n, at, false, &err);
  }
  if (op < 10) {
    memset (w->twin + at, 0, n);
    return esp_overlay_zero (w->e->o, &w->e->below, n, at, false, &err);
  }
  if (op == 10 && rand_r (&w->seed) % 8 == 0)
    return esp_overlay_flush (w->e->o, &err);
  if (esp_overlay_pread (w->e->o, &w->e->below, buf, n, at, &err) == -1)
    return -1;
  return memcmp (buf, w->twin + at, n) ? -2 : 0;
}

static void *
worker_run (void *arg)
{
  struct worker *w = arg;

  for (unsigned i = 0; i < ROUNDS && !w->failed[0]; ++i) {
    int r = one_step (w);
    if (r)
      snprintf (w->failed, sizeof w->failed, "thread %u, step %u: %s",
                w->self, i, r == -2 ? "wrong bytes" : "an error");
  }
  return NULL;
}

static void
merge_twins (struct worker *w, uint8_t *out, uint64_t size)
{
  uint64_t half = size / 2;

  for (uint64_t at = 0; at < size; at += 512) {
    uint64_t unit = at < half ? at / 512 : (at - half) / 4096;
    memcpy (out + at, w[unit % THREADS].twin + at, 512);
  }
}

/* A small disk, so that all that is done meets in a few blocks and tiles. */
static void
threads_between_each_other (enum esp_overlay_mode mode, uint64_t size,
                            unsigned seed)
{
  struct env e;
  struct worker w[THREADS];
  pthread_t t[THREADS];
  uint8_t *all = malloc (size), *buf = malloc (size);

  env_init (&e, mode, size);
  env_open (&e);
  for (unsigned i = 0; i < THREADS; ++i) {
    w[i] = (struct worker) { .e = &e, .self = i, .seed = seed + i,
                             .twin = malloc (size) };
    memcpy (w[i].twin, e.disk.bytes, size);
    assert_int_equal (pthread_create (&t[i], NULL, worker_run, &w[i]), 0);
  }
  for (unsigned i = 0; i < THREADS; ++i)
    pthread_join (t[i], NULL);
  for (unsigned i = 0; i < THREADS; ++i)
    assert_string_equal (w[i].failed, "");
  merge_twins (w, all, size);
  OK (READ (&e, buf, size, 0));
  assert_memory_equal (buf, all, size);
  if (mode != ESP_OVERLAY_MEMORY) {
    env_close (&e);
    env_open (&e);
    OK (READ (&e, buf, size, 0));
    assert_memory_equal (buf, all, size);
  }
  for (unsigned i = 0; i < THREADS; ++i)
    free (w[i].twin);
  free (all);
  free (buf);
  env_end (&e);
}

static void
threads_agree_with_their_twins (void **state)
{
  unsigned seed = unit_seed ();

  (void) state;
  for (unsigned i = 0; i < 6; ++i) {
    threads_between_each_other (ESP_OVERLAY_KEEP, 1 << 18, seed + 10 * i);
    threads_between_each_other (ESP_OVERLAY_MEMORY, 1 << 16, seed + 10 * i);
    threads_between_each_other (ESP_OVERLAY_DISCARD, 8 << 20, seed + 10 * i);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (random_requests_agree_with_a_twin),
    cmocka_unit_test (threads_agree_with_their_twins),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
