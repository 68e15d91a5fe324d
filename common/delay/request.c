/* SPDX-License-Identifier: BSD-3-Clause */
/* A request: neighbouring flights that one worker gets.
 *
 *   1. each entry's lock between processes is tried (ELSEWHERE where another
 *      has it), and its state looked at again: it may have come meanwhile, or
 *      be LOCAL and only need its check;
 *   2. the segment cache is asked for what is missing (cached.c): what it has
 *      is kept, what another server fetches is ELSEWHERE;
 *   3. what is left and hangs together is asked from the best source; what
 *      does not goes back into the queue;
 *   4. each segment ends its flight as it comes, after it was stored;
 *   5. a source that fails, or lies, is followed by the next one.
 *
 * legs.c has the questions to sources, and a second one beside the first.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define LEFT_OUT_LIAR (600 * SECOND)
#define LEFT_OUT_GONE (60 * SECOND)
#define NOSPACE_PAUSE (30 * SECOND)

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
  free (r->raw);
  free (r);
}

/* --- segments ------------------------------------------------------------------ */

struct flight *
request_claim (struct request *r, size_t entry)
{
  struct slot *s = &r->slots[entry - r->first];

  ESP_LOCK_SCOPE (&r->point->delay->lock);
  if (!s->flight || s->storing)
    return NULL;
  s->storing = true;
  return s->flight;
}

void
request_slot_end_locked (struct request *r, size_t i, int err, const char *why)
{
  struct flight *f = r->slots[i].flight;

  r->slots[i].flight = NULL;
  r->slots[i].storing = false;
  r->left--;
  flight_end_locked (f, err, why);
}

struct flight *
request_slot_leave_locked (struct request *r, size_t i)
{
  struct flight *f = r->slots[i].flight;

  r->slots[i].flight = NULL;
  r->left--;
  return f;
}

void
request_count_locked (struct esp_delay *delay, const struct flight *f,
                      size_t len)
{
  if (f->born == CLASS_AHEAD)
    COUNT (delay, ahead_segments, 1);
  if (f->born == CLASS_BACKGROUND)
    COUNT (delay, background_segments, 1);
  delay->stored += len;
  if (delay->params.max && delay->stored > delay->params.max / 64)
    pthread_cond_signal (&delay->keep);
}

int
request_keep (struct request *r, size_t entry, const void *raw, size_t len)
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

/* --- before it flies ------------------------------------------------------------- */

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

/* It is here, or another process has it. */
static void
leave_locked (struct request *r, size_t i, enum need need)
{
  if (need == NEED_NOTHING)
    request_slot_end_locked (r, i, 0, NULL);
  else
    flight_elsewhere_locked (request_slot_leave_locked (r, i));
}

/* One slot.  True: it has to be fetched. */
static bool
prepare_one (struct request *r, size_t i)
{
  enum need need = look (r->point, r->first + i);

  if (need == NEED_FETCH)
    need = cached_ask (r, i);
  if (need != NEED_NOTHING && need != NEED_ELSEWHERE)
    return need == NEED_FETCH;
  ESP_LOCK_SCOPE (&r->point->delay->lock);
  leave_locked (r, i, need);
  return false;
}

/* Steps 1 and 2.  What is left hangs together. */
static void
prepare (struct request *r)
{
  struct esp_delay *delay = r->point->delay;
  bool began = false, gap = false;
  size_t i;

  for (i = 0; i < r->n && !gap; ++i) {
    bool fetch = prepare_one (r, i);

    gap = (began && !fetch) || r->store_err;
    began = began || fetch;
  }
  /* Behind a gap: another worker may have it, unlooked at. */
  ESP_LOCK_SCOPE (&delay->lock);
  for (size_t k = r->n; k > i; --k)
    flight_requeue_locked (request_slot_leave_locked (r, k - 1));
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
    pthread_mutex_lock (&delay->lock);
    if (err != ECANCELED)
      ESP_STATS_ADD (point_row_locked (r->point), ESP_RP_FAILED, 1);
    request_slot_end_locked (r, i, err, why);
    pthread_mutex_unlock (&delay->lock);
    cached_give_up (r, i);
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
  ESP_STATS_ADD (point_row_locked (r->point), ESP_RP_LIES, 1);
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
  leg_span_locked (r, &r->set->s[s], &leg->first, &leg->n);
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

  if (!r->set)
    r->set = sources_get (r->point, 0);
  if (!r->set)
    fail (r, false, ENOMEM, "out of memory");
  else if (r->store_err)        /* of what the cache gave */
    fail (r, false, r->store_err, r->store_why);
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

/* --- the two ways --------------------------------------------------------------- */

void
request_look (struct request *r)
{
  struct esp_delay *delay = r->point->delay;
  enum need need = look (r->point, r->first);

  if (need == NEED_FETCH) {
    cached_begin (r);
    need = cached_look (r, 0);
  }
  if (need == NEED_FETCH || need == NEED_STOP)
    esp_have_unlock (r->point->have, r->first);
  if (r->set)
    sources_put (delay, ESP_STEAL (r->set));
  if (need != NEED_NOTHING && need != NEED_ELSEWHERE)
    return;
  ESP_LOCK_SCOPE (&delay->lock);
  leave_locked (r, 0, need);
}

void
request_look_end_locked (struct request *r)
{
  if (r->left > 0 && r->store_err)
    request_slot_end_locked (r, 0, r->store_err, r->store_why);
  else if (r->left > 0)
    flight_requeue_locked (request_slot_leave_locked (r, 0));
  request_free_locked (r);
}

void
request_run (struct request *r)
{
  struct esp_delay *delay = r->point->delay;

  cached_begin (r);
  prepare (r);
  if (r->left > 0)
    fetch (r);
  cached_end (r);
  if (r->set)
    sources_put (delay, r->set);
  ESP_LOCK_SCOPE (&delay->lock);
  request_free_locked (r);
}
