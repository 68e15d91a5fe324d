/* SPDX-License-Identifier: BSD-3-Clause */
/* How a segment lies on a node: cluster-get.c and cluster-put.c. */

#ifndef ESPALIER_CACHE_PUT_H
#define ESPALIER_CACHE_PUT_H

#include "cache/cluster-internal.h"

#define PUT_MAX (1u << ESP_SEGMENT_SHIFT_MAX)
#define PARTS_MAX 512u
#define PART_MIN 8192u                  /* bytes; a node whose items are
                                         * smaller is not given anything */
/* The head of a put lies under the key's text, part I of it under
 * "TEXT.PUT.I", so that parts of two puts never meet.
 */
#define PART_KEY_TEXT (NODE_KEY_TEXT + 1 + 16 + 1 + 5)
extern void part_key_text (const struct esp_cluster *cluster,
                           const struct esp_cache_key *key, uint64_t put,
                           unsigned part, char out[PART_KEY_TEXT]);

#endif /* ESPALIER_CACHE_PUT_H */
