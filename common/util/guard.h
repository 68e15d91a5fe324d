/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading memory that a file backs, when the file may fail.
 *
 * A mapped file that was cut short, or whose disk has an I/O error, answers
 * a read with SIGBUS.  Between esp_guard_begin and esp_guard_end a SIGBUS
 * of this thread becomes an error of that one read; elsewhere it ends the
 * process as it would without us (the handler hands it on to the one that
 * was there before).
 */

#ifndef ESPALIER_GUARD_H
#define ESPALIER_GUARD_H

#include <stddef.h>

#pragma GCC visibility push(default)

/* Install the handler; may be called many times, from any thread.  Called
 * by whatever maps files, each time: it takes its place again if the host
 * has set another handler meanwhile.  Returns 0, or -1 with errno; reports
 * nothing.
 */
extern int esp_guard_init (void);

/* memcpy (DST, SRC, N) where SRC is a mapped file.  Returns 0, or -1 with
 * errno EIO when the file does not give its bytes (DST is then undefined).
 * Reports nothing.
 */
extern int esp_guard_copy (void *dst, const void *src, size_t n);

/* Call FN (ARG) with mapped files guarded.  FN must not take locks,
 * allocate, or open anything: it is left by a jump.  Returns what FN
 * returned, or -1 with errno EIO.  Reports nothing.  Not recursive.
 */
extern int esp_guard_call (int (*fn) (void *arg), void *arg);

/* The bytes of address space that the library may still map for files
 * (layers with their holes are as large as their disks).  Take N bytes:
 * returns 0, or -1 (errno ENOMEM, nothing reported) when the caller should
 * use pread instead.  Give N back after the munmap.
 */
extern int esp_guard_reserve (size_t n);
extern void esp_guard_release (size_t n);

#pragma GCC visibility pop
#endif /* ESPALIER_GUARD_H */
