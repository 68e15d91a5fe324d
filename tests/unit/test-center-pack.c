/* SPDX-License-Identifier: BSD-3-Clause */
/* A center's binary objects: maps, indexes, segments, boot profiles.  What is
 * packed is unpacked again; whatever is done to the bytes, they are refused,
 * or mean the same.
 */

#include "center-test.h"

#include <openssl/evp.h>

#include "util/cleanup.h"
#include "util/endian.h"

ESP_DEFINE_CLEANUP (map, struct esp_map *, esp_map_free)
ESP_DEFINE_CLEANUP (packer, struct esp_packer *, esp_packer_free)
ESP_DEFINE_CLEANUP (key, struct esp_segment_key *, esp_segment_key_free)
#define CLEANUP_MAP ESP_CLEANUP (map)
#define CLEANUP_PACKER ESP_CLEANUP (packer)
#define CLEANUP_KEY ESP_CLEANUP (key)

static struct esp_segment_key *
some_key (uint8_t which)
{
  uint8_t secret[32] = { which }, salt[ESP_SALT_SIZE] = { 7, which };
  struct esp_segment_key *key = esp_segment_key_from (secret, salt);

  assert_non_null (key);
  return key;
}

/* --- digests ------------------------------------------------------------ */

static void
digests_are_sha256 (void **state)
{
  esp_digest d, again;
  char hex[65];

  (void) state;
  esp_digest_of ("abc", 3, &d);
  assert_string_equal (esp_digest_hex (&d, hex),
                       "ba7816bf8f01cfea414140de5dae2223"
                       "b00361a396177a9cb410ff61f20015ad");
  assert_true (esp_digest_parse (hex, &again) && esp_digest_eq (&d, &again));
  hex[63] = 'D';
  assert_false (esp_digest_parse (hex, &again));
  hex[63] = 0;
  assert_false (esp_digest_parse (hex, &again));
}

/* --- maps --------------------------------------------------------------- */

static const uint64_t sizes[] = {
  1, 4096, 4097, 1 << 20, (63 << 20) + 1, UINT64_C (700) << 20,
};
#define NSIZES (sizeof sizes / sizeof sizes[0])

static bool
same_map (const struct esp_map *a, const struct esp_map *b)
{
  for (uint64_t i = 0; i < a->nwords; ++i)
    if (a->words[i] != b->words[i])
      return false;
  return a->size == b->size;
}

static void
maps_come_back (void **state)
{
  (void) state;
  for (unsigned i = 0; i < 60; ++i) {
    CLEANUP_MAP struct esp_map *map = random_map (sizes[i % NSIZES],
                                                  i / NSIZES * 3);
    size_t len;
    CLEANUP_FREE void *buf = esp_map_pack (map, &len);
    assert_non_null (buf);
    CLEANUP_MAP struct esp_map *got = esp_map_unpack (buf, len, map->size,
                                                      "x");
    assert_non_null (got);
    assert_true (same_map (map, got));
    assert_true (esp_map_digest (map) == esp_map_digest (got));
    assert_null (esp_map_unpack (buf, len, map->size + 1, "x"));
    assert_int_equal (errno, EBADMSG);
  }
}

static void
an_empty_map_is_a_header (void **state)
{
  CLEANUP_MAP struct esp_map *map = esp_map_new (ESP_DISK_MAX);
  size_t len;

  (void) state;
  CLEANUP_FREE void *buf = esp_map_pack (map, &len);
  assert_int_equal (len, 48);
  CLEANUP_MAP struct esp_map *got = esp_map_unpack (buf, len, ESP_DISK_MAX,
                                                    "x");
  assert_non_null (got);
}

static void
a_full_map_is_small (void **state)
{
  CLEANUP_MAP struct esp_map *map = esp_map_new (UINT64_C (100) << 30);
  size_t len;

  (void) state;
  esp_map_set (map, 0, esp_blocks (map->size), ESP_DATA, NULL);
  CLEANUP_FREE void *buf = esp_map_pack (map, &len);
  assert_in_range (len, 48, 64 << 10);
  CLEANUP_MAP struct esp_map *got = esp_map_unpack (buf, len, map->size, "x");
  assert_true (same_map (map, got));
}

static bool
try_map (void *arg, const void *buf, size_t len)
{
  const struct esp_map *map = arg;
  CLEANUP_MAP struct esp_map *got = esp_map_unpack (buf, len, map->size, "x");

  assert_true (got || errno == EBADMSG || errno == ENOTSUP);
  assert_true (!got || same_map (map, got));
  return got;
}

static void
damaged_maps_are_refused (void **state)
{
  CLEANUP_MAP struct esp_map *map = random_map (150 << 20, 12);
  size_t len;

  (void) state;
  CLEANUP_FREE void *buf = esp_map_pack (map, &len);
  damage_all (buf, len, 1, try_map, map);
}

static void
what_follows_a_map_is_refused (void **state)
{
  CLEANUP_MAP struct esp_map *map = random_map (150 << 20, 12);
  size_t len;

  (void) state;
  CLEANUP_FREE uint8_t *buf = esp_map_pack (map, &len);
  buf = realloc (buf, len + 5);
  memset (buf + len, 0, 5);
  esp_put64 (buf + 40, len + 5 - 48);
  assert_null (esp_map_unpack (buf, len + 5, map->size, "x"));
  assert_int_equal (errno, EBADMSG);
}

static void
a_newer_map_is_told_as_such (void **state)
{
  CLEANUP_MAP struct esp_map *map = random_map (1 << 20, 3);
  size_t len;

  (void) state;
  CLEANUP_FREE uint8_t *buf = esp_map_pack (map, &len);
  esp_put32 (buf + 8, 2);
  assert_null (esp_map_unpack (buf, len, map->size, "x"));
  assert_int_equal (errno, ENOTSUP);
  assert_non_null (strstr (unit_error, "newer"));
}

/* --- indexes ------------------------------------------------------------ */

struct packed {
  struct esp_map *map;
  struct esp_segment_key *key;
  struct esp_variant v;
  struct esp_index index;
  uint8_t *buf;
  size_t len;
};

static void
packed_clear (struct packed *p)
{
  esp_map_free (p->map);
  esp_segment_key_free (p->key);
  esp_index_clear (&p->index);
  free (p->buf);
}
#define CLEANUP_PACKED __attribute__ ((cleanup (packed_clear)))

static void
set_digest (struct packed *p)
{
  p->v.index_size = p->len;
  esp_digest_of (p->buf, p->len, &p->v.index_digest);
}

/* Takes MAP. */
static void
make_index (struct packed *p, struct esp_map *map, unsigned shift,
            bool encrypted)
{
  *p = (struct packed) { .map = map, .v = { .shift = shift } };
  if (encrypted) {
    p->key = some_key (1);
    strcpy (p->v.key, "office");
  }
  random_index (map, shift, encrypted ? 29 : 1, &p->index);
  p->buf = esp_index_pack (&p->index, p->key, &p->len);
  assert_non_null (p->buf);
  p->v.segments = p->index.n;
  p->v.pack_size = index_pack_size (&p->index);
  assert_int_equal (p->len, esp_index_bytes (p->index.n, encrypted));
  set_digest (p);
}

static bool
same_index (const struct esp_index *a, const struct esp_index *b)
{
  return a->shift == b->shift && a->n == b->n &&
    memcmp (a->segments, b->segments, a->n * sizeof *a->segments) == 0;
}

static int
unpack_index (const struct packed *p, struct esp_index *got)
{
  return esp_index_unpack (p->buf, p->len, &p->v, p->map, p->key, "x", got);
}

static void
indexes_come_back (void **state)
{
  (void) state;
  for (unsigned i = 0; i < 60; ++i) {
    CLEANUP_PACKED struct packed p;
    CLEANUP_INDEX struct esp_index got = { 0 };

    make_index (&p, random_map (sizes[i % NSIZES], i / NSIZES * 3),
                16 + i % 7, i & 1);
    assert_int_equal (unpack_index (&p, &got), 0);
    assert_true (same_index (&p.index, &got));
    for (size_t k = 0; k < got.n; ++k)
      assert_ptr_equal (esp_index_find (&got, got.segments[k].number),
                        &got.segments[k]);
    assert_null (esp_index_find (&got, UINT32_MAX));
  }
}

static void
find_sees_only_what_is_there (void **state)
{
  struct esp_segment s[] = { { .number = 2 }, { .number = 5 },
                             { .number = 9 } };
  struct esp_index x = { .shift = 18, .n = 3, .segments = s };

  (void) state;
  for (uint32_t i = 0; i < 12; ++i)
    assert_ptr_equal (esp_index_find (&x, i), i == 2 ? &s[0]
                      : i == 5 ? &s[1] : i == 9 ? &s[2] : NULL);
}

static void
blocks_of_a_segment_are_counted (void **state)
{
  CLEANUP_MAP struct esp_map *map = random_map (UINT64_C (30) << 20, 60);

  (void) state;
  for (unsigned shift = 16; shift <= 22; ++shift)
    for (uint32_t n = 0; n < 600; ++n) {
      uint64_t block = (uint64_t) n << (shift - 12), run, end, count = 0;

      end = block + (1u << (shift - 12));
      for (; block < end && block < esp_blocks (map->size); ++block)
        count += esp_map_run (map, block, 1, &run) == ESP_DATA;
      assert_int_equal (esp_segment_blocks (map, shift, n), count);
    }
}

static bool
try_index (void *arg, const void *buf, size_t len)
{
  const struct packed *p = arg;
  CLEANUP_INDEX struct esp_index got = { 0 };
  int r = esp_index_unpack (buf, len, &p->v, p->map, p->key, "x", &got);

  assert_true (r == 0 || errno == EBADMSG);
  assert_int_equal (r, -1);     /* the digest is wrong, whatever it is */
  return r == 0;
}

static void
damaged_indexes_are_refused (void **state)
{
  (void) state;
  for (unsigned encrypted = 0; encrypted < 2; ++encrypted) {
    CLEANUP_PACKED struct packed p;

    make_index (&p, random_map (20 << 20, 9), 18, encrypted);
    damage_all (p.buf, p.len, 1, try_index, &p);
  }
}

/* The same with the right digest, as a manifest that nobody signed may have
 * it: what is taken is an index of these segments within its bounds.
 */
static bool
try_forged (void *arg, const void *buf, size_t len)
{
  struct packed p = *(const struct packed *) arg;
  CLEANUP_INDEX struct esp_index got = { 0 };
  uint64_t at = 0;

  p.buf = (uint8_t *) buf;
  p.len = len;
  set_digest (&p);
  if (unpack_index (&p, &got) == -1)
    return false;
  assert_null (p.key);
  assert_int_equal (got.n, p.index.n);
  for (size_t i = 0; i < got.n; ++i) {
    assert_int_equal (got.segments[i].number, p.index.segments[i].number);
    assert_true (got.segments[i].offset == at);
    assert_in_range (got.segments[i].stored, 2,
                     1 + 4096 * esp_segment_blocks (p.map, got.shift,
                                                    got.segments[i].number));
    at += got.segments[i].stored;
  }
  return true;
}

static void
forged_indexes_keep_their_bounds (void **state)
{
  (void) state;
  for (unsigned encrypted = 0; encrypted < 2; ++encrypted) {
    CLEANUP_PACKED struct packed p;

    make_index (&p, random_map (20 << 20, 9), 18, encrypted);
    damage_all (p.buf, p.len, 1, try_forged, &p);
  }
}

static void
an_index_of_another_map_is_refused (void **state)
{
  CLEANUP_PACKED struct packed p;
  CLEANUP_INDEX struct esp_index got = { 0 };
  uint64_t last;

  (void) state;
  make_index (&p, random_map (20 << 20, 9), 18, false);
  last = p.index.n ? p.index.segments[0].number : 0;
  /* One segment more, and one less. */
  esp_map_set (p.map, last << 6, 64, ESP_ZERO, NULL);
  assert_int_equal (unpack_index (&p, &got), -1);
  assert_int_equal (errno, EBADMSG);
  esp_map_set (p.map, 0, 20 << 8, ESP_DATA, NULL);
  assert_int_equal (unpack_index (&p, &got), -1);
  assert_int_equal (errno, EBADMSG);
}

static void
an_index_needs_its_key (void **state)
{
  CLEANUP_PACKED struct packed p;
  CLEANUP_KEY struct esp_segment_key *other = some_key (2);
  struct esp_index got;

  (void) state;
  make_index (&p, random_map (20 << 20, 9), 18, true);
  assert_int_equal (esp_index_unpack (p.buf, p.len, &p.v, p.map, NULL, "x",
                                      &got), -1);
  assert_int_equal (errno, ENOKEY);
  assert_non_null (strstr (unit_error, "espalier key import office FILE"));
  assert_int_equal (esp_index_unpack (p.buf, p.len, &p.v, p.map, other, "x",
                                      &got), -1);
  assert_int_equal (errno, EBADMSG);
}

static void
an_encrypted_index_hides_its_digests (void **state)
{
  CLEANUP_PACKED struct packed p;

  (void) state;
  make_index (&p, random_map (20 << 20, 9), 18, true);
  for (size_t i = 0; i < p.index.n; ++i)
    assert_null (memmem (p.buf, p.len, p.index.segments[i].digest.b, 8));
}

static void
a_bad_index_is_not_written (void **state)
{
  struct esp_segment s[] = {
    { .number = 3, .stored = 10 }, { .number = 4, .stored = 5, .offset = 10 },
  };
  struct esp_index x = { .shift = 18, .n = 2, .segments = s };
  size_t len;
  void *buf;

  (void) state;
  assert_non_null (buf = esp_index_pack (&x, NULL, &len));
  free (buf);
  s[1].offset = 11;
  assert_null (esp_index_pack (&x, NULL, &len));
  assert_int_equal (errno, EINVAL);
  s[1].offset = 10;
  s[1].number = 3;
  assert_null (esp_index_pack (&x, NULL, &len));
}

/* --- segments ----------------------------------------------------------- */

struct segment {
  struct esp_packer *packer;
  uint8_t *raw, *stored;
  size_t len, nstored;
  esp_digest digest;
};

static void
segment_clear (struct segment *s)
{
  esp_packer_free (s->packer);
  free (s->raw);
  free (s->stored);
}
#define CLEANUP_SEGMENT __attribute__ ((cleanup (segment_clear)))

static void
make_segment (struct segment *s, size_t len, bool soft, enum esp_codec codec,
              const struct esp_segment_key *key)
{
  s->packer = esp_packer_new (codec, 3, key);
  s->len = len;
  s->raw = malloc (len);
  s->stored = malloc (len + ESP_SEGMENT_OVERHEAD);
  if (soft)
    fill_soft (s->raw, len);
  else
    fill_random (s->raw, len);
  assert_int_equal (esp_pack_segment (s->packer, 77, s->raw, len, s->stored,
                                      &s->nstored, &s->digest), 0);
  assert_in_range (s->nstored, 2, len + (key ? 29 : 1));
}

/* Unpack into memory of exactly the right size. */
static bool
segment_comes_back (const struct segment *s, uint32_t number,
                    const void *stored, size_t n, const esp_digest *digest)
{
  CLEANUP_FREE uint8_t *raw = malloc (s->len);
  int r = esp_unpack_segment (s->packer, number, stored, n, raw, s->len,
                              digest, false, "x");

  assert_true (r == 0 || errno == EBADMSG);
  assert_true (r == -1 || memcmp (raw, s->raw, s->len) == 0);
  return r == 0;
}

static void
segments_come_back (void **state)
{
  CLEANUP_KEY struct esp_segment_key *key = some_key (3);

  (void) state;
  for (unsigned i = 0; i < 80; ++i) {
    CLEANUP_SEGMENT struct segment s;
    esp_digest d;

    make_segment (&s, 4096u * (1 + rnd (i < 8 ? 1024 : 64)), i & 1,
                  (enum esp_codec) (i >> 1 & 1), i & 4 ? key : NULL);
    esp_digest_of (s.raw, s.len, &d);
    assert_true (esp_digest_eq (&d, &s.digest));
    assert_true (segment_comes_back (&s, 77, s.stored, s.nstored, &d));
    assert_true (segment_comes_back (&s, 77, s.stored, s.nstored, NULL));
  }
}

static void
lengths_of_one_byte_and_the_most (void **state)
{
  (void) state;
  for (unsigned i = 0; i < 4; ++i) {
    CLEANUP_SEGMENT struct segment s;

    make_segment (&s, i & 1 ? 4u << 20 : 1, true,
                  (enum esp_codec) (i >> 1), NULL);
    assert_true (segment_comes_back (&s, 77, s.stored, s.nstored,
                                     &s.digest));
  }
  CLEANUP_PACKER struct esp_packer *p = esp_packer_new (ESP_CODEC_NONE, 0,
                                                        NULL);
  esp_digest d;
  size_t n;
  char c;
  assert_int_equal (esp_pack_segment (p, 1, &c, 0, &c, &n, &d), -1);
  assert_int_equal (errno, EINVAL);
}

static void
what_does_not_compress_stays (void **state)
{
  CLEANUP_SEGMENT struct segment s;

  (void) state;
  make_segment (&s, 65536, false, ESP_CODEC_ZSTD, NULL);
  assert_int_equal (s.nstored, 65537);
  assert_int_equal (s.stored[0], 0);
  assert_memory_equal (s.stored + 1, s.raw, 65536);
}

static bool
try_segment (void *arg, const void *buf, size_t len)
{
  const struct segment *s = arg;

  return segment_comes_back (s, 77, buf, len, &s->digest);
}

static void
damaged_segments_are_refused (void **state)
{
  CLEANUP_KEY struct esp_segment_key *key = some_key (3);

  (void) state;
  for (unsigned i = 0; i < 8; ++i) {
    CLEANUP_SEGMENT struct segment s;

    make_segment (&s, 4096, i & 1, (enum esp_codec) (i >> 1 & 1),
                  i & 4 ? key : NULL);
    damage_all (s.stored, s.nstored, 4, try_segment, &s);
  }
}

static void
a_segment_stands_only_where_it_was_made_for (void **state)
{
  CLEANUP_KEY struct esp_segment_key *key = some_key (3);
  CLEANUP_KEY struct esp_segment_key *other = some_key (4);
  CLEANUP_SEGMENT struct segment s;
  CLEANUP_SEGMENT struct segment t;

  (void) state;
  make_segment (&s, 65536, true, ESP_CODEC_ZSTD, key);
  assert_false (segment_comes_back (&s, 78, s.stored, s.nstored, NULL));
  make_segment (&t, 65536, true, ESP_CODEC_ZSTD, other);
  assert_false (segment_comes_back (&s, 77, t.stored, t.nstored, NULL));
  /* In the clear only the digest tells. */
  assert_false (segment_comes_back (&s, 77, s.stored, s.nstored,
                                    &t.digest));
}

static void
nonces_differ (void **state)
{
  CLEANUP_KEY struct esp_segment_key *key = some_key (3);
  CLEANUP_PACKER struct esp_packer *p = esp_packer_new (ESP_CODEC_NONE, 0,
                                                        key);
  uint8_t a[16 + ESP_SEGMENT_OVERHEAD], b[sizeof a], raw[16] = "same text";
  size_t n;
  esp_digest d;

  (void) state;
  assert_int_equal (esp_pack_segment (p, 1, raw, 16, a, &n, &d), 0);
  assert_int_equal (esp_pack_segment (p, 1, raw, 16, b, &n, &d), 0);
  assert_memory_not_equal (a, b, 12);
  assert_memory_not_equal (a + 12, b + 12, 17);
}

static void
a_wrong_length_is_refused (void **state)
{
  CLEANUP_KEY struct esp_segment_key *key = some_key (3);

  (void) state;
  for (unsigned i = 0; i < 8; ++i) {
    CLEANUP_SEGMENT struct segment s;
    CLEANUP_FREE uint8_t *raw = malloc (70000);

    make_segment (&s, 65536, i & 1, (enum esp_codec) (i >> 1 & 1),
                  i & 4 ? key : NULL);
    for (size_t len = 65530; len < 65542; ++len)
      if (len != 65536)
        assert_int_equal (esp_unpack_segment (s.packer, 77, s.stored,
                                              s.nstored, raw, len, NULL,
                                              false, "x"), -1);
  }
}

static void
quiet_is_quiet (void **state)
{
  CLEANUP_PACKER struct esp_packer *p = esp_packer_new (ESP_CODEC_NONE, 0,
                                                        NULL);
  uint8_t stored[3] = { 9, 9, 9 }, raw[2];

  (void) state;
  unit_error[0] = 0;
  assert_int_equal (esp_unpack_segment (p, 1, stored, 3, raw, 2, NULL, true,
                                        "x"), -1);
  assert_int_equal (errno, EBADMSG);
  assert_string_equal (unit_error, "");
  assert_int_equal (esp_unpack_segment (p, 1, stored, 3, raw, 2, NULL, false,
                                        "the-pack"), -1);
  assert_non_null (strstr (unit_error, "the-pack"));
}

/* Two variants of one restore point give the same raw bytes. */
static void
two_variants_are_equal (void **state)
{
  CLEANUP_KEY struct esp_segment_key *key = some_key (5);
  CLEANUP_SEGMENT struct segment a;
  CLEANUP_PACKER struct esp_packer *p = esp_packer_new (ESP_CODEC_NONE, 0,
                                                        key);
  CLEANUP_FREE uint8_t *out = malloc (262144 + ESP_SEGMENT_OVERHEAD);
  CLEANUP_FREE uint8_t *raw = malloc (262144);
  esp_digest d;
  size_t n;

  (void) state;
  make_segment (&a, 262144, true, ESP_CODEC_ZSTD, NULL);
  assert_true (a.nstored < 262144);
  assert_int_equal (esp_pack_segment (p, 9, a.raw, 262144, out, &n, &d), 0);
  assert_true (esp_digest_eq (&d, &a.digest));
  assert_int_equal (esp_unpack_segment (p, 9, out, n, raw, 262144,
                                        &a.digest, false, "x"), 0);
  assert_memory_equal (raw, a.raw, 262144);
}

/* --- boot profiles ------------------------------------------------------ */

static void
random_profile (struct esp_profile *p, size_t n, uint32_t units)
{
  uint32_t rank = 0;

  *p = (struct esp_profile) { .boots = 1 + rnd (20), .n = n };
  p->units = calloc (n ? n : 1, sizeof *p->units);
  for (size_t i = 0; i < n; ++i) {
    rank += rnd (2) ? rnd (8) : 0;
    p->units[i].unit = (uint32_t) ((i * 7919 + 3) % units);
    p->units[i].boots = 1;
    p->units[i].rank = rank;
  }
}

static bool
same_profile (const struct esp_profile *a, const struct esp_profile *b)
{
  if (a->boots != b->boots || a->n != b->n)
    return false;
  for (size_t i = 0; i < a->n; ++i)
    if (a->units[i].unit != b->units[i].unit ||
        a->units[i].boots != b->units[i].boots ||
        a->units[i].rank != b->units[i].rank)
      return false;
  return true;
}

static void
profiles_come_back (void **state)
{
  (void) state;
  for (size_t n = 0; n <= 16000; n = n * 5 + 1) {
    CLEANUP_PROFILE struct esp_profile p, got = { 0 };
    size_t len;

    random_profile (&p, n, 16000);
    CLEANUP_FREE void *buf = esp_profile_pack (&p, &len);
    assert_non_null (buf);
    assert_int_equal (esp_profile_unpack (buf, len, 16000 << 16, "x", &got),
                      0);
    assert_true (same_profile (&p, &got));
  }
}

static bool
try_profile (void *arg, const void *buf, size_t len)
{
  CLEANUP_PROFILE struct esp_profile got = { 0 };
  int r = esp_profile_unpack (buf, len, 1000 << 16, "x", &got);

  assert_true (r == 0 || errno == EBADMSG || errno == ENOTSUP);
  assert_true (r == -1 || same_profile (arg, &got));
  return r == 0;
}

static void
damaged_profiles_are_refused (void **state)
{
  CLEANUP_PROFILE struct esp_profile p;
  size_t len;

  (void) state;
  random_profile (&p, 40, 1000);
  CLEANUP_FREE void *buf = esp_profile_pack (&p, &len);
  damage_all (buf, len, 1, try_profile, &p);
}

static void
profiles_that_make_no_sense_are_not_written (void **state)
{
  struct esp_profile_unit u[2] = {
    { .unit = 1, .boots = 1, .rank = 5 }, { .unit = 2, .boots = 3, .rank = 5 },
  };
  struct esp_profile p = { .boots = 2, .n = 2, .units = u };
  size_t len;
  CLEANUP_FREE void *buf = esp_profile_pack (&p, &len);
  struct esp_profile got;

  (void) state;
  assert_non_null (buf);
  /* Beyond the end of a disk of two units. */
  assert_int_equal (esp_profile_unpack (buf, len, 2 << 16, "x", &got), -1);
#define BAD(change, back)                               \
  change;                                               \
  assert_null (esp_profile_pack (&p, &len));            \
  assert_int_equal (errno, EINVAL);                     \
  back
  BAD (u[1].unit = 1, u[1].unit = 2);
  BAD (u[1].rank = 4, u[1].rank = 5);
  BAD (u[1].rank = ESP_PROFILE_UNITS_MAX * 16, u[1].rank = 5);
  BAD (u[1].boots = 0, u[1].boots = 3);
  BAD (u[1].boots = 4, u[1].boots = 3);
  BAD (p.boots = 65536, p.boots = 2);
  BAD (p.n = ESP_PROFILE_UNITS_MAX + 1, p.n = 2);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (digests_are_sha256),
    cmocka_unit_test (maps_come_back),
    cmocka_unit_test (an_empty_map_is_a_header),
    cmocka_unit_test (a_full_map_is_small),
    cmocka_unit_test (damaged_maps_are_refused),
    cmocka_unit_test (what_follows_a_map_is_refused),
    cmocka_unit_test (a_newer_map_is_told_as_such),
    cmocka_unit_test (indexes_come_back),
    cmocka_unit_test (find_sees_only_what_is_there),
    cmocka_unit_test (blocks_of_a_segment_are_counted),
    cmocka_unit_test (damaged_indexes_are_refused),
    cmocka_unit_test (forged_indexes_keep_their_bounds),
    cmocka_unit_test (an_index_of_another_map_is_refused),
    cmocka_unit_test (an_index_needs_its_key),
    cmocka_unit_test (an_encrypted_index_hides_its_digests),
    cmocka_unit_test (a_bad_index_is_not_written),
    cmocka_unit_test (segments_come_back),
    cmocka_unit_test (lengths_of_one_byte_and_the_most),
    cmocka_unit_test (what_does_not_compress_stays),
    cmocka_unit_test (damaged_segments_are_refused),
    cmocka_unit_test (a_segment_stands_only_where_it_was_made_for),
    cmocka_unit_test (nonces_differ),
    cmocka_unit_test (a_wrong_length_is_refused),
    cmocka_unit_test (quiet_is_quiet),
    cmocka_unit_test (two_variants_are_equal),
    cmocka_unit_test (profiles_come_back),
    cmocka_unit_test (damaged_profiles_are_refused),
    cmocka_unit_test (profiles_that_make_no_sense_are_not_written),
  };

  unit_init ();
  seed = unit_seed ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
