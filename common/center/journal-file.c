/* SPDX-License-Identifier: BSD-3-Clause */
/* The files of journals: tmp/push-UUID-VARIANT:CENTER, locked (flock) by the
 * push that works with it; a second push of the same waits for the first.
 * ":" is in no name of a variant, so that a name has one meaning only.
 *
 * `store gc` leaves them alone for a week, then ends their uploads, so
 * that what lies at the center costs nobody anything, and removes them.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "center/center-internal.h"
#include "center/journal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define JOURNAL_MAX (1u << 30)
#define NAME_MAX_ 256

static const char *
journal_name (const char *center, const esp_uuid *uuid, const char *variant,
              char buf[NAME_MAX_])
{
  char text[ESP_UUID_TEXT];

  snprintf (buf, NAME_MAX_, "push-%s-%s:%s", esp_uuid_text (uuid, text),
            variant, center);
  return buf;
}

/* Is FD still the file NAME?  The push before us may have removed it. */
static bool
still_there (int dirfd, const char *name, int fd)
{
  struct stat a, b;

  return fstat (fd, &a) == 0 && a.st_nlink > 0 &&
    fstatat (dirfd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
    a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int
lock_file (int dirfd, const char *name)
{
  CLEANUP_CLOSE int fd = -1;

  for (;;) {
    fd = openat (dirfd, name, O_RDWR|O_CREAT|O_APPEND|O_CLOEXEC|O_NOFOLLOW,
                 0600);
    if (fd == -1) {
      esp_error ("open: tmp/%s: %m", name);
      return -1;
    }
    if (esp_lock (fd, true) == -1) {
      if (errno == EWOULDBLOCK)
        errno = EBUSY;
      else
        esp_error ("flock: tmp/%s: %m", name);
      return -1;
    }
    if (still_there (dirfd, name, fd))
      return esp_steal_fd (&fd);
    close (esp_steal_fd (&fd));
  }
}

static int
read_whole (int fd, const char *name, char **buf, size_t *len)
{
  struct stat st;

  if (fstat (fd, &st) == -1 || st.st_size > JOURNAL_MAX) {
    esp_error ("tmp/%s: is no journal of a push: remove it", name);
    return -1;
  }
  *len = (size_t) st.st_size;
  *buf = malloc (*len + 1);
  if (!*buf)
    return center_no_memory ();
  if (esp_pread_all (fd, *buf, *len, 0) == 0)
    return 0;
  esp_error ("read: tmp/%s: %m", name);
  return -1;
}

/* What the file has; what cannot be believed at its end is cut off. */
static int
load (int fd, const char *name, struct journal *j)
{
  CLEANUP_FREE char *buf = NULL;
  size_t len, valid;

  if (read_whole (fd, name, &buf, &len) == -1 ||
      journal_parse (buf, len, j, &valid) == -1)
    return -1;
  if (valid == len)
    return 0;
  esp_debug ("tmp/%s: %zu bytes at its end are not whole", name, len - valid);
  if (ftruncate (fd, (off_t) valid) == 0 && fdatasync (fd) == 0)
    return 0;
  esp_error ("truncate: tmp/%s: %m", name);
  return -1;
}

int
journal_open (struct esp_store *store, const char *center,
              const esp_uuid *uuid, const char *variant, struct journal *j)
{
  char name[NAME_MAX_];
  CLEANUP_CLOSE int fd = -1;
  int dirfd = esp_store_tmp_fd (store);

  memset (j, 0, sizeof *j);
  journal_name (center, uuid, variant, name);
  if ((fd = lock_file (dirfd, name)) == -1)
    return -1;
  if (load (fd, name, j) == -1 || esp_sync_dir (dirfd) == -1) {
    journal_clear (j);
    return -1;
  }
  return esp_steal_fd (&fd);
}

int
journal_append (int fd, void *buf, size_t len)
{
  CLEANUP_FREE void *mine = buf;
  ssize_t n;

  if (!mine)
    return center_no_memory ();
  /* One write, at the end; a torn one is what the checksum is for. */
  do
    n = write (fd, mine, len);
  while (n == -1 && errno == EINTR);
  if (n >= 0 && (size_t) n != len)
    errno = ENOSPC;
  if (n == (ssize_t) len && fdatasync (fd) == 0)
    return 0;
  esp_error ("write: the journal of this push in the store's tmp: %m");
  return -1;
}

int
journal_truncate (int fd)
{
  if (ftruncate (fd, 0) == 0 && fdatasync (fd) == 0)
    return 0;
  esp_error ("truncate: the journal of this push in the store's tmp: %m");
  return -1;
}

int
journal_remove (struct esp_store *store, const char *center,
                const esp_uuid *uuid, const char *variant)
{
  char name[NAME_MAX_];

  journal_name (center, uuid, variant, name);
  if (unlinkat (esp_store_tmp_fd (store), name, 0) == 0 || errno == ENOENT)
    return 0;
  esp_error ("unlink: tmp/%s: %m", name);
  return -1;
}

/* --- gc -------------------------------------------------------------------- */

struct gc {
  struct esp_store *store;
  bool dry_run;
  void (*fn) (void *arg, const char *what, uint64_t bytes);
  void *arg;
};

/* End the upload of J, when the center can be asked. */
static void
abort_upload (struct gc *g, const struct journal *j)
{
  char why[512] = "";
  struct esp_catch outer;
  struct esp_center *center;

  if (!j->begun || j->ended)
    return;
  outer = esp_catch_begin (why, sizeof why);
  center = esp_center_open (g->store, j->begin.center);
  if (center && strcmp (center->config.url, j->begin.url) == 0)
    (void) esp_remote_parts_abort (center->remote, j->begin.object,
                                   j->begin.id);
  esp_catch_end (outer);
  esp_center_close (center);
  if (why[0])
    esp_warning ("%s: an upload that was never finished may still lie there",
                 why);
}

static int
gc_file (void *arg, int dirfd, const char *name)
{
  struct gc *g = arg;
  CLEANUP_CLOSE int fd = -1;
  struct journal j = { 0 };
  char what[NAME_MAX_ + 8];
  struct stat st;

  if (strncmp (name, "push-", 5) != 0)
    return 0;
  fd = openat (dirfd, name, O_RDWR|O_APPEND|O_CLOEXEC|O_NOFOLLOW);
  if (fd == -1 || esp_lock (fd, true) == -1 || fstat (fd, &st) == -1 ||
      st.st_mtime + JOURNAL_AGE_MAX > time (NULL))
    return 0;                   /* at work, or young enough to go on */
  snprintf (what, sizeof what, "tmp/%s", name);
  if (!g->dry_run) {
    if (load (fd, name, &j) == 0)
      abort_upload (g, &j);
    journal_clear (&j);
    unlinkat (dirfd, name, 0);
  }
  if (g->fn)
    g->fn (g->arg, what, (uint64_t) st.st_size);
  return 0;
}

int
esp_push_gc (struct esp_store *store, bool dry_run,
             void (*fn) (void *arg, const char *what, uint64_t bytes),
             void *arg)
{
  struct gc g = { store, dry_run, fn, arg };

  return esp_each_entry (esp_store_tmp_fd (store), gc_file, &g);
}
