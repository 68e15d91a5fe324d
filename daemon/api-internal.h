/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of the API's answers:
 *
 *   api.c           requests: caching, ETags
 *   api-state.c     the whole, as the page takes it
 *   api-store.c     what is in the store
 *   api-clients.c   clients
 *   api-live.c      what servers count
 *   api-problems.c  what is wrong, in words
 */

#ifndef ESPALIERD_API_INTERNAL_H
#define ESPALIERD_API_INTERNAL_H

#include "config.h"
#include "inventory.h"
#include "pulse.h"

/* Each returns a new object or array. */

/* --- api-store.c ----------------------------------------------------------- */
/* LOCAL: with how much of delayed ones is local, which changes all the time. */
extern json_t *api_points (const struct inventory *inv, bool local);
/* One of INV's own. */
extern json_t *api_venue (const struct inventory *inv,
                          const struct esp_venue *venue);
extern json_t *api_venues (const struct inventory *inv);
extern json_t *api_overlays (const struct inventory *inv);
/* CENTERS as they are known, with what PULSE says of them. */
extern json_t *api_centers (const struct inventory *inv,
                            const struct pulse *pulse);
/* URL without what may be a secret: user, password, and parameters other than
 * S3's endpoint and region.  malloced, NULL: no memory.
 */
extern char *api_public_url (const char *url);

/* --- api-clients.c ----------------------------------------------------------- */
/* Those that are connected, and those that have an overlay: connected ones
 * first, then by when they were seen last.  At most MAX in the list.
 */
extern json_t *api_clients (const struct inventory *inv,
                            const struct pulse *pulse, size_t max);

/* --- api-live.c ---------------------------------------------------------------- */
extern json_t *api_hydration (const struct inventory *inv,
                              const struct pulse *pulse);
extern json_t *api_cache (const struct pulse *pulse);
extern json_t *api_history (const struct pulse *pulse);
extern json_t *api_boots (size_t max);
extern json_t *api_server (const struct config *config,
                           const struct inventory *inv,
                           const struct pulse *pulse);

/* --- api-problems.c -------------------------------------------------------------- */
extern json_t *api_problems (const struct inventory *inv,
                             const struct pulse *pulse);

/* --- api-state.c ------------------------------------------------------------------ */
/* All but the tree. */
extern json_t *api_state (const struct config *config,
                          const struct inventory *inv,
                          const struct pulse *pulse);

/* What stands between a row's kind and a sum: the live row called NAME, added
 * up over processes.  False where there is none.
 */
extern bool api_live (const struct pulse *pulse, enum esp_stats_kind kind,
                      const char *name, struct line *sum);

#endif /* ESPALIERD_API_INTERNAL_H */
