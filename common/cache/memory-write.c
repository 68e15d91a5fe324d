/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier: writes through it (invariant 3: a write that was
 * acknowledged is never lost to a fill that began earlier).
 *
 * From its begin to its end a write stands in its entry's list.  At its
 * begin its blocks are forgotten, and what fills on their way bring of them is
 * stale; a fill that begins meanwhile is stale there from its beginning.  Two
 * writes that meet *clash*: which of them came last below, nobody knows, so
 * neither keeps the blocks they share.  At its end the other blocks that it
 * wrote all of are kept.
 *
 * A block that only a part of was written stays forgotten.
 */

#include <config.h>

#include "memory-internal.h"

static struct blocks
write_blocks (const struct esp_memory_write *w)
{
  return blocks_around (w->at, w->len);
}

static void
clash (struct esp_memory_write *w, struct blocks b)
{
  struct blocks c = blocks_hull ((struct blocks) { w->clash_from, w->clash_to },
                                 b);

  w->clash_from = c.from;
  w->clash_to = c.to;
}

static void
overtake (struct esp_fill *fill, struct blocks b)
{
  struct blocks s
    = blocks_hull ((struct blocks) { fill->stale_from, fill->stale_to }, b);

  fill->stale_from = s.from;
  fill->stale_to = s.to;
}

static void
meet_others_locked (struct entry *e, struct esp_memory_write *write)
{
  for (struct esp_memory_write *w = e->writes; w; w = w->next) {
    struct blocks both = blocks_both (write_blocks (w), write_blocks (write));
    clash (w, both);
    clash (write, both);
  }
  for (struct esp_fill *f = e->fills; f; f = f->next)
    overtake (f, write_blocks (write));
}

int
esp_memory_write_begin (struct esp_memory *m, const struct esp_cache_key *key,
                        uint32_t at, uint32_t len,
                        struct esp_memory_write *write)
{
  struct words words = words_of (key);
  uint64_t hash = memory_hash (key);
  struct shard *shard = shard_of (m, hash);
  struct entry *e;

  *write = (struct esp_memory_write) { .at = at, .len = len };
  memory_entries_room (m);
  ESP_LOCK_SCOPE (&shard->lock);
  e = memory_find_locked (m, hash, &words);
  if (!e && !(e = memory_add_locked (m, hash, &words)))
    return -1;
  write->entry = e;
  meet_others_locked (e, write);
  write->next = e->writes;
  e->writes = write;
  e->refs++;
  memory_drop_locked (m, e, write_blocks (write));
  if (e->waiters > 0)           /* for a fill that was overtaken now */
    pthread_cond_broadcast (&shard->ended);
  return 0;
}

/* The blocks that W wrote all of. */
static struct blocks
full_blocks (const struct esp_memory_write *w)
{
  return (struct blocks) { (w->at + BLOCK - 1) / BLOCK,
    (w->at + w->len) / BLOCK };
}

static void
unlist_locked (struct entry *e, const struct esp_memory_write *write)
{
  struct esp_memory_write **p = &e->writes;

  while (*p != write)
    p = &(*p)->next;
  *p = write->next;
}

void
esp_memory_write_end (struct esp_memory *m, struct esp_memory_write *write,
                      const void *bytes)
{
  struct entry *e = write->entry;
  struct keep keep;

  keep.blocks = full_blocks (write);
  if (blocks_empty (keep.blocks))
    bytes = NULL;
  if (bytes)
    memory_keep (m, e, &keep, bytes, write->at, write->len);
  ESP_LOCK_SCOPE (&shard_of (m, e->node.hash)->lock);
  unlist_locked (e, write);
  if (bytes)
    memory_kept_locked (m, e, &keep, (struct blocks) { write->clash_from,
        write->clash_to });
  memory_unref_locked (m, e);
}
