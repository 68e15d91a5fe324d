/* SPDX-License-Identifier: BSD-3-Clause */
/* make-delayed STORE NAME RAW PARENT|- PERCENT
 *
 * Make the delayed root (or child) NAME of the bytes of the file RAW, which
 * its source, the center "hq", is said to have, and make PERCENT of its
 * segments local.  A child has all blocks of RAW that are not zero.
 */

#include <config.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/have.h"
#include "store/map.h"
#include "util/cleanup.h"
#include "util/file.h"

#define SHIFT 16u
#define BLOCKS ((UINT64_C (1) << SHIFT) / ESP_BLOCK_SIZE)

struct image {
  uint8_t *bytes;               /* whole blocks */
  uint64_t size;
  struct esp_map *map;
  struct esp_index index;
};

static bool
is_zero (const uint8_t *p)
{
  return p[0] == 0 && memcmp (p, p + 1, ESP_BLOCK_SIZE - 1) == 0;
}

static int
read_image (const char *name, struct image *i)
{
  CLEANUP_CLOSE int fd = open (name, O_RDONLY | O_CLOEXEC);
  struct stat st;

  if (fd == -1 || fstat (fd, &st) == -1)
    return -1;
  i->size = (uint64_t) st.st_size;
  i->bytes = calloc (esp_blocks (i->size), ESP_BLOCK_SIZE);
  i->map = esp_map_new (i->size);
  if (!i->bytes || !i->map || esp_pread_all (fd, i->bytes, i->size, 0) == -1)
    return -1;
  for (uint64_t b = 0; b < esp_blocks (i->size); b++)
    if (!is_zero (i->bytes + b * ESP_BLOCK_SIZE))
      esp_map_set (i->map, b, 1, ESP_DATA, NULL);
  return 0;
}

/* The raw bytes of a segment; their number. */
static size_t
raw_of (const struct image *i, uint64_t number, uint8_t *raw)
{
  uint64_t end = (number + 1) * BLOCKS, n;
  size_t len = 0;

  if (end > esp_blocks (i->size))
    end = esp_blocks (i->size);
  for (uint64_t b = number * BLOCKS; b < end; b++)
    if (esp_map_run (i->map, b, 1, &n) == ESP_DATA) {
      memcpy (raw + len, i->bytes + b * ESP_BLOCK_SIZE, ESP_BLOCK_SIZE);
      len += ESP_BLOCK_SIZE;
    }
  return len;
}

static int
make_index (struct image *i)
{
  uint64_t end = (i->size - 1) / (1 << SHIFT) + 1, offset = 0;
  uint8_t raw[1 << SHIFT];
  size_t len;

  i->index.shift = SHIFT;
  i->index.segments = calloc (end, sizeof *i->index.segments);
  if (!i->index.segments)
    return -1;
  for (uint64_t n = 0; n < end; n++)
    if ((len = raw_of (i, n, raw)) > 0) {
      struct esp_segment *s = &i->index.segments[i->index.n++];

      s->number = (uint32_t) n;
      s->stored = (uint32_t) len + 1;
      s->offset = offset;
      offset += s->stored;
      esp_digest_of (raw, len, &s->digest);
    }
  return 0;
}

static int
make (struct esp_store *store, const char *name, const char *parent,
      struct image *i, esp_uuid *uuid)
{
  CLEANUP_RP struct esp_rp p = { 0 };
  struct esp_rp rp = { .size = i->size, .created = 1700000000,
                       .note = (char *) "" };
  struct esp_source source = { .center = "hq" };
  const struct esp_segment *last = &i->index.segments[i->index.n - 1];

  snprintf (rp.name, sizeof rp.name, "%s", name);
  esp_uuid_new (&rp.uuid);
  *uuid = rp.uuid;
  if (strcmp (parent, "-") != 0) {
    if (esp_catalog_rp_find (esp_store_catalog (store), parent, &p) == -1)
      return -1;
    rp.parent = p.uuid;
  }
  strcpy (source.variant.id, "64K-none");
  source.variant.shift = SHIFT;
  source.variant.segments = i->index.n;
  source.variant.pack_size = last->offset + last->stored;
  source.variant.index_size = 32 + 48 * i->index.n;
  return esp_rp_create_delayed (store, &rp, i->map, SHIFT, &i->index, &source,
                                NULL);
}

static int
fill (struct esp_store *store, const esp_uuid *uuid, const struct image *i,
      unsigned percent)
{
  struct esp_have *have = esp_have_open (store, uuid);
  size_t n = have ? esp_have_entries (have) * percent / 100 : 0;
  uint8_t raw[1 << SHIFT];
  int r = have ? 0 : -1;

  for (size_t e = 0; r == 0 && e < n; e++)
    r = esp_have_store (have, e, raw,
                        raw_of (i, esp_have_number (have, e), raw));
  esp_have_close (have);
  return r;
}

int
main (int argc, char **argv)
{
  struct image image = { 0 };
  struct esp_store *store;
  esp_uuid uuid;
  int r;

  if (argc != 6) {
    fprintf (stderr, "usage: make-delayed STORE NAME RAW PARENT|- PERCENT\n");
    return 2;
  }
  if (read_image (argv[3], &image) == -1 || make_index (&image) == -1) {
    perror (argv[3]);
    return 1;
  }
  if (image.index.n == 0) {
    fprintf (stderr, "make-delayed: %s is empty\n", argv[3]);
    return 1;
  }
  store = esp_store_open (argv[1]);
  r = store ? make (store, argv[2], argv[4], &image, &uuid) : -1;
  if (r == 0)
    r = fill (store, &uuid, &image, (unsigned) atoi (argv[5]));
  if (store)
    esp_store_close (store);
  esp_map_free (image.map);
  esp_index_clear (&image.index);
  free (image.bytes);
  return r == 0 ? 0 : 1;
}
