/* SPDX-License-Identifier: BSD-3-Clause */
/* What handlers ask of a request. */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http-internal.h"

const char *
request_query_nth (const struct request *r, const char *name, unsigned i)
{
  return uri_query (&r->http->uri, name, i);
}

const char *
request_query (const struct request *r, const char *name)
{
  return request_query_nth (r, name, 0);
}

const char *
request_header (const struct request *r, const char *name)
{
  return MHD_lookup_connection_value (r->http->connection, MHD_HEADER_KIND,
                                      name);
}

const char *
request_host (struct request *r)
{
  struct http_private *p = r->http;

  if (!p->host)
    p->host = strdup (r->config->address ? r->config->address : r->local);
  if (!p->host)
    abort ();
  return p->host;
}

const char *
request_base (struct request *r)
{
  struct http_private *p = r->http;
  const char *host = request_host (r);
  bool v6 = strchr (host, ':');

  if (!p->base && asprintf (&p->base, "http://%s%s%s:%u", v6 ? "[" : "", host,
                            v6 ? "]" : "", r->local_port) == -1)
    abort ();
  return p->base;
}
