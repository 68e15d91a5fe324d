/* SPDX-License-Identifier: BSD-3-Clause */
/* The object `map` of a center: a layer's map, packed (docs/formats.md,
 * "restore-points/UUID/map").
 *
 * Pages that are not wholly absent, one behind another, through zstd as a
 * stream: neither side ever holds them all at once, so that a hostile object
 * costs no more memory than the map of a disk of that size may.
 */

#include <config.h>

#include <string.h>
#include <zstd.h>

#include "center/format-internal.h"
#include "util/endian.h"

#define MAGIC "ESPMAPPK"
#define FORMAT_VERSION 1u
#define LEVEL 3
/* No window beyond 8 MiB, whatever a frame asks for. */
#define WINDOW_LOG_MAX 23

enum { H_MAGIC = 0, H_VERSION = 8, H_BLOCK_SHIFT = 12, H_SIZE = 16,
       H_PAGES = 24, H_DIGEST = 32, H_PAYLOAD = 40, HEAD = 48 };

/* A page in the stream: its number, its states. */
#define RECORD (4 + ESP_MAP_PAGE_BYTES)

ESP_DEFINE_CLEANUP (cctx, ZSTD_CCtx *, ZSTD_freeCCtx)
ESP_DEFINE_CLEANUP (dctx, ZSTD_DCtx *, ZSTD_freeDCtx)

/* --- packing ----------------------------------------------------------- */

struct pack {
  ZSTD_CCtx *ctx;
  uint8_t *buf;
  size_t len, cap;
};

static bool
grow (struct pack *p)
{
  size_t cap = p->cap ? 2 * p->cap : HEAD + 4096;
  uint8_t *more = realloc (p->buf, cap);

  if (!more)
    return false;
  p->buf = more;
  p->cap = cap;
  return true;
}

/* N more bytes of the stream, or its end. */
static bool
put (struct pack *p, const void *bytes, size_t n, ZSTD_EndDirective end)
{
  ZSTD_inBuffer in = { bytes, n, 0 };
  size_t left;

  do {
    if (p->len == p->cap && !grow (p))
      return false;
    ZSTD_outBuffer out = { p->buf, p->cap, p->len };
    left = ZSTD_compressStream2 (p->ctx, &out, &in, end);
    if (ZSTD_isError (left))
      return false;
    p->len = out.pos;
  } while (in.pos < in.size || (end == ZSTD_e_end && left > 0));
  return true;
}

static bool
put_pages (struct pack *p, const struct esp_map *map, uint64_t *n)
{
  uint8_t record[RECORD];

  for (uint64_t page = 1; page <= map->npages; ++page) {
    if (!esp_map_present (map, page) ||
        !esp_map_get_page (map, page, record + 4))
      continue;
    esp_put32 (record, (uint32_t) page);
    if (!put (p, record, sizeof record, ZSTD_e_continue))
      return false;
    ++*n;
  }
  return *n == 0 || put (p, NULL, 0, ZSTD_e_end);
}

void *
esp_map_pack (const struct esp_map *map, size_t *len)
{
  ESP_CLEANUP (cctx) ZSTD_CCtx *ctx = ZSTD_createCCtx ();
  struct pack p = { .ctx = ctx, .len = HEAD };
  uint64_t n = 0;

  if (!ctx || !grow (&p) ||
      ZSTD_isError (ZSTD_CCtx_setParameter (ctx, ZSTD_c_compressionLevel,
                                            LEVEL)) ||
      !put_pages (&p, map, &n)) {
    free (p.buf);
    format_no_memory ("map");
    return NULL;
  }
  memcpy (p.buf + H_MAGIC, MAGIC, 8);
  esp_put32 (p.buf + H_VERSION, FORMAT_VERSION);
  esp_put32 (p.buf + H_BLOCK_SHIFT, ESP_BLOCK_SHIFT);
  esp_put64 (p.buf + H_SIZE, map->size);
  esp_put64 (p.buf + H_PAGES, n);
  esp_put64 (p.buf + H_DIGEST, esp_map_digest (map));
  esp_put64 (p.buf + H_PAYLOAD, p.len - HEAD);
  *len = p.len;
  return p.buf;
}

/* --- unpacking --------------------------------------------------------- */

/* Fill RECORD; *LEFT is what zstd said last. */
static bool
get (ZSTD_DCtx *ctx, ZSTD_inBuffer *in, void *record, size_t len,
     size_t *left)
{
  ZSTD_outBuffer out = { record, len, 0 };

  while (out.pos < out.size) {
    size_t in_before = in->pos, out_before = out.pos;

    *left = ZSTD_decompressStream (ctx, &out, in);
    if (ZSTD_isError (*left) ||
        (in->pos == in_before && out.pos == out_before))
      return false;
  }
  return true;
}

/* Nothing may follow the last record. */
static bool
at_end (ZSTD_DCtx *ctx, ZSTD_inBuffer *in, size_t left)
{
  uint8_t byte;
  ZSTD_outBuffer out = { &byte, 1, 0 };

  while (left > 0 && in->pos < in->size) {
    left = ZSTD_decompressStream (ctx, &out, in);
    if (ZSTD_isError (left) || out.pos > 0)
      return false;
  }
  return left == 0 && in->pos == in->size;
}

static bool
get_pages (ZSTD_DCtx *ctx, ZSTD_inBuffer *in, uint64_t n, struct esp_map *map)
{
  static const uint8_t absent[ESP_MAP_PAGE_BYTES];
  uint8_t record[RECORD];
  uint64_t last = 0;
  size_t left = 0;

  for (; n > 0; --n) {
    if (!get (ctx, in, record, sizeof record, &left))
      return false;
    uint64_t page = esp_get32 (record);
    if (page <= last || page > map->npages ||
        memcmp (record + 4, absent, sizeof absent) == 0 ||
        !esp_map_set_page (map, page, record + 4))
      return false;
    last = page;
  }
  return at_end (ctx, in, left);
}

static int
check_header (const uint8_t *p, size_t len, uint64_t size, const char *where)
{
  if (len < HEAD || memcmp (p + H_MAGIC, MAGIC, 8) != 0)
    return format_damaged (where, "it does not begin as a packed map does");
  if (esp_get32 (p + H_VERSION) != FORMAT_VERSION) {
    errno = ENOTSUP;
    esp_error ("%s: the map has version %u, which this espalier does not "
               "know: use a newer one", where, esp_get32 (p + H_VERSION));
    return -1;
  }
  if (esp_get32 (p + H_BLOCK_SHIFT) != ESP_BLOCK_SHIFT)
    return format_damaged (where, "its blocks have another size");
  if (esp_get64 (p + H_SIZE) != size)
    return format_damaged (where, "it is of a disk of another size");
  if (esp_get64 (p + H_PAYLOAD) != len - HEAD)
    return format_damaged (where, "its length is wrong");
  return 0;
}

struct esp_map *
esp_map_unpack (const void *buf, size_t len, uint64_t size, const char *where)
{
  CLEANUP_MAP struct esp_map *map = NULL;
  ESP_CLEANUP (dctx) ZSTD_DCtx *ctx = NULL;
  const uint8_t *p = buf;
  uint64_t n;

  if (check_header (p, len, size, where) == -1 || !(map = esp_map_new (size)))
    return NULL;
  n = esp_get64 (p + H_PAGES);
  ctx = ZSTD_createDCtx ();
  if (!ctx || ZSTD_isError (ZSTD_DCtx_setParameter (ctx, ZSTD_d_windowLogMax,
                                                    WINDOW_LOG_MAX))) {
    format_no_memory (where);
    return NULL;
  }
  ZSTD_inBuffer in = { p + HEAD, len - HEAD, 0 };
  if (n > map->npages || !get_pages (ctx, &in, n, map)) {
    format_damaged (where, "its states cannot be read");
    return NULL;
  }
  if (esp_map_digest (map) != esp_get64 (p + H_DIGEST)) {
    format_damaged (where, "its checksum is wrong");
    return NULL;
  }
  return ESP_STEAL (map);
}

struct esp_map *
esp_manifest_map (const struct esp_manifest *m, const void *buf, size_t len,
                  const char *where)
{
  CLEANUP_MAP struct esp_map *map = NULL;
  esp_digest digest;

  esp_digest_of (buf, len, &digest);
  if (len != m->map_size || !esp_digest_eq (&digest, &m->map_digest)) {
    format_damaged (where, "it is not the map that the manifest names");
    return NULL;
  }
  map = esp_map_unpack (buf, len, m->rp.size, where);
  if (map && (esp_map_count (map, ESP_DATA) != m->rp.data_blocks ||
              esp_map_count (map, ESP_ZERO) != m->rp.zero_blocks)) {
    format_damaged (where, "it has other blocks than the manifest says");
    return NULL;
  }
  return ESP_STEAL (map);
}
