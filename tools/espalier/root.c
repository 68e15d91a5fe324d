/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier root add: an image becomes the first restore point of a tree. */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "espalier.h"
#include "image/source.h"
#include "plain.h"
#include "store/rp.h"

ESP_DEFINE_CLEANUP (source, struct esp_image_source *, esp_source_close)
#define CLEANUP_SOURCE ESP_CLEANUP (source)

/* What all ways to make a root have. */
struct root {
  const char *name, *note;
  struct esp_resource *resources;
  size_t nresources;
  esp_uuid uuid;
};

/* Hand the note and the resources to DRAFT, which frees them. */
static void
dress (struct esp_draft *draft, struct root *root)
{
  free (draft->rp.note);
  draft->rp.note = xstrdup (root->note);
  draft->rp.resources = root->resources;
  draft->rp.nresources = root->nresources;
  root->resources = NULL;
  root->nresources = 0;
}

static int
add_blank (struct root *root, uint64_t size)
{
  struct esp_draft *draft = esp_draft_begin (cli.store, root->name, NULL, size);

  if (!draft)
    return CLI_FAILED;
  dress (draft, root);
  return esp_draft_commit (draft, &root->uuid) == 0 ? CLI_OK : CLI_FAILED;
}

static int
add_copy (struct root *root, const char *image, const char *format)
{
  CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("reading");
  CLEANUP_SOURCE struct esp_image_source *source = esp_source_open (image, format);
  struct esp_draft *draft;

  if (!source)
    return CLI_FAILED;
  draft = esp_draft_begin (cli.store, root->name, NULL,
                           esp_source_size (source));
  if (!draft)
    return CLI_FAILED;
  dress (draft, root);
  if (esp_rp_check_words (&draft->rp) == -1 ||
      esp_draft_import (draft, source, NULL, esp_progress_update, bar) == -1) {
    esp_draft_abort (draft);
    return CLI_FAILED;
  }
  return esp_draft_commit (draft, &root->uuid) == 0 ? CLI_OK : CLI_FAILED;
}

/* Only raw bytes can be served where they are: look before. */
static int
add_in_place (const struct args *args, struct root *root, const char *image)
{
  CLEANUP_FREE char *path = realpath (image, NULL);
  const char *format = opt_value (args, "format");

  if (!path) {
    esp_error ("realpath: %s: %m", image);
    return CLI_FAILED;
  }
  if (!format) {
    CLEANUP_SOURCE struct esp_image_source *source = esp_source_open (path, NULL);
    if (!source)
      return CLI_FAILED;
    if (strcmp (esp_source_format (source), "raw") != 0) {
      esp_error ("%s is %s: --in-place serves raw files and block devices; "
                 "leave it out to copy the image, or say --format raw",
                 path, esp_source_format (source));
      return CLI_FAILED;
    }
  }
  return esp_rp_create_in_place (cli.store, root->name, path, root->note,
                                 root->resources, root->nresources,
                                 &root->uuid) == 0 ? CLI_OK : CLI_FAILED;
}

static int
check_delayed (const struct args *args)
{
  if (opt_has (args, "blank") || opt_has (args, "in-place") ||
      opt_has (args, "format"))
    return usage (args->cmd, "--delayed goes without --blank, --in-place and "
                  "--format: it serves raw images");
  if (args->n < 2)
    return usage (args->cmd, "missing argument: where is the image?  Give its "
                  "URL");
  return plain_check (args);
}

/* Are the options and arguments one of the four ways? */
static int
check_way (const struct args *args)
{
  const char *format = opt_value (args, "format");

  if (opt_has (args, "delayed"))
    return check_delayed (args);
  if (opt_has (args, "segment"))
    return usage (args->cmd, "--segment goes with --delayed");
  if (opt_has (args, "blank")) {
    if (args->n > 1)
      return usage (args->cmd, "give an IMAGE or --blank, not both");
    if (opt_has (args, "in-place") || format)
      return usage (args->cmd, "--blank goes without --in-place and --format");
    return 0;
  }
  if (args->n < 2)
    return usage (args->cmd, "missing argument: give an IMAGE, or --blank SIZE");
  if (strstr (args->arg[1], "://"))
    return usage (args->cmd, "%s: a URL goes with --delayed", args->arg[1]);
  if (opt_has (args, "in-place") && format && strcmp (format, "raw") != 0)
    return usage (args->cmd, "--in-place serves raw files and block devices "
                  "only: leave it out to copy a %s image", format);
  return 0;
}

static int
add_root (const struct args *args, struct root *root)
{
  uint64_t size = 0;

  if (check_way (args) != 0 || opt_size (args, "blank", &size) != 0 ||
      resources_parse (args, &root->resources, &root->nresources) != 0)
    return CLI_USAGE;
  if (cli_open () != 0)
    return CLI_FAILED;
  if (opt_has (args, "blank"))
    return add_blank (root, size);
  if (opt_has (args, "delayed"))
    return plain_add (args, root->name, args->arg[1], root->note,
                      root->resources, root->nresources, &root->uuid);
  if (opt_has (args, "in-place"))
    return add_in_place (args, root, args->arg[1]);
  return add_copy (root, args->arg[1], opt_value (args, "format"));
}

static int
root_add_run (const struct args *args)
{
  struct root root = {
    .name = args->arg[0],
    .note = opt_has (args, "note") ? opt_value (args, "note") : "",
  };
  int r;

  if (esp_name_check (root.name, "restore point") == -1)
    return CLI_USAGE;
  r = add_root (args, &root);
  resources_free (root.resources, root.nresources);
  return r ? r : rp_done (&root.uuid, "added");
}

static const struct opt root_add_options[] = {
  { "format", 0, "FORMAT", "the image's format as qemu names it (else detected)", false },
  { "in-place", 0, NULL, "serve IMAGE, raw or a block device, from where it is", false },
  { "delayed", 0, NULL, "IMAGE is a URL: fetch what is read, when it is read", false },
  { "segment", 0, "SIZE", "how much is fetched at once at least, 64K to 4M (256K)", false },
  { "blank", 0, "SIZE", "an empty disk of SIZE instead of an image", false },
  { "note", 0, "TEXT", "a note to keep with it", false },
  { "env", 0, "NAME[=VERSION]", "it has this environment", true },
  { "app", 0, "NAME[=VERSION]", "it has this application", true },
  { 0 },
};

const struct command root_commands[] = {
  { "root add", "NAME (IMAGE [--format FORMAT | --in-place] | URL --delayed [--segment SIZE] | --blank SIZE) [--note TEXT] [--env ...] [--app ...]",
    "Add a disk image as a root store, the beginning of a tree",
    "IMAGE is a raw file, a block device, or any image that qemu-img reads\n"
    "(qcow2 with its backing files, vmdk, vhdx, vdi ...).  It is copied, without\n"
    "its holes; --in-place keeps it where it is, and it must not change then.\n"
    "With --delayed it is a raw image at a URL (http://, https://, s3://, file://,\n"
    "nbd:// and so on), of which nothing is copied before it is read.",
    root_add_options, 1, 2, 0, root_add_run },
  { 0 },
};
