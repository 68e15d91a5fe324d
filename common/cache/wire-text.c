/* SPDX-License-Identifier: BSD-3-Clause */
/* memcached's text protocol (protocol.txt of memcached 1.6): the questions
 * that leases and values need, and their answers, read strictly.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cache/wire-internal.h"

#define LINE_MAX_LEN 512u
#define STATS_MAX 1000u                 /* lines of "stats settings" */
#define LIMIT_NAME "item_size_max "

/* Space for a key, four numbers and a verb. */
#define ASK_MAX (ESP_WIRE_KEY_MAX + 120)

static size_t
value_len (const struct esp_wire_op *op)
{
  return (op->head ? op->head_len : 0) + op->len;
}

static int
ask_line (const struct esp_wire_op *op, char *out)
{
  const char *k = op->key;

  switch (op->verb) {
  case ESP_WIRE_GET:
    return snprintf (out, ASK_MAX, "gets %s\r\n", k);
  case ESP_WIRE_SET:
  case ESP_WIRE_ADD:
    return snprintf (out, ASK_MAX, "%s %s 0 %" PRIu32 " %zu\r\n",
                     op->verb == ESP_WIRE_SET ? "set" : "add", k, op->seconds,
                     value_len (op));
  case ESP_WIRE_CAS:
    return snprintf (out, ASK_MAX, "cas %s 0 %" PRIu32 " %zu %" PRIu64 "\r\n",
                     k, op->seconds, value_len (op), op->cas);
  case ESP_WIRE_DELETE:
    return snprintf (out, ASK_MAX, "delete %s\r\n", k);
  case ESP_WIRE_DROP:           /* replaced by what has expired */
    return snprintf (out, ASK_MAX, "cas %s 0 -1 0 %" PRIu64 "\r\n\r\n", k,
                     op->cas);
  case ESP_WIRE_VERSION:
    return snprintf (out, ASK_MAX, "version\r\n");
  case ESP_WIRE_LIMIT:
    return snprintf (out, ASK_MAX, "stats settings\r\n");
  }
  return 0;
}

static enum esp_wire_result
text_send (struct esp_wire *w, const struct esp_wire_op *op)
{
  char line[ASK_MAX];
  int n = ask_line (op, line);
  bool data = op->verb == ESP_WIRE_SET || op->verb == ESP_WIRE_ADD ||
    op->verb == ESP_WIRE_CAS;
  struct iovec iov[4] = {
    { line, (size_t) n },
    { (void *) op->head, op->head ? op->head_len : 0 },
    { (void *) op->data, op->len },
    { (void *) "\r\n", 2 },
  };

  return wire_write (w, iov, data ? 4 : 1);
}

/* A line is there; *LEN is without its end.  It stays where it is. */
static enum esp_wire_result
get_line (struct esp_wire *w, const char **line, size_t *len)
{
  enum esp_wire_result r = ESP_WIRE_OK;

  for (;;) {
    size_t have = wire_have (w);
    const uint8_t *p = have ? memchr (wire_at (w), '\n', have < LINE_MAX_LEN
                                      ? have : LINE_MAX_LEN) : NULL;
    if (p) {
      *line = (const char *) wire_at (w);
      *len = (size_t) (p - wire_at (w));
      if (*len == 0 || (*line)[*len - 1] != '\r')
        return ESP_WIRE_GARBAGE;
      --*len;
      return ESP_WIRE_OK;
    }
    if (have >= LINE_MAX_LEN)
      return ESP_WIRE_GARBAGE;
    if ((r = wire_more (w)) != ESP_WIRE_OK)
      return r;
  }
}

static bool
is (const char *line, size_t len, const char *what)
{
  return len == strlen (what) && memcmp (line, what, len) == 0;
}

static bool
begins (const char *line, size_t len, const char *what)
{
  return len >= strlen (what) && memcmp (line, what, strlen (what)) == 0;
}

/* SERVER_ERROR and what there is of it; anything else is garbage. */
static enum esp_wire_result
error_line (const char *line, size_t len)
{
  if (!begins (line, len, "SERVER_ERROR "))
    return ESP_WIRE_GARBAGE;
  line += 13;
  len -= 13;
  if (begins (line, len, "out of memory") ||
      begins (line, len, "Out of memory"))
    return ESP_WIRE_FULL;
  if (begins (line, len, "object too large"))
    return ESP_WIRE_TOO_LARGE;
  return ESP_WIRE_REFUSED;
}

/* A number, and what stands behind it.  NULL: there is none. */
static const char *
number (const char *p, const char *end, uint64_t *out)
{
  const char *begin = p;
  uint64_t n = 0;

  for (; p < end && *p >= '0' && *p <= '9'; ++p) {
    unsigned digit = (unsigned) (*p - '0');
    if (n > (UINT64_MAX - digit) / 10)
      return NULL;
    n = n * 10 + digit;
  }
  *out = n;
  return p > begin ? p : NULL;
}

/* "VALUE KEY FLAGS BYTES CAS" */
static bool
value_line (const char *line, size_t len, const char *key, uint64_t *bytes,
            uint64_t *cas)
{
  const char *end = line + len, *p = line + 6;
  size_t n = strlen (key);
  uint64_t flags;

  if (!begins (line, len, "VALUE ") || (size_t) (end - p) < n + 1 ||
      memcmp (p, key, n) != 0 || p[n] != ' ')
    return false;
  p = number (p + n + 1, end, &flags);
  if (!p || p == end || *p != ' ')
    return false;
  p = number (p + 1, end, bytes);
  if (!p || p == end || *p != ' ')
    return false;
  p = number (p + 1, end, cas);
  return p == end && *bytes <= ESP_WIRE_VALUE_MAX;
}

static enum esp_wire_result
recv_body (struct esp_wire *w, struct esp_wire_op *op, size_t bytes)
{
  static const char tail[] = "\r\nEND\r\n";
  size_t n = sizeof tail - 1;
  enum esp_wire_result r = wire_value (w, op, bytes, n);

  if (r != ESP_WIRE_OK)
    return r;
  if (memcmp (wire_at (w), tail, n) != 0)
    return ESP_WIRE_GARBAGE;
  wire_take (w, n);
  return ESP_WIRE_OK;
}

static enum esp_wire_result
recv_value (struct esp_wire *w, struct esp_wire_op *op)
{
  const char *line;
  size_t len;
  uint64_t bytes;
  enum esp_wire_result r = get_line (w, &line, &len);

  if (r != ESP_WIRE_OK)
    return r;
  if (is (line, len, "END")) {
    wire_take (w, len + 2);
    return ESP_WIRE_ABSENT;
  }
  if (!value_line (line, len, op->key, &bytes, &op->cas)) {
    r = error_line (line, len);
    wire_take (w, len + 2);
    return r;
  }
  wire_take (w, len + 2);
  return recv_body (w, op, bytes);
}

/* The one line that answers changes. */
static enum esp_wire_result
changed (enum esp_wire_verb verb, const char *line, size_t len)
{
  bool store = verb != ESP_WIRE_DELETE;
  bool cas = verb == ESP_WIRE_CAS || verb == ESP_WIRE_DROP;

  if (is (line, len, store ? "STORED" : "DELETED"))
    return ESP_WIRE_OK;
  if (verb == ESP_WIRE_ADD && is (line, len, "NOT_STORED"))
    return ESP_WIRE_KEPT_OUT;
  if (cas && is (line, len, "EXISTS"))
    return ESP_WIRE_KEPT_OUT;
  if ((cas || !store) && is (line, len, "NOT_FOUND"))
    return ESP_WIRE_ABSENT;
  return error_line (line, len);
}

static enum esp_wire_result
recv_stats (struct esp_wire *w, struct esp_wire_op *op)
{
  op->number = 0;
  for (unsigned i = 0; i < STATS_MAX; ++i) {
    const char *line;
    size_t len;
    enum esp_wire_result r = get_line (w, &line, &len);

    if (r != ESP_WIRE_OK)
      return r;
    bool end = is (line, len, "END");
    if (!end && !begins (line, len, "STAT "))
      return error_line (line, len);
    if (begins (line + 5, end ? 0 : len - 5, LIMIT_NAME) &&
        number (line + 5 + strlen (LIMIT_NAME), line + len, &op->number)
        != line + len)
      return ESP_WIRE_GARBAGE;
    wire_take (w, len + 2);
    if (end)
      return ESP_WIRE_OK;
  }
  return ESP_WIRE_GARBAGE;
}

static enum esp_wire_result
text_recv (struct esp_wire *w, struct esp_wire_op *op)
{
  const char *line;
  size_t len;
  enum esp_wire_result r;

  if (op->verb == ESP_WIRE_GET)
    return recv_value (w, op);
  if (op->verb == ESP_WIRE_LIMIT)
    return recv_stats (w, op);
  r = get_line (w, &line, &len);
  if (r != ESP_WIRE_OK)
    return r;
  r = op->verb != ESP_WIRE_VERSION ? changed (op->verb, line, len)
    : begins (line, len, "VERSION ") ? ESP_WIRE_OK : error_line (line, len);
  wire_take (w, len + 2);
  return r;
}

const struct codec wire_text = { text_send, text_recv };
