/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside the memory tier: what its files share.
 *
 *   memory.c          new, free, reading (the fast path), counters
 *   memory-entries.c  entries and frames: look-up, making room, keeping bytes
 *   memory-fill.c     misses, fills, waiting for them
 *   memory-write.c    writes
 *   s3fifo.c          who goes next
 *
 * A *frame* holds 4 KiB.  All frames lie in one arena, and what they hold
 * is never given back to the kernel: taking and giving a frame is no system
 * call, no page fault and no other thread's TLB flush, and the arena is
 * dense, so that huge pages suit it.  The bound is their number.
 *
 * An *entry* is a segment: for each of its blocks the frame that has it, or
 * 0.  Entries lie in one array and never move or disappear; an entry that
 * went is used again for another key.
 *
 * Readers (memory.c) take no lock and pin nothing.  They look an entry up,
 * take its version, copy out of its frames and look whether the version is
 * still the same.  So whoever takes a frame away from an entry goes
 *
 *   frames[b] = 0, then version + 1, then the frame may be used again
 *
 * and who gives an entry another key goes: the key, then version + 1, then
 * frames.  Either a reader sees the 0 (a miss), or its copy is of what the
 * frame held, or it sees that the version changed: a release barrier stands
 * before what a reader may see too early (a key, what goes into a frame), its
 * acquire barrier before the second look.  A frame is filled before an entry
 * points at it, and never changed while one does.
 *
 * Locks.  A shard's (by hash of the key) protects chains, keys, the pointers
 * to frames (writing) and all else of the entries that is not atomic.  The
 * memory's queues_lock protects the queues, the free frames and the free
 * entries; it is taken inside of a shard's.  None is held while bytes are
 * copied.  An entry with refs (fills and writes that are on their way) stays;
 * one without refs and without bytes goes at once, or where it still stands in
 * a queue when its turn comes.
 */

#ifndef ESPALIER_CACHE_MEMORY_INTERNAL_H
#define ESPALIER_CACHE_MEMORY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/memory.h"
#include "cache/s3fifo.h"
#include "util/bits.h"
#include "util/cleanup.h"

#if defined __SANITIZE_THREAD__
#define TSAN 1
#elif defined __has_feature
#if __has_feature (thread_sanitizer)
#define TSAN 1
#endif
#endif

/* The sanitizer does not know fences (and needs none: what they order is
 * atomic, or copied behind its back).
 */
#ifdef TSAN
#define BARRIER(order) atomic_signal_fence (order)
#else
#define BARRIER(order) atomic_thread_fence (order)
#endif

#define BLOCK ((uint32_t) ESP_BLOCK_SIZE)
#define BLOCKS_MAX (1u << (ESP_SEGMENT_SHIFT_MAX - ESP_BLOCK_SHIFT))
#define SHARDS 64u
#define COUNTERS 64u
#define LINE 64u                /* bytes in a cache line */

/* Blocks [FROM, TO) of a segment. */
struct blocks { uint32_t from, to; };

static inline bool
blocks_empty (struct blocks a)
{
  return a.from >= a.to;
}

static inline struct blocks
blocks_both (struct blocks a, struct blocks b)
{
  return (struct blocks) { a.from > b.from ? a.from : b.from,
                           a.to < b.to ? a.to : b.to };
}

/* The least that contains A and B. */
static inline struct blocks
blocks_hull (struct blocks a, struct blocks b)
{
  if (blocks_empty (a))
    return b;
  if (blocks_empty (b))
    return a;
  return (struct blocks) { a.from < b.from ? a.from : b.from,
                           a.to > b.to ? a.to : b.to };
}

/* All blocks that have something of [AT, AT+LEN). */
static inline struct blocks
blocks_around (uint32_t at, uint32_t len)
{
  return (struct blocks) { at / BLOCK,
    (uint32_t) (((uint64_t) at + len + BLOCK - 1) / BLOCK) };
}

/* A key in words that are compared one by one. */
struct words { uint64_t w[3]; };

/* The heads of the chains of so many neighbours lie side by side: one cache
 * line.
 */
#define NEIGHBOURS ((uint32_t) (LINE / sizeof (uint32_t)))

struct entry {
  _Atomic uint32_t version;
  _Atomic uint32_t next;        /* in its chain: an index, 0: the end */
  _Atomic uint64_t key[3];
  struct esp_s3_node node;
  /* The first line ends here: hits read no more of the head, once there are
   * enough uses.
   */
  uint32_t refs;
  uint32_t there;               /* blocks */
  uint32_t misses;              /* for how much to fetch */
  uint32_t waiters;
  struct esp_fill *fills;
  struct esp_memory_write *writes;
  _Atomic uint64_t touched[];   /* memory->words of them: a bit for each
                                 * block: was it read?  Then the blocks'
                                 * frames: memory_frames */
};

struct shard {
  _Alignas (2 * LINE) pthread_mutex_t lock;
  pthread_cond_t ended;         /* a fill that somebody waited for */
};

struct counters {
  _Alignas (2 * LINE) _Atomic uint64_t hits;
  _Atomic uint64_t bytes_read;
};

struct esp_memory {
  unsigned shift;
  uint32_t blocks, words;       /* of a segment of SHIFT; 64 in a word */
  size_t stride;                /* of entries, bytes */
  uint32_t frames_max, entries_max, entries_room;
  uint32_t heads_mask;
  /* Two mappings: the arena and, in this order, all that follows it.  Index
   * 0 of frames and entries is never used.
   */
  char *arena;
  _Atomic uint32_t *heads;      /* chains, by hash */
  char *entries;
  uint32_t *free_frames, *free_entries;
  size_t arena_size, rest_size;

  _Alignas (2 * LINE) pthread_mutex_t queues_lock;
  /* Under it: */
  struct esp_s3 s3;
  uint32_t frames_free, frames_fresh;   /* the stack's height; the first one
                                         * that never was used */
  uint32_t entries_free, entries_fresh;
  uint64_t evictions;

  _Alignas (2 * LINE) _Atomic uint32_t live;    /* entries */
  _Atomic uint64_t misses, bytes_filled, waits, waited_us, fill_ids;

  struct shard shards[SHARDS];
  struct counters counters[COUNTERS];
};

static inline struct entry *
entry_at (const struct esp_memory *m, uint32_t index)
{
  return (struct entry *) (void *) (m->entries + index * m->stride);
}

static inline char *
frame_at (const struct esp_memory *m, uint32_t index)
{
  return m->arena + (size_t) index * BLOCK;
}

static inline struct shard *
shard_of (struct esp_memory *m, uint64_t hash)
{
  return &m->shards[hash & m->heads_mask & (SHARDS - 1)];
}

static inline struct words
words_of (const struct esp_cache_key *key)
{
  struct words w;

  __builtin_memcpy (w.w, key->id, sizeof key->id);
  w.w[2] = (uint64_t) key->segment << 32 | (uint64_t) key->shift << 8
    | key->kind;
  return w;
}

/* 64 bits of a key, well mixed but for the last four: those of the segment, so
 * that a disk's chains are found without a miss of the CPU's cache for each.
 */
static inline uint64_t
memory_hash (const struct esp_cache_key *key)
{
  struct esp_cache_key first = *key;

  first.segment /= NEIGHBOURS;
  return esp_cache_key_hash (&first) / NEIGHBOURS * NEIGHBOURS
    + key->segment % NEIGHBOURS;
}

static inline _Atomic uint32_t *
memory_frames (const struct esp_memory *m, const struct entry *e)
{
  return (_Atomic uint32_t *) (void *) (uintptr_t) (e->touched + m->words);
}

static inline uint32_t
memory_frame (const struct esp_memory *m, const struct entry *e,
              uint32_t block)
{
  return atomic_load_explicit (&memory_frames (m, e)[block],
                               memory_order_acquire);
}

/* --- memory.c --------------------------------------------------------- */
/* Blocks of [AT, AT+LEN) of E are read: was it a use? */
extern void memory_touch (const struct esp_memory *m, struct entry *e,
                          uint32_t at, uint32_t len);
extern void memory_count_hit (struct esp_memory *m, uint32_t len);
/* memcpy into a frame that nobody points at, but that somebody whose copy
 * will not count may still read.
 */
extern void memory_copy_in (char *frame, const void *from, size_t n);

/* --- memory-entries.c ------------------------------------------------- */
/* The entry of KEY, NULL: none.  Its shard is locked. */
extern struct entry *memory_find_locked (struct esp_memory *m, uint64_t hash,
                                         const struct words *key);
/* Make one, without bytes or refs (the caller adds one).  NULL: there are
 * too many that cannot go.
 */
extern struct entry *memory_add_locked (struct esp_memory *m, uint64_t hash,
                                        const struct words *key);
/* Before the shard of who adds one is locked: let entries go where there are
 * too many.
 */
extern void memory_entries_room (struct esp_memory *m);
/* End a ref: an entry of no use goes. */
extern void memory_unref_locked (struct esp_memory *m, struct entry *e);
/* Forget BLOCKS of E. */
extern void memory_drop_locked (struct esp_memory *m, struct entry *e,
                                struct blocks blocks);

/* Bytes that are to be kept, in frames that no entry has yet. */
struct keep {
  struct blocks blocks;
  uint32_t frames[BLOCKS_MAX];  /* of each; 0: none */
};
/* Copy those of KEEP's blocks that E does not have into frames, as far as
 * there is room; lets others go for it.  FROM: the bytes from AT on, LEN
 * of them.  No lock is held; E has a ref.
 */
extern void memory_keep (struct esp_memory *m, const struct entry *e,
                         struct keep *keep, const void *from, uint32_t at,
                         uint32_t len);
/* Give them to E, but for those that it has and those of NOT. */
extern void memory_kept_locked (struct esp_memory *m, struct entry *e,
                                struct keep *keep, struct blocks not);

#endif /* ESPALIER_CACHE_MEMORY_INTERNAL_H */
