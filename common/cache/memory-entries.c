/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier: entries and frames.  memory-internal.h has the rules.
 *
 * Making room: who needs frames (or an entry, where there are as many as may
 * be) asks the policy for one to go, takes it off its chain and its frames
 * from it, and looks again.  One that is in use (refs) goes back to its
 * queue; after TRIES of them in a row the bytes are not kept.
 */

#include <config.h>

#include <assert.h>
#include <string.h>

#include "memory-internal.h"

#define TRIES 64u

/* --- chains ----------------------------------------------------------- */
static bool
entry_is (const struct entry *e, const struct words *key)
{
  for (unsigned i = 0; i < 3; ++i)
    if (atomic_load_explicit (&e->key[i], memory_order_relaxed) != key->w[i])
      return false;
  return true;
}

struct entry *
memory_find_locked (struct esp_memory *m, uint64_t hash,
                    const struct words *key)
{
  uint32_t i = atomic_load (&m->heads[hash & m->heads_mask]);

  for (; i; i = atomic_load (&entry_at (m, i)->next))
    if (entry_is (entry_at (m, i), key))
      return entry_at (m, i);
  return NULL;
}

static uint32_t
index_of (const struct esp_memory *m, const struct entry *e)
{
  return (uint32_t) ((size_t) ((const char *) e - m->entries) / m->stride);
}

static void
unchain_locked (struct esp_memory *m, struct entry *e)
{
  _Atomic uint32_t *p = &m->heads[e->node.hash & m->heads_mask];
  uint32_t index = index_of (m, e);

  while (atomic_load (p) != index)
    p = &entry_at (m, atomic_load (p))->next;
  atomic_store (p, atomic_load (&e->next));
}

/* --- entries ---------------------------------------------------------- */
static uint32_t
take_index (struct esp_memory *m)
{
  ESP_LOCK_SCOPE (&m->queues_lock);
  if (m->entries_free > 0)
    return m->free_entries[--m->entries_free];
  return m->entries_fresh <= m->entries_room ? m->entries_fresh++ : 0;
}

struct entry *
memory_add_locked (struct esp_memory *m, uint64_t hash,
                   const struct words *key)
{
  _Atomic uint32_t *head = &m->heads[hash & m->heads_mask];
  uint32_t index = take_index (m);
  struct entry *e = entry_at (m, index);

  if (index == 0)
    return NULL;
  BARRIER (memory_order_release);
  for (unsigned i = 0; i < 3; ++i)
    atomic_store_explicit (&e->key[i], key->w[i], memory_order_relaxed);
  atomic_fetch_add (&e->version, 1);
  e->node.hash = hash;
  atomic_store_explicit (&e->node.uses, 0, memory_order_relaxed);
  for (uint32_t w = 0; w < m->words; ++w)
    atomic_store_explicit (&e->touched[w], 0, memory_order_relaxed);
  e->misses = 0;
  atomic_store (&e->next, atomic_load (head));
  atomic_store (head, index);
  atomic_fetch_add_explicit (&m->live, 1, memory_order_relaxed);
  return e;
}

/* E has no refs, no bytes, and is in no queue. */
static void
forget_locked (struct esp_memory *m, struct entry *e)
{
  assert (e->refs == 0 && e->there == 0 && !e->fills && !e->writes);
  unchain_locked (m, e);
  atomic_fetch_sub_explicit (&m->live, 1, memory_order_relaxed);
  ESP_LOCK_SCOPE (&m->queues_lock);
  m->free_entries[m->entries_free++] = index_of (m, e);
}

void
memory_unref_locked (struct esp_memory *m, struct entry *e)
{
  bool queued;

  if (--e->refs > 0)
    return;
  {
    ESP_LOCK_SCOPE (&m->queues_lock);
    queued = e->node.where != ESP_S3_OUT;
  }
  if (!queued)
    forget_locked (m, e);
}

/* --- frames ----------------------------------------------------------- */
/* Take BLOCKS from E.  Readers may still copy out of their frames: see the
 * rules.  Returns how many frames went to FRAMES, last one first.
 */
static uint32_t
strip_locked (const struct esp_memory *m, struct entry *e,
              struct blocks blocks, uint32_t *frames)
{
  uint32_t n = 0;

  for (uint32_t b = blocks.to; b-- > blocks.from; ) {
    uint32_t frame = memory_frame (m, e, b);
    if (frame == 0)
      continue;
    atomic_store_explicit (&memory_frames (m, e)[b], 0,
                           memory_order_relaxed);
    frames[n++] = frame;
  }
  if (n > 0)
    atomic_fetch_add (&e->version, 1);
  e->there -= n;
  return n;
}

static void
give_frames (struct esp_memory *m, const uint32_t *frames, uint32_t n)
{
  memcpy (m->free_frames + m->frames_free, frames, n * sizeof *frames);
  m->frames_free += n;
}

void
memory_drop_locked (struct esp_memory *m, struct entry *e,
                    struct blocks blocks)
{
  uint32_t frames[BLOCKS_MAX];
  uint32_t n = strip_locked (m, e, blocks, frames);

  if (n == 0)
    return;
  ESP_LOCK_SCOPE (&m->queues_lock);
  give_frames (m, frames, n);
  esp_s3_weigh (&m->s3, &e->node, e->there);
}

/* Take up to N free frames. */
static uint32_t
take_frames (struct esp_memory *m, uint32_t *frames, uint32_t n)
{
  uint32_t got = 0;

  ESP_LOCK_SCOPE (&m->queues_lock);
  while (got < n && m->frames_free > 0)
    frames[got++] = m->free_frames[--m->frames_free];
  while (got < n && m->frames_fresh <= m->frames_max)
    frames[got++] = m->frames_fresh++;
  return got;
}

/* --- making room ------------------------------------------------------ */
static struct entry *
pop (struct esp_memory *m)
{
  struct esp_s3_node *node;

  ESP_LOCK_SCOPE (&m->queues_lock);
  node = esp_s3_pop (&m->s3);
  return node ? (struct entry *) (void *)
    ((char *) node - offsetof (struct entry, node)) : NULL;
}

/* E was popped: nobody else lets it go. */
static bool
let_go (struct esp_memory *m, struct entry *e)
{
  uint32_t frames[BLOCKS_MAX];
  uint32_t n;

  ESP_LOCK_SCOPE (&shard_of (m, e->node.hash)->lock);
  if (e->refs > 0) {
    ESP_LOCK_SCOPE (&m->queues_lock);
    esp_s3_back (&m->s3, &e->node);
    return false;
  }
  assert (e->node.weight == e->there);
  n = strip_locked (m, e, (struct blocks) { 0, m->blocks }, frames);
  {
    ESP_LOCK_SCOPE (&m->queues_lock);
    give_frames (m, frames, n);
    esp_s3_gone (&m->s3, &e->node);
    m->evictions++;
  }
  forget_locked (m, e);
  return true;
}

/* False: nothing can go. */
static bool
let_one_go (struct esp_memory *m)
{
  for (unsigned i = 0; i < TRIES; ++i) {
    struct entry *e = pop (m);
    if (!e)
      return false;
    if (let_go (m, e))
      return true;
  }
  return false;
}

void
memory_entries_room (struct esp_memory *m)
{
  if (atomic_load_explicit (&m->live, memory_order_relaxed) >= m->entries_max)
    let_one_go (m);
}

/* --- keeping bytes ---------------------------------------------------- */
/* A frame for each block of KEEP that E does not have, as far as there is
 * room.
 */
static void
keep_frames (struct esp_memory *m, const struct entry *e, struct keep *keep)
{
  uint32_t frames[BLOCKS_MAX], wanted[BLOCKS_MAX];
  uint32_t need = 0, got;

  for (uint32_t b = keep->blocks.from; b < keep->blocks.to; ++b) {
    keep->frames[b - keep->blocks.from] = 0;
    if (memory_frame (m, e, b) == 0)
      wanted[need++] = b - keep->blocks.from;
  }
  for (got = take_frames (m, frames, need); got < need;
       got += take_frames (m, frames + got, need - got))
    if (!let_one_go (m))
      break;
  for (uint32_t i = 0; i < got; ++i)
    keep->frames[wanted[i]] = frames[i];
}

void
memory_keep (struct esp_memory *m, const struct entry *e, struct keep *keep,
             const void *from, uint32_t at, uint32_t len)
{
  keep_frames (m, e, keep);
  for (uint32_t b = keep->blocks.from; b < keep->blocks.to; ++b) {
    uint32_t frame = keep->frames[b - keep->blocks.from];
    uint32_t skip = b * BLOCK - at;
    if (frame)
      memory_copy_in (frame_at (m, frame), (const char *) from + skip,
                      len - skip < BLOCK ? len - skip : BLOCK);
  }
}

static bool
is_wanted (const struct esp_memory *m, const struct entry *e, uint32_t b,
           struct blocks not)
{
  return memory_frame (m, e, b) == 0 && !(b >= not.from && b < not.to);
}

void
memory_kept_locked (struct esp_memory *m, struct entry *e, struct keep *keep,
                    struct blocks not)
{
  uint32_t spare[BLOCKS_MAX];
  uint32_t n = 0, kept = 0;

  for (uint32_t b = keep->blocks.from; b < keep->blocks.to; ++b) {
    uint32_t frame = keep->frames[b - keep->blocks.from];
    if (frame == 0)
      continue;
    if (!is_wanted (m, e, b, not)) {
      spare[n++] = frame;
      continue;
    }
    atomic_store_explicit (&memory_frames (m, e)[b], frame,
                           memory_order_release);
    kept++;
  }
  e->there += kept;
  ESP_LOCK_SCOPE (&m->queues_lock);
  give_frames (m, spare, n);
  if (e->node.where != ESP_S3_OUT)
    esp_s3_weigh (&m->s3, &e->node, e->there);
  else if (e->there > 0)
    esp_s3_insert (&m->s3, &e->node, e->there);
  atomic_fetch_add_explicit (&m->bytes_filled, (uint64_t) kept * BLOCK,
                             memory_order_relaxed);
}
