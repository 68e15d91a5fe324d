/* SPDX-License-Identifier: BSD-3-Clause */
/* Checking a whole chain map: every checksum, anew, and every entry, also
 * those that no look-up would see.  What a builder writes is one form of
 * many that would read the same; this is as strict as the builder, so that
 * two chain maps of the same answers have the same bytes.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "chain/chainpriv.h"
#include "util/guard.h"
#include "util/host.h"
#include "util/sum.h"

struct check {
  struct esp_chain *chain;
  uint64_t tile;                /* the next one of the table */
  uint64_t subs;                /* sub-tables seen so far */
  uint64_t at;                  /* offset in the body of what is looked at */
};

static int
bad (void)
{
  errno = EBADMSG;
  return -1;
}

static int
check_sums_guarded (void *arg)
{
  struct check *c = arg;
  const struct chain_layout *l = &c->chain->l;

  for (uint64_t i = 0; i < l->nchunks; ++i) {
    c->at = i << CHAIN_CHUNK_SHIFT;
    uint64_t len = l->body_len - c->at < CHAIN_CHUNK ? l->body_len - c->at
      : CHAIN_CHUNK;
    if (esp_sum (c->chain->map + l->body_at + c->at, len) !=
        c->chain->sums[i])
      return bad ();
  }
  return 0;
}

/* The sub-table at c->at, of a tile of which the disk has N blocks. */
static int
check_sub_guarded (struct check *c, unsigned n)
{
  const uint8_t *p = c->chain->map + c->chain->l.body_at + c->at;
  uint16_t first = esp_get16 (p);
  bool uniform = true;

  for (unsigned i = 0; i < ESP_TILE_BLOCKS; ++i) {
    uint16_t e = esp_get16 (p + 2 * i);

    if (i < n ? !chain_entry_ok (&c->chain->l, e) : e != 0)
      return bad ();
    if (i < n && e != first)
      uniform = false;
  }
  return uniform ? bad () : 0;
}

/* The entry at c->at, of tile c->tile. */
static int
check_tile_guarded (struct check *c)
{
  const struct chain_layout *l = &c->chain->l;
  uint32_t e = esp_get32 (c->chain->map + l->body_at + c->at);

  if (c->tile >= l->ntiles)
    return e == 0 ? 0 : bad ();
  if (!(e & CHAIN_IS_SUB))
    return chain_entry_ok (l, e) ? 0 : bad ();
  /* The sub-tables stand in the order of their tiles, each used once. */
  if ((e & ~CHAIN_IS_SUB) != c->subs || c->subs >= l->nsubs)
    return bad ();

  uint64_t left = esp_blocks (l->size) - c->tile * ESP_TILE_BLOCKS;
  uint64_t table_at = c->at;
  c->at = l->table_chunks * CHAIN_CHUNK + c->subs * CHAIN_SUB_BYTES;
  if (check_sub_guarded (c, left < ESP_TILE_BLOCKS ? left : ESP_TILE_BLOCKS))
    return -1;
  c->subs++;
  c->at = table_at;
  return 0;
}

static int
check_entries_guarded (void *arg)
{
  struct check *c = arg;
  const struct chain_layout *l = &c->chain->l;
  uint64_t n = l->table_chunks * CHAIN_CHUNK_TILES;

  for (c->tile = 0; c->tile < n; ++c->tile) {
    c->at = c->tile * 4;
    if (check_tile_guarded (c) == -1)
      return -1;
  }
  return c->subs == l->nsubs ? 0 : bad ();
}

int
esp_chain_check (struct esp_chain *chain, uint64_t *bad_at)
{
  struct check c = { .chain = chain };

  if (esp_guard_call (check_sums_guarded, &c) == -1 ||
      esp_guard_call (check_entries_guarded, &c) == -1) {
    *bad_at = chain->l.body_at + c.at;
    esp_error ("the chain map %s at byte %ju", errno == EBADMSG ?
               "is damaged" : "cannot be read", (uintmax_t) *bad_at);
    return -1;
  }
  return 0;
}
