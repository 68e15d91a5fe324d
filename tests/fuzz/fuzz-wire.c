/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a node's answers to a few questions: always a result, and a
 * value only where it lies in what came.  The first byte says which questions;
 * its highest bit, that the node wants a password; the one below, that the
 * answer to that is right.
 */

#include "fuzz.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cache/wire.h"

#define INTO 512

static const enum esp_wire_verb verbs[4][3] = {
  { ESP_WIRE_GET, ESP_WIRE_ADD, ESP_WIRE_GET },
  { ESP_WIRE_VERSION, ESP_WIRE_LIMIT, ESP_WIRE_DELETE },
  { ESP_WIRE_CAS, ESP_WIRE_DROP, ESP_WIRE_SET },
  { ESP_WIRE_GET, ESP_WIRE_GET, ESP_WIRE_LIMIT },
};

static void
check_value (const struct esp_wire_op *op, size_t size)
{
  volatile uint8_t sum = 0;

  FUZZ_REQUIRE (op->value_len + op->rest <= size);
  FUZZ_REQUIRE (op->rest <= op->room);
  for (size_t i = 0; i < op->value_len; ++i)
    sum = (uint8_t) (sum + op->value[i]);
}

static void
ask_all (struct esp_wire *w, unsigned how, size_t size)
{
  uint8_t into[INTO];
  struct esp_wire_op op[3];
  enum esp_wire_result r = ESP_WIRE_OK;

  /* All at once: what came early is then no garbage. */
  for (unsigned i = 0; i < 3 && r < ESP_WIRE_STALE; ++i) {
    op[i] = (struct esp_wire_op) {
      .verb = verbs[how % 4][i], .key = "k", .data = "x", .len = 1, .cas = 1,
      .into = how & 4 ? into : NULL, .room = how & 8 ? 0 : INTO,
    };
    if (op[i].verb == ESP_WIRE_GET)
      op[i].head_len = how & 16 ? 96 : 4;
    r = esp_wire_send (w, &op[i]);
  }
  for (unsigned i = 0; i < 3 && r < ESP_WIRE_STALE; ++i) {
    r = esp_wire_recv (w, &op[i]);
    FUZZ_REQUIRE (r <= ESP_WIRE_DENIED);
    if (r == ESP_WIRE_OK && op[i].verb == ESP_WIRE_GET)
      check_value (&op[i], size);
  }
}

static void
put (int fd, const uint8_t *bytes, size_t n)
{
  FUZZ_REQUIRE (n == 0 || write (fd, bytes, n) == (ssize_t) n);
}

/* The right answer to question 1, a login. */
static const uint8_t logged_in[24] = { 0x81, 0x21, [15] = 1 };

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct esp_wire_login login = { (char *) "u", (char *) "p" };
  enum esp_wire_result why;
  int fd[2];

  if (size < 1)
    return 0;
  bool binary = data[0] & 128, welcome = binary && data[0] & 64;

  FUZZ_REQUIRE (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
  if (welcome)
    put (fd[1], logged_in, sizeof logged_in);
  else
    put (fd[1], data + 1, size - 1);
  if (!welcome)
    shutdown (fd[1], SHUT_WR);
  struct esp_wire *w = esp_wire_new (fd[0], 1000, binary ? &login : NULL,
                                     &why);
  if (w) {
    if (welcome) {
      put (fd[1], data + 1, size - 1);
      shutdown (fd[1], SHUT_WR);
    }
    ask_all (w, data[0], size);
    esp_wire_close (w);
  }
  close (fd[1]);
  return 0;
}
