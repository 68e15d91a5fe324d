/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may open what over NBD: docs/boot.md, "Who may".
 *
 * The venue plugin sets it up.  Each module of ours that opens or makes
 * something of its own for a connection asks before it does (the overlay
 * filter), the plugin in any case; whoever is outermost decides, the others
 * find it decided.  So a client that is refused changes nothing.
 */

#ifndef ESPALIER_GATE_H
#define ESPALIER_GATE_H

#include <stdbool.h>
#include <sys/socket.h>

#include "store/store.h"

#pragma GCC visibility push(default)

struct esp_gate_params {
  bool require_ticket;
  const char *audit;            /* the audit log, absolute; NULL: none */
  /* The address of this thread's peer: nbdkit_peer_name. */
  int (*peer) (struct sockaddr *addr, socklen_t *len);
};

/* Can a gate be opened with PARAMS?  What cannot work is an error, what works
 * in part a warning: while somebody reads it.
 */
extern int esp_gate_check (struct esp_store *store,
                           const struct esp_gate_params *params);

/* From here on, until esp_gate_close, connections are let in by these rules.
 * STORE and what PARAMS points to stay the caller's, and open.
 */
extern void esp_gate_open (struct esp_store *store,
                           const struct esp_gate_params *params);
extern void esp_gate_close (void);

/* May this thread's client open EXPORT (as it named it)?  0: yes; *READONLY:
 * but nothing may be written for it.  -1, reported (never with the ticket):
 * no, and the audit log says so.  Between esp_stack_enter and esp_stack_leave
 * a module further in gets the same answer for the same disk without another
 * look.
 */
extern int esp_gate_pass (const char *export, bool *readonly);

/* The client that was let in now has TIP; or could not have it, because WHAT
 * (a word, "disk") failed.  For the audit log; a failure is written once,
 * and errno kept.
 */
extern void esp_gate_opened (const char *tip);
extern void esp_gate_failed (const char *what);

#pragma GCC visibility pop
#endif /* ESPALIER_GATE_H */
