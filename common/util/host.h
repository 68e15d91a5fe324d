/* SPDX-License-Identifier: BSD-3-Clause */
/* What libespalier takes from the program that hosts it (nbdkit, the
 * command line, a unit test, a fuzzer): where errors and debug messages go.
 *
 * The convention of the whole library: a function that returns int returns
 * 0, or -1 with errno set after it reported exactly one error with
 * esp_error; one that returns a pointer returns NULL likewise.  A function
 * that differs says so in its comment.
 */

#ifndef ESPALIER_HOST_H
#define ESPALIER_HOST_H

#include <stdarg.h>
#include <stdbool.h>

#pragma GCC visibility push(default)

#define ESP_PRINTF(fmt, args) __attribute__ ((format (printf, fmt, args)))

struct esp_host {
  /* A message without newline.  May be called from any thread, with errno
   * as it was at the call of esp_error (so %m works); must preserve errno.
   */
  void (*error) (const char *fmt, va_list args);
  void (*debug) (const char *fmt, va_list args);
  /* Of the same error again and again (each read, while a center is away)
   * only one in ten seconds, with the number of the others.
   */
  bool seldom;
};

/* Set the host's functions; HOST is copied.  Call it before any thread
 * starts.  NULL functions print "espalier: MESSAGE" on stderr, and drop
 * debug messages.
 */
extern void esp_set_host (const struct esp_host *host);

/* Report an error, or a debug message.  errno is preserved. */
extern void esp_error (const char *fmt, ...) ESP_PRINTF (1, 2);
extern void esp_debug (const char *fmt, ...) ESP_PRINTF (1, 2);

/* A warning: something the operator should know that stops nothing.  It
 * takes the way of errors, with "warning: " before it.
 */
extern void esp_warning (const char *fmt, ...) ESP_PRINTF (1, 2);

/* Send errors of this thread into BUF (SIZE bytes, always terminated; the
 * first message wins) instead of to the host, until it is called with
 * NULL.  For callers that put a cause into a message of their own, and for
 * tests.  Returns the buffer that was set before, or NULL.
 */
extern char *esp_catch_errors (char *buf, unsigned size);

/* The same for code that may run inside another catch: _begin returns what
 * was set before, _end sets that again, with what it had caught.
 */
struct esp_catch { char *buf; unsigned size; };
extern struct esp_catch esp_catch_begin (char *buf, unsigned size);
extern void esp_catch_end (struct esp_catch before);

/* The library's version, "0.1.0". */
extern const char *esp_version (void);

#pragma GCC visibility pop
#endif /* ESPALIER_HOST_H */
