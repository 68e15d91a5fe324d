/* SPDX-License-Identifier: BSD-3-Clause */
/* A request: neighbouring flights that one worker gets.
 *
 *   1. each entry's lock between processes is tried (ELSEWHERE where another
 *      has it), and its state looked at again: it may have come meanwhile, or
 *      be LOCAL and only need its check;
 *   2. what is left and hangs together is asked from the best source; what
 *      does not goes back into the queue;
 *   3. each segment ends its flight as it comes, after it was stored;
 *   4. a source that fails, or lies, is followed by the next one.
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
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define HEDGE_MIN_US UINT64_C (100000)
#define HEDGES_MAX 16u
#define SLOW_BODY (UINT64_C (64) << 10) /* bytes a second of an answer */
#define LEFT_OUT_LIAR (600 * SECOND)
#define LEFT_OUT_GONE (60 * SECOND)
#define NOSPACE_PAUSE (30 * SECOND)
/* Background makes way so long at a time: far below any time-out. */
#define YIELD_MAX (2 * SECOND)

struct request *
request_new_locked (struct flight *first, size_t n)
{
  struct request *r = calloc (1, sizeof *r);

  if (r)
    r->slots = calloc (n, sizeof *r->slots);
  if (!r || !r->slots) {
    free (r);
    return NULL;
  }
  r->point = first->point;
  point_ref_locked (r->point);
  r->class = r->began = first->class;
  r->first = first->entry;
  r->n = r->left = n;
  delay_cond_init (&r->ended);
  for (size_t i = 0; i < n; ++i) {
    struct flight *f = i ? flight_find_locked (r->point, r->first + i) : first;
    flight_take_locked (f, r);
    r->slots[i].flight = f;
  }
  return r;
}

static void
request_free_locked (struct request *r)
{
  point_put_locked (r->point);
  pthread_cond_destroy (&r->ended);
  free (r->slots);
  free (r);
}

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

/* The flight that ENTRY still has to end, NULL where the other leg has it. */
static struct flight *
claim (struct request *r, size_t entry)
{
  struct slot *s = &r->slots[entry - r->first];

  ESP_LOCK_SCOPE (&r->point->delay->lock);
  if (!s->flight || s->storing)
    return NULL;
  s->storing = true;
  return s->flight;
}

static void
slot_end_locked (struct request *r, size_t i, int err, const char *why)
{
  struct flight *f = r->slots[i].flight;

  r->slots[i].flight = NULL;
  r->slots[i].storing = false;
  r->left--;
  flight_end_locked (f, err, why);
}

static void
count_segment_locked (struct esp_delay *delay, const struct flight *f,
                      size_t len)
{
  COUNT (delay, segments, 1);
  COUNT (delay, bytes_raw, len);
  if (f->born == CLASS_AHEAD)
    COUNT (delay, ahead_segments, 1);
  if (f->born == CLASS_BACKGROUND)
    COUNT (delay, background_segments, 1);
  delay->stored += len;
  if (delay->params.max && delay->stored > delay->params.max / 64)
    pthread_cond_signal (&delay->keep);
}

/* Keep it.  0, or -1 with r->store_err. */
static int
keep (struct request *r, size_t entry, const void *raw, size_t len)
{
  struct esp_have *have = r->point->have;
  char why[WHY_MAX];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int ok = esp_have_store (have, entry, raw, len), err = errno;

  esp_catch_end (before);
  if (ok == 0) {
    esp_have_touch (have, entry, delay_age_tick ());
    esp_have_unlock (have, entry);
    return 0;
  }
  ESP_LOCK_SCOPE (&r->point->delay->lock);
  r->slots[entry - r->first].storing = false;
  r->store_err = err;
  snprintf (r->store_why, sizeof r->store_why, "%s", why);
  if (err == ENOSPC || err == EDQUOT)
    r->point->delay->nospace_until = delay_now () + NOSPACE_PAUSE;
  errno = err;
  return -1;
}

static int
leg_segment (void *arg, size_t entry, const void *raw, size_t len)
{
  struct leg *leg = arg;
  struct request *r = leg->request;
  struct esp_delay *delay = r->point->delay;
  struct flight *f = claim (r, entry);

  if (!f)
    return 0;
  if (keep (r, entry, raw, len) == -1)
    return -1;
  ESP_LOCK_SCOPE (&delay->lock);
  count_segment_locked (delay, f, len);
  slot_end_locked (r, entry - r->first, 0, NULL);
  if (r->left == 0)
    atomic_store (&r->legs[leg == &r->legs[0]].cancel, true);
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

static void
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

static void
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

static void
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

/* Entries that are left, from the first one on, as far as they follow each
 * other in SOURCE; those behind are left to the next round.
 */
static void
span_locked (const struct request *r, const struct source *source,
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
  span_locked (r, &r->set->s[s], &second->first, &second->n);
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

/* --- before it flies ------------------------------------------------------------- */

enum need { NEED_FETCH, NEED_NOTHING, NEED_ELSEWHERE };

static enum need
look (struct point *p, size_t entry)
{
  char why[WHY_MAX];

  if (esp_have_state (p->have, entry) == ESP_HAVE_CHECKED)
    return NEED_NOTHING;
  if (!esp_have_try_lock (p->have, entry))
    return NEED_ELSEWHERE;
  switch (esp_have_state (p->have, entry)) {
  case ESP_HAVE_ABSENT: return NEED_FETCH;
  case ESP_HAVE_LOCAL: {
    struct esp_catch before = esp_catch_begin (why, sizeof why);
    int r = esp_have_check (p->have, entry, false);
    esp_catch_end (before);
    if (r != 1) {
      COUNT (p->delay, healed, 1);
      return NEED_FETCH;
    }
    break;
  }
  case ESP_HAVE_CHECKED: break;
  }
  esp_have_unlock (p->have, entry);
  return NEED_NOTHING;
}

/* The flight goes on without this request. */
static struct flight *
slot_leave_locked (struct request *r, size_t i)
{
  struct flight *f = r->slots[i].flight;

  r->slots[i].flight = NULL;
  r->left--;
  return f;
}

/* Step 1.  What is left hangs together. */
static void
prepare (struct request *r)
{
  struct esp_delay *delay = r->point->delay;
  bool began = false, gap = false;
  size_t i;

  for (i = 0; i < r->n && !gap; ++i) {
    enum need need = look (r->point, r->first + i);

    if (need == NEED_FETCH) {
      began = true;
      continue;
    }
    gap = began;
    ESP_LOCK_SCOPE (&delay->lock);
    if (need == NEED_NOTHING)
      slot_end_locked (r, i, 0, NULL);
    else
      flight_elsewhere_locked (slot_leave_locked (r, i));
  }
  /* Behind a gap: another worker may have it, unlooked at. */
  ESP_LOCK_SCOPE (&delay->lock);
  for (size_t k = r->n; k > i; --k)
    flight_requeue_locked (slot_leave_locked (r, k - 1));
}

/* --- one source after another ----------------------------------------------------- */

/* End the flights of all that is left (or only of the first) with ERR. */
static void
fail (struct request *r, bool only_first, int err, const char *why)
{
  struct esp_delay *delay = r->point->delay;

  for (size_t i = 0; i < r->n; ++i) {
    if (!r->slots[i].flight)
      continue;
    esp_have_unlock (r->point->have, r->first + i);
    ESP_LOCK_SCOPE (&delay->lock);
    slot_end_locked (r, i, err, why);
    if (only_first)
      break;
  }
}

static void
left_out_locked (struct request *r, const struct leg *leg)
{
  struct source *s = &r->set->s[leg->source];
  uint64_t now = delay_now ();
  char text[ESP_UUID_TEXT];

  if (leg->err == ENOENT) {
    s->left_out = now + LEFT_OUT_GONE;
    return;
  }
  COUNT (r->point->delay, lies, 1);
  if (s->left_out <= now && leg->err == ESTALE)
    esp_warning ("restore point %s: %s",
                 esp_uuid_text (&r->point->uuid, text), leg->why);
  else if (s->left_out <= now)
    esp_warning ("restore point %s: %s gave wrong bytes, and is left out for "
                 "ten minutes where there is another center: %s",
                 esp_uuid_text (&r->point->uuid, text),
                 esp_origin_name (s->origin), leg->why);
  s->left_out = now + LEFT_OUT_LIAR;
}

/* Is the error this source's for this restore point, not its center's? */
static bool
is_source_error (int err)
{
  return err == EBADMSG || err == ESTALE || err == ENOENT ||
    err == EKEYREJECTED || err == ENOKEY;
}

struct attempt {
  uint64_t tried;               /* sources, a bit each */
  size_t bad;                   /* entry + 1 that was asked for once more,
                                 * since its bytes were wrong */
  uint64_t began;
  int err;                      /* of the last one */
  char why[2 * WHY_MAX];
};

/* One round: a leg, perhaps two.  -1: there is no source to ask. */
static int
round_trip (struct request *r, struct attempt *a)
{
  struct esp_delay *delay = r->point->delay;
  struct leg *leg = &r->legs[0];
  char why[WHY_MAX];
  bool trial;
  int s;

  pthread_mutex_lock (&delay->lock);
  while ((s = sources_choose_locked (delay, r->set, a->tried, r->class,
                                     &trial, why)) == -2 &&
         !atomic_load (&delay->stop))
    delay_cond_wait (&delay->calm, &delay->lock, delay_now () + SECOND);
  if (s < 0) {
    if (!a->err) {
      a->err = EIO;
      snprintf (a->why, sizeof a->why, "%s", s == -1 ? why : "is ending");
    }
    pthread_mutex_unlock (&delay->lock);
    return -1;
  }
  leg->request = r;
  r->legs[1].begin = 0;
  r->legs[1].err = 0;
  span_locked (r, &r->set->s[s], &leg->first, &leg->n);
  leg_begin_locked (leg, (size_t) s, trial, a->tried | UINT64_C (1) << s);
  pthread_mutex_unlock (&delay->lock);

  leg_get (leg);

  ESP_LOCK_SCOPE (&delay->lock);
  leg_end_locked (leg);
  /* The other leg may have all that is missing, or just get it. */
  while (r->legs[1].running)
    delay_cond_wait (&r->ended, &delay->lock, UINT64_MAX);
  return 0;
}

/* What a leg's error means for the next round. */
static void
judge (struct request *r, struct leg *leg, struct attempt *a)
{
  struct esp_delay *delay = r->point->delay;

  if (!leg->begin || !leg->err || leg->err == ECANCELED)
    return;
  ESP_LOCK_SCOPE (&delay->lock);
  a->tried |= UINT64_C (1) << leg->source;
  a->err = leg->err;
  /* A plain image that changed is named by what is said. */
  if (leg->err == ESTALE)
    snprintf (a->why, sizeof a->why, "%s", leg->why);
  else
    snprintf (a->why, sizeof a->why, "%s: %s",
              esp_origin_name (r->set->s[leg->source].origin), leg->why);
  if (is_source_error (leg->err))
    left_out_locked (r, leg);
}

/* No source is left for the first of what is missing. */
static void
give_up (struct request *r, struct attempt *a)
{
  bool wrong = a->err == EBADMSG;
  size_t i = 0;

  while (!r->slots[i].flight)
    i++;
  a->tried = 0;
  /* They may have been hurt on the way. */
  if ((wrong || a->err == EPROTO) && a->bad != r->first + i + 1)
    a->bad = r->first + i + 1;
  else
    fail (r, wrong, a->err, a->why);
}

/* The sources may have changed since they were loaded. */
static bool
reload (struct request *r, struct attempt *a)
{
  struct esp_delay *delay = r->point->delay;
  struct source_set *set = sources_get (r->point, a->began), *old = r->set;
  bool newer = set && set != old;

  if (!set)
    return false;
  pthread_mutex_lock (&delay->lock);
  r->set = set;
  pthread_mutex_unlock (&delay->lock);
  sources_put (delay, old);
  if (newer)
    a->tried = 0;
  return newer;
}

static void
fetch (struct request *r)
{
  struct esp_delay *delay = r->point->delay;
  struct attempt a = { .began = delay_now () };

  r->set = sources_get (r->point, 0);
  if (!r->set) {
    fail (r, false, ENOMEM, "out of memory");
    return;
  }
  while (r->left > 0) {
    size_t left = r->left;
    uint64_t tried = a.tried;
    if (round_trip (r, &a) == -1) {
      if (!reload (r, &a))
        give_up (r, &a);
      continue;
    }
    judge (r, &r->legs[0], &a);
    judge (r, &r->legs[1], &a);
    if (r->store_err)
      fail (r, false, r->store_err, r->store_why);
    else if (atomic_load (&delay->stop))
      fail (r, false, ECANCELED, "the server is ending");
    else if (r->left == left && a.tried == tried)
      fail (r, false, EPROTO, "an answer without its segments");
  }
}

void
request_run (struct request *r)
{
  struct esp_delay *delay = r->point->delay;

  prepare (r);
  if (r->left > 0)
    fetch (r);
  if (r->set)
    sources_put (delay, r->set);
  ESP_LOCK_SCOPE (&delay->lock);
  request_free_locked (r);
}
