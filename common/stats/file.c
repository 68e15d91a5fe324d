/* SPDX-License-Identifier: BSD-3-Clause */
/* A process's file of live counters: DIR/PID, as long as the process runs.
 *
 * It is made under another name, locked (flock, exclusively), and then
 * linked to its own: so under that name there is never one that is not
 * locked by a process that lives.  A reader tries for a shared lock: who
 * gets it knows that the process is gone, and takes the file away.  Two
 * processes with one number (two containers over one store) are PID and
 * PID-2.
 *
 * Between the last look and the removal a new process of the same number may
 * have taken the name; then its file is removed, and it makes it again at
 * its next tick.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stats/internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define UNFINISHED ".new-"
#define NAMES_MAX 64u           /* processes of one number */
#define TRIES 4

/* --- names ------------------------------------------------------------------ */

static const char *
skip_number (const char *s)
{
  return *s == '0' ? s : s + strspn (s, "0123456789");
}

bool
stats_file_name_ok (const char *name)
{
  if (strncmp (name, UNFINISHED, strlen (UNFINISHED)) == 0)
    return true;
  const char *end = skip_number (name);
  if (end == name)
    return false;
  if (*end == '-' && skip_number (end + 1) > end + 1)
    end = skip_number (end + 1);
  return *end == 0;
}

static void
unfinished_name (char out[32])
{
  uint64_t n = 0;

  if (getrandom (&n, sizeof n, 0) != sizeof n)
    n = (uint64_t) getpid ();
  snprintf (out, 32, UNFINISHED "%016llx", (unsigned long long) n);
}

/* --- who lives --------------------------------------------------------------- */

/* Remove NAME if it is still the file FD. */
static void
remove_dead (int dirfd, const char *name, int fd)
{
  struct stat a, b;

  /* Errors are ignored: who has the right to does it another time. */
  if (fstat (fd, &a) == 0 &&
      fstatat (dirfd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
      a.st_dev == b.st_dev && a.st_ino == b.st_ino)
    unlinkat (dirfd, name, 0);
}

int
stats_file_open_live (int dirfd, const char *name)
{
  CLEANUP_CLOSE int fd = openat (dirfd, name, O_RDONLY | O_CLOEXEC |
                                 O_NOFOLLOW | O_NONBLOCK);
  struct stat st;

  if (fd == -1 || fstat (fd, &st) == -1)
    return -1;
  if (!S_ISREG (st.st_mode)) {
    errno = EBADMSG;
    return -1;
  }
  if (esp_lock (fd, false) == -1)
    return errno == EWOULDBLOCK ? esp_steal_fd (&fd) : -1;
  remove_dead (dirfd, name, fd);
  errno = ENOENT;
  return -1;
}

static int
clean (void *arg, int dirfd, const char *name)
{
  (void) arg;
  if (stats_file_name_ok (name)) {
    int fd = stats_file_open_live (dirfd, name);
    if (fd >= 0)
      close (fd);
  }
  return 0;
}

/* --- making -------------------------------------------------------------------- */

static int
fill (int fd, const struct stats_header *h)
{
  uint8_t bytes[STATS_HEADER_USED];

  stats_header_format (h, bytes);
  if (esp_lock (fd, true) == -1)
    return -1;
  if (ftruncate (fd, STATS_HEADER + (off_t) STATS_ROW * STATS_ROWS) == -1)
    return -1;
  return esp_pwrite_all (fd, bytes, sizeof bytes, 0);
}

/* Give the file TEMP its name: PID, or PID-2 and so on. */
static int
give_name (struct stats_file *f, const char *temp)
{
  int pid = (int) getpid ();

  for (unsigned i = 1; i <= NAMES_MAX; ) {
    snprintf (f->name, sizeof f->name, i > 1 ? "%d-%u" : "%d", pid, i);
    if (linkat (f->dirfd, temp, f->dirfd, f->name, 0) == 0)
      return 0;
    if (errno != EEXIST)
      return -1;
    /* One of a process that ended makes room. */
    clean (NULL, f->dirfd, f->name);
    if (faccessat (f->dirfd, f->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
      i++;
  }
  errno = EEXIST;
  return -1;
}

static int
make_once (struct stats_file *f, const struct stats_header *h)
{
  char temp[32];

  unfinished_name (temp);
  CLEANUP_CLOSE int fd = openat (f->dirfd, temp, O_RDWR | O_CREAT | O_EXCL |
                                 O_CLOEXEC, 0644);
  if (fd == -1)
    return -1;
  int r = fill (fd, h) == -1 ? -1 : give_name (f, temp);
  int err = errno;
  unlinkat (f->dirfd, temp, 0);         /* else who cleans does it */
  errno = err;
  if (r == 0)
    f->fd = esp_steal_fd (&fd);
  return r;
}

int
stats_file_make (struct stats_file *f, const struct stats_header *h)
{
  int r = -1;

  if (mkdir (f->dir, 0755) == 0 || errno == EEXIST)
    f->dirfd = open (f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (f->dirfd >= 0) {
    char why[256];
    struct esp_catch before = esp_catch_begin (why, sizeof why);
    esp_each_entry (f->dirfd, clean, NULL);     /* only tidiness */
    esp_catch_end (before);
    /* Who cleans may meet it before it is locked. */
    for (int i = 0; i < TRIES && r == -1; ++i)
      r = make_once (f, h);
  }
  if (r == -1 && !f->told) {
    f->told = true;
    esp_warning ("live counters: %s: %m: espalier stats will not see this "
                 "process until that works", f->dir);
  }
  return r;
}

bool
stats_file_sound (const struct stats_file *f)
{
  struct stat st;

  return fstat (f->fd, &st) == 0 && st.st_nlink > 0 &&
    st.st_size >= STATS_HEADER + (off_t) STATS_ROW * STATS_ROWS;
}

/* --- writing ------------------------------------------------------------------- */

int
stats_file_write (struct stats_file *f, uint32_t row, const void *rows,
                  size_t n)
{
  return esp_pwrite_all (f->fd, rows, n * STATS_ROW,
                         STATS_HEADER + (uint64_t) row * STATS_ROW);
}

int
stats_file_write_header (struct stats_file *f, const struct stats_header *h)
{
  uint8_t bytes[STATS_HEADER_USED];

  stats_header_format (h, bytes);
  return esp_pwrite_all (f->fd, bytes, sizeof bytes, 0);
}

void
stats_file_close (struct stats_file *f, bool remove)
{
  if (f->fd >= 0 && remove)
    remove_dead (f->dirfd, f->name, f->fd);
  esp_cleanup_close (&f->fd);
  esp_cleanup_close (&f->dirfd);
  f->fd = f->dirfd = -1;
}
