/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening and closing overlays.
 *
 * An overlay that is open in this process has an entry in the place's
 * registry.  The first connection makes the entry, opens the files without
 * the registry's mutex, and tells those who wait; the last one closes them
 * in the same way.  data and map are made at the first write only.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "overlay/internal.h"
#include "util/file.h"
#include "util/guard.h"
#include "util/host.h"

/* --- the object --------------------------------------------------------- */

static void
overlay_free (struct esp_overlay *o)
{
  if (o->mapping) {
    munmap ((void *) o->mapping, o->mapping_size);
    esp_guard_release (o->mapping_size);
  }
  esp_map_free (o->map);
  if (o->data_fd >= 0)
    close (o->data_fd);
  if (o->lock_fd >= 0)
    close (o->lock_fd);
  if (o->dir_fd >= 0)
    close (o->dir_fd);
  for (unsigned i = 0; i < OVERLAY_STRIPES; ++i)
    pthread_rwlock_destroy (&o->stripes[i]);
  pthread_mutex_destroy (&o->setup);
  pthread_mutex_destroy (&o->flush_mutex);
  pthread_cond_destroy (&o->flush_cond);
  free (o->venue);
  free (o->disk);
  free (o->client);
  free (o);
}

ESP_DEFINE_CLEANUP (overlay, struct esp_overlay *, overlay_free)

static void
init_locks (struct esp_overlay *o)
{
  pthread_rwlockattr_t attr;

  /* A fill must not starve behind a stream of writers. */
  pthread_rwlockattr_init (&attr);
  pthread_rwlockattr_setkind_np
    (&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  for (unsigned i = 0; i < OVERLAY_STRIPES; ++i)
    pthread_rwlock_init (&o->stripes[i], &attr);
  pthread_rwlockattr_destroy (&attr);
  pthread_mutex_init (&o->setup, NULL);
  pthread_mutex_init (&o->flush_mutex, NULL);
  pthread_cond_init (&o->flush_cond, NULL);
}

static struct esp_overlay *
overlay_new (struct esp_overlay_place *p, const struct esp_overlay_id *id,
             const esp_uuid *tip, uint64_t size)
{
  ESP_CLEANUP (overlay) struct esp_overlay *o = calloc (1, sizeof *o);

  if (!o)
    return NULL;
  init_locks (o);
  o->data_fd = o->dir_fd = o->lock_fd = -1;
  o->refs = 1;
  o->place = p;
  o->mode = p->params.mode;
  o->tip = *tip;
  o->size = size;
  o->spills = o->mode != ESP_OVERLAY_MEMORY;
  o->named = o->spills && id;
  o->quota_blocks = p->params.quota ? p->params.quota >> ESP_BLOCK_SHIFT
    : UINT64_MAX;
  if (id && (!(o->venue = strdup (id->venue)) ||
             !(o->disk = strdup (id->disk)) ||
             !(o->client = strdup (id->client))))
    return NULL;
  return ESP_STEAL (o);
}

/* --- data --------------------------------------------------------------- */

static uint64_t
data_size (const struct esp_overlay *o)
{
  return esp_blocks (o->size) << ESP_BLOCK_SHIFT;
}

void
overlay_map_data (struct esp_overlay *o)
{
  size_t n = data_size (o);
  void *p;

  if (n == 0 || esp_guard_init () == -1 || esp_guard_reserve (n) == -1)
    return;
  p = mmap (NULL, n, PROT_READ, MAP_SHARED, o->data_fd, 0);
  if (p == MAP_FAILED) {
    esp_guard_release (n);
    return;
  }
  o->mapping = p;
  o->mapping_size = n;
}

/* A file without a name in the place. */
static int
open_unlinked (int place_fd)
{
  int fd = openat (place_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
    return fd;
  /* A file system without O_TMPFILE. */
  char name[ESP_UUID_TEXT];
  esp_uuid uuid;
  esp_uuid_new (&uuid);
  esp_uuid_text (&uuid, name);
  fd = openat (place_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0)
    unlinkat (place_fd, name, 0);
  return fd;
}

static int
open_data (struct esp_overlay *o)
{
  if (o->named)
    return openat (o->dir_fd, OVERLAY_DATA,
                   O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (o->spills)
    return open_unlinked (o->place->fd);
  return memfd_create ("espalier-overlay", MFD_CLOEXEC);
}

static int
save_doc (struct esp_overlay *o)
{
  struct overlay_doc doc = { .mode = o->mode, .tip = o->tip,
                             .size = o->size, .created = o->created,
                             .grace = o->place->params.grace };

  strcpy (doc.boot_id, o->place->boot_id);
  return files_save_doc (o->dir_fd, &doc);
}

static int
setup_locked (struct esp_overlay *o)
{
  CLEANUP_CLOSE int fd = open_data (o);

  if (fd == -1 || ftruncate (fd, (off_t) data_size (o)) == -1) {
    esp_error ("overlay of %s: data of %" PRIu64 " bytes: %m",
               overlay_who (o), data_size (o));
    return -1;
  }
  /* The document first: who has a map, has one. */
  if (o->named && ((!o->clone && save_doc (o) == -1) ||
                   esp_map_create (o->map, o->dir_fd, OVERLAY_MAP) == -1))
    return -1;
  o->data_fd = esp_steal_fd (&fd);
  overlay_map_data (o);
  return 0;
}

int
overlay_setup (struct esp_overlay *o, int *err)
{
  if (overlay_is_ready (o))
    return 0;
  ESP_LOCK_SCOPE (&o->setup);
  if (overlay_is_ready (o))
    return 0;
  if (setup_locked (o) == -1) {
    *err = errno;
    return -1;
  }
  atomic_store_explicit (&o->ready, true, memory_order_release);
  return 0;
}

/* --- opening a named overlay -------------------------------------------- */

/* Nothing is written before the first write: a client that only looks (a
 * list of exports opens all of them) costs no sync.
 */
static int
begin_anew (struct esp_overlay *o)
{
  if (files_empty (o->dir_fd) == -1)
    return -1;
  o->created = time (NULL);
  o->map = esp_map_new (o->size);
  return o->map ? 0 : -1;
}

static int
damaged (const struct esp_overlay *o, const char *what)
{
  const struct esp_overlay_id id = { o->venue, o->disk, o->client };

  return files_damaged (&id, what);
}

/* Its map; the error says whose it is. */
static struct esp_map *
load_map (const struct esp_overlay *o)
{
  char why[256] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  struct esp_map *map = esp_map_load (o->dir_fd, OVERLAY_MAP, o->size, true);

  esp_catch_end (outer);
  if (!map && errno == EBADMSG)
    damaged (o, why);
  else if (!map)
    esp_error ("overlay %s/%s@%s: %s", o->venue, o->disk, o->client, why);
  return map;
}

static int
load_files (struct esp_overlay *o)
{
  struct stat st;

  o->map = load_map (o);
  if (!o->map)
    return -1;
  uint64_t used = esp_map_count (o->map, ESP_DATA);
  o->data_fd = openat (o->dir_fd, OVERLAY_DATA,
                       O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (o->data_fd == -1 || fstat (o->data_fd, &st) == -1)
    return damaged (o, "its data cannot be opened");
  /* The length is synced with the first data; before that a power loss
   * may have taken it away.
   */
  if ((uint64_t) st.st_size < data_size (o) &&
      (used || ftruncate (o->data_fd, (off_t) data_size (o)) == -1))
    return damaged (o, "its data is cut short");
  atomic_store (&o->used, used);
  overlay_map_data (o);
  atomic_store_explicit (&o->ready, true, memory_order_release);
  return 0;
}

/* What is seen now was perhaps never synced: its holder died between a
 * write and the sync, or it was to be discarded.  A client that reads it and
 * then flushes must be able to count on it.
 */
static int
make_durable (struct esp_overlay *o)
{
  const struct esp_overlay_id id = { o->venue, o->disk, o->client };
  CLEANUP_CLOSE int map = openat (o->dir_fd, OVERLAY_MAP,
                                  O_RDONLY | O_CLOEXEC);

  if (map == -1 || fdatasync (o->data_fd) == -1 || fdatasync (map) == -1) {
    esp_error ("fdatasync: overlay %s/%s@%s: %m",
               o->venue, o->disk, o->client);
    return -1;
  }
  return files_sync_dirs (o->place->fd, &id, o->dir_fd);
}

static int
become_kept (struct esp_overlay *o, struct overlay_doc *doc)
{
  doc->mode = ESP_OVERLAY_KEEP;
  return make_durable (o) == -1 ? -1 : files_save_doc (o->dir_fd, doc);
}

static int
reconcile_mode (struct esp_overlay *o, struct overlay_doc *doc)
{
  if (doc->mode == o->mode)
    return 0;
  if (doc->mode == ESP_OVERLAY_DISCARD)
    return become_kept (o, doc);
  o->mode = doc->mode;
  esp_warning ("overlay %s/%s@%s was made to be kept and is kept: "
               "reset it with `espalier overlay reset` to have it discarded "
               "at each boot", o->venue, o->disk, o->client);
  return 0;
}

/* A clone into which nothing was written: as a new one, but it stays. */
static int
open_clone (struct esp_overlay *o, struct overlay_doc *doc)
{
  o->clone = true;
  o->map = esp_map_new (o->size);
  return o->map ? reconcile_mode (o, doc) : -1;
}

static int
go_on (struct esp_overlay *o, struct overlay_doc *doc)
{
  struct esp_holder before;     /* who did not erase itself */

  if (!esp_uuid_eq (&doc->tip, &o->tip) || doc->size != o->size) {
    errno = ESTALE;             /* not reported: the caller looks again */
    return -1;
  }
  o->created = doc->created;
  if (doc->clone && !files_has (o->dir_fd, OVERLAY_MAP))
    return open_clone (o, doc);
  if (load_files (o) == -1 || reconcile_mode (o, doc) == -1)
    return -1;
  if (doc->mode == ESP_OVERLAY_KEEP &&
      esp_holder_read (o->lock_fd, &before) == 0 && before.pid)
    return make_durable (o);
  return 0;
}

/* Its document, map and data, once it is locked. */
static int
open_locked (struct esp_overlay *o)
{
  const struct esp_overlay_id id = { o->venue, o->disk, o->client };
  struct overlay_doc doc;
  int64_t deadline;

  if (files_load_doc_of (o->dir_fd, &id, &doc) == -1) {
    if (errno != ENOENT)
      return -1;
    if (files_has (o->dir_fd, OVERLAY_MAP))
      return damaged (o, "its document is missing");
    return begin_anew (o);
  }
  if (files_fate (o->dir_fd, o->lock_fd, &doc, time (NULL),
                  o->place->params.grace, &deadline) == FATE_OVER)
    return begin_anew (o);
  return go_on (o, &doc);
}

static int
open_named (struct esp_overlay *o)
{
  const struct esp_overlay_id id = { o->venue, o->disk, o->client };
  struct files_lock l;
  struct esp_holder self;

  if (files_lock (o->place->fd, &id, true, false, &l) == -1)
    return -1;
  o->dir_fd = l.dir_fd;
  o->lock_fd = l.lock_fd;
  if (open_locked (o) == -1)
    return -1;
  esp_holder_self (&self);
  self.quota = o->place->params.quota;
  /* For people only: without it the lock holds as well. */
  if (esp_holder_write (o->lock_fd, &self) == -1)
    esp_debug ("overlay %s: holder: %m", o->client);
  return 0;
}

static int
open_files (struct esp_overlay *o)
{
  if (o->named)
    return open_named (o);
  if (o->spills && o->place->fd == -1) {
    errno = EINVAL;
    esp_error ("overlay: this mode needs a directory");
    return -1;
  }
  o->map = esp_map_new (o->size);
  return o->map ? 0 : -1;
}

/* --- open, close, peek -------------------------------------------------- */

static struct esp_overlay *
join_locked (struct esp_overlay *o, const esp_uuid *tip, uint64_t size)
{
  if (!esp_uuid_eq (&o->tip, tip) || o->size != size) {
    errno = ESTALE;
    return NULL;
  }
  o->refs++;
  return o;
}

/* O's entry gets its phase, or goes away when it could not be opened. */
static struct esp_overlay *
finish_open (struct esp_overlay *o, int r)
{
  struct esp_overlay_place *p = o->place;
  int saved = errno;

  if (o->client) {
    ESP_LOCK_SCOPE (&p->mutex);
    o->phase = OVERLAY_OPEN;
    if (r == -1)
      place_remove_locked (p, o);
    else
      pthread_cond_broadcast (&p->changed);
  }
  if (r == 0)
    return o;
  overlay_free (o);
  place_unref (p);
  errno = saved;
  return NULL;
}

struct esp_overlay *
esp_overlay_open (struct esp_overlay_place *place,
                  const struct esp_overlay_id *id,
                  const esp_uuid *tip, uint64_t size)
{
  ESP_CLEANUP (overlay) struct esp_overlay *o =
    overlay_new (place, id, tip, size);

  if (!o) {
    esp_error ("malloc: overlay: %m");
    return NULL;
  }
  if (id) {
    ESP_LOCK_SCOPE (&place->mutex);
    struct esp_overlay *same = place_find_locked (place, id);
    if (same)
      return join_locked (same, tip, size);
    place_add_locked (place, o);
  }
  place_ref (place);
  struct esp_overlay *opened = ESP_STEAL (o);
  return finish_open (opened, open_files (opened));
}

/* Nobody uses O any more: what of its files stays? */
static void
close_named (struct esp_overlay *o)
{
  const struct esp_overlay_id id = { o->venue, o->disk, o->client };
  unsigned grace = o->place->params.grace;
  bool ready = overlay_is_ready (o);

  if ((!ready && !o->clone) || (o->mode == ESP_OVERLAY_DISCARD && grace == 0)) {
    files_remove (o->place->fd, &id, o->dir_fd);
    return;
  }
  /* An error was reported; there is nobody else to tell, but who opens it
   * next must not take it for synced.
   */
  if (flush_last (o) == 0)
    esp_holder_erase (o->lock_fd);
  futimens (o->lock_fd, NULL);
  if (o->mode == ESP_OVERLAY_DISCARD)
    grace_begin (o->place, &id, files_deadline (time (NULL), grace));
}

void
esp_overlay_close (struct esp_overlay *o)
{
  struct esp_overlay_place *p;

  if (!o)
    return;
  p = o->place;
  if (o->client) {
    ESP_LOCK_SCOPE (&p->mutex);
    if (--o->refs)
      return;
    o->phase = OVERLAY_CLOSING;
  }
  if (o->named)
    close_named (o);
  if (o->lock_fd >= 0)
    close (o->lock_fd);         /* lets go before those who wait are told */
  o->lock_fd = -1;
  if (o->client) {
    ESP_LOCK_SCOPE (&p->mutex);
    place_remove_locked (p, o);
  }
  overlay_free (o);
  place_unref (p);
}

static int
peek_files (struct esp_overlay_place *p, const struct esp_overlay_id *id,
            struct esp_overlay_base *base)
{
  struct overlay_doc doc;
  int64_t deadline;

  CLEANUP_CLOSE int dir = files_open_dir (p->fd, id);
  CLEANUP_CLOSE int lock = dir == -1 ? -1
    : openat (dir, ESP_OVERLAY_LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (lock == -1) {
    if (errno == ENOENT)
      return 0;
    esp_error ("overlay %s/%s@%s: %m", id->venue, id->disk, id->client);
    return -1;
  }
  if (files_load_doc_of (dir, id, &doc) == -1)
    return errno == ENOENT ? 0 : -1;
  enum fate fate = files_fate (dir, lock, &doc, time (NULL),
                               p->params.grace, &deadline);
  if (fate == FATE_OVER)
    return 0;
  /* The caller is about to open it: its grace must not end in between. */
  if (fate == FATE_GRACE)
    futimens (lock, NULL);
  *base = (struct esp_overlay_base) { true, doc.tip, doc.size };
  return 0;
}

int
esp_overlay_peek (struct esp_overlay_place *place,
                  const struct esp_overlay_id *id,
                  struct esp_overlay_base *base)
{
  memset (base, 0, sizeof *base);
  {
    ESP_LOCK_SCOPE (&place->mutex);
    struct esp_overlay *o = place_find_locked (place, id);
    if (o) {
      *base = (struct esp_overlay_base) { true, o->tip, o->size };
      return 0;
    }
  }
  if (place->params.mode == ESP_OVERLAY_MEMORY || place->fd == -1)
    return 0;
  return peek_files (place, id, base);
}
