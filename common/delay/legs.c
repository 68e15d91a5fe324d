/* SPDX-License-Identifier: BSD-3-Clause */
/* Legs: a request's questions to one source each, and hedging.
 *
 * A *leg* is one question to one source.  A second one, to another source,
 * is begun by the ticker when the first is later than usual (hedging); each
 * segment is taken from the leg that has it first, and the other leg is
 * cancelled when nothing is left for it.  The worker ends the request when
 * both legs have ended; so nothing of the request is looked at without the
 * engine's lock but what is constant.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"

#define HEDGE_MIN_US UINT64_C (100000)
#define HEDGES_MAX 16u
#define SLOW_BODY (UINT64_C (64) << 10) /* bytes a second of an answer */

/* --- making way -------------------------------------------------------------- */

static void
count_demand_locked (struct leg *leg)
{
  if (leg->counted || leg->request->class != CLASS_DEMAND)
    return;
  leg->counted = true;
  leg->request->set->s[leg->source].center->demands++;
}

void
request_raise_locked (struct request *r, enum delay_class class)
{
  if (class >= r->class)
    return;
  r->class = class;
  for (unsigned i = 0; i < 2; ++i)
    if (r->legs[i].running)
      count_demand_locked (&r->legs[i]);
  pthread_cond_broadcast (&r->point->delay->calm);
  pthread_cond_signal (&r->point->delay->tick);  /* hedged from now on */
}

/* What background has to wait for, now; 0: nothing. */
static uint64_t
make_way_locked (const struct leg *leg, uint64_t begin)
{
  struct request *r = leg->request;
  struct esp_delay *delay = r->point->delay;
  uint64_t t;

  if (r->class != CLASS_BACKGROUND || atomic_load (&delay->stop) ||
      atomic_load (&leg->cancel) || delay_now () >= begin + YIELD_MAX)
    return 0;
  if (r->set->s[leg->source].center->demands > 0)
    return begin + YIELD_MAX;
  t = tokens_wait_locked (delay);
  return t < begin + YIELD_MAX ? t : begin + YIELD_MAX;
}

/* Bytes came.  Only the first ones, and background, need the lock. */
static void
leg_arrived (void *arg, size_t bytes)
{
  struct leg *leg = arg;
  struct request *r = leg->request;
  struct esp_delay *delay = r->point->delay;
  uint64_t begin, until;

  leg->bytes += bytes;
  COUNT (delay, bytes_wire, bytes);
  if (leg->first_byte && r->began != CLASS_BACKGROUND)
    return;
  ESP_LOCK_SCOPE (&delay->lock);
  begin = delay_now ();
  if (!leg->first_byte)
    leg->first_byte = begin;
  if (r->began != CLASS_BACKGROUND)
    return;
  tokens_take_locked (delay, bytes);
  while ((until = make_way_locked (leg, begin)) != 0)
    delay_cond_wait (&delay->calm, &delay->lock, until);
}

/* --- segments ------------------------------------------------------------------ */

/* F's segment is kept. */
static void
leg_took (struct leg *leg, struct flight *f, size_t len)
{
  struct request *r = leg->request;
  struct esp_delay *delay = r->point->delay;

  ESP_LOCK_SCOPE (&delay->lock);
  struct esp_stats_row *row = point_row_locked (r->point);
  COUNT (delay, segments, 1);
  COUNT (delay, bytes_raw, len);
  ESP_STATS_ADD (row, ESP_RP_CENTER_SEGMENTS, 1);
  ESP_STATS_ADD (row, ESP_RP_CENTER_BYTES, len);
  request_count_locked (delay, f, len);
  request_slot_end_locked (r, f->entry - r->first, 0, NULL);
  if (r->left == 0)
    atomic_store (&r->legs[leg == &r->legs[0]].cancel, true);
}

static int
leg_segment (void *arg, size_t entry, const void *raw, size_t len)
{
  struct leg *leg = arg;
  struct request *r = leg->request;
  struct flight *f = request_claim (r, entry);

  if (!f)
    return 0;
  if (request_keep (r, entry, raw, len) == -1)
    return -1;
  leg_took (leg, f, len);
  cached_put (r, entry - r->first, raw, len);
  return 0;
}

/* --- legs ----------------------------------------------------------------------- */

static uint64_t
hedge_time (const struct leg *leg)
{
  const struct request *r = leg->request;
  uint64_t usual = r->set->s[leg->source].center->ttfb * 3;

  return leg->begin + (usual > HEDGE_MIN_US ? usual : HEDGE_MIN_US);
}

void
leg_begin_locked (struct leg *leg, size_t source, bool trial, uint64_t tried)
{
  struct request *r = leg->request;
  struct esp_delay *delay = r->point->delay;

  leg->source = source;
  leg->trial = trial;
  leg->once = trial || sources_have_other_locked (r->set, source, tried);
  leg->running = true;
  leg->counted = false;
  leg->err = 0;
  leg->why[0] = 0;
  leg->slow = false;
  leg->bytes = leg->first_byte = leg->mark = 0;
  leg->begin = delay_now ();
  leg->hedge_at = hedge_time (leg);
  atomic_store (&leg->cancel, atomic_load (&delay->stop));
  center_begin_locked (leg);
  count_demand_locked (leg);
  LIST_INSERT_HEAD (&delay->legs, leg, list);
  if (leg->once && r->set->n > 1)
    pthread_cond_signal (&delay->tick);
  COUNT (delay, requests, 1);
}

void
leg_get (struct leg *leg)
{
  struct request *r = leg->request;
  struct esp_origin_get get = {
    .first = leg->first, .n = leg->n,
    .segment = leg_segment, .arrived = leg_arrived, .arg = leg,
    .cancel = &leg->cancel,
    .gently = r->began == CLASS_BACKGROUND, .once = leg->once,
  };
  int ok = esp_origin_get (r->set->s[leg->source].origin, &get);

  leg->err = ok == -1 ? (errno ? errno : EIO) : 0;
  snprintf (leg->why, sizeof leg->why, "%s", get.why);
}

void
leg_end_locked (struct leg *leg)
{
  struct request *r = leg->request;
  struct center *c = r->set->s[leg->source].center;

  LIST_REMOVE (leg, list);
  leg->running = false;
  if (leg->counted && --c->demands == 0)
    pthread_cond_broadcast (&r->point->delay->calm);
  /* Cancelled, or not kept: says nothing of the source, unless the other
   * leg overtook a body that hardly moved.
   */
  if (leg->err && (atomic_load (&leg->cancel) || r->store_err))
    leg->err = leg->slow && r->left == 0 ? ETIMEDOUT : ECANCELED;
  if (leg->err == ETIMEDOUT && leg->slow)
    snprintf (leg->why, sizeof leg->why,
              "its answer hardly moves: %llu bytes in %llu ms",
              (unsigned long long) leg->bytes,
              (unsigned long long) (delay_now () - leg->begin) / 1000);
  center_end_locked (leg);
  if (leg->err && leg->err != ECANCELED)
    COUNT (r->point->delay, errors, 1);
}

void
leg_span_locked (const struct request *r, const struct source *source,
                 size_t *first, size_t *n)
{
  size_t i = 0;

  while (!r->slots[i].flight)
    i++;
  *first = r->first + i;
  *n = 1;
  while (++i < r->n && r->slots[i].flight &&
         esp_origin_adjacent (source->origin, r->first + i - 1))
    ++*n;
}

/* --- hedging --------------------------------------------------------------------- */

static void *
hedge_run (void *arg)
{
  struct leg *leg = arg;
  struct request *r = leg->request;
  struct esp_delay *delay = r->point->delay;

  leg_get (leg);
  ESP_LOCK_SCOPE (&delay->lock);
  leg_end_locked (leg);
  pthread_cond_signal (&r->ended);
  delay->hedges--;
  pthread_cond_broadcast (&delay->calm);
  return NULL;
}

static void
hedge_locked (struct esp_delay *delay, struct leg *leg)
{
  struct request *r = leg->request;
  struct leg *second = &r->legs[1];
  uint64_t tried = UINT64_C (1) << leg->source;
  char why[WHY_MAX];
  pthread_t thread;
  bool trial;
  int s = sources_choose_locked (delay, r->set, tried, CLASS_AHEAD, &trial,
                                 why);

  if (s < 0 || trial || r->left == 0)
    return;
  leg->slow = leg->first_byte != 0;
  second->request = r;
  leg_span_locked (r, &r->set->s[s], &second->first, &second->n);
  leg_begin_locked (second, (size_t) s, false, tried);
  if (pthread_create (&thread, NULL, hedge_run, second) != 0) {
    leg_end_locked (second);
    return;
  }
  pthread_detach (thread);
  delay->hedges++;
  COUNT (delay, hedged, 1);
}

/* The body of LEG came slower than this, in a second: a hung center, or one
 * that trickles.  A line that was always slow is no reason.
 */
static uint64_t
slow_limit (const struct leg *leg)
{
  uint64_t usual = leg->request->set->s[leg->source].center->speed / 8;

  return usual > 0 && usual < SLOW_BODY ? usual : SLOW_BODY;
}

/* When LEG is late: for its first byte, then for each second of its body. */
static uint64_t
late_at_locked (struct leg *leg, uint64_t now)
{
  if (!leg->first_byte)
    return leg->hedge_at;
  if (leg->hedge_at < leg->first_byte + SECOND)
    leg->hedge_at = leg->first_byte + SECOND;
  if (leg->hedge_at <= now && leg->bytes - leg->mark >= slow_limit (leg)) {
    leg->mark = leg->bytes;
    leg->hedge_at = now + SECOND;
  }
  return leg->hedge_at;
}

uint64_t
request_hedge_locked (struct esp_delay *delay, uint64_t now)
{
  uint64_t next = UINT64_MAX, late;
  struct leg *leg, *after;

  for (leg = LIST_FIRST (&delay->legs); leg; leg = after) {
    struct request *r = leg->request;
    after = LIST_NEXT (leg, list);
    if (leg != &r->legs[0] || r->legs[1].running || r->legs[1].begin ||
        r->class != CLASS_DEMAND || r->set->n < 2)
      continue;
    late = late_at_locked (leg, now);
    if (late <= now && delay->hedges < HEDGES_MAX)
      hedge_locked (delay, leg);
    else if (late < next)
      next = late > now ? late : now + HEDGE_MIN_US;
  }
  return next;
}
