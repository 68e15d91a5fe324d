/* SPDX-License-Identifier: BSD-3-Clause */
/* Which restore point a request for a venue's disk is about, and whether its
 * client may have it.
 *
 * A client that was told a tip stays on it when the venue is remapped: so a
 * tip is allowed that the venue's log has, and no other, or tip= would read
 * every restore point of the store.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "boot/address.h"
#include "boot/script.h"
#include "boot/ticket.h"
#include "util/host.h"

#include "daemon.h"
#include "tip.h"

#define TICKET_S 300u           /* that of a connection of our own is valid */

static struct esp_catalog *
catalog (void)
{
  return esp_store_catalog (daemon_store ());
}

/* The venue and its settings; the reply where it has none. */
static int
load_venue (struct request *r, const char *id, struct esp_venue *venue,
            struct esp_venue_boot *boot, int *result)
{
  char why[256] = "", text[ESP_NAME_MAX * 4 + 1];
  struct esp_catch before;
  bool ok = false;
  int err;

  if (esp_name_ok (id)) {
    before = esp_catch_begin (why, sizeof why);
    ok = esp_catalog_venue_get (catalog (), id, venue) == 0 &&
      esp_catalog_venue_boot_get (catalog (), id, boot) == 0;
    err = errno;
    esp_catch_end (before);
    if (ok)
      return 0;
    if (err != ENOENT) {
      esp_error ("%s", why);
      *result = reply_error (r, 500, "the catalog cannot be read: see the "
                             "server's log");
      return -1;
    }
  }
  *result = reply_error (r, 404, "no venue \"%s\"",
                         esp_escape (id, text, sizeof text));
  return -1;
}

static bool
ticket_ok (struct request *r, const char *id, unsigned disk, int *result)
{
  const char *given = request_query (r, "t");
  struct esp_export e = { .disk = disk };
  enum esp_ticket_state state = ESP_TICKET_NONE;
  const struct esp_ticket_key *key;
  struct esp_ticket ticket;

  if (!given && !r->config->require_ticket)
    return true;
  key = daemon_ticket_key ();
  if (!key) {
    *result = reply_error (r, 500, "the key of tickets cannot be read: see the "
                           "server's log");
    return false;
  }
  snprintf (e.name, sizeof e.name, "%s", id);
  if (given && strlen (given) <= ESP_TICKET_MAX) {
    strcpy (e.ticket, given);
    state = esp_ticket_check (key, &e, r->peer, (uint64_t) time (NULL),
                              &ticket);
  }
  else if (given)
    state = ESP_TICKET_FORGED;
  if (state == ESP_TICKET_OK)
    return true;
  *result = reply_error (r, 403, "ticket: %s: a new one comes with the boot "
                         "menu (/boot.ipxe)", esp_ticket_state_name (state));
  return false;
}

/* Was TIP ever the tip of disk DISK of venue ID? */
static bool
was_tip (const char *id, unsigned disk, const esp_uuid *tip)
{
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };

  if (esp_catalog_venue_log (catalog (), id, &log) == -1)
    return false;
  for (size_t i = 0; i < log.n; i++)
    if (disk < log.change[i].ndisks &&
        esp_uuid_eq (&log.change[i].disks[disk], tip))
      return true;
  return false;
}

/* A restore point that is gone is not there, whatever the log says. */
static bool
exists (const esp_uuid *tip)
{
  char name[ESP_NAME_MAX + 1];
  uint64_t created;

  return esp_catalog_rp_name (catalog (), tip, name, &created) == 0;
}

static bool
choose_tip (struct request *r, const struct esp_venue *venue, unsigned disk,
            esp_uuid *tip, int *result)
{
  const char *given = request_query (r, "tip");
  bool has = disk < venue->ndisks;

  if (!given && !has) {
    *result = reply_error (r, 404, "venue \"%s\" has %u disk%s, from 0 on",
                           venue->id, venue->ndisks,
                           venue->ndisks == 1 ? "" : "s");
    return false;
  }
  if (has)
    *tip = venue->disks[disk];
  if (!given)
    return true;
  if (esp_uuid_parse (given, tip) == 0 &&
      ((has && esp_uuid_eq (tip, &venue->disks[disk])) ||
       was_tip (venue->id, disk, tip)) &&
      exists (tip))
    return true;
  *result = reply_error (r, 404, "tip= is no restore point that disk %u of "
                         "venue \"%s\" has or had", disk, venue->id);
  return false;
}

int
tip_of_request (struct request *r, const char *given, unsigned disk,
                struct esp_venue_boot *boot, esp_uuid *tip, int *result)
{
  char name[ESP_NAME_MAX + 1];
  /* No name has a '~'; one that is too long is refused as it is. */
  const char *id = esp_script_decode (given, name, sizeof name) ? name : given;
  CLEANUP_VENUE struct esp_venue venue = { 0 };

  if (load_venue (r, id, &venue, boot, result) == -1)
    return 0;
  if (!esp_networks_allow (boot->networks, r->peer)) {
    *result = reply_error (r, 403, "venue \"%s\" is not for %s: its networks "
                           "are %s", id, r->peer, boot->networks);
    return 0;
  }
  return ticket_ok (r, id, disk, result) &&
    choose_tip (r, &venue, disk, tip, result);
}

/* Each connection gets a ticket of its own, at once; and nbdfuse has it on its
 * command line, which everybody on this server can read.
 */
char *
tip_uri (const esp_uuid *tip)
{
  CLEANUP_CONFIG const struct config *config = config_get ();
  struct config soon = *config;
  struct esp_export e = { .is_rp = true };
  char export[ESP_EXPORT_MAX];

  if (soon.ticket_valid > TICKET_S)
    soon.ticket_valid = TICKET_S;
  esp_uuid_text (tip, e.name);
  if (daemon_export (&soon, &e, "", export) == -1)
    return NULL;
  return stack_uri (export);
}
