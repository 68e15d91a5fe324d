/* SPDX-License-Identifier: BSD-3-Clause */
/* A progress bar on stderr, when stderr is a terminal. */

#ifndef ESPALIER_PROGRESS_H
#define ESPALIER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* How long work tells how far it is.  DONE and TOTAL in bytes; called at
 * most a few hundred times.  Returns 0 to go on, -1 to stop the work
 * (errno ECANCELED): so an interrupt ends it cleanly.
 */
typedef int (*esp_progress_fn) (void *arg, uint64_t done, uint64_t total);

/* The bar: LABEL, percent, bytes, rate, time left; drawn at most ten times
 * a second, cleared at its end.  Nothing is printed when stderr is no
 * terminal or QUIET is set.
 */
struct esp_progress;
extern struct esp_progress *esp_progress_new (const char *label, bool quiet);
extern int esp_progress_update (void *progress, uint64_t done,
                                uint64_t total);
/* Take the bar away, so that a line can be printed; the next update draws it
 * again.
 */
extern void esp_progress_clear (struct esp_progress *progress);
extern void esp_progress_free (struct esp_progress *progress);

/* Ask running work to stop at its next progress call (for SIGINT and
 * SIGTERM handlers: async-signal-safe).
 */
extern void esp_progress_interrupt (void);
extern bool esp_progress_interrupted (void);

#pragma GCC visibility pop
#endif /* ESPALIER_PROGRESS_H */
