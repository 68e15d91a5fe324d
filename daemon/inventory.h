/* SPDX-License-Identifier: BSD-3-Clause */
/* What is in the store: restore points, venues, overlays, delayed data,
 * centers.  Reading it costs time with its size, so it is read at most once in
 * a while and shared by all who ask.
 */

#ifndef ESPALIERD_INVENTORY_H
#define ESPALIERD_INVENTORY_H

#include "show.h"

/* A restore point that is fetched from centers. */
struct delayed {
  const struct esp_rp *rp;
  uint64_t bytes, local;
  bool wished;                  /* espalier hydrate */
};

struct inventory {
  struct rp_index rps;
  struct venue_index venues;
  struct esp_venue_boot_list boots;     /* how they boot: one for each venue,
                                         * in the order of their list */
  struct esp_overlay_info_list overlays;
  struct delayed *delayed;
  size_t ndelayed;
  struct esp_center_config_list centers;
  struct esp_client_seen_list seen;     /* by name */
  uint64_t disk_size, disk_free;        /* of the store's file system, bytes */
  bool readonly;

  unsigned refs;                /* inventory.c's */
};

/* What was read a second ago or less: a slow store is read less often, a sixth
 * of the time at most.  NULL, reported.
 */
extern const struct inventory *inventory_get (struct esp_store *store);
extern void inventory_put (const struct inventory *inventory);
static inline __attribute__ ((unused)) void
inventory_put_p (const struct inventory **inventory)
{
  if (*inventory)
    inventory_put (*inventory);
}
#define CLEANUP_INVENTORY __attribute__ ((cleanup (inventory_put_p)))
/* Let go of the last one: before the store is closed. */
extern void inventory_end (void);

/* What was seen of the machine NAME, or NULL. */
extern const struct esp_client_seen *
inventory_seen (const struct inventory *inventory, const char *name);

#endif /* ESPALIERD_INVENTORY_H */
