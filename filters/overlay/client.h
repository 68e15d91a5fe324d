/* SPDX-License-Identifier: BSD-3-Clause */
/* Whose overlay a connection gets: from the export's name, or from what
 * nbdkit knows about the peer.
 */

#ifndef ESPALIER_FILTER_CLIENT_H
#define ESPALIER_FILTER_CLIENT_H

#include <stdbool.h>

#include "overlay/overlay.h"
#include "util/name.h"

/* How a client is named that does not name itself (overlay-client=). */
enum client_from { CLIENT_CONNECTION, CLIENT_PEER, CLIENT_EXPORT };

/* A connection's export name, taken apart. */
struct client {
  bool is_private;              /* CLIENT_CONNECTION, and no @CLIENT */
  bool is_rp;                   /* rp:…: named by what it turns out to be */
  char *export;                 /* for what is below: without @CLIENT */
  char *name;                   /* for people: EXPORT@CLIENT; EXPORT where
                                 * private */
  char *venue, *disk, *client;  /* components of the overlay's path; NULL
                                 * where private, VENUE also for is_rp */
};

/* Fill OUT for EXPORT.  OVER_VENUE: the venue plugin's grammar holds, else
 * what follows the last '@' is a client where it is a valid one.  Errors
 * are reported; client_clear is right in any case.
 */
extern int client_parse (struct client *out, const char *export,
                         bool over_venue, enum client_from from);
/* rp: was opened and is restore point TIP. */
extern int client_set_rp (struct client *c, const esp_uuid *tip);
extern void client_clear (struct client *c);

static inline struct esp_overlay_id
client_id (const struct client *c)
{
  return (struct esp_overlay_id) { c->venue, c->disk, c->client };
}

#endif /* ESPALIER_FILTER_CLIENT_H */
