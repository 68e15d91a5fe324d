/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of a host's directory share: a directory, keys, contents
 * that say what they are.
 */

#ifndef ESPALIER_CDIR_TEST_H
#define ESPALIER_CDIR_TEST_H

#include "unit.h"

#include <sys/stat.h>

#include "cache/dir-internal.h"
#include "cache/dir.h"
#include "cache/value.h"
#include "util/cleanup.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/lock.h"
#include "util/sum.h"

ESP_DEFINE_CLEANUP (sealer, struct esp_sealer *, esp_sealer_free)
ESP_DEFINE_CLEANUP (cdir, struct esp_cdir *, esp_cdir_close)
#define CLEANUP_SEALER ESP_CLEANUP (sealer)
#define CLEANUP_CDIR ESP_CLEANUP (cdir)

#define MIB (UINT64_C (1) << 20)
#define MAX (16 * MIB)          /* the least: three groups of four sets */
#define SEGMENT (256u << 10)

static char *cdir_where __attribute__ ((unused));
static struct esp_sealer *cdir_check __attribute__ ((unused)),
  *cdir_secret __attribute__ ((unused)),
  *cdir_other __attribute__ ((unused));

static inline __attribute__ ((unused)) int
cdir_setup (void **state)
{
  uint8_t secret[32] = { 7 };

  (void) state;
  unit_error[0] = 0;
  cdir_where = unit_mkdir ();
  cdir_check = esp_sealer_new (NULL);
  cdir_secret = esp_sealer_new (secret);
  secret[0] = 8;
  cdir_other = esp_sealer_new (secret);
  return 0;
}

static inline __attribute__ ((unused)) int
cdir_teardown (void **state)
{
  (void) state;
  unit_rmdir (cdir_where);
  esp_sealer_free (cdir_check);
  esp_sealer_free (cdir_secret);
  esp_sealer_free (cdir_other);
  return 0;
}

static inline __attribute__ ((unused)) struct esp_cdir *
cdir_open_max (uint64_t max)
{
  struct esp_cdir *d = esp_cdir_open (cdir_where, max, cdir_check);

  assert_non_null (d);
  return d;
}

static inline __attribute__ ((unused)) struct esp_cdir *
cdir_open (void)
{
  return cdir_open_max (MAX);
}

static inline __attribute__ ((unused)) struct esp_cache_key
cdir_key (enum esp_cache_kind kind, uint32_t number, unsigned shift)
{
  return (struct esp_cache_key) { .id = { 1, 2, 3 }, .segment = number,
                                  .shift = (uint8_t) shift, .kind = kind };
}

/* Each word of LEN bytes (a multiple of 8) says the key, version and place. */
static inline uint64_t
cdir_word (uint64_t hash, uint32_t version, size_t at)
{
  return (hash ^ at * UINT64_C (0x9e3779b97f4a7c15)) << 32 | version;
}

static inline __attribute__ ((unused)) void
cdir_fill (const struct esp_cache_key *key, uint32_t version, void *buf,
           size_t len)
{
  uint64_t hash = esp_cache_key_hash (key);

  for (size_t at = 0; at < len; at += 8)
    esp_put64 ((uint8_t *) buf + at, cdir_word (hash, version, at));
}

/* The lowest version of a slot's part in BUF; UINT32_MAX: one part has two,
 * or there are other bytes.
 */
static inline __attribute__ ((unused)) uint32_t
cdir_version (const struct esp_cache_key *key, const void *buf, size_t len)
{
  uint64_t hash = esp_cache_key_hash (key);
  uint32_t lowest = UINT32_MAX, version = 0;

  for (size_t at = 0; at < len; at += 8) {
    uint64_t word = esp_get64 ((const uint8_t *) buf + at);

    if (at % ESP_CDIR_SLOT == 0)
      version = (uint32_t) word;
    if (word != cdir_word (hash, version, at))
      return UINT32_MAX;
    if (version < lowest)
      lowest = version;
  }
  return lowest;
}

/* No malloc here: also called by handlers of signals. */
static _Thread_local uint8_t cdir_buf[4 << 20];

static inline __attribute__ ((unused)) bool
cdir_put (struct esp_cdir *d, const struct esp_cache_key *key,
          uint32_t version, size_t len)
{
  uint64_t epoch;

  (void) esp_cdir_get (d, key, cdir_buf, len, &epoch);
  cdir_fill (key, version, cdir_buf, len);
  return esp_cdir_put (d, key, cdir_buf, len, epoch);
}

/* Is it there?  Then it is VERSION. */
static inline __attribute__ ((unused)) bool
cdir_has (struct esp_cdir *d, const struct esp_cache_key *key,
          uint32_t version, size_t len)
{
  uint64_t epoch;

  if (!esp_cdir_get (d, key, cdir_buf, len, &epoch))
    return false;
  assert_int_equal (cdir_version (key, cdir_buf, len), version);
  return true;
}

static inline __attribute__ ((unused)) int
cdir_file (void)
{
  char path[400];
  int fd;

  snprintf (path, sizeof path, "%s/segcache", cdir_where);
  fd = open (path, O_RDWR | O_CLOEXEC);
  assert_true (fd >= 0);
  return fd;
}

/* Change the header, and let its sum be right. */
static inline __attribute__ ((unused)) void
cdir_patch (size_t at, const void *bytes, size_t n)
{
  CLEANUP_CLOSE int fd = cdir_file ();
  struct cdir_fixed fixed;

  assert_int_equal (esp_pread_all (fd, &fixed, sizeof fixed, 0), 0);
  memcpy ((uint8_t *) &fixed + at, bytes, n);
  fixed.sum = esp_sum (&fixed, offsetof (struct cdir_fixed, sum));
  assert_int_equal (esp_pwrite_all (fd, &fixed, sizeof fixed, 0), 0);
}

/* The machine starts again, and the disk has all. */
static inline __attribute__ ((unused)) void
cdir_reboot (void)
{
  static const uint8_t before[16] = { 0xbb };

  cdir_patch (offsetof (struct cdir_fixed, boot), before, sizeof before);
}

#endif /* ESPALIER_CDIR_TEST_H */
