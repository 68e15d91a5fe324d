/* SPDX-License-Identifier: BSD-3-Clause */
/* What espalierd says on standard error. */

#ifndef ESPALIERD_LOG_H
#define ESPALIERD_LOG_H

#include <stdbool.h>
#include <stddef.h>

/* Become the library's host: errors and warnings are lines of the log, debug
 * messages with VERBOSE.  Under systemd (standard error is what $JOURNAL_STREAM
 * names) lines begin with their level, "<3>", else with "espalierd: ".
 */
extern void log_init (bool verbose);
extern bool log_verbose (void);

/* What the operator should know, and is no fault. */
extern void log_info (const char *fmt, ...)
  __attribute__ ((format (printf, 1, 2)));

/* Replace what may be a ticket ("+" and 40 or more characters of base64url) by
 * "+..." in TEXT.  Every line of the log went through it.
 */
extern void log_hide (char *text);

#endif /* ESPALIERD_LOG_H */
