/* SPDX-License-Identifier: BSD-3-Clause */
/* The HTTP server: libmicrohttpd with a thread for each connection, so that a
 * handler may wait.
 *
 * Who is slow is bounded by three things: 30 seconds without a byte
 * (libmicrohttpd), the same for a request's head as a whole and for idle
 * connections (http_reap), and the number of connections, in all and of one
 * address.  When most of them are taken, those that only sit there have 3
 * seconds.
 *
 * A connection is on a list from its start to its end.  http_reap shuts down
 * sockets of connections on it: libmicrohttpd tells us of an end before it
 * closes the socket, so under the lock a descriptor is never another's.
 */

#include <config.h>

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "boot/address.h"
#include "http-internal.h"
#include "listen.h"
#include "log.h"
#include "parts.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#define CONNECTIONS 1024u
#define OF_ONE_ADDRESS 128u
#define CROWDED (CONNECTIONS / 4 * 3)
#define SECOND 1000000u         /* in microseconds */
#define PATIENCE 30u            /* seconds */
#define PATIENCE_CROWDED 3u
#define HEAD_MAX (32u << 10)    /* bytes of a request's head, and of buffers */
/* Sanitizers' frames are larger. */
#if defined (__SANITIZE_ADDRESS__) || defined (__SANITIZE_THREAD__) || defined (__clang__)
#define STACK (1024u << 10)
#else
#define STACK (256u << 10)
#endif
#define ROUTES_MAX 64
#define PARTS 4

struct connection {
  struct connection *next, **link;      /* LINK points at what points at us */
  int fd;
  bool busy;                    /* a handler or a reply is at work */
  uint64_t since;               /* it is not, esp_now_us */
  /* From its first line to its end.  Only the connection's thread touches it,
   * and who buries that.
   */
  struct http_private *request;
};

/* Protects the list and its members' BUSY and SINCE. */
static pthread_mutex_t connections_lock = PTHREAD_MUTEX_INITIALIZER;
static struct connection *connections;
static unsigned nconnections, nbusy;

static struct MHD_Daemon *server;
static struct listen_at where;
/* By route (the last: none) and the status's first digit. */
static atomic_ullong counts[ROUTES_MAX + 1][6];

static void
request_free (struct http_private *p)
{
  if (!p)
    return;
  http_reply_clear (p);
  uri_clear (&p->uri);
  free (p->parts);
  free (p->base);
  free (p->host);
  if (p->request.config)
    config_put (p->request.config);
  free (p);
}

/* --- connections -------------------------------------------------------------- */

static struct connection *
connection_of (struct MHD_Connection *c)
{
  const union MHD_ConnectionInfo *info =
    MHD_get_connection_info (c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

  return info ? info->socket_context : NULL;
}

static int
connection_fd (struct MHD_Connection *c)
{
  const union MHD_ConnectionInfo *info =
    MHD_get_connection_info (c, MHD_CONNECTION_INFO_CONNECTION_FD);

  return info ? info->connect_fd : -1;
}

static void
connection_begin (struct MHD_Connection *c, void **context)
{
  struct connection *n = calloc (1, sizeof *n);

  *context = n;
  if (!n)
    return;                     /* then it gets no answers */
  n->fd = connection_fd (c);
  n->since = esp_now_us ();
  ESP_LOCK_SCOPE (&connections_lock);
  n->next = connections;
  n->link = &connections;
  if (n->next)
    n->next->link = &n->next;
  connections = n;
  nconnections++;
}

static void
connection_end (void **context)
{
  struct connection *n = *context;

  if (!n)
    return;
  request_free (n->request);
  ESP_LOCK_SCOPE (&connections_lock);
  *n->link = n->next;
  if (n->next)
    n->next->link = n->link;
  nconnections--;
  nbusy -= n->busy;
  free (n);
  *context = NULL;
}

static void
on_connection (void *arg, struct MHD_Connection *c, void **context,
               enum MHD_ConnectionNotificationCode code)
{
  (void) arg;
  if (code == MHD_CONNECTION_NOTIFY_STARTED)
    connection_begin (c, context);
  else
    connection_end (context);
}

static void
set_busy (struct MHD_Connection *c, bool busy)
{
  struct connection *n = connection_of (c);

  if (!n)
    return;
  ESP_LOCK_SCOPE (&connections_lock);
  if (n->busy != busy) {
    nbusy += busy ? 1u : -1u;
    n->busy = busy;
    n->since = esp_now_us ();
  }
}

void
http_reap (void)
{
  uint64_t now = esp_now_us ();
  ESP_LOCK_SCOPE (&connections_lock);
  uint64_t patience = SECOND *
    (nconnections > CROWDED ? PATIENCE_CROWDED : PATIENCE);

  for (struct connection *n = connections; n; n = n->next)
    if (!n->busy && now - n->since > patience)
      shutdown (n->fd, SHUT_RDWR);
}

/* --- requests ----------------------------------------------------------------- */

/* Called with the first line, before there are headers.  Not every request that
 * begins is said to be completed (one whose head fits into no buffer is not):
 * what such a one left is freed with the next one, or with the connection.
 */
static void *
on_uri (void *arg, const char *uri, struct MHD_Connection *c)
{
  struct connection *n = connection_of (c);
  struct http_private *p;

  (void) arg;
  if (!n)
    return NULL;
  request_free (n->request);
  p = n->request = calloc (1, sizeof *p);
  if (!p)
    return NULL;
  p->connection = c;
  p->bad = uri_parse (uri, &p->uri, &p->why);
  return p;
}

/* We decode ourselves. */
static size_t
keep_escapes (void *arg, struct MHD_Connection *c, char *s)
{
  (void) arg;
  (void) c;
  return strlen (s);
}

static void
fill_addresses (struct request *r, struct MHD_Connection *c)
{
  union { struct sockaddr any; struct sockaddr_in6 six; struct sockaddr_in four;
    struct sockaddr_storage all; } addr = { .any.sa_family = AF_UNSPEC };
  socklen_t len = sizeof addr;
  int fd = connection_fd (c);

  if (getpeername (fd, &addr.any, &len) == 0)
    esp_address_text (&addr.any, r->peer);
  len = sizeof addr;
  if (getsockname (fd, &addr.any, &len) == 0) {
    esp_address_text (&addr.any, r->local);
    r->local_port = ntohs (addr.any.sa_family == AF_INET6 ? addr.six.sin6_port
                           : addr.four.sin_port);
  }
}

static size_t
find_route (struct http_private *p)
{
  size_t i;

  for (i = 0; routes[i].pattern && i < ROUTES_MAX; i++) {
    memset (p->request.part, 0, sizeof p->request.part);
    if (uri_match (routes[i].pattern, p->request.path, p->parts,
                   p->request.part, PARTS))
      return i;
  }
  memset (p->request.part, 0, sizeof p->request.part);
  return ROUTES_MAX;
}

/* A body is none of ours to read. */
static bool
has_body (const struct request *r)
{
  const char *length = request_header (r, "Content-Length");

  return request_header (r, "Transfer-Encoding") ||
    (length && strspn (length, "0") != strlen (length));
}

static int
answer (struct request *r)
{
  struct http_private *p = r->http;

  if (strcmp (r->method, "GET") != 0 && strcmp (r->method, "HEAD") != 0) {
    reply_header (r, "Allow", "GET, HEAD");
    return reply_error (r, 405, "only GET and HEAD");
  }
  if (p->bad)
    return reply_error (r, p->bad, "%s", p->why);
  if (has_body (r))
    return reply_error (r, 413, "a request has no body here");
  if (p->route == ROUTES_MAX)
    return reply_error (r, 404, "there is nothing here");
  return routes[p->route].handler (r);
}

static void
begin (struct http_private *p, const char *method)
{
  struct request *r = &p->request;

  p->called = true;
  p->route = ROUTES_MAX;
  r->method = method;
  r->http = p;
  r->config = config_get ();
  fill_addresses (r, p->connection);
  if (p->bad)
    return;
  r->path = p->uri.path;
  p->parts = malloc (strlen (r->path) + 1);
  if (p->parts)
    p->route = find_route (p);
}

static enum MHD_Result
on_request (void *arg, struct MHD_Connection *c, const char *url,
            const char *method, const char *version, const char *upload,
            size_t *upload_size, void **context)
{
  struct http_private *p = *context;

  (void) arg;
  (void) url;
  (void) version;
  (void) upload;
  if (!p)
    return MHD_NO;              /* without memory */
  /* libmicrohttpd closes a connection that is answered in the first call: so
   * only one with a body, which nobody reads, is.
   */
  if (!p->called) {
    set_busy (c, true);
    begin (p, method);
    if (!has_body (&p->request))
      return MHD_YES;
  }
  *upload_size = 0;
  if (p->status != 0)
    return MHD_YES;             /* the body of one that was refused */
  answer (&p->request);
  if (p->status == 0)
    reply_error (&p->request, 500, "no answer");
  if (p->status == 0)
    return MHD_NO;
  atomic_fetch_add (&counts[p->route][p->status / 100], 1);
  return MHD_YES;
}

static const char *
end_name (enum MHD_RequestTerminationCode code)
{
  switch (code) {
  case MHD_REQUEST_TERMINATED_COMPLETED_OK: return "";
  case MHD_REQUEST_TERMINATED_TIMEOUT_REACHED: return ", timed out";
  case MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN: return ", ended with us";
  default: return ", cut";
  }
}

static void
on_completed (void *arg, struct MHD_Connection *c, void **context,
              enum MHD_RequestTerminationCode code)
{
  struct http_private *p = *context;

  (void) arg;
  if (!p)
    return;
  if (p->called)                /* the query may hold a ticket */
    esp_debug ("%s %s %s: %u%s", p->request.peer, p->request.method,
               p->request.path ? p->request.path : "(no path)", p->status,
               end_name (code));
  set_busy (c, false);
  connection_of (c)->request = NULL;
  request_free (p);
  *context = NULL;
}

/* --- counters ------------------------------------------------------------------ */

void
http_each_count (void (*fn) (void *arg, const char *pattern, unsigned status,
                             uint64_t n), void *arg)
{
  bool last = false;

  for (size_t i = 0; !last; i++) {
    last = !routes[i].pattern;
    for (unsigned s = 1; s < 6; s++) {
      uint64_t n = atomic_load (&counts[last ? ROUTES_MAX : i][s]);
      if (n)
        fn (arg, last ? "" : routes[i].pattern, s * 100, n);
    }
  }
}

/* --- begin and end --------------------------------------------------------------- */

static void __attribute__ ((format (printf, 2, 0)))
on_message (void *arg, const char *fmt, va_list args)
{
  char text[512];

  (void) arg;
  vsnprintf (text, sizeof text, fmt, args);
  text[strcspn (text, "\n")] = 0;
  esp_debug ("libmicrohttpd: %s", text);
}

int
http_start (const struct config *config)
{
  CLEANUP_CLOSE int fd = -1;
  char text[96];

  listen_parse (config->listen, 8610, &where);
  fd = listen_open (&where, "HTTP", "listen");
  if (fd == -1)
    return -1;
  server = MHD_start_daemon
    (MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
     MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG,
     0, NULL, NULL, on_request, NULL,
     MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
     MHD_OPTION_LISTEN_SOCKET, fd,
     MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL,
     MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
     MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
     MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
     MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
     MHD_OPTION_PER_IP_CONNECTION_LIMIT, OF_ONE_ADDRESS,
     MHD_OPTION_CONNECTION_TIMEOUT, PATIENCE,
     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) HEAD_MAX,
     MHD_OPTION_THREAD_STACK_SIZE, (size_t) STACK,
     MHD_OPTION_END);
  if (!server) {
    esp_error ("MHD_start_daemon: %m (libmicrohttpd %s)", MHD_get_version ());
    return -1;
  }
  esp_steal_fd (&fd);           /* libmicrohttpd closes it */
  log_info ("HTTP on %s", listen_format (&where, text));
  return 0;
}

unsigned
http_port (void)
{
  return where.port;
}

static bool
is_busy (void)
{
  ESP_LOCK_SCOPE (&connections_lock);
  return nbusy > 0;
}

/* What is being answered may be finished within GRACE, the rest is cut. */
void
http_stop (void)
{
  const unsigned grace = 2 * SECOND;
  uint64_t end = esp_now_us () + grace;
  int fd;

  if (!server)
    return;
  fd = MHD_quiesce_daemon (server);
  while (is_busy () && esp_now_us () < end)
    usleep (10000);
  MHD_stop_daemon (server);
  if (fd != -1)
    close (fd);
  server = NULL;
}
