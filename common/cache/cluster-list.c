/* SPDX-License-Identifier: BSD-3-Clause */
/* The nodes of the moment, and which one a key belongs to.
 *
 * A list never changes; a new one takes its place, with the node objects that
 * both have (their connections, states and pending keys go on).  Who is in a
 * call keeps the list it began with.
 *
 * Exports are written, so their keys must not be found on a node that missed
 * a write because the key did not belong to it then.  A write therefore
 * deletes its key on all nodes; nodes that are put into the list are empty
 * (the manual says so), and used for exports only when all servers have seen
 * them, so that no write passes them by; and writes still delete on nodes that
 * left lately, which others may still read from.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cluster-internal.h"
#include "util/host.h"

struct list *
list_current (struct esp_cluster *cluster)
{
  ESP_LOCK_SCOPE (&cluster->lock);
  atomic_fetch_add (&cluster->list->refs, 1);
  return cluster->list;
}

void
list_unref (struct list *list)
{
  if (!list || atomic_fetch_sub (&list->refs, 1) != 1)
    return;
  for (size_t i = 0; i < list->n + list->left; ++i)
    node_unref (list->node[i]);
  free (list);
}

/* Restore points' values under several secrets live side by side.  An export's
 * can't: who writes it must find what the others have of it.
 */
char *
node_key_text (const struct esp_cluster *cluster,
               const struct esp_cache_key *key, char out[NODE_KEY_TEXT])
{
  uint64_t id = esp_sealer_id (cluster->sealer);

  esp_cache_key_text (key, out);
  if (key->kind == ESP_CACHE_RP && id != 0)
    snprintf (out + ESP_CACHE_KEY_TEXT - 1, 1 + 16 + 1, "-%016" PRIx64, id);
  return out;
}

static struct node *
highest (const struct list *list, const struct esp_cache_key *key, bool good)
{
  uint64_t hash = esp_cache_key_hash (key), best = 0;
  struct node *node = NULL;

  for (size_t i = 0; i < list->n; ++i) {
    uint64_t score = esp_node_score (list->node[i]->hash, hash);
    if ((!node || score > best) && (!good || list->node[i]->good)) {
      best = score;
      node = list->node[i];
    }
  }
  return node;
}

struct node *
list_owner (const struct list *list, const struct esp_cache_key *key)
{
  return highest (list, key, false);
}

struct node *
list_pick (const struct list *list, const struct esp_cache_key *key)
{
  struct node *node;

  if (key->kind == ESP_CACHE_RP)
    return highest (list, key, true);
  node = list_owner (list, key);
  if (!node || !node->good || node->spoiled ||
      mono_ms () < COUNTED (node->exports_from))
    return NULL;
  return node;
}

struct node *
list_find (const struct list *list, uint32_t id)
{
  for (size_t i = 0; i < list->n; ++i)
    if (list->node[i]->id == id)
      return list->node[i];
  return NULL;
}

/* The node of that name, of OLD or new. */
static struct node *
node_of (struct esp_cluster *cluster, const struct list *old,
         const struct esp_node_name *name)
{
  for (size_t i = 0; old && i < old->n + old->left; ++i)
    if (strcmp (old->node[i]->name.name, name->name) == 0)
      return node_ref (old->node[i]);
  return node_new (cluster, name);
}

/* Those of OLD that are not in LIST, which has room for them. */
static void
add_left (struct list *list, const struct list *old)
{
  size_t n = old->n;

  if (mono_ms () < old->left_until)
    n += old->left;
  list->left_until = mono_ms () + LEFT_MS;
  for (size_t i = 0; i < n; ++i)
    if (!list_find (list, old->node[i]->id))
      list->node[list->n + list->left++] = node_ref (old->node[i]);
}

static struct list *
list_make (struct esp_cluster *cluster, const struct list *old,
           const struct esp_nodes *nodes, bool settle)
{
  size_t n = nodes ? nodes->n : 0, most = n + (old ? old->n + old->left : 0);
  struct list *list = calloc (1, sizeof *list + most * sizeof list->node[0]);

  if (!list)
    return NULL;
  list->refs = 1;
  for (; list->n < n; ++list->n) {
    struct node *node = node_of (cluster, old, &nodes->node[list->n]);
    if (!node) {
      list_unref (list);
      return NULL;
    }
    list->node[list->n] = node;
    if (settle && !list_find (old, node->id))
      SET_TO (node->exports_from, mono_ms () + SETTLE_MS);
  }
  if (old)
    add_left (list, old);
  return list;
}

/* Only the keeper, and who opens, sets lists: OLD stays the current one. */
int
list_set (struct esp_cluster *cluster, const struct esp_nodes *nodes,
          bool settle)
{
  CLEANUP_LIST struct list *old = cluster->list ? list_current (cluster)
    : NULL;
  struct list *list = list_make (cluster, old, nodes, settle);

  if (!list) {
    esp_error ("cache nodes: malloc: %m");
    return -1;
  }
  ESP_LOCK_SCOPE (&cluster->lock);
  if (old)
    atomic_fetch_sub (&old->refs, 1);   /* the cluster's own; we have one */
  cluster->list = list;
  cluster->probe_now = true;
  pthread_cond_broadcast (&cluster->prober_cond);
  return 0;
}
