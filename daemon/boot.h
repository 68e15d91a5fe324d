/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /boot.ipxe: menus and ways to boot (docs/boot.md). */

#ifndef ESPALIERD_BOOT_H
#define ESPALIERD_BOOT_H

#include "http.h"

/* What remembers last choices in the background. */
extern int boot_start (const struct config *config);
extern void boot_stop (void);

/* The handler of "/boot.ipxe". */
extern int boot_script (struct request *r);

#endif /* ESPALIERD_BOOT_H */
