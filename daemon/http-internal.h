/* SPDX-License-Identifier: BSD-3-Clause */
/* What http.c and http-reply.c share. */

#ifndef ESPALIERD_HTTP_INTERNAL_H
#define ESPALIERD_HTTP_INTERNAL_H

#include <microhttpd.h>

#include "http.h"
#include "uri.h"

struct http_header { char *name, *value; };

struct http_private {
  struct MHD_Connection *connection;
  struct uri uri;
  unsigned bad;                 /* the status of a URI that is none, or 0 */
  const char *why;
  char *parts;                  /* what request.part points into */
  char *base, *host;
  struct http_header *header;   /* of the reply */
  size_t nheaders;
  unsigned status;              /* of the reply; 0: none yet */
  size_t route;
  bool called;                  /* the handler was */
  struct request request;
};

/* Free what replies left. */
extern void http_reply_clear (struct http_private *p);

#endif /* ESPALIERD_HTTP_INTERNAL_H */
