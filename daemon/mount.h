/* SPDX-License-Identifier: BSD-3-Clause */
/* An NBD disk as a file: nbdfuse below daemon_dir()/mnt/. */

#ifndef ESPALIERD_MOUNT_H
#define ESPALIERD_MOUNT_H

#include <stdbool.h>
#include <sys/types.h>

struct mount {
  char *dir;                    /* NULL: nothing */
  char *file;                   /* the disk, in it */
  pid_t pid;                    /* of nbdfuse: whoever has the mount may wait
                                 * for its end, but leave the body */
};

/* Show URI as out->file.  WITH_THREAD: it ends with the thread that calls, even
 * when the daemon is killed.  -1, reported: FUSE is not there, nbdfuse is
 * not installed, the server does not answer (in 15 s).
 */
extern int mount_open (const char *uri, bool readonly, bool with_thread,
                       struct mount *out);
/* End nbdfuse and take the file away.  All bytes zero are allowed. */
extern void mount_close (struct mount *m);
#define CLEANUP_MOUNT __attribute__ ((cleanup (mount_close)))

/* Take away what a killed daemon left; before the first mount_open. */
extern int mount_clear (void);

#endif /* ESPALIERD_MOUNT_H */
