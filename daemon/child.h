/* SPDX-License-Identifier: BSD-3-Clause */
/* Other people's programs, run by the daemon. */

#ifndef ESPALIERD_CHILD_H
#define ESPALIERD_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How a program runs: a session of its own, no signal blocked, SIGPIPE
 * ignored, nothing of our environment and of our files but these.
 */
struct child_how {
  const char *const *argv;      /* looked for in CHILD_PATH */
  int out, err;                 /* its 1 and 2; -1: /dev/null */
  int keep;                     /* another one, its 3; -1: none */
  unsigned cpu;                 /* seconds; 0, as below: no limit */
  uint64_t memory;              /* bytes of address space */
  uint64_t file_size;           /* bytes of a file that it writes */
  bool with_thread;             /* ends when the thread that starts it ends */
  const char *writes_to;        /* confined: no new rights, no network, and
                                 * writes only below this directory; NULL: not */
};
#define CHILD_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Start it.  -1, reported: also where the program is not there (ENOENT). */
extern pid_t child_start (const struct child_how *how);
/* Wait until PID ends, for at most MS milliseconds; *STATUS as of waitpid.
 * 0; -1 with ETIMEDOUT, nothing reported.
 */
extern int child_wait (pid_t pid, unsigned ms, int *status);
/* End its session: SIGTERM, after MS milliseconds SIGKILL; waits for it. */
extern void child_end (pid_t pid, unsigned ms);

#endif /* ESPALIERD_CHILD_H */
