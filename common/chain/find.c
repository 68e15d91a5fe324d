/* SPDX-License-Identifier: BSD-3-Clause */
/* Look-ups in chain maps.  A look-up reads the tile's entry and, where the
 * tile has several owners, one entry of its sub-table; the rest of a run is
 * found by comparing entries, 16 or 32 bytes at a time (loops of fixed
 * length that compilers turn into vector instructions).
 *
 * Everything named *_guarded runs within esp_guard_call: it may be left at
 * any read of the mapping, so it holds nothing and allocates nothing.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "chain/chainpriv.h"
#include "util/guard.h"

static inline int
bad (void)
{
  errno = EBADMSG;
  return -1;
}

/* The number of the N entries at P that equal V from the first on.  P is
 * aligned, V as it is in the file.
 */
static uint64_t
equal32 (const uint32_t *p, uint64_t n, uint32_t v)
{
  uint64_t i = 0;

  for (; i + 16 <= n; i += 16) {
    uint32_t acc = 0;

    for (unsigned j = 0; j < 16; ++j)
      acc |= p[i + j] ^ v;
    if (acc)
      break;
  }
  while (i < n && p[i] == v)
    i++;
  return i;
}

static unsigned
equal16 (const uint16_t *p, unsigned n, uint16_t v)
{
  unsigned i = 0;

  for (; i + 16 <= n; i += 16) {
    uint16_t acc = 0;

    for (unsigned j = 0; j < 16; ++j)
      acc |= p[i + j] ^ v;
    if (acc)
      break;
  }
  while (i < n && p[i] == v)
    i++;
  return i;
}

/* The tile table's part that is in the chunk of TILE, NULL for a hole, and
 * how many entries there are from TILE on in *N.  -1: damage.
 */
static inline int
table_guarded (struct esp_chain *chain, uint64_t tile, const uint32_t **p,
               uint64_t *n)
{
  uint64_t chunk = tile / CHAIN_CHUNK_TILES;
  int state = chain_chunk (chain, chunk);

  if (state == -1)
    return -1;
  *n = (chunk + 1) * CHAIN_CHUNK_TILES - tile;
  *p = state == CHUNK_HOLE ? NULL
    : (const uint32_t *) (chain->map + chain->l.body_at) + tile;
  return 0;
}

/* The sub-table that entry E names; NULL: damage. */
static inline const uint16_t *
sub_guarded (struct esp_chain *chain, uint32_t e)
{
  uint64_t at = chain->l.table_chunks * CHAIN_CHUNK +
    (e & ~CHAIN_IS_SUB) * (uint64_t) CHAIN_SUB_BYTES;

  if ((e & ~CHAIN_IS_SUB) >= chain->l.nsubs ||
      chain_chunk (chain, at >> CHAIN_CHUNK_SHIFT) != CHUNK_GOOD) {
    bad ();
    return NULL;
  }
  return (const uint16_t *) (chain->map + chain->l.body_at + at);
}

struct run_args {
  struct esp_chain *chain;
  uint64_t block, max;
  uint32_t entry;
  uint64_t n;
};

/* The entry of BLOCK in a->entry, and the run within its tile (or, in a
 * hole of the table, within its chunk) in a->n.
 */
static int
first_guarded (struct run_args *a)
{
  uint64_t tile = a->block / ESP_TILE_BLOCKS, left;
  unsigned i = a->block % ESP_TILE_BLOCKS;
  const uint32_t *p;

  if (table_guarded (a->chain, tile, &p, &left) == -1)
    return -1;
  a->n = ESP_TILE_BLOCKS - i;
  if (!p) {
    a->entry = 0;
    a->n += (left - 1) * ESP_TILE_BLOCKS;
    return 0;
  }
  uint32_t e = le32toh (*p);
  if (e & CHAIN_IS_SUB) {
    const uint16_t *sub = sub_guarded (a->chain, e);
    if (!sub)
      return -1;
    e = le16toh (sub[i]);
    a->n = equal16 (sub + i, ESP_TILE_BLOCKS - i, sub[i]);
  }
  if (!chain_entry_ok (&a->chain->l, e))
    return bad ();
  a->entry = e;
  return 0;
}

/* The run went up to the end of a tile: go on with the tiles behind it. */
static int
more_guarded (struct run_args *a)
{
  const uint32_t v = htole32 (a->entry);

  while (a->n < a->max) {
    uint64_t tile = (a->block + a->n) / ESP_TILE_BLOCKS, left, k;
    const uint32_t *p;

    if (table_guarded (a->chain, tile, &p, &left) == -1)
      return -1;
    if (!p) {
      if (a->entry != 0)
        return 0;
      a->n += left * ESP_TILE_BLOCKS;
      continue;
    }
    uint64_t want = (a->max - a->n + ESP_TILE_BLOCKS - 1) / ESP_TILE_BLOCKS;
    if (left > want)
      left = want;
    k = equal32 (p, left, v);
    a->n += k * ESP_TILE_BLOCKS;
    if (k == left)
      continue;
    uint32_t e = le32toh (p[k]);
    if (!(e & CHAIN_IS_SUB))
      return 0;
    const uint16_t *sub = sub_guarded (a->chain, e);
    if (!sub)
      return -1;
    unsigned m = equal16 (sub, ESP_TILE_BLOCKS, htole16 (a->entry));
    a->n += m;
    if (m < ESP_TILE_BLOCKS)
      return 0;
  }
  return 0;
}

static int
run_guarded (void *arg)
{
  struct run_args *a = arg;

  if (first_guarded (a) == -1)
    return -1;
  if ((a->block + a->n) % ESP_TILE_BLOCKS == 0)
    return more_guarded (a);
  return 0;
}

int
esp_chain_run (struct esp_chain *chain, uint64_t block, uint64_t max,
               struct esp_run *run)
{
  struct run_args a = { .chain = chain, .block = block, .max = max };

  assert (max > 0 && block + max > block &&
          block + max <= esp_blocks (chain->l.size));
  if (esp_guard_call (run_guarded, &a) == -1)
    return chain_fail (chain);
  run->nblocks = a.n < max ? a.n : max;
  run->owner = a.entry & CHAIN_OWNER;
  run->state = a.entry == 0 ? ESP_ABSENT
    : a.entry & CHAIN_IS_ZERO ? ESP_ZERO : ESP_DATA;
  return 0;
}

/* --- the newest ------------------------------------------------------- */

/* The highest owner of the N entries at P. */
static unsigned
max_owner (const uint16_t *p, unsigned n)
{
  int16_t m[8] = { 0 };
  unsigned i = 0, top = 0;

  /* Owners have 15 bits: signed comparisons, which SSE2 has, do. */
  for (; i + 8 <= n; i += 8)
    for (unsigned j = 0; j < 8; ++j) {
      int16_t o = le16toh (p[i + j]) & CHAIN_OWNER;
      m[j] = o > m[j] ? o : m[j];
    }
  for (unsigned j = 0; j < 8; ++j)
    top = (unsigned) m[j] > top ? (unsigned) m[j] : top;
  for (; i < n; ++i) {
    unsigned o = le16toh (p[i]) & CHAIN_OWNER;
    top = o > top ? o : top;
  }
  return top;
}

struct newest_args {
  struct esp_chain *chain;
  uint64_t block, end;
  unsigned owner;
};

/* The newest owner in one tile, from block I on, N blocks. */
static int
newest_in_tile_guarded (struct newest_args *a, uint32_t e, unsigned i,
                        unsigned n)
{
  unsigned o = e & CHAIN_OWNER;

  if (e & CHAIN_IS_SUB) {
    const uint16_t *sub = sub_guarded (a->chain, e);
    if (!sub)
      return -1;
    o = max_owner (sub + i, n);
    if (o > a->chain->l.depth)
      return bad ();
  }
  else if (!chain_entry_ok (&a->chain->l, e))
    return bad ();
  if (o > a->owner)
    a->owner = o;
  return 0;
}

static int
newest_guarded (void *arg)
{
  struct newest_args *a = arg;
  uint64_t block = a->block;

  while (block < a->end) {
    uint64_t tile = block / ESP_TILE_BLOCKS, left;
    unsigned i = block % ESP_TILE_BLOCKS, n = ESP_TILE_BLOCKS - i;
    const uint32_t *p;

    if (table_guarded (a->chain, tile, &p, &left) == -1)
      return -1;
    if (n > a->end - block)
      n = a->end - block;
    if (!p)
      block = (tile + left) * ESP_TILE_BLOCKS;
    else if (newest_in_tile_guarded (a, le32toh (*p), i, n) == -1)
      return -1;
    else
      block += n;
  }
  return 0;
}

int
esp_chain_newest (struct esp_chain *chain, uint64_t offset, uint64_t len,
                  unsigned *owner)
{
  struct newest_args a = { .chain = chain };

  assert (offset + len >= offset && offset + len <= chain->l.size);
  *owner = 0;
  if (len == 0)
    return 0;
  a.block = offset >> ESP_BLOCK_SHIFT;
  a.end = esp_blocks (offset + len);
  if (esp_guard_call (newest_guarded, &a) == -1)
    return chain_fail (chain);
  *owner = a.owner;
  return 0;
}
