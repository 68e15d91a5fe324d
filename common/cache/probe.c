/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking a node that is left out: names are looked up here, and nowhere else;
 * its item limit is asked; what was written meanwhile is deleted.  Only the
 * prober's thread comes here, so a node that hangs, or a name server, keeps
 * nobody.
 */

#include <config.h>

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "cache/cluster-internal.h"
#include "util/host.h"

#define ADDRS_MAX 8             /* of a name that are tried */
#define LIMIT_EVERY_MS 10000u

static struct esp_wire *
try_addr (struct node *n, const struct sockaddr *addr, socklen_t len,
          enum esp_wire_result *why)
{
  enum esp_wire_result r;
  struct esp_wire *w = node_connect (n, addr, len, &r);

  /* Of several, one that is there tells more than one that is not. */
  if (r != ESP_WIRE_CLOSED)
    *why = r;
  if (w) {
    ESP_LOCK_SCOPE (&n->lock);
    memcpy (&n->addr, addr, len);
    n->addr_len = len;
  }
  return w;
}

static struct esp_wire *
connect_unix (struct node *n, enum esp_wire_result *why)
{
  struct sockaddr_un u = { .sun_family = AF_UNIX };

  *why = ESP_WIRE_CLOSED;
  /* nodes.c looked at its length. */
  memcpy (u.sun_path, n->name.host, strlen (n->name.host));
  return try_addr (n, (const struct sockaddr *) &u, sizeof u, why);
}

static struct esp_wire *
connect_host (struct node *n, enum esp_wire_result *why)
{
  struct addrinfo hints = {
    .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV,
  }, *found, *a;
  struct esp_wire *w = NULL;
  char port[8];
  int tries = 0;

  *why = ESP_WIRE_CLOSED;
  snprintf (port, sizeof port, "%u", (unsigned) n->name.port);
  if (getaddrinfo (n->name.host, port, &hints, &found) != 0)
    return NULL;
  for (a = found; a && !w && tries++ < ADDRS_MAX; a = a->ai_next)
    if (a->ai_addrlen <= sizeof n->addr)
      w = try_addr (n, a->ai_addr, a->ai_addrlen, why);
  freeaddrinfo (found);
  return w;
}

/* Is it a cache node, and how large may an item be? */
static enum esp_wire_result
greet (struct node *n, struct esp_wire *w)
{
  struct esp_wire_op version = { .verb = ESP_WIRE_VERSION };
  struct esp_wire_op limit = { .verb = ESP_WIRE_LIMIT };
  enum esp_wire_result r = esp_wire_do (w, &version);

  if (r == ESP_WIRE_OK)
    r = esp_wire_do (w, &limit);
  if (r == ESP_WIRE_OK)
    SET_TO (n->item_max, limit.number);
  return r;
}

static void
keep_pending (struct node *n, struct pending *p, size_t from)
{
  ESP_LOCK_SCOPE (&n->lock);
  for (size_t i = from; i < p->room && !n->spoiled; ++i)
    if (p->used[i] && !pending_add (&n->pending, &p->keys[i])) {
      n->spoiled = true;
      pending_clear (&n->pending);
    }
}

static enum esp_wire_result
delete_all (struct node *n, struct esp_wire *w, struct pending *p)
{
  for (size_t i = 0; i < p->room; ++i) {
    char text[NODE_KEY_TEXT];
    struct esp_wire_op op = { .verb = ESP_WIRE_DELETE, .key = text };

    if (!p->used[i])
      continue;
    node_key_text (n->cluster, &p->keys[i], text);
    esp_wire_begin (w);
    enum esp_wire_result r = esp_wire_do (w, &op);
    if (r != ESP_WIRE_OK && r != ESP_WIRE_ABSENT) {
      keep_pending (n, p, i);
      return node_sound (r) ? ESP_WIRE_GARBAGE : r;
    }
  }
  return ESP_WIRE_OK;
}

/* Take what is pending, or, if there is nothing, make the node GOOD. */
static bool
good_or_take (struct node *n, struct pending *p)
{
  ESP_LOCK_SCOPE (&n->lock);
  *p = n->pending;
  n->pending = (struct pending) { 0 };
  if (p->n > 0)
    return false;
  n->good = true;
  n->good_since = mono_ms ();
  n->lies_in_row = 0;
  return true;
}

static enum esp_wire_result
come_back (struct node *n, struct esp_wire *w)
{
  for (;;) {
    struct pending p;
    bool good = good_or_take (n, &p);
    enum esp_wire_result r = good ? ESP_WIRE_OK : delete_all (n, w, &p);

    pending_clear (&p);
    if (good || r != ESP_WIRE_OK)
      return r;
  }
}

/* Not each time: at first, and when it is TLS that is wrong by now. */
static bool
worth_saying_locked (struct node *n, enum esp_wire_result why)
{
  uint64_t now = mono_ms ();
  bool say = !n->probed;

  if (n->probed && why >= ESP_WIRE_TLS_NONE && why != n->warned_why &&
      now - n->warned_at > NODE_WARN_EVERY_MS) {
    n->warned_at = now;
    say = true;
  }
  if (say)
    n->warned_why = why;
  return say;
}

static void
later (struct node *n, enum esp_wire_result why)
{
  bool say;

  {
    ESP_LOCK_SCOPE (&n->lock);
    say = worth_saying_locked (n, why);
    n->backoff_ms = n->backoff_ms ? 2 * n->backoff_ms : 1000;
    if (n->backoff_ms > NODE_BACKOFF_MAX_MS)
      n->backoff_ms = NODE_BACKOFF_MAX_MS;
    n->probe_at = mono_ms () + n->backoff_ms;
    n->probed = true;
  }
  if (say)
    node_say_out (n, why);
}

void
node_probe (struct node *node)
{
  enum esp_wire_result r;
  struct esp_wire *w = node->name.port ? connect_host (node, &r)
    : connect_unix (node, &r);

  if (w) {
    r = greet (node, w);
    if (r == ESP_WIRE_OK)
      r = come_back (node, w);
    esp_wire_close (w);
  }
  if (!w || r != ESP_WIRE_OK) {
    later (node, r);
    return;
  }
  ESP_LOCK_SCOPE (&node->lock);
  node->probed = true;
  esp_debug ("cache node %s: in use, items of %zu bytes", node->name.name,
             (size_t) node->item_max);
}

/* Of a node that is GOOD and was restarted with another limit meanwhile. */
void
node_ask_limit (struct node *node)
{
  struct esp_wire_op limit = { .verb = ESP_WIRE_LIMIT };
  uint64_t now = mono_ms ();

  if (!node->good || COUNTED (node->item_max) || now < node->limit_at)
    return;
  node->limit_at = now + LIMIT_EVERY_MS;
  if (node_do (node, &limit) == ESP_WIRE_OK)
    SET_TO (node->item_max, limit.number);
}

uint64_t
node_probe_at (struct node *node)
{
  ESP_LOCK_SCOPE (&node->lock);
  return node->good ? UINT64_MAX : node->probe_at;
}
