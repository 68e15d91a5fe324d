/* SPDX-License-Identifier: BSD-3-Clause */
/* The files of one overlay: directory, lock, document; opening them safely
 * beside other processes, and removing them so that a crash in between
 * leaves either the overlay or nothing (docs/overlay.md, "Files").
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "overlay/internal.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"

/* How often, and how long, a lock is tried again: `overlay list` and the
 * removal of an expired overlay hold it for an instant.
 */
#define LOCK_TRIES 10
#define LOCK_WAIT_NS 10000000

static const char *const mode_names[] = {
  [ESP_OVERLAY_KEEP] = "keep",
  [ESP_OVERLAY_DISCARD] = "discard",
};

void
files_boot_id (char boot_id[40])
{
  struct esp_holder self;

  esp_holder_self (&self);
  memcpy (boot_id, self.boot_id, 40);
}

/* --- document ----------------------------------------------------------- */

static int
parse_mode (const char *s, enum esp_overlay_mode *mode)
{
  for (unsigned i = 0; s && i < 2; ++i)
    if (strcmp (s, mode_names[i]) == 0) {
      *mode = i;
      return 0;
    }
  return -1;
}

static int
parse_doc (json_t *root, struct overlay_doc *doc)
{
  bool bad = false;
  const char *mode = esp_doc_string (root, "mode", &bad);
  const char *tip = esp_doc_string (root, "tip", &bad);
  const char *boot_id = esp_doc_string (root, "boot-id", &bad);

  memset (doc, 0, sizeof *doc);
  doc->size = esp_doc_u64 (root, "size", 0, &bad);
  doc->created = esp_doc_u64 (root, "created", 0, &bad);
  uint64_t grace = esp_doc_u64 (root, "grace", 0, &bad);
  doc->grace = (unsigned) grace;
  doc->clone = json_is_true (json_object_get (root, "clone"));
  if (bad || grace > UINT_MAX || doc->size > ESP_DISK_MAX ||
      parse_mode (mode, &doc->mode) == -1 ||
      (tip && esp_uuid_parse (tip, &doc->tip) == -1) ||
      (boot_id && strlen (boot_id) >= sizeof doc->boot_id))
    return -1;
  if (boot_id)
    strcpy (doc->boot_id, boot_id);
  return 0;
}

int
files_load_doc (int dir_fd, struct overlay_doc *doc)
{
  json_t *root = esp_doc_load (dir_fd, ESP_OVERLAY_DOC, OVERLAY_KIND,
                               OVERLAY_VERSION);

  if (!root)
    return -1;
  int r = parse_doc (root, doc);
  json_decref (root);
  if (r == -1) {
    errno = EBADMSG;
    esp_error ("a field of its document is wrong");
  }
  return r;
}

int
files_damaged (const struct esp_overlay_id *id, const char *what)
{
  errno = EBADMSG;
  esp_error ("overlay %s/%s@%s: %s: look at it with `espalier overlay show`, "
             "or begin anew with `espalier overlay reset`",
             id->venue, id->disk, id->client, what);
  return -1;
}

int
files_load_doc_of (int dir_fd, const struct esp_overlay_id *id,
                   struct overlay_doc *doc)
{
  char why[256] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = files_load_doc (dir_fd, doc);

  esp_catch_end (outer);
  if (r == -1 && errno == EBADMSG)
    return files_damaged (id, why);
  if (r == -1 && errno != ENOENT)
    esp_error ("overlay %s/%s@%s: %s", id->venue, id->disk, id->client, why);
  return r;
}

int
files_save_doc (int dir_fd, const struct overlay_doc *doc)
{
  char tip[ESP_UUID_TEXT];
  json_t *root = json_pack ("{s:s, s:I, s:I, s:I, s:s}",
                            "mode", mode_names[doc->mode],
                            "size", (json_int_t) doc->size,
                            "created", (json_int_t) doc->created,
                            "grace", (json_int_t) doc->grace,
                            "boot-id", doc->boot_id);

  if (root && !esp_uuid_is_null (&doc->tip) &&
      json_object_set_new (root, "tip",
                           json_string (esp_uuid_text (&doc->tip, tip))) < 0) {
    json_decref (root);
    root = NULL;
  }
  if (root && doc->clone &&
      json_object_set_new (root, "clone", json_true ()) < 0) {
    json_decref (root);
    root = NULL;
  }
  if (!root) {
    errno = ENOMEM;
    esp_error ("overlay: document: %m");
    return -1;
  }
  /* Programs that know version 1 only would take a clone for nothing. */
  int r = esp_doc_save (dir_fd, ESP_OVERLAY_DOC, OVERLAY_KIND,
                        doc->clone ? OVERLAY_VERSION : 1, root, 0600);
  json_decref (root);
  return r;
}

/* --- directories and lock ----------------------------------------------- */

int
files_open_dir (int place_fd, const struct esp_overlay_id *id)
{
  CLEANUP_CLOSE int venue = esp_open_dir (place_fd, id->venue);
  if (venue == -1)
    return -1;
  CLEANUP_CLOSE int disk = esp_open_dir (venue, id->disk);
  if (disk == -1)
    return -1;
  return esp_open_dir (disk, id->client);
}

static int
make_dirs (int place_fd, const struct esp_overlay_id *id)
{
  CLEANUP_CLOSE int venue = esp_make_dir (place_fd, id->venue, 0700);
  if (venue == -1)
    return -1;
  CLEANUP_CLOSE int disk = esp_make_dir (venue, id->disk, 0700);
  if (disk == -1)
    return -1;
  return esp_make_dir (disk, id->client, 0700);
}

/* Does ID's path still lead to the file LOCK_FD? */
static bool
still_there (int place_fd, const struct esp_overlay_id *id, int lock_fd)
{
  CLEANUP_CLOSE int dir = files_open_dir (place_fd, id);
  struct stat at_path, locked;

  return dir >= 0 &&
    fstatat (dir, ESP_OVERLAY_LOCK, &at_path, AT_SYMLINK_NOFOLLOW) == 0 &&
    fstat (lock_fd, &locked) == 0 &&
    at_path.st_dev == locked.st_dev && at_path.st_ino == locked.st_ino;
}

/* flock has no time-out, so this is the one place that tries again; not
 * for those who only look (QUIET).
 */
static int
lock_patiently (int fd, bool quiet)
{
  static const struct timespec wait = { .tv_nsec = LOCK_WAIT_NS };

  for (int i = 0; ; ++i) {
    if (esp_lock (fd, true) == 0)
      return 0;
    if (errno != EWOULDBLOCK || quiet || i == LOCK_TRIES)
      return -1;
    nanosleep (&wait, NULL);
  }
}

static int
report_busy (const struct esp_overlay_id *id, int lock_fd, bool quiet)
{
  struct esp_holder holder;
  char who[128] = "another process";

  if (esp_holder_read (lock_fd, &holder) == 0 && holder.pid)
    esp_holder_describe (&holder, who, sizeof who);
  errno = EBUSY;
  if (!quiet)
    esp_error ("overlay %s/%s@%s is in use by %s: disconnect the client first",
               id->venue, id->disk, id->client, who);
  return -1;
}

/* 1: the path changed under us, begin again. */
static int
try_lock (int place_fd, const struct esp_overlay_id *id, bool create,
          bool quiet, struct files_lock *out)
{
  CLEANUP_CLOSE int dir = create ? make_dirs (place_fd, id)
    : files_open_dir (place_fd, id);
  if (dir == -1)
    return create && errno == ENOENT ? 1 : -1;
  CLEANUP_CLOSE int lock =
    openat (dir, ESP_OVERLAY_LOCK,
            O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
  if (lock == -1)
    return create && errno == ENOENT ? 1 : -1;
  if (lock_patiently (lock, quiet) == -1)
    return errno == EWOULDBLOCK ? report_busy (id, lock, quiet) : -1;
  if (!still_there (place_fd, id, lock))
    return 1;
  out->dir_fd = esp_steal_fd (&dir);
  out->lock_fd = esp_steal_fd (&lock);
  return 0;
}

int
files_lock (int place_fd, const struct esp_overlay_id *id, bool create,
            bool quiet, struct files_lock *out)
{
  for (int i = 0; i < 100; ++i) {
    int r = try_lock (place_fd, id, create, quiet, out);
    if (r <= 0) {
      if (r == -1 && errno != EBUSY && errno != ENOENT)
        esp_error ("overlay %s/%s@%s: %m", id->venue, id->disk, id->client);
      return r;
    }
  }
  errno = EBUSY;
  esp_error ("overlay %s/%s@%s: it is removed again and again by others",
             id->venue, id->disk, id->client);
  return -1;
}

bool
files_is_held (int lock_fd)
{
  struct esp_holder holder;

  /* Not locked where nobody claims it: a lock, even a shared one for an
   * instant, is in the way of who opens the overlay just now.
   */
  if (esp_holder_read (lock_fd, &holder) == -1 || !holder.pid)
    return false;
  return esp_lock (lock_fd, false) == -1;
}

bool
files_has (int dir_fd, const char *name)
{
  return faccessat (dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int
unlink_if_there (int dir_fd, const char *name)
{
  if (unlinkat (dir_fd, name, 0) == 0 || errno == ENOENT)
    return 0;
  esp_error ("unlink: overlay's %s: %m", name);
  return -1;
}

int
files_empty (int dir_fd)
{
  /* The map first: without it, data means nothing. */
  if (unlink_if_there (dir_fd, OVERLAY_MAP) == -1 ||
      unlink_if_there (dir_fd, OVERLAY_MAP ".new") == -1)
    return -1;
  if (unlink_if_there (dir_fd, OVERLAY_DATA) == -1)
    return -1;
  return unlink_if_there (dir_fd, ESP_OVERLAY_DOC);
}

int
files_remove (int place_fd, const struct esp_overlay_id *id, int dir_fd)
{
  if (files_empty (dir_fd) == -1)
    return -1;

  CLEANUP_CLOSE int venue = esp_open_dir (place_fd, id->venue);
  CLEANUP_CLOSE int disk = venue >= 0 ? esp_open_dir (venue, id->disk) : -1;
  /* Takes what else is in the directory, the lock among it. */
  if (disk >= 0 && esp_remove_tree (disk, id->client) == -1)
    return -1;
  /* Parents go when they are empty; ENOTEMPTY is the usual case. */
  if (venue >= 0 && unlinkat (venue, id->disk, AT_REMOVEDIR) == 0)
    unlinkat (place_fd, id->venue, AT_REMOVEDIR);
  return 0;
}

int
files_sync_dirs (int place_fd, const struct esp_overlay_id *id, int dir_fd)
{
  CLEANUP_CLOSE int venue = esp_open_dir (place_fd, id->venue);
  CLEANUP_CLOSE int disk = venue >= 0 ? esp_open_dir (venue, id->disk) : -1;

  if (disk == -1 || esp_sync_dir (dir_fd) == -1 ||
      esp_sync_dir (disk) == -1 || esp_sync_dir (venue) == -1 ||
      esp_sync_dir (place_fd) == -1) {
    esp_error ("fsync: directories of overlay %s/%s@%s: %m",
               id->venue, id->disk, id->client);
    return -1;
  }
  return 0;
}

enum fate
files_fate (int dir_fd, int lock_fd, const struct overlay_doc *doc,
            int64_t now, unsigned grace, int64_t *deadline)
{
  struct esp_holder holder;
  struct stat st;
  char boot_id[40];
  int64_t now_or_then = now;

  if (!files_has (dir_fd, OVERLAY_MAP))
    return doc->clone ? FATE_KEEP : FATE_OVER;
  if (doc->mode != ESP_OVERLAY_DISCARD)
    return FATE_KEEP;
  files_boot_id (boot_id);
  if (strcmp (boot_id, doc->boot_id) != 0)
    return FATE_OVER;
  /* A holder that did not say good-bye: its grace begins when somebody
   * finds it.
   */
  if (esp_holder_read (lock_fd, &holder) == 0 && holder.pid == 0 &&
      fstat (lock_fd, &st) == 0)
    now_or_then = st.st_mtime;
  *deadline = files_deadline (now_or_then, grace);
  return *deadline > now ? FATE_GRACE : FATE_OVER;
}

void
files_begin_grace (int lock_fd)
{
  struct esp_holder holder;

  if (esp_holder_read (lock_fd, &holder) == 0 && holder.pid) {
    esp_holder_erase (lock_fd);
    futimens (lock_fd, NULL);
  }
}
