/* SPDX-License-Identifier: BSD-3-Clause */
/* The ranking by needs: by hand, against a naive twin on random catalogs,
 * and how long it takes.
 */

#include "unit.h"

#include <time.h>

#include "boot/needs.h"

/* --- a catalog in memory -------------------------------------------------- */

static struct esp_rp_list rps;
static struct esp_venue_list venues;
static struct esp_venue_boot_list boots;
static struct esp_need_list needs;

static esp_uuid
uuid (unsigned n)
{
  esp_uuid u = { { [0] = (uint8_t) (n * 37), [12] = (uint8_t) (n >> 24),
                   [13] = (uint8_t) (n >> 16), [14] = (uint8_t) (n >> 8),
                   [15] = (uint8_t) n } };
  return u;
}

static void
clear (void)
{
  esp_rp_list_clear (&rps);
  esp_venue_list_clear (&venues);
  esp_venue_boot_list_clear (&boots);
  esp_need_list_clear (&needs);
}

static void *
more (void *base, size_t n, size_t size)
{
  char *r = reallocarray (base, n + 1, size);

  assert_non_null (r);
  return memset (r + n * size, 0, size), r;
}

/* "app:CS2=3" */
static void
give (struct esp_resource **list, size_t *n, const char *text)
{
  const char *version = strchr (text, '=');
  size_t len = version ? (size_t) (version - text) : strlen (text);

  *list = more (*list, *n, sizeof **list);
  (*list)[*n].kind = strndup (text, 3);
  (*list)[*n].name = strndup (text + 4, len - 4);
  (*list)[*n].version = strdup (version ? version + 1 : "");
  ++*n;
}

/* Restore point N (1, 2, …) over PARENT (0: a root), with the resources of
 * TEXT, separated by blanks.
 */
static void
rp (unsigned parent, const char *text)
{
  CLEANUP_FREE char *copy = strdup (text);
  struct esp_rp *x;

  rps.rp = more (rps.rp, rps.n, sizeof *rps.rp);
  x = &rps.rp[rps.n++];
  x->uuid = uuid ((unsigned) rps.n);
  if (parent)
    x->parent = uuid (parent);
  for (char *p = strtok (copy, " "); p; p = strtok (NULL, " "))
    give (&x->resources, &x->nresources, p);
}

static void
venue (const char *id, unsigned tip0, unsigned tip1)
{
  struct esp_venue *v;

  venues.venue = more (venues.venue, venues.n, sizeof *venues.venue);
  v = &venues.venue[venues.n++];
  snprintf (v->id, sizeof v->id, "%s", id);
  v->ndisks = tip1 ? 2 : 1;
  v->disks = calloc (2, sizeof *v->disks);
  v->disks[0] = uuid (tip0);
  v->disks[1] = uuid (tip1);
}

static void
weigh (const char *id, unsigned weight)
{
  boots.boot = more (boots.boot, boots.n, sizeof *boots.boot);
  snprintf (boots.boot[boots.n].id, ESP_NAME_MAX, "%s", id);
  boots.boot[boots.n++].weight = weight;
}

static void
need (const char *name, const char *text)
{
  CLEANUP_FREE char *copy = strdup (text);
  struct esp_need *x;

  needs.need = more (needs.need, needs.n, sizeof *needs.need);
  x = &needs.need[needs.n++];
  x->name = strdup (name);
  for (char *p = strtok (copy, " "); p; p = strtok (NULL, " "))
    give (&x->resources, &x->nresources, p);
}

static void
rank_all (struct esp_match_list *out)
{
  CLEANUP_FREE const struct esp_need **wanted =
    calloc (needs.n + 1, sizeof *wanted);

  for (size_t i = 0; i < needs.n; ++i)
    wanted[i] = &needs.need[i];
  if (esp_needs_rank (&rps, &venues, &boots, wanted, needs.n, out) == -1)
    fail_msg ("%s", unit_error);
}

/* "id: why" lines. */
static void
ranking_is (const char *want)
{
  CLEANUP_MATCH_LIST struct esp_match_list list = { 0 };
  char text[4096] = "", *p = text;

  rank_all (&list);
  for (size_t i = 0; i < list.n; ++i)
    p += sprintf (p, "%s: %s\n", list.match[i].venue->id, list.match[i].why);
  assert_string_equal (text, want);
}

static int
teardown (void **state)
{
  (void) state;
  clear ();
  return 0;
}

/* --- by hand ---------------------------------------------------------------- */

static void
children_have_what_their_parents_have (void **state)
{
  (void) state;
  rp (0, "env:Windows=11");
  rp (1, "app:Office=2021 app:CS2");
  rp (2, "app:Office=2024");
  venue ("old", 2, 0);
  venue ("new", 3, 0);
  venue ("bare", 1, 0);
  need ("Office", "env:Windows=11 app:Office");
  need ("Office 2021", "app:Office=2021");
  ranking_is ("old: serves Office and Office 2021; 1 other program\n"
              "new: serves Office, not Office 2021; 1 other program\n");
}

static void
two_versions_of_one_restore_point_both_count (void **state)
{
  (void) state;
  rp (0, "env:python=3.9");
  rp (1, "env:python=3.11 env:python=3.12");
  venue ("v", 2, 0);
  need ("a", "env:python=3.11");
  need ("b", "env:python=3.12");
  need ("c", "env:python=3.9");
  ranking_is ("v: serves a and b, not c; nothing else\n");
}

static void
venue_has_what_each_of_its_disks_has (void **state)
{
  (void) state;
  rp (0, "app:a app:x=1");
  rp (0, "app:b app:x=2 app:a");
  venue ("both", 1, 2);
  need ("need", "app:a app:b app:x=2");
  /* x=1 is something else; a is one program. */
  ranking_is ("both: serves need; 1 other program\n");
}

static void
order_is_served_then_extra_then_weight_then_id (void **state)
{
  (void) state;
  rp (0, "app:a app:b");
  rp (0, "app:a app:x app:y");
  rp (0, "app:a");
  rp (0, "app:z");
  venue ("most", 1, 0);
  venue ("extra", 2, 0);
  venue ("heavy", 3, 0);
  venue ("b", 3, 0);
  venue ("a", 3, 0);
  venue ("light", 3, 0);
  venue ("none", 4, 0);
  weigh ("heavy", 101);
  weigh ("light", 99);
  need ("A", "app:a");
  need ("B", "app:b");
  ranking_is ("most: serves A and B; nothing else\n"
              "heavy: serves A, not B; nothing else\n"
              "a: serves A, not B; nothing else\n"
              "b: serves A, not B; nothing else\n"
              "light: serves A, not B; nothing else\n"
              "extra: serves A, not B; 2 other programs\n");
}

static void
long_lists_are_cut_in_why (void **state)
{
  (void) state;
  rp (0, "app:a");
  venue ("v", 1, 0);
  for (char c = 'a'; c <= 'f'; ++c)
    need ((char[]) { c, 0 }, "app:a");
  for (char c = 'A'; c <= 'D'; ++c)
    need ((char[]) { c, 0 }, "app:b");
  ranking_is ("v: serves a, b, c and 3 more, not A, B, C and D;"
              " nothing else\n");
}

static void
nothing_wanted_is_no_ranking (void **state)
{
  (void) state;
  rp (0, "app:a");
  venue ("v", 1, 0);
  ranking_is ("");
  need ("b", "app:b");
  ranking_is ("");
  need ("anything", "");
  ranking_is ("v: serves anything, not b; 1 other program\n");
}

static void
kinds_and_names_are_compared_whole (void **state)
{
  (void) state;
  rp (0, "env:Office app:Offic app:Office2 app:office");
  venue ("v", 1, 0);
  need ("Office", "app:Office");
  ranking_is ("");
}

static void
damaged_catalog_ends (void **state)
{
  (void) state;
  rp (2, "app:a");              /* a ring */
  rp (1, "");
  rp (3, "app:a");              /* its own parent */
  rp (99, "app:a");             /* a parent that is not there */
  rp (6, "");                   /* a ring of nothing */
  rp (5, "");
  venue ("ring", 2, 0);
  venue ("self", 3, 0);
  venue ("orphan", 4, 0);
  venue ("gone", 77, 0);
  venue ("nothing", 5, 6);
  need ("a", "app:a");
  ranking_is ("orphan: serves a; nothing else\n"
              "ring: serves a; nothing else\n"
              "self: serves a; nothing else\n");
}

static void
resources_of_a_restore_point (void **state)
{
  struct esp_resource *list;
  esp_uuid u = uuid (3);
  size_t n;

  (void) state;
  rp (0, "env:Windows=10 app:a");
  rp (1, "");
  rp (2, "app:b env:Windows=11");
  assert_int_equal (esp_resources_of (&rps, &u, &list, &n), 0);
  assert_int_equal (n, 3);
  assert_string_equal (list[0].name, "b");
  assert_string_equal (list[1].version, "11");
  assert_string_equal (list[2].name, "a");
  need ("x", "env:Windows=11 app:a app:b");
  need ("y", "env:Windows=10");
  need ("z", "");
  assert_true (esp_need_served (&needs.need[0], list, n));
  assert_false (esp_need_served (&needs.need[1], list, n));
  assert_true (esp_need_served (&needs.need[2], NULL, 0));
  esp_resources_free (list, n);
  u = uuid (9);
  assert_int_equal (esp_resources_of (&rps, &u, &list, &n), 0);
  assert_int_equal (n, 0);
  esp_resources_free (list, n);
}

/* --- a naive twin ------------------------------------------------------------ */

/* All of the rules of docs/boot.md, by lists that are gone through. */
struct bag { struct esp_resource r[4000]; size_t n; };

static bool
same (const struct esp_resource *a, const struct esp_resource *b,
      bool with_version)
{
  return strcmp (a->kind, b->kind) == 0 && strcmp (a->name, b->name) == 0 &&
    (!with_version || strcmp (a->version, b->version) == 0);
}

static const struct esp_rp *
twin_find (const esp_uuid *u)
{
  for (size_t i = 0; i < rps.n; ++i)
    if (esp_uuid_eq (&rps.rp[i].uuid, u))
      return &rps.rp[i];
  return NULL;
}

static void
twin_chain (const esp_uuid *tip, struct bag *bag)
{
  bag->n = 0;
  for (const struct esp_rp *p = twin_find (tip); p; p = twin_find (&p->parent)) {
    size_t nearer = bag->n;

    for (size_t i = 0; i < p->nresources; ++i) {
      bool skip = false;
      for (size_t j = 0; j < bag->n; ++j)
        skip |= same (&bag->r[j], &p->resources[i], j >= nearer);
      if (!skip)
        bag->r[bag->n++] = p->resources[i];
    }
  }
}

static void
twin_venue (const struct esp_venue *v, struct bag *all)
{
  static struct bag one;

  all->n = 0;
  for (unsigned d = 0; d < v->ndisks; ++d) {
    twin_chain (&v->disks[d], &one);
    for (size_t i = 0; i < one.n; ++i) {
      bool skip = false;
      for (size_t j = 0; j < all->n; ++j)
        skip |= same (&all->r[j], &one.r[i], true);
      if (!skip)
        all->r[all->n++] = one.r[i];
    }
  }
}

static unsigned
twin_extra (const struct bag *has)
{
  unsigned extra = 0;

  for (size_t i = 0; i < has->n; ++i) {
    bool asked = false;
    for (size_t j = 0; j < needs.n; ++j)
      for (size_t k = 0; k < needs.need[j].nresources; ++k)
        asked |= same (&needs.need[j].resources[k], &has->r[i],
                       needs.need[j].resources[k].version[0] != 0);
    extra += !asked;
  }
  return extra;
}

/* Does X stand before Y? */
static bool
before (const struct esp_match *x, const struct esp_match *y)
{
  if (x->served != y->served)
    return x->served > y->served;
  if (x->extra != y->extra)
    return x->extra < y->extra;
  if (x->weight != y->weight)
    return x->weight > y->weight;
  return strcmp (x->venue->id, y->venue->id) < 0;
}

static const struct esp_match *
match_of (const struct esp_match_list *list, const struct esp_venue *v)
{
  for (size_t i = 0; i < list->n; ++i)
    if (list->match[i].venue == v)
      return &list->match[i];
  return NULL;
}

static void
compare (const struct esp_match_list *list)
{
  static struct bag has;

  for (size_t i = 0; i < venues.n; ++i) {
    const struct esp_match *m = match_of (list, &venues.venue[i]);
    unsigned served = 0, weight = ESP_WEIGHT_DEFAULT;

    twin_venue (&venues.venue[i], &has);
    for (size_t j = 0; j < needs.n; ++j) {
      bool serves = esp_need_served (&needs.need[j], has.r, has.n);
      served += serves;
      assert_true (!m || m->serves[j] == serves);
    }
    for (size_t j = 0; j < boots.n; ++j)
      if (strcmp (boots.boot[j].id, venues.venue[i].id) == 0)
        weight = boots.boot[j].weight;
    assert_int_equal (served > 0, m != NULL);
    if (!m)
      continue;
    assert_int_equal (m->served, served);
    assert_int_equal (m->extra, twin_extra (&has));
    assert_int_equal (m->weight, weight);
  }
  for (size_t i = 1; i < list->n; ++i)
    assert_true (before (&list->match[i - 1], &list->match[i]));
}

static void
random_resources (char *text, unsigned max, unsigned names)
{
  unsigned n = max ? (unsigned) random () % (max + 1) : 0;

  *text = 0;
  for (unsigned i = 0; i < n; ++i) {
    text += sprintf (text, "%s:r%ld", random () & 1 ? "env" : "app",
                     random () % names);
    if (random () & 1)
      text += sprintf (text, "=%ld", random () % 3);
    text += sprintf (text, " ");
  }
}

static void
random_catalog (void)
{
  unsigned n = 1 + (unsigned) random () % 30, names = 1 + random () % 8;
  char text[1024], id[16];

  for (unsigned i = 0; i < n; ++i) {
    random_resources (text, (unsigned) random () % 4, names);
    rp (i ? (unsigned) random () % (i + 1) : 0, text);
  }
  for (unsigned i = 0; i < 12; ++i) {
    snprintf (id, sizeof id, "v%02u", i);
    venue (id, 1 + (unsigned) random () % n,
           random () & 1 ? 1 + (unsigned) random () % n : 0);
    if (random () & 1)
      weigh (id, (unsigned) random () % 3 * 100);
  }
  n = (unsigned) random () % 6;
  for (unsigned i = 0; i < n; ++i) {
    random_resources (text, 3, names);
    snprintf (id, sizeof id, "need%u", i);
    need (id, text);
  }
}

static void
ranking_agrees_with_its_naive_twin (void **state)
{
  (void) state;
  srandom (unit_seed ());
  for (unsigned round = 0; round < 1500; ++round) {
    CLEANUP_MATCH_LIST struct esp_match_list list = { 0 };

    random_catalog ();
    rank_all (&list);
    compare (&list);
    /* Whom it serves, restore point by restore point. */
    CLEANUP_FREE bool *out = calloc (rps.n * needs.n + 1, 1);
    CLEANUP_FREE esp_uuid *uuids = calloc (rps.n, sizeof *uuids);
    static struct bag has;
    for (size_t i = 0; i < rps.n; ++i)
      uuids[i] = rps.rp[i].uuid;
    assert_int_equal (esp_needs_served_by (&rps, &needs, uuids, rps.n, out),
                      0);
    for (size_t i = 0; i < rps.n; ++i) {
      twin_chain (&uuids[i], &has);
      for (size_t j = 0; j < needs.n; ++j)
        assert_int_equal (out[i * needs.n + j],
                          esp_need_served (&needs.need[j], has.r, has.n));
    }
    clear ();
  }
}

/* The order of the lists makes no difference. */
static void
ranking_depends_on_nothing_else (void **state)
{
  (void) state;
  srandom (unit_seed ());
  for (unsigned round = 0; round < 200; ++round) {
    CLEANUP_MATCH_LIST struct esp_match_list a = { 0 }, b = { 0 };

    random_catalog ();
    rank_all (&a);
    for (size_t i = rps.n; i > 1; --i) {
      size_t j = (size_t) random () % i;
      struct esp_rp t = rps.rp[i - 1];
      rps.rp[i - 1] = rps.rp[j];
      rps.rp[j] = t;
    }
    rank_all (&b);
    assert_int_equal (a.n, b.n);
    for (size_t i = 0; i < a.n; ++i) {
      assert_ptr_equal (a.match[i].venue, b.match[i].venue);
      assert_string_equal (a.match[i].why, b.match[i].why);
    }
    clear ();
  }
}

/* --- time ---------------------------------------------------------------------- */

static double
seconds (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void
large_sites_are_ranked_quickly (void **state)
{
  CLEANUP_MATCH_LIST struct esp_match_list list = { 0 };
  char text[64], id[16];
  double before;

  (void) state;
  /* Ten chains of 1,000, each restore point with a program. */
  for (unsigned i = 0; i < 10000; ++i) {
    snprintf (text, sizeof text, "app:p%u=%u", i % 1000, i % 7);
    rp (i % 1000 ? i : 0, text);
  }
  for (unsigned i = 0; i < 1000; ++i) {
    snprintf (id, sizeof id, "v%u", i);
    venue (id, i % 10 * 1000 + 1000 - i / 10 % 50, 0);
  }
  for (unsigned i = 0; i < 100; ++i) {
    snprintf (text, sizeof text, "app:p%u app:p%u", i * 7, i * 11 + 3);
    snprintf (id, sizeof id, "n%u", i);
    need (id, text);
  }
  before = seconds ();
  rank_all (&list);
  before = seconds () - before;
  printf ("# 1,000 venues on chains of 1,000, 100 needs: %.0f ms\n",
          before * 1000);
  assert_int_equal (list.n, 1000);
  assert_true (before < 5);     /* a busy machine, sanitizers */
}

#define T(fn) cmocka_unit_test_teardown (fn, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    T (children_have_what_their_parents_have),
    T (two_versions_of_one_restore_point_both_count),
    T (venue_has_what_each_of_its_disks_has),
    T (order_is_served_then_extra_then_weight_then_id),
    T (long_lists_are_cut_in_why),
    T (nothing_wanted_is_no_ranking),
    T (kinds_and_names_are_compared_whole),
    T (damaged_catalog_ends),
    T (resources_of_a_restore_point),
    T (ranking_agrees_with_its_naive_twin),
    T (ranking_depends_on_nothing_else),
    T (large_sites_are_ranked_quickly),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
