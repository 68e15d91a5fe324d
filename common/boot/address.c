/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses, networks, and what names a machine.
 *
 * An address has one text: numeric, without port and zone, and one of IPv4
 * inside IPv6 (a socket that listens for both) is IPv4.  A network is kept
 * likewise, so that "::ffff:10.0.0.0/104" and "10.0.0.0/8" are the same key;
 * "::/0" has IPv6 only.
 *
 * What a machine says of itself is anybody's bytes.  What is no MAC address
 * or UUID, or one that no machine can have as its own (zeros, ones, a group's
 * address), counts as not said.
 */

#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/address.h"
#include "util/host.h"

#define TEXT 64                 /* of an address, with the NUL */

/* --- addresses ---------------------------------------------------------- */

static bool
is_mapped (const uint8_t addr[16])
{
  static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

  return memcmp (addr, prefix, sizeof prefix) == 0;
}

const char *
esp_address_text (const struct sockaddr *addr, char buf[TEXT])
{
  const struct sockaddr_in *in = (const void *) addr;
  const struct sockaddr_in6 *in6 = (const void *) addr;
  const void *bytes = NULL;
  int family = addr->sa_family;

  if (family == AF_INET)
    bytes = &in->sin_addr;
  else if (family == AF_INET6) {
    bytes = in6->sin6_addr.s6_addr;
    if (is_mapped (bytes)) {
      family = AF_INET;
      bytes = in6->sin6_addr.s6_addr + 12;
    }
  }
  if (!bytes || !inet_ntop (family, bytes, buf, TEXT))
    buf[0] = 0;
  return buf;
}

/* The address S as the network that has only it. */
static bool
parse_address (const char *s, struct esp_network *out)
{
  struct esp_network n = { .family = AF_INET, .bits = 32 };

  if (inet_pton (AF_INET, s, n.addr) != 1) {
    if (inet_pton (AF_INET6, s, n.addr) != 1)
      return false;
    n.family = AF_INET6;
    n.bits = 128;
  }
  *out = n;
  return true;
}

/* ::ffff:a.b.c.d/96+N as a.b.c.d/N. */
static void
unmap (struct esp_network *n)
{
  if (n->family != AF_INET6 || n->bits < 96 || !is_mapped (n->addr))
    return;
  n->family = AF_INET;
  n->bits -= 96;
  memmove (n->addr, n->addr + 12, 4);
  memset (n->addr + 4, 0, 12);
}

/* --- networks ----------------------------------------------------------- */

/* Clear what stands behind the prefix; false where there was nothing. */
static bool
clear_host (struct esp_network *n)
{
  bool any = false;

  for (unsigned i = n->bits / 8; i < sizeof n->addr; ++i) {
    uint8_t keep = i == n->bits / 8 ? (uint8_t) (0xff00 >> n->bits % 8) : 0;

    any |= (n->addr[i] & ~keep) != 0;
    n->addr[i] &= keep;
  }
  return any;
}

/* The LEN bytes at S, at most MAX, without sign and leading zeros. */
static bool
parse_bits (const char *s, size_t len, unsigned max, unsigned *out)
{
  unsigned v = 0;

  if (len == 0 || len > 3 || (len > 1 && s[0] == '0'))
    return false;
  for (size_t i = 0; i < len; ++i) {
    if (s[i] < '0' || s[i] > '9')
      return false;
    v = v * 10 + (unsigned) (s[i] - '0');
  }
  *out = v;
  return v <= max;
}

enum fault { FINE, NO_NETWORK, HOST_BITS };

/* The LEN bytes at S as a network; reports nothing.  With HOST_BITS, OUT is
 * the network that was meant.
 */
static enum fault
parse_network (const char *s, size_t len, struct esp_network *out)
{
  const char *slash = memchr (s, '/', len);
  size_t n = slash ? (size_t) (slash - s) : len;
  struct esp_network r;
  char text[TEXT];

  if (n >= sizeof text || memchr (s, 0, len))
    return NO_NETWORK;
  memcpy (text, s, n);
  text[n] = 0;
  if (!parse_address (text, &r) ||
      (slash && !parse_bits (slash + 1, len - n - 1, r.bits, &r.bits)))
    return NO_NETWORK;
  bool host = clear_host (&r);
  unmap (&r);
  *out = r;
  return host ? HOST_BITS : FINE;
}

int
esp_network_parse (const char *s, struct esp_network *out)
{
  char text[TEXT], meant[TEXT];
  struct esp_network n;

  switch (parse_network (s, strlen (s), &n)) {
  case FINE:
    *out = n;
    return 0;
  case HOST_BITS:
    esp_error ("network \"%s\" has bits set behind its prefix: write %s, or"
               " leave \"/%s\" out for one machine",
               esp_escape (s, text, sizeof text),
               esp_network_format (&n, meant), strchr (s, '/') + 1);
    break;
  default:
    esp_error ("\"%s\" is no network: write 10.0.0.0/24, fd00::/64, or one"
               " address", esp_escape (s, text, sizeof text));
  }
  errno = EINVAL;
  return -1;
}

const char *
esp_network_format (const struct esp_network *n, char buf[TEXT])
{
  char text[INET6_ADDRSTRLEN];

  inet_ntop (n->family, n->addr, text, sizeof text);
  if (n->bits == (n->family == AF_INET ? 32u : 128u))
    snprintf (buf, TEXT, "%s", text);
  else
    snprintf (buf, TEXT, "%s/%u", text, n->bits);
  return buf;
}

static bool
has (const struct esp_network *n, const struct esp_network *address)
{
  struct esp_network a = *address;

  if (n->family != a.family || n->bits > a.bits)
    return false;
  a.bits = n->bits;
  clear_host (&a);
  return memcmp (a.addr, n->addr, sizeof a.addr) == 0;
}

/* The text of an address; false where it is none. */
static bool
read_address (const char *s, struct esp_network *out)
{
  if (!s || strchr (s, '/'))
    return false;
  return parse_network (s, strlen (s), out) == FINE;
}

bool
esp_network_has (const struct esp_network *n, const char *address)
{
  struct esp_network a;

  return read_address (address, &a) && has (n, &a);
}

static const char blank[] = " \t\r\n,";

/* Is the text of N in LIST, which has a blank behind each? */
static bool
listed (const char *list, const char *n)
{
  size_t len = strlen (n);

  for (; *list; list += strcspn (list, " ") + 1)
    if (strncmp (list, n, len) == 0 && list[len] == ' ')
      return true;
  return false;
}

/* The LEN bytes at S, reported where they are no network. */
static int
parse_part (const char *s, size_t len, struct esp_network *out)
{
  char text[2 * TEXT];

  snprintf (text, sizeof text, "%.*s", (int) (len < TEXT ? len : TEXT), s);
  return esp_network_parse (text, out);
}

char *
esp_networks_canonical (const char *list)
{
  /* No text of a network becomes longer than twice itself: "::1/128". */
  CLEANUP_FREE char *r = calloc (1, 2 * strlen (list) + TEXT);
  char *end = r, text[TEXT];
  struct esp_network n;

  if (!r) {
    esp_error ("malloc: %m");
    return NULL;
  }
  if (*list && !list[strspn (list, blank)]) {
    errno = EINVAL;
    esp_error ("a list of blanks is no list of networks: leave it empty to"
               " allow everybody");
    return NULL;
  }
  for (list += strspn (list, blank); *list; list += strspn (list, blank)) {
    size_t len = strcspn (list, blank);

    if (parse_part (list, len, &n) == -1)
      return NULL;
    if (!listed (r, esp_network_format (&n, text)))
      end += sprintf (end, "%s ", text);
    list += len;
  }
  if (end > r)
    end[-1] = 0;
  return ESP_STEAL (r);
}

bool
esp_networks_allow (const char *list, const char *address)
{
  struct esp_network a, n;
  bool known = read_address (address, &a), any = false;

  if (!*list || !*address)
    return true;
  /* All of it is read: behind the one that fits there may be damage. */
  list += strspn (list, blank);
  while (*list) {
    size_t len = strcspn (list, blank);

    if (parse_network (list, len, &n) != FINE)
      return false;
    any |= known && has (&n, &a);
    list += len;
    list += strspn (list, blank);
  }
  return any;
}

/* --- machines ----------------------------------------------------------- */

#define MAC_TEXT 18             /* with the NUL */

static int
hex (char c)
{
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Six bytes, with the same separator between all of them or none. */
static bool
parse_mac_bytes (const char *s, uint8_t mac[6])
{
  char between = strlen (s) == 12 ? 0 : ':';

  if (!between)
    ;
  else if (strlen (s) != 17)
    return false;
  else if (s[2] == '-')
    between = '-';
  for (unsigned i = 0; i < 6; ++i) {
    int high = hex (s[0]), low = high == -1 ? -1 : hex (s[1]);

    if (low == -1)
      return false;
    mac[i] = (uint8_t) (high << 4 | low);
    s += 2;
    if (between && i < 5 && *s++ != between)
      return false;
  }
  return true;
}

/* The canonical text of a machine's own MAC address: not of a group's. */
static bool
mac_text (const char *s, char out[MAC_TEXT])
{
  static const uint8_t zero[6];
  uint8_t m[6];

  if (!s || !parse_mac_bytes (s, m) || (m[0] & 1) ||
      memcmp (m, zero, sizeof m) == 0)
    return false;
  snprintf (out, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x",
            m[0], m[1], m[2], m[3], m[4], m[5]);
  return true;
}

/* The same of a UUID: boards that nobody gave one say zeros or ones. */
static bool
uuid_text (const char *s, char out[ESP_UUID_TEXT])
{
  esp_uuid u, ones;

  memset (&ones, 0xff, sizeof ones);
  if (!s || esp_uuid_parse (s, &u) == -1 || esp_uuid_is_null (&u) ||
      esp_uuid_eq (&u, &ones))
    return false;
  esp_uuid_text (&u, out);
  return true;
}

static int
bad_key (const char *s)
{
  esp_uuid u;
  uint8_t mac[6];
  char text[TEXT];

  esp_escape (s, text, sizeof text);
  if (parse_mac_bytes (s, mac) || esp_uuid_parse (s, &u) == 0)
    esp_error ("\"%s\" is the address of no single machine", text);
  else
    esp_error ("\"%s\" is no MAC address, UUID or network: write"
               " 52:54:00:12:34:56, a UUID with its dashes, or 10.0.0.0/24",
               text);
  errno = EINVAL;
  return -1;
}

int
esp_client_key_parse (const char *s, enum esp_client_kind *kind,
                      char out[ESP_CLIENT_KEY_MAX + 1])
{
  struct esp_network n;

  _Static_assert (ESP_CLIENT_KEY_MAX + 1 == TEXT, "networks are keys");
  if (mac_text (s, out))
    *kind = ESP_CLIENT_MAC;
  else if (uuid_text (s, out))
    *kind = ESP_CLIENT_UUID;
  else if (parse_network (s, strlen (s), &n) == NO_NETWORK)
    return bad_key (s);
  else if (esp_network_parse (s, &n) == -1)
    return -1;
  else {
    esp_network_format (&n, out);
    *kind = ESP_CLIENT_NETWORK;
  }
  return 0;
}

static const struct esp_client *
match_key (const struct esp_client_list *list, enum esp_client_kind kind,
           const char *key)
{
  for (size_t i = 0; i < list->n; ++i)
    if (list->client[i].kind == kind && strcmp (list->client[i].key, key) == 0)
      return &list->client[i];
  return NULL;
}

static const struct esp_client *
match_network (const struct esp_client_list *list, const char *address)
{
  const struct esp_client *best = NULL;
  struct esp_network a, n;
  unsigned bits = 0;

  if (!read_address (address, &a))
    return NULL;
  for (size_t i = 0; i < list->n; ++i) {
    const struct esp_client *x = &list->client[i];

    if (x->kind == ESP_CLIENT_NETWORK &&
        parse_network (x->key, strlen (x->key), &n) == FINE &&
        has (&n, &a) && (!best || n.bits > bits)) {
      best = x;
      bits = n.bits;
    }
  }
  return best;
}

const struct esp_client *
esp_client_match (const struct esp_client_list *list, const char *mac,
                  const char *uuid, const char *address)
{
  const struct esp_client *r = NULL;
  char key[ESP_UUID_TEXT];

  if (mac_text (mac, key))
    r = match_key (list, ESP_CLIENT_MAC, key);
  if (!r && uuid_text (uuid, key))
    r = match_key (list, ESP_CLIENT_UUID, key);
  return r ? r : match_network (list, address);
}

const char *
esp_client_name (const struct esp_client *entry, const char *mac,
                 const char *uuid, const char *address,
                 char buf[ESP_NAME_MAX + 1])
{
  struct esp_network n;

  if (entry && entry->kind != ESP_CLIENT_NETWORK && entry->name[0])
    snprintf (buf, ESP_NAME_MAX + 1, "%s", entry->name);
  else if (mac_text (mac, buf) || uuid_text (uuid, buf))
    ;
  else if (read_address (address, &n))
    esp_network_format (&n, buf);
  else
    buf[0] = 0;
  return buf;
}
