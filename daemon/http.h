/* SPDX-License-Identifier: BSD-3-Clause */
/* HTTP as handlers see it: a request, and one of the replies below.  Only
 * http.c knows libmicrohttpd.
 */

#ifndef ESPALIERD_HTTP_H
#define ESPALIERD_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <jansson.h>

#include "config.h"

struct request {
  const char *method;           /* "GET" or "HEAD": others are refused before */
  const char *path;             /* decoded, without the query */
  const char *part[4];          /* what the '*' of the route's pattern are,
                                 * decoded: no '/', no control characters,
                                 * valid UTF-8; NULL behind the last */
  char peer[64], local[64];     /* addresses, as esp_address_text */
  unsigned local_port;
  const struct config *config;  /* of this request, all the time */
  struct http_private *http;
};

/* The value of a query parameter, decoded; NULL where it is not given, is
 * longer than 1,024 bytes, is not UTF-8 or has control characters.  The I-th
 * of several.  Belongs to the request.
 */
extern const char *request_query (const struct request *r, const char *name);
extern const char *request_query_nth (const struct request *r,
                                      const char *name, unsigned i);
extern const char *request_header (const struct request *r, const char *name);
/* "http://ADDRESS:PORT" as this client reaches us (config->address, else the
 * address its connection came to); IPv6 in brackets.  Belongs to the request.
 */
extern const char *request_base (struct request *r);
/* Only the host part of it, without brackets. */
extern const char *request_host (struct request *r);

/* Replies: exactly one for each request; what they return, the handler
 * returns.  HEAD is answered with the same headers and no body.
 */
typedef int (*handler_fn) (struct request *r);
/* BODY (LEN bytes) is copied. */
extern int reply (struct request *r, unsigned status, const char *type,
                  const void *body, size_t len);
/* BODY is malloced and taken over; NULL: 500. */
extern int reply_take (struct request *r, unsigned status, const char *type,
                       char *body, size_t len);
/* ROOT is taken over. */
extern int reply_json (struct request *r, unsigned status, json_t *root);
/* One line of text that says what is wrong and what to do. */
extern int reply_error (struct request *r, unsigned status,
                        const char *fmt, ...)
  __attribute__ ((format (printf, 3, 4)));
/* SIZE bytes that READ gives: it fills BUF with up to MAX bytes from POS and
 * returns how many, or -1: then the connection is cut.  FREE (ARG) when it is
 * over, also where it never began.
 */
struct reply_stream {
  uint64_t size;
  ssize_t (*read) (void *arg, uint64_t pos, char *buf, size_t max);
  void (*free) (void *arg);
  void *arg;
};
extern int reply_stream (struct request *r, unsigned status,
                         const char *type, const struct reply_stream *stream);
/* A file descriptor, taken over: SIZE bytes from OFFSET. */
extern int reply_fd (struct request *r, unsigned status, const char *type,
                     int fd, uint64_t offset, uint64_t size);
/* Before the reply: one more header of it. */
extern void reply_header (struct request *r, const char *name,
                          const char *value);

/* Range and conditions of a GET or HEAD of SIZE bytes with ETAG (without its
 * quotes; NULL: none); the headers ETag, Accept-Ranges, Content-Range are set:
 * 200 or 206 with the part in *FROM and *LEN; else a reply was made (304, 412,
 * 416) and 0 is returned, with *R its result.  Several ranges are
 * answered with the whole, as RFC 9110 allows.
 */
extern unsigned http_range (struct request *r, uint64_t size,
                            const char *etag, uint64_t *from, uint64_t *len,
                            int *result);
/* Parse a Range header against SIZE: 206, 200 (not understood: ignored) or 416.  Pure: for
 * tests and fuzzing.
 */
extern unsigned range_parse (const char *header, uint64_t size,
                             uint64_t *from, uint64_t *len);

/* The routes (routes.c): patterns like "/venues/<any>/disk/<any>", where a
 * lone '*' stands for a part.
 */
struct route { const char *pattern; handler_fn handler; };
extern const struct route routes[];
/* What a number of requests, by route and status class, is for metrics. */
extern void http_each_count (void (*fn) (void *arg, const char *pattern,
                                         unsigned status, uint64_t n),
                             void *arg);

/* --- handlers ------------------------------------------------------------- */
/* Declared by the file that has them: boot.h, san.h, files.h, api.h. */

#endif /* ESPALIERD_HTTP_H */
