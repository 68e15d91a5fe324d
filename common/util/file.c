/* SPDX-License-Identifier: BSD-3-Clause */
/* Files and directories.
 *
 * Everything goes by descriptor and one name below it, so that a directory
 * that is renamed or replaced by a symbolic link on the way cannot lead a
 * write or a removal elsewhere.  A replacement is a new file beside the old
 * one under a random name (".HEX.new"), synced, renamed over it; a crash
 * leaves at worst such a file, which nothing reads.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

int
esp_pread_all (int fd, void *buf, size_t count, uint64_t offset)
{
  while (count) {
    ssize_t r = pread (fd, buf, count, (off_t) offset);

    if (r < 0 && errno == EINTR)
      continue;
    if (r == 0)
      errno = EIO;
    if (r <= 0)
      return -1;
    buf = (char *) buf + r;
    count -= (size_t) r;
    offset += (uint64_t) r;
  }
  return 0;
}

int
esp_pwrite_all (int fd, const void *buf, size_t count, uint64_t offset)
{
  while (count) {
    ssize_t r = pwrite (fd, buf, count, (off_t) offset);

    if (r < 0 && errno == EINTR)
      continue;
    if (r == 0)
      errno = EIO;
    if (r <= 0)
      return -1;
    buf = (const char *) buf + r;
    count -= (size_t) r;
    offset += (uint64_t) r;
  }
  return 0;
}

/* Read FD to its end into a growing buffer; *LEN bytes, plus a NUL. */
static char *
read_to_end (int fd, size_t max, size_t guess, size_t *len)
{
  size_t cap = guess < max ? guess : max, n = 0;
  CLEANUP_FREE char *buf = malloc (cap + 2);

  while (buf) {
    /* One byte more than MAX tells a file that is too large. */
    ssize_t r = read (fd, buf + n, cap + 1 - n);

    if (r < 0 && errno == EINTR)
      continue;
    if (r < 0)
      return NULL;
    if (r == 0) {
      buf[n] = 0;
      *len = n;
      return ESP_STEAL (buf);
    }
    n += (size_t) r;
    if (n > max) {
      errno = EFBIG;
      return NULL;
    }
    if (n > cap) {
      cap = cap > max / 2 ? max : cap * 2 + 4096;
      char *more = realloc (buf, cap + 2);
      if (!more)
        return NULL;
      buf = more;
    }
  }
  return NULL;
}

int
esp_read_file (int dirfd, const char *name, size_t max, char **buf,
               size_t *len)
{
  /* O_NONBLOCK: a FIFO in the place of a file must not make us wait. */
  CLEANUP_CLOSE int fd =
    openat (dirfd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  struct stat st;

  if (fd < 0 || fstat (fd, &st) < 0)
    return -1;
  if (!S_ISREG (st.st_mode)) {
    errno = S_ISDIR (st.st_mode) ? EISDIR : EINVAL;
    return -1;
  }
  if (st.st_size > 0 && (uint64_t) st.st_size > max) {
    errno = EFBIG;
    return -1;
  }
  *buf = read_to_end (fd, max, (size_t) st.st_size, len);
  return *buf ? 0 : -1;
}

/* The directory of NAME, as a fresh descriptor; *BASE is the rest. */
static int
open_parent (int dirfd, const char *name, const char **base)
{
  const char *slash = strrchr (name, '/');

  *base = slash ? slash + 1 : name;
  if (!slash)
    return esp_open_dir (dirfd, NULL);
  CLEANUP_FREE char *dir = strndup (name, slash == name
                                    ? 1 : (size_t) (slash - name));
  if (!dir)
    return -1;
  return openat (dirfd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Make a new empty file under a random name in DIRFD. */
static int
open_new (int dirfd, char temp[32], mode_t mode)
{
  uint64_t r;
  int fd;

  do {
    if (getrandom (&r, sizeof r, 0) != sizeof r)
      return -1;
    snprintf (temp, 32, ".%016llx.new", (unsigned long long) r);
    fd = openat (dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EEXIST);
  return fd;
}

/* A file that is replaced keeps its mode. */
static int
keep_mode (int dirfd, const char *name, int fd)
{
  struct stat st;

  if (fstatat (dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0
      || !S_ISREG (st.st_mode))
    return 0;
  return fchmod (fd, st.st_mode & 07777);
}

static int
write_new (int dirfd, const char *temp, const char *name, int fd,
           const void *buf, size_t len)
{
  if (keep_mode (dirfd, name, fd) == 0 && esp_pwrite_all (fd, buf, len, 0) == 0
      && esp_sync_file (fd) == 0 && renameat (dirfd, temp, dirfd, name) == 0)
    return 0;
  int saved = errno;
  unlinkat (dirfd, temp, 0);    /* the first error is the one that counts */
  errno = saved;
  return -1;
}

int
esp_write_file_atomic (int dirfd, const char *name, const void *buf,
                       size_t len, mode_t mode)
{
  const char *base;
  char temp[32];
  CLEANUP_CLOSE int parent = open_parent (dirfd, name, &base);
  CLEANUP_CLOSE int fd = parent < 0 ? -1 : open_new (parent, temp, mode);

  if (fd < 0 || write_new (parent, temp, base, fd, buf, len) < 0
      || esp_sync_dir (parent) < 0) {
    esp_error ("write: %s: %m", name);
    return -1;
  }
  return 0;
}

/* --- durability ------------------------------------------------------------ */

/* This thread leaves syncing to who called esp_sync_later. */
static __thread bool sync_later;

bool
esp_sync_later (bool later)
{
  bool before = sync_later;

  sync_later = later;
  return before;
}

int
esp_sync_file (int fd)
{
  return sync_later ? 0 : fsync (fd);
}

int
esp_sync_data (int fd)
{
  return sync_later ? 0 : fdatasync (fd);
}

int
esp_sync_dir (int dirfd)
{
  return esp_sync_file (dirfd);
}

/* Begin to write FD, or (not BEGIN) wait until it is durable. */
static int
sync_one (int fd, bool begin)
{
  if (!begin)
    return fsync (fd);
  /* Only a hint: the fsync that follows finds less to do. */
  (void) sync_file_range (fd, 0, 0, SYNC_FILE_RANGE_WRITE);
  return 0;
}

static int
sync_entry (void *arg, int dirfd, const char *name)
{
  const bool *begin = arg;
  CLEANUP_CLOSE int fd = openat (dirfd, name, O_RDONLY | O_NOFOLLOW |
                                 O_NONBLOCK | O_CLOEXEC);

  if (fd >= 0 && sync_one (fd, *begin) == 0)
    return 0;
  esp_error ("fsync: %s: %m", name);
  return -1;
}

/* From so many directories on one syncfs may be cheaper than an fsync for each
 * file (most of them cost a flush of the disk); but it waits for what others
 * have written, too, on a busy server for seconds.  So only where no more
 * than DIRTY_MAX is to be written on the whole machine.
 */
#define MANY_DIRS 8
#define DIRTY_MAX (UINT64_C (256) << 10)        /* KiB */

static bool
little_is_dirty (void)
{
  CLEANUP_FREE char *text = NULL;
  unsigned long long dirty, writeback;
  const char *p;
  size_t len;

  /* "Dirty: N kB" and "Writeback: N kB" are neighbours. */
  return esp_read_file (AT_FDCWD, "/proc/meminfo", 65536, &text, &len) == 0 &&
    (p = strstr (text, "\nDirty:")) != NULL &&
    sscanf (p, " Dirty: %llu kB Writeback: %llu kB", &dirty,
            &writeback) == 2 && dirty + writeback <= DIRTY_MAX;
}

int
esp_sync_below (const int *dirfds, size_t n)
{
  bool begin = true;

  /* It tells the errors since its descriptor was opened (Linux 5.8), which
   * was before anything was written there.
   */
  if (n >= MANY_DIRS && little_is_dirty ()) {
    if (syncfs (dirfds[0]) == 0)
      return 0;
    esp_error ("syncfs: %m");
    return -1;
  }
  /* All at once to the disk, so that the waits that follow are few: what
   * one of them makes the file system commit, the others find committed.
   */
  for (size_t i = 0; i < n; i++)
    if (esp_each_entry (dirfds[i], sync_entry, &begin) == -1)
      return -1;
  begin = false;
  for (size_t i = 0; i < n; i++) {
    if (esp_each_entry (dirfds[i], sync_entry, &begin) == -1)
      return -1;
    if (fsync (dirfds[i]) == -1) {
      esp_error ("fsync: directory: %m");
      return -1;
    }
  }
  return 0;
}

int
esp_replace_file (int dirfd, const char *temp, const char *name)
{
  if (renameat (dirfd, temp, dirfd, name) == 0 && esp_sync_dir (dirfd) == 0)
    return 0;
  esp_error ("rename: %s: %m", name);
  return -1;
}

int
esp_open_dir (int dirfd, const char *name)
{
  return openat (dirfd, name ? name : ".",
                 O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

int
esp_make_dir (int dirfd, const char *name, mode_t mode)
{
  if (mkdirat (dirfd, name, mode) < 0 && errno != EEXIST)
    return -1;
  return esp_open_dir (dirfd, name);
}

static int
remove_entry (void *arg, int dirfd, const char *name)
{
  (void) arg;
  return esp_remove_tree (dirfd, name);
}

/* All below the directory NAME; 0 as well when it went meanwhile. */
static int
remove_below (int dirfd, const char *name)
{
  CLEANUP_CLOSE int fd = esp_open_dir (dirfd, name);

  if (fd < 0) {
    if (errno == ENOENT)
      return 0;
    esp_error ("open: %s: %m", name);
    return -1;
  }
  return esp_each_entry (fd, remove_entry, NULL);
}

int
esp_remove_tree (int dirfd, const char *name)
{
  if (unlinkat (dirfd, name, 0) == 0 || errno == ENOENT)
    return 0;
  if (errno == EISDIR) {
    if (remove_below (dirfd, name) < 0)
      return -1;
    if (unlinkat (dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
      return 0;
  }
  esp_error ("remove: %s: %m", name);
  return -1;
}

/* The names in a directory, sorted. */
struct names {
  char **p;
  size_t n, cap;
};

static void
cleanup_names (struct names *names)
{
  int saved = errno;

  while (names->n)
    free (names->p[--names->n]);
  free (names->p);
  errno = saved;
}

static int
add_name (struct names *names, const char *name)
{
  if (names->n == names->cap) {
    size_t cap = names->cap ? names->cap * 2 : 16;
    char **p = reallocarray (names->p, cap, sizeof *p);
    if (!p)
      return -1;
    names->p = p;
    names->cap = cap;
  }
  names->p[names->n] = strdup (name);
  return names->p[names->n] ? (names->n++, 0) : -1;
}

static int
compare_names (const void *a, const void *b)
{
  return strcmp (*(char *const *) a, *(char *const *) b);
}

static int
read_names (int dirfd, struct names *names)
{
  CLEANUP_CLOSE int fd = esp_open_dir (dirfd, NULL);
  CLEANUP_CLOSEDIR DIR *dir = fd < 0 ? NULL : fdopendir (fd);
  struct dirent *d;

  if (!dir)
    return -1;
  esp_steal_fd (&fd);
  while (errno = 0, (d = readdir (dir)) != NULL) {
    if (strcmp (d->d_name, ".") == 0 || strcmp (d->d_name, "..") == 0)
      continue;
    if (add_name (names, d->d_name) < 0)
      return -1;
  }
  if (errno)
    return -1;
  if (names->n)
    qsort (names->p, names->n, sizeof *names->p, compare_names);
  return 0;
}

int
esp_each_entry (int dirfd, int (*fn) (void *arg, int dirfd, const char *name),
                void *arg)
{
  __attribute__ ((cleanup (cleanup_names))) struct names names = { 0 };
  int r = 0;

  if (read_names (dirfd, &names) < 0) {
    esp_error ("readdir: %m");
    return -1;
  }
  for (size_t i = 0; r == 0 && i < names.n; ++i)
    r = fn (arg, dirfd, names.p[i]);
  return r;
}

/* For file systems without holes; never makes the file longer. */
static int
write_zeroes (int fd, uint64_t offset, uint64_t len)
{
  static const char zeroes[65536];
  struct stat st;

  if (fstat (fd, &st) < 0)
    return -1;
  if (S_ISREG (st.st_mode)) {
    uint64_t size = (uint64_t) st.st_size;
    if (offset >= size)
      return 0;
    if (len > size - offset)
      len = size - offset;
  }
  while (len) {
    size_t n = len < sizeof zeroes ? (size_t) len : sizeof zeroes;
    if (esp_pwrite_all (fd, zeroes, n, offset) < 0)
      return -1;
    offset += n;
    len -= n;
  }
  return 0;
}

int
esp_punch (int fd, uint64_t offset, uint64_t len)
{
  int r;

  if (len == 0)
    return 0;
  do
    r = fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                   (off_t) offset, (off_t) len);
  while (r < 0 && errno == EINTR);
  if (r < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
    return write_zeroes (fd, offset, len);
  return r;
}

uint64_t
esp_disk_usage (int dirfd, const char *name)
{
  struct stat st;

  if (fstatat (dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return 0;
  return (uint64_t) st.st_blocks * 512;
}

char *
esp_asprintf (const char *fmt, ...)
{
  char *s;
  va_list args;

  va_start (args, fmt);
  int r = vasprintf (&s, fmt, args);
  va_end (args);
  if (r < 0) {
    errno = ENOMEM;
    return NULL;
  }
  return s;
}

void
esp_raise_open_files (void)
{
  struct rlimit limit;

  if (getrlimit (RLIMIT_NOFILE, &limit) == -1)
    return;
  limit.rlim_cur = limit.rlim_max;
  /* Not fatal: it only means fewer clients at once. */
  if (setrlimit (RLIMIT_NOFILE, &limit) == -1)
    esp_debug ("setrlimit: RLIMIT_NOFILE: %m");
}
