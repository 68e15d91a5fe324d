/* SPDX-License-Identifier: BSD-3-Clause */
/* Hydration while somebody waits for it: for the command line.
 *
 * All of the chain is wanted in class ahead, entry by entry from root to tip,
 * with so much on its way at once as keeps all connections busy.  What
 * another process fetches just then is waited for, not fetched.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define WINDOW (UINT64_C (64) << 20)    /* raw bytes that may be queued */
#define TELL_EVERY (SECOND / 5)

struct work {
  struct esp_delay *delay;
  struct dview *view;
  struct waiter waiter;
  esp_progress_fn progress;
  void *arg;
  uint64_t told, total;
};

static uint64_t
sum (struct dview *v, uint64_t (*what) (const struct esp_have *have))
{
  uint64_t n = 0;
  struct point *p;

  for (unsigned i = 1; i <= v->depth; ++i)
    if (dview_point (v, i, &p) == 0 && p)
      n += what (p->have);
  return n;
}

static int
tell (struct work *w)
{
  uint64_t now = delay_now (), done;

  if (!w->progress || now < w->told + TELL_EVERY)
    return 0;
  w->told = now;
  done = sum (w->view, esp_have_local);
  if (w->progress (w->arg, done < w->total ? done : w->total, w->total) == 0)
    return 0;
  errno = ECANCELED;
  esp_error ("interrupted: what came stays");
  return -1;
}

/* Wait until no more than MOST are on their way. */
static int
wait_for (struct work *w, unsigned most)
{
  struct esp_delay *delay = w->delay;

  for (;;) {
    pthread_mutex_lock (&delay->lock);
    unsigned pending = w->waiter.pending;
    int err = w->waiter.err;
    w->waiter.enough = most;
    if (pending > most && !err)
      delay_cond_wait (&w->waiter.cond, &delay->lock,
                       delay_now () + TELL_EVERY / 4);
    pthread_mutex_unlock (&delay->lock);
    if (err) {
      errno = err;
      esp_error ("%s", w->waiter.why);
      return -1;
    }
    if (tell (w) == -1)
      return -1;
    if (pending <= most)
      return 0;
  }
}

/* *PENDING: how many are on their way then. */
static int
want (struct work *w, struct point *p, size_t entry, unsigned *pending)
{
  ESP_LOCK_SCOPE (&w->delay->lock);
  int r = flight_want_locked (p, entry, CLASS_AHEAD, &w->waiter);

  *pending = w->waiter.pending;
  if (r >= 0)
    return 0;
  errno = ENOMEM;
  esp_error ("malloc: %m");
  return -1;
}

static int
do_point (struct work *w, struct point *p)
{
  unsigned most = (unsigned) (WINDOW >> esp_have_shift (p->have)), pending;
  size_t n = esp_have_entries (p->have);

  if (esp_have_complete (p->have))
    return 0;
  for (size_t e = 0; e < n; ++e) {
    if (esp_have_state (p->have, e) == ESP_HAVE_CHECKED)
      continue;
    if (want (w, p, e, &pending) == -1)
      return -1;
    if (pending >= most && wait_for (w, most / 2) == -1)
      return -1;
  }
  return 0;
}

static int
do_chain (struct work *w)
{
  struct point *p;

  for (unsigned i = 1; i <= w->view->depth; ++i)
    if (dview_point (w->view, i, &p) == -1 ||
        (p && do_point (w, p) == -1))
      return -1;
  if (wait_for (w, 0) == -1)
    return -1;
  for (unsigned i = 1; i <= w->view->depth; ++i)
    if (dview_point (w->view, i, &p) == -1 ||
        (p && esp_have_sync (p->have) == -1))
      return -1;
  return 0;
}

int
esp_delay_hydrate (struct esp_delay *delay, const esp_uuid *uuid,
                   esp_progress_fn progress, void *arg)
{
  struct work w = { .delay = delay, .progress = progress, .arg = arg };
  int r, err;

  if (dview_get (delay, uuid, &w.view) == -1)
    return -1;
  w.total = sum (w.view, esp_have_bytes);
  waiter_init (&w.waiter);
  r = do_chain (&w);
  err = errno;
  pthread_mutex_lock (&delay->lock);
  waiter_clear_locked (delay, &w.waiter);
  pthread_mutex_unlock (&delay->lock);
  dview_put (w.view);
  errno = err;
  return r;
}
