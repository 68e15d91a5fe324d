/* SPDX-License-Identifier: BSD-3-Clause */
/* memcached's binary protocol, for nodes that want a user and a password:
 * SASL there has no text form.  Fields are big endian, a packet is a header of
 * 24 bytes and a body of extras, key and value.
 */

#include <config.h>

#include <arpa/inet.h>
#include <string.h>

#include "cache/wire-internal.h"
#include "util/cleanup.h"

#define HEAD 24u
#define BODY_MAX (ESP_WIRE_VALUE_MAX + 64)
#define TEXT_MAX 4096u                  /* of an error, a version, a setting */
#define STATS_MAX 1000u

enum opcode {
  OP_GET = 0x00, OP_SET = 0x01, OP_ADD = 0x02, OP_REPLACE = 0x03,
  OP_DELETE = 0x04, OP_VERSION = 0x0b, OP_STAT = 0x10, OP_AUTH = 0x21,
};

enum status {
  ST_OK = 0, ST_ABSENT = 1, ST_EXISTS = 2, ST_TOO_LARGE = 3,
  ST_NOT_STORED = 5, ST_DENIED = 0x20, ST_UNKNOWN = 0x81, ST_NO_MEMORY = 0x82,
};

struct packet {
  uint8_t op, extras_len;
  uint16_t key_len, status;
  uint32_t body_len, number;
  uint64_t cas;
};

static void
put32 (uint8_t *p, uint32_t v)
{
  v = htonl (v);
  memcpy (p, &v, sizeof v);
}

static uint32_t
get32 (const uint8_t *p)
{
  uint32_t v;

  memcpy (&v, p, sizeof v);
  return ntohl (v);
}

static enum opcode
opcode_of (enum esp_wire_verb verb)
{
  switch (verb) {
  case ESP_WIRE_GET: return OP_GET;
  case ESP_WIRE_SET: return OP_SET;
  case ESP_WIRE_ADD: return OP_ADD;
  case ESP_WIRE_CAS: return OP_REPLACE;
  case ESP_WIRE_DELETE:
  case ESP_WIRE_DROP: return OP_DELETE;
  case ESP_WIRE_VERSION: return OP_VERSION;
  case ESP_WIRE_LIMIT: break;
  }
  return OP_STAT;
}

/* FIRST and DATA are the value. */
static enum esp_wire_result
send_packet (struct esp_wire *w, enum opcode op, const char *key,
             uint32_t seconds, uint64_t cas, struct iovec first,
             struct iovec data)
{
  bool store = op == OP_SET || op == OP_ADD || op == OP_REPLACE;
  uint8_t head[HEAD + 8] = { 0x80, (uint8_t) op };
  size_t extras = store ? 8 : 0, n = strlen (key);
  size_t len = first.iov_len + data.iov_len;
  struct iovec iov[4] = {
    { head, HEAD + extras }, { (void *) key, n }, first, data,
  };

  head[2] = (uint8_t) (n >> 8);
  head[3] = (uint8_t) n;
  head[4] = (uint8_t) extras;
  put32 (head + 8, (uint32_t) (extras + n + len));
  put32 (head + 12, ++w->asked);
  put32 (head + 16, (uint32_t) (cas >> 32));
  put32 (head + 20, (uint32_t) cas);
  put32 (head + HEAD + 4, seconds);
  return wire_write (w, iov, 4);
}

static enum esp_wire_result
binary_send (struct esp_wire *w, const struct esp_wire_op *op)
{
  bool store = op->verb == ESP_WIRE_SET || op->verb == ESP_WIRE_ADD ||
    op->verb == ESP_WIRE_CAS;
  bool cas = op->verb == ESP_WIRE_CAS || op->verb == ESP_WIRE_DROP;
  const char *key = op->verb == ESP_WIRE_LIMIT ? "settings"
    : op->verb == ESP_WIRE_VERSION ? "" : op->key;
  struct iovec none = { NULL, 0 }, head = {
    (void *) op->head, op->head ? op->head_len : 0
  }, data = { (void *) op->data, op->len };

  return send_packet (w, opcode_of (op->verb), key, op->seconds,
                      cas ? op->cas : 0, store ? head : none,
                      store ? data : none);
}

/* The header of the next answer; it is taken. */
static enum esp_wire_result
recv_header (struct esp_wire *w, enum opcode op, struct packet *p)
{
  enum esp_wire_result r = wire_need (w, HEAD);
  const uint8_t *h;

  if (r != ESP_WIRE_OK)
    return r;
  h = wire_at (w);
  *p = (struct packet) {
    .op = h[1], .extras_len = h[4],
    .key_len = (uint16_t) (h[2] << 8 | h[3]),
    .status = (uint16_t) (h[6] << 8 | h[7]),
    .body_len = get32 (h + 8), .number = get32 (h + 12),
    .cas = (uint64_t) get32 (h + 16) << 32 | get32 (h + 20),
  };
  if (h[0] != 0x81 || p->op != op || p->number != w->answered + 1 ||
      p->body_len > BODY_MAX || p->body_len < p->extras_len + p->key_len ||
      (p->status != ST_OK && p->body_len > TEXT_MAX))
    return ESP_WIRE_GARBAGE;
  wire_take (w, HEAD);
  return ESP_WIRE_OK;
}

/* And its whole body, which stays. */
static enum esp_wire_result
recv_packet (struct esp_wire *w, enum opcode op, struct packet *p)
{
  enum esp_wire_result r = recv_header (w, op, p);

  return r == ESP_WIRE_OK ? wire_need (w, p->body_len) : r;
}

static enum esp_wire_result
result_of (enum esp_wire_verb verb, uint16_t status)
{
  bool cas = verb == ESP_WIRE_CAS || verb == ESP_WIRE_DROP;

  switch (status) {
  case ST_OK:
    return ESP_WIRE_OK;
  case ST_ABSENT:
    return verb == ESP_WIRE_GET || verb == ESP_WIRE_DELETE || cas
      ? ESP_WIRE_ABSENT : ESP_WIRE_GARBAGE;
  case ST_EXISTS:
  case ST_NOT_STORED:
    return verb == ESP_WIRE_ADD || cas ? ESP_WIRE_KEPT_OUT : ESP_WIRE_REFUSED;
  case ST_TOO_LARGE:
    return ESP_WIRE_TOO_LARGE;
  case ST_NO_MEMORY:
    return ESP_WIRE_FULL;
  case ST_DENIED:
    return ESP_WIRE_DENIED;
  default:
    return ESP_WIRE_REFUSED;
  }
}

static enum esp_wire_result
take_value (struct esp_wire *w, const struct packet *p, struct esp_wire_op *op)
{
  enum esp_wire_result r = wire_need (w, 4);

  if (r != ESP_WIRE_OK)
    return r;
  wire_take (w, 4);             /* flags */
  op->cas = p->cas;
  return wire_value (w, op, p->body_len - 4, 0);
}

static enum esp_wire_result
recv_value (struct esp_wire *w, struct esp_wire_op *op)
{
  struct packet p;
  enum esp_wire_result r = recv_header (w, OP_GET, &p);

  if (r != ESP_WIRE_OK)
    return r;
  w->answered++;
  if (p.status != ST_OK) {
    r = wire_need (w, p.body_len);
    if (r == ESP_WIRE_OK)
      wire_take (w, p.body_len);
    return r == ESP_WIRE_OK ? result_of (op->verb, p.status) : r;
  }
  if (p.extras_len != 4 || p.key_len != 0 || p.body_len < 4 ||
      p.body_len - 4 > ESP_WIRE_VALUE_MAX)
    return ESP_WIRE_GARBAGE;
  return take_value (w, &p, op);
}

/* Settings, one a packet, until one without a key. */
static enum esp_wire_result
recv_stats (struct esp_wire *w, struct esp_wire_op *op)
{
  static const char name[] = "item_size_max";

  op->number = 0;
  for (unsigned i = 0; i < STATS_MAX; ++i) {
    struct packet p;
    enum esp_wire_result r = recv_packet (w, OP_STAT, &p);
    char digits[24] = "";

    if (r != ESP_WIRE_OK)
      return r;
    size_t n = p.body_len - p.extras_len - p.key_len;
    const uint8_t *key = wire_at (w) + p.extras_len;
    if (p.status == ST_OK && p.key_len == sizeof name - 1 &&
        memcmp (key, name, p.key_len) == 0 && n < sizeof digits) {
      memcpy (digits, key + p.key_len, n);
      op->number = strspn (digits, "0123456789") == n && n < 18
        ? strtoull (digits, NULL, 10) : 0;
    }
    wire_take (w, p.body_len);
    if (p.status != ST_OK || p.key_len == 0) {
      w->answered++;
      return result_of (op->verb, p.status);
    }
  }
  return ESP_WIRE_GARBAGE;
}

static enum esp_wire_result
binary_recv (struct esp_wire *w, struct esp_wire_op *op)
{
  struct packet p;
  enum esp_wire_result r;

  if (op->verb == ESP_WIRE_LIMIT)
    return recv_stats (w, op);
  if (op->verb == ESP_WIRE_GET)
    return recv_value (w, op);
  r = recv_packet (w, opcode_of (op->verb), &p);
  if (r != ESP_WIRE_OK)
    return r;
  w->answered++;
  wire_take (w, p.body_len);
  return result_of (op->verb, p.status);
}

const struct codec wire_binary = { binary_send, binary_recv };

/* SASL PLAIN (RFC 4616).  A node that knows no SASL wants none. */
enum esp_wire_result
wire_login (struct esp_wire *w, const struct esp_wire_login *login)
{
  size_t user = strlen (login->user), password = strlen (login->password);
  CLEANUP_FREE char *text = calloc (1, user + password + 2);
  struct packet p;
  enum esp_wire_result r;

  if (!text)
    return ESP_WIRE_CLOSED;
  memcpy (text + 1, login->user, user);
  memcpy (text + 2 + user, login->password, password);
  r = send_packet (w, OP_AUTH, "PLAIN", 0, 0, (struct iovec) { NULL, 0 },
                   (struct iovec) { text, user + password + 2 });
  explicit_bzero (text, user + password + 2);
  if (r == ESP_WIRE_OK)
    r = recv_packet (w, OP_AUTH, &p);
  if (r != ESP_WIRE_OK)
    return r;
  w->answered++;
  wire_take (w, p.body_len);
  return p.status == ST_OK || p.status == ST_UNKNOWN ? ESP_WIRE_OK
    : ESP_WIRE_DENIED;
}
