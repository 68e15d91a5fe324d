/* SPDX-License-Identifier: BSD-3-Clause */
/* What a cached segment is called, whoever caches it. */

#ifndef ESPALIER_CACHE_KEY_H
#define ESPALIER_CACHE_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "util/name.h"

#pragma GCC visibility push(default)

#define ESP_SEGMENT_SHIFT_MIN 16u       /* 64K */
#define ESP_SEGMENT_SHIFT_MAX 22u       /* 4M */

enum esp_cache_kind {
  ESP_CACHE_RP,                 /* id: a restore point; its own blocks in the
                                 * segment, without gaps; never changes */
  ESP_CACHE_EXPORT,             /* id: of an export (esp_cache_export_id); the
                                 * disk's bytes; may be written */
};

struct esp_cache_key {
  uint8_t id[16];
  uint32_t segment;             /* offset >> shift */
  uint8_t shift;
  uint8_t kind;
};

/* The id of an export: the first 16 bytes of SHA-256 over (SHA-256 of ID,
 * SHA-256 of NAME, SIZE as 8 bytes, little endian).  ID is segcache-id, "" for
 * none; SIZE is in bytes.
 */
extern void esp_cache_export_id (const char *id, const char *name,
                                 uint64_t size, uint8_t out[16]);

/* A key as 44 hex digits and a NUL: for nodes, logs, files. */
#define ESP_CACHE_KEY_PACKED 22u
#define ESP_CACHE_KEY_TEXT (2 * ESP_CACHE_KEY_PACKED + 1)
/* The same as bytes: kind, id, segment, shift. */
extern void esp_cache_key_pack (const struct esp_cache_key *key,
                                uint8_t out[ESP_CACHE_KEY_PACKED]);
extern char *esp_cache_key_text (const struct esp_cache_key *key,
                                 char out[ESP_CACHE_KEY_TEXT]);
/* 64 well mixed bits of it (XXH3). */
extern uint64_t esp_cache_key_hash (const struct esp_cache_key *key);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_KEY_H */
