/* SPDX-License-Identifier: BSD-3-Clause */
/* Which servers of this store run, and how clients reach them.
 *
 * `espalier serve` leaves a file in STORE/run/servers/ and keeps a lock on it,
 * through a descriptor that nbdkit inherits: so the lock lasts exactly as long
 * as the server (its process in the background included), whatever ends it, and
 * no pid has to be trusted.  A file without a lock is removed by whoever looks.
 */

#ifndef ESPALIER_CLI_SERVERS_H
#define ESPALIER_CLI_SERVERS_H

#include <stdbool.h>

struct server {
  char host[256];               /* "": a Unix socket */
  unsigned port;
  char socket[108];             /* absolute */
  bool tickets;                 /* it asks for them */
  bool tls;                     /* it takes TLS only */
};

#define NBD_PORT 10809u

/* This process is about to become nbdkit with the command line LINE (N words):
 * leave the file.  What fails is not reported but to a debug log: others then
 * have to be told the address.
 */
extern void server_leave (char *const *line, size_t n);

/* The server that runs and was started last, one that listens on TCP before
 * one that does not; *MORE gets how many others run.  false: none.
 */
extern bool server_find (struct server *out, unsigned *more);

/* HOST, HOST:PORT, [ADDRESS]:PORT or a bare IPv6 address.  -1: it is none of
 * them; nothing is reported.
 */
extern int server_parse (const char *text, struct server *out);

#endif /* ESPALIER_CLI_SERVERS_H */
