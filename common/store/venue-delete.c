/* SPDX-License-Identifier: BSD-3-Clause */
/* Deleting a venue, and what clients wrote to it. */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "overlay/admin.h"
#include "store/internal.h"
#include "store/site-internal.h"
#include "store/venue.h"
#include "util/file.h"
#include "util/host.h"

static int
in_use (const char *id, const struct esp_overlay_info *o)
{
  char holder[128];

  errno = EBUSY;
  esp_error ("venue '%s': client '%s' is connected to disk %s, through %s:"
             " disconnect it first", id, o->client, o->disk,
             esp_holder_describe (&o->holder, holder, sizeof holder));
  return -1;
}

static int
refuse_overlays (const char *id, const struct esp_overlay_info_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    if (list->o[i].held)
      return in_use (id, &list->o[i]);
  errno = EBUSY;
  esp_error ("venue '%s' has what %zu client%s wrote: keep it with 'espalier"
             " rp create --from-overlay', or delete it too with --force", id,
             list->n, list->n == 1 ? "" : "s");
  return -1;
}

static int
reset (int overlays_fd, const struct esp_overlay_info *o)
{
  CLEANUP_FREE char *venue = esp_path_component (o->venue);
  CLEANUP_FREE char *disk = esp_path_component (o->disk);
  CLEANUP_FREE char *client = esp_path_component (o->client);
  const struct esp_overlay_id id = { venue, disk, client };

  if (!venue || !disk || !client) {
    esp_error ("malloc: %m");
    return -1;
  }
  if (esp_overlay_reset (overlays_fd, &id) == 0 || errno == ENOENT)
    return 0;
  return -1;
}

static int
remove_overlays (struct esp_store *store, const char *id, bool force)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };
  int fd = esp_store_overlays_fd (store);

  if (esp_overlay_list (fd, id, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; ++i)
    if (!force || list.o[i].held)
      return refuse_overlays (id, &list);
  for (size_t i = 0; i < list.n; ++i)
    if (reset (fd, &list.o[i]) == -1)
      return -1;
  return 0;
}

static int
remove_document (struct esp_store *store, const char *id)
{
  int fd = esp_store_venues_fd (store);

  if ((unlinkat (fd, id, 0) == 0 || errno == ENOENT) && esp_sync_dir (fd) == 0)
    return 0;
  esp_error ("unlink: venues/%s: %m", id);
  return -1;
}

int
esp_venue_delete (struct esp_store *store, const char *id, bool force)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (esp_name_check (id, "venue") == -1 ||
      esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (esp_catalog_venue_delete (store->catalog, id) == -1 ||
      remove_overlays (store, id, force) == -1 ||
      site_release_venue (store, id, force) == -1 ||
      remove_document (store, id) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}
