/* SPDX-License-Identifier: BSD-3-Clause */
/* The process of the stack: `espalier serve`, which becomes nbdkit.
 *
 * It gets the listening sockets as systemd would give them (sd_listen_fds(3)),
 * so they stay open when it dies.  Between fork and exec only what is safe
 * after a fork with threads is called: all memory is made before.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "stack-internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "words.h"

extern char **environ;

#define FIRST_FD 3              /* SD_LISTEN_FDS_START */

/* --- where the program is ---------------------------------------------------------- */

/* This program's directory, in BUF. */
static const char *
own_dir (char *buf, size_t size)
{
  ssize_t n = readlink ("/proc/self/exe", buf, size - 1);
  char *slash;

  if (n <= 0)
    return NULL;
  buf[n] = 0;
  slash = strrchr (buf, '/');
  *slash = 0;
  return buf;
}

static char *
if_program (char *path)
{
  if (path && access (path, X_OK) == 0)
    return path;
  free (path);
  return NULL;
}

/* $ESPALIER; in the build tree (libtool's program is in daemon/.libs); beside
 * this one; where it was installed; else PATH's.
 */
static char *
find_program (void)
{
  const char *given = getenv ("ESPALIER"), *dir;
  char buf[4096], *path;

  if (given && *given)
    return strdup (given);
  dir = own_dir (buf, sizeof buf);
  if (dir && strlen (dir) > 13 &&
      strcmp (dir + strlen (dir) - 13, "/daemon/.libs") == 0 &&
      (path = if_program (esp_asprintf ("%.*s/tools/espalier/espalier",
                                        (int) strlen (dir) - 13, dir))))
    return path;
  if (dir && (path = if_program (esp_asprintf ("%s/espalier", dir))))
    return path;
  if ((path = if_program (strdup (BINDIR "/espalier"))))
    return path;
  return strdup ("espalier");
}

/* --- command line and environment ---------------------------------------------------- */

static int
command_line (const struct config *config, struct words *line)
{
  CLEANUP_FREE char *program = find_program ();
  CLEANUP_WORDS struct words more = { 0 };

  words_add (line, program);
  words_add (line, "--store");
  words_add (line, config->store);
  if (!log_verbose ())
    words_add (line, "--quiet");
  words_add (line, "serve");
  if (config->require_ticket)
    words_add (line, "--require-ticket");
  if (config->audit) {
    words_add (line, "--audit");
    words_add (line, config->audit);
  }
  if (config->nbd_options && words_split (config->nbd_options, &more) == -1)
    return -1;
  for (size_t i = 0; i < more.n; i++)
    words_add (line, more.word[i]);
  return 0;
}

/* Ours, but what systemd told us; LISTEN_PID is filled in by the child. */
static void
environment (struct words *env, unsigned nfds)
{
  static const char *const not[] =
    { "LISTEN_", "NOTIFY_SOCKET=", "JOURNAL_STREAM=", "WATCHDOG_" };
  char text[32];

  for (char **e = environ; *e; e++) {
    bool ours = false;
    for (size_t i = 0; i < sizeof not / sizeof *not; i++)
      ours = ours || strncmp (*e, not[i], strlen (not[i])) == 0;
    if (!ours)
      words_add (env, *e);
  }
  snprintf (text, sizeof text, "LISTEN_FDS=%u", nfds);
  words_add (env, text);
  words_add (env, "LISTEN_PID=00000000000000000000");
}

/* --- the child ------------------------------------------------------------------------- */

static void
put_pid (char *to)
{
  char digits[24], *p = digits + sizeof digits;
  unsigned long n = (unsigned long) getpid ();

  for (*--p = 0; n > 0; n /= 10)
    *--p = (char) ('0' + n % 10);
  strcpy (to, p);
}

/* FDS to FIRST_FD and up: first out of the way, then to their places. */
static int
place_fds (const int *fds, unsigned nfds)
{
  int high[8];

  for (unsigned i = 0; i < nfds; i++)
    if ((high[i] = fcntl (fds[i], F_DUPFD_CLOEXEC, FIRST_FD + 8)) == -1)
      return -1;
  for (unsigned i = 0; i < nfds; i++)
    if (dup2 (high[i], FIRST_FD + (int) i) == -1)
      return -1;
  return 0;
}

static void __attribute__ ((noreturn))
child (char **argv, char **env, char *own_pid, const int *fds, unsigned nfds,
       int log, pid_t parent)
{
  sigset_t none;
  int null = open ("/dev/null", O_RDWR);

  /* Until orphan.c looks after it.  SIGKILL: what was flushed is safe however
   * the stack ends, and SIGTERM would wait for its clients.
   */
  prctl (PR_SET_PDEATHSIG, SIGKILL);
  if (getppid () != parent)
    _exit (1);                  /* it ended before that */
  signal (SIGPIPE, SIG_DFL);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  setpgid (0, 0);               /* a terminal's ^C is for us alone */
  if (dup2 (null, 0) == -1 || dup2 (null, 1) == -1 || dup2 (log, 2) == -1 ||
      place_fds (fds, nfds) == -1)
    _exit (126);
  put_pid (own_pid);
  execvpe (argv[0], argv, env);
  _exit (errno == ENOENT ? 127 : 126);
}

static int
pipe_of_log (int fds[2])
{
  if (pipe2 (fds, O_CLOEXEC) == -1)
    return -1;
  return fcntl (fds[0], F_SETFL, O_NONBLOCK);
}

int
stack_child_start (const struct config *config, const int *fds, unsigned nfds,
                   struct stack_child *out)
{
  CLEANUP_WORDS struct words line = { 0 }, env = { 0 };
  int log[2];
  pid_t parent = getpid ();

  *out = (struct stack_child) { .pidfd = -1, .log = -1 };
  if (command_line (config, &line) == -1)
    return -1;
  environment (&env, nfds);
  if (pipe_of_log (log) == -1) {
    esp_error ("pipe2: %m");
    return -1;
  }
  out->pid = fork ();
  if (out->pid == 0)
    child (line.word, env.word, env.word[env.n - 1] + strlen ("LISTEN_PID="),
           fds, nfds, log[1], parent);
  close (log[1]);
  if (out->pid == -1) {
    esp_error ("fork: %m");
    close (log[0]);
    out->pid = 0;
    return -1;
  }
  out->log = log[0];
  out->pidfd = (int) syscall (SYS_pidfd_open, out->pid, 0);
  if (out->pidfd == -1)
    esp_error ("pidfd_open: %m");
  if (out->pidfd == -1 || orphan_begin (out->pidfd, &out->orphan) == -1) {
    kill (out->pid, SIGKILL);
    waitpid (out->pid, NULL, 0);
    close (out->log);
    if (out->pidfd != -1)
      close (out->pidfd);
    *out = (struct stack_child) { .pidfd = -1, .log = -1 };
    return -1;
  }
  return 0;
}

bool
stack_child_wait (struct stack_child *c, int ms, char why[64])
{
  struct pollfd p = { .fd = c->pidfd, .events = POLLIN };
  int status;

  if (ms >= 0 && poll (&p, 1, ms) <= 0)
    return false;
  if (waitpid (c->pid, &status, 0) == -1)
    strcpy (why, "gone");
  else if (WIFSIGNALED (status))
    snprintf (why, 64, "ended by signal %d", WTERMSIG (status));
  else if (WEXITSTATUS (status) == 127)
    strcpy (why, "the program espalier was not found");
  else
    snprintf (why, 64, "ended with status %d", WEXITSTATUS (status));
  orphan_end (&c->orphan);
  close (c->pidfd);
  c->pid = 0;
  c->pidfd = -1;
  return true;
}
