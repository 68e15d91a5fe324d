/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading and writing an overlay.  docs/overlay.md, "Threads and locks",
 * has the steps of each operation (R, W, P, F, Z) and why they are right
 * beside each other.
 *
 * Writes and zeroes are one walk: `walk` cuts a range into partial blocks
 * and into runs of whole blocks that end at tile borders, and calls the
 * verb's two functions.  The last block of a disk whose size is no multiple
 * of 4 KiB is whole when it is covered up to the end of the disk.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "overlay/internal.h"
#include "util/file.h"
#include "util/guard.h"
#include "util/host.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

static inline uint64_t
block_of (uint64_t offset)
{
  return offset >> ESP_BLOCK_SHIFT;
}

static inline uint64_t
block_start (uint64_t block)
{
  return block << ESP_BLOCK_SHIFT;
}

/* Bytes of the disk in the blocks [BLOCK, BLOCK+N). */
static inline uint64_t
block_bytes (const struct esp_overlay *o, uint64_t block, uint64_t n)
{
  return MIN (block_start (block + n), o->size) - block_start (block);
}

static inline pthread_rwlock_t *
stripe (struct esp_overlay *o, uint64_t block)
{
  return &o->stripes[(block / ESP_TILE_BLOCKS) % OVERLAY_STRIPES];
}

static inline enum esp_state
state_of (const struct esp_overlay *o, uint64_t block)
{
  uint64_t run;

  return esp_map_run (o->map, block, 1, &run);
}

/* --- reading ------------------------------------------------------------ */

static int
read_data (struct esp_overlay *o, void *buf, uint64_t count, uint64_t offset,
           int *err)
{
  int r = o->mapping ? esp_guard_copy (buf, o->mapping + offset, count)
    : esp_pread_all (o->data_fd, buf, count, offset);

  if (r == 0)
    return 0;
  *err = EIO;
  esp_error ("read: data of overlay of %s at %" PRIu64 ": %m",
             overlay_who (o), offset);
  return -1;
}

int
esp_overlay_pread (struct esp_overlay *o, const struct esp_below *below,
                   void *buf, uint64_t count, uint64_t offset, int *err)
{
  if (!overlay_is_ready (o))
    return below->pread (below->ctx, buf, count, offset, err);

  while (count > 0) {
    uint64_t block = block_of (offset), run;
    enum esp_state s =
      esp_map_run (o->map, block, block_of (offset + count - 1) - block + 1,
                   &run);
    uint64_t n = MIN (count, block_start (block + run) - offset);
    int r = 0;

    if (s == ESP_ABSENT)
      r = below->pread (below->ctx, buf, n, offset, err);
    else if (s == ESP_DATA)
      r = read_data (o, buf, n, offset, err);
    else
      memset (buf, 0, n);
    if (r == -1)
      return -1;
    buf = (char *) buf + n;
    count -= n;
    offset += n;
  }
  return 0;
}

/* --- the walk of write and zero ----------------------------------------- */

struct change {
  struct esp_overlay *o;
  const struct esp_below *below;
  const char *buf;              /* NULL: zeroes */
  uint64_t offset;              /* of BUF in the disk */
  /* Zero: blocks that were DATA and are to be punched, [from, to). */
  uint64_t punch_from, punch_to;
  int *err;
};

typedef int (*part_fn) (struct change *c, uint64_t offset, uint64_t count);
typedef int (*whole_fn) (struct change *c, uint64_t block, uint64_t n);

static int
walk (struct change *c, uint64_t offset, uint64_t count, part_fn part,
      whole_fn whole)
{
  uint64_t end = offset + count;

  while (offset < end) {
    uint64_t block = block_of (offset);
    uint64_t tile_end = (block / ESP_TILE_BLOCKS + 1) * ESP_TILE_BLOCKS;
    uint64_t last = end == c->o->size ? esp_blocks (end) : block_of (end);
    uint64_t next = MIN (last, tile_end);
    int r;

    if (offset == block_start (block) && next > block) {
      r = whole (c, block, next - block);
      offset = block_start (next);
    }
    else {
      uint64_t n = MIN (end, block_start (block + 1)) - offset;
      r = part (c, offset, n);
      offset += n;
    }
    if (r == -1)
      return -1;
  }
  return 0;
}

/* --- data ---------------------------------------------------------------- */

static int
write_data (struct change *c, const void *buf, uint64_t count,
            uint64_t offset)
{
  if (esp_pwrite_all (c->o->data_fd, buf, count, offset) == -1) {
    *c->err = errno;
    if (errno != ENOSPC || space_complain (&c->o->no_space)) {
      errno = *c->err;
      esp_error ("write: data of overlay of %s at %" PRIu64 ": %m",
                 overlay_who (c->o), offset);
    }
    return -1;
  }
  overlay_touch (c->o);
  return 0;
}

/* Set [BLOCK, BLOCK+N) to DATA, for which RESERVED blocks are counted. */
static void
set_data (struct esp_overlay *o, uint64_t block, uint64_t n,
          uint64_t *reserved)
{
  int64_t added;

  esp_map_set (o->map, block, n, ESP_DATA, &added);
  *reserved -= (uint64_t) added;
}

/* --- whole blocks: W ------------------------------------------------------ */

/* The runs of a tile's blocks that are not DATA: no more than half of the
 * blocks can begin one.
 */
struct fresh {
  unsigned nruns;
  uint64_t total;
  struct { uint16_t first, n; } runs[ESP_TILE_BLOCKS / 2 + 1];
};

static void
find_fresh (const struct esp_overlay *o, uint64_t block, uint64_t n,
            struct fresh *f)
{
  uint64_t run;

  f->nruns = 0;
  f->total = 0;
  for (uint64_t i = 0; i < n; i += run) {
    if (esp_map_run (o->map, block + i, n - i, &run) == ESP_DATA)
      continue;
    f->total += run;
    if (f->nruns &&
        f->runs[f->nruns - 1].first + f->runs[f->nruns - 1].n == i)
      f->runs[f->nruns - 1].n += run;   /* ABSENT beside ZERO */
    else {
      f->runs[f->nruns].first = i;
      f->runs[f->nruns++].n = run;
    }
  }
}

static int
write_whole (struct change *c, uint64_t block, uint64_t n)
{
  struct esp_overlay *o = c->o;
  uint64_t start = block_start (block);
  struct fresh fresh;

  ESP_RDLOCK_SCOPE (stripe (o, block));
  find_fresh (o, block, n, &fresh);
  uint64_t reserved = fresh.total;
  if (space_reserve (o, reserved, c->err) == -1)
    return -1;
  int r = write_data (c, c->buf + (start - c->offset),
                      block_bytes (o, block, n), start);
  /* What was DATA stays as it is: a zero that came meanwhile wins, and
   * nothing becomes DATA that was not counted.
   */
  for (unsigned i = 0; r == 0 && i < fresh.nruns; ++i)
    set_data (o, block + fresh.runs[i].first, fresh.runs[i].n, &reserved);
  if (r == 0 && fresh.nruns)
    overlay_touch (o);          /* the bits, too */
  if (reserved)
    space_return (o, reserved);
  return r;
}

/* --- parts of blocks: P and F --------------------------------------------- */

/* P, where the block is DATA; 1 where it is not. */
static int
write_in_place (struct change *c, const char *buf, uint64_t count,
                uint64_t offset)
{
  ESP_RDLOCK_SCOPE (stripe (c->o, block_of (offset)));
  if (state_of (c->o, block_of (offset)) != ESP_DATA)
    return 1;
  return write_data (c, buf, count, offset);
}

/* The whole block BUF becomes DATA, under the exclusive lock. */
static int
fill_locked (struct change *c, const char *buf, uint64_t block)
{
  struct esp_overlay *o = c->o;
  uint64_t reserved = 1;

  if (space_reserve (o, 1, c->err) == -1)
    return -1;
  int r = write_data (c, buf, block_bytes (o, block, 1), block_start (block));
  if (r == 0) {
    set_data (o, block, 1, &reserved);
    overlay_touch (o);
  }
  if (reserved)
    space_return (o, reserved);
  return r;
}

/* Merge over what BLOCK_BUF has from below, unless the block is no longer
 * ABSENT.
 */
static int
merge (struct change *c, char *block_buf, const char *buf, uint64_t count,
       uint64_t offset)
{
  uint64_t block = block_of (offset);

  ESP_WRLOCK_SCOPE (stripe (c->o, block));
  enum esp_state s = state_of (c->o, block);
  if (s == ESP_DATA)
    return write_data (c, buf, count, offset);
  if (s == ESP_ZERO)
    memset (block_buf, 0, ESP_BLOCK_SIZE);
  memcpy (block_buf + (offset - block_start (block)), buf, count);
  return fill_locked (c, block_buf, block);
}

static int
write_part (struct change *c, uint64_t offset, uint64_t count)
{
  static const char zeroes[ESP_BLOCK_SIZE];
  const char *buf = c->buf ? c->buf + (offset - c->offset) : zeroes;
  uint64_t block = block_of (offset);
  char block_buf[ESP_BLOCK_SIZE];

  int r = write_in_place (c, buf, count, offset);
  if (r <= 0)
    return r;
  /* No lock is held: this may take as long as it likes. */
  if (state_of (c->o, block) == ESP_ABSENT &&
      c->below->pread (c->below->ctx, block_buf,
                       block_bytes (c->o, block, 1), block_start (block),
                       c->err) == -1)
    return -1;
  return merge (c, block_buf, buf, count, offset);
}

/* --- whole blocks: Z ------------------------------------------------------ */

static void
punch (struct change *c)
{
  uint64_t from = block_start (c->punch_from), to = block_start (c->punch_to);

  if (from == to)
    return;
  /* Only for the space: nothing reads data below ZERO, so where the file
   * system cannot, it stays.
   */
  if (fallocate (c->o->data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                 (off_t) from, (off_t) (to - from)) == -1)
    esp_debug ("fallocate: overlay of %s: %m", overlay_who (c->o));
  c->punch_from = c->punch_to = 0;
}

static int
zero_whole (struct change *c, uint64_t block, uint64_t n)
{
  struct esp_overlay *o = c->o;
  uint64_t run;
  int64_t added;

  ESP_RDLOCK_SCOPE (stripe (o, block));
  for (uint64_t b = block; b < block + n; b += run) {
    if (esp_map_run (o->map, b, block + n - b, &run) != ESP_DATA)
      continue;
    if (c->punch_to != b) {
      punch (c);                /* of before: already ZERO */
      c->punch_from = b;
    }
    c->punch_to = b + run;
    esp_map_set (o->map, b, run, ESP_ZERO, &added);
    space_return (o, (uint64_t) -added);
  }
  /* The rest, and what a write has made DATA meanwhile. */
  esp_map_set (o->map, block, n, ESP_ZERO, &added);
  space_return (o, (uint64_t) -added);
  overlay_touch (o);
  return 0;
}

static int
zero_part (struct change *c, uint64_t offset, uint64_t count)
{
  if (state_of (c->o, block_of (offset)) == ESP_ZERO)
    return 0;
  return write_part (c, offset, count);
}

/* --- verbs ---------------------------------------------------------------- */

int
esp_overlay_pwrite (struct esp_overlay *o, const struct esp_below *below,
                    const void *buf, uint64_t count, uint64_t offset,
                    bool fua, int *err)
{
  struct change c = { .o = o, .below = below, .buf = buf, .offset = offset,
                      .err = err };

  if (overlay_setup (o, err) == -1 ||
      walk (&c, offset, count, write_part, write_whole) == -1)
    return -1;
  return fua ? esp_overlay_flush (o, err) : 0;
}

int
esp_overlay_zero (struct esp_overlay *o, const struct esp_below *below,
                  uint64_t count, uint64_t offset, bool fua, int *err)
{
  struct change c = { .o = o, .below = below, .offset = offset, .err = err };

  if (overlay_setup (o, err) == -1)
    return -1;
  int r = walk (&c, offset, count, zero_part, zero_whole);
  punch (&c);
  if (r == -1)
    return -1;
  return fua ? esp_overlay_flush (o, err) : 0;
}
