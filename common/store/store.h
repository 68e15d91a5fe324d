/* SPDX-License-Identifier: BSD-3-Clause */
/* The store: a directory of restore points, venues and overlays.
 *
 *   STORE/espalier                  document: this is a store, its version
 *        /catalog.db                catalog/ (an index; rebuilt if lost)
 *        /restore-points/UUID/{data,map,chain,meta}
 *        /venues/ID                 document: mapping and its history
 *        /overlays/VENUE/DISK/CLIENT/{data,map,overlay,lock}
 *        /tmp/                      drafts and what is being removed
 *        /keys/ /run/
 *
 * Every change is: files in tmp/, synced, renamed into place, then the
 * catalog's row, within a catalog transaction.  So a crash leaves either
 * nothing or a complete restore point that `store check` finds and adopts.
 *
 * This header is the store itself; the operations on its parts stand in
 * store/rp.h, store/venue.h, store/check.h and overlay/admin.h.
 */

#ifndef ESPALIER_STORE_H
#define ESPALIER_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "catalog/catalog.h"
#include "util/name.h"

#pragma GCC visibility push(default)

struct esp_store;

/* The document `espalier` at the root of a store. */
#define ESP_STORE_KIND "store"
#define ESP_STORE_VERSION 1

/* The store to use: OPTION if not NULL, else $ESPALIER_STORE, else
 * /var/lib/espalier for root and $XDG_DATA_HOME/espalier (or
 * ~/.local/share/espalier) for others.  malloced, absolute.
 */
extern char *esp_store_default_path (const char *option);

/* Make a store at PATH: a new or an empty directory.  EEXIST, reported,
 * where a store or something else is.
 */
extern int esp_store_init (const char *path);

/* Open the store at PATH; a further open of the same path in this process
 * gives the same store.  Errors say what to do (`espalier init`, a newer
 * version, no permission).  A read-only file system is fine.
 * esp_store_open_damaged opens without the catalog (for check and rebuild).
 */
extern struct esp_store *esp_store_open (const char *path);
extern struct esp_store *esp_store_open_damaged (const char *path);
extern void esp_store_close (struct esp_store *store);

extern const char *esp_store_path (const struct esp_store *store);
extern bool esp_store_readonly (const struct esp_store *store);
/* NULL for a store opened as damaged. */
extern struct esp_catalog *esp_store_catalog (struct esp_store *store);
/* Descriptors of directories, the store's own: do not close. */
extern int esp_store_fd (const struct esp_store *store);
extern int esp_store_rps_fd (const struct esp_store *store);
extern int esp_store_overlays_fd (const struct esp_store *store);
extern int esp_store_venues_fd (const struct esp_store *store);
extern int esp_store_tmp_fd (const struct esp_store *store);

/* Names of files inside a restore point's directory. */
#define ESP_RP_DATA "data"
#define ESP_RP_MAP "map"
#define ESP_RP_CHAIN "chain"
#define ESP_RP_META "meta"

/* Open the directory of restore point UUID.  Reports nothing. */
extern int esp_store_rp_dir (const struct esp_store *store,
                             const esp_uuid *uuid);

/* A new private directory in tmp/, locked (flock) by the descriptor that is
 * returned so that gc leaves it alone; NAME gets its name there.
 */
extern int esp_store_tmp_dir (struct esp_store *store, char name[64]);
/* Move NAME of directory FROM into tmp/ and remove it there.  After a
 * crash gc goes on.
 */
extern int esp_store_discard (struct esp_store *store, int from,
                              const char *name);

#pragma GCC visibility pop
#endif /* ESPALIER_STORE_H */
