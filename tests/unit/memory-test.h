/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of the memory tier share: a disk whose bytes are known, reads of
 * it through the tier as the filter does them.
 */

#ifndef ESPALIER_MEMORY_TEST_H
#define ESPALIER_MEMORY_TEST_H

#include "unit.h"

#include "cache/memory.h"
#include "cache/memory-internal.h"
#include "util/cleanup.h"

#define SHIFT 18u
#define SEGMENT (1u << SHIFT)
#define KiB 1024u

ESP_DEFINE_CLEANUP (memory, struct esp_memory *, esp_memory_free)
#define CLEANUP_MEMORY ESP_CLEANUP (memory)

static inline __attribute__ ((unused)) struct esp_cache_key
key_of (uint32_t segment)
{
  return (struct esp_cache_key) { .id = "an export's id.", .shift = SHIFT,
    .kind = ESP_CACHE_EXPORT, .segment = segment };
}

/* What the disk has at an offset of a segment. */
static inline __attribute__ ((unused)) uint8_t
byte_of (uint32_t segment, uint32_t at)
{
  return (uint8_t) (segment * 31 + at / 512 * 7 + at);
}

static inline __attribute__ ((unused)) void
get_disk (uint8_t *buf, uint32_t segment, uint32_t at, uint32_t len)
{
  for (uint32_t i = 0; i < len; ++i)
    buf[i] = byte_of (segment, at + i);
}

static uint8_t buf[SEGMENT], other[SEGMENT];

static inline __attribute__ ((unused)) bool
reads (struct esp_memory *m, uint32_t segment, uint32_t at, uint32_t len)
{
  struct esp_cache_key key = key_of (segment);

  return esp_memory_read (m, &key, buf, at, len);
}

static inline __attribute__ ((unused)) void
assert_reads_disk (struct esp_memory *m, uint32_t segment, uint32_t at,
                   uint32_t len)
{
  assert_true (reads (m, segment, at, len));
  get_disk (other, segment, at, len);
  assert_memory_equal (buf, other, len);
}

static inline __attribute__ ((unused)) enum esp_memory_miss
miss (struct esp_memory *m, uint32_t segment, uint32_t at, uint32_t len,
      bool whole, struct esp_fill *fill)
{
  struct esp_cache_key key = key_of (segment);

  return esp_memory_miss (m, &key, buf, at, len, SEGMENT, whole, fill);
}

static inline __attribute__ ((unused)) void
end (struct esp_memory *m, uint32_t segment, struct esp_fill *fill)
{
  get_disk (other, segment, fill->at, fill->len);
  esp_memory_fill_end (m, fill, other);
}

/* A read as the filter does it; false: it was a miss. */
static inline __attribute__ ((unused)) bool
use (struct esp_memory *m, uint32_t segment, uint32_t at, uint32_t len)
{
  struct esp_fill fill;

  if (reads (m, segment, at, len))
    return true;
  assert_int_equal (miss (m, segment, at, len, false, &fill),
                    ESP_MEMORY_FETCH);
  end (m, segment, &fill);
  return false;
}

static inline __attribute__ ((unused)) void
write_begin (struct esp_memory *m, uint32_t segment, uint32_t at,
             uint32_t len, struct esp_memory_write *w)
{
  struct esp_cache_key key = key_of (segment);

  assert_int_equal (esp_memory_write_begin (m, &key, at, len, w), 0);
}

static inline __attribute__ ((unused)) struct esp_memory_counters
counts (struct esp_memory *m)
{
  struct esp_memory_counters c;

  esp_memory_counters (m, &c);
  return c;
}

#endif /* ESPALIER_MEMORY_TEST_H */
