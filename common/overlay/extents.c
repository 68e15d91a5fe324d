/* SPDX-License-Identifier: BSD-3-Clause */
/* What is where: the overlay's own runs, and the disk below where the
 * overlay has none.  Never further than the request, runs joined.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>

#include "overlay/internal.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* Joins neighbours of one state before it hands them on. */
struct joiner {
  esp_extent_fn fn;
  void *arg;
  bool req_one;
  uint64_t offset, len;         /* the run that may still grow */
  enum esp_state state;
  uint64_t end;                 /* of the request */
  uint64_t known;               /* up to where runs were added */
  int result;                   /* of FN: 1 stop, -1 error */
};

static int
joiner_emit (struct joiner *j)
{
  if (j->len == 0 || j->result)
    return j->result;
  j->result = j->fn (j->arg, j->offset, j->len, j->state);
  j->len = 0;
  if (j->result == 0 && j->req_one)
    j->result = 1;
  return j->result;
}

/* An esp_extent_fn: also gets what is below. */
static int
joiner_add (void *arg, uint64_t offset, uint64_t len, enum esp_state state)
{
  struct joiner *j = arg;

  if (j->result || offset >= j->end)
    return j->result ? j->result : 1;
  len = MIN (len, j->end - offset);
  j->known = offset + len;
  if (j->len && j->state == state && j->offset + j->len == offset) {
    j->len += len;
    return 0;
  }
  if (joiner_emit (j))
    return j->result;
  j->offset = offset;
  j->len = len;
  j->state = state;
  return 0;
}

/* Ask below for [OFFSET, OFFSET+COUNT), clipped to it. */
static int
add_below (struct joiner *j, const struct esp_below *below, uint64_t offset,
           uint64_t count, int *err)
{
  uint64_t end = j->end;

  j->end = offset + count;
  int r = below->extents (below->ctx, offset, count, j->req_one, joiner_add,
                          j, err);
  j->end = end;
  return r;
}

int
esp_overlay_extents (struct esp_overlay *o, const struct esp_below *below,
                     uint64_t offset, uint64_t count, bool req_one,
                     esp_extent_fn fn, void *arg, int *err)
{
  struct joiner j = { .fn = fn, .arg = arg, .req_one = req_one,
                      .end = offset + count, .known = offset };

  while (offset < j.end && j.result == 0) {
    uint64_t block = offset >> ESP_BLOCK_SHIFT, run = UINT64_MAX;
    uint64_t max = ((j.end - 1) >> ESP_BLOCK_SHIFT) - block + 1;
    enum esp_state s = overlay_is_ready (o)
      ? esp_map_run (o->map, block, max, &run) : ESP_ABSENT;
    uint64_t n = run >= max ? j.end - offset
      : ((block + run) << ESP_BLOCK_SHIFT) - offset;

    if (s != ESP_ABSENT)
      joiner_add (&j, offset, n, s);
    else if (add_below (&j, below, offset, n, err) == -1)
      return -1;
    offset += n;
    if (j.known < offset)
      break;                    /* below may tell its first runs only */
  }
  joiner_emit (&j);
  if (j.result != -1)
    return 0;
  *err = errno;
  return -1;
}

int
esp_overlay_cache (struct esp_overlay *o, const struct esp_below *below,
                   uint64_t offset, uint64_t count, int *err)
{
  uint64_t end = offset + count;

  while (offset < end) {
    uint64_t block = offset >> ESP_BLOCK_SHIFT, run = UINT64_MAX;
    uint64_t max = ((end - 1) >> ESP_BLOCK_SHIFT) - block + 1;
    enum esp_state s = overlay_is_ready (o)
      ? esp_map_run (o->map, block, max, &run) : ESP_ABSENT;
    uint64_t n = run >= max ? end - offset
      : ((block + run) << ESP_BLOCK_SHIFT) - offset;

    if (s == ESP_DATA)
      /* A hint: that it fails changes nothing. */
      posix_fadvise (o->data_fd, (off_t) offset, (off_t) n,
                     POSIX_FADV_WILLNEED);
    else if (s == ESP_ABSENT && below->cache &&
             below->cache (below->ctx, offset, n, err) == -1)
      return -1;
    offset += n;
  }
  return 0;
}
