/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks end with their descriptor; a holder's text is whole or nobody's. */

#include "unit.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/lock.h"

static char *dir;
static int dfd;

static int
setup (void **state)
{
  (void) state;
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

static int
open_lock (void)
{
  int fd = openat (dfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);

  assert_true (fd >= 0);
  return fd;
}

static void
exclusive_excludes_shared_shares (void **state)
{
  (void) state;
  CLEANUP_CLOSE int a = open_lock ();
  CLEANUP_CLOSE int b = open_lock ();

  assert_int_equal (esp_lock (a, false), 0);
  assert_int_equal (esp_lock (b, false), 0);
  assert_int_equal (esp_lock (b, true), -1);
  assert_int_equal (errno, EWOULDBLOCK);
  close (esp_steal_fd (&a));
  assert_int_equal (esp_lock (b, true), 0);
  a = open_lock ();
  assert_int_equal (esp_lock (a, false), -1);
  assert_int_equal (errno, EWOULDBLOCK);
}

static void
directory_can_be_locked (void **state)
{
  (void) state;
  CLEANUP_CLOSE int other = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  assert_int_equal (esp_lock (dfd, true), 0);
  assert_int_equal (esp_lock (other, true), -1);
  assert_int_equal (errno, EWOULDBLOCK);
}

static void
lock_of_a_killed_process_is_free (void **state)
{
  int pipe_fd[2];
  char c;

  (void) state;
  assert_int_equal (pipe (pipe_fd), 0);
  pid_t pid = fork ();
  if (pid == 0) {
    int fd = openat (dfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (esp_lock (fd, true) == 0 && write (pipe_fd[1], "l", 1) == 1)
      pause ();
    _exit (1);
  }
  assert_int_equal (read (pipe_fd[0], &c, 1), 1);
  CLEANUP_CLOSE int fd = open_lock ();
  assert_int_equal (esp_lock (fd, true), -1);
  kill (pid, SIGKILL);
  assert_int_equal (waitpid (pid, NULL, 0), pid);
  assert_int_equal (esp_lock (fd, true), 0);
  close (pipe_fd[0]);
  close (pipe_fd[1]);
}

static void
assert_nobody (int fd)
{
  static const struct esp_holder nobody;
  struct esp_holder h;

  memset (&h, 'x', sizeof h);
  assert_int_equal (esp_holder_read (fd, &h), 0);
  assert_memory_equal (&h, &nobody, sizeof h);
}

static void
holder_is_read_as_it_was_written (void **state)
{
  struct esp_holder self, h;
  char text[100];

  (void) state;
  CLEANUP_CLOSE int fd = open_lock ();
  assert_nobody (fd);
  esp_holder_self (&self);
  assert_int_equal (self.pid, getpid ());
  assert_int_equal (strlen (self.boot_id), 36);
  assert_in_range (time (NULL) - (time_t) self.since, 0, 10);
  self.quota = UINT64_MAX;
  assert_int_equal (esp_holder_write (fd, &self), 0);
  assert_int_equal (esp_holder_read (fd, &h), 0);
  assert_memory_equal (&h, &self, sizeof h);

  /* A shorter text over a longer one. */
  h = (struct esp_holder) { .pid = 1, .program = "p" };
  assert_int_equal (esp_holder_write (fd, &h), 0);
  assert_int_equal (esp_holder_read (fd, &self), 0);
  assert_int_equal (self.pid, 1);
  assert_string_equal (self.program, "p");
  assert_string_equal (self.boot_id, "");
  assert_int_equal (esp_holder_erase (fd), 0);
  assert_nobody (fd);
  assert_string_equal (esp_holder_describe (&(struct esp_holder) { 0 }, text,
                                            sizeof text), "nobody");
}

/* A program may call itself anything: its name adds no line. */
static void
holder_with_a_hostile_name_stays_one_line (void **state)
{
  struct esp_holder h = { .pid = 7, .program = "x\npid=1\nend\n\x1b[m" }, r;
  char text[100];

  (void) state;
  CLEANUP_CLOSE int fd = open_lock ();
  assert_int_equal (esp_holder_write (fd, &h), 0);
  assert_int_equal (esp_holder_read (fd, &r), 0);
  assert_int_equal (r.pid, 7);
  assert_string_equal (r.program, "x?pid=1?end??[m");
  setenv ("TZ", "UTC", 1);
  tzset ();
  r.since = 1763892000;
  assert_string_equal (esp_holder_describe (&r, text, sizeof text),
                       "x?pid=1?end??[m (process 7, since 2025-11-23 10:00)");
}

static void
put (int fd, const char *text, size_t len)
{
  assert_int_equal (ftruncate (fd, 0), 0);
  assert_int_equal (pwrite (fd, text, len, 0), len);
}

static void
damaged_holder_is_nobody (void **state)
{
  static const char *const bad[] = {
    "pid=0\nend\n", "pid=-1\nend\n", "pid=1x\nend\n", "end\n", "pid=\nend\n",
    "pid=99999999999999999999\nend\n", "pid=1\nsince=x\nend\n",
    "pid=1\nnonsense\nend\n", "pid=1\nprogram=a\x1b[m\nend\n",
    "pid=1\nboot-id=0123456789012345678901234567890123456789\nend\n",
    "pid=1\nprogram=01234567890123456789012345678901\nend\n",
  };
  char text[600], nul[] = "pid=1\0\nend\n";

  (void) state;
  CLEANUP_CLOSE int fd = open_lock ();
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    put (fd, bad[i], strlen (bad[i]));
    assert_nobody (fd);
  }
  put (fd, nul, sizeof nul - 1);
  assert_nobody (fd);
  memset (text, 'x', sizeof text);
  put (fd, text, sizeof text);
  assert_nobody (fd);
}

static void
cut_holder_is_nobody (void **state)
{
  struct esp_holder h;
  char text[600];

  (void) state;
  CLEANUP_CLOSE int fd = open_lock ();
  esp_holder_self (&h);
  assert_int_equal (esp_holder_write (fd, &h), 0);
  ssize_t len = pread (fd, text, sizeof text, 0);
  assert_true (len > 20);
  /* Without its last newline it is still whole. */
  for (ssize_t n = 0; n < len - 1; ++n) {
    put (fd, text, (size_t) n);
    assert_nobody (fd);
  }
}

/* A newer version may add keys. */
static void
unknown_keys_are_skipped (void **state)
{
  static const char text[] = "pid=5\ncolour=red\nend\n";
  struct esp_holder h;

  (void) state;
  CLEANUP_CLOSE int fd = open_lock ();
  put (fd, text, strlen (text));
  assert_int_equal (esp_holder_read (fd, &h), 0);
  assert_int_equal (h.pid, 5);
}

#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    T (exclusive_excludes_shared_shares),
    T (directory_can_be_locked),
    T (lock_of_a_killed_process_is_free),
    T (holder_is_read_as_it_was_written),
    T (holder_with_a_hostile_name_stays_one_line),
    T (damaged_holder_is_nobody),
    T (cut_holder_is_nobody),
    T (unknown_keys_are_skipped),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
