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

/* A segment lies in slots of this size, one for each begun 64K of it. */
#define ESP_CDIR_SLOT 65536u
#define ESP_CDIR_MAX_LOWEST (UINT64_C (16) << 20)       /* bytes */
#define ESP_CDIR_MAX_HIGHEST (UINT64_C (64) << 40)

struct esp_cdir;
/* Open DIR (0700, made where it is not there; its parent must be), of at most
 * MAX bytes on the disk.  Where other processes have it open with another MAX,
 * theirs stays (a debug message); else it is made anew, empty, where MAX or
 * the version differ.  NULL, reported: MAX is out of range, DIR cannot be
 * written, what lies there is not ours, or other processes use what is damaged
 * or of another version.  SEALER stays the caller's and outlives it.
 */
extern struct esp_cdir *esp_cdir_open (const char *dir, uint64_t max,
                                       const struct esp_sealer *sealer);
extern void esp_cdir_close (struct esp_cdir *dir);

/* True: LEN bytes of KEY are in BUF (else it may hold rubbish).  *EPOCH,
 * always set, goes to _put.
 */
extern bool esp_cdir_get (struct esp_cdir *dir,
                          const struct esp_cache_key *key, void *buf,
                          size_t len, uint64_t *epoch);
/* Keep; nothing happens where a write came since EPOCH, another process puts
 * the same, or there is no room.  False: it was not kept.
 */
extern bool esp_cdir_put (struct esp_cdir *dir,
                          const struct esp_cache_key *key, const void *buf,
                          size_t len, uint64_t epoch);
/* Forget KEY, and let no put whose EPOCH is older keep it.  Behind it no
 * process that uses the directory gets what was there before, whatever
 * happens to the machine.
 */
extern void esp_cdir_forget (struct esp_cdir *dir,
                             const struct esp_cache_key *key);

struct esp_cdir_counters {
  uint64_t hits, misses, bytes_read, bytes_written;
  uint64_t evictions;           /* segments put out for others */
  uint64_t errors;              /* of the disk or the file: also a full disk */
  uint64_t lies;                /* values that did not open */
  uint64_t used, max;           /* bytes, gauges, of all processes */
};
extern void esp_cdir_counters (struct esp_cdir *dir,
                               struct esp_cdir_counters *out);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_DIR_H */
