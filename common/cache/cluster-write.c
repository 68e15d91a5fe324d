/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes of exports.
 *
 *   begin   a lease of kind writer takes the place of what is there: a fill
 *           that is on its way finds its own lease gone and keeps nothing; who
 *           reads meanwhile bypasses the cache
 *   end     the key is deleted on all nodes: a fill that began meanwhile finds
 *           its lease gone, too
 *
 * The delete is what counts; the lease is for a node that gets lost in
 * between: it runs out by itself, and others find nothing there.
 */

#include <config.h>

#include "cache/cluster-internal.h"

void
esp_cluster_write_begin (struct esp_cluster *cluster,
                         const struct esp_cache_key *key)
{
  CLEANUP_LIST struct list *list = list_current (cluster);
  struct node *node = list_owner (list, key);
  const struct lease_item writer = {
    .kind = LEASE_WRITER, .id = random_id (),
    .sealer = esp_sealer_id (cluster->sealer),
  };
  char text[NODE_KEY_TEXT];
  uint8_t data[LEASE_SIZE];
  struct esp_wire_op op = {
    .verb = ESP_WIRE_SET, .key = node_key_text (cluster, key, text),
    .data = data, .len = sizeof data, .seconds = lease_seconds (cluster),
  };

  if (!node)
    return;
  lease_encode (data, &writer);
  /* A full node may refuse it. */
  if (node_do (node, &op) != ESP_WIRE_OK)
    node_forget (node, key);
}

void
esp_cluster_write_end (struct esp_cluster *cluster,
                       const struct esp_cache_key *key)
{
  CLEANUP_LIST struct list *list = list_current (cluster);
  size_t n = list->n;

  if (mono_ms () < list->left_until)
    n += list->left;
  for (size_t i = 0; i < n; ++i)
    node_forget (list->node[i], key);
}
