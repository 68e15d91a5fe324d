/* SPDX-License-Identifier: BSD-3-Clause */
/* Flights: one segment on its way, whoever wants it.
 *
 *   want ──► QUEUED ──► FLYING ──► ended: waiters woken, gone
 *                 └──► ELSEWHERE   another process has the entry's lock, or
 *                                  another server a lease of it
 *
 * A flight is in the table from its first want to its end, so that nobody
 * begins a second one; its links are those who wait.  The ticker looks after
 * the ones in state ELSEWHERE: has the segment come, or is the lock free?
 * It takes them out of their list while it looks, since that costs system
 * calls; they can be joined meanwhile, and only it ends them.  Those of
 * which the segment cache said that another server fetches them are only
 * queued again when it is time: a worker asks, since that is network I/O.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"

#define POLL_US UINT64_C (3000)
#define POLL_BATCH 64
#define BUSY_SLACK UINT64_C (1000)      /* neighbours are asked together */
/* A process fetches a segment in less than that, also over a line that hardly
 * moves, unless it is stopped.  Nobody may write what it writes until it goes
 * on or ends, so those who wait get an error.
 */
uint64_t esp_delay_test_elsewhere_max = 600 * SECOND;

/* --- waiters --------------------------------------------------------------- */

void
waiter_init (struct waiter *waiter)
{
  memset (waiter, 0, sizeof *waiter);
  delay_cond_init (&waiter->cond);
}

void
waiter_wait_locked (struct esp_delay *delay, struct waiter *waiter,
                    uint64_t until)
{
  while (waiter->pending > 0 && (until == UINT64_MAX || delay_now () < until))
    delay_cond_wait (&waiter->cond, &delay->lock, until);
}

static void
forget_locked (struct flight *f, const struct waiter *waiter)
{
  struct waiter_link *l, *next;

  for (l = SLIST_FIRST (&f->links); l; l = next) {
    next = SLIST_NEXT (l, next);
    if (l->waiter != waiter)
      continue;
    SLIST_REMOVE (&f->links, l, waiter_link, next);
    free (l);
  }
}

void
waiter_clear_locked (struct esp_delay *delay, struct waiter *waiter)
{
  struct flight *f;

  if (waiter->pending > 0)
    for (unsigned i = 0; i < FLIGHT_BUCKETS; ++i)
      LIST_FOREACH (f, &delay->flights[i], hash)
        forget_locked (f, waiter);
  pthread_cond_destroy (&waiter->cond);
}

/* --- the table --------------------------------------------------------------- */

static unsigned
bucket (const struct point *point, size_t entry)
{
  uint64_t h = ((uintptr_t) point >> 4) * UINT64_C (0x9e3779b97f4a7c15);

  return (unsigned) ((h >> 32) + entry) % FLIGHT_BUCKETS;
}

struct flight *
flight_find_locked (struct point *point, size_t entry)
{
  struct flight *f;

  LIST_FOREACH (f, &point->delay->flights[bucket (point, entry)], hash)
    if (f->point == point && f->entry == entry)
      return f;
  return NULL;
}

static uint64_t
bytes_of (const struct flight *f)
{
  return UINT64_C (1) << esp_have_shift (f->point->have);
}

static void
queue_locked (struct flight *f, bool first)
{
  struct pool *pool = f->point->pool;

  f->state = FLIGHT_QUEUED;
  if (first)
    TAILQ_INSERT_HEAD (&pool->queue[f->class], f, queue);
  else
    TAILQ_INSERT_TAIL (&pool->queue[f->class], f, queue);
  pool->queued[f->class]++;
}

static void
unqueue_locked (struct flight *f)
{
  struct pool *pool = f->point->pool;

  TAILQ_REMOVE (&pool->queue[f->class], f, queue);
  pool->queued[f->class]--;
}

static struct flight *
new_locked (struct point *point, size_t entry, enum delay_class class)
{
  struct flight *f = calloc (1, sizeof *f);

  if (!f)
    return NULL;
  f->point = point;
  f->entry = entry;
  f->class = f->born = class;
  f->look_after = LOOK_FIRST;
  f->look_at = delay_now () + LOOK_FIRST;
  SLIST_INIT (&f->links);
  LIST_INSERT_HEAD (&point->delay->flights[bucket (point, entry)], f, hash);
  point_ref_locked (point);
  if (class == CLASS_AHEAD)
    point->delay->ahead_pending += bytes_of (f);
  queue_locked (f, false);
  return f;
}

/* Somebody wants it sooner. */
static void
raise_locked (struct flight *f, enum delay_class class)
{
  if (f->state == FLIGHT_QUEUED)
    unqueue_locked (f);
  f->class = class;
  if (f->state == FLIGHT_QUEUED) {
    queue_locked (f, false);
    pool_wake_locked (f->point->pool);
  }
  else if (f->state == FLIGHT_FLYING)
    request_raise_locked (f->request, class);
}

int
flight_want_locked (struct point *point, size_t entry,
                    enum delay_class class, struct waiter *waiter)
{
  struct waiter_link *link = waiter ? calloc (1, sizeof *link) : NULL;
  struct flight *f = flight_find_locked (point, entry);
  bool is_new = f == NULL;

  if (waiter && !link)
    return -1;
  if (is_new) {
    f = new_locked (point, entry, class);
    if (!f) {
      free (link);
      return -1;
    }
    pool_wake_locked (point->pool);
  }
  else if (class < f->class)
    raise_locked (f, class);
  if (link) {
    link->waiter = waiter;
    waiter->pending++;
    SLIST_INSERT_HEAD (&f->links, link, next);
  }
  return is_new;
}

static void
tell_locked (struct flight *f, int err, const char *why)
{
  struct waiter_link *l;

  while ((l = SLIST_FIRST (&f->links)) != NULL) {
    struct waiter *w = l->waiter;
    SLIST_REMOVE_HEAD (&f->links, next);
    free (l);
    if (err && !w->err) {
      w->err = err;
      snprintf (w->why, sizeof w->why, "%s", why);
    }
    if (--w->pending == w->enough || err)
      pthread_cond_signal (&w->cond);
  }
}

void
flight_end_locked (struct flight *f, int err, const char *why)
{
  struct esp_delay *delay = f->point->delay;

  LIST_REMOVE (f, hash);
  if (f->born == CLASS_AHEAD) {
    delay->ahead_pending -= bytes_of (f);
    if (!err && f->class == CLASS_DEMAND)
      COUNT (delay, ahead_used, 1);
    else if (!err)
      atomic_fetch_or (&f->point->ahead[f->entry / 64],
                       UINT64_C (1) << (f->entry % 64));
  }
  tell_locked (f, err, why);
  if (f->born == CLASS_BACKGROUND)
    pthread_cond_signal (&delay->keep);
  point_put_locked (f->point);
  free (f);
}

void
flight_take_locked (struct flight *f, struct request *request)
{
  unqueue_locked (f);
  f->state = FLIGHT_FLYING;
  f->request = request;
}

void
flight_requeue_locked (struct flight *f)
{
  f->request = NULL;
  queue_locked (f, true);
  pool_wake_locked (f->point->pool);
}

void
flight_elsewhere_locked (struct flight *f)
{
  struct esp_delay *delay = f->point->delay;

  f->request = NULL;
  f->state = FLIGHT_ELSEWHERE;
  f->since = delay_now ();
  TAILQ_INSERT_TAIL (&delay->elsewhere, f, queue);
  pthread_cond_signal (&delay->tick);
}

void
flight_busy_locked (struct flight *f, uint64_t due)
{
  struct esp_delay *delay = f->point->delay;

  f->request = NULL;
  f->state = FLIGHT_ELSEWHERE;
  f->due = due;
  TAILQ_INSERT_TAIL (&delay->busy, f, queue);
  if (due < delay->tick_at) {
    delay->tick_at = due;
    pthread_cond_signal (&delay->tick);
  }
}

/* All threads are gone: end what is left. */
void
flights_cancel_locked (struct esp_delay *delay)
{
  struct flight *f;

  for (unsigned i = 0; i < FLIGHT_BUCKETS; ++i)
    while ((f = LIST_FIRST (&delay->flights[i])) != NULL)
      flight_end_locked (f, ECANCELED, "the server is ending");
}

/* --- the ticker --------------------------------------------------------------- */

enum seen { SEEN_THERE, SEEN_FREE, SEEN_BUSY };

static enum seen
look (struct flight *f)
{
  struct esp_have *have = f->point->have;

  if (esp_have_state (have, f->entry) == ESP_HAVE_CHECKED)
    return SEEN_THERE;
  if (!esp_have_try_lock (have, f->entry))
    return SEEN_BUSY;
  bool there = esp_have_state (have, f->entry) == ESP_HAVE_CHECKED;
  esp_have_unlock (have, f->entry);
  return there ? SEEN_THERE : SEEN_FREE;
}

/* Look at some of those that are ELSEWHERE. */
static void
poll_locked (struct esp_delay *delay, uint64_t now)
{
  struct flight *f[POLL_BATCH];
  enum seen seen[POLL_BATCH];
  size_t n = 0;

  for (; n < POLL_BATCH && !TAILQ_EMPTY (&delay->elsewhere); ++n) {
    f[n] = TAILQ_FIRST (&delay->elsewhere);
    TAILQ_REMOVE (&delay->elsewhere, f[n], queue);
  }
  if (n == 0)
    return;
  pthread_mutex_unlock (&delay->lock);
  for (size_t i = 0; i < n; ++i)
    seen[i] = look (f[i]);
  pthread_mutex_lock (&delay->lock);
  for (size_t i = 0; i < n; ++i)
    if (seen[i] == SEEN_THERE)
      flight_end_locked (f[i], 0, NULL);
    else if (seen[i] == SEEN_FREE)
      flight_requeue_locked (f[i]);
    else if (now > f[i]->since + esp_delay_test_elsewhere_max)
      flight_end_locked (f[i], ETIMEDOUT, "another process of this store has "
                         "been fetching it for minutes: is it stopped?");
    else
      TAILQ_INSERT_TAIL (&delay->elsewhere, f[i], queue);
}

/* Queue what is due of the busy ones, so that neighbours stand in their order
 * again; when the next one is due.
 */
static uint64_t
wake_busy_locked (struct esp_delay *delay, uint64_t now)
{
  struct flight *f, *before;
  uint64_t next = UINT64_MAX;

  for (f = TAILQ_LAST (&delay->busy, flight_queue); f; f = before) {
    before = TAILQ_PREV (f, flight_queue, queue);
    if (f->due > now + BUSY_SLACK) {
      next = f->due < next ? f->due : next;
      continue;
    }
    TAILQ_REMOVE (&delay->busy, f, queue);
    flight_requeue_locked (f);
  }
  return next;
}

void *
ticker_run (void *arg)
{
  struct esp_delay *delay = arg;

  ESP_LOCK_SCOPE (&delay->lock);
  while (!atomic_load (&delay->stop)) {
    uint64_t now = delay_now ();
    poll_locked (delay, now);
    uint64_t next = request_hedge_locked (delay, now);
    uint64_t due = wake_busy_locked (delay, now);
    next = due < next ? due : next;
    if (!TAILQ_EMPTY (&delay->elsewhere) && next > now + POLL_US)
      next = now + POLL_US;
    delay->tick_at = next;
    if (!atomic_load (&delay->stop))
      delay_cond_wait (&delay->tick, &delay->lock, next);
  }
  return NULL;
}
