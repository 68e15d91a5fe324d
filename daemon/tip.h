/* SPDX-License-Identifier: BSD-3-Clause */
/* Which restore point a request for a venue's disk is about, and whether its
 * client may have it.
 */

#ifndef ESPALIERD_TIP_H
#define ESPALIERD_TIP_H

#include "catalog/catalog.h"
#include "util/name.h"

#include "http.h"

/* Disk DISK of venue ID for the client of R: 1 with *TIP, and in BOOT what the
 * venue says of booting (the caller clears it).  Else 0: a reply was made, and
 * *RESULT is what it returned: 404 no such venue, disk or tip; 403 its networks
 * or its ticket.
 *
 * ID may be written as esp_script_encode writes it.  Query: tip=UUID, a restore point that is or was the tip of that disk; t=TICKET
 * for VENUE/DISK without a client, where tickets are required (one that is given
 * anyway is checked, too).
 */
extern int tip_of_request (struct request *r, const char *id, unsigned disk,
                           struct esp_venue_boot *boot, esp_uuid *tip,
                           int *result);

/* The URI under which we ourselves read TIP, with a ticket of our own where the
 * stack asks for one; malloced.  NULL, reported.
 */
extern char *tip_uri (const esp_uuid *tip);

#endif /* ESPALIERD_TIP_H */
