/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed restore points: what is believed, and that no read is ever wrong. */

#include "have-test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define DISK ((UINT64_C (5) << 20) + 4096 * 3 + 512)

static int
teardown (void **state)
{
  esp_have_set_fetcher (NULL, NULL);
  return tree_teardown (state);
}

/* A tree with one delayed root. */
static void
one (void **state, struct delayed *d)
{
  delayed_add (*state, d, -1, DISK, 400);
}

static void
test_new_one (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  CLEANUP_RP struct esp_rp rp = { 0 };

  one (state, &d);
  tree_row (t, 0, &rp);
  assert_int_equal (rp.kind, ESP_RP_DELAYED);
  assert_int_equal (rp.created, 1234567);
  assert_string_equal (rp.note, "from afar");
  struct esp_have *h = delayed_open (&d);
  assert_ptr_equal (delayed_open (&d), h);
  esp_have_close (h);
  assert_int_equal (esp_have_shift (h), SHIFT);
  assert_int_equal (esp_have_entries (h), d.index.n);
  assert_int_equal (esp_have_bytes (h), rp.data_blocks * ESP_BLOCK_SIZE);
  assert_int_equal (esp_have_local (h), 0);
  assert_false (esp_have_complete (h));
  delayed_all (h, ESP_HAVE_ABSENT);
  uint64_t sum = 0;
  for (size_t e = 0, number = 0; number <= DISK >> SHIFT; number++) {
    assert_int_equal (esp_have_find (h, number), e);
    if (e < d.index.n && d.index.segments[e].number == number) {
      esp_digest digest;

      assert_int_equal (esp_have_number (h, e), number);
      assert_true (esp_have_digest (h, e, &digest));
      assert_true (esp_digest_eq (&digest, &d.index.segments[e].digest));
      sum += esp_have_raw_size (h, e);
      e++;
    }
  }
  assert_int_equal (sum, esp_have_bytes (h));
  assert_int_equal (esp_have_find (h, UINT32_MAX), d.index.n);
  esp_have_close (h);
  delayed_clear (&d);
}

static void
test_stored_is_none (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, -1, DISK, 10);

  assert_null (esp_have_open (t->store, &t->m[i].uuid));
  assert_int_equal (errno, ENOENT);
}

/* --- reading --------------------------------------------------------------- */

static int
count_data (void *arg, uint64_t offset, uint64_t len, enum esp_state state)
{
  (void) offset;
  if (state == ESP_DATA)
    *(uint64_t *) arg += len;
  return 0;
}

static void
test_no_fetcher (void **state)
{
  struct tree *t = *state;
  unsigned char buf[4096];
  struct delayed d;
  uint64_t data = 0, at;

  one (state, &d);
  at = (uint64_t) d.index.segments[0].number << SHIFT;
  while (esp_map_run (d.map, at / 4096, 1, &(uint64_t) { 0 }) != ESP_DATA)
    at += 4096;
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (t->store,
                                                          &t->m[0].uuid);
  assert_non_null (image);
  assert_int_equal (esp_image_pread (image, buf, 4096, at), -1);
  assert_int_equal (errno, EIO);
  assert_non_null (strstr (unit_error, "rp-0"));
  assert_non_null (strstr (unit_error, "espalier hydrate rp-0 --now"));
  /* The extents are known, and asking for them fetches nothing. */
  assert_int_equal (esp_image_extents (image, 0, DISK, count_data, &data), 0);
  assert_true (data > 0);
  assert_int_equal (esp_image_cache (image, 0, DISK), 0);
  delayed_clear (&d);
}

static void
test_fetcher (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  one (state, &d);
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify (t, 0);
  assert_int_equal (d.fetches, d.index.n);
  struct esp_have *h = delayed_open (&d);
  assert_true (esp_have_complete (h));
  assert_int_equal (esp_have_local (h), esp_have_bytes (h));
  delayed_all (h, ESP_HAVE_CHECKED);
  d.broken = true;
  tree_verify (t, 0);
  esp_have_close (h);
  delayed_clear (&d);
}

static void
test_fetch_fails (void **state)
{
  struct tree *t = *state;
  unsigned char *buf = malloc (DISK);
  struct delayed d;

  one (state, &d);
  d.broken = true;
  esp_have_set_fetcher (delayed_fetch, &d);
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (t->store,
                                                          &t->m[0].uuid);
  assert_int_equal (esp_image_pread (image, buf, DISK, 0), -1);
  assert_int_equal (errno, EIO);
  assert_string_equal (unit_error, "the center is gone");
  d.broken = false;
  assert_int_equal (esp_image_pread (image, buf, DISK, 0), 0);
  assert_memory_equal (buf, t->m[0].bytes, DISK);
  free (buf);
  delayed_clear (&d);
}

/* A small read needs its own segments, and no others. */
static void
test_only_what_is_read (void **state)
{
  struct tree *t = *state;
  unsigned char buf[512];
  struct delayed d;

  one (state, &d);
  esp_have_set_fetcher (delayed_fetch, &d);
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (t->store,
                                                          &t->m[0].uuid);
  assert_int_equal (esp_image_pread (image, buf, 512, DISK - 512), 0);
  assert_memory_equal (buf, t->m[0].bytes + DISK - 512, 512);
  assert_int_equal (d.fetches, 1);
  delayed_clear (&d);
}

static void
test_layers_over_it (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  one (state, &d);
  esp_have_set_fetcher (delayed_fetch, &d);
  int child = tree_add (t, 0, DISK + 70000, 100);
  tree_verify (t, child);
  tree_verify (t, 0);
  delayed_clear (&d);
}

static void
test_delayed_over_stored (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  int root = tree_add (t, -1, DISK, 300);

  delayed_add (t, &d, root, DISK + 4096 * 20, 200);
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify_all (t);
  delayed_clear (&d);
}

/* --- storing, dropping ------------------------------------------------------- */

static void
test_wrong_length (void **state)
{
  struct delayed d;
  char raw[SEGMENT];

  one (state, &d);
  struct esp_have *h = delayed_open (&d);
  assert_int_equal (esp_have_store (h, 0, raw, 1), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (esp_have_state (h, 0), ESP_HAVE_ABSENT);
  esp_have_close (h);
  delayed_clear (&d);
}

static void
test_drop (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  size_t entries[1000];

  one (state, &d);
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify (t, 0);
  struct esp_have *h = delayed_open (&d);
  uint64_t before = esp_disk_usage (h->dir, ESP_RP_DATA);
  for (size_t i = 0; i < d.index.n; i++)
    entries[i] = i;
  assert_true (esp_have_try_lock (h, 3));
  assert_int_equal (esp_have_drop (h, entries, d.index.n), 0);
  /* What is being fetched stays. */
  assert_int_equal (esp_have_state (h, 3), ESP_HAVE_CHECKED);
  esp_have_unlock (h, 3);
  assert_int_equal (esp_have_local (h), esp_have_raw_size (h, 3));
  assert_true (esp_disk_usage (h->dir, ESP_RP_DATA) < before);
  assert_false (esp_have_complete (h));
  d.fetches = 0;
  tree_verify (t, 0);
  assert_int_equal (d.fetches, d.index.n - 1);
  assert_true (esp_have_complete (h));
  esp_have_close (h);
  delayed_clear (&d);
}

static void
test_age (void **state)
{
  struct delayed d;

  one (state, &d);
  struct esp_have *h = delayed_open (&d);
  assert_int_equal (esp_have_age (h, 1), 0);
  esp_have_touch (h, 1, 200);
  assert_int_equal (esp_have_age (h, 1), 200);
  assert_int_equal (esp_have_age (h, 2), 0);
  esp_have_close (h);
  delayed_clear (&d);
}

/* --- digests that come with the first fetch ------------------------------------ */

static void
test_plain_image (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  esp_digest digest;

  delayed_prepare (t, &d, -1, DISK, 300);
  assert_int_equal (delayed_make (t, &d, true), 0);
  t->n++;
  struct esp_have *h = delayed_open (&d);
  assert_false (esp_have_digest (h, 0, &digest));
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify (t, 0);
  for (size_t i = 0; i < d.index.n; i++) {
    assert_true (esp_have_digest (h, i, &digest));
    assert_true (esp_digest_eq (&digest, &d.index.segments[i].digest));
  }
  esp_have_close (h);
  /* They are kept. */
  CLEANUP_INDEX struct esp_index table = { 0 };
  assert_int_equal (esp_segments_load (t->store, &t->m[0].uuid, &table), 0);
  assert_int_equal (table.n, d.index.n);
  assert_true (esp_digest_eq (&table.segments[2].digest,
                              &d.index.segments[2].digest));
  /* One that is torn is not known; its segment is fetched again. */
  h = delayed_open (&d);
  d.fetches = 0;
  delayed_patch (&d, ESP_RP_SEGMENTS, SEGMENTS_HEADER + 40 * 2 + 20, "XYZ", 3);
  assert_false (esp_have_digest (h, 2, &digest));
  h->state[2] = ESP_HAVE_LOCAL;
  h->h->missing++;
  tree_verify (t, 0);
  assert_int_equal (d.fetches, 1);
  assert_true (esp_have_digest (h, 2, &digest));
  esp_have_close (h);
  delayed_clear (&d);
}

/* --- what is believed ------------------------------------------------------------ */

static void
fetch_all (struct delayed *d)
{
  esp_have_set_fetcher (delayed_fetch, d);
  tree_verify (d->t, d->member);
  d->fetches = d->asked = 0;
}

static void
test_clean_end (void **state)
{
  struct delayed d;

  one (state, &d);
  fetch_all (&d);
  CLEANUP_CLOSE int fd = delayed_file (&d, ESP_RP_HAVE);
  struct have_header head;
  assert_int_equal (esp_pread_all (fd, &head, sizeof head, 0), 0);
  assert_int_equal (head.clean, HAVE_CLEAN);
  /* The boot is part of the sum: who changes only that is not believed. */
  delayed_patch (&d, ESP_RP_HAVE, 32, "another boot's  ", 16);
  struct esp_have *h = delayed_open (&d);
  delayed_all (h, ESP_HAVE_LOCAL);
  esp_have_close (h);
  delayed_clear (&d);
}

/* As after a restart: another boot's id, and the sum that goes with it. */
static void
other_boot (struct delayed *d, bool clean)
{
  CLEANUP_CLOSE int fd = delayed_file (d, ESP_RP_HAVE);
  size_t len = HAVE_HEADER + 2 * d->index.n;
  unsigned char *buf = malloc (len);
  struct have_header *head = (struct have_header *) buf;

  assert_int_equal (esp_pread_all (fd, buf, len, 0), 0);
  memcpy (head->boot, "another boot's  ", 16);
  head->clean = clean ? HAVE_CLEAN : 0;
  head->sum = have_sum (head, buf + HAVE_HEADER, d->index.n);
  head->missing = 12345;        /* counters mean nothing on the disk */
  assert_int_equal (esp_pwrite_all (fd, buf, len, 0), 0);
  free (buf);
}

static void
test_clean_restart (void **state)
{
  struct delayed d;

  one (state, &d);
  fetch_all (&d);
  other_boot (&d, true);
  struct esp_have *h = delayed_open (&d);
  delayed_all (h, ESP_HAVE_CHECKED);
  assert_true (esp_have_complete (h));
  tree_verify (d.t, 0);
  assert_int_equal (d.asked, 0);
  esp_have_close (h);
  delayed_clear (&d);
}

/* The mark is gone before the first change, and not before. */
static void
test_mark (void **state)
{
  struct delayed d;
  uint32_t clean;

  one (state, &d);
  CLEANUP_CLOSE int fd = delayed_file (&d, ESP_RP_HAVE);
  struct esp_have *h = delayed_open (&d);
  assert_int_equal (esp_pread_all (fd, &clean, 4, 12), 0);
  assert_int_equal (clean, HAVE_CLEAN);
  assert_int_equal (delayed_fetch_entry (&d, h, 0), 0);
  assert_int_equal (esp_pread_all (fd, &clean, 4, 12), 0);
  assert_int_equal (clean, 0);
  esp_have_close (h);
  assert_int_equal (esp_pread_all (fd, &clean, 4, 12), 0);
  assert_int_equal (clean, HAVE_CLEAN);
  delayed_clear (&d);
}

/* Damage the data of some entries; the number of them. */
static int
tear (struct delayed *d)
{
  int torn = 0;

  for (size_t i = 0; i < d->index.n; i++) {
    uint64_t at = (uint64_t) d->index.segments[i].number << SHIFT;

    if (rand () % 3)
      continue;
    while (esp_map_run (d->map, at / 4096, 1, &(uint64_t) { 0 }) != ESP_DATA)
      at += 4096;
    if (rand () % 2)
      delayed_patch (d, ESP_RP_DATA, at + rand () % 100, "torn", 4);
    else {
      CLEANUP_CLOSE int fd = delayed_file (d, ESP_RP_DATA);
      assert_int_equal (esp_punch (fd, at, 4096), 0);
    }
    torn++;
  }
  return torn;
}

static void
test_power_loss (void **state)
{
  struct delayed d;
  int torn;

  one (state, &d);
  fetch_all (&d);
  other_boot (&d, false);
  torn = tear (&d);
  struct esp_have *h = delayed_open (&d);
  delayed_all (h, ESP_HAVE_LOCAL);
  tree_verify (d.t, 0);
  assert_int_equal (d.fetches, torn);
  delayed_all (h, ESP_HAVE_CHECKED);
  assert_true (esp_have_complete (h));
  assert_int_equal (esp_have_local (h), esp_have_bytes (h));
  esp_have_close (h);
  delayed_clear (&d);
}

static void
test_killed_process (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  int status;
  pid_t pid;

  one (state, &d);
  esp_store_close (t->store);
  t->store = NULL;
  pid = fork ();
  if (pid == 0) {
    tree_open (t);
    struct esp_have *h = delayed_open (&d);
    for (size_t i = 0; i < d.index.n / 2; i++)
      delayed_fetch_entry (&d, h, i);
    /* In the middle of a store: a state is set, nobody counted. */
    h->h->missing += 7;
    esp_have_try_lock (h, 0);
    raise (SIGKILL);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFSIGNALED (status));
  tree_open (t);
  struct esp_have *h = delayed_open (&d);
  for (size_t i = 0; i < d.index.n; i++)
    assert_int_equal (esp_have_state (h, i), i < d.index.n / 2
                      ? ESP_HAVE_CHECKED : ESP_HAVE_ABSENT);
  assert_true (esp_have_try_lock (h, 0));
  esp_have_unlock (h, 0);
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify (t, 0);
  assert_int_equal (d.fetches, d.index.n - d.index.n / 2);
  assert_true (esp_have_complete (h));
  esp_have_close (h);
  delayed_clear (&d);
}

/* Damage of any kind: nothing wrong is read, and it goes on. */
static void
damaged (void **state, int what)
{
  struct delayed d;

  one (state, &d);
  fetch_all (&d);
  if (what == 0)
    delayed_patch (&d, ESP_RP_HAVE, 0, "garbage!", 8);
  else if (what == 1)
    delayed_patch (&d, ESP_RP_HAVE, 16, "garbage!", 8);
  else if (what == 2)
    delayed_patch (&d, ESP_RP_HAVE, HAVE_HEADER + 1, "\0", 1);
  else {
    CLEANUP_CLOSE int dir = esp_store_rp_dir (d.t->store, &d.t->m[0].uuid);
    if (what == 3)
      assert_int_equal (unlinkat (dir, ESP_RP_HAVE, 0), 0);
    else {
      CLEANUP_CLOSE int fd = delayed_file (&d, ESP_RP_HAVE);
      assert_int_equal (ftruncate (fd, what == 4 ? 0 : 5000), 0);
    }
  }
  int torn = tear (&d);
  tree_verify (d.t, 0);
  assert_int_equal (d.fetches, torn);
  struct esp_have *h = delayed_open (&d);
  assert_true (esp_have_complete (h));
  esp_have_close (h);
  delayed_clear (&d);
}

static void test_damaged_magic (void **state) { damaged (state, 0); }
static void test_damaged_number (void **state) { damaged (state, 1); }
static void test_damaged_state (void **state) { damaged (state, 2); }
static void test_missing (void **state) { damaged (state, 3); }
static void test_empty (void **state) { damaged (state, 4); }
static void test_cut_short (void **state) { damaged (state, 5); }

static void
test_newer_version (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  one (state, &d);
  delayed_patch (&d, ESP_RP_HAVE, 8, "\2", 1);
  assert_null (esp_have_open (t->store, &t->m[0].uuid));
  assert_int_equal (errno, ENOTSUP);
  delayed_patch (&d, ESP_RP_HAVE, 8, "\1", 1);
  esp_have_close (delayed_open (&d));
  delayed_clear (&d);
}

static void
test_segments_missing (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  unsigned char buf[512];

  one (state, &d);
  CLEANUP_CLOSE int dir = esp_store_rp_dir (t->store, &t->m[0].uuid);
  assert_int_equal (unlinkat (dir, ESP_RP_SEGMENTS, 0), 0);
  /* Even with data that looks like that of a stored one... */
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (t->store,
                                                          &t->m[0].uuid);
  assert_int_equal (esp_image_pread (image, buf, 512, DISK - 512), -1);
  assert_non_null (strstr (unit_error, "store check --repair"));
  delayed_clear (&d);
}

/* ... or where somebody took the right to write away. */
static void
test_data_not_writable (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  one (state, &d);
  CLEANUP_CLOSE int dir = esp_store_rp_dir (t->store, &t->m[0].uuid);
  assert_int_equal (fchmodat (dir, ESP_RP_DATA, 0444, 0), 0);
  esp_have_set_fetcher (delayed_fetch, &d);
  if (geteuid () == 0)
    tree_verify (t, 0);
  delayed_clear (&d);
}

/* --- the tree ------------------------------------------------------------------ */

static void
test_names_and_parents (void **state)
{
  struct tree *t = *state;
  struct delayed d, e;

  one (state, &d);
  /* The UUID is there. */
  assert_int_equal (delayed_make (t, &d, false), -1);
  assert_int_equal (errno, EEXIST);
  /* The name is taken. */
  delayed_prepare (t, &e, -1, DISK, 10);
  e.member = 0;
  esp_uuid_new (&t->m[0].uuid);
  assert_int_equal (delayed_make (t, &e, false), -1);
  assert_int_equal (errno, EEXIST);
  /* The parent is not. */
  esp_uuid_new (&t->m[2].uuid);
  e.member = 1;
  t->m[1].parent = 2;
  assert_int_equal (delayed_make (t, &e, false), -1);
  assert_int_equal (errno, ENOENT);
  /* A table that is not the map's. */
  t->m[1].parent = -1;
  e.index.segments[0].number++;
  assert_int_equal (delayed_make (t, &e, false), -1);
  assert_int_equal (errno, EBADMSG);
  delayed_clear (&d);
  delayed_clear (&e);
}

static const char *stop_at;

static void
stop (const char *step)
{
  if (strcmp (step, stop_at) == 0)
    raise (SIGKILL);
}

/* Killed at any step it is not there, or whole. */
static void
test_crash_while_making (void **state)
{
  static const char *const steps[] = {
    "draft: before the data", "draft: before the chain",
    "delayed: after segments and have", "draft: before meta",
    "publish: before the rename", "publish: after the rename",
    "publish: before the commit",
  };
  struct tree *t = *state;
  struct delayed d;

  delayed_prepare (t, &d, -1, DISK, 100);
  for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    CLEANUP_RP struct esp_rp rp = { 0 };
    bool orphan = strncmp (steps[i], "publish: after", 14) == 0 ||
      strncmp (steps[i], "publish: before the c", 21) == 0;
    unsigned left = 99;
    int status;

    esp_store_close (t->store);
    t->store = NULL;
    stop_at = steps[i];
    esp_uuid_new (&t->m[0].uuid);
    pid_t pid = fork ();
    if (pid == 0) {
      tree_open (t);
      esp_rp_test_step = stop;
      delayed_make (t, &d, false);
      _exit (0);
    }
    assert_int_equal (waitpid (pid, &status, 0), pid);
    assert_true (WIFSIGNALED (status));
    tree_open (t);
    assert_int_equal (esp_catalog_rp_get (esp_store_catalog (t->store),
                                          &t->m[0].uuid, &rp), -1);
    assert_int_equal (esp_store_gc (t->store, false, NULL, NULL, NULL, NULL),
                      0);
    assert_int_equal (esp_store_check (t->store, true, NULL, NULL, &left), 0);
    assert_int_equal (left, 0);
    if (orphan) {
      t->n = 1;
      esp_have_set_fetcher (delayed_fetch, &d);
      tree_verify (t, 0);
      assert_int_equal (esp_rp_delete (t->store, &t->m[0].uuid), 0);
      t->n = 0;
    }
  }
  delayed_clear (&d);
}

static void
test_rename_and_delete (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  CLEANUP_RP struct esp_rp rp = { 0 };

  one (state, &d);
  assert_int_equal (esp_rp_rename (t->store, &t->m[0].uuid, "other"), 0);
  assert_int_equal (esp_rp_set_note (t->store, &t->m[0].uuid, "words"), 0);
  assert_int_equal (esp_rp_load_meta (t->store, &t->m[0].uuid, &rp, NULL), 0);
  assert_int_equal (rp.kind, ESP_RP_DELAYED);
  assert_string_equal (rp.name, "other");
  struct esp_have *h = delayed_open (&d);
  assert_int_equal (esp_rp_delete (t->store, &t->m[0].uuid), -1);
  assert_int_equal (errno, EBUSY);
  esp_have_close (h);
  assert_int_equal (esp_rp_delete (t->store, &t->m[0].uuid), 0);
  assert_null (esp_have_open (t->store, &t->m[0].uuid));
  t->n = 0;
  delayed_clear (&d);
}

static void
test_merge_from (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  one (state, &d);
  int child = tree_add (t, 0, DISK, 100);
  assert_int_equal (esp_rp_merge (t->store, &t->m[0].uuid, NULL, NULL), -1);
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "espalier hydrate rp-0 --now"));
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify_all (t);
  if (esp_rp_merge (t->store, &t->m[0].uuid, NULL, NULL) == -1)
    fail_msg ("%s", unit_error);
  t->m[0].gone = true;
  tree_verify (t, child);
  delayed_clear (&d);
}

static void
test_merge_into (void **state)
{
  struct tree *t = *state;
  CLEANUP_RP struct esp_rp rp = { 0 };
  struct delayed d;
  unsigned left = 99;

  int root = tree_add (t, -1, DISK, 300);
  int child = delayed_add (t, &d, root, DISK, 200);
  assert_int_equal (esp_rp_merge (t->store, &t->m[root].uuid, NULL, NULL), -1);
  assert_int_equal (errno, EBUSY);
  fetch_all (&d);
  if (esp_rp_merge (t->store, &t->m[root].uuid, NULL, NULL) == -1)
    fail_msg ("%s", unit_error);
  t->m[root].gone = true;
  tree_row (t, child, &rp);
  assert_int_equal (rp.kind, ESP_RP_STORED);
  CLEANUP_CLOSE int dir = esp_store_rp_dir (t->store, &t->m[child].uuid);
  assert_int_equal (faccessat (dir, ESP_RP_HAVE, F_OK, 0), -1);
  assert_int_equal (faccessat (dir, ESP_RP_SEGMENTS, F_OK, 0), -1);
  esp_have_set_fetcher (NULL, NULL);
  tree_verify (t, child);
  assert_int_equal (esp_store_check (t->store, false, NULL, NULL, &left), 0);
  assert_int_equal (left, 0);
  delayed_clear (&d);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown (name, tree_setup, teardown)
    T (test_new_one),
    T (test_stored_is_none),
    T (test_no_fetcher),
    T (test_fetcher),
    T (test_fetch_fails),
    T (test_only_what_is_read),
    T (test_layers_over_it),
    T (test_delayed_over_stored),
    T (test_wrong_length),
    T (test_drop),
    T (test_age),
    T (test_plain_image),
    T (test_clean_end),
    T (test_clean_restart),
    T (test_mark),
    T (test_power_loss),
    T (test_killed_process),
    T (test_damaged_magic),
    T (test_damaged_number),
    T (test_damaged_state),
    T (test_missing),
    T (test_empty),
    T (test_cut_short),
    T (test_newer_version),
    T (test_segments_missing),
    T (test_data_not_writable),
    T (test_names_and_parents),
    T (test_crash_while_making),
    T (test_rename_and_delete),
    T (test_merge_from),
    T (test_merge_into),
  };

  unit_init ();
  srand (unit_seed ());
  return cmocka_run_group_tests (tests, NULL, NULL);
}
