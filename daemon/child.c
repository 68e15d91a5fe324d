/* SPDX-License-Identifier: BSD-3-Clause */
/* Other people's programs, run by the daemon.
 *
 * Between fork and exec only what is async-signal-safe is called: other threads
 * may hold any lock at that moment.  A pipe that closes with exec tells whether
 * that worked.
 *
 * A program that reads what users wrote (an image's file systems) is confined:
 * besides its limits, it can gain no rights, has no network (started by root), and
 * by Landlock, where the kernel has that, can change nothing outside of one
 * directory.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/landlock.h>

#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

#include "child.h"

static const char *const environment[] =
  { "PATH=" CHILD_PATH, "LC_ALL=C", NULL };

/* --- between fork and exec ------------------------------------------------ */

static int
limit (int what, uint64_t n)
{
  struct rlimit r = { n, n };
  return n == 0 ? 0 : setrlimit (what, &r);
}

static int
limits (const struct child_how *how)
{
  struct rlimit none = { 0, 0 };

  if (limit (RLIMIT_CPU, how->cpu) == -1 ||
      limit (RLIMIT_AS, how->memory) == -1 ||
      limit (RLIMIT_FSIZE, how->file_size) == -1)
    return -1;
  return setrlimit (RLIMIT_CORE, &none);
}

/* FD as number TO, also in the new program. */
static int
place (int fd, int to)
{
  if (fd == to)
    return fcntl (fd, F_SETFD, 0);
  return dup2 (fd, to) == -1 ? -1 : 0;
}

/* Our files as 1, 2 and 3; all others close with exec.  Those that are to be
 * placed were moved above 3 before.
 */
static int
files (const struct child_how *how, int null)
{
  if (place (null, 0) == -1 ||
      place (how->out >= 0 ? how->out : null, 1) == -1 ||
      place (how->err >= 0 ? how->err : null, 2) == -1 ||
      (how->keep >= 0 && place (how->keep, 3) == -1))
    return -1;
  return (int) syscall (SYS_close_range, how->keep >= 0 ? 4u : 3u, ~0u,
                        1u << 2 /* CLOSE_RANGE_CLOEXEC */);
}

/* A kernel without Landlock goes without. */
static int
landlock (int dir)
{
  enum {
    MAKE = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG,
    CHANGE = MAKE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
      LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
      LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SOCK |
      LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
      LANDLOCK_ACCESS_FS_MAKE_SYM,
  };
  struct landlock_ruleset_attr rules = { .handled_access_fs = CHANGE };
  struct landlock_path_beneath_attr below =
    { .allowed_access = MAKE, .parent_fd = dir };
  int fd = (int) syscall (SYS_landlock_create_ruleset, &rules, sizeof rules, 0);

  if (fd == -1)
    return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -1;
  if (syscall (SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &below,
               0) == -1)
    return -1;
  return (int) syscall (SYS_landlock_restrict_self, fd, 0);
}

static int
confine (int dir)
{
  if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
    return -1;
  /* Only for root: others have no right to, and less to lose. */
  if (geteuid () == 0 && unshare (CLONE_NEWNET) == -1 && errno != EPERM &&
      errno != EINVAL && errno != ENOSPC)
    return -1;
  return landlock (dir);
}

static int
prepare (const struct child_how *how, int null, int dir, pid_t parent)
{
  sigset_t none;

  setsid ();
  sigemptyset (&none);
  if (sigprocmask (SIG_SETMASK, &none, NULL) == -1 ||
      signal (SIGPIPE, SIG_IGN) == SIG_ERR)
    return -1;
  if (how->with_thread &&
      (prctl (PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == -1 ||
       getppid () != parent)) {
    errno = ECANCELED;
    return -1;
  }
  if (dir >= 0 && confine (dir) == -1)
    return -1;
  return files (how, null) == -1 || limits (how) == -1 ? -1 : 0;
}

static void __attribute__ ((noreturn))
run (const struct child_how *how, const char *program, int null, int dir,
     pid_t parent, int tell)
{
  int err;

  if (prepare (how, null, dir, parent) == 0)
    execve (program, (char *const *) how->argv, (char *const *) environment);
  err = errno;
  if (write (tell, &err, sizeof err) != sizeof err)
    _exit (126);
  _exit (127);
}

/* --- starting --------------------------------------------------------------- */

/* Where NAME is in CHILD_PATH; malloced. */
static char *
find_program (const char *name)
{
  CLEANUP_FREE char *path = strdup (CHILD_PATH);
  char *save = NULL;

  if (path)
    for (char *dir = strtok_r (path, ":", &save); dir;
         dir = strtok_r (NULL, ":", &save)) {
      char *file = esp_asprintf ("%s/%s", dir, name);

      if (file && access (file, X_OK) == 0)
        return file;
      free (file);
    }
  errno = ENOENT;
  esp_error ("%s is not installed on this server", name);
  return NULL;
}

/* What FD is, above the numbers that the child gives to its files. */
static int
above (int fd)
{
  return fd < 0 ? -1 : fcntl (fd, F_DUPFD_CLOEXEC, 10);
}

/* The errno of an exec that failed, or 0. */
static int
heard (int fd)
{
  int err = 0;
  ssize_t n;

  do
    n = read (fd, &err, sizeof err);
  while (n == -1 && errno == EINTR);
  return n == sizeof err ? err : 0;
}

static pid_t
start (const struct child_how *how, const char *program, int null, int dir)
{
  CLEANUP_CLOSE int tell = -1, hear = -1;
  int fd[2], err, status;
  pid_t pid, parent = getpid ();

  if (pipe2 (fd, O_CLOEXEC) == -1) {
    esp_error ("pipe2: %m");
    return -1;
  }
  hear = fd[0];
  tell = above (fd[1]);
  close (fd[1]);
  pid = tell == -1 ? -1 : fork ();
  if (pid == 0)
    run (how, program, null, dir, parent, tell);
  if (pid == -1) {
    esp_error ("fork: %m");
    return -1;
  }
  close (esp_steal_fd (&tell));
  err = heard (hear);
  if (err == 0)
    return pid;
  while (waitpid (pid, &status, 0) == -1 && errno == EINTR)
    ;
  errno = err;
  esp_error ("%s: cannot be started: %m", program);
  return -1;
}

pid_t
child_start (const struct child_how *given)
{
  CLEANUP_FREE char *program = find_program (given->argv[0]);
  CLEANUP_CLOSE int null = -1, dir = -1, out = -1, err = -1, keep = -1;
  struct child_how how = *given;

  if (!program)
    return -1;
  how.out = out = above (given->out);
  how.err = err = above (given->err);
  how.keep = keep = above (given->keep);
  null = open ("/dev/null", O_RDWR | O_CLOEXEC);
  if (given->writes_to)
    dir = open (given->writes_to, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (null == -1 || (given->writes_to && dir == -1) ||
      (given->out >= 0 && out == -1) || (given->err >= 0 && err == -1) ||
      (given->keep >= 0 && keep == -1)) {
    esp_error ("%s: cannot be started: %m", program);
    return -1;
  }
  return start (&how, program, null, dir);
}

/* --- waiting ---------------------------------------------------------------- */

int
child_wait (pid_t pid, unsigned ms, int *status)
{
  CLEANUP_CLOSE int fd = (int) syscall (SYS_pidfd_open, pid, 0);
  struct pollfd p = { .fd = fd, .events = POLLIN };
  int r;

  if (fd != -1) {
    do
      r = poll (&p, 1, (int) ms);
    while (r == -1 && errno == EINTR);
    if (r == 0) {
      errno = ETIMEDOUT;
      return -1;
    }
  }
  while (waitpid (pid, status, 0) == -1)
    if (errno != EINTR) {
      *status = 0;
      break;
    }
  return 0;
}

void
child_end (pid_t pid, unsigned ms)
{
  int status;

  kill (pid, SIGTERM);
  if (child_wait (pid, ms, &status) == 0)
    return;
  kill (-pid, SIGKILL);
  kill (pid, SIGKILL);
  child_wait (pid, 10000, &status);
}
