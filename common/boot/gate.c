/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may open what over NBD.
 *
 * In this order, from what costs nothing to what leaves a trace: is it an
 * export's name; is its ticket ours; is the peer in the venue's networks; is
 * the ticket the newest (boot/ticket-state.c).  The peer's address is asked
 * for when something depends on it: without tickets, networks and an audit
 * log, an open costs one look-up in the catalog.
 *
 * What was decided stands in the thread, since nbdkit opens a connection
 * through all modules in one; and counts as long as the way through them lasts
 * (util/stack.h) and for the disk that it was decided for.  A filter of
 * somebody else's may change the name on the way: then it is decided anew.
 *
 * The client hears nothing but that it failed.  Names of restore points
 * (rp:) have no networks of their own, and every venue's disks could be had by
 * them: where any venue has networks, they need a ticket, or a local peer.
 *
 * The key is loaded when the first ticket comes, and again when its file has
 * changed, so that a server need not be restarted for it.
 */

#include <config.h>

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include "boot/address.h"
#include "boot/audit.h"
#include "boot/gate.h"
#include "boot/ticket.h"
#include "util/cleanup.h"
#include "util/host.h"
#include "util/stack.h"

ESP_DEFINE_CLEANUP (ticket_key, struct esp_ticket_key *, esp_ticket_key_free)

/* From _open to _close; not changed between. */
static struct esp_gate_params params;
static struct esp_store *store;

/* Protected by key_lock. */
static pthread_rwlock_t key_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct esp_ticket_key *key;

/* One client at the gate. */
struct visit {
  struct esp_export export;
  char name[ESP_EXPORT_MAX];    /* canonical, or what can be said of it */
  char peer[64];                /* "": local */
  bool peer_known;
  enum esp_ticket_state state;
  bool readonly;
  char before[64];              /* address of the ticket before, if another */
  enum { UNSAID, SAID_OPEN, SAID_FAILED } said;
};

/* This thread's last one; valid where slot->passed. */
static __thread struct visit visit;

/* --- the peer ------------------------------------------------------------ */

static void
find_peer (struct visit *v)
{
  union {
    struct sockaddr sa;
    struct sockaddr_storage any;
  } addr;
  socklen_t len = sizeof addr;

  if (v->peer_known)
    return;
  v->peer_known = true;
  strcpy (v->peer, "unknown");          /* is in no network */
  if (params.peer (&addr.sa, &len) == -1)
    return;
  if (addr.sa.sa_family == AF_UNIX)
    v->peer[0] = 0;
  else if (addr.sa.sa_family == AF_INET || addr.sa.sa_family == AF_INET6)
    esp_address_text (&addr.sa, v->peer);
}

/* For people. */
static const char *
peer_shown (struct visit *v)
{
  find_peer (v);
  return v->peer[0] ? v->peer : "local";
}

/* --- what is said -------------------------------------------------------- */

static void
audit (struct visit *v, const char *result, const char *why, const char *tip)
{
  if (params.audit)
    esp_audit (params.audit, "open", "peer", peer_shown (v), "export", v->name,
               "ticket", esp_ticket_state_name (v->state), "readonly",
               v->readonly ? "yes" : NULL, "before",
               v->before[0] ? v->before : NULL, "result", result, "why", why,
               "tip", tip, NULL);
}

/* No: WHY is a word for the audit log, TEXT is for people. */
static int
refuse (struct visit *v, const char *why, const char *text)
{
  char shown[ESP_EXPORT_MAX];

  esp_error ("%s: %s: refused: %s", peer_shown (v),
             esp_escape (v->name, shown, sizeof shown), text);
  audit (v, "refused", why, NULL);
  errno = EACCES;
  return -1;
}

static int
refuse_state (struct visit *v)
{
  static const char *const texts[] = {
    [ESP_TICKET_NONE] = "it has no ticket, which this server requires: "
      "clients get one from espalierd, or by 'espalier ticket'",
    [ESP_TICKET_FORGED] = "its ticket was not issued for this export and this "
      "address by who has this site's key",
    [ESP_TICKET_EXPIRED] = "its ticket has expired: the machine has to ask for "
      "another, by booting",
    [ESP_TICKET_REPLAYED] = "its ticket is older than the last one that was "
      "used: the machine has booted again since",
    [ESP_TICKET_CLOCK] = "its ticket was issued in the future: the clock of "
      "this server, or of the one that issued it, is wrong",
  };

  return refuse (v, "ticket", texts[v->state]);
}

/* --- the key ------------------------------------------------------------- */

static int
reload_key (void)
{
  ESP_WRLOCK_SCOPE (&key_lock);

  esp_ticket_key_free (key);
  key = esp_ticket_key_load (store, false);
  return key ? 0 : -1;
}

/* -1, reported: there is none that can be used. */
static int
have_key (void)
{
  bool same;

  pthread_rwlock_rdlock (&key_lock);
  same = key && !esp_ticket_key_changed (store, key);
  pthread_rwlock_unlock (&key_lock);
  return same ? 0 : reload_key ();
}

/* --- who is let in ------------------------------------------------------- */

static int
parse (struct visit *v, const char *export)
{
  if (esp_export_parse (export, &v->export) == 0) {
    esp_export_format (&v->export, v->name, sizeof v->name);
    return 0;
  }
  snprintf (v->name, sizeof v->name, "%.*s",
            (int) strcspn (export, "+"), export);
  audit (v, "refused", "name", NULL);
  return -1;
}

/* The ticket by itself; T is what is in it. */
static int
check_ticket (struct visit *v, uint64_t now, struct esp_ticket *t)
{
  if (!v->export.ticket[0])
    return params.require_ticket ? refuse_state (v) : 0;
  find_peer (v);
  v->state = ESP_TICKET_FORGED;
  if (have_key () == -1)
    return refuse (v, "key", "nobody's ticket can be checked");
  pthread_rwlock_rdlock (&key_lock);
  if (key)
    v->state = esp_ticket_check (key, &v->export, v->peer, now, t);
  pthread_rwlock_unlock (&key_lock);
  if (v->state != ESP_TICKET_OK)
    return refuse_state (v);
  v->readonly = t->readonly;
  return 0;
}

static int
any_networks (bool *any)
{
  CLEANUP_VENUE_BOOT_LIST struct esp_venue_boot_list list = { 0 };

  if (esp_catalog_venue_boot_list (esp_store_catalog (store), &list) == -1)
    return -1;
  *any = false;
  for (size_t i = 0; i < list.n; i++)
    *any |= list.boot[i].networks[0] != 0;
  return 0;
}

static int
check_rp (struct visit *v)
{
  bool any;

  if (v->state == ESP_TICKET_OK)
    return 0;
  if (any_networks (&any) == -1) {
    audit (v, "failed", "catalog", NULL);
    return -1;
  }
  if (!any)
    return 0;
  find_peer (v);
  return v->peer[0] == 0 ? 0
    : refuse (v, "network", "restore points are open to tickets and to local "
              "clients only, since venues here are limited to networks");
}

static int
check_networks (struct visit *v)
{
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };

  if (v->export.is_rp)
    return check_rp (v);
  if (esp_catalog_venue_boot_get (esp_store_catalog (store), v->export.name,
                                  &boot) == -1) {
    audit (v, "failed", "disk", NULL);
    return -1;
  }
  if (!boot.networks[0])
    return 0;
  find_peer (v);
  return esp_networks_allow (boot.networks, v->peer) ? 0
    : refuse (v, "network", "the venue's networks do not have its address");
}

static int
take_ticket (struct visit *v, const struct esp_ticket *t, uint64_t now)
{
  if (v->state == ESP_TICKET_NONE)
    return 0;
  if (esp_ticket_take (store, t, now, &v->state, v->before) == -1)
    return refuse (v, "state", "nobody can tell whether its ticket is the "
                   "newest");
  return v->state == ESP_TICKET_OK ? 0 : refuse_state (v);
}

static int
decide (struct visit *v, const char *export)
{
  const uint64_t now = (uint64_t) time (NULL);
  struct esp_ticket t = { .issued = 0 };

  int r = parse (v, export) == -1 || check_ticket (v, now, &t) == -1 ||
    check_networks (v) == -1 || take_ticket (v, &t, now) == -1 ? -1 : 0;

  memset (v->export.ticket, 0, sizeof v->export.ticket);
  return r;
}

static bool
is_same_disk (const char *export)
{
  struct esp_export e;
  char why[256];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r = esp_export_parse (export, &e);

  esp_catch_end (before);
  return r == 0 && e.is_rp == visit.export.is_rp &&
    e.disk == visit.export.disk && strcmp (e.name, visit.export.name) == 0 &&
    (!e.client[0] || strcmp (e.client, visit.export.client) == 0);
}

int
esp_gate_pass (const char *export, bool *readonly)
{
  struct esp_stack_slot *slot = esp_stack_slot ();
  int r = 0;

  if (!slot->depth || !slot->passed || !is_same_disk (export)) {
    visit = (struct visit) { .state = ESP_TICKET_NONE };
    r = decide (&visit, export);
    slot->passed = r == 0;
    visit.said = r == 0 ? UNSAID : SAID_FAILED;
  }
  *readonly = visit.readonly;
  return r;
}

void
esp_gate_opened (const char *tip)
{
  if (visit.said == UNSAID)
    audit (&visit, "ok", NULL, tip);
  visit.said = SAID_OPEN;
}

void
esp_gate_failed (const char *what)
{
  int saved = errno;

  if (visit.said != SAID_FAILED && visit.name[0])
    audit (&visit, "failed", what, NULL);
  visit.said = SAID_FAILED;
  errno = saved;
}

/* --- start and end ------------------------------------------------------- */

int
esp_gate_check (struct esp_store *s, const struct esp_gate_params *p)
{
  char why[1024];

  if (p->audit && esp_audit_check (p->audit) == -1)
    return -1;
  if (!p->require_ticket)
    return 0;
  if (esp_store_readonly (s))
    esp_warning ("require-ticket: %s is read-only, so nobody can remember "
                 "which ticket was used last: only read-only tickets open "
                 "something here", esp_store_path (s));
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  ESP_CLEANUP (ticket_key) struct esp_ticket_key *k =
    esp_ticket_key_load (s, false);
  esp_catch_end (before);
  if (!k && errno == ENOKEY)
    esp_warning ("require-ticket: %s", why);
  else if (!k)
    esp_error ("require-ticket: %s", why);
  return k || errno == ENOKEY ? 0 : -1;
}

void
esp_gate_open (struct esp_store *s, const struct esp_gate_params *p)
{
  store = s;
  params = *p;
}

void
esp_gate_close (void)
{
  ESP_WRLOCK_SCOPE (&key_lock);

  esp_ticket_key_free (ESP_STEAL (key));
  store = NULL;
}
