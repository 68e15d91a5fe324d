/* SPDX-License-Identifier: BSD-3-Clause */
/* Deleting a restore point, and all the reasons not to.
 *
 * The row goes first, in a transaction that looks at the reasons once more,
 * and then the files: what the catalog names is always there.  The
 * directory is locked exclusively meanwhile, so that nobody has it open.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "overlay/admin.h"
#include "store/rp-internal.h"
#include "util/host.h"

/* A list of reasons being written. */
struct reasons { FILE *f; unsigned n; };

static void
reason (struct reasons *r, const char *kind, const char *what, size_t i)
{
  if (i == 0)
    fprintf (r->f, "%s%s ", r->n++ ? "; " : "", kind);
  if (i < 20)
    fprintf (r->f, "%s%s", i ? ", " : "", what);
  else if (i == 20)
    fputs (", ...", r->f);
}

static int
reason_children (struct esp_store *store, const struct esp_rp *rp,
                 struct reasons *r)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };

  if (esp_catalog_rp_children (esp_store_catalog (store), &rp->uuid,
                               &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++)
    reason (r, list.n > 1 ? "its children are" : "its child is",
            list.rp[i].name, i);
  return 0;
}

static int
reason_venues (struct esp_store *store, const struct esp_rp *rp,
               struct reasons *r)
{
  CLEANUP_VENUE_LIST struct esp_venue_list list = { 0 };

  if (esp_catalog_venues_of (esp_store_catalog (store), &rp->uuid, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++)
    reason (r, list.n > 1 ? "it is mapped by the venues"
            : "it is mapped by the venue", list.venue[i].id, i);
  return 0;
}

static int
reason_overlays (struct esp_store *store, const struct esp_rp *rp,
                 struct reasons *r)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };
  char name[3 * 256 + 3];
  size_t n = 0;

  if (esp_overlay_list (esp_store_overlays_fd (store), NULL, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++) {
    const struct esp_overlay_info *o = &list.o[i];

    if (!esp_uuid_eq (&o->tip, &rp->uuid))
      continue;
    /* Of a restore point's own export there is no second disk. */
    if (strncmp (o->venue, "rp:", 3) == 0)
      snprintf (name, sizeof name, "%s@%s", o->venue, o->client);
    else
      snprintf (name, sizeof name, "%s/%s@%s", o->venue, o->disk, o->client);
    reason (r, "clients wrote over it (reset their overlays):", name, n++);
  }
  return 0;
}

int
esp_rp_check_unused (struct esp_store *store, const struct esp_rp *rp,
                     bool merge)
{
  CLEANUP_FREE char *text = NULL;
  struct reasons r = { .n = 0 };
  size_t size;
  int failed;

  r.f = open_memstream (&text, &size);
  if (r.f == NULL) {
    esp_error ("open_memstream: %m");
    return -1;
  }
  failed = (!merge && reason_children (store, rp, &r) == -1) ||
    reason_venues (store, rp, &r) == -1 || reason_overlays (store, rp, &r) == -1;
  fclose (r.f);
  if (failed)
    return -1;
  if (r.n == 0)
    return 0;
  errno = EBUSY;
  esp_error ("restore point %s cannot be %s: %s", rp->name,
             merge ? "merged" : "deleted", text ? text : "it is in use");
  return -1;
}

static int
delete_locked (struct esp_store *store, const struct esp_rp *rp)
{
  struct esp_catalog *catalog = esp_store_catalog (store);
  int saved;

  if (esp_catalog_begin (catalog) == -1)
    return -1;
  if (esp_rp_check_unused (store, rp, false) == 0 &&
      esp_catalog_rp_delete (catalog, &rp->uuid) == 0 &&
      esp_catalog_commit (catalog) == 0)
    return 0;
  saved = errno;
  esp_catalog_rollback (catalog);
  errno = saved;
  return -1;
}

static bool
has_directory (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_CLOSE int fd = esp_store_rp_dir (store, uuid);

  return fd != -1 || errno != ENOENT;
}

int
esp_rp_delete (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  CLEANUP_CLOSE int lock = -1;
  char text[ESP_UUID_TEXT];

  if (esp_rp_writable (store) == -1)
    return -1;
  if (esp_catalog_rp_get (esp_store_catalog (store), uuid, &rp) == -1) {
    esp_error ("no restore point %s", esp_uuid_text (uuid, text));
    return -1;
  }
  /* All reasons first, then those that only a lock can tell.  One whose
   * directory was lost can still be deleted.
   */
  if (esp_rp_check_unused (store, &rp, false) == -1 ||
      (has_directory (store, uuid) &&
       (lock = esp_rp_lock (store, &rp, true)) == -1) ||
      delete_locked (store, &rp) == -1)
    return -1;
  esp_rp_step ("delete: after the commit");
  if (lock == -1)
    return 0;
  return esp_store_discard (store, esp_store_rps_fd (store),
                            esp_uuid_text (uuid, text));
}
