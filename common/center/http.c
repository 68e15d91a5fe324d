/* SPDX-License-Identifier: BSD-3-Clause */
/* HTTP(S): objects are read by Range from any server that knows it.
 *
 * An answer is checked before its bytes are used: the status, that
 * Content-Range is the range that was asked for, that Content-Length agrees
 * with it, that version and size are those of the answer before (a transfer
 * that broke goes on where it broke) and those that the caller expects.
 * The version is compared here rather than sent along as If-Range: servers
 * agree on what an ETag is more than on what they do with one.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/remote-internal.h"
#include "util/file.h"

/* Names have one character that a URL would take for something else. */
char *
esp_http_url (const char *base, const char *name)
{
  size_t n = strlen (base), cap = n + 2 + strlen (name) * 3;
  char *url = malloc (cap);

  if (!url)
    return NULL;
  memcpy (url, base, n);
  if (*name)
    url[n++] = '/';
  for (; *name; ++name) {
    url[n++] = *name;
    if (*name == '%') {
      url[n++] = '2';
      url[n++] = '5';
    }
  }
  url[n] = 0;
  return url;
}

/* --- checks -------------------------------------------------------------- */

/* Is the answer's version that of *KNOWN (an empty field: any)? */
static int
check_version (struct esp_call *c, const struct esp_object *known,
               const struct esp_object *now)
{
  if (known->size && known->size != now->size)
    return esp_try_fail (c->t, EPROTO, "the object changed: it has %ju bytes, "
                         "and had %ju", (uintmax_t) now->size,
                         (uintmax_t) known->size);
  if (*known->etag && strcmp (known->etag, now->etag) != 0)
    return esp_try_fail (c->t, EPROTO, "the object changed: its version is "
                         "%.60s, and was %.60s",
                         *now->etag ? now->etag : "unknown", known->etag);
  return 0;
}

static int
accept_version (struct esp_call *c, uint64_t size)
{
  struct esp_op *op = c->op;
  struct esp_object now = { .size = size };

  esp_reply_version (&c->reply, now.etag);
  if (op->expect && check_version (c, op->expect, &now) < 0)
    return -1;
  if (op->known && check_version (c, &op->out, &now) < 0)
    return -1;
  op->out = now;
  op->known = true;
  return 0;
}

/* 206: exactly the range that was asked for. */
static int
check_range (struct esp_call *c)
{
  const struct esp_reply *y = &c->reply;

  if (y->ranged && y->total <= c->last)
    return esp_try_fail (c->t, EPROTO, "the object has only %ju bytes",
                         (uintmax_t) y->total);
  if (!y->ranged || y->first != c->first || y->last != c->last)
    return esp_try_fail (c->t, EPROTO,
                         "the server sends another range than was asked for "
                         "(bytes %ju to %ju of %ju, not %ju to %ju)",
                         (uintmax_t) y->first, (uintmax_t) y->last,
                         (uintmax_t) y->total, (uintmax_t) c->first,
                         (uintmax_t) c->last);
  uint64_t len = c->last - c->first + 1;
  if (y->length >= 0 && (uint64_t) y->length != len)
    return esp_try_fail (c->t, EPROTO, "the server sends %jd bytes of %ju",
                         (intmax_t) y->length, (uintmax_t) len);
  return accept_version (c, y->total);
}

/* 200: the whole object, where that was asked for. */
static int
check_whole (struct esp_call *c)
{
  struct esp_op *op = c->op;
  int64_t length = c->reply.length;

  if (op->whole && !c->ranged) {
    if (length < 0 && !c->reply.chunked)
      return esp_try_fail (c->t, EPROTO, "the server does not say how long "
                           "the object is");
    if (length >= 0 && (uint64_t) length > op->max)
      return esp_try_fail (c->t, EFBIG, "%jd bytes are more than the %zu that "
                           "it may have", (intmax_t) length, op->max);
    return accept_version (c, length < 0 ? 0 : (uint64_t) length);
  }
  if (length < 0 || c->first != 0 || (uint64_t) length != c->last + 1)
    return esp_try_fail (c->t, EPROTO, "the server does not know Range: it "
                         "sends the whole object (200)");
  return accept_version (c, (uint64_t) length);
}

static int
check_headers (struct esp_call *c)
{
  if (c->reply.status == 206 && c->ranged)
    return check_range (c);
  if (c->reply.status == 200)
    return check_whole (c);
  return esp_try_fail (c->t, EPROTO, "the server answers %ld to a GET",
                       c->reply.status);
}

static int
sink_body (struct esp_call *c, const void *buf, size_t len)
{
  struct esp_op *op = c->op;

  if (op->whole ? len > op->max - op->done : len > op->len - op->done)
    return esp_try_fail (c->t, op->whole ? EFBIG : EPROTO,
                         "the server sends more bytes than %s",
                         op->whole ? "the object may have"
                         : "were asked for");
  if (op->sink (op->arg, buf, len) < 0)
    return esp_try_quiet (c->t, errno ? errno : ECANCELED);
  op->done += len;
  return 0;
}

/* --- reading ------------------------------------------------------------- */

/* How many bytes OP's sink shall have got at the end. */
static uint64_t
wanted (const struct esp_op *op)
{
  return op->whole ? op->out.size : op->len;
}

/* Ask for what the sink does not have yet. */
static void
set_range (struct esp_call *c, const struct esp_op *op)
{
  if (op->whole && op->done == 0)
    return;
  c->ranged = true;
  c->first = op->offset + op->done;
  c->last = op->offset + wanted (op) - 1;
}

int
esp_http_get (struct esp_call *c, struct esp_op *op)
{
  /* A first answer without a length cannot be gone on with. */
  if (op->whole && op->done && op->out.size == 0)
    return esp_try_fail (c->t, EIO, "the transfer broke off");
  if (op->known && op->done == wanted (op))
    return 0;
  c->op = op;
  c->cancel = op->cancel;
  c->gently = op->gently;
  c->on_headers = check_headers;
  c->on_body = sink_body;
  set_range (c, op);
  if (esp_call_run (c) < 0)
    return -1;
  if (c->reply.status >= 300)
    return 0;
  if (op->whole && op->out.size == 0)
    op->out.size = op->done;
  if (op->done != wanted (op))
    return esp_try_again (c->t, EPROTO, "the server sent %ju bytes of %ju",
                          (uintmax_t) op->done, (uintmax_t) wanted (op));
  return 0;
}

int
esp_http_head (struct esp_call *c, struct esp_op *op)
{
  if (esp_call_run (c) < 0)
    return -1;
  if (c->reply.status >= 300)
    return 0;
  if (c->reply.length < 0)
    return esp_try_fail (c->t, EPROTO, "the server does not say how long the "
                         "object is");
  op->out.size = (uint64_t) c->reply.length;
  esp_reply_version (&c->reply, op->out.etag);
  return 0;
}

/* --- the driver ---------------------------------------------------------- */

static int
http_call (struct esp_remote *r, struct esp_op *op, struct esp_try *t,
           const char *method,
           int (*fn) (struct esp_call *c, struct esp_op *op))
{
  CLEANUP_CALL struct esp_call c = {
    .r = r, .t = t, .method = method, .follow = true,
    .url = esp_http_url (r->base, op->name),
  };

  if (!c.url)
    return esp_try_fail (t, ENOMEM, "malloc: %m");
  if (fn (&c, op) < 0)
    return -1;
  return c.reply.status >= 300 ? esp_call_status (&c, "") : 0;
}

static int
http_get (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  return http_call (r, op, t, "GET", esp_http_get);
}

static int
http_head (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  return http_call (r, op, t, "HEAD", esp_http_head);
}

const struct esp_driver esp_http_driver = {
  .kind = ESP_REMOTE_HTTP,
  .attempt = {
    [ESP_VERB_HEAD] = http_head,
    [ESP_VERB_GET] = http_get,
  },
};
