/* SPDX-License-Identifier: BSD-3-Clause */
/* A bounded store: when more is local than delayload-max allows, what was
 * not read for longest is given back.
 *
 * All delayed restore points of the store count, whoever fetched them.  The
 * keeper of one process at a time does it (a flock on run/evict.lock).  Ages
 * are ticks of 16 seconds in a byte; so that an old one never looks young
 * again when the byte has gone round, ages beyond 192 ticks are held there.
 *
 * What was used in this very tick stays unless the store would grow far
 * beyond its bound; what is on its way has a flight, and stays.  A read that
 * copies while a segment is taken away looks again (store/have.h).
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define AGE_MAX 192u
#define BATCH 256u
#define LOOK_EVERY SECOND
#define LIST_EVERY (10 * SECOND)

/* The keeper's alone. */
struct bound {
  esp_uuid *rps;                /* all delayed restore points of the store */
  size_t n;
  uint64_t list_at, look_at;
  uint8_t held_at;              /* tick at which ages were held back */
};

/* Those that are opened to take something away; only as long as that lasts,
 * since who has them open keeps them from being deleted.
 */
struct open_points {
  struct point **p;
  size_t n;
};

static void
load_list (struct esp_delay *delay, struct bound *b)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };

  if (esp_catalog_rp_list (esp_store_catalog (delay->store), NULL,
                           &list) == -1)
    return;
  free (b->rps);
  b->n = 0;
  b->rps = calloc (list.n ? list.n : 1, sizeof *b->rps);
  for (size_t i = 0; b->rps && i < list.n; ++i)
    if (list.rp[i].kind == ESP_RP_DELAYED)
      b->rps[b->n++] = list.rp[i].uuid;
}

static void
open_points_clear (struct open_points *o)
{
  for (size_t i = 0; i < o->n; ++i)
    point_put (o->p[i]);
  free (o->p);
}

static void
open_all (struct esp_delay *delay, const struct bound *b,
          struct open_points *o)
{
  o->p = calloc (b->n ? b->n : 1, sizeof (struct point *));
  for (size_t i = 0; o->p && i < b->n; ++i)
    if (point_get (delay, &b->rps[i], &o->p[o->n]) == 0 && o->p[o->n])
      o->n++;
}

static unsigned
age (const struct point *p, size_t entry, uint8_t tick)
{
  return (uint8_t) (tick - esp_have_age (p->have, entry));
}

/* Local bytes by age; ages are held at AGE_MAX. */
static void
count_ages (const struct open_points *b, uint8_t tick, uint64_t sums[256])
{
  memset (sums, 0, 256 * sizeof *sums);
  for (size_t i = 0; i < b->n; ++i) {
    struct esp_have *have = b->p[i]->have;
    for (size_t e = 0; e < esp_have_entries (have); ++e) {
      if (esp_have_state (have, e) != ESP_HAVE_CHECKED)
        continue;
      unsigned a = age (b->p[i], e, tick);
      if (a > AGE_MAX)
        esp_have_touch (have, e, (uint8_t) (tick - AGE_MAX));
      sums[a > AGE_MAX ? AGE_MAX : a] += esp_have_raw_size (have, e);
    }
  }
}

static uint64_t
local_bytes (struct esp_delay *delay, const struct bound *b)
{
  uint64_t sum = 0, n;

  for (size_t i = 0; i < b->n; ++i)
    if (esp_have_peek (delay->store, &b->rps[i], &n) == 0)
      sum += n;
  return sum;
}

/* Give back what of P is at least as old as OLDEST, up to *BYTES. */
static int
take_from (struct esp_delay *delay, struct point *p, unsigned oldest,
           uint8_t tick, uint64_t *bytes)
{
  size_t entries[BATCH], n = 0, total = esp_have_entries (p->have);

  for (size_t e = 0; e < total && *bytes > 0; ++e) {
    if (esp_have_state (p->have, e) != ESP_HAVE_CHECKED ||
        age (p, e, tick) < oldest)
      continue;
    pthread_mutex_lock (&delay->lock);
    bool flying = flight_find_locked (p, e) != NULL;
    pthread_mutex_unlock (&delay->lock);
    if (flying)
      continue;
    uint64_t size = esp_have_raw_size (p->have, e);
    *bytes -= size < *bytes ? size : *bytes;
    entries[n++] = e;
    if (n < BATCH && *bytes > 0)
      continue;
    if (esp_have_drop (p->have, entries, n) == -1)
      return -1;
    COUNT (delay, evicted, n);
    n = 0;
  }
  if (n > 0 && esp_have_drop (p->have, entries, n) == -1)
    return -1;
  COUNT (delay, evicted, n);
  return 0;
}

/* Oldest first, until BYTES are free. */
static void
take_away (struct esp_delay *delay, const struct bound *b, uint64_t bytes,
           unsigned youngest)
{
  uint8_t tick = delay_age_tick ();
  __attribute__ ((cleanup (open_points_clear))) struct open_points o = { 0 };
  uint64_t sums[256], sum = 0;
  unsigned oldest = AGE_MAX;

  open_all (delay, b, &o);
  count_ages (&o, tick, sums);
  while (oldest > youngest && (sum += sums[oldest]) < bytes)
    oldest--;
  /* Those that are older than the last step first. */
  for (unsigned step = oldest + 1; ; --step) {
    for (size_t i = 0; i < o.n && bytes > 0; ++i)
      if (take_from (delay, o.p[i], step, tick, &bytes) == -1)
        return;
    if (step == oldest || bytes == 0)
      return;
  }
}

static int
evict_lock (struct esp_delay *delay)
{
  CLEANUP_CLOSE int fd = openat (esp_store_fd (delay->store),
                                 "run/evict.lock",
                                 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                                 0600);

  if (fd == -1 || esp_lock (fd, true) == -1)
    return -1;
  return esp_steal_fd (&fd);
}

static void
look (struct esp_delay *delay, struct bound *b)
{
  uint64_t max = delay->params.max, local = local_bytes (delay, b);

  pthread_mutex_lock (&delay->lock);
  delay->stored = 0;
  delay->full = local > max - max / 10;
  pthread_mutex_unlock (&delay->lock);
  if (local <= max)
    return;
  CLEANUP_CLOSE int lock = evict_lock (delay);
  if (lock == -1)
    return;
  local = local_bytes (delay, b);
  if (local > max)
    take_away (delay, b, local - (max - max / 20), 1);
  local = local_bytes (delay, b);
  if (local > max + max / 8)
    take_away (delay, b, local - max, 0);
}

/* Ages are held back also when nothing has to go. */
static void
hold_ages (struct esp_delay *delay, struct bound *b)
{
  __attribute__ ((cleanup (open_points_clear))) struct open_points o = { 0 };
  uint8_t tick = delay_age_tick ();
  uint64_t sums[256];

  if ((uint8_t) (tick - b->held_at) < 32)
    return;
  b->held_at = tick;
  open_all (delay, b, &o);
  count_ages (&o, tick, sums);
}

void
bound_keep (struct esp_delay *delay)
{
  struct bound *b = delay->bound;
  uint64_t now = delay_now ();

  if (!b)
    b = delay->bound = calloc (1, sizeof *b);
  if (!b)
    return;
  pthread_mutex_lock (&delay->lock);
  bool soon = delay->stored > delay->params.max / 64;
  pthread_mutex_unlock (&delay->lock);
  if (now < b->look_at && !soon)
    return;
  b->look_at = now + LOOK_EVERY;
  if (now >= b->list_at) {
    load_list (delay, b);
    b->list_at = now + LIST_EVERY;
  }
  look (delay, b);
  hold_ages (delay, b);
}

void
bound_free (struct esp_delay *delay)
{
  if (!delay->bound)
    return;
  free (delay->bound->rps);
  free (ESP_STEAL (delay->bound));
}
