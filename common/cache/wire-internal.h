/* SPDX-License-Identifier: BSD-3-Clause */
/* What wire.c gives the two protocols. */

#ifndef ESPALIER_CACHE_WIRE_INTERNAL_H
#define ESPALIER_CACHE_WIRE_INTERNAL_H

#include <sys/uio.h>

#include "cache/wire.h"

struct codec {
  enum esp_wire_result (*send) (struct esp_wire *w,
                                const struct esp_wire_op *op);
  enum esp_wire_result (*recv) (struct esp_wire *w, struct esp_wire_op *op);
};
extern const struct codec wire_text, wire_binary;
extern enum esp_wire_result wire_login (struct esp_wire *w,
                                        const struct esp_wire_login *login);

struct ssl_st;

/* What came and was not taken yet is BUF[start .. end). */
struct esp_wire {
  int fd;
  const struct codec *codec;
  unsigned timeout_ms;
  uint64_t until_us;            /* nothing waits longer */
  unsigned outstanding;         /* questions without their answers */
  uint32_t asked, answered;     /* binary: numbers of the questions */
  bool heard;                   /* a byte came since esp_wire_begin */
  bool spoke;                   /* one came at all */
  struct ssl_st *ssl;           /* TLS, or NULL */
  bool more;                    /* TLS: what is sent goes on */
  uint8_t *buf;
  size_t start, end, room;
  size_t at_once;               /* 0, or so much is received at most */
  uint8_t head[ESP_WIRE_HEAD_MAX];
};

/* Until the socket is ready for EVENTS. */
extern enum esp_wire_result wire_wait (struct esp_wire *w, short events);
/* What the end of the connection means now. */
extern enum esp_wire_result wire_lost (const struct esp_wire *w);

/* TLS (wire-tls.c), with a node that proves to be HOST; _end frees.  The other
 * two send the first bytes of IOV, or receive into the first of it.  OK
 * without any: wait for EVENTS, and call again.
 */
extern enum esp_wire_result wire_tls_start (struct esp_wire *w,
                                            const struct esp_tls *tls,
                                            const char *host);
extern void wire_tls_end (struct esp_wire *w);
extern enum esp_wire_result wire_tls_send (struct esp_wire *w,
                                           const struct iovec *iov, size_t n,
                                           size_t *sent, short *events);
extern enum esp_wire_result wire_tls_receive (struct esp_wire *w,
                                              const struct iovec *iov,
                                              size_t *got, short *events);

/* Send all of IOV (which it changes). */
extern enum esp_wire_result wire_write (struct esp_wire *w, struct iovec *iov,
                                        size_t n);
/* Until there are WANT bytes, at most ESP_WIRE_VALUE_MAX + 4096. */
extern enum esp_wire_result wire_need (struct esp_wire *w, size_t want);
/* A value of N bytes comes next: take it to where OP wants it.  The TAIL bytes
 * that follow are there, too, and are not taken.
 */
extern enum esp_wire_result wire_value (struct esp_wire *w,
                                        struct esp_wire_op *op, size_t n,
                                        size_t tail);
/* Some more bytes than there are. */
extern enum esp_wire_result wire_more (struct esp_wire *w);

static inline const uint8_t *
wire_at (const struct esp_wire *w)
{
  return w->buf + w->start;
}

static inline size_t
wire_have (const struct esp_wire *w)
{
  return w->end - w->start;
}

static inline void
wire_take (struct esp_wire *w, size_t n)
{
  w->start += n;
  if (w->start == w->end)
    w->start = w->end = 0;
}

#endif /* ESPALIER_CACHE_WIRE_INTERNAL_H */
