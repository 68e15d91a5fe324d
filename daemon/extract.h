/* SPDX-License-Identifier: BSD-3-Clause */
/* Take a file out of a disk image, by GRUB's own file systems. */

#ifndef ESPALIERD_EXTRACT_H
#define ESPALIERD_EXTRACT_H

#include "util/name.h"

/* What is wanted of a restore point: a path ("image:/boot/vmlinuz"), or what one
 * would boot: "kernel", "initrd".
 */
#define EXTRACT_KERNEL "kernel"
#define EXTRACT_INITRD "initrd"

/* Write what WANT is in TIP into the file OUT in the directory DIR (absolute;
 * nothing else is in it).  -1, reported: ENOENT where it is not there, with what
 * is; EINVAL where WANT is wrong; another errno where it could not be looked.
 * May take a minute.
 */
extern int extract (const esp_uuid *tip, const char *want, const char *dir,
                    const char *out);

#endif /* ESPALIERD_EXTRACT_H */
