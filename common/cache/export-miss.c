/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks behind the cache: reads that miss.
 *
 * The request's segments, up to WINDOW of them at once, are pieces, and go
 * through these states in rounds until all are DONE:
 *
 *   NEW ──► DONE     it came meanwhile
 *       ──► WAITS    another thread's fill has some of it ──► NEW
 *       ──► ASK      the fill is ours: the shared tiers ──► DONE: they had it
 *                                                       ──► ASK: another server
 *                                                           fetches it
 *                                                       ──► FETCH ──► DONE
 *
 * In each round all that is FETCH is read below, neighbours with one call,
 * and handed on, before anybody is waited for: first for other servers (ASK),
 * and only who holds no fill of its own waits for other threads' (WAITS).  So
 * nobody waits for somebody who waits for him.
 *
 * A fill may be larger than what was asked for (memory.c says by how much).
 * When such a read fails, or its piece has waited for WAITS_MAX fills of others
 * that did not bring it (they failed, or it is being written all the time),
 * just what was asked for is read, past the cache.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/export-internal.h"
#include "util/cleanup.h"

#define WINDOW 256u             /* pieces at once */
#define BOUNCE_MAX (4u << 20)   /* bytes of one read below that is copied; no
                                 * less than a segment */
#define WAITS_MAX 2u
#define LOOK_MS 100u            /* so often: is the server ending? */

enum state { NEW, WAITS, ASK, FETCH, DONE };

struct piece {
  struct cdisk_part part;
  uint32_t segment_len;
  uint8_t *buf;                 /* the client's, for PART */
  enum state state;
  unsigned waited;              /* fills of others that are over */
  bool asked;                   /* TICKET is to be ended */
  bool stale;                   /* written while FILL was on its way */
  struct esp_fill fill;         /* ASK, FETCH */
  struct esp_shared_ticket ticket;
};

struct window {
  struct esp_cdisk *disk;
  const struct esp_cdisk_below *below;
  uint8_t *bounce;              /* of bounce_size bytes, or NULL */
  size_t bounce_size;
  uint64_t again_ms;            /* when to ask the shared tiers again */
  int *err;
  unsigned n;
  struct piece piece[];
};

static void
window_free (struct window *w)
{
  free (w->bounce);
  free (w);
}

ESP_DEFINE_CLEANUP (window, struct window *, window_free)

/* SIZE bytes to read into, until the next call; NULL with *ERR. */
static uint8_t *
bounce (struct window *w, size_t size)
{
  if (w->bounce_size >= size)
    return w->bounce;
  free (w->bounce);
  w->bounce = malloc (size);
  w->bounce_size = w->bounce ? size : 0;
  if (!w->bounce)
    *w->err = ENOMEM;
  return w->bounce;
}

/* Does the client want all that the fill has, and nothing else? */
static bool
is_direct (const struct piece *p)
{
  return p->fill.at == p->part.at && p->fill.len == p->part.len;
}

static uint64_t
disk_offset (const struct window *w, const struct piece *p, uint32_t at)
{
  return ((uint64_t) p->part.key.segment << w->disk->key.shift) + at;
}

static int
read_below (struct window *w, uint8_t *buf, uint64_t len, uint64_t offset)
{
  const struct esp_cdisk_below *b = w->below;

  while (len > 0) {
    uint32_t n = len < w->disk->block_max ? len : w->disk->block_max;
    if (b->pread (b->arg, buf, n, offset, w->err) == -1)
      return -1;
    buf += n;
    offset += n;
    len -= n;
  }
  return 0;
}

/* --- the end of a fill ------------------------------------------------------ */

/* Without bytes: others may try. */
static void
drop_piece (struct window *w, struct piece *p)
{
  struct esp_cdisk *disk = w->disk;

  if (p->asked)
    esp_shared_give_up (disk->shared, &p->part.key, &p->ticket);
  p->asked = false;
  esp_memory_fill_end (disk->memory, &p->fill, NULL);
}

static void
drop_all (struct window *w)
{
  for (unsigned i = 0; i < w->n; ++i)
    if (w->piece[i].state == ASK || w->piece[i].state == FETCH) {
      drop_piece (w, &w->piece[i]);
      w->piece[i].state = NEW;
    }
}

/* BYTES are the fill's; where they are not in the client's buffer already,
 * what it wants of them goes there.
 */
static void
end_piece (struct window *w, struct piece *p, const uint8_t *bytes)
{
  if (!is_direct (p) || bytes != p->buf)
    memcpy (p->buf, bytes + (p->part.at - p->fill.at), p->part.len);
  p->stale = p->asked && esp_memory_fill_stale (w->disk->memory, &p->fill);
  esp_memory_fill_end (w->disk->memory, &p->fill, bytes);
  p->state = DONE;
}

/* The shared tiers' turn, when nobody here waits for it any more. */
static void
share_piece (struct window *w, struct piece *p, const uint8_t *bytes)
{
  struct esp_cdisk *disk = w->disk;

  if (!p->asked)
    return;
  p->asked = false;
  if (p->stale)
    esp_shared_give_up (disk->shared, &p->part.key, &p->ticket);
  else
    esp_shared_put (disk->shared, &p->part.key, bytes, p->fill.len, 0,
                    &p->ticket);
}

/* --- NEW -------------------------------------------------------------------- */

/* Past the cache. */
static int
read_plain (struct window *w, struct piece *p)
{
  p->state = DONE;
  return read_below (w, p->buf, p->part.len,
                     disk_offset (w, p, p->part.at));
}

static int
look (struct window *w, struct piece *p)
{
  struct esp_cdisk *disk = w->disk;

  switch (esp_memory_miss (disk->memory, &p->part.key, p->buf, p->part.at,
                           p->part.len, p->segment_len, disk->whole,
                           &p->fill)) {
  case ESP_MEMORY_HERE:
    p->state = DONE;
    break;
  case ESP_MEMORY_FETCH:
    p->state = disk->shared ? ASK : FETCH;
    p->asked = false;
    memset (&p->ticket, 0, sizeof p->ticket);
    break;
  case ESP_MEMORY_WAIT:
    if (p->waited >= WAITS_MAX)
      return read_plain (w, p);
    p->state = WAITS;
    break;
  }
  return 0;
}

static int
look_all (struct window *w)
{
  for (unsigned i = 0; i < w->n; ++i)
    if (w->piece[i].state == NEW && look (w, &w->piece[i]) == -1)
      return -1;
  return 0;
}

/* --- ASK --------------------------------------------------------------------- */

static void
take_hit (struct window *w, struct piece *p, const uint8_t *segment)
{
  p->asked = false;
  if (p->fill.whole) {
    end_piece (w, p, segment);
    return;
  }
  memcpy (p->buf, segment + p->part.at, p->part.len);
  esp_memory_fill_end_all (w->disk->memory, &p->fill, segment,
                           p->segment_len);
  p->state = DONE;
}

/* Only who fetches a whole segment takes a lease: a part is nothing that
 * could be put.
 */
static int
ask (struct window *w, struct piece *p)
{
  bool direct = p->fill.whole && is_direct (p);
  uint8_t *to = direct ? p->buf : bounce (w, p->segment_len);

  if (!to)
    return -1;
  switch (esp_shared_get (w->disk->shared, &p->part.key, to, p->segment_len,
                          p->fill.whole ? 0 : ESP_SHARED_LOOK, &p->ticket)) {
  case ESP_SHARED_HIT:
    take_hit (w, p, to);
    break;
  case ESP_SHARED_MISS:
    p->asked = p->fill.whole;
    p->state = FETCH;
    break;
  case ESP_SHARED_BUSY:
    p->asked = true;
    if (w->again_ms == 0 || p->ticket.again_ms < w->again_ms)
      w->again_ms = p->ticket.again_ms;
    break;
  }
  return 0;
}

static int
ask_all (struct window *w)
{
  w->again_ms = 0;
  for (unsigned i = 0; i < w->n; ++i)
    if (w->piece[i].state == ASK && ask (w, &w->piece[i]) == -1)
      return -1;
  return 0;
}

/* --- FETCH -------------------------------------------------------------------- */

/* Neighbours that are read with one call. */
struct run {
  struct piece *first;
  unsigned n;
  uint64_t offset, len;
  bool direct;                  /* into the client's buffer */
};

static bool
run_takes (const struct window *w, const struct run *r,
           const struct piece *p)
{
  if (p->state != FETCH ||
      disk_offset (w, p, p->fill.at) != r->offset + r->len)
    return false;
  return (r->direct && is_direct (p)) || r->len + p->fill.len <= BOUNCE_MAX;
}

static struct run
run_from (struct window *w, unsigned i)
{
  struct piece *p = &w->piece[i];
  struct run r = {
    .first = p, .n = 1, .offset = disk_offset (w, p, p->fill.at),
    .len = p->fill.len, .direct = is_direct (p),
  };

  while (++i < w->n && run_takes (w, &r, &w->piece[i])) {
    r.direct = r.direct && is_direct (&w->piece[i]);
    r.len += w->piece[i].fill.len;
    r.n++;
  }
  return r;
}

static void
run_end (struct window *w, const struct run *r, const uint8_t *bytes)
{
  const uint8_t *at = bytes;

  for (unsigned i = 0; i < r->n; at += r->first[i++].fill.len)
    end_piece (w, &r->first[i], at);
  at = bytes;
  for (unsigned i = 0; i < r->n; at += r->first[i++].fill.len)
    share_piece (w, &r->first[i], at);
}

/* It failed.  Was it perhaps something that nobody asked for? */
static int
run_retry (struct window *w, const struct run *r)
{
  uint64_t wanted = 0;

  for (unsigned i = 0; i < r->n; ++i)
    wanted += r->first[i].part.len;
  if (wanted == r->len)
    return -1;
  for (unsigned i = 0; i < r->n; ++i) {
    drop_piece (w, &r->first[i]);
    r->first[i].state = DONE;
  }
  for (unsigned i = 0; i < r->n; ++i)
    if (read_plain (w, &r->first[i]) == -1)
      return -1;
  return 0;
}

static int
fetch_all (struct window *w)
{
  for (unsigned i = 0; i < w->n; ++i) {
    if (w->piece[i].state != FETCH)
      continue;
    struct run r = run_from (w, i);
    uint8_t *to = r.direct ? r.first->buf : bounce (w, r.len);
    if (!to)
      return -1;
    if (read_below (w, to, r.len, r.offset) == 0)
      run_end (w, &r, to);
    else if (run_retry (w, &r) == -1)
      return -1;
  }
  return 0;
}

/* --- waiting ------------------------------------------------------------------ */

static struct piece *
first_in (struct window *w, enum state state)
{
  for (unsigned i = 0; i < w->n; ++i)
    if (w->piece[i].state == state)
      return &w->piece[i];
  return NULL;
}

static void
sleep_ms (uint64_t ms)
{
  struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

  nanosleep (&t, NULL);
}

static void
wait_for_fill (struct window *w, struct piece *p)
{
  if (!esp_memory_wait (w->disk->memory, &p->part.key, p->part.at,
                        p->part.len, LOOK_MS))
    return;
  p->waited++;
  for (unsigned i = 0; i < w->n; ++i)
    if (w->piece[i].state == WAITS)
      w->piece[i].state = NEW;
}

/* 1: go on; 0: all is done; -1 with *ERR. */
static int
wait_for_others (struct window *w)
{
  struct piece *waits = first_in (w, WAITS);

  if (first_in (w, ASK))
    sleep_ms (w->again_ms);
  else if (waits)
    wait_for_fill (w, waits);
  else
    return 0;
  if (!w->below->ending || !w->below->ending ())
    return 1;
  *w->err = ESHUTDOWN;
  return -1;
}

/* --- the walk ----------------------------------------------------------------- */

static int
run_window (struct window *w)
{
  int r;

  do {
    if (look_all (w) == -1 || ask_all (w) == -1 || fetch_all (w) == -1)
      r = -1;
    else
      r = wait_for_others (w);
  } while (r == 1);
  if (r == -1)
    drop_all (w);
  return r;
}

/* The first pieces of [OFFSET, END); NULL with *ERR. */
static struct window *
window_new (struct esp_cdisk *disk, const struct esp_cdisk_below *below,
            uint8_t *buf, uint64_t offset, uint64_t end, int *err)
{
  uint32_t n = cdisk_parts (disk, offset, end);

  if (n > WINDOW)
    n = WINDOW;
  struct window *w = malloc (sizeof *w + n * sizeof *w->piece);
  if (!w) {
    *err = ENOMEM;
    return NULL;
  }
  *w = (struct window) { .disk = disk, .below = below, .err = err, .n = n };
  for (uint32_t i = 0; i < n; ++i) {
    struct cdisk_part part = cdisk_part (disk, offset, end);
    w->piece[i] = (struct piece) {
      .part = part, .buf = buf,
      .segment_len = cdisk_segment_len (disk, part.key.segment),
    };
    buf += part.len;
    offset += part.len;
  }
  return w;
}

int
cdisk_miss (struct esp_cdisk *disk, const struct esp_cdisk_below *below,
            uint8_t *buf, uint64_t offset, uint64_t end, int *err)
{
  while (offset < end) {
    ESP_CLEANUP (window) struct window *w =
      window_new (disk, below, buf, offset, end, err);
    if (!w || run_window (w) == -1)
      return -1;
    const struct piece *last = &w->piece[w->n - 1];
    uint64_t done = disk_offset (w, last, last->part.at) + last->part.len;
    buf += done - offset;
    offset = done;
  }
  return 0;
}
