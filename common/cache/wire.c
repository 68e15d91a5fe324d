/* SPDX-License-Identifier: BSD-3-Clause */
/* One connection to a memcached node.
 *
 * Written by hand, though there is libmemcached: a node is not trusted, and
 * four answers of one line each end a process that uses libmemcached 1.1.4
 * ("VERSION" without a number; a key of 300 bytes; a length of 2^64-2; in the
 * binary protocol a version of 3,000 bytes overwrites its stack), and some
 * more meet live assertions.  It also bounds no answer as a whole, looks names
 * up in the caller's thread, and reads 8 KiB at a time.
 *
 * Here nothing that a node says is believed: an answer must be the one that
 * the question allows, lengths are bounded before anything is allocated, and
 * what does not fit closes the connection.  The value stays where it was
 * received; the caller opens it from there.
 *
 * Time: each wait for bytes ends after the time-out, all of a turn
 * (esp_wire_begin) after four.  Sockets do not block; SIGPIPE cannot happen
 * (MSG_NOSIGNAL).  Under TLS (wire-tls.c) the same holds.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cluster-internal.h"
#include "cache/wire-internal.h"
#include "util/cleanup.h"

#define ROOM_FIRST (16u << 10)
#define AT_ONCE 4096u                   /* while a value's length is not known */
#define ROOM_MAX (ESP_WIRE_VALUE_MAX + 4096)
#define TURN 4u                         /* time-outs */

enum esp_wire_result
wire_wait (struct esp_wire *w, short events)
{
  struct pollfd p = { .fd = w->fd, .events = events };
  uint64_t begin = esp_now_us (), until = begin + w->timeout_ms * 1000u;

  if (until > w->until_us)
    until = w->until_us;
  for (uint64_t now = begin; now < until; now = esp_now_us ()) {
    uint64_t ms = (until - now + 999) / 1000;
    int r = poll (&p, 1, ms > INT_MAX ? INT_MAX : (int) ms);

    if (r > 0)
      return ESP_WIRE_OK;
    if (r == -1 && errno != EINTR)
      return ESP_WIRE_CLOSED;
  }
  return ESP_WIRE_TIMEOUT;
}

/* A node says only behind the handshake, and not always in so many words, that
 * it does not want our certificate.
 */
enum esp_wire_result
wire_lost (const struct esp_wire *w)
{
  if (w->ssl && !w->spoke)
    return ESP_WIRE_TLS_REFUSED;
  return w->heard ? ESP_WIRE_CLOSED : ESP_WIRE_STALE;
}

static bool
iov_skip (struct iovec **iov, size_t *n, size_t sent)
{
  while (*n > 0 && sent >= (*iov)->iov_len) {
    sent -= (*iov)->iov_len;
    ++*iov;
    --*n;
  }
  if (*n == 0)
    return false;
  (*iov)->iov_base = (uint8_t *) (*iov)->iov_base + sent;
  (*iov)->iov_len -= sent;
  return true;
}

static bool
transient (void)
{
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Send some of IOV; none: wait for EVENTS. */
static enum esp_wire_result
send_some (struct esp_wire *w, struct iovec *iov, size_t n, size_t *sent,
           short *events)
{
  struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };

  if (w->ssl)
    return wire_tls_send (w, iov, n, sent, events);
  ssize_t r = sendmsg (w->fd, &m, MSG_NOSIGNAL);
  *sent = r > 0 ? (size_t) r : 0;
  return r >= 0 || transient () ? ESP_WIRE_OK : wire_lost (w);
}

enum esp_wire_result
wire_write (struct esp_wire *w, struct iovec *iov, size_t n)
{
  do {
    size_t sent;
    short events = POLLOUT;
    enum esp_wire_result e = send_some (w, iov, n, &sent, &events);

    if (e == ESP_WIRE_OK && sent == 0)
      e = wire_wait (w, events);
    if (e != ESP_WIRE_OK)
      return e;
    if (!iov_skip (&iov, &n, sent))
      return ESP_WIRE_OK;
  } while (esp_now_us () < w->until_us);
  return ESP_WIRE_TIMEOUT;
}

/* Let WANT bytes from start on fit, and some more. */
static int
make_room (struct esp_wire *w, size_t want)
{
  if (want <= w->room - w->start && w->end < w->room)
    return 0;
  if (w->start > 0) {
    memmove (w->buf, w->buf + w->start, w->end - w->start);
    w->end -= w->start;
    w->start = 0;
  }
  if (want <= w->room && w->end < w->room)
    return 0;
  if (want > ROOM_MAX || w->end >= ROOM_MAX)
    return -1;
  size_t room = want < ROOM_FIRST ? ROOM_FIRST : want;
  if (room <= w->end)
    room = w->end + ROOM_FIRST;
  uint8_t *buf = realloc (w->buf, room);
  if (!buf)
    return -1;
  w->buf = buf;
  w->room = room;
  return 0;
}

/* Receive what is there into IOV; nothing: wait for EVENTS. */
static enum esp_wire_result
receive_some (struct esp_wire *w, struct iovec *iov, size_t n, size_t *got,
              short *events)
{
  struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };

  if (w->ssl)
    return wire_tls_receive (w, iov, got, events);
  ssize_t r = recvmsg (w->fd, &m, 0);
  *got = r > 0 ? (size_t) r : 0;
  return r > 0 || (r == -1 && transient ()) ? ESP_WIRE_OK : wire_lost (w);
}

/* Receive something into IOV. */
static enum esp_wire_result
receive (struct esp_wire *w, struct iovec *iov, size_t n, size_t *got)
{
  for (;;) {
    short events = POLLIN;
    enum esp_wire_result e = receive_some (w, iov, n, got, &events);

    if (e == ESP_WIRE_OK && *got == 0) {
      e = wire_wait (w, events);
      if (e == ESP_WIRE_OK)
        continue;
    }
    if (e == ESP_WIRE_OK)
      w->heard = w->spoke = true;
    return e;
  }
}

enum esp_wire_result
wire_need (struct esp_wire *w, size_t want)
{
  if (wire_have (w) < want && make_room (w, want) == -1)
    return ESP_WIRE_GARBAGE;
  while (wire_have (w) < want) {
    size_t room = w->room - w->end, missing = want - wire_have (w), got = 0;
    if (w->at_once && room > w->at_once)
      room = missing > w->at_once ? missing : w->at_once;
    struct iovec iov = { w->buf + w->end, room };
    enum esp_wire_result e = receive (w, &iov, 1, &got);

    if (e != ESP_WIRE_OK)
      return e;
    w->end += got;
    if (wire_have (w) < want && esp_now_us () >= w->until_us)
      return ESP_WIRE_TIMEOUT;
  }
  return ESP_WIRE_OK;
}

enum esp_wire_result
wire_more (struct esp_wire *w)
{
  return wire_need (w, wire_have (w) + 1);
}

/* The bytes of a value behind its head, to where they are to be; nothing is in
 * the buffer.
 */
static enum esp_wire_result
receive_into (struct esp_wire *w, uint8_t *into, size_t n)
{
  while (n > 0) {
    struct iovec iov[2] = { { into, n }, { w->buf, AT_ONCE } };
    size_t got = 0;
    enum esp_wire_result e = receive (w, iov, 2, &got);

    if (e != ESP_WIRE_OK)
      return e;
    if (got >= n) {
      w->end = got - n;
      return ESP_WIRE_OK;
    }
    into += got;
    n -= got;
    if (esp_now_us () >= w->until_us)
      return ESP_WIRE_TIMEOUT;
  }
  return ESP_WIRE_OK;
}

static enum esp_wire_result
value_apart (struct esp_wire *w, struct esp_wire_op *op, size_t n)
{
  enum esp_wire_result r = wire_need (w, op->head_len);
  size_t early;

  if (r != ESP_WIRE_OK)
    return r;
  memcpy (w->head, wire_at (w), op->head_len);
  wire_take (w, op->head_len);
  op->value = w->head;
  op->value_len = op->head_len;
  op->rest = n - op->head_len;
  early = wire_have (w) < op->rest ? wire_have (w) : op->rest;
  memcpy (op->into, wire_at (w), early);
  wire_take (w, early);
  return receive_into (w, (uint8_t *) op->into + early, op->rest - early);
}

enum esp_wire_result
wire_value (struct esp_wire *w, struct esp_wire_op *op, size_t n, size_t tail)
{
  bool apart = op->into && n > op->head_len && n - op->head_len <= op->room &&
    op->head_len <= sizeof w->head;
  enum esp_wire_result r;

  op->rest = 0;
  if (apart) {
    r = value_apart (w, op, n);
    return r == ESP_WIRE_OK ? wire_need (w, tail) : r;
  }
  r = wire_need (w, n + tail);
  if (r != ESP_WIRE_OK)
    return r;
  op->value = wire_at (w);
  op->value_len = n;
  wire_take (w, n);
  return ESP_WIRE_OK;
}

/* --- connecting ------------------------------------------------------------ */

static enum esp_wire_result
finish_connect (struct esp_wire *w, const struct sockaddr *addr,
                socklen_t len)
{
  int err, one = 1;
  socklen_t n = sizeof err;

  if (connect (w->fd, addr, len) == -1) {
    if (errno != EINPROGRESS)
      return ESP_WIRE_CLOSED;
    enum esp_wire_result e = wire_wait (w, POLLOUT);
    if (e != ESP_WIRE_OK)
      return e;
    if (getsockopt (w->fd, SOL_SOCKET, SO_ERROR, &err, &n) == -1 || err != 0)
      return ESP_WIRE_CLOSED;
  }
  /* A connection without it is only slower. */
  if (addr->sa_family != AF_UNIX)
    (void) setsockopt (w->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return ESP_WIRE_OK;
}

static struct esp_wire *
wire_alloc (int fd, unsigned timeout_ms, const struct esp_wire_login *login,
            enum esp_wire_result *why)
{
  struct esp_wire *w = calloc (1, sizeof *w);

  *why = ESP_WIRE_CLOSED;
  if (!w) {
    close (fd);
    return NULL;
  }
  w->fd = fd;
  w->timeout_ms = timeout_ms;
  w->codec = login ? &wire_binary : &wire_text;
  esp_wire_begin (w);
  return w;
}

static struct esp_wire *
wire_ready (struct esp_wire *w, const struct esp_wire_login *login,
            enum esp_wire_result *why)
{
  *why = login ? wire_login (w, login) : ESP_WIRE_OK;
  if (*why == ESP_WIRE_OK)
    return w;
  esp_wire_close (w);
  return NULL;
}

struct esp_wire *
esp_wire_new (int fd, unsigned timeout_ms, const struct esp_wire_login *login,
              enum esp_wire_result *why)
{
  struct esp_wire *w = wire_alloc (fd, timeout_ms, login, why);
  int flags = fcntl (fd, F_GETFL);

  if (w && (flags == -1 || fcntl (fd, F_SETFL, flags | O_NONBLOCK) == -1)) {
    esp_wire_close (w);
    return NULL;
  }
  return w ? wire_ready (w, login, why) : NULL;
}

/* Within one time-out, which counts for the first turn. */
static enum esp_wire_result
connect_all (struct esp_wire *w, const struct sockaddr *addr, socklen_t len,
             const struct esp_wire_how *how)
{
  uint64_t until = w->until_us;
  enum esp_wire_result r;

  w->until_us = esp_now_us () + how->timeout_ms * UINT64_C (1000);
  r = finish_connect (w, addr, len);
  if (r == ESP_WIRE_OK && how->tls)
    r = wire_tls_start (w, how->tls, how->host);
  w->until_us = until;
  return r;
}

struct esp_wire *
esp_wire_connect (const struct sockaddr *addr, socklen_t len,
                  const struct esp_wire_how *how, enum esp_wire_result *why)
{
  int fd = socket (addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  *why = ESP_WIRE_CLOSED;
  if (fd == -1)
    return NULL;
  struct esp_wire *w = wire_alloc (fd, how->timeout_ms, how->login, why);
  if (!w)
    return NULL;
  *why = connect_all (w, addr, len, how);
  if (*why == ESP_WIRE_OK)
    return wire_ready (w, how->login, why);
  esp_wire_close (w);
  return NULL;
}

void
esp_wire_close (struct esp_wire *wire)
{
  if (!wire)
    return;
  wire_tls_end (wire);
  close (wire->fd);
  free (wire->buf);
  free (wire);
}

void
esp_wire_begin (struct esp_wire *wire)
{
  wire->until_us = esp_now_us () + (uint64_t) TURN * wire->timeout_ms * 1000u;
  wire->heard = false;
}

/* What came without being asked for would be taken for the next answer. */
enum esp_wire_result
esp_wire_send (struct esp_wire *wire, const struct esp_wire_op *op)
{
  if (wire->outstanding == 0 && wire_have (wire) > 0)
    return ESP_WIRE_GARBAGE;
  wire->outstanding++;
  return wire->codec->send (wire, op);
}

enum esp_wire_result
esp_wire_recv (struct esp_wire *wire, struct esp_wire_op *op)
{
  wire->outstanding--;
  wire->at_once = op->into ? AT_ONCE : 0;
  return wire->codec->recv (wire, op);
}

enum esp_wire_result
esp_wire_do (struct esp_wire *wire, struct esp_wire_op *op)
{
  enum esp_wire_result r = esp_wire_send (wire, op);

  return r == ESP_WIRE_OK ? esp_wire_recv (wire, op) : r;
}
