/* SPDX-License-Identifier: BSD-3-Clause */
/* Where to listen: "ADDRESS:PORT", "[ADDRESS]:PORT", ":PORT", "PORT". */

#ifndef ESPALIERD_LISTEN_H
#define ESPALIERD_LISTEN_H

#include <stdbool.h>

struct listen_at {
  char host[64];                /* numeric, without brackets; "": all */
  unsigned port;                /* 0: any that is free */
};
/* Parse S; a missing port is PORT.  -1 with EINVAL; reports nothing. */
extern int listen_parse (const char *s, unsigned port, struct listen_at *out);
/* "[::1]:80", "10.0.0.1:80", "*:80".  Returns BUF. */
extern const char *listen_format (const struct listen_at *at, char buf[96]);
/* A socket that listens there, close-on-exec; AT gets the port that it has.
 * For all addresses: IPv6 and IPv4, or IPv4 where there is no IPv6.  WHAT
 * ("HTTP") and OPTION, which says otherwise, are for the error: it is reported.
 */
extern int listen_open (struct listen_at *at, const char *what,
                        const char *option);
/* The same for the path of a Unix socket (0600); what lies there is removed:
 * the caller has made sure that it is its own.
 */
extern int listen_open_unix (const char *path);

#endif /* ESPALIERD_LISTEN_H */
