/* SPDX-License-Identifier: BSD-3-Clause */
/* The names of the configuration: what each is, how its value is read and
 * written.  All else (help, command line, file, what changed) follows from the
 * one table.
 */

#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/ticket.h"
#include "config-internal.h"
#include "util/cleanup.h"

#define MINUTE 60u
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

#define AT(field) offsetof (struct config, field)
const struct config_name config_names[] = {
  { "store", KIND_PATH, AT (store), "DIR", "the store (as espalier finds it)", 0, 0, true },
  { "listen", KIND_LISTEN, AT (listen), "ADDRESS:PORT", "HTTP (:8610, all addresses)", 8610, 0, true },
  { "address", KIND_HOST, AT (address), "HOST", "what clients call this server (the address that they came to)", 0, 0, false },
  { "title", KIND_TEXT, AT (title), "TEXT", "of menus and the page (Espalier)", 0, 0, false },
  { "nbd", KIND_NBD, AT (nbd), "URI", "use this NBD server, start none", 0, 0, true },
  { "nbd-listen", KIND_LISTEN, AT (nbd_listen), "ADDRESS:PORT", "NBD for clients (:10809); empty: for nobody", 10809, 0, true },
  { "nbd-options", KIND_WORDS, AT (nbd_options), "OPTIONS", "more options of espalier serve", 0, 0, true },
  { "iscsi-listen", KIND_LISTEN, AT (iscsi_listen), "ADDRESS:PORT", "iSCSI (:3260); empty: no bridge", 3260, 0, true },
  { "bridge-grace", KIND_SECONDS, AT (bridge_grace), "SECONDS", "how long a target waits for its initiator (120)", 1, DAY, false },
  { "unknown-clients", KIND_UNKNOWN, AT (unknown_clients), "menu|default|refuse", "what clients get that nobody has added (menu)", 0, 0, false },
  { "check-mac", KIND_ON_OFF, AT (check_mac), "on|off", "refuse who says another MAC address than its packets have (on)", 0, 0, false },
  { "default-venue", KIND_VENUE, AT (default_venue), "ID", "for clients without one", 0, 0, false },
  { "menu-timeout", KIND_SECONDS, AT (menu_timeout), "SECONDS", "until a menu takes its default (10); 0: never", 0, DAY, false },
  { "shell", KIND_ON_OFF, AT (shell), "on|off", "offer iPXE's shell (off)", 0, 0, false },
  { "require-ticket", KIND_ON_OFF, AT (require_ticket), "on|off", "open nothing over NBD without a ticket (off)", 0, 0, true },
  { "ticket-opens", KIND_SECONDS, AT (ticket_opens), "SECONDS", "until when a ticket has to be used first (10m)", 1, ESP_TICKET_OPENS_MAX, false },
  { "ticket-valid", KIND_SECONDS, AT (ticket_valid), "SECONDS", "until when it may be used again (7d)", 1, 365 * DAY, false },
  { "ticket-address", KIND_ON_OFF, AT (ticket_address), "on|off", "bind tickets to the client's address (on)", 0, 0, false },
  { "audit", KIND_PATH, AT (audit), "FILE", "who opened what (STORE/run/audit.log); empty: none", 0, 0, true },
  { "server", KIND_URLS, AT (servers), "URL", "another espalierd of the site; may be given several times", 0, 0, false },
  { 0 },
};

struct counted { struct config config; atomic_uint refs; };

struct config *
config_new (void)
{
  struct counted *c = calloc (1, sizeof *c);

  if (!c)
    abort ();
  atomic_init (&c->refs, 1);
  c->config.listen = strdup (":8610");
  c->config.nbd_listen = strdup (":10809");
  c->config.iscsi_listen = strdup (":3260");
  c->config.title = strdup ("Espalier");
  c->config.check_mac = true;
  c->config.menu_timeout = 10;
  c->config.bridge_grace = 120;
  c->config.ticket_opens = 10 * MINUTE;
  c->config.ticket_valid = 7 * DAY;
  c->config.ticket_address = true;
  return &c->config;
}

static bool
is_string (const struct config_name *n)
{
  return n->kind <= KIND_VENUE;
}

void
config_clear_list (struct config *config)
{
  for (size_t i = 0; i < config->nservers; i++)
    free (config->servers[i]);
  free (config->servers);
  config->servers = NULL;
  config->nservers = 0;
}

static void
config_free (struct config *config)
{
  for (const struct config_name *n = config_names; n->name; n++)
    if (is_string (n))
      free (*(char **) config_at (config, n));
  config_clear_list (config);
  free (config);
}

/* --- the current one -------------------------------------------------------- */

/* Protects CURRENT, not what it points at, which never changes. */
static pthread_mutex_t current_lock = PTHREAD_MUTEX_INITIALIZER;
static struct config *current;

static struct counted *
counted_of (const struct config *config)
{
  return (struct counted *) config;     /* its first member */
}

const struct config *
config_get (void)
{
  ESP_LOCK_SCOPE (&current_lock);
  if (current)
    atomic_fetch_add (&counted_of (current)->refs, 1);
  return current;
}

void
config_put (const struct config *config)
{
  if (atomic_fetch_sub (&counted_of (config)->refs, 1) == 1)
    config_free ((struct config *) config);
}

/* NEW keeps OLD's value of N where that differs; did it? */
static bool
keep_value (struct config *new, const struct config *old,
            const struct config_name *n)
{
  CLEANUP_FREE char *was = config_text (old, n->name, 0);
  CLEANUP_FREE char *is = config_text (new, n->name, 0);

  if (strcmp (was, is) == 0)
    return false;
  if (is_string (n)) {
    char **to = config_at (new, n), *from = *(char **) config_at (old, n);
    free (*to);
    *to = from ? strdup (from) : NULL;
  }
  else
    *(bool *) config_at (new, n) = *(bool *) config_at (old, n);
  return true;
}

void
config_use (struct config *config, void (*fn) (const char *name))
{
  const struct config *old = config_get ();

  for (const struct config_name *n = config_names; old && n->name; n++)
    if (n->restart && keep_value (config, old, n))
      fn (n->name);
  pthread_mutex_lock (&current_lock);
  current = config;
  pthread_mutex_unlock (&current_lock);
  if (old) {
    config_put (old);           /* ours, and */
    config_put (old);           /* that of CURRENT */
  }
}

/* --- names ------------------------------------------------------------------ */

/* How many letters must change, come or go to make B of A (Levenshtein). */
static unsigned
distance (const char *a, const char *b)
{
  unsigned row[33];
  size_t n = strlen (b);

  if (n > 32 || strlen (a) > 64)
    return 100;
  for (unsigned j = 0; j <= n; j++)
    row[j] = j;
  for (unsigned i = 1; *a; a++, i++) {
    unsigned diagonal = row[0];
    row[0] = i;
    for (unsigned j = 1; j <= n; j++) {
      unsigned up = row[j], best = diagonal + (*a != b[j - 1]);
      if (up + 1 < best)
        best = up + 1;
      if (row[j - 1] + 1 < best)
        best = row[j - 1] + 1;
      diagonal = up;
      row[j] = best;
    }
  }
  return row[n];
}

const struct config_name *
config_find (const char *name, const char **near)
{
  unsigned best = 4;            /* further away is no likeness */

  *near = NULL;
  for (const struct config_name *n = config_names; n->name; n++) {
    unsigned d = distance (name, n->name);
    if (strcmp (name, n->name) == 0)
      return n;
    if (d < best && d < strlen (n->name)) {
      best = d;
      *near = n->name;
    }
  }
  return NULL;
}

bool
config_setting (size_t i, struct config_setting *out)
{
  const struct config_name *n = &config_names[i];

  if (!n->name)
    return false;
  *out = (struct config_setting) { n->name, n->arg, n->help };
  return true;
}
