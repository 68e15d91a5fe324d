/* SPDX-License-Identifier: BSD-3-Clause */
/* Chain maps: for a restore point as a tip, which restore point of its
 * chain holds each block, already flattened (docs/formats.md, "chain").
 *
 * A look-up reads the tile's entry, which is either one answer for all 256
 * blocks or the number of a sub-table, and then the sub-table: two reads
 * whatever the depth.  The file is mapped, so all connections and processes
 * share it through the page cache; each 64 KiB of it is checked against its
 * checksum when it is first touched by this process.
 *
 * Owners are numbered from the root, 1, to the tip, depth: of two owners
 * the newer one has the higher number.
 */

#ifndef ESPALIER_CHAIN_H
#define ESPALIER_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "store/map.h"
#include "util/bits.h"
#include "util/name.h"

#pragma GCC visibility push(default)

/* The version of the file that we write, and the newest that we read. */
#define ESP_CHAIN_VERSION 1u

/* Owners fit 15 bits of an entry. */
#define ESP_CHAIN_DEPTH_MAX 32767u

struct esp_chain;

/* A run of blocks that one answer covers. */
struct esp_run {
  uint64_t nblocks;
  enum esp_state state;         /* ESP_ABSENT: nobody ever wrote: a hole */
  unsigned owner;               /* 1 .. depth; 0 where state is ABSENT */
};

/* Open the chain map NAME below DIRFD: header, owners and the table of
 * checksums are checked here (microseconds, whatever the size), the rest
 * when it is touched.  ENOTSUP for a version we do not know, EBADMSG for
 * damage.
 */
extern struct esp_chain *esp_chain_open (int dirfd, const char *name);
extern void esp_chain_close (struct esp_chain *chain);

extern uint64_t esp_chain_size (const struct esp_chain *chain);
extern unsigned esp_chain_depth (const struct esp_chain *chain);
/* 1 <= OWNER <= depth. */
extern const esp_uuid *esp_chain_owner (const struct esp_chain *chain,
                                        unsigned owner);
/* The number of UUID in this chain, 0 if it is not part of it. */
extern unsigned esp_chain_find_owner (const struct esp_chain *chain,
                                      const esp_uuid *uuid);

/* The run that starts at BLOCK, at most MAX blocks (MAX > 0, BLOCK + MAX
 * within the disk): longest run of the same state and owner.  Lock-free.
 * -1 with errno EIO (the file cannot be read), EBADMSG (damage), reported
 * once for each chain.
 */
extern int esp_chain_run (struct esp_chain *chain, uint64_t block,
                          uint64_t max, struct esp_run *run);

/* The newest owner that touches any block of [OFFSET, OFFSET+LEN) bytes
 * (as data or as zero), in *OWNER; 0 when none does.  That number's UUID
 * names the segment in every cache.  Errors as esp_chain_run.
 */
extern int esp_chain_newest (struct esp_chain *chain, uint64_t offset,
                             uint64_t len, unsigned *owner);

/* Check every checksum and every entry.  *BAD_AT gets the offset in the
 * file of the first damage.  Reports one error.
 */
extern int esp_chain_check (struct esp_chain *chain, uint64_t *bad_at);

/* Bytes of the file, and how many sub-tables it has (for stats, bench). */
extern uint64_t esp_chain_bytes (const struct esp_chain *chain);
extern uint64_t esp_chain_subtables (const struct esp_chain *chain);

/* Build the chain map of restore point SELF whose own blocks are MAP's, over
 * PARENT (NULL: a root).  MAP's size is the tip's, not less than the
 * parent's.  Written to the new file NAME (EEXIST if it is there), synced,
 * its directory not.  E2BIG beyond ESP_CHAIN_DEPTH_MAX.
 */
extern int esp_chain_build (int dirfd, const char *name, const esp_uuid *self,
                            const struct esp_map *map,
                            struct esp_chain *parent);

#pragma GCC visibility pop
#endif /* ESPALIER_CHAIN_H */
