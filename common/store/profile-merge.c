/* SPDX-License-Identifier: BSD-3-Clause */
/* What boot profiles are made of, and how boots come together in one.
 *
 * A unit (64 KiB of the disk) has a bit for each of the last 16 boots, the
 * newest lowest, and the mean of its places in those that touched it (in
 * sixteenths).  Older boots cannot be taken out of a mean, so it moves like
 * one over the boots that have a bit: it forgets slowly, which is what an
 * order needs.  A unit without any bit is forgotten, so a profile holds at
 * most what 16 boots touched, and ESP_PROFILE_UNITS_MAX units: those that
 * most boots touch, and of these the earliest.
 *
 * All work is done in tables sorted by unit; the result is sorted by rank.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/have.h"
#include "util/cleanup.h"
#include "util/host.h"

#define BOOTS_KEPT 16u
#define BOOTS_MAX 65535u        /* the counter saturates */
#define RANK_ONE 16u            /* a place is this much rank */

static unsigned
popcount (uint16_t bits)
{
  return (unsigned) __builtin_popcount (bits);
}

bool
esp_profile_wanted (const struct esp_profile *profile,
                    const struct esp_profile_unit *unit)
{
  unsigned kept = profile->boots < BOOTS_KEPT ? profile->boots : BOOTS_KEPT;

  return 2 * popcount (unit->boots) >= kept;
}

/* --- orders ------------------------------------------------------------ */

static int
by_unit (const void *a, const void *b)
{
  const struct esp_profile_unit *x = a, *y = b;

  return (x->unit > y->unit) - (x->unit < y->unit);
}

static int
by_rank (const void *a, const void *b)
{
  const struct esp_profile_unit *x = a, *y = b;

  if (x->rank != y->rank)
    return x->rank < y->rank ? -1 : 1;
  return by_unit (a, b);
}

/* Most boots first, of these the earliest. */
static int
by_worth (const void *a, const void *b)
{
  const struct esp_profile_unit *x = a, *y = b;
  unsigned px = popcount (x->boots), py = popcount (y->boots);

  return px != py ? (px > py ? -1 : 1) : by_rank (a, b);
}

static void
sort (struct esp_profile_unit *units, size_t n,
      int (*compare) (const void *, const void *))
{
  if (n > 1)
    qsort (units, n, sizeof *units, compare);
}

/* N units, two tables of which may come together. */
static struct esp_profile_unit *
table (size_t n)
{
  struct esp_profile_unit *t = malloc ((n ? n : 1) * sizeof *t);

  if (!t)
    esp_error ("out of memory: %m");
  return t;
}

/* A copy of P's units by rising unit. */
static struct esp_profile_unit *
sorted_copy (const struct esp_profile *p)
{
  struct esp_profile_unit *t = table (p->n);

  if (t && p->n) {
    memcpy (t, p->units, p->n * sizeof *t);
    sort (t, p->n, by_unit);
  }
  return t;
}

/* --- two units, one result ---------------------------------------------- */

/* Either of A and B may be NULL; false: the unit is forgotten. */
typedef bool (*join_fn) (const struct esp_profile_unit *a,
                         const struct esp_profile_unit *b,
                         struct esp_profile_unit *out);

/* The mean of ranks that stand for NA and NB boots. */
static uint32_t
mean (uint32_t a, unsigned na, uint32_t b, unsigned nb)
{
  return (uint32_t) (((uint64_t) a * na + (uint64_t) b * nb + (na + nb) / 2)
                     / (na + nb));
}

/* A is what was known, B the new boot. */
static bool
join_boot (const struct esp_profile_unit *a, const struct esp_profile_unit *b,
           struct esp_profile_unit *out)
{
  unsigned before;

  if (!a) {
    *out = *b;
    return true;
  }
  *out = *a;
  out->boots = (uint16_t) (a->boots << 1);
  before = popcount (out->boots);
  if (b) {
    out->rank = mean (a->rank, before, b->rank, 1);
    out->boots |= 1;
  }
  return out->boots != 0;
}

static bool
join_sides (const struct esp_profile_unit *a,
            const struct esp_profile_unit *b, struct esp_profile_unit *out)
{
  *out = a ? *a : *b;
  if (a && b) {
    out->boots = a->boots | b->boots;
    out->rank = mean (a->rank, popcount (a->boots), b->rank,
                      popcount (b->boots));
  }
  return out->boots != 0;
}

/* Both tables by rising unit; OUT has room for all.  How many came out. */
static size_t
join (const struct esp_profile_unit *a, size_t na,
      const struct esp_profile_unit *b, size_t nb, join_fn fn,
      struct esp_profile_unit *out)
{
  size_t i = 0, j = 0, n = 0;

  while (i < na || j < nb) {
    bool take_a = j == nb || (i < na && a[i].unit <= b[j].unit);
    bool take_b = i == na || (j < nb && b[j].unit <= a[i].unit);

    n += fn (take_a ? &a[i] : NULL, take_b ? &b[j] : NULL, &out[n]);
    i += take_a;
    j += take_b;
  }
  return n;
}

/* UNITS (malloced, kept) become P's. */
static void
replace (struct esp_profile *p, struct esp_profile_unit *units, size_t n)
{
  if (n > ESP_PROFILE_UNITS_MAX) {
    sort (units, n, by_worth);
    n = ESP_PROFILE_UNITS_MAX;
  }
  sort (units, n, by_rank);
  free (p->units);
  p->units = units;
  p->n = n;
}

static int
combine (struct esp_profile *p, const struct esp_profile_unit *b, size_t nb,
         join_fn fn)
{
  CLEANUP_FREE struct esp_profile_unit *a = sorted_copy (p);
  struct esp_profile_unit *out = a ? table (p->n + nb) : NULL;

  if (!out)
    return -1;
  replace (p, out, join (a, p->n, b, nb, fn, out));
  return 0;
}

/* --- the two verbs ------------------------------------------------------ */

int
esp_profile_merge (struct esp_profile *profile, const uint32_t *order,
                   size_t n)
{
  CLEANUP_FREE struct esp_profile_unit *boot = NULL;

  if (n > ESP_PROFILE_UNITS_MAX)
    n = ESP_PROFILE_UNITS_MAX;
  if (!(boot = table (n)))
    return -1;
  for (size_t i = 0; i < n; ++i)
    boot[i] = (struct esp_profile_unit) {
      .unit = order[i], .boots = 1, .rank = (uint32_t) i * RANK_ONE
    };
  sort (boot, n, by_unit);
  if (combine (profile, boot, n, join_boot) == -1)
    return -1;
  if (profile->boots < BOOTS_MAX)
    profile->boots++;
  return 0;
}

int
esp_profile_union (struct esp_profile *into, const struct esp_profile *other)
{
  CLEANUP_FREE struct esp_profile_unit *b = sorted_copy (other);

  if (!b || combine (into, b, other->n, join_sides) == -1)
    return -1;
  if (other->boots > into->boots)
    into->boots = other->boots;
  return 0;
}
