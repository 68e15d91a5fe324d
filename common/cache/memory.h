/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory of this process: segments in parts, fills that are waited for,
 * writes that no fill covers.  docs/segment-cache.md has the policy (S3-FIFO)
 * and the states.  Knows nothing of where bytes come from.  Any thread.
 */

#ifndef ESPALIER_CACHE_MEMORY_H
#define ESPALIER_CACHE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"

#pragma GCC visibility push(default)

/* MAX bytes of blocks (0: keeps nothing, but fills and writes work as ever),
 * never more; segments of 1 << SHIFT and, side by side with them, smaller ones.
 * NULL, reported.
 */
struct esp_memory;
extern struct esp_memory *esp_memory_new (uint64_t max, unsigned shift);
/* Nobody reads, fills or writes any more. */
extern void esp_memory_free (struct esp_memory *memory);

/* In all that follows [AT, AT+LEN) lies in the segment, and LEN is not 0.
 *
 * Copy [AT, AT+LEN) of KEY's segment to BUF if all of it is here; where it is
 * not, BUF may hold rubbish.  Never waits: takes no lock.
 */
extern bool esp_memory_read (struct esp_memory *memory,
                             const struct esp_cache_key *key, void *buf,
                             uint32_t at, uint32_t len);

/* --- misses ----------------------------------------------------------- */
/* Stays where it is in the caller's memory until it ends. */
struct esp_fill {
  uint32_t at, len;             /* what to fetch of the segment: contains
                                 * what was asked for, whole blocks but at the
                                 * disk's end */
  bool whole;                   /* all of the segment */
  /* Private from here. */
  void *entry;                  /* NULL: there was no room for one */
  uint64_t id;
  struct esp_fill *next;
  uint32_t stale_from, stale_to;        /* blocks */
};
enum esp_memory_miss {
  ESP_MEMORY_HERE,              /* came meanwhile: it was copied to BUF */
  ESP_MEMORY_FETCH,             /* FILL is the caller's: it ends it */
  ESP_MEMORY_WAIT,              /* another's fill has some of it: call
                                 * esp_memory_wait, then again */
};
/* For a read of [AT, AT+LEN) that missed; SEGMENT_LEN is shorter for the
 * disk's last segment.  Says how much to fetch: more with each miss in a
 * segment; all of it where WHOLE.  BUF as for esp_memory_read.
 */
extern enum esp_memory_miss
esp_memory_miss (struct esp_memory *memory, const struct esp_cache_key *key,
                 void *buf, uint32_t at, uint32_t len, uint32_t segment_len,
                 bool whole, struct esp_fill *fill);
/* Until the fill that was in the way ended or was overtaken by a write (or
 * none was: true), at most UNTIL_MS from now (false).
 */
extern bool esp_memory_wait (struct esp_memory *memory,
                             const struct esp_cache_key *key, uint32_t at,
                             uint32_t len, unsigned until_ms);
/* Was any of what FILL fetches written since it began, or is it being
 * written?  Then what was fetched must not go to the shared tiers.  Before it
 * ends.
 */
extern bool esp_memory_fill_stale (struct esp_memory *memory,
                                   const struct esp_fill *fill);
/* BYTES are fill->len bytes; NULL: it failed. */
extern void esp_memory_fill_end (struct esp_memory *memory,
                                 struct esp_fill *fill, const void *bytes);
/* As that, where more came than FILL asked for: all SEGMENT_LEN bytes of the
 * segment.
 */
extern void esp_memory_fill_end_all (struct esp_memory *memory,
                                     struct esp_fill *fill,
                                     const void *segment,
                                     uint32_t segment_len);

/* --- writes ----------------------------------------------------------- */
/* Private; stays where it is until the write ended. */
struct esp_memory_write {
  void *entry;
  struct esp_memory_write *next;
  uint32_t at, len;
  uint32_t clash_from, clash_to;        /* blocks */
};
/* Before [AT, AT+LEN) is written below: nobody reads the old bytes from here
 * on.  Never waits, never fails but for memory (-1, not reported: then do not
 * write).
 */
extern int esp_memory_write_begin (struct esp_memory *memory,
                                   const struct esp_cache_key *key,
                                   uint32_t at, uint32_t len,
                                   struct esp_memory_write *write);
/* It was written (BYTES: whole blocks of them are kept), or zeroed or failed
 * (NULL: forget what was there).
 */
extern void esp_memory_write_end (struct esp_memory *memory,
                                  struct esp_memory_write *write,
                                  const void *bytes);

struct esp_memory_counters {
  uint64_t hits, misses, bytes_read, bytes_filled, waits, waited_us;
  uint64_t evictions, entries, bytes, max;      /* the last three: gauges */
};
extern void esp_memory_counters (struct esp_memory *memory,
                                 struct esp_memory_counters *out);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_MEMORY_H */
