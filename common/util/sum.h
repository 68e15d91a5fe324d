/* SPDX-License-Identifier: BSD-3-Clause */
/* The checksum of the formats: XXH3 with 64 bits (https://xxhash.com).  It
 * finds damage; it is no protection against somebody who means harm.
 */

#ifndef ESPALIER_SUM_H
#define ESPALIER_SUM_H

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

static inline uint64_t
esp_sum (const void *buf, size_t len)
{
  return XXH3_64bits (buf, len);
}

#endif /* ESPALIER_SUM_H */
