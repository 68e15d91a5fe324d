/* SPDX-License-Identifier: BSD-3-Clause */
/* Workers: threads that take flights from their pool's queues, highest class
 * first, and make requests of them.
 *
 * Queued neighbours of one class fly together, but a demand is not made to
 * wait behind its neighbours while connections are idle: what is queued in
 * a row is shared out among the threads that could take it.
 *
 * Classes leave room: ahead takes all threads but two, background two, and
 * only while its tokens last.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"

/* More centers than this share threads. */
#define POOLS_MAX 32u

/* --- the rate of background ------------------------------------------------ */

static void
tokens_fill_locked (struct esp_delay *delay)
{
  uint64_t now = delay_now (), passed = now - delay->tokens_at;
  int64_t rate = (int64_t) delay->params.rate, most = rate / 4 + 1;

  if (passed > 10 * SECOND)
    passed = 10 * SECOND;
  delay->tokens_at = now;
  delay->tokens += (int64_t) ((double) rate * (double) passed / SECOND);
  if (delay->tokens > most)     /* a quarter of a second may be saved up */
    delay->tokens = most;
}

void
tokens_take_locked (struct esp_delay *delay, uint64_t bytes)
{
  if (delay->params.rate)
    delay->tokens -= (int64_t) bytes;
}

uint64_t
tokens_wait_locked (struct esp_delay *delay)
{
  if (!delay->params.rate)
    return 0;
  tokens_fill_locked (delay);
  if (delay->tokens >= 0)
    return 0;
  double s = (double) -delay->tokens / (double) delay->params.rate;
  return delay_now () + (s > 3600 ? 3600 * SECOND
                         : (uint64_t) (s * (double) SECOND) + 1000);
}

/* --- taking ---------------------------------------------------------------- */

static unsigned
limit (const struct pool *pool, enum delay_class class)
{
  unsigned n = pool->nthreads;

  switch (class) {
  case CLASS_DEMAND: return n;
  case CLASS_AHEAD: return n > 3 ? n - 2 : n > 1 ? n - 1 : 1;
  default: return n > BACKGROUND_CONNECTIONS ? BACKGROUND_CONNECTIONS : 1;
  }
}

/* How many more requests of CLASS may begin? */
static unsigned
room (const struct pool *pool, enum delay_class class)
{
  unsigned busy = pool->busy[class], most = limit (pool, class);

  if (class == CLASS_AHEAD)
    busy += pool->busy[CLASS_BACKGROUND];
  return busy < most ? most - busy : 0;
}

/* The class to take from, CLASSES where there is none; *UNTIL: when to look
 * again.
 */
static enum delay_class
choose_locked (struct pool *pool, uint64_t *until)
{
  *until = UINT64_MAX;
  for (enum delay_class c = 0; c < CLASSES; ++c) {
    if (TAILQ_EMPTY (&pool->queue[c]) || room (pool, c) == 0)
      continue;
    uint64_t t = c == CLASS_BACKGROUND ? tokens_wait_locked (pool->delay) : 0;
    if (t == 0)
      return c;
    *until = t;
  }
  return CLASSES;
}

/* How many flights that follow F, with it, are queued in its class. */
static size_t
row_locked (struct flight *f, size_t most)
{
  size_t n = 1;
  struct flight *next;

  while (n < most &&
         (next = flight_find_locked (f->point, f->entry + n)) != NULL &&
         next->state == FLIGHT_QUEUED && next->class == f->class)
    n++;
  return n;
}

static size_t
at_least_one (uint64_t n)
{
  return n ? (size_t) n : 1;
}

static unsigned
idle_threads (const struct pool *pool)
{
  unsigned n = pool->nthreads;

  for (enum delay_class c = 0; c < CLASSES; ++c)
    n -= pool->busy[c];
  return n;
}

static size_t
request_size_locked (struct pool *pool, struct flight *f)
{
  unsigned shift = esp_have_shift (f->point->have);
  size_t most = at_least_one (REQUEST_MAX >> shift);
  size_t least = at_least_one (REQUEST_MIN >> shift);
  unsigned share = room (pool, f->class), idle = idle_threads (pool);

  if (share > idle)
    share = idle;
  if (share == 0)
    share = 1;
  size_t row = row_locked (f, most * share);
  size_t n = (row + share - 1) / share;
  uint64_t rate = pool->delay->params.rate;

  /* Small enough that nobody who joins waits long for the slow rate. */
  if (f->class == CLASS_BACKGROUND && rate &&
      most > at_least_one ((rate / 8) >> shift))
    most = at_least_one ((rate / 8) >> shift);
  if (n < least)
    n = least;
  if (n > row)
    n = row;
  return n < most ? n : most;
}

/* Nobody is left who could take a demand. */
static void
look_locked (struct pool *pool)
{
  if (pool->idle == 0 && !TAILQ_EMPTY (&pool->queue[CLASS_DEMAND]))
    pthread_cond_signal (&pool->look);
}

static struct request *
take_locked (struct pool *pool, uint64_t *until)
{
  enum delay_class c = choose_locked (pool, until);

  if (c == CLASSES)
    return NULL;
  struct flight *f = TAILQ_FIRST (&pool->queue[c]);
  struct request *r = request_new_locked (f, request_size_locked (pool, f));
  if (!r) {                     /* memory is short: try again soon */
    *until = delay_now () + SECOND / 10;
    return NULL;
  }
  pool->busy[c]++;
  look_locked (pool);
  return r;
}

static void *
worker_run (void *arg)
{
  struct pool *pool = arg;
  struct esp_delay *delay = pool->delay;
  uint64_t until;

  ESP_LOCK_SCOPE (&delay->lock);
  while (!atomic_load (&delay->stop)) {
    struct request *r = take_locked (pool, &until);
    if (!r) {
      pool->idle++;
      delay_cond_wait (&pool->work, &delay->lock, until);
      pool->idle--;
      continue;
    }
    enum delay_class c = r->began;
    pthread_mutex_unlock (&delay->lock);
    request_run (r);
    pthread_mutex_lock (&delay->lock);
    if (--pool->busy[c] == 0 && c == CLASS_DEMAND)
      pthread_cond_broadcast (&delay->calm);
  }
  return NULL;
}

/* --- pools ------------------------------------------------------------------ */

static struct pool *
find_locked (struct esp_delay *delay, const char *name)
{
  struct pool *pool;
  unsigned n = 0;

  LIST_FOREACH (pool, &delay->pools, list) {
    n++;
    if (strcmp (pool->name, name) == 0)
      return pool;
  }
  return n >= POOLS_MAX ? LIST_FIRST (&delay->pools) : NULL;
}

static void
pool_free (struct pool *pool)
{
  pthread_cond_destroy (&pool->work);
  pthread_cond_destroy (&pool->look);
  free (pool->threads);
  free (pool->name);
  free (pool);
}
ESP_DEFINE_CLEANUP (pool, struct pool *, pool_free)

/* One thread is enough to go on. */
static int
start_locked (struct pool *pool)
{
  for (unsigned i = 0; i < pool->delay->params.threads; ++i) {
    int err = pthread_create (&pool->threads[i], NULL, worker_run, pool);
    if (err && i == 0) {
      errno = err;
      return -1;
    }
    if (err)
      break;
    pool->nthreads++;
  }
  pool->has_looker = pthread_create (&pool->looker, NULL, looker_run,
                                     pool) == 0;
  return 0;
}

struct pool *
pool_get_locked (struct esp_delay *delay, const char *name)
{
  struct pool *found = find_locked (delay, name);

  if (found)
    return found;
  ESP_CLEANUP (pool) struct pool *pool = calloc (1, sizeof *pool);
  if (!pool)
    return NULL;
  pool->delay = delay;
  delay_cond_init (&pool->work);
  delay_cond_init (&pool->look);
  for (enum delay_class c = 0; c < CLASSES; ++c)
    TAILQ_INIT (&pool->queue[c]);
  pool->name = strdup (name);
  pool->threads = calloc (delay->params.threads, sizeof *pool->threads);
  if (!pool->name || !pool->threads || start_locked (pool) == -1)
    return NULL;
  LIST_INSERT_HEAD (&delay->pools, pool, list);
  return ESP_STEAL (pool);
}

void
pool_wake_locked (struct pool *pool)
{
  if (pool->idle)
    pthread_cond_signal (&pool->work);
  else
    look_locked (pool);
}

void
pools_join (struct esp_delay *delay)
{
  struct pool *pool;

  LIST_FOREACH (pool, &delay->pools, list) {
    for (unsigned i = 0; i < pool->nthreads; ++i)
      pthread_join (pool->threads[i], NULL);
    if (pool->has_looker)
      pthread_join (pool->looker, NULL);
  }
  ESP_LOCK_SCOPE (&delay->lock);
  while (delay->hedges > 0)
    delay_cond_wait (&delay->calm, &delay->lock, UINT64_MAX);
}

void
pools_free (struct esp_delay *delay)
{
  struct pool *pool;

  while ((pool = LIST_FIRST (&delay->pools)) != NULL) {
    LIST_REMOVE (pool, list);
    pool_free (pool);
  }
}
