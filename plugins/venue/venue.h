/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the plugin share. */

#ifndef ESPALIER_PLUGIN_VENUE_H
#define ESPALIER_PLUGIN_VENUE_H

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "store/store.h"
#include "util/name.h"

/* Parameters; not changed once the server runs. */
extern const char *default_venue;       /* venue=, or NULL */
extern const esp_uuid *start;           /* start=, or NULL: everything */

/* The open store, from after_fork to cleanup. */
extern struct esp_store *store;

/* nbdkit's callbacks of these names. */
extern int venue_list_exports (int readonly, int is_tls,
                               struct nbdkit_exports *exports);
extern const char *venue_default_export (int readonly, int is_tls);

#endif /* ESPALIER_PLUGIN_VENUE_H */
