/* SPDX-License-Identifier: BSD-3-Clause */
/* The operator's side of overlays.  Works on files only, beside running
 * servers: looking takes no lock where nobody claims the overlay, and
 * changing takes it.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "overlay/internal.h"
#include "util/file.h"
#include "util/host.h"

void
esp_overlay_info_clear (struct esp_overlay_info *info)
{
  free (info->venue);
  free (info->disk);
  free (info->client);
  free (info->damage);
  memset (info, 0, sizeof *info);
}

void
esp_overlay_info_list_clear (struct esp_overlay_info_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    esp_overlay_info_clear (&list->o[i]);
  free (list->o);
  memset (list, 0, sizeof *list);
}

/* --- names --------------------------------------------------------------- */

static int
hex (char c)
{
  static const char digits[] = "0123456789abcdef";
  const char *p = c ? strchr (digits, c | (c >= 'A' ? 0x20 : 0)) : NULL;

  return p ? (int) (p - digits) : -1;
}

/* What esp_path_component made S of, or S where that is not known (it was
 * too long and ends in a hash, or is not of ours).  malloced.
 */
static char *
decode (const char *s)
{
  char *out = malloc (strlen (s) + 1), *to = out;

  for (const char *p = s; out && *p; ++p) {
    if (*p != '%') {
      *to++ = *p;
      continue;
    }
    int high = hex (p[1]), low = high >= 0 ? hex (p[2]) : -1;
    if (low < 0 || high + low == 0) {
      free (out);
      return strdup (s);
    }
    *to++ = (char) (high << 4 | low);
    p += 2;
  }
  if (out)
    *to = 0;
  return out;
}

/* --- looking ------------------------------------------------------------- */

static int
note_damage (struct esp_overlay_info *info, const char *what)
{
  if (!info->damage)
    info->damage = strdup (what);
  return 0;
}

static void
look_at_doc (int dir_fd, struct esp_overlay_info *info)
{
  struct overlay_doc doc;
  char cause[256];

  esp_catch_errors (cause, sizeof cause);
  int r = files_load_doc (dir_fd, &doc);
  esp_catch_errors (NULL, 0);
  if (r == -1) {
    info->empty = errno == ENOENT && !files_has (dir_fd, OVERLAY_MAP);
    if (!info->empty)
      note_damage (info, errno == ENOENT ? "its document is missing" : cause);
    return;
  }
  info->mode = doc.mode;
  info->tip = doc.tip;
  info->size = doc.size;
  info->created = doc.created;
}

static void
look_at_lock (int dir_fd, struct esp_overlay_info *info)
{
  CLEANUP_CLOSE int lock = openat (dir_fd, ESP_OVERLAY_LOCK,
                                   O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  struct stat st;

  if (lock == -1 || fstat (lock, &st) == -1) {
    if (!info->empty)
      note_damage (info, "its lock file is missing");
    return;
  }
  info->last_seen = (uint64_t) st.st_mtime;
  if (esp_holder_read (lock, &info->holder) == -1)
    return;
  info->quota = info->holder.quota;
  info->held = files_is_held (lock);
  if (info->held)
    info->last_seen = (uint64_t) time (NULL);
}

static void
look_at_data (int dir_fd, struct esp_overlay_info *info)
{
  struct stat st;

  if (!files_has (dir_fd, OVERLAY_MAP))
    return;                     /* nothing was written */
  if (fstatat (dir_fd, OVERLAY_DATA, &st, AT_SYMLINK_NOFOLLOW) == -1)
    note_damage (info, "its data is missing");
  else
    info->used = (uint64_t) st.st_blocks * 512;
}

/* Are its map and data sound?  One that is held changes under us. */
static void
look_at_map (int dir_fd, struct esp_overlay_info *info)
{
  uint64_t want = (info->size + ESP_BLOCK_SIZE - 1) / ESP_BLOCK_SIZE
    * ESP_BLOCK_SIZE;
  char text[256] = "";
  struct esp_catch outer;
  struct stat st;

  if (info->damage || info->held || !files_has (dir_fd, OVERLAY_MAP))
    return;
  outer = esp_catch_begin (text, sizeof text);
  struct esp_map *map = esp_map_load (dir_fd, OVERLAY_MAP, info->size, false);
  esp_catch_end (outer);
  if (!map)
    note_damage (info, text);
  /* Until the first data is synced a power loss may take the length away. */
  else if (fstatat (dir_fd, OVERLAY_DATA, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           (uint64_t) st.st_size < want && esp_map_count (map, ESP_DATA) > 0)
    note_damage (info, "its data is cut short");
  esp_map_free (map);
}

static int
info_of (int dir_fd, const struct esp_overlay_id *id,
         struct esp_overlay_info *out)
{
  memset (out, 0, sizeof *out);
  out->venue = decode (id->venue);
  out->disk = decode (id->disk);
  out->client = decode (id->client);
  if (!out->venue || !out->disk || !out->client) {
    esp_overlay_info_clear (out);
    esp_error ("malloc: overlay: %m");
    return -1;
  }
  look_at_doc (dir_fd, out);
  look_at_lock (dir_fd, out);
  look_at_data (dir_fd, out);
  return 0;
}

int
esp_overlay_info (int overlays_fd, const struct esp_overlay_id *id,
                  struct esp_overlay_info *out)
{
  CLEANUP_CLOSE int dir = files_open_dir (overlays_fd, id);

  if (dir == -1 && errno == ENOENT)
    esp_error ("overlay %s/%s@%s: there is none (see 'espalier overlay list')",
               id->venue, id->disk, id->client);
  else if (dir == -1)
    esp_error ("overlay %s/%s@%s: %m", id->venue, id->disk, id->client);
  if (dir == -1 || info_of (dir, id, out) == -1)
    return -1;
  look_at_map (dir, out);
  return 0;
}

struct listing {
  struct esp_overlay_info_list *out;
  const char *names[2];
  unsigned depth;
  bool all;
};

static int
list_one (struct listing *l, int dir_fd, const char *client)
{
  const struct esp_overlay_id id = { l->names[0], l->names[1], client };
  struct esp_overlay_info *o =
    reallocarray (l->out->o, l->out->n + 1, sizeof *o);

  if (!o) {
    esp_error ("malloc: overlays: %m");
    return -1;
  }
  l->out->o = o;
  if (info_of (dir_fd, &id, &o[l->out->n]) == -1)
    return -1;
  /* Nobody ever had it: bulk clones that were not made, or a client that is
   * just coming.
   */
  o = &o[l->out->n];
  if (!l->all && o->empty && !o->damage && !o->held && !o->holder.pid)
    esp_overlay_info_clear (o);
  else
    l->out->n++;
  return 0;
}

static int
list_entry (void *arg, int dir_fd, const char *name)
{
  struct listing *l = arg;

  CLEANUP_CLOSE int sub = esp_open_dir (dir_fd, name);
  if (sub == -1)
    return 0;                   /* removed meanwhile, or not ours */
  if (l->depth == 2)
    return list_one (l, sub, name);
  l->names[l->depth++] = name;
  int r = esp_each_entry (sub, list_entry, l);
  l->depth--;
  return r;
}

static int
list (int overlays_fd, const char *venue, bool all,
      struct esp_overlay_info_list *out)
{
  struct listing l = { .out = out, .all = all };
  int r;

  memset (out, 0, sizeof *out);
  if (venue) {
    CLEANUP_FREE char *component = esp_path_component (venue);
    r = component ? list_entry (&l, overlays_fd, component) : -1;
  }
  else
    r = esp_each_entry (overlays_fd, list_entry, &l);
  if (r == -1)
    esp_overlay_info_list_clear (out);
  return r;
}

int
esp_overlay_list (int overlays_fd, const char *venue,
                  struct esp_overlay_info_list *out)
{
  return list (overlays_fd, venue, false, out);
}

int
esp_overlay_list_all (int overlays_fd, struct esp_overlay_info_list *out)
{
  return list (overlays_fd, NULL, true, out);
}

/* --- changing ------------------------------------------------------------ */

static int
lock_existing (int overlays_fd, const struct esp_overlay_id *id,
               struct files_lock *l)
{
  if (files_lock (overlays_fd, id, false, false, l) == 0)
    return 0;
  if (errno == ENOENT)
    esp_error ("overlay %s/%s@%s: there is none (see 'espalier overlay list')",
               id->venue, id->disk, id->client);
  return -1;
}

int
esp_overlay_reset (int overlays_fd, const struct esp_overlay_id *id)
{
  struct files_lock l;

  if (lock_existing (overlays_fd, id, &l) == -1)
    return -1;
  CLEANUP_CLOSE int dir = l.dir_fd;
  CLEANUP_CLOSE int lock = l.lock_fd;
  (void) lock;
  return files_remove (overlays_fd, id, dir);
}

int
esp_overlay_expire (int overlays_fd, const struct esp_overlay_id *id,
                    bool dry_run)
{
  struct overlay_doc doc;
  struct files_lock l;
  int64_t deadline;

  if (files_lock (overlays_fd, id, false, true, &l) == -1)
    return errno == EBUSY || errno == ENOENT ? 0 : -1;
  CLEANUP_CLOSE int dir = l.dir_fd;
  CLEANUP_CLOSE int lock = l.lock_fd;
  if (files_load_doc (dir, &doc) == -1) {
    if (errno != ENOENT)
      return -1;
    if (files_has (dir, OVERLAY_MAP))
      return 0;                 /* damage is for the operator to see */
  }
  else if (files_fate (dir, lock, &doc, (int64_t) time (NULL), doc.grace,
                       &deadline) != FATE_OVER) {
    if (!dry_run)
      files_begin_grace (lock);
    return 0;
  }
  return !dry_run && files_remove (overlays_fd, id, dir) == -1 ? -1 : 1;
}

/* Make the files durable: a DISCARD overlay's never were. */
static int
sync_files (int dir_fd)
{
  static const char *const names[] = { OVERLAY_DATA, OVERLAY_MAP };

  for (unsigned i = 0; i < 2; ++i) {
    CLEANUP_CLOSE int fd = openat (dir_fd, names[i],
                                   O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd == -1 || fsync (fd) == -1) {
      esp_error ("fsync: overlay's %s: %m", names[i]);
      return -1;
    }
  }
  return 0;
}

static void
nothing_written (const struct esp_overlay_id *id)
{
  errno = ENODATA;
  esp_error ("overlay %s/%s@%s: nothing was written to it",
             id->venue, id->disk, id->client);
}

static struct esp_map *
take_locked (const struct esp_overlay_id *id, const struct files_lock *l,
             struct overlay_doc *doc)
{
  int64_t deadline;

  if (files_load_doc (l->dir_fd, doc) == -1) {
    if (errno == ENOENT && files_has (l->dir_fd, OVERLAY_MAP))
      esp_error ("overlay %s/%s@%s: its document is missing",
                 id->venue, id->disk, id->client);
    else if (errno == ENOENT)
      nothing_written (id);
    return NULL;
  }
  /* Grace 1: what the thread has not removed yet may still be taken, but
   * nothing of another boot.
   */
  if (files_fate (l->dir_fd, l->lock_fd, doc, 0, 1, &deadline) == FATE_OVER) {
    nothing_written (id);
    return NULL;
  }
  if (!files_has (l->dir_fd, OVERLAY_MAP)) {
    nothing_written (id);       /* a clone */
    return NULL;
  }
  if (sync_files (l->dir_fd) == -1)
    return NULL;
  return esp_map_load (l->dir_fd, OVERLAY_MAP, doc->size, false);
}

static int
open_parent (int overlays_fd, const struct esp_overlay_id *id)
{
  CLEANUP_CLOSE int venue = esp_open_dir (overlays_fd, id->venue);

  return venue == -1 ? -1 : esp_open_dir (venue, id->disk);
}

int
esp_overlay_take (int overlays_fd, const struct esp_overlay_id *id,
                  int *parent_fd, int *dir_fd, int *lock_fd,
                  struct esp_map **map, esp_uuid *tip, uint64_t *size)
{
  struct files_lock l;
  struct overlay_doc doc;

  if (lock_existing (overlays_fd, id, &l) == -1)
    return -1;
  CLEANUP_CLOSE int dir = l.dir_fd;
  CLEANUP_CLOSE int lock = l.lock_fd;
  CLEANUP_CLOSE int parent = open_parent (overlays_fd, id);
  if (parent == -1) {
    esp_error ("overlay %s/%s@%s: %m", id->venue, id->disk, id->client);
    return -1;
  }
  *map = take_locked (id, &l, &doc);
  if (!*map)
    return -1;
  *tip = doc.tip;
  *size = doc.size;
  *parent_fd = esp_steal_fd (&parent);
  *dir_fd = esp_steal_fd (&dir);
  *lock_fd = esp_steal_fd (&lock);
  return 0;
}
