/* SPDX-License-Identifier: BSD-3-Clause */
/* Drafts: a restore point in the making, and roots in place.
 *
 * A draft is a directory in tmp/, locked by its descriptor, so that gc
 * leaves it alone; after a crash nobody holds it and gc removes it.  Its
 * parent is locked (shared) from beginning to end: it is neither deleted nor
 * merged meanwhile.
 *
 * A commit writes everything inside tmp/ first (data, the map that points at
 * it, the chain, meta), makes it durable in one go, and only then, in one
 * transaction, moves it to its place and gives it a row.  So what stands in
 * restore-points/ is complete, always.  In tmp/ nothing needs an order, since
 * nobody reads what a crash leaves there.  Many drafts can be committed
 * together (batch.c): one wait for the disk, one transaction.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "image/image-internal.h"
#include "store/inplace.h"
#include "store/rp-internal.h"
#include "util/file.h"
#include "util/host.h"

static int
check_size (const char *name, const struct esp_rp *parent, uint64_t size)
{
  char a[16], b[16];

  if (size == 0 || size > ESP_DISK_MAX) {
    errno = size ? EFBIG : EINVAL;
    esp_error ("restore point %s: its disk must have from 1 byte to %s, not "
               "%s", name, esp_size_format (ESP_DISK_MAX, a),
               esp_size_format (size, b));
    return -1;
  }
  if (parent && size < parent->size) {
    errno = EINVAL;
    esp_error ("restore point %s: its disk (%s) may not be smaller than its "
               "parent's (%s)", name, esp_size_format (size, a),
               esp_size_format (parent->size, b));
    return -1;
  }
  return 0;
}

static int
fill_rp (struct esp_rp *rp, const char *name, const struct esp_rp *parent,
         uint64_t size)
{
  esp_uuid_new (&rp->uuid);
  strcpy (rp->name, name);
  if (parent)
    rp->parent = parent->uuid;
  rp->kind = ESP_RP_STORED;
  rp->size = size;
  rp->note = strdup ("");
  if (rp->note)
    return 0;
  esp_error ("malloc: restore point: %m");
  return -1;
}

static int
open_data (struct esp_draft *draft)
{
  draft->data_fd = openat (draft->dir_fd, ESP_RP_DATA,
                           O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0644);
  if (draft->data_fd != -1 &&
      ftruncate (draft->data_fd,
                 (off_t) esp_data_length (draft->rp.size)) == 0)
    return 0;
  esp_error ("open: tmp/%s/" ESP_RP_DATA ": %m", draft->tmp_name);
  return -1;
}

static int
begin (struct esp_draft *draft, const char *name, const struct esp_rp *parent,
       bool parent_is_draft, uint64_t size)
{
  if (esp_rp_writable (draft->store) == -1 ||
      esp_rp_check_name (draft->store, name) == -1 ||
      check_size (name, parent, size) == -1 ||
      fill_rp (&draft->rp, name, parent, size) == -1)
    return -1;
  if (parent && !parent_is_draft) {
    draft->parent_lock = esp_rp_lock (draft->store, parent, false);
    if (draft->parent_lock == -1)
      return -1;
  }
  draft->dir_fd = esp_store_tmp_dir (draft->store, draft->tmp_name);
  if (draft->dir_fd == -1)
    return -1;
  draft->map = esp_map_new (size);
  return draft->map ? 0 : -1;
}

static struct esp_draft *
draft_new (struct esp_store *store)
{
  struct esp_draft *draft = calloc (1, sizeof *draft);

  if (draft == NULL) {
    esp_error ("malloc: draft: %m");
    return NULL;
  }
  draft->store = store;
  draft->dir_fd = draft->data_fd = draft->parent_lock = -1;
  draft->parent_dir = -1;
  return draft;
}

struct esp_draft *
esp_draft_begin (struct esp_store *store, const char *name,
                 const struct esp_rp *parent, uint64_t size)
{
  struct esp_draft *draft = draft_new (store);

  if (draft && begin (draft, name, parent, false, size) == 0 &&
      open_data (draft) == 0)
    return draft;
  esp_draft_abort (draft);
  return NULL;
}

struct esp_draft *
draft_begin_over (struct esp_store *store, const char *name,
                  struct esp_draft *parent, uint64_t size)
{
  struct esp_draft *draft = draft_new (store);

  if (draft && begin (draft, name, &parent->rp, true, size) == 0 &&
      open_data (draft) == 0) {
    draft->parent_dir = parent->dir_fd;
    return draft;
  }
  esp_draft_abort (draft);
  return NULL;
}

void
draft_free (struct esp_draft *draft)
{
  int saved = errno;

  if (draft->data_fd >= 0)
    close (draft->data_fd);
  if (draft->dir_fd >= 0)
    close (draft->dir_fd);
  if (draft->parent_lock >= 0)
    close (draft->parent_lock);
  esp_map_free (draft->map);
  esp_rp_clear (&draft->rp);
  free (draft);
  errno = saved;
}

void
esp_draft_abort (struct esp_draft *draft)
{
  int saved = errno;

  if (draft == NULL)
    return;
  if (draft->dir_fd >= 0)
    /* What cannot be removed now is left for gc. */
    (void) esp_remove_tree (esp_store_tmp_fd (draft->store), draft->tmp_name);
  draft_free (draft);
  errno = saved;
}

/* --- committing ------------------------------------------------------------ */

static int
write_data (struct esp_draft *draft)
{
  if (draft->data_fd == -1)     /* in place */
    return 0;
  if (draft->delayed || fchmod (draft->data_fd, 0444) == 0)
    return 0;
  esp_error ("fchmod: data of restore point %s: %m", draft->rp.name);
  return -1;
}

static int
write_meta (struct esp_draft *draft, json_t *in_place)
{
  CLEANUP_JSON json_t *meta =
    esp_rp_to_meta (&draft->rp, esp_map_digest (draft->map));

  if (meta == NULL ||
      (in_place && json_object_set (meta, ESP_META_IN_PLACE, in_place) == -1))
    return -1;
  return esp_meta_save (draft->dir_fd, meta, draft->rp.name);
}

/* Write the files in tmp/. */
static int
write_files (struct esp_draft *draft, json_t *in_place)
{
  struct esp_rp *rp = &draft->rp;

  if (!draft->delayed)
    rp->created = (uint64_t) time (NULL);
  rp->data_blocks = esp_map_count (draft->map, ESP_DATA);
  rp->zero_blocks = esp_map_count (draft->map, ESP_ZERO);
  esp_rp_step ("draft: before the data");
  if (write_data (draft) == -1 ||
      esp_map_create (draft->map, draft->dir_fd, ESP_RP_MAP) == -1 ||
      esp_map_mark_clean (draft->map) == -1)
    return -1;
  esp_rp_step ("draft: before the chain");
  if (esp_rp_build_chain (draft->store, rp, draft->parent_dir, draft->map,
                          draft->dir_fd, ESP_RP_CHAIN) == -1)
    return -1;
  if (draft->delayed &&
      delayed_write_files (draft->dir_fd, draft->map, draft->delayed) == -1)
    return -1;
  esp_rp_step ("draft: before meta");
  return write_meta (draft, in_place);
}

static int
complete (struct esp_draft *draft, json_t *in_place)
{
  bool before = esp_sync_later (true);
  int r = write_files (draft, in_place);

  esp_sync_later (before);
  if (r == -1)
    return -1;
  /* Of many drafts that wait to be committed only the directories stay. */
  esp_map_free (draft->map);
  draft->map = NULL;
  esp_cleanup_close (&draft->data_fd);
  draft->data_fd = -1;
  return 0;
}

int
draft_complete (struct esp_draft *draft)
{
  return complete (draft, NULL);
}

int
drafts_publish (struct esp_draft **drafts, size_t n)
{
  CLEANUP_FREE struct rp_made *made = calloc (n, sizeof *made);
  CLEANUP_FREE int *dirs = calloc (n, sizeof *dirs);

  if (!made || !dirs) {
    esp_error ("malloc: draft: %m");
    return -1;
  }
  for (size_t i = 0; i < n; i++) {
    struct esp_draft *d = drafts[i];
    dirs[i] = d->dir_fd;
    made[i] = (struct rp_made) {
      .rp = &d->rp, .from_fd = esp_store_tmp_fd (d->store),
      .from = d->tmp_name, .dir_fd = d->dir_fd
    };
  }
  esp_rp_step ("draft: before the sync");
  if (esp_sync_below (dirs, n) == -1)
    return -1;
  return esp_rp_publish (drafts[0]->store, made, n);
}

/* Frees DRAFT. */
static int
commit (struct esp_draft *draft, json_t *in_place, esp_uuid *uuid)
{
  if (complete (draft, in_place) == -1 || drafts_publish (&draft, 1) == -1) {
    esp_draft_abort (draft);
    return -1;
  }
  if (uuid)
    *uuid = draft->rp.uuid;
  draft_free (draft);
  return 0;
}

int
esp_draft_commit (struct esp_draft *draft, esp_uuid *uuid)
{
  return commit (draft, NULL, uuid);
}

/* --- roots in place -------------------------------------------------------- */

/* Mark what is data: of a file what is no hole, of a device all. */
static void
map_in_place (struct esp_map *map, int fd, bool device)
{
  uint64_t end = esp_blocks (map->size), first, last;
  off_t data = 0, hole;

  while (!device && (data = lseek (fd, data, SEEK_DATA)) != -1 &&
         (hole = lseek (fd, data, SEEK_HOLE)) != -1) {
    first = (uint64_t) data >> ESP_BLOCK_SHIFT;
    last = esp_blocks ((uint64_t) hole);
    esp_map_set (map, first, (last < end ? last : end) - first, ESP_DATA,
                 NULL);
    data = hole;
  }
  /* ENXIO: nothing but a hole is left.  Else it cannot be told. */
  if (device || errno != ENXIO)
    esp_map_set (map, 0, end, ESP_DATA, NULL);
}

static int
check_raw (int fd, const struct esp_inplace *id)
{
  const char *format = esp_detect_format (fd, id->size);

  if (strcmp (format, "raw") == 0)
    return 0;
  errno = EINVAL;
  esp_error ("%s: is an image in the format %s; only raw images and devices "
             "are served in place: add it without --in-place", id->path,
             format);
  return -1;
}

static int
fill_in_place (struct esp_draft *draft, const struct esp_inplace *id,
               const char *note, const struct esp_resource *resources,
               size_t nresources)
{
  CLEANUP_CLOSE int fd = esp_inplace_open (id);
  struct esp_rp *rp = &draft->rp;

  if (fd == -1 || check_raw (fd, id) == -1)
    return -1;
  rp->kind = ESP_RP_IN_PLACE;
  rp->path = strdup (id->path);
  free (rp->note);
  rp->note = strdup (note ? note : "");
  if (rp->path == NULL || rp->note == NULL) {
    esp_error ("malloc: restore point: %m");
    return -1;
  }
  map_in_place (draft->map, fd, id->device);
  /* So that the map is of what was captured. */
  if (esp_inplace_same (fd, id) == -1)
    return -1;
  return esp_rp_copy_resources (rp, resources, nresources);
}

int
esp_rp_create_in_place (struct esp_store *store, const char *name,
                        const char *path, const char *note,
                        const struct esp_resource *resources,
                        size_t nresources, esp_uuid *uuid)
{
  CLEANUP_INPLACE struct esp_inplace id = { 0 };
  CLEANUP_JSON json_t *in_place = NULL;
  struct esp_draft *draft;

  if (esp_inplace_capture (path, &id) == -1)
    return -1;
  in_place = esp_inplace_to_json (&id);
  draft = in_place ? draft_new (store) : NULL;
  if (draft == NULL)
    return -1;
  if (begin (draft, name, NULL, false, id.size) == -1 ||
      fill_in_place (draft, &id, note, resources, nresources) == -1) {
    esp_draft_abort (draft);
    return -1;
  }
  return commit (draft, in_place, uuid);
}

int
esp_rp_open_in_place (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_INPLACE struct esp_inplace id = { 0 };
  CLEANUP_JSON json_t *meta = esp_meta_load (store, uuid, NULL, NULL);
  char text[ESP_UUID_TEXT];

  if (meta == NULL ||
      esp_inplace_from_json (json_object_get (meta, ESP_META_IN_PLACE), &id,
                             esp_uuid_text (uuid, text)) == -1)
    return -1;
  return esp_inplace_open (&id);
}
