/* SPDX-License-Identifier: BSD-3-Clause */
/* Many kept overlays at once, into which nothing was written: a disk of
 * their own for each of many clients (store/clone.c).
 *
 * A clone is a directory with its lock and its document, which says that it
 * exists although it has no map; data and map are made at the first write, as
 * of any overlay.  All clones of a disk have the same document: the pattern is
 * written and synced once, and linked.  (Nobody writes to a document; a
 * changed one is another file.)
 *
 * Nothing else is synced here: until the caller has synced the file system,
 * what makes the links durable is his note of their names beside the pattern,
 * from which they are made again.
 *
 * All names are locked before the first overlay is made, so that no client
 * gets in between, and those that exist are told all at once.
 */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "overlay/clone.h"
#include "overlay/internal.h"
#include "util/file.h"
#include "util/host.h"

static int
no_memory (void)
{
  errno = ENOMEM;
  esp_error ("malloc: overlays: %m");
  return -1;
}

/* --- the pattern ------------------------------------------------------------ */

int
esp_overlay_pattern (int dir_fd, const esp_uuid *tip, uint64_t size)
{
  struct overlay_doc doc = { .mode = ESP_OVERLAY_KEEP, .tip = *tip,
                             .size = size, .created = (uint64_t) time (NULL),
                             .clone = true };

  files_boot_id (doc.boot_id);
  return files_save_doc (dir_fd, &doc);
}

/* In the locked and empty directory of an overlay.  A file system without
 * links, or with too many of them: a copy.
 */
static int
make_one (int dir_fd, int pattern_fd)
{
  struct overlay_doc doc;

  if (linkat (pattern_fd, ESP_OVERLAY_DOC, dir_fd, ESP_OVERLAY_DOC, 0) == 0)
    return 0;
  if (errno == EMLINK || errno == EPERM || errno == EOPNOTSUPP)
    return files_load_doc (pattern_fd, &doc) == -1 ? -1
      : files_save_doc (dir_fd, &doc);
  esp_error ("link: overlay's document: %m");
  return -1;
}

/* --- many --------------------------------------------------------------------- */

struct esp_overlay_bulk {
  int overlays_fd;
  const struct esp_overlay_id *ids;
  size_t n;
  int *locks;                   /* -1: not (yet) locked */
};

/* Is there something in the locked overlay L that may be wanted? */
static bool
is_taken (const struct files_lock *l)
{
  struct overlay_doc doc;
  char drop[16];
  int64_t deadline;
  struct esp_catch outer = esp_catch_begin (drop, sizeof drop);
  int r = files_load_doc (l->dir_fd, &doc);

  esp_catch_end (outer);
  if (r == -1 && (errno != ENOENT || files_has (l->dir_fd, OVERLAY_MAP)))
    return true;                /* damage is for the operator to see */
  return r == 0 && files_fate (l->dir_fd, l->lock_fd, &doc, time (NULL),
                               doc.grace, &deadline) != FATE_OVER;
}

/* 1: it is taken (by a client who has it, or by what it has). */
static int
lock_one (struct esp_overlay_bulk *b, size_t i)
{
  struct files_lock l = { -1, -1 };

  if (files_lock (b->overlays_fd, &b->ids[i], true, true, &l) == -1)
    return errno == EBUSY ? 1 : -1;
  CLEANUP_CLOSE int dir = l.dir_fd;
  CLEANUP_CLOSE int lock = l.lock_fd;
  if (is_taken (&l))
    return 1;
  if (files_empty (dir) == -1)
    return -1;
  b->locks[i] = esp_steal_fd (&lock);
  return 0;
}

void
esp_overlay_bulk_free (struct esp_overlay_bulk *b)
{
  int saved = errno;

  if (!b)
    return;
  for (size_t i = 0; i < b->n; i++)
    if (b->locks[i] >= 0)
      close (b->locks[i]);
  free (b->locks);
  free (b);
  errno = saved;
}

ESP_DEFINE_CLEANUP (bulk, struct esp_overlay_bulk *, esp_overlay_bulk_free)

/* Most of the names that are told at once. */
#define TOLD 10

static int
refuse (const struct esp_overlay_bulk *b, const size_t *taken, size_t n)
{
  CLEANUP_FREE char *text = NULL;
  size_t size;
  {
    CLEANUP_FCLOSE FILE *f = open_memstream (&text, &size);
    for (size_t i = 0; f && i < n && i < TOLD; i++)
      fprintf (f, "%s%s/%s@%s", i ? ", " : "", b->ids[taken[i]].venue,
               b->ids[taken[i]].disk, b->ids[taken[i]].client);
    if (f && n > TOLD)
      fprintf (f, " and %zu more", n - TOLD);
  }
  errno = EEXIST;
  esp_error ("%zu of the overlays exist: %s: nothing was made; delete them "
             "(espalier overlay delete), or take other names", n,
             text ? text : "");
  return -1;
}

static int
lock_all (struct esp_overlay_bulk *b)
{
  CLEANUP_FREE size_t *taken = calloc (b->n, sizeof *taken);
  size_t n = 0;

  if (!taken)
    return no_memory ();
  for (size_t i = 0; i < b->n; i++)
    switch (lock_one (b, i)) {
    case -1: return -1;
    case 1: taken[n++] = i;
    }
  return n ? refuse (b, taken, n) : 0;
}

/* Each lock is an open file; beside them we have others. */
static int
check_open_files (size_t n)
{
  struct rlimit limit;

  esp_raise_open_files ();
  if (getrlimit (RLIMIT_NOFILE, &limit) == -1 || limit.rlim_cur >= n + 64)
    return 0;
  errno = EMFILE;
  esp_error ("%zu overlays at once need as many open files, and the limit is "
             "%ju: raise it (ulimit -Hn, or LimitNOFILE= of the service), or "
             "make fewer at once", n, (uintmax_t) limit.rlim_cur);
  return -1;
}

struct esp_overlay_bulk *
esp_overlay_bulk_lock (int overlays_fd, const struct esp_overlay_id *ids,
                       size_t n)
{
  ESP_CLEANUP (bulk) struct esp_overlay_bulk *b = NULL;

  if (check_open_files (n) == -1)
    return NULL;
  b = calloc (1, sizeof *b);
  if (!b || !(b->locks = malloc ((n + 1) * sizeof *b->locks))) {
    no_memory ();
    return NULL;
  }
  *b = (struct esp_overlay_bulk) { overlays_fd, ids, n, b->locks };
  for (size_t i = 0; i < n; i++)
    b->locks[i] = -1;
  if (lock_all (b) == 0)
    return ESP_STEAL (b);
  esp_overlay_bulk_undo (b);
  return NULL;
}

void
esp_overlay_bulk_undo (struct esp_overlay_bulk *b)
{
  int saved = errno;

  for (size_t i = 0; i < b->n; i++) {
    CLEANUP_CLOSE int dir = b->locks[i] == -1 ? -1
      : files_open_dir (b->overlays_fd, &b->ids[i]);
    /* What cannot be removed was reported, and is empty at least. */
    if (dir >= 0)
      (void) files_remove (b->overlays_fd, &b->ids[i], dir);
  }
  errno = saved;
}

int
esp_overlay_bulk_make (struct esp_overlay_bulk *b, size_t first, size_t n,
                       int pattern_fd)
{
  for (size_t i = first; i < first + n; i++) {
    CLEANUP_CLOSE int dir = files_open_dir (b->overlays_fd, &b->ids[i]);
    if (dir == -1) {
      esp_error ("overlay %s/%s@%s: %m", b->ids[i].venue, b->ids[i].disk,
                 b->ids[i].client);
      return -1;
    }
    if (make_one (dir, pattern_fd) == -1)
      return -1;
  }
  return 0;
}

/* --- after a crash ------------------------------------------------------------- */

/* What is there, made before or by a client who came meanwhile, stays. */
static int
finish_one (int overlays_fd, const struct esp_overlay_id *id, int pattern_fd)
{
  struct files_lock l = { -1, -1 };

  if (files_lock (overlays_fd, id, true, true, &l) == -1) {
    if (errno != EBUSY)
      return -1;
    esp_debug ("clone %s/%s@%s: a client has it", id->venue, id->disk,
               id->client);
    return 0;
  }
  CLEANUP_CLOSE int dir = l.dir_fd;
  CLEANUP_CLOSE int lock = l.lock_fd;
  if (is_taken (&l))
    return 0;
  (void) lock;
  return files_empty (dir) == -1 ? -1 : make_one (dir, pattern_fd);
}

int
esp_overlay_clones_finish (int overlays_fd, const struct esp_overlay_id *ids,
                           size_t n, int pattern_fd)
{
  for (size_t i = 0; i < n; i++)
    if (finish_one (overlays_fd, &ids[i], pattern_fd) == -1)
      return -1;
  return 0;
}
