/* SPDX-License-Identifier: BSD-3-Clause */
/* Layers: the data of one restore point, open for reading.  One object for
 * each restore point and process, shared by all images that have it in
 * their chain.  Inside the library only; programs read images.
 */

#ifndef ESPALIER_LAYER_H
#define ESPALIER_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

struct layer;

/* The layer of restore point UUID, opened if nobody has it open.  Errors:
 * EIO, ENOENT, ESTALE (a root in place that changed) and others.
 */
extern struct layer *layer_get (struct esp_store *store,
                                const esp_uuid *uuid);
extern void layer_put (struct layer *layer);

/* Read N bytes at OFFSET, all within blocks that the layer holds.  EIO
 * where the file is too short or cannot be read, ESTALE.
 */
extern int layer_read (struct layer *layer, void *buf, uint64_t n,
                       uint64_t offset);

/* Where the N bytes at OFFSET are mapped, all within blocks that the layer
 * holds, and the serial number of that mapping (view.h).  NULL, where reading
 * the layer takes more than its memory.
 */
extern const void *layer_mapping (const struct layer *layer, uint64_t n,
                                  uint64_t offset, uint64_t *serial);

/* Begin to read N bytes at OFFSET into the page cache. */
extern void layer_cache (struct layer *layer, uint64_t n, uint64_t offset);

/* May layers that nobody uses stay mapped?  (See idle.c; not by default.) */
extern void layer_keep_idle (bool keep);
/* Release those that nobody used for SECONDS; 0: all. */
extern void layer_trim (unsigned seconds);

#endif /* ESPALIER_LAYER_H */
