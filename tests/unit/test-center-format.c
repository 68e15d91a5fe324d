/* SPDX-License-Identifier: BSD-3-Clause */
/* A center's documents: variants, manifests, references.  What is written is
 * read again; every field that is missing, of another type or out of range is
 * refused, whoever signed it; nothing stands for another restore point or
 * venue.
 */

#include "center-test.h"

#include <sys/stat.h>
#include <inttypes.h>
#include <jansson.h>

#include "util/cleanup.h"
#include "util/doc.h"
#include "util/sum.h"

ESP_DEFINE_CLEANUP (map, struct esp_map *, esp_map_free)
ESP_DEFINE_CLEANUP (json, json_t *, json_decref)
#define CLEANUP_MAP ESP_CLEANUP (map)
#define CLEANUP_JSON ESP_CLEANUP (json)

static char *dir;
static struct esp_signer *signer;
static struct esp_trust *trust, *no_trust;

/* Two stores: one signs and trusts itself, one trusts nobody. */
static int
group_setup (void **state)
{
  char path[400];

  (void) state;
  dir = unit_mkdir ();
  for (unsigned i = 0; i < 2; ++i) {
    snprintf (path, sizeof path, "%s/%u", dir, i);
    assert_int_equal (esp_store_init (path), 0);
    struct esp_store *store = esp_store_open (path);
    if (i == 0)
      assert_non_null (signer = esp_signer_load (store, true));
    *(i == 0 ? &trust : &no_trust) = esp_trust_load (store);
    esp_store_close (store);
  }
  assert_true (trust && no_trust);
  return 0;
}

static int
group_teardown (void **state)
{
  (void) state;
  esp_signer_free (signer);
  esp_trust_free (trust);
  esp_trust_free (no_trust);
  unit_rmdir (dir);
  return 0;
}

/* --- variants ----------------------------------------------------------- */

static void
variant_is (const char *text, const char *id, unsigned shift,
            enum esp_codec codec, int level, const char *key)
{
  struct esp_variant v;
  int got;

  assert_int_equal (esp_variant_parse (text, &v, &got), 0);
  assert_string_equal (v.id, id);
  assert_int_equal (v.shift, shift);
  assert_int_equal (v.codec, codec);
  assert_int_equal (got, level);
  assert_string_equal (v.key, key);
}

/* A name that does not fit into an object's. */
static void
hashed_is (const char *key)
{
  char text[128], id[40];

  snprintf (text, sizeof text, "256K,key=%s", key);
  snprintf (id, sizeof id, "256K-zstd--%016" PRIx64,
            esp_sum (key, strlen (key)));
  variant_is (text, id, 18, ESP_CODEC_ZSTD, 3, key);
}

static void
variants_are_parsed (void **state)
{
  (void) state;
  variant_is ("256K", "256K-zstd", 18, ESP_CODEC_ZSTD, 3, "");
  variant_is ("256K,zstd", "256K-zstd", 18, ESP_CODEC_ZSTD, 3, "");
  variant_is ("64K,zstd:22", "64K-zstd", 16, ESP_CODEC_ZSTD, 22, "");
  variant_is ("4M,none", "4M-none", 22, ESP_CODEC_NONE, 0, "");
  variant_is ("1048576,key=a.b", "1M-zstd-a.b", 20, ESP_CODEC_ZSTD, 3, "a.b");
  variant_is ("1M,zstd:1,key=office", "1M-zstd-office", 20, ESP_CODEC_ZSTD, 1,
              "office");
  /* As long as it fits, and a byte longer; not in ASCII. */
  variant_is ("256K,key=a2345678901234567890123456789",
              "256K-zstd-a2345678901234567890123456789", 18, ESP_CODEC_ZSTD,
              3, "a2345678901234567890123456789");
  hashed_is ("a23456789012345678901234567890");
  hashed_is ("büro");
}

/* 65 bytes. */
#define LONG_NAME \
  "a1234567890123456789012345678901234567890123456789012345678901234"

static void
bad_variants_are_refused (void **state)
{
  static const char *const bad[] = {
    "", "zstd", "0", "32K", "8M", "100K", "256K,", "256K,lz4", "256K,zstd:",
    "256K,zstd:0", "256K,zstd:23", "256K,zstd:-1", "256K,zstd:3x",
    "256K,none:1", "256K,none,zstd", "256K,key=", "256K,key=../x",
    "256K,key=a,zstd", "256K,zstd,key=a,key=b", "99999999999999999999K",
    ("256K,key=" LONG_NAME),
  };
  struct esp_variant v;
  int level;

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    unit_error[0] = 0;
    if (esp_variant_parse (bad[i], &v, &level) != -1)
      fail_msg ("\"%s\" was taken", bad[i]);
    assert_int_equal (errno, EINVAL);
    assert_non_null (strstr (unit_error, "256K,zstd:3"));
  }
}

/* --- manifests ---------------------------------------------------------- */

static void
sample_variant (struct esp_variant *v, const char *text)
{
  int level;

  assert_int_equal (esp_variant_parse (text, v, &level), 0);
  v->segments = 7;
  v->pack_size = 300000;
  v->index_size = esp_index_bytes (v->segments, v->key[0]);
  fill_random (&v->index_digest, sizeof v->index_digest);
  if (v->key[0]) {
    fill_random (v->salt, sizeof v->salt);
    fill_random (v->key_check, sizeof v->key_check);
  }
}

static struct esp_manifest
sample (void)
{
  struct esp_manifest m = {
    .rp = { .name = "debian-12.update_3", .size = UINT64_C (10) << 30,
            .created = 1700000000, .data_blocks = 100, .zero_blocks = 5,
            .nresources = 1 },
    .map_size = 500, .nvariants = 3, .pushed = 1700000001,
    .pushed_by = strdup ("host1, espalier 0.1.0"),
  };

  esp_uuid_new (&m.rp.uuid);
  esp_uuid_new (&m.rp.parent);
  m.rp.note = strdup ("after the \"update\", ünïcode\n");
  m.rp.resources = calloc (1, sizeof *m.rp.resources);
  m.rp.resources[0] = (struct esp_resource) { strdup ("env"),
    strdup ("dotnet"), strdup ("8.0") };
  fill_random (&m.map_digest, sizeof m.map_digest);
  m.variants = calloc (3, sizeof *m.variants);
  sample_variant (&m.variants[0], "256K");
  sample_variant (&m.variants[1], "64K,none");
  sample_variant (&m.variants[2], "256K,zstd,key=office");
  return m;
}

static bool
same_variant (const struct esp_variant *a, const struct esp_variant *b)
{
  return strcmp (a->id, b->id) == 0 && a->shift == b->shift &&
    a->codec == b->codec && strcmp (a->key, b->key) == 0 &&
    memcmp (a->key_check, b->key_check, sizeof a->key_check) == 0 &&
    memcmp (a->salt, b->salt, sizeof a->salt) == 0 &&
    a->segments == b->segments && a->pack_size == b->pack_size &&
    a->index_size == b->index_size &&
    esp_digest_eq (&a->index_digest, &b->index_digest);
}

static bool
same_rp (const struct esp_rp *a, const struct esp_rp *b)
{
  return esp_uuid_eq (&a->uuid, &b->uuid) &&
    esp_uuid_eq (&a->parent, &b->parent) && strcmp (a->name, b->name) == 0 &&
    a->size == b->size && a->created == b->created &&
    a->data_blocks == b->data_blocks && a->zero_blocks == b->zero_blocks &&
    strcmp (a->note, b->note) == 0 && a->nresources == b->nresources &&
    strcmp (a->resources[0].version, b->resources[0].version) == 0;
}

static bool
same_manifest (const struct esp_manifest *a, const struct esp_manifest *b)
{
  for (size_t i = 0; i < a->nvariants; ++i)
    if (!same_variant (&a->variants[i], &b->variants[i]))
      return false;
  return same_rp (&a->rp, &b->rp) && a->map_size == b->map_size &&
    esp_digest_eq (&a->map_digest, &b->map_digest) &&
    a->nvariants == b->nvariants && a->pushed == b->pushed &&
    strcmp (a->pushed_by, b->pushed_by) == 0;
}

static void
manifests_come_back (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample ();

  (void) state;
  for (unsigned i = 0; i < 3; ++i) {
    CLEANUP_MANIFEST struct esp_manifest got = { 0 };
    size_t len;
    CLEANUP_FREE char *text = esp_manifest_format (&m, i ? signer : NULL,
                                                   &len);
    assert_non_null (text);
    assert_int_equal (len, strlen (text));
    assert_int_equal (esp_manifest_parse (text, len, &m.rp.uuid,
                                          i > 1 ? trust : NULL, "x", &got),
                      0);
    assert_true (same_manifest (&m, &got));
  }
}

static void
a_root_without_data_needs_no_variant (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample (), got = { 0 };
  size_t len;

  (void) state;
  m.nvariants = 0;
  m.rp.data_blocks = 0;
  memset (&m.rp.parent, 0, sizeof m.rp.parent);
  CLEANUP_FREE char *text = esp_manifest_format (&m, NULL, &len);
  assert_int_equal (esp_manifest_parse (text, len, &m.rp.uuid, NULL, "x",
                                        &got), 0);
  assert_true (esp_uuid_is_null (&got.rp.parent));
  assert_int_equal (got.nvariants, 0);
}

static void
who_signed_is_checked (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample (), got = { 0 };
  size_t len;

  (void) state;
  CLEANUP_FREE char *text = esp_manifest_format (&m, signer, &len);
  assert_int_equal (esp_manifest_parse (text, len, &m.rp.uuid, no_trust,
                                        "the/manifest", &got), -1);
  assert_int_equal (errno, EKEYREJECTED);
  assert_non_null (strstr (unit_error, "the/manifest"));
  assert_non_null (strstr (unit_error, "espalier key trust NAME FILE"));
  CLEANUP_FREE char *unsign = esp_manifest_format (&m, NULL, &len);
  assert_int_equal (esp_manifest_parse (unsign, len, &m.rp.uuid, trust, "x",
                                        &got), -1);
  assert_int_equal (errno, EKEYREJECTED);
  assert_non_null (strstr (unit_error, "center add --unsigned"));
}

static void
another_ones_manifest_is_refused (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample (), got = { 0 };
  size_t len;
  esp_uuid other;

  (void) state;
  esp_uuid_new (&other);
  CLEANUP_FREE char *text = esp_manifest_format (&m, signer, &len);
  assert_int_equal (esp_manifest_parse (text, len, &other, trust, "x", &got),
                    -1);
  assert_int_equal (errno, EBADMSG);
  assert_non_null (strstr (unit_error, "another restore point"));
}

struct damaged {
  struct esp_manifest *m;
  struct esp_trust *trust;
};

static bool
try_manifest (void *arg, const void *buf, size_t len)
{
  const struct damaged *d = arg;
  CLEANUP_MANIFEST struct esp_manifest got = { 0 };
  int r = esp_manifest_parse (buf, len, &d->m->rp.uuid, d->trust, "x", &got);

  assert_true (r == 0 || errno == EBADMSG || errno == ENOTSUP ||
               (d->trust && errno == EKEYREJECTED));
  assert_true (r == -1 || same_manifest (d->m, &got));
  assert_true (r == -1 || !d->trust);   /* no bit of a signed one may change */
  return r == 0;
}

static void
damaged_manifests_are_refused (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample ();
  struct damaged d = { &m, NULL };
  size_t len;

  (void) state;
  CLEANUP_FREE char *text = esp_manifest_format (&m, NULL, &len);
  damage_all (text, len, 1, try_manifest, &d);
  CLEANUP_FREE char *sign = esp_manifest_format (&m, signer, &len);
  damage_all (sign, len, 1, try_manifest, &d);
  d.trust = trust;
  damage_all (sign, len, 3, try_manifest, &d);
}

/* The body of the sample's JSON, to be changed. */
static json_t *
sample_json (const struct esp_manifest *m)
{
  size_t len;
  CLEANUP_FREE char *text = esp_manifest_format (m, NULL, &len);
  json_t *doc = esp_doc_parse (text, len, "manifest", 1, "x");

  assert_non_null (doc);
  return doc;
}

static int
parse_json (const struct esp_manifest *m, json_t *doc, int version)
{
  CLEANUP_MANIFEST struct esp_manifest got = { 0 };
  size_t len;
  CLEANUP_FREE char *body = esp_doc_format ("manifest", version, doc, &len);
  CLEANUP_FREE char *text = esp_sign_text (signer, "manifest", body, &len);

  unit_error[0] = 0;
  errno = 0;
  return esp_manifest_parse (text, len, &m->rp.uuid, trust, "x", &got);
}

static json_t *
value_of (const char *text)
{
  json_t *v = json_loads (text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

  assert_non_null (v);
  return v;
}

/* FIELD (of variant V; -1: of the manifest) set to VALUE (NULL: removed) is
 * refused, although it is signed, and named.
 */
static void
refused (int variant, const char *field, const char *value)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample ();
  CLEANUP_JSON json_t *doc = sample_json (&m);
  json_t *o = variant < 0 ? doc
    : json_array_get (json_object_get (doc, "variants"), (size_t) variant);

  if (value)
    assert_int_equal (json_object_set_new (o, field, value_of (value)), 0);
  else
    assert_int_equal (json_object_del (o, field), 0);
  if (parse_json (&m, doc, 1) != -1)
    fail_msg ("%s = %s was taken", field, value ? value : "nothing");
  assert_int_equal (errno, EBADMSG);
  if (!strstr (unit_error, field))
    fail_msg ("%s = %s: %s", field, value ? value : "nothing", unit_error);
}

static void
missing_fields_are_refused (void **state)
{
  static const char *const fields[] = {
    "uuid", "name", "parent", "size", "created", "data-blocks", "zero-blocks",
    "note", "resources", "map-size", "map-sha256", "variants", "pushed-by",
    "pushed",
  }, *const of_variants[] = {
    "id", "segment-size", "codec", "segments", "pack-size", "index-size",
    "index-sha256", "key-check", "salt",
  }, *const wrong[] = { NULL, "{}", "true", "-1", "1.5", "[]" };

  (void) state;
  for (size_t w = 0; w < sizeof wrong / sizeof wrong[0]; ++w) {
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; ++i)
      if (!wrong[w] || strcmp (wrong[w], "[]") != 0 ||
          (strcmp (fields[i], "resources") && strcmp (fields[i], "variants")))
        refused (-1, fields[i], wrong[w]);
    for (size_t i = 0; i < sizeof of_variants / sizeof of_variants[0]; ++i)
      refused (2, of_variants[i], wrong[w]);
    if (wrong[w])
      refused (2, "key", wrong[w]);
  }
}

static void
hostile_values_are_refused (void **state)
{
  (void) state;
  refused (-1, "name", "\"../x\"");
  refused (-1, "size", "0");
  refused (-1, "size", "70368744177665");
  refused (-1, "data-blocks", "2621441");
  refused (-1, "map-size", "47");
  refused (-1, "map-size", "100000000000");
  refused (-1, "map-sha256", "\"00\"");
  refused (-1, "pushed", "9007199254740993");
  refused (0, "id", "\"../../etc\"");
  refused (0, "id", "\"\"");
  refused (0, "id", "\"b\\u00fcro\"");
  refused (0, "id", "\"a123456789012345678901234567890123456789\"");
  refused (0, "id", "\"64K-none\"");            /* taken */
  refused (0, "segment-size", "32768");
  refused (0, "segment-size", "8388608");
  refused (0, "segment-size", "262143");
  refused (0, "codec", "\"lzma\"");
  refused (0, "segments", "1");                 /* 100 blocks take two */
  refused (0, "segments", "101");               /* more than blocks */
  refused (0, "segments", "9223372036854775807");
  refused (0, "pack-size", "13");
  refused (0, "pack-size", "409608");
  refused (0, "index-size", "367");
  refused (0, "index-size", "369");
  refused (0, "index-size", "396");             /* as if encrypted */
  refused (2, "index-size", "368");
  refused (2, "key", "\"../x\"");
  refused (2, "key", "\"\"");
  refused (2, "key-check", "\"0123456789abcdeF\"");
  refused (2, "salt", "\"00\"");
}

static void
versions_and_unknown_fields (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample ();
  CLEANUP_JSON json_t *doc = sample_json (&m);

  (void) state;
  assert_int_equal (json_object_set_new (doc, "new", json_true ()), 0);
  assert_int_equal (parse_json (&m, doc, 1), 0);
  assert_int_equal (parse_json (&m, doc, 2), -1);
  assert_int_equal (errno, ENOTSUP);
}

static void
what_would_not_be_read_is_not_written (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample ();
  size_t len;

  (void) state;
  m.variants[1].segments = 1;
  assert_null (esp_manifest_format (&m, signer, &len));
  assert_int_equal (errno, EINVAL);
  m.variants[1].segments = 7;
  free (m.rp.note);
  m.rp.note = strdup ("\xff");
  assert_null (esp_manifest_format (&m, signer, &len));
  assert_int_equal (errno, EINVAL);
}

static void
a_manifest_has_its_limit (void **state)
{
  CLEANUP_MANIFEST struct esp_manifest m = sample ();
  size_t len;

  (void) state;
  /* Each of these bytes takes six in JSON. */
  free (m.rp.note);
  m.rp.note = malloc ((64 << 10) + 1);
  memset (m.rp.note, 1, 64 << 10);
  m.rp.note[64 << 10] = 0;
  m.rp.resources = realloc (m.rp.resources, 1000 * sizeof *m.rp.resources);
  for (; m.rp.nresources < 1000; ++m.rp.nresources) {
    char *name = malloc (129);
    memset (name, 1, 128);
    name[128] = 0;
    m.rp.resources[m.rp.nresources] =
      (struct esp_resource) { strdup ("app"), name, strdup (name) };
  }
  assert_null (esp_manifest_format (&m, NULL, &len));
  assert_int_equal (errno, EFBIG);
  CLEANUP_FREE char *large = calloc (1, ESP_MANIFEST_MAX + 1);
  struct esp_manifest got;
  assert_int_equal (esp_manifest_parse (large, ESP_MANIFEST_MAX + 1,
                                        &m.rp.uuid, NULL, "x", &got), -1);
  assert_int_equal (errno, EBADMSG);
}

static void
the_map_is_the_manifests (void **state)
{
  CLEANUP_MAP struct esp_map *map = random_map (UINT64_C (10) << 30, 9);
  CLEANUP_MANIFEST struct esp_manifest m = sample ();
  size_t len;
  CLEANUP_FREE void *buf = esp_map_pack (map, &len);

  (void) state;
  m.map_size = len;
  esp_digest_of (buf, len, &m.map_digest);
  m.rp.data_blocks = esp_map_count (map, ESP_DATA);
  m.rp.zero_blocks = esp_map_count (map, ESP_ZERO);
  CLEANUP_MAP struct esp_map *got = esp_manifest_map (&m, buf, len, "x");
  assert_non_null (got);
  assert_true (esp_map_digest (got) == esp_map_digest (map));
  m.rp.data_blocks++;
  assert_null (esp_manifest_map (&m, buf, len, "x"));
  assert_int_equal (errno, EBADMSG);
  m.rp.data_blocks--;
  m.map_digest.b[0] ^= 1;
  assert_null (esp_manifest_map (&m, buf, len, "x"));
  assert_int_equal (errno, EBADMSG);
}

/* --- references --------------------------------------------------------- */

static struct esp_reference
sample_reference (void)
{
  struct esp_reference r = {
    .venue = { .id = "café", .created = 5, .changed = 7, .revision = 3,
               .ndisks = 2 },
    .pushed = 1700000001, .pushed_by = strdup ("host1"),
  };

  r.venue.description = strdup ("the café's seats");
  r.venue.disks = calloc (2, sizeof *r.venue.disks);
  esp_uuid_new (&r.venue.disks[0]);
  esp_uuid_new (&r.venue.disks[1]);
  return r;
}

static bool
same_reference (const struct esp_reference *a, const struct esp_reference *b)
{
  return strcmp (a->venue.id, b->venue.id) == 0 &&
    strcmp (a->venue.description, b->venue.description) == 0 &&
    a->venue.created == b->venue.created &&
    a->venue.changed == b->venue.changed &&
    a->venue.revision == b->venue.revision &&
    a->venue.ndisks == b->venue.ndisks &&
    memcmp (a->venue.disks, b->venue.disks,
            a->venue.ndisks * sizeof *a->venue.disks) == 0 &&
    a->pushed == b->pushed && strcmp (a->pushed_by, b->pushed_by) == 0;
}

static bool
try_reference (void *arg, const void *buf, size_t len)
{
  CLEANUP_REFERENCE struct esp_reference got = { 0 };
  int r = esp_reference_parse (buf, len, "café", trust, "x", &got);

  assert_true (r == 0 || errno == EBADMSG || errno == ENOTSUP ||
               errno == EKEYREJECTED);
  assert_true (r == -1 || same_reference (arg, &got));
  return r == 0;
}

static void
references_come_back (void **state)
{
  CLEANUP_REFERENCE struct esp_reference r = sample_reference (), got = { 0 };
  size_t len;

  (void) state;
  CLEANUP_FREE char *plain = esp_reference_format (&r, NULL, &len);
  assert_int_equal (esp_reference_parse (plain, len, "café", NULL, "x",
                                         &got), 0);
  assert_true (same_reference (&r, &got));
  CLEANUP_FREE char *text = esp_reference_format (&r, signer, &len);
  assert_true (try_reference (&r, text, len));
  damage_all (text, len, 1, try_reference, &r);
}

static void
another_venues_reference_is_refused (void **state)
{
  CLEANUP_REFERENCE struct esp_reference r = sample_reference ();
  CLEANUP_MANIFEST struct esp_manifest m;
  struct esp_reference got;
  size_t len;

  (void) state;
  CLEANUP_FREE char *text = esp_reference_format (&r, signer, &len);
  assert_int_equal (esp_reference_parse (text, len, "bar", trust, "x", &got),
                    -1);
  assert_int_equal (errno, EBADMSG);
  assert_int_equal (esp_reference_parse (text, len, "../x", trust, "x", &got),
                    -1);
  assert_int_equal (errno, EINVAL);
  /* A manifest is none, however it is signed. */
  assert_int_equal (esp_manifest_parse (text, len, &r.venue.disks[0], trust,
                                        "x", &m), -1);
  assert_int_equal (errno, EBADMSG);
  memset (&m, 0, sizeof m);
}

static void
references_keep_their_bounds (void **state)
{
  CLEANUP_REFERENCE struct esp_reference r = sample_reference ();
  size_t len;

  (void) state;
#define BAD(change, back)                                       \
  change;                                                       \
  assert_null (esp_reference_format (&r, signer, &len));        \
  assert_int_equal (errno, EINVAL);                             \
  back
  BAD (r.venue.revision = 0, r.venue.revision = 3);
  BAD (r.venue.created = UINT64_C (1) << 41, r.venue.created = 5);
  BAD (r.venue.ndisks = 0, r.venue.ndisks = 2);
  BAD (r.venue.id[0] = '.', r.venue.id[0] = 'c');
  free (r.venue.description);
  r.venue.description = malloc (4098);
  memset (r.venue.description, 'x', 4097);
  r.venue.description[4097] = 0;
  BAD (, r.venue.description[4096] = 0);
  CLEANUP_FREE char *text = esp_reference_format (&r, signer, &len);
  assert_non_null (text);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (variants_are_parsed),
    cmocka_unit_test (bad_variants_are_refused),
    cmocka_unit_test (manifests_come_back),
    cmocka_unit_test (a_root_without_data_needs_no_variant),
    cmocka_unit_test (who_signed_is_checked),
    cmocka_unit_test (another_ones_manifest_is_refused),
    cmocka_unit_test (damaged_manifests_are_refused),
    cmocka_unit_test (missing_fields_are_refused),
    cmocka_unit_test (hostile_values_are_refused),
    cmocka_unit_test (versions_and_unknown_fields),
    cmocka_unit_test (what_would_not_be_read_is_not_written),
    cmocka_unit_test (a_manifest_has_its_limit),
    cmocka_unit_test (the_map_is_the_manifests),
    cmocka_unit_test (references_come_back),
    cmocka_unit_test (another_venues_reference_is_refused),
    cmocka_unit_test (references_keep_their_bounds),
  };

  unit_init ();
  seed = unit_seed ();
  return cmocka_run_group_tests (tests, group_setup, group_teardown);
}
