/* SPDX-License-Identifier: BSD-3-Clause */
/* The audit log: one line of logfmt (name=value name="two words") for each
 * open and each boot script.  docs/formats.md, "audit log".
 */

#ifndef ESPALIER_AUDIT_H
#define ESPALIER_AUDIT_H

#pragma GCC visibility push(default)

/* Append a line to FILE: time=2026-11-23T10:33:52Z event=EVENT, then pairs of
 * name and value (const char *) up to a NULL; a value of NULL leaves its pair
 * out.  Values are quoted and escaped where they must be: bytes of a peer never
 * make a second line.  One write to a file opened for it, so lines of several
 * processes do not mix and a rotated file needs no signal.  A line that
 * cannot be written is said once a minute; nothing is returned.
 */
extern void esp_audit (const char *file, const char *event, ...)
  __attribute__ ((sentinel));

/* Can somebody like us write to FILE?  Makes nothing: nbdkit may change its
 * user later.
 */
extern int esp_audit_check (const char *file);

#pragma GCC visibility pop
#endif /* ESPALIER_AUDIT_H */
