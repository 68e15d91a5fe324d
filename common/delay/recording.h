/* SPDX-License-Identifier: BSD-3-Clause */
/* One recording: the order in which one client first touched the disk, and
 * whether that was a boot.  Not thread-safe; knows no clock, no file.
 */

#ifndef ESPALIER_RECORDING_H
#define ESPALIER_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

#define ESP_RECORDING_UNITS_MAX (1u << 16)       /* 4 GiB of the disk */
#define ESP_RECORDING_MS_MAX (5 * 60 * 1000u)    /* from its first touch */
#define ESP_RECORDING_MS_IDLE (30 * 1000u)       /* without a new unit */
#define ESP_RECORDING_UNITS_MIN 32u              /* less is no boot */

struct esp_recording;

/* NULL: out of memory; not reported (a boot is then not learnt). */
extern struct esp_recording *esp_recording_new (void);
extern void esp_recording_free (struct esp_recording *rec);

/* The client reads [OFFSET, OFFSET+COUNT) at NOW (milliseconds of a clock
 * that only rises).  False: the recording is over, and this is not in it.
 */
extern bool esp_recording_touch (struct esp_recording *rec, uint64_t offset,
                                uint64_t count, uint64_t now);
/* Is it over at NOW: long enough, idle, or full? */
extern bool esp_recording_over (const struct esp_recording *rec, uint64_t now);

/* The units in the order of their first touch; REC's own. */
extern const uint32_t *esp_recording_order (const struct esp_recording *rec,
                                           size_t *n);
/* Does an order look like a boot (recording.c has the rule)? */
extern bool esp_recording_is_boot (const uint32_t *order, size_t n);

#pragma GCC visibility pop
#endif /* ESPALIER_RECORDING_H */
