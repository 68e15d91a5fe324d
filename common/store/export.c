/* SPDX-License-Identifier: BSD-3-Clause */
/* From an export's name to the tip that it means.  This is on the way of
 * every connect: for a venue one look-up in the catalog.
 */

#include <config.h>

#include <errno.h>

#include "store/internal.h"
#include "store/venue.h"
#include "util/host.h"

/* Say why there is no such disk. */
static int
no_disk (struct esp_catalog *catalog, const struct esp_export *export)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };

  if (esp_catalog_venue_get (catalog, export->name, &v) == -1)
    return -1;
  errno = ENOENT;
  esp_error ("venue '%s' has no disk %u: it has %u, the first is 0",
             export->name, export->disk, v.ndisks);
  return -1;
}

static int
within (struct esp_catalog *catalog, const esp_uuid *tip,
        const esp_uuid *start, const struct esp_export *export)
{
  int r = esp_catalog_rp_descends (catalog, tip, start);

  if (r == 0) {
    errno = EACCES;
    esp_error ("%s '%s' is outside of the tree that this server was given"
               " (start=)", export->is_rp ? "restore point" : "venue",
               export->name);
  }
  return r == 1 ? 0 : -1;
}

static int
rp_tip (struct esp_catalog *catalog, const struct esp_export *export,
        const esp_uuid *start, esp_uuid *tip)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (esp_catalog_rp_find (catalog, export->name, &rp) == -1)
    return -1;
  *tip = rp.uuid;
  return start ? within (catalog, tip, start, export) : 0;
}

/* A venue belongs to a subtree when all its disks do, as it is listed. */
static int
venue_within (struct esp_catalog *catalog, const struct esp_export *export,
              const esp_uuid *start)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };

  if (esp_catalog_venue_get (catalog, export->name, &v) == -1)
    return -1;
  for (unsigned i = 0; i < v.ndisks; ++i)
    if (within (catalog, &v.disks[i], start, export) == -1)
      return -1;
  return 0;
}

int
esp_export_tip (struct esp_store *store, const struct esp_export *export,
                const esp_uuid *start, esp_uuid *tip)
{
  struct esp_catalog *catalog = store->catalog;

  if (export->is_rp)
    return rp_tip (catalog, export, start, tip);
  if (start && venue_within (catalog, export, start) == -1)
    return -1;
  if (esp_catalog_venue_tip (catalog, export->name, export->disk, tip) == -1)
    return errno == ENOENT ? no_disk (catalog, export) : -1;
  return 0;
}
