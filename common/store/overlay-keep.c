/* SPDX-License-Identifier: BSD-3-Clause */
/* Keeping what a client wrote as a restore point, without copying it.
 *
 * An overlay's directory has the data and the map of a restore point
 * already.  Chain and meta are added to it where it is, and then one rename
 * inside the catalog's transaction makes it a restore point: before it the
 * directory is an overlay with two files that the overlay's code does not
 * look at; behind it, it is a restore point, and the client's next
 * connection makes a new overlay.  The overlay's own lock is held all the
 * time.  Its document and its lock file go last; left by a crash they are
 * harmless.
 *
 * Nothing here depends on the size of the data: a larger disk only makes
 * the data file longer and is written in meta ("map-size").  The data file
 * becomes read-only behind the rename, since an overlay with a file that
 * cannot be written would be a broken one.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "overlay/admin.h"
#include "store/rp-internal.h"
#include "util/file.h"
#include "util/host.h"

/* An overlay that was taken; what it will be. */
struct keep {
  struct esp_store *store;
  const char *shown;            /* "cafe/0@seat-7" */
  int parent_dir, dir, lock, tip_lock;
  struct esp_map *map;
  struct esp_rp rp;
  char *client;                 /* the directory's name in parent_dir */
};

static void
keep_clear (struct keep *k)
{
  int saved = errno;

  if (k->tip_lock >= 0)
    close (k->tip_lock);
  if (k->dir >= 0)
    close (k->dir);
  if (k->parent_dir >= 0)
    close (k->parent_dir);
  if (k->lock >= 0)
    close (k->lock);
  esp_map_free (k->map);
  esp_rp_clear (&k->rp);
  free (k->client);
  errno = saved;
}

/* The first component of the overlay's path: the venue, or, of a client of
 * a restore point itself, its UUID.
 */
static char *
first_component (struct keep *k, const struct esp_export *export)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  char name[3 + ESP_UUID_TEXT] = "rp:", *r;

  if (export->is_rp) {
    if (esp_catalog_rp_find (esp_store_catalog (k->store), export->name,
                             &rp) == -1)
      return NULL;
    esp_uuid_text (&rp.uuid, name + 3);
  }
  r = esp_path_component (export->is_rp ? name : export->name);
  if (r == NULL)
    esp_error ("malloc: overlay: %m");
  return r;
}

/* Take the overlay of EXPORT. */
static int
take (struct keep *k, const struct esp_export *export, esp_uuid *tip,
      uint64_t *size)
{
  CLEANUP_FREE char *venue = NULL;
  char disk[16];
  struct esp_overlay_id id;

  if (export->client[0] == 0) {
    errno = EINVAL;
    esp_error ("%s: name a client's overlay as VENUE[/DISK]@CLIENT",
               k->shown);
    return -1;
  }
  snprintf (disk, sizeof disk, "%u", export->disk);
  venue = first_component (k, export);
  if (venue == NULL)
    return -1;
  k->client = esp_path_component (export->client);
  if (k->client == NULL) {
    esp_error ("malloc: overlay: %m");
    return -1;
  }
  id = (struct esp_overlay_id) { venue, disk, k->client };
  return esp_overlay_take (esp_store_overlays_fd (k->store), &id,
                           &k->parent_dir, &k->dir, &k->lock, &k->map, tip,
                           size);
}

/* Lock the tip and look whether a restore point can stand on it. */
static int
look_at_tip (struct keep *k, const esp_uuid *tip)
{
  CLEANUP_RP struct esp_rp parent = { 0 };

  if (esp_uuid_is_null (tip)) {
    errno = EINVAL;
    esp_error ("overlay %s is not over a restore point", k->shown);
    return -1;
  }
  if (esp_catalog_rp_get (esp_store_catalog (k->store), tip, &parent) == -1) {
    esp_error ("overlay %s: the restore point that it is over is not in the "
               "catalog", k->shown);
    return -1;
  }
  k->rp.parent = *tip;
  k->tip_lock = esp_rp_lock (k->store, &parent, false);
  return k->tip_lock == -1 ? -1 : 0;
}

static int
look_at_size (struct keep *k, uint64_t old_size, uint64_t size)
{
  char a[16], b[16];

  k->rp.size = size ? size : old_size;
  if (k->rp.size >= old_size && k->rp.size <= ESP_DISK_MAX)
    return 0;
  errno = EINVAL;
  esp_error ("overlay %s: the disk's new size (%s) must be from %s to 64T",
             k->shown, esp_size_format (k->rp.size, a),
             esp_size_format (old_size, b));
  return -1;
}

static int
look_at_blocks (struct keep *k)
{
  k->rp.data_blocks = esp_map_count (k->map, ESP_DATA);
  k->rp.zero_blocks = esp_map_count (k->map, ESP_ZERO);
  if (k->rp.data_blocks || k->rp.zero_blocks)
    return 0;
  errno = ENODATA;
  esp_error ("overlay %s: the client wrote nothing, there is nothing to keep",
             k->shown);
  return -1;
}

/* Make the data as long as the disk, where it is not; it is synced. */
static int
set_length (struct keep *k)
{
  off_t length = (off_t) esp_data_length (k->rp.size);
  CLEANUP_CLOSE int data = openat (k->dir, ESP_RP_DATA,
                                   O_RDWR|O_CREAT|O_NOFOLLOW|O_CLOEXEC, 0644);
  struct stat st;

  if (data != -1 && fstat (data, &st) == 0 &&
      (st.st_size == length ||
       (ftruncate (data, length) == 0 && fdatasync (data) == 0)))
    return 0;
  esp_error ("ftruncate: data of overlay %s: %m", k->shown);
  return -1;
}

/* Chain, meta, and the length of the data, in the overlay's directory. */
static int
complete (struct keep *k)
{
  CLEANUP_JSON json_t *meta = NULL;
  CLEANUP_MAP struct esp_map *grown = NULL;
  uint64_t digest = esp_map_digest (k->map), map_size = k->map->size;

  meta = esp_rp_to_meta (&k->rp, digest);
  if (meta == NULL)
    return -1;
  if (k->rp.size != map_size) {
    grown = esp_map_copy (k->map, k->rp.size);
    if (grown == NULL ||
        json_object_set_new (meta, ESP_META_MAP_SIZE,
                             json_integer ((json_int_t) map_size)) == -1)
      return -1;
  }
  if (set_length (k) == -1)
    return -1;
  esp_rp_step ("keep: before the chain");
  if (esp_rp_build_chain (k->store, &k->rp, -1, grown ? grown : k->map, k->dir,
                          ESP_RP_CHAIN) == -1)
    return -1;
  esp_rp_step ("keep: before meta");
  return esp_meta_save (k->dir, meta, k->rp.name);  /* syncs the directory */
}

/* Behind the commit nothing is an error any more, and `store gc` may have
 * to do again what fails here.
 */
static void
tidy (struct keep *k)
{
  esp_rp_step ("keep: before tidying");
  (void) fchmodat (k->dir, ESP_RP_DATA, 0444, 0);
  (void) fchmodat (k->dir, ESP_RP_MAP, 0644, 0);
  (void) fchmod (k->dir, 0750);
  (void) unlinkat (k->dir, ESP_OVERLAY_DOC, 0);
  (void) unlinkat (k->dir, ESP_OVERLAY_LOCK, 0);
}

/* What an error leaves in the overlay's directory need not stay there. */
static void
take_back (struct keep *k)
{
  int saved = errno;

  (void) unlinkat (k->dir, ESP_RP_META, 0);
  (void) unlinkat (k->dir, ESP_RP_CHAIN, 0);
  errno = saved;
}

static int
keep (struct keep *k, const struct esp_export *export, uint64_t size)
{
  esp_uuid tip;
  uint64_t old_size;

  if (take (k, export, &tip, &old_size) == -1 ||
      look_at_tip (k, &tip) == -1 ||
      look_at_size (k, old_size, size) == -1 ||
      look_at_blocks (k) == -1)
    return -1;
  struct rp_made made = {
    .rp = &k->rp, .from_fd = k->parent_dir, .from = k->client,
    .dir_fd = k->dir
  };

  if (complete (k) == 0 && esp_rp_publish (k->store, &made, 1) == 0) {
    tidy (k);
    return 0;
  }
  take_back (k);
  return -1;
}

int
esp_rp_create_from_overlay (struct esp_store *store, const char *name,
                            const struct esp_export *overlay, uint64_t size,
                            const char *note,
                            const struct esp_resource *resources,
                            size_t nresources, esp_uuid *uuid)
{
  __attribute__ ((cleanup (keep_clear))) struct keep k = {
    .store = store, .parent_dir = -1, .dir = -1, .lock = -1, .tip_lock = -1,
  };
  char shown[ESP_EXPORT_MAX];

  if (esp_rp_writable (store) == -1 || esp_rp_check_name (store, name) == -1)
    return -1;
  k.shown = esp_export_format (overlay, shown, sizeof shown);
  esp_uuid_new (&k.rp.uuid);
  strcpy (k.rp.name, name);
  k.rp.kind = ESP_RP_STORED;
  k.rp.created = (uint64_t) time (NULL);
  k.rp.note = strdup (note ? note : "");
  if (k.rp.note == NULL) {
    esp_error ("malloc: note: %m");
    return -1;
  }
  if (esp_rp_copy_resources (&k.rp, resources, nresources) == -1 ||
      keep (&k, overlay, size) == -1)
    return -1;
  if (uuid)
    *uuid = k.rp.uuid;
  return 0;
}
