/* SPDX-License-Identifier: BSD-3-Clause */
/* One connection to a memcached node.  Only for common/cache, tests and
 * fuzzers.
 */

#ifndef ESPALIER_CACHE_WIRE_H
#define ESPALIER_CACHE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#pragma GCC visibility push(default)

#define ESP_WIRE_KEY_MAX 250u           /* bytes; no blanks, no controls */
#define ESP_WIRE_VALUE_MAX ((4u << 20) + 4096)

enum esp_wire_result {
  ESP_WIRE_OK,
  ESP_WIRE_ABSENT,              /* nothing under that key */
  ESP_WIRE_KEPT_OUT,            /* ADD: there is something; CAS, DROP: it is
                                 * another one by now */
  ESP_WIRE_FULL,                /* no memory there */
  ESP_WIRE_TOO_LARGE,           /* for the node's item limit */
  ESP_WIRE_REFUSED,             /* it said an error; the connection is sound */
  /* From here on the connection is of no use any more. */
  ESP_WIRE_STALE,               /* closed before a byte of an answer came */
  ESP_WIRE_CLOSED,              /* no connection, or closed in an answer */
  ESP_WIRE_TIMEOUT,
  ESP_WIRE_GARBAGE,             /* no answer of a memcached to that question */
  ESP_WIRE_DENIED,              /* user or password */
  ESP_WIRE_TLS_NONE,            /* no handshake, but something else */
  ESP_WIRE_TLS_LATE,            /* no handshake in time */
  ESP_WIRE_TLS_UNTRUSTED,       /* its certificate is not from the CA */
  ESP_WIRE_TLS_EXPIRED,         /* ... or is not valid (yet, or any more) */
  ESP_WIRE_TLS_MISNAMED,        /* ... or is for another name */
  ESP_WIRE_TLS_REFUSED,         /* ours is not what it wants */
};

enum esp_wire_verb {
  ESP_WIRE_GET, ESP_WIRE_SET, ESP_WIRE_ADD, ESP_WIRE_CAS,
  ESP_WIRE_DELETE,
  ESP_WIRE_DROP,                /* delete what has this CAS */
  ESP_WIRE_VERSION,
  ESP_WIRE_LIMIT,               /* the node's item_size_max */
};

#define ESP_WIRE_HEAD_MAX 128u

struct esp_wire_op {
  enum esp_wire_verb verb;
  const char *key;
  /* SET, ADD, CAS: HEAD, then DATA. */
  const void *head;
  size_t head_len;
  const void *data;
  size_t len;
  uint32_t seconds;             /* that it lives; 0: for ever */
  uint64_t cas;                 /* CAS, DROP: of what is replaced; GET: sets it */
  /* GET: the value, in the connection's buffer until the next call.  With INTO,
   * and where that has room for all but the first HEAD_LEN bytes, only those
   * are there, and the other ones (REST) in INTO.
   */
  const uint8_t *value;
  size_t value_len;
  void *into;
  size_t room, rest;
  uint64_t number;              /* LIMIT */
};

struct esp_wire_login { char *user, *password; };

/* How to connect: within TIMEOUT_MS, with the handshake, which also bounds each
 * wait for bytes later on.  LOGIN (or NULL) outlives the wire; with it the
 * binary protocol is spoken, as SASL wants.  TLS (or NULL), too, with a node
 * that proves to be HOST, a name or an address.
 */
struct esp_tls;
struct esp_wire_how {
  unsigned timeout_ms;
  const struct esp_wire_login *login;
  const struct esp_tls *tls;
  const char *host;
};

/* NULL with *WHY.  Reports nothing. */
struct esp_wire;
extern struct esp_wire *esp_wire_connect (const struct sockaddr *addr,
                                          socklen_t len,
                                          const struct esp_wire_how *how,
                                          enum esp_wire_result *why);
/* The same, without TLS, over a connected socket, which is the wire's own from here on. */
extern struct esp_wire *esp_wire_new (int fd, unsigned timeout_ms,
                                      const struct esp_wire_login *login,
                                      enum esp_wire_result *why);
extern void esp_wire_close (struct esp_wire *wire);

/* What follows may take four time-outs altogether, however it trickles. */
extern void esp_wire_begin (struct esp_wire *wire);

/* Ask and take the answer; or several questions, then their answers in that
 * order (RECV with the same op).
 */
extern enum esp_wire_result esp_wire_do (struct esp_wire *wire,
                                         struct esp_wire_op *op);
extern enum esp_wire_result esp_wire_send (struct esp_wire *wire,
                                           const struct esp_wire_op *op);
extern enum esp_wire_result esp_wire_recv (struct esp_wire *wire,
                                           struct esp_wire_op *op);

#pragma GCC visibility pop
#endif /* ESPALIER_CACHE_WIRE_H */
