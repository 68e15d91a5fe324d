/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of the daemon that are started and ended, in main.c's order. */

#ifndef ESPALIERD_PARTS_H
#define ESPALIERD_PARTS_H

#include "config.h"

/* Open and lock the store, make daemon_dir. */
extern int daemon_start (const struct config *config);
extern void daemon_stop (void);

/* Forget the key. */
extern void tickets_stop (void);

/* The stack: listens, starts `espalier serve` or looks after config->nbd. */
extern int stack_start (const struct config *config);
extern void stack_stop (void);
/* The port of clients; 0: for nobody, or not ours. */
extern unsigned stack_port (void);

extern int http_start (const struct config *config);
extern void http_stop (void);
extern unsigned http_port (void);
/* Every second or so: end connections that sit there. */
extern void http_reap (void);

#endif /* ESPALIERD_PARTS_H */
