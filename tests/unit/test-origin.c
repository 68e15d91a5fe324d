/* SPDX-License-Identifier: BSD-3-Clause */
/* Origins over a directory: every codec, keys, damage; plain images. */

#include "rp-test.h"

#include <stdatomic.h>
#include <sys/stat.h>

#include "center/center.h"
#include "center/origin.h"

#define SIZE ((3u << 20) + 5000)
#define SHIFT 16u

/* A store that pushed a restore point to a center in DIR/hub, and another
 * one (the tree's STORE from then on) that pulled it.
 */
struct origins {
  struct tree *t;
  char *dir;                    /* of the pulling store, and the center */
  struct esp_store *from;       /* the pushing one */
  struct esp_have *have;
  struct esp_origin *origin;
  struct esp_source_list sources;
};

static struct esp_store *
new_store (const char *dir, const char *name)
{
  char path[300];

  snprintf (path, sizeof path, "%s/%s", dir, name);
  assert_int_equal (esp_store_init (path), 0);
  struct esp_store *s = esp_store_open (path);
  assert_non_null (s);
  return s;
}

static void
add_center (struct esp_store *store, const char *dir)
{
  char url[300];
  struct esp_center_config c = { .name = "hub", .url = url,
                                 .unsigned_ok = true };

  snprintf (url, sizeof url, "file://%s/hub", dir);
  if (esp_center_add (store, &c) == -1)
    fail_msg ("%s", unit_error);
}

static void
push (struct origins *o, int member, const char *variant)
{
  const struct esp_push_options options = { .variant = variant,
                                            .no_sign = true };
  struct esp_transfer done = { 0 };
  struct esp_center *c = esp_center_open (o->from, "hub");

  assert_non_null (c);
  if (esp_push_rp (c, &o->t->m[member].uuid, &options, &done) == -1)
    fail_msg ("%s", unit_error);
  esp_center_close (c);
}

static void
pull (struct origins *o, int member)
{
  const struct esp_pull_options options = { 0 };
  struct esp_transfer done = { 0 };
  struct esp_center *c = esp_center_open (o->t->store, "hub");

  assert_non_null (c);
  if (esp_pull_rp (c, &o->t->m[member].uuid, &options, &done) == -1)
    fail_msg ("%s", unit_error);
  esp_center_close (c);
}

static int
setup (void **state)
{
  struct origins *o = calloc (1, sizeof *o);
  char path[300];

  tree_setup ((void **) &o->t);
  tree_add (o->t, -1, SIZE, 400);
  tree_add (o->t, -1, SIZE, 400);
  o->from = o->t->store;
  o->dir = unit_mkdir ();
  snprintf (path, sizeof path, "%s/hub", o->dir);
  assert_int_equal (mkdir (path, 0700), 0);
  o->t->store = new_store (o->dir, "store");
  add_center (o->from, o->dir);
  add_center (o->t->store, o->dir);
  *state = o;
  return 0;
}

static void
close_origin (struct origins *o)
{
  esp_origin_close (o->origin);
  o->origin = NULL;
  if (o->have)
    esp_have_close (o->have);
  o->have = NULL;
  esp_source_list_clear (&o->sources);
}

static int
teardown (void **state)
{
  struct origins *o = *state;

  close_origin (o);
  esp_store_close (o->from);
  tree_teardown ((void **) &o->t);
  unit_rmdir (o->dir);
  free (o);
  return 0;
}

/* The origin of MEMBER, if it can be opened. */
static struct esp_origin *
open_uuid (struct origins *o, const esp_uuid *uuid)
{
  close_origin (o);
  o->have = esp_have_open (o->t->store, uuid);
  if (o->have == NULL)
    fail_msg ("%s", unit_error);
  assert_int_equal (esp_sources_load (o->t->store, uuid, &o->sources), 0);
  assert_int_equal (o->sources.n, 1);
  return o->origin = esp_origin_open (o->t->store, o->have, o->sources.s);
}

/* Push and pull member 0 in VARIANT, open its origin. */
static struct esp_origin *
begin (struct origins *o, const char *variant)
{
  push (o, 0, variant);
  pull (o, 0);
  if (!open_uuid (o, &o->t->m[0].uuid))
    fail_msg ("%s", unit_error);
  return o->origin;
}

/* --- requests ------------------------------------------------------------- */

struct got {
  struct esp_have *have;
  size_t n, last;               /* segments so far; entry of the last */
  size_t wire;
  int err;                      /* of the segment STOP */
  size_t stop;
};

static int
on_segment (void *arg, size_t entry, const void *raw, size_t len)
{
  struct got *g = arg;

  assert_true (g->n == 0 || entry == g->last + 1);
  g->n++;
  g->last = entry;
  if (g->err && entry == g->stop) {
    errno = g->err;
    return -1;
  }
  return esp_have_store (g->have, entry, raw, len);
}

static void
on_arrived (void *arg, size_t bytes)
{
  ((struct got *) arg)->wire += bytes;
}

static int
get (struct origins *o, size_t first, size_t n, struct got *g,
     struct esp_origin_get *r)
{
  g->have = o->have;
  *r = (struct esp_origin_get) { .first = first, .n = n, .segment = on_segment,
                                 .arrived = on_arrived, .arg = g,
                                 .once = true };
  unit_error[0] = 0;
  int result = esp_origin_get (o->origin, r);
  int saved = errno;
  assert_string_equal (unit_error, "");         /* nothing is reported */
  errno = saved;
  return result;
}

static void
fetch_all (struct origins *o)
{
  struct got g = { 0 };
  struct esp_origin_get r;
  size_t n = esp_have_entries (o->have);

  if (get (o, 0, n, &g, &r) == -1)
    fail_msg ("%s", r.why);
  assert_int_equal (g.n, n);
  assert_int_equal (g.wire, esp_origin_wire (o->origin, 0, n));
  assert_true (esp_have_complete (o->have));
}

/* Only errors of the whole request, in WHY. */
static void
expect_failure (struct origins *o, int err, const char *text)
{
  struct got g = { 0 };
  struct esp_origin_get r;

  assert_int_equal (get (o, 0, esp_have_entries (o->have), &g, &r), -1);
  if (errno != err || !strstr (r.why, text))
    fail_msg ("%s: %s", strerror (errno), r.why);
}

/* --- variants ------------------------------------------------------------- */

static void
all_of (void **state, const char *variant)
{
  struct origins *o = *state;

  begin (o, variant);
  assert_string_equal (esp_origin_name (o->origin), "hub");
  fetch_all (o);
  tree_verify (o->t, 0);
}

static void test_none (void **state) { all_of (state, "64K,none"); }
static void test_zstd (void **state) { all_of (state, "64K,zstd:3"); }
static void test_large_segments (void **state) { all_of (state, "4M,zstd"); }

static void
copy_key (struct origins *o, const char *from, const char *to)
{
  char file[300];

  snprintf (file, sizeof file, "%s/%s.copy", o->dir, from);
  assert_int_equal (esp_key_export (o->from, from, file), 0);
  assert_int_equal (esp_key_import (o->t->store, to, file), 0);
}

static void
test_key (void **state)
{
  struct origins *o = *state;

  assert_int_equal (esp_key_create (o->from, "k"), 0);
  copy_key (o, "k", "k");
  all_of (state, "64K,zstd,key=k");
}

static void
test_missing_and_wrong_key (void **state)
{
  struct origins *o = *state;

  assert_int_equal (esp_key_create (o->from, "k"), 0);
  assert_int_equal (esp_key_create (o->from, "other"), 0);
  copy_key (o, "k", "k");
  begin (o, "64K,none,key=k");
  assert_int_equal (esp_key_delete (o->t->store, "k", false), -1);
  assert_int_equal (errno, EBUSY);
  assert_int_equal (esp_key_delete (o->t->store, "k", true), 0);
  assert_null (open_uuid (o, &o->t->m[0].uuid));
  assert_int_equal (errno, ENOKEY);
  copy_key (o, "other", "k");
  assert_null (open_uuid (o, &o->t->m[0].uuid));
  assert_int_equal (errno, EKEYREJECTED);
}

static void
test_center_that_was_removed (void **state)
{
  struct origins *o = *state;

  begin (o, "64K,none");
  assert_int_equal (esp_center_remove (o->t->store, "hub", true), 0);
  fetch_all (o);                /* what is open stays */
  assert_null (open_uuid (o, &o->t->m[0].uuid));
  assert_int_equal (errno, ENOENT);
}

/* --- pieces ---------------------------------------------------------------- */

static void
test_parts_make_the_whole (void **state)
{
  struct origins *o = *state;
  struct got g = { 0 };
  struct esp_origin_get r;

  begin (o, "64K,zstd");
  size_t n = esp_have_entries (o->have), wire = 0;
  for (size_t i = 0; i < n; i += 3) {
    size_t k = n - i < 3 ? n - i : 3;
    if (get (o, i, k, &g, &r) == -1)
      fail_msg ("%s", r.why);
    wire += esp_origin_wire (o->origin, i, k);
    assert_true (i + 1 >= n || esp_origin_adjacent (o->origin, i));
  }
  assert_false (esp_origin_adjacent (o->origin, n - 1));
  assert_int_equal (g.n, n);
  assert_int_equal (g.wire, wire);
  tree_verify (o->t, 0);
}

static void
test_entries_that_are_not_there (void **state)
{
  struct origins *o = *state;
  struct got g = { 0 };
  struct esp_origin_get r;

  begin (o, "64K,zstd");
  size_t n = esp_have_entries (o->have);
  assert_int_equal (get (o, n, 1, &g, &r), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (get (o, n - 1, SIZE_MAX, &g, &r), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (get (o, n, 0, &g, &r), 0);
}

static void
test_who_gets_a_segment_ends_the_request (void **state)
{
  struct origins *o = *state;
  struct got g = { .err = ENOSPC, .stop = 4 };
  struct esp_origin_get r;

  begin (o, "64K,zstd");
  assert_int_equal (get (o, 0, esp_have_entries (o->have), &g, &r), -1);
  assert_int_equal (errno, ENOSPC);
  assert_int_equal (g.n, 5);
}

static void
test_cancel (void **state)
{
  struct origins *o = *state;
  struct got g = { 0 };
  atomic_bool cancel = true;
  struct esp_origin_get r = { .n = 1, .segment = on_segment, .arg = &g,
                              .cancel = &cancel };

  begin (o, "64K,zstd");
  g.have = o->have;
  assert_int_equal (esp_origin_get (o->origin, &r), -1);
  assert_int_equal (errno, ECANCELED);
  assert_int_equal (g.n, 0);
}

static void *
fetch_in_thread (void *arg)
{
  struct origins *o = arg;

  for (int i = 0; i < 20; i++) {
    struct got g = { .have = o->have };
    struct esp_origin_get r = { .n = esp_have_entries (o->have), .arg = &g,
                                .segment = on_segment };
    if (esp_origin_get (o->origin, &r) == -1)
      return (void *) "failed";
  }
  return NULL;
}

static void
test_many_threads (void **state)
{
  struct origins *o = *state;
  pthread_t threads[8];
  void *result;

  begin (o, "64K,zstd");
  for (unsigned i = 0; i < 8; i++)
    assert_int_equal (pthread_create (&threads[i], NULL, fetch_in_thread, o),
                      0);
  for (unsigned i = 0; i < 8; i++) {
    pthread_join (threads[i], &result);
    assert_null (result);
  }
  tree_verify (o->t, 0);
}

/* --- damage ----------------------------------------------------------------- */

static char *
pack_path (struct origins *o, int member, const char *id)
{
  char uuid[ESP_UUID_TEXT], *path;

  assert_true (asprintf (&path, "%s/hub/restore-points/%s/%s.pack", o->dir,
                         esp_uuid_text (&o->t->m[member].uuid, uuid), id) > 0);
  return path;
}

static void
flip (const char *path, uint64_t at)
{
  CLEANUP_CLOSE int fd = -1;
  unsigned char c;

  chmod (path, 0600);
  fd = open (path, O_RDWR);
  assert_true (fd >= 0);
  assert_int_equal (esp_pread_all (fd, &c, 1, at), 0);
  c ^= 4;
  assert_int_equal (esp_pwrite_all (fd, &c, 1, at), 0);
}

/* Turn a bit of entry 5; what came before it is good. */
static void
flipped (void **state, const char *variant, const char *id)
{
  struct origins *o = *state;
  struct got g = { 0 };
  struct esp_origin_get r;
  CLEANUP_FREE char *path = pack_path (o, 0, id);
  char number[40];

  begin (o, variant);
  uint64_t at = esp_origin_wire (o->origin, 0, 5);
  flip (path, at + esp_origin_wire (o->origin, 5, 1) / 2);
  assert_int_equal (get (o, 0, esp_have_entries (o->have), &g, &r), -1);
  assert_int_equal (errno, EBADMSG);
  assert_int_equal (g.n, 5);
  snprintf (number, sizeof number, "segment %u (bytes %llu-",
            esp_have_number (o->have, 5), (unsigned long long) at);
  if (!strstr (r.why, "center hub gave wrong bytes: restore-points/") ||
      !strstr (r.why, id) || !strstr (r.why, number) ||
      !strstr (r.why, "expected SHA-256"))
    fail_msg ("%s", r.why);
}

static void test_flipped_none (void **state)
{ flipped (state, "64K,none", "64K-none"); }
static void test_flipped_zstd (void **state)
{ flipped (state, "64K,zstd", "64K-zstd"); }

static void
test_flipped_key (void **state)
{
  struct origins *o = *state;

  assert_int_equal (esp_key_create (o->from, "k"), 0);
  copy_key (o, "k", "k");
  flipped (state, "64K,zstd,key=k", "64K-zstd-k");
}

/* Another restore point's pack, made as long as the one that it stands for. */
static void
test_swapped_packs (void **state)
{
  struct origins *o = *state;
  CLEANUP_FREE char *mine = pack_path (o, 0, "64K-none");
  CLEANUP_FREE char *other = pack_path (o, 1, "64K-none");
  struct stat st;

  begin (o, "64K,none");
  push (o, 1, "64K,none");
  assert_int_equal (stat (mine, &st), 0);
  assert_int_equal (rename (other, mine), 0);
  chmod (mine, 0600);
  assert_int_equal (truncate (mine, st.st_size), 0);
  expect_failure (o, EBADMSG, "center hub gave wrong bytes");
}

static void
test_short_pack (void **state)
{
  struct origins *o = *state;
  CLEANUP_FREE char *path = pack_path (o, 0, "64K-zstd");
  struct stat st;

  begin (o, "64K,zstd");
  assert_int_equal (stat (path, &st), 0);
  chmod (path, 0600);
  assert_int_equal (truncate (path, st.st_size - 1), 0);
  expect_failure (o, EPROTO, "64K-zstd.pack");
  assert_int_equal (unlink (path), 0);
  expect_failure (o, ENOENT, "64K-zstd.pack");
}

/* The index that is kept here is damaged, or of another variant. */
static void
test_damaged_index (void **state)
{
  struct origins *o = *state;
  char path[400], uuid[ESP_UUID_TEXT];
  struct stat st;

  begin (o, "64K,zstd");
  snprintf (path, sizeof path, "%s/store/restore-points/%s/index-hub", o->dir,
            esp_uuid_text (&o->t->m[0].uuid, uuid));
  assert_int_equal (stat (path, &st), 0);
  flip (path, (uint64_t) st.st_size - 40);
  assert_null (open_uuid (o, &o->t->m[0].uuid));
  assert_int_equal (errno, EBADMSG);
}

static void
test_source_that_does_not_fit_the_index (void **state)
{
  struct origins *o = *state;

  begin (o, "64K,zstd");
  o->sources.s[0].variant.pack_size++;
  assert_null (esp_origin_open (o->t->store, o->have, o->sources.s));
  assert_int_equal (errno, EBADMSG);
  assert_non_null (strstr (unit_error, "center hub: its index"));
}

/* --- plain images ------------------------------------------------------------ */

/* Write the file NAME of SIZE bytes, each byte of block B is B + SALT. */
static char *
write_image (struct origins *o, const char *name, size_t size, int salt)
{
  CLEANUP_FREE unsigned char *buf = malloc (size);
  char path[300], *url;

  for (size_t i = 0; i < size; i++)
    buf[i] = (unsigned char) ((int) (i >> 12) + salt);
  snprintf (path, sizeof path, "%s/%s", o->dir, name);
  CLEANUP_CLOSE int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  assert_true (fd >= 0);
  assert_int_equal (esp_pwrite_all (fd, buf, size, 0), 0);
  assert_true (asprintf (&url, "file://%s", path) > 0);
  return url;
}

static void
add_plain (struct origins *o, const char *url, esp_uuid *uuid)
{
  if (esp_plain_add (o->t->store, "plain", url, SHIFT, "a note", NULL, 0,
                     uuid) == -1)
    fail_msg ("%s", unit_error);
  if (!open_uuid (o, uuid))
    fail_msg ("%s", unit_error);
}

static void
test_plain_file (void **state)
{
  struct origins *o = *state;
  CLEANUP_FREE char *url = write_image (o, "a.raw", SIZE, 1);
  CLEANUP_FREE unsigned char *buf = malloc (SIZE);
  CLEANUP_RP struct esp_rp rp = { 0 };
  esp_uuid uuid;

  add_plain (o, url, &uuid);
  assert_int_equal (esp_catalog_rp_get (esp_store_catalog (o->t->store), &uuid,
                                        &rp), 0);
  assert_int_equal (rp.kind, ESP_RP_DELAYED);
  assert_int_equal (rp.size, SIZE);
  assert_string_equal (rp.note, "a note");
  assert_string_equal (esp_origin_name (o->origin), url);
  assert_int_equal (esp_have_entries (o->have), (SIZE + 65535) / 65536);
  assert_int_equal (esp_origin_wire (o->origin, 0,
                                     esp_have_entries (o->have)), SIZE);
  fetch_all (o);
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (o->t->store, &uuid);
  assert_non_null (image);
  assert_int_equal (esp_image_pread (image, buf, SIZE, 0), 0);
  for (size_t i = 0; i < SIZE; i++)
    assert_int_equal (buf[i], (unsigned char) ((i >> 12) + 1));
}

static void
test_plain_image_of_another_size_or_time (void **state)
{
  struct origins *o = *state;
  CLEANUP_FREE char *url = write_image (o, "a.raw", SIZE, 1);
  esp_uuid uuid;

  add_plain (o, url, &uuid);
  free (write_image (o, "a.raw", SIZE, 2));
  expect_failure (o, ESTALE, "a.raw is not what it was");
  free (write_image (o, "a.raw", SIZE - 100, 1));
  expect_failure (o, ESTALE, "put the old one back, or add the new one");
}

/* The same version, other bytes: what was fetched once holds. */
static void
test_plain_image_with_other_bytes (void **state)
{
  struct origins *o = *state;
  CLEANUP_FREE char *url = write_image (o, "a.raw", SIZE, 1);
  const char *path = url + strlen ("file://");
  struct timespec times[2];
  struct got g = { 0 };
  struct esp_origin_get r;
  struct stat st;
  esp_uuid uuid;
  size_t entry = 2;

  add_plain (o, url, &uuid);
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (get (o, 0, 4, &g, &r), 0);
  assert_int_equal (esp_have_drop (o->have, &entry, 1), 0);
  flip (path, 2 * 65536 + 7);
  times[0] = st.st_atim;
  times[1] = st.st_mtim;
  assert_int_equal (utimensat (AT_FDCWD, path, times, 0), 0);
  g = (struct got) { 0 };
  assert_int_equal (get (o, 2, 4, &g, &r), -1);
  assert_int_equal (errno, ESTALE);
  if (!strstr (r.why, "a.raw is not what it was: segment 2 has SHA-256"))
    fail_msg ("%s", r.why);
  assert_int_equal (g.n, 0);
  assert_int_equal (esp_have_state (o->have, 2), ESP_HAVE_ABSENT);
}

static void
expect_bad_plain (struct origins *o, const char *url, int err,
                  const char *text)
{
  esp_uuid uuid;

  assert_int_equal (esp_plain_add (o->t->store, "plain", url, 0, NULL, NULL, 0,
                                   &uuid), -1);
  if (errno != err || !strstr (unit_error, text))
    fail_msg ("%s: %s: %s", url, strerror (errno), unit_error);
}

static void
test_formats_that_are_not_raw (void **state)
{
  static const struct { const char *name, *magic; size_t len; } formats[] = {
    { "qcow2", "QFI\xfb\0\0\0\3", 8 }, { "vmdk", "KDMV", 4 },
    { "vhdx", "vhdxfile", 8 }, { "compressed (gzip)", "\x1f\x8b\x08", 3 },
    { "compressed (xz)", "\xfd" "7zXZ", 5 },
  };
  struct origins *o = *state;

  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    CLEANUP_FREE char *url = write_image (o, "x", SIZE, 0);
    CLEANUP_CLOSE int fd = open (url + strlen ("file://"), O_WRONLY);
    char text[100];

    assert_int_equal (esp_pwrite_all (fd, formats[i].magic, formats[i].len, 0),
                      0);
    snprintf (text, sizeof text, "is %s: only raw images", formats[i].name);
    expect_bad_plain (o, url, EINVAL, text);
  }
}

static void
test_bad_urls (void **state)
{
  struct origins *o = *state;
  CLEANUP_FREE char *empty = write_image (o, "empty", 0, 0);
  char missing[300];

  snprintf (missing, sizeof missing, "%s.raw", empty);
  expect_bad_plain (o, empty, EINVAL, "0 bytes cannot be a disk");
  expect_bad_plain (o, "image.raw", EINVAL, "not the URL of an image");
  expect_bad_plain (o, "ftp://h/i", EINVAL, "not the URL of an image");
  expect_bad_plain (o, "http://h", EINVAL, "not the URL of an image");
  expect_bad_plain (o, "http://h/d/", EINVAL, "names no image");
  expect_bad_plain (o, "http://h/i?token=x", EINVAL, "a URL with ? or #");
  expect_bad_plain (o, "http://u:p@h/i", EINVAL, "no password in a URL");
  expect_bad_plain (o, "s3://bucket", EINVAL, "not the URL of an image");
  expect_bad_plain (o, missing, ENOENT, "there is no such image");
  expect_bad_plain (o, "nbd+unix:///?socket=/nowhere", ENOENT,
                    "cannot be connected to");
  assert_int_equal (esp_plain_add (o->t->store, "plain", empty, 13, NULL, NULL,
                                   0, NULL), -1);
  assert_int_equal (errno, EINVAL);
}

static void
test_plain_name_that_is_taken (void **state)
{
  struct origins *o = *state;
  CLEANUP_FREE char *url = write_image (o, "a.raw", 100000, 1);
  esp_uuid uuid;

  add_plain (o, url, &uuid);
  expect_bad_plain (o, url, EEXIST, "plain");
}

#define TEST(f) cmocka_unit_test_setup_teardown (f, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (test_none),
    TEST (test_zstd),
    TEST (test_large_segments),
    TEST (test_key),
    TEST (test_missing_and_wrong_key),
    TEST (test_center_that_was_removed),
    TEST (test_parts_make_the_whole),
    TEST (test_entries_that_are_not_there),
    TEST (test_who_gets_a_segment_ends_the_request),
    TEST (test_cancel),
    TEST (test_many_threads),
    TEST (test_flipped_none),
    TEST (test_flipped_zstd),
    TEST (test_flipped_key),
    TEST (test_swapped_packs),
    TEST (test_short_pack),
    TEST (test_damaged_index),
    TEST (test_source_that_does_not_fit_the_index),
    TEST (test_plain_file),
    TEST (test_plain_image_of_another_size_or_time),
    TEST (test_plain_image_with_other_bytes),
    TEST (test_formats_that_are_not_raw),
    TEST (test_bad_urls),
    TEST (test_plain_name_that_is_taken),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
