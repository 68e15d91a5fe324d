/* SPDX-License-Identifier: BSD-3-Clause */
/* Is a restore point sound?  Its files are looked at one by one, and
 * against each other:
 *
 *   meta   every field; it is this directory's
 *   map    the checksums of its pages; its digest is the one in meta, and so
 *          are the numbers of blocks
 *   chain  all checksums; size and tip; each block that the map has is this
 *          restore point's, and all others are as in the parent's chain.  By
 *          induction from the root that is what a rebuild would give.
 *   data   as long as the disk, or no block behind its end; of a root in
 *          place, what was recorded of it
 *
 * and the files that only some have: check-delayed.c.
 *
 * What the blocks contain has no checksum here.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "chain/chain.h"
#include "store/check-internal.h"
#include "util/host.h"

bool
check_is_damage (int err)
{
  switch (err) {
  case ENOENT: case EBADMSG: case EINVAL: case EISDIR: case ENOTDIR:
  case ELOOP: case EFBIG: case EIO: case ENXIO: case ERANGE:
    return true;
  default:
    return false;
  }
}

bool
check_has_problem (const struct item *it)
{
  for (int i = 0; i < PARTS; ++i)
    if (it->problem[i][0])
      return true;
  return false;
}

void
check_note (struct item *it, enum part part, const char *text)
{
  if (!check_is_damage (errno))
    it->unknown = true;
  snprintf (it->problem[part], TEXT_MAX, "%.*s", TEXT_MAX - 1, text);
}

static void
note_damage (struct item *it, enum part part, const char *text)
{
  errno = EBADMSG;
  check_note (it, part, text);
}

/* --- meta ---------------------------------------------------------------- */

bool
check_read_meta (struct check *k, struct item *it)
{
  char text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  struct esp_rp rp;
  int r = esp_rp_load_meta (k->store, &it->uuid, &rp, NULL);

  esp_catch_end (outer);
  if (r == -1)
    check_note (it, PART_META, text);
  esp_rp_clear (&it->rp);
  if (r == -1)
    return false;
  it->rp = rp;
  return true;
}

/* --- map ----------------------------------------------------------------- */

static struct esp_map *
examine_map (struct check *k, struct item *it)
{
  char text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  struct esp_map *map = esp_rp_load_map (k->store, &it->uuid);

  esp_catch_end (outer);
  if (!map)
    check_note (it, PART_MAP, text);
  return map;
}

static void
examine_counts (struct item *it, const struct esp_map *map)
{
  if (esp_map_count (map, ESP_DATA) != it->rp.data_blocks ||
      esp_map_count (map, ESP_ZERO) != it->rp.zero_blocks)
    note_damage (it, PART_META, "meta and map disagree about the number of"
                 " blocks");
}

/* --- chain --------------------------------------------------------------- */

/* What the parent's chain says about [BLOCK, BLOCK+MAX): absent beyond its
 * end, or where there is no parent.
 */
static int
parent_run (struct esp_chain *parent, uint64_t block, uint64_t max,
            struct esp_run *run)
{
  uint64_t end = parent ? esp_blocks (esp_chain_size (parent)) : 0;

  if (block >= end) {
    *run = (struct esp_run) { .nblocks = max, .state = ESP_ABSENT };
    return 0;
  }
  return esp_chain_run (parent, block, max < end - block ? max : end - block,
                        run);
}

static bool
same_owner (struct esp_chain *a, unsigned owner_a, struct esp_chain *b,
            unsigned owner_b)
{
  return esp_uuid_eq (esp_chain_owner (a, owner_a),
                      esp_chain_owner (b, owner_b));
}

/* Do the blocks [BLOCK, BLOCK+N), which the map says are S, stand in CHAIN
 * as they should?  1, 0, or -1.
 */
static int
run_agrees (struct esp_chain *chain, struct esp_chain *parent,
            enum esp_state s, uint64_t block, uint64_t n)
{
  struct esp_run run, below;

  for (uint64_t end = block + n; block < end; block += run.nblocks) {
    if (esp_chain_run (chain, block, end - block, &run) == -1)
      return -1;
    if (s != ESP_ABSENT) {
      if (run.state != s || run.owner != esp_chain_depth (chain))
        return 0;
      continue;
    }
    if (parent_run (parent, block, run.nblocks, &below) == -1)
      return -1;
    if (run.state != below.state ||
        (run.state != ESP_ABSENT &&
         !same_owner (chain, run.owner, parent, below.owner)))
      return 0;
    if (below.nblocks < run.nblocks)
      run.nblocks = below.nblocks;
  }
  return 1;
}

static int
chain_agrees (struct esp_chain *chain, struct esp_chain *parent,
              const struct esp_map *map)
{
  uint64_t end = esp_blocks (map->size), n;
  int r = 1;

  for (uint64_t b = 0; b < end && r == 1; b += n) {
    enum esp_state s = esp_map_run (map, b, end - b, &n);
    r = run_agrees (chain, parent, s, b, n);
  }
  return r;
}

/* The parent's chain.  NULL with *OK where there is no parent. */
static struct esp_chain *
open_parent (struct check *k, const struct item *it, bool *ok)
{
  char text[TEXT_MAX];
  struct esp_catch outer;
  struct esp_chain *parent;

  *ok = true;
  if (esp_uuid_is_null (&it->rp.parent))
    return NULL;
  /* What is wrong with the parent is told with the parent. */
  outer = esp_catch_begin (text, sizeof text);
  parent = esp_rp_open_chain (k->store, &it->rp.parent);
  esp_catch_end (outer);
  *ok = parent != NULL;
  return parent;
}

static struct esp_chain *
open_sound_chain (struct check *k, struct item *it)
{
  CLEANUP_CHAIN struct esp_chain *chain =
    esp_rp_open_chain (k->store, &it->uuid);
  uint64_t at;

  if (!chain || esp_chain_check (chain, &at) == -1)
    return NULL;
  if (esp_chain_size (chain) == it->rp.size &&
      esp_uuid_eq (esp_chain_owner (chain, esp_chain_depth (chain)),
                   &it->uuid))
    return ESP_STEAL (chain);
  errno = EBADMSG;
  esp_error ("the chain map is that of another disk");
  return NULL;
}

/* MAP may be NULL: the chain is checked by itself then. */
static void
examine_chain (struct check *k, struct item *it, const struct esp_map *map)
{
  char text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  CLEANUP_CHAIN struct esp_chain *chain = open_sound_chain (k, it);
  bool parent_ok;
  int r = 1;

  esp_catch_end (outer);
  if (!chain) {
    check_note (it, PART_CHAIN, text);
    return;
  }
  CLEANUP_CHAIN struct esp_chain *parent = open_parent (k, it, &parent_ok);
  if (!map || !parent_ok)
    return;
  outer = esp_catch_begin (text, sizeof text);
  r = chain_agrees (chain, parent, map);
  esp_catch_end (outer);
  if (r == 0)
    note_damage (it, PART_CHAIN, "the chain map is not what its map and its"
                 " parent's chain map make");
  /* -1 is an error of the parent's: this one's bytes were all checked. */
}

/* --- data ---------------------------------------------------------------- */

/* Has MAP a block of data at or behind FIRST? */
static bool
data_behind (const struct esp_map *map, uint64_t first)
{
  uint64_t end = esp_blocks (map->size), n;

  for (uint64_t b = first; b < end; b += n)
    if (esp_map_run (map, b, end - b, &n) == ESP_DATA)
      return true;
  return false;
}

static void
examine_length (struct item *it, const struct esp_map *map, uint64_t length)
{
  char text[TEXT_MAX];

  if (length >= esp_data_length (it->rp.size))
    return;
  it->short_data = map && !data_behind (map, length >> ESP_BLOCK_SHIFT);
  snprintf (text, sizeof text, "data has %llu bytes of %llu%s",
            (unsigned long long) length,
            (unsigned long long) esp_data_length (it->rp.size),
            it->short_data ? " (no block is missing)" : "");
  note_damage (it, PART_DATA, text);
}

static void
examine_in_place (struct check *k, struct item *it)
{
  char text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  CLEANUP_CLOSE int fd = esp_rp_open_in_place (k->store, &it->uuid);

  esp_catch_end (outer);
  if (fd == -1)
    check_note (it, PART_DATA, text);
}

static void
examine_data (struct check *k, struct item *it, const struct esp_map *map)
{
  CLEANUP_CLOSE int dir = -1;
  char text[TEXT_MAX];
  struct stat st;

  it->short_data = false;
  if (it->rp.kind == ESP_RP_IN_PLACE) {
    examine_in_place (k, it);
    return;
  }
  dir = esp_store_rp_dir (k->store, &it->uuid);
  if (dir >= 0 && fstatat (dir, ESP_RP_DATA, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISREG (st.st_mode))
      examine_length (it, map, st.st_size);
    else
      note_damage (it, PART_DATA, "data is not a file");
    return;
  }
  if (errno == ENOENT && dir >= 0) {
    examine_length (it, map, 0);
    return;
  }
  snprintf (text, sizeof text, "data: %s", strerror (errno));
  check_note (it, PART_DATA, text);
}

void
check_examine (struct check *k, struct item *it)
{
  CLEANUP_MAP struct esp_map *map = NULL;

  memset (it->problem, 0, sizeof it->problem);
  it->unknown = false;
  if (!check_read_meta (k, it))
    return;
  map = examine_map (k, it);
  if (map)
    examine_counts (it, map);
  examine_chain (k, it, map);
  check_examine_delayed (k, it, map);
  examine_data (k, it, map);
}
