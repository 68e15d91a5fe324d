/* SPDX-License-Identifier: BSD-3-Clause */
/* Writing a restore point as an image of others.
 *
 * The image is written beside its place, synced, and then renamed, so that
 * the place has nothing, or what was there, or all of it.  Only data is
 * written, and of that only what is not zero.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>

#include "image/image-internal.h"
#include "util/bits.h"
#include "util/file.h"
#include "util/host.h"

struct export {
  const char *path;
  char *tmp;                    /* beside PATH; NULL when it is in place */
  int dir;                      /* the directory of both */
  int fd;                       /* of tmp */
  struct esp_server *server;    /* NULL: raw */
};

static void
export_clear (struct export *e)
{
  int saved = errno;

  esp_server_stop (e->server);
  if (e->tmp)
    (void) unlink (e->tmp);
  free (e->tmp);
  if (e->fd >= 0)
    close (e->fd);
  if (e->dir >= 0)
    close (e->dir);
  errno = saved;
}

/* --- the two formats ------------------------------------------------------------ */

static int
put (struct export *e, const char *buf, uint64_t len, uint64_t offset)
{
  if (e->server)
    return esp_server_write (e->server, buf, len, offset);
  if (esp_pwrite_all (e->fd, buf, len, offset) == 0)
    return 0;
  esp_error ("pwrite: %s: %m", e->tmp);
  return -1;
}

/* FN of esp_source_read. */
static int
put_run (void *arg, uint64_t offset, uint64_t len, const void *data)
{
  struct export *e = arg;
  const char *buf = data;
  uint64_t from = 0, at, k;

  if (buf == NULL)
    return 0;
  for (at = 0; at < len; at += k) {
    k = len - at < ESP_BLOCK_SIZE ? len - at : ESP_BLOCK_SIZE;
    if (!esp_is_zero (buf + at, k))
      continue;
    if (at > from && put (e, buf + from, at - from, offset + from) == -1)
      return -1;
    from = at + k;
  }
  return at > from ? put (e, buf + from, at - from, offset + from) : 0;
}

static int
start_raw (struct export *e, uint64_t size)
{
  if (ftruncate (e->fd, (off_t) size) == 0)
    return 0;
  esp_error ("ftruncate: %s: %m", e->tmp);
  return -1;
}

static int
start_qemu (struct export *e, const char *format, uint64_t size)
{
  CLEANUP_FREE char *qpath = esp_qemu_path (e->tmp);
  CLEANUP_FREE char *bytes = esp_asprintf ("%" PRIu64, size);
  CLEANUP_FREE char *text = NULL;
  const char *argv[] = { "qemu-img", "create", "-q", "-f", format, "--",
    qpath, bytes, NULL };
  int r;

  if (qpath == NULL || bytes == NULL || (r = esp_run (argv, true, &text)) == -1)
    return -1;
  if (r == 127) {
    errno = ENOENT;
    esp_error ("%s: images in the format %s are made by qemu-img, which is "
               "not installed (package qemu-utils)", e->path, format);
    return -1;
  }
  if (r != 0) {
    errno = EIO;
    esp_error ("%s: qemu-img create: %s", e->path, esp_first_line (text));
    return -1;
  }
  e->server = esp_server_start (e->tmp, format, true);
  return e->server ? 0 : -1;
}

/* --- the place --------------------------------------------------------------------- */

static int
check_place (const char *path, bool force)
{
  struct stat st;

  if (lstat (path, &st) == -1) {
    if (errno == ENOENT)
      return 0;
    esp_error ("stat: %s: %m", path);
    return -1;
  }
  if (!S_ISREG (st.st_mode)) {
    errno = EEXIST;
    esp_error ("%s: exists and is no plain file: it is not replaced", path);
    return -1;
  }
  if (force)
    return 0;
  errno = EEXIST;
  esp_error ("%s: exists already: use --force to replace it", path);
  return -1;
}

static int
open_place (struct export *e)
{
  CLEANUP_FREE char *copy = strdup (e->path);
  CLEANUP_FREE char *copy2 = strdup (e->path);
  const char *dir;
  mode_t mask = umask (0);

  umask (mask);
  if (copy == NULL || copy2 == NULL)
    return -1;
  dir = dirname (copy);
  e->dir = open (dir, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
  e->tmp = esp_asprintf ("%s/.%.200s.XXXXXX", dir, basename (copy2));
  if (e->dir == -1 || e->tmp == NULL) {
    esp_error ("open: %s: %m", dir);
    return -1;
  }
  e->fd = mkostemp (e->tmp, O_CLOEXEC);
  if (e->fd != -1 && fchmod (e->fd, 0666 & ~mask) == 0)
    return 0;
  esp_error ("open: %s: %m", e->tmp);
  if (e->fd == -1) {
    free (e->tmp);
    e->tmp = NULL;
  }
  return -1;
}

static int
move_in_place (struct export *e, bool force)
{
  int r;

  if (fsync (e->fd) == -1) {
    esp_error ("fsync: %s: %m", e->tmp);
    return -1;
  }
  /* link refuses what appeared there meanwhile; rename replaces it. */
  r = force ? rename (e->tmp, e->path) : link (e->tmp, e->path);
  if (r == -1 && !force && (errno == EPERM || errno == EOPNOTSUPP))
    r = renameat2 (AT_FDCWD, e->tmp, AT_FDCWD, e->path, RENAME_NOREPLACE);
  if (r == -1) {
    esp_error ("rename: %s: %m", e->path);
    return -1;
  }
  (void) unlink (e->tmp);       /* gone already after a rename */
  free (e->tmp);
  e->tmp = NULL;
  if (esp_sync_dir (e->dir) == 0)
    return 0;
  esp_error ("fsync: directory of %s: %m", e->path);
  return -1;
}

static int
export_source (struct export *e, struct esp_image_source *source, const char *format,
               bool force, esp_progress_fn progress, void *parg)
{
  int r = strcmp (format, "raw") == 0 ? start_raw (e, source->size)
    : start_qemu (e, format, source->size);

  if (r == -1 ||
      esp_source_read (source, put_run, e, progress, parg) == -1 ||
      (e->server && esp_server_flush (e->server) == -1))
    return -1;
  esp_server_stop (ESP_STEAL (e->server));
  return move_in_place (e, force);
}

int
esp_image_export (struct esp_image *image, const char *path,
                  const char *format, bool force, esp_progress_fn progress,
                  void *parg)
{
  __attribute__ ((cleanup (export_clear))) struct export e = {
    .path = path, .dir = -1, .fd = -1,
  };
  struct esp_image_source *source;
  int r;

  if (strcmp (format, "raw") != 0 && strcmp (format, "qcow2") != 0) {
    errno = EINVAL;
    esp_error ("format %s: an export is raw or qcow2", format);
    return -1;
  }
  if (check_place (path, force) == -1 || open_place (&e) == -1)
    return -1;
  source = esp_source_image (image);
  if (source == NULL)
    return -1;
  r = export_source (&e, source, format, force, progress, parg);
  esp_source_close (source);
  return r;
}
