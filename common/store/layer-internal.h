/* SPDX-License-Identifier: BSD-3-Clause */
/* What layer.c and layer-delayed.c share.  Not for others. */

#ifndef ESPALIER_LAYER_INTERNAL_H
#define ESPALIER_LAYER_INTERNAL_H

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/have.h"
#include "store/layer.h"

/* --- layer.c ------------------------------------------------------------- */
/* Read what is there; bring it into the page cache. */
extern int layer_read_now (struct layer *layer, void *buf, uint64_t n,
                           uint64_t offset);
extern void layer_cache_now (struct layer *layer, uint64_t n,
                             uint64_t offset);

/* --- layer-delayed.c ------------------------------------------------------ */
/* Must meta be asked whether the restore point in DIR is a delayed one?
 * DATA is of its file `data`.
 */
extern bool layer_may_be_delayed (int dir, const struct stat *data);
/* *HAVE gets what is open of a delayed one, NULL for others. */
extern int layer_open_delayed (struct esp_store *store, const esp_uuid *uuid,
                               struct esp_have **have);
/* As layer_read and layer_cache. */
extern int layer_read_delayed (struct layer *layer, struct esp_have *have,
                               void *buf, uint64_t n, uint64_t offset);
extern void layer_cache_delayed (struct layer *layer, struct esp_have *have,
                                 uint64_t n, uint64_t offset);

#endif /* ESPALIER_LAYER_INTERNAL_H */
