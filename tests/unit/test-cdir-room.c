/* SPDX-License-Identifier: BSD-3-Clause */
/* The room of a directory: its bound, whom it puts out, a full disk. */

#include "cdir-test.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

static void
never_larger_than_its_bound (void **state)
{
  static const uint64_t maxes[] = { MAX, MAX + 12345, 100 * MIB, 1000 * MIB,
                                    UINT64_C (10) << 30 };

  (void) state;
  for (unsigned i = 0; i < sizeof maxes / sizeof maxes[0]; ++i) {
    CLEANUP_CDIR struct esp_cdir *d = cdir_open_max (maxes[i]);
    CLEANUP_CLOSE int fd = cdir_file ();
    struct esp_cdir_counters c;
    struct stat st;

    assert_int_equal (fstat (fd, &st), 0);
    assert_true ((uint64_t) st.st_size <= maxes[i]);
    assert_true ((uint64_t) st.st_size >= maxes[i] / 10 * 7);
    assert_true ((uint64_t) st.st_blocks * 512 < maxes[i] / 100);
    esp_cdir_counters (d, &c);
    assert_int_equal (c.max, maxes[i]);
    assert_int_equal (c.used, 0);
  }
}

static void
bounds_that_are_none (void **state)
{
  (void) state;
  assert_null (esp_cdir_open (cdir_where, MAX - 1, cdir_check));
  assert_int_equal (errno, EINVAL);
  assert_non_null (strstr (unit_error, "16M is the least"));
  assert_null (esp_cdir_open (cdir_where, UINT64_MAX, cdir_check));
  assert_int_equal (errno, EINVAL);
}

/* A value that needs all slots of a segment, but few bytes of the last. */
static size_t
length (unsigned shift)
{
  return (1u << shift) - ESP_CDIR_SLOT + 4096;
}

/* How many of [FROM, TO) are there? */
static unsigned
there (struct esp_cdir *d, uint32_t from, uint32_t to, unsigned shift)
{
  unsigned n = 0;

  for (uint32_t i = from; i < to; ++i) {
    struct esp_cache_key key = cdir_key (ESP_CACHE_RP, i, shift);

    n += cdir_has (d, &key, 0, length (shift));
  }
  return n;
}

static void
fill (struct esp_cdir *d, uint32_t from, uint32_t to, unsigned shift)
{
  for (uint32_t i = from; i < to; ++i) {
    struct esp_cache_key key = cdir_key (ESP_CACHE_RP, i, shift);

    assert_true (cdir_put (d, &key, 0, length (shift)));
  }
}

/* The hot set has half of the room, and was used once before the scan. */
static void
scan (uint64_t max, unsigned shift)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open_max (max);
  uint32_t room = (uint32_t) (max >> shift), hot = room / 2;
  struct esp_cdir_counters c;
  unsigned n;

  fill (d, 0, hot, shift);
  n = there (d, 0, hot, shift);
  fill (d, 1000000, 1000000 + 10 * room, shift);
  esp_cdir_counters (d, &c);
  assert_true (c.used > room * length (shift) / 10 * 6);
  assert_in_range (there (d, 0, hot, shift), n * 95 / 100, hot);
}

static void
a_scan_does_not_wash_it_out (void **state)
{
  (void) state;
  scan (64 * MIB, 16);          /* a bound each: it begins empty */
  scan (17 * MIB, 18);
}

/* What is used now takes the place of what was used once. */
static void
the_hot_set_changes (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  unsigned n = 40;

  (void) state;
  fill (d, 0, n, 18);
  for (unsigned i = 0; i < 4; ++i)
    there (d, 0, n, 18);
  for (unsigned i = 0; i < 10; ++i) {
    fill (d, 1000, 1000 + n, 18);
    there (d, 1000, 1000 + n, 18);
  }
  assert_in_range (there (d, 1000, 1000 + n, 18), n * 85 / 100, n);
}

/* A whole segment goes, not a part of each of several. */
static void
room_is_full_of_whole_segments (void **state)
{
  (void) state;
  for (unsigned shift = 16; shift <= 22; shift += 2) {
    CLEANUP_CDIR struct esp_cdir *d = cdir_open_max (MAX + shift);
    unsigned room = 12 * MIB >> shift;
    struct esp_cdir_counters c;

    fill (d, 0, 6 * room, shift);
    esp_cdir_counters (d, &c);
    assert_int_equal (c.used, room * length (shift));
    assert_int_equal (there (d, 0, 6 * room, shift), room);
    assert_int_equal (c.evictions, 5 * room);
  }
}

static void
another_bound (void **state)
{
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, 1, 18);
  struct esp_cdir *d = cdir_open (), *other;
  struct esp_cdir_counters c;
  struct stat st;

  (void) state;
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  /* While it is in use, it stays as it is. */
  other = cdir_open_max (64 * MIB);
  esp_cdir_counters (other, &c);
  assert_int_equal (c.max, MAX);
  assert_true (cdir_has (other, &key, 0, SEGMENT));
  esp_cdir_close (d);
  esp_cdir_close (other);
  d = cdir_open_max (64 * MIB);
  CLEANUP_CLOSE int fd = cdir_file ();
  assert_int_equal (fstat (fd, &st), 0);
  assert_in_range (st.st_size, 60 * MIB, 64 * MIB);
  assert_false (cdir_has (d, &key, 0, SEGMENT));
  assert_true (cdir_put (d, &key, 0, SEGMENT));
  esp_cdir_close (d);
  assert_non_null (strstr (unit_error, "others use it with segcache-max"));
}

static void
counters (void **state)
{
  CLEANUP_CDIR struct esp_cdir *d = cdir_open ();
  struct esp_cache_key key = cdir_key (ESP_CACHE_RP, 1, 18);
  struct esp_cdir_counters c;

  (void) state;
  cdir_put (d, &key, 0, SEGMENT);               /* which looks first */
  cdir_has (d, &key, 0, SEGMENT);
  cdir_has (d, &key, 0, SEGMENT);
  cdir_put (d, &key, 0, SEGMENT);               /* a hit; is there */
  esp_cdir_counters (d, &c);
  assert_int_equal (c.hits, 3);
  assert_int_equal (c.misses, 1);
  assert_int_equal (c.bytes_read, 3 * SEGMENT);
  assert_int_equal (c.bytes_written, SEGMENT);
  assert_int_equal (c.used, SEGMENT);
  assert_int_equal (c.evictions + c.errors + c.lies, 0);
  esp_cdir_forget (d, &key);
  esp_cdir_counters (d, &c);
  assert_int_equal (c.used, 0);
}

/* --- a full disk ------------------------------------------------------------ */

static bool
write_text (const char *path, const char *text)
{
  CLEANUP_CLOSE int fd = open (path, O_WRONLY | O_CLOEXEC);

  return fd != -1 && write (fd, text, strlen (text)) == (ssize_t) strlen (text);
}

static bool
become_root (void)
{
  char uid[40], gid[40];

  snprintf (uid, sizeof uid, "0 %u 1\n", (unsigned) getuid ());
  snprintf (gid, sizeof gid, "0 %u 1\n", (unsigned) getgid ());
  return unshare (CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
    write_text ("/proc/self/uid_map", uid) &&
    write_text ("/proc/self/setgroups", "deny") &&
    write_text ("/proc/self/gid_map", gid);
}

/* In a process of its own, which mounts a small disk for itself. */
static int
on_a_small_disk (void)
{
  struct esp_cdir_counters c;
  struct esp_cdir *d;
  unsigned kept = 0;

  if ((unshare (CLONE_NEWNS) == -1 && !become_root ()) ||
      mount ("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
      mount ("none", cdir_where, "tmpfs", 0, "size=2M") == -1)
    return 77;
  d = esp_cdir_open (cdir_where, MAX, cdir_check);
  if (!d)
    return 1;
  for (uint32_t i = 0; i < 40; ++i) {
    struct esp_cache_key key = cdir_key (ESP_CACHE_RP, i, 18);

    kept += cdir_put (d, &key, 0, length (18));
  }
  esp_cdir_counters (d, &c);
  if (kept < 4 || c.errors == 0 || there (d, 0, 40, 18) != kept ||
      !strstr (unit_error, "No space left"))
    return 2;
  esp_cdir_close (d);
  /* Not even its index has room: said, and nothing is left. */
  return esp_cdir_open (cdir_where, UINT64_C (10) << 30, cdir_check) ||
    errno != ENOSPC ? 3 : 0;
}

static void
a_full_disk_is_a_miss (void **state)
{
  int status;
  pid_t pid;

  (void) state;
  fflush (NULL);
  pid = fork ();
  if (pid == 0)
    _exit (on_a_small_disk ());
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  if (WEXITSTATUS (status) == 77) {
    print_message ("# skipped: this machine allows no mount namespace\n");
    return;
  }
  assert_int_equal (WEXITSTATUS (status), 0);
}

#define TEST(name) \
  cmocka_unit_test_setup_teardown (name, cdir_setup, cdir_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (never_larger_than_its_bound),
    TEST (bounds_that_are_none),
    TEST (a_scan_does_not_wash_it_out),
    TEST (the_hot_set_changes),
    TEST (room_is_full_of_whole_segments),
    TEST (another_bound),
    TEST (counters),
    TEST (a_full_disk_is_a_miss),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
