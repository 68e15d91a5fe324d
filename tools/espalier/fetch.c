/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier fetch: what lies at an image center. */

#include <config.h>

#include <string.h>

#include "center/center.h"
#include "espalier.h"
#include "util/bits.h"

ESP_DEFINE_CLEANUP (center, struct esp_center *, esp_center_close)
#define CLEANUP_CENTER ESP_CLEANUP (center)
#define CLEANUP_REFS __attribute__ ((cleanup (esp_center_refs_clear)))

static bool
rp_here (const esp_uuid *uuid)
{
  char name[ESP_NAME_MAX + 1];
  uint64_t created;
  return esp_catalog_rp_name (cli_catalog (), uuid, name, &created) == 0;
}

/* "new", "here": the venue here maps the same; "differs". */
static const char *
venue_state (const struct esp_venue *there)
{
  CLEANUP_VENUE struct esp_venue here = { 0 };

  if (!is_venue (there->id))
    return "new";
  if (esp_catalog_venue_get (cli_catalog (), there->id, &here) == -1)
    return "?";
  return here.ndisks == there->ndisks &&
    memcmp (here.disks, there->disks, here.ndisks * sizeof here.disks[0]) == 0 &&
    strcmp (here.description, there->description) == 0 ? "here" : "differs";
}

static const char *
name_there (const struct esp_center_refs *refs, const esp_uuid *uuid,
            char buf[ESP_UUID_TEXT])
{
  for (size_t i = 0; i < refs->nrps; i++)
    if (esp_uuid_eq (&refs->rps[i].uuid, uuid))
      return refs->rps[i].name;
  return esp_uuid_text (uuid, buf);
}

static json_t *
json_fetch (const struct esp_center_refs *refs, const char *center)
{
  json_t *venues = json_array (), *rps = json_array ();

  for (size_t i = 0; i < refs->nvenues; i++) {
    const struct esp_reference *r = &refs->venues[i];
    json_t *tips = json_array ();
    for (unsigned d = 0; d < r->venue.ndisks; d++)
      json_array_append_new (tips, json_uuid (&r->venue.disks[d]));
    json_array_append_new
      (venues, json_pack ("{s:s, s:s, s:o, s:I, s:s, s:I, s:s}", "id",
                          r->venue.id, "description", r->venue.description,
                          "tips", tips, "revision",
                          (json_int_t) r->venue.revision, "pushed_by",
                          r->pushed_by ? r->pushed_by : "", "pushed",
                          (json_int_t) r->pushed, "state",
                          venue_state (&r->venue)));
  }
  for (size_t i = 0; i < refs->nrps; i++) {
    const struct esp_rp *rp = &refs->rps[i];
    json_array_append_new
      (rps, json_pack ("{s:o, s:s, s:o, s:I, s:I, s:I, s:b}", "uuid",
                       json_uuid (&rp->uuid), "name", rp->name, "parent",
                       json_uuid (&rp->parent), "size", (json_int_t) rp->size,
                       "created", (json_int_t) rp->created, "data_bytes",
                       (json_int_t) (rp->data_blocks << ESP_BLOCK_SHIFT),
                       "here", rp_here (&rp->uuid)));
  }
  return json_pack ("{s:s, s:o, s:o, s:I}", "center", center, "venues", venues,
                    "restore_points", rps, "left_out", (json_int_t) refs->bad);
}

static void
print_venues (const struct esp_center_refs *refs)
{
  struct table *t = table_new ("VENUE|STATE|DISKS|PUSHED|BY");
  char buf[ESP_UUID_TEXT];

  for (size_t i = 0; i < refs->nvenues; i++) {
    const struct esp_reference *r = &refs->venues[i];
    CLEANUP_FREE char *disks = NULL;
    size_t size;
    {
      CLEANUP_FCLOSE FILE *f = open_memstream (&disks, &size);
      for (unsigned d = 0; f && d < r->venue.ndisks; d++)
        fprintf (f, "%s%s", d ? ", " : "",
                 name_there (refs, &r->venue.disks[d], buf));
    }
    table_row (t);
    table_cell (t, r->venue.id);
    table_cell (t, venue_state (&r->venue));
    table_cell (t, disks ? disks : "");
    table_time (t, r->pushed);
    table_cell (t, r->pushed_by ? r->pushed_by : "");
  }
  table_end (t, refs->bad ? "no venue there that can be believed"
             : "no venues there");
}

static void
print_rps (const struct esp_center_refs *refs)
{
  struct table *t = table_new ("RESTORE POINT|STATE|SIZE>|OWN>|CREATED|UUID");
  char buf[ESP_UUID_TEXT];

  for (size_t i = 0; i < refs->nrps; i++) {
    const struct esp_rp *rp = &refs->rps[i];
    table_row (t);
    table_cell (t, rp->name);
    table_cell (t, rp_here (&rp->uuid) ? "here" : "new");
    table_size (t, rp->size);
    table_size (t, rp->data_blocks << ESP_BLOCK_SHIFT);
    table_time (t, rp->created);
    table_cell (t, esp_uuid_text (&rp->uuid, buf));
  }
  table_end (t, "no restore points there");
}

static int
fetch_run (const struct args *args)
{
  CLEANUP_CENTER struct esp_center *center = NULL;
  CLEANUP_REFS struct esp_center_refs refs = { 0 };

  if (cli_open () != 0 ||
      !(center = esp_center_open (cli.store, args->arg[0])) ||
      esp_center_refs (center, &refs) == -1)
    return CLI_FAILED;
  if (cli.json)
    return json_print (json_fetch (&refs, args->arg[0]));
  print_venues (&refs);
  putchar ('\n');
  print_rps (&refs);
  return CLI_OK;
}

const struct command fetch_commands[] = {
  { "fetch", "CENTER", "Show what an image center has, and what of it is new",
    NULL, NULL, 1, 1, 0, fetch_run },
  { 0 },
};
