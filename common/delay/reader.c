/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads: what a read needs and is not local is wanted, and waited for.
 *
 * Connections to one tip share a *view*: which owners of the chain are
 * delayed restore points.  An owner is looked at when a read first meets it;
 * the keeper looks at the others.  Once all are known and few are delayed,
 * a read of a tip that is all local asks each of those whether it is
 * complete (a load), and is done: that is asked anew by each read, since
 * what was complete can be given back.  Else the chain map's runs are walked
 * and the states of their segments looked at; neither takes a lock.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chain/chain.h"
#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define LOAD(p) atomic_load_explicit (p, memory_order_acquire)

/* --- wants -------------------------------------------------------------------- */

int
wants_add (struct wants *wants, struct point *point, size_t entry)
{
  /* Runs of two owners may take turns within a segment. */
  for (size_t i = wants->n, k = 0; i > 0 && k < 4; --i, ++k)
    if (wants->w[i - 1].point == point && wants->w[i - 1].entry == entry)
      return 0;
  if (!wants->w) {
    wants->w = wants->few;
    wants->room = sizeof wants->few / sizeof wants->few[0];
  }
  if (wants->n == wants->room) {
    struct want *w = malloc (2 * wants->room * sizeof *w);
    if (!w)
      return -1;
    memcpy (w, wants->w, wants->n * sizeof *w);
    if (wants->w != wants->few)
      free (wants->w);
    wants->w = w;
    wants->room *= 2;
  }
  wants->w[wants->n++] = (struct want) { point, entry };
  return 0;
}

void
wants_clear (struct wants *wants)
{
  if (wants->w != wants->few)
    free (wants->w);
  memset (wants, 0, sizeof *wants);
}

int
wants_queue_locked (const struct wants *wants, enum delay_class class,
                    struct waiter *waiter)
{
  int new = 0;

  for (size_t i = 0; i < wants->n; ++i) {
    int r = flight_want_locked (wants->w[i].point, wants->w[i].entry, class,
                                waiter);
    if (r == -1)
      return -1;
    new += r;
  }
  return new;
}
#define CLEANUP_WANTS __attribute__ ((cleanup (wants_clear)))

/* --- views -------------------------------------------------------------------- */

struct point point_not_delayed;

static void
dview_free (struct dview *v)
{
  struct dview_fast *fast = LOAD (&v->fast);

  for (unsigned i = 1; v->points && i <= v->depth; ++i) {
    struct point *p = LOAD (&v->points[i]);
    if (p && p != &point_not_delayed)
      point_put (p);
  }
  free ((void *) v->points);
  free (fast);
  esp_image_close (v->image);
  free (v);
}
ESP_DEFINE_CLEANUP (dview, struct dview *, dview_free)

static struct dview *
find_locked (struct esp_delay *delay, const esp_uuid *uuid)
{
  struct dview *v;

  LIST_FOREACH (v, &delay->views, list)
    if (esp_uuid_eq (esp_image_uuid (v->image), uuid)) {
      v->refs++;
      return v;
    }
  return NULL;
}

static struct dview *
dview_new (struct esp_delay *delay, const esp_uuid *uuid)
{
  ESP_CLEANUP (dview) struct dview *v = calloc (1, sizeof *v);

  if (!v) {
    esp_error ("malloc: %m");
    return NULL;
  }
  v->delay = delay;
  v->refs = 1;
  v->image = esp_image_open (delay->store, uuid);
  if (!v->image)
    return NULL;
  v->chain = esp_image_chain (v->image);
  v->depth = esp_chain_depth (v->chain);
  v->points = calloc (v->depth + 1, sizeof *v->points);
  if (!v->points) {
    esp_error ("malloc: %m");
    return NULL;
  }
  return ESP_STEAL (v);
}

int
dview_get (struct esp_delay *delay, const esp_uuid *uuid, struct dview **out)
{
  ESP_CLEANUP (dview) struct dview *mine = NULL;

  pthread_mutex_lock (&delay->lock);
  *out = find_locked (delay, uuid);
  pthread_mutex_unlock (&delay->lock);
  if (*out)
    return 0;
  mine = dview_new (delay, uuid);
  if (!mine)
    return -1;
  ESP_LOCK_SCOPE (&delay->lock);
  *out = find_locked (delay, uuid);
  if (!*out) {
    LIST_INSERT_HEAD (&delay->views, mine, list);
    *out = ESP_STEAL (mine);
    pthread_cond_signal (&delay->keep);
  }
  return 0;
}

void
dview_put (struct dview *view)
{
  struct esp_delay *delay = view->delay;

  pthread_mutex_lock (&delay->lock);
  bool last = --view->refs == 0;
  if (last)
    LIST_REMOVE (view, list);
  pthread_mutex_unlock (&delay->lock);
  if (last)
    dview_free (view);
}

static struct point *
open_owner (struct dview *v, unsigned owner)
{
  struct point *p, *before = NULL;

  if (point_get (v->delay, esp_chain_owner (v->chain, owner), &p) == -1)
    return NULL;
  if (!p)
    p = &point_not_delayed;
  if (!atomic_compare_exchange_strong (&v->points[owner], &before, p) &&
      p != &point_not_delayed)
    point_put (p);
  return before ? before : p;
}

int
dview_point (struct dview *view, unsigned owner, struct point **out)
{
  struct point *p = LOAD (&view->points[owner]);

  if (__builtin_expect (!p, 0))
    p = open_owner (view, owner);
  *out = p == &point_not_delayed ? NULL : p;
  return p ? 0 : -1;
}

/* All owners are known: few that are delayed make the fast way. */
static void
make_fast (struct dview *v)
{
  struct dview_fast *fast = calloc (1, sizeof *fast), *before = NULL;

  if (!fast)
    return;                     /* the slow way is right too */
  for (unsigned i = 1; i <= v->depth; ++i) {
    struct point *p = LOAD (&v->points[i]);
    if (p == &point_not_delayed)
      continue;
    if (fast->n == VIEW_FAST_MAX) {
      free (fast);
      return;
    }
    fast->p[fast->n++] = p;
  }
  if (!atomic_compare_exchange_strong (&v->fast, &before, fast))
    free (fast);
}

void
dview_resolve (struct dview *view)
{
  unsigned i = atomic_load (&view->resolved);
  char why[WHY_MAX];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  struct point *p;

  /* What cannot be opened says so to the read that needs it. */
  while (i < view->depth && !atomic_load (&view->delay->stop) &&
         dview_point (view, i + 1, &p) == 0)
    i++;
  esp_catch_end (before);
  if (i == view->depth && atomic_exchange (&view->resolved, i) != i &&
      !view->delay->params.max) /* with max, each use is noted */
    make_fast (view);
}

/* --- what is missing ------------------------------------------------------------ */

/* Is all of it local, as far as a few loads can tell? */
static inline bool
all_local (struct dview *v)
{
  const struct dview_fast *fast = LOAD (&v->fast);

  if (!fast)
    return false;
  for (unsigned i = 0; i < fast->n; ++i)
    if (!esp_have_complete (fast->p[i]->have))
      return false;
  return true;
}

static void
note_use (struct point *p, size_t entry, uint8_t tick)
{
  uint64_t bit = UINT64_C (1) << (entry % 64);
  _Atomic uint64_t *word = &p->ahead[entry / 64];

  if ((atomic_load_explicit (word, memory_order_relaxed) & bit) &&
      (atomic_fetch_and (word, ~bit) & bit))
    COUNT (p->delay, ahead_used, 1);
  if (p->delay->params.max && esp_have_age (p->have, entry) != tick)
    esp_have_touch (p->have, entry, tick);
}

/* The entries of POINT for [OFFSET, OFFSET+LEN).  USE: somebody reads it. */
static int
look_at_run (struct point *p, uint64_t offset, uint64_t len, bool use,
             struct wants *out)
{
  struct esp_have *have = p->have;
  unsigned shift = esp_have_shift (have);
  size_t n = esp_have_entries (have);
  uint64_t last = (offset + len - 1) >> shift;
  uint8_t tick = use && p->delay->params.max ? delay_age_tick () : 0;

  for (size_t e = esp_have_find (have, (uint32_t) (offset >> shift));
       e < n && esp_have_number (have, e) <= last; ++e) {
    if (use)
      note_use (p, e, tick);
    if (esp_have_state (have, e) != ESP_HAVE_CHECKED &&
        wants_add (out, p, e) == -1)
      return -1;
  }
  return 0;
}

static int
look_at (struct dview *v, uint64_t offset, uint64_t count, bool use,
         struct wants *out)
{
  uint64_t end = offset + count;
  struct esp_run run;
  struct point *p;

  while (offset < end) {
    uint64_t block = offset >> ESP_BLOCK_SHIFT;
    if (esp_chain_run (v->chain, block, esp_blocks (end) - block, &run) == -1)
      return -1;
    uint64_t next = (block + run.nblocks) << ESP_BLOCK_SHIFT;
    if (next > end)
      next = end;
    if (run.state == ESP_DATA) {
      if (dview_point (v, run.owner, &p) == -1)
        return -1;
      if (p && look_at_run (p, offset, next - offset, use, out) == -1) {
        esp_error ("malloc: %m");
        return -1;
      }
    }
    offset = next;
  }
  return 0;
}

int
dview_missing (struct dview *view, uint64_t offset, uint64_t count,
              struct wants *out)
{
  return look_at (view, offset, count, false, out);
}

/* --- readers --------------------------------------------------------------------- */

struct esp_delay_reader *
esp_delay_reader_open (struct esp_delay *delay, struct esp_image *image)
{
  CLEANUP_FREE struct esp_delay_reader *r = calloc (1, sizeof *r);

  if (!r) {
    esp_error ("malloc: %m");
    return NULL;
  }
  r->delay = delay;
  r->size = esp_image_size (image);
  r->cap = delay->params.readahead;
  if (dview_get (delay, esp_image_uuid (image), &r->view) == -1)
    return NULL;
  pthread_mutex_init (&r->ahead_lock, NULL);
  pthread_mutex_lock (&delay->lock);
  LIST_INSERT_HEAD (&delay->readers, r, list);
  pthread_cond_signal (&delay->keep);
  pthread_mutex_unlock (&delay->lock);
  if (delay->boots)
    r->recorder = recorder_open (delay->boots, r);
  atomic_store (&r->recording, r->recorder != NULL);
  return ESP_STEAL (r);
}

void
esp_delay_reader_count (struct esp_delay_reader *reader,
                        struct esp_stats_row *row)
{
  reader->row = row;
}

static void
add_counts (struct reader_counts *sum, const struct reader_counts *c)
{
  sum->hits += c->hits;
  sum->misses += c->misses;
  sum->waited += c->waited;
}

void
esp_delay_reader_close (struct esp_delay_reader *reader)
{
  if (!reader)
    return;
  struct esp_delay *delay = reader->delay;

  if (reader->recorder)
    recorder_close (reader->recorder);
  pthread_mutex_lock (&delay->lock);
  LIST_REMOVE (reader, list);
  add_counts (&delay->closed, &reader->counts);
  pthread_mutex_unlock (&delay->lock);
  dview_put (reader->view);
  pthread_mutex_destroy (&reader->ahead_lock);
  free (reader);
}

struct esp_store *
reader_store (const struct esp_delay_reader *reader)
{
  return reader->delay->store;
}

struct esp_image *
reader_image (const struct esp_delay_reader *reader)
{
  return reader->view->image;
}

bool
reader_is_delayed (struct esp_delay_reader *reader)
{
  dview_resolve (reader->view);
  const struct dview_fast *fast = LOAD (&reader->view->fast);
  return fast ? !all_local (reader->view) : true;
}

/* --- reading ---------------------------------------------------------------------- */

static void
count (atomic_uint_fast64_t *n, uint64_t by)
{
  atomic_fetch_add_explicit (n, by, memory_order_relaxed);
}

static void
count_wait (struct esp_delay_reader *r, uint64_t us)
{
  count (&r->counts.waited, us);
  if (!r->row)
    return;
  ESP_STATS_ADD (r->row, ESP_DISK_MISSES, 1);
  ESP_STATS_ADD (r->row, ESP_DISK_WAITED_US, us);
}

/* NBD knows few errors; the client gets what it can use. */
static int
to_client (int err)
{
  return err == ENOSPC || err == ENOMEM ? err : EIO;
}

/* Until WAITER has all, or nobody needs it any more. */
static void
wait_while_wanted (struct esp_delay *delay, struct waiter *waiter)
{
  bool (*ending) (void) = delay->params.ending;

  pthread_mutex_lock (&delay->lock);
  waiter_wait_locked (delay, waiter,
                      ending ? delay_now () + SECOND / 4 : UINT64_MAX);
  while (waiter->pending > 0) {
    pthread_mutex_unlock (&delay->lock);
    bool end = ending ();
    pthread_mutex_lock (&delay->lock);
    if (end && waiter->pending > 0 && !waiter->err) {
      waiter->err = ECANCELED;
      snprintf (waiter->why, sizeof waiter->why,
                "the server is ending, or the client is gone");
    }
    if (end)
      break;
    waiter_wait_locked (delay, waiter, delay_now () + SECOND / 4);
  }
  waiter_clear_locked (delay, waiter);
  pthread_mutex_unlock (&delay->lock);
}

/* Wait for WANTS; what comes after OFFSET+COUNT is asked for behind them. */
static int
wait_for (struct esp_delay_reader *r, const struct wants *wants,
          uint64_t offset, uint64_t n, int *err)
{
  struct esp_delay *delay = r->delay;
  uint64_t begin = delay_now ();
  struct waiter waiter;
  int queued;

  waiter_init (&waiter);
  pthread_mutex_lock (&delay->lock);
  queued = wants_queue_locked (wants, CLASS_DEMAND, &waiter);
  pthread_mutex_unlock (&delay->lock);
  reader_moved (r, offset, n);
  wait_while_wanted (delay, &waiter);
  count_wait (r, delay_now () - begin);
  if (queued >= 0 && !waiter.err)
    return 0;
  errno = queued == -1 ? ENOMEM : waiter.err;
  *err = to_client (errno);
  esp_error ("%s", queued == -1 ? "out of memory" : waiter.why);
  return -1;
}

static bool
outside (const struct esp_delay_reader *r, uint64_t offset, uint64_t n)
{
  return n > r->size || offset > r->size - n;
}

int
esp_delay_read (struct esp_delay_reader *reader, uint64_t offset,
                uint64_t n, int *err)
{
  CLEANUP_WANTS struct wants wants = { .n = 0 };
  bool recorded = atomic_load_explicit (&reader->recording,
                                        memory_order_relaxed);

  if (recorded && !recorder_touch (reader->recorder, offset, n))
    atomic_store_explicit (&reader->recording, false, memory_order_relaxed);
  /* While a boot is recorded, what was fetched ahead is counted as used. */
  if ((!recorded && all_local (reader->view)) || outside (reader, offset, n)) {
    count (&reader->counts.hits, 1);
    return 0;                   /* below says what is wrong outside */
  }
  if (look_at (reader->view, offset, n, true, &wants) == -1) {
    *err = to_client (errno);
    count (&reader->counts.misses, 1);
    return -1;
  }
  if (wants.n == 0) {
    count (&reader->counts.hits, 1);
    reader_moved (reader, offset, n);
    return 0;
  }
  count (&reader->counts.misses, 1);
  return wait_for (reader, &wants, offset, n, err);
}

int
reader_ahead (struct esp_delay_reader *reader, uint64_t offset, uint64_t n)
{
  CLEANUP_WANTS struct wants wants = { .n = 0 };

  if (offset >= reader->size)
    return 0;
  if (n > reader->size - offset)
    n = reader->size - offset;
  if (dview_missing (reader->view, offset, n, &wants) == -1)
    return -1;
  if (wants.n == 0)
    return 0;
  ESP_LOCK_SCOPE (&reader->delay->lock);
  return wants_queue_locked (&wants, CLASS_AHEAD, NULL);
}

int
esp_delay_prefetch (struct esp_delay_reader *reader, uint64_t offset,
                    uint64_t n)
{
  if (all_local (reader->view))
    return 0;
  return reader_ahead (reader, offset, n) == -1 ? -1 : 0;
}

uint64_t
delay_ahead_pending (struct esp_delay *delay)
{
  ESP_LOCK_SCOPE (&delay->lock);
  return delay->ahead_pending;
}
