/* SPDX-License-Identifier: BSD-3-Clause */
/* Samples of live counters, and rates between two of them.
 *
 * A process writes what changed about once a second, and when it did: so what
 * grew is divided by the time between its two writes, not between our
 * looks, which would see none or two of them now and then.
 */

#include <config.h>

#include <string.h>

#include "sample.h"
#include "util/clock.h"
#include "util/host.h"

#define SECOND 1000000.0        /* microseconds */
#define TICK (1.5 * SECOND)     /* a process that counts has written by then */
#define LEAST (0.2 * SECOND)    /* less gives no rate */

void
sample_clear (struct sample *s)
{
  for (size_t i = 0; i < s->n; i++) {
    free (s->line[i].program);
    free (s->line[i].name);
  }
  free (s->line);
  *s = (struct sample) { .n = 0 };
}

static int
no_memory (void)
{
  esp_error ("malloc: %m");
  return -1;
}

static int
add (void *arg, const struct esp_stats_seen *row)
{
  struct sample *s = arg;
  struct line *l;

  if (s->n == s->room) {
    size_t room = s->room ? 2 * s->room : 64;
    l = reallocarray (s->line, room, sizeof *l);
    if (!l)
      return no_memory ();
    s->line = l;
    s->room = room;
  }
  l = &s->line[s->n++];
  *l = (struct line) {
    .kind = row->kind, .pid = row->pid, .row = row->row, .since = row->since,
    .at = row->at, .program = strdup (row->program),
    .name = strdup (row->name),
  };
  memcpy (l->c, row->c, sizeof l->c);
  return l->program && l->name ? 0 : no_memory ();
}

static int
compare (const void *a, const void *b)
{
  const struct line *x = a, *y = b;
  int r;

  if (x->kind != y->kind)
    return x->kind < y->kind ? -1 : 1;
  if ((r = strcmp (x->name, y->name)) != 0)
    return r;
  if (x->pid != y->pid)
    return x->pid < y->pid ? -1 : 1;
  return x->row < y->row ? -1 : x->row > y->row;
}

const struct line *
sample_same (const struct sample *before, const struct line *l)
{
  const struct line *o = before->n == 0 ? NULL
    : bsearch (l, before->line, before->n, sizeof *l, compare);

  if (!o || o->since != l->since ||
      (l->kind == ESP_STATS_CLIENT &&
       o->c[ESP_DISK_SINCE] != l->c[ESP_DISK_SINCE]))
    return NULL;
  return o;
}

/* The microseconds in which L grew from what BEFORE saw; 0: it wrote nothing
 * meanwhile.
 */
static double
elapsed (const struct line *l, const struct line *o,
         const struct sample *before)
{
  double from = (double) before->taken - TICK;

  if (o && l->at == o->at)
    return 0;
  if (o && (double) o->at > from)
    from = (double) o->at;
  return (double) l->at - from;
}

static void
set_rates (struct line *l, const struct sample *now,
           const struct sample *before)
{
  const struct line *o = sample_same (before, l);
  double us = elapsed (l, o, before);
  bool gauge;

  /* It may only not have come to write again yet. */
  if (us < LEAST) {
    if (o && (double) (now->taken - l->at) < TICK)
      memcpy (l->rate, o->rate, sizeof l->rate);
    return;
  }
  for (unsigned i = 0; esp_stats_counter_name (l->kind, i, &gauge); i++)
    if (!gauge && l->c[i] >= (o ? o->c[i] : 0))
      l->rate[i] = (double) (l->c[i] - (o ? o->c[i] : 0)) * SECOND / us;
}

int
sample_load (struct sample *out, const char *dir, const struct sample *before)
{
  *out = (struct sample) { .taken = esp_now_us () };
  if (esp_stats_each (dir, add, out) == -1) {
    sample_clear (out);
    return -1;
  }
  if (out->n > 0)
    qsort (out->line, out->n, sizeof *out->line, compare);
  for (size_t i = 0; before && i < out->n; i++)
    set_rates (&out->line[i], out, before);
  return 0;
}

/* --- what several processes count under one name ---------------------------- */

/* Several processes see the same thing. */
static bool
is_shared (const struct line *l, unsigned n)
{
  if (l->kind == ESP_STATS_TIER)
    return strcmp (l->name, "memory") != 0;
  return !((l->kind == ESP_STATS_VENUE || l->kind == ESP_STATS_EXPORT) &&
           n == ESP_DISK_CONNECTIONS);
}

static void
add_line (struct line *sum, const struct line *l)
{
  bool gauge;

  for (unsigned i = 0; esp_stats_counter_name (l->kind, i, &gauge); i++) {
    if (!gauge || !is_shared (l, i))
      sum->c[i] += l->c[i];
    else if (l->c[i] > sum->c[i])
      sum->c[i] = l->c[i];
    sum->rate[i] += l->rate[i];
  }
}

size_t
sample_sum (const struct sample *sample, size_t i, struct line *sum)
{
  size_t n = 1;

  *sum = sample->line[i];
  while (i + n < sample->n && sample->line[i + n].kind == sum->kind &&
         strcmp (sample->line[i + n].name, sum->name) == 0)
    add_line (sum, &sample->line[i + n++]);
  return n;
}
