/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks between processes: flock on a directory or a file.  A lock belongs
 * to its descriptor and ends with it, also when the process is killed.
 * Nothing that holds a lock is opened before nbdkit forks.
 */

#ifndef ESPALIER_LOCK_H
#define ESPALIER_LOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma GCC visibility push(default)

/* Lock FD (flock), shared or exclusive, without waiting.  Returns 0, or -1
 * with errno (EWOULDBLOCK when somebody else holds it).  Reports nothing.
 * A lock that is held already by this descriptor is changed.
 */
extern int esp_lock (int fd, bool exclusive);

/* What a holder writes into a lock file, for people and `overlay list`. */
struct esp_holder {
  pid_t pid;                    /* 0: nobody holds it, or it ended cleanly */
  char program[32];             /* "nbdkit" */
  char boot_id[40];             /* /proc/sys/kernel/random/boot_id */
  uint64_t since;               /* seconds since the epoch */
  uint64_t quota;               /* bytes; 0: none */
};

/* Write, read or erase the holder of the locked file FD.  Not durable:
 * it is worth nothing after a power loss.  A damaged one reads as nobody
 * (all zero).  Report nothing.
 */
extern int esp_holder_write (int fd, const struct esp_holder *holder);
extern int esp_holder_read (int fd, struct esp_holder *holder);
extern int esp_holder_erase (int fd);

/* Fill HOLDER for this process: pid, program, boot id, since = now. */
extern void esp_holder_self (struct esp_holder *holder);

/* This boot's id, 16 bytes; where it cannot be read, random ones: nothing that
 * another process left is then of this boot.
 */
extern const uint8_t *esp_boot_id (void);

/* "nbdkit (process 1234, since 2026-11-23 10:00)" into BUF. */
extern const char *esp_holder_describe (const struct esp_holder *holder,
                                        char *buf, size_t size);

#pragma GCC visibility pop
#endif /* ESPALIER_LOCK_H */
