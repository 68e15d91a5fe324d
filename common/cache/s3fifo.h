/* SPDX-License-Identifier: BSD-3-Clause */
/* S3-FIFO: which entry of a cache goes next (Yang, Zhang, Qiu, Yue and
 * Vinayak, "FIFO queues are all you need for cache eviction", SOSP 2023).
 * Knows nothing of what is cached.  Not for others than common/cache, tests
 * and benchmarks.
 */

#ifndef ESPALIER_CACHE_S3FIFO_H
#define ESPALIER_CACHE_S3FIFO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

enum esp_s3_where { ESP_S3_OUT, ESP_S3_SMALL, ESP_S3_MAIN };

/* Stands in each entry; zeroed before the first insert. */
struct esp_s3_node {
  struct esp_s3_node *older, *newer;
  uint64_t hash;                /* of the key: set before the insert */
  uint32_t weight;
  uint8_t where;                /* enum esp_s3_where */
  bool popped;                  /* and not gone or back yet */
  _Atomic uint8_t uses;         /* since it was last looked at: 0 .. 3 */
};
#define ESP_S3_USES_MAX 3u

struct esp_s3_queue {
  struct esp_s3_node *oldest, *newest;
  uint64_t weight;
};
struct esp_s3_ghost;

/* One lock of the caller's is held around all calls but _use. */
struct esp_s3 {
  struct esp_s3_queue small, main;
  uint64_t small_max;           /* weight: more than this goes first */
  uint64_t ghosts_max;          /* weight of what ghosts stand for */
  uint64_t ghosts_weight;
  uint32_t ghosts_room, ghosts_first, ghosts_count;     /* a ring */
  uint32_t heads_mask;
  struct esp_s3_ghost *ghosts;
  uint32_t *heads;              /* chains of ghosts, by hash; 0: none */
};

/* A cache of MAX weight (a tenth of it small) that remembers up to GHOSTS
 * keys, at least 1, that went, and no more than would weigh twice MAX.  -1:
 * no memory (nothing is reported).
 */
extern int esp_s3_init (struct esp_s3 *s3, uint64_t max, uint32_t ghosts);
extern void esp_s3_destroy (struct esp_s3 *s3);

/* NODE, which is OUT, comes: to main where its ghost is still there. */
extern void esp_s3_insert (struct esp_s3 *s3, struct esp_s3_node *node,
                           uint32_t weight);
/* NODE, which is not OUT, weighs something else now. */
extern void esp_s3_weigh (struct esp_s3 *s3, struct esp_s3_node *node,
                          uint32_t weight);
/* The one that goes next, taken out of its queue; NULL: there is none.  The
 * caller calls _gone, or _back where it cannot go.
 */
extern struct esp_s3_node *esp_s3_pop (struct esp_s3 *s3);
extern void esp_s3_gone (struct esp_s3 *s3, struct esp_s3_node *node);
extern void esp_s3_back (struct esp_s3 *s3, struct esp_s3_node *node);

/* NODE was used again.  Any thread, without the lock; nothing is written
 * where it was used often already.
 */
static inline void
esp_s3_use (struct esp_s3_node *node)
{
  uint8_t uses = atomic_load_explicit (&node->uses, memory_order_relaxed);

  if (uses < ESP_S3_USES_MAX)
    atomic_store_explicit (&node->uses, (uint8_t) (uses + 1),
                           memory_order_relaxed);
}

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_S3FIFO_H */
