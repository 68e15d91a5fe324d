/* SPDX-License-Identifier: BSD-3-Clause */
/* Variants: as --variant takes them, and as manifests have them. */

#include <config.h>

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "center/format-internal.h"
#include "store/fields.h"

#define LEVEL_DEFAULT 3
#define LEVEL_MAX 22

static const char *const codec_names[] = {
  [ESP_CODEC_NONE] = "none",
  [ESP_CODEC_ZSTD] = "zstd",
};
#define NCODECS (sizeof codec_names / sizeof codec_names[0])

/* --- from the command line --------------------------------------------- */

static int
bad_variant (const char *text, const char *why)
{
  char shown[64];

  errno = EINVAL;
  esp_error ("variant \"%s\": %s: write SIZE[,zstd[:LEVEL]|,none][,key=NAME],"
             " such as 256K,zstd:3 or 1M,none,key=office",
             esp_escape (text, shown, sizeof shown), why);
  return -1;
}

static bool
parse_size (const char *s, unsigned *shift)
{
  char ignored[128];
  struct esp_catch outer = esp_catch_begin (ignored, sizeof ignored);
  uint64_t n;
  int r = esp_size_parse (s, "variant", &n);

  esp_catch_end (outer);
  if (r == -1 || n == 0 || (n & (n - 1)) != 0)
    return false;
  *shift = (unsigned) __builtin_ctzll (n);
  return *shift >= ESP_SEGMENT_SHIFT_MIN && *shift <= ESP_SEGMENT_SHIFT_MAX;
}

/* "zstd:19", "zstd" or "none". */
static bool
parse_codec (const char *s, enum esp_codec *codec, int *level)
{
  *codec = ESP_CODEC_ZSTD;
  *level = LEVEL_DEFAULT;
  if (strcmp (s, "none") == 0) {
    *codec = ESP_CODEC_NONE;
    *level = 0;
    return true;
  }
  if (strncmp (s, "zstd", 4) != 0)
    return false;
  s += 4;
  if (*s == 0)
    return true;
  if (*s++ != ':' || strspn (s, "0123456789") != strlen (s) ||
      strlen (s) > 2)
    return false;
  *level = atoi (s);
  return *level >= 1 && *level <= LEVEL_MAX;
}

static bool
key_name_ok (const char *s)
{
  return esp_name_ok (s) && strlen (s) <= ESP_KEY_NAME_MAX;
}

/* A key's name is part of an object's: where it does not fit, its hash is,
 * behind a dash, with which no name begins.
 */
static void
make_id (struct esp_variant *v)
{
  char size[16], *end = v->id + sizeof v->id;
  int n = snprintf (v->id, sizeof v->id, "%s-%s",
                    esp_size_format (UINT64_C (1) << v->shift, size),
                    codec_names[v->codec]);
  char *at = v->id + n;

  if (!v->key[0])
    return;
  if (strlen (v->key) + 2 <= (size_t) (end - at) &&
      strspn (v->key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
              "0123456789._-") == strlen (v->key))
    snprintf (at, (size_t) (end - at), "-%s", v->key);
  else
    snprintf (at, (size_t) (end - at), "--%016" PRIx64,
              (uint64_t) XXH3_64bits (v->key, strlen (v->key)));
}

int
esp_variant_parse (const char *text, struct esp_variant *out, int *level)
{
  struct esp_variant v = { .codec = ESP_CODEC_ZSTD };
  CLEANUP_FREE char *copy = strdup (text);
  char *rest = copy, *s;

  if (!copy)
    return format_no_memory ("variant");
  *level = LEVEL_DEFAULT;
  if (!parse_size (strsep (&rest, ","), &v.shift))
    return bad_variant (text, "its segment size is not 64K, 128K, 256K, 512K,"
                        " 1M, 2M or 4M");
  s = strsep (&rest, ",");
  if (s && strncmp (s, "key=", 4) != 0) {
    if (!parse_codec (s, &v.codec, level))
      return bad_variant (text, "its compression is not none, zstd, or zstd:1"
                          " to zstd:22");
    s = strsep (&rest, ",");
  }
  if (s) {
    if (strncmp (s, "key=", 4) != 0 || rest)
      return bad_variant (text, "there is too much");
    if (!key_name_ok (s + 4))
      return bad_variant (text, "its key's name is not valid (letters, digits,"
                          " \".\", \"_\" and \"-\", 64 bytes at most)");
    strcpy (v.key, s + 4);
  }
  make_id (&v);
  *out = v;
  return 0;
}

/* --- in a manifest ------------------------------------------------------ */

static void
to_hex (const uint8_t *p, size_t n, char *out)
{
  for (size_t i = 0; i < n; ++i)
    sprintf (out + 2 * i, "%02x", p[i]);
}

static bool
from_hex (json_t *o, const char *key, uint8_t *out, size_t n)
{
  const char *s = esp_field_string (o, key, 2 * n);
  unsigned byte;

  if (!s || strlen (s) != 2 * n ||
      strspn (s, "0123456789abcdef") != 2 * n)
    return false;
  for (size_t i = 0; i < n; ++i) {
    sscanf (s + 2 * i, "%2x", &byte);
    out[i] = (uint8_t) byte;
  }
  return true;
}

static int
add_key (json_t *o, const struct esp_variant *v)
{
  char check[2 * sizeof v->key_check + 1], salt[2 * ESP_SALT_SIZE + 1];

  to_hex (v->key_check, sizeof v->key_check, check);
  to_hex (v->salt, sizeof v->salt, salt);
  return json_object_set_new (o, "key", json_string (v->key)) ||
    json_object_set_new (o, "key-check", json_string (check)) ||
    json_object_set_new (o, "salt", json_string (salt));
}

json_t *
variant_to_json (const struct esp_variant *v)
{
  char digest[65];
  CLEANUP_JSON json_t *o =
    json_pack ("{s:s, s:I, s:s, s:I, s:I, s:I, s:s}", "id", v->id,
               "segment-size", (json_int_t) 1 << v->shift,
               "codec", codec_names[v->codec],
               "segments", (json_int_t) v->segments,
               "pack-size", (json_int_t) v->pack_size,
               "index-size", (json_int_t) v->index_size,
               "index-sha256", esp_digest_hex (&v->index_digest, digest));

  if (!o || (v->key[0] && add_key (o, v)))
    return NULL;
  return ESP_STEAL (o);
}

static bool
read_id (json_t *o, struct esp_variant *v)
{
  const char *s = esp_field_string (o, "id", sizeof v->id - 1);

  /* A name in ASCII: it is part of a path. */
  if (!s || !esp_name_ok (s))
    return false;
  for (const char *p = s; *p; ++p)
    if ((unsigned char) *p >= 0x80)
      return false;
  strcpy (v->id, s);
  return true;
}

static bool
read_codec (json_t *o, struct esp_variant *v)
{
  const char *s = esp_field_string (o, "codec", 8);

  for (unsigned i = 0; s && i < NCODECS; ++i)
    if (strcmp (s, codec_names[i]) == 0) {
      v->codec = (enum esp_codec) i;
      return true;
    }
  return false;
}

static bool
read_shift (json_t *o, struct esp_variant *v)
{
  uint64_t size;

  if (!esp_field_u64 (o, "segment-size", 1u << ESP_SEGMENT_SHIFT_MIN,
                      1u << ESP_SEGMENT_SHIFT_MAX, &size) ||
      (size & (size - 1)) != 0)
    return false;
  v->shift = (unsigned) __builtin_ctzll (size);
  return true;
}

static const char *
read_key (json_t *o, struct esp_variant *v)
{
  const char *s;

  if (!json_object_get (o, "key"))
    return NULL;
  s = esp_field_string (o, "key", ESP_KEY_NAME_MAX);
  if (!s || !key_name_ok (s))
    return "key";
  strcpy (v->key, s);
  if (!from_hex (o, "key-check", v->key_check, sizeof v->key_check))
    return "key-check";
  return from_hex (o, "salt", v->salt, sizeof v->salt) ? NULL : "salt";
}

/* What so many blocks of data can become, at least and at most. */
static const char *
read_sizes (json_t *o, const struct esp_rp *rp, struct esp_variant *v)
{
  uint64_t data = rp->data_blocks << ESP_BLOCK_SHIFT;
  uint64_t size = UINT64_C (1) << v->shift;
  uint64_t least = (data + size - 1) / size;
  uint64_t most = (rp->size + size - 1) / size;
  uint64_t extra = v->key[0] ? AEAD_OVERHEAD + 1 : 1;

  if (most > rp->data_blocks)
    most = rp->data_blocks;
  if (most > ESP_INDEX_SEGMENTS_MAX)
    most = ESP_INDEX_SEGMENTS_MAX;
  if (!esp_field_u64 (o, "segments", least, most, &v->segments))
    return "segments";
  if (!esp_field_u64 (o, "pack-size", v->segments * (extra + 1),
                      data + v->segments * extra, &v->pack_size))
    return "pack-size";
  v->index_size = esp_index_bytes (v->segments, v->key[0]);
  return esp_field_u64 (o, "index-size", v->index_size, v->index_size,
                        &v->index_size) ? NULL : "index-size";
}

const char *
variant_from_json (json_t *o, const struct esp_rp *rp, struct esp_variant *v)
{
  const char *s;

  memset (v, 0, sizeof *v);
  if (!json_is_object (o) || !read_id (o, v))
    return "id";
  if (!read_shift (o, v))
    return "segment-size";
  if (!read_codec (o, v))
    return "codec";
  if ((s = read_key (o, v)) || (s = read_sizes (o, rp, v)))
    return s;
  s = esp_field_string (o, "index-sha256", 64);
  return s && esp_digest_parse (s, &v->index_digest) ? NULL : "index-sha256";
}
