/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a restore point's segments come from, and in which order sources are
 * asked.
 *
 * What is known of a *center* is shared by all restore points that come from
 * it: how long its first byte takes, how fast it sends, and whether it
 * answers at all:
 *
 *   GOOD ──error──► OUT for 1, 2, 4 … 60 s ──► one TRIAL ──► GOOD, or OUT
 *
 * A center that is OUT is left out while another can be asked.  When none
 * can, a demand tries the one whose trial is next if its last error came
 * quickly (so a lone center that is back is found at once), or fails with
 * that error; others wait for that one trial.
 *
 * A source that gave wrong bytes for a restore point is left out for that
 * one, unless it is all that there is: what it gives is checked anyway.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define SOURCES_MAX 64u         /* of one restore point: bits of a word */
#define OUT_MAX (60 * SECOND)

/* --- centers ------------------------------------------------------------------- */

static struct center *
center_get_locked (struct esp_delay *delay, const char *name)
{
  struct center *c;

  LIST_FOREACH (c, &delay->centers, list)
    if (strcmp (c->name, name) == 0)
      return c;
  c = calloc (1, sizeof *c);
  if (!c)
    return NULL;
  c->name = strdup (name);
  if (!c->name) {
    free (c);
    return NULL;
  }
  c->row = esp_stats_row (delay->stats, ESP_STATS_CENTER, name);
  LIST_INSERT_HEAD (&delay->centers, c, list);
  return c;
}

void
center_begin_locked (struct leg *leg)
{
  struct center *c = leg->request->set->s[leg->source].center;

  c->inflight++;
  ESP_STATS_ADD (c->row, ESP_CENTER_REQUESTS, 1);
  if (leg->trial)
    c->trial = true;
}

static uint64_t
mean (uint64_t old, uint64_t now)
{
  return old ? old + now / 8 - old / 8 : now ? now : 1;
}

static void
measure_locked (struct center *c, const struct leg *leg)
{
  uint64_t now = delay_now ();

  /* Overtaken before its first byte: it takes so long at least. */
  if (!leg->first_byte) {
    if (leg->err == ECANCELED && leg->request->legs[1].begin &&
        now - leg->begin > c->ttfb)
      c->ttfb = mean (c->ttfb, now - leg->begin);
    return;
  }
  c->ttfb = mean (c->ttfb, leg->first_byte - leg->begin);
  if (leg->bytes >= 65536 && now > leg->first_byte)
    c->speed = mean (c->speed, leg->bytes * SECOND / (now - leg->first_byte));
}

/* Would asking once more take long?  A leg that tried again (not `once`) has
 * waited between its tries, by chance over a second: its time says nothing,
 * only that it timed out does.  The trial that follows is one try.
 */
static bool
is_quick (const struct leg *leg, uint64_t now)
{
  return leg->once ? now - leg->begin < SECOND : leg->err != ETIMEDOUT;
}

static void
fail_locked (struct center *c, const struct leg *leg)
{
  uint64_t now = delay_now (), pause;

  /* Others that were on their way say the same once more. */
  if (c->out && !leg->trial)
    return;
  pause = c->fails < 6 ? SECOND << c->fails : OUT_MAX;
  c->fails++;
  c->quick = is_quick (leg, now);
  c->out_until = now + pause;
  snprintf (c->why, sizeof c->why, "%s", leg->why);
  if (!c->out)
    esp_warning ("center %s does not answer, and is left out for a while: %s",
                 c->name, leg->why);
  c->out = true;
}

static bool
is_center_error (int err)
{
  switch (err) {
  case 0: case ECANCELED: case EBADMSG: case ESTALE: case ENOENT:
  case EKEYREJECTED: case ENOKEY: case ENOMEM:
    return false;
  default:
    return true;
  }
}

static void
show_locked (struct center *c)
{
  ESP_STATS_SET (c->row, ESP_CENTER_OUT, c->out);
  ESP_STATS_SET (c->row, ESP_CENTER_FIRST_BYTE_US, c->ttfb);
  ESP_STATS_SET (c->row, ESP_CENTER_BYTES_SECOND, c->speed);
}

void
center_end_locked (struct leg *leg)
{
  struct esp_delay *delay = leg->request->point->delay;
  struct center *c = leg->request->set->s[leg->source].center;

  c->inflight--;
  measure_locked (c, leg);
  ESP_STATS_ADD (c->row, ESP_CENTER_BYTES, leg->bytes);
  if (is_center_error (leg->err)) {
    ESP_STATS_ADD (c->row, ESP_CENTER_ERRORS, 1);
    fail_locked (c, leg);
  }
  else if (leg->err != ECANCELED || leg->first_byte) {
    if (c->out)
      esp_debug ("center %s answers again", c->name);
    c->out = false;
    c->fails = 0;
  }
  show_locked (c);
  if (leg->trial) {
    c->trial = false;
    pthread_cond_broadcast (&delay->calm);
  }
}

/* --- loading -------------------------------------------------------------------- */

/* Open the origin of S into SET; one that cannot be is left out. */
static void
add_source (struct point *p, struct source_set *set,
            const struct esp_source *s)
{
  char why[WHY_MAX];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  struct esp_origin *origin = esp_origin_open (p->delay->store, p->have, s);

  esp_catch_end (before);
  if (!origin) {
    snprintf (set->why, sizeof set->why, "%s", why);
    esp_debug ("delayed load: %s", why);
    return;
  }
  ESP_LOCK_SCOPE (&p->delay->lock);
  struct center *c = center_get_locked (p->delay, esp_origin_name (origin));
  if (!c) {
    esp_origin_close (origin);
    return;
  }
  set->s[set->n++] = (struct source) { .origin = origin, .center = c };
}

/* May what comes from LIST be shown to nobody in the clear?  Where nothing is
 * known, be careful.
 */
static bool
is_secret (const struct esp_source_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    if (list->s[i].variant.key[0])
      return true;
  return list->n == 0;
}

static struct source_set *
load (struct point *p)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  char why[WHY_MAX] = "";
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r = esp_sources_load (p->delay->store, &p->uuid, &list);

  esp_catch_end (before);
  if (r == -1)
    list.n = 0;
  size_t n = list.n < SOURCES_MAX ? list.n : SOURCES_MAX;
  struct source_set *set = calloc (1, sizeof *set + n * sizeof *set->s);
  if (!set)
    return NULL;
  set->refs = 1;                /* the point's */
  set->loaded = delay_now ();
  set->secret = r == -1 || is_secret (&list);
  snprintf (set->why, sizeof set->why, "%s", r == -1 ? why :
            "no center has it: run 'espalier center list'");
  for (size_t i = 0; i < n; ++i)
    add_source (p, set, &list.s[i]);
  return set;
}

/* Keep what is known of sources that lied. */
static void
take_over_locked (struct source_set *set, const struct source_set *old)
{
  for (size_t i = 0; i < set->n; ++i)
    for (size_t k = 0; old && k < old->n; ++k)
      if (set->s[i].center == old->s[k].center)
        set->s[i].left_out = old->s[k].left_out;
}

/* A reference to POINT's sources, loaded again if they were not since SINCE,
 * but not every moment.  NULL: out of memory.
 */
struct source_set *
sources_get (struct point *p, uint64_t since)
{
  struct esp_delay *delay = p->delay;
  struct source_set *set, *old;

  ESP_LOCK_SCOPE (&p->sources_lock);
  pthread_mutex_lock (&delay->lock);
  set = p->sources;
  if (set && (set->loaded >= since || set->loaded + 2 * SECOND > since)) {
    set->refs++;
    pthread_mutex_unlock (&delay->lock);
    return set;
  }
  pthread_mutex_unlock (&delay->lock);
  set = load (p);
  if (!set)
    return NULL;
  pthread_mutex_lock (&delay->lock);
  old = p->sources;
  take_over_locked (set, old);
  p->sources = set;
  set->refs++;
  pthread_mutex_unlock (&delay->lock);
  if (old)
    sources_put (delay, old);
  return set;
}

static void
set_free (struct source_set *set)
{
  for (size_t i = 0; i < set->n; ++i)
    esp_origin_close (set->s[i].origin);
  free (set);
}

void
sources_put (struct esp_delay *delay, struct source_set *set)
{
  pthread_mutex_lock (&delay->lock);
  bool last = --set->refs == 0;
  pthread_mutex_unlock (&delay->lock);
  if (last)
    set_free (set);
}

/* --- choosing -------------------------------------------------------------------- */

/* Expected time: the first byte, later the more there is to do. */
static uint64_t
cost (const struct center *c)
{
  uint64_t transfer = c->speed ? REQUEST_MIN * SECOND / c->speed : 0;

  return (c->ttfb + transfer) * (4 + c->inflight) / 4 + c->inflight;
}

static bool
may_ask (const struct source *s, uint64_t tried, size_t i)
{
  return (tried >> i & 1) == 0 && (s->center->out == false);
}

/* The cheapest that is not OUT, of those that did not lie (or did). */
static int
best_locked (const struct source_set *set, uint64_t tried, bool liars)
{
  uint64_t now = delay_now ();
  int best = -1;

  for (size_t i = 0; i < set->n; ++i)
    if (may_ask (&set->s[i], tried, i) &&
        (set->s[i].left_out > now) == liars &&
        (best < 0 || cost (set->s[i].center) < cost (set->s[best].center)))
      best = (int) i;
  return best;
}

/* One that is OUT and has no trial yet; DUE: only when its time has come. */
static int
trial_locked (const struct source_set *set, uint64_t tried, bool due,
              bool *running)
{
  uint64_t now = delay_now ();
  int best = -1;

  *running = false;
  for (size_t i = 0; i < set->n; ++i) {
    const struct source *s = &set->s[i];
    const struct center *c = s->center;
    if ((tried >> i & 1) || !c->out)
      continue;
    if (c->trial)
      *running = true;
    else if ((c->out_until <= now || (!due && c->quick)) &&
             (!due || s->left_out <= now) &&
             (best < 0 || c->out_until < set->s[best].center->out_until))
      best = (int) i;
  }
  return best;
}

static void
say_why (const struct source_set *set, char *why)
{
  snprintf (why, WHY_MAX, "%s", set->why);
  for (size_t i = 0; i < set->n; ++i)
    if (set->s[i].center->out)
      snprintf (why, WHY_MAX, "%.100s: %.400s", set->s[i].center->name,
                set->s[i].center->why);
}

int
sources_choose_locked (struct esp_delay *delay, const struct source_set *set,
                       uint64_t tried, enum delay_class class, bool *trial,
                       char *why)
{
  bool running;
  int s = trial_locked (set, tried, true, &running);

  (void) delay;
  *trial = s >= 0;
  if (s >= 0)
    return s;
  s = best_locked (set, tried, false);
  if (s < 0)
    s = best_locked (set, tried, true);
  if (s >= 0)
    return s;
  if (class == CLASS_DEMAND) {
    s = trial_locked (set, tried, false, &running);
    *trial = s >= 0;
    if (s >= 0)
      return s;
    if (running)
      return -2;
  }
  say_why (set, why);
  return -1;
}

bool
sources_have_other_locked (const struct source_set *set, size_t than,
                           uint64_t tried)
{
  return best_locked (set, tried | UINT64_C (1) << than, false) >= 0;
}

uint64_t
sources_due_locked (const struct source_set *set)
{
  uint64_t due = UINT64_MAX, now = delay_now ();

  for (size_t i = 0; i < set->n; ++i) {
    const struct center *c = set->s[i].center;
    uint64_t t = c->out && c->out_until > now ? c->out_until : 0;
    if (t < due)
      due = t;
  }
  return due;
}
