/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier overlay: what clients wrote. */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "espalier.h"

/* What an operator should know: damage, or that the venue moved on. */
static char *
remark (const struct esp_overlay_info *o, const struct rp_index *rps)
{
  char buf[ESP_UUID_TEXT];
  esp_uuid now;

  if (o->damage)
    return xasprintf ("damaged: %s", o->damage);
  if (o->empty)
    return xstrdup ("nothing written yet");
  if (overlay_is_stale (rps, o, &now))
    return xasprintf ("old: the venue has %s now", rp_index_name (rps, &now, buf));
  return xstrdup ("");
}

/* --- list -------------------------------------------------------------------- */

struct overlays {
  const struct esp_overlay_info_list *list;
  const struct rp_index *rps;
};

static char *
list_name (const void *arg, size_t i)
{
  return overlay_name (&((const struct overlays *) arg)->list->o[i]);
}

static json_t *
list_json (const void *arg, size_t i)
{
  const struct overlays *o = arg;
  return json_overlay (&o->list->o[i], o->rps);
}

static void
list_rows (struct table *t, const void *arg, size_t i)
{
  const struct rp_index *rps = ((const struct overlays *) arg)->rps;
  const struct esp_overlay_info *o =
    &((const struct overlays *) arg)->list->o[i];
  CLEANUP_FREE char *name = overlay_name (o), *note = remark (o, rps);
  char buf[ESP_UUID_TEXT];

  table_row (t);
  table_cell (t, name);
  table_cell (t, o->empty ? "-" : overlay_mode_name (o->mode));
  table_size (t, o->used);
  if (o->quota)
    table_size (t, o->quota);
  else
    table_cell (t, "-");
  table_cell (t, esp_uuid_is_null (&o->tip) ? "-"
              : rp_index_name (rps, &o->tip, buf));
  if (o->held)
    table_cell (t, "now");
  else
    table_time (t, o->last_seen);
  if (o->held)
    table_cellf (t, "%.31s %ld", o->holder.program, (long) o->holder.pid);
  else
    table_cell (t, "-");
  table_cell (t, note);
}

static struct listing
listing (const struct overlays *o, const char *empty)
{
  return (struct listing) {
    o, o->list->n, list_name, list_json, list_rows,
    "OVERLAY|MODE|USED>|QUOTA>|RESTORE POINT|LAST SEEN|HELD BY|REMARK", empty,
  };
}

void
overlay_table (const struct esp_overlay_info_list *list,
               const struct rp_index *rps, const char *empty)
{
  const struct overlays o = { list, rps };
  const struct listing l = listing (&o, empty);

  list_table (&l);
}

static int
list_load (const struct args *args, struct esp_overlay_info_list *list,
           struct rp_index *rps)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };

  if (cli_open () != 0 || rp_index_load (rps, NULL) != 0 ||
      (args->n > 0 &&
       esp_catalog_venue_get (cli_catalog (), args->arg[0], &venue) == -1) ||
      esp_overlay_list (esp_store_overlays_fd (cli.store),
                        args->n ? args->arg[0] : NULL, list) == -1)
    return CLI_FAILED;
  return CLI_OK;
}

static int
overlay_list_run (const struct args *args)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };
  CLEANUP_RP_INDEX struct rp_index rps = { 0 };

  if (list_load (args, &list, &rps) != 0)
    return CLI_FAILED;
  const struct overlays o = { &list, &rps };
  const struct listing l =
    listing (&o, "no overlays: no client has written anything");
  return list_print (args, &l);
}

/* --- one overlay --------------------------------------------------------------- */

/* An overlay's place from its name on the command line. */
struct target {
  char text[ESP_EXPORT_MAX];    /* canonical */
  char *venue, *client, disk[8];
  struct esp_overlay_id id;
};

static void
target_clear (struct target *t)
{
  free (t->venue);
  free (t->client);
}

/* "rp:" and the UUID of what E names: a restore point, or, when that is
 * gone, its UUID itself.
 */
static char *
rp_component (const struct esp_export *e)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  CLEANUP_FREE char *name = NULL;
  char buf[ESP_UUID_TEXT];

  if (esp_uuid_parse (e->name, &rp.uuid) == -1 &&
      esp_catalog_rp_find (cli_catalog (), e->name, &rp) == -1)
    return NULL;
  name = xasprintf ("rp:%s", esp_uuid_text (&rp.uuid, buf));
  return esp_path_component (name);
}

/* TEXT is an overlay's name, already known to be one; the store is open. */
static int
target_find (const char *text, struct target *t)
{
  struct esp_export e;

  if (esp_export_parse (text, &e) == -1)
    return CLI_FAILED;
  esp_export_format (&e, t->text, sizeof t->text);
  t->venue = e.is_rp ? rp_component (&e) : esp_path_component (e.name);
  t->client = esp_path_component (e.client);
  if (!t->venue || !t->client)
    return CLI_FAILED;
  snprintf (t->disk, sizeof t->disk, "%u", e.disk);
  t->id = (struct esp_overlay_id) { t->venue, t->disk, t->client };
  return CLI_OK;
}

/* Are all arguments names of overlays? */
static int
check_names (const struct args *args)
{
  struct esp_export e;

  for (unsigned i = 0; i < args->n; i++)
    if (export_parse_client (args, args->arg[i], &e) != 0)
      return CLI_USAGE;
  return 0;
}

static void
show_overlay (const struct esp_overlay_info *o, const struct rp_index *rps)
{
  CLEANUP_FREE char *name = overlay_name (o), *note = remark (o, rps);
  char buf[ESP_UUID_TEXT], text[128];

  field_text ("Overlay:", name);
  if (!o->empty) {
    field ("Mode:", "%s", overlay_mode_name (o->mode));
    field ("Restore point:", "%s", esp_uuid_is_null (&o->tip) ? "unknown"
           : rp_index_name (rps, &o->tip, buf));
    field_size ("Size:", o->size);
  }
  field_size ("Used:", o->used);
  if (o->quota)
    field_size ("Quota:", o->quota);
  else
    field ("Quota:", "none");
  if (!o->empty)
    field_time ("Created:", o->created);
  field_time ("Last seen:", o->last_seen);
  if (o->held)
    field_text ("Held by:", esp_holder_describe (&o->holder, text, sizeof text));
  if (*note)
    field_text ("Remark:", note);
}

static int
overlay_show_run (const struct args *args)
{
  __attribute__ ((cleanup (target_clear))) struct target t = { 0 };
  CLEANUP_OVERLAY_INFO struct esp_overlay_info info = { 0 };
  CLEANUP_RP_INDEX struct rp_index rps = { 0 };

  if (check_names (args) != 0)
    return CLI_USAGE;
  if (cli_open () != 0 || rp_index_load (&rps, NULL) != 0 ||
      target_find (args->arg[0], &t) != 0 ||
      esp_overlay_info (esp_store_overlays_fd (cli.store), &t.id, &info) == -1)
    return CLI_FAILED;
  if (cli.json)
    return json_print (json_overlay (&info, &rps));
  show_overlay (&info, &rps);
  return CLI_OK;
}

/* --- reset, delete ---------------------------------------------------------------- */

/* Remove one.  One that is not there fails, but with MAY_MISS. */
static int
remove_one (const struct esp_overlay_id *id, const char *name, bool may_miss,
            json_t *done)
{
  CLEANUP_OVERLAY_INFO struct esp_overlay_info info = { 0 };
  char message[512], size[16];
  uint64_t used = 0;
  int fd = esp_store_overlays_fd (cli.store), r, saved;

  esp_catch_errors (message, sizeof message);
  if (esp_overlay_info (fd, id, &info) == 0)
    used = info.used;
  esp_catch_errors (message, sizeof message);
  r = esp_overlay_reset (fd, id);
  saved = errno;
  esp_catch_errors (NULL, 0);
  if (r == -1 && saved == ENOENT && may_miss) {
    if (!cli.json && !cli.quiet)
      printf ("%s: nothing was written, it is clean\n", name);
    return CLI_OK;
  }
  if (r == -1) {
    esp_error ("%s", message);
    return CLI_FAILED;
  }
  json_array_append_new (done, json_string (name));
  if (!cli.json && !cli.quiet)
    printf ("deleted what %s wrote (%s)\n", name, esp_size_format (used, size));
  return CLI_OK;
}

/* All overlays of a venue, each as far as it goes. */
static int
remove_all (const char *venue, json_t *done)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };
  int result = CLI_OK;

  if (esp_overlay_list (esp_store_overlays_fd (cli.store), venue, &list) == -1)
    return CLI_FAILED;
  if (list.n == 0 && !cli.json && !cli.quiet)
    printf ("venue %s has no overlays\n", venue);
  for (size_t i = 0; i < list.n; i++) {
    const struct esp_overlay_info *o = &list.o[i];
    CLEANUP_FREE char *name = overlay_name (o);
    CLEANUP_FREE char *v = esp_path_component (o->venue);
    CLEANUP_FREE char *c = esp_path_component (o->client);
    struct esp_overlay_id id = { v, o->disk, c };
    if (!v || !c || remove_one (&id, name, true, done) != 0)
      result = CLI_FAILED;
  }
  return result;
}

static int
remove_named (const struct args *args, bool may_miss, json_t *done)
{
  int result = CLI_OK;

  for (unsigned i = 0; i < args->n; i++) {
    __attribute__ ((cleanup (target_clear))) struct target t = { 0 };
    int r = target_find (args->arg[i], &t);
    if (r == 0)
      r = remove_one (&t.id, t.text, may_miss, done);
    if (r != 0)
      result = r;
  }
  return result;
}

static int
remove_run (const struct args *args, bool may_miss)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };
  const char *venue = opt_value (args, "venue");
  json_t *done;
  int r;

  if ((args->n > 0) == (venue != NULL))
    return usage (args->cmd, "name overlays (VENUE[/DISK]@CLIENT), or all of a "
                  "venue by --venue ID");
  if (check_names (args) != 0)
    return CLI_USAGE;
  if (cli_open () != 0 ||
      (venue && esp_catalog_venue_get (cli_catalog (), venue, &v) == -1))
    return CLI_FAILED;
  done = json_array ();
  r = venue ? remove_all (venue, done) : remove_named (args, may_miss, done);
  if (cli.json)
    json_print (json_pack ("{s:O}", "deleted", done));
  json_decref (done);
  return r;
}

static int
overlay_reset_run (const struct args *args)
{
  return remove_run (args, true);
}

static int
overlay_delete_run (const struct args *args)
{
  return remove_run (args, false);
}

static const struct opt venue_options[] = {
  { "venue", 0, "ID", "all overlays of this venue", false },
  { 0 },
};

const struct command overlay_commands[] = {
  { "overlay list", "[VENUE] [--names]", "List what clients wrote, of all or one venue",
    NULL, list_options, 0, 1, 0, overlay_list_run },
  { "overlay show", "VENUE[/DISK]@CLIENT", "Show one client's overlay",
    NULL, NULL, 1, 1, 0, overlay_show_run },
  { "overlay reset", "VENUE[/DISK]@CLIENT ... | --venue ID",
    "Make clients clean again: their next connection begins anew",
    "What they wrote is deleted.  One that wrote nothing is clean already, which\n"
    "is no error.  Refused while the client is connected.",
    venue_options, 0, ARGS_ANY, 0, overlay_reset_run },
  { "overlay delete", "VENUE[/DISK]@CLIENT ... | --venue ID",
    "Delete overlays, which must exist",
    "Like reset, for clients that do not come back: a name that is not there is\n"
    "an error.",
    venue_options, 0, ARGS_ANY, 0, overlay_delete_run },
  { 0 },
};
