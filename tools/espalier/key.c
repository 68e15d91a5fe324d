/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier key: the keys that encrypt what is pushed, that sign it, whose
 * signatures are trusted, and the one that tickets are issued with.  Nothing here prints a secret.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "boot/ticket.h"
#include "center/keys.h"
#include "espalier.h"

#define CLEANUP_KEYS __attribute__ ((cleanup (esp_key_info_list_clear)))
ESP_DEFINE_CLEANUP (signer, struct esp_signer *, esp_signer_free)
#define CLEANUP_SIGNER ESP_CLEANUP (signer)

static json_t *
json_key (const struct esp_key_info *k)
{
  return json_pack ("{s:s, s:s, s:s}", "name", k->name, "kind", k->kind, "id",
                    k->id);
}

/* Of a key with a secret: one name has its own meaning. */
static const char *
kind_of (const char *name)
{
  return strcmp (name, ESP_TICKET_KEY) == 0 ? ESP_TICKET_KEY : "variant";
}

/* What was done with NAME of KIND, with its id. */
static int
key_done (const char *what, const char *name, const char *kind)
{
  CLEANUP_KEYS struct esp_key_info_list keys = { 0 };

  if (esp_key_list (cli.store, &keys) == -1)
    return CLI_FAILED;
  for (size_t i = 0; i < keys.n; i++)
    if (strcmp (keys.key[i].name, name) == 0 &&
        strcmp (keys.key[i].kind, kind) == 0)
      return cli_done (cli.json ? json_key (&keys.key[i]) : NULL,
                       "%s key %s (%s)", what, name, keys.key[i].id);
  return cli_done (cli.json ? json_pack ("{s:s}", "name", name) : NULL,
                   "%s key %s", what, name);
}

static int
key_create_run (const struct args *args)
{
  if (esp_name_check (args->arg[0], "key") == -1)
    return CLI_USAGE;
  if (cli_open () != 0 || esp_key_create (cli.store, args->arg[0]) == -1)
    return CLI_FAILED;
  return key_done ("made", args->arg[0], kind_of (args->arg[0]));
}

static int
key_import_run (const struct args *args)
{
  if (esp_name_check (args->arg[0], "key") == -1)
    return CLI_USAGE;
  if (cli_open () != 0 ||
      esp_key_import (cli.store, args->arg[0], args->arg[1]) == -1)
    return CLI_FAILED;
  return key_done ("imported", args->arg[0], kind_of (args->arg[0]));
}

static int
key_export_run (const struct args *args)
{
  if (esp_name_check (args->arg[0], "key") == -1)
    return CLI_USAGE;
  if (cli_open () != 0 ||
      esp_key_export (cli.store, args->arg[0], args->arg[1]) == -1)
    return CLI_FAILED;
  return key_done ("exported", args->arg[0], kind_of (args->arg[0]));
}

static int
key_delete_run (const struct args *args)
{
  if (esp_name_check (args->arg[0], "key") == -1)
    return CLI_USAGE;
  if (cli_open () != 0 || esp_key_delete (cli.store, args->arg[0],
                                        opt_has (args, "force")) == -1)
    return CLI_FAILED;
  return cli_done (json_pack ("{s:s}", "deleted", args->arg[0]),
                   "deleted key %s", args->arg[0]);
}

static int
key_trust_run (const struct args *args)
{
  if (esp_name_check (args->arg[0], "key") == -1)
    return CLI_USAGE;
  if (cli_open () != 0 ||
      esp_trust_add (cli.store, args->arg[0], args->arg[1]) == -1)
    return CLI_FAILED;
  return key_done ("now trusts", args->arg[0], "trusted");
}

static int
key_untrust_run (const struct args *args)
{
  if (esp_name_check (args->arg[0], "key") == -1)
    return CLI_USAGE;
  if (cli_open () != 0 || esp_trust_remove (cli.store, args->arg[0]) == -1)
    return CLI_FAILED;
  return cli_done (json_pack ("{s:s}", "untrusted", args->arg[0]),
                   "no longer trusts key %s", args->arg[0]);
}

static int
key_public_run (const struct args *args)
{
  CLEANUP_SIGNER struct esp_signer *signer = NULL;
  CLEANUP_FREE char *pem = NULL;

  (void) args;
  if (cli_open () != 0 || !(signer = esp_signer_load (cli.store, true)) ||
      !(pem = esp_signer_public (signer)))
    return CLI_FAILED;
  if (cli.json)
    return json_print (json_pack ("{s:s}", "public", pem));
  fputs (pem, stdout);
  return CLI_OK;
}

static char *
list_name (const void *keys, size_t i)
{
  return xstrdup (((const struct esp_key_info_list *) keys)->key[i].name);
}

static json_t *
list_json (const void *keys, size_t i)
{
  return json_key (&((const struct esp_key_info_list *) keys)->key[i]);
}

static void
list_rows (struct table *t, const void *keys, size_t i)
{
  const struct esp_key_info *k =
    &((const struct esp_key_info_list *) keys)->key[i];

  table_row (t);
  table_cell (t, k->name);
  table_cell (t, k->kind);
  table_cell (t, k->id);
}

static int
key_list_run (const struct args *args)
{
  CLEANUP_KEYS struct esp_key_info_list keys = { 0 };

  if (cli_open () != 0 || esp_key_list (cli.store, &keys) == -1)
    return CLI_FAILED;
  const struct listing l = {
    &keys, keys.n, list_name, list_json, list_rows, "NAME|KIND|ID",
    "no keys yet: the first push makes one to sign with",
  };
  return list_print (args, &l);
}

static const struct opt delete_options[] = {
  { "force", 0, NULL, "even if restore points then miss data for ever", false },
  { 0 },
};

const struct command key_commands[] = {
  { "key create", "NAME", "Make a random key that encrypts what is pushed",
    "Use it by espalier push --variant 256K,zstd,key=NAME.  Who loses it loses what\n"
    "it encrypts: export it, and keep the copy in a safe place.  The name tickets\n"
    "is that of the key that this site's tickets are issued with.",
    NULL, 1, 1, 0, key_create_run },
  { "key import", "NAME FILE", "Copy a key that was exported elsewhere",
    NULL, NULL, 2, 2, 0, key_import_run },
  { "key export", "NAME FILE", "Copy a key into a new file, for another server",
    NULL, NULL, 2, 2, 0, key_export_run },
  { "key list", "[--names]", "List keys: of variants, of tickets, to sign with, trusted",
    NULL, list_options, 0, 0, 0, key_list_run },
  { "key delete", "NAME [--force]", "Delete a key of variants, or that of tickets",
    "Refused while something that is not here yet can be read with it only.\n"
    "Without the key tickets nobody's ticket is worth anything.",
    delete_options, 1, 1, 0, key_delete_run },
  { "key public", "", "Print the public key that this store signs with",
    "It is made where there is none.  Other servers trust it by espalier key trust.",
    NULL, 0, 0, 0, key_public_run },
  { "key trust", "NAME FILE", "Believe what the public key in FILE signs",
    NULL, NULL, 2, 2, 0, key_trust_run },
  { "key untrust", "NAME", "Believe a key no longer",
    "What was pulled stays.",
    NULL, 1, 1, 0, key_untrust_run },
  { 0 },
};
