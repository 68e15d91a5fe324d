/* SPDX-License-Identifier: BSD-3-Clause */
/* Keeping a segment on the node that gave the lease: all parts but the head
 * are stored first, under keys that carry the put's random number; then the
 * head replaces the lease, an export's only if that is still there.  What
 * never got a head nobody finds, and the node forgets it by itself.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache/cluster-internal.h"
#include "cache/cluster-put.h"

#define ITEM_OVERHEAD 256u              /* of a node's item: header, key */
#define EXPORT_SECONDS 3600u            /* what a server could not delete before
                                         * it ended is gone after that */

struct put {
  const struct lease *lease;
  const uint8_t *data;
  size_t len, part_len;
  struct esp_value_part part;
  uint32_t seconds;
};

void
part_key_text (const struct esp_cluster *cluster,
               const struct esp_cache_key *key, uint64_t put, unsigned part,
               char out[PART_KEY_TEXT])
{
  char text[NODE_KEY_TEXT];

  snprintf (out, PART_KEY_TEXT, "%s.%016" PRIx64 ".%u",
            node_key_text (cluster, key, text), put, part % 100000);
}

/* Into how many parts, all but the last equally long. */
static bool
split (struct put *p, size_t item_max)
{
  size_t most;

  if (item_max < PART_MIN + ITEM_OVERHEAD + ESP_VALUE_OVERHEAD)
    return false;
  most = item_max - ITEM_OVERHEAD - ESP_VALUE_OVERHEAD;
  size_t parts = (p->len + most - 1) / most;
  if (parts > PARTS_MAX)
    return false;
  p->part_len = (p->len + parts - 1) / parts;
  p->part.parts = (uint16_t) parts;
  return true;
}

/* Part I: its head to HEAD, and where its *N bytes are: in place, or sealed in
 * ROOM.  NULL: it can't be.
 */
static const void *
seal (struct put *p, unsigned i, void *room, uint8_t head[ESP_VALUE_HEAD],
      size_t *n)
{
  size_t at = i * p->part_len;

  *n = p->len - at < p->part_len ? p->len - at : p->part_len;
  p->part.part = (uint16_t) i;
  return esp_value_seal_apart (p->lease->node->cluster->sealer,
                               &p->lease->key, &p->part, p->data + at, *n,
                               room, head);
}

static bool
put_parts (struct put *p, void *room)
{
  char text[PART_KEY_TEXT];
  uint8_t head[ESP_VALUE_HEAD];
  struct esp_wire_op op = {
    .verb = ESP_WIRE_SET, .key = text, .head = head, .head_len = sizeof head,
    .seconds = p->seconds,
  };

  for (unsigned i = 1; i < p->part.parts; ++i) {
    part_key_text (p->lease->node->cluster, &p->lease->key, p->part.put, i,
                   text);
    op.data = seal (p, i, room, head, &op.len);
    if (!op.data || node_do (p->lease->node, &op) != ESP_WIRE_OK)
      return false;
  }
  return true;
}

/* A restore point's segment never changes: whatever is there now, this is as
 * good.  An export's must not come behind a write.
 */
static enum esp_wire_result
replace (const struct put *p, struct esp_wire_op *op)
{
  char text[NODE_KEY_TEXT];

  if (p->lease->key.kind != ESP_CACHE_RP)
    return lease_replace (p->lease, op);
  op->verb = ESP_WIRE_SET;
  op->key = node_key_text (p->lease->node->cluster, &p->lease->key, text);
  enum esp_wire_result r = node_do (p->lease->node, op);
  op->key = NULL;               /* it was ours */
  return r;
}

static bool
put_head (struct put *p, void *room)
{
  uint8_t head[ESP_VALUE_HEAD];
  struct esp_wire_op op = {
    .head = head, .head_len = sizeof head, .seconds = p->seconds,
  };

  op.data = seal (p, 0, room, head, &op.len);
  return op.data && replace (p, &op) == ESP_WIRE_OK;
}

static bool
put_all (struct put *p)
{
  struct node *node = p->lease->node;
  CLEANUP_FREE void *room = NULL;

  if (node_is_full (node, mono_ms ()) ||
      !split (p, COUNTED (node->item_max)))
    return false;
  p->part.put = random_id ();
  if (esp_sealer_secret (node->cluster->sealer) &&
      !(room = malloc (p->part_len)))
    return false;
  return p->part.put && put_parts (p, room) && put_head (p, room);
}

void
esp_cluster_put (struct esp_cluster *cluster, const struct esp_cache_key *key,
                 const void *buf, size_t len, unsigned flags,
                 struct esp_shared_ticket *ticket)
{
  CLEANUP_LEASE struct lease *lease = lease_end (cluster, ticket);
  struct put p = {
    .lease = lease, .data = buf, .len = len, .part.length = (uint32_t) len,
    .seconds = key->kind == ESP_CACHE_EXPORT ? EXPORT_SECONDS : 0,
  };
  bool clear = flags & ESP_SHARED_SECRET &&
    !esp_sealer_secret (cluster->sealer);

  if (!lease)
    return;
  if (!clear && len > 0 && len <= PUT_MAX && put_all (&p))
    COUNT (cluster->bytes_written, len);
  else
    lease_drop (lease);
}

void
esp_cluster_give_up (struct esp_cluster *cluster,
                     const struct esp_cache_key *key,
                     struct esp_shared_ticket *ticket)
{
  CLEANUP_LEASE struct lease *lease = lease_end (cluster, ticket);

  (void) key;
  if (lease)
    lease_drop (lease);
}
