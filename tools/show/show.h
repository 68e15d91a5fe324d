/* SPDX-License-Identifier: BSD-3-Clause */
/* What the command line and espalierd show of a store, as JSON; and what
 * both look up for that.  A library of its own that both link: it keeps no
 * state, and any thread may call it.
 */

#ifndef ESPALIER_SHOW_H
#define ESPALIER_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "boot/needs.h"
#include "catalog/catalog.h"
#include "center/center.h"
#include "overlay/admin.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/name.h"

/* --- restore points and venues (index.c) -------------------------------- */

struct venue_index;

/* Restore points, to be found by UUID.  The list has parents before
 * children.
 */
struct rp_index {
  struct esp_store *store;
  struct esp_rp_list list;
  struct esp_rp **sorted;
  const struct venue_index *venues;     /* or NULL: the catalog is asked, for
                                         * each overlay, what its venue has */
};
/* All, or (START not NULL) START and what descends from it.  0, or -1. */
extern int rp_index_read (struct rp_index *index, struct esp_store *store,
                          const esp_uuid *start);
extern void rp_index_clear (struct rp_index *index);
#define CLEANUP_RP_INDEX __attribute__ ((cleanup (rp_index_clear)))
/* NULL where it is not there. */
extern const struct esp_rp *rp_index_get (const struct rp_index *index,
                                          const esp_uuid *uuid);
/* Its name, or its UUID where it is gone. */
extern const char *rp_index_name (const struct rp_index *index,
                                  const esp_uuid *uuid,
                                  char buf[ESP_UUID_TEXT]);
/* "stored", "in-place", "delayed". */
extern const char *rp_kind_name (const struct esp_rp *rp);
/* How many bytes of the own data of a delayed restore point are local;
 * *PERCENT of it: 100 only where nothing is missing.
 */
extern uint64_t rp_local (struct esp_store *store, const struct esp_rp *rp,
                          unsigned *percent);

/* Which venues map a restore point: pairs sorted by UUID. */
struct venue_use { esp_uuid tip; const struct esp_venue *venue; unsigned disk; };
struct venue_index {
  struct esp_venue_list list;   /* by id */
  struct venue_use *use;
  size_t n;
};
extern int venue_index_read (struct venue_index *index,
                             struct esp_store *store);
extern void venue_index_clear (struct venue_index *index);
#define CLEANUP_VENUE_INDEX __attribute__ ((cleanup (venue_index_clear)))
/* NULL where it is not there. */
extern const struct esp_venue *venue_index_get (const struct venue_index *index,
                                                const char *id);
/* Where the pairs of TIP begin in INDEX->use, or would. */
extern size_t venue_index_first (const struct venue_index *index,
                                 const esp_uuid *tip);
/* An array of "cafe/0", "office/1". */
extern json_t *venue_index_json (const struct venue_index *index,
                                 const esp_uuid *tip);

/* --- overlays (index.c) -------------------------------------------------- */

/* "cafe/0@seat-7" (malloced), "keep". */
extern char *overlay_name (const struct esp_overlay_info *o);
extern const char *overlay_mode_name (enum esp_overlay_mode mode);
/* Was it written over another tip than its venue has now (in *NOW)? */
extern bool overlay_is_stale (const struct rp_index *rps,
                              const struct esp_overlay_info *o,
                              esp_uuid *now);

/* --- objects (json.c) ---------------------------------------------------- */

extern json_t *json_uuid (const esp_uuid *uuid);      /* null for all zero */
extern json_t *json_number (uint64_t n);
/* A string, in which what is no UTF-8 is escaped; null for NULL. */
extern json_t *json_text (const char *text);
extern json_t *json_resources (const struct esp_resource *r, size_t n);
/* The object of a restore point; VENUES may be NULL. */
extern json_t *json_rp (const struct esp_rp *rp, const struct rp_index *rps,
                        const struct venue_index *venues);
extern json_t *json_venue (const struct esp_venue *venue,
                           const struct rp_index *rps);
/* Add how it boots to a venue's object. */
extern void json_venue_boot (json_t *venue, const struct esp_venue_boot *boot);
/* The array of a venue's changes, oldest first. */
extern json_t *json_venue_log (const struct esp_venue_log *log,
                               const struct rp_index *rps);
extern json_t *json_overlay (const struct esp_overlay_info *o,
                             const struct rp_index *rps);

/* --- clients and needs (json-site.c) -------------------------------------- */

/* "mac", "uuid", "network". */
extern const char *client_kind_name (enum esp_client_kind kind);
/* LAST_SEEN: seconds since the epoch, 0: never. */
extern json_t *json_client (const struct esp_client *client,
                            uint64_t last_seen);
/* ENTRY: what the operator said of it, or NULL. */
extern json_t *json_client_seen (const struct esp_client_seen *seen,
                                 const struct esp_client *entry);
/* Without who serves it. */
extern json_t *json_need (const struct esp_need *need);
extern json_t *json_match (const struct esp_match *match,
                           const struct esp_need *const *wanted, size_t n);

#endif /* ESPALIER_SHOW_H */
