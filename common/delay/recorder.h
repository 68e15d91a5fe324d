/* SPDX-License-Identifier: BSD-3-Clause */
/* Boot profiles within delayed load: what recorder.c gives to the engine, and
 * what it needs of it.
 */

#ifndef ESPALIER_DELAY_RECORDER_H
#define ESPALIER_DELAY_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "delay/delay.h"

/* One for each engine; NULL (out of memory, params.profile is false): the
 * engine goes on without.  The keeper calls _tick every 20 to 100 ms, and no
 * lock of the engine is held at any of these calls.  _free saves what was
 * learnt; no recorder is open any more.
 */
struct boots;
extern struct boots *boots_new (struct esp_delay *delay,
                                struct esp_store *store);
extern void boots_tick (struct boots *boots);
extern void boots_free (struct boots *boots);

/* Called by reader.c.  _open may return NULL: nothing is recorded then.
 * _touch at each read (hits and misses), by any of the connection's threads,
 * before what is missing is waited for; while it returns true.
 */
struct recorder;
extern struct recorder *recorder_open (struct boots *boots,
                                       struct esp_delay_reader *reader);
extern bool recorder_touch (struct recorder *recorder, uint64_t offset,
                            uint64_t count);
extern void recorder_close (struct recorder *recorder);
/* Does a boot profile say what is read behind [OFFSET, OFFSET+COUNT)?  Then
 * a read there moves no read-ahead.  RECORDER may be NULL.
 */
extern bool recorder_knows (struct recorder *recorder, uint64_t offset,
                            uint64_t count);

/* What it may use.  Fetch what is missing of [OFFSET, OFFSET+COUNT), clipped
 * to the disk, in class ahead and in the order of calls; waits for nothing.
 * Returns how many segments were queued, -1 where none can be now.
 */
extern int reader_ahead (struct esp_delay_reader *reader, uint64_t offset,
                         uint64_t count);
/* Bytes of raw that are queued or fetched in class ahead. */
extern uint64_t delay_ahead_pending (struct esp_delay *delay);
extern struct esp_store *reader_store (const struct esp_delay_reader *reader);
extern struct esp_image *reader_image (const struct esp_delay_reader *reader);
/* Is there anything of its chain that may have to be fetched? */
extern bool reader_is_delayed (struct esp_delay_reader *reader);

#endif /* ESPALIER_DELAY_RECORDER_H */
