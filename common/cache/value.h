/* SPDX-License-Identifier: BSD-3-Clause */
/* Sealed values: what is kept where others may write.  docs/formats.md,
 * "Segment cache", has the bytes.  Not for others than common/cache, tests
 * and fuzzers.
 */

#ifndef ESPALIER_CACHE_VALUE_H
#define ESPALIER_CACHE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"

#pragma GCC visibility push(default)

#define ESP_VALUE_HEAD 96u      /* bytes before the data */
#define ESP_VALUE_OVERHEAD ESP_VALUE_HEAD
#define ESP_VALUE_DATA_MAX (1u << ESP_SEGMENT_SHIFT_MAX)

/* How values are sealed: by a check (SECRET is NULL), or by a secret of 32
 * bytes.  Shared by threads, constant.  NULL, reported: no memory.
 */
struct esp_sealer;
extern struct esp_sealer *esp_sealer_new (const uint8_t *secret);
/* The secret is in the file PATH: 32 bytes in base64, as `espalier key export`
 * writes them.  NULL, reported: it is none, or others may read it.
 */
extern struct esp_sealer *esp_sealer_from_file (const char *path);
extern void esp_sealer_free (struct esp_sealer *sealer);
/* Does it encrypt? */
extern bool esp_sealer_secret (const struct esp_sealer *sealer);
/* Which secret it is, without saying anything of it: sealers have the same id
 * where they open each other's values.  0: it is none.
 */
extern uint64_t esp_sealer_id (const struct esp_sealer *sealer);

struct esp_value_part {
  uint32_t length;              /* of the whole segment, bytes: 1 to 4M, at
                                 * most 1 << shift */
  uint16_t part, parts;         /* 0 .. parts-1 */
  uint64_t put;                 /* the same in all parts of one put */
};

/* Seal DATA[0 .. LEN) for KEY into OUT (LEN + ESP_VALUE_OVERHEAD bytes).
 * Returns the length of the value; 0 (not reported) where there are no random
 * bytes or no memory, or PART and LEN are none of KEY's.  One part is the
 * whole segment: LEN is its length.
 */
extern size_t esp_value_seal (const struct esp_sealer *sealer,
                              const struct esp_cache_key *key,
                              const struct esp_value_part *part,
                              const void *data, size_t len, void *out);

enum esp_value_result {
  ESP_VALUE_OK,
  ESP_VALUE_OTHER,              /* of another version, or of who has another
                                 * secret, or none: a miss, and no lie */
  ESP_VALUE_BAD,                /* damaged, forged, or another key's */
};
/* Open VALUE, which was asked for under KEY: the data to OUT (ROOM bytes: more
 * is BAD), its length to *LEN.  OUT, *LEN and *PART may hold rubbish where it
 * is not OK.
 */
extern enum esp_value_result
esp_value_open (const struct esp_sealer *sealer,
                const struct esp_cache_key *key, const void *value,
                size_t value_len, void *out, size_t room, size_t *len,
                struct esp_value_part *part);

/* --- head and data in different places ------------------------------------ */
/* As esp_value_seal, with the head in HEAD.  Returns what follows it, LEN
 * bytes: DATA itself where it is not encrypted, else ROOM (LEN bytes).  NULL
 * where esp_value_seal returns 0.
 */
extern const void *
esp_value_seal_apart (const struct esp_sealer *sealer,
                      const struct esp_cache_key *key,
                      const struct esp_value_part *part, const void *data,
                      size_t len, void *room, uint8_t head[ESP_VALUE_HEAD]);
/* What HEAD says, which nobody has checked yet.  OK: it can be KEY's. */
extern enum esp_value_result
esp_value_peek (const struct esp_sealer *sealer,
                const struct esp_cache_key *key,
                const uint8_t head[ESP_VALUE_HEAD], size_t *len,
                struct esp_value_part *part);
/* Whose it says it is; false: nobody's, or of another version. */
extern bool esp_value_whose (const uint8_t head[ESP_VALUE_HEAD],
                             struct esp_cache_key *key, size_t *len,
                             struct esp_value_part *part);
/* The id of the sealer whose HEAD says it is; any number where it is no head. */
extern uint64_t esp_value_sealed (const uint8_t head[ESP_VALUE_HEAD]);
/* Open what follows HEAD, LEN bytes, in place. */
extern enum esp_value_result
esp_value_open_apart (const struct esp_sealer *sealer,
                      const struct esp_cache_key *key,
                      const uint8_t head[ESP_VALUE_HEAD], void *data,
                      size_t len);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_VALUE_H */
