/* SPDX-License-Identifier: BSD-3-Clause */
/* A directory that was damaged, cut, replaced, or is not ours: never a crash,
 * never wrong bytes, said once.
 */

#include "cdir-test.h"

#include <time.h>

static const struct esp_cache_key key = { .id = { 1, 2, 3 }, .segment = 7,
                                          .shift = 18 };
static unsigned messages;

static void
count_messages (const char *fmt, va_list args)
{
  ++messages;
  unit_error_fn (fmt, args);
}

/* --- values -------------------------------------------------------------- */

/* Where the data of `key`, or its first head, are in the file. */
static off_t
find_in_file (const void *bytes, size_t n)
{
  static uint8_t file[MAX];
  CLEANUP_CLOSE int fd = cdir_file ();
  struct stat st;
  uint8_t *at;

  assert_int_equal (fstat (fd, &st), 0);
  assert_int_equal (esp_pread_all (fd, file, (size_t) st.st_size, 0), 0);
  at = memmem (file, (size_t) st.st_size, bytes, n);
  assert_non_null (at);
  return at - file;
}

static void
flip (off_t at)
{
  CLEANUP_CLOSE int fd = cdir_file ();
  uint8_t b;

  assert_int_equal (esp_pread_all (fd, &b, 1, (uint64_t) at), 0);
  b ^= 0x10;
  assert_int_equal (esp_pwrite_all (fd, &b, 1, (uint64_t) at), 0);
}

/* A miss that is counted as LIES; then it is put again, and there. */
static void
heals (struct esp_cdir *d, uint64_t lies)
{
  struct esp_cdir_counters c;

  assert_false (cdir_has (d, &key, 0, SEGMENT));
  esp_cdir_counters (d, &c);
  assert_int_equal (c.lies, lies);
  assert_int_equal (c.errors, 0);
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  assert_true (cdir_has (d, &key, 0, SEGMENT));
}

static void
a_byte_of_the_data (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  uint8_t data[64];

  (void) state;
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  for (unsigned i = 0; i < 4; ++i) {            /* in each part */
    for (size_t at = 0; at < sizeof data; at += 8)
      esp_put64 (data + at, cdir_word (esp_cache_key_hash (&key), 0,
                                      i * ESP_CDIR_SLOT + at));
    flip (find_in_file (data, sizeof data) + 1000);
    heals (d, i + 1);
  }
}

static void
a_byte_of_a_head (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  struct esp_cdir_counters c;

  (void) state;
  for (unsigned i = 0; i < ESP_VALUE_HEAD; ++i) {
    /* What says that it is under another secret stays until it is forgotten. */
    esp_cdir_forget (d, &key);
    assert_true (cdir_put (d, &key, 0, SEGMENT));
    /* The place of the first of the four: their ways' order may differ. */
    flip (find_in_file ("ESPVALUE", 8) + i);
    /* It is another's, or does not open. */
    assert_false (cdir_has (d, &key, 0, SEGMENT));
    assert_true (cdir_put (d, &key, 0, SEGMENT));
    assert_true (cdir_has (d, &key, 0, SEGMENT));
  }
  esp_cdir_counters (d, &c);
  assert_true (c.lies > 0 && c.lies < ESP_VALUE_HEAD);
  assert_int_equal (c.errors, 0);
}

/* Any words in the index: nothing that should not be found is. */
static void
any_words (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  CLEANUP_CLOSE int fd = cdir_file ();
  static uint64_t index[12 * sizeof (struct cdir_set) / 8];
  uint64_t seed = unit_seed ();

  (void) state;
  for (unsigned round = 0; round < 12; ++round) {
    for (size_t i = 0; i < sizeof index / 8; ++i) {
      uint64_t r = XXH3_64bits_withSeed (&i, sizeof i, seed + round);

      index[i] = round % 3 == 0 ? r : round % 3 == 1 ? r | 2 : ~UINT64_C (0);
    }
    assert_int_equal (esp_pwrite_all (fd, index, sizeof index, CDIR_HEADER),
                      0);
    for (uint32_t i = 0; i < 20; ++i) {
      struct esp_cache_key k = cdir_key (ESP_CACHE_EXPORT, i, 16 + i % 4);
      size_t len = (1u << k.shift) - 8;

      assert_false (cdir_has (d, &k, 0, len));
      if (cdir_put (d, &k, 1, len))
        assert_true (cdir_has (d, &k, 1, len));
      esp_cdir_forget (d, &k);
      assert_false (cdir_has (d, &k, 1, len));
    }
  }
}

/* All ways are PENDING since SECONDS: a put that was killed leaves them. */
static bool
put_beside_pending (time_t seconds)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  CLEANUP_CLOSE int fd = cdir_file ();
  struct timespec t;
  uint64_t ways[CDIR_WAYS];

  clock_gettime (CLOCK_MONOTONIC, &t);
  for (unsigned w = 0; w < CDIR_WAYS; ++w)
    ways[w] = cdir_way (CDIR_PENDING, 0, w,
                        (unsigned) ((t.tv_sec - seconds) >> 4), 0x123456);
  for (unsigned s = 0; s < 12; ++s)
    assert_int_equal (esp_pwrite_all (fd, ways, sizeof ways, CDIR_HEADER
                                      + s * sizeof (struct cdir_set)), 0);
  assert_false (cdir_has (d, &key, 0, SEGMENT));
  if (!cdir_put (d, &key, 0, SEGMENT))
    return false;
  assert_true (cdir_has (d, &key, 0, SEGMENT));
  return true;
}

static void
abandoned_puts (void **state)
{
  (void) state;
  assert_false (put_beside_pending (0));
  assert_false (put_beside_pending (30));
  assert_true (put_beside_pending (100));
  assert_true (put_beside_pending (3600));
}

/* --- the file, while it is open ------------------------------------------ */

/* Cut to LEN bytes: misses, puts that fail or work, one warning. */
static void
cut_to (off_t len, bool usable)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open (), *other = cdir_open ();
  CLEANUP_CLOSE int fd = cdir_file ();
  struct esp_cache_key export = cdir_key (ESP_CACHE_EXPORT, 1, 18);
  struct esp_cdir_counters c;

  assert_true (cdir_put (d, &key, 0, SEGMENT));
  assert_true (cdir_put (d, &export, 0, SEGMENT));
  messages = 0;
  assert_int_equal (ftruncate (fd, len), 0);
  for (unsigned i = 0; i < 3; ++i) {
    assert_false (cdir_has (d, &key, 0, SEGMENT));
    assert_int_equal (cdir_put (d, &key, 0, SEGMENT), usable);
    assert_int_equal (cdir_has (d, &key, 0, SEGMENT), usable);
    if (usable)
      esp_cdir_forget (d, &key);
  }
  esp_cdir_forget (other, &export);
  assert_false (cdir_has (d, &export, 0, SEGMENT));
  esp_cdir_counters (d, &c);
  assert_true (c.errors > 0);
  assert_in_range (messages, 1, usable ? 1 : 2);        /* one a process */
}

/* The thread sanitizer holds a lock of its own while an atomic access faults,
 * and the jump leaves it locked.
 */
#ifdef __SANITIZE_THREAD__
#define NO_FAULTS 1
#elif defined __has_feature
#if __has_feature (thread_sanitizer)
#define NO_FAULTS 1
#endif
#endif
#ifndef NO_FAULTS
#define NO_FAULTS 0
#endif

static void
cut_while_it_is_open (void **state)
{
  (void) state;
  if (NO_FAULTS) {
    /* Not skip (): its "not ok # SKIP" counts as a failure. */
    print_message ("# skipped: the thread sanitizer locks around faults\n");
    return;
  }
  cut_to (0, false);
  cut_to (CDIR_HEADER, false);
  cut_to (100000, true);        /* behind the index: it grows again */
}

/* One page of the index is gone for one process; what it must forget there is
 * then forgotten by all.
 */
static void
a_forget_that_cannot_be_done (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open (), *other = cdir_open ();
  CLEANUP_CLOSE int fd = cdir_file ();
  struct esp_cache_key k;
  struct stat st;

  (void) state;
  if (NO_FAULTS) {
    /* Not skip (): its "not ok # SKIP" counts as a failure. */
    print_message ("# skipped: the thread sanitizer locks around faults\n");
    return;
  }
  for (uint32_t i = 0; i < 40; ++i) {
    k = cdir_key (ESP_CACHE_EXPORT, i, 16);
    assert_true (cdir_put (other, &k, 0, 65536));
  }
  /* Two sets are left. */
  assert_int_equal (ftruncate (fd, CDIR_HEADER + 4096), 0);
  for (uint32_t i = 0; i < 40; ++i) {
    k = cdir_key (ESP_CACHE_EXPORT, i, 16);
    esp_cdir_forget (d, &k);
  }
  assert_int_equal (fstat (fd, &st), 0);
  assert_int_equal (st.st_size, 0);
  for (uint32_t i = 0; i < 40; ++i) {
    k = cdir_key (ESP_CACHE_EXPORT, i, 16);
    assert_false (cdir_has (other, &k, 0, 65536));
  }
}

static void
cut_and_opened_by_another (void **state)
{
  struct esp_cdir *d = cdir_open ();
  CLEANUP_CLOSE int fd = cdir_file ();

  (void) state;
  assert_int_equal (ftruncate (fd, 0), 0);
  /* Who has it open may still believe in it: it is not made anew. */
  assert_null (esp_cdir_open (cdir_where, MAX, cdir_check));
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "restart them"));
  esp_cdir_close (d);
  d = cdir_open ();
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  esp_cdir_close (d);
}

/* Who made another one would not see what the others write. */
static void
removed_while_it_is_open (void **state)
{
  struct esp_cdir *d = cdir_open ();
  char path[400];

  (void) state;
  snprintf (path, sizeof path, "%s/segcache", cdir_where);
  assert_int_equal (unlink (path), 0);
  assert_null (esp_cdir_open (cdir_where, MAX, cdir_check));
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "was removed"));
  assert_int_equal (access (path, F_OK), -1);
  /* Who has it goes on, and then it is made. */
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  assert_true (cdir_has (d, &key, 0, SEGMENT));
  esp_cdir_close (d);
  d = cdir_open ();
  assert_false (cdir_has (d, &key, 0, SEGMENT));
  esp_cdir_close (d);
}

/* --- the file, before it is opened ---------------------------------------- */

/* Made anew, with a warning or not; then it works. */
static void
begins_anew (bool warns)
{
  struct esp_cdir *d;

  messages = 0;
  d = cdir_open ();
  assert_int_equal (messages, warns);
  assert_false (cdir_has (d, &key, 0, SEGMENT));
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  assert_true (cdir_has (d, &key, 0, SEGMENT));
  esp_cdir_close (d);
}

static void
bytes_of_the_header (void **state)
{
  (void) state;
  begins_anew (false);
  /* Behind the magic; of another version nothing is said. */
  for (off_t i = 8; i < (off_t) sizeof (struct cdir_fixed); i += 3) {
    flip (i);
    begins_anew (i >= 12);
  }
}

/* Right sums over wrong numbers. */
static void
numbers_that_are_none (void **state)
{
  static const struct { size_t at, n; uint64_t value; } wrong[] = {
    { offsetof (struct cdir_fixed, max), 8, 0 },
    { offsetof (struct cdir_fixed, max), 8, UINT64_MAX },
    { offsetof (struct cdir_fixed, max), 8, MAX * 2 },
    { offsetof (struct cdir_fixed, slot), 4, 4096 },
    { offsetof (struct cdir_fixed, ways), 4, 17 },
    { offsetof (struct cdir_fixed, groups), 8, UINT64_MAX / 2 },
    { offsetof (struct cdir_fixed, groups), 8, 0 },
    { offsetof (struct cdir_fixed, group), 4, 0 },
    { offsetof (struct cdir_fixed, group), 4, 3 },
    { offsetof (struct cdir_fixed, set), 4, 0 },
    { offsetof (struct cdir_fixed, file), 8, 1 },
    { offsetof (struct cdir_fixed, order), 8, UINT64_C (0x0807060504030201) },
    { offsetof (struct cdir_fixed, zero), 8, 1 },
  };

  (void) state;
  begins_anew (false);
  for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    cdir_patch (wrong[i].at, &wrong[i].value, wrong[i].n);
    begins_anew (true);
  }
}

static void
other_lengths (void **state)
{
  static const off_t lengths[] = { 8, 100, 4096, 100000, MAX + 1 };

  (void) state;
  begins_anew (false);
  for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
    CLEANUP_CLOSE int fd = cdir_file ();

    assert_int_equal (ftruncate (fd, lengths[i]), 0);
    begins_anew (true);
  }
}

/* A creation that was cut off, at any point, is nothing to warn of. */
static void
half_made (void **state)
{
  uint32_t whole = 0;

  (void) state;
  begins_anew (false);
  cdir_patch (offsetof (struct cdir_fixed, whole), &whole, sizeof whole);
  begins_anew (false);
  CLEANUP_CLOSE int fd = cdir_file ();
  assert_int_equal (ftruncate (fd, 0), 0);
  begins_anew (false);
  assert_int_equal (ftruncate (fd, 0), 0);
  assert_int_equal (ftruncate (fd, 4096), 0);
  begins_anew (false);
}

static void
another_version (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = NULL;
  uint32_t version = 2;

  (void) state;
  begins_anew (false);
  cdir_patch (offsetof (struct cdir_fixed, version), &version, 4);
  begins_anew (false);
  d = cdir_open ();
  cdir_patch (offsetof (struct cdir_fixed, version), &version, 4);
  assert_null (esp_cdir_open (cdir_where, MAX, cdir_check));
  assert_int_equal (errno, EBUSY);
}

/* --- what is not ours ------------------------------------------------------ */

static void
refused (int err, const char *says)
{
  unit_error[0] = 0;
  assert_null (esp_cdir_open (cdir_where, MAX, cdir_check));
  assert_int_equal (errno, err);
  if (!strstr (unit_error, says))
    fail_msg ("\"%s\" does not say \"%s\"", unit_error, says);
}

static void
somebody_elses_file (void **state)
{
  CLEANUP_FREE char *again = NULL;
  char path[400];
  FILE *f;
  size_t len;

  (void) state;
  snprintf (path, sizeof path, "%s/segcache", cdir_where);
  f = fopen (path, "w");
  assert_non_null (f);
  fputs ("my only copy", f);
  fclose (f);
  refused (EEXIST, "is not a segment cache's: give another directory");
  assert_int_equal (esp_read_file (AT_FDCWD, path, 100, &again, &len), 0);
  assert_string_equal (again, "my only copy");
  /* Nor one that only begins with zeroes, as disks do. */
  CLEANUP_CLOSE int fd = cdir_file ();
  assert_int_equal (ftruncate (fd, 0), 0);
  assert_int_equal (ftruncate (fd, 1 << 20), 0);
  refused (EEXIST, "is not a segment cache's");
  unlink (path);
  assert_int_equal (mkfifo (path, 0600), 0);
  refused (EEXIST, "is not a segment cache's");
  unlink (path);
  assert_int_equal (symlink ("/nonexistent", path), 0);
  refused (ELOOP, "open: ");
  unlink (path);
  assert_int_equal (mkdir (path, 0700), 0);
  refused (EISDIR, "open: ");
}

static void
directories_that_are_none (void **state)
{
  char path[400];

  (void) state;
  assert_null (esp_cdir_open ("/nonexistent/cache", MAX, cdir_check));
  assert_int_equal (errno, ENOENT);
  assert_non_null (strstr (unit_error, "mkdir: /nonexistent/cache"));
  begins_anew (false);
  snprintf (path, sizeof path, "%s/segcache", cdir_where);
  assert_null (esp_cdir_open (path, MAX, cdir_check));
  assert_int_equal (errno, ENOTDIR);
  if (geteuid () == 0)
    return;                     /* who may write all files */
  assert_int_equal (chmod (path, 0400), 0);
  refused (EACCES, "open: ");
}

static void
made_private (void **state)
{
  char path[400];
  struct stat st;

  (void) state;
  snprintf (path, sizeof path, "%s/new", cdir_where);
  CLEANUP_CDIR struct esp_cdir *d = esp_cdir_open (path, MAX, cdir_check);
  assert_non_null (d);
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode & 07777, 0700);
  strcat (path, "/segcache");
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode & 07777, 0600);
}

#define TEST(name) \
  cmocka_unit_test_setup_teardown (name, cdir_setup, cdir_teardown)

int
main (void)
{
  static const struct esp_host host = { .error = count_messages };
  const struct CMUnitTest tests[] = {
    TEST (a_byte_of_the_data),
    TEST (a_byte_of_a_head),
    TEST (any_words),
    TEST (abandoned_puts),
    TEST (cut_while_it_is_open),
    TEST (a_forget_that_cannot_be_done),
    TEST (cut_and_opened_by_another),
    TEST (removed_while_it_is_open),
    TEST (bytes_of_the_header),
    TEST (numbers_that_are_none),
    TEST (other_lengths),
    TEST (half_made),
    TEST (another_version),
    TEST (somebody_elses_file),
    TEST (directories_that_are_none),
    TEST (made_private),
  };

  esp_set_host (&host);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
