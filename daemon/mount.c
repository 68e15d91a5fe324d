/* SPDX-License-Identifier: BSD-3-Clause */
/* An NBD disk as a file: nbdfuse below daemon_dir()/mnt/.
 *
 * nbdfuse writes its pid file when the mount is there: here that file is a
 * pipe, so nobody has to look again and again.  Its messages come through
 * another pipe until then; later ones go nowhere (SIGPIPE is ignored).
 *
 * A killed daemon leaves mounts, and nbdfuse with them.  mount_clear detaches
 * whatever is mounted there; without its mount nbdfuse ends by itself.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

#include "child.h"
#include "daemon.h"
#include "mount.h"

#define READY_MS 15000
#define END_MS 3000

/* Detach what is mounted at DIR; nothing is fine, too. */
static void
detach (const char *dir)
{
  const char *const argv[] = { "fusermount3", "-u", "-z", "-q", dir, NULL };
  struct child_how how = { .argv = argv, .out = -1, .err = -1, .keep = -1 };
  int status;
  pid_t pid;

  if (umount2 (dir, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno != EPERM)
    return;
  /* Without root only fusermount3 may. */
  pid = child_start (&how);
  if (pid != -1 && child_wait (pid, END_MS, &status) == -1)
    child_end (pid, 0);
}

static int
make_parent (void)
{
  CLEANUP_CLOSE int dir = esp_open_dir (AT_FDCWD, daemon_dir ());
  int fd = dir == -1 ? -1 : esp_make_dir (dir, "mnt", 0700);

  if (fd == -1)
    esp_error ("%s/mnt: %m", daemon_dir ());
  return fd;
}

static int
clear_entry (void *arg, int fd, const char *name)
{
  CLEANUP_FREE char *dir = esp_asprintf ("%s/mnt/%s", daemon_dir (), name);

  (void) arg;
  if (dir)
    detach (dir);
  if (unlinkat (fd, name, AT_REMOVEDIR) == -1)
    esp_warning ("rmdir: %s/mnt/%s: %m", daemon_dir (), name);
  return 0;
}

int
mount_clear (void)
{
  CLEANUP_CLOSE int fd = make_parent ();

  return fd == -1 ? -1 : esp_each_entry (fd, clear_entry, NULL);
}

void
mount_close (struct mount *m)
{
  int err = errno;

  if (m->pid > 0)
    child_end (m->pid, END_MS);
  if (m->dir) {
    detach (m->dir);
    rmdir (m->dir);
  }
  free (m->file);
  free (m->dir);
  memset (m, 0, sizeof *m);
  errno = err;
}

/* What nbdfuse said, without its name, as one line. */
static void
said (int fd, char *buf, size_t size)
{
  ssize_t n;
  char *p;

  fcntl (fd, F_SETFL, O_NONBLOCK);
  n = read (fd, buf, size - 1);
  buf[n > 0 ? n : 0] = 0;
  while ((p = strpbrk (buf, "\n")) != NULL)
    *p = p[1] ? ' ' : 0;
}

/* Wait until nbdfuse is ready, which it writes to FD. */
static int
wait_ready (int fd, int err)
{
  struct pollfd p = { .fd = fd, .events = POLLIN };
  char byte, why[512];
  int r;

  do
    r = poll (&p, 1, READY_MS);
  while (r == -1 && errno == EINTR);
  if (r == 1 && read (fd, &byte, 1) == 1)
    return 0;
  said (err, why, sizeof why);
  esp_error ("the disk cannot be shown as a file: %s",
             why[0] ? why : r == 0 ? "the stack does not answer" :
             "nbdfuse ended");
  errno = EIO;
  return -1;
}

static int
start_nbdfuse (struct mount *m, const char *uri, bool readonly,
               bool with_thread)
{
  const char *argv[7] = { "nbdfuse", "-P", "/proc/self/fd/3" };
  CLEANUP_CLOSE int ready = -1, err = -1;
  int r[2], e[2];
  unsigned n = 3;

  if (readonly)
    argv[n++] = "-r";
  argv[n++] = m->file;
  argv[n] = uri;
  if (pipe2 (r, O_CLOEXEC) == -1) {
    esp_error ("pipe2: %m");
    return -1;
  }
  ready = r[0];
  if (pipe2 (e, O_CLOEXEC) == -1) {
    esp_error ("pipe2: %m");
    close (r[1]);
    return -1;
  }
  err = e[0];
  m->pid = child_start (&(struct child_how) {
    .argv = argv, .out = -1, .err = e[1], .keep = r[1],
    .with_thread = with_thread });
  close (r[1]);
  close (e[1]);
  return m->pid == -1 ? -1 : wait_ready (ready, err);
}

static int
have_fuse (void)
{
  CLEANUP_CLOSE int fd = open ("/dev/fuse", O_RDWR | O_CLOEXEC);

  if (fd >= 0)
    return 0;
  esp_error ("/dev/fuse: %m: this server has no FUSE, which shows a disk as a "
             "file: modprobe fuse, or let the service use it");
  return -1;
}

int
mount_open (const char *uri, bool readonly, bool with_thread,
            struct mount *out)
{
  CLEANUP_MOUNT struct mount m = { 0 };
  CLEANUP_CLOSE int parent = -1;

  memset (out, 0, sizeof *out);
  if (have_fuse () == -1)
    return -1;
  parent = make_parent ();
  if (parent == -1)
    return -1;
  m.dir = esp_asprintf ("%s/mnt/XXXXXX", daemon_dir ());
  m.file = m.dir && mkdtemp (m.dir) ? esp_asprintf ("%s/nbd", m.dir) : NULL;
  if (!m.file) {
    esp_error ("mkdtemp: %s/mnt: %m", daemon_dir ());
    return -1;
  }
  if (start_nbdfuse (&m, uri, readonly, with_thread) == -1)
    return -1;
  *out = m;
  memset (&m, 0, sizeof m);
  return 0;
}
