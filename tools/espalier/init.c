/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier init */

#include <config.h>

#include <string.h>

#include "espalier.h"

static int
init_run (const struct args *args)
{
  CLEANUP_FREE char *path = NULL, *usual = NULL, *word = NULL;
  bool other;
  const char *dir = args->n ? args->arg[0] : cli.store_option;

  if (args->n && cli.store_option && strcmp (dir, cli.store_option) != 0)
    return usage (args->cmd, "give the directory once: %s, or --store %s",
                  dir, cli.store_option);
  path = esp_store_default_path (dir);
  if (!path || esp_store_init (path) == -1)
    return CLI_FAILED;
  usual = esp_store_default_path (NULL);
  other = !usual || strcmp (usual, path) != 0;
  word = shell_word (path);
  return cli_done (json_pack ("{s:s}", "store", path),
                   "made the store %s\nnext: espalier%s%s root add NAME IMAGE",
                   path, other ? " --store " : "", other ? word : "");
}

const struct command init_commands[] = {
  { "init", "[DIR]", "Make a store: a new or an empty directory",
    "DIR is else --store, $ESPALIER_STORE, or the default\n"
    "(/var/lib/espalier for root, ~/.local/share/espalier for others).",
    NULL, 0, 1, 0, init_run },
  { 0 },
};
