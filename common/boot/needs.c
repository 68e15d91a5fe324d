/* SPDX-License-Identifier: BSD-3-Clause */
/* Which venues serve what somebody needs.
 *
 * Names are compared once: all resources of all restore points and of the
 * needs asked for are sorted, and each gets two numbers, one for its kind and
 * name (`name`), one for its version, too (`full`).  What a venue has are then
 * two arrays of marks, by number; the mark is the number of the turn, so that
 * nothing is cleared between venues.
 *
 * A chain is walked from its tip, over those restore points only that have
 * resources (`next`, found once for each).  A resource hides one of the same
 * kind and name further down; two of one restore point (two versions of a
 * runtime, say) do not hide each other.  A venue has what each of its disks
 * has.
 *
 * Parents that go round in a ring, or are missing, end a chain.
 */

#include <config.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/needs.h"
#include "util/host.h"

#define NONE UINT32_MAX

struct number { uint32_t name, full; };

struct index {
  const struct esp_rp_list *rps;
  const struct esp_rp **by_uuid;        /* rps->n of them, sorted */
  uint32_t *parent;             /* of each restore point, or NONE */
  uint32_t *next;               /* itself, or the nearest ancestor that has
                                 * resources, or NONE */
  uint32_t *first;              /* its first in `number` */
  struct number *number;        /* of each resource, in their order; those of
                                 * the needs behind them */
  uint32_t *need;               /* the first of each need in `number` */
  size_t n;                     /* resources */
  /* By number: */
  uint32_t *has_name, *has_full;        /* the turn in which it was found */
  uint32_t *hidden;             /* the walk in which one hides it, */
  uint32_t *hider;              /* and the restore point that has that one */
  bool *asked_name, *asked_full;
  uint32_t turn, walk;
};

static void
index_clear (struct index *x)
{
  free (x->by_uuid);
  free (x->parent);
  free (x->next);
  free (x->first);
  free (x->number);
  free (x->need);
  free (x->has_name);
  free (x->has_full);
  free (x->hidden);
  free (x->hider);
  free (x->asked_name);
  free (x->asked_full);
}
#define CLEANUP_INDEX __attribute__ ((cleanup (index_clear)))

static int
no_memory (void)
{
  errno = ENOMEM;
  esp_error ("malloc: %m");
  return -1;
}

/* --- restore points ----------------------------------------------------- */

static int
by_uuid (const void *a, const void *b)
{
  return memcmp (&(*(const struct esp_rp *const *) a)->uuid,
                 &(*(const struct esp_rp *const *) b)->uuid,
                 sizeof (esp_uuid));
}

static uint32_t
find (const struct index *x, const esp_uuid *uuid)
{
  const struct esp_rp key = { .uuid = *uuid }, *p = &key;
  const struct esp_rp **r;

  if (x->rps->n == 0)
    return NONE;
  r = bsearch (&p, x->by_uuid, x->rps->n, sizeof *r, by_uuid);
  return r ? (uint32_t) (*r - x->rps->rp) : NONE;
}

/* Set NEXT of I and of all on the way.  0 is "not known yet": numbers are
 * kept with one added until all are.
 */
static void
find_next (struct index *x, uint32_t i)
{
  uint32_t at = i, found, steps = 0;

  while (at != NONE && !x->next[at] && !x->rps->rp[at].nresources)
    at = ++steps > x->rps->n ? NONE : x->parent[at];
  if (at == NONE)
    found = NONE;
  else
    found = x->next[at] ? x->next[at] : at + 1;
  for (; i != NONE && !x->next[i]; i = x->parent[i]) {
    x->next[i] = found;
    if (i == at)
      break;
  }
}

static int
index_chains (struct index *x)
{
  size_t n = x->rps->n;

  x->by_uuid = calloc (n + 1, sizeof *x->by_uuid);
  x->parent = calloc (n + 1, sizeof *x->parent);
  x->next = calloc (n + 1, sizeof *x->next);
  if (!x->by_uuid || !x->parent || !x->next)
    return no_memory ();
  for (size_t i = 0; i < n; ++i)
    x->by_uuid[i] = &x->rps->rp[i];
  qsort (x->by_uuid, n, sizeof *x->by_uuid, by_uuid);
  for (size_t i = 0; i < n; ++i)
    x->parent[i] = esp_uuid_is_null (&x->rps->rp[i].parent) ? NONE
      : find (x, &x->rps->rp[i].parent);
  for (size_t i = 0; i < n; ++i)
    find_next (x, (uint32_t) i);
  for (size_t i = 0; i < n; ++i)
    if (x->next[i] != NONE)
      --x->next[i];
  return 0;
}

/* --- numbers ------------------------------------------------------------ */

struct entry { const struct esp_resource *r; uint32_t at; };

static const char *
version (const struct esp_resource *r)
{
  return r->version ? r->version : "";
}

static int
name_order (const struct esp_resource *a, const struct esp_resource *b)
{
  int r = strcmp (a->kind, b->kind);

  return r ? r : strcmp (a->name, b->name);
}

static int
entry_order (const void *a, const void *b)
{
  const struct esp_resource *x = ((const struct entry *) a)->r;
  const struct esp_resource *y = ((const struct entry *) b)->r;
  int r = name_order (x, y);

  return r ? r : strcmp (version (x), version (y));
}

static void
list_entries (struct index *x, const struct esp_need *const *wanted,
              size_t nwanted, struct entry *e)
{
  uint32_t n = 0;

  for (size_t i = 0; i < x->rps->n; ++i) {
    x->first[i] = n;
    for (size_t j = 0; j < x->rps->rp[i].nresources; ++j, ++n)
      e[n] = (struct entry) { &x->rps->rp[i].resources[j], n };
  }
  for (size_t i = 0; i < nwanted; ++i) {
    x->need[i] = n;
    for (size_t j = 0; j < wanted[i]->nresources; ++j, ++n)
      e[n] = (struct entry) { &wanted[i]->resources[j], n };
  }
}

/* Those that are the same have the same numbers. */
static void
give_numbers (struct index *x, struct entry *e)
{
  struct number now = { 0, 0 };

  qsort (e, x->n, sizeof *e, entry_order);
  for (size_t i = 0; i < x->n; ++i) {
    if (i && name_order (e[i - 1].r, e[i].r) != 0)
      now.name++;
    if (i && entry_order (&e[i - 1], &e[i]) != 0)
      now.full++;
    x->number[e[i].at] = now;
  }
}

static int
index_resources (struct index *x, const struct esp_need *const *wanted,
                 size_t nwanted)
{
  CLEANUP_FREE struct entry *entries = NULL;

  for (size_t i = 0; i < x->rps->n; ++i)
    x->n += x->rps->rp[i].nresources;
  for (size_t i = 0; i < nwanted; ++i)
    x->n += wanted[i]->nresources;
  if (x->n >= NONE)
    return no_memory ();
  entries = calloc (x->n + 1, sizeof *entries);
  x->number = calloc (x->n + 1, sizeof *x->number);
  x->first = calloc (x->rps->n + 1, sizeof *x->first);
  x->need = calloc (nwanted + 1, sizeof *x->need);
  x->has_name = calloc (x->n + 1, sizeof *x->has_name);
  x->has_full = calloc (x->n + 1, sizeof *x->has_full);
  x->hidden = calloc (x->n + 1, sizeof *x->hidden);
  x->hider = calloc (x->n + 1, sizeof *x->hider);
  x->asked_name = calloc (x->n + 1, sizeof *x->asked_name);
  x->asked_full = calloc (x->n + 1, sizeof *x->asked_full);
  if (!entries || !x->number || !x->first || !x->need || !x->has_name ||
      !x->has_full || !x->hidden || !x->hider || !x->asked_name ||
      !x->asked_full)
    return no_memory ();
  list_entries (x, wanted, nwanted, entries);
  give_numbers (x, entries);
  return 0;
}

static int
index_make (struct index *x, const struct esp_rp_list *rps,
            const struct esp_need *const *wanted, size_t nwanted)
{
  x->rps = rps;
  return index_chains (x) == -1 || index_resources (x, wanted, nwanted) == -1
    ? -1 : 0;
}

/* --- what a chain has --------------------------------------------------- */

/* Call FN for each resource that TIP has and that was not found in this turn
 * yet.  FN returns -1 to end it.
 */
static int
each_resource (struct index *x, uint32_t tip,
               int (*fn) (void *arg, const struct esp_resource *r,
                          struct number number), void *arg)
{
  uint32_t at = tip == NONE ? NONE : x->next[tip], steps = 0;

  x->walk++;
  while (at != NONE && steps++ <= x->rps->n) {
    const struct esp_rp *rp = &x->rps->rp[at];

    for (size_t i = 0; i < rp->nresources; ++i) {
      struct number n = x->number[x->first[at] + i];

      if (x->hidden[n.name] == x->walk && x->hider[n.name] != at)
        continue;
      x->hidden[n.name] = x->walk;
      x->hider[n.name] = at;
      if (x->has_full[n.full] == x->turn)
        continue;
      x->has_full[n.full] = x->has_name[n.name] = x->turn;
      if (fn (arg, &rp->resources[i], n) == -1)
        return -1;
    }
    at = x->parent[at] == NONE ? NONE : x->next[x->parent[at]];
  }
  return 0;
}

struct collect { struct esp_resource *list; size_t n; };

static int
collect (void *arg, const struct esp_resource *r, struct number number)
{
  struct collect *c = arg;
  struct esp_resource *more, *to;

  (void) number;
  more = reallocarray (c->list, c->n + 1, sizeof *more);
  if (!more)
    return -1;
  c->list = more;
  to = memset (&more[c->n++], 0, sizeof *to);
  return (to->kind = strdup (r->kind)) && (to->name = strdup (r->name)) &&
    (to->version = strdup (version (r))) ? 0 : -1;
}

int
esp_resources_of (const struct esp_rp_list *rps, const esp_uuid *uuid,
                  struct esp_resource **out, size_t *n)
{
  CLEANUP_INDEX struct index x = { .turn = 1 };
  struct collect c = { 0 };

  if (index_make (&x, rps, NULL, 0) == -1)
    return -1;
  if (each_resource (&x, find (&x, uuid), collect, &c) == -1) {
    esp_resources_free (c.list, c.n);
    return no_memory ();
  }
  *out = c.list;
  *n = c.n;
  return 0;
}

void
esp_resources_free (struct esp_resource *list, size_t n)
{
  for (size_t i = 0; i < n; ++i) {
    free (list[i].kind);
    free (list[i].name);
    free (list[i].version);
  }
  free (list);
}

/* --- what is served ----------------------------------------------------- */

static bool
fits (const struct esp_resource *wanted, const struct esp_resource *has)
{
  return name_order (wanted, has) == 0 &&
    (!*version (wanted) || strcmp (version (wanted), version (has)) == 0);
}

bool
esp_need_served (const struct esp_need *need, const struct esp_resource *has,
                 size_t n)
{
  for (size_t i = 0; i < need->nresources; ++i) {
    size_t j = 0;

    while (j < n && !fits (&need->resources[i], &has[j]))
      ++j;
    if (j == n)
      return false;
  }
  return true;
}

static int
ignore (void *arg, const struct esp_resource *r, struct number number)
{
  (void) arg;
  (void) r;
  (void) number;
  return 0;
}

/* Is need number I served by what was found in this turn? */
static bool
served (const struct index *x, const struct esp_need *need, size_t i)
{
  for (size_t j = 0; j < need->nresources; ++j) {
    struct number n = x->number[x->need[i] + j];

    if (*version (&need->resources[j]) ? x->has_full[n.full] != x->turn
        : x->has_name[n.name] != x->turn)
      return false;
  }
  return true;
}

int
esp_needs_served_by (const struct esp_rp_list *rps,
                     const struct esp_need_list *needs, const esp_uuid *uuids,
                     size_t n, bool *out)
{
  CLEANUP_INDEX struct index x = { 0 };
  CLEANUP_FREE const struct esp_need **wanted =
    calloc (needs->n + 1, sizeof *wanted);

  if (!wanted)
    return no_memory ();
  for (size_t i = 0; i < needs->n; ++i)
    wanted[i] = &needs->need[i];
  if (index_make (&x, rps, wanted, needs->n) == -1)
    return -1;
  for (size_t i = 0; i < n; ++i) {
    x.turn++;
    each_resource (&x, find (&x, &uuids[i]), ignore, NULL);
    for (size_t j = 0; j < needs->n; ++j)
      out[i * needs->n + j] = served (&x, wanted[j], j);
  }
  return 0;
}

/* --- ranking ------------------------------------------------------------ */

/* A need asks for a name in any version, or for one. */
static void
mark_asked (struct index *x, const struct esp_need *const *wanted, size_t n)
{
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < wanted[i]->nresources; ++j) {
      struct number number = x->number[x->need[i] + j];

      if (*version (&wanted[i]->resources[j]))
        x->asked_full[number.full] = true;
      else
        x->asked_name[number.name] = true;
    }
}

struct count { const struct index *x; unsigned extra; };

static int
count_extra (void *arg, const struct esp_resource *r, struct number number)
{
  struct count *c = arg;

  (void) r;
  c->extra += !c->x->asked_name[number.name] &&
    !c->x->asked_full[number.full];
  return 0;
}

static int
by_id (const void *key, const void *b)
{
  return strcmp (key, ((const struct esp_venue_boot *) b)->id);
}

/* BOOTS is by id, as the catalog lists it. */
static unsigned
weight (const struct esp_venue_boot_list *boots, const char *id)
{
  const struct esp_venue_boot *b = boots->n == 0 ? NULL
    : bsearch (id, boots->boot, boots->n, sizeof *b, by_id);

  return b ? b->weight : ESP_WEIGHT_DEFAULT;
}

/* Fill in M for VENUE; SERVES has room for the needs. */
static void
judge (struct index *x, const struct esp_venue *venue,
       const struct esp_need *const *wanted, size_t nwanted,
       struct esp_match *m)
{
  struct count c = { .x = x };

  x->turn++;
  for (unsigned i = 0; i < venue->ndisks; ++i)
    each_resource (x, find (x, &venue->disks[i]), count_extra, &c);
  m->venue = venue;
  m->extra = c.extra;
  for (size_t i = 0; i < nwanted; ++i) {
    m->serves[i] = served (x, wanted[i], i);
    m->served += m->serves[i];
  }
}

static int
match_order (const void *a, const void *b)
{
  const struct esp_match *x = a, *y = b;

  if (x->served != y->served)
    return x->served > y->served ? -1 : 1;
  if (x->extra != y->extra)
    return x->extra < y->extra ? -1 : 1;
  if (x->weight != y->weight)
    return x->weight > y->weight ? -1 : 1;
  return strcmp (x->venue->id, y->venue->id);
}

/* --- why ---------------------------------------------------------------- */

#define NAMED 4u                /* needs that are named in a line */

/* "A", "A and B", "A, B and C", "A, B, C and 5 more". */
static void
say_names (FILE *f, const struct esp_need *const *wanted, size_t nwanted,
           const bool *serves, bool which, unsigned n)
{
  unsigned named = n > NAMED ? NAMED - 1 : n, said = 0;

  for (size_t i = 0; i < nwanted && said < named; ++i)
    if (serves[i] == which) {
      const char *before = said == 0 ? " " : said + 1 == n ? " and " : ", ";

      fprintf (f, "%s%s", before, wanted[i]->name);
      said++;
    }
  if (n > named)
    fprintf (f, " and %u more", n - named);
}

static char *
make_why (const struct esp_match *m, const struct esp_need *const *wanted,
          size_t nwanted)
{
  char *text = NULL;
  size_t size;
  FILE *f = open_memstream (&text, &size);

  if (!f)
    return NULL;
  fprintf (f, "serves");
  say_names (f, wanted, nwanted, m->serves, true, m->served);
  if (m->served < nwanted) {
    fprintf (f, ", not");
    say_names (f, wanted, nwanted, m->serves, false,
               (unsigned) nwanted - m->served);
  }
  if (m->extra == 0)
    fprintf (f, "; nothing else");
  else
    fprintf (f, "; %u other program%s", m->extra, m->extra == 1 ? "" : "s");
  if (fclose (f) == 0)
    return text;
  free (text);
  return NULL;
}

static int
rank (struct index *x, const struct esp_venue_list *venues,
      const struct esp_venue_boot_list *boots,
      const struct esp_need *const *wanted, size_t nwanted,
      struct esp_match_list *out)
{
  mark_asked (x, wanted, nwanted);
  for (size_t i = 0; i < venues->n; ++i) {
    struct esp_match m = { .serves = calloc (nwanted, sizeof *m.serves) };

    if (!m.serves)
      return no_memory ();
    judge (x, &venues->venue[i], wanted, nwanted, &m);
    if (m.served == 0) {
      free (m.serves);
      continue;
    }
    m.weight = weight (boots, m.venue->id);
    out->match[out->n++] = m;
    if (!(out->match[out->n - 1].why = make_why (&m, wanted, nwanted)))
      return no_memory ();
  }
  if (out->n)
    qsort (out->match, out->n, sizeof *out->match, match_order);
  return 0;
}

int
esp_needs_rank (const struct esp_rp_list *rps,
                const struct esp_venue_list *venues,
                const struct esp_venue_boot_list *boots,
                const struct esp_need *const *wanted, size_t nwanted,
                struct esp_match_list *out)
{
  CLEANUP_INDEX struct index x = { 0 };
  CLEANUP_MATCH_LIST struct esp_match_list list = { 0 };

  memset (out, 0, sizeof *out);
  if (nwanted == 0)
    return 0;
  if (!(list.match = calloc (venues->n + 1, sizeof *list.match)))
    return no_memory ();
  if (index_make (&x, rps, wanted, nwanted) == -1 ||
      rank (&x, venues, boots, wanted, nwanted, &list) == -1)
    return -1;
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

void
esp_match_list_clear (struct esp_match_list *list)
{
  for (size_t i = 0; i < list->n; ++i) {
    free (list->match[i].serves);
    free (list->match[i].why);
  }
  free (list->match);
  memset (list, 0, sizeof *list);
}
