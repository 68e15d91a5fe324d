/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier need: what users ask for, and who serves it. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "boot/needs.h"
#include "espalier.h"
#include "store/site.h"

#define NO_NEEDS "no needs yet: espalier need add NAME --app APP adds the first"

/* --- who serves what ---------------------------------------------------- */

/* All needs, and which restore points and venues serve them. */
struct serving {
  struct esp_need_list needs;
  struct esp_rp_list rps;
  struct esp_venue_list venues;
  struct esp_venue_boot_list boots;
  const struct esp_need **wanted;       /* those that are looked at */
  size_t nwanted;
  struct esp_match_list match;  /* venues */
  bool *rp_serves;              /* [restore point × needs.n + need] */
};

static void
serving_clear (struct serving *s)
{
  esp_match_list_clear (&s->match);
  esp_need_list_clear (&s->needs);
  esp_rp_list_clear (&s->rps);
  esp_venue_list_clear (&s->venues);
  esp_venue_boot_list_clear (&s->boots);
  free (s->wanted);
  free (s->rp_serves);
}
#define CLEANUP_SERVING __attribute__ ((cleanup (serving_clear)))

static int
serving_load (struct serving *s)
{
  if (cli_open () != 0 ||
      esp_catalog_need_list (cli_catalog (), &s->needs) == -1 ||
      esp_catalog_rp_list (cli_catalog (), NULL, &s->rps) == -1 ||
      esp_catalog_venue_list (cli_catalog (), NULL, &s->venues) == -1 ||
      esp_catalog_venue_boot_list (cli_catalog (), &s->boots) == -1)
    return -1;
  s->wanted = xcalloc (s->needs.n + 1, sizeof *s->wanted);
  return 0;
}

static int
serving_rank (struct serving *s)
{
  return esp_needs_rank (&s->rps, &s->venues, &s->boots, s->wanted,
                         s->nwanted, &s->match);
}

/* Of all needs, by venues and restore points. */
static int
serving_of_all (struct serving *s)
{
  CLEANUP_FREE esp_uuid *uuids = NULL;

  if (serving_load (s) == -1)
    return -1;
  for (size_t i = 0; i < s->needs.n; i++)
    s->wanted[s->nwanted++] = &s->needs.need[i];
  uuids = xcalloc (s->rps.n + 1, sizeof *uuids);
  for (size_t i = 0; i < s->rps.n; i++)
    uuids[i] = s->rps.rp[i].uuid;
  s->rp_serves = xcalloc (s->rps.n * s->needs.n + 1, sizeof *s->rp_serves);
  return serving_rank (s) == -1 ||
    esp_needs_served_by (&s->rps, &s->needs, uuids, s->rps.n,
                         s->rp_serves) == -1 ? -1 : 0;
}

static int
by_text (const void *a, const void *b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* The ids of the venues that serve need I, sorted; *N of them.  malloced. */
static const char **
venues_of (const struct serving *s, size_t i, size_t *n)
{
  const char **ids = xcalloc (s->match.n + 1, sizeof *ids);

  *n = 0;
  for (size_t m = 0; m < s->match.n; m++)
    if (s->match.match[m].serves[i])
      ids[(*n)++] = s->match.match[m].venue->id;
  qsort (ids, *n, sizeof *ids, by_text);
  return ids;
}

static json_t *
json_served (const struct serving *s, size_t i)
{
  json_t *o = json_need (&s->needs.need[i]);
  json_t *venues = json_array (), *rps = json_array ();
  size_t n;
  CLEANUP_FREE const char **ids = venues_of (s, i, &n);

  for (size_t v = 0; v < n; v++)
    json_array_append_new (venues, json_string (ids[v]));
  for (size_t r = 0; r < s->rps.n; r++)
    if (s->rp_serves[r * s->needs.n + i])
      json_array_append_new (rps, json_string (s->rps.rp[r].name));
  json_object_set_new (o, "venues", venues);
  json_object_set_new (o, "restore_points", rps);
  return o;
}

/* --- of one restore point ----------------------------------------------- */

json_t *
needs_served_by (const esp_uuid *uuid)
{
  CLEANUP_NEED_LIST struct esp_need_list needs = { 0 };
  CLEANUP_RP_LIST struct esp_rp_list rps = { 0 };
  CLEANUP_FREE bool *serves = NULL;
  json_t *names;

  if (esp_catalog_need_list (cli_catalog (), &needs) == -1)
    return NULL;
  if (needs.n == 0)
    return json_array ();
  serves = xcalloc (needs.n, sizeof *serves);
  if (esp_catalog_rp_list (cli_catalog (), NULL, &rps) == -1 ||
      esp_needs_served_by (&rps, &needs, uuid, 1, serves) == -1)
    return NULL;
  names = json_array ();
  for (size_t i = 0; i < needs.n; i++)
    if (serves[i])
      json_array_append_new (names, json_text (needs.need[i].name));
  return names;
}

char *
needs_text (json_t *names)
{
  char *text = xstrdup (""), *more;
  size_t i, n = json_array_size (names);
  json_t *name;

  json_array_foreach (names, i, name) {
    more = xasprintf ("%s%s%s", text, i == 0 ? "" : i + 1 == n ? " and "
                      : ", ", json_string_value (name));
    free (text);
    text = more;
  }
  return text;
}

/* --- add, set ----------------------------------------------------------- */

static int
need_done (const char *what, const char *name)
{
  CLEANUP_SERVING struct serving s = { 0 };
  size_t i = 0, n;

  if (serving_of_all (&s) == -1)
    return CLI_FAILED;
  while (i < s.needs.n && strcmp (s.needs.need[i].name, name) != 0)
    i++;
  if (i == s.needs.n)           /* deleted meanwhile */
    return cli_done (NULL, "%s need %s", what, name);
  CLEANUP_FREE const char **ids = venues_of (&s, i, &n);
  if (n == 0)
    return cli_done (cli.json ? json_served (&s, i) : NULL,
                     "%s need %s: no venue serves it yet", what, name);
  return cli_done (cli.json ? json_served (&s, i) : NULL,
                   n == 1 ? "%s need %s: venue %s serves it"
                   : "%s need %s: venue %s and %zu more serve it", what, name,
                   ids[0], n - 1);
}

static int
need_add_run (const struct args *args)
{
  const char *description = opt_value (args, "description");
  struct esp_need x = { .name = args->arg[0],
                        .description = (char *) description };
  int r;

  if (!opt_has (args, "env") && !opt_has (args, "app"))
    return usage (args->cmd, "what does it take? give --env or --app");
  if (resources_parse (args, &x.resources, &x.nresources) != 0)
    return CLI_USAGE;
  r = cli_open () != 0 ? -1 : esp_site_need_add (cli.store, &x);
  resources_free (x.resources, x.nresources);
  return r == -1 ? CLI_FAILED : need_done ("added", x.name);
}

static int
need_set_run (const struct args *args)
{
  CLEANUP_NEED struct esp_need old = { 0 };
  const char *description = opt_value (args, "description");
  struct esp_need x;
  struct esp_resource *resources = NULL;
  size_t n = 0;
  int r;

  if (!opt_has (args, "env") && !opt_has (args, "app") && !description)
    return usage (args->cmd, "nothing to set: give --env, --app or"
                  " --description");
  if (resources_parse (args, &resources, &n) != 0)
    return CLI_USAGE;
  r = cli_open () != 0 ? -1
    : esp_catalog_need_get (cli_catalog (), args->arg[0], &old);
  if (r == 0) {
    x = old;
    if (description)
      x.description = (char *) description;
    if (n) {
      x.resources = resources;
      x.nresources = n;
    }
    r = esp_site_need_set (cli.store, &x);
  }
  resources_free (resources, n);
  return r == -1 ? CLI_FAILED : need_done ("set", args->arg[0]);
}

/* --- list, show --------------------------------------------------------- */

static char *
list_name (const void *arg, size_t i)
{
  return xstrdup (((const struct serving *) arg)->needs.need[i].name);
}

static json_t *
list_json (const void *arg, size_t i)
{
  return json_served (arg, i);
}

/* "Windows 11, CS2" */
static char *
takes (const struct esp_need *x)
{
  char *text = xstrdup (""), *more;

  for (size_t i = 0; i < x->nresources; i++) {
    const struct esp_resource *r = &x->resources[i];

    more = xasprintf ("%s%s%s%s%s", text, i ? ", " : "", r->name,
                      *r->version ? " " : "", r->version);
    free (text);
    text = more;
  }
  return text;
}

static void
list_rows (struct table *t, const void *arg, size_t i)
{
  const struct serving *s = arg;
  CLEANUP_FREE char *text = takes (&s->needs.need[i]), *venues = NULL;
  size_t n, rps = 0;
  CLEANUP_FREE const char **ids = venues_of (s, i, &n);

  for (size_t r = 0; r < s->rps.n; r++)
    rps += s->rp_serves[r * s->needs.n + i];
  venues = n == 0 ? xstrdup ("none")
    : n == 1 ? xstrdup (ids[0]) : n == 2 ? xasprintf ("%s, %s", ids[0], ids[1])
    : xasprintf ("%s, %s and %zu more", ids[0], ids[1], n - 2);
  table_row (t);
  table_cell (t, s->needs.need[i].name);
  table_cell (t, text);
  table_cell (t, venues);
  table_cellf (t, "%zu", rps);
  table_cell (t, s->needs.need[i].description);
}

static int
need_list_run (const struct args *args)
{
  CLEANUP_SERVING struct serving s = { 0 };

  if (serving_of_all (&s) == -1)
    return CLI_FAILED;
  const struct listing l = {
    &s, s.needs.n, list_name, list_json, list_rows,
    "NEED|TAKES|VENUES|RESTORE POINTS>|DESCRIPTION", NO_NEEDS,
  };
  return list_print (args, &l);
}

static void
show_need (const struct serving *s, size_t i)
{
  const struct esp_need *x = &s->needs.need[i];
  const char *label = "Takes:";
  size_t n;
  CLEANUP_FREE const char **ids = venues_of (s, i, &n);

  field_text ("Need:", x->name);
  if (*x->description)
    field_text ("Description:", x->description);
  for (size_t j = 0; j < x->nresources; j++, label = "") {
    const struct esp_resource *r = &x->resources[j];
    CLEANUP_FREE char *text = xasprintf ("%s %s%s%s", r->kind, r->name,
                                         *r->version ? " " : "", r->version);
    field_text (label, text);
  }
  label = "Venues:";
  for (size_t v = 0; v < n; v++, label = "")
    field (label, "%s", ids[v]);
  if (n == 0)
    field (label, "none serves it");
  label = "Restore points:";
  for (size_t r = 0; r < s->rps.n; r++)
    if (s->rp_serves[r * s->needs.n + i]) {
      field (label, "%s", s->rps.rp[r].name);
      label = "";
    }
  if (*label)
    field (label, "none serves it");
}

static int
need_show_run (const struct args *args)
{
  CLEANUP_SERVING struct serving s = { 0 };
  CLEANUP_NEED struct esp_need x = { 0 };
  size_t i = 0;

  if (serving_of_all (&s) == -1 ||
      esp_catalog_need_get (cli_catalog (), args->arg[0], &x) == -1)
    return CLI_FAILED;
  while (i < s.needs.n && strcmp (s.needs.need[i].name, x.name) != 0)
    i++;
  if (i == s.needs.n) {
    esp_error ("need '%s' was added just now: try again", x.name);
    return CLI_FAILED;
  }
  if (cli.json)
    return json_print (json_served (&s, i));
  show_need (&s, i);
  return CLI_OK;
}

static int
need_delete_run (const struct args *args)
{
  if (cli_open () != 0 ||
      esp_site_need_delete (cli.store, args->arg[0]) == -1)
    return CLI_FAILED;
  return cli_done (json_pack ("{s:s}", "deleted", args->arg[0]),
                   "deleted need %s", args->arg[0]);
}

/* --- match -------------------------------------------------------------- */

static char *
match_name (const void *arg, size_t i)
{
  return xstrdup (((const struct serving *) arg)->match.match[i].venue->id);
}

static json_t *
match_json (const void *arg, size_t i)
{
  const struct serving *s = arg;
  return json_match (&s->match.match[i], s->wanted, s->nwanted);
}

static void
match_rows (struct table *t, const void *arg, size_t i)
{
  const struct esp_match *m = &((const struct serving *) arg)->match.match[i];

  table_row (t);
  table_cellf (t, "%zu", i + 1);
  table_cell (t, m->venue->id);
  table_cellf (t, "%u", m->served);
  table_cellf (t, "%u", m->extra);
  table_cellf (t, "%u", m->weight);
  table_cell (t, m->why);
}

/* Each need once, in the order of the arguments. */
static int
want (struct serving *s, const char *name)
{
  CLEANUP_NEED struct esp_need x = { 0 };

  for (size_t i = 0; i < s->nwanted; i++)
    if (strcmp (s->wanted[i]->name, name) == 0)
      return 0;
  for (size_t i = 0; i < s->needs.n; i++)
    if (strcmp (s->needs.need[i].name, name) == 0) {
      s->wanted[s->nwanted++] = &s->needs.need[i];
      return 0;
    }
  /* It reports that there is none. */
  return esp_catalog_need_get (cli_catalog (), name, &x) == -1 ? -1
    : want (s, x.name);
}

static int
need_match_run (const struct args *args)
{
  CLEANUP_SERVING struct serving s = { 0 };

  if (serving_load (&s) == -1)
    return CLI_FAILED;
  for (unsigned i = 0; i < args->n; i++)
    if (want (&s, args->arg[i]) == -1)
      return CLI_FAILED;
  if (serving_rank (&s) == -1)
    return CLI_FAILED;
  const struct listing l = {
    &s, s.match.n, match_name, match_json, match_rows,
    "#>|VENUE|SERVES>|OTHER>|WEIGHT>|WHY",
    "no venue serves any of these",
  };
  return list_print (args, &l);
}

#define TAKES                                                           \
  { "env", 0, "NAME[=VERSION]", "it takes this environment", true },    \
  { "app", 0, "NAME[=VERSION]", "it takes this application", true },    \
  { "description", 0, "TEXT", "what users read of it", false }

static const struct opt need_options[] = { TAKES, { 0 } };

const struct command need_commands[] = {
  { "need add", "NAME [--env ...] [--app ...] [--description TEXT]",
    "Name something that users ask for, and what it takes",
    "A venue serves it that has all of these resources; without a version, any\n"
    "is good.", need_options, 1, 1, 0, need_add_run },
  { "need set", "NAME [--env ...] [--app ...] [--description TEXT]",
    "Change what a need takes, or its description",
    "Resources are all given anew.", need_options, 1, 1, 0, need_set_run },
  { "need list", "[--names]", "List needs, and who serves them",
    NULL, list_options, 0, 0, 0, need_list_run },
  { "need show", "NAME", "Show a need, and who serves it",
    NULL, NULL, 1, 1, 0, need_show_run },
  { "need match", "NAME ... [--names]",
    "Rank the venues for these needs, as the boot menu does",
    "Most needs served first, then fewest other programs, then the weight that\n"
    "venue set gave it, then its id.",
    list_options, 1, ARGS_ANY, 0, need_match_run },
  { "need delete", "NAME", "Delete a need",
    NULL, NULL, 1, 1, 0, need_delete_run },
  { 0 },
};
