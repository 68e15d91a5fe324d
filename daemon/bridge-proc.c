/* SPDX-License-Identifier: BSD-3-Clause */
/* Processes of the bridge: start, watch, end; and what an earlier daemon left.
 *
 * They end with the thread that started them (PR_SET_PDEATHSIG), so that thread
 * has to live as long as the daemon.  Where that was not enough:
 *
 * Each is known to the next daemon by a file NAME.pid: its number, when it
 * was started (clock ticks since boot, from /proc) and the id of the boot. Only a
 * process that fits all three is killed, and by a pidfd that was opened
 * before that was looked at: never a stranger that got the same number.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "bridge-internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

extern char **environ;

#define LOG_MAX (1 << 20)

/* When PID was started, 0: there is none. */
static uint64_t
proc_born (pid_t pid)
{
  char path[32], *buf CLEANUP_FREE = NULL, *p;
  uint64_t born = 0;
  size_t len;

  snprintf (path, sizeof path, "/proc/%d/stat", (int) pid);
  if (esp_read_file (AT_FDCWD, path, 4096, &buf, &len) == -1)
    return 0;
  /* The name may contain anything; field 22 is the 20th behind it. */
  p = strrchr (buf, ')');
  for (unsigned i = 0; p && i < 20; i++)
    p = strchr (p + 1, ' ');
  if (p)
    born = strtoull (p + 1, NULL, 10);
  return born;
}

static void
boot_hex (char buf[33])
{
  const uint8_t *id = esp_boot_id ();

  for (unsigned i = 0; i < 16; i++)
    sprintf (buf + 2 * i, "%02x", id[i]);
}

static const char *
file_name (const char *name, const char *suffix, char buf[64])
{
  snprintf (buf, 64, "%s.%s", name, suffix);
  return buf;
}

static int
pid_write (const struct bridge_proc *p, int dirfd)
{
  char file[64], boot[33], text[128];
  int n;

  boot_hex (boot);
  n = snprintf (text, sizeof text, "%d %" PRIu64 " %s\n", (int) p->pid,
                proc_born (p->pid), boot);
  return esp_write_file_atomic (dirfd, file_name (p->name, "pid", file), text,
                                (size_t) n, 0600);
}

/* --- start ---------------------------------------------------------------- */

/* The environment with ENV in front (which wins); malloced. */
static char **
env_with (const char *env)
{
  size_t n = 0, j = 0, len = env ? strcspn (env, "=") + 1 : 0;
  char **out;

  while (environ[n])
    n++;
  out = malloc ((n + 2) * sizeof *out);
  if (!out)
    return NULL;
  if (env)
    out[j++] = (char *) env;
  for (size_t i = 0; i < n; i++)
    if (!env || strncmp (environ[i], env, len) != 0)
      out[j++] = environ[i];
  out[j] = NULL;
  return out;
}

/* The child, until it is another program: only calls that are safe behind a
 * fork of a process with threads.
 */
static void __attribute__ ((noreturn))
child (const struct bridge_proc *p, int dirfd, const char *const argv[],
       char **env, int log, int keep, pid_t parent)
{
  sigset_t none;
  int null = open ("/dev/null", O_RDWR);

  if (p->last_will)
    prctl (PR_SET_PDEATHSIG, p->last_will);
  if (p->last_will && getppid () != parent)
    _exit (1);                  /* it ended before that */
  signal (SIGPIPE, SIG_DFL);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  setsid ();                    /* a terminal's ^C is for the daemon alone */
  if (log == -1)
    log = null;
  if (dup2 (null, 0) == -1 || dup2 (log, 1) == -1 || dup2 (log, 2) == -1
      || (dirfd >= 0 && fchdir (dirfd) == -1)
      || (keep >= 0 && dup2 (keep, 3) == -1))
    _exit (126);
  if (keep == 3)
    fcntl (3, F_SETFD, 0);
  execvpe (argv[0], (char *const *) argv, env);
  _exit (errno == ENOENT ? 127 : 126);
}

/* Is there such a program?  -1 with ENOENT. */
static const char *
program_path (const char *name, char path[128])
{
  const char *places = getenv ("PATH");

  if (strchr (name, '/'))
    return access (name, X_OK) == 0 ? name : NULL;
  /* Who is not root may not have the last one. */
  for (const char *end; places && *places; places = *end ? end + 1 : end) {
    end = strchrnul (places, ':');
    if (snprintf (path, 128, "%.*s/%s", (int) (end - places), places, name)
        < 128 && access (path, X_OK) == 0)
      return path;
  }
  snprintf (path, 128, "/usr/sbin/%s", name);
  return access (path, X_OK) == 0 ? path : NULL;
}

/* Start it; an errno. */
static int
spawn (struct bridge_proc *p, int dirfd, const char *const argv[], char **env,
       int log, int keep)
{
  const char *args[16] = { NULL };
  char path[128];
  pid_t parent = getpid ();

  for (size_t i = 0; argv[i] && i < 15; i++)
    args[i] = argv[i];
  args[0] = program_path (argv[0], path);
  if (!args[0])
    return ENOENT;
  p->pid = fork ();
  if (p->pid == 0)
    child (p, dirfd, args, env, log, keep, parent);
  return p->pid == -1 ? errno : 0;
}

int
proc_start (struct bridge_proc *p, int dirfd, const char *const argv[],
            const char *env, int keep)
{
  char **all CLEANUP_FREE = env_with (env), file[64];
  int log CLEANUP_CLOSE = openat (dirfd, file_name (p->name, "log", file),
                                  O_WRONLY | O_CREAT | O_TRUNC | O_APPEND
                                  | O_CLOEXEC, 0600);
  int r;

  if (!all || log == -1) {
    esp_error ("open: %s: %m", file);
    return -1;
  }
  r = spawn (p, dirfd, argv, all, log, keep);
  if (r) {
    p->pid = 0;
    errno = r;
    if (r == ENOENT && p->package)
      esp_error ("%s is not installed: iSCSI needs it (apt install %s)",
                 argv[0], p->package);
    else
      esp_error ("%s: %m", argv[0]);
    return -1;
  }
  p->pidfd = pidfd_open (p->pid, 0);
  if (p->pidfd == -1 || pid_write (p, dirfd) == -1) {
    esp_error ("%s: cannot be watched: %m", argv[0]);
    proc_end (p, dirfd, SIGKILL, 0);
    return -1;
  }
  return 0;
}

/* --- watch, end ----------------------------------------------------------- */

bool
proc_ended (struct bridge_proc *p, int ms)
{
  struct pollfd poll_fd = { .fd = p->pidfd, .events = POLLIN };

  if (!p->pid)
    return true;
  /* Without a pidfd: as often as that. */
  for (; p->pidfd == -1; ms -= 10) {
    siginfo_t info = { .si_pid = 0 };

    if (waitid (P_PID, (id_t) p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == -1
        || info.si_pid)
      return true;
    if (ms <= 0)
      return false;
    usleep (10000);
  }
  return poll (&poll_fd, 1, ms) == 1;
}

void
proc_end (struct bridge_proc *p, int dirfd, int sig, int ms)
{
  char file[64];

  if (!p->pid)
    return;
  if (!proc_ended (p, 0)) {
    kill (p->pid, sig);
    if (!proc_ended (p, ms))
      kill (p->pid, SIGKILL);
    if (!proc_ended (p, 5000))
      esp_error ("%s (process %d) does not end", p->name, (int) p->pid);
  }
  waitpid (p->pid, NULL, WNOHANG);
  if (p->pidfd >= 0)
    close (p->pidfd);
  p->pidfd = -1;
  p->pid = 0;
  unlinkat (dirfd, file_name (p->name, "pid", file), 0);
}

int
proc_clear (const char *name, int dirfd)
{
  char file[64], boot[33], then[33], *buf CLEANUP_FREE = NULL;
  int pidfd CLEANUP_CLOSE = -1, pid;
  struct pollfd p = { .events = POLLIN };
  uint64_t born;
  size_t len;

  file_name (name, "pid", file);
  if (esp_read_file (dirfd, file, 4096, &buf, &len) == -1)
    return 0;
  boot_hex (boot);
  if (sscanf (buf, "%d %" SCNu64 " %32s", &pid, &born, then) != 3 || pid <= 1
      || born == 0 || strcmp (boot, then) != 0)
    return unlinkat (dirfd, file, 0);
  pidfd = p.fd = pidfd_open (pid, 0);
  if (pidfd == -1 || proc_born (pid) != born)
    return unlinkat (dirfd, file, 0);
  esp_debug ("bridge: ending %s (process %d) of an earlier daemon", name, pid);
  if (pidfd_send_signal (pidfd, SIGKILL, NULL, 0) == -1
      || poll (&p, 1, 5000) != 1) {
    esp_error ("%s of an earlier espalierd (process %d) does not end: end it",
               name, pid);
    return -1;
  }
  return unlinkat (dirfd, file, 0);
}

int
proc_run (const char *const argv[], int ms)
{
  struct bridge_proc p = { .name = "run", .pidfd = -1 };
  int status = 0, r = spawn (&p, -1, argv, environ, -1, -1);

  if (r) {
    errno = r;
    return -1;
  }
  if (!proc_ended (&p, ms))
    kill (p.pid, SIGKILL);
  while (waitpid (p.pid, &status, 0) == -1 && errno == EINTR)
    ;
  return WIFEXITED (status) ? WEXITSTATUS (status) : -1;
}

/* --- logs ----------------------------------------------------------------- */

void
proc_log_trim (const char *name, int dirfd)
{
  char file[64];
  struct stat st;
  int fd CLEANUP_CLOSE = openat (dirfd, file_name (name, "log", file),
                                 O_WRONLY | O_CLOEXEC);

  if (fd >= 0 && fstat (fd, &st) == 0 && st.st_size > LOG_MAX)
    (void) !ftruncate (fd, 0);
}

void
proc_log_last (const char *name, int dirfd, char *buf, size_t size)
{
  char file[64], *text CLEANUP_FREE = NULL, *line;
  size_t len;

  buf[0] = '\0';
  if (esp_read_file (dirfd, file_name (name, "log", file), 2 * LOG_MAX, &text,
                     &len) == -1)
    return;
  while (len && strchr (" \n\r", text[len - 1]))
    text[--len] = '\0';
  line = strrchr (text, '\n');
  snprintf (buf, size, "%s", line ? line + 1 : text);
}
