/* SPDX-License-Identifier: BSD-3-Clause */
/* Packing in parallel: threads take the next segment that nobody took, read
 * it from the store, and pack it into its slot of a ring; the caller's thread
 * takes the slots in order.  A slot is used again when it was taken, so memory
 * is bounded by the ring, whatever the disk.
 *
 * Slot I of the ring has entry E with E mod SLOTS = I.  Its state moves
 * FREE -> BUSY (a worker has it) -> READY -> FREE under the mutex; packing
 * and reading are done without it.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "center/center-internal.h"
#include "center/packing.h"
#include "util/bits.h"
#include "util/host.h"

#define RING_BYTES (48u << 20)
#define THREADS_MAX 32

struct segment_slot {
  enum { SLOT_FREE, SLOT_BUSY, SLOT_READY } state;
  uint8_t *out;
  size_t len, raw;
};

struct ring {
  struct packing *p;
  size_t end;                   /* entries [.., end) are to be packed */
  pthread_mutex_t lock;         /* protects all below */
  pthread_cond_t changed;
  size_t next;                  /* the entry that a worker takes next */
  size_t taken;                 /* entries before it were emitted */
  int error;                    /* errno of what ends it */
  struct segment_slot *slots;
  size_t nslots;
};

/* --- reading ------------------------------------------------------------ */

struct esp_segment *
packing_segments (const struct esp_map *map, unsigned shift, size_t *n)
{
  uint64_t blocks = esp_blocks (map->size), run;
  uint64_t per = UINT64_C (1) << (shift - ESP_BLOCK_SHIFT);
  struct esp_segment *list = NULL, *more;
  size_t room = 0;

  *n = 0;
  for (uint64_t b = 0; b < blocks; b += run) {
    if (esp_map_run (map, b, blocks - b, &run) != ESP_DATA)
      continue;
    for (uint64_t s = b / per; s <= (b + run - 1) / per; s++) {
      if (*n > 0 && list[*n - 1].number == s)
        continue;
      if (*n == room) {
        room = room ? 2 * room : 1024;
        more = reallocarray (list, room, sizeof *list);
        if (!more) {
          free (list);
          center_no_memory ();
          return NULL;
        }
        list = more;
      }
      list[(*n)++] = (struct esp_segment) { .number = (uint32_t) s };
    }
  }
  if (!list && !(list = calloc (1, sizeof *list)))
    center_no_memory ();
  return list;
}

/* Read blocks, of which the last may be cut by the end of the disk: behind
 * it are zeroes.
 */
static int
read_blocks (struct layer *layer, uint64_t size, uint64_t block, uint64_t n,
             uint8_t *buf)
{
  uint64_t offset = block << ESP_BLOCK_SHIFT, len = n << ESP_BLOCK_SHIFT;
  uint64_t real = offset + len > size ? size - offset : len;

  if (layer_read (layer, buf, real, offset) == -1)
    return -1;
  memset (buf + real, 0, len - real);
  return 0;
}

int
packing_raw (struct layer *layer, const struct esp_map *map, unsigned shift,
             uint32_t number, void *raw, size_t *len)
{
  uint64_t per = UINT64_C (1) << (shift - ESP_BLOCK_SHIFT);
  uint64_t b = number * per, end = esp_blocks (map->size), run;
  uint8_t *p = raw;

  if (end > b + per)
    end = b + per;
  for (; b < end; b += run) {
    if (esp_map_run (map, b, end - b, &run) != ESP_DATA)
      continue;
    if (read_blocks (layer, map->size, b, run, p) == -1)
      return -1;
    p += run << ESP_BLOCK_SHIFT;
  }
  *len = (size_t) (p - (uint8_t *) raw);
  return 0;
}

/* --- workers ------------------------------------------------------------ */

/* The next entry, its slot free; false when there is nothing more to do. */
static bool
take_entry (struct ring *r, size_t *entry)
{
  ESP_LOCK_SCOPE (&r->lock);

  while (r->error == 0 && r->next < r->end &&
         r->next >= r->taken + r->nslots)
    pthread_cond_wait (&r->changed, &r->lock);
  if (r->error || r->next >= r->end)
    return false;
  *entry = r->next++;
  r->slots[*entry % r->nslots].state = SLOT_BUSY;
  return true;
}

static void
put_entry (struct ring *r, size_t entry, int error)
{
  ESP_LOCK_SCOPE (&r->lock);

  if (error && !r->error)
    r->error = error;
  r->slots[entry % r->nslots].state = SLOT_READY;
  pthread_cond_broadcast (&r->changed);
}

static void
fail (struct ring *r, int error)
{
  ESP_LOCK_SCOPE (&r->lock);

  if (!r->error)
    r->error = error ? error : EIO;
  pthread_cond_broadcast (&r->changed);
}

static int
pack (struct ring *r, struct esp_packer *packer, size_t entry, uint8_t *raw)
{
  struct packing *p = r->p;
  struct segment_slot *slot = &r->slots[entry % r->nslots];
  struct esp_segment *s = &p->segments[entry];

  if (packing_raw (p->layer, p->map, p->shift, s->number, raw,
                   &slot->raw) == -1 ||
      esp_pack_segment (packer, s->number, raw, slot->raw, slot->out,
                        &slot->len, &s->digest) == -1)
    return -1;
  s->stored = (uint32_t) slot->len;
  return 0;
}

static void *
pack_worker (void *arg)
{
  struct ring *r = arg;
  CLEANUP_FREE uint8_t *raw = malloc ((size_t) 1 << r->p->shift);
  CLEANUP_PACKER struct esp_packer *packer =
    esp_packer_new (r->p->codec, r->p->level, r->p->key);
  size_t entry;

  if (!raw || !packer) {
    if (!raw)
      center_no_memory ();
    fail (r, ENOMEM);
    return NULL;
  }
  while (take_entry (r, &entry))
    put_entry (r, entry, pack (r, packer, entry, raw) == -1
               ? (errno ? errno : EIO) : 0);
  return NULL;
}

/* --- the caller ---------------------------------------------------------- */

static int
wait_entry (struct ring *r, size_t entry)
{
  ESP_LOCK_SCOPE (&r->lock);

  while (!r->error && r->slots[entry % r->nslots].state != SLOT_READY)
    pthread_cond_wait (&r->changed, &r->lock);
  errno = r->error;
  return r->error ? -1 : 0;
}

static void
release_entry (struct ring *r, size_t entry)
{
  ESP_LOCK_SCOPE (&r->lock);

  r->slots[entry % r->nslots].state = SLOT_FREE;
  r->taken = entry + 1;
  pthread_cond_broadcast (&r->changed);
}

static int
emit_all (struct ring *r, size_t first, packing_fn emit, void *arg)
{
  for (size_t i = first; i < r->end; i++) {
    struct segment_slot *slot = &r->slots[i % r->nslots];
    if (wait_entry (r, i) == -1)
      return -1;
    if (emit (arg, i, slot->out, slot->len, slot->raw) == -1)
      return -1;
    release_entry (r, i);
  }
  return 0;
}

static int
ring_init (struct ring *r, struct packing *p, size_t first, size_t n)
{
  size_t segment = ((size_t) 1 << p->shift) + ESP_SEGMENT_OVERHEAD;

  *r = (struct ring) { .p = p, .next = first, .taken = first,
                       .end = first + n };
  r->nslots = RING_BYTES / segment;
  if (r->nslots > 4 * (size_t) p->threads)
    r->nslots = 4 * (size_t) p->threads;
  if (r->nslots < 2)
    r->nslots = 2;
  pthread_mutex_init (&r->lock, NULL);
  pthread_cond_init (&r->changed, NULL);
  r->slots = calloc (r->nslots, sizeof *r->slots);
  if (!r->slots)
    return center_no_memory ();
  for (size_t i = 0; i < r->nslots; i++)
    if (!(r->slots[i].out = malloc (segment)))
      return center_no_memory ();
  return 0;
}

static void
ring_clear (struct ring *r)
{
  int saved = errno;

  for (size_t i = 0; r->slots && i < r->nslots; i++)
    free (r->slots[i].out);
  free (r->slots);
  pthread_cond_destroy (&r->changed);
  pthread_mutex_destroy (&r->lock);
  errno = saved;
}

int
packing_run (struct packing *p, size_t first, size_t n, packing_fn emit,
             void *arg)
{
  __attribute__ ((cleanup (ring_clear))) struct ring r;
  pthread_t thread[THREADS_MAX];
  unsigned threads = p->threads > THREADS_MAX ? THREADS_MAX : p->threads;
  unsigned started = 0;
  int e, result;

  if (ring_init (&r, p, first, n) == -1)
    return -1;
  while (started < threads && started < n) {
    e = pthread_create (&thread[started], NULL, pack_worker, &r);
    if (e) {
      errno = e;
      if (started == 0)
        esp_error ("pthread_create: %m");
      break;
    }
    started++;
  }
  result = started || n == 0 ? emit_all (&r, first, emit, arg) : -1;
  e = errno;
  if (result == -1)
    fail (&r, e);
  while (started > 0)
    pthread_join (thread[--started], NULL);
  errno = e;
  return result;
}
