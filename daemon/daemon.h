/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of espalierd share. */

#ifndef ESPALIERD_DAEMON_H
#define ESPALIERD_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/ticket.h"
#include "config.h"
#include "store/store.h"

/* Open from before the first request until behind the last. */
extern struct esp_store *daemon_store (void);
/* A directory for what the daemon makes: STORE/run/espalierd, 0700; absolute.
 * One daemon for each store (locked).
 */
extern const char *daemon_dir (void);
/* The site's key of tickets; made with the first use.  NULL, reported. */
extern const struct esp_ticket_key *daemon_ticket_key (void);

/* --- the stack (stack.c) -------------------------------------------------- */
enum stack_state { STACK_STARTING, STACK_UP, STACK_DOWN };
struct stack_info {
  enum stack_state state;
  bool ours;                    /* we started it, and start it again */
  int pid;
  uint64_t since;               /* seconds since the epoch */
  unsigned restarts;
  char why[256];                /* DOWN: what it said last */
};
extern void stack_info (struct stack_info *out);
/* The NBD URI of EXPORT (with its ticket, if any) for ourselves: over the
 * stack's Unix socket, or config->nbd.  malloced; NULL, reported.
 */
extern char *stack_uri (const char *export);
/* HOST and port under which clients reach the stack: HOST is what the request
 * came to (or config->address, or that of config->nbd).  0, or -1 where it
 * listens for nobody (a Unix socket).
 */
extern int stack_client_address (const struct config *config,
                                 const char *request_host, char host[256],
                                 unsigned *port);

/* --- export names --------------------------------------------------------- */
/* EXPORT (VENUE/DISK@CLIENT, or without client: read-only) as a client at
 * ADDRESS, or we ourselves (""), may open it: with a ticket where one is
 * required.  0, or -1, reported.
 */
extern int daemon_export (const struct config *config,
                          const struct esp_export *e, const char *address,
                          char buf[ESP_EXPORT_MAX]);

/* --- the last boots (boots.c): what the page shows ------------------------- */
struct boot_seen {
  uint64_t at;                  /* seconds since the epoch */
  char client[ESP_NAME_MAX + 1], venue[ESP_NAME_MAX + 1], address[64];
  const char *what;             /* "menu", "iscsi", "http", "nbdroot",
                                 * "refused"; static */
};
extern void boots_add (const struct boot_seen *boot);
/* Newest first, at most MAX; how many were put into OUT. */
extern size_t boots_last (struct boot_seen *out, size_t max);
/* How many since the start, by what. */
extern uint64_t boots_count (const char *what);

#endif /* ESPALIERD_DAEMON_H */
