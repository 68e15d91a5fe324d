/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier: misses, fills and who waits for them.
 *
 * A fill is the caller's, and stands in its entry's list while it fetches.
 * Who needs a block that is not there and that a fill in the list will bring
 * waits for that fill, by its number, and then looks again: whether it
 * failed, was overtaken or brought what was needed is all the same.
 *
 * Writes (memory-write.c) mark in each fill which blocks of the segment it may
 * not bring: they are *stale*.  A fill that was to bring any of these is not
 * waited for, as what it brings may be older than what somebody must read who
 * comes now.
 *
 * How much is fetched: what is needed (the first miss in a segment), eight
 * times as much (the second), all.  Not what others fetch already, nor, at
 * either end, what is there.
 */

#include <config.h>

#include <errno.h>
#include <time.h>

#include "memory-internal.h"
#include "util/clock.h"

#define MORE 8u

static struct blocks
fill_blocks (const struct esp_fill *fill)
{
  return blocks_around (fill->at, fill->len);
}

static struct blocks
stale_blocks (const struct esp_fill *fill)
{
  return (struct blocks) { fill->stale_from, fill->stale_to };
}

static bool
is_stale (const struct esp_fill *fill)
{
  return !blocks_empty (blocks_both (stale_blocks (fill), fill_blocks (fill)));
}

/* The least that contains the blocks of B that E does not have. */
static struct blocks
missing_of (const struct esp_memory *m, const struct entry *e,
            struct blocks b)
{
  while (b.from < b.to && memory_frame (m, e, b.from))
    b.from++;
  while (b.from < b.to && memory_frame (m, e, b.to - 1))
    b.to--;
  return b;
}

/* A fill that brings some of B, NULL: none. */
static const struct esp_fill *
fill_of (const struct entry *e, struct blocks b)
{
  for (const struct esp_fill *f = e->fills; f; f = f->next)
    if (!is_stale (f) && !blocks_empty (blocks_both (fill_blocks (f), b)))
      return f;
  return NULL;
}

/* --- how much --------------------------------------------------------- */
/* The window of a miss for NEED: aligned to its size, a power of two. */
static struct blocks
window (const struct esp_memory *m, struct entry *e, struct blocks need)
{
  uint32_t size = 1;

  if (e->misses == 0)
    return need;
  while (e->misses == 1 && size < (need.to - need.from) * MORE)
    size *= 2;
  if (e->misses > 1 || size > m->blocks)
    size = m->blocks;
  return (struct blocks) { need.from / size * size,
    (need.to + size - 1) / size * size };
}

/* NEED and what is around it in WIDE, as far as nobody else brings it. */
static struct blocks
widen (const struct esp_memory *m, const struct entry *e, struct blocks need,
       struct blocks wide)
{
  for (const struct esp_fill *f = e->fills; f; f = f->next) {
    struct blocks b = fill_blocks (f);
    if (is_stale (f))
      continue;
    if (b.to <= need.from && b.to > wide.from)
      wide.from = b.to;
    if (b.from >= need.to && b.from < wide.to)
      wide.to = b.from;
  }
  return blocks_hull (need, missing_of (m, e, wide));
}

static struct blocks
how_much (const struct esp_memory *m, struct entry *e, struct blocks need,
          uint32_t segment_len, bool whole)
{
  struct blocks all = blocks_around (0, segment_len);

  if (whole)
    return all;
  return widen (m, e, need, blocks_both (window (m, e, need), all));
}

static void
set_range (struct esp_fill *fill, struct blocks b, uint32_t segment_len)
{
  fill->at = b.from * BLOCK;
  fill->len = (segment_len < b.to * BLOCK ? segment_len : b.to * BLOCK)
    - fill->at;
  fill->whole = fill->len == segment_len;
}

/* --- misses ----------------------------------------------------------- */
/* Writes that are on their way make it stale from the beginning. */
static void
note_writes (const struct entry *e, struct esp_fill *fill)
{
  struct blocks stale = { 0, 0 };

  for (const struct esp_memory_write *w = e->writes; w; w = w->next)
    stale = blocks_hull (stale, blocks_around (w->at, w->len));
  fill->stale_from = stale.from;
  fill->stale_to = stale.to;
}

static void
begin_locked (struct esp_memory *m, struct entry *e, struct esp_fill *fill)
{
  fill->entry = e;
  fill->id = 1 + atomic_fetch_add_explicit (&m->fill_ids, 1,
                                            memory_order_relaxed);
  note_writes (e, fill);
  fill->next = e->fills;
  e->fills = fill;
  e->refs++;
  e->misses++;
}

/* True with *MISS; false: it is here. */
static bool
miss_locked (struct esp_memory *m, uint64_t hash, const struct words *key,
             struct blocks need, uint32_t segment_len, bool whole,
             struct esp_fill *fill, enum esp_memory_miss *miss)
{
  struct entry *e = memory_find_locked (m, hash, key);
  struct blocks missing = e ? missing_of (m, e, need) : need;

  if (blocks_empty (missing))
    return false;
  *miss = ESP_MEMORY_WAIT;
  if (e && fill_of (e, missing))
    return true;
  *miss = ESP_MEMORY_FETCH;
  if (!e)
    e = memory_add_locked (m, hash, key);
  set_range (fill, e ? how_much (m, e, need, segment_len, whole)
             : whole ? blocks_around (0, segment_len) : need, segment_len);
  fill->entry = NULL;
  if (e)
    begin_locked (m, e, fill);
  return true;
}

static bool
miss_once (struct esp_memory *m, uint64_t hash, const struct words *key,
           uint32_t at, uint32_t len, uint32_t segment_len, bool whole,
           struct esp_fill *fill, enum esp_memory_miss *miss)
{
  ESP_LOCK_SCOPE (&shard_of (m, hash)->lock);
  if (!miss_locked (m, hash, key, blocks_around (at, len), segment_len, whole,
                    fill, miss))
    return false;
  if (*miss == ESP_MEMORY_FETCH && fill->entry)
    memory_touch (m, fill->entry, at, len);
  return true;
}

/* Each turn, somebody's fill or write ended meanwhile. */
enum esp_memory_miss
esp_memory_miss (struct esp_memory *m, const struct esp_cache_key *key,
                 void *buf, uint32_t at, uint32_t len, uint32_t segment_len,
                 bool whole, struct esp_fill *fill)
{
  struct words words = words_of (key);
  uint64_t hash = memory_hash (key);
  enum esp_memory_miss miss;

  memory_entries_room (m);
  while (!miss_once (m, hash, &words, at, len, segment_len, whole, fill,
                     &miss))
    if (esp_memory_read (m, key, buf, at, len))
      return ESP_MEMORY_HERE;
  if (miss == ESP_MEMORY_FETCH)
    atomic_fetch_add_explicit (&m->misses, 1, memory_order_relaxed);
  return miss;
}

/* --- waiting ---------------------------------------------------------- */
static struct timespec
clock_in (unsigned ms)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  t.tv_sec += ms / 1000;
  t.tv_nsec += (long) (ms % 1000) * 1000000;
  if (t.tv_nsec >= 1000000000) {
    t.tv_sec++;
    t.tv_nsec -= 1000000000;
  }
  return t;
}

static bool
is_on_its_way (const struct entry *e, uint64_t id)
{
  for (const struct esp_fill *f = e->fills; f; f = f->next)
    if (f->id == id)
      return !is_stale (f);
  return false;
}

static bool
wait_locked (struct shard *shard, struct entry *e, uint64_t id,
             const struct timespec *until)
{
  int r = 0;

  e->waiters++;
  while (is_on_its_way (e, id) && r != ETIMEDOUT)
    r = pthread_cond_timedwait (&shard->ended, &shard->lock, until);
  e->waiters--;
  return !is_on_its_way (e, id);
}

bool
esp_memory_wait (struct esp_memory *m, const struct esp_cache_key *key,
                 uint32_t at, uint32_t len, unsigned until_ms)
{
  struct words words = words_of (key);
  uint64_t hash = memory_hash (key), since = esp_now_us ();
  struct timespec until = clock_in (until_ms);
  struct shard *shard = shard_of (m, hash);
  const struct esp_fill *fill;
  struct entry *e;
  bool ended;

  {
    ESP_LOCK_SCOPE (&shard->lock);
    e = memory_find_locked (m, hash, &words);
    fill = e ? fill_of (e, missing_of (m, e, blocks_around (at, len))) : NULL;
    if (!fill)
      return true;
    e->refs++;
    atomic_fetch_add_explicit (&m->waits, 1, memory_order_relaxed);
    ended = wait_locked (shard, e, fill->id, &until);
    memory_unref_locked (m, e);
  }
  atomic_fetch_add_explicit (&m->waited_us, esp_now_us () - since,
                             memory_order_relaxed);
  return ended;
}

/* --- the end ---------------------------------------------------------- */
bool
esp_memory_fill_stale (struct esp_memory *m, const struct esp_fill *fill)
{
  struct entry *e = fill->entry;

  if (!e)
    return true;                /* nobody kept watch */
  ESP_LOCK_SCOPE (&shard_of (m, e->node.hash)->lock);
  return is_stale (fill);
}

static void
unlist_locked (struct entry *e, const struct esp_fill *fill)
{
  struct esp_fill **p = &e->fills;

  while (*p != fill)
    p = &(*p)->next;
  *p = fill->next;
}

/* BYTES: those of BLOCKS, from AT on, or NULL. */
static void
end_with (struct esp_memory *m, struct esp_fill *fill, struct blocks blocks,
          const void *bytes, uint32_t at, uint32_t len)
{
  struct entry *e = fill->entry;
  struct shard *shard;
  struct keep keep;

  if (!e)
    return;
  keep.blocks = blocks;
  shard = shard_of (m, e->node.hash);
  if (bytes)
    memory_keep (m, e, &keep, bytes, at, len);
  ESP_LOCK_SCOPE (&shard->lock);
  unlist_locked (e, fill);
  if (bytes)
    memory_kept_locked (m, e, &keep, stale_blocks (fill));
  if (e->waiters > 0)
    pthread_cond_broadcast (&shard->ended);
  memory_unref_locked (m, e);
}

void
esp_memory_fill_end (struct esp_memory *m, struct esp_fill *fill,
                     const void *bytes)
{
  end_with (m, fill, fill_blocks (fill), bytes, fill->at, fill->len);
}

void
esp_memory_fill_end_all (struct esp_memory *m, struct esp_fill *fill,
                         const void *segment, uint32_t segment_len)
{
  end_with (m, fill, blocks_around (0, segment_len), segment, 0, segment_len);
}
