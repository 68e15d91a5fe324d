/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier venue: names that clients ask for, and what they map to. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "clone.h"
#include "store/site.h"
#include "store/venue.h"
#include "venue.h"

#define NO_VENUES "no venues yet: espalier venue add ID --disk RP adds the first"

/* The object of a venue, with how it boots. */
static json_t *
venue_json (const struct esp_venue *venue, const struct esp_venue_boot *boot,
            const struct rp_index *rps)
{
  json_t *o = json_venue (venue, rps);
  json_venue_boot (o, boot);
  return o;
}

static int
venue_done (const char *id, const char *what)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };
  CLEANUP_RP_INDEX struct rp_index rps = { 0 };
  CLEANUP_FREE char *disks = NULL;
  size_t size;
  char buf[ESP_UUID_TEXT];

  if (esp_catalog_venue_get (cli_catalog (), id, &venue) == -1 ||
      esp_catalog_venue_boot_get (cli_catalog (), id, &boot) == -1 ||
      rp_index_load (&rps, NULL) != 0)
    return CLI_FAILED;
  {
    CLEANUP_FCLOSE FILE *f = open_memstream (&disks, &size);
    for (unsigned i = 0; f && i < venue.ndisks; i++)
      fprintf (f, "%s%s", i ? ", " : "",
               rp_index_name (&rps, &venue.disks[i], buf));
  }
  return cli_done (cli.json ? venue_json (&venue, &boot, &rps) : NULL,
                   "%s venue %s: %s (revision %" PRIu64 ")", what, venue.id,
                   disks ? disks : "", venue.revision);
}

/* The restore points that --disk names; *TIPS is malloced, NULL where there
 * are none.
 */
static int
parse_disks (const struct args *args, esp_uuid **tips, unsigned *n)
{
  *n = opt_count (args, "disk");
  *tips = NULL;
  if (*n > ESP_DISK_NUMBER_MAX + 1)
    return usage (args->cmd, "%u disks: a venue has at most %d", *n,
                  ESP_DISK_NUMBER_MAX + 1);
  if (cli_open () != 0)
    return CLI_FAILED;
  if (*n == 0)
    return 0;
  *tips = xcalloc (*n, sizeof **tips);
  for (unsigned i = 0; i < *n; i++) {
    CLEANUP_RP struct esp_rp rp = { 0 };
    if (esp_catalog_rp_find (cli_catalog (), opt_nth (args, "disk", i),
                             &rp) == -1)
      return CLI_FAILED;
    (*tips)[i] = rp.uuid;
  }
  return 0;
}

static int
venue_add_run (const struct args *args)
{
  CLEANUP_FREE esp_uuid *tips = NULL;
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };
  const char *id = args->arg[0], *description = opt_value (args, "description");
  unsigned n;
  int r;

  if (esp_name_check (id, "venue") == -1)
    return CLI_USAGE;
  if (!opt_has (args, "disk"))
    return usage (args->cmd, "--disk RP is missing: what should it serve?");
  if ((r = parse_disks (args, &tips, &n)) != 0)
    return r;
  boot_defaults (id, &boot);
  if ((r = boot_options_apply (args, &boot)) != 0)
    return r;
  if (esp_venue_add (cli.store, id, tips, n, description ? description : "")
      == -1)
    return CLI_FAILED;
  /* All or nothing: the venue that was just made goes again. */
  if (boot_options_given (args) &&
      esp_site_venue_boot_set (cli.store, &boot) == -1) {
    esp_venue_delete (cli.store, id, false);
    return CLI_FAILED;
  }
  return venue_done (id, "added");
}

/* Who may have the venue is said before what it is, so that a new disk is never
 * shown to those who are shut out by the same command; and taken back where the
 * disks are refused.
 */
static int
set_both (const struct args *args, const esp_uuid *tips, unsigned n,
          const struct esp_venue_boot *old, const struct esp_venue_boot *new)
{
  const char *id = args->arg[0];
  bool boot = boot_options_given (args);

  if (boot && esp_site_venue_boot_set (cli.store, new) == -1)
    return CLI_FAILED;
  if (!opt_has (args, "disk") && !opt_has (args, "description"))
    return CLI_OK;
  if (esp_venue_set (cli.store, id, tips, n, opt_value (args, "description"))
      == 0)
    return CLI_OK;
  if (boot)
    esp_site_venue_boot_set (cli.store, old);
  return CLI_FAILED;
}

static int
venue_set_run (const struct args *args)
{
  CLEANUP_FREE esp_uuid *tips = NULL;
  CLEANUP_VENUE_BOOT struct esp_venue_boot old = { 0 }, new = { 0 };
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  unsigned n;
  int r;

  if (!opt_has (args, "disk") && !opt_has (args, "description") &&
      !boot_options_given (args))
    return usage (args->cmd, "nothing to set: give --disk RP, --description, "
                  "or how it boots");
  if ((r = parse_disks (args, &tips, &n)) != 0)
    return r;
  if (esp_catalog_venue_get (cli_catalog (), args->arg[0], &venue) == -1 ||
      esp_catalog_venue_boot_get (cli_catalog (), venue.id, &old) == -1)
    return CLI_FAILED;
  boot_copy (&old, &new);
  if ((r = boot_options_apply (args, &new)) != 0 ||
      (r = set_both (args, tips, n, &old, &new)) != 0)
    return r;
  return venue_done (venue.id, "set");
}

/* --- list -------------------------------------------------------------------- */

struct venues {
  struct esp_venue_list list;
  struct esp_venue_boot_list boots;     /* these two: empty with --names */
  struct rp_index rps;
};

static char *
list_name (const void *arg, size_t i)
{
  return xstrdup (((const struct venues *) arg)->list.venue[i].id);
}

static json_t *
list_json (const void *arg, size_t i)
{
  const struct venues *v = arg;
  const struct esp_venue *venue = &v->list.venue[i];

  for (size_t b = 0; b < v->boots.n; b++)
    if (strcmp (v->boots.boot[b].id, venue->id) == 0)
      return venue_json (venue, &v->boots.boot[b], &v->rps);
  CLEANUP_VENUE_BOOT struct esp_venue_boot none = { 0 };
  boot_defaults (venue->id, &none);
  return venue_json (venue, &none, &v->rps);
}

static void
list_rows (struct table *t, const void *arg, size_t i)
{
  const struct rp_index *rps = &((const struct venues *) arg)->rps;
  const struct esp_venue *v = &((const struct venues *) arg)->list.venue[i];
  char buf[ESP_UUID_TEXT];

  for (unsigned d = 0; d < v->ndisks; d++) {
    const struct esp_rp *rp = rp_index_get (rps, &v->disks[d]);

    table_row (t);
    table_cell (t, d == 0 ? v->id : "");
    table_cellf (t, "%u", d);
    table_cell (t, rp_index_name (rps, &v->disks[d], buf));
    if (rp)
      table_size (t, rp->size);
    else
      table_cell (t, "?");
    if (d == 0) {
      table_cellf (t, "%" PRIu64, v->revision);
      table_time (t, v->changed);
      table_cell (t, v->description);
    }
  }
}

static void
venues_clear (struct venues *v)
{
  esp_venue_list_clear (&v->list);
  esp_venue_boot_list_clear (&v->boots);
  rp_index_clear (&v->rps);
}

static int
venue_list_run (const struct args *args)
{
  __attribute__ ((cleanup (venues_clear))) struct venues v = { 0 };

  if (cli_open () != 0 ||
      esp_catalog_venue_list (cli_catalog (), NULL, &v.list) == -1 ||
      (!opt_has (args, "names") &&
       (esp_catalog_venue_boot_list (cli_catalog (), &v.boots) == -1 ||
        rp_index_load (&v.rps, NULL) != 0)))
    return CLI_FAILED;
  const struct listing l = {
    &v, v.list.n, list_name, list_json, list_rows,
    "VENUE|DISK>|RESTORE POINT|SIZE>|REV>|CHANGED|DESCRIPTION", NO_VENUES,
  };
  return list_print (args, &l);
}

/* --- log --------------------------------------------------------------------- */

static void
print_log (const struct esp_venue_log *log, const struct rp_index *rps,
           size_t from)
{
  struct table *t = table_new ("REV>|TIME|ACTION|RESTORE POINTS|DESCRIPTION");
  char buf[ESP_UUID_TEXT];

  for (size_t i = from; i < log->n; i++) {
    const struct esp_venue_change *c = &log->change[i];
    CLEANUP_FREE char *tips = xstrdup ("");

    for (unsigned d = 0; d < c->ndisks; d++) {
      const struct esp_rp *rp = rp_index_get (rps, &c->disks[d]);
      char *more = xasprintf ("%s%s%s%s", tips, d ? ", " : "",
                              rp_index_name (rps, &c->disks[d], buf),
                              rp ? "" : " (deleted)");
      free (tips);
      tips = more;
    }
    table_row (t);
    table_cellf (t, "%" PRIu64, c->revision);
    table_time (t, c->time);
    table_cell (t, c->action);
    table_cell (t, tips);
    table_cell (t, c->description ? c->description : "");
  }
  table_end (t, "nothing is logged");
}

static int
venue_log_run (const struct args *args)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };
  CLEANUP_RP_INDEX struct rp_index rps = { 0 };

  if (cli_open () != 0 ||
      esp_catalog_venue_get (cli_catalog (), args->arg[0], &venue) == -1 ||
      esp_catalog_venue_log (cli_catalog (), venue.id, &log) == -1 ||
      rp_index_load (&rps, NULL) != 0)
    return CLI_FAILED;
  if (cli.json)
    return json_print (json_venue_log (&log, &rps));
  print_log (&log, &rps, 0);
  return CLI_OK;
}

/* --- show -------------------------------------------------------------------- */

/* How many of the last changes venue show prints. */
#define SHOWN_CHANGES 5

static void
show_venue (const struct esp_venue *v, const struct esp_venue_boot *boot,
            const struct esp_venue_log *log, const struct rp_index *rps,
            const struct esp_overlay_info_list *overlays)
{
  char buf[ESP_UUID_TEXT];

  field ("Venue:", "%s", v->id);
  if (*v->description)
    field_text ("Description:", v->description);
  field_time ("Created:", v->created);
  field_time ("Changed:", v->changed);
  field ("Revision:", "%" PRIu64, v->revision);
  for (unsigned d = 0; d < v->ndisks; d++) {
    const struct esp_rp *rp = rp_index_get (rps, &v->disks[d]);
    char label[24], size[16];
    snprintf (label, sizeof label, "Disk %u:", d);
    field (label, "%s, %s", rp_index_name (rps, &v->disks[d], buf),
           rp ? esp_size_format (rp->size, size) : "deleted");
  }
  boot_fields (boot);
  field ("Clients ask for:", "nbd://SERVER/%s@CLIENT", v->id);
  printf ("\nLast changes (all: espalier venue log %s)\n", v->id);
  print_log (log, rps, log->n > SHOWN_CHANGES ? log->n - SHOWN_CHANGES : 0);
  puts ("\nOverlays");
  overlay_table (overlays, rps, "none: no client has written anything");
}

static int
venue_show_run (const struct args *args)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };
  CLEANUP_RP_INDEX struct rp_index rps = { 0 };
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list overlays = { 0 };
  json_t *o, *array;

  if (venue_client_asked (args))
    return venue_client_run (args);
  if (cli_open () != 0 ||
      esp_catalog_venue_get (cli_catalog (), args->arg[0], &venue) == -1 ||
      esp_catalog_venue_boot_get (cli_catalog (), venue.id, &boot) == -1 ||
      esp_catalog_venue_log (cli_catalog (), venue.id, &log) == -1 ||
      rp_index_load (&rps, NULL) != 0 ||
      esp_overlay_list (esp_store_overlays_fd (cli.store), venue.id,
                        &overlays) == -1)
    return CLI_FAILED;
  if (!cli.json) {
    show_venue (&venue, &boot, &log, &rps, &overlays);
    return CLI_OK;
  }
  o = venue_json (&venue, &boot, &rps);
  array = json_array ();
  for (size_t i = 0; i < overlays.n; i++)
    json_array_append_new (array, json_overlay (&overlays.o[i], &rps));
  json_object_set_new (o, "log", json_venue_log (&log, &rps));
  json_object_set_new (o, "overlays", array);
  return json_print (o);
}

/* --- rollback, delete ---------------------------------------------------------- */

static int
venue_rollback_run (const struct args *args)
{
  uint64_t revision = 0;
  char *end;

  if (args->n > 1) {
    errno = 0;
    revision = strtoull (args->arg[1], &end, 10);
    if (errno || *end || end == args->arg[1] || args->arg[1][0] == '-' ||
        revision == 0)
      return usage (args->cmd, "%s is no revision: take one that venue log "
                    "shows", args->arg[1]);
  }
  if (cli_open () != 0 ||
      esp_venue_rollback (cli.store, args->arg[0], revision) == -1)
    return CLI_FAILED;
  return venue_done (args->arg[0], "rolled back");
}

static int
venue_delete_run (const struct args *args)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list overlays = { 0 };
  json_t *names = json_array ();
  bool failed = cli_open () != 0 ||
    esp_catalog_venue_get (cli_catalog (), args->arg[0], &venue) == -1 ||
    esp_overlay_list (esp_store_overlays_fd (cli.store), venue.id,
                      &overlays) == -1 ||
    esp_venue_delete (cli.store, venue.id, opt_has (args, "force")) == -1;

  for (size_t i = 0; !failed && i < overlays.n; i++) {
    CLEANUP_FREE char *name = overlay_name (&overlays.o[i]);
    json_array_append_new (names, json_string (name));
    if (!cli.json && !cli.quiet)
      printf ("deleted overlay %s\n", name);
  }
  if (failed) {
    json_decref (names);
    return CLI_FAILED;
  }
  return cli_done (json_pack ("{s:s,s:o}", "deleted", venue.id, "overlays",
                              names), "deleted venue %s", venue.id);
}

static const struct opt disk_options[] = {
  { "disk", 0, "RP", "the restore point of disk 0, then of disk 1 ...", true },
  { "description", 0, "TEXT", "what clients see in lists and menus", false },
  BOOT_OPTIONS,
  { 0 },
};

static const struct opt delete_options[] = {
  { "force", 0, NULL, "delete its overlays, too; its clients then choose", false },
  { 0 },
};

const struct command venue_commands[] = {
  { "venue add", "ID --disk RP [--disk RP ...] [--description TEXT] " BOOT_SYNOPSIS,
    "Make a venue: a name that clients ask for",
    BOOT_MORE, disk_options, 1, 1, 0, venue_add_run },
  { "venue set", "ID [--disk RP ...] [--description TEXT] " BOOT_SYNOPSIS,
    "Map a venue to other restore points, from the next connections on",
    "All disks are given anew.  Connections that are open keep what they have;\n"
    "kept overlays go on over their old restore point until they are reset.\n"
    "How it boots is no part of the mapping: a rollback leaves it as it is.\n"
    BOOT_MORE,
    disk_options, 1, 1, 0, venue_set_run },
  { "venue list", "[--names]", "List venues and what they map to",
    NULL, list_options, 0, 0, 0, venue_list_run },
  { "venue show", "ID [--uri CLIENT | --qemu CLIENT | --libvirt-xml CLIENT]\n"
    "       [--server HOST[:PORT] | --socket PATH] [--ticket] [--expires TIME] [--address ADDRESS]",
    "Show a venue, or what a virtual machine needs to boot from it",
    "Where a server of this store runs, its address is known, and whether it asks\n"
    "for tickets: then the disks' names carry them.",
    venue_show_options, 1, 1, 0, venue_show_run },
  { "venue log", "ID", "Show every change of a venue's mapping",
    NULL, NULL, 1, 1, 0, venue_log_run },
  { "venue rollback", "ID [N]",
    "Take back a venue's last change, or go back to revision N",
    "The old mapping becomes a new revision: a rollback can be rolled back.",
    NULL, 1, 2, 0, venue_rollback_run },
  { "venue clone", "VENUE[/DISK] --count N --name PATTERN [--start N]",
    "Make durable disks of their own for many clients at once",
    "Each client gets a kept overlay, VENUE/DISK@NAME, over what the venue has\n"
    "now; a later mapping of the venue does not change it.  All are made, or\n"
    "none: names that have an overlay already are refused.",
    venue_clone_options, 1, 1, 0, venue_clone_run },
  { "venue delete", "ID [--force]", "Delete a venue",
    "Refused while clients have overlays of it or are assigned to it, unless\n"
    "--force is given; refused while a client is connected.",
    delete_options, 1, 1, 0, venue_delete_run },
  { 0 },
};
