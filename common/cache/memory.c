/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier: making it, reading, counting.  memory-internal.h has the
 * layout and the rules by which a reader needs no lock.
 *
 * What a use is.  The policy must tell a segment that is read again from one
 * that is read once in many small requests, as a scan does.  So each block
 * has a bit: it was read.  A read of a block whose bit is set is a use, and
 * clears the bits of the others: another pass over the segment counts once,
 * however small its requests are.  A block counts as read by who reads its
 * first byte: a scan in requests of 512 bytes, or of 63 sectors, makes no use
 * either.  Once there are as many uses as the policy counts, a hit writes
 * nothing that threads share.
 */

#include <config.h>

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#include "util/host.h"
#include "memory-internal.h"

/* Entries, and what belongs to them, take at most a sixteenth of what the
 * blocks take, but these are always there ...
 */
#define ENTRIES_MIN 64u
/* ... and so many more, for segments of this many bytes together, while fills
 * and writes are on their way.
 */
#define BUSY_SHIFT 34u
#define HEADS_MIN 4096u
#define CHUNK (64u * 1024u)             /* copied, then looked at again */

#ifdef TSAN
/* That copies may meet a frame's next use is by design: keep the sanitizer
 * (and its memcpy) away from these two only.
 */
__attribute__ ((no_sanitize ("thread"), noinline)) static void
copy (void *to, const void *from, size_t n)
{
  volatile char *t = to;
  const volatile char *f = from;

  for (; n >= 8 && (((uintptr_t) t | (uintptr_t) f) & 7) == 0;
       n -= 8, t += 8, f += 8)
    *(volatile uint64_t *) (volatile void *) t
      = *(const volatile uint64_t *) (const volatile void *) f;
  for (; n > 0; --n)
    *t++ = *f++;
}
#else
#define copy memcpy
#endif

/* --- making it -------------------------------------------------------- */
static void *
map (size_t size)
{
  void *p = mmap (NULL, size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  if (p == MAP_FAILED)
    return NULL;
  /* Advice: where there are no huge pages, small ones do. */
  madvise (p, size, MADV_HUGEPAGE);
  return p;
}

static void
unmap (void *p, size_t size)
{
  if (p)
    munmap (p, size);
}

/* How many entries there may be, of how many frames. */
static uint32_t
entries_for (const struct esp_memory *m)
{
  uint64_t n = (uint64_t) m->frames_max * BLOCK / 16 / m->stride;

  if (n > m->frames_max)
    n = m->frames_max;
  if (n > UINT32_MAX / 4)
    n = UINT32_MAX / 4;
  return n < ENTRIES_MIN ? ENTRIES_MIN : (uint32_t) n;
}

static void
set_sizes (struct esp_memory *m, uint64_t max, unsigned shift)
{
  uint64_t frames = max / BLOCK;
  uint32_t heads = HEADS_MIN;

  m->shift = shift;
  m->blocks = 1u << (shift - ESP_BLOCK_SHIFT);
  m->words = (m->blocks + 63) / 64;
  m->stride = sizeof (struct entry) + m->words * sizeof (uint64_t)
    + m->blocks * sizeof (uint32_t);
  m->stride = (m->stride + LINE - 1) / LINE * LINE;
  m->frames_max = frames < UINT32_MAX - 1 ? (uint32_t) frames : UINT32_MAX - 1;
  m->entries_max = entries_for (m);
  m->entries_room = m->entries_max + (1u << (BUSY_SHIFT - shift));
  while (heads < m->entries_max)
    heads *= 2;
  m->heads_mask = heads - 1;
  m->arena_size = ((size_t) m->frames_max + 1) * BLOCK;
  m->rest_size = heads * sizeof *m->heads
    + ((size_t) m->entries_room + 1) * m->stride
    + ((size_t) m->frames_max + 1) * sizeof *m->free_frames
    + ((size_t) m->entries_room + 1) * sizeof *m->free_entries;
  m->frames_fresh = m->entries_fresh = 1;
}

static int
map_all (struct esp_memory *m)
{
  char *rest;

  m->arena = map (m->arena_size);
  rest = map (m->rest_size);
  m->heads = (void *) rest;
  if (!m->arena || !rest)
    return -1;
  m->entries = rest + (m->heads_mask + 1) * sizeof *m->heads;
  m->free_frames = (void *) (m->entries + ((size_t) m->entries_room + 1)
                             * m->stride);
  m->free_entries = m->free_frames + m->frames_max + 1;
  return esp_s3_init (&m->s3, m->frames_max, m->entries_max);
}

static void
init_locks (struct esp_memory *m)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_mutex_init (&m->queues_lock, NULL);
  for (unsigned i = 0; i < SHARDS; ++i) {
    pthread_mutex_init (&m->shards[i].lock, NULL);
    pthread_cond_init (&m->shards[i].ended, &attr);
  }
  pthread_condattr_destroy (&attr);
}

struct esp_memory *
esp_memory_new (uint64_t max, unsigned shift)
{
  struct esp_memory *m = aligned_alloc (2 * LINE, sizeof *m);

  assert (shift >= ESP_SEGMENT_SHIFT_MIN && shift <= ESP_SEGMENT_SHIFT_MAX);
  if (!m) {
    esp_error ("malloc: %m");
    return NULL;
  }
  memset (m, 0, sizeof *m);
  set_sizes (m, max, shift);
  init_locks (m);
  if (map_all (m) == -1) {
    int saved = errno;
    esp_error ("cannot set up a cache of %llu bytes in memory: %m",
               (unsigned long long) max);
    esp_memory_free (m);
    errno = saved;
    return NULL;
  }
  return m;
}

void
esp_memory_free (struct esp_memory *m)
{
  if (!m)
    return;
  esp_s3_destroy (&m->s3);
  unmap (m->arena, m->arena_size);
  unmap (m->heads, m->rest_size);
  for (unsigned i = 0; i < SHARDS; ++i) {
    pthread_mutex_destroy (&m->shards[i].lock);
    pthread_cond_destroy (&m->shards[i].ended);
  }
  pthread_mutex_destroy (&m->queues_lock);
  free (m);
}

/* --- uses ------------------------------------------------------------- */
/* Bits [FROM, TO) of one word, 0 <= FROM < TO <= 64. */
static uint64_t
bits (uint32_t from, uint32_t to)
{
  return (~UINT64_C (0) >> (64 - (to - from))) << from;
}

/* The part of word W of B, which has some of it. */
static uint64_t
bits_of (struct blocks b, uint32_t w)
{
  b = blocks_both (b, (struct blocks) { w * 64, w * 64 + 64 });
  return bits (b.from - w * 64, b.to - w * 64);
}

static bool
any_touched (_Atomic uint64_t *touched, struct blocks b)
{
  for (uint32_t w = b.from / 64; w * 64 < b.to; ++w)
    if (atomic_load_explicit (&touched[w], memory_order_relaxed)
        & bits_of (b, w))
      return true;
  return false;
}

/* Threads may lose each other's bits: a use more or less. */
void
memory_touch (const struct esp_memory *m, struct entry *e, uint32_t at,
              uint32_t len)
{
  struct blocks b = { (at + BLOCK - 1) / BLOCK, (at + len - 1) / BLOCK + 1 };
  _Atomic uint64_t *touched = e->touched;

  if (blocks_empty (b)
      || atomic_load_explicit (&e->node.uses, memory_order_relaxed)
      == ESP_S3_USES_MAX)
    return;
  if (any_touched (touched, b)) {
    esp_s3_use (&e->node);
    for (uint32_t w = 0; w < m->words; ++w)
      atomic_store_explicit (&touched[w], 0, memory_order_relaxed);
  }
  for (uint32_t w = b.from / 64; w * 64 < b.to; ++w)
    atomic_store_explicit
      (&touched[w],
       atomic_load_explicit (&touched[w], memory_order_relaxed)
       | bits_of (b, w), memory_order_relaxed);
}

/* --- reading ---------------------------------------------------------- */
void
memory_copy_in (char *frame, const void *from, size_t n)
{
  BARRIER (memory_order_release);
  copy (frame, from, n);
}

/* The entry of KEY and its version, without a lock: NULL where there is none,
 * or (seldom) where entries changed meanwhile.
 */
static struct entry *
find (const struct esp_memory *m, uint64_t hash, const struct words *key,
      uint32_t *version)
{
  uint32_t i = atomic_load_explicit (&m->heads[hash & m->heads_mask],
                                     memory_order_acquire);

  for (unsigned hops = 0; i != 0 && hops < 1024; ++hops) {
    struct entry *e = entry_at (m, i);
    *version = atomic_load_explicit (&e->version, memory_order_acquire);
    if (atomic_load_explicit (&e->key[1], memory_order_relaxed) == key->w[1]
        && atomic_load_explicit (&e->key[2], memory_order_relaxed) == key->w[2]
        && atomic_load_explicit (&e->key[0], memory_order_relaxed)
        == key->w[0])
      return e;
    i = atomic_load_explicit (&e->next, memory_order_acquire);
  }
  return NULL;
}

/* Copy [AT, AT+LEN) of E, at most CHUNK: false where some of it is not there.
 * Frames that follow each other, as those of one fill mostly do, are one copy.
 * What was copied counts only if the version is as it was.
 */
static bool
copy_out (const struct esp_memory *m, const struct entry *e, char *buf,
          uint32_t at, uint32_t len)
{
  uint32_t frames[CHUNK / BLOCK + 2];
  struct blocks b = blocks_around (at, len);

  for (uint32_t i = b.from; i < b.to; ++i)
    if (!(frames[i - b.from] = memory_frame (m, e, i)))
      return false;
  for (uint32_t i = 0; len > 0; ++i) {
    uint32_t first = frames[i], skip = at % BLOCK, n = BLOCK - skip;
    for (; n < len && frames[i + 1] == frames[i] + 1; ++i)
      n += BLOCK;
    n = n < len ? n : len;
    copy (buf, frame_at (m, first) + skip, n);
    buf += n;
    at += n;
    len -= n;
  }
  return true;
}

/* A write elsewhere in the segment changes the version as well: look again. */
static bool
read_chunk (const struct esp_memory *m, uint64_t hash,
            const struct words *key, char *buf, uint32_t at, uint32_t len)
{
  uint32_t version;
  struct entry *e;

  for (;;) {
    e = find (m, hash, key, &version);
    if (!e || !copy_out (m, e, buf, at, len))
      return false;
    BARRIER (memory_order_acquire);
    if (atomic_load_explicit (&e->version, memory_order_relaxed) == version)
      break;
  }
  memory_touch (m, e, at, len);
  return true;
}

bool
esp_memory_read (struct esp_memory *m, const struct esp_cache_key *key,
                 void *buf, uint32_t at, uint32_t len)
{
  struct words words = words_of (key);
  uint64_t hash = memory_hash (key);

  for (uint32_t done = 0; done < len; ) {
    uint32_t n = len - done < CHUNK ? len - done : CHUNK;
    if (!read_chunk (m, hash, &words, (char *) buf + done, at + done, n))
      return false;
    done += n;
  }
  memory_count_hit (m, len);
  return true;
}

/* --- counters --------------------------------------------------------- */
/* Each thread has a set of its own, as long as there are not more threads
 * than sets.
 */
static struct counters *
my_counters (struct esp_memory *m)
{
  static _Atomic unsigned threads;
  static _Thread_local unsigned mine;

  if (mine == 0)
    mine = 1 + atomic_fetch_add_explicit (&threads, 1, memory_order_relaxed)
      % COUNTERS;
  return &m->counters[mine - 1];
}

void
memory_count_hit (struct esp_memory *m, uint32_t len)
{
  struct counters *c = my_counters (m);

  atomic_fetch_add_explicit (&c->hits, 1, memory_order_relaxed);
  atomic_fetch_add_explicit (&c->bytes_read, len, memory_order_relaxed);
}

void
esp_memory_counters (struct esp_memory *m, struct esp_memory_counters *out)
{
  *out = (struct esp_memory_counters) {
    .misses = atomic_load (&m->misses),
    .bytes_filled = atomic_load (&m->bytes_filled),
    .waits = atomic_load (&m->waits),
    .waited_us = atomic_load (&m->waited_us),
    .entries = atomic_load (&m->live),
    .max = (uint64_t) m->frames_max * BLOCK,
  };
  for (unsigned i = 0; i < COUNTERS; ++i) {
    out->hits += atomic_load (&m->counters[i].hits);
    out->bytes_read += atomic_load (&m->counters[i].bytes_read);
  }
  ESP_LOCK_SCOPE (&m->queues_lock);
  out->evictions = m->evictions;
  out->bytes = (uint64_t) (m->frames_fresh - 1 - m->frames_free) * BLOCK;
}
