/* SPDX-License-Identifier: BSD-3-Clause */
/* The live counters of the cache's tiers and nodes. */

#ifndef ESPALIER_SEGCACHE_TIERS_H
#define ESPALIER_SEGCACHE_TIERS_H

#include "cache/memory.h"
#include "cache/shared.h"
#include "stats/stats.h"

/* From here to tiers_stop the rows of STATS follow the counters of MEMORY and
 * SHARED, which may be NULL.  -1, reported.
 */
extern int tiers_count (struct esp_stats *stats, struct esp_memory *memory,
                        struct esp_shared *shared);
/* Before they are closed. */
extern void tiers_stop (struct esp_stats *stats);

/* A debug message for each tier; both may be NULL. */
extern void tiers_print (struct esp_memory *memory,
                         struct esp_shared *shared);

#endif /* ESPALIER_SEGCACHE_TIERS_H */
