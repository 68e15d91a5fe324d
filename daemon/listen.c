/* SPDX-License-Identifier: BSD-3-Clause */
/* Listening sockets.  One for all addresses is an IPv6 socket that takes IPv4
 * too, so that each service has one descriptor.
 */

#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "listen.h"
#include "util/cleanup.h"
#include "util/host.h"

#define BACKLOG 1024

static int
parse_port (const char *s, unsigned *port)
{
  char *end;
  unsigned long n;

  if (*s < '0' || *s > '9')
    return -1;
  n = strtoul (s, &end, 10);
  if (*end || n > 65535 || end - s > 5)
    return -1;
  *port = (unsigned) n;
  return 0;
}

/* The numeric address of HOST into ADDR. */
static int
resolve (const char *host, struct addrinfo **out)
{
  struct addrinfo hints = { .ai_family = AF_UNSPEC,
                            .ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_NUMERICHOST | AI_PASSIVE };

  return getaddrinfo (host, NULL, &hints, out) == 0 ? 0 : -1;
}

/* Split S into *HOST, malloced, and what stands behind its colon, or NULL. */
static int
split (const char *s, char **host, const char **port)
{
  const char *end;

  *port = NULL;
  if (*s == '[') {
    end = strchr (s, ']');
    if (!end || (end[1] && end[1] != ':') || end == s + 1)
      return -1;
    *host = strndup (s + 1, (size_t) (end - s - 1));
    *port = end[1] ? end + 2 : NULL;
    return 0;
  }
  end = strchr (s, ':');
  if (end && strchr (end + 1, ':'))
    return -1;                  /* an IPv6 address needs its brackets */
  if (!end && strspn (s, "0123456789") == strlen (s)) {
    *host = strdup ("");
    *port = s;
    return 0;
  }
  *host = strndup (s, end ? (size_t) (end - s) : strlen (s));
  *port = end ? end + 1 : NULL;
  return 0;
}

int
listen_parse (const char *s, unsigned port, struct listen_at *out)
{
  CLEANUP_FREE char *host = NULL;
  const char *text;
  struct addrinfo *ai;

  errno = EINVAL;
  memset (out, 0, sizeof *out);
  out->port = port;
  if (!*s || split (s, &host, &text) == -1 || !host ||
      (text && parse_port (text, &out->port) == -1) ||
      strlen (host) >= sizeof out->host)
    return -1;
  if (strcmp (host, "*") == 0)
    *host = 0;
  strcpy (out->host, host);
  if (!*host)
    return 0;
  if (resolve (host, &ai) == -1) {
    errno = EINVAL;
    return -1;
  }
  if (ai->ai_family == AF_INET6 && *s != '[') {
    freeaddrinfo (ai);
    errno = EINVAL;
    return -1;
  }
  freeaddrinfo (ai);
  return 0;
}

const char *
listen_format (const struct listen_at *at, char buf[96])
{
  bool v6 = strchr (at->host, ':');

  snprintf (buf, 96, "%s%s%s:%u", v6 ? "[" : "", *at->host ? at->host : "*",
            v6 ? "]" : "", at->port);
  return buf;
}

static int
open_one (const struct sockaddr *addr, socklen_t len)
{
  CLEANUP_CLOSE int fd = socket (addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1, off = 0;

  if (fd == -1)
    return -1;
  if (addr->sa_family != AF_UNIX &&
      setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1)
    return -1;
  if (addr->sa_family == AF_INET6 &&
      setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == -1)
    return -1;
  /* Who is accepted inherits it. */
  if (addr->sa_family != AF_UNIX &&
      setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1)
    return -1;
  if (bind (fd, addr, len) == -1 || listen (fd, BACKLOG) == -1)
    return -1;
  return esp_steal_fd (&fd);
}

static int
open_all (unsigned port)
{
  struct sockaddr_in6 six = { .sin6_family = AF_INET6,
                              .sin6_port = htons ((uint16_t) port),
                              .sin6_addr = IN6ADDR_ANY_INIT };
  struct sockaddr_in four = { .sin_family = AF_INET,
                              .sin_port = htons ((uint16_t) port) };
  int fd = open_one ((struct sockaddr *) &six, sizeof six);

  if (fd == -1 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL))
    fd = open_one ((struct sockaddr *) &four, sizeof four);
  return fd;
}

static int
open_address (const struct listen_at *at)
{
  struct addrinfo *ai;
  int fd;

  if (resolve (at->host, &ai) == -1) {
    errno = EINVAL;
    return -1;
  }
  if (ai->ai_family == AF_INET6)
    ((struct sockaddr_in6 *) ai->ai_addr)->sin6_port = htons ((uint16_t) at->port);
  else
    ((struct sockaddr_in *) ai->ai_addr)->sin_port = htons ((uint16_t) at->port);
  fd = open_one (ai->ai_addr, ai->ai_addrlen);
  int saved = errno;
  freeaddrinfo (ai);
  errno = saved;
  return fd;
}

static const char *
advice (int err)
{
  switch (err) {
  case EADDRINUSE: return ": another server listens there: end it, or choose another port with ";
  case EACCES: return ": ports below 1024 need CAP_NET_BIND_SERVICE";
  case EADDRNOTAVAIL: return ": this machine does not have that address";
  default: return "";
  }
}

int
listen_open (struct listen_at *at, const char *what, const char *option)
{
  CLEANUP_CLOSE int fd = *at->host ? open_address (at) : open_all (at->port);
  union { struct sockaddr any; struct sockaddr_in6 six; struct sockaddr_in four; } addr;
  socklen_t len = sizeof addr;
  char text[96];

  if (fd == -1 || getsockname (fd, &addr.any, &len) == -1) {
    esp_error ("listen: %s, %s: %m%s%s", what, listen_format (at, text),
               advice (errno), errno == EADDRINUSE ? option : "");
    return -1;
  }
  at->port = ntohs (addr.any.sa_family == AF_INET6 ? addr.six.sin6_port
                    : addr.four.sin_port);
  return esp_steal_fd (&fd);
}

int
listen_open_unix (const char *path)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd;

  if (strlen (path) >= sizeof addr.sun_path) {
    errno = ENAMETOOLONG;
    esp_error ("bind: %s: a socket's path has at most %zu bytes: put the store "
               "at a shorter path", path, sizeof addr.sun_path - 1);
    return -1;
  }
  strcpy (addr.sun_path, path);
  unlink (path);
  mode_t mask = umask (0177);
  fd = open_one ((struct sockaddr *) &addr, sizeof addr);
  umask (mask);
  if (fd == -1)
    esp_error ("bind: %s: %m", path);
  return fd;
}
