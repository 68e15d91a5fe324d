/* SPDX-License-Identifier: BSD-3-Clause */
/* No process that the daemon starts outlives it, however it ends.
 *
 * PR_SET_PDEATHSIG is not enough: programs set it anew (nbdkit does, to a
 * signal after which it waits for its clients).  So a small process waits for
 * the daemon's end, which closes a pipe, and then kills.
 */

#ifndef ESPALIERD_ORPHAN_H
#define ESPALIERD_ORPHAN_H

#include <sys/types.h>

struct orphan {
  pid_t pid;                    /* of the waiting process; 0: none */
  int pipe;                     /* its end is what that process waits for */
};
/* Watch over the process that PIDFD stands for: SIGKILL it when this process
 * ends.  -1, reported.
 */
extern int orphan_begin (int pidfd, struct orphan *out);
/* It has ended (or shall, now). */
extern void orphan_end (struct orphan *o);

#endif /* ESPALIERD_ORPHAN_H */
