/* SPDX-License-Identifier: BSD-3-Clause */
/* Images in the formats of others.  Raw files and block devices are read
 * directly; qcow2, vmdk, vhdx, vdi and so on through qemu-nbd and libnbd,
 * which we start for one image and end with it.
 */

#ifndef ESPALIER_SOURCE_H
#define ESPALIER_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/image.h"
#include "store/rp.h"
#include "util/progress.h"

#pragma GCC visibility push(default)

struct esp_image_source;

/* Open the image at PATH for reading.  FORMAT: as qemu names it ("raw",
 * "qcow2", …), or NULL to detect it from its magic (a file without a known
 * one is raw).  Errors say what to do: no such file, no qemu-nbd, a
 * backing file that is missing (its name), in use by another program.
 */
extern struct esp_image_source *esp_source_open (const char *path,
                                                 const char *format);
/* A restore point as a source. */
extern struct esp_image_source *esp_source_image (struct esp_image *image);
extern void esp_source_close (struct esp_image_source *source);
extern uint64_t esp_source_size (const struct esp_image_source *source);
extern const char *esp_source_format (const struct esp_image_source *source);

/* Read the source from beginning to end: FN gets runs in order without
 * gaps, with their bytes (BUF not NULL, LEN at most 4 MiB) or known to be
 * zero (BUF NULL, any LEN).  FN returns 0 to go on, -1 to stop with errno.
 * PROGRESS may be NULL.  ECANCELED when it stopped the work.
 */
typedef int (*esp_source_fn) (void *arg, uint64_t offset, uint64_t len,
                              const void *buf);
extern int esp_source_read (struct esp_image_source *source, esp_source_fn fn,
                            void *arg, esp_progress_fn progress, void *parg);

/* Fill DRAFT (a root) with SOURCE; blocks of zero are kept as holes.  Or
 * (a child) with the blocks in which SOURCE differs from PARENT.
 */
extern int esp_draft_import (struct esp_draft *draft,
                             struct esp_image_source *source,
                             struct esp_image *parent,
                             esp_progress_fn progress, void *parg);

/* Write IMAGE into the new file PATH (EEXIST if it is there, unless
 * FORCE), FORMAT "raw" (sparse) or "qcow2".  All or nothing.
 */
extern int esp_image_export (struct esp_image *image, const char *path,
                             const char *format, bool force,
                             esp_progress_fn progress, void *parg);

#pragma GCC visibility pop
#endif /* ESPALIER_SOURCE_H */
