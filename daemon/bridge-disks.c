/* SPDX-License-Identifier: BSD-3-Clause */
/* espalierd-disks as the daemon sees it: the process, its mount, what it is
 * asked (disks-control.c has the messages).
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "bridge-internal.h"
#include "disks.h"
#include "util/cleanup.h"
#include "util/host.h"

struct bridge_proc disks_proc = {
  .name = "disks", .last_will = SIGTERM, .pidfd = -1
};

/* $ESPALIERD_DISKS; beside this program, or where libtool has the program of a
 * build tree; where it is installed.
 */
static int
program_find (char path[PATH_MAX])
{
  static const char *const places[] = { "%s/espalierd-disks",
                                        "%s/../espalierd-disks" };
  char self[PATH_MAX], *slash;
  const char *given = getenv ("ESPALIERD_DISKS");
  ssize_t n = readlink ("/proc/self/exe", self, sizeof self - 1);

  if (given && *given) {
    snprintf (path, PATH_MAX, "%s", given);
    return 0;
  }
  self[n > 0 ? n : 0] = '\0';
  slash = strrchr (self, '/');
  if (slash)
    *slash = '\0';
  for (size_t i = 0; slash && i < 2; i++) {
    if (snprintf (path, PATH_MAX, places[i], self) < PATH_MAX
        && access (path, X_OK) == 0)
      return 0;
  }
  snprintf (path, PATH_MAX, "%s/espalierd-disks", PKGLIBEXECDIR);
  if (access (path, X_OK) == 0)
    return 0;
  esp_error ("%s: %m: is espalierd installed as a whole?", path);
  return -1;
}

/* --- asking --------------------------------------------------------------- */

static int
control_socket (int dirfd, struct sockaddr_un *a)
{
  *a = (struct sockaddr_un) { .sun_family = AF_UNIX };
  snprintf (a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/disks.control",
            dirfd);
  return socket (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

/* Send MESSAGE; the answer in REPLY.  -1 with errno; reports nothing. */
static int
control_ask (int dirfd, const char *message, char *reply, size_t size)
{
  const struct timeval patience = { .tv_sec = DISK_OPEN_S + 2 };
  struct sockaddr_un a;
  int fd CLEANUP_CLOSE = control_socket (dirfd, &a);
  ssize_t n;

  if (fd == -1)
    return -1;
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect (fd, (struct sockaddr *) &a, sizeof a) == -1
      || send (fd, message, strlen (message), MSG_NOSIGNAL) == -1)
    return -1;
  n = recv (fd, reply, size - 1, 0);
  if (n <= 0) {
    errno = n ? errno : EPIPE;
    return -1;
  }
  reply[n] = '\0';
  return 0;
}

/* VERB NAME URI; 0 where the answer is "ok". */
static int
control_do (int dirfd, const char *verb, const char *name, const char *uri)
{
  char *message CLEANUP_FREE = NULL, reply[1024];

  if (asprintf (&message, "%s %s %s", verb, name, uri) == -1) {
    message = NULL;
    esp_error ("malloc: %m");
    return -1;
  }
  if (control_ask (dirfd, message, reply, sizeof reply) == -1) {
    esp_error ("espalierd-disks: %s: %m", verb);
    return -1;
  }
  if (strncmp (reply, "ok", 2) == 0)
    return 0;
  esp_error ("%s", strncmp (reply, "error ", 6) == 0 ? reply + 6 : reply);
  errno = EIO;
  return -1;
}

int
disks_open (int dirfd, const char *name, const char *uri)
{
  return control_do (dirfd, "open", name, uri);
}

int
disks_uri (int dirfd, const char *name, const char *uri)
{
  return control_do (dirfd, "uri", name, uri);
}

void
disks_close (int dirfd, const char *name)
{
  char message[DISK_NAME_MAX + 16], reply[1024];

  /* That there is none, or no process any more, is as good. */
  snprintf (message, sizeof message, "close %s", name);
  (void) control_ask (dirfd, message, reply, sizeof reply);
}

/* --- its life ------------------------------------------------------------- */

int
disks_unmount (int dirfd)
{
  char path[64], real[PATH_MAX];
  const char *const argv[] = { "fusermount3", "-u", "-z", "-q", real, NULL };
  struct stat dir, st;
  ssize_t n;

  snprintf (path, sizeof path, "/proc/self/fd/%d/disks", dirfd);
  for (unsigned i = 0; i < 16; i++) {
    if (fstatat (dirfd, "disks", &st, AT_SYMLINK_NOFOLLOW) == -1) {
      if (errno == ENOENT)
        return 0;               /* ENOTCONN and the like: a dead mount */
    }
    else if (fstat (dirfd, &dir) == 0 && dir.st_dev == st.st_dev)
      return 0;
    if (umount2 (path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
      continue;
    path[strlen (path) - strlen ("/disks")] = '\0';
    n = readlink (path, real, sizeof real - sizeof "/disks");
    if (n < 0)
      break;
    strcpy (real + n, "/disks");
    if (proc_run (argv, 5000) != 0)
      break;
    strcat (path, "/disks");
  }
  esp_error ("run/espalierd/bridge/disks is a mount of an earlier espalierd "
             "that cannot be taken away: unmount it (umount -l)");
  errno = EBUSY;
  return -1;
}

/* Say early what would only be in a log. */
static int
fuse_check (void)
{
  if (access ("/dev/fuse", R_OK | W_OK) == 0)
    return 0;
  if (errno == ENOENT)
    esp_error ("iSCSI needs FUSE, and there is no /dev/fuse: load the kernel's "
               "module (modprobe fuse)");
  else
    esp_error ("iSCSI needs FUSE: /dev/fuse: %m: run espalierd as root, or "
               "allow its user");
  return -1;
}

static int
disks_wait (int dirfd)
{
  char reply[64], last[256];

  for (unsigned i = 0; i < 500 && !proc_ended (&disks_proc, 0); i++) {
    if (control_ask (dirfd, "ping", reply, sizeof reply) == 0)
      return 0;
    proc_ended (&disks_proc, 10);
  }
  proc_log_last ("disks", dirfd, last, sizeof last);
  esp_error ("iSCSI needs FUSE, and it does not work: %s",
             *last ? last : "espalierd-disks ended");
  errno = EIO;
  return -1;
}

int
disks_start (int dirfd)
{
  char path[PATH_MAX];
  const char *const argv[] = { path, "disks", NULL };
  struct sockaddr_un a;
  int fd CLEANUP_CLOSE = -1;

  if (fuse_check () == -1 || program_find (path) == -1
      || disks_unmount (dirfd) == -1)
    return -1;
  unlinkat (dirfd, "disks.control", 0);
  fd = control_socket (dirfd, &a);
  if (fd == -1 || (mkdirat (dirfd, "disks", 0700) == -1 && errno != EEXIST)
      || bind (fd, (struct sockaddr *) &a, sizeof a) == -1
      || listen (fd, 256) == -1) {
    esp_error ("run/espalierd/bridge: %m");
    return -1;
  }
  if (proc_start (&disks_proc, dirfd, argv, NULL, fd) == -1)
    return -1;
  /* From here on only the child has it: when it ends, so do questions. */
  close (esp_steal_fd (&fd));
  if (disks_wait (dirfd) == 0)
    return 0;
  disks_stop (dirfd);
  return -1;
}

void
disks_stop (int dirfd)
{
  proc_end (&disks_proc, dirfd, SIGTERM, 8000);
  disks_unmount (dirfd);
}
