/* SPDX-License-Identifier: BSD-3-Clause */
/* Maps: two bits a block that say what one layer (a restore point's own
 * blocks, or a client's overlay) holds.  In memory a flat array of words
 * (util/bits.h), anonymous memory that costs nothing where nothing was
 * written; on disk pages in two slots each, so that a torn write of one
 * leaves the other (docs/formats.md, "map").
 */

#ifndef ESPALIER_MAP_H
#define ESPALIER_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "util/bits.h"

#pragma GCC visibility push(default)

/* One page of the file covers 63 tiles: 4032 bytes of states behind a
 * header of 64 bytes.
 */
#define ESP_MAP_PAGE_TILES 63u
#define ESP_MAP_PAGE_WORDS (ESP_MAP_PAGE_TILES * ESP_TILE_WORDS)

/* Pages are numbered from 1, as in the file, where page 0 is the header. */
struct esp_map {
  uint64_t size;                /* of the disk, bytes */
  uint64_t nwords;              /* whole tiles */
  _Atomic uint64_t *words;      /* states; block 0 in the lowest bits */
  uint64_t npages;              /* of states: 1 .. npages */
  _Atomic uint64_t *dirty;      /* a bit a page: differs from the file */
  _Atomic uint64_t *present;    /* a bit a page: may have a block that is not
                                 * absent; where it is 0, all words are 0 */
  uint64_t *generation;         /* by page: the newest durable one */
  uint64_t *unsynced;           /* a bit a page: generation + 1 is written,
                                 * but not durable */
  bool clean;                   /* the file has the mark */
  int fd;                       /* of an attached file, or -1 */
};

/* The page that has block BLOCK. */
static inline uint64_t
esp_map_page (uint64_t block)
{
  return block / (ESP_MAP_PAGE_TILES * ESP_TILE_BLOCKS) + 1;
}

/* May PAGE have anything?  False: all its blocks are absent. */
static inline bool
esp_map_present (const struct esp_map *map, uint64_t page)
{
  return atomic_load_explicit (&map->present[page / 64],
                               memory_order_acquire) >> (page % 64) & 1;
}

/* A map in memory of a disk of SIZE bytes, all blocks absent, no file. */
extern struct esp_map *esp_map_new (uint64_t size);

/* Load the file NAME.  With WRITABLE it stays attached for esp_map_flush.
 * SIZE: what the caller knows the disk to have; a file that says otherwise
 * is EBADMSG.  A page whose slots are both damaged is EBADMSG, unless the
 * file was not closed cleanly and the page can only be a first write that
 * was torn: then its blocks are absent.
 */
extern struct esp_map *esp_map_load (int dirfd, const char *name,
                                     uint64_t size, bool writable);

/* Create the file NAME for MAP (which has none), attach it, write what is
 * in memory.  Synced, but not its directory.  NAME appears when it is
 * complete (by a rename from NAME.new); EEXIST if it is there.
 */
extern int esp_map_create (struct esp_map *map, int dirfd, const char *name);

/* Make the map durable in its file in two steps, so that data is durable
 * before the bits that point at it:
 *
 *   snapshot = esp_map_snapshot (map);   // bits set from here on are not in
 *   fdatasync (the data file);
 *   esp_map_write (map, snapshot, sync); // frees the snapshot
 *
 * Callers of the pair are serialised by the caller (one flush at a time);
 * threads may set bits meanwhile.  A snapshot of a clean map is NULL with
 * *EMPTY true, and needs no write.  When esp_map_write fails, the pages are
 * dirty again.  With !SYNC the file is written but not synced (survives a
 * kill, not a power loss).  esp_map_discard_snapshot is for when the
 * fdatasync failed.  esp_map_write (map, NULL, true) syncs what earlier
 * calls left unsynced.
 */
struct esp_map_snapshot;
extern struct esp_map_snapshot *esp_map_snapshot (struct esp_map *map,
                                                  bool *empty);
extern int esp_map_write (struct esp_map *map, struct esp_map_snapshot *s,
                          bool sync);
extern void esp_map_discard_snapshot (struct esp_map *map,
                                      struct esp_map_snapshot *s);

/* Mark the attached file as closed cleanly (the map must not be dirty), so
 * that later damage is told from a torn write.  The first esp_map_write
 * after an attach takes the mark away before it writes.
 */
extern int esp_map_mark_clean (struct esp_map *map);

/* Free MAP, detach its file.  NULL is allowed. */
extern void esp_map_free (struct esp_map *map);

/* The state of BLOCK; and the length of the run of blocks from BLOCK on
 * that share it (at most MAX blocks, MAX > 0), in *RUN.  Lock-free.
 */
extern enum esp_state esp_map_run (const struct esp_map *map, uint64_t block,
                                   uint64_t max, uint64_t *run);

/* Set [BLOCK, BLOCK+N) to S, atomically for each word, and mark the pages
 * dirty.  *ADDED, when not NULL, gets the number of blocks that became DATA
 * less the number that no longer are.
 */
extern void esp_map_set (struct esp_map *map, uint64_t block, uint64_t n,
                         enum esp_state s, int64_t *added);

/* The states of PAGE (1 .. npages) as bytes, little endian, four blocks a
 * byte; behind the end of the disk zero.  esp_map_get_page returns whether
 * any block is not absent; esp_map_set_page takes bytes that nobody checked:
 * false, and nothing is changed, where one is no state, or is behind the end
 * of the disk.
 */
#define ESP_MAP_PAGE_BYTES (ESP_MAP_PAGE_WORDS * 8)
extern bool esp_map_get_page (const struct esp_map *map, uint64_t page,
                              uint8_t states[ESP_MAP_PAGE_BYTES]);
extern bool esp_map_set_page (struct esp_map *map, uint64_t page,
                              const uint8_t states[ESP_MAP_PAGE_BYTES]);

/* Number of blocks in state S. */
extern uint64_t esp_map_count (const struct esp_map *map, enum esp_state s);

/* A checksum of all states, the same however the file is laid out (and
 * whatever the disk's size is): 0 when all blocks are absent.
 */
extern uint64_t esp_map_digest (const struct esp_map *map);

/* A copy in memory for a disk of NEW_SIZE >= size (no file attached). */
extern struct esp_map *esp_map_copy (const struct esp_map *map,
                                     uint64_t new_size);

#pragma GCC visibility pop
#endif /* ESPALIER_MAP_H */
