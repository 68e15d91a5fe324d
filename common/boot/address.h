/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses, networks, and what names a machine. */

#ifndef ESPALIER_ADDRESS_H
#define ESPALIER_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "catalog/catalog.h"

#pragma GCC visibility push(default)

/* The numeric address of ADDR without port and zone; IPv4 in IPv6 as IPv4; ""
 * for a Unix socket.  Returns BUF.
 */
extern const char *esp_address_text (const struct sockaddr *addr,
                                     char buf[64]);

/* A network, "10.0.0.0/24", "fd00::/64", or a single address. */
struct esp_network {
  int family;                   /* AF_INET or AF_INET6 */
  uint8_t addr[16];
  unsigned bits;
};
/* Bits behind the prefix must be 0 ("10.0.0.1/24": EINVAL, reported, says
 * what was meant).
 */
extern int esp_network_parse (const char *s, struct esp_network *out);
/* "10.0.0.0/24"; one address stands without its prefix.  Returns BUF. */
extern const char *esp_network_format (const struct esp_network *n,
                                       char buf[64]);
/* Is ADDRESS (text, as above) within N?  A local one ("") is in none. */
extern bool esp_network_has (const struct esp_network *n, const char *address);

/* A list of networks separated by blanks or commas, as venues have it.  ""
 * allows everybody; a local address ("") is always allowed.  A list that is
 * damaged allows nobody.
 */
extern bool esp_networks_allow (const char *list, const char *address);

/* The canonical form of such a list: each network once, as
 * esp_network_format writes it, one blank between two.  malloced; NULL with
 * EINVAL, reported, where one of them is none.
 */
extern char *esp_networks_canonical (const char *list);

/* The canonical form of a key of `espalier client`, and its kind: a MAC address
 * (with ':' or '-' or nothing between, in any case) becomes
 * "52:54:00:12:34:56", a UUID its text, a network "10.0.0.0/24".  EINVAL,
 * reported.
 */
extern int esp_client_key_parse (const char *s, enum esp_client_kind *kind,
                                 char out[ESP_CLIENT_KEY_MAX + 1]);

/* The entry of LIST for a machine that says MAC and UUID (as it wrote them;
 * NULL or malformed: none) and comes from ADDRESS: by MAC, UUID, smallest
 * network.  NULL: an unknown client.
 */
extern const struct esp_client *esp_client_match
  (const struct esp_client_list *list, const char *mac, const char *uuid,
   const char *address);

/* What the machine is called (docs/boot.md, "Who a client is"); "" where it
 * says nothing and is local.  Returns BUF.
 */
extern const char *esp_client_name (const struct esp_client *entry,
                                    const char *mac, const char *uuid,
                                    const char *address,
                                    char buf[ESP_NAME_MAX + 1]);

#pragma GCC visibility pop
#endif /* ESPALIER_ADDRESS_H */
