/* SPDX-License-Identifier: BSD-3-Clause */
/* Leases: small items in the place of a value that say who is about to put
 * one there.  They run out by memcached's own clock, so a holder that died is
 * forgotten without anybody's doing; a holder that lives renews them.
 *
 * Whatever replaces a lease of an export does so by cas, after it saw that the
 * lease is still the one with its number: a value never replaces anything
 * else.  So a writer that replaced or deleted the lease has made the put fail,
 * and a command of ours that a hung node carries out late does nothing.  (A
 * restore point's never changes: cluster-put.c.)
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cache/cluster-internal.h"
#include "util/endian.h"

#define MAGIC "ESPLEASE"
#define LEASE_VERSION 1
#define TRIES 3u                /* our own renewal may come between */
#define HELD_MAX_MS 600000u     /* whoever forgot a ticket: no longer */

void
lease_encode (uint8_t out[LEASE_SIZE], const struct lease_item *item)
{
  memset (out, 0, LEASE_SIZE);
  memcpy (out, MAGIC, 8);
  out[8] = LEASE_VERSION;
  out[9] = (uint8_t) item->kind;
  esp_put64 (out + 16, item->id);
  esp_put64 (out + 24, item->sealer);
}

bool
lease_decode (const void *data, size_t len, struct lease_item *item)
{
  const uint8_t *p = data;

  if (len != LEASE_SIZE || memcmp (p, MAGIC, 8) != 0 || p[8] != LEASE_VERSION ||
      (p[9] != LEASE_FILL && p[9] != LEASE_WRITER))
    return false;
  item->kind = p[9];
  item->id = esp_get64 (p + 16);
  item->sealer = esp_get64 (p + 24);
  return true;
}

uint64_t
random_id (void)
{
  uint64_t id = 0;

  while (id == 0)
    if (getrandom (&id, sizeof id, 0) != sizeof id)
      return 0;
  return id;
}

static void
keep (struct node *node, const struct esp_cache_key *key, uint64_t id,
      struct lease *lease)
{
  struct leases *all = &node->cluster->leases;
  uint64_t now = mono_ms ();

  *lease = (struct lease) {
    .id = id, .key = *key, .node = node_ref (node), .since = now,
    .renewed = now,
  };
  ESP_LOCK_SCOPE (&all->lock);
  lease->next = all->first;
  all->first = lease;
}

/* A lease of ours that fetches. */
static void
encode_fill (const struct esp_cluster *cluster, uint64_t id,
             uint8_t out[LEASE_SIZE])
{
  lease_encode (out, &(const struct lease_item) {
    .kind = LEASE_FILL, .id = id, .sealer = esp_sealer_id (cluster->sealer),
  });
}

enum esp_wire_result
lease_take (struct node *node, const struct esp_cache_key *key, uint64_t cas,
            struct esp_shared_ticket *ticket)
{
  char text[NODE_KEY_TEXT];
  uint8_t data[LEASE_SIZE];
  uint64_t id = random_id ();
  struct lease *lease = malloc (sizeof *lease);
  struct esp_wire_op op = {
    .verb = cas ? ESP_WIRE_CAS : ESP_WIRE_ADD,
    .key = node_key_text (node->cluster, key, text), .data = data,
    .len = sizeof data, .seconds = lease_seconds (node->cluster), .cas = cas,
  };
  enum esp_wire_result r = ESP_WIRE_REFUSED;

  encode_fill (node->cluster, id, data);
  if (lease && id)
    r = node_do (node, &op);
  if (r != ESP_WIRE_OK) {
    free (lease);
    return r;
  }
  keep (node, key, id, lease);
  ticket->lease = id;
  ticket->node = node->id;
  COUNT (node->cluster->leased, 1);
  return r;
}

struct lease *
lease_end (struct esp_cluster *cluster, struct esp_shared_ticket *ticket)
{
  ESP_LOCK_SCOPE (&cluster->leases.lock);
  struct lease **p = &cluster->leases.first, *found;

  while (*p && (!ticket->lease || (*p)->id != ticket->lease))
    p = &(*p)->next;
  found = *p;
  if (found)
    *p = found->next;
  ticket->lease = 0;
  return found;
}

void
lease_free (struct lease *lease)
{
  node_unref (lease->node);
  free (lease);
}

/* Is it still there?  Sets *CAS. */
static enum esp_wire_result
look (const struct lease *lease, const char *text, uint64_t *cas)
{
  struct esp_wire_op op = { .verb = ESP_WIRE_GET, .key = text };
  struct esp_wire *wire;
  enum esp_wire_result r = node_do_held (lease->node, &op, &wire);
  struct lease_item item;

  if (r == ESP_WIRE_OK &&
      (!lease_decode (op.value, op.value_len, &item) || item.id != lease->id))
    r = ESP_WIRE_KEPT_OUT;
  *cas = op.cas;
  node_done (lease->node, wire, r);
  return r;
}

enum esp_wire_result
lease_replace (const struct lease *lease, struct esp_wire_op *op)
{
  char text[NODE_KEY_TEXT];
  enum esp_wire_result r = ESP_WIRE_KEPT_OUT;

  op->verb = ESP_WIRE_CAS;
  op->key = node_key_text (lease->node->cluster, &lease->key, text);
  for (unsigned i = 0; i < TRIES && r == ESP_WIRE_KEPT_OUT; ++i) {
    r = look (lease, text, &op->cas);
    if (r != ESP_WIRE_OK)
      break;
    r = node_do (lease->node, op);
  }
  op->key = NULL;               /* it was ours */
  return r;
}

void
lease_drop (const struct lease *lease)
{
  char text[NODE_KEY_TEXT];
  struct esp_wire_op op = {
    .verb = ESP_WIRE_DROP,
    .key = node_key_text (lease->node->cluster, &lease->key, text),
  };
  enum esp_wire_result r = ESP_WIRE_KEPT_OUT;

  for (unsigned i = 0; i < TRIES && r == ESP_WIRE_KEPT_OUT; ++i) {
    if (look (lease, text, &op.cas) != ESP_WIRE_OK)
      return;
    r = node_do (lease->node, &op);
  }
  if (r == ESP_WIRE_FULL) {     /* even for the nothing that replaces it */
    op.verb = ESP_WIRE_DELETE;
    (void) node_do (lease->node, &op);
  }
}

/* --- renewal ------------------------------------------------------------------ */

/* Copies of those that are due; the caller frees each. */
static struct lease *
due (struct leases *all, uint64_t now, uint64_t every)
{
  ESP_LOCK_SCOPE (&all->lock);
  struct lease *out = NULL;

  for (struct lease *l = all->first; l; l = l->next) {
    if (now - l->renewed < every || now - l->since > HELD_MAX_MS)
      continue;
    struct lease *copy = malloc (sizeof *copy);
    if (!copy)
      break;
    l->renewed = now;
    *copy = *l;
    node_ref (copy->node);
    copy->next = out;
    out = copy;
  }
  return out;
}

void
leases_renew (struct esp_cluster *cluster)
{
  struct lease *l = due (&cluster->leases, mono_ms (), cluster->lease_ms / 3);
  uint8_t data[LEASE_SIZE];

  while (l) {
    struct lease *next = l->next;
    struct esp_wire_op op = {
      .data = data, .len = sizeof data, .seconds = lease_seconds (cluster),
    };
    encode_fill (cluster, l->id, data);
    /* Lost: put finds out. */
    (void) lease_replace (l, &op);
    lease_free (l);
    l = next;
  }
}
