/* SPDX-License-Identifier: BSD-3-Clause */
/* The file `segments`: which segments a restore point has, and the digest of
 * each (docs/formats.md, "segments").
 *
 * The table of a center's restore point never changes, and its header has a
 * checksum over all of it.  That of a plain image grows: each digest is put
 * in with the first fetch.  So there each entry has a checksum of its own,
 * and one that is torn by a loss of power counts as not known.  A growing
 * table is mapped, and written with pwrite; the state in `have` follows, so
 * whoever sees CHECKED sees the digest.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "store/have-internal.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/host.h"
#include "util/sum.h"

/* --- entries ---------------------------------------------------------- */

static uint32_t
entry_sum (uint32_t number, const uint8_t *digest)
{
  return (uint32_t) XXH3_64bits_withSeed (digest, ESP_DIGEST_SIZE, number);
}

void
segments_entry (uint8_t bytes[SEGMENTS_ENTRY], uint32_t number,
                const esp_digest *digest)
{
  esp_put32 (bytes, number);
  esp_put32 (bytes + 4, entry_sum (number, digest->b));
  memcpy (bytes + 8, digest->b, ESP_DIGEST_SIZE);
}

bool
segments_digest (const struct segments *s, size_t entry, esp_digest *out)
{
  static const esp_digest none;
  const uint8_t *p = s->entries + entry * SEGMENTS_ENTRY;
  uint8_t copy[SEGMENTS_ENTRY];

  memcpy (copy, p, sizeof copy);
  memcpy (out->b, copy + 8, ESP_DIGEST_SIZE);
  return memcmp (out->b, none.b, sizeof none.b) != 0 &&
    esp_get32 (copy + 4) == entry_sum (esp_get32 (copy), out->b);
}

/* --- maps ------------------------------------------------------------- */

bool
segments_next (const struct esp_map *map, unsigned shift, uint64_t *number)
{
  uint64_t end = esp_blocks (map->size), n;
  unsigned blocks = shift - ESP_BLOCK_SHIFT;

  for (uint64_t b = *number << blocks; b < end; b += n)
    if (esp_map_run (map, b, end - b, &n) == ESP_DATA) {
      *number = b >> blocks;
      return true;
    }
  return false;
}

int
segments_of_map (const struct esp_map *map, unsigned shift,
                 struct esp_index *out)
{
  size_t cap = 0;

  *out = (struct esp_index) { .shift = shift };
  for (uint64_t i = 0; segments_next (map, shift, &i); i++) {
    if (out->n == cap) {
      cap = cap ? cap * 2 : 64;
      struct esp_segment *more = reallocarray (out->segments, cap,
                                               sizeof *more);
      if (more == NULL) {
        esp_error ("malloc: table of segments: %m");
        esp_index_clear (out);
        return -1;
      }
      out->segments = more;
    }
    out->segments[out->n++] = (struct esp_segment) { .number = i };
  }
  return 0;
}

int
segments_fit (const struct segments *s, const struct esp_map *map,
              const char *where)
{
  uint64_t number = 0;
  size_t i;

  for (i = 0; segments_next (map, s->shift, &number); i++, number++)
    if (i >= s->n || segments_number (s, i) != number)
      break;
  if (i == s->n && !segments_next (map, s->shift, &number))
    return 0;
  errno = EBADMSG;
  esp_error ("%s: the table of segments is not that of its map", where);
  return -1;
}

/* --- the file --------------------------------------------------------- */

static int
damaged (const char *where, const char *what)
{
  errno = EBADMSG;
  esp_error ("%s: %s", where, what);
  return -1;
}

static int
parse_header (const uint8_t *p, size_t len, uint64_t size, const char *where,
              struct segments *out)
{
  if (len < SEGMENTS_HEADER || memcmp (p, SEGMENTS_MAGIC, 8) != 0)
    return damaged (where, "this is no table of segments");
  if (esp_get64 (p + 56) != esp_sum (p, 56))
    return damaged (where, "the header of the table of segments is damaged");
  if (esp_get32 (p + 8) != SEGMENTS_VERSION) {
    errno = ENOTSUP;
    esp_error ("%s: made by a newer espalier (version %u of the table of "
               "segments; this one knows %u)", where, esp_get32 (p + 8),
               SEGMENTS_VERSION);
    return -1;
  }
  *out = (struct segments) {
    .shift = esp_get32 (p + 12),
    .n = esp_get64 (p + 16),
    .growing = esp_get32 (p + 32) & SEGMENTS_GROWING,
    .entries = p + SEGMENTS_HEADER,
  };
  if (out->shift < ESP_SEGMENT_SHIFT_MIN || out->shift > ESP_SEGMENT_SHIFT_MAX ||
      esp_get32 (p + 32) > SEGMENTS_GROWING || esp_get64 (p + 24) != size ||
      out->n > (len - SEGMENTS_HEADER) / SEGMENTS_ENTRY ||
      len != SEGMENTS_HEADER + out->n * SEGMENTS_ENTRY)
    return damaged (where, "the table of segments is that of another disk, "
                    "or was cut short");
  return 0;
}

int
segments_parse (const void *buf, size_t len, uint64_t size, const char *where,
                struct segments *out)
{
  const uint8_t *p = buf;
  uint64_t end;

  if (parse_header (p, len, size, where, out) == -1)
    return -1;
  end = ((size - 1) >> out->shift) + 1;
  for (size_t i = 0; i < out->n; i++)
    if (segments_number (out, i) >= end ||
        (i > 0 && segments_number (out, i) <= segments_number (out, i - 1)))
      return damaged (where, "the numbers of segments make no sense");
  if (!out->growing &&
      esp_get64 (p + 40) != esp_sum (out->entries, out->n * SEGMENTS_ENTRY))
    return damaged (where, "the table of segments is damaged");
  return 0;
}

void *
segments_format (const struct esp_index *table, uint64_t size, bool growing,
                 size_t *len)
{
  uint8_t *p;

  *len = SEGMENTS_HEADER + table->n * SEGMENTS_ENTRY;
  p = calloc (1, *len);
  if (p == NULL) {
    esp_error ("malloc: table of segments: %m");
    return NULL;
  }
  for (size_t i = 0; i < table->n; i++)
    segments_entry (p + SEGMENTS_HEADER + i * SEGMENTS_ENTRY,
                    table->segments[i].number, &table->segments[i].digest);
  memcpy (p, SEGMENTS_MAGIC, 8);
  esp_put32 (p + 8, SEGMENTS_VERSION);
  esp_put32 (p + 12, table->shift);
  esp_put64 (p + 16, table->n);
  esp_put64 (p + 24, size);
  esp_put32 (p + 32, growing ? SEGMENTS_GROWING : 0);
  if (!growing)
    esp_put64 (p + 40, esp_sum (p + SEGMENTS_HEADER, *len - SEGMENTS_HEADER));
  esp_put64 (p + 56, esp_sum (p, 56));
  return p;
}

void
segments_clear (struct segments *s)
{
  int saved = errno;

  if (s->mapped)
    munmap (s->mem, s->mapped);
  else
    free (s->mem);
  memset (s, 0, sizeof *s);
  errno = saved;
}

/* Map a growing table instead of the copy in OUT. */
static int
map_growing (int dir, uint64_t size, const char *where, struct segments *out)
{
  CLEANUP_CLOSE int fd = openat (dir, ESP_RP_SEGMENTS,
                                 O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  size_t len = SEGMENTS_HEADER + out->n * SEGMENTS_ENTRY;
  struct stat st;
  void *p;

  segments_clear (out);
  if (fd == -1 || fstat (fd, &st) == -1) {
    esp_error ("open: %s/" ESP_RP_SEGMENTS ": %m", where);
    return -1;
  }
  if ((uint64_t) st.st_size != len)
    return damaged (where, "the table of segments changed its length");
  p = mmap (NULL, len, PROT_READ, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) {
    esp_error ("mmap: %s/" ESP_RP_SEGMENTS ": %m", where);
    return -1;
  }
  if (segments_parse (p, len, size, where, out) == -1) {
    munmap (p, len);
    return -1;
  }
  out->mem = p;
  out->mapped = len;
  return 0;
}

int
segments_open (int dir, uint64_t size, const char *where,
               struct segments *out)
{
  uint64_t max = SEGMENTS_HEADER + SEGMENTS_ENTRY *
    (((size - 1) >> ESP_SEGMENT_SHIFT_MIN) + 1);
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  memset (out, 0, sizeof *out);
  if (esp_read_file (dir, ESP_RP_SEGMENTS, max, &buf, &len) == -1) {
    if (errno == EFBIG)
      return damaged (where, "the table of segments is too long");
    if (errno != ENOENT)
      esp_error ("read: %s/" ESP_RP_SEGMENTS ": %m", where);
    return -1;
  }
  if (segments_parse (buf, len, size, where, out) == -1) {
    memset (out, 0, sizeof *out);
    return -1;
  }
  out->mem = ESP_STEAL (buf);
  return out->growing ? map_growing (dir, size, where, out) : 0;
}

int
segments_to_index (const struct segments *s, struct esp_index *out)
{
  *out = (struct esp_index) { .shift = s->shift };
  out->segments = calloc (s->n ? s->n : 1, sizeof *out->segments);
  if (out->segments == NULL) {
    esp_error ("malloc: table of segments: %m");
    return -1;
  }
  out->n = s->n;
  for (size_t i = 0; i < s->n; i++) {
    struct esp_segment *e = &out->segments[i];

    e->number = segments_number (s, i);
    if (!segments_digest (s, i, &e->digest))
      memset (&e->digest, 0, sizeof e->digest);
  }
  return 0;
}

/* --- of what was made here --------------------------------------------- */

static int
open_dir (struct esp_store *store, const esp_uuid *uuid, char where[80])
{
  char text[ESP_UUID_TEXT];
  int dir = esp_store_rp_dir (store, uuid);

  snprintf (where, 80, "restore-points/%s", esp_uuid_text (uuid, text));
  if (dir == -1)
    esp_error ("open: %s: %m", where);
  return dir;
}

int
esp_segments_save (struct esp_store *store, const esp_uuid *uuid,
                   const struct esp_index *table)
{
  CLEANUP_CLOSE int dir = -1;
  CLEANUP_MAP struct esp_map *map = NULL;
  CLEANUP_FREE void *buf = NULL;
  struct segments s;
  char where[80];
  size_t len;

  if (esp_rp_writable (store) == -1 ||
      (dir = open_dir (store, uuid, where)) == -1 ||
      !(map = esp_rp_load_map (store, uuid)) ||
      !(buf = segments_format (table, map->size, false, &len)) ||
      segments_parse (buf, len, map->size, where, &s) == -1 ||
      segments_fit (&s, map, where) == -1)
    return -1;
  return esp_write_file_atomic (dir, ESP_RP_SEGMENTS, buf, len, 0644);
}

int
esp_segments_load (struct esp_store *store, const esp_uuid *uuid,
                   struct esp_index *out)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  CLEANUP_SEGMENTS struct segments s = { 0 };
  CLEANUP_CLOSE int dir = -1;
  char where[80];

  memset (out, 0, sizeof *out);
  if (esp_rp_load_meta (store, uuid, &rp, NULL) == -1 ||
      (dir = open_dir (store, uuid, where)) == -1)
    return -1;
  if (segments_open (dir, rp.size, where, &s) == -1)
    return -1;
  return segments_to_index (&s, out);
}
