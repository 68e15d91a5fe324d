/* SPDX-License-Identifier: BSD-3-Clause */
/* What an image is, by its first and last bytes. */

#ifndef ESPALIER_DETECT_H
#define ESPALIER_DETECT_H

#include <stdint.h>

/* The format of the image FD, SIZE bytes long, by its magic, as qemu names
 * it; "raw" where there is none.  Looks at the first ESP_DETECT_HEAD and the
 * last ESP_DETECT_TAIL bytes only.
 */
#define ESP_DETECT_HEAD 4096u
#define ESP_DETECT_TAIL 512u
extern const char *esp_detect_format (int fd, uint64_t size);

#endif /* ESPALIER_DETECT_H */
