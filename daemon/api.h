/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /api/…: docs/api.md has every field.  Nothing here changes anything, and
 * nothing that is secret is told: no tickets, keys, or credentials.
 */

#ifndef ESPALIERD_API_H
#define ESPALIERD_API_H

#include "http.h"

extern int api_state_handle (struct request *r);
extern int api_tree_handle (struct request *r);
extern int api_venues_handle (struct request *r);
extern int api_venue_handle (struct request *r);
extern int api_clients_handle (struct request *r);
extern int api_overlays_handle (struct request *r);
extern int api_hydration_handle (struct request *r);
extern int api_cache_handle (struct request *r);
extern int api_centers_handle (struct request *r);
extern int api_boots_handle (struct request *r);
extern int api_server_handle (struct request *r);

/* Begin to look at the servers of the daemon's store; and end.  Between them
 * the handlers work.
 */
extern int api_start (const struct config *config);
extern void api_stop (void);

#endif /* ESPALIERD_API_H */
