/* SPDX-License-Identifier: BSD-3-Clause */
/* One cache node: its connections, its state, what went wrong with it.
 *
 *   GOOD ── time-out, refused, three lies in a row ──► OUT
 *   OUT ── a probe went well, and nothing is left to delete ──► GOOD
 *
 * Readers look at `good` alone, without a lock, and never ask a node that is
 * OUT; only the prober does.  A connection belongs to one thread at a time;
 * one that may have an answer outstanding is closed, never given back.  All
 * idle ones are closed when the node goes OUT.
 *
 * What is to be deleted on a node and can't be is kept in `pending`, under the
 * lock under which the node becomes GOOD: a key is either deleted there by who
 * wrote, or stands in the set before the node is used again.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "cache/cluster-internal.h"
#include "util/host.h"

#define SETTLED_MS 10000u       /* GOOD for so long: the next time OUT begins
                                 * with a short pause again */

struct node *
node_new (struct esp_cluster *cluster, const struct esp_node_name *name)
{
  struct node *n = calloc (1, sizeof *n);

  if (!n)
    return NULL;
  n->name = *name;
  n->hash = esp_node_hash (name->name);
  n->id = 1 + atomic_fetch_add (&cluster->node_ids, 1);
  n->refs = 1;
  n->cluster = cluster;
  pthread_mutex_init (&n->lock, NULL);
  return n;
}

struct node *
node_ref (struct node *node)
{
  atomic_fetch_add (&node->refs, 1);
  return node;
}

static void
close_idle_locked (struct node *n)
{
  while (n->nidle > 0)
    esp_wire_close (n->idle[--n->nidle]);
}

void
node_unref (struct node *node)
{
  if (!node || atomic_fetch_sub (&node->refs, 1) != 1)
    return;
  close_idle_locked (node);
  pending_clear (&node->pending);
  pthread_mutex_destroy (&node->lock);
  free (node);
}

/* --- out ------------------------------------------------------------------- */

static const char *
why_out (enum esp_wire_result r)
{
  switch (r) {
  case ESP_WIRE_TIMEOUT: return "it does not answer in time";
  case ESP_WIRE_GARBAGE: return "its answers are not a cache node's";
  case ESP_WIRE_DENIED: return "it wants another user or password";
  case ESP_WIRE_TLS_NONE: return "it does not speak TLS 1.2 or later";
  case ESP_WIRE_TLS_LATE:
    return "no TLS handshake in time (does it speak TLS?)";
  case ESP_WIRE_TLS_UNTRUSTED:
    return "its certificate is not from an authority of segcache-tls-ca";
  case ESP_WIRE_TLS_EXPIRED:
    return "its certificate has expired, or is not valid yet";
  case ESP_WIRE_TLS_MISNAMED:
    return "its certificate is not for this name (subjectAltName)";
  case ESP_WIRE_TLS_REFUSED:
    return "it ended TLS before it answered (does it want another "
      "segcache-tls-certificate?)";
  case ESP_WIRE_OK: return "its values are not what was put there";
  default: return "it cannot be reached";
  }
}

static void
out_locked (struct node *n, enum esp_wire_result why, bool *warn)
{
  uint64_t now = mono_ms ();

  *warn = !n->warned_at || now - n->warned_at > NODE_WARN_EVERY_MS;
  if (*warn) {
    n->warned_at = now;
    n->warned_why = why;
  }
  n->lies_in_row = 0;
  if (now - n->good_since >= SETTLED_MS)
    n->backoff_ms = 0;
  n->backoff_ms = n->backoff_ms ? 2 * n->backoff_ms : 1000;
  if (n->backoff_ms > NODE_BACKOFF_MAX_MS)
    n->backoff_ms = NODE_BACKOFF_MAX_MS;
  n->probe_at = now + n->backoff_ms;
  n->good = false;
  close_idle_locked (n);
}

void
node_say_out (struct node *node, enum esp_wire_result why)
{
  esp_warning ("cache node %s: %s: it is left out until it does better",
               node->name.name, why_out (why));
}

/* From GOOD to OUT; PENDING (or NULL) is to be deleted before it is GOOD. */
static void
go_out (struct node *n, enum esp_wire_result why,
        const struct esp_cache_key *pending)
{
  bool warn = false, was_good;

  {
    ESP_LOCK_SCOPE (&n->lock);
    was_good = n->good;
    if (was_good)
      out_locked (n, why, &warn);
    if (pending && !n->spoiled && !pending_add (&n->pending, pending)) {
      n->spoiled = true;
      pending_clear (&n->pending);
    }
  }
  if (warn)
    node_say_out (n, why);
  if (was_good)
    keeper_wake (n->cluster);
}

void
node_failed (struct node *node, enum esp_wire_result r)
{
  struct esp_cluster *c = node->cluster;

  switch (r) {
  case ESP_WIRE_TIMEOUT: case ESP_WIRE_TLS_LATE:
    COUNT (node->timeouts, 1);
    COUNT (c->errors, 1);
    go_out (node, r, NULL);
    break;
  case ESP_WIRE_GARBAGE:
    node_lied (node);
    break;
  case ESP_WIRE_STALE: case ESP_WIRE_CLOSED: case ESP_WIRE_DENIED:
  case ESP_WIRE_TLS_NONE: case ESP_WIRE_TLS_UNTRUSTED:
  case ESP_WIRE_TLS_EXPIRED: case ESP_WIRE_TLS_MISNAMED:
  case ESP_WIRE_TLS_REFUSED:
    COUNT (node->errors, 1);
    COUNT (c->errors, 1);
    go_out (node, r, NULL);
    break;
  case ESP_WIRE_FULL:
    node_filled (node);
    break;
  case ESP_WIRE_TOO_LARGE:      /* the limit is not what it said */
    SET_TO (node->item_max, 0);
    /* fall through */
  case ESP_WIRE_REFUSED:
    COUNT (node->errors, 1);
    COUNT (c->errors, 1);
    break;
  case ESP_WIRE_OK: case ESP_WIRE_ABSENT: case ESP_WIRE_KEPT_OUT:
    break;
  }
}

void
node_lied (struct node *node)
{
  COUNT (node->lies, 1);
  COUNT (node->cluster->lies, 1);
  if (COUNT (node->lies_in_row, 1) + 1 >= NODE_LIES)
    go_out (node, ESP_WIRE_OK, NULL);
}

void
node_honest (struct node *node)
{
  if (COUNTED (node->lies_in_row))
    SET_TO (node->lies_in_row, 0);
}

void
node_filled (struct node *node)
{
  COUNT (node->full, 1);
  COUNT (node->cluster->full, 1);
  SET_TO (node->full_until, mono_ms () + NODE_FULL_MS);
}

/* --- connections ------------------------------------------------------------ */

/* A Unix socket has no TLS: memcached has none there, and what goes over it
 * does not leave the host.
 */
struct esp_wire *
node_connect (struct node *node, const struct sockaddr *addr, socklen_t len,
              enum esp_wire_result *why)
{
  const struct esp_cluster *c = node->cluster;
  struct esp_wire_how how = {
    .timeout_ms = c->timeout_ms, .login = c->use_login,
    .tls = node->name.port ? c->tls : NULL, .host = node->name.host,
  };

  return esp_wire_connect (addr, len, &how, why);
}

/* An idle one, or a new one (*FRESH). */
static struct esp_wire *
borrow (struct node *n, bool *fresh, enum esp_wire_result *why)
{
  struct sockaddr_storage addr;
  socklen_t len;

  {
    ESP_LOCK_SCOPE (&n->lock);
    *why = ESP_WIRE_CLOSED;
    if (!n->good)
      return NULL;
    if (n->nidle > 0 && !*fresh) {
      struct esp_wire *w = n->idle[--n->nidle];
      esp_wire_begin (w);
      return w;
    }
    addr = n->addr;
    len = n->addr_len;
  }
  *fresh = true;
  return node_connect (n, (const struct sockaddr *) &addr, len, why);
}

static void
give_back (struct node *n, struct esp_wire *w)
{
  {
    ESP_LOCK_SCOPE (&n->lock);
    if (n->good && n->nidle < NODE_IDLE_MAX) {
      n->idle[n->nidle++] = w;
      return;
    }
  }
  esp_wire_close (w);
}

static void
drop_idle (struct node *n)
{
  ESP_LOCK_SCOPE (&n->lock);
  close_idle_locked (n);
}

/* Ask over a connection that may have been closed while it was idle, then
 * over a new one.
 */
static enum esp_wire_result
ask (struct node *n, struct esp_wire_op *op, struct esp_wire **wire)
{
  enum esp_wire_result r;

  for (bool fresh = false;;) {
    *wire = borrow (n, &fresh, &r);
    if (!*wire)
      return r;
    r = esp_wire_do (*wire, op);
    if (r != ESP_WIRE_STALE || fresh)
      return r;
    esp_wire_close (*wire);
    drop_idle (n);
    fresh = true;
  }
}

static void
timed (struct node *n, uint64_t us)
{
  uint64_t mean = COUNTED (n->answer_us);

  /* Not exact where threads meet, and need not be. */
  SET_TO (n->answer_us, mean ? (15 * mean + us) / 16 : us);
}

enum esp_wire_result
node_do_held (struct node *node, struct esp_wire_op *op,
              struct esp_wire **wire)
{
  uint64_t begin = esp_now_us ();
  enum esp_wire_result r;

  *wire = NULL;
  if (!node->good)
    return ESP_WIRE_REFUSED;
  r = ask (node, op, wire);
  timed (node, esp_now_us () - begin);
  if (!node_sound (r)) {
    esp_wire_close (*wire);
    *wire = NULL;
  }
  node_failed (node, r);
  return r;
}

void
node_done (struct node *node, struct esp_wire *wire, enum esp_wire_result r)
{
  if (!wire)
    return;
  if (node_sound (r))
    give_back (node, wire);
  else
    esp_wire_close (wire);
}

enum esp_wire_result
node_do (struct node *node, struct esp_wire_op *op)
{
  struct esp_wire *wire;
  enum esp_wire_result r = node_do_held (node, op, &wire);

  node_done (node, wire, r);
  return r;
}

/* --- what must not be there any more ---------------------------------------- */

void
node_forget (struct node *node, const struct esp_cache_key *key)
{
  char text[NODE_KEY_TEXT];
  struct esp_wire_op op = {
    .verb = ESP_WIRE_DELETE, .key = node_key_text (node->cluster, key, text)
  };
  enum esp_wire_result r = node_do (node, &op);

  if (r != ESP_WIRE_OK && r != ESP_WIRE_ABSENT)
    go_out (node, r == ESP_WIRE_REFUSED ? ESP_WIRE_CLOSED : r, key);
}
