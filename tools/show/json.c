/* SPDX-License-Identifier: BSD-3-Clause */
/* The objects that the command line prints with --json, and that espalierd
 * answers with.  Their keys are a promise: they stand in the manual page and
 * in docs/api.md, new ones may be added, none is renamed.
 */

#include <config.h>

#include <stdio.h>
#include <string.h>

#include "show.h"
#include "util/bits.h"

json_t *
json_uuid (const esp_uuid *uuid)
{
  char buf[ESP_UUID_TEXT];
  return esp_uuid_is_null (uuid) ? json_null ()
    : json_string (esp_uuid_text (uuid, buf));
}

json_t *
json_text (const char *s)
{
  json_t *j = s ? json_string (s) : json_null ();

  if (!j) {
    size_t size = 4 * strlen (s) + 4;
    CLEANUP_FREE char *buf = malloc (size);
    j = buf ? json_string (esp_escape (s, buf, size)) : json_null ();
  }
  return j;
}

json_t *
json_number (uint64_t n)
{
  return json_integer ((json_int_t) n);
}

/* The name of a restore point, null where there is none. */
static json_t *
name_of (const struct rp_index *rps, const esp_uuid *uuid)
{
  const struct esp_rp *rp = rp_index_get (rps, uuid);
  return rp ? json_string (rp->name) : json_null ();
}

json_t *
json_resources (const struct esp_resource *r, size_t n)
{
  json_t *list = json_array ();

  for (size_t i = 0; i < n; i++) {
    json_t *o = json_object ();
    json_object_set_new (o, "kind", json_text (r[i].kind));
    json_object_set_new (o, "name", json_text (r[i].name));
    json_object_set_new (o, "version", json_text (r[i].version));
    json_array_append_new (list, o);
  }
  return list;
}

static void
add_local (json_t *o, struct esp_store *store, const struct esp_rp *rp)
{
  unsigned percent;

  if (rp->kind != ESP_RP_DELAYED)
    return;
  json_object_set_new (o, "local_bytes",
                       json_number (rp_local (store, rp, &percent)));
  json_object_set_new (o, "local_percent", json_number (percent));
}

json_t *
json_rp (const struct esp_rp *rp, const struct rp_index *rps,
         const struct venue_index *venues)
{
  json_t *o = json_object ();

  json_object_set_new (o, "uuid", json_uuid (&rp->uuid));
  json_object_set_new (o, "name", json_string (rp->name));
  json_object_set_new (o, "parent", json_uuid (&rp->parent));
  json_object_set_new (o, "parent_name", name_of (rps, &rp->parent));
  json_object_set_new (o, "kind", json_string (rp_kind_name (rp)));
  json_object_set_new (o, "path", json_text (rp->path));
  json_object_set_new (o, "size", json_number (rp->size));
  json_object_set_new (o, "created", json_number (rp->created));
  json_object_set_new (o, "depth", json_number (rp->depth));
  json_object_set_new (o, "data_bytes",
                       json_number (rp->data_blocks << ESP_BLOCK_SHIFT));
  json_object_set_new (o, "zero_bytes",
                       json_number (rp->zero_blocks << ESP_BLOCK_SHIFT));
  add_local (o, rps->store, rp);
  json_object_set_new (o, "note", json_text (rp->note));
  json_object_set_new (o, "resources",
                       json_resources (rp->resources, rp->nresources));
  if (venues)
    json_object_set_new (o, "venues", venue_index_json (venues, &rp->uuid));
  return o;
}

json_t *
json_venue (const struct esp_venue *venue, const struct rp_index *rps)
{
  json_t *o = json_object (), *disks = json_array ();

  for (unsigned i = 0; i < venue->ndisks; i++) {
    json_t *d = json_object ();
    const struct esp_rp *rp = rp_index_get (rps, &venue->disks[i]);
    json_object_set_new (d, "disk", json_number (i));
    json_object_set_new (d, "tip", json_uuid (&venue->disks[i]));
    json_object_set_new (d, "tip_name", name_of (rps, &venue->disks[i]));
    json_object_set_new (d, "size", rp ? json_number (rp->size) : json_null ());
    json_array_append_new (disks, d);
  }
  json_object_set_new (o, "id", json_string (venue->id));
  json_object_set_new (o, "description", json_text (venue->description));
  json_object_set_new (o, "created", json_number (venue->created));
  json_object_set_new (o, "changed", json_number (venue->changed));
  json_object_set_new (o, "revision", json_number (venue->revision));
  json_object_set_new (o, "disks", disks);
  return o;
}

/* null for what is not set. */
static json_t *
text_or_null (const char *text)
{
  return *text ? json_text (text) : json_null ();
}

void
json_venue_boot (json_t *venue, const struct esp_venue_boot *boot)
{
  json_t *networks = json_array ();
  CLEANUP_FREE char *list = strdup (boot->networks);
  char *save = NULL;

  for (char *word = list ? strtok_r (list, " ,", &save) : NULL; word;
       word = strtok_r (NULL, " ,", &save))
    json_array_append_new (networks, json_text (word));
  json_object_set_new (venue, "boot", text_or_null (esp_boot_name (boot->boot)));
  json_object_set_new (venue, "kernel", text_or_null (boot->kernel));
  json_object_set_new (venue, "initrd", text_or_null (boot->initrd));
  json_object_set_new (venue, "cmdline", text_or_null (boot->cmdline));
  json_object_set_new (venue, "weight", json_number (boot->weight));
  json_object_set_new (venue, "networks", networks);
}

json_t *
json_venue_log (const struct esp_venue_log *log, const struct rp_index *rps)
{
  json_t *array = json_array ();

  for (size_t i = 0; i < log->n; i++) {
    const struct esp_venue_change *c = &log->change[i];
    json_t *disks = json_array (), *names = json_array (), *o;
    for (unsigned d = 0; d < c->ndisks; d++) {
      const struct esp_rp *rp = rp_index_get (rps, &c->disks[d]);
      json_array_append_new (disks, json_uuid (&c->disks[d]));
      json_array_append_new (names, rp ? json_string (rp->name) : json_null ());
    }
    o = json_pack ("{s:I,s:I,s:s,s:s}", "revision", (json_int_t) c->revision,
                   "time", (json_int_t) c->time, "action", c->action,
                   "description", c->description ? c->description : "");
    json_object_set_new (o, "tips", disks);
    json_object_set_new (o, "tip_names", names);
    json_array_append_new (array, o);
  }
  return array;
}

static json_t *
holder (const struct esp_overlay_info *info)
{
  json_t *o;

  if (!info->held)
    return json_null ();
  o = json_object ();
  json_object_set_new (o, "pid", json_number ((uint64_t) info->holder.pid));
  json_object_set_new (o, "program", json_text (info->holder.program));
  json_object_set_new (o, "since", json_number (info->holder.since));
  return o;
}

json_t *
json_overlay (const struct esp_overlay_info *info, const struct rp_index *rps)
{
  CLEANUP_FREE char *name = overlay_name (info);
  json_t *o = json_object ();
  esp_uuid now;
  bool stale = overlay_is_stale (rps, info, &now);

  json_object_set_new (o, "overlay", json_text (name));
  json_object_set_new (o, "venue", json_text (info->venue));
  json_object_set_new (o, "disk", json_text (info->disk));
  json_object_set_new (o, "client", json_text (info->client));
  json_object_set_new (o, "mode", info->empty ? json_null ()
                       : json_string (overlay_mode_name (info->mode)));
  json_object_set_new (o, "tip", json_uuid (&info->tip));
  json_object_set_new (o, "tip_name", name_of (rps, &info->tip));
  json_object_set_new (o, "venue_moved_to", stale ? json_uuid (&now)
                                                  : json_null ());
  json_object_set_new (o, "size", info->empty ? json_null ()
                                              : json_number (info->size));
  json_object_set_new (o, "used", json_number (info->used));
  json_object_set_new (o, "quota", info->quota ? json_number (info->quota)
                                               : json_null ());
  json_object_set_new (o, "created", info->empty ? json_null ()
                                                 : json_number (info->created));
  json_object_set_new (o, "last_seen", json_number (info->last_seen));
  json_object_set_new (o, "holder", holder (info));
  json_object_set_new (o, "damage", json_text (info->damage));
  return o;
}
