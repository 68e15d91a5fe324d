/* SPDX-License-Identifier: BSD-3-Clause */
/* Checking, repairing and scrubbing delayed restore points, and the digests
 * of others.
 */

#include "have-test.h"

#include <sys/stat.h>

#include "store/scrub.h"

#define DISK ((UINT64_C (3) << 20) + 4096 * 5 + 512)

static int
teardown (void **state)
{
  esp_have_set_fetcher (NULL, NULL);
  return tree_teardown (state);
}

/* A delayed root; half of it is local. */
static void
one (void **state, struct delayed *d)
{
  delayed_add (*state, d, -1, DISK, 300);
  struct esp_have *h = delayed_open (d);
  for (size_t i = 0; i < d->index.n; i += 2)
    assert_int_equal (delayed_fetch_entry (d, h, i), 0);
  esp_have_close (h);
  d->fetches = 0;
}

static char found[2048];

static void
remember (void *arg, const struct esp_finding *f)
{
  size_t n = strlen (found);

  (void) arg;
  snprintf (found + n, sizeof found - n, "%s: %s (%s)\n", f->object,
            f->problem, f->remedy ? f->remedy : "-");
}

static unsigned
check (struct tree *t, bool repair)
{
  unsigned left = 9999;

  found[0] = 0;
  if (esp_store_check (t->store, repair, remember, NULL, &left) == -1)
    fail_msg ("%s", unit_error);
  return left;
}

static void
expect (const char *text)
{
  if (!strstr (found, text))
    fail_msg ("'%s' is not in:\n%s", text, found);
}

/* What is wrong is found, mended, and then nothing is; all reads right. */
static void
mends (struct delayed *d, const char *text)
{
  struct tree *t = d->t;

  assert_int_equal (check (t, false), 1);
  expect (text);
  assert_int_equal (check (t, true), 0);
  expect (text);
  if (check (t, false) != 0)
    fail_msg ("still: %s", found);
  esp_have_set_fetcher (delayed_fetch, d);
  tree_verify (t, 0);
}

static void
remove_of (struct delayed *d, const char *name)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (d->t->store,
                                            &d->t->m[d->member].uuid);

  assert_int_equal (unlinkat (dir, name, 0), 0);
}

static void
cut (struct delayed *d, const char *name, off_t len)
{
  CLEANUP_CLOSE int fd = delayed_file (d, name);

  assert_int_equal (ftruncate (fd, len), 0);
}

static void
test_sound (void **state)
{
  struct delayed d;

  one (state, &d);
  if (check (*state, false) != 0)
    fail_msg ("%s", found);
  /* Also while it is open, and being filled. */
  struct esp_have *h = delayed_open (&d);
  assert_int_equal (delayed_fetch_entry (&d, h, 1), 0);
  if (check (*state, true) != 0)
    fail_msg ("%s", found);
  esp_have_close (h);
  delayed_clear (&d);
}

static void
test_have_missing (void **state)
{
  struct delayed d;

  one (state, &d);
  remove_of (&d, ESP_RP_HAVE);
  mends (&d, "have");
  assert_int_equal (d.fetches, d.index.n / 2);
  delayed_clear (&d);
}

static void
test_have_damaged (void **state)
{
  struct delayed d;

  one (state, &d);
  delayed_patch (&d, ESP_RP_HAVE, 3, "?", 1);
  mends (&d, "have is damaged");
  delayed_clear (&d);
}

static void
test_states_damaged (void **state)
{
  struct delayed d;

  one (state, &d);
  delayed_patch (&d, ESP_RP_HAVE, HAVE_HEADER + 1, "\2", 1);
  mends (&d, "states");
  delayed_clear (&d);
}

static void
test_have_in_use (void **state)
{
  struct delayed d;

  one (state, &d);
  struct esp_have *h = delayed_open (&d);
  delayed_patch (&d, ESP_RP_HAVE, 0, "garbage", 7);
  assert_int_equal (check (*state, true), 1);
  expect ("in use");
  esp_have_close (h);
  mends (&d, "have");
  delayed_clear (&d);
}

static void
test_segments_damaged (void **state)
{
  struct delayed d;

  one (state, &d);
  delayed_patch (&d, ESP_RP_SEGMENTS, SEGMENTS_HEADER + 13, "?", 1);
  mends (&d, "the table of segments is damaged");
  delayed_clear (&d);
}

static void
test_segments_missing (void **state)
{
  struct delayed d;

  one (state, &d);
  remove_of (&d, ESP_RP_SEGMENTS);
  mends (&d, "segments is missing");
  delayed_clear (&d);
}

/* Without an index it is lost here. */
static void
test_segments_lost (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  one (state, &d);
  remove_of (&d, ESP_RP_SEGMENTS);
  remove_of (&d, ESP_RP_INDEX "hq");
  assert_true (check (t, false) > 0);
  assert_int_equal (check (t, true), 0);
  expect ("damaged/restore-point-");
  assert_int_equal (check (t, false), 0);
  assert_null (esp_have_open (t->store, &t->m[0].uuid));
  delayed_clear (&d);
}

static void
test_sources_damaged (void **state)
{
  struct delayed d;
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  struct tree *t = *state;

  one (state, &d);
  delayed_patch (&d, ESP_RP_SOURCES, 60, "?", 1);
  mends (&d, "sources");
  delayed_clear (&d);
  assert_int_equal (esp_sources_load (t->store, &t->m[0].uuid, &list), 0);
  assert_int_equal (list.n, 0);
}

static void
test_index_damaged (void **state)
{
  struct delayed d;
  struct esp_source s;
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  struct tree *t = *state;

  one (state, &d);
  delayed_source (&d, &s);
  strcpy (s.center, "second");
  assert_int_equal (esp_sources_add (t->store, &t->m[0].uuid, &s, &d.index),
                    0);
  delayed_patch (&d, ESP_RP_INDEX "hq", 70, "?", 1);
  mends (&d, "index-hq");
  delayed_clear (&d);
  assert_int_equal (esp_sources_load (t->store, &t->m[0].uuid, &list), 0);
  assert_int_equal (list.n, 1);
  assert_string_equal (list.s[0].center, "second");
}

static void
test_profile_damaged (void **state)
{
  struct delayed d;
  struct tree *t = *state;
  CLEANUP_CLOSE int dir = -1;

  one (state, &d);
  dir = esp_store_rp_dir (t->store, &t->m[0].uuid);
  assert_int_equal (esp_write_file_atomic (dir, ESP_RP_PROFILE, "rubbish", 7,
                                           0644), 0);
  mends (&d, "boot-profile");
  delayed_clear (&d);
  assert_int_equal (faccessat (dir, ESP_RP_PROFILE, F_OK, 0), -1);
}

static void
test_data_cut (void **state)
{
  struct delayed d;

  one (state, &d);
  cut (&d, ESP_RP_DATA, DISK / 2);
  mends (&d, "data has");
  delayed_clear (&d);
}

static void
test_data_gone (void **state)
{
  struct delayed d;

  one (state, &d);
  remove_of (&d, ESP_RP_DATA);
  mends (&d, "data has 0 bytes");
  assert_int_equal (d.fetches, d.index.n);
  delayed_clear (&d);
}

static void
test_meta_gone (void **state)
{
  struct delayed d;

  one (state, &d);
  remove_of (&d, ESP_RP_META);
  mends (&d, "meta");
  delayed_clear (&d);
}

/* A stored one's digests are no loss. */
static void
test_stored_segments_damaged (void **state)
{
  struct tree *t = *state;
  struct esp_scrub scrub = { 0 };
  struct delayed d = { .t = t };

  tree_add (t, -1, DISK, 100);
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.first, 1);
  delayed_patch (&d, ESP_RP_SEGMENTS, SEGMENTS_HEADER + 13, "?", 1);
  assert_int_equal (check (t, false), 1);
  assert_int_equal (check (t, true), 0);
  assert_int_equal (check (t, false), 0);
  tree_verify (t, 0);
}

static void
test_rebuild (void **state)
{
  struct tree *t = *state;
  CLEANUP_RP struct esp_rp rp = { 0 };
  struct delayed d;
  unsigned rps = 0;

  one (state, &d);
  int child = tree_add (t, 0, DISK, 0);
  esp_store_close (t->store);
  t->store = NULL;
  assert_int_equal (esp_store_rebuild (t->dir, NULL, NULL, &rps, NULL), 0);
  assert_int_equal (rps, 2);
  tree_open (t);
  tree_row (t, 0, &rp);
  assert_int_equal (rp.kind, ESP_RP_DELAYED);
  assert_int_equal (check (t, false), 0);
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify (t, child);
  delayed_clear (&d);
}

static void
test_stats (void **state)
{
  struct tree *t = *state;
  struct esp_store_stats s;
  struct delayed d;

  one (state, &d);
  struct esp_have *h = delayed_open (&d);
  assert_int_equal (esp_store_stats (t->store, &s), 0);
  assert_int_equal (s.delayed, 1);
  assert_int_equal (s.delayed_data, esp_have_bytes (h));
  assert_int_equal (s.delayed_local, esp_have_local (h));
  assert_true (s.delayed_local > 0 && s.delayed_local < s.delayed_data);
  esp_have_close (h);
  delayed_clear (&d);
}

/* --- scrub -------------------------------------------------------------------- */

/* Change a byte of the first data block of entry I. */
static void
spoil (struct delayed *d, struct esp_map *map, uint64_t at)
{
  while (esp_map_run (map, at / 4096, 1, &(uint64_t) { 0 }) != ESP_DATA)
    at += 4096;
  delayed_patch (d, ESP_RP_DATA, at + 17, "\377\0", 2);
}

static void
test_scrub_delayed (void **state)
{
  struct tree *t = *state;
  struct esp_scrub scrub = { 0 };
  struct delayed d;

  one (state, &d);
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.rps, 1);
  assert_int_equal (scrub.first, 0);
  assert_int_equal (scrub.segments, (d.index.n + 1) / 2);
  assert_int_equal (scrub.dropped + scrub.mended + scrub.lost, 0);
  /* Nobody can fetch: it waits for who reads it. */
  spoil (&d, d.map, (uint64_t) d.index.segments[2].number << SHIFT);
  scrub = (struct esp_scrub) { 0 };
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.dropped, 1);
  struct esp_have *h = delayed_open (&d);
  assert_int_equal (esp_have_state (h, 2), ESP_HAVE_ABSENT);
  esp_have_close (h);
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify (t, 0);
  /* Somebody can. */
  spoil (&d, d.map, (uint64_t) d.index.segments[1].number << SHIFT);
  scrub = (struct esp_scrub) { 0 };
  assert_int_equal (esp_store_scrub (t->store, &t->m[0].uuid, &scrub), 0);
  assert_int_equal (scrub.mended, 1);
  assert_int_equal (scrub.dropped, 0);
  tree_verify (t, 0);
  delayed_clear (&d);
}

struct copy { struct delayed *d; bool lies; };

static int
from_copy (void *arg, struct esp_store *store, const struct esp_rp *rp,
           unsigned shift, uint32_t number, const esp_digest *digest,
           void *raw, size_t len)
{
  struct copy *c = arg;
  unsigned char *bytes = c->d->t->m[0].bytes;
  uint64_t b = (uint64_t) number << (shift - 12), at = 0;

  (void) store;
  (void) rp;
  (void) digest;
  for (; at < len; b++)
    if (esp_map_run (c->d->map, b, 1, &(uint64_t) { 0 }) == ESP_DATA) {
      uint64_t there = DISK - b * 4096 < 4096 ? DISK - b * 4096 : 4096;

      memset ((char *) raw + at, 0, 4096);
      memcpy ((char *) raw + at, bytes + b * 4096, there);
      at += 4096;
    }
  if (c->lies)
    ((char *) raw)[0] ^= 1;
  return 0;
}

static void
test_scrub_stored (void **state)
{
  struct tree *t = *state;
  struct delayed d = { .t = t };
  struct copy copy = { .d = &d, .lies = true };
  struct esp_scrub scrub = { 0 };
  struct stat st;

  tree_add (t, -1, DISK, 200);
  d.map = esp_rp_load_map (t->store, &t->m[0].uuid);
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.first, 1);
  spoil (&d, d.map, 100000);
  scrub = (struct esp_scrub) { 0 };
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.lost, 1);
  /* Wrong bytes are never written over wrong bytes. */
  scrub = (struct esp_scrub) { .mend = from_copy, .arg = &copy };
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.lost, 1);
  copy.lies = false;
  scrub = (struct esp_scrub) { .mend = from_copy, .arg = &copy };
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.lost, 0);
  assert_int_equal (scrub.mended, 1);
  tree_verify (t, 0);
  CLEANUP_CLOSE int fd = delayed_file (&d, ESP_RP_DATA);
  assert_int_equal (fstat (fd, &st), 0);
  assert_int_equal (st.st_mode & 0777, 0444);
  scrub = (struct esp_scrub) { 0 };
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.mended + scrub.lost, 0);
  esp_map_free (d.map);
}

static int
stop (void *arg, uint64_t done, uint64_t total)
{
  (void) arg;
  (void) done;
  (void) total;
  return -1;
}

/* What was begun leaves no digests of a half. */
static void
test_scrub_interrupted (void **state)
{
  struct tree *t = *state;
  CLEANUP_INDEX struct esp_index index = { 0 };
  struct esp_scrub scrub = { .progress = stop };

  tree_add (t, -1, DISK, 200);
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), -1);
  assert_int_equal (errno, ECANCELED);
  assert_int_equal (esp_segments_load (t->store, &t->m[0].uuid, &index), -1);
  assert_int_equal (errno, ENOENT);
}

/* A merge changes blocks: the old digests must not stay. */
static void
test_merge_drops_digests (void **state)
{
  struct tree *t = *state;
  struct esp_scrub scrub = { 0 };

  tree_add (t, -1, DISK, 200);
  tree_add (t, 0, DISK, 100);
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.first, 2);
  if (esp_rp_merge (t->store, &t->m[0].uuid, NULL, NULL) == -1)
    fail_msg ("%s", unit_error);
  t->m[0].gone = true;
  scrub = (struct esp_scrub) { 0 };
  assert_int_equal (esp_store_scrub (t->store, NULL, &scrub), 0);
  assert_int_equal (scrub.lost + scrub.unchecked, 0);
  assert_int_equal (scrub.first, 1);
  tree_verify (t, 1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, tree_setup, teardown)
    T (test_sound),
    T (test_have_missing),
    T (test_have_damaged),
    T (test_states_damaged),
    T (test_have_in_use),
    T (test_segments_damaged),
    T (test_segments_missing),
    T (test_segments_lost),
    T (test_sources_damaged),
    T (test_index_damaged),
    T (test_profile_damaged),
    T (test_data_cut),
    T (test_data_gone),
    T (test_meta_gone),
    T (test_stored_segments_damaged),
    T (test_rebuild),
    T (test_stats),
    T (test_scrub_delayed),
    T (test_scrub_stored),
    T (test_scrub_interrupted),
    T (test_merge_drops_digests),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
