/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of cache nodes.
 *
 * A node's name is what rendezvous hashing hashes, so a name is written in
 * one way only (lower case, with its port): servers that read "Cache-1" and
 * "cache-1:11211" agree.  Nothing is looked up here.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <xxhash.h>

#include "cache/cluster.h"
#include "cache/nodes.h"
#include "util/cleanup.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/host.h"
#include "util/name.h"

#define FILE_MAX (256u << 10)
#define BETWEEN ", \t\r\n"

static int
bad (const char *where, const char *word, const char *what)
{
  char text[320];

  esp_error ("%s: node \"%s\": %s", where,
             esp_escape (word, text, sizeof text), what);
  errno = EINVAL;
  return -1;
}

static int
parse_port (const char *s, uint16_t *port)
{
  unsigned long n = 0;

  if (!*s || strlen (s) > 5)
    return -1;
  for (; *s; ++s) {
    if (!isdigit ((unsigned char) *s))
      return -1;
    n = n * 10 + (unsigned long) (*s - '0');
  }
  if (n == 0 || n > 65535)
    return -1;
  *port = (uint16_t) n;
  return 0;
}

static int
parse_unix (const char *word, const char *where, struct esp_node_name *out)
{
  const char *path = word + 5;

  if (*path != '/')
    return bad (where, word, "a socket is written unix:/path");
  if (strlen (path) >= sizeof ((struct sockaddr_un *) 0)->sun_path)
    return bad (where, word, "a socket's path has at most 107 bytes");
  strcpy (out->host, path);
  out->port = 0;
  snprintf (out->name, sizeof out->name, "unix:%s", path);
  return 0;
}

/* Split "host", "host:port", "[v6]" or "[v6]:port" at *PORT (NULL: none). */
static int
split_host (char *word, char **host, const char **port)
{
  char *end;

  *port = NULL;
  if (*word == '[') {
    *host = word + 1;
    end = strchr (word, ']');
    if (!end || (end[1] && end[1] != ':'))
      return -1;
    if (end[1])
      *port = end + 2;
  }
  else {
    *host = word;
    end = strchr (word, ':');
    if (!end)
      return 0;
    *port = end + 1;
  }
  *end = 0;
  return 0;
}

#define NAME_CHARS "abcdefghijklmnopqrstuvwxyz0123456789.-_"

static bool
host_ok (const char *host, bool v6)
{
  size_t n = strlen (host), address;

  if (n == 0 || n > 253 || host[0] == '-' || host[0] == '.')
    return false;
  if (!v6)
    return strspn (host, NAME_CHARS) == n;
  address = strspn (host, "0123456789abcdef:.");
  if (address > 0 && host[address] == '%')      /* a zone, "eth0" */
    address += 1 + strspn (host + address + 1, NAME_CHARS);
  return address == n;
}

static int
parse_host (const char *word, const char *where, struct esp_node_name *out)
{
  char copy[ESP_NODE_NAME], *host;
  const char *port;
  bool v6 = word[0] == '[';

  if (strlen (word) >= sizeof copy)
    return bad (where, word, "the name is too long");
  strcpy (copy, word);
  for (char *p = copy; *p; ++p)
    *p = (char) tolower ((unsigned char) *p);
  if (split_host (copy, &host, &port) == -1 || !host_ok (host, v6))
    return bad (where, word,
                "write host, host:port, [address]:port or unix:/path");
  if (strcmp (host, "unix") == 0)
    return bad (where, word, "a socket is written unix:/path");
  out->port = ESP_NODE_PORT;
  if (port && parse_port (port, &out->port) == -1)
    return bad (where, word, "a port is a number from 1 to 65535");
  strcpy (out->host, host);
  snprintf (out->name, sizeof out->name, v6 ? "[%s]:%u" : "%s:%u", host,
            (unsigned) out->port);
  return 0;
}

static int
add_node (struct esp_nodes *nodes, const char *word, const char *where)
{
  struct esp_node_name *out = &nodes->node[nodes->n];
  int r = strncmp (word, "unix:", 5) == 0 ? parse_unix (word, where, out)
    : parse_host (word, where, out);

  if (r == -1)
    return -1;
  for (size_t i = 0; i < nodes->n; ++i)
    if (strcmp (nodes->node[i].name, out->name) == 0)
      return bad (where, word, "it stands there twice");
  nodes->n++;
  return 0;
}

static void
blank_comments (char *text)
{
  while ((text = strchr (text, '#')))
    while (*text && *text != '\n')
      *text++ = ' ';
}

static int
parse_words (struct esp_nodes *nodes, char *text, const char *where)
{
  char *save, *word;

  for (word = strtok_r (text, BETWEEN, &save); word;
       word = strtok_r (NULL, BETWEEN, &save)) {
    if (nodes->n == ESP_NODES_MAX)
      return bad (where, word, "there are more than 256");
    if (add_node (nodes, word, where) == -1)
      return -1;
  }
  if (nodes->n > 0)
    return 0;
  errno = EINVAL;
  esp_error ("%s: there is no node: write host:port or unix:/path", where);
  return -1;
}

struct esp_nodes *
esp_nodes_parse (const char *text, const char *where)
{
  CLEANUP_FREE char *copy = strdup (text);
  CLEANUP_FREE struct esp_nodes *nodes =
    calloc (1, sizeof *nodes + ESP_NODES_MAX * sizeof nodes->node[0]);

  if (!copy || !nodes) {
    esp_error ("%s: malloc: %m", where);
    return NULL;
  }
  blank_comments (copy);
  if (parse_words (nodes, copy, where) == -1)
    return NULL;
  return ESP_STEAL (nodes);
}

int
esp_nodes_check (const char *text, const char *where)
{
  CLEANUP_FREE struct esp_nodes *nodes = esp_nodes_parse (text, where);

  return nodes ? 0 : -1;
}

bool
esp_nodes_is_file (const char *nodes)
{
  const char *slash = strchr (nodes, '/');

  return slash && !(slash - nodes >= 5 && strncmp (slash - 5, "unix:", 5) == 0);
}

struct esp_nodes *
esp_nodes_load (const char *path)
{
  CLEANUP_FREE char *text = NULL;
  size_t len;

  if (esp_read_file (AT_FDCWD, path, FILE_MAX, &text, &len) == -1) {
    esp_error ("open: %s: %m", path);
    return NULL;
  }
  if (strlen (text) != len) {
    errno = EINVAL;
    esp_error ("%s: this is no text", path);
    return NULL;
  }
  return esp_nodes_parse (text, path);
}

uint64_t
esp_node_hash (const char *name)
{
  return XXH3_64bits (name, strlen (name));
}

uint64_t
esp_node_score (uint64_t node, uint64_t key)
{
  uint8_t both[16];

  esp_put64 (both, node);
  esp_put64 (both + 8, key);
  return XXH3_64bits (both, sizeof both);
}
