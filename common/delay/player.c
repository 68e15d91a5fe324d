/* SPDX-License-Identifier: BSD-3-Clause */
/* Playing a boot profile.
 *
 * Units are asked for in the order of their ranks, a batch at a time; within
 * a batch (4 MiB) neighbours are put together first, so that a boot that
 * reads two files in turns makes two long requests, not many short ones.
 * What was touched already is passed over: its reader waits for it and has
 * it fetched.
 *
 * Two bounds:
 *   - on its way: nothing is asked for while 4 MiB are being fetched ahead,
 *     for whomever.  What clients wait for shares the line with that.
 *   - unused: let A be the units that were asked for and missing, U those of
 *     them that clients then touched.  More are asked for while A * 3/4 - U
 *     is at most 32 MiB.  A boot that does as its profile says, to three
 *     quarters, is played to the end; one that does not costs 32 MiB, and the
 *     player waits for it.
 *
 * A unit's state is one byte, set without a lock: TOUCHED by readers, ASKED
 * by the one who pumps.  Whoever of both comes second counts it as used.
 */

#include <config.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "delay/player.h"
#include "store/have.h"

#define BATCH 64u               /* units */
#define TURN 64u                /* runs for each call of pump */

enum { TOUCHED = 1, ASKED = 2 };

/* A unit by its number, and its place in the order. */
struct place {
  uint32_t unit;
  uint32_t rank;
};

/* Units that follow each other on the disk; RANK is the lowest of theirs. */
struct run {
  uint32_t unit, n;
  uint32_t rank;
};

struct esp_player {
  size_t n;
  uint64_t size;                /* of the disk */
  struct place *by_unit;        /* sorted */
  uint32_t *order;              /* units by rank */
  _Atomic uint8_t *state;       /* by rank */
  atomic_size_t asked, used;

  /* Of the one who pumps. */
  atomic_size_t next;           /* rank: those before stood in a batch */
  struct run runs[BATCH];       /* the batch */
  size_t run, nruns;            /* of it: the next to ask for; all */
};

static int
by_unit (const void *a, const void *b)
{
  const struct place *x = a, *y = b;

  return (x->unit > y->unit) - (x->unit < y->unit);
}

/* --- life -------------------------------------------------------------- */

static void
fill (struct esp_player *p, const struct esp_profile *profile)
{
  for (size_t i = 0; i < profile->n; ++i) {
    const struct esp_profile_unit *u = &profile->units[i];

    if (!esp_profile_wanted (profile, u) ||
        (uint64_t) u->unit << ESP_PROFILE_SHIFT >= p->size)
      continue;
    p->by_unit[p->n] = (struct place) { u->unit, (uint32_t) p->n };
    p->order[p->n++] = u->unit;
  }
  qsort (p->by_unit, p->n, sizeof *p->by_unit, by_unit);
}

struct esp_player *
esp_player_new (const struct esp_profile *profile, uint64_t size)
{
  struct esp_player *p = profile->n ? calloc (1, sizeof *p) : NULL;

  if (!p)
    return NULL;
  p->size = size;
  p->by_unit = calloc (profile->n, sizeof *p->by_unit);
  p->order = calloc (profile->n, sizeof *p->order);
  p->state = calloc (profile->n, sizeof *p->state);
  if (p->by_unit && p->order && p->state)
    fill (p, profile);
  if (p->n > 0)
    return p;
  esp_player_free (p);
  return NULL;
}

void
esp_player_free (struct esp_player *player)
{
  if (!player)
    return;
  free (player->by_unit);
  free (player->order);
  free ((void *) player->state);
  free (player);
}

void
esp_player_counts (const struct esp_player *player, uint64_t *asked,
                   uint64_t *used)
{
  *asked = atomic_load (&player->asked);
  *used = atomic_load (&player->used);
}

/* --- touching ---------------------------------------------------------- */

/* The first place whose unit is not less than UNIT. */
static const struct place *
find (const struct esp_player *p, uint64_t unit)
{
  size_t lo = 0, hi = p->n;

  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;

    if (p->by_unit[mid].unit < unit)
      lo = mid + 1;
    else
      hi = mid;
  }
  return &p->by_unit[lo];
}

/* Add FLAG to the state of RANK; what it was. */
static uint8_t
mark (struct esp_player *p, size_t rank, uint8_t flag)
{
  uint8_t was = atomic_fetch_or (&p->state[rank], flag);

  if ((was | flag) == (TOUCHED | ASKED) && was != (TOUCHED | ASKED))
    atomic_fetch_add (&p->used, 1);
  return was;
}

bool
esp_player_touch (struct esp_player *player, uint64_t offset, uint64_t count)
{
  const struct place *end = player->by_unit + player->n;
  bool news = false;

  if (count == 0)
    return false;
  for (const struct place *at = find (player, offset >> ESP_PROFILE_SHIFT);
       at < end && at->unit <= (offset + count - 1) >> ESP_PROFILE_SHIFT; ++at)
    if (!(atomic_load_explicit (&player->state[at->rank],
                                memory_order_relaxed) & TOUCHED))
      news |= !(mark (player, at->rank, TOUCHED) & TOUCHED);
  return news;
}

bool
esp_player_knows (const struct esp_player *player, uint64_t offset,
                  uint64_t count)
{
  uint64_t unit = (offset + count - (count > 0)) >> ESP_PROFILE_SHIFT;
  const struct place *at = find (player, unit);

  return at < player->by_unit + player->n && at->unit == unit &&
    at->rank < atomic_load_explicit (&player->next, memory_order_relaxed);
}

/* --- asking ------------------------------------------------------------ */

static int
by_run_rank (const void *a, const void *b)
{
  const struct run *x = a, *y = b;

  return (x->rank > y->rank) - (x->rank < y->rank);
}

/* The next places that nobody touched; how many. */
static size_t
take_places (struct esp_player *p, struct place batch[BATCH])
{
  size_t n = 0, next = p->next;

  for (; next < p->n && n < BATCH; ++next)
    if (!(p->state[next] & TOUCHED))
      batch[n++] = (struct place) { p->order[next], (uint32_t) next };
  p->next = next;
  return n;
}

/* The next batch, neighbours put together; false: there is none any more. */
static bool
take_batch (struct esp_player *p)
{
  struct place batch[BATCH];
  size_t n = take_places (p, batch);
  struct run *last = NULL;

  p->run = p->nruns = 0;
  qsort (batch, n, sizeof *batch, by_unit);
  for (size_t i = 0; i < n; ++i) {
    if (!last || last->unit + last->n != batch[i].unit) {
      last = &p->runs[p->nruns++];
      *last = (struct run) { batch[i].unit, 0, batch[i].rank };
    }
    last->n++;
    if (batch[i].rank < last->rank)
      last->rank = batch[i].rank;
  }
  qsort (p->runs, p->nruns, sizeof *p->runs, by_run_rank);
  return n > 0;
}

static void
mark_asked (struct esp_player *p, const struct run *run)
{
  const struct place *first = find (p, run->unit);

  atomic_fetch_add (&p->asked, run->n);
  for (uint32_t i = 0; i < run->n; ++i)
    mark (p, first[i].rank, ASKED);
}

/* False: not now. */
static bool
ask (struct esp_player *p, const struct esp_player_ops *ops, void *arg)
{
  const struct run *run = &p->runs[p->run];
  uint64_t from = (uint64_t) run->unit << ESP_PROFILE_SHIFT;
  uint64_t to = (uint64_t) (run->unit + run->n) << ESP_PROFILE_SHIFT;
  int fetched = ops->ahead (arg, from, (to < p->size ? to : p->size) - from);

  if (fetched == -1)
    return false;
  if (fetched > 0)
    mark_asked (p, run);
  p->run++;
  return true;
}

static bool
may_ask (struct esp_player *p, const struct esp_player_ops *ops, void *arg)
{
  size_t asked = atomic_load (&p->asked), used = atomic_load (&p->used);

  return asked / 4 * 3 <= used + ESP_PLAYER_UNUSED_MAX &&
    ops->pending (arg) < ESP_PLAYER_PENDING_MAX;
}

bool
esp_player_pump (struct esp_player *player, const struct esp_player_ops *ops,
                 void *arg)
{
  for (unsigned i = 0; i < TURN; ++i) {
    if (player->run == player->nruns && !take_batch (player))
      return false;
    if (!may_ask (player, ops, arg) || !ask (player, ops, arg))
      break;
  }
  return true;
}
