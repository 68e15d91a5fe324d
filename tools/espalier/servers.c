/* SPDX-License-Identifier: BSD-3-Clause */
/* Servers that run: see servers.h. */

#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "boot/address.h"
#include "espalier.h"
#include "servers.h"
#include "util/file.h"
#include "util/lock.h"

#define SERVERS "run/servers"
#define FILE_MAX 4096
/* systemd's first descriptor (sd_listen_fds(3)). */
#define FIRST_FD 3

/* --- leaving --------------------------------------------------------------- */

/* The word behind OPTION in LINE, or NULL. */
static const char *
word_behind (char *const *line, size_t n, const char *option)
{
  for (size_t i = 1; i + 1 < n; i++)
    if (strcmp (line[i], option) == 0)
      return line[i + 1];
  return NULL;
}

static bool
has_word (char *const *line, size_t n, const char *word)
{
  for (size_t i = 1; i < n; i++)
    if (strcmp (line[i], word) == 0)
      return true;
  return false;
}

static json_t *
unix_listener (const char *path)
{
  char here[4096] = "";

  if (*path != '/' && !getcwd (here, sizeof here))
    return NULL;
  CLEANUP_FREE char *whole = xasprintf ("%s%s%s", here, *here ? "/" : "", path);
  return json_pack ("{s:s}", "socket", whole);
}

static json_t *
tcp_listener (const char *host, unsigned port)
{
  return json_pack ("{s:s,s:i}", "host", host, "port", (int) port);
}

/* What a socket that systemd, or espalierd, passed listens on. */
static json_t *
passed_listener (int fd)
{
  struct sockaddr_storage ss = { 0 };
  socklen_t len = sizeof ss;
  const struct sockaddr *addr = (struct sockaddr *) &ss;
  char buf[64];

  if (getsockname (fd, (struct sockaddr *) &ss, &len) == -1)
    return NULL;
  if (ss.ss_family == AF_UNIX)
    return unix_listener (((struct sockaddr_un *) &ss)->sun_path);
  if (ss.ss_family == AF_INET)
    return tcp_listener (esp_address_text (addr, buf),
                         ntohs (((struct sockaddr_in *) &ss)->sin_port));
  if (ss.ss_family == AF_INET6)
    return tcp_listener (esp_address_text (addr, buf),
                         ntohs (((struct sockaddr_in6 *) &ss)->sin6_port));
  return NULL;
}

static json_t *
listeners (char *const *line, size_t n)
{
  const char *pid = getenv ("LISTEN_PID"), *fds = getenv ("LISTEN_FDS");
  const char *socket = word_behind (line, n, "-U");
  const char *host = word_behind (line, n, "-i"), *port = word_behind (line, n, "-p");
  json_t *array = json_array ();

  if (pid && fds && strtol (pid, NULL, 10) == (long) getpid ()) {
    for (int i = 0; i < atoi (fds) && i < 64; i++)
      json_array_append_new (array, passed_listener (FIRST_FD + i));
    return array;
  }
  json_array_append_new (array, socket ? unix_listener (socket)
                         : tcp_listener (host ? host : "", port
                                         ? (unsigned) atoi (port) : NBD_PORT));
  return array;
}

static char *
describe (char *const *line, size_t n)
{
  json_t *o = json_object ();
  char *text;

  json_object_set_new (o, "pid", json_number ((uint64_t) getpid ()));
  json_object_set_new (o, "since", json_number ((uint64_t) time (NULL)));
  json_object_set_new (o, "listen", listeners (line, n));
  json_object_set_new (o, "tickets", json_boolean
                       (has_word (line, n, "require-ticket=on")));
  json_object_set_new (o, "tls", json_boolean
                       (has_word (line, n, "--tls=require")));
  text = json_dumps (o, 0);
  json_decref (o);
  return text;
}

/* A file without a name that gets one when it is whole and locked.  Its
 * descriptor is never closed: nbdkit inherits it.
 */
static int
leave (int dir, const char *text)
{
  CLEANUP_FREE char *name = xasprintf ("%ld-%lld", (long) getpid (),
                                       (long long) time (NULL));
  char self[64];
  int fd = openat (dir, ".", O_TMPFILE | O_RDWR, 0644);

  if (fd == -1)
    return -1;
  snprintf (self, sizeof self, "/proc/self/fd/%d", fd);
  if (esp_pwrite_all (fd, text, strlen (text), 0) == -1 ||
      esp_lock (fd, true) == -1 ||
      linkat (AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) == -1) {
    close (fd);
    return -1;
  }
  return 0;
}

/* --- looking --------------------------------------------------------------- */

struct look { struct server best; json_int_t since; unsigned n; };

/* Is the server of file FD gone?  Whoever can lock it removes it; a shared lock
 * is enough, so that two who look at once do not take each other for it.
 */
static bool
is_gone (int dir, const char *name, int fd)
{
  if (esp_lock (fd, false) == -1)
    return errno != EWOULDBLOCK;
  unlinkat (dir, name, 0);
  return true;
}

/* The address of a listener for a client on this host. */
static void
set_address (struct server *s, const json_t *listener)
{
  const char *host = json_string_value (json_object_get (listener, "host"));
  const char *socket = json_string_value (json_object_get (listener, "socket"));
  json_int_t port = json_integer_value (json_object_get (listener, "port"));

  if (socket && !*s->host)
    snprintf (s->socket, sizeof s->socket, "%s", socket);
  if (!host || port < 1 || port > 65535 || *s->host)
    return;
  if (!*host || strcmp (host, "0.0.0.0") == 0 || strcmp (host, "::") == 0)
    host = "localhost";
  snprintf (s->host, sizeof s->host, "%s", host);
  s->port = (unsigned) port;
  *s->socket = 0;
}

static void
take (struct look *look, const json_t *o)
{
  struct server s = { 0 };
  json_int_t since = json_integer_value (json_object_get (o, "since"));
  const json_t *array = json_object_get (o, "listen");

  for (size_t i = 0; i < json_array_size (array); i++)
    set_address (&s, json_array_get (array, i));
  if (!*s.host && !*s.socket)
    return;
  s.tickets = json_is_true (json_object_get (o, "tickets"));
  s.tls = json_is_true (json_object_get (o, "tls"));
  bool tcp = *s.host, best_tcp = *look->best.host;
  if (look->n++ == 0 || tcp > best_tcp ||
      (tcp == best_tcp && since > look->since)) {
    look->best = s;
    look->since = since;
  }
}

static int
look_at (void *arg, int dir, const char *name)
{
  CLEANUP_CLOSE int fd = openat (dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  char text[FILE_MAX];
  ssize_t n;

  if (fd == -1 || is_gone (dir, name, fd))
    return 0;
  if (!arg || (n = pread (fd, text, sizeof text, 0)) <= 0)
    return 0;
  json_t *o = json_loadb (text, (size_t) n, 0, NULL);
  take (arg, o);
  json_decref (o);
  return 0;
}

void
server_leave (char *const *line, size_t n)
{
  CLEANUP_CLOSE int dir = esp_make_dir (esp_store_fd (cli.store), SERVERS, 0755);
  CLEANUP_FREE char *text = describe (line, n);

  if (dir == -1 || !text || leave (dir, text) == -1)
    esp_debug ("%s/" SERVERS ": %m: nobody will find this server by itself",
               esp_store_path (cli.store));
  if (dir != -1)
    esp_each_entry (dir, look_at, NULL);
}

bool
server_find (struct server *out, unsigned *more)
{
  CLEANUP_CLOSE int dir = esp_open_dir (esp_store_fd (cli.store), SERVERS);
  struct look look = { 0 };

  if (dir != -1)
    esp_each_entry (dir, look_at, &look);
  *out = look.best;
  *more = look.n ? look.n - 1 : 0;
  return look.n > 0;
}

int
server_parse (const char *text, struct server *out)
{
  const char *colon = strrchr (text, ':'), *end = text + strlen (text);
  struct in6_addr six;
  char *rest;

  *out = (struct server) { .port = NBD_PORT };
  if (inet_pton (AF_INET6, text, &six) != 1 && colon &&
      (*text != '[' || colon[-1] == ']')) {
    long port = strtol (colon + 1, &rest, 10);
    if (*rest || rest == colon + 1 || port < 1 || port > 65535)
      return -1;
    out->port = (unsigned) port;
    end = colon;
  }
  if (*text == '[') {
    if (end - text < 3 || end[-1] != ']')
      return -1;
    text++;
    end--;
  }
  if (end == text || (size_t) (end - text) >= sizeof out->host)
    return -1;
  memcpy (out->host, text, (size_t) (end - text));
  /* A name, or an address: nothing that would mean something in a URI. */
  return out->host[strcspn (out->host, " \t\n/?#@,&='\"<>[]\\%")] ? -1 : 0;
}
