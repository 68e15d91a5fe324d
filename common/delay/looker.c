/* SPDX-License-Identifier: BSD-3-Clause */
/* The looker: a pool's thread beside its workers, for demands that wait
 * because all of those wait for a center.  What the segment cache has they get
 * nevertheless: no hit waits for another's miss.  Demands that only wait for
 * their turn are none of its business: it would tear them apart.
 *
 * It takes no lease and waits for nobody: what is not there yet goes back
 * to its place in the queue, and is looked for again later, until a worker
 * takes it.
 */

#include <config.h>

#include "delay/internal.h"
#include "util/cleanup.h"

#define LOOK_BATCH 16u
#define LOOK_MOST SECOND                /* between looks for one: at most */

/* Demands whose time has come, in the order of the queue; *UNTIL: when the
 * next one's will.
 */
static size_t
take_locked (struct pool *pool, struct request *out[LOOK_BATCH],
             uint64_t *until)
{
  uint64_t now = delay_now ();
  struct flight *f, *next;
  size_t n = 0;

  *until = UINT64_MAX;
  for (f = TAILQ_FIRST (&pool->queue[CLASS_DEMAND]); f && n < LOOK_BATCH;
       f = next) {
    next = TAILQ_NEXT (f, queue);
    if (f->look_at > now) {
      *until = f->look_at < *until ? f->look_at : *until;
      continue;
    }
    if (f->look_after < LOOK_MOST)
      f->look_after *= 2;
    f->look_at = now + f->look_after;
    out[n] = request_new_locked (f, 1);
    if (out[n])
      n++;
  }
  return n;
}

/* Those that wait are looked for only while nobody else can take them. */
static bool
has_work_locked (struct pool *pool)
{
  return pool->idle == 0 && !TAILQ_EMPTY (&pool->queue[CLASS_DEMAND]);
}

static uint64_t
look_locked (struct pool *pool)
{
  struct esp_delay *delay = pool->delay;
  struct request *r[LOOK_BATCH];
  uint64_t until;
  size_t n = take_locked (pool, r, &until);

  if (n == 0)
    return until;
  pthread_mutex_unlock (&delay->lock);
  for (size_t i = 0; i < n; ++i)
    request_look (r[i]);
  pthread_mutex_lock (&delay->lock);
  while (n > 0)                 /* the first one to the head, behind others */
    request_look_end_locked (r[--n]);
  return delay_now ();
}

void *
looker_run (void *arg)
{
  struct pool *pool = arg;
  struct esp_delay *delay = pool->delay;

  ESP_LOCK_SCOPE (&delay->lock);
  while (!atomic_load (&delay->stop)) {
    uint64_t until = has_work_locked (pool) && cached_is_there ()
      ? look_locked (pool) : UINT64_MAX;
    if (until > delay_now () && !atomic_load (&delay->stop))
      delay_cond_wait (&pool->look, &delay->lock, until);
  }
  return NULL;
}
