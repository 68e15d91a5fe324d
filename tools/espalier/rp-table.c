/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of espalier rp's commands. */

#include <config.h>

#include "rp.h"

#define RESOURCES                                                       \
  { "env", 0, "NAME[=VERSION]", "it has this environment", true },      \
  { "app", 0, "NAME[=VERSION]", "it has this application", true }

static const struct opt create_options[] = {
  { "parent", 0, "RP", "what it is a child of", false },
  { "from-image", 0, "IMAGE", "keep the blocks in which IMAGE differs from RP", false },
  { "format", 0, "FORMAT", "the image's format as qemu names it (else detected)", false },
  { "from-overlay", 0, "VENUE[/DISK]@CLIENT", "keep what this client wrote", false },
  { "size", 0, "SIZE", "a larger disk than the parent's", false },
  { "note", 0, "TEXT", "a note to keep with it", false },
  RESOURCES,
  { 0 },
};

static const struct opt resources_options[] = {
  RESOURCES,
  { "none", 0, NULL, "it has none of its own", false },
  { 0 },
};

static const struct opt export_options[] = {
  { "format", 0, "raw|qcow2", "the format to write", false },
  { "force", 0, NULL, "replace FILE if it is there", false },
  { 0 },
};

const struct command rp_commands[] = {
  { "rp create", "NAME (--parent RP --from-image IMAGE [--format FORMAT] | --from-overlay VENUE[/DISK]@CLIENT) [--size SIZE] [--note TEXT] [--env ...] [--app ...]",
    "Make a restore point from an image or from what a client wrote",
    "From an image, the blocks that differ from RP's are kept.  From an overlay,\n"
    "nothing is copied; its client must not be connected, and is clean again when\n"
    "it comes back.  With --parent and --size alone the disk just grows.",
    create_options, 1, 1, 0, rp_create_run },
  { "rp list", "[RP] [--names]",
    "List restore points: all, or RP and what descends from it",
    NULL, list_options, 0, 1, 0, rp_list_run },
  { "rp tree", "[RP]", "Draw the tree: all, or RP and what descends from it",
    "A child stands below its parent; where there are several, each begins a\n"
    "branch.  OWN is what a restore point keeps itself.",
    NULL, 0, 1, 0, rp_tree_run },
  { "rp show", "RP", "Show all that is known about a restore point",
    NULL, NULL, 1, 1, 0, rp_show_run },
  { "rp rename", "RP NAME", "Give a restore point another name",
    NULL, NULL, 2, 2, 0, rp_rename_run },
  { "rp note", "RP TEXT", "Replace a restore point's note",
    NULL, NULL, 2, 2, 0, rp_note_run },
  { "rp resources", "RP (--env NAME[=VERSION] ... --app NAME[=VERSION] ... | --none)",
    "Set what a restore point offers, all of it at once",
    "What it inherits from its ancestors is not repeated here; a resource of the\n"
    "same name replaces an inherited one.",
    resources_options, 1, 1, 0, rp_resources_run },
  { "rp delete", "RP", "Delete a restore point that nothing needs",
    "Refused while it has children, venues map it, overlays were written over\n"
    "it, or somebody has it open.  The file of a root in place stays.",
    NULL, 1, 1, 0, rp_delete_run },
  { "rp merge", "RP", "Fold a restore point into its only child",
    "The child then has the blocks of both; every disk reads as before.",
    NULL, 1, 1, 0, rp_merge_run },
  { "rp export", "RP FILE --format raw|qcow2 [--force]",
    "Write the whole disk of a restore point into a file",
    NULL, export_options, 2, 2, 0, rp_export_run },
  { "rp diff", "A B", "Count the blocks and bytes in which two disks differ",
    NULL, NULL, 2, 2, 0, rp_diff_run },
  { 0 },
};
