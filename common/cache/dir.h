/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory of this host: shared by processes, survives restarts, needs
 * no repair.  Only shared.c calls it, and tests.
 */

#ifndef ESPALIER_CACHE_DIR_H
#define ESPALIER_CACHE_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/key.h"
#include "cache/value.h"

#pragma GCC visibility push(default)

struct esp_cdir;
/* Open DIR (0700, made where it is not there), of at most MAX bytes.  The
 * sizes of a file that other processes have open stay as they are (a debug
 * message); else it is made anew where MAX or the version differ.  NULL,
 * reported.  SEALER stays the caller's and outlives it.
 */
extern struct esp_cdir *esp_cdir_open (const char *dir, uint64_t max,
                                       const struct esp_sealer *sealer);
extern void esp_cdir_close (struct esp_cdir *dir);

/* True: LEN bytes of KEY are in BUF.  *EPOCH (always set) goes to _put. */
extern bool esp_cdir_get (struct esp_cdir *dir,
                          const struct esp_cache_key *key, void *buf,
                          size_t len, uint64_t *epoch);
/* Keep; nothing happens where a write came since EPOCH, or there is no room.
 * False: it was not kept.
 */
extern bool esp_cdir_put (struct esp_cdir *dir,
                          const struct esp_cache_key *key, const void *buf,
                          size_t len, uint64_t epoch);
/* Forget KEY, and let no put that began earlier keep it. */
extern void esp_cdir_forget (struct esp_cdir *dir,
                             const struct esp_cache_key *key);

struct esp_cdir_counters {
  uint64_t hits, misses, bytes_read, bytes_written, evictions, errors, lies;
  uint64_t used, max;           /* bytes, gauges, of all processes */
};
extern void esp_cdir_counters (struct esp_cdir *dir,
                               struct esp_cdir_counters *out);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_DIR_H */
