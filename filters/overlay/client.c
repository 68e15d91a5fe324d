/* SPDX-License-Identifier: BSD-3-Clause */
/* Whose overlay a connection gets.
 *
 * A client that names itself (@CLIENT) is believed: nbdkit knows no better
 * identity than the address.  What becomes a path goes through
 * esp_path_component, so no name reaches outside its overlay.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

#include <nbdkit-filter.h>

#include "client.h"
#include "util/file.h"

void
client_clear (struct client *c)
{
  free (c->export);
  free (c->name);
  free (c->venue);
  free (c->disk);
  free (c->client);
  memset (c, 0, sizeof *c);
}

/* --- the peer ------------------------------------------------------------ */

static int
name_unix (char *buf, size_t size)
{
  int64_t uid = nbdkit_peer_uid ();

  if (uid == -1)
    return -1;
  snprintf (buf, size, "uid-%" PRIi64, uid);
  return 0;
}

static int
name_inet6 (const struct sockaddr_in6 *sin6, char *buf, size_t size)
{
  const struct in6_addr *a = &sin6->sin6_addr;
  const char *r = IN6_IS_ADDR_V4MAPPED (a)
    ? inet_ntop (AF_INET, &a->s6_addr[12], buf, size)
    : inet_ntop (AF_INET6, a, buf, size);

  return r ? 0 : -1;
}

/* The peer without its port, which changes with each connection. */
static int
name_peer (char *buf, size_t size)
{
  union {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_vm vm;
    struct sockaddr_storage any;
  } addr;
  socklen_t len = sizeof addr;

  if (nbdkit_peer_name (&addr.sa, &len) == -1)
    return -1;
  switch (addr.sa.sa_family) {
  case AF_INET:
    return inet_ntop (AF_INET, &addr.in.sin_addr, buf, size) ? 0 : -1;
  case AF_INET6:
    return name_inet6 (&addr.in6, buf, size);
  case AF_UNIX:
    return name_unix (buf, size);
  case AF_VSOCK:
    snprintf (buf, size, "cid-%u", addr.vm.svm_cid);
    return 0;
  default:
    nbdkit_error ("overlay-client=peer: the client has no address: "
                  "let it ask for EXPORT@CLIENT");
    return -1;
  }
}

/* --- export names -------------------------------------------------------- */

/* The client's name where the export's has none; "" for a private one. */
static int
name_default (enum client_from from, char *buf, size_t size)
{
  *buf = 0;
  if (from == CLIENT_PEER)
    return name_peer (buf, size);
  if (from == CLIENT_EXPORT)
    snprintf (buf, size, "export");
  return 0;
}

static int
set_names (struct client *c, const char *venue, unsigned disk,
           const char *client)
{
  c->is_private = *client == 0;
  c->name = c->is_private ? strdup (c->export)
    : esp_asprintf ("%s@%s", c->export, client);
  if (c->name && c->is_private)
    return 0;
  c->client = esp_path_component (client);
  c->disk = esp_asprintf ("%u", disk);
  if (venue)
    c->venue = esp_path_component (venue);
  if (c->name && c->client && c->disk && (c->venue || !venue))
    return 0;
  nbdkit_error ("malloc: %m");
  return -1;
}

static int
parse_venue (struct client *c, const char *export, enum client_from from)
{
  struct esp_export e;
  char below[ESP_EXPORT_MAX], client[ESP_NAME_MAX + 1];

  if (esp_export_parse (export, &e) == -1)
    return -1;
  c->is_rp = e.is_rp;
  if (e.client[0])
    strcpy (client, e.client);
  /* rp: is the operator's: never shared without being asked to. */
  else if (name_default (e.is_rp ? CLIENT_CONNECTION : from, client,
                         sizeof client) == -1)
    return -1;
  e.client[0] = 0;
  c->export = strdup (esp_export_format (&e, below, sizeof below));
  if (!c->export) {
    nbdkit_error ("strdup: %m");
    return -1;
  }
  return set_names (c, e.is_rp ? NULL : e.name, e.disk, client);
}

static int
parse_other (struct client *c, const char *export, enum client_from from)
{
  const char *at = strrchr (export, '@');
  char client[ESP_NAME_MAX + 1];
  size_t len = strlen (export);

  if (at && esp_client_ok (at + 1)) {
    strcpy (client, at + 1);
    len = (size_t) (at - export);
  }
  else if (name_default (from, client, sizeof client) == -1)
    return -1;
  c->export = strndup (export, len);
  if (!c->export) {
    nbdkit_error ("strndup: %m");
    return -1;
  }
  return set_names (c, c->export, 0, client);
}

int
client_parse (struct client *out, const char *export, bool over_venue,
              enum client_from from)
{
  memset (out, 0, sizeof *out);
  return over_venue ? parse_venue (out, export, from)
    : parse_other (out, export, from);
}

int
client_set_rp (struct client *c, const esp_uuid *tip)
{
  char name[3 + ESP_UUID_TEXT] = "rp:";

  esp_uuid_text (tip, name + 3);
  c->venue = esp_path_component (name);
  if (c->venue)
    return 0;
  nbdkit_error ("malloc: %m");
  return -1;
}
