/* SPDX-License-Identifier: BSD-3-Clause */
/* A mapped file that fails gives EIO to one read; any other SIGBUS does
 * what it did before us.
 */

#include "unit.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "util/cleanup.h"
#include "util/guard.h"

#define LEN (64 * 1024)
#define TIB ((size_t) 1 << 40)

/* A file of LEN bytes 'x', mapped; *FD to cut it with. */
static const char *
map_file (int *fd)
{
  char buf[LEN];

  *fd = memfd_create ("guard", MFD_CLOEXEC);
  memset (buf, 'x', sizeof buf);
  assert_int_equal (write (*fd, buf, LEN), LEN);
  const char *p = mmap (NULL, LEN, PROT_READ, MAP_SHARED, *fd, 0);
  assert_true (p != MAP_FAILED);
  return p;
}

/* Run FN in a child; its wait status.  FN returns when it survives.  cmocka
 * and the sanitizers have handlers for SIGBUS: the child begins without.
 */
static int
in_child (void (*fn) (void))
{
  const struct rlimit none = { 0, 0 };
  int status;
  pid_t pid = fork ();

  assert_true (pid >= 0);
  if (pid == 0) {
    setrlimit (RLIMIT_CORE, &none);
    signal (SIGBUS, SIG_DFL);
    fn ();
    _exit (0);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  return status;
}

static void
assert_killed (int status)
{
  assert_true (WIFSIGNALED (status));
  assert_int_equal (WTERMSIG (status), SIGBUS);
}

static void
fault_outside (void)
{
  int fd;
  const char *p = map_file (&fd);

  if (esp_guard_init () < 0 || ftruncate (fd, 0) < 0)
    _exit (0);
  *(volatile const char *) p;
}

static void
fault_behind_a_guard (void)
{
  int fd;
  const char *p = map_file (&fd);
  char buf[LEN];

  if (esp_guard_init () < 0 || ftruncate (fd, 0) < 0
      || esp_guard_copy (buf, p, LEN) == 0)
    _exit (0);
  *(volatile const char *) p;
}

static void
signal_sent (void)
{
  if (esp_guard_init () < 0)
    _exit (0);
  raise (SIGBUS);
}

static void
exit_42 (int sig)
{
  (void) sig;
  _exit (42);
}

static void
exit_43 (int sig, siginfo_t *info, void *context)
{
  (void) sig;
  (void) context;
  _exit (info->si_addr ? 43 : 1);
}

static void
fault_with_handler (void)
{
  signal (SIGBUS, exit_42);
  fault_outside ();
}

static void
fault_with_siginfo_handler (void)
{
  struct sigaction sa = { .sa_sigaction = exit_43, .sa_flags = SA_SIGINFO };

  sigaction (SIGBUS, &sa, NULL);
  fault_outside ();
}

/* Two that hand on to each other must not do so for ever. */
static struct sigaction before_loop;

static void
loop_back (int sig, siginfo_t *info, void *context)
{
  before_loop.sa_sigaction (sig, info, context);
}

static void
fault_in_a_loop_of_handlers (void)
{
  struct sigaction sa = { .sa_sigaction = loop_back, .sa_flags = SA_SIGINFO };

  if (esp_guard_init () == 0 && sigaction (SIGBUS, &sa, &before_loop) == 0)
    fault_outside ();
}

static void
signal_sent_while_ignored (void)
{
  signal (SIGBUS, SIG_IGN);
  signal_sent ();
  _exit (44);
}

static void
fault_outside_a_guard_kills (void **state)
{
  (void) state;
  assert_killed (in_child (fault_outside));
  assert_killed (in_child (fault_behind_a_guard));
  assert_killed (in_child (signal_sent));
  assert_killed (in_child (fault_in_a_loop_of_handlers));
}

static void
fault_outside_a_guard_reaches_the_handler_before_us (void **state)
{
  (void) state;
  assert_int_equal (WEXITSTATUS (in_child (fault_with_handler)), 42);
  assert_int_equal (WEXITSTATUS (in_child (fault_with_siginfo_handler)), 43);
  assert_int_equal (WEXITSTATUS (in_child (signal_sent_while_ignored)), 44);
}

/* cmocka replaces the handler before each test: so each test also shows
 * that esp_guard_init takes its place again.
 */
static void
init_guard (void)
{
  assert_int_equal (esp_guard_init (), 0);
  assert_int_equal (esp_guard_init (), 0);
}

static void
copy_of_a_cut_file_is_eio_each_time (void **state)
{
  char buf[LEN];
  int fd;

  (void) state;
  init_guard ();
  const char *p = map_file (&fd);
  assert_int_equal (esp_guard_copy (buf, p, LEN), 0);
  assert_memory_equal (buf, p, LEN);
  assert_int_equal (ftruncate (fd, 4096), 0);
  for (int i = 0; i < 3; ++i) {
    errno = 0;
    assert_int_equal (esp_guard_copy (buf, p, LEN), -1);
    assert_int_equal (errno, EIO);
    memset (buf, 0, sizeof buf);
    assert_int_equal (esp_guard_copy (buf, p, 4096), 0);
    assert_int_equal (buf[4095], 'x');
  }
  munmap ((void *) p, LEN);
  close (fd);
}

static int
sum_bytes (void *arg)
{
  const volatile char *p = arg;
  int sum = 0;

  for (int i = 0; i < LEN; i += 4096)
    sum += p[i] == 'x';
  return sum;
}

static void
call_returns_what_it_returned_or_eio (void **state)
{
  int fd;

  (void) state;
  init_guard ();
  const char *p = map_file (&fd);
  assert_int_equal (esp_guard_call (sum_bytes, (void *) p), LEN / 4096);
  assert_int_equal (ftruncate (fd, LEN / 2), 0);
  assert_int_equal (esp_guard_call (sum_bytes, (void *) p), -1);
  assert_int_equal (errno, EIO);
  munmap ((void *) p, LEN);
  close (fd);
}

struct thread {
  pthread_t id;
  const char *good, *bad;
  int wrong;
};

static void *
copy_both (void *arg)
{
  struct thread *t = arg;
  char buf[LEN];

  for (int i = 0; i < 200; ++i) {
    t->wrong += esp_guard_copy (buf, t->good, LEN) != 0 || buf[LEN - 1] != 'x';
    t->wrong += esp_guard_copy (buf, t->bad, LEN) != -1 || errno != EIO;
  }
  return NULL;
}

static void
threads_fault_at_once_and_each_alone (void **state)
{
  struct thread t[4] = { 0 };
  int good_fd, bad_fd;

  (void) state;
  init_guard ();
  const char *good = map_file (&good_fd), *bad = map_file (&bad_fd);
  assert_int_equal (ftruncate (bad_fd, LEN - 4096), 0);
  for (int i = 0; i < 4; ++i) {
    t[i].good = good;
    t[i].bad = bad;
    assert_int_equal (pthread_create (&t[i].id, NULL, copy_both, &t[i]), 0);
  }
  for (int i = 0; i < 4; ++i) {
    pthread_join (t[i].id, NULL);
    assert_int_equal (t[i].wrong, 0);
  }
  munmap ((void *) good, LEN);
  munmap ((void *) bad, LEN);
  close (good_fd);
  close (bad_fd);
}

static void *
reserve_and_release (void *arg)
{
  struct thread *t = arg;

  for (int i = 0; i < 10000; ++i)
    if (esp_guard_reserve (16 * TIB) == 0)
      esp_guard_release (16 * TIB);
    else
      t->wrong++;
  return NULL;
}

static void
address_space_is_counted (void **state)
{
  struct thread t[4] = { 0 };

  (void) state;
  for (int i = 0; i < 4; ++i)
    pthread_create (&t[i].id, NULL, reserve_and_release, &t[i]);
  for (int i = 0; i < 4; ++i) {
    pthread_join (t[i].id, NULL);
    assert_int_equal (t[i].wrong, 0);
  }
  assert_int_equal (esp_guard_reserve (64 * TIB + 1), -1);
  assert_int_equal (errno, ENOMEM);
  assert_int_equal (esp_guard_reserve (SIZE_MAX), -1);
  assert_int_equal (esp_guard_reserve (64 * TIB), 0);
  assert_int_equal (esp_guard_reserve (1), -1);
  esp_guard_release (64 * TIB);
  assert_int_equal (esp_guard_reserve (1), 0);
  esp_guard_release (1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (fault_outside_a_guard_kills),
    cmocka_unit_test (fault_outside_a_guard_reaches_the_handler_before_us),
    cmocka_unit_test (copy_of_a_cut_file_is_eio_each_time),
    cmocka_unit_test (call_returns_what_it_returned_or_eio),
    cmocka_unit_test (threads_fault_at_once_and_each_alone),
    cmocka_unit_test (address_space_is_counted),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
