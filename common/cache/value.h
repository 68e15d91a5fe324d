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

#define ESP_VALUE_HEAD 96u      /* bytes before the data, at most */
#define ESP_VALUE_OVERHEAD 128u /* header, salt and tag, at most */

/* How values are sealed: by a check, or by a secret of 32 bytes.  Shared by
 * threads, constant.
 */
struct esp_sealer;
extern struct esp_sealer *esp_sealer_new (const uint8_t *secret);
extern void esp_sealer_free (struct esp_sealer *sealer);
/* Does it encrypt? */
extern bool esp_sealer_secret (const struct esp_sealer *sealer);

struct esp_value_part {
  uint32_t length;              /* of the whole segment, bytes */
  uint16_t part, parts;         /* 0 .. parts-1 */
  uint64_t put;                 /* the same in all parts of one put */
};

/* Seal DATA[0 .. LEN) for KEY into OUT (LEN + ESP_VALUE_OVERHEAD bytes).
 * Returns the length of the value, 0 where there are no random bytes.
 */
extern size_t esp_value_seal (const struct esp_sealer *sealer,
                              const struct esp_cache_key *key,
                              const struct esp_value_part *part,
                              const void *data, size_t len, void *out);

enum esp_value_result {
  ESP_VALUE_OK,
  ESP_VALUE_OTHER,              /* of another version, or sealed otherwise */
  ESP_VALUE_BAD,                /* damaged, forged, or another key's */
};
/* Open VALUE, which was asked for under KEY: the data to OUT (ROOM bytes),
 * its length to *LEN.  OUT may hold rubbish where it is not OK.
 */
extern enum esp_value_result
esp_value_open (const struct esp_sealer *sealer,
                const struct esp_cache_key *key, const void *value,
                size_t value_len, void *out, size_t room, size_t *len,
                struct esp_value_part *part);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_VALUE_H */
