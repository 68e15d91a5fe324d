/* SPDX-License-Identifier: BSD-3-Clause */
/* Kernels and initrds over HTTP: docs/boot.md, "HTTP SAN, kernel, initrd". */

#ifndef ESPALIERD_FILES_H
#define ESPALIERD_FILES_H

#include <stdbool.h>

#include "catalog/catalog.h"

#include "http.h"

/* The handlers of "/venues/<ID>/kernel" and "/venues/<ID>/initrd"; both take
 * the same tip= and t= (for disk 0) as /venues/<ID>/disk/0.
 */
extern int files_kernel (struct request *r);
extern int files_initrd (struct request *r);
/* Has a client of a venue with these settings an initrd to load?  Where
 * neither kernel nor initrd is set, both are looked for in disk 0; where only a
 * kernel is set, there is none.
 */
extern bool files_has_initrd (const struct esp_venue_boot *boot);

/* Clear what a killed daemon left, mounts (mount.h) included; before the first
 * request.  End: the connections of disks and files are closed.
 */
extern int files_start (const struct config *config);
extern void files_stop (void);

#endif /* ESPALIERD_FILES_H */
