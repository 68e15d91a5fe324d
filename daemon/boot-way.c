/* SPDX-License-Identifier: BSD-3-Clause */
/* The page that boots: what each server that can do it is asked for.
 *
 * A plan has a path for each server, best first: this one, unless its stack is
 * down, then the others by load.  What is here is made anew for each script, since
 * a ticket is for one boot; of another server, its own page of the machine is
 * named (with &hop), so that it makes its ticket and its target only when it is
 * its turn.  When there is none, or iPXE comes back
 * since none worked (try=N), the machine waits longer each time, up to a
 * minute.
 */

#include <config.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot-internal.h"
#include "boot/address.h"
#include "bridge.h"
#include "daemon.h"
#include "files.h"
#include "peers.h"
#include "store/site.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

#define PATHS_MAX 8u
#define PAUSE 10u               /* seconds, doubled for each try up to */
#define PAUSE_MAX 60u

struct plan {
  const struct visit *v;
  const struct esp_venue *venue;
  const struct esp_venue_boot *settings;
  enum esp_boot way;
  struct esp_script_path paths[PATHS_MAX];
  size_t npaths;
  char **texts;                 /* all strings of paths, freed with the plan */
  size_t ntexts;
  const char *disks[ESP_SCRIPT_DISKS_MAX];
  char initiator[224];
  char *chap_secret;
};

static void
plan_clear (struct plan *plan)
{
  for (size_t i = 0; i < plan->ntexts; ++i)
    free (plan->texts[i]);
  free (plan->texts);
  if (plan->chap_secret)
    explicit_bzero (plan->chap_secret, strlen (plan->chap_secret));
  free (plan->chap_secret);
}
#define CLEANUP_PLAN __attribute__ ((cleanup (plan_clear)))

/* TEXT, malloced, is the plan's from now on; NULL, reported, without memory. */
static const char *
keep (struct plan *plan, char *text)
{
  char **more = text ? reallocarray (plan->texts, plan->ntexts + 1,
                                     sizeof *more) : NULL;

  if (!more) {
    esp_error ("malloc: %m");
    free (text);
    return NULL;
  }
  plan->texts = more;
  return plan->texts[plan->ntexts++] = text;
}

/* HOST as it stands in URLs. */
static char *
bracketed (const char *host)
{
  return esp_asprintf (strchr (host, ':') ? "[%s]" : "%s", host);
}

/* --- HTTP -------------------------------------------------------------------- */

/* The URL of PART of the venue ("disk/0", "kernel"), which is read from disk
 * DISK: with its tip, and a ticket where they are needed.
 */
static const char *
venue_url (struct plan *plan, const char *part, unsigned disk)
{
  const struct visit *v = plan->v;
  struct esp_export e = { .disk = disk };
  char export[ESP_EXPORT_MAX], tip[ESP_UUID_TEXT], *text = NULL;
  const char *base = request_base (v->r), *ticket;
  size_t size;
  FILE *fp;

  snprintf (e.name, sizeof e.name, "%s", plan->venue->id);
  if (!base || daemon_export (v->r->config, &e, v->address, export) == -1)
    return NULL;
  fp = open_memstream (&text, &size);
  if (!fp)
    return keep (plan, NULL);
  fprintf (fp, "%s/venues/", base);
  esp_script_encode (fp, plan->venue->id);
  fprintf (fp, "/%s?tip=%s", part,
           esp_uuid_text (&plan->venue->disks[disk], tip));
  ticket = strchr (export, '+');
  if (ticket)
    fprintf (fp, "&t=%s", ticket + 1);
  return keep (plan, fclose (fp) == EOF ? NULL : text);
}

static int
plan_http (struct plan *plan, struct esp_script_path *path)
{
  for (unsigned i = 0; i < plan->venue->ndisks; ++i) {
    char part[16];

    snprintf (part, sizeof part, "disk/%u", i);
    if (!(plan->disks[i] = venue_url (plan, part, i)))
      return -1;
  }
  path->disks = plan->disks;
  path->ndisks = plan->venue->ndisks;
  return 0;
}

/* --- the kernel, and its root over NBD ---------------------------------------------- */

/* Has CMDLINE a word that begins with WORD? */
static bool
has_word (const char *cmdline, const char *word)
{
  for (const char *p = cmdline; (p = strstr (p, word)); ++p)
    if (p == cmdline || p[-1] == ' ')
      return true;
  return false;
}

/* The word "netroot=nbd" of CMDLINE: its initrd is dracut's.  NULL: none. */
#define DRACUT "netroot=nbd"
static const char *
dracut_word (const char *cmdline)
{
  for (const char *p = cmdline; (p = strstr (p, DRACUT)); ++p)
    if ((p == cmdline || p[-1] == ' ') && strchr (" ", p[strlen (DRACUT)]))
      return p;
  return NULL;
}

/* What the initrd of MORE's kind takes for EXPORT at SERVER, with MORE.  dracut's
 * word is completed where it stands (contrib/dracut/espalier.conf).
 */
static char *
with_root (const char *server, unsigned port, const char *export,
           const char *more)
{
  const char *ip = has_word (more, "ip=") ? "" : "ip=dhcp ";
  const char *root = has_word (more, "root=") ? "" : "root=/dev/nbd0p1 rw ";
  const char *dracut = dracut_word (more);

  if (!dracut)
    return esp_asprintf ("%snbdroot=%s:%u/%s %s%s", ip, server, port, export,
                         root, more);
  return esp_asprintf ("%s%s%.*s" DRACUT ":%s:%u:auto:rw:-N,%s%s", ip, root,
                       (int) (dracut - more), more, server, port, export,
                       dracut + strlen (DRACUT));
}

static const char *
nbd_cmdline (struct plan *plan)
{
  const struct visit *v = plan->v;
  const char *more = plan->settings->cmdline;
  struct esp_export e = { 0 };
  char export[ESP_EXPORT_MAX], host[256];
  unsigned port;

  if (stack_client_address (v->r->config, request_host (v->r), host,
                            &port) == -1) {
    esp_error ("the NBD server listens on no network: see nbd-listen in "
               "espalierd's configuration");
    return NULL;
  }
  snprintf (e.name, sizeof e.name, "%s", plan->venue->id);
  snprintf (e.client, sizeof e.client, "%s", v->name);
  if (daemon_export (v->r->config, &e, v->address, export) == -1)
    return NULL;
  CLEANUP_FREE char *server = bracketed (host);
  if (!server)
    return keep (plan, NULL);
  return keep (plan, with_root (server, port, export, more));
}

static int
plan_nbdroot (struct plan *plan, struct esp_script_path *path)
{
  path->kernel = venue_url (plan, "kernel", 0);
  path->cmdline = nbd_cmdline (plan);
  if (files_has_initrd (plan->settings) &&
      !(path->initrd = venue_url (plan, "initrd", 0)))
    return -1;
  return path->kernel && path->cmdline ? 0 : -1;
}

/* --- iSCSI ------------------------------------------------------------------------------ */

/* The machine's iSCSI name: what RFC 3722 allows of its own. */
static void
make_initiator (struct plan *plan)
{
  char *p = stpcpy (plan->initiator, "iqn.2026-11.org.espalier:client:");
  const char *end = plan->initiator + sizeof plan->initiator - 4;

  for (const char *s = plan->v->name; *s && p < end; ++s) {
    unsigned char c = (unsigned char) *s;

    if (c < 0x80 && (isalnum (c) || strchr ("-.:", c)))
      *p++ = (char) tolower (c);
    else
      p += sprintf (p, "-%02x", c);
  }
  *p = 0;
}

static int
ask_bridge (struct plan *plan, struct bridge_target *target)
{
  const struct visit *v = plan->v;
  const struct esp_client *entry = v->entry;
  struct bridge_want want = { .ndisks = plan->venue->ndisks };

  if (entry && entry->chap && *entry->chap) {
    plan->chap_secret = esp_site_chap_get (daemon_store (), entry->key);
    if (!plan->chap_secret)
      return -1;
    want.chap_user = entry->chap;
    want.chap_secret = plan->chap_secret;
  }
  snprintf (want.venue, sizeof want.venue, "%s", plan->venue->id);
  snprintf (want.client, sizeof want.client, "%s", v->name);
  snprintf (want.address, sizeof want.address, "%s", v->address);
  return bridge_target (v->r->config, &want, target);
}

static int
plan_iscsi (struct plan *plan, struct esp_script_path *path)
{
  struct bridge_target target;
  CLEANUP_FREE char *host = bracketed (request_host (plan->v->r));

  if (!host || ask_bridge (plan, &target) == -1)
    return -1;
  make_initiator (plan);
  for (unsigned i = 0; i < plan->venue->ndisks; ++i)
    if (!(plan->disks[i] =
          keep (plan, esp_asprintf ("iscsi:%s::%u:%x:%s", host, target.port,
                                    target.lun + i, target.iqn))))
      return -1;
  path->disks = plan->disks;
  path->ndisks = plan->venue->ndisks;
  return 0;
}

/* --- all of it -------------------------------------------------------------------------- */

/* "&venue=ID&hop=1", malloced: how another server is asked for ID. */
static char *
peer_query (const char *id)
{
  char *text = NULL;
  size_t size;
  FILE *fp = open_memstream (&text, &size);

  if (!fp)
    return NULL;
  fputs ("&venue=", fp);
  esp_script_encode (fp, id);
  fputs ("&hop=1", fp);
  return fclose (fp) == EOF ? NULL : text;
}

/* What this server can do. */
static int
plan_here (struct plan *plan)
{
  struct esp_script_path *path = &plan->paths[plan->npaths];
  int r;

  path->server = request_host (plan->v->r);
  if (plan->venue->ndisks > ESP_SCRIPT_DISKS_MAX &&
      plan->way != ESP_BOOT_NBDROOT) {
    esp_error ("venue %s has %u disks: iPXE takes %u", plan->venue->id,
               plan->venue->ndisks, ESP_SCRIPT_DISKS_MAX);
    return -1;
  }
  r = plan->way == ESP_BOOT_HTTP ? plan_http (plan, path)
    : plan->way == ESP_BOOT_NBDROOT ? plan_nbdroot (plan, path)
    : plan_iscsi (plan, path);
  if (r == 0)
    plan->npaths++;
  return r;
}

/* The others that have the venue at the same tips. */
static int
plan_peers (struct plan *plan)
{
  CLEANUP_FREE char *venue = NULL;
  const char *query = strchr (plan->v->page.url, '?');
  char **urls;
  size_t n;
  int r = 0;

  if (plan->v->hop)
    return 0;
  if (peers_for (plan->venue, &urls, &n) == -1)
    return -1;
  if (n > 0)
    venue = peer_query (plan->venue->id);
  for (size_t i = 0; i < n && r == 0 && plan->npaths < PATHS_MAX - 1; ++i) {
    struct esp_script_path *path = &plan->paths[plan->npaths];

    path->server = keep (plan, strdup (urls[i]));
    path->chain = keep (plan, venue ?
                        esp_asprintf ("%s/boot.ipxe%s%s", urls[i], query,
                                      venue) : NULL);
    r = path->server && path->chain ? 0 : -1;
    plan->npaths += r == 0;
  }
  peers_free (urls, n);
  return r;
}

/* All that can: here first, unless nobody would answer here.  -1 where there is
 * none; what keeps this server from it is reported.
 */
static int
plan_all (struct plan *plan)
{
  struct stack_info stack;
  int here = 0;

  stack_info (&stack);
  if (stack.state == STACK_UP)
    here = plan_here (plan);
  if (plan_peers (plan) == -1)
    return -1;
  if (stack.state != STACK_UP)
    here = plan_here (plan);
  return plan->npaths > 0 ? 0 : here;
}

static char *
plan_script (const struct plan *plan, unsigned pause, const char *again)
{
  const struct visit *v = plan->v;
  const struct esp_script_boot boot = {
    .venue = plan->venue->id, .description = plan->venue->description,
    .client = v->name, .way = plan->way, .paths = plan->paths,
    .npaths = plan->npaths,
    .initiator = *plan->initiator ? plan->initiator : NULL,
    .chap_user = plan->chap_secret ? v->entry->chap : NULL,
    .chap_secret = plan->chap_secret, .pause = pause, .again = again,
  };

  return esp_script_boot (&v->page, &boot);
}

static enum esp_boot
choose_way (const struct visit *v, const struct esp_venue_boot *settings)
{
  if (v->entry && v->entry->boot != ESP_BOOT_UNSET)
    return v->entry->boot;
  return settings->boot != ESP_BOOT_UNSET ? settings->boot : ESP_BOOT_ISCSI;
}

/* The needs that were ticked, one a line. */
static char *
join_needs (const struct visit *v)
{
  char *text = NULL;
  size_t size;
  FILE *fp = open_memstream (&text, &size);

  if (!fp)
    return NULL;
  for (size_t i = 0; i < v->nwanted; ++i)
    fprintf (fp, "%s%s", i ? "\n" : "", v->wanted[i]->name);
  return fclose (fp) == EOF ? NULL : text;
}

/* KEY in its canonical form, where it is one of KIND. */
static void
canonical (const char *key, enum esp_client_kind kind, char *out, size_t size)
{
  char text[ESP_CLIENT_KEY_MAX + 1], unused[64];
  enum esp_client_kind k;
  struct esp_catch before = esp_catch_begin (unused, sizeof unused);

  if (key && esp_client_key_parse (key, &k, text) == 0 && k == kind)
    snprintf (out, size, "%.*s", (int) size - 1, text);
  esp_catch_end (before);
}

static void
remember (const struct visit *v, const struct esp_venue *venue)
{
  CLEANUP_FREE char *needs = join_needs (v);
  struct esp_client_seen seen = { .needs = needs };

  snprintf (seen.name, sizeof seen.name, "%s", v->name);
  snprintf (seen.venue, sizeof seen.venue, "%s", venue->id);
  snprintf (seen.address, sizeof seen.address, "%s", v->address);
  canonical (v->mac, ESP_CLIENT_MAC, seen.mac, sizeof seen.mac);
  canonical (v->uuid, ESP_CLIENT_UUID, seen.uuid, sizeof seen.uuid);
  boot_seen_put (&seen);
}

/* No server can: why, and once more later. */
static int
cannot (struct visit *v, const struct plan *plan, const char *why,
        unsigned pause, const char *again)
{
  char first[ESP_NAME_MAX + 64], last[64];
  const char *lines[] = { first, why, last, NULL };

  snprintf (first, sizeof first, "%s cannot be booted now:", plan->venue->id);
  snprintf (last, sizeof last, "Once more in %u seconds", pause);
  esp_error ("%s, for %s at %s: %s", plan->venue->id, v->name, v->address,
             why);
  visit_audit (v, plan->venue->id, "failed", why);
  return visit_say (v, lines, pause, again);
}

static int
boot (struct visit *v, struct plan *plan, unsigned pause, const char *again)
{
  char why[512] = "";
  struct esp_catch before;

  if (plan->way != ESP_BOOT_ISCSI)
    bridge_forget (v->name);
  before = esp_catch_begin (why, sizeof why);
  char *script = plan_all (plan) == 0
    ? plan_script (plan, pause, v->hop ? NULL : again) : NULL;

  esp_catch_end (before);
  if (!script)
    return cannot (v, plan, why, pause, again);
  if (*why)                     /* others can */
    esp_error ("%s, for %s at %s: %s", plan->venue->id, v->name, v->address,
               why);
  visit_audit (v, plan->venue->id, esp_boot_name (plan->way), NULL);
  remember (v, plan->venue);
  return visit_reply (v, script);
}

/* The query that asks for VENUE again; malloced. */
static char *
again_query (const struct visit *v, const struct esp_venue *venue,
             unsigned try)
{
  char *text = NULL;
  size_t size;
  FILE *fp = open_memstream (&text, &size);

  if (!fp)
    return NULL;
  if (!v->assigned) {
    fputs ("&venue=", fp);
    esp_script_encode (fp, venue->id);
  }
  fprintf (fp, "&try=%u", try);
  return fclose (fp) == EOF ? NULL : text;
}

int
page_boot (struct visit *v, const struct esp_venue *venue)
{
  CLEANUP_PLAN struct plan plan = { .v = v, .venue = venue };
  unsigned try = visit_number (v, "try", 100), pause = PAUSE;
  CLEANUP_FREE char *again = again_query (v, venue, try + 1);

  if (!again)
    return reply_error (v->r, 500, "no memory");
  if (!visit_allowed (v, venue))
    return visit_refuse (v, venue->id, "This venue is not for this machine's "
                         "network");
  for (unsigned i = 0; i < try && pause < PAUSE_MAX; ++i)
    pause = pause * 2 < PAUSE_MAX ? pause * 2 : PAUSE_MAX;
  plan.settings = boot_data_settings (v->data, venue->id);
  plan.way = choose_way (v, plan.settings);
  return boot (v, &plan, pause, again);
}
