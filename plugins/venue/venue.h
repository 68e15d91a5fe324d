/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the plugin share. */

#ifndef ESPALIER_PLUGIN_VENUE_H
#define ESPALIER_PLUGIN_VENUE_H

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "boot/gate.h"
#include "store/store.h"
#include "util/name.h"

/* --- params.c: not changed once the server runs --------------------------- */
extern char *params_store;              /* absolute */
extern struct esp_gate_params params_gate;
extern const char *default_venue;       /* venue=, or NULL */
extern const esp_uuid *start;           /* start=, or NULL: everything */

/* Can what was given be served from S? */
extern int params_check (struct esp_store *s);
extern void params_free (void);

#define VENUE_HELP                                                      \
  "[store=]<DIR>         The store (default $ESPALIER_STORE, else\n"    \
  "                      /var/lib/espalier for root and the user's\n"   \
  "                      data directory for others).\n"                 \
  "venue=<ID>            The venue of clients that name none.\n"        \
  "start=<RP>            Serve this restore point and what descends\n"  \
  "                      from it only.\n"                               \
  "require-ticket=<BOOL> Open nothing without a ticket (default off).\n" \
  "audit=<FILE>          Append a line for each open, refused or not."

/* The open store, from after_fork to cleanup. */
extern struct esp_store *store;

/* nbdkit's callbacks of these names. */
extern int venue_config (const char *key, const char *value);
extern int venue_config_complete (void);
extern int venue_list_exports (int readonly, int is_tls,
                               struct nbdkit_exports *exports);
extern const char *venue_default_export (int readonly, int is_tls);

#endif /* ESPALIER_PLUGIN_VENUE_H */
