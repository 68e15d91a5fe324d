/* SPDX-License-Identifier: BSD-3-Clause */
/* One connection of the pool: only for san-pool.c, whose note says more. */

#ifndef ESPALIERD_SAN_CONN_H
#define ESPALIERD_SAN_CONN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <libnbd.h>

#include "util/name.h"

#define CONN_CONNECT_S 15u      /* a stack that is started again is there */

enum conn_state { CONNECTING, READY, GONE };

struct conn {
  struct conn *next;
  esp_uuid tip;
  enum conn_state state;
  unsigned users, entering;
  uint64_t used;                /* when the last user left, esp_now_us */
  struct nbd_handle *nbd;       /* its driver's until it is READY */
  int wake;                     /* eventfd: look again */
  uint64_t size;
};

struct pool {
  pthread_mutex_t lock;
  /* A connection became ready, lost its users or went. */
  pthread_cond_t changed;
  struct conn *conns;           /* CONNECTING or READY */
  unsigned nconns;              /* with those that are GONE and not yet freed */
  bool stopping;
  char why_not[256];            /* what the last failed connection said */
};
extern struct pool pool;

/* A condition that waits by CLOCK_MONOTONIC, and SECONDS from now there. */
extern void conn_cond_init (pthread_cond_t *cond);
extern struct timespec conn_in_seconds (unsigned seconds);

/* One more connection to TIP, CONNECTING. */
extern int conn_new_locked (const esp_uuid *tip);
/* C is to go: it is out of the list at once, and ends when it is not used. */
extern void conn_retire_locked (struct conn *c);
/* A user of C has come back. */
extern void conn_leave_locked (struct conn *c);

#endif /* ESPALIERD_SAN_CONN_H */
