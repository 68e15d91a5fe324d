/* SPDX-License-Identifier: BSD-3-Clause */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orphan.h"
#include "util/cleanup.h"
#include "util/host.h"

/* Only what is safe after a fork with threads.  It keeps nothing open but these
 * two, and dies of no signal that a terminal or a service manager sends to
 * all: those are for the daemon, whose end ends this.
 */
static void __attribute__ ((noreturn))
wait_and_kill (int pipe_fd, int pidfd)
{
  char c;
  int a = fcntl (pipe_fd, F_DUPFD_CLOEXEC, 16);
  int b = fcntl (pidfd, F_DUPFD_CLOEXEC, 16);
  int null = open ("/dev/null", O_RDWR);

  setpgid (0, 0);
  prctl (PR_SET_NAME, "espalierd-guard");
  signal (SIGHUP, SIG_IGN);
  signal (SIGTERM, SIG_IGN);
  signal (SIGINT, SIG_IGN);
  for (int i = 0; i < 3; i++)
    dup2 (null, i);
  dup2 (a, 3);
  dup2 (b, 4);
  syscall (SYS_close_range, 5u, ~0u, 0u);
  while (read (3, &c, 1) == -1 && errno == EINTR)
    ;
  syscall (SYS_pidfd_send_signal, 4, SIGKILL, NULL, 0u);
  _exit (0);
}

int
orphan_begin (int pidfd, struct orphan *out)
{
  int fds[2];

  *out = (struct orphan) { .pipe = -1 };
  if (pipe2 (fds, O_CLOEXEC) == -1) {
    esp_error ("pipe2: %m");
    return -1;
  }
  out->pid = fork ();
  if (out->pid == 0) {
    close (fds[1]);
    wait_and_kill (fds[0], pidfd);
  }
  close (fds[0]);
  if (out->pid == -1) {
    esp_error ("fork: %m");
    close (fds[1]);
    out->pid = 0;
    return -1;
  }
  out->pipe = fds[1];
  return 0;
}

void
orphan_end (struct orphan *o)
{
  if (o->pid == 0)
    return;
  close (o->pipe);
  while (waitpid (o->pid, NULL, 0) == -1 && errno == EINTR)
    ;
  *o = (struct orphan) { .pipe = -1 };
}
