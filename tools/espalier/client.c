/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier client: what a site says of its machines, and which were seen. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "boot/address.h"
#include "espalier.h"
#include "store/site.h"
#include "util/file.h"

#define NO_CLIENTS "no clients yet: espalier client add KEY adds the first;" \
  " machines that booted without: espalier client seen"
#define SECRET_FILE_MAX 1024    /* bytes */

/* --- finding ------------------------------------------------------------ */

/* The entry that TEXT names: by its name, or by its key in any form. */
static int
find_client (const char *text, struct esp_client *out)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };
  char key[ESP_CLIENT_KEY_MAX + 1], why[256];
  struct esp_catch outer;
  enum esp_client_kind kind;
  int r;

  if (cli_open () != 0 ||
      esp_catalog_client_list (cli_catalog (), &list) == -1)
    return -1;
  for (size_t i = 0; *text && i < list.n; i++)
    if (strcmp (list.client[i].name, text) == 0)
      return esp_catalog_client_get (cli_catalog (), list.client[i].key, out);
  outer = esp_catch_begin (why, sizeof why);
  r = esp_client_key_parse (text, &kind, key);
  esp_catch_end (outer);
  return esp_catalog_client_get (cli_catalog (), r == 0 ? key : text, out);
}

/* When the machines of each entry were seen last, 0: never.  malloced. */
static uint64_t *
last_seen (const struct esp_client_list *list,
           const struct esp_client_seen_list *seen)
{
  uint64_t *last = xcalloc (list->n + 1, sizeof *last);

  for (size_t i = 0; i < seen->n; i++) {
    const struct esp_client_seen *s = &seen->seen[i];
    const struct esp_client *x = esp_client_match (list, s->mac, s->uuid,
                                                   s->address);

    if (x && s->last > last[x - list->client])
      last[x - list->client] = s->last;
  }
  return last;
}

/* --- add, set ----------------------------------------------------------- */

/* What is to be done about the secret of CHAP. */
struct secret {
  char *text;                   /* --chap-secret, or NULL; wiped */
  bool remove;                  /* --no-chap */
};

static void
secret_clear (struct secret *s)
{
  if (s->text)
    explicit_bzero (s->text, strlen (s->text));
  free (s->text);
}
#define CLEANUP_SECRET __attribute__ ((cleanup (secret_clear)))

/* The first line of FILE ("-": of standard input) in BUF. */
static int
read_line (const char *file, char buf[SECRET_FILE_MAX])
{
  bool from_stdin = strcmp (file, "-") == 0;
  FILE *f = from_stdin ? stdin : fopen (file, "re");
  bool ok;

  if (!f) {
    esp_error ("open: %s: %m", file);
    return -1;
  }
  /* No copy of it stays in a buffer of stdio's. */
  setvbuf (f, NULL, _IONBF, 0);
  ok = fgets (buf, SECRET_FILE_MAX, f) != NULL;
  if (!from_stdin)
    fclose (f);
  if (ok) {
    buf[strcspn (buf, "\r\n")] = 0;
    return 0;
  }
  errno = EINVAL;
  esp_error ("%s: there is no secret in it", file);
  return -1;
}

/* The options about CHAP, for the entry X, which has them then. */
static int
parse_chap (const struct args *args, struct esp_client *x, struct secret *s)
{
  const char *user = opt_value (args, "chap");
  const char *file = opt_value (args, "chap-secret");
  char buf[SECRET_FILE_MAX];

  if ((s->remove = opt_has (args, "no-chap")) && (user || file))
    return usage (args->cmd, "--no-chap goes without --chap and --chap-secret");
  if (user && !*user)
    return usage (args->cmd, "--chap: give the name of a user (or --no-chap)");
  if (user && strchr (user, ','))       /* tgtd's ends there */
    return usage (args->cmd, "--chap: the name of a user has no comma");
  if (user || s->remove) {
    free (x->chap);
    x->chap = xstrdup (user ? user : "");
  }
  if (!file)
    return 0;
  if (!x->chap || !*x->chap)
    return usage (args->cmd, "--chap-secret goes with --chap USER");
  if (read_line (file, buf) == -1)
    return CLI_FAILED;
  s->text = xstrdup (buf);
  explicit_bzero (buf, sizeof buf);
  return esp_site_chap_check (x->key, s->text) == -1 ? CLI_FAILED : 0;
}

/* The value of --OPTION, or with --no-OPTION "", into SIZE bytes at OUT. */
static int
parse_name (const struct args *args, const char *option, char *out,
            size_t size)
{
  CLEANUP_FREE char *no = xasprintf ("no-%s", option);
  const char *value = opt_value (args, option);

  if (value && opt_has (args, no))
    return usage (args->cmd, "give --%s or --%s, not both", option, no);
  if (opt_has (args, no))
    *out = 0;
  if (!value)
    return 0;
  if (!*value || strlen (value) >= size)
    return usage (args->cmd, "--%s: give a name of 1 to %zu bytes (or --%s)",
                  option, size - 1, no);
  strcpy (out, value);
  return 0;
}

/* What the options say, over what X has. */
static int
parse_entry (const struct args *args, struct esp_client *x, struct secret *s)
{
  const char *how = opt_value (args, "boot");

  if (parse_name (args, "venue", x->venue, sizeof x->venue) != 0 ||
      parse_name (args, "name", x->name, sizeof x->name) != 0)
    return CLI_USAGE;
  if (how && strcmp (how, "default") == 0)
    x->boot = ESP_BOOT_UNSET;
  else if (how && (!*how || esp_boot_parse (how, &x->boot) == -1))
    return *how ? CLI_USAGE
      : usage (args->cmd, "--boot: say iscsi, http, nbdroot or default");
  return parse_chap (args, x, s);
}

static int
client_done (const char *what, const char *key)
{
  CLEANUP_CLIENT struct esp_client x = { 0 };

  if (esp_catalog_client_get (cli_catalog (), key, &x) == -1)
    return CLI_FAILED;
  return cli_done (cli.json ? json_client (&x, 0) : NULL,
                   "%s client %s%s%s: %s%s%s%s%s", what, x.key,
                   x.name[0] ? ", " : "", x.name,
                   x.venue[0] ? "venue " : "it chooses its venue", x.venue,
                   x.boot ? ", boots by " : "", esp_boot_name (x.boot),
                   x.chap[0] ? ", with CHAP" : "");
}

static int
client_add_run (const struct args *args)
{
  CLEANUP_CLIENT struct esp_client x = { 0 };
  CLEANUP_SECRET struct secret s = { 0 };
  int r;

  if (esp_client_key_parse (args->arg[0], &x.kind, x.key) == -1)
    return CLI_USAGE;
  if ((r = parse_entry (args, &x, &s)) != 0)
    return r;
  if (x.chap && *x.chap && !s.text)
    return usage (args->cmd, "--chap goes with --chap-secret FILE");
  if (cli_open () != 0 || esp_site_client_add (cli.store, &x) == -1)
    return CLI_FAILED;
  if (s.text && esp_site_chap_set (cli.store, x.key, s.text) == -1) {
    /* The error is reported; an entry that nobody can use goes again. */
    esp_site_client_delete (cli.store, x.key);
    return CLI_FAILED;
  }
  return client_done ("added", x.key);
}

/* Is there a secret for X, or will there be? */
static int
check_secret (const struct esp_client *x, const struct secret *s)
{
  CLEANUP_SECRET struct secret old = { 0 };

  if (!*x->chap || s->text)
    return 0;
  old.text = esp_site_chap_get (cli.store, x->key);
  return old.text ? 0 : -1;
}

static bool
any_option (const struct args *args)
{
  static const char *const names[] = {
    "venue", "no-venue", "boot", "name", "no-name", "chap", "chap-secret",
    "no-chap",
  };

  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (opt_has (args, names[i]))
      return true;
  return false;
}

static int
client_set_run (const struct args *args)
{
  CLEANUP_CLIENT struct esp_client x = { 0 };
  CLEANUP_SECRET struct secret s = { 0 };
  int r;

  if (!any_option (args))
    return usage (args->cmd, "nothing to set: give --venue, --boot, --name or"
                  " --chap");
  if (find_client (args->arg[0], &x) == -1)
    return CLI_FAILED;
  if ((r = parse_entry (args, &x, &s)) != 0)
    return r;
  if (check_secret (&x, &s) == -1 ||
      esp_site_client_set (cli.store, &x) == -1)
    return CLI_FAILED;
  if ((s.text || s.remove) &&
      esp_site_chap_set (cli.store, x.key, s.text) == -1)
    return CLI_FAILED;
  return client_done ("set", x.key);
}

/* --- list --------------------------------------------------------------- */

struct clients {
  struct esp_client_list list;
  struct esp_client_seen_list seen;
  uint64_t *last;
};

static void
clients_clear (struct clients *c)
{
  esp_client_list_clear (&c->list);
  esp_client_seen_list_clear (&c->seen);
  free (c->last);
}
#define CLEANUP_CLIENTS __attribute__ ((cleanup (clients_clear)))

static int
clients_load (struct clients *c)
{
  if (cli_open () != 0 ||
      esp_catalog_client_list (cli_catalog (), &c->list) == -1 ||
      esp_catalog_seen_list (cli_catalog (), &c->seen) == -1)
    return -1;
  c->last = last_seen (&c->list, &c->seen);
  return 0;
}

static char *
list_name (const void *arg, size_t i)
{
  return xstrdup (((const struct clients *) arg)->list.client[i].key);
}

static json_t *
list_json (const void *arg, size_t i)
{
  const struct clients *c = arg;
  return json_client (&c->list.client[i], c->last[i]);
}

static void
list_rows (struct table *t, const void *arg, size_t i)
{
  const struct clients *c = arg;
  const struct esp_client *x = &c->list.client[i];

  table_row (t);
  table_cell (t, x->key);
  table_cell (t, x->name[0] ? x->name : "-");
  table_cell (t, x->venue[0] ? x->venue : "-");
  table_cell (t, x->boot ? esp_boot_name (x->boot) : "-");
  table_cell (t, x->chap[0] ? x->chap : "-");
  if (c->last[i])
    table_time (t, c->last[i]);
  else
    table_cell (t, "never");
}

static int
client_list_run (const struct args *args)
{
  CLEANUP_CLIENTS struct clients c = { 0 };

  if (clients_load (&c) == -1)
    return CLI_FAILED;
  const struct listing l = {
    &c, c.list.n, list_name, list_json, list_rows,
    "CLIENT|NAME|VENUE|BOOT|CHAP|LAST SEEN", NO_CLIENTS,
  };
  return list_print (args, &l);
}

/* --- seen --------------------------------------------------------------- */

struct seen {
  struct clients c;
  size_t *shown;                /* numbers in c.seen */
  size_t n;
};

static void
seen_clear (struct seen *s)
{
  clients_clear (&s->c);
  free (s->shown);
}

static const struct esp_client *
entry_of (const struct clients *c, const struct esp_client_seen *x)
{
  return esp_client_match (&c->list, x->mac, x->uuid, x->address);
}

static char *
seen_name (const void *arg, size_t i)
{
  const struct seen *s = arg;
  return xstrdup (s->c.seen.seen[s->shown[i]].name);
}

static json_t *
seen_json (const void *arg, size_t i)
{
  const struct seen *s = arg;
  const struct esp_client_seen *x = &s->c.seen.seen[s->shown[i]];
  return json_client_seen (x, entry_of (&s->c, x));
}

static void
seen_rows (struct table *t, const void *arg, size_t i)
{
  const struct seen *s = arg;
  const struct esp_client_seen *x = &s->c.seen.seen[s->shown[i]];
  const struct esp_client *entry = entry_of (&s->c, x);

  table_row (t);
  table_cell (t, x->name);
  table_cell (t, entry ? entry->key : "-");
  table_cell (t, x->venue[0] ? x->venue : "-");
  table_cell (t, x->address[0] ? x->address : "-");
  table_cell (t, x->mac[0] ? x->mac : "-");
  table_cellf (t, "%" PRIu64, x->boots);
  table_time (t, x->first);
  table_time (t, x->last);
}

static int
client_seen_run (const struct args *args)
{
  __attribute__ ((cleanup (seen_clear))) struct seen s = { 0 };

  if (clients_load (&s.c) == -1)
    return CLI_FAILED;
  s.shown = xcalloc (s.c.seen.n + 1, sizeof *s.shown);
  for (size_t i = 0; i < s.c.seen.n; i++)
    if (!opt_has (args, "unknown") || !entry_of (&s.c, &s.c.seen.seen[i]))
      s.shown[s.n++] = i;
  const struct listing l = {
    &s, s.n, seen_name, seen_json, seen_rows,
    "MACHINE|CLIENT|VENUE|ADDRESS|MAC|BOOTS>|FIRST SEEN|LAST SEEN",
    opt_has (args, "unknown") ? "every machine that was seen has an entry"
    : "no machine was seen yet: they are when espalierd boots them",
  };
  return list_print (args, &l);
}

/* --- show, delete ------------------------------------------------------- */

/* Call FN for each machine that was seen and has entry number I of C. */
static void
each_machine (const struct clients *c, size_t i,
              void (*fn) (void *arg, const struct esp_client *entry,
                          const struct esp_client_seen *x), void *arg)
{
  for (size_t j = 0; j < c->seen.n; j++)
    if (entry_of (c, &c->seen.seen[j]) == &c->list.client[i])
      fn (arg, &c->list.client[i], &c->seen.seen[j]);
}

static void
show_machine (void *arg, const struct esp_client *entry,
              const struct esp_client_seen *x)
{
  const char **label = arg;
  char when[32];

  (void) entry;
  field (*label, "%s, %s%s%s, %" PRIu64 " boot%s", x->name,
         esp_time_format (x->last, when), x->venue[0] ? ", venue " : "",
         x->venue, x->boots, x->boots == 1 ? "" : "s");
  *label = "";
}

static void
add_machine (void *arg, const struct esp_client *entry,
             const struct esp_client_seen *x)
{
  json_array_append_new (arg, json_client_seen (x, entry));
}

static void
show_client (const struct clients *c, size_t i)
{
  static const char *const kinds[] = { "MAC address", "UUID", "network" };
  const struct esp_client *x = &c->list.client[i];
  const char *label = "Seen:";

  field ("Client:", "%s (%s)", x->key, kinds[x->kind]);
  if (x->name[0])
    field ("Name:", "%s", x->name);
  field ("Venue:", "%s", x->venue[0] ? x->venue : "it chooses");
  field ("Boots by:", "%s", x->boot ? esp_boot_name (x->boot)
         : "as its venue says");
  if (x->chap[0])
    field ("CHAP:", "user %s", x->chap);
  field_time ("Created:", x->created);
  field_time ("Changed:", x->changed);
  each_machine (c, i, show_machine, &label);
  if (*label)
    field (label, "never");
}

static int
client_show_run (const struct args *args)
{
  CLEANUP_CLIENTS struct clients c = { 0 };
  CLEANUP_CLIENT struct esp_client x = { 0 };
  json_t *o, *machines;
  size_t i = 0;

  if (find_client (args->arg[0], &x) == -1 || clients_load (&c) == -1)
    return CLI_FAILED;
  while (i < c.list.n && strcmp (c.list.client[i].key, x.key) != 0)
    i++;
  if (i == c.list.n) {
    esp_error ("client %s was deleted just now", x.key);
    return CLI_FAILED;
  }
  if (!cli.json) {
    show_client (&c, i);
    return CLI_OK;
  }
  o = json_client (&x, c.last[i]);
  machines = json_array ();
  each_machine (&c, i, add_machine, machines);
  json_object_set_new (o, "machines", machines);
  return json_print (o);
}

static int
client_delete_run (const struct args *args)
{
  CLEANUP_CLIENT struct esp_client x = { 0 };

  if (find_client (args->arg[0], &x) == -1 ||
      esp_site_client_delete (cli.store, x.key) == -1)
    return CLI_FAILED;
  return cli_done (json_pack ("{s:s}", "deleted", x.key), "deleted client %s",
                   x.key);
}

#define ENTRY                                                           \
  { "venue", 0, "ID", "what it boots, without a menu", false },         \
  { "boot", 0, "WAY", "iscsi, http, nbdroot; default: as its venue says", \
    false },                                                            \
  { "name", 0, "NAME", "what it is called, in its overlays too", false }, \
  { "chap", 0, "USER", "its iSCSI target asks for this user", false },  \
  { "chap-secret", 0, "FILE", "with the secret in FILE (-: standard input)", \
    false }

static const struct opt add_options[] = { ENTRY, { 0 } };
static const struct opt set_options[] = {
  ENTRY,
  { "no-venue", 0, NULL, "it chooses its venue", false },
  { "no-name", 0, NULL, "it is called by its address", false },
  { "no-chap", 0, NULL, "its iSCSI target asks for nobody", false },
  { 0 },
};
static const struct opt seen_options[] = {
  { "unknown", 0, NULL, "only machines without an entry", false },
  { "names", 0, NULL, "print names only, one a line", false },
  { 0 },
};

const struct command client_commands[] = {
  { "client add", "KEY [--venue ID] [--boot WAY] [--name NAME] [--chap USER --chap-secret FILE]",
    "Say what a machine, or all of a network, boots",
    "KEY is a MAC address, a UUID, or a network such as 10.0.0.0/24.",
    add_options, 1, 1, 0, client_add_run },
  { "client set", "CLIENT [--venue ID | --no-venue] [--boot WAY] [--name NAME | --no-name] [--chap USER] [--chap-secret FILE] [--no-chap]",
    "Change what a machine boots, from its next boot on",
    "CLIENT is its key or its name.", set_options, 1, 1, 0, client_set_run },
  { "client list", "[--names]", "List what was said of machines",
    NULL, list_options, 0, 0, 0, client_list_run },
  { "client show", "CLIENT", "Show a client, and when it booted last",
    NULL, NULL, 1, 1, 0, client_show_run },
  { "client seen", "[--unknown] [--names]",
    "List machines that booted, with and without an entry",
    NULL, seen_options, 0, 0, 0, client_seen_run },
  { "client delete", "CLIENT", "Delete what was said of a machine",
    "Its overlays stay.", NULL, 1, 1, 0, client_delete_run },
  { 0 },
};
