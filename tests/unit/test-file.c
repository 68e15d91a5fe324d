/* SPDX-License-Identifier: BSD-3-Clause */
/* Whole reads and writes, atomic replacement, walks and removals that stay
 * where they were sent.
 */

#include "unit.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/file.h"

static char *dir;
static int dfd;

static int
setup (void **state)
{
  (void) state;
  unit_error[0] = 0;
  dir = unit_mkdir ();
  dfd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return dfd < 0;
}

static int
teardown (void **state)
{
  (void) state;
  close (dfd);
  unit_rmdir (dir);
  return 0;
}

static void
put (const char *name, const char *text)
{
  assert_int_equal (esp_write_file_atomic (dfd, name, text, strlen (text),
                                           0644), 0);
}

static void
assert_holds (const char *name, const char *text)
{
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  assert_int_equal (esp_read_file (dfd, name, 1 << 20, &buf, &len), 0);
  assert_int_equal (len, strlen (text));
  assert_string_equal (buf, text);
}

static int
count_entry (void *arg, int fd, const char *name)
{
  (void) fd;
  (void) name;
  ++*(int *) arg;
  return 0;
}

static void
assert_entries (int n)
{
  int found = 0;

  assert_int_equal (esp_each_entry (dfd, count_entry, &found), 0);
  assert_int_equal (found, n);
}

static void
pread_of_a_short_file_is_eio (void **state)
{
  char buf[8];

  (void) state;
  put ("f", "1234567");
  CLEANUP_CLOSE int fd = openat (dfd, "f", O_RDWR | O_CLOEXEC);
  assert_int_equal (esp_pread_all (fd, buf, 3, 4), 0);
  assert_memory_equal (buf, "567", 3);
  assert_int_equal (esp_pread_all (fd, buf, 4, 4), -1);
  assert_int_equal (errno, EIO);
  assert_int_equal (esp_pwrite_all (fd, "xyz", 3, 6), 0);
  assert_holds ("f", "123456xyz");
}

static void
read_file_refuses_more_than_max (void **state)
{
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  (void) state;
  put ("f", "12345");
  assert_int_equal (esp_read_file (dfd, "f", 4, &buf, &len), -1);
  assert_int_equal (errno, EFBIG);
  assert_int_equal (esp_read_file (dfd, "f", 5, &buf, &len), 0);
  assert_string_equal (buf, "12345");
  assert_int_equal (esp_read_file (dfd, "none", 5, &buf, &len), -1);
  assert_int_equal (errno, ENOENT);
  assert_string_equal (unit_error, "");
}

/* /proc tells no size: what is read is what counts. */
static void
read_file_reads_what_tells_no_size (void **state)
{
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  (void) state;
  assert_int_equal (esp_read_file (AT_FDCWD, "/proc/self/status", 1 << 20,
                                   &buf, &len), 0);
  assert_true (len > 100);
  assert_int_equal (strncmp (buf, "Name:", 5), 0);
  free (ESP_STEAL (buf));
  assert_int_equal (esp_read_file (AT_FDCWD, "/proc/self/status", 100,
                                   &buf, &len), -1);
  assert_int_equal (errno, EFBIG);
}

static void
read_file_does_not_wait_for_a_fifo (void **state)
{
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  (void) state;
  assert_int_equal (mkfifoat (dfd, "fifo", 0600), 0);
  assert_int_equal (esp_read_file (dfd, "fifo", 9, &buf, &len), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (esp_read_file (dfd, ".", 9, &buf, &len), -1);
  assert_int_equal (errno, EISDIR);
}

static void
atomic_write_replaces_and_keeps_the_mode (void **state)
{
  struct stat st;

  (void) state;
  put ("f", "old");
  assert_int_equal (fchmodat (dfd, "f", 0600, 0), 0);
  put ("f", "new");
  assert_holds ("f", "new");
  assert_int_equal (fstatat (dfd, "f", &st, 0), 0);
  assert_int_equal (st.st_mode & 07777, 0600);
  assert_entries (1);
}

/* A symbolic link in the place of the file is replaced, not followed. */
static void
atomic_write_does_not_follow_a_link (void **state)
{
  (void) state;
  put ("victim", "whole");
  assert_int_equal (symlinkat ("victim", dfd, "f"), 0);
  put ("f", "new");
  assert_holds ("victim", "whole");
  assert_holds ("f", "new");
}

static void
atomic_write_takes_a_path (void **state)
{
  (void) state;
  assert_int_equal (mkdirat (dfd, "sub", 0755), 0);
  put ("sub/f", "x");
  assert_holds ("sub/f", "x");
  assert_entries (1);
}

static void
failed_write_leaves_the_old_file_and_nothing_else (void **state)
{
  struct rlimit before, small;
  char big[8192];

  (void) state;
  put ("f", "old");
  memset (big, 'x', sizeof big);
  assert_int_equal (getrlimit (RLIMIT_FSIZE, &before), 0);
  small = before;
  small.rlim_cur = 4096;
  signal (SIGXFSZ, SIG_IGN);
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &small), 0);
  int r = esp_write_file_atomic (dfd, "f", big, sizeof big, 0644);
  int err = errno;
  setrlimit (RLIMIT_FSIZE, &before);
  assert_int_equal (r, -1);
  assert_int_equal (err, EFBIG);
  assert_string_equal (unit_error, "write: f: File too large");
  assert_holds ("f", "old");
  assert_entries (1);
}

static void
write_over_a_directory_fails_and_leaves_nothing (void **state)
{
  (void) state;
  assert_int_equal (mkdirat (dfd, "d", 0755), 0);
  assert_int_equal (esp_write_file_atomic (dfd, "d", "x", 1, 0644), -1);
  assert_string_equal (unit_error, "write: d: Is a directory");
  assert_entries (1);
}

static void
open_dir_does_not_follow_a_link (void **state)
{
  (void) state;
  CLEANUP_CLOSE int made = esp_make_dir (dfd, "d", 0755);
  assert_true (made >= 0);
  CLEANUP_CLOSE int again = esp_make_dir (dfd, "d", 0755);
  assert_true (again >= 0);
  assert_int_equal (symlinkat ("d", dfd, "link"), 0);
  assert_int_equal (esp_open_dir (dfd, "link"), -1);
  assert_int_equal (esp_make_dir (dfd, "link", 0755), -1);
  CLEANUP_CLOSE int same = esp_open_dir (dfd, NULL);
  assert_true (same >= 0);
  assert_true (fcntl (same, F_GETFD) & FD_CLOEXEC);
  assert_int_equal (esp_sync_dir (same), 0);
}

static void
remove_tree_takes_all_below_and_no_link_target (void **state)
{
  (void) state;
  put ("keep", "whole");
  assert_int_equal (mkdirat (dfd, "kept", 0755), 0);
  put ("kept/f", "whole");
  assert_int_equal (mkdirat (dfd, "t", 0755), 0);
  assert_int_equal (mkdirat (dfd, "t/a", 0755), 0);
  assert_int_equal (mkdirat (dfd, "t/a/b", 0755), 0);
  put ("t/a/b/f", "x");
  put ("t/.hidden", "x");
  assert_int_equal (symlinkat ("../kept", dfd, "t/dirlink"), 0);
  assert_int_equal (symlinkat ("../keep", dfd, "t/filelink"), 0);
  assert_int_equal (esp_remove_tree (dfd, "t"), 0);
  assert_int_equal (faccessat (dfd, "t", F_OK, 0), -1);
  assert_holds ("keep", "whole");
  assert_holds ("kept/f", "whole");
}

static void
remove_tree_of_a_link_removes_the_link (void **state)
{
  (void) state;
  assert_int_equal (mkdirat (dfd, "kept", 0755), 0);
  put ("kept/f", "whole");
  assert_int_equal (symlinkat ("kept", dfd, "link"), 0);
  assert_int_equal (esp_remove_tree (dfd, "link"), 0);
  assert_holds ("kept/f", "whole");
  assert_entries (1);
}

static void
remove_tree_of_nothing_is_no_error (void **state)
{
  (void) state;
  assert_int_equal (esp_remove_tree (dfd, "none"), 0);
  assert_string_equal (unit_error, "");
}

struct walk {
  char seen[64];
  const char *stop;
};

static int
note_entry (void *arg, int fd, const char *name)
{
  struct walk *w = arg;

  (void) fd;
  strcat (strcat (w->seen, name), " ");
  return w->stop && strcmp (w->stop, name) == 0 ? 7 : 0;
}

static void
entries_come_in_order_until_one_stops (void **state)
{
  struct walk all = { .seen = "" }, some = { .seen = "", .stop = "b" };

  (void) state;
  put ("c", "");
  put ("a", "");
  put ("b", "");
  assert_int_equal (esp_each_entry (dfd, note_entry, &all), 0);
  assert_string_equal (all.seen, "a b c ");
  assert_int_equal (esp_each_entry (dfd, note_entry, &some), 7);
  assert_string_equal (some.seen, "a b ");
}

static void
entries_of_no_directory_are_an_error (void **state)
{
  int n = 0;

  (void) state;
  put ("f", "");
  CLEANUP_CLOSE int fd = openat (dfd, "f", O_RDONLY | O_CLOEXEC);
  assert_int_equal (esp_each_entry (fd, count_entry, &n), -1);
  assert_string_equal (unit_error, "readdir: Not a directory");
}

static void
punch_zeroes_and_gives_space_back (void **state)
{
  static char buf[1 << 20], want[1 << 20];
  uint64_t before;

  (void) state;
  memset (buf, 'x', sizeof buf);
  memcpy (want, buf, sizeof want);
  memset (want + 4096, 0, 512 * 1024);
  CLEANUP_CLOSE int fd = openat (dfd, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  assert_int_equal (esp_pwrite_all (fd, buf, sizeof buf, 0), 0);
  assert_int_equal (fsync (fd), 0);
  before = esp_disk_usage (dfd, "f");
  assert_true (before >= sizeof buf);
  assert_int_equal (esp_punch (fd, 4096, 512 * 1024), 0);
  assert_int_equal (esp_pread_all (fd, buf, sizeof buf, 0), 0);
  assert_memory_equal (buf, want, sizeof buf);
  assert_true (esp_disk_usage (dfd, "f") <= before - 256 * 1024);
  assert_int_equal (esp_disk_usage (dfd, "none"), 0);
}

static void
punch_never_makes_a_file_longer (void **state)
{
  (void) state;
  put ("f", "12345678");
  CLEANUP_CLOSE int fd = openat (dfd, "f", O_RDWR | O_CLOEXEC);
  assert_int_equal (esp_punch (fd, 4, 1 << 20), 0);
  assert_int_equal (esp_punch (fd, 1 << 20, 4096), 0);
  assert_int_equal (esp_punch (fd, 0, 0), 0);
  assert_int_equal (lseek (fd, 0, SEEK_END), 8);
}

#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    T (pread_of_a_short_file_is_eio),
    T (read_file_refuses_more_than_max),
    T (read_file_reads_what_tells_no_size),
    T (read_file_does_not_wait_for_a_fifo),
    T (atomic_write_replaces_and_keeps_the_mode),
    T (atomic_write_does_not_follow_a_link),
    T (atomic_write_takes_a_path),
    T (failed_write_leaves_the_old_file_and_nothing_else),
    T (write_over_a_directory_fails_and_leaves_nothing),
    T (open_dir_does_not_follow_a_link),
    T (remove_tree_takes_all_below_and_no_link_target),
    T (remove_tree_of_a_link_removes_the_link),
    T (remove_tree_of_nothing_is_no_error),
    T (entries_come_in_order_until_one_stops),
    T (entries_of_no_directory_are_an_error),
    T (punch_zeroes_and_gives_space_back),
    T (punch_never_makes_a_file_longer),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
