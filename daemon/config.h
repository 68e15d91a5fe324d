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
  bool check_mac;               /* a machine's word against the kernel's */
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

/* --- making one: for main, tests, fuzzers --------------------------------- */

/* What a name is: for help, completion, the command line. */
struct config_setting { const char *name, *arg, *help; };
/* The I-th, in the order of the manual page; false behind the last. */
extern bool config_setting (size_t i, struct config_setting *out);

/* One with the defaults, one reference, not current; aborts without memory. */
extern struct config *config_new (void);
/* Set NAME to the text VALUE; lists get one more.  WHERE ("FILE:LINE",
 * "--title") begins the message of an error: EINVAL.
 */
extern int config_set (struct config *config, const char *where,
                       const char *name, const char *value);
/* Read TEXT (LEN bytes, any), the contents of FILE.  0, or -1 with the first
 * error reported as "FILE:LINE: ...".
 */
extern int config_parse (struct config *config, const char *file,
                         const char *text, size_t len);
/* Fill in what follows from the rest (store, audit), and refuse what does not
 * go together.
 */
extern int config_finish (struct config *config);
/* NAME as the file has it, malloced; "" where it is not set.  The I-th of a
 * list; NULL behind the last.
 */
extern char *config_text (const struct config *config, const char *name,
                          size_t i);

/* What the command line said. */
struct config_option { const char *name, *value; };
struct config_source {
  const char *file;             /* NULL: /etc/espalier/espalierd.conf, if
                                 * there is one */
  const struct config_option *option;   /* in their order: the last counts */
  size_t noptions;
};
/* File, options, what follows.  NULL, reported. */
extern struct config *config_load (const struct config_source *source);
/* Make NEW the current one (its reference is taken over).  What only counts
 * from the start on keeps its value; FN is told its name.
 */
extern void config_use (struct config *config,
                        void (*fn) (const char *name));

#endif /* ESPALIERD_CONFIG_H */
