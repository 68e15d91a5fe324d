/* SPDX-License-Identifier: BSD-3-Clause */
/* What interrupted writers left in a directory: files in .tmp, uploads in
 * .uploads.  An id is the path below the directory.  An upload's age is that
 * of whatever in it changed last: every part that is put changes its layout.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "center/remote-internal.h"
#include "util/file.h"

/* --- all that there are --------------------------------------------------------- */

struct listing {
  struct esp_op *op;
  const char *where;            /* ESP_DIR_TMP, ESP_DIR_UPLOADS */
};

static int
add (struct listing *l, const char *object, const char *name)
{
  CLEANUP_FREE char *id = esp_asprintf ("%s/%s", l->where, name);

  return id ? esp_op_upload (l->op, object, id, 0) : -1;
}

static int
add_file (void *arg, int dirfd, const char *name)
{
  struct stat st;

  if (fstatat (dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0
      || !S_ISREG (st.st_mode))
    return 0;
  return add (arg, "", name);
}

static int
add_upload (void *arg, int dirfd, const char *name)
{
  CLEANUP_CLOSE int dir = esp_open_dir (dirfd, name);
  CLEANUP_FREE char *object = NULL;
  size_t len;

  if (dir < 0)
    return 0;
  /* Who was killed at the very beginning left no name. */
  if (esp_read_file (dir, "name", 2000, &object, &len) < 0
      || !esp_object_name_ok (object))
    return add (arg, "", name);
  return add (arg, object, name);
}

static int
list (int root, struct esp_op *op, const char *where,
      int (*fn) (void *, int, const char *), struct esp_try *t)
{
  CLEANUP_CLOSE int dir = esp_dir_open (root, where, false, t);
  struct listing l = { op, where };
  char caught[300] = "";

  if (dir < 0)
    return t->err == ENOENT ? 0 : -1;
  struct esp_catch before = esp_catch_begin (caught, sizeof caught);
  int e = esp_each_entry (dir, fn, &l);
  esp_catch_end (before);
  return e == 0 ? 0 : esp_try_fail (t, errno, "%s",
                                    *caught ? caught : strerror (errno));
}

int
esp_dir_uploads (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  CLEANUP_CLOSE int root = esp_dir_root (r, t);

  esp_upload_list_clear (&op->uploads);
  if (root < 0)
    return -1;
  return list (root, op, ESP_DIR_TMP, add_file, t) < 0
    || list (root, op, ESP_DIR_UPLOADS, add_upload, t) < 0 ? -1 : 0;
}

/* --- one ------------------------------------------------------------------------------ */

/* Open the directory of OP->id, *NAME is its place there. */
static int
open_place (struct esp_remote *r, const struct esp_op *op, const char **name,
            struct esp_try *t)
{
  static const char *const places[] = { ESP_DIR_TMP, ESP_DIR_UPLOADS };
  CLEANUP_CLOSE int root = esp_dir_root (r, t);

  if (root < 0)
    return -1;
  for (unsigned i = 0; i < 2; ++i) {
    size_t n = strlen (places[i]);
    if (strncmp (op->id, places[i], n) != 0 || op->id[n] != '/')
      continue;
    *name = op->id + n + 1;
    if (**name && **name != '.' && !strchr (*name, '/'))
      return esp_dir_open (root, places[i], false, t);
  }
  return esp_try_fail (t, EINVAL, "%s: nothing of ours lies there", op->id);
}

static int
count_file (void *arg, int dirfd, const char *name)
{
  struct esp_upload *u = arg;
  struct stat st;

  if (fstatat (dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return errno == ENOENT ? 0 : -1;
  if (st.st_mtime > 0 && (uint64_t) st.st_mtime > u->changed)
    u->changed = (uint64_t) st.st_mtime;
  if (S_ISREG (st.st_mode))
    u->bytes += (uint64_t) st.st_size;
  return 0;
}

int
esp_dir_uploads_look (struct esp_remote *r, struct esp_op *op,
                      struct esp_try *t)
{
  struct esp_upload *u = op->upload;
  struct stat st;
  const char *name;
  CLEANUP_CLOSE int place = open_place (r, op, &name, t);

  if (place < 0)
    return -1;
  u->changed = u->bytes = 0;
  if (fstatat (place, name, &st, AT_SYMLINK_NOFOLLOW) < 0
      || count_file (u, place, name) < 0)
    return esp_try_errno (t, "stat");
  if (!S_ISDIR (st.st_mode))
    return 0;
  CLEANUP_CLOSE int dir = esp_open_dir (place, name);
  if (dir < 0 || esp_each_entry (dir, count_file, u) < 0)
    return esp_try_errno (t, "open");
  return 0;
}

int
esp_dir_uploads_remove (struct esp_remote *r, struct esp_op *op,
                        struct esp_try *t)
{
  char caught[300] = "";
  const char *name;
  CLEANUP_CLOSE int place = open_place (r, op, &name, t);

  if (place < 0)
    return t->err == ENOENT ? 0 : -1;
  struct esp_catch before = esp_catch_begin (caught, sizeof caught);
  int e = esp_remove_tree (place, name);
  esp_catch_end (before);
  return e == 0 ? 0 : esp_try_fail (t, errno, "%s", caught);
}
