/* SPDX-License-Identifier: BSD-3-Clause */
/* Large objects in a directory, in parts.
 *
 *   .uploads/ID/name     the object's name
 *   .uploads/ID/layout   a record of 24 bytes for each part (below)
 *   .uploads/ID/data     parts that found their place at once
 *   .uploads/ID/NUMBER   parts that did not
 *   .uploads/ID/lock     held while the layout is read and changed
 *
 * Parts may differ in size, and may come in any order.  A part whose
 * predecessor has its place in `data` is given the place behind it, before
 * its bytes are written: parts that are begun in order are written in place,
 * at once and in parallel, and the object is there as soon as the last one
 * is: `data` gets the object's name.  Threads that put parts side by side
 * begin them in nearly that order, so one that comes early waits a moment for
 * its predecessor.  A part that comes too early, or again with another size,
 * becomes a file of its own, as all behind it, and the object is put together
 * at the end (copy_file_range: no copy where the file system can share).
 *
 * A record is written, and synced, after its part's bytes: what it says is
 * there survives a crash.  A part's etag is the checksum of its bytes.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "center/remote-internal.h"
#include "util/cleanup.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/name.h"
#include "util/sum.h"

#define RECORD 24u
#define OWN_FILE UINT64_MAX     /* in the place of an offset */

/* offset (8), size (8), checksum (8); size 0: no such part; checksum 0: its
 * bytes are not there yet.
 */
struct record {
  uint64_t offset, size, sum;
};

static int
read_record (int fd, unsigned number, struct record *out)
{
  unsigned char b[RECORD] = { 0 };
  ssize_t n = pread (fd, b, sizeof b, (off_t) (number - 1) * RECORD);

  if (n < 0)
    return -1;
  if (n < (ssize_t) sizeof b)   /* behind the end: no such part */
    memset (b, 0, sizeof b);
  out->offset = esp_get64 (b);
  out->size = esp_get64 (b + 8);
  out->sum = esp_get64 (b + 16);
  return 0;
}

static int
write_record (int fd, unsigned number, const struct record *in)
{
  unsigned char b[RECORD];

  esp_put64 (b, in->offset);
  esp_put64 (b + 8, in->size);
  esp_put64 (b + 16, in->sum);
  return esp_pwrite_all (fd, b, sizeof b, (uint64_t) (number - 1) * RECORD);
}

/* 0 says "not there yet". */
static uint64_t
part_sum (const void *buf, size_t len)
{
  uint64_t sum = esp_sum (buf, len);

  return sum ? sum : 1;
}

static void
sum_text (uint64_t sum, char etag[ESP_ETAG_MAX])
{
  snprintf (etag, ESP_ETAG_MAX, "%016jx", (uintmax_t) sum);
}

/* The directory of the upload OP->id, which must be one of OP->name. */
static int
open_upload (struct esp_remote *r, const struct esp_op *op, int *root,
             struct esp_try *t)
{
  char path[sizeof ESP_DIR_UPLOADS + 1 + ESP_UUID_TEXT];
  CLEANUP_FREE char *name = NULL;
  size_t len;
  esp_uuid uuid;

  if (esp_uuid_parse (op->id, &uuid) < 0)
    return esp_try_fail (t, EINVAL, "that is no upload's id");
  *root = esp_dir_root (r, t);
  if (*root < 0)
    return -1;
  snprintf (path, sizeof path, ESP_DIR_UPLOADS "/%s", op->id);
  CLEANUP_CLOSE int dir = esp_dir_open (*root, path, false, t);
  if (dir < 0)
    return -1;
  if (esp_read_file (dir, "name", 2000, &name, &len) < 0)
    return esp_try_errno (t, "read: name of the upload");
  if (strcmp (name, op->name) != 0)
    return esp_try_fail (t, EINVAL, "the upload %s is one of %.300s", op->id,
                         name);
  return esp_steal_fd (&dir);
}

int
esp_dir_parts_begin (struct esp_remote *r, struct esp_op *op,
                     struct esp_try *t)
{
  CLEANUP_CLOSE int root = esp_dir_root (r, t);
  CLEANUP_CLOSE int uploads = root < 0 ? -1
    : esp_dir_open (root, ESP_DIR_UPLOADS, true, t);
  esp_uuid uuid;

  if (uploads < 0)
    return -1;
  esp_uuid_new (&uuid);
  esp_uuid_text (&uuid, op->id_out);
  CLEANUP_CLOSE int dir = esp_dir_open (uploads, op->id_out, true, t);
  if (dir < 0)
    return -1;
  char caught[300] = "";
  struct esp_catch before = esp_catch_begin (caught, sizeof caught);
  int e = esp_write_file_atomic (dir, "name", op->name, strlen (op->name),
                                 0644);
  esp_catch_end (before);
  return e < 0 ? esp_try_fail (t, errno, "%s", caught) : 0;
}

/* --- a part ---------------------------------------------------------------- */

struct upload {
  struct esp_remote *r;
  int dir, layout;
};

static int
open_file (int dir, const char *name, struct esp_try *t)
{
  int fd = openat (dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                   0644);

  return fd < 0 ? esp_try_errno (t, name) : fd;
}

/* Choose the place of a part, under the lock.  1, unless it is TOO_LATE to
 * wait: its predecessor has none yet.
 */
static int
place_part (const struct upload *u, unsigned number, uint64_t size,
            bool too_late, struct record *rec, struct esp_try *t)
{
  struct record prev = { 0 }, old;
  CLEANUP_CLOSE int lock = esp_dir_lock (u->r, u->dir, "lock", t);

  if (lock < 0)
    return -1;
  if (read_record (u->layout, number, &old) < 0
      || (number > 1 && read_record (u->layout, number - 1, &prev) < 0))
    return esp_try_errno (t, "read: layout");
  if (number > 1 && !old.size && !prev.size && !too_late)
    return 1;
  *rec = (struct record) { .offset = OWN_FILE, .size = size };
  if (old.size == size)
    rec->offset = old.offset;
  else if (!old.size && (number == 1 || (prev.size && prev.offset != OWN_FILE)))
    rec->offset = prev.offset + prev.size;
  if (write_record (u->layout, number, rec) < 0)
    return esp_try_errno (t, "write: layout");
  return 0;
}

#define TURN_MS 200

/* Held while a part of any upload is placed; raised behind that. */
static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;

static int
place_in_turn (const struct upload *u, unsigned number, uint64_t size,
               struct record *rec, struct esp_try *t)
{
  struct timespec until;
  bool too_late = false;
  int r;

  clock_gettime (CLOCK_MONOTONIC, &until);
  until.tv_nsec += TURN_MS * 1000000L;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  ESP_LOCK_SCOPE (&turn_lock);
  while ((r = place_part (u, number, size, too_late, rec, t)) == 1)
    too_late = pthread_cond_clockwait (&turn, &turn_lock, CLOCK_MONOTONIC,
                                       &until) != 0;
  pthread_cond_broadcast (&turn);
  return r;
}

static int
write_part (const struct upload *u, unsigned number, const struct record *rec,
            const void *buf, struct esp_try *t)
{
  char name[16];

  snprintf (name, sizeof name, "%u", number);
  bool own = rec->offset == OWN_FILE;
  CLEANUP_CLOSE int fd = open_file (u->dir, own ? name : "data", t);
  if (fd < 0)
    return -1;
  if (esp_pwrite_all (fd, buf, rec->size, own ? 0 : rec->offset) < 0
      || (own && ftruncate (fd, (off_t) rec->size) < 0)
      || fdatasync (fd) < 0)
    return esp_try_errno (t, "write");
  return 0;
}

static int
seal_part (const struct upload *u, unsigned number, struct record *rec,
           uint64_t sum, struct esp_try *t)
{
  CLEANUP_CLOSE int lock = esp_dir_lock (u->r, u->dir, "lock", t);

  if (lock < 0)
    return -1;
  rec->sum = sum;
  if (write_record (u->layout, number, rec) < 0 || fsync (u->layout) < 0
      || esp_sync_dir (u->dir) < 0)
    return esp_try_errno (t, "write: layout");
  return 0;
}

int
esp_dir_parts_put (struct esp_remote *r, struct esp_op *op,
                   struct esp_try *t)
{
  CLEANUP_CLOSE int root = -1;
  CLEANUP_CLOSE int dir = open_upload (r, op, &root, t);
  CLEANUP_CLOSE int layout = dir < 0 ? -1 : open_file (dir, "layout", t);
  const struct upload u = { r, dir, layout };
  uint64_t sum = part_sum (op->buf, op->size);
  struct record rec = { 0 };

  if (layout < 0 || place_in_turn (&u, op->number, op->size, &rec, t) < 0
      || write_part (&u, op->number, &rec, op->buf, t) < 0
      || seal_part (&u, op->number, &rec, sum, t) < 0)
    return -1;
  atomic_fetch_add_explicit (&r->bytes_out, op->size, memory_order_relaxed);
  sum_text (sum, op->part->etag);
  return 0;
}

/* --- all of them ------------------------------------------------------------ */

/* Is part P there as it was?  1, 0, -1 with errno. */
static int
check_part (int layout, const struct esp_part *p, struct record *rec)
{
  char etag[ESP_ETAG_MAX];

  if (p->number < 1 || p->number > 10000)
    return 0;
  if (read_record (layout, p->number, rec) < 0)
    return -1;
  sum_text (rec->sum, etag);
  return rec->sum && rec->size == p->size && strcmp (etag, p->etag) == 0;
}

int
esp_dir_parts_check (struct esp_remote *r, struct esp_op *op,
                     struct esp_try *t)
{
  CLEANUP_CLOSE int root = -1;
  CLEANUP_CLOSE int dir = open_upload (r, op, &root, t);
  CLEANUP_CLOSE int layout = dir < 0 ? -1 : open_file (dir, "layout", t);
  struct record rec;

  if (layout < 0)
    return -1;
  /* Somebody goes on with it: it is not to be taken for left (gc.c). */
  (void) futimens (layout, NULL);
  op->intact = true;
  for (unsigned i = 0; i < op->nparts && op->intact; ++i) {
    int there = check_part (layout, &op->parts[i], &rec);
    if (there < 0)
      return esp_try_errno (t, "read: layout");
    op->intact = there;
  }
  return 0;
}

/* Copy N bytes; the kernel shares them where it can. */
static int
copy_range (int from, uint64_t at, int to, uint64_t n)
{
  loff_t in = (loff_t) at;
  CLEANUP_FREE char *buf = NULL;

  while (n) {
    ssize_t k = copy_file_range (from, &in, to, NULL, n, 0);
    if (k == 0)
      errno = EIO;
    if (k <= 0)
      break;
    n -= (uint64_t) k;
  }
  if (n == 0)
    return 0;
  if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP
      && errno != ENOSYS)
    return -1;
  buf = malloc (1 << 20);
  while (buf && n) {
    size_t k = n < 1 << 20 ? (size_t) n : 1 << 20;
    off_t end = lseek (to, 0, SEEK_CUR);
    if (end < 0 || esp_pread_all (from, buf, k, (uint64_t) in) < 0
        || esp_pwrite_all (to, buf, k, (uint64_t) end) < 0
        || lseek (to, (off_t) k, SEEK_CUR) < 0)
      return -1;
    in += (loff_t) k;
    n -= k;
  }
  return buf ? 0 : -1;
}

static int
append_part (int dir, int data, int to, const struct esp_part *p,
             const struct record *rec, struct esp_try *t)
{
  char name[16];

  if (rec->offset != OWN_FILE)
    return copy_range (data, rec->offset, to, rec->size) == 0 ? 0
      : esp_try_errno (t, "copy");
  snprintf (name, sizeof name, "%u", p->number);
  CLEANUP_CLOSE int fd = openat (dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 || copy_range (fd, 0, to, rec->size) < 0)
    return esp_try_errno (t, "copy");
  return 0;
}

/* Put the parts together as the file "whole". */
static int
assemble (int dir, int layout, int data, const struct esp_op *op,
          struct esp_try *t)
{
  CLEANUP_CLOSE int to = openat (dir, "whole", O_RDWR | O_CREAT | O_TRUNC
                                 | O_CLOEXEC | O_NOFOLLOW, 0644);
  struct record rec;

  if (to < 0)
    return esp_try_errno (t, "whole");
  for (unsigned i = 0; i < op->nparts; ++i)
    if (check_part (layout, &op->parts[i], &rec) != 1
        || append_part (dir, data, to, &op->parts[i], &rec, t) < 0)
      return *t->why ? -1 : esp_try_fail (t, EIO, "a part is gone");
  return fsync (to) == 0 ? 0 : esp_try_errno (t, "fsync");
}

/* Are all parts there, and do they lie in DATA one after another?  Returns
 * 1, 0, -1 with T filled; *SIZE is their sum.
 */
static int
in_order (int layout, const struct esp_op *op, uint64_t *size,
          struct esp_try *t)
{
  struct record rec;
  bool ordered = true;

  *size = 0;
  for (unsigned i = 0; i < op->nparts; ++i) {
    int there = check_part (layout, &op->parts[i], &rec);
    if (there < 0)
      return esp_try_errno (t, "read: layout");
    if (!there)
      return esp_try_fail (t, EPROTO, "part %u is not there as it was put",
                           op->parts[i].number);
    ordered = ordered && rec.offset == *size;
    *size += rec.size;
  }
  return ordered;
}

/* Set the file's time as a put does, so that its version is its own. */
static int
finish (int fd, uint64_t size, struct esp_object *out, struct esp_try *t)
{
  struct timespec times[2];
  struct stat st;

  clock_gettime (CLOCK_REALTIME, &times[0]);
  times[1] = times[0];
  if (ftruncate (fd, (off_t) size) < 0 || futimens (fd, times) < 0
      || fsync (fd) < 0 || fstat (fd, &st) < 0)
    return esp_try_errno (t, "fsync");
  esp_dir_object (&st, out);
  return 0;
}

/* The upload is done, or given up. */
static int
remove_upload (int root, const struct esp_op *op, struct esp_try *t)
{
  char caught[300] = "";
  CLEANUP_CLOSE int uploads = esp_dir_open (root, ESP_DIR_UPLOADS, false, t);

  if (uploads < 0)
    return -1;
  struct esp_catch before = esp_catch_begin (caught, sizeof caught);
  int e = esp_remove_tree (uploads, op->id);
  esp_catch_end (before);
  return e < 0 ? esp_try_fail (t, errno, "%s", caught) : 0;
}

int
esp_dir_parts_end (struct esp_remote *r, struct esp_op *op,
                   struct esp_try *t)
{
  CLEANUP_CLOSE int root = -1;
  CLEANUP_CLOSE int dir = open_upload (r, op, &root, t);
  CLEANUP_CLOSE int layout = dir < 0 ? -1 : open_file (dir, "layout", t);
  CLEANUP_CLOSE int data = layout < 0 ? -1 : open_file (dir, "data", t);
  uint64_t size;

  if (data < 0)
    return -1;
  int ordered = in_order (layout, op, &size, t);
  if (ordered < 0)
    return -1;
  if (!ordered) {
    if (assemble (dir, layout, data, op, t) < 0)
      return -1;
    close (data);
    data = open_file (dir, "whole", t);
  }
  if (data < 0 || finish (data, size, &op->out, t) < 0
      || esp_dir_link (r, root, dir, ordered ? "data" : "whole", op->name, t)
         < 0)
    return -1;
  /* The object is there: what is left over harms nobody. */
  struct esp_try ignored = { 0 };
  if (remove_upload (root, op, &ignored) < 0)
    esp_debug ("%s: upload %s: %s", r->path, op->id, ignored.why);
  return 0;
}

int
esp_dir_parts_abort (struct esp_remote *r, struct esp_op *op,
                     struct esp_try *t)
{
  CLEANUP_CLOSE int root = -1;
  CLEANUP_CLOSE int dir = open_upload (r, op, &root, t);

  if (dir < 0)
    return root >= 0 && t->err == ENOENT ? 0 : -1;
  return remove_upload (root, op, t);
}
