/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed restore points: what is believed, and that no read is ever wrong. */

#include "have-test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "store/internal.h"

#define DISK ((UINT64_C (5) << 20) + 4096 * 3 + 512)

static int
teardown (void **state)
{
  struct tree *t = *state;

  esp_have_set_fetcher (NULL, NULL);
  /* Those that were prepared, but are no members. */
  for (int i = t->n; i < TREE_MAX; i++)
    free (t->m[i].bytes);
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

/* Has this process the data of D mapped? */
static bool
data_is_mapped (const struct delayed *d)
{
  char line[4096], text[ESP_UUID_TEXT];
  FILE *f = fopen ("/proc/self/maps", "r");
  bool found = false;

  assert_non_null (f);
  esp_uuid_text (&d->t->m[d->member].uuid, text);
  while (fgets (line, sizeof line, f))
    found |= strstr (line, text) && strstr (line, "/" ESP_RP_DATA);
  fclose (f);
  return found;
}

/* An idle layer keeps its mapping, and nothing else: the file of states is
 * closed, and what is taken away meanwhile is fetched again.
 */
static void
test_idle_layer (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  struct have_header head;
  size_t all[1000];

  one (state, &d);
  esp_have_set_fetcher (delayed_fetch, &d);
  assert_int_equal (esp_image_keep_idle (true), 0);
  tree_verify (t, 0);
  assert_true (data_is_mapped (&d));
  CLEANUP_CLOSE int fd = delayed_file (&d, ESP_RP_HAVE);
  assert_int_equal (esp_pread_all (fd, &head, sizeof head, 0), 0);
  assert_int_equal (head.clean, HAVE_CLEAN);

  struct esp_have *h = delayed_open (&d);
  for (size_t i = 0; i < d.index.n; i++)
    all[i] = i;
  assert_int_equal (esp_have_drop (h, all, d.index.n), 0);
  esp_have_close (h);
  d.fetches = 0;
  tree_verify (t, 0);
  assert_int_equal (d.fetches, d.index.n);
  assert_int_equal (esp_image_keep_idle (false), 0);
  assert_false (data_is_mapped (&d));
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

/* --- many at once --------------------------------------------------------------- */

struct race {
  struct delayed *d;
  struct esp_image *image;
  atomic_bool end;
  atomic_ulong reads, drops;
};

/* In a thread, or a child. */
static void
die (const char *why)
{
  fprintf (stderr, "%s\n", why);
  abort ();
}

static void *
read_at_random (void *arg)
{
  struct race *r = arg;
  struct member *m = &r->d->t->m[r->d->member];
  unsigned seed = (unsigned) (uintptr_t) &seed;
  unsigned char *buf = malloc (1 << 20);

  while (!r->end) {
    uint64_t offset = (unsigned) rand_r (&seed) % m->size;
    uint64_t len = (unsigned) rand_r (&seed) %
      (rand_r (&seed) % 4 ? 20000 : 1 << 20) + 1;

    if (len > m->size - offset)
      len = m->size - offset;
    memset (buf, 0xee, len);
    if (esp_image_pread (r->image, buf, len, offset) == -1)
      die (unit_error);
    if (memcmp (buf, m->bytes + offset, len) != 0)
      die ("wrong bytes");
    r->reads++;
  }
  free (buf);
  return NULL;
}

static void *
drop_at_random (void *arg)
{
  struct race *r = arg;
  struct esp_have *h = delayed_open (r->d);
  unsigned seed = 4711;
  size_t entries[40];

  while (!r->end) {
    size_t n = (unsigned) rand_r (&seed) % 40 + 1;

    for (size_t i = 0; i < n; i++)
      entries[i] = (unsigned) rand_r (&seed) % esp_have_entries (h);
    if (esp_have_drop (h, entries, n) == -1)
      die (unit_error);
    r->drops++;
    usleep (500);
  }
  esp_have_close (h);
  return NULL;
}

static void *
check_at_random (void *arg)
{
  struct race *r = arg;
  struct esp_have *h = delayed_open (r->d);
  unsigned seed = 815;

  while (!r->end) {
    if (esp_have_check (h, (unsigned) rand_r (&seed) % esp_have_entries (h),
                        true) == -1)
      die (unit_error);
    usleep (200);
  }
  esp_have_close (h);
  return NULL;
}

static void
race (struct delayed *d, unsigned ms)
{
  struct race r = { .d = d };
  pthread_t t[6];

  r.image = esp_image_open (d->t->store, &d->t->m[d->member].uuid);
  assert_non_null (r.image);
  for (int i = 0; i < 4; i++)
    pthread_create (&t[i], NULL, read_at_random, &r);
  pthread_create (&t[4], NULL, drop_at_random, &r);
  pthread_create (&t[5], NULL, check_at_random, &r);
  /* On a busy machine some of them begin late. */
  for (int i = 0; i < 100 && (i == 0 || r.reads == 0 || r.drops == 0); i++)
    usleep (ms * 1000);
  r.end = true;
  for (int i = 0; i < 6; i++)
    pthread_join (t[i], NULL);
  assert_true (r.reads > 0 && r.drops > 0);
  esp_image_close (r.image);
}

/* The counters are right when all is quiet. */
static void
verify_counters (struct delayed *d)
{
  struct esp_have *h = delayed_open (d);
  uint64_t missing = 0, local = 0;

  for (size_t i = 0; i < esp_have_entries (h); i++) {
    missing += esp_have_state (h, i) != ESP_HAVE_CHECKED;
    if (esp_have_state (h, i) != ESP_HAVE_ABSENT)
      local += esp_have_raw_size (h, i);
  }
  assert_int_equal (h->h->missing, missing);
  assert_int_equal (esp_have_local (h), local);
  esp_have_close (h);
}

static void
test_reads_while_dropping (void **state)
{
  struct delayed d;

  one (state, &d);
  esp_have_set_fetcher (delayed_fetch, &d);
  struct esp_have *h = delayed_open (&d);
  race (&d, 1500);
  verify_counters (&d);
  esp_have_close (h);
  delayed_clear (&d);
}

/* Two processes, each with readers, and one that takes away. */
static void
test_two_processes (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  int status[2];
  pid_t pid[2];

  one (state, &d);
  esp_store_close (t->store);
  t->store = NULL;
  for (int i = 0; i < 2; i++) {
    pid[i] = fork ();
    if (pid[i] == 0) {
      tree_open (t);
      esp_have_set_fetcher (delayed_fetch, &d);
      race (&d, 1500);
      esp_have_set_fetcher (NULL, NULL);
      esp_store_close (t->store);
      exit (0);
    }
  }
  for (int i = 0; i < 2; i++) {
    assert_int_equal (waitpid (pid[i], &status[i], 0), pid[i]);
    assert_int_equal (status[i], 0);
  }
  tree_open (t);
  verify_counters (&d);
  esp_have_set_fetcher (delayed_fetch, &d);
  tree_verify (t, 0);
  delayed_clear (&d);
}

/* Killed at any time, many times; who remains reads what is right. */
static void
test_killed_in_the_middle (void **state)
{
  struct tree *t = *state;
  struct delayed d;

  one (state, &d);
  for (int i = 0; i < 8; i++) {
    int status;
    pid_t pid;

    esp_store_close (t->store);
    t->store = NULL;
    pid = fork ();
    if (pid == 0) {
      tree_open (t);
      esp_have_set_fetcher (delayed_fetch, &d);
      race (&d, 5000);
      _exit (0);
    }
    tree_open (t);
    esp_have_set_fetcher (delayed_fetch, &d);
    struct esp_have *h = i % 2 ? delayed_open (&d) : NULL;
    usleep (30000 + rand () % 100000);
    kill (pid, SIGKILL);
    assert_int_equal (waitpid (pid, &status, 0), pid);
    assert_true (WIFSIGNALED (status));
    tree_verify (t, 0);
    esp_have_close (h);
    verify_counters (&d);
    esp_have_set_fetcher (NULL, NULL);
  }
  delayed_clear (&d);
}

/* Unclean, and two come at once: both see what is right. */
static void
test_judged_once (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  int torn, status;
  pid_t pid;

  one (state, &d);
  fetch_all (&d);
  other_boot (&d, false);
  torn = tear (&d);
  assert_true (torn > 0);
  esp_store_close (t->store);
  t->store = NULL;
  pid = fork ();
  tree_open (t);
  esp_have_set_fetcher (delayed_fetch, &d);
  race (&d, 100);
  tree_verify (t, 0);
  if (pid == 0)
    _exit (0);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  delayed_clear (&d);
}

/* --- no space, no right to write ------------------------------------------------- */

static void
test_no_space (void **state)
{
  struct tree *t = *state;
  struct rlimit old, small;
  struct delayed d;
  unsigned char buf[512];

  one (state, &d);
  esp_have_set_fetcher (delayed_fetch, &d);
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (t->store,
                                                          &t->m[0].uuid);
  struct esp_have *h = delayed_open (&d);
  size_t last = esp_have_entries (h) - 1;
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = DISK - 2048;         /* within the last block */
  setrlimit (RLIMIT_FSIZE, &small);
  assert_int_equal (esp_image_pread (image, buf, 512, DISK - 512), -1);
  setrlimit (RLIMIT_FSIZE, &old);
  assert_int_equal (errno, EFBIG);
  assert_int_equal (esp_have_state (h, last), ESP_HAVE_ABSENT);
  assert_int_equal (esp_have_local (h), 0);
  /* What was written of it was given back. */
  assert_int_equal (esp_disk_usage (h->dir, ESP_RP_DATA), 0);
  assert_int_equal (esp_image_pread (image, buf, 512, DISK - 512), 0);
  assert_memory_equal (buf, t->m[0].bytes + DISK - 512, 512);
  esp_have_close (h);
  delayed_clear (&d);
}

/* As a store that cannot be written is opened: by hand, since root may
 * always write.
 */
static struct esp_have *
open_readonly (struct delayed *d)
{
  d->t->store->readonly = true;
  return delayed_open (d);
}

static void
test_readonly (void **state)
{
  struct tree *t = *state;
  struct delayed d;
  char raw[SEGMENT];
  size_t first = 0;

  one (state, &d);
  fetch_all (&d);
  struct esp_have *h = open_readonly (&d);
  assert_true (esp_have_complete (h));
  tree_verify (t, 0);
  assert_int_equal (esp_have_store (h, 0, raw, esp_have_raw_size (h, 0)), -1);
  assert_int_equal (errno, EROFS);
  assert_int_equal (esp_have_drop (h, &first, 1), -1);
  assert_int_equal (errno, EROFS);
  assert_false (esp_have_try_lock (h, 0));
  esp_have_touch (h, 0, 7);
  assert_int_equal (esp_have_age (h, 0), 0);
  esp_have_close (h);
  t->store->readonly = false;
  delayed_clear (&d);
}

static void
test_readonly_after_power_loss (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE unsigned char *buf = malloc (DISK);
  struct delayed d;

  one (state, &d);
  fetch_all (&d);
  other_boot (&d, false);
  esp_have_set_fetcher (NULL, NULL);
  struct esp_have *h = open_readonly (&d);
  assert_false (esp_have_complete (h));
  delayed_all (h, ESP_HAVE_LOCAL);
  /* Each is checked by this process, and nothing is written. */
  tree_verify (t, 0);
  delayed_all (h, ESP_HAVE_CHECKED);
  esp_have_close (h);
  h = open_readonly (&d);
  delayed_all (h, ESP_HAVE_LOCAL);
  esp_have_close (h);
  assert_true (tear (&d) > 0);
  h = open_readonly (&d);
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (t->store,
                                                          &t->m[0].uuid);
  assert_int_equal (esp_image_pread (image, buf, DISK, 0), -1);
  assert_int_equal (errno, EIO);
  esp_have_close (h);
  t->store->readonly = false;
  delayed_clear (&d);
}

/* --- sources ----------------------------------------------------------------------- */

static void
test_sources (void **state)
{
  struct tree *t = *state;
  const esp_uuid *u = &t->m[0].uuid;
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  CLEANUP_INDEX struct esp_index index = { 0 };
  struct esp_source s;
  struct delayed d;

  one (state, &d);
  assert_int_equal (esp_sources_load (t->store, u, &list), 0);
  assert_int_equal (list.n, 1);
  assert_string_equal (list.s[0].center, "hq");
  assert_string_equal (list.s[0].variant.id, "64K-none");
  assert_int_equal (list.s[0].variant.segments, d.index.n);
  assert_int_equal (esp_sources_index (t->store, u, "hq", &index), 0);
  assert_int_equal (index.n, d.index.n);
  assert_int_equal (index.segments[3].offset, d.index.segments[3].offset);
  assert_true (esp_digest_eq (&index.segments[3].digest,
                              &d.index.segments[3].digest));
  esp_index_clear (&index);
  assert_int_equal (esp_sources_index (t->store, u, "nobody", &index), -1);
  assert_int_equal (errno, ENOENT);

  delayed_source (&d, &s);
  strcpy (s.center, "second");
  assert_int_equal (esp_sources_add (t->store, u, &s, &d.index), 0);
  /* One that lies. */
  strcpy (s.center, "third");
  d.index.segments[1].digest.b[0] ^= 1;
  assert_int_equal (esp_sources_add (t->store, u, &s, &d.index), -1);
  assert_int_equal (errno, EBADMSG);
  assert_non_null (strstr (unit_error, "third"));
  esp_source_list_clear (&list);
  assert_int_equal (esp_sources_load (t->store, u, &list), 0);
  assert_int_equal (list.n, 2);
  assert_int_equal (esp_sources_remove (t->store, u, "hq"), 0);
  assert_int_equal (esp_sources_remove (t->store, u, "hq"), -1);
  assert_int_equal (errno, ENOENT);
  esp_source_list_clear (&list);
  assert_int_equal (esp_sources_load (t->store, u, &list), 0);
  assert_int_equal (list.n, 1);
  assert_string_equal (list.s[0].center, "second");
  /* A damaged index is never used. */
  delayed_patch (&d, ESP_RP_INDEX "second", 100, "x", 1);
  assert_int_equal (esp_sources_index (t->store, u, "second", &index), -1);
  assert_int_equal (errno, EBADMSG);
  delayed_clear (&d);
}

static void
test_digests_of_stored (void **state)
{
  struct tree *t = *state;
  CLEANUP_INDEX struct esp_index index = { 0 }, back = { 0 };
  int i = tree_add (t, -1, DISK, 50);
  CLEANUP_MAP struct esp_map *map = esp_rp_load_map (t->store, &t->m[i].uuid);

  assert_int_equal (esp_segments_load (t->store, &t->m[i].uuid, &back), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (segments_of_map (map, 18, &index), 0);
  memset (&index.segments[1].digest, 'x', 32);
  assert_int_equal (esp_segments_save (t->store, &t->m[i].uuid, &index), 0);
  assert_int_equal (esp_segments_load (t->store, &t->m[i].uuid, &back), 0);
  assert_int_equal (back.n, index.n);
  assert_int_equal (back.shift, 18);
  assert_int_equal (back.segments[1].digest.b[31], 'x');
  /* It is no delayed one for that, and reads as before. */
  tree_verify (t, i);
  index.segments[1].number += 1000;
  assert_int_equal (esp_segments_save (t->store, &t->m[i].uuid, &index), -1);
  assert_int_equal (errno, EBADMSG);
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
    T (test_idle_layer),
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
    T (test_reads_while_dropping),
    T (test_two_processes),
    T (test_killed_in_the_middle),
    T (test_judged_once),
    T (test_no_space),
    T (test_readonly),
    T (test_readonly_after_power_loss),
    T (test_sources),
    T (test_digests_of_stored),
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
