/* SPDX-License-Identifier: BSD-3-Clause */
/* A plugin for tests of disks behind the cache: bytes in memory, a log of
 * what was read, and what goes wrong when.
 */

#ifndef ESPALIER_EXPORT_TEST_H
#define ESPALIER_EXPORT_TEST_H

#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "cache/export.h"

#define K (1u << 10)
#define M (1u << 20)

struct plugin {
  uint8_t *bytes;
  uint64_t size;
  pthread_mutex_t lock;         /* protects what follows */
  pthread_cond_t cond;
  bool hang;                    /* reads at and behind hang_at wait */
  uint64_t hang_at;
  unsigned hanging, most;       /* reads at once, ever */
  uint64_t bad_at, bad_len;     /* reads that touch this fail ... */
  int bad_errno;                /* ... with this */
  unsigned delay_us;            /* each read */
  unsigned reads;
  uint64_t read_bytes, largest;
};

static inline __attribute__ ((unused)) void
plugin_init (struct plugin *p, uint64_t size)
{
  memset (p, 0, sizeof *p);
  p->size = size;
  p->bytes = malloc (size);
  assert_non_null (p->bytes);
  for (uint64_t i = 0; i < size; ++i)
    p->bytes[i] = (uint8_t) ((i * 2654435761u) >> 13 ^ i >> 9);
  pthread_mutex_init (&p->lock, NULL);
  pthread_cond_init (&p->cond, NULL);
}

static inline __attribute__ ((unused)) void
plugin_clear (struct plugin *p)
{
  free (p->bytes);
}

/* Forget what was read. */
static inline __attribute__ ((unused)) void
plugin_mark (struct plugin *p)
{
  p->reads = 0;
  p->read_bytes = p->largest = 0;
}

static inline bool
plugin_is_bad (const struct plugin *p, uint32_t count, uint64_t offset)
{
  return p->bad_len > 0 && offset < p->bad_at + p->bad_len &&
    offset + count > p->bad_at;
}

static inline void
plugin_sleep (unsigned us)
{
  struct timespec t = { .tv_nsec = us * 1000l };

  if (us)
    nanosleep (&t, NULL);
}

static inline __attribute__ ((unused)) int
plugin_pread (void *arg, void *buf, uint32_t count, uint64_t offset, int *err)
{
  struct plugin *p = arg;

  pthread_mutex_lock (&p->lock);
  assert_true (count > 0 && offset + count <= p->size);
  p->reads++;
  p->read_bytes += count;
  if (count > p->largest)
    p->largest = count;
  if (++p->hanging > p->most)
    p->most = p->hanging;
  pthread_cond_broadcast (&p->cond);
  if (p->delay_us > 0) {
    pthread_mutex_unlock (&p->lock);
    plugin_sleep (p->delay_us);
    pthread_mutex_lock (&p->lock);
  }
  while (p->hang && offset + count > p->hang_at)
    pthread_cond_wait (&p->cond, &p->lock);
  p->hanging--;
  bool bad = plugin_is_bad (p, count, offset);
  if (bad) {
    memset (buf, 0xee, count);  /* part of it may have come */
    *err = p->bad_errno;
  }
  else
    memcpy (buf, p->bytes + offset, count);
  pthread_mutex_unlock (&p->lock);
  return bad ? -1 : 0;
}

static inline __attribute__ ((unused)) void
plugin_hang (struct plugin *p, uint64_t at, bool on)
{
  pthread_mutex_lock (&p->lock);
  p->hang = on;
  p->hang_at = at;
  pthread_cond_broadcast (&p->cond);
  pthread_mutex_unlock (&p->lock);
}

/* Until N reads hang. */
static inline __attribute__ ((unused)) void
plugin_wait_hanging (struct plugin *p, unsigned n)
{
  pthread_mutex_lock (&p->lock);
  while (p->hanging < n)
    pthread_cond_wait (&p->cond, &p->lock);
  pthread_mutex_unlock (&p->lock);
}

static inline __attribute__ ((unused)) struct esp_cdisk_below
plugin_below (struct plugin *p)
{
  return (struct esp_cdisk_below) { .arg = p, .pread = plugin_pread };
}

/* A disk over P. */
static inline __attribute__ ((unused)) struct esp_cdisk *
plugin_open (struct plugin *p, struct esp_memory *memory,
             struct esp_shared *shared, unsigned shift)
{
  const struct esp_cdisk_params params = {
    .id = "", .name = "disk", .size = p->size, .shift = shift,
  };
  struct esp_cdisk *disk = esp_cdisk_open (memory, shared, &params);

  assert_non_null (disk);
  return disk;
}

/* Read through DISK and compare with what P has. */
static inline __attribute__ ((unused)) void
plugin_check (struct plugin *p, struct esp_cdisk *disk, uint32_t count,
              uint64_t offset)
{
  const struct esp_cdisk_below b = plugin_below (p);
  uint8_t *buf = malloc (count + 2);
  int err = 0;

  assert_non_null (buf);
  buf[0] = buf[count + 1] = 0x5a;
  assert_int_equal (esp_cdisk_read (disk, &b, buf + 1, count, offset, &err),
                    0);
  assert_memory_equal (buf + 1, p->bytes + offset, count);
  assert_int_equal (buf[0], 0x5a);
  assert_int_equal (buf[count + 1], 0x5a);
  free (buf);
}

/* Read through DISK, expecting errno WANT. */
static inline __attribute__ ((unused)) void
plugin_check_error (struct plugin *p, struct esp_cdisk *disk, uint32_t count,
                    uint64_t offset, int want)
{
  const struct esp_cdisk_below b = plugin_below (p);
  uint8_t *buf = malloc (count);
  int err = 0;

  assert_non_null (buf);
  assert_int_equal (esp_cdisk_read (disk, &b, buf, count, offset, &err), -1);
  assert_int_equal (err, want);
  free (buf);
}

#endif /* ESPALIER_EXPORT_TEST_H */
