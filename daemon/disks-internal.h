/* SPDX-License-Identifier: BSD-3-Clause */
/* One disk, for the files that know how it is made. */

#ifndef ESPALIERD_DISKS_INTERNAL_H
#define ESPALIERD_DISKS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libnbd.h>

#include "disks.h"

#define CONNS 4
#define POLL_MS 200

struct conn {
  struct nbd_handle *nbd;       /* NULL: not connected */
  bool busy;
};

struct entry {                  /* a write, or zeroes (data is NULL) */
  struct entry *next;
  uint64_t pos, len, serial, cost;
  void *data;
};

/* One request on a connection. */
struct op {
  enum { OP_READ, OP_WRITE, OP_ZERO, OP_FLUSH } what;
  void *buf;
  uint64_t len, pos;
};

/* What a flush made durable: to be found there again (disks-probe.c). */
#define PROBES 16
#define PROBE_SIZE 4096u
struct probe { uint64_t pos, hash; uint32_t len; /* 0: none */ };

struct disk {
  struct disk *next;            /* in the table */
  char name[DISK_NAME_MAX + 1];
  uint64_t ino, size;
  unsigned refs;                /* under the lock of the table */

  pthread_mutex_t lock;         /* all below */
  pthread_cond_t changed;
  char *uri;
  struct conn conns[CONNS];
  unsigned max;                 /* connections that make sense */
  unsigned busy;
  bool mending;
  bool failed;                  /* mending failed: nothing helps */
  atomic_bool lost;             /* these also without the lock */
  atomic_bool closing;          /* no more requests */
  atomic_bool cut;              /* those on their way have to end */
  struct entry *first, **last;
  uint64_t logged, serial;
  struct probe probes[PROBES];
  unsigned next_probe;
};

/* Run OP on H: 0, an errno, or -1 where H is broken. */
extern int disk_op (struct disk *d, struct nbd_handle *h,
                    const struct op *op);
/* E is durable, the newest so far where it is. */
extern void disk_probe_add_locked (struct disk *d, const struct entry *e);
/* Is what H shows what D was?  0, ESTALE: another disk; an errno, -1 as
 * disk_op.
 */
extern int disk_probe (struct disk *d, struct nbd_handle *h);

/* Connect to D's export until DEADLINE (esp_now_us).  NULL: WHY says what is
 * wrong.
 */
extern struct nbd_handle *disk_connect (struct disk *d, uint64_t deadline,
                                        char *why, size_t why_size);
/* Close all its connections, which nobody uses. */
extern void disk_disconnect_locked (struct disk *d);
/* Flush D, which nobody uses any more, on any connection that it has, and say
 * good bye on all.
 */
extern void disk_last_flush_locked (struct disk *d);
/* Forget the writes that have a serial number up to SERIAL. */
extern void disk_forget_locked (struct disk *d, uint64_t serial);

#endif /* ESPALIERD_DISKS_INTERNAL_H */
