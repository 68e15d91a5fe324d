/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier ticket: export names that only one client may open, made and looked
 * at by hand.  docs/boot.md, "Tickets".
 */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <time.h>

#include "boot/address.h"
#include "store/venue.h"
#include "ticket.h"

#define OPENS_DEFAULT 300u
#define VALID_DEFAULT 86400u

int
ticket_address (const struct args *args, struct esp_ticket *t)
{
  const char *text = opt_value (args, "address");
  struct esp_network n;
  char buf[64], *slash;

  if (!text)
    return 0;
  if (strchr (text, '/') || esp_network_parse (text, &n) == -1)
    return usage (args->cmd, "--address %s: one address, such as 10.0.0.7",
                  text);
  esp_network_format (&n, buf);
  if ((slash = strchr (buf, '/')) != NULL)
    *slash = 0;
  snprintf (t->address, sizeof t->address, "%s", buf);
  return 0;
}

/* --- create ------------------------------------------------------------------- */

static json_t *
json_ticket (const struct esp_ticket *t)
{
  char name[ESP_EXPORT_MAX];
  json_t *o = json_object ();

  json_object_set_new (o, "export", json_text
                       (esp_export_format (&t->export, name, sizeof name)));
  json_object_set_new (o, "address", *t->address ? json_text (t->address)
                                                 : json_null ());
  json_object_set_new (o, "read_only", json_boolean (t->readonly));
  json_object_set_new (o, "issued", json_number (t->issued));
  json_object_set_new (o, "opens_until", json_number (t->opens_until));
  json_object_set_new (o, "valid_until", json_number (t->valid_until));
  return o;
}

static int
check_export (const struct args *args, struct esp_ticket *t)
{
  esp_uuid tip;

  if (esp_export_parse (args->arg[0], &t->export) == -1)
    return CLI_USAGE;
  if (*t->export.ticket)
    return usage (args->cmd, "%s has a ticket already", args->arg[0]);
  t->readonly = opt_has (args, "read-only");
  if (!*t->export.client && !t->readonly)
    return usage (args->cmd, "whose is it? write %s@CLIENT, or --read-only for a "
                  "disk that any client may read", args->arg[0]);
  if (cli_open () != 0 ||
      esp_export_tip (cli.store, &t->export, NULL, &tip) == -1)
    return CLI_FAILED;
  return 0;
}

static int
ticket_create_run (const struct args *args)
{
  CLEANUP_TICKET_KEY struct esp_ticket_key *key = NULL;
  struct esp_ticket t = { 0 };
  uint32_t opens = OPENS_DEFAULT, valid = VALID_DEFAULT;
  char name[ESP_EXPORT_MAX];
  int r;

  if ((r = opt_duration (args, "opens", &opens)) != 0 ||
      (r = opt_duration (args, "valid", &valid)) != 0 ||
      (r = ticket_address (args, &t)) != 0)
    return r;
  /* Nobody opens what is not valid any more. */
  if (opens > valid && opt_has (args, "opens") && opt_has (args, "valid"))
    return usage (args->cmd, "--opens is longer than --valid");
  if (opens > valid && opt_has (args, "opens"))
    valid = opens;
  else if (opens > valid)
    opens = valid;
  if ((r = check_export (args, &t)) != 0)
    return r;
  if (!(key = esp_ticket_key_load (cli.store, true)) ||
      esp_ticket_issue (key, &t, opens, valid, name) == -1)
    return CLI_FAILED;
  if (!cli.json) {
    puts (name);
    return CLI_OK;
  }
  json_t *o = json_ticket (&t);
  json_object_set_new (o, "name", json_text (name));
  return json_print (o);
}

/* --- show --------------------------------------------------------------------- */

static void
field_until (const char *label, uint64_t when, uint64_t now)
{
  char buf[32];
  field (label, "%s%s", esp_time_format (when, buf), when < now ? " (over)" : "");
}

static void
show (const struct esp_ticket *t, const char *state, const char *text,
      bool known, uint64_t now)
{
  char name[ESP_EXPORT_MAX];

  field ("Export:", "%s", esp_export_format (&t->export, name, sizeof name));
  field ("Ticket:", "%s: %s", state, text);
  if (!known)
    return;
  field ("Address:", "%s", *t->address ? t->address : "any");
  field ("May write:", "%s", t->readonly ? "no" : "yes");
  field_time ("Issued:", t->issued);
  field_until ("Opens until:", t->opens_until, now);
  field_until ("Valid until:", t->valid_until, now);
}

static const char *
explain (enum esp_ticket_state state, const struct esp_ticket *t, uint64_t now,
         bool address)
{
  switch (state) {
  case ESP_TICKET_OK:
    if (t->opens_until < now)
      return "only for a connection that breaks off: it is too late for the "
        "first one";
    return "this store's servers take it";
  case ESP_TICKET_NONE: return "the name has none";
  case ESP_TICKET_EXPIRED: return "it is too late";
  case ESP_TICKET_REPLAYED: return "a newer one was used since";
  case ESP_TICKET_CLOCK:
    return "it was issued in the future: compare the servers' clocks";
  case ESP_TICKET_FORGED:
    return address
      ? "not made with this site's key, or for another export or address"
      : "not made with this site's key, or for another export; a ticket that is "
      "for one address can only be checked with --address";
  }
  return "?";
}

static int
ticket_show_run (const struct args *args)
{
  CLEANUP_TICKET_KEY struct esp_ticket_key *key = NULL;
  struct esp_ticket t = { 0 }, asked = { 0 };
  struct esp_export e;
  uint64_t now = (uint64_t) time (NULL);
  enum esp_ticket_state state;
  bool known;
  int r;

  if (esp_export_parse (args->arg[0], &e) == -1)
    return CLI_USAGE;
  if ((r = ticket_address (args, &asked)) != 0)
    return r;
  if (!*e.ticket)
    return usage (args->cmd, "%s has no ticket: it would stand behind a +",
                  args->arg[0]);
  if (cli_open () != 0 || !(key = esp_ticket_key_load (cli.store, false)))
    return CLI_FAILED;
  state = esp_ticket_check (key, &e, asked.address, now, &t);
  known = state == ESP_TICKET_OK || state == ESP_TICKET_EXPIRED;
  if (!known)
    t.export = e;
  const char *text = explain (state, &t, now, *asked.address);
  if (cli.json) {
    json_t *o = known ? json_ticket (&t) : json_object ();
    json_object_set_new (o, "state", json_string (esp_ticket_state_name (state)));
    json_object_set_new (o, "good", json_boolean (state == ESP_TICKET_OK));
    json_object_set_new (o, "problem", state == ESP_TICKET_OK ? json_null ()
                                                              : json_text (text));
    r = json_print (o);
  }
  else
    show (&t, esp_ticket_state_name (state), text, known, now);
  return r != 0 || state != ESP_TICKET_OK ? CLI_FAILED : CLI_OK;
}

static const struct opt create_options[] = {
  { "address", 0, "ADDRESS", "it is good from this address only", false },
  { "opens", 0, "TIME", "how long a first connection may come, as 90s or 10m (5m)", false },
  { "valid", 0, "TIME", "how long one that breaks off may come again (1d)", false },
  { "read-only", 0, NULL, "for reading only; needs no client", false },
  { 0 },
};

static const struct opt show_options[] = {
  { "address", 0, "ADDRESS", "is it good from this address?", false },
  { 0 },
};

const struct command ticket_commands[] = {
  { "ticket create", "EXPORT [--address ADDRESS] [--opens TIME] [--valid TIME] [--read-only]",
    "Print an export's name with a ticket, for servers that ask for one",
    "EXPORT is VENUE[/DISK]@CLIENT; with --read-only the client may be missing, and\n"
    "it may be rp:NAME.  The first ticket makes the site's key.",
    create_options, 1, 1, 0, ticket_create_run },
  { "ticket show", "NAME [--address ADDRESS]",
    "Show what a ticket is for, until when, and whether it is good",
    "The exit status is 1 where it is not.", show_options, 1, 1, 0,
    ticket_show_run },
  { 0 },
};
