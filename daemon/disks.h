/* SPDX-License-Identifier: BSD-3-Clause */
/* espalierd-disks: clients' disks as files, which tgtd can open.  A process of
 * its own, one for the daemon: disks.c has the file system, disks-control.c
 * what the daemon asks, disks-nbd.c one disk.
 *
 * A disk outlives its server.  When the connection to nbdkit breaks, requests
 * wait until there is a new one, at most DISK_PATIENCE_S.  What a server has
 * acknowledged but not flushed dies with it, and an initiator that sees no error
 * never writes it again: so each write is remembered until a flush covers
 * it, and written again, in order, before anything else goes on.
 */

#ifndef ESPALIERD_DISKS_H
#define ESPALIERD_DISKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_NAME_MAX 63
/* Seconds that a request waits for a server to come back. */
#define DISK_PATIENCE_S 60
/* Seconds that the first connection may take. */
#define DISK_OPEN_S 8

struct disk;

/* Make the disk NAME of the export URI and connect it.  *SIZE is in bytes.
 * -1: WHY says what is wrong.
 */
extern int disk_open (const char *name, const char *uri, uint64_t *size,
                      char *why, size_t why_size);
/* What NAME connects to from now on (a newer ticket).  -1: no such disk. */
extern int disk_uri (const char *name, const char *uri);
/* Take NAME away: what waits fails, what is on its way is waited for and
 * flushed, for some seconds.  Those who have it open get EIO.  -1: no such
 * disk.
 */
extern int disk_close (const char *name);
extern void disk_close_all (void);

/* A reference, NULL where there is none; disk_put gives it back. */
extern struct disk *disk_find (const char *name);
extern struct disk *disk_find_ino (uint64_t ino);
extern struct disk *disk_get (struct disk *d);
extern void disk_put (struct disk *d);
extern uint64_t disk_ino (const struct disk *d);        /* from 2 up */
extern uint64_t disk_size (const struct disk *d);

/* Verbs: 0, or an errno.  The range lies within the disk. */
extern int disk_read (struct disk *d, void *buf, size_t len, uint64_t pos);
extern int disk_write (struct disk *d, const void *buf, size_t len,
                       uint64_t pos);
extern int disk_zero (struct disk *d, uint64_t len, uint64_t pos);
extern int disk_flush (struct disk *d);

/* Answer requests that come in on the listening socket FD, in threads of
 * their own.
 */
extern int control_start (int fd);

#endif /* ESPALIERD_DISKS_H */
