/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations on venues.  Each writes the venue's document (venues/ID, with
 * its whole history) and the catalog in one transaction; the document is
 * what a rebuild reads.
 */

#ifndef ESPALIER_VENUE_H
#define ESPALIER_VENUE_H

#include "store/store.h"

#pragma GCC visibility push(default)

#define ESP_VENUE_KIND "venue"
#define ESP_VENUE_VERSION 2             /* with settings of booting */
#define ESP_VENUE_VERSION_PLAIN 1       /* without: store/site.h */

/* EEXIST when ID is taken.  DISKS are NDISKS tips, at least one. */
extern int esp_venue_add (struct esp_store *store, const char *id,
                          const esp_uuid *disks, unsigned ndisks,
                          const char *description);
/* Change the mapping (DISKS NULL: keep it) or the description (NULL: keep
 * it).  A call that changes nothing adds nothing to the log.
 */
extern int esp_venue_set (struct esp_store *store, const char *id,
                          const esp_uuid *disks, unsigned ndisks,
                          const char *description);
/* Take the mapping and description of REVISION again (0: the one before
 * the present one) as a new revision.  ENOENT for a revision that is not
 * in the log, or whose restore points are gone, with their names.
 */
extern int esp_venue_rollback (struct esp_store *store, const char *id,
                               uint64_t revision);
/* EBUSY while it has overlays, or clients are assigned to it (store/site.h),
 * unless FORCE: then the overlays are deleted too (EBUSY still where one is held
 * by a client), and those clients have no venue any more.  Its settings of
 * booting go with it.
 */
extern int esp_venue_delete (struct esp_store *store, const char *id,
                             bool force);

/* Make kept overlays, into which nothing was written, over the present tips
 * of venue ID (all its disks, or only DISK where that is not -1) for N
 * CLIENTS: disks of their own, that a later mapping does not change.  All or
 * nothing, also after a crash; one sync for all.  EEXIST, reported with
 * a list, when any of them exists.
 */
#define ESP_CLONES_MAX 10000
extern int esp_venue_clone (struct esp_store *store, const char *id, int disk,
                            char *const *clients, size_t n);

/* Load a venue's document, every field checked.  For check and rebuild. */
extern int esp_venue_load (struct esp_store *store, const char *id,
                           struct esp_venue *venue,
                           struct esp_venue_log *log);

/* The tip that EXPORT asks for: rp: by name, or the venue's disk.  START,
 * when not NULL, is the subtree to stay within (EACCES beyond).  ENOENT
 * otherwise; reported.
 */
extern int esp_export_tip (struct esp_store *store,
                           const struct esp_export *export,
                           const esp_uuid *start, esp_uuid *tip);

#pragma GCC visibility pop
#endif /* ESPALIER_VENUE_H */
