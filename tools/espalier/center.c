/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier center: the image centers that a store knows. */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "center/center.h"
#include "espalier.h"

#define CLEANUP_CENTER __attribute__ ((cleanup (esp_center_config_clear)))
#define CLEANUP_CENTERS __attribute__ ((cleanup (esp_center_config_list_clear)))

#define NO_CENTERS "no centers yet: espalier center add NAME URL adds the first"

static json_t *
number_or_null (unsigned n)
{
  return n ? json_integer (n == UINT_MAX ? 0 : n) : json_null ();
}

static json_t *
json_center (const struct esp_center_config *c)
{
  json_t *o = json_object ();

  json_object_set_new (o, "name", json_string (c->name));
  json_object_set_new (o, "url", json_text (c->url));
  json_object_set_new (o, "unsigned", json_boolean (c->unsigned_ok));
  json_object_set_new (o, "created", json_number (c->created));
  json_object_set_new (o, "ca", json_text (c->ca));
  json_object_set_new (o, "certificate", json_text (c->cert));
  json_object_set_new (o, "key", json_text (c->key));
  json_object_set_new (o, "proxy", json_text (c->proxy));
  json_object_set_new (o, "credentials", json_text (c->credentials));
  json_object_set_new (o, "profile", json_text (c->profile));
  json_object_set_new (o, "connect_timeout", number_or_null (c->connect_timeout));
  json_object_set_new (o, "timeout", number_or_null (c->timeout));
  json_object_set_new (o, "retries", number_or_null (c->retries));
  json_object_set_new (o, "connections", number_or_null (c->connections));
  return o;
}

/* --- add ------------------------------------------------------------------ */

static int
take_text (const struct args *args, const char *name, char **out)
{
  const char *value = opt_value (args, name);

  if (value && !*value)
    return usage (args->cmd, "--%s is empty", name);
  *out = value ? xstrdup (value) : NULL;
  return 0;
}

static int
take_number (const struct args *args, const char *name, bool zero_is_none,
             unsigned *out)
{
  const char *value = opt_value (args, name);
  unsigned long n;
  char *end;

  if (!value)
    return 0;
  errno = 0;
  n = strtoul (value, &end, 10);
  if (errno || *end || end == value || value[0] == '-' || n > 86400 ||
      (n == 0 && !zero_is_none))
    return usage (args->cmd, "--%s %s: give a number from %d to 86400", name,
                  value, zero_is_none ? 0 : 1);
  *out = n ? (unsigned) n : UINT_MAX;
  return 0;
}

static int
take_options (const struct args *args, struct esp_center_config *c)
{
  if (take_text (args, "ca", &c->ca) != 0 ||
      take_text (args, "cert", &c->cert) != 0 ||
      take_text (args, "key", &c->key) != 0 ||
      take_text (args, "proxy", &c->proxy) != 0 ||
      take_text (args, "credentials", &c->credentials) != 0 ||
      take_text (args, "profile", &c->profile) != 0 ||
      take_number (args, "timeout", false, &c->timeout) != 0 ||
      take_number (args, "connect-timeout", false, &c->connect_timeout) != 0 ||
      take_number (args, "retries", true, &c->retries) != 0 ||
      take_number (args, "connections", false, &c->connections) != 0)
    return CLI_USAGE;
  if (!c->cert != !c->key)
    return usage (args->cmd, "--cert and --key go together");
  c->unsigned_ok = opt_has (args, "unsigned");
  return 0;
}

/* A directory may be written as the shell completes it. */
static char *
url_of (const char *arg)
{
  char *full = strstr (arg, "://") ? NULL : realpath (arg, NULL);
  return full ? full : xstrdup (arg);
}

static int
center_add_run (const struct args *args)
{
  CLEANUP_CENTER struct esp_center_config c = { 0 };

  if (esp_name_check (args->arg[0], "center") == -1 ||
      take_options (args, &c) != 0)
    return CLI_USAGE;
  strcpy (c.name, args->arg[0]);
  c.url = url_of (args->arg[1]);
  if (cli_open () != 0 || esp_center_add (cli.store, &c) == -1)
    return CLI_FAILED;
  return cli_done (cli.json ? json_center (&c) : NULL,
                   "added center %s: %s%s", c.name, c.url, c.unsigned_ok
                   ? " (signatures are not looked at)" : "");
}

/* --- list, show, remove ----------------------------------------------------- */

static const struct esp_center_config *
center_at (const void *centers, size_t i)
{
  return &((const struct esp_center_config_list *) centers)->c[i];
}

static char *
list_name (const void *centers, size_t i)
{
  return xstrdup (center_at (centers, i)->name);
}

static json_t *
list_json (const void *centers, size_t i)
{
  return json_center (center_at (centers, i));
}

static void
list_rows (struct table *t, const void *centers, size_t i)
{
  const struct esp_center_config *c = center_at (centers, i);

  table_row (t);
  table_cell (t, c->name);
  table_cell (t, c->unsigned_ok ? "ignored" : "required");
  table_time (t, c->created);
  table_cell (t, c->url);
}

static int
center_list_run (const struct args *args)
{
  CLEANUP_CENTERS struct esp_center_config_list list = { 0 };

  if (cli_open () != 0 || esp_center_list (cli.store, &list) == -1)
    return CLI_FAILED;
  const struct listing l = {
    &list, list.n, list_name, list_json, list_rows,
    "NAME|SIGNATURES|ADDED|URL", NO_CENTERS,
  };
  return list_print (args, &l);
}

static void
show_text (const char *label, const char *value)
{
  if (value)
    field_text (label, value);
}

static void
show_number (const char *label, unsigned n, const char *unit)
{
  if (n)
    field (label, "%u%s", n == UINT_MAX ? 0 : n, unit);
}

static int
center_show_run (const struct args *args)
{
  CLEANUP_CENTER struct esp_center_config c = { 0 };

  if (cli_open () != 0 ||
      esp_center_load (cli.store, args->arg[0], &c) == -1)
    return CLI_FAILED;
  if (args->n == 2)
    return center_show_rp (args->arg[0], args->arg[1]);
  if (cli.json)
    return json_print (json_center (&c));
  field_text ("Name:", c.name);
  field_text ("URL:", c.url);
  field ("Signatures:", "%s", c.unsigned_ok ? "ignored (--unsigned)"
         : "required");
  field_time ("Added:", c.created);
  show_text ("CA:", c.ca);
  show_text ("Certificate:", c.cert);
  show_text ("Key:", c.key);
  show_text ("Proxy:", c.proxy);
  show_text ("Credentials:", c.credentials);
  show_text ("Profile:", c.profile);
  show_number ("Connect timeout:", c.connect_timeout, " s");
  show_number ("Timeout:", c.timeout, " s");
  show_number ("Retries:", c.retries, "");
  show_number ("Connections:", c.connections, "");
  return CLI_OK;
}

static int
center_remove_run (const struct args *args)
{
  if (cli_open () != 0 ||
      esp_center_remove (cli.store, args->arg[0],
                         opt_has (args, "force")) == -1)
    return CLI_FAILED;
  return cli_done (json_pack ("{s:s}", "removed", args->arg[0]),
                   "removed center %s; what lies there stays", args->arg[0]);
}

/* --- check, verify ----------------------------------------------------------- */

ESP_DEFINE_CLEANUP (open_center, struct esp_center *, esp_center_close)
#define CLEANUP_OPEN ESP_CLEANUP (open_center)

static void
tell_answer (void *arg, const char *what, bool ok, const char *text)
{
  if (cli.json)
    json_array_append_new (arg, json_pack ("{s:s, s:b, s:s}", "what", what,
                                           "ok", ok, "text", text));
  else
    printf ("%-4s %-11s %s\n", ok ? "ok" : "BAD", what, text);
}

static int
center_check_run (const struct args *args)
{
  CLEANUP_OPEN struct esp_center *center = NULL;
  json_t *answers;
  int64_t failed;

  if (cli_open () != 0 ||
      !(center = esp_center_open (cli.store, args->arg[0])))
    return CLI_FAILED;
  answers = json_array ();
  failed = esp_center_check (center, tell_answer, answers);
  if (cli.json) {
    json_t *o = json_pack ("{s:s, s:o, s:I}", "center", args->arg[0],
                           "answers", answers, "failed", (json_int_t) failed);
    if (json_print (o) != CLI_OK)
      return CLI_FAILED;
  }
  else
    json_decref (answers);
  return failed == 0 ? CLI_OK : CLI_FAILED;
}

static int
center_verify_run (const struct args *args)
{
  CLEANUP_OPEN struct esp_center *center = NULL;
  const char *variant = opt_value (args, "variant");
  esp_uuid uuid;
  int64_t found;
  char text[ESP_UUID_TEXT];
  int e;

  if (cli_open () != 0 ||
      !(center = esp_center_open (cli.store, args->arg[0])) ||
      center_find_rp (center, args->arg[1], &uuid) == -1)
    return CLI_FAILED;
  {
    CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("verifying");
    found = esp_center_verify (center, &uuid, variant,
                               opt_value (args, "key-file"),
                               esp_progress_update, bar);
    e = errno;
  }
  if (found == -1) {
    if (e == ECANCELED)
      esp_error ("interrupted: not all of %s was read", args->arg[1]);
    return CLI_FAILED;
  }
  esp_uuid_text (&uuid, text);
  cli_done (cli.json ? json_pack ("{s:s, s:s, s:I}", "center", args->arg[0],
                                  "uuid", text, "findings",
                                  (json_int_t) found) : NULL,
            found ? "%s at center %s is damaged: push it again from a store "
            "that has it" : "%s at center %s is sound", args->arg[1],
            args->arg[0]);
  return found ? CLI_DAMAGE : CLI_OK;
}

static const struct opt add_options[] = {
  { "ca", 0, "FILE", "certificates (PEM) to trust instead of the system's", false },
  { "cert", 0, "FILE", "this server's certificate (PEM), for a center that asks", false },
  { "key", 0, "FILE", "and its private key (PEM)", false },
  { "proxy", 0, "URL", "a proxy, instead of the environment's", false },
  { "credentials", 0, "FILE", "of S3, in the form of ~/.aws/credentials", false },
  { "profile", 0, "NAME", "which of the credentials in that file", false },
  { "connect-timeout", 0, "SECONDS", "how long to wait for a connection (10)", false },
  { "timeout", 0, "SECONDS", "how long to wait without progress (30)", false },
  { "retries", 0, "N", "how often to try again (4); 0: never", false },
  { "connections", 0, "N", "at most, at once (16)", false },
  { "unsigned", 0, NULL, "take what nobody signed, or anybody", false },
  { 0 },
};

static const struct opt remove_options[] = {
  { "force", 0, NULL, "even if restore points then miss data for ever", false },
  { 0 },
};

static const struct opt verify_options[] = {
  { "variant", 0, "ID", "only this packing of it", false },
  { "key-file", 0, "FILE", "take the variant's key from a file", false },
  { 0 },
};

const struct command center_commands[] = {
  { "center add", "NAME URL [--unsigned] [--ca FILE] [--cert FILE --key FILE] [--proxy URL] [--credentials FILE] [--profile NAME] [--connect-timeout SECONDS] [--timeout SECONDS] [--retries N] [--connections N]",
    "Add an image center: a directory, file:///, http://, https:// or s3://",
    "An S3 center is s3://BUCKET/PREFIX?endpoint=URL&region=REGION.  HTTP centers\n"
    "can be pulled from, not pushed to.  Nothing is sent to the center yet.",
    add_options, 2, 2, 0, center_add_run },
  { "center list", "[--names]", "List the image centers that this store knows",
    NULL, list_options, 0, 0, 0, center_list_run },
  { "center show", "NAME [RP]",
    "Show how an image center is reached, or what it has of a restore point",
    "Of a restore point: its variants, for espalier pull --variant.",
    NULL, 1, 2, 0, center_show_run },
  { "center remove", "NAME [--force]",
    "Forget an image center; what lies there stays",
    "Refused while restore points of this store that are not all local have no\n"
    "other source.",
    remove_options, 1, 1, 0, center_remove_run },
  { "center check", "NAME",
    "Try whether an image center does what pushes and pulls need",
    "Exits with 1 where something is not well, and says what to do.",
    NULL, 1, 1, 0, center_check_run },
  { "center verify", "CENTER RP [--variant ID] [--key-file FILE]",
    "Read all of a restore point at a center, and check it",
    "Exits with 3 where there is damage.",
    verify_options, 2, 2, 0, center_verify_run },
  { 0 },
};
