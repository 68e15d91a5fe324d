/* SPDX-License-Identifier: BSD-3-Clause */
/* The file of a chain map (docs/formats.md, "chain"), and what chain.c and
 * build.c share.
 */

#ifndef ESPALIER_CHAINPRIV_H
#define ESPALIER_CHAINPRIV_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>

#include "chain/chain.h"
#include "util/endian.h"

#define CHAIN_HEAD 4096u        /* bytes of the header */
#define CHAIN_CHUNK_SHIFT 16    /* 64 KiB: what one checksum covers */
#define CHAIN_CHUNK (1u << CHAIN_CHUNK_SHIFT)
#define CHAIN_CHUNK_TILES (CHAIN_CHUNK / 4)
#define CHAIN_SUB_BYTES (2 * ESP_TILE_BLOCKS)

/* Entries of the tile table; of a sub-table. */
#define CHAIN_IS_SUB 0x80000000u
#define CHAIN_IS_ZERO 0x8000u
#define CHAIN_OWNER 0x7fffu

/* Offsets of the header's fields. */
enum {
  C_MAGIC = 0, C_VERSION = 8, C_HEAD = 12, C_BLOCK_SHIFT = 16,
  C_TILE_SHIFT = 20, C_CHUNK_SHIFT = 24, C_DEPTH = 28, C_SIZE = 32,
  C_NTILES = 40, C_NSUBS = 48, C_OWNERS_AT = 56, C_OWNERS_LEN = 64,
  C_SUMS_AT = 72, C_SUMS_LEN = 80, C_BODY_AT = 88, C_BODY_LEN = 96,
  C_OWNERS_SUM = 104, C_SUMS_SUM = 112, C_END = 120, C_SUM = 4088,
};
#define CHAIN_MAGIC "ESPCHAIN"

static_assert (sizeof (esp_uuid) == 16, "owners are packed");
static_assert (C_SUM + 8 == CHAIN_HEAD, "the checksum is last");
static_assert (CHAIN_CHUNK % CHAIN_SUB_BYTES == 0,
               "no sub-table lies in two chunks");

/* Where all parts are: it follows from these three numbers, and the header
 * must say the same.
 */
struct chain_layout {
  uint64_t size;                /* of the disk */
  unsigned depth;
  uint64_t nsubs;
  uint64_t ntiles;
  uint64_t body_at, body_len;   /* the tile table up to whole chunks, then
                                 * the sub-tables */
  uint64_t nchunks, table_chunks;
  uint64_t sums_at;
  uint64_t file_len;
};

extern void chain_layout (struct chain_layout *l, uint64_t size,
                          unsigned depth, uint64_t nsubs);

enum chunk_state {
  CHUNK_UNKNOWN,                /* not looked at yet */
  CHUNK_GOOD,                   /* its checksum was right */
  CHUNK_HOLE,                   /* its checksum is that of zeroes: not read */
};

struct esp_chain {
  struct chain_layout l;
  const uint8_t *map;           /* the whole file */
  esp_uuid *owners;             /* owner 1 first */
  uint64_t *sums;               /* of the body's chunks */
  _Atomic uint8_t *chunks;      /* enum chunk_state */
  atomic_bool reported;
};

/* Within esp_guard_call: the state of chunk I, checked if it was not yet.
 * -1 with EBADMSG.
 */
extern int chain_chunk (struct esp_chain *chain, uint64_t i);
/* The same guarded, and its bytes into BUF (a whole chunk, zero padded). */
extern int chain_read_chunk (struct esp_chain *chain, uint64_t i,
                             uint8_t *buf, enum chunk_state *state);
/* Sub-table NUMBER into BUF, checked. */
extern int chain_read_sub (struct esp_chain *chain, uint32_t number,
                           uint8_t buf[CHAIN_SUB_BYTES]);
/* Report what errno says about CHAIN, once for it.  Returns -1. */
extern int chain_fail (struct esp_chain *chain);

/* Is E a valid entry of one owner (or none)? */
static inline bool
chain_entry_ok (const struct chain_layout *l, uint32_t e)
{
  return e == 0 || (e <= 0xffff && (e & CHAIN_OWNER) != 0 &&
                    (e & CHAIN_OWNER) <= l->depth);
}

#endif /* ESPALIER_CHAINPRIV_H */
