/* SPDX-License-Identifier: BSD-3-Clause */
/* Filling a draft from a source.
 *
 * A root gets the blocks that are not zero; the others stay absent, which
 * reads as zero and is told to clients as a hole.  A child gets the blocks
 * in which the source differs from the parent: as data, or, where the
 * source is zero and the parent is not, as zero.  Blocks that follow each
 * other are written with one write.  What the source says to be zero is not
 * looked at block by block where the parent has no data either, so that an
 * empty terabyte costs nothing.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "image/image-internal.h"
#include "util/file.h"
#include "util/host.h"

struct import {
  struct esp_draft *draft;
  struct esp_image *parent;     /* NULL: a root */
  uint64_t parent_size;
  char *old;                    /* the parent's bytes: ESP_READ_BYTES */
  char *last;                   /* one block: the last of an odd size */
};

/* LEN bytes of the parent at OFFSET; zeroes behind its end. */
static int
read_parent (struct import *im, uint64_t offset, uint64_t len)
{
  uint64_t there = 0;

  if (offset < im->parent_size)
    there = im->parent_size - offset < len ? im->parent_size - offset : len;
  memset (im->old + there, 0, len - there);
  return there ? esp_image_pread (im->parent, im->old, there, offset) : 0;
}

/* Write blocks [FIRST, FIRST+N) of BUF, which stands for OFFSET. */
static int
write_blocks (struct import *im, const char *buf, uint64_t offset,
              uint64_t first, uint64_t n)
{
  uint64_t at = offset + (first << ESP_BLOCK_SHIFT);

  if (esp_pwrite_all (im->draft->data_fd, buf + (first << ESP_BLOCK_SHIFT),
                      n << ESP_BLOCK_SHIFT, at) == -1) {
    esp_error ("pwrite: data of restore point %s: %m", im->draft->rp.name);
    return -1;
  }
  esp_map_set (im->draft->map, at >> ESP_BLOCK_SHIFT, n, ESP_DATA, NULL);
  return 0;
}

/* What block I of BUF becomes, with the parent's bytes in im->old. */
static enum esp_state
judge (const struct import *im, const char *buf, uint64_t i)
{
  const char *new = buf + (i << ESP_BLOCK_SHIFT);

  if (im->parent == NULL)
    return esp_is_zero (new, ESP_BLOCK_SIZE) ? ESP_ABSENT : ESP_DATA;
  if (memcmp (new, im->old + (i << ESP_BLOCK_SHIFT), ESP_BLOCK_SIZE) == 0)
    return ESP_ABSENT;
  return esp_is_zero (new, ESP_BLOCK_SIZE) ? ESP_ZERO : ESP_DATA;
}

/* N whole blocks of BUF at OFFSET, at most ESP_READ_BYTES. */
static int
import_blocks (struct import *im, const char *buf, uint64_t offset,
               uint64_t n)
{
  uint64_t first = 0;           /* of the run of data being gathered */

  if (im->parent && read_parent (im, offset, n << ESP_BLOCK_SHIFT) == -1)
    return -1;
  for (uint64_t i = 0; i <= n; i++) {
    enum esp_state s = i < n ? judge (im, buf, i) : ESP_ABSENT;

    if (s == ESP_DATA)
      continue;
    if (i > first && write_blocks (im, buf, offset, first, i - first) == -1)
      return -1;
    first = i + 1;
    if (s == ESP_ZERO)
      esp_map_set (im->draft->map, (offset >> ESP_BLOCK_SHIFT) + i, 1,
                   ESP_ZERO, NULL);
  }
  return 0;
}

static int
import_data (struct import *im, uint64_t offset, uint64_t len, const char *buf)
{
  uint64_t k;

  for (; len >= ESP_BLOCK_SIZE; offset += k, len -= k, buf += k) {
    k = len < ESP_READ_BYTES ? len & ~(ESP_BLOCK_SIZE - 1) : ESP_READ_BYTES;
    if (import_blocks (im, buf, offset, k >> ESP_BLOCK_SHIFT) == -1)
      return -1;
  }
  if (len == 0)
    return 0;
  memcpy (im->last, buf, len);
  memset (im->last + len, 0, ESP_BLOCK_SIZE - len);
  return import_blocks (im, im->last, offset, 1);
}

/* The source is zero in a run in which the parent has data. */
static int
zero_over_data (void *arg, uint64_t offset, uint64_t len, enum esp_state state)
{
  struct import *im = arg;
  uint64_t k;

  for (; state == ESP_DATA && len > 0; offset += k, len -= k) {
    k = len < ESP_READ_BYTES ? len : ESP_READ_BYTES;
    if (read_parent (im, offset, esp_blocks (k) << ESP_BLOCK_SHIFT) == -1)
      return -1;
    for (uint64_t i = 0; i < esp_blocks (k); i++)
      if (!esp_is_zero (im->old + (i << ESP_BLOCK_SHIFT), ESP_BLOCK_SIZE))
        esp_map_set (im->draft->map, (offset >> ESP_BLOCK_SHIFT) + i, 1,
                     ESP_ZERO, NULL);
  }
  return 0;
}

static int
import_run (void *arg, uint64_t offset, uint64_t len, const void *buf)
{
  struct import *im = arg;

  if (buf)
    return import_data (im, offset, len, buf);
  if (im->parent == NULL || offset >= im->parent_size)
    return 0;
  if (len > im->parent_size - offset)
    len = im->parent_size - offset;
  return esp_image_extents (im->parent, offset, len, zero_over_data, im);
}

static int
check_sizes (const struct import *im, const struct esp_image_source *source)
{
  char a[16], b[16];

  if (source->size < im->parent_size) {
    errno = EINVAL;
    esp_error ("%s: its disk (%s, %llu bytes) is smaller than the parent's "
               "(%s, %llu bytes): enlarge it first (qemu-img resize)",
               source->path ? source->path : "the image",
               esp_size_format (source->size, a),
               (unsigned long long) source->size,
               esp_size_format (im->parent_size, b),
               (unsigned long long) im->parent_size);
    return -1;
  }
  if (source->size > im->draft->rp.size) {
    errno = EINVAL;
    esp_error ("%s: its disk (%s) is larger than restore point %s is to be "
               "(%s)", source->path ? source->path : "the image",
               esp_size_format (source->size, a), im->draft->rp.name,
               esp_size_format (im->draft->rp.size, b));
    return -1;
  }
  return 0;
}

int
esp_draft_import (struct esp_draft *draft, struct esp_image_source *source,
                  struct esp_image *parent, esp_progress_fn progress,
                  void *parg)
{
  CLEANUP_FREE char *old = malloc (ESP_READ_BYTES);
  CLEANUP_FREE char *last = malloc (ESP_BLOCK_SIZE);
  struct import im = {
    .draft = draft, .parent = parent, .old = old, .last = last,
    .parent_size = parent ? esp_image_size (parent) : 0,
  };

  if (old == NULL || last == NULL) {
    esp_error ("malloc: buffer: %m");
    return -1;
  }
  if (check_sizes (&im, source) == -1 ||
      esp_source_read (source, import_run, &im, progress, parg) == -1)
    return -1;
  if (parent && esp_map_count (draft->map, ESP_DATA) == 0 &&
      esp_map_count (draft->map, ESP_ZERO) == 0)
    esp_warning ("restore point %s: the image does not differ from the "
                 "parent", draft->rp.name);
  return 0;
}
