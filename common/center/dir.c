/* SPDX-License-Identifier: BSD-3-Clause */
/* A directory as a remote, also on a network file system.
 *
 *   NAME          the objects, as files
 *   .tmp/         files that are being written
 *   .uploads/ID/  large objects that come in parts (dir-parts.c)
 *   .lock         held (flock) while an object is replaced or removed
 *
 * A file is written in .tmp, synced, and gets its name by link() (only where
 * there is none) or rename(); then its directory is synced.  So a name
 * always has the whole of one version, also after a crash.  Replacing and
 * removing happen under the lock, and put_if looks at the version under it:
 * that is safe between all that use this code, also on several hosts where
 * the file system passes flock on (NFS does, if not mounted with nolock or
 * local_lock).  The lock is only held for a few system calls, and only
 * tried, until the time-out.
 *
 * A version is inode, size and modification time; the time is set to the
 * nanosecond before a file gets its name, so that no two are the same.
 *
 * Every component is opened without following symbolic links: what else
 * lies in the directory, or is put there, leads nowhere outside.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "center/remote-internal.h"
#include "util/file.h"
#include "util/lock.h"

#define CHUNK (256u << 10)
#define GENTLE_CHUNK (64u << 10)

void
esp_dir_object (const struct stat *st, struct esp_object *out)
{
  snprintf (out->etag, sizeof out->etag, "%jx-%jx-%jx.%09lx",
            (uintmax_t) st->st_ino, (uintmax_t) st->st_size,
            (uintmax_t) st->st_mtim.tv_sec,
            (unsigned long) st->st_mtim.tv_nsec);
  out->size = (uint64_t) st->st_size;
}

/* --- ways to a file ------------------------------------------------------ */

int
esp_dir_root (struct esp_remote *r, struct esp_try *t)
{
  int fd = open (r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  atomic_fetch_add_explicit (&r->requests, 1, memory_order_relaxed);
  if (fd >= 0)
    return fd;
  if (errno == EACCES)
    return esp_try_fail (t, EACCES, "%s: %m", r->path);
  return esp_try_fail (t, EIO, "the directory %s: %m (is it mounted?)",
                       r->path);
}

/* Make the directory NAME in PARENT, durably. */
static int
make_dir (int parent, const char *name)
{
  int fd = esp_make_dir (parent, name, 0755);

  if (fd >= 0 && esp_sync_dir (parent) < 0) {
    int saved = errno;
    close (fd);
    errno = saved;
    return -1;
  }
  return fd;
}

/* One component down. */
static int
step (int parent, const char *name, bool make, struct esp_try *t)
{
  int fd = esp_open_dir (parent, name);

  if (fd < 0 && errno == ENOENT && make)
    fd = make_dir (parent, name);
  if (fd >= 0)
    return fd;
  if (errno == ELOOP || errno == ENOTDIR) {
    struct stat st;
    if (fstatat (parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0
        && S_ISLNK (st.st_mode))
      return esp_try_fail (t, EACCES, "%s is a symbolic link: these are not "
                           "followed", name);
    if (!make)                  /* a file: nothing lies below it */
      return esp_try_quiet (t, ENOENT);
    errno = ENOTDIR;
  }
  return esp_try_errno (t, name);
}

int
esp_dir_open (int root, const char *path, bool make, struct esp_try *t)
{
  CLEANUP_CLOSE int at = esp_open_dir (root, NULL);
  CLEANUP_FREE char *copy = strdup (path);
  char *save, *p = copy;

  if (at < 0 || !copy)
    return esp_try_errno (t, "open");
  for (char *name; (name = strtok_r (p, "/", &save)) != NULL; p = NULL) {
    int fd = step (at, name, make, t);
    if (fd < 0)
      return -1;
    close (at);
    at = fd;
  }
  return esp_steal_fd (&at);
}

int
esp_dir_parent (int root, const char *name, bool make, const char **base,
                struct esp_try *t)
{
  const char *slash = strrchr (name, '/');
  CLEANUP_FREE char *path = strndup (name, slash ? (size_t) (slash - name) : 0);

  *base = slash ? slash + 1 : name;
  if (!path)
    return esp_try_fail (t, ENOMEM, "malloc: %m");
  return esp_dir_open (root, path, make, t);
}

/* Open the regular file NAME for reading. */
static int
open_object (struct esp_remote *r, const char *name, struct stat *st,
             struct esp_try *t)
{
  const char *base;
  CLEANUP_CLOSE int root = esp_dir_root (r, t);
  CLEANUP_CLOSE int dir = root < 0 ? -1
    : esp_dir_parent (root, name, false, &base, t);
  CLEANUP_CLOSE int fd = -1;

  if (dir < 0)
    return -1;
  /* O_NONBLOCK: a FIFO must not make us wait. */
  fd = openat (dir, base, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0 && errno == ELOOP)
    return esp_try_fail (t, EACCES, "it is a symbolic link: these are not "
                         "followed");
  if (fd < 0 || fstat (fd, st) < 0)
    return esp_try_errno (t, "open");
  if (S_ISDIR (st->st_mode))
    return esp_try_quiet (t, ENOENT);
  if (!S_ISREG (st->st_mode))
    return esp_try_fail (t, EPROTO, "it is no regular file");
  return esp_steal_fd (&fd);
}

/* --- reading --------------------------------------------------------------- */

static int
dir_head (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  struct stat st;
  CLEANUP_CLOSE int fd = open_object (r, op->name, &st, t);

  if (fd < 0)
    return -1;
  esp_dir_object (&st, &op->out);
  return 0;
}

static int
check_expected (struct esp_op *op, struct esp_try *t)
{
  const struct esp_object *e = op->expect;

  if (e && ((e->size && e->size != op->out.size)
            || (*e->etag && strcmp (e->etag, op->out.etag) != 0)))
    return esp_try_fail (t, EPROTO, "the object changed");
  if (op->whole) {
    if (op->out.size > op->max)
      return esp_try_fail (t, EFBIG, "%ju bytes are more than the %zu that it "
                           "may have", (uintmax_t) op->out.size, op->max);
    op->len = op->out.size;
  }
  else if (op->offset > op->out.size || op->len > op->out.size - op->offset)
    return esp_try_fail (t, EPROTO, "it has only %ju bytes",
                         (uintmax_t) op->out.size);
  return 0;
}

static int
copy_out (struct esp_remote *r, int fd, struct esp_op *op, struct esp_try *t)
{
  size_t chunk = op->gently ? GENTLE_CHUNK : CHUNK;
  CLEANUP_FREE char *buf = malloc (chunk);

  if (!buf)
    return esp_try_fail (t, ENOMEM, "malloc: %m");
  while (op->done < op->len) {
    size_t n = op->len - op->done < chunk ? (size_t) (op->len - op->done)
      : chunk;
    if (op->cancel && atomic_load (op->cancel))
      return esp_try_quiet (t, ECANCELED);
    if (esp_pread_all (fd, buf, n, op->offset + op->done) < 0)
      return esp_try_fail (t, EIO, "read: %m");
    atomic_fetch_add_explicit (&r->bytes_in, n, memory_order_relaxed);
    if (op->sink (op->arg, buf, n) < 0)
      return esp_try_quiet (t, errno ? errno : ECANCELED);
    op->done += n;
  }
  return 0;
}

static int
dir_get (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  struct stat st;
  CLEANUP_CLOSE int fd = open_object (r, op->name, &st, t);

  if (fd < 0)
    return -1;
  esp_dir_object (&st, &op->out);
  return check_expected (op, t) < 0 ? -1 : copy_out (r, fd, op, t);
}

/* --- listing --------------------------------------------------------------- */

struct walk {
  struct esp_op *op;
  struct esp_try *t;
  const char *below;            /* names in here begin with it */
  bool failed;                  /* T says why */
};

static int walk_dir (struct walk *w, int dirfd);

static int
walk_entry (void *arg, int dirfd, const char *entry)
{
  struct walk *w = arg;
  struct esp_object object;
  struct stat st;

  if (*entry == '.')
    return 0;
  if (fstatat (dirfd, entry, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return errno == ENOENT ? 0 : -1;    /* it went meanwhile */
  CLEANUP_FREE char *name = esp_asprintf ("%s%s%s", w->below,
                                          entry, S_ISDIR (st.st_mode) ? "/" : "");
  if (!name)
    return -1;
  /* What lies on the way to the prefix, or below it. */
  size_t n = strlen (name), m = strlen (w->op->name);
  if (strncmp (name, w->op->name, n < m ? n : m) != 0)
    return 0;
  if (S_ISDIR (st.st_mode)) {
    struct walk next = *w;
    CLEANUP_CLOSE int fd = esp_open_dir (dirfd, entry);
    next.below = name;
    return fd < 0 ? (errno == ENOENT ? 0 : -1) : walk_dir (&next, fd);
  }
  if (!S_ISREG (st.st_mode) || n < m || !esp_object_name_ok (name))
    return 0;
  esp_dir_object (&st, &object);
  return esp_op_entry (w->op, name, &object);
}

static int
walk_dir (struct walk *w, int dirfd)
{
  return esp_each_entry (dirfd, walk_entry, w);
}

static int
compare_entries (const void *a, const void *b)
{
  return strcmp (((const struct esp_entry *) a)->name,
                 ((const struct esp_entry *) b)->name);
}

static int
dir_list (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  char caught[300];
  CLEANUP_CLOSE int root = esp_dir_root (r, t);
  struct walk w = { .op = op, .t = t, .below = "" };

  if (root < 0)
    return -1;
  struct esp_catch before = esp_catch_begin (caught, sizeof caught);
  int e = walk_dir (&w, root);
  esp_catch_end (before);
  if (e < 0)
    return esp_try_fail (t, errno, "list: %m");
  if (op->nentries)
    qsort (op->entries, op->nentries, sizeof *op->entries, compare_entries);
  return 0;
}

/* --- writing --------------------------------------------------------------- */

int
esp_dir_lock (struct esp_remote *r, int dirfd, const char *name,
              struct esp_try *t)
{
  CLEANUP_CLOSE int fd = openat (dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC
                                 | O_NOFOLLOW, 0644);
  const struct timespec pause = { 0, 5000000 };

  if (fd < 0)
    return esp_try_errno (t, name);
  for (uint64_t ms = 0; esp_lock (fd, true) < 0; ms += 5) {
    if (errno != EWOULDBLOCK)
      return esp_try_errno (t, "flock");
    if (ms >= r->timeout * 1000ull)
      return esp_try_fail (t, ETIMEDOUT, "somebody else holds %s/%s", r->path,
                           name);
    nanosleep (&pause, NULL);
  }
  return esp_steal_fd (&fd);
}

/* A new file in .tmp with the bytes, synced, under a random name. */
static int
write_temp (int tmp, char name[20], const void *buf, size_t len)
{
  struct timespec times[2];
  uint64_t random;

  if (getrandom (&random, sizeof random, 0) != sizeof random)
    return -1;
  snprintf (name, 20, "%016" PRIx64, random);
  CLEANUP_CLOSE int fd = openat (tmp, name, O_WRONLY | O_CREAT | O_EXCL
                                 | O_CLOEXEC, 0644);
  if (fd < 0)
    return -1;
  clock_gettime (CLOCK_REALTIME, &times[0]);
  times[1] = times[0];
  if (esp_pwrite_all (fd, buf, len, 0) == 0 && futimens (fd, times) == 0
      && fsync (fd) == 0)
    return 0;
  int saved = errno;
  unlinkat (tmp, name, 0);      /* the first error is the one that counts */
  errno = saved;
  return -1;
}

/* The version of NAME now; -1 with errno. */
static int
stat_object (int dir, const char *base, struct esp_object *out)
{
  struct stat st;

  if (fstatat (dir, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return -1;
  esp_dir_object (&st, out);
  return 0;
}

/* Under the lock: is NAME what the mode of the put asks for? */
static int
check_condition (int dir, const char *base, const struct esp_op *op,
                 struct esp_try *t)
{
  struct esp_object now = { 0 };
  bool there = stat_object (dir, base, &now) == 0;

  if (!there && errno != ENOENT)
    return esp_try_errno (t, "stat");
  if (op->mode == ESP_PUT_ABSENT && there)
    return esp_try_quiet (t, EEXIST);
  if (op->mode == ESP_PUT_IF
      && (!there || strcmp (now.etag, op->version->etag) != 0))
    return esp_try_quiet (t, ESTALE);
  return 0;
}

/* Rename under the lock. */
static int
replace (struct esp_remote *r, int root, int fromfd, const char *from,
         const struct esp_op *op, int dir, const char *base,
         struct esp_try *t)
{
  CLEANUP_CLOSE int lock = esp_dir_lock (r, root, ".lock", t);

  if (lock < 0 || check_condition (dir, base, op, t) < 0)
    return -1;
  if (renameat (fromfd, from, dir, base) < 0 || esp_sync_dir (dir) < 0)
    return esp_try_errno (t, "rename");
  return 0;
}

int
esp_dir_link (struct esp_remote *r, int root, int fromfd, const char *from,
              const char *name, struct esp_try *t)
{
  const struct esp_op op = { .name = name, .mode = ESP_PUT_ABSENT };
  const char *base;
  CLEANUP_CLOSE int dir = esp_dir_parent (root, name, true, &base, t);

  if (dir < 0)
    return -1;
  if (linkat (fromfd, from, dir, base, 0) == 0)
    return esp_sync_dir (dir) == 0 ? 0 : esp_try_errno (t, "fsync");
  if (errno == EEXIST)
    return esp_try_quiet (t, EEXIST);
  if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
    return esp_try_errno (t, "link");
  /* A file system without hard links. */
  return replace (r, root, fromfd, from, &op, dir, base, t);
}

static int
publish (struct esp_remote *r, int root, int tmp, const char *temp,
         struct esp_op *op, struct esp_try *t)
{
  const char *base;
  CLEANUP_CLOSE int dir = esp_dir_parent (root, op->name, true, &base, t);

  if (dir < 0)
    return -1;
  return op->mode == ESP_PUT_ABSENT
    ? esp_dir_link (r, root, tmp, temp, op->name, t)
    : replace (r, root, tmp, temp, op, dir, base, t);
}

static int
dir_put (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  CLEANUP_CLOSE int root = esp_dir_root (r, t);
  CLEANUP_CLOSE int tmp = root < 0 ? -1 : esp_dir_open (root, ESP_DIR_TMP, true, t);
  char temp[20];

  if (tmp < 0)
    return -1;
  if (write_temp (tmp, temp, op->buf, op->size) < 0
      || stat_object (tmp, temp, &op->out) < 0)
    return esp_try_errno (t, "write");
  atomic_fetch_add_explicit (&r->bytes_out, op->size, memory_order_relaxed);
  int e = publish (r, root, tmp, temp, op, t);
  /* Renamed or not, or linked: this name is of no use any more. */
  unlinkat (tmp, temp, 0);
  return e;
}

static int
dir_delete (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  const char *base;
  CLEANUP_CLOSE int root = esp_dir_root (r, t);
  CLEANUP_CLOSE int dir = root < 0 ? -1
    : esp_dir_parent (root, op->name, false, &base, t);

  if (dir < 0)
    return root >= 0 && t->err == ENOENT ? 0 : -1;
  CLEANUP_CLOSE int lock = esp_dir_lock (r, root, ".lock", t);
  if (lock < 0)
    return -1;
  if (unlinkat (dir, base, 0) < 0)
    return errno == ENOENT ? 0 : esp_try_errno (t, "unlink");
  return esp_sync_dir (dir) == 0 ? 0 : esp_try_errno (t, "fsync");
}

const struct esp_driver esp_dir_driver = {
  .kind = ESP_REMOTE_DIR,
  .attempt = {
    [ESP_VERB_HEAD] = dir_head,
    [ESP_VERB_LIST] = dir_list,
    [ESP_VERB_GET] = dir_get,
    [ESP_VERB_PUT] = dir_put,
    [ESP_VERB_DELETE] = dir_delete,
    [ESP_VERB_BEGIN] = esp_dir_parts_begin,
    [ESP_VERB_PART] = esp_dir_parts_put,
    [ESP_VERB_CHECK] = esp_dir_parts_check,
    [ESP_VERB_END] = esp_dir_parts_end,
    [ESP_VERB_ABORT] = esp_dir_parts_abort,
    [ESP_VERB_UPLOADS] = esp_dir_uploads,
    [ESP_VERB_LOOK] = esp_dir_uploads_look,
    [ESP_VERB_REMOVE] = esp_dir_uploads_remove,
  },
};
