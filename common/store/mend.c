/* SPDX-License-Identifier: BSD-3-Clause */
/* Mending a restore point from what is left of it.
 *
 *   meta   from the catalog's row and the map
 *   map    from the chain map, which names each own block; it must have the
 *          digest that meta has
 *   chain  from the map and the parent's chain
 *   data   made longer, where none of its blocks is missing
 *
 * A new file is written beside the old one and renamed over it, so that a
 * server which has the old one open (or mapped) keeps it.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chain/chain.h"
#include "store/check-internal.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"

const char *
mend_remedy (struct check *k, const struct item *it, enum part part)
{
  const struct esp_rp *row = check_row (k, &it->uuid);

  switch (part) {
  case PART_META:
    if (it->rp.size)
      return "the blocks are counted again";
    return row && row->kind != ESP_RP_IN_PLACE
      ? "meta is written again from the catalog and the map" : NULL;
  case PART_MAP:
    return it->problem[PART_CHAIN][0] ? NULL
      : "the map is made again from the chain map";
  case PART_CHAIN:
    return it->problem[PART_MAP][0] ? NULL
      : "the chain map is made again from the map";
  case PART_DATA:
    if (it->rp.kind == ESP_RP_DELAYED)
      return "the file is made longer, and what was cut off fetched again";
    return it->short_data ? "the file is made longer" : NULL;
  default:
    return mend_delayed_remedy (k, it, part);
  }
}

static int
remove_old (int dir, const char *new)
{
  if (unlinkat (dir, new, 0) == 0 || errno == ENOENT)
    return 0;
  esp_error ("unlink: %s: %m", new);
  return -1;
}

/* A meta that can be read, but has other numbers than its map. */
static int
mend_counts (struct check *k, struct item *it, int dir)
{
  CLEANUP_JSON json_t *meta = esp_meta_load (k->store, &it->uuid, NULL, NULL);
  CLEANUP_MAP struct esp_map *map = esp_rp_load_map (k->store, &it->uuid);

  if (!meta || !map ||
      json_object_set_new (meta, "data-blocks",
                           json_integer (esp_map_count (map, ESP_DATA))) ||
      json_object_set_new (meta, "zero-blocks",
                           json_integer (esp_map_count (map, ESP_ZERO))))
    return -1;
  return esp_meta_save (dir, meta, it->rp.name);
}

/* The row, with what the map knows better. */
static int
mend_meta (struct check *k, struct item *it, int dir)
{
  CLEANUP_RP struct esp_rp row = { 0 };
  CLEANUP_MAP struct esp_map *map = NULL;
  CLEANUP_JSON json_t *meta = NULL;

  if (esp_catalog_rp_get (k->catalog, &it->uuid, &row) == -1 ||
      !(map = esp_map_load (dir, ESP_RP_MAP, row.size, false)))
    return -1;
  row.data_blocks = esp_map_count (map, ESP_DATA);
  row.zero_blocks = esp_map_count (map, ESP_ZERO);
  meta = esp_rp_to_meta (&row, esp_map_digest (map));
  return meta ? esp_meta_save (dir, meta, row.name) : -1;
}

/* The blocks of CHAIN that its tip owns. */
static int
own_blocks (struct esp_chain *chain, struct esp_map *map)
{
  uint64_t end = esp_blocks (map->size);
  struct esp_run run;

  for (uint64_t b = 0; b < end; b += run.nblocks) {
    if (esp_chain_run (chain, b, end - b, &run) == -1)
      return -1;
    if (run.state != ESP_ABSENT && run.owner == esp_chain_depth (chain))
      esp_map_set (map, b, run.nblocks, run.state, NULL);
  }
  return 0;
}

static int
write_map (int dir, struct esp_map *map)
{
  if (remove_old (dir, "map.new") == -1 ||
      esp_map_create (map, dir, "map.new") == -1 ||
      esp_map_mark_clean (map) == -1)
    return -1;
  return esp_replace_file (dir, "map.new", ESP_RP_MAP);
}

static int
mend_map (struct check *k, struct item *it, int dir)
{
  CLEANUP_CHAIN struct esp_chain *chain =
    esp_rp_open_chain (k->store, &it->uuid);
  CLEANUP_MAP struct esp_map *map = NULL;
  uint64_t digest, size;
  bool bad = false;
  CLEANUP_JSON json_t *meta = esp_meta_load (k->store, &it->uuid, NULL,
                                             &digest);

  if (!chain || !meta)
    return -1;
  size = esp_doc_u64 (meta, ESP_META_MAP_SIZE, it->rp.size, &bad);
  if (!(map = esp_map_new (size)) || own_blocks (chain, map) == -1)
    return -1;
  if (esp_map_digest (map) != digest) {
    errno = EBADMSG;
    esp_error ("the chain map does not give the map either");
    return -1;
  }
  return write_map (dir, map);
}

static int
mend_chain (struct check *k, struct item *it, int dir)
{
  CLEANUP_MAP struct esp_map *map = esp_rp_load_map (k->store, &it->uuid);

  if (!map ||
      esp_rp_build_chain (k->store, &it->rp, -1, map, dir,
                          "chain.new") == -1 ||
      esp_replace_file (dir, "chain.new", ESP_RP_CHAIN) == -1)
    return -1;
  it->rebuilt = true;
  return 0;
}

static int
mend_data (struct item *it, int dir)
{
  /* It is read-only, which does not matter to root; an owner may chmod. */
  fchmodat (dir, ESP_RP_DATA, 0644, 0);
  CLEANUP_CLOSE int fd = openat (dir, ESP_RP_DATA, O_RDWR | O_CREAT |
                                 O_CLOEXEC | O_NOFOLLOW, 0644);

  if (fd == -1 || ftruncate (fd, esp_data_length (it->rp.size)) == -1 ||
      fchmod (fd, 0444) == -1 || fsync (fd) == -1 || esp_sync_dir (dir) == -1) {
    esp_error ("ftruncate: data: %m");
    return -1;
  }
  return 0;
}

int
mend_part (struct check *k, struct item *it, enum part part)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (k->store, &it->uuid);

  if (dir == -1) {
    esp_error ("open: the directory of the restore point: %m");
    return -1;
  }
  switch (part) {
  case PART_META:
    return it->rp.size ? mend_counts (k, it, dir) : mend_meta (k, it, dir);
  case PART_MAP: return mend_map (k, it, dir);
  case PART_CHAIN: return mend_chain (k, it, dir);
  case PART_DATA:
    return it->rp.kind == ESP_RP_DELAYED ? mend_delayed_data (it, dir)
      : mend_data (it, dir);
  default: return mend_delayed_part (k, it, part, dir);
  }
}

/* --- rows ---------------------------------------------------------------- */

/* NAME with a number behind it, cut between characters where it is long. */
static void
other_name (const char *name, unsigned i, char out[ESP_NAME_MAX + 1])
{
  char number[16];
  size_t room = ESP_NAME_MAX - snprintf (number, sizeof number, "-%u", i);
  size_t n = strlen (name);

  if (n > room)
    for (n = room; n > 0 && ((unsigned char) name[n] & 0xc0) == 0x80; --n)
      ;
  snprintf (out, ESP_NAME_MAX + 1, "%.*s%s", (int) n, name, number);
}

/* The new name goes into meta as well. */
static int
rename_meta (struct esp_store *store, const struct esp_rp *rp)
{
  CLEANUP_JSON json_t *meta = esp_meta_load (store, &rp->uuid, NULL, NULL);
  CLEANUP_CLOSE int dir = esp_store_rp_dir (store, &rp->uuid);

  if (!meta || dir == -1 ||
      json_object_set_new (meta, "name", json_string (rp->name)) == -1)
    return -1;
  return esp_meta_save (dir, meta, rp->name);
}

static int
write_row (struct esp_store *store, struct esp_catalog *catalog,
           struct esp_rp *rp,
           int (*write) (struct esp_catalog *, const struct esp_rp *))
{
  char base[ESP_NAME_MAX + 1], text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = write (catalog, rp);

  memcpy (base, rp->name, sizeof base);
  for (unsigned i = 2; r == -1 && errno == EEXIST && i < 10000; ++i) {
    other_name (base, i, rp->name);
    text[0] = 0;
    r = write (catalog, rp);
  }
  esp_catch_end (outer);
  if (r == -1)
    esp_error ("%s", text);
  else if (strcmp (base, rp->name) != 0)
    r = rename_meta (store, rp);
  return r;
}

int
mend_adopt (struct esp_store *store, struct esp_catalog *catalog,
            struct esp_rp *rp)
{
  return write_row (store, catalog, rp, esp_catalog_rp_insert);
}

int
mend_update (struct esp_store *store, struct esp_catalog *catalog,
             struct esp_rp *rp)
{
  return write_row (store, catalog, rp, esp_catalog_rp_update);
}
