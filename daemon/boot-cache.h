/* SPDX-License-Identifier: BSD-3-Clause */
/* Files that were taken out of disk images, kept below daemon_dir()/boot/. */

#ifndef ESPALIERD_BOOT_CACHE_H
#define ESPALIERD_BOOT_CACHE_H

#include "util/name.h"

/* What WANT is in TIP (extract.h), taken out now or before; many may ask at
 * once.  A descriptor for reading, and in TAG what names its bytes.  -1, as
 * extract does; the reason is reported, and the same to all who wait.
 */
#define BOOT_TAG_MAX 64
extern int boot_cache_get (const esp_uuid *tip, const char *want,
                           char tag[BOOT_TAG_MAX]);

/* Make the directory, and clear what is of another version or half done.  Once,
 * before the first get.
 */
extern int boot_cache_start (void);

#endif /* ESPALIERD_BOOT_CACHE_H */
