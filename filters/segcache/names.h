/* SPDX-License-Identifier: BSD-3-Clause */
/* Does the plugin have a disk for each export name, or one for all? */

#ifndef ESPALIER_SEGCACHE_NAMES_H
#define ESPALIER_SEGCACHE_NAMES_H

#include <stdbool.h>

/* segcache-names=VALUE.  -1, reported: it is none. */
extern int names_config (const char *value);
/* What the parameter KEY=VALUE, which is the plugin's, tells. */
extern void names_look (const char *key, const char *value);

/* The name under which the disk that clients call NAME is cached. */
extern const char *names_cached_as (const char *name);
/* True: nobody knows which disk NAME is; what is read there is not kept (said
 * once), and what is written there may be the disk of the empty name.
 */
extern bool names_unknown (const char *name);

#endif /* ESPALIER_SEGCACHE_NAMES_H */
