/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemon's configuration: one file of "name = value" lines ('#' begins a
 * comment), whose names are those of the long options; options win.  A
 * configuration is never changed: SIGHUP makes another one.
 */

#ifndef ESPALIERD_CONFIG_H
#define ESPALIERD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum unknown_clients { UNKNOWN_MENU, UNKNOWN_DEFAULT, UNKNOWN_REFUSE };

struct config {
  char *store;                  /* absolute */
  char *listen;                 /* "ADDRESS:PORT", "[::]:8610", ":8610" */
  char *nbd;                    /* URI of a server that runs already, without
                                 * an export name; NULL: start our own */
  char *nbd_listen;             /* ADDRESS:PORT for clients */
  char *nbd_options;            /* more options of `espalier serve` */
  char *iscsi_listen;           /* ADDRESS:PORT, default port 3260; "" : no
                                 * bridge */
  char *address;                /* what clients call this server; NULL: the
                                 * address that their request came to */
  char *title;                  /* of menu and page */
  char *default_venue;          /* or NULL */
  enum unknown_clients unknown_clients;
  unsigned menu_timeout;        /* seconds; 0: wait for a choice */
  bool shell;                   /* offer iPXE's shell in menus */
  bool require_ticket;
  unsigned ticket_opens, ticket_valid;  /* seconds */
  bool ticket_address;          /* bind tickets to the client's address */
  unsigned bridge_grace;        /* seconds a target waits for its initiator */
  char *audit;                  /* file, NULL: none */
  char **servers;               /* URLs of the site's other espalierds */
  size_t nservers;
};

/* The configuration that is current, with a reference; never NULL once main
 * has loaded one.
 */
extern const struct config *config_get (void);
extern void config_put (const struct config *config);
static inline __attribute__ ((unused)) void
config_put_p (const struct config **config)
{
  if (*config)
    config_put (*config);
}
#define CLEANUP_CONFIG __attribute__ ((cleanup (config_put_p)))

#endif /* ESPALIERD_CONFIG_H */
