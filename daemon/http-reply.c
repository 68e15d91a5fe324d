/* SPDX-License-Identifier: BSD-3-Clause */
/* Replies: every one has its length, its type, and the headers that say what a
 * browser must not do with it.  libmicrohttpd leaves the body out for HEAD.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "http-internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define BLOCK (256u << 10)      /* of a stream: what is read at once */

void
http_reply_clear (struct http_private *p)
{
  for (size_t i = 0; i < p->nheaders; i++) {
    free (p->header[i].name);
    free (p->header[i].value);
  }
  free (p->header);
  p->header = NULL;
  p->nheaders = 0;
}

void
reply_header (struct request *r, const char *name, const char *value)
{
  struct http_private *p = r->http;

  p->header = realloc (p->header, (p->nheaders + 1) * sizeof *p->header);
  if (!p->header)
    abort ();
  p->header[p->nheaders].name = strdup (name);
  p->header[p->nheaders].value = strdup (value);
  if (!p->header[p->nheaders].name || !p->header[p->nheaders].value)
    abort ();
  p->nheaders++;
}

static void
default_header (struct request *r, const char *name, const char *value)
{
  struct http_private *p = r->http;

  for (size_t i = 0; i < p->nheaders; i++)
    if (strcasecmp (p->header[i].name, name) == 0)
      return;
  reply_header (r, name, value);
}

/* Send RESPONSE, which is given back. */
static int
send_response (struct request *r, unsigned status, const char *type,
               struct MHD_Response *response)
{
  struct http_private *p = r->http;
  bool ok = response && p->status == 0;

  if (type)
    default_header (r, "Content-Type", type);
  default_header (r, "Cache-Control", "no-store");
  default_header (r, "X-Content-Type-Options", "nosniff");
  default_header (r, "Referrer-Policy", "no-referrer");
  for (size_t i = 0; ok && i < p->nheaders; i++)
    if (MHD_add_response_header (response, p->header[i].name,
                                 p->header[i].value) != MHD_YES)
      esp_error ("a reply's header %s was left out: its value is not fit for "
                 "HTTP", p->header[i].name);
  ok = ok && MHD_queue_response (p->connection, status, response) == MHD_YES;
  if (ok)
    p->status = status;
  if (response)
    MHD_destroy_response (response);
  return ok ? 0 : -1;
}

int
reply (struct request *r, unsigned status, const char *type, const void *body,
       size_t len)
{
  return send_response (r, status, type,
                        MHD_create_response_from_buffer
                        (len, (void *) body, MHD_RESPMEM_MUST_COPY));
}

int
reply_take (struct request *r, unsigned status, const char *type, char *body,
            size_t len)
{
  if (!body)
    return reply_error (r, 500, "out of memory");
  return send_response (r, status, type,
                        MHD_create_response_from_buffer (len, body,
                                                         MHD_RESPMEM_MUST_FREE));
}

int
reply_json (struct request *r, unsigned status, json_t *root)
{
  char *text = root ? json_dumps (root, JSON_COMPACT) : NULL;

  json_decref (root);
  return reply_take (r, status, "application/json", text,
                     text ? strlen (text) : 0);
}

int
reply_error (struct request *r, unsigned status, const char *fmt, ...)
{
  char text[1024];
  va_list args;
  size_t n;

  va_start (args, fmt);
  vsnprintf (text, sizeof text - 1, fmt, args);
  va_end (args);
  n = strlen (text);
  text[n++] = '\n';
  return reply (r, status, "text/plain; charset=utf-8", text, n);
}

/* --- streams --------------------------------------------------------------------- */

static ssize_t
stream_read (void *arg, uint64_t pos, char *buf, size_t max)
{
  struct reply_stream *s = arg;
  ssize_t n;

  if (pos >= s->size)
    return MHD_CONTENT_READER_END_OF_STREAM;
  if (max > s->size - pos)
    max = (size_t) (s->size - pos);
  n = s->read (s->arg, pos, buf, max);
  return n > 0 ? n : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void
stream_free (void *arg)
{
  struct reply_stream *s = arg;

  if (s->free)
    s->free (s->arg);
  free (s);
}

int
reply_stream (struct request *r, unsigned status, const char *type,
              const struct reply_stream *stream)
{
  struct reply_stream *copy = malloc (sizeof *copy);
  struct MHD_Response *response = NULL;

  if (!copy)
    abort ();
  *copy = *stream;
  if (stream->size == 0) {
    stream_free (copy);
    return reply (r, status, type, "", 0);
  }
  response = MHD_create_response_from_callback
    (stream->size, stream->size < BLOCK ? (size_t) stream->size : BLOCK,
     stream_read, copy, stream_free);
  if (!response) {
    stream_free (copy);
    return reply_error (r, 500, "out of memory");
  }
  return send_response (r, status, type, response);
}

int
reply_fd (struct request *r, unsigned status, const char *type, int fd,
          uint64_t offset, uint64_t size)
{
  struct MHD_Response *response;

  if (size == 0) {
    close (fd);
    return reply (r, status, type, "", 0);
  }
  response = MHD_create_response_from_fd_at_offset64 (size, fd, offset);
  if (!response) {
    close (fd);
    return reply_error (r, 500, "out of memory");
  }
  return send_response (r, status, type, response);
}

/* --- conditions and ranges --------------------------------------------------------- */

/* Is TAG ("..." with its quotes) in LIST, as If-Match and If-None-Match have
 * it?  WEAK: W/"..." counts as "...".
 */
static bool
tag_in (const char *list, const char *tag, bool weak)
{
  size_t n = strlen (tag);

  while (*list) {
    list += strspn (list, " \t,");
    bool is_weak = strncmp (list, "W/", 2) == 0;
    if (is_weak)
      list += 2;
    if (*list != '"')
      return strcmp (list, "*") == 0;
    size_t m = strcspn (list + 1, "\"") + 2;
    if (m > strlen (list))
      return false;
    if (m == n && strncmp (list, tag, n) == 0 && (weak || !is_weak))
      return true;
    list += m;
  }
  return false;
}

/* 0 to go on, else the status that the conditions ask for. */
static unsigned
conditions (const struct request *r, const char *tag)
{
  const char *match = request_header (r, "If-Match");
  const char *none = request_header (r, "If-None-Match");

  if (match && !tag_in (match, tag, false))
    return 412;
  if (none && tag_in (none, tag, true))
    return 304;
  return 0;
}

static unsigned
parse_range (struct request *r, uint64_t size, const char *tag,
             uint64_t *from, uint64_t *len)
{
  const char *range = request_header (r, "Range");
  const char *if_range = request_header (r, "If-Range");

  if (strcmp (r->method, "HEAD") == 0 ||
      (if_range && strcmp (if_range, tag) != 0))
    range = NULL;
  return range_parse (range, size, from, len);
}

unsigned
http_range (struct request *r, uint64_t size, const char *etag,
            uint64_t *from, uint64_t *len, int *result)
{
  char tag[256] = "", text[80];
  unsigned status;

  if (etag) {
    snprintf (tag, sizeof tag, "\"%s\"", etag);
    reply_header (r, "ETag", tag);
  }
  reply_header (r, "Accept-Ranges", "bytes");
  status = conditions (r, tag);
  if (status != 0) {
    *result = status == 304 ? reply (r, 304, NULL, "", 0)
      : reply_error (r, 412, "this is not what it was");
    return 0;
  }
  status = parse_range (r, size, tag, from, len);
  if (status == 206)
    snprintf (text, sizeof text, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64,
              *from, *from + *len - 1, size);
  else
    snprintf (text, sizeof text, "bytes */%" PRIu64, size);
  if (status != 200)
    reply_header (r, "Content-Range", text);
  if (status != 416)
    return status;
  *result = reply_error (r, 416, "it has %" PRIu64 " bytes", size);
  return 0;
}
