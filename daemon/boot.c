/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /boot.ipxe: who asks, and which page is the answer.
 *
 * All that a machine chose so far stands in its URL, and is believed as little as
 * what it says of itself: each page looks again whether the machine may have
 * what it asks for.  Who it is, it says itself; where it comes from, the
 * connection says.
 *
 *   mac uuid ip hostname platform arch   what iPXE knows
 *   page=needs|match, from=N, at=N       which page, and where on it
 *   need=NAME (many), ticked             needs, and that they were chosen here
 *   venue=ID, try=N                      boot it; the N-th time since it failed
 *   hop                                  asked by another server's script, which
 *                                        goes on where this one cannot
 *
 * IDs and needs are written as esp_script_encode does.
 *
 * Everything but a malformed request is answered with 200 and a script, since
 * iPXE shows nothing of another answer.
 */

#include <config.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot-internal.h"
#include "boot/address.h"
#include "boot/audit.h"
#include "daemon.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

#define REFUSED_PAUSE 30u

/* It could be read when we began: if it cannot once, nobody is let in then. */
static bool neighbours_known;

int
boot_start (const struct config *config)
{
  neighbours_known = neighbour_check () == 0;
  if (config->check_mac && !neighbours_known)
    esp_warning ("check-mac: the kernel's table of neighbours cannot be read: "
                 "%m: every machine is believed; a service needs AF_NETLINK in "
                 "RestrictAddressFamilies=");
  return boot_seen_start (config);
}

void
boot_stop (void)
{
  boot_seen_stop ();
  boot_data_clear ();
}

/* --- answers ---------------------------------------------------------------- */

void
visit_audit (const struct visit *v, const char *venue, const char *what,
             const char *why)
{
  struct boot_seen boot = { .at = (uint64_t) time (NULL), .what = what };

  snprintf (boot.client, sizeof boot.client, "%s", v->name);
  snprintf (boot.venue, sizeof boot.venue, "%s", venue ? venue : "");
  snprintf (boot.address, sizeof boot.address, "%s", v->address);
  boots_add (&boot);
  if (v->r->config->audit)
    esp_audit (v->r->config->audit, "script", "client", v->name, "venue",
               venue, "address", v->address, "mac", v->mac, "uuid", v->uuid,
               "way", what, "why", why, NULL);
}

static int
reply_script (struct visit *v, char *script)
{
  reply_header (v->r, "Cache-Control", "no-store");
  return reply_take (v->r, 200, "text/plain; charset=utf-8", script,
                     script ? strlen (script) : 0);
}

int
visit_say (struct visit *v, const char *const *lines, unsigned pause,
           const char *query)
{
  return reply_script (v, esp_script_message (&v->page, lines, pause,
                                              v->hop ? NULL : query));
}

int
visit_refuse (struct visit *v, const char *venue, const char *why)
{
  char as[ESP_NAME_MAX + 128];
  const char *lines[] = { why, as, NULL };

  snprintf (as, sizeof as, "This machine: %s, at %s", v->name, v->address);
  visit_audit (v, venue, "refused", why);
  return visit_say (v, lines, REFUSED_PAUSE, "");
}

/* --- parameters --------------------------------------------------------------- */

/* A parameter that says something; NULL: none. */
static const char *
said (const struct request *r, const char *name)
{
  const char *s = request_query (r, name);

  return s && *s ? s : NULL;
}

unsigned
visit_number (const struct visit *v, const char *name, unsigned max)
{
  const char *s = request_query (v->r, name);
  unsigned long n;

  if (!s || strlen (s) > 6 || s[strspn (s, "0123456789")])
    return 0;
  n = strtoul (s, NULL, 10);
  return n <= max ? (unsigned) n : 0;
}

static const struct esp_need *
find_need (const struct boot_data *data, const char *name, size_t len)
{
  for (size_t i = 0; i < data->needs.n; ++i)
    if (strlen (data->needs.need[i].name) == len &&
        memcmp (data->needs.need[i].name, name, len) == 0)
      return &data->needs.need[i];
  return NULL;
}

static void
add_need (struct visit *v, const char *name, size_t len)
{
  const struct esp_need *need = find_need (v->data, name, len);

  for (size_t i = 0; i < v->nwanted; ++i)
    if (v->wanted[i] == need)
      return;
  if (need && v->nwanted < BOOT_NEEDS_MAX)
    v->wanted[v->nwanted++] = need;
}

/* Those of the URL; on the first page of needs those of the last time. */
static void
read_needs (struct visit *v)
{
  CLEANUP_CLIENT_SEEN struct esp_client_seen seen = { 0 };
  char text[1024 + 1];
  const char *name;

  for (unsigned i = 0; i < BOOT_NEEDS_MAX &&
         (name = request_query_nth (v->r, "need", i)); ++i)
    if (esp_script_decode (name, text, sizeof text))
      add_need (v, text, strlen (text));
  if (v->nwanted > 0 || request_query (v->r, "ticked") ||
      !request_query (v->r, "page") ||
      esp_catalog_seen_get (esp_store_catalog (daemon_store ()), v->name,
                            &seen) == -1)
    return;
  for (name = seen.needs; *name; name += strcspn (name, "\n"),
         name += *name == '\n')
    add_need (v, name, strcspn (name, "\n"));
}

char *
visit_query (const struct visit *v, const char *prefix,
             const struct esp_need *without)
{
  char *text = NULL;
  size_t size;
  FILE *fp = open_memstream (&text, &size);

  if (!fp)
    return NULL;
  fputs (prefix, fp);
  for (size_t i = 0; i < v->nwanted; ++i)
    if (v->wanted[i] != without) {
      fputs ("&need=", fp);
      esp_script_encode (fp, v->wanted[i]->name);
    }
  return fclose (fp) == EOF ? NULL : text;
}

/* --- who it is ------------------------------------------------------------------ */

/* The connection's; where it has none (a Unix socket), the machine's word. */
static void
read_address (struct visit *v)
{
  const char *ip = request_query (v->r, "ip");
  char unused[64];
  struct esp_network n;
  struct esp_catch before;

  snprintf (v->address, sizeof v->address, "%s", v->r->peer);
  if (v->address[0] || !ip)
    return;
  before = esp_catch_begin (unused, sizeof unused);
  if (esp_network_parse (ip, &n) == 0 && !strchr (ip, '/'))
    esp_network_format (&n, v->address);
  esp_catch_end (before);
}

bool
visit_allowed (const struct visit *v, const struct esp_venue *venue)
{
  return esp_networks_allow (boot_data_settings (v->data, venue->id)->networks,
                             v->address);
}

/* Addresses and words, as iPXE says them; nothing else is told again. */
static bool
is_plain (const char *s)
{
  for (; *s; ++s)
    if ((unsigned char) *s >= 0x80 ||
        !(isalnum ((unsigned char) *s) || strchr ("-.:_", *s)))
      return false;
  return true;
}

/* The address of this page with who asks, malloced. */
static char *
make_url (struct visit *v)
{
  static const char *const names[] = { "mac", "uuid", "ip", "platform",
                                       "arch" };
  const char *base = request_base (v->r), *value;
  char *text = NULL;
  size_t size;
  FILE *fp = base ? open_memstream (&text, &size) : NULL;

  if (!fp)
    return NULL;
  fprintf (fp, "%s/boot.ipxe?ipxe=1", base);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
    if ((value = said (v->r, names[i])) && is_plain (value))
      fprintf (fp, "&%s=%s", names[i], value);
  return fclose (fp) == EOF ? NULL : text;
}

/* Is the machine the one that it says?  Its packets have its MAC address, where
 * no router is between us; one that says none gets that.
 */
static bool
check_mac (struct visit *v)
{
  char said_mac[ESP_CLIENT_KEY_MAX + 1], unused[64];
  enum esp_client_kind kind;
  struct esp_catch before;
  bool same;
  int known;

  if (!v->r->config->check_mac)
    return true;
  known = neighbour_mac (v->address, v->neighbour);
  if (known != 1)
    return known == 0 || !neighbours_known;
  if (!v->mac) {
    v->mac = v->neighbour;
    return true;
  }
  before = esp_catch_begin (unused, sizeof unused);
  same = esp_client_key_parse (v->mac, &kind, said_mac) == 0 &&
    kind == ESP_CLIENT_MAC && strcmp (said_mac, v->neighbour) == 0;
  esp_catch_end (before);
  return same;
}

/* The venue that it has to boot.  -1: it is there no more, and was said so
 * with *RESULT.
 */
static int
read_assigned (struct visit *v, int *result)
{
  const struct config *config = v->r->config;
  const char *id = v->entry && v->entry->venue[0] ? v->entry->venue : NULL;
  char why[ESP_NAME_MAX + 128];

  if (!id && config->unknown_clients == UNKNOWN_DEFAULT)
    id = config->default_venue;
  v->assigned = id ? boot_data_venue (v->data, id) : NULL;
  if (!id || v->assigned)
    return 0;
  snprintf (why, sizeof why, "Its venue is not there: %s", id);
  *result = visit_refuse (v, id, why);
  return -1;
}

/* --- the pages -------------------------------------------------------------------- */

/* A venue was asked for. */
static int
chosen (struct visit *v, const char *id)
{
  static const char *const gone[] = { "This venue is not there any more",
                                      NULL };
  const struct esp_venue *venue = boot_data_venue (v->data, id);

  if (v->assigned && venue != v->assigned)
    return visit_refuse (v, venue ? venue->id : NULL,
                         "This machine may boot its own venue only");
  if (!venue)
    return visit_say (v, gone, 5, "");
  return page_boot (v, venue);
}

static int
choose_page (struct visit *v)
{
  const char *given = request_query (v->r, "venue");
  const char *page = request_query (v->r, "page");
  char venue[ESP_NAME_MAX + 1];
  int result;

  if (!v->entry && v->r->config->unknown_clients == UNKNOWN_REFUSE)
    return visit_refuse (v, NULL, "This machine is not known here");
  if (read_assigned (v, &result) == -1)
    return result;
  if (given)
    return chosen (v, esp_script_decode (given, venue, sizeof venue)
                   ? venue : "");
  if (v->assigned)
    return page_boot (v, v->assigned);
  if (v->hop)
    return visit_say (v, (const char *const[]) { "No venue was named", NULL },
                      0, NULL);
  if (page && strcmp (page, "needs") == 0)
    return page_needs (v);
  if (page && strcmp (page, "match") == 0)
    return page_match (v);
  return page_menu (v);
}

/* What went wrong, as a script: iPXE shows no other answer. */
static int
explain (struct visit *v, const char *why)
{
  const char *lines[] = { "The boot server could not answer:",
                          *why ? why : "see its log", NULL };

  esp_error ("boot.ipxe for %s: %s", v->address, lines[1]);
  return visit_say (v, lines, 10, "");
}

int
visit_reply (struct visit *v, char *script)
{
  return script ? reply_script (v, script) : explain (v, "");
}

static int
answer (struct visit *v)
{
  CLEANUP_BOOT_DATA struct boot_data *data = boot_data_get ();

  if (!data)
    return explain (v, "the catalog cannot be read");
  v->data = data;
  if (!check_mac (v)) {
    if (!*v->neighbour)
      return explain (v, "the kernel does not say who is on the network");
    snprintf (v->name, sizeof v->name, "%s", v->neighbour);
    return visit_refuse (v, NULL, "It says another MAC address than its "
                         "packets have");
  }
  v->entry = esp_client_match (&data->clients, v->mac, v->uuid, v->address);
  esp_client_name (v->entry, v->mac, v->uuid, v->address, v->name);
  read_needs (v);
  return choose_page (v);
}

/* A page of somebody else's can make the browser of a machine that runs ask for
 * that machine's script: then its target would go as if it booted.  No firmware
 * calls itself what all browsers do.
 */
static bool
is_browser (const struct request *r)
{
  const char *agent = request_header (r, "User-Agent");

  return (agent && strncmp (agent, "Mozilla/", 8) == 0) ||
    request_header (r, "Origin") || request_header (r, "Referer");
}

int
boot_script (struct request *r)
{
  CLEANUP_FREE char *url = NULL;
  struct visit v = {
    .r = r, .mac = said (r, "mac"), .uuid = said (r, "uuid"),
    .hop = request_query (r, "hop") != NULL,
    .page = { .title = r->config->title, .shell = r->config->shell },
  };

  if (is_browser (r))
    return reply_error (r, 403, "this is for machines that boot, and counts as "
                        "one: look at it with curl");
  if (!request_query (r, "mac") && !request_query (r, "uuid") &&
      !request_query (r, "ipxe")) {
    const char *base = request_base (r);

    url = base ? esp_asprintf ("%s/boot.ipxe", base) : NULL;
    return reply_script (&v, url ? esp_script_ask (url) : NULL);
  }
  read_address (&v);
  url = make_url (&v);
  if (!url)
    return reply_error (r, 500, "no memory");
  v.page.url = url;
  return answer (&v);
}
