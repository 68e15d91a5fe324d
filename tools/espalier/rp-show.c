/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier rp list, rp show. */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "rp.h"
#include "store/have.h"
#include "store/image.h"
#include "util/bits.h"

#define NO_RPS "no restore points yet: espalier root add NAME IMAGE adds the first"

/* --- list ------------------------------------------------------------------ */

struct rps {
  struct esp_rp_list list;
  struct rp_index index;        /* empty with --names, as is VENUES */
  struct venue_index venues;
};

static void
rps_clear (struct rps *r)
{
  esp_rp_list_clear (&r->list);
  rp_index_clear (&r->index);
  venue_index_clear (&r->venues);
}

static char *
list_name (const void *arg, size_t i)
{
  return xstrdup (((const struct rps *) arg)->list.rp[i].name);
}

static json_t *
list_json (const void *arg, size_t i)
{
  const struct rps *r = arg;
  return json_rp (&r->list.rp[i], &r->index, &r->venues);
}

static void
list_rows (struct table *t, const void *arg, size_t i)
{
  const struct rps *r = arg;
  const struct esp_rp *rp = &r->list.rp[i];
  CLEANUP_FREE char *uses = venue_index_text (&r->venues, &rp->uuid);
  char buf[ESP_UUID_TEXT];

  table_row (t);
  table_cell (t, rp->name);
  table_cellf (t, "%.8s", esp_uuid_text (&rp->uuid, buf));
  table_cell (t, esp_uuid_is_null (&rp->parent) ? "-"
              : rp_index_name (&r->index, &rp->parent, buf));
  table_size (t, rp->size);
  table_own (t, rp);
  table_cellf (t, "%u", rp->depth);
  table_time (t, rp->created);
  table_cell (t, uses);
  table_cell (t, rp->note);
}

int
rp_list_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp start = { 0 };
  __attribute__ ((cleanup (rps_clear))) struct rps r = { 0 };

  if (cli_open () != 0 ||
      (args->n > 0 &&
       esp_catalog_rp_find (cli_catalog (), args->arg[0], &start) == -1) ||
      esp_catalog_rp_list (cli_catalog (), args->n ? &start.uuid : NULL,
                           &r.list) == -1)
    return CLI_FAILED;
  if (!opt_has (args, "names") && (rp_index_load (&r.index, NULL) != 0 ||
                                   venue_index_load (&r.venues) != 0))
    return CLI_FAILED;
  const struct listing l = {
    &r, r.list.n, list_name, list_json, list_rows,
    "NAME|UUID|PARENT|SIZE>|OWN>|DEPTH>|CREATED|VENUES|NOTE", NO_RPS,
  };
  return list_print (args, &l);
}

/* --- show ------------------------------------------------------------------ */

/* All that rp show knows; gathered first, then printed in either form. */
struct view {
  struct esp_rp rp;
  struct rp_index rps;
  struct venue_index venues;
  struct esp_rp_list children, subtree;
  struct esp_venue_list starts;         /* venues within the subtree */
  struct esp_overlay_info_list overlays; /* of the whole store */
  struct lock_pid *opened;
  size_t nopened;
  struct esp_profile profile;   /* its own; no boots: none */
  json_t *needs;                /* names of those that it serves */
};

static void
view_clear (struct view *v)
{
  esp_rp_clear (&v->rp);
  rp_index_clear (&v->rps);
  venue_index_clear (&v->venues);
  esp_rp_list_clear (&v->children);
  esp_rp_list_clear (&v->subtree);
  esp_venue_list_clear (&v->starts);
  esp_overlay_info_list_clear (&v->overlays);
  free (v->opened);
  esp_profile_clear (&v->profile);
  json_decref (v->needs);
}

/* One that is damaged is none: the next boot replaces it. */
static void
load_profile (struct view *v)
{
  char cause[256];
  struct esp_catch before = esp_catch_begin (cause, sizeof cause);

  if (esp_rp_profile_load (cli.store, &v->rp.uuid, &v->profile) == -1)
    memset (&v->profile, 0, sizeof v->profile);
  esp_catch_end (before);
}

/* What at least half of the boots read, bytes. */
static uint64_t
profile_bytes (const struct esp_profile *p)
{
  uint64_t units = 0;

  for (size_t i = 0; i < p->n; i++)
    units += esp_profile_wanted (p, &p->units[i]);
  return units << ESP_PROFILE_SHIFT;
}

static int
view_load (struct view *v, const char *ref)
{
  CLEANUP_CLOSE int dir = -1;

  if (cli_open () != 0 ||
      esp_catalog_rp_find (cli_catalog (), ref, &v->rp) == -1 ||
      rp_index_load (&v->rps, NULL) != 0 ||
      venue_index_load (&v->venues) != 0 ||
      esp_catalog_rp_children (cli_catalog (), &v->rp.uuid, &v->children) == -1 ||
      esp_catalog_rp_list (cli_catalog (), &v->rp.uuid, &v->subtree) == -1 ||
      esp_catalog_venue_list (cli_catalog (), &v->rp.uuid, &v->starts) == -1 ||
      esp_overlay_list (esp_store_overlays_fd (cli.store), NULL,
                        &v->overlays) == -1 ||
      !(v->needs = needs_served_by (&v->rp.uuid)))
    return CLI_FAILED;
  dir = esp_store_rp_dir (cli.store, &v->rp.uuid);
  if (dir >= 0)
    v->opened = lock_pids (dir, &v->nopened);
  load_profile (v);
  return CLI_OK;
}

/* The N-th overlay that was written over the restore point, or NULL. */
static const struct esp_overlay_info *
overlay_over (const struct view *v, size_t *at)
{
  while (*at < v->overlays.n) {
    const struct esp_overlay_info *o = &v->overlays.o[(*at)++];
    if (esp_uuid_eq (&o->tip, &v->rp.uuid))
      return o;
  }
  return NULL;
}

static bool
has_resource (const struct esp_rp *rp, const struct esp_resource *r)
{
  for (size_t i = 0; i < rp->nresources; i++)
    if (strcmp (rp->resources[i].kind, r->kind) == 0 &&
        strcmp (rp->resources[i].name, r->name) == 0)
      return true;
  return false;
}

/* Is R of ANCESTOR hidden by one of the same name that is nearer to RP? */
static bool
is_hidden (const struct view *v, const struct esp_rp *ancestor,
           const struct esp_resource *r)
{
  for (const struct esp_rp *p = &v->rp; p && p != ancestor;
       p = rp_index_get (&v->rps, &p->parent))
    if (has_resource (p, r))
      return true;
  return false;
}

/* Call FN for each resource that is inherited. */
static void
each_inherited (const struct view *v,
                void (*fn) (void *arg, const struct esp_rp *from,
                            const struct esp_resource *r), void *arg)
{
  for (const struct esp_rp *p = rp_index_get (&v->rps, &v->rp.parent); p;
       p = rp_index_get (&v->rps, &p->parent))
    for (size_t i = 0; i < p->nresources; i++)
      if (!is_hidden (v, p, &p->resources[i]))
        fn (arg, p, &p->resources[i]);
}

static void
add_inherited (void *arg, const struct esp_rp *from,
               const struct esp_resource *r)
{
  json_t *list = json_resources (r, 1);

  json_object_set_new (json_array_get (list, 0), "from",
                       json_string (from->name));
  json_array_extend (arg, list);
  json_decref (list);
}

static json_t *
names_of (const struct esp_rp_list *list)
{
  json_t *names = json_array ();

  for (size_t i = 0; i < list->n; i++)
    json_array_append_new (names, json_string (list->rp[i].name));
  return names;
}

static json_t *
json_chain (const struct view *v)
{
  json_t *names = json_array ();

  for (const struct esp_rp *p = &v->rp; p;
       p = rp_index_get (&v->rps, &p->parent))
    json_array_insert_new (names, 0, json_string (p->name));
  return names;
}

static json_t *
json_starts (const struct view *v)
{
  json_t *names = json_array ();

  for (size_t i = 0; i < v->starts.n; i++)
    json_array_append_new (names, json_string (v->starts.venue[i].id));
  return json_pack ("{s:o,s:o}", "restore_points", names_of (&v->subtree),
                    "venues", names);
}

/* Where a delayed restore point can be fetched: [{center, variant} or
 * {url}].  What cannot be read is left out: store check tells why.
 */
static json_t *
json_sources (const struct esp_rp *rp)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  json_t *array = json_array ();
  char drop[16];

  if (rp->kind != ESP_RP_DELAYED)
    return array;
  esp_catch_errors (drop, sizeof drop);
  if (esp_sources_load (cli.store, &rp->uuid, &list) == -1)
    list.n = 0;
  esp_catch_errors (NULL, 0);
  for (size_t i = 0; i < list.n; i++) {
    const struct esp_source *s = &list.s[i];
    json_array_append_new (array, s->center[0]
                           ? json_pack ("{s:s,s:s}", "center", s->center,
                                        "variant", s->variant.id)
                           : json_pack ("{s:s}", "url", s->url));
  }
  return array;
}

static int
show_json (const struct view *v)
{
  json_t *o = json_rp (&v->rp, &v->rps, &v->venues);
  json_t *inherited = json_array (), *overlays = json_array ();
  json_t *opened = json_array ();
  const struct esp_overlay_info *info;

  each_inherited (v, add_inherited, inherited);
  for (size_t at = 0; (info = overlay_over (v, &at)) != NULL; )
    json_array_append_new (overlays, json_overlay (info, &v->rps));
  for (size_t i = 0; i < v->nopened; i++)
    json_array_append_new (opened, json_pack ("{s:I,s:s}", "pid",
                                              (json_int_t) v->opened[i].pid,
                                              "program",
                                              v->opened[i].program));
  json_object_set_new (o, "chain", json_chain (v));
  json_object_set_new (o, "children", names_of (&v->children));
  json_object_set_new (o, "inherited_resources", inherited);
  json_object_set (o, "needs", v->needs);
  json_object_set_new (o, "starts", json_starts (v));
  json_object_set_new (o, "overlays", overlays);
  json_object_set_new (o, "open_by", opened);
  json_object_set_new (o, "sources", json_sources (&v->rp));
  json_object_set_new (o, "boot_profile",
                       v->profile.boots == 0 ? json_null () :
                       json_pack ("{s:I,s:I}", "boots",
                                  (json_int_t) v->profile.boots, "bytes",
                                  (json_int_t) profile_bytes (&v->profile)));
  return json_print (o);
}

static void
show_resource (const char *label, const struct esp_resource *r,
               const char *from)
{
  CLEANUP_FREE char *text =
    xasprintf ("%s %s%s%s%s%s", r->kind, r->name, *r->version ? " " : "",
               r->version, from ? ", from " : "", from ? from : "");
  field_text (label, text);
}

static void
print_inherited (void *arg, const struct esp_rp *from,
                 const struct esp_resource *r)
{
  const char **label = arg;

  show_resource (*label, r, from->name);
  *label = "";
}

static void
show_sources (const struct esp_rp *rp)
{
  json_t *array = json_sources (rp), *o;
  const char *label = "Fetched from:", *center, *variant, *url;
  size_t i;

  json_array_foreach (array, i, o) {
    if (json_unpack (o, "{s:s}", "url", &url) == 0)
      field_text (label, url);
    else if (json_unpack (o, "{s:s,s:s}", "center", &center, "variant",
                          &variant) == 0)
      field (label, "center %s, %s", center, variant);
    label = "";
  }
  json_decref (array);
}

static void
show_identity (const struct view *v)
{
  const struct esp_rp *rp = &v->rp;
  char buf[ESP_UUID_TEXT], size[16];
  unsigned percent;

  field ("Name:", "%s", rp->name);
  field ("UUID:", "%s", esp_uuid_text (&rp->uuid, buf));
  if (esp_uuid_is_null (&rp->parent))
    field ("Parent:", "none: a root store");
  else
    field ("Parent:", "%s", rp_index_name (&v->rps, &rp->parent, buf));
  if (rp->path)
    field_text ("In place:", rp->path);
  field_size ("Size:", rp->size);
  if (rp->kind != ESP_RP_IN_PLACE)
    field_size ("Own data:", rp->data_blocks << ESP_BLOCK_SHIFT);
  if (rp->kind == ESP_RP_DELAYED) {
    uint64_t local = rp_local (cli.store, rp, &percent);
    field ("Of it local:", "%s, %u%%", esp_size_format (local, size),
           percent);
    show_sources (rp);
  }
  if (rp->zero_blocks)
    field_size ("Own zeroes:", rp->zero_blocks << ESP_BLOCK_SHIFT);
  field_time ("Created:", rp->created);
  if (*rp->note)
    field_text ("Note:", rp->note);
  field ("Chain depth:", "%u", rp->depth);
  if (v->profile.boots > 0)
    field ("Boot profile:", "%u boot%s, %" PRIu64 " MiB", v->profile.boots,
           v->profile.boots == 1 ? "" : "s",
           (profile_bytes (&v->profile) + (1 << 19)) >> 20);
}

static void
show_relations (const struct view *v)
{
  CLEANUP_FREE char *uses = venue_index_text (&v->venues, &v->rp.uuid);
  const char *label;
  json_t *need;
  size_t n;

  label = "Children:";
  for (size_t i = 0; i < v->children.n; i++, label = "")
    field (label, "%s", v->children.rp[i].name);
  label = "Resources:";
  for (size_t i = 0; i < v->rp.nresources; i++, label = "")
    show_resource (label, &v->rp.resources[i], NULL);
  label = "Inherited:";
  each_inherited (v, print_inherited, &label);
  label = "Serves:";
  json_array_foreach (v->needs, n, need) {
    field_text (label, json_string_value (need));
    label = "";
  }
  field ("Venues:", "%s", *uses ? uses : "none");
}

/* What `start=` of the plugin would serve. */
static void
show_starts (const struct view *v)
{
  const char *label = "Starts with it:";

  field (label, "%zu restore point%s, %zu venue%s", v->subtree.n,
         v->subtree.n == 1 ? "" : "s", v->starts.n,
         v->starts.n == 1 ? "" : "s");
  for (size_t i = 0; i < v->subtree.n; i++)
    field ("", "%s", v->subtree.rp[i].name);
  for (size_t i = 0; i < v->starts.n; i++)
    field ("", "venue %s", v->starts.venue[i].id);
}

static void
show_users (const struct view *v)
{
  const struct esp_overlay_info *info;
  const char *label = "Overlays:";

  for (size_t at = 0; (info = overlay_over (v, &at)) != NULL; label = "") {
    CLEANUP_FREE char *name = overlay_name (info);
    field_text (label, name);
  }
  label = "Open by:";
  for (size_t i = 0; i < v->nopened; i++, label = "")
    field (label, "%s (process %ld)", v->opened[i].program, v->opened[i].pid);
}

int
rp_show_run (const struct args *args)
{
  __attribute__ ((cleanup (view_clear))) struct view v = { 0 };

  if (view_load (&v, args->arg[0]) != 0)
    return CLI_FAILED;
  if (cli.json)
    return show_json (&v);
  show_identity (&v);
  show_relations (&v);
  show_starts (&v);
  show_users (&v);
  return CLI_OK;
}
