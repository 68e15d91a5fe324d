/* SPDX-License-Identifier: BSD-3-Clause */
/* The clock that no one sets. */

#ifndef ESPALIER_CLOCK_H
#define ESPALIER_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Microseconds of CLOCK_MONOTONIC, which cannot fail. */
static inline uint64_t
esp_now_us (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

#endif /* ESPALIER_CLOCK_H */
