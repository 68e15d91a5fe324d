/* SPDX-License-Identifier: BSD-3-Clause */
/* What stack*.c share. */

#ifndef ESPALIERD_STACK_INTERNAL_H
#define ESPALIERD_STACK_INTERNAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "daemon.h"
#include "orphan.h"

/* --- stack-child.c ------------------------------------------------------------ */

/* A process that is a server: what listens (FDS, in their order), and what it
 * says.
 */
struct stack_child {
  pid_t pid;                    /* 0: none */
  int pidfd;                    /* readable when it has ended */
  int log;                      /* its standard error, not blocking */
  struct orphan orphan;
};
/* Start `espalier serve` with FDS.  The thread that calls must live as long as
 * the process does.  The process never outlives this one.
 * -1, reported.
 */
extern int stack_child_start (const struct config *config, const int *fds,
                              unsigned nfds, struct stack_child *out);
/* Wait for the end of it (no longer than MS milliseconds; -1: for ever), and
 * close.  WHY: "exit 1", "signal 9".  False where it has not ended.
 */
extern bool stack_child_wait (struct stack_child *child, int ms, char why[64]);

/* --- stack-outside.c ----------------------------------------------------------- */

/* Does the NBD server at URI answer within TIMEOUT milliseconds?  -1 with the
 * reason in WHY; reports nothing.
 */
extern int stack_ask (const char *uri, int timeout, char *why, size_t size);

/* --- stack-uri.c ---------------------------------------------------------------- */

/* Where our own stack listens, set before the first request. */
extern void stack_uri_set (const char *socket_path, const char *nbd,
                           const char *host, unsigned port);

#endif /* ESPALIERD_STACK_INTERNAL_H */
