/* SPDX-License-Identifier: BSD-3-Clause */
/* Building a chain map from the parent's and the restore point's own map:
 * one pass over the tiles, a chunk of the tile table (16 Ki tiles, 16 GiB
 * of disk) at a time.  The cost depends on the number of tiles, not on the
 * depth: the parent's chain map is flat already.
 *
 *   own blocks in a tile   the new entry
 *   none                   the parent's, its sub-table copied
 *   all, in one state      one answer: this restore point
 *   some                   both composed block by block, and one answer
 *                          where that makes the whole tile the same
 *
 * A chunk in which neither has anything is left as a hole.  Memory: one
 * chunk of the parent's table, one of ours, one of sub-tables, and 8 bytes
 * for each chunk (for its checksum).
 *
 * What lies behind the end of the disk: a sub-table's entries are 0; a tile
 * that has one answer has it for the blocks that exist.  So where the
 * parent's disk ended within a tile and ours is longer, the parent's answer
 * is cut there first.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chain/chainpriv.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/sum.h"

struct build {
  int fd;
  const char *name;
  const struct esp_map *map;
  struct esp_chain *parent;     /* NULL: a root */
  struct chain_layout l;        /* nsubs grows */
  unsigned self;                /* our number */
  uint64_t *sums;
  uint64_t room;                /* of sums */
  uint64_t zero_sum;            /* of a chunk of zeroes */
  uint32_t in[CHAIN_CHUNK_TILES];       /* the parent's table, as in the file */
  uint32_t out[CHAIN_CHUNK_TILES];      /* ours */
  uint8_t subs[CHAIN_CHUNK];    /* sub-tables not written yet */
  unsigned subs_len;            /* bytes of them */
};

static void
free_build (struct build *b)
{
  if (b->fd >= 0)
    close (b->fd);
  free (b->sums);
  free (b);
}

ESP_DEFINE_CLEANUP (build, struct build *, free_build)

/* --- writing ---------------------------------------------------------- */

static int
put (struct build *b, const void *buf, size_t len, uint64_t at)
{
  if (esp_pwrite_all (b->fd, buf, len, at) == -1) {
    esp_error ("write: %s: %m", b->name);
    return -1;
  }
  return 0;
}

/* Write a chunk, its pages of zeroes left out. */
static int
put_sparse (struct build *b, const uint8_t *buf, size_t len, uint64_t at)
{
  static const uint8_t zeroes[4096];

  for (size_t i = 0; i < len; ) {
    size_t n = 0;

    while (i + n < len) {
      size_t page = len - i - n < 4096 ? len - i - n : 4096;
      if (memcmp (buf + i + n, zeroes, page) == 0)
        break;
      n += page;
    }
    if (n > 0 && put (b, buf + i, n, at + i) == -1)
      return -1;
    i += n + 4096;
  }
  return 0;
}

static int
set_sum (struct build *b, uint64_t chunk, uint64_t sum)
{
  if (chunk >= b->room) {
    uint64_t room = chunk * 2 + 64;
    uint64_t *sums = realloc (b->sums, room * 8);

    if (!sums) {
      esp_error ("chain: out of memory: %m");
      return -1;
    }
    b->sums = sums;
    b->room = room;
  }
  esp_put64 (&b->sums[chunk], sum);
  return 0;
}

/* Write the sub-tables of b->subs, a chunk or the last part of one. */
static int
flush_subs (struct build *b)
{
  uint64_t end = b->l.table_chunks * CHAIN_CHUNK +
    b->l.nsubs * CHAIN_SUB_BYTES;
  uint64_t at = end - b->subs_len;

  if (b->subs_len == 0)
    return 0;
  if (set_sum (b, at >> CHAIN_CHUNK_SHIFT,
               esp_sum (b->subs, b->subs_len)) == -1 ||
      put (b, b->subs, b->subs_len, b->l.body_at + at) == -1)
    return -1;
  b->subs_len = 0;
  return 0;
}

/* Append a sub-table, as in the file; its tile's entry in *OUT. */
static int
put_sub (struct build *b, const void *sub, uint32_t *out)
{
  memcpy (b->subs + b->subs_len, sub, CHAIN_SUB_BYTES);
  b->subs_len += CHAIN_SUB_BYTES;
  *out = CHAIN_IS_SUB | (uint32_t) b->l.nsubs++;
  return b->subs_len == CHAIN_CHUNK ? flush_subs (b) : 0;
}

/* --- composing -------------------------------------------------------- */

static int
parent_bad (struct build *b)
{
  errno = EBADMSG;
  return chain_fail (b->parent);
}

/* The parent's answers for a tile, block by block, from its entry E; NVALID
 * blocks of the tile are on the parent's disk.
 */
static int
expand (struct build *b, uint32_t e, unsigned nvalid,
        uint16_t entries[ESP_TILE_BLOCKS])
{
  uint16_t sub[ESP_TILE_BLOCKS];

  if (e & CHAIN_IS_SUB) {
    if (chain_read_sub (b->parent, e & ~CHAIN_IS_SUB, (uint8_t *) sub) == -1)
      return chain_fail (b->parent);
  }
  else
    for (unsigned i = 0; i < ESP_TILE_BLOCKS; ++i)
      sub[i] = htole16 (e);

  for (unsigned i = 0; i < ESP_TILE_BLOCKS; ++i) {
    entries[i] = i < nvalid ? le16toh (sub[i]) : 0;
    if (entries[i] && !chain_entry_ok (&b->parent->l, entries[i]))
      return parent_bad (b);
  }
  return 0;
}

/* Lay our own states over ENTRIES. */
static void
overlay (const struct build *b, const uint64_t own[ESP_TILE_WORDS],
         uint16_t entries[ESP_TILE_BLOCKS])
{
  for (unsigned w = 0; w < ESP_TILE_WORDS; ++w)
    for (uint64_t x = own[w]; x; ) {
      unsigned i = __builtin_ctzll (x) / 2;
      unsigned s = x >> (2 * i) & 3;

      entries[w * ESP_WORD_BLOCKS + i] =
        b->self | (s == ESP_ZERO ? CHAIN_IS_ZERO : 0);
      x &= ~(UINT64_C (3) << (2 * i));
    }
}

/* N: blocks of a tile that exist on a disk of SIZE bytes. */
static unsigned
tile_blocks (uint64_t size, uint64_t tile)
{
  uint64_t blocks = esp_blocks (size), first = tile * ESP_TILE_BLOCKS;

  if (first >= blocks)
    return 0;
  return blocks - first < ESP_TILE_BLOCKS ? blocks - first : ESP_TILE_BLOCKS;
}

/* The entry for ENTRIES of which the first N exist. */
static int
collapse (struct build *b, uint16_t entries[ESP_TILE_BLOCKS], unsigned n,
          uint32_t *out)
{
  unsigned i = 1;

  while (i < n && entries[i] == entries[0])
    i++;
  if (i == n) {
    *out = entries[0];
    return 0;
  }
  for (i = 0; i < ESP_TILE_BLOCKS; ++i)
    entries[i] = htole16 (i < n ? entries[i] : 0);
  return put_sub (b, entries, out);
}

static int
compose (struct build *b, uint64_t tile, uint32_t e,
         const uint64_t own[ESP_TILE_WORDS], uint32_t *out)
{
  uint16_t entries[ESP_TILE_BLOCKS];
  unsigned nvalid = b->parent ? tile_blocks (b->parent->l.size, tile) : 0;

  if (expand (b, e, nvalid, entries) == -1)
    return -1;
  overlay (b, own, entries);
  return collapse (b, entries, tile_blocks (b->l.size, tile), out);
}

/* --- tiles ------------------------------------------------------------ */

/* Our own states of TILE into OWN: 0 none, 1 all of one state (in *S), 2
 * some of each.
 */
static int
own_states (const struct build *b, uint64_t tile, uint64_t *own,
            enum esp_state *s)
{
  _Atomic uint64_t *words = &b->map->words[tile * ESP_TILE_WORDS];
  uint64_t any = 0, differ = 0;

  for (unsigned w = 0; w < ESP_TILE_WORDS; ++w) {
    own[w] = atomic_load_explicit (&words[w], memory_order_relaxed);
    any |= own[w];
    differ |= own[w] ^ own[0];
  }
  if (!any)
    return 0;
  *s = own[0] & 3;
  return !differ && own[0] == esp_states_fill (*s) ? 1 : 2;
}

/* The parent's entry E is ours too, unless the parent's disk ended within
 * TILE and ours goes on.
 */
static int
inherit (struct build *b, uint64_t tile, uint32_t e, uint32_t *out)
{
  static const uint64_t nothing[ESP_TILE_WORDS];
  uint8_t sub[CHAIN_SUB_BYTES];

  if (e == 0) {
    *out = 0;
    return 0;
  }
  if (tile_blocks (b->parent->l.size, tile) != tile_blocks (b->l.size, tile))
    return compose (b, tile, e, nothing, out);
  if (!(e & CHAIN_IS_SUB)) {
    *out = e;
    return chain_entry_ok (&b->parent->l, e) ? 0 : parent_bad (b);
  }
  if (chain_read_sub (b->parent, e & ~CHAIN_IS_SUB, sub) == -1)
    return chain_fail (b->parent);
  return put_sub (b, sub, out);
}

static int
build_tile (struct build *b, uint64_t tile, uint32_t e, uint32_t *out)
{
  uint64_t own[ESP_TILE_WORDS];
  enum esp_state s;

  if (!esp_map_present (b->map, esp_map_page (tile * ESP_TILE_BLOCKS)))
    return inherit (b, tile, e, out);
  switch (own_states (b, tile, own, &s)) {
  case 0:
    return inherit (b, tile, e, out);
  case 1:
    *out = b->self | (s == ESP_ZERO ? CHAIN_IS_ZERO : 0);
    return 0;
  default:
    return compose (b, tile, e, own, out);
  }
}

/* Has our map anything in tiles [TILE, END)? */
static bool
has_own (const struct build *b, uint64_t tile, uint64_t end)
{
  uint64_t last = esp_map_page ((end - 1) * ESP_TILE_BLOCKS);

  for (uint64_t p = esp_map_page (tile * ESP_TILE_BLOCKS); p <= last; ++p)
    if (esp_map_present (b->map, p))
      return true;
  return false;
}

/* The parent's part of the table into b->in.  *HOLE: it has nothing. */
static int
read_parent (struct build *b, uint64_t chunk, bool *hole)
{
  enum chunk_state state;

  *hole = !b->parent || chunk >= b->parent->l.table_chunks;
  if (*hole)
    memset (b->in, 0, sizeof b->in);
  else {
    if (chain_read_chunk (b->parent, chunk, (uint8_t *) b->in, &state) == -1)
      return chain_fail (b->parent);
    *hole = state == CHUNK_HOLE;
  }
  return 0;
}

static int
build_chunk (struct build *b, uint64_t chunk)
{
  uint64_t tile = chunk * CHAIN_CHUNK_TILES;
  uint64_t end = tile + CHAIN_CHUNK_TILES;
  bool hole;

  if (end > b->l.ntiles)
    end = b->l.ntiles;
  if (read_parent (b, chunk, &hole) == -1)
    return -1;
  if (hole && !has_own (b, tile, end))
    return set_sum (b, chunk, b->zero_sum);

  memset (b->out, 0, sizeof b->out);
  for (uint64_t t = tile; t < end; ++t) {
    uint32_t out;

    if (build_tile (b, t, le32toh (b->in[t - tile]), &out) == -1)
      return -1;
    b->out[t - tile] = htole32 (out);
  }
  if (set_sum (b, chunk, esp_sum (b->out, sizeof b->out)) == -1)
    return -1;
  return put_sparse (b, (uint8_t *) b->out, (end - tile) * 4,
                     b->l.body_at + chunk * CHAIN_CHUNK);
}

/* --- the file --------------------------------------------------------- */

/* Owners: the parent's, then SELF.  Their checksum in *SUM. */
static int
put_owners (struct build *b, const esp_uuid *self, uint64_t *sum)
{
  CLEANUP_FREE esp_uuid *owners = malloc (b->self * sizeof *owners);

  if (!owners) {
    esp_error ("chain: out of memory: %m");
    return -1;
  }
  if (b->parent)
    memcpy (owners, b->parent->owners, (b->self - 1) * sizeof *owners);
  owners[b->self - 1] = *self;
  *sum = esp_sum (owners, b->self * sizeof *owners);
  return put (b, owners, b->self * sizeof *owners, CHAIN_HEAD);
}

static int
put_header (struct build *b, uint64_t owners_sum)
{
  uint8_t h[CHAIN_HEAD] = { 0 };

  memcpy (h + C_MAGIC, CHAIN_MAGIC, 8);
  esp_put32 (h + C_VERSION, ESP_CHAIN_VERSION);
  esp_put32 (h + C_HEAD, CHAIN_HEAD);
  esp_put32 (h + C_BLOCK_SHIFT, ESP_BLOCK_SHIFT);
  esp_put32 (h + C_TILE_SHIFT, ESP_TILE_SHIFT);
  esp_put32 (h + C_CHUNK_SHIFT, CHAIN_CHUNK_SHIFT);
  esp_put32 (h + C_DEPTH, b->l.depth);
  esp_put64 (h + C_SIZE, b->l.size);
  esp_put64 (h + C_NTILES, b->l.ntiles);
  esp_put64 (h + C_NSUBS, b->l.nsubs);
  esp_put64 (h + C_OWNERS_AT, CHAIN_HEAD);
  esp_put64 (h + C_OWNERS_LEN, b->l.depth * UINT64_C (16));
  esp_put64 (h + C_SUMS_AT, b->l.sums_at);
  esp_put64 (h + C_SUMS_LEN, b->l.nchunks * 8);
  esp_put64 (h + C_BODY_AT, b->l.body_at);
  esp_put64 (h + C_BODY_LEN, b->l.body_len);
  esp_put64 (h + C_OWNERS_SUM, owners_sum);
  esp_put64 (h + C_SUMS_SUM, esp_sum (b->sums, b->l.nchunks * 8));
  esp_put64 (h + C_SUM, esp_sum (h, C_SUM));
  return put (b, h, sizeof h, 0);
}

static int
build_file (struct build *b, const esp_uuid *self)
{
  uint64_t owners_sum;

  for (uint64_t i = 0; i < b->l.table_chunks; ++i)
    if (build_chunk (b, i) == -1)
      return -1;
  if (flush_subs (b) == -1)
    return -1;
  chain_layout (&b->l, b->l.size, b->self, b->l.nsubs);
  if (put_owners (b, self, &owners_sum) == -1 ||
      put (b, b->sums, b->l.nchunks * 8, b->l.sums_at) == -1 ||
      put_header (b, owners_sum) == -1)
    return -1;
  if (esp_sync_file (b->fd) == -1) {
    esp_error ("fsync: %s: %m", b->name);
    return -1;
  }
  return 0;
}

static struct build *
new_build (const char *name, const struct esp_map *map,
           struct esp_chain *parent)
{
  struct build *b = calloc (1, sizeof *b);

  if (!b) {
    esp_error ("chain: out of memory: %m");
    return NULL;
  }
  b->fd = -1;
  b->name = name;
  b->map = map;
  b->parent = parent;
  b->self = (parent ? parent->l.depth : 0) + 1;
  b->zero_sum = esp_sum (b->subs, CHAIN_CHUNK);
  chain_layout (&b->l, map->size, b->self, 0);
  return b;
}

static int
check_arguments (const struct esp_map *map, const struct esp_chain *parent)
{
  if (parent && parent->l.depth >= ESP_CHAIN_DEPTH_MAX) {
    errno = E2BIG;
    esp_error ("a chain has at most %u restore points: merge some first",
               ESP_CHAIN_DEPTH_MAX);
    return -1;
  }
  if (parent && map->size < parent->l.size) {
    errno = EINVAL;
    esp_error ("a restore point is never smaller than its parent");
    return -1;
  }
  return 0;
}

int
esp_chain_build (int dirfd, const char *name, const esp_uuid *self,
                 const struct esp_map *map, struct esp_chain *parent)
{
  if (check_arguments (map, parent) == -1)
    return -1;
  ESP_CLEANUP (build) struct build *b = new_build (name, map, parent);
  if (!b)
    return -1;
  b->fd = openat (dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (b->fd == -1) {
    esp_error ("open: %s: %m", name);
    return -1;
  }
  if (build_file (b, self) == -1) {
    int saved = errno;
    unlinkat (dirfd, name, 0);
    errno = saved;
    return -1;
  }
  return 0;
}
