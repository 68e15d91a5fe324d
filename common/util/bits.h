/* SPDX-License-Identifier: BSD-3-Clause */
/* The units of the store, and the two bits that say what a block is.
 *
 * A tile's 256 blocks take 64 bytes of states: one cache line, eight
 * words of 32 blocks each, the first block in the lowest bits.
 */

#ifndef ESPALIER_BITS_H
#define ESPALIER_BITS_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

#define ESP_BLOCK_SHIFT 12                 /* 4 KiB: unit of copy-on-write */
#define ESP_BLOCK_SIZE (UINT64_C (1) << ESP_BLOCK_SHIFT)
#define ESP_TILE_SHIFT 20                  /* 1 MiB: unit of the chain map */
#define ESP_TILE_SIZE (UINT64_C (1) << ESP_TILE_SHIFT)
#define ESP_TILE_BLOCKS (1u << (ESP_TILE_SHIFT - ESP_BLOCK_SHIFT))
#define ESP_WORD_BLOCKS 32u                /* blocks in one word of states */
#define ESP_TILE_WORDS (ESP_TILE_BLOCKS / ESP_WORD_BLOCKS)

/* The largest disk: 64 TiB.  Keeps every count of blocks in 34 bits and
 * every table that a parser allocates bounded.
 */
#define ESP_DISK_MAX (UINT64_C (1) << 46)

static_assert (ESP_TILE_WORDS * sizeof (uint64_t) == 64, "a tile is a line");

enum esp_state {
  ESP_ABSENT = 0,      /* nothing here: the layer below answers */
  ESP_DATA = 1,        /* the block is in this layer's data file */
  ESP_ZERO = 2,        /* this layer made it zero; nothing is stored */
  /* 3 is never written: a reader treats it as damage. */
};

#define ESP_STATES_LOW UINT64_C (0x5555555555555555)   /* the DATA bits */
#define ESP_STATES_HIGH UINT64_C (0xaaaaaaaaaaaaaaaa)  /* the ZERO bits */

/* The number of blocks, of tiles that a disk of SIZE bytes has. */
static inline uint64_t
esp_blocks (uint64_t size)
{
  return (size + ESP_BLOCK_SIZE - 1) >> ESP_BLOCK_SHIFT;
}

static inline uint64_t
esp_tiles (uint64_t size)
{
  return (size + ESP_TILE_SIZE - 1) >> ESP_TILE_SHIFT;
}

/* The number of words of states for SIZE bytes of disk: whole tiles. */
static inline uint64_t
esp_state_words (uint64_t size)
{
  return esp_tiles (size) * ESP_TILE_WORDS;
}

/* The mask over a word of states that covers blocks [FIRST, FIRST+N) of
 * it; FIRST < 32, 1 <= N, FIRST + N <= 32.
 */
static inline uint64_t
esp_states_mask (unsigned first, unsigned n)
{
  uint64_t m = n == ESP_WORD_BLOCKS ? ~UINT64_C (0)
    : (UINT64_C (1) << (2 * n)) - 1;
  return m << (2 * first);
}

static inline enum esp_state
esp_states_get (const uint64_t *words, uint64_t block)
{
  return (words[block / ESP_WORD_BLOCKS] >> (2 * (block % ESP_WORD_BLOCKS))) & 3;
}

/* All 32 blocks of a word in state S. */
static inline uint64_t
esp_states_fill (enum esp_state s)
{
  return (uint64_t) s * ESP_STATES_LOW;
}

/* Set block BLOCK to S.  Not for words that other threads change. */
static inline void
esp_states_set (uint64_t *words, uint64_t block, enum esp_state s)
{
  uint64_t m = esp_states_mask (block % ESP_WORD_BLOCKS, 1);
  uint64_t *w = &words[block / ESP_WORD_BLOCKS];
  *w = (*w & ~m) | (esp_states_fill (s) & m);
}

#endif /* ESPALIER_BITS_H */
