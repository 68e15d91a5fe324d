/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of overlays share: a disk below in memory, a place in a
 * private directory, short verbs that fail the test on an error.
 */

#ifndef ESPALIER_OVERLAY_TEST_H
#define ESPALIER_OVERLAY_TEST_H

#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "overlay/admin.h"
#include "overlay/overlay.h"
#include "util/bits.h"
#include "util/file.h"

/* The disk below: BYTES, and what a test wants to happen in a read. */
struct disk {
  uint8_t *bytes;
  uint64_t size;
  _Atomic unsigned reads;
  void (*on_read) (void *arg);  /* may be NULL */
  void *arg;
  int error;                    /* errno of each read, or 0 */
};

static inline int
disk_pread (void *ctx, void *buf, uint64_t count, uint64_t offset, int *err)
{
  struct disk *d = ctx;

  assert_true (offset + count <= d->size);
  atomic_fetch_add (&d->reads, 1);
  if (d->on_read)
    d->on_read (d->arg);
  if (d->error) {
    *err = d->error;
    return -1;
  }
  memcpy (buf, d->bytes + offset, count);
  return 0;
}

/* Below, the first half of each 64 KiB is data, the rest a hole. */
static inline int
disk_extents (void *ctx, uint64_t offset, uint64_t count, bool req_one,
              esp_extent_fn fn, void *arg, int *err)
{
  (void) ctx;
  (void) err;
  for (uint64_t end = offset + count; offset < end; ) {
    uint64_t n = 32768 - offset % 32768;
    if (n > end - offset)
      n = end - offset;
    if (fn (arg, offset, n, offset / 32768 % 2 ? ESP_ABSENT : ESP_DATA) ||
        req_one)
      return 0;
    offset += n;
  }
  return 0;
}

static inline void
disk_init (struct disk *d, uint64_t size)
{
  memset (d, 0, sizeof *d);
  d->size = size;
  d->bytes = malloc (size + 1);
  assert_non_null (d->bytes);
  for (uint64_t i = 0; i < size; ++i)
    d->bytes[i] = (uint8_t) (i * 7 + (i >> 9) * 13 + (i >> 20) + 1);
}

static inline struct esp_below
disk_below (struct disk *d)
{
  return (struct esp_below) { .ctx = d, .pread = disk_pread,
                              .extents = disk_extents };
}

static const struct esp_overlay_id seat7 __attribute__ ((unused)) =
  { "cafe", "0", "seat-7" };
static const esp_uuid no_tip __attribute__ ((unused));

/* A place with a mode; other parameters may be changed before env_open. */
struct env {
  char *dir;
  struct esp_overlay_params params;
  struct esp_overlay_place *place;
  struct disk disk;
  struct esp_below below;
  struct esp_overlay *o;
};

static inline void
env_init (struct env *e, enum esp_overlay_mode mode, uint64_t size)
{
  memset (e, 0, sizeof *e);
  e->dir = unit_mkdir ();
  e->params.mode = mode;
  e->params.grace = 30;
  disk_init (&e->disk, size);
  e->below = disk_below (&e->disk);
  unit_error[0] = 0;
}

static inline void
env_open_id (struct env *e, const struct esp_overlay_id *id)
{
  if (!e->place)
    e->place = esp_overlay_place_open (e->dir, &e->params);
  assert_non_null (e->place);
  e->o = esp_overlay_open (e->place, id, &no_tip, e->disk.size);
  if (!e->o)
    fail_msg ("esp_overlay_open: %s", unit_error);
}

static inline void
env_open (struct env *e)
{
  env_open_id (e, &seat7);
}

/* Close overlay and place, as the end of a process does. */
static inline void
env_close (struct env *e)
{
  esp_overlay_close (e->o);
  esp_overlay_place_close (e->place);
  e->o = NULL;
  e->place = NULL;
}

static inline void
env_end (struct env *e)
{
  env_close (e);
  free (e->disk.bytes);
  unit_rmdir (e->dir);
}

#define OK(r)                                                   \
  do {                                                          \
    int err_ = 0;                                               \
    int *err = &err_;                                           \
    if ((r) != 0)                                               \
      fail_msg ("%s: errno %d: %s", #r, err_, unit_error);      \
  } while (0)
#define FAILS(r, e)                                             \
  do {                                                          \
    int err_ = 0;                                               \
    int *err = &err_;                                           \
    assert_int_equal ((r), -1);                                 \
    assert_int_equal (err_, (e));                               \
  } while (0)

#define WRITE(e, buf, n, at) \
  esp_overlay_pwrite ((e)->o, &(e)->below, buf, n, at, false, err)
#define ZERO(e, n, at) \
  esp_overlay_zero ((e)->o, &(e)->below, n, at, false, err)
#define READ(e, buf, n, at) \
  esp_overlay_pread ((e)->o, &(e)->below, buf, n, at, err)
#define FLUSH(e) esp_overlay_flush ((e)->o, err)

/* Is every byte of [AT, AT+N) C? */
static inline void
assert_bytes (struct env *e, uint64_t at, uint64_t n, uint8_t c)
{
  uint8_t *buf = malloc (n);

  OK (READ (e, buf, n, at));
  for (uint64_t i = 0; i < n; ++i)
    if (buf[i] != c)
      fail_msg ("byte %llu is %02x, not %02x",
                (unsigned long long) (at + i), buf[i], c);
  free (buf);
}

/* Is [AT, AT+N) as below? */
static inline void
assert_below (struct env *e, uint64_t at, uint64_t n)
{
  uint8_t *buf = malloc (n);

  OK (READ (e, buf, n, at));
  assert_memory_equal (buf, e->disk.bytes + at, n);
  free (buf);
}

#endif /* ESPALIER_OVERLAY_TEST_H */
