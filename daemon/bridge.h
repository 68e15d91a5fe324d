/* SPDX-License-Identifier: BSD-3-Clause */
/* The iSCSI bridge: docs/boot.md.  One target for each client (and all disks
 * of its venue as LUNs), over tgtd and espalierd-disks.
 */

#ifndef ESPALIERD_BRIDGE_H
#define ESPALIERD_BRIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "util/name.h"

/* Clear what a killed daemon left; nothing is started yet.  Once. */
extern int bridge_start (const struct config *config);
/* Remove all targets, end tgtd. */
extern void bridge_stop (void);

struct bridge_want {
  char venue[ESP_NAME_MAX + 1], client[ESP_NAME_MAX + 1];
  unsigned ndisks;              /* LUN 1 is disk 0, and so on */
  char address[64];             /* of the initiator: nobody else may log in */
  const char *chap_user, *chap_secret;  /* NULL: no CHAP */
};
struct bridge_target {
  char iqn[224];                /* iqn.2026-11.org.espalier:VENUE:CLIENT:NONCE
                                 * in the characters that RFC 3722 allows */
  unsigned port, lun;           /* LUN of disk 0 */
};
/* Make the target of a client, and take down the one it had.  Returns within
 * some 10 s.  -1, reported: what does not work, and what to do (tgt is not
 * installed, no FUSE, the overlay is held by somebody else).
 */
extern int bridge_target (const struct config *config,
                          const struct bridge_want *want,
                          struct bridge_target *out);

/* CLIENT boots in another way now: what it had is taken down, and what was not
 * flushed of it is written before anybody else writes there.
 */
extern void bridge_forget (const char *client);

struct bridge_seen {
  char venue[ESP_NAME_MAX + 1], client[ESP_NAME_MAX + 1], address[64];
  char iqn[224];
  const char *state;            /* "ready", "used", … static */
  uint64_t since;               /* seconds since the epoch */
};
extern void bridge_each (void (*fn) (void *arg,
                                     const struct bridge_seen *seen),
                         void *arg);
/* Targets made, and those that died, since the start. */
extern void bridge_counts (uint64_t *made, uint64_t *died);

#endif /* ESPALIERD_BRIDGE_H */
