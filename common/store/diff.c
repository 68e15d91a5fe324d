/* SPDX-License-Identifier: BSD-3-Clause */
/* How two tips differ.
 *
 * Both chain maps are walked side by side in runs that both answer with one
 * owner and state.  Runs of the same owner are equal, and so are two runs
 * that both read as zero: nothing is read for them.  Everything else is
 * read and compared.  Tips of one tree share the owners from the root to
 * where they part, with the same numbers, so that owners are compared by
 * number and UUID.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "store/rp-internal.h"
#include "util/host.h"

#define DIFF_BLOCKS 256u        /* compared at a time: 1 MiB */

struct side {
  struct esp_image *image;
  struct esp_chain *chain;
  uint64_t size, blocks;
  char *buf;
};

static int
side_open (struct side *s, struct esp_store *store, const esp_uuid *uuid)
{
  s->image = esp_image_open (store, uuid);
  if (s->image == NULL)
    return -1;
  s->chain = esp_image_chain (s->image);
  s->size = esp_image_size (s->image);
  s->blocks = esp_blocks (s->size);
  s->buf = malloc (DIFF_BLOCKS * ESP_BLOCK_SIZE);
  if (s->buf)
    return 0;
  esp_error ("malloc: buffer: %m");
  return -1;
}

static void
side_close (struct side *s)
{
  int saved = errno;

  free (s->buf);
  if (s->image)
    esp_image_close (s->image);
  errno = saved;
}

/* The run at BLOCK; behind the end of the disk nobody wrote anything. */
static int
side_run (struct side *s, uint64_t block, uint64_t max, struct esp_run *run)
{
  if (block >= s->blocks) {
    *run = (struct esp_run) { .nblocks = max, .state = ESP_ABSENT };
    return 0;
  }
  if (max > s->blocks - block)
    max = s->blocks - block;
  return esp_chain_run (s->chain, block, max, run);
}

/* N blocks at BLOCK into the side's buffer, zeroes behind the end. */
static int
side_read (struct side *s, uint64_t block, uint64_t n)
{
  uint64_t offset = block << ESP_BLOCK_SHIFT, len = n << ESP_BLOCK_SHIFT;
  uint64_t there = offset >= s->size ? 0 : s->size - offset;

  if (there > len)
    there = len;
  memset (s->buf + there, 0, len - there);
  return there ? esp_image_pread (s->image, s->buf, there, offset) : 0;
}

static bool
same (const struct side *a, const struct esp_run *ra, const struct side *b,
      const struct esp_run *rb)
{
  if (ra->state != ESP_DATA && rb->state != ESP_DATA)
    return true;
  return ra->state == rb->state && ra->owner == rb->owner &&
    esp_uuid_eq (esp_chain_owner (a->chain, ra->owner),
                 esp_chain_owner (b->chain, rb->owner));
}

static void
count_block (const char *a, const char *b, struct esp_rp_diff *out)
{
  if (memcmp (a, b, ESP_BLOCK_SIZE) == 0)
    return;
  out->blocks++;
  for (unsigned i = 0; i < ESP_BLOCK_SIZE; i++)
    out->bytes += a[i] != b[i];
}

static int
compare (struct side *a, struct side *b, uint64_t block, uint64_t n,
         struct esp_rp_diff *out)
{
  uint64_t k;

  for (; n > 0; block += k, n -= k) {
    k = n < DIFF_BLOCKS ? n : DIFF_BLOCKS;
    if (side_read (a, block, k) == -1 || side_read (b, block, k) == -1)
      return -1;
    for (uint64_t i = 0; i < k; i++)
      count_block (a->buf + i * ESP_BLOCK_SIZE, b->buf + i * ESP_BLOCK_SIZE,
                   out);
  }
  return 0;
}

static int
diff (struct side *a, struct side *b, struct esp_rp_diff *out,
      esp_progress_fn progress, void *arg)
{
  uint64_t end = a->blocks > b->blocks ? a->blocks : b->blocks;
  struct esp_run ra, rb;
  uint64_t n;

  /* Steps of 16 MiB, so that progress is seen and can stop the work. */
  for (uint64_t block = 0; block < end; block += n) {
    n = 16 * DIFF_BLOCKS;
    if (n > end - block)
      n = end - block;
    if (progress && progress (arg, block << ESP_BLOCK_SHIFT,
                              end << ESP_BLOCK_SHIFT) == -1) {
      errno = ECANCELED;
      esp_error ("the comparison was interrupted");
      return -1;
    }
    if (side_run (a, block, n, &ra) == -1 ||
        side_run (b, block, ra.nblocks, &rb) == -1)
      return -1;
    n = rb.nblocks;
    if (!same (a, &ra, b, &rb) && compare (a, b, block, n, out) == -1)
      return -1;
  }
  return 0;
}

int
esp_rp_diff (struct esp_store *store, const esp_uuid *a, const esp_uuid *b,
             struct esp_rp_diff *out, esp_progress_fn progress, void *arg)
{
  __attribute__ ((cleanup (side_close))) struct side sa = { 0 };
  __attribute__ ((cleanup (side_close))) struct side sb = { 0 };

  memset (out, 0, sizeof *out);
  if (side_open (&sa, store, a) == -1 || side_open (&sb, store, b) == -1)
    return -1;
  return diff (&sa, &sb, out, progress, arg);
}
