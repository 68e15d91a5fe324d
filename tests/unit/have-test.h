/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed restore points with the bytes that they must read as, and a center
 * that is nothing but those bytes: for the tests of store/have.h.
 */

#ifndef ESPALIER_HAVE_TEST_H
#define ESPALIER_HAVE_TEST_H

#include "rp-test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "store/have-internal.h"

#define SHIFT 16u
#define SEGMENT (1u << SHIFT)

/* What the last member has of its own, and what its fetches did. */
struct delayed {
  struct tree *t;
  int member;
  struct esp_map *map;          /* own blocks */
  struct esp_index index;
  atomic_int fetches;           /* entries that were stored */
  atomic_int asked;             /* calls */
  atomic_bool broken;           /* the center gives errors */
};

/* The raw bytes of segment NUMBER out of the member's disk. */
static inline __attribute__ ((unused)) size_t
delayed_raw (struct delayed *d, uint32_t number, unsigned char *raw)
{
  struct member *m = &d->t->m[d->member];
  uint64_t b = (uint64_t) number * (SEGMENT / ESP_BLOCK_SIZE), n;
  uint64_t end = b + SEGMENT / ESP_BLOCK_SIZE;
  size_t len = 0;

  if (end > esp_blocks (d->map->size))
    end = esp_blocks (d->map->size);
  for (; b < end; b += n)
    if (esp_map_run (d->map, b, end - b, &n) == ESP_DATA) {
      uint64_t at = b * ESP_BLOCK_SIZE, k = n * ESP_BLOCK_SIZE;
      uint64_t there = at + k > m->size ? m->size - at : k;

      memset (raw + len, 0, k);
      memcpy (raw + len, m->bytes + at, there);
      len += k;
    }
  return len;
}

/* Choose N random blocks of a disk of SIZE bytes over PARENT, and make the
 * table of their segments.  The map and the index are D's until
 * delayed_clear.
 */
static inline __attribute__ ((unused)) void
delayed_prepare (struct tree *t, struct delayed *d, int parent, uint64_t size,
                 unsigned n)
{
  struct member *m = &t->m[t->n];
  unsigned char raw[SEGMENT];

  assert_true (t->n < TREE_MAX);
  memset (d, 0, sizeof *d);
  d->t = t;
  d->member = t->n;
  *m = (struct member) { .size = size, .parent = parent };
  esp_uuid_new (&m->uuid);
  m->bytes = calloc (1, size);
  if (parent >= 0)
    memcpy (m->bytes, t->m[parent].bytes, t->m[parent].size);
  d->map = esp_map_new (size);
  for (unsigned i = 0; i < n; i++) {
    uint64_t b = (unsigned) rand () % esp_blocks (size);
    uint64_t at = b * ESP_BLOCK_SIZE, len = ESP_BLOCK_SIZE;
    int c = rand () % 8 ? rand () % 255 + 1 : 0;

    if (i == n - 1)             /* the end is data, whatever came before */
      b = esp_blocks (size) - 1, at = b * ESP_BLOCK_SIZE, c = 'E';
    if (len > size - at)
      len = size - at;
    memset (m->bytes + at, c, len);
    esp_map_set (d->map, b, 1, c ? ESP_DATA : ESP_ZERO, NULL);
  }
  assert_int_equal (segments_of_map (d->map, SHIFT, &d->index), 0);
  uint64_t offset = 0;
  for (size_t i = 0; i < d->index.n; i++) {
    struct esp_segment *s = &d->index.segments[i];
    size_t len = delayed_raw (d, s->number, raw);

    esp_digest_of (raw, len, &s->digest);
    s->offset = offset;
    s->stored = len + 1;
    offset += s->stored;
  }
}

static inline __attribute__ ((unused)) void
delayed_source (struct delayed *d, struct esp_source *s)
{
  memset (s, 0, sizeof *s);
  strcpy (s->center, "hq");
  strcpy (s->variant.id, "64K-none");
  s->variant.shift = SHIFT;
  s->variant.segments = d->index.n;
  for (size_t i = 0; i < d->index.n; i++)
    s->variant.pack_size += d->index.segments[i].stored;
  s->variant.index_size = 32 + 48 * d->index.n;
}

/* Make it; -1 as esp_rp_create_delayed. */
static inline __attribute__ ((unused)) int
delayed_make (struct tree *t, struct delayed *d, bool plain)
{
  struct member *m = &t->m[d->member];
  struct esp_rp rp = { .uuid = m->uuid, .size = m->size, .created = 1234567,
                       .note = (char *) "from afar" };
  struct esp_source source;

  snprintf (rp.name, sizeof rp.name, "rp-%d", d->member);
  if (m->parent >= 0)
    rp.parent = t->m[m->parent].uuid;
  if (plain)
    source = (struct esp_source) { .url = (char *) "http://x/image",
                                   .etag = "\"1\"", .size = m->size };
  else
    delayed_source (d, &source);
  return esp_rp_create_delayed (t->store, &rp, d->map, SHIFT,
                                plain ? NULL : &d->index, &source, NULL);
}

static inline __attribute__ ((unused)) int
delayed_add (struct tree *t, struct delayed *d, int parent, uint64_t size,
             unsigned n)
{
  delayed_prepare (t, d, parent, size, n);
  if (delayed_make (t, d, false) == -1)
    fail_msg ("%s", unit_error);
  return t->n++;
}

static inline __attribute__ ((unused)) void
delayed_clear (struct delayed *d)
{
  esp_map_free (d->map);
  esp_index_clear (&d->index);
}

static inline __attribute__ ((unused)) struct esp_have *
delayed_open (struct delayed *d)
{
  struct esp_have *h = esp_have_open (d->t->store,
                                      &d->t->m[d->member].uuid);

  if (!h)
    fail_msg ("%s", unit_error);
  return h;
}

static inline __attribute__ ((unused)) int
delayed_fetch_entry (struct delayed *d, struct esp_have *h, size_t entry)
{
  unsigned char raw[SEGMENT];
  size_t len = delayed_raw (d, esp_have_number (h, entry), raw);

  if (esp_have_store (h, entry, raw, len) == -1)
    return -1;
  d->fetches++;
  return 0;
}

/* The fetcher of the tests.  Threads of one process agree by a mutex. */
static pthread_mutex_t delayed_flights __attribute__ ((unused)) =
  PTHREAD_MUTEX_INITIALIZER;

static inline __attribute__ ((unused)) int
delayed_fetch (void *arg, struct esp_store *store, const esp_uuid *uuid,
               uint64_t offset, uint64_t len)
{
  struct delayed *d = arg;
  struct esp_have *h = esp_have_open (store, uuid);
  int r = 0;

  d->asked++;
  if (!h)
    return -1;
  if (d->broken || !esp_uuid_eq (uuid, &d->t->m[d->member].uuid)) {
    errno = EIO;
    esp_error ("the center is gone");
    r = -1;
  }
  for (size_t e = esp_have_find (h, offset >> SHIFT);
       r == 0 && e < esp_have_entries (h) &&
         esp_have_number (h, e) <= (offset + len - 1) >> SHIFT; e++) {
    if (esp_have_state (h, e) == ESP_HAVE_LOCAL)
      esp_have_check (h, e, false);
    ESP_LOCK_SCOPE (&delayed_flights);
    if (esp_have_state (h, e) != ESP_HAVE_ABSENT)
      continue;
    while (!esp_have_try_lock (h, e))
      usleep (50);
    if (esp_have_state (h, e) == ESP_HAVE_ABSENT)
      r = delayed_fetch_entry (d, h, e);
    esp_have_unlock (h, e);
  }
  esp_have_close (h);
  return r;
}

/* All entries are in state S. */
static inline __attribute__ ((unused)) void
delayed_all (struct esp_have *h, enum esp_have_state s)
{
  for (size_t e = 0; e < esp_have_entries (h); e++)
    if (esp_have_state (h, e) != s)
      fail_msg ("entry %zu is %d, not %d", e, esp_have_state (h, e), s);
}

/* The file NAME of the member, to be read and changed. */
static inline __attribute__ ((unused)) int
delayed_file (struct delayed *d, const char *name)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (d->t->store,
                                            &d->t->m[d->member].uuid);
  int fd = openat (dir, name, O_RDWR);

  if (fd == -1)
    fail_msg ("%s: %s", name, strerror (errno));
  return fd;
}

static inline __attribute__ ((unused)) void
delayed_patch (struct delayed *d, const char *name, uint64_t at,
               const void *bytes, size_t len)
{
  CLEANUP_CLOSE int fd = delayed_file (d, name);

  assert_int_equal (esp_pwrite_all (fd, bytes, len, at), 0);
}

#endif /* ESPALIER_HAVE_TEST_H */
