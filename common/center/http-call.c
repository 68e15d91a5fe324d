/* SPDX-License-Identifier: BSD-3-Clause */
/* One HTTP request over a connection of the pool.
 *
 * The headers are judged when they are complete, before a byte of the body
 * goes to the sink, so that an answer that breaks the rules never reaches
 * it.  Bodies of anything but a 2xx are kept (their beginning) for the
 * message.  No total time-out: a request ends when nothing moves, or as good
 * as nothing, for `timeout` seconds (libcurl's low-speed limit, by a mean over
 * up to five seconds).
 *
 * Each handle is reset and filled anew for each request; what stays is its
 * connection.
 */

#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "center/remote-internal.h"

#define TEXT_MAX (32u << 20)            /* the longest answer that is kept */
#define ERROR_TEXT_MAX 8192u            /* of an error */
#define GENTLE_RCVBUF 32768             /* the kernel doubles it */
#define REDIRECTS 5L
#define SPEED_MIN 1024L                 /* bytes a second: a trickle is none */

void
esp_call_clear (struct esp_call *c)
{
  int saved = errno;

  free (c->url);
  curl_slist_free_all (c->headers);
  free (c->reply.text);
  c->url = c->reply.text = NULL;
  c->headers = NULL;
  errno = saved;
}

int
esp_call_header (struct esp_call *c, const char *fmt, ...)
{
  char text[4096];
  va_list args;

  va_start (args, fmt);
  int n = vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  if (n < 0 || (size_t) n >= sizeof text)
    return esp_try_fail (c->t, EINVAL, "a header would be too long");
  struct curl_slist *list = curl_slist_append (c->headers, text);
  if (!list)
    return esp_try_fail (c->t, ENOMEM, "malloc: %m");
  c->headers = list;
  return 0;
}

/* A strong ETag is kept without its quotes: S3 is not of one mind on them. */
void
esp_reply_version (const struct esp_reply *reply, char *etag)
{
  const char *v = *reply->etag ? reply->etag : reply->modified;
  size_t n = strlen (v);

  if (n >= 2 && v[0] == '"' && v[n - 1] == '"') {
    v++;
    n -= 2;
  }
  memcpy (etag, v, n);
  etag[n] = 0;
}

/* --- the answer's headers ----------------------------------------------- */

static void
clear_reply (struct esp_reply *reply)
{
  free (reply->text);
  memset (reply, 0, sizeof *reply);
  reply->length = -1;
}

static bool
parse_u64 (const char **p, uint64_t *out)
{
  char *end;

  if (**p < '0' || **p > '9')
    return false;
  errno = 0;
  *out = strtoull (*p, &end, 10);
  *p = end;
  return errno == 0;
}

/* bytes FIRST-LAST/TOTAL */
static void
parse_content_range (struct esp_reply *reply, const char *p)
{
  if (strncasecmp (p, "bytes ", 6) != 0)
    return;
  p += 6;
  if (!parse_u64 (&p, &reply->first) || *p++ != '-'
      || !parse_u64 (&p, &reply->last) || *p++ != '/'
      || !parse_u64 (&p, &reply->total) || *p)
    return;
  reply->ranged = reply->first <= reply->last && reply->last < reply->total;
}

/* Cut the header out of LINE when it is NAME. */
static const char *
header_value (const char *line, const char *name)
{
  size_t n = strlen (name);

  if (strncasecmp (line, name, n) != 0 || line[n] != ':')
    return NULL;
  line += n + 1;
  return line + strspn (line, " \t");
}

/* A version that is too long would compare equal to another one's
 * beginning: as if there were none.
 */
static void
copy_version (char *to, size_t size, const char *value)
{
  if (strlen (value) < size)
    strcpy (to, value);
}

static void
parse_header (struct esp_reply *reply, const char *line)
{
  const char *v;
  uint64_t n;

  if ((v = header_value (line, "ETag")))
    copy_version (reply->etag, sizeof reply->etag, v);
  else if ((v = header_value (line, "Last-Modified")))
    copy_version (reply->modified, sizeof reply->modified, v);
  else if ((v = header_value (line, "Content-Range")))
    parse_content_range (reply, v);
  else if ((v = header_value (line, "Content-Length"))) {
    if (parse_u64 (&v, &n) && !*v && n <= INT64_MAX)
      reply->length = (int64_t) n;
  }
  else if ((v = header_value (line, "Transfer-Encoding")))
    reply->chunked = strcasecmp (v, "chunked") == 0;
  else if ((v = header_value (line, "Retry-After"))) {
    if (parse_u64 (&v, &n) && !*v)
      reply->after = n < 30 ? (unsigned) n : 30;
  }
}

/* A redirect that will be followed, or 100 Continue: not the answer. */
static bool
is_on_the_way (const struct esp_call *c)
{
  return c->reply.status < 200
    || (c->follow && c->reply.status >= 300 && c->reply.status < 400);
}

static size_t
header_fn (char *data, size_t size, size_t n, void *arg)
{
  struct esp_call *c = arg;
  char line[1024];
  size_t len = size * n, keep = len < sizeof line ? len : sizeof line - 1;

  memcpy (line, data, keep);
  while (keep > 0 && strchr ("\r\n \t", line[keep - 1]))
    keep--;
  line[keep] = 0;
  if (strncmp (line, "HTTP/", 5) == 0) {
    clear_reply (&c->reply);
    const char *code = strchr (line, ' ');
    c->reply.status = code ? strtol (code, NULL, 10) : 0;
  }
  else if (keep)
    parse_header (&c->reply, line);
  else if (!is_on_the_way (c) && c->reply.status < 300 && c->on_headers
           && c->on_headers (c) < 0) {
    c->stopped = true;
    return len + 1;             /* anything but LEN ends the request */
  }
  return len;
}

/* --- its body ----------------------------------------------------------- */

static int
keep_text (struct esp_call *c, const void *buf, size_t len)
{
  struct esp_reply *reply = &c->reply;
  bool error = reply->status >= 300;

  if (error && len > ERROR_TEXT_MAX - reply->ntext)
    len = ERROR_TEXT_MAX - reply->ntext;
  if (len > TEXT_MAX - reply->ntext)
    return esp_try_fail (c->t, EPROTO, "the answer is far too long");
  char *p = realloc (reply->text, reply->ntext + len + 1);
  if (!p)
    return esp_try_fail (c->t, ENOMEM, "malloc: %m");
  memcpy (p + reply->ntext, buf, len);
  reply->text = p;
  reply->ntext += len;
  p[reply->ntext] = 0;
  return 0;
}

static size_t
write_fn (char *data, size_t size, size_t n, void *arg)
{
  struct esp_call *c = arg;
  size_t len = size * n;
  int e;

  atomic_fetch_add_explicit (&c->r->bytes_in, len, memory_order_relaxed);
  if (c->on_body && c->reply.status < 300)
    e = c->on_body (c, data, len);
  else
    e = keep_text (c, data, len);
  if (e == 0)
    return len;
  c->stopped = true;
  return len + 1;
}

/* --- the request -------------------------------------------------------- */

static int
small_buffer (void *arg, curl_socket_t fd, curlsocktype purpose)
{
  int size = GENTLE_RCVBUF;

  (void) arg;
  (void) purpose;
  /* A larger buffer is only less gentle. */
  if (setsockopt (fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0)
    esp_debug ("setsockopt: SO_RCVBUF: %m");
  return CURL_SOCKOPT_OK;
}

/* Options that every request has. */
static void
set_common (CURL *h, const struct esp_call *c)
{
  const struct esp_remote *r = c->r;
  unsigned patience = c->patience ? c->patience : 1;

  curl_easy_setopt (h, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt (h, CURLOPT_NOPROGRESS, 1L);
  curl_easy_setopt (h, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt (h, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
  curl_easy_setopt (h, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt (h, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt (h, CURLOPT_USERAGENT, "espalier/" PACKAGE_VERSION);
  curl_easy_setopt (h, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt (h, CURLOPT_BUFFERSIZE, c->gently ? 16384L : 262144L);
  curl_easy_setopt (h, CURLOPT_CONNECTTIMEOUT, (long) r->connect_timeout);
  curl_easy_setopt (h, CURLOPT_LOW_SPEED_LIMIT, SPEED_MIN);
  curl_easy_setopt (h, CURLOPT_LOW_SPEED_TIME, (long) r->timeout * patience);
  if (c->gently)
    curl_easy_setopt (h, CURLOPT_SOCKOPTFUNCTION, small_buffer);
  if (r->ca)
    curl_easy_setopt (h, CURLOPT_CAINFO, r->ca);
  if (r->cert)
    curl_easy_setopt (h, CURLOPT_SSLCERT, r->cert);
  if (r->key)
    curl_easy_setopt (h, CURLOPT_SSLKEY, r->key);
  if (r->proxy)
    curl_easy_setopt (h, CURLOPT_PROXY, r->proxy);
}

/* A redirect from https stays with https. */
static void
set_redirects (CURL *h, const struct esp_call *c)
{
  curl_easy_setopt (h, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt (h, CURLOPT_MAXREDIRS, REDIRECTS);
  curl_easy_setopt (h, CURLOPT_REDIR_PROTOCOLS_STR,
                    strncasecmp (c->url, "https:", 6) == 0 ? "https"
                    : "http,https");
}

static void
set_method (CURL *h, const struct esp_call *c)
{
  if (c->body) {
    curl_easy_setopt (h, CURLOPT_POST, 1L);
    curl_easy_setopt (h, CURLOPT_POSTFIELDS, c->body);
    curl_easy_setopt (h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) c->nbody);
  }
  if (strcmp (c->method, "HEAD") == 0)
    curl_easy_setopt (h, CURLOPT_NOBODY, 1L);
  else if (strcmp (c->method, "GET") != 0)
    curl_easy_setopt (h, CURLOPT_CUSTOMREQUEST, c->method);
}

static int
set_request (CURL *h, struct esp_call *c, char *error)
{
  char range[64];

  curl_easy_reset (h);
  set_common (h, c);
  if (c->follow)
    set_redirects (h, c);
  set_method (h, c);
  if (c->ranged) {
    snprintf (range, sizeof range, "%ju-%ju", (uintmax_t) c->first,
              (uintmax_t) c->last);
    curl_easy_setopt (h, CURLOPT_RANGE, range);
  }
  if (c->sign) {
    const struct esp_s3_credentials *k = &c->r->s3.credentials;
    ESP_LOCK_SCOPE (&c->r->s3.lock);
    curl_easy_setopt (h, CURLOPT_AWS_SIGV4, c->r->s3.sigv4);
    curl_easy_setopt (h, CURLOPT_USERNAME, k->access);
    curl_easy_setopt (h, CURLOPT_PASSWORD, k->secret);
  }
  else if (c->r->driver->kind == ESP_REMOTE_HTTP)
    curl_easy_setopt (h, CURLOPT_NETRC, (long) CURL_NETRC_OPTIONAL);
  curl_easy_setopt (h, CURLOPT_HTTPHEADER, c->headers);
  curl_easy_setopt (h, CURLOPT_HEADERFUNCTION, header_fn);
  curl_easy_setopt (h, CURLOPT_HEADERDATA, c);
  curl_easy_setopt (h, CURLOPT_WRITEFUNCTION, write_fn);
  curl_easy_setopt (h, CURLOPT_WRITEDATA, c);
  curl_easy_setopt (h, CURLOPT_ERRORBUFFER, error);
  return curl_easy_setopt (h, CURLOPT_URL, c->url) == CURLE_OK ? 0 : -1;
}

/* Wait until it is done; *CODE is libcurl's result. */
static int
drive (struct esp_conn *conn, const struct esp_call *c, CURLcode *code)
{
  int running = 1, queued;
  CURLMsg *msg;

  for (;;) {
    CURLMcode m = curl_multi_perform (conn->multi, &running);
    if (m != CURLM_OK)
      return esp_try_fail (c->t, EIO, "libcurl: %s", curl_multi_strerror (m));
    if (!running)
      break;
    if (c->cancel && atomic_load_explicit (c->cancel, memory_order_relaxed))
      return esp_try_quiet (c->t, ECANCELED);
    m = curl_multi_poll (conn->multi, NULL, 0, c->cancel ? 25 : 1000, NULL);
    if (m != CURLM_OK)
      return esp_try_fail (c->t, EIO, "libcurl: %s", curl_multi_strerror (m));
  }
  msg = curl_multi_info_read (conn->multi, &queued);
  *code = msg ? msg->data.result : CURLE_FAILED_INIT;
  return 0;
}

/* What libcurl's errors mean. */
static int
judge (struct esp_call *c, CURLcode code, const char *detail)
{
  struct esp_try *t = c->t;
  const char *text = *detail ? detail : curl_easy_strerror (code);

  if (code == CURLE_OK)
    return 0;
  if (c->stopped)
    return -1;
  switch (code) {
  case CURLE_OPERATION_TIMEDOUT:
    return esp_try_again (t, ETIMEDOUT, "%s", text);
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_CONNECT:
  case CURLE_SEND_ERROR:
  case CURLE_RECV_ERROR:
  case CURLE_GOT_NOTHING:
  case CURLE_PARTIAL_FILE:
  case CURLE_SSL_CONNECT_ERROR:
    return esp_try_again (t, EIO, "%s", text);
  case CURLE_TOO_MANY_REDIRECTS:
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_WEIRD_SERVER_REPLY:
  case CURLE_URL_MALFORMAT:
    return esp_try_fail (t, EPROTO, "%s", text);
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_ISSUER_ERROR:
    return esp_try_fail (t, EACCES, "%s", text);
  case CURLE_OUT_OF_MEMORY:
    return esp_try_fail (t, ENOMEM, "%s", text);
  default:
    return esp_try_fail (t, EIO, "%s", text);
  }
}

static int
run_on (struct esp_conn *conn, struct esp_call *c)
{
  char error[CURL_ERROR_SIZE] = "";
  CURLcode code = CURLE_OK;

  if (set_request (conn->easy, c, error) < 0
      || curl_multi_add_handle (conn->multi, conn->easy) != CURLM_OK)
    return esp_try_fail (c->t, ENOMEM, "libcurl: no memory for a request");
  atomic_fetch_add_explicit (&c->r->requests, 1, memory_order_relaxed);
  int e = drive (conn, c, &code);
  /* An unfinished request's connection is closed by this. */
  curl_multi_remove_handle (conn->multi, conn->easy);
  if (e == 0)
    e = judge (c, code, error);
  /* It points at this function's memory. */
  curl_easy_setopt (conn->easy, CURLOPT_ERRORBUFFER, NULL);
  if (e == 0)
    atomic_fetch_add_explicit (&c->r->bytes_out, c->nbody,
                               memory_order_relaxed);
  return e;
}

int
esp_call_run (struct esp_call *c)
{
  struct esp_conn *conn = esp_pool_take (&c->r->pool, c->gently, c->cancel);

  if (!conn)
    return errno == ECANCELED ? esp_try_quiet (c->t, ECANCELED)
      : esp_try_fail (c->t, errno, "a connection: %m");
  clear_reply (&c->reply);
  int e = run_on (conn, c);
  esp_pool_give (&c->r->pool, conn);
  return e;
}

int
esp_call_status (struct esp_call *c, const char *detail)
{
  struct esp_try *t = c->t;
  long s = c->reply.status;
  const char *colon = *detail ? ": " : "";

  t->after = c->reply.after;
  if (s == 404 || s == 410)
    return esp_try_quiet (t, ENOENT);
  if (s == 401 || s == 403 || s == 407)
    return esp_try_fail (t, EACCES, "the server refuses it (%ld)%s%s", s,
                         colon, detail);
  if (s == 416)
    return esp_try_fail (t, EPROTO, "the server has no such range (416)%s%s",
                         colon, detail);
  if (s == 408 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504)
    return esp_try_again (t, EIO, "the server says %ld%s%s", s, colon,
                          detail);
  return esp_try_fail (t, s >= 500 ? EIO : EPROTO, "the server says %ld%s%s",
                       s, colon, detail);
}
