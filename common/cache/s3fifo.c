/* SPDX-License-Identifier: BSD-3-Clause */
/* S3-FIFO with weights.
 *
 *            used meanwhile              used: to the back, up to 3 times
 *   new ─► small ──────────────► main ──┐  │
 *            │ not used           ▲  ▲  └──┘
 *            ▼                    │  │ not used: goes
 *          ghost ── comes back ───┘
 *
 * What goes next is the oldest of small while small has more than its tenth
 * (or main is empty), else the oldest of main.  A node in small moves to main
 * when it was used again at all (the paper says more than once; there, a use is
 * a request, and one is not worth much.  Here, the caller counts: memory.c
 * has what a use is, and that a scan makes none).
 *
 * Looking for the next one moves at most STEPS_MAX nodes, and all nodes
 * together not more often than they were used: then the oldest goes, used or
 * not.
 *
 * Ghosts stand for twice what the cache holds (the paper: for as much as main
 * does): where a use comes late, as here, they must find it more often
 * (docs/performance.md, "Segment cache: hit rates").  They are a ring of hashes
 * in the order in which these went, with chains through it (indices from 1; 0
 * ends a chain).  One that came back leaves its place in the ring empty (DEAD)
 * until that is reached.
 */

#include <config.h>

#include <assert.h>
#include <stdlib.h>

#include "cache/s3fifo.h"

#define STEPS_MAX 256u
#define DEAD UINT32_MAX                 /* as a weight */

struct esp_s3_ghost {
  uint64_t hash;
  uint32_t weight;
  uint32_t next;
};

int
esp_s3_init (struct esp_s3 *s3, uint64_t max, uint32_t ghosts)
{
  uint32_t heads = 16;

  while (heads < ghosts && heads < UINT32_C (1) << 31)
    heads *= 2;
  *s3 = (struct esp_s3) {
    .small_max = max / 10, .ghosts_max = 2 * max, .ghosts_room = ghosts,
    .heads_mask = heads - 1,
    .ghosts = calloc (ghosts, sizeof *s3->ghosts),
    .heads = calloc (heads, sizeof *s3->heads),
  };
  if (s3->ghosts && s3->heads)
    return 0;
  esp_s3_destroy (s3);
  return -1;
}

void
esp_s3_destroy (struct esp_s3 *s3)
{
  free (s3->ghosts);
  free (s3->heads);
  s3->ghosts = NULL;
  s3->heads = NULL;
}

/* --- ghosts ----------------------------------------------------------- */
/* The place in the chain where the index of HASH stands, or would. */
static uint32_t *
ghost_place (struct esp_s3 *s3, uint64_t hash)
{
  uint32_t *p = &s3->heads[hash & s3->heads_mask];

  while (*p && s3->ghosts[*p - 1].hash != hash)
    p = &s3->ghosts[*p - 1].next;
  return p;
}

static bool
ghost_take (struct esp_s3 *s3, uint64_t hash)
{
  uint32_t *p = ghost_place (s3, hash);
  struct esp_s3_ghost *g;

  if (!*p)
    return false;
  g = &s3->ghosts[*p - 1];
  *p = g->next;
  s3->ghosts_weight -= g->weight;
  g->weight = DEAD;
  return true;
}

static void
ghost_forget_first (struct esp_s3 *s3)
{
  struct esp_s3_ghost *g = &s3->ghosts[s3->ghosts_first];

  if (g->weight != DEAD)
    ghost_take (s3, g->hash);
  s3->ghosts_first = (s3->ghosts_first + 1) % s3->ghosts_room;
  s3->ghosts_count--;
}

static void
ghost_add (struct esp_s3 *s3, uint64_t hash, uint32_t weight)
{
  uint32_t i;

  ghost_take (s3, hash);        /* never twice */
  while (s3->ghosts_count == s3->ghosts_room
         || (s3->ghosts_count > 0
             && s3->ghosts_weight + weight > s3->ghosts_max))
    ghost_forget_first (s3);
  i = (uint32_t) (((uint64_t) s3->ghosts_first + s3->ghosts_count)
                  % s3->ghosts_room);
  s3->ghosts[i] = (struct esp_s3_ghost) { hash, weight, 0 };
  *ghost_place (s3, hash) = i + 1;
  s3->ghosts_count++;
  s3->ghosts_weight += weight;
}

/* --- queues ----------------------------------------------------------- */
static struct esp_s3_queue *
queue_of (struct esp_s3 *s3, const struct esp_s3_node *node)
{
  return node->where == ESP_S3_SMALL ? &s3->small : &s3->main;
}

static void
queue_put (struct esp_s3 *s3, struct esp_s3_node *node,
           enum esp_s3_where where)
{
  struct esp_s3_queue *q;

  node->where = (uint8_t) where;
  q = queue_of (s3, node);
  node->newer = NULL;
  node->older = q->newest;
  if (q->newest)
    q->newest->newer = node;
  else
    q->oldest = node;
  q->newest = node;
  q->weight += node->weight;
}

static struct esp_s3_node *
queue_take (struct esp_s3_queue *q)
{
  struct esp_s3_node *node = q->oldest;

  q->oldest = node->newer;
  if (q->oldest)
    q->oldest->older = NULL;
  else
    q->newest = NULL;
  q->weight -= node->weight;
  return node;
}

void
esp_s3_insert (struct esp_s3 *s3, struct esp_s3_node *node, uint32_t weight)
{
  assert (node->where == ESP_S3_OUT);
  node->weight = weight;
  queue_put (s3, node, ghost_take (s3, node->hash)
             ? ESP_S3_MAIN : ESP_S3_SMALL);
}

void
esp_s3_weigh (struct esp_s3 *s3, struct esp_s3_node *node, uint32_t weight)
{
  struct esp_s3_queue *q = queue_of (s3, node);

  assert (node->where != ESP_S3_OUT);
  if (!node->popped)
    q->weight = q->weight - node->weight + weight;
  node->weight = weight;
}

/* Does NODE, which was taken out of its queue, stay?  Then it is in main, with
 * what it has left of its uses.
 */
static bool
stays (struct esp_s3 *s3, struct esp_s3_node *node)
{
  uint8_t uses = atomic_load_explicit (&node->uses, memory_order_relaxed);

  if (uses == 0)
    return false;
  atomic_store_explicit (&node->uses, node->where == ESP_S3_SMALL
                         ? 0 : (uint8_t) (uses - 1), memory_order_relaxed);
  queue_put (s3, node, ESP_S3_MAIN);
  return true;
}

struct esp_s3_node *
esp_s3_pop (struct esp_s3 *s3)
{
  for (unsigned steps = 0; s3->small.oldest || s3->main.oldest; ++steps) {
    bool small = s3->small.oldest
      && (s3->small.weight > s3->small_max || !s3->main.oldest);
    struct esp_s3_node *node = queue_take (small ? &s3->small : &s3->main);
    if (steps >= STEPS_MAX || !stays (s3, node)) {
      node->popped = true;
      return node;
    }
  }
  return NULL;
}

void
esp_s3_gone (struct esp_s3 *s3, struct esp_s3_node *node)
{
  if (node->where == ESP_S3_SMALL && node->weight > 0)
    ghost_add (s3, node->hash, node->weight);
  node->where = ESP_S3_OUT;
  node->popped = false;
}

void
esp_s3_back (struct esp_s3 *s3, struct esp_s3_node *node)
{
  node->popped = false;
  queue_put (s3, node, (enum esp_s3_where) node->where);
}
