/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading a layer of which parts may not be here.
 *
 * A read looks at the drop counter, then at the state of each segment that
 * it touches, copies, and looks at the counter again: when it moved, what was
 * copied may be a hole, and the read begins again.  When all is here and
 * checked the states need no look; then it costs three loads.
 *
 * A long read goes in steps, so that it comes to an end also where segments
 * are taken away as fast as they come; but what is missing of all of it is
 * asked for at once.
 */

#include <config.h>

#include <errno.h>

#include "store/have-internal.h"
#include "store/layer-internal.h"
#include "util/host.h"

/* Bytes of one step: at least a segment. */
#define STEP (UINT64_C (1) << ESP_SEGMENT_SHIFT_MAX)

/* Whether `data` may be one of a delayed restore point says meta.  But
 * reading it for each layer of a long chain takes long; a stored one's data
 * is read-only and beside it is no `have`, and then nobody needs to ask.
 */
bool
layer_may_be_delayed (int dir, const struct stat *data)
{
  return (data->st_mode & 0222) ||
    faccessat (dir, ESP_RP_HAVE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int
layer_open_delayed (struct esp_store *store, const esp_uuid *uuid,
                    struct esp_have **have)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  *have = NULL;
  if (esp_rp_load_meta (store, uuid, &rp, NULL) == -1)
    return -1;
  if (rp.kind != ESP_RP_DELAYED)
    return 0;
  *have = esp_have_open (store, uuid);
  return *have ? 0 : -1;
}

/* A segment that the chain map knows, but not the table. */
static int
no_segment (const struct esp_have *h)
{
  errno = EIO;
  esp_error ("restore point %s: its table of segments is not that of its "
             "blocks: run 'espalier store check --repair'", h->name);
  return -1;
}

/* The first of [OFFSET, END) that is not here and right, or END.  What is
 * here, but was not checked, is checked.  -1: there is no such segment.
 */
static int
first_missing (struct esp_have *h, uint64_t offset, uint64_t end,
               uint64_t *at)
{
  uint64_t next;

  for (*at = offset; *at < end; *at = next) {
    uint32_t number = *at >> h->shift;
    size_t entry = esp_have_find (h, number);

    next = ((uint64_t) number + 1) << h->shift;
    if (entry == h->n || esp_have_number (h, entry) != number)
      return no_segment (h);
    while (esp_have_state (h, entry) == ESP_HAVE_LOCAL)
      if (esp_have_check (h, entry, false) == -1)
        break;
    if (esp_have_state (h, entry) != ESP_HAVE_CHECKED)
      return 0;
  }
  *at = end;
  return 0;
}

/* Make [OFFSET, END) local; *LAST is the end of the whole read, of which
 * everything that is missing is asked for, once.
 */
static int
make_local (struct esp_have *h, uint64_t offset, uint64_t end, uint64_t *last)
{
  uint64_t at;

  for (;;) {
    if (first_missing (h, offset, end, &at) == -1)
      return -1;
    if (at == end)
      return 0;
    if (have_fetch (h, at, (*last > end ? *last : end) - at) == -1)
      return -1;
    *last = end;
  }
}

int
layer_read_delayed (struct layer *layer, struct esp_have *h, void *buf,
                    uint64_t n, uint64_t offset)
{
  uint64_t last = offset + n, k, drops;
  uint8_t *p = buf;

  for (; n > 0; p += k, offset += k, n -= k) {
    k = STEP - offset % STEP;
    if (k > n)
      k = n;
    do {
      drops = have_drops (h);
      if (!esp_have_complete (h) &&
          make_local (h, offset, offset + k, &last) == -1)
        return -1;
      if (layer_read_now (layer, p, k, offset) == -1)
        return -1;
      atomic_thread_fence (memory_order_acquire);
    } while (__builtin_expect (have_drops (h) != drops, 0));
  }
  return 0;
}

void
layer_cache_delayed (struct layer *layer, struct esp_have *h, uint64_t n,
                     uint64_t offset)
{
  uint64_t end = offset + n, next;

  if (esp_have_complete (h)) {
    layer_cache_now (layer, n, offset);
    return;
  }
  for (; offset < end; offset = next) {
    uint32_t number = offset >> h->shift;
    size_t entry = esp_have_find (h, number);

    next = ((uint64_t) number + 1) << h->shift;
    if (next > end)
      next = end;
    if (entry < h->n && esp_have_number (h, entry) == number &&
        esp_have_state (h, entry) != ESP_HAVE_ABSENT)
      layer_cache_now (layer, next - offset, offset);
  }
}
