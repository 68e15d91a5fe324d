/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier rp: commands that make and change restore points. */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "espalier.h"
#include "image/source.h"
#include "rp.h"
#include "store/rp.h"
#include "util/bits.h"

ESP_DEFINE_CLEANUP (source, struct esp_image_source *, esp_source_close)
ESP_DEFINE_CLEANUP (image, struct esp_image *, esp_image_close)
#define CLEANUP_SOURCE ESP_CLEANUP (source)
#define CLEANUP_IMAGE ESP_CLEANUP (image)

int
rp_done (const esp_uuid *uuid, const char *what)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  CLEANUP_RP_INDEX struct rp_index index = { 0 };
  CLEANUP_FREE char *serves = NULL;
  char buf[ESP_UUID_TEXT], size[16], own[16];
  json_t *needs, *o = NULL;

  if (esp_catalog_rp_get (cli_catalog (), uuid, &rp) == -1) {
    esp_error ("restore point %s: %m", esp_uuid_text (uuid, buf));
    return CLI_FAILED;
  }
  if ((cli.json && rp_index_load (&index, NULL) != 0) ||
      !(needs = needs_served_by (uuid)))
    return CLI_FAILED;
  serves = needs_text (needs);
  if (cli.json) {
    o = json_rp (&rp, &index, NULL);
    json_object_set (o, "needs", needs);
  }
  json_decref (needs);
  esp_size_format (rp.size, size);
  esp_size_format (rp.data_blocks << ESP_BLOCK_SHIFT, own);
  return cli_done (o, "%s %s: %s, own data %s, %s%s%s", what, rp.name, size,
                   rp.kind == ESP_RP_IN_PLACE ? "none (in place)" : own,
                   esp_uuid_text (uuid, buf), *serves ? ", serves " : "",
                   serves);
}

/* --- create --------------------------------------------------------------- */

struct making {
  const char *name, *note;
  uint64_t size;                /* --size, or 0 */
  struct esp_resource *resources;
  size_t nresources;
  esp_uuid uuid;
};

static int
create_from_overlay (const struct args *args, struct making *m)
{
  struct esp_export overlay;

  if (export_parse_client (args, opt_value (args, "from-overlay"), &overlay) != 0)
    return CLI_USAGE;
  return esp_rp_create_from_overlay (cli.store, m->name, &overlay, m->size,
                                     m->note, m->resources, m->nresources,
                                     &m->uuid) == 0 ? CLI_OK : CLI_FAILED;
}

/* SOURCE NULL: nothing differs (a larger disk, other resources). */
static int
create_child (struct making *m, const struct esp_rp *parent,
              struct esp_image_source *source)
{
  CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("comparing");
  CLEANUP_IMAGE struct esp_image *below = NULL;
  uint64_t size = m->size ? m->size
    : source ? esp_source_size (source) : parent->size;
  struct esp_draft *draft = esp_draft_begin (cli.store, m->name, parent, size);

  if (!draft)
    return CLI_FAILED;
  free (draft->rp.note);
  draft->rp.note = xstrdup (m->note);
  draft->rp.resources = ESP_STEAL (m->resources);
  draft->rp.nresources = m->nresources;
  if (esp_rp_check_words (&draft->rp) == -1 ||
      (source &&
       (!(below = esp_image_open (cli.store, &parent->uuid)) ||
        esp_draft_import (draft, source, below, esp_progress_update, bar) == -1))) {
    esp_draft_abort (draft);
    return CLI_FAILED;
  }
  return esp_draft_commit (draft, &m->uuid) == 0 ? CLI_OK : CLI_FAILED;
}

static int
create_from_parent (const struct args *args, struct making *m)
{
  CLEANUP_RP struct esp_rp parent = { 0 };
  CLEANUP_SOURCE struct esp_image_source *source = NULL;
  const char *image = opt_value (args, "from-image");

  if (esp_catalog_rp_find (cli_catalog (), opt_value (args, "parent"),
                           &parent) == -1)
    return CLI_FAILED;
  if (image &&
      !(source = esp_source_open (image, opt_value (args, "format"))))
    return CLI_FAILED;
  return create_child (m, &parent, source);
}

static int
check_create (const struct args *args)
{
  bool overlay = opt_has (args, "from-overlay");
  bool image = opt_has (args, "from-image");

  if (overlay && image)
    return usage (args->cmd, "give --from-image or --from-overlay, not both");
  if (overlay && opt_has (args, "parent"))
    return usage (args->cmd, "--from-overlay goes without --parent: an overlay "
                  "knows what it was written over");
  if (!overlay && !opt_has (args, "parent"))
    return usage (args->cmd, "--parent RP is missing (or give --from-overlay; "
                  "an image without a parent is added by root add)");
  if (opt_has (args, "format") && !image)
    return usage (args->cmd, "--format goes with --from-image");
  if (!overlay && !image && !opt_has (args, "size"))
    return usage (args->cmd, "give --from-image IMAGE or --from-overlay "
                  "VENUE@CLIENT (or --size SIZE alone for a larger disk)");
  return 0;
}

static int
create (const struct args *args, struct making *m)
{
  if (check_create (args) != 0 || opt_size (args, "size", &m->size) != 0 ||
      resources_parse (args, &m->resources, &m->nresources) != 0)
    return CLI_USAGE;
  if (cli_open () != 0)
    return CLI_FAILED;
  return opt_has (args, "from-overlay") ? create_from_overlay (args, m)
    : create_from_parent (args, m);
}

int
rp_create_run (const struct args *args)
{
  struct making m = {
    .name = args->arg[0],
    .note = opt_has (args, "note") ? opt_value (args, "note") : "",
  };
  int r;

  if (esp_name_check (m.name, "restore point") == -1)
    return CLI_USAGE;
  r = create (args, &m);
  if (m.resources)
    resources_free (m.resources, m.nresources);
  return r ? r : rp_done (&m.uuid, "made");
}

/* --- name, note, resources ------------------------------------------------ */

static int
open_and_find (const char *ref, struct esp_rp *rp)
{
  if (cli_open () != 0 || esp_catalog_rp_find (cli_catalog (), ref, rp) == -1)
    return CLI_FAILED;
  return CLI_OK;
}

int
rp_rename_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (esp_name_check (args->arg[1], "restore point") == -1)
    return CLI_USAGE;
  if (open_and_find (args->arg[0], &rp) != 0 ||
      esp_rp_rename (cli.store, &rp.uuid, args->arg[1]) == -1)
    return CLI_FAILED;
  return rp_done (&rp.uuid, "renamed");
}

int
rp_note_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (open_and_find (args->arg[0], &rp) != 0 ||
      esp_rp_set_note (cli.store, &rp.uuid, args->arg[1]) == -1)
    return CLI_FAILED;
  return rp_done (&rp.uuid, "noted");
}

int
rp_resources_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  struct esp_resource *resources;
  size_t n;
  int r;

  if (opt_has (args, "none") == (opt_has (args, "env") || opt_has (args, "app")))
    return usage (args->cmd, "give all of its resources by --env and --app, or "
                  "--none");
  if (resources_parse (args, &resources, &n) != 0)
    return CLI_USAGE;
  if (open_and_find (args->arg[0], &rp) != 0)
    r = -1;
  else
    r = esp_rp_set_resources (cli.store, &rp.uuid, resources, n);
  resources_free (resources, n);
  return r == -1 ? CLI_FAILED : rp_done (&rp.uuid, "changed resources of");
}

/* --- delete, merge, export, diff ------------------------------------------- */

int
rp_delete_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  char buf[ESP_UUID_TEXT], size[16];

  if (open_and_find (args->arg[0], &rp) != 0 ||
      esp_rp_delete (cli.store, &rp.uuid) == -1)
    return CLI_FAILED;
  esp_uuid_text (&rp.uuid, buf);
  esp_size_format (rp.data_blocks << ESP_BLOCK_SHIFT, size);
  return cli_done (json_pack ("{s:s,s:s}", "deleted", rp.name, "uuid", buf),
                   "deleted %s (own data %s, %s)%s%s", rp.name,
                   rp.kind == ESP_RP_IN_PLACE ? "none" : size, buf,
                   rp.path ? "; its image stays: " : "",
                   rp.path ? rp.path : "");
}

int
rp_merge_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  CLEANUP_RP_LIST struct esp_rp_list children = { 0 };
  CLEANUP_FREE char *text = NULL;
  char buf[ESP_UUID_TEXT];

  if (open_and_find (args->arg[0], &rp) != 0 ||
      esp_catalog_rp_children (cli_catalog (), &rp.uuid, &children) == -1)
    return CLI_FAILED;
  {
    CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("merging");
    if (esp_rp_merge (cli.store, &rp.uuid, esp_progress_update, bar) == -1)
      return CLI_FAILED;
  }
  text = xasprintf ("merged %s (%s) into", rp.name, esp_uuid_text (&rp.uuid, buf));
  return children.n ? rp_done (&children.rp[0].uuid, text) : CLI_OK;
}

int
rp_export_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  const char *file = args->arg[1], *format = opt_value (args, "format");

  if (!format)
    return usage (args->cmd, "--format is missing: raw or qcow2");
  if (strcmp (format, "raw") != 0 && strcmp (format, "qcow2") != 0)
    return usage (args->cmd, "--format %s: raw or qcow2", format);
  if (open_and_find (args->arg[0], &rp) != 0)
    return CLI_FAILED;
  {
    CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("writing");
    CLEANUP_IMAGE struct esp_image *image = esp_image_open (cli.store, &rp.uuid);
    if (!image ||
        esp_image_export (image, file, format, opt_has (args, "force"),
                          esp_progress_update, bar) == -1)
      return CLI_FAILED;
  }
  return cli_done (json_pack ("{s:s,s:s,s:s,s:I}", "name", rp.name, "file", file,
                              "format", format, "size", (json_int_t) rp.size),
                   "wrote %s, %s, from %s", file, format, rp.name);
}

int
rp_diff_run (const struct args *args)
{
  CLEANUP_RP struct esp_rp a = { 0 }, b = { 0 };
  struct esp_rp_diff d;
  char size[16];

  if (open_and_find (args->arg[0], &a) != 0 ||
      esp_catalog_rp_find (cli_catalog (), args->arg[1], &b) == -1)
    return CLI_FAILED;
  {
    CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("comparing");
    if (esp_rp_diff (cli.store, &a.uuid, &b.uuid, &d, esp_progress_update,
                     bar) == -1)
      return CLI_FAILED;
  }
  if (cli.json)
    return json_print (json_pack ("{s:s,s:s,s:I,s:I,s:I}", "a", a.name, "b",
                                  b.name, "blocks", (json_int_t) d.blocks,
                                  "block_size", (json_int_t) ESP_BLOCK_SIZE,
                                  "bytes", (json_int_t) d.bytes));
  if (d.blocks == 0)
    printf ("%s and %s do not differ%s\n", a.name, b.name, a.size == b.size ? ""
            : ", but the longer one goes on with zeroes");
  else
    printf ("%s and %s differ in %" PRIu64 " blocks (%s), %" PRIu64 " bytes of "
            "them\n", a.name, b.name, d.blocks,
            esp_size_format (d.blocks << ESP_BLOCK_SHIFT, size), d.bytes);
  return CLI_OK;
}
