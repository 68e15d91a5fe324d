/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier store: check, rebuild, stats, gc (scrub: scrub.c). */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "center/center.h"
#include "espalier.h"
#include "store/check.h"
#include "util/bits.h"

/* --- findings --------------------------------------------------------------- */

static const char *
kind_name (const struct esp_finding *f)
{
  switch (f->kind) {
  case ESP_DAMAGE: return "damage";
  case ESP_ORPHAN: return "orphan";
  case ESP_DISAGREEMENT: return "disagreement";
  case ESP_LEFTOVER: return "leftover";
  }
  return "?";
}

/* Print a finding, or add it to the JSON array ARG. */
static void
tell_finding (void *arg, const struct esp_finding *f)
{
  if (cli.json) {
    json_array_append_new (arg, json_pack ("{s:s,s:s,s:s,s:s?,s:b}", "kind",
                                           kind_name (f), "object", f->object,
                                           "problem", f->problem, "remedy",
                                           f->remedy, "mended", f->mended));
    return;
  }
  printf ("%s: %s: %s\n", kind_name (f), f->object, f->problem);
  if (f->mended)
    printf ("  mended: %s\n", f->remedy ? f->remedy : "yes");
  else if (f->remedy)
    printf ("  --repair: %s\n", f->remedy);
}

/* --- check ------------------------------------------------------------------- */

/* A store that does not open is checked without its catalog. */
static int
open_for_check (void)
{
  CLEANUP_FREE char *path = esp_store_default_path (cli.store_option);
  char why[512];

  if (!path)
    return CLI_FAILED;
  esp_catch_errors (why, sizeof why);
  cli.store = esp_store_open (path);
  esp_catch_errors (NULL, 0);
  if (cli.store)
    return CLI_OK;
  cli.store = esp_store_open_damaged (path);
  if (!cli.store)
    return CLI_FAILED;
  esp_warning ("%s", why);
  return CLI_OK;
}

static int
store_check_run (const struct args *args)
{
  bool repair = opt_has (args, "repair");
  json_t *findings;
  unsigned left = 0;
  int r;

  if (open_for_check () != 0)
    return CLI_FAILED;
  findings = json_array ();
  r = esp_store_check (cli.store, repair, tell_finding, findings, &left);
  if (r == -1) {
    json_decref (findings);
    return CLI_FAILED;
  }
  if (cli.json)
    json_print (json_pack ("{s:o,s:I}", "findings", findings, "unmended",
                           (json_int_t) left));
  else {
    json_decref (findings);
    if (left == 0)
      cli_done (NULL, "the store %s is sound", esp_store_path (cli.store));
    else
      printf ("%u finding%s remain%s%s\n", left, left == 1 ? "" : "s",
              left == 1 ? "s" : "",
              repair ? "" : ": espalier store check --repair mends what can be "
              "mended");
  }
  return left ? CLI_DAMAGE : CLI_OK;
}

/* --- rebuild ------------------------------------------------------------------- */

static int
store_rebuild_run (const struct args *args)
{
  CLEANUP_FREE char *path = esp_store_default_path (cli.store_option);
  json_t *left_out = json_array ();
  unsigned rps = 0, venues = 0;

  (void) args;
  if (!path ||
      esp_store_rebuild (path, tell_finding, left_out, &rps, &venues) == -1) {
    json_decref (left_out);
    return CLI_FAILED;
  }
  return cli_done (json_pack ("{s:I,s:I,s:o}", "restore_points",
                              (json_int_t) rps, "venues", (json_int_t) venues,
                              "left_out", left_out),
                   "made the catalog anew: %u restore point%s, %u venue%s; an "
                   "old one is kept as catalog.db.old", rps, rps == 1 ? "" : "s",
                   venues, venues == 1 ? "" : "s");
}

/* --- stats ----------------------------------------------------------------------- */

static json_t *
stats_json (const struct esp_store_stats *s)
{
  json_t *o = json_object ();
  const struct { const char *key; uint64_t value; } keys[] = {
    { "restore_points", s->rps }, { "roots", s->roots },
    { "roots_in_place", s->in_place }, { "delayed", s->delayed },
    { "delayed_data", s->delayed_data }, { "delayed_local", s->delayed_local },
    { "venues", s->venues },
    { "overlays", s->overlays }, { "max_depth", s->max_depth },
    { "restore_point_data", s->rp_data }, { "restore_point_maps", s->rp_maps },
    { "overlay_data", s->overlay_data }, { "catalog", s->catalog },
    { "leftovers", s->leftovers }, { "virtual_size", s->virtual_size },
    { "fs_size", s->fs_size }, { "fs_free", s->fs_free },
  };

  json_object_set_new (o, "store", json_string (esp_store_path (cli.store)));
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
    json_object_set_new (o, keys[i].key,
                         json_integer ((json_int_t) keys[i].value));
  return o;
}

static void
stats_print (const struct esp_store_stats *s)
{
  char size[16], free_[16];

  field_text ("Store:", esp_store_path (cli.store));
  field ("Restore points:", "%u, of them %u root%s (%u in place); deepest chain "
         "%u", s->rps, s->roots, s->roots == 1 ? "" : "s", s->in_place,
         s->max_depth);
  if (s->delayed)
    field ("Delayed:", "%u, local %s of %s", s->delayed,
           esp_size_format (s->delayed_local, size),
           esp_size_format (s->delayed_data, free_));
  field ("Venues:", "%u", s->venues);
  field ("Overlays:", "%u", s->overlays);
  puts ("\nSpace on disk");
  field_size ("  data", s->rp_data);
  field_size ("  maps", s->rp_maps);
  field_size ("  overlays", s->overlay_data);
  field_size ("  catalog", s->catalog);
  field_size ("  leftovers", s->leftovers);
  if (s->leftovers)
    puts ("                 espalier store gc removes what nobody needs");
  puts ("");
  field_size ("Disks of tips:", s->virtual_size);
  field ("File system:", "%s, free %s", esp_size_format (s->fs_size, size),
         esp_size_format (s->fs_free, free_));
}

static int
store_stats_run (const struct args *args)
{
  struct esp_store_stats stats;

  (void) args;
  if (cli_open () != 0 || esp_store_stats (cli.store, &stats) == -1)
    return CLI_FAILED;
  if (cli.json)
    return json_print (stats_json (&stats));
  stats_print (&stats);
  return CLI_OK;
}

/* --- gc -------------------------------------------------------------------------- */

struct gc { bool dry_run; json_t *removed; uint64_t journals, bytes; };

static void
tell_removed (void *arg, const char *what, uint64_t bytes)
{
  struct gc *gc = arg;
  char size[16];

  if (cli.json)
    json_array_append_new (gc->removed, json_pack ("{s:s,s:I}", "object", what,
                                                   "bytes", (json_int_t) bytes));
  else if (!cli.quiet)
    printf ("%s %s (%s)\n", gc->dry_run ? "would remove" : "removed", what,
            esp_size_format (bytes, size));
}

/* What esp_push_gc removes is to be counted, too. */
static void
tell_journal (void *arg, const char *what, uint64_t bytes)
{
  struct gc *gc = arg;

  gc->journals++;
  gc->bytes += bytes;
  tell_removed (arg, what, bytes);
}

static int
store_gc_run (const struct args *args)
{
  struct gc gc = { .dry_run = opt_has (args, "dry-run") };
  uint64_t freed = 0;
  unsigned removed = 0;
  char size[16];

  if (cli_open () != 0)
    return CLI_FAILED;
  gc.removed = json_array ();
  if (esp_store_gc (cli.store, gc.dry_run, tell_removed, &gc, &freed,
                    &removed) == -1 ||
      esp_push_gc (cli.store, gc.dry_run, tell_journal, &gc) == -1) {
    json_decref (gc.removed);
    return CLI_FAILED;
  }
  freed += gc.bytes;
  removed += (unsigned) gc.journals;
  return cli_done (json_pack ("{s:b,s:o,s:I}", "dry_run", gc.dry_run, "removed",
                              gc.removed, "bytes", (json_int_t) freed),
                   "%s %u object%s, %s", gc.dry_run ? "would remove" : "removed",
                   removed, removed == 1 ? "" : "s",
                   esp_size_format (freed, size));
}

static const struct opt check_options[] = {
  { "repair", 0, NULL, "mend what can be mended, set the rest aside", false },
  { 0 },
};

static const struct opt gc_options[] = {
  { "dry-run", 0, NULL, "say what would be removed, and leave it", false },
  { 0 },
};

const struct command store_commands[] = {
  { "store check", "[--repair]", "Look for damage in the store's files",
    "Exits with 3 where damage remains.  --repair loses nothing: what it cannot\n"
    "mend it moves to the store's directory damaged/, with a note.",
    check_options, 0, 0, 0, store_check_run },
  { "store rebuild", "", "Make a lost or damaged catalog anew from the files",
    "The old catalog.db is kept as catalog.db.old.",
    NULL, 0, 0, 0, store_rebuild_run },
  { "store stats", "", "Show what uses the space", NULL, NULL, 0, 0, 0,
    store_stats_run },
  { "store gc", "[--dry-run]", "Remove what was left over and nobody holds",
    "That is: what interrupted commands left in tmp/ (pushes only after a week:\n"
    "until then they can go on), overlays of discard mode whose grace is over,\n"
    "empty directories.",
    gc_options, 0, 0, 0, store_gc_run },
  { 0 },
};
