/* SPDX-License-Identifier: BSD-3-Clause */
/* The engine: start and end, and the restore points that are in use.
 *
 * A *point* is a delayed restore point in this process: its `have`, its
 * sources, the pool of threads that fetches it.  Views, flights and
 * hydrations count it; the keeper closes those that nobody counted for a
 * while.
 */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <time.h>

#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

/* --- time --------------------------------------------------------------- */

uint64_t
delay_now (void)
{
  return esp_now_us ();
}

void
delay_cond_init (pthread_cond_t *cond)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
}

void
delay_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until)
{
  struct timespec t = {
    .tv_sec = (time_t) (until / SECOND),
    .tv_nsec = (long) (until % SECOND) * 1000,
  };

  if (until == UINT64_MAX)
    pthread_cond_wait (cond, mutex);
  else
    pthread_cond_timedwait (cond, mutex, &t);
}

/* Sixteen seconds a tick: a day's clock is of no use to a byte, an hour's
 * is.  All processes of a machine count alike.
 */
uint8_t
delay_age_tick (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &t);
  return (uint8_t) (t.tv_sec >> 4);
}

/* --- points --------------------------------------------------------------- */

static struct point *
find_locked (struct esp_delay *delay, const esp_uuid *uuid)
{
  struct point *p;

  LIST_FOREACH (p, &delay->points, list)
    if (esp_uuid_eq (&p->uuid, uuid))
      return p;
  return NULL;
}

static void
point_free (struct point *p)
{
  esp_have_close (p->have);
  esp_stats_row_put (p->delay->stats, p->row);
  pthread_mutex_destroy (&p->sources_lock);
  free ((void *) p->ahead);
  free (p);
}
ESP_DEFINE_CLEANUP (point, struct point *, point_free)

/* esp_have_open, without a word where UUID is not delayed: ENOENT. */
static struct esp_have *
open_have (struct esp_delay *delay, const esp_uuid *uuid)
{
  char why[WHY_MAX];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  struct esp_have *have = esp_have_open (delay->store, uuid);

  esp_catch_end (before);
  if (!have && errno != ENOENT)
    esp_error ("%s", why);
  return have;
}

static struct point *
point_new (struct esp_delay *delay, const esp_uuid *uuid)
{
  ESP_CLEANUP (point) struct point *p = NULL;
  struct esp_have *have = open_have (delay, uuid);

  if (!have)
    return NULL;
  p = calloc (1, sizeof *p);
  if (!p) {
    esp_have_close (have);
    esp_error ("malloc: %m");
    return NULL;
  }
  p->delay = delay;
  p->have = have;
  p->uuid = *uuid;
  p->refs = 1;
  pthread_mutex_init (&p->sources_lock, NULL);
  p->ahead = calloc (esp_have_entries (have) / 64 + 1, sizeof *p->ahead);
  if (!p->ahead) {
    esp_error ("malloc: %m");
    return NULL;
  }
  return ESP_STEAL (p);
}

/* Whose threads fetch it: its first source's. */
static void
pool_name (struct point *p, char name[WHY_MAX])
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  char why[WHY_MAX];
  struct esp_catch before = esp_catch_begin (why, sizeof why);

  name[0] = 0;
  if (esp_sources_load (p->delay->store, &p->uuid, &list) == 0 && list.n > 0)
    snprintf (name, WHY_MAX, "%s",
              list.s[0].url ? list.s[0].url : list.s[0].center);
  esp_catch_end (before);       /* said by who fetches */
}

int
point_get (struct esp_delay *delay, const esp_uuid *uuid, struct point **out)
{
  ESP_CLEANUP (point) struct point *mine = NULL;
  char name[WHY_MAX];

  pthread_mutex_lock (&delay->lock);
  *out = find_locked (delay, uuid);
  if (*out)
    (*out)->refs++;
  pthread_mutex_unlock (&delay->lock);
  if (*out)
    return 0;

  mine = point_new (delay, uuid);
  if (!mine)
    return errno == ENOENT ? 0 : -1;
  pool_name (mine, name);

  ESP_LOCK_SCOPE (&delay->lock);
  *out = find_locked (delay, uuid);
  if (*out) {
    (*out)->refs++;
    return 0;
  }
  mine->pool = pool_get_locked (delay, name);
  if (!mine->pool) {
    esp_error ("delayed load: cannot start a thread: %m");
    return -1;
  }
  LIST_INSERT_HEAD (&delay->points, mine, list);
  *out = ESP_STEAL (mine);
  return 0;
}

void
point_ref_locked (struct point *point)
{
  point->refs++;
}

struct esp_stats_row *
point_row_locked (struct point *point)
{
  char text[ESP_UUID_TEXT];

  if (!point->row)
    point->row = esp_stats_row (point->delay->stats, ESP_STATS_RP,
                                esp_uuid_text (&point->uuid, text));
  return point->row;
}

void
point_put_locked (struct point *point)
{
  if (--point->refs == 0)
    point->idle_since = delay_now ();
}

void
point_put (struct point *point)
{
  ESP_LOCK_SCOPE (&point->delay->lock);
  point_put_locked (point);
}

void
points_close_idle (struct esp_delay *delay, uint64_t before)
{
  LIST_HEAD (, point) idle = LIST_HEAD_INITIALIZER (idle);
  struct point *p, *next;

  pthread_mutex_lock (&delay->lock);
  for (p = LIST_FIRST (&delay->points); p; p = next) {
    next = LIST_NEXT (p, list);
    if (p->refs > 0 || p->idle_since > before)
      continue;
    LIST_REMOVE (p, list);
    LIST_INSERT_HEAD (&idle, p, list);
  }
  pthread_mutex_unlock (&delay->lock);
  for (p = LIST_FIRST (&idle); p; p = next) {
    next = LIST_NEXT (p, list);
    if (p->sources)
      sources_put (delay, p->sources);
    point_free (p);
  }
}

/* --- reads that miss ------------------------------------------------------- */

/* Entries of POINT in [OFFSET, OFFSET+LEN) that are not checked. */
static int
missing_of (struct point *p, uint64_t offset, uint64_t len,
            struct wants *wants)
{
  unsigned shift = esp_have_shift (p->have);
  size_t n = esp_have_entries (p->have);
  uint64_t last = (offset + len - 1) >> shift;

  for (size_t e = esp_have_find (p->have, (uint32_t) (offset >> shift));
       e < n && esp_have_number (p->have, e) <= last; ++e)
    if (esp_have_state (p->have, e) != ESP_HAVE_CHECKED &&
        wants_add (wants, p, e) == -1)
      return -1;
  return 0;
}

static int
fetch_point (struct esp_delay *delay, struct point *p, uint64_t offset,
             uint64_t len)
{
  __attribute__ ((cleanup (wants_clear))) struct wants wants = { 0 };
  struct waiter waiter;
  char text[ESP_UUID_TEXT];
  int r;

  if (missing_of (p, offset, len, &wants) == -1) {
    esp_error ("malloc: %m");
    return -1;
  }
  if (wants.n == 0)
    return 0;
  waiter_init (&waiter);
  pthread_mutex_lock (&delay->lock);
  r = wants_queue_locked (&wants, CLASS_DEMAND, &waiter);
  point_missed_locked (p, wants.w[0].entry, wants.w[wants.n - 1].entry);
  waiter_wait_locked (delay, &waiter, UINT64_MAX);
  waiter_clear_locked (delay, &waiter);
  pthread_mutex_unlock (&delay->lock);
  if (r >= 0 && !waiter.err)
    return 0;
  errno = r == -1 ? ENOMEM : waiter.err;
  esp_error ("restore point %s: %s", esp_uuid_text (&p->uuid, text),
             r == -1 ? "out of memory" : waiter.why);
  return -1;
}

/* esp_fetch_fn. */
static int
fetch (void *arg, struct esp_store *store, const esp_uuid *uuid,
       uint64_t offset, uint64_t len)
{
  struct esp_delay *delay = arg;

  if (store != delay->store) {
    errno = EIO;
    esp_error ("delayed load serves the store %s, not %s",
               esp_store_path (delay->store), esp_store_path (store));
    return -1;
  }
  return esp_delay_fetch (delay, uuid, offset, len);
}

int
esp_delay_fetch (struct esp_delay *delay, const esp_uuid *uuid,
                 uint64_t offset, uint64_t len)
{
  struct point *p;
  int r;

  if (len == 0)
    return 0;
  if (point_get (delay, uuid, &p) == -1)
    return -1;
  if (!p)
    return 0;
  r = fetch_point (delay, p, offset, len);
  point_put (p);
  return r;
}

/* --- start and end ---------------------------------------------------------- */

static void
set_params (struct esp_delay *delay, const struct esp_delay_params *p)
{
  delay->params = *p;
  if (p->threads == 0)
    delay->params.threads = THREADS_DEFAULT;
  if (delay->params.threads > THREADS_MAX)
    delay->params.threads = THREADS_MAX;
  if (p->readahead == 0)
    delay->params.readahead = READAHEAD_DEFAULT;
}

static void
init (struct esp_delay *delay)
{
  pthread_mutex_init (&delay->lock, NULL);
  TAILQ_INIT (&delay->elsewhere);
  TAILQ_INIT (&delay->busy);
  delay_cond_init (&delay->tick);
  delay_cond_init (&delay->keep);
  delay_cond_init (&delay->calm);
  delay->tokens_at = delay_now ();
}

static void
wake_pool_locked (struct pool *pool)
{
  pthread_cond_broadcast (&pool->work);
  pthread_cond_broadcast (&pool->look);
}

static void
wake_all_locked (struct esp_delay *delay)
{
  struct pool *pool;
  struct leg *leg;

  LIST_FOREACH (leg, &delay->legs, list)
    atomic_store (&leg->cancel, true);
  LIST_FOREACH (pool, &delay->pools, list)
    wake_pool_locked (pool);
  pthread_cond_broadcast (&delay->tick);
  pthread_cond_broadcast (&delay->keep);
  pthread_cond_broadcast (&delay->calm);
}

static void
stop_threads (struct esp_delay *delay, bool ticker, bool keeper)
{
  pthread_mutex_lock (&delay->lock);
  atomic_store (&delay->stop, true);
  wake_all_locked (delay);
  pthread_mutex_unlock (&delay->lock);
  if (keeper)
    pthread_join (delay->keeper, NULL);
  if (ticker)
    pthread_join (delay->ticker, NULL);
  pools_join (delay);
  pthread_mutex_lock (&delay->lock);
  flights_cancel_locked (delay);
  pthread_mutex_unlock (&delay->lock);
}

static void
destroy (struct esp_delay *delay)
{
  struct center *c;

  bound_free (delay);
  points_close_idle (delay, UINT64_MAX);
  pools_free (delay);
  while ((c = LIST_FIRST (&delay->centers)) != NULL) {
    LIST_REMOVE (c, list);
    esp_stats_row_put (delay->stats, c->row);
    free (c->name);
    free (c);
  }
  pthread_mutex_destroy (&delay->lock);
  pthread_cond_destroy (&delay->tick);
  pthread_cond_destroy (&delay->keep);
  pthread_cond_destroy (&delay->calm);
  esp_stats_close (delay->stats);
  free (delay);
}

static struct esp_stats *
open_stats (struct esp_store *store)
{
  CLEANUP_FREE char *dir = esp_stats_dir (store);

  return dir ? esp_stats_open (dir, program_invocation_short_name) : NULL;
}

struct esp_delay *
esp_delay_start (struct esp_store *store, const struct esp_delay_params *p)
{
  struct esp_delay *delay = calloc (1, sizeof *delay);
  int err;

  if (!delay) {
    esp_error ("malloc: %m");
    return NULL;
  }
  delay->store = store;
  set_params (delay, p);
  init (delay);
  delay->stats = open_stats (store);
  if (!delay->stats) {
    destroy (delay);
    return NULL;
  }
  if (p->profile)
    delay->boots = boots_new (delay, store);
  err = pthread_create (&delay->ticker, NULL, ticker_run, delay);
  if (err == 0) {
    err = pthread_create (&delay->keeper, NULL, keeper_run, delay);
    if (err)
      stop_threads (delay, true, false);
  }
  if (err) {
    boots_free (delay->boots);
    destroy (delay);
    errno = err;
    esp_error ("pthread_create: %m");
    return NULL;
  }
  esp_have_set_fetcher (fetch, delay);
  return delay;
}

/* At SIGTERM nbdkit closes no handle: what readers still hold goes too. */
static void
close_readers (struct esp_delay *delay)
{
  struct esp_delay_reader *r;

  while ((r = LIST_FIRST (&delay->readers)) != NULL)
    esp_delay_reader_close (r);
}

void
esp_delay_stop (struct esp_delay *delay)
{
  if (!delay)
    return;
  esp_have_set_fetcher (NULL, NULL);
  close_readers (delay);
  stop_threads (delay, true, true);
  boots_free (delay->boots);
  destroy (delay);
}

/* --- counters ----------------------------------------------------------------- */

static uint64_t
get (const atomic_uint_fast64_t *n)
{
  return atomic_load_explicit (n, memory_order_relaxed);
}

static void
add_reader (struct esp_delay_counters *out, const struct reader_counts *c)
{
  uint64_t hits = get (&c->hits), misses = get (&c->misses);

  out->reads += hits + misses;
  out->hits += hits;
  out->misses += misses;
  out->waited_us += get (&c->waited);
}

void
esp_delay_counters (const struct esp_delay *delay,
                    struct esp_delay_counters *out)
{
  const struct delay_counts *c = &delay->counts;
  const struct esp_delay_reader *r;

  *out = (struct esp_delay_counters) {
    .requests = get (&c->requests),
    .segments = get (&c->segments),
    .bytes_wire = get (&c->bytes_wire),
    .bytes_raw = get (&c->bytes_raw),
    .ahead_segments = get (&c->ahead_segments),
    .ahead_used = get (&c->ahead_used),
    .background_segments = get (&c->background_segments),
    .evicted_segments = get (&c->evicted),
    .healed_segments = get (&c->healed),
    .hedged = get (&c->hedged),
    .errors = get (&c->errors),
    .lies = get (&c->lies),
    .from_memory = get (&c->from[ESP_FROM_MEMORY]),
    .from_dir = get (&c->from[ESP_FROM_DIR]),
    .from_cluster = get (&c->from[ESP_FROM_CLUSTER]),
    .cluster_waits = get (&c->cluster_waits),
  };
  ESP_LOCK_SCOPE ((pthread_mutex_t *) &delay->lock);
  add_reader (out, &delay->closed);
  LIST_FOREACH (r, &delay->readers, list)
    add_reader (out, &r->counts);
}
