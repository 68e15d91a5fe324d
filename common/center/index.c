/* SPDX-License-Identifier: BSD-3-Clause */
/* Indexes: which segments a pack has, where, and their digests
 * (docs/formats.md, "VARIANT.index").
 *
 * The manifest names the digest of the whole index, so an index of another
 * variant or another restore point never passes; what else is checked is
 * checked because a manifest without a signature may lie as well.  Where the
 * pack is encrypted so are the entries: a digest tells who has the same
 * bytes what they are.
 */

#include <config.h>

#include <string.h>

#include "center/format-internal.h"
#include "util/endian.h"

#define MAGIC "ESPINDEX"
#define FORMAT_VERSION 1u

enum { H_MAGIC = 0, H_VERSION = 8, H_SHIFT = 12, H_SEGMENTS = 16,
       H_PACK = 24, HEAD = 32 };
enum { E_NUMBER = 0, E_STORED = 4, E_OFFSET = 8, E_DIGEST = 16, ENTRY = 48 };

static_assert (E_DIGEST + ESP_DIGEST_SIZE == ENTRY, "an entry");

void
esp_index_clear (struct esp_index *index)
{
  free (index->segments);
  memset (index, 0, sizeof *index);
}

uint64_t
esp_index_bytes (uint64_t n, bool encrypted)
{
  return HEAD + n * ENTRY + (encrypted ? AEAD_OVERHEAD : 0);
}

/* The blocks of a segment; both are numbers of blocks of the disk. */
static void
segment_range (const struct esp_map *map, unsigned shift, uint32_t number,
               uint64_t *first, uint64_t *end)
{
  uint64_t blocks = esp_blocks (map->size);

  *first = (uint64_t) number << (shift - ESP_BLOCK_SHIFT);
  *end = *first + (UINT64_C (1) << (shift - ESP_BLOCK_SHIFT));
  if (*end > blocks)
    *end = blocks;
}

unsigned
esp_segment_blocks (const struct esp_map *map, unsigned shift,
                    uint32_t number)
{
  uint64_t block, end, count = 0;

  segment_range (map, shift, number, &block, &end);
  while (block < end) {
    unsigned first = block % ESP_WORD_BLOCKS;
    unsigned n = ESP_WORD_BLOCKS - first;
    uint64_t word = atomic_load_explicit (&map->words[block / ESP_WORD_BLOCKS],
                                          memory_order_acquire);
    if (n > end - block)
      n = (unsigned) (end - block);
    count += (unsigned) __builtin_popcountll
      (word & esp_states_mask (first, n) & ESP_STATES_LOW);
    block += n;
  }
  return (unsigned) count;
}

const struct esp_segment *
esp_index_find (const struct esp_index *index, uint32_t number)
{
  size_t low = 0, high = index->n;

  while (low < high) {
    size_t middle = low + (high - low) / 2;

    if (index->segments[middle].number < number)
      low = middle + 1;
    else
      high = middle;
  }
  return low < index->n && index->segments[low].number == number
    ? &index->segments[low] : NULL;
}

/* --- packing ----------------------------------------------------------- */

static void
put_entry (uint8_t *p, const struct esp_segment *s)
{
  esp_put32 (p + E_NUMBER, s->number);
  esp_put32 (p + E_STORED, s->stored);
  esp_put64 (p + E_OFFSET, s->offset);
  memcpy (p + E_DIGEST, s->digest.b, ESP_DIGEST_SIZE);
}

/* The pack's size, or -1 where INDEX is none that would be read. */
static int64_t
pack_size (const struct esp_index *index)
{
  uint64_t at = 0;

  if (index->n > ESP_INDEX_SEGMENTS_MAX)
    return -1;
  for (size_t i = 0; i < index->n; ++i) {
    const struct esp_segment *s = &index->segments[i];

    if (s->offset != at || (i > 0 && s->number <= s[-1].number))
      return -1;
    at += s->stored;
  }
  return (int64_t) at;
}

void *
esp_index_pack (const struct esp_index *index,
                const struct esp_segment_key *key, size_t *len)
{
  int64_t pack = pack_size (index);
  CLEANUP_FREE uint8_t *buf = NULL;
  CLEANUP_CIPHER_CTX EVP_CIPHER_CTX *ctx = NULL;
  uint8_t *entries;

  if (pack == -1) {
    errno = EINVAL;
    esp_error ("index: its segments are too many, or do not follow each"
               " other");
    return NULL;
  }
  *len = esp_index_bytes (index->n, key);
  if (!(buf = malloc (*len)) || (key && !(ctx = aead_new (key->aes, true)))) {
    format_no_memory ("index");
    return NULL;
  }
  memcpy (buf + H_MAGIC, MAGIC, 8);
  esp_put32 (buf + H_VERSION, FORMAT_VERSION);
  esp_put32 (buf + H_SHIFT, index->shift);
  esp_put64 (buf + H_SEGMENTS, index->n);
  esp_put64 (buf + H_PACK, (uint64_t) pack);
  entries = buf + HEAD + (key ? AEAD_NONCE : 0);
  for (size_t i = 0; i < index->n; ++i)
    put_entry (entries + i * ENTRY, &index->segments[i]);
  if (key && aead_seal (ctx, buf, HEAD, entries, index->n * ENTRY,
                        buf + HEAD) == -1) {
    esp_error ("index: encryption: %m");
    return NULL;
  }
  return ESP_STEAL (buf);
}

/* --- unpacking --------------------------------------------------------- */

static int
check_whole (const uint8_t *p, size_t len, const struct esp_variant *v,
             const char *where)
{
  esp_digest digest;

  esp_digest_of (p, len, &digest);
  if (len != v->index_size || !esp_digest_eq (&digest, &v->index_digest))
    return format_damaged (where, "it is not the index that the manifest"
                           " names");
  if (len < HEAD || memcmp (p + H_MAGIC, MAGIC, 8) != 0)
    return format_damaged (where, "it does not begin as an index does");
  if (esp_get32 (p + H_VERSION) != FORMAT_VERSION) {
    errno = ENOTSUP;
    esp_error ("%s: the index has version %u, which this espalier does not "
               "know: use a newer one", where, esp_get32 (p + H_VERSION));
    return -1;
  }
  if (v->segments > ESP_INDEX_SEGMENTS_MAX ||
      len != esp_index_bytes (v->segments, v->key[0]) ||
      esp_get32 (p + H_SHIFT) != v->shift ||
      esp_get64 (p + H_SEGMENTS) != v->segments ||
      esp_get64 (p + H_PACK) != v->pack_size)
    return format_damaged (where, "it and the manifest contradict each"
                           " other");
  return 0;
}

/* The entries in the clear: within P, or malloced in *BUF. */
static const uint8_t *
open_entries (const uint8_t *p, size_t len, const struct esp_variant *v,
              const struct esp_segment_key *key, const char *where,
              uint8_t **buf)
{
  CLEANUP_CIPHER_CTX EVP_CIPHER_CTX *ctx = NULL;

  if (!v->key[0])
    return p + HEAD;
  if (!key) {
    errno = ENOKEY;
    esp_error ("%s: is encrypted with the key %s: get its file, and give it"
               " to this store with 'espalier key import %s FILE'", where,
               v->key, v->key);
    return NULL;
  }
  *buf = malloc (len);
  if (!*buf || !(ctx = aead_new (key->aes, false))) {
    format_no_memory (where);
    return NULL;
  }
  if (!aead_open (ctx, p, HEAD, p + HEAD, len - HEAD, NULL, 0, *buf)) {
    format_damaged (where, "it was not encrypted with this variant's key, or"
                    " was changed");
    return NULL;
  }
  return *buf;
}

/* What becomes of the next segment that MAP has data in, from entry P. */
static bool
get_entry (const uint8_t *p, uint32_t number, const struct esp_variant *v,
           const struct esp_map *map, uint64_t offset, struct esp_segment *s)
{
  uint64_t raw = (uint64_t) esp_segment_blocks (map, v->shift, number)
    << ESP_BLOCK_SHIFT;
  uint64_t extra = v->key[0] ? AEAD_OVERHEAD + 1 : 1;

  s->number = esp_get32 (p + E_NUMBER);
  s->stored = esp_get32 (p + E_STORED);
  s->offset = esp_get64 (p + E_OFFSET);
  memcpy (s->digest.b, p + E_DIGEST, ESP_DIGEST_SIZE);
  return s->number == number && s->offset == offset &&
    s->stored > extra && s->stored <= raw + extra;
}

struct walk {
  const struct esp_variant *variant;
  const struct esp_map *map;
  const uint8_t *entries;
  struct esp_index *index;      /* room for variant->segments */
  uint64_t offset;
};

/* Segments FIRST to LAST have data; the first may be there already. */
static bool
take_segments (struct walk *w, uint64_t first, uint64_t last)
{
  struct esp_index *x = w->index;

  if (x->n > 0 && x->segments[x->n - 1].number == first)
    first++;
  for (uint64_t s = first; s <= last; ++s) {
    if (x->n == w->variant->segments ||
        !get_entry (w->entries + x->n * ENTRY, (uint32_t) s, w->variant,
                    w->map, w->offset, &x->segments[x->n]))
      return false;
    w->offset += x->segments[x->n++].stored;
  }
  return true;
}

/* Every segment in which the map has data must be there, and no other. */
static bool
take_all (struct walk *w)
{
  uint64_t blocks = esp_blocks (w->map->size), run;
  unsigned shift = w->variant->shift - ESP_BLOCK_SHIFT;

  for (uint64_t b = 0; b < blocks; b += run)
    if (esp_map_run (w->map, b, blocks - b, &run) == ESP_DATA &&
        !take_segments (w, b >> shift, (b + run - 1) >> shift))
      return false;
  return w->index->n == w->variant->segments &&
    w->offset == w->variant->pack_size;
}

int
esp_index_unpack (const void *buf, size_t len,
                  const struct esp_variant *variant,
                  const struct esp_map *map,
                  const struct esp_segment_key *key, const char *where,
                  struct esp_index *out)
{
  CLEANUP_FREE uint8_t *clear = NULL;
  CLEANUP_INDEX struct esp_index index = { .shift = variant->shift };
  struct walk w = { .variant = variant, .map = map, .index = &index };

  if (check_whole (buf, len, variant, where) == -1 ||
      !(w.entries = open_entries (buf, len, variant, key, where, &clear)))
    return -1;
  index.segments = malloc ((variant->segments ? variant->segments : 1)
                           * sizeof *index.segments);
  if (!index.segments)
    return format_no_memory (where);
  if (!take_all (&w))
    return format_damaged (where, "its segments are not those of the map");
  *out = index;
  memset (&index, 0, sizeof index);
  return 0;
}
