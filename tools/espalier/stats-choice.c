/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier stats VENUE|RP ...: which rows are meant.
 *
 * A venue: its disks, their clients, and the restore points that they show.
 * A restore point: itself, and who has it open as rp:NAME.
 */

#include <config.h>

#include <stdio.h>
#include <string.h>

#include "stats.h"

void
choice_clear (struct choice *c)
{
  free (c->disks);
  free (c->whole);
  free (c->rps);
}

static void
add_rp (struct choice *c, const esp_uuid *uuid)
{
  c->rps = realloc (c->rps, (c->nrps + 1) * sizeof *c->rps);
  if (!c->rps)
    abort ();
  c->rps[c->nrps++] = *uuid;
}

static struct esp_export *
add_disk (struct choice *c, bool whole)
{
  c->whole[c->ndisks] = whole;
  return &c->disks[c->ndisks++];
}

/* TIP and what it is made of. */
static void
add_chain (struct choice *c, const esp_uuid *tip)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  for (esp_uuid at = *tip; !esp_uuid_is_null (&at); at = rp.parent) {
    add_rp (c, &at);
    esp_rp_clear (&rp);
    if (esp_catalog_rp_get (cli_catalog (), &at, &rp) == -1)
      return;                   /* gone meanwhile */
  }
}

static int
add_venue (struct choice *c, const struct esp_export *e, bool whole)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };

  if (esp_catalog_venue_get (cli_catalog (), e->name, &venue) == -1)
    return CLI_FAILED;
  if (!whole && e->disk >= venue.ndisks) {
    esp_error ("venue %s has no disk %u", e->name, e->disk);
    return CLI_FAILED;
  }
  *add_disk (c, whole) = *e;
  for (unsigned i = 0; i < venue.ndisks; i++)
    if (whole || i == e->disk)
      add_chain (c, &venue.disks[i]);
  return CLI_OK;
}

static int
add_rp_named (struct choice *c, const char *ref)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (find_rp_or_venue (ref, &rp) == -1)
    return CLI_FAILED;
  add_rp (c, &rp.uuid);
  struct esp_export *e = add_disk (c, true);
  e->is_rp = true;
  snprintf (e->name, sizeof e->name, "%s", rp.name);
  return CLI_OK;
}

static int
parse_quietly (const char *text, struct esp_export *e)
{
  char why[256];

  esp_catch_errors (why, sizeof why);
  int r = esp_export_parse (text, e);
  esp_catch_errors (NULL, 0);
  return r;
}

static int
add_argument (struct choice *c, const struct args *args, const char *text)
{
  struct esp_export e;

  if (!cli.store)
    return CLI_OK;              /* another plugin's names are as they are */
  if (parse_quietly (text, &e) == -1 || e.client[0])
    return usage (args->cmd, "%s: give a venue (cafe, cafe/1) or a restore "
                  "point", text);
  if (e.is_rp)
    return add_rp_named (c, e.name);
  if (strchr (text, '/') || is_venue (e.name))
    return add_venue (c, &e, !strchr (text, '/'));
  return add_rp_named (c, text);
}

int
choice_make (struct choice *c, const struct args *args)
{
  *c = (struct choice) { .nargs = args->n, .arg = args->arg };
  c->disks = xcalloc (args->n, sizeof *c->disks);
  c->whole = xcalloc (args->n, sizeof *c->whole);
  for (unsigned i = 0; i < args->n; i++) {
    int r = add_argument (c, args, args->arg[i]);
    if (r != 0)
      return r;
  }
  return CLI_OK;
}

static bool
has_disk (const struct choice *c, const char *export)
{
  struct esp_export e;

  if (parse_quietly (export, &e) == -1)
    return false;
  for (unsigned i = 0; i < c->ndisks; i++)
    if (c->disks[i].is_rp == e.is_rp && strcmp (c->disks[i].name, e.name) == 0
        && (c->whole[i] || c->disks[i].disk == e.disk))
      return true;
  return false;
}

static bool
has_rp (const struct choice *c, const char *text)
{
  esp_uuid uuid;

  if (esp_uuid_parse (text, &uuid) == -1)
    return false;
  for (size_t i = 0; i < c->nrps; i++)
    if (esp_uuid_eq (&c->rps[i], &uuid))
      return true;
  return false;
}

/* NAME itself, or a disk or client of it. */
static bool
has_text (const struct choice *c, const char *name)
{
  for (unsigned i = 0; i < c->nargs; i++) {
    size_t n = strlen (c->arg[i]);
    if (strncmp (name, c->arg[i], n) == 0 && strchr ("/@", name[n]))
      return true;
  }
  return false;
}

bool
choice_has (const struct choice *c, const struct line *l)
{
  if (c->nargs == 0)
    return true;
  switch (l->kind) {
  case ESP_STATS_VENUE:
  case ESP_STATS_CLIENT:
    return cli.store ? has_disk (c, l->name) : has_text (c, l->name);
  case ESP_STATS_EXPORT:
    return has_text (c, l->name);
  case ESP_STATS_RP:
    return cli.store ? has_rp (c, l->name) : has_text (c, l->name);
  default:
    return false;
  }
}
