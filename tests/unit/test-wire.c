/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection to a node that says anything at all. */

#include "cluster-test.h"

#define KEY "0123456789abcdef"
#define MANY 4000

/* What a node answers, whatever it was asked; then it closes (HANG: stays). */
struct answer {
  const char *bytes;
  size_t len;
  bool hang;
};

static struct esp_wire *
node_of (const struct answer *a, int *other)
{
  int fd[2];
  enum esp_wire_result why;

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd),
                    0);
  assert_int_equal (write (fd[1], a->bytes, a->len), (ssize_t) a->len);
  if (!a->hang)
    shutdown (fd[1], SHUT_WR);
  *other = fd[1];
  struct esp_wire *w = esp_wire_new (fd[0], 300, NULL, &why);
  assert_non_null (w);
  return w;
}

static enum esp_wire_result
ask (enum esp_wire_verb verb, const struct answer *a, struct esp_wire_op *op)
{
  int other;
  struct esp_wire *w;

  w = node_of (a, &other);
  *op = (struct esp_wire_op) {
    .verb = verb, .key = KEY, .data = "x", .len = 1, .cas = 7
  };
  /* It speaks before it is asked: only the answer is looked at here. */
  enum esp_wire_result r = esp_wire_do (w, op);
  if (r == ESP_WIRE_OK && verb == ESP_WIRE_GET)
    assert_true (op->value_len <= a->len);
  esp_wire_close (w);
  close (other);
  return r;
}

#define A(text) { text, sizeof (text) - 1, false }
#define ENDLESS(text) { text, sizeof (text) - 1, true }

static void
check (enum esp_wire_verb verb, const struct answer *a, size_t n,
       enum esp_wire_result want)
{
  for (size_t i = 0; i < n; ++i) {
    struct esp_wire_op op;
    enum esp_wire_result r = ask (verb, &a[i], &op);

    if (r != want)
      fail_msg ("verb %d, \"%.60s\": %d, not %d", verb, a[i].bytes, r, want);
  }
}
#define CHECK(verb, answers, want) \
  check (verb, answers, sizeof answers / sizeof answers[0], want)

static void
test_values (void **state)
{
  static const struct answer good =
    A ("VALUE " KEY " 0 5 99\r\na\r\nb\n\r\nEND\r\n");
  static const struct answer none[] = { A ("END\r\n") };
  struct esp_wire_op op;

  (void) state;
  assert_int_equal (ask (ESP_WIRE_GET, &good, &op), ESP_WIRE_OK);
  assert_int_equal (op.value_len, 5);
  assert_int_equal (op.cas, 99);
  CHECK (ESP_WIRE_GET, none, ESP_WIRE_ABSENT);
}

static void
test_values_that_are_none (void **state)
{
  static const struct answer garbage[] = {
    A ("VERSION\r\n"), A ("\r\n"), A ("\n"), A ("OK\r\n"), A ("STORED\r\n"),
    A ("END \r\n"), A ("ENDE\r\n"), A ("END\n"), A ("ERROR\r\n"),
    A ("CLIENT_ERROR line too long\r\n"), A ("SERVER_ERROR\r\n"),
    A ("VALUE\r\n"), A ("VALUE \r\n"), A ("VALUE " KEY "\r\n"),
    A ("VALUE " KEY " 0 5\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 5 \r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0  5 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 -5 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 5 1 \r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 5 1x\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY "0 0 5 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE 0123456789abcdee 0 5 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 18446744073709551614 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 18446744073709551621 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 4294967296 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 4198401 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 4 1\r\nhallo\r\nEND\r\n"),
    A ("VALUE " KEY " 0 5 1\r\nhalloxxEND\r\n"),
    A ("VALUE " KEY " 0 5 1\r\nhallo\r\nVALUE\r\n"),
  };
  static const struct answer closed[] = {
    A ("VALUE"), A ("VALUE " KEY " 0 5 1\r\n"), A ("E"),
    A ("VALUE " KEY " 0 5 1\r\nhallo\r\nEND\r"),
  };
  static const struct answer hangs[] = {
    ENDLESS (""), ENDLESS ("VALUE " KEY " 0 5 1\r\nhallo\r\nEN"),
    ENDLESS ("VALUE " KEY " 0 4000000 1\r\nhallo"),
  };
  static const struct answer stale[] = { A ("") };
  char many[MANY];
  const struct answer long_line = { many, sizeof many, true };
  struct esp_wire_op op;

  (void) state;
  CHECK (ESP_WIRE_GET, garbage, ESP_WIRE_GARBAGE);
  CHECK (ESP_WIRE_GET, closed, ESP_WIRE_CLOSED);
  CHECK (ESP_WIRE_GET, hangs, ESP_WIRE_TIMEOUT);
  CHECK (ESP_WIRE_GET, stale, ESP_WIRE_STALE);
  memset (many, 'V', sizeof many);
  assert_int_equal (ask (ESP_WIRE_GET, &long_line, &op), ESP_WIRE_GARBAGE);
  memcpy (many, "VALUE kkkkk", 11);
  assert_int_equal (ask (ESP_WIRE_GET, &long_line, &op), ESP_WIRE_GARBAGE);
}

static void
test_changes (void **state)
{
  static const struct answer stored[] = { A ("STORED\r\n") };
  static const struct answer not_stored[] = { A ("NOT_STORED\r\n") };
  static const struct answer exists[] = { A ("EXISTS\r\n") };
  static const struct answer not_found[] = { A ("NOT_FOUND\r\n") };
  static const struct answer deleted[] = { A ("DELETED\r\n") };
  static const struct answer full[] = {
    A ("SERVER_ERROR out of memory storing object\r\n"),
    A ("SERVER_ERROR Out of memory during slab allocation\r\n"),
  };
  static const struct answer large[] = {
    A ("SERVER_ERROR object too large for cache\r\n")
  };
  static const struct answer other[] = { A ("SERVER_ERROR what else\r\n") };

  (void) state;
  CHECK (ESP_WIRE_SET, stored, ESP_WIRE_OK);
  CHECK (ESP_WIRE_ADD, stored, ESP_WIRE_OK);
  CHECK (ESP_WIRE_CAS, stored, ESP_WIRE_OK);
  CHECK (ESP_WIRE_DROP, stored, ESP_WIRE_OK);
  CHECK (ESP_WIRE_DELETE, stored, ESP_WIRE_GARBAGE);
  CHECK (ESP_WIRE_ADD, not_stored, ESP_WIRE_KEPT_OUT);
  CHECK (ESP_WIRE_SET, not_stored, ESP_WIRE_GARBAGE);
  CHECK (ESP_WIRE_CAS, exists, ESP_WIRE_KEPT_OUT);
  CHECK (ESP_WIRE_SET, exists, ESP_WIRE_GARBAGE);
  CHECK (ESP_WIRE_CAS, not_found, ESP_WIRE_ABSENT);
  CHECK (ESP_WIRE_DELETE, not_found, ESP_WIRE_ABSENT);
  CHECK (ESP_WIRE_ADD, not_found, ESP_WIRE_GARBAGE);
  CHECK (ESP_WIRE_DELETE, deleted, ESP_WIRE_OK);
  CHECK (ESP_WIRE_CAS, deleted, ESP_WIRE_GARBAGE);
  CHECK (ESP_WIRE_SET, full, ESP_WIRE_FULL);
  CHECK (ESP_WIRE_CAS, large, ESP_WIRE_TOO_LARGE);
  CHECK (ESP_WIRE_GET, other, ESP_WIRE_REFUSED);
  CHECK (ESP_WIRE_DELETE, other, ESP_WIRE_REFUSED);
}

static void
test_settings (void **state)
{
  static const struct answer good =
    A ("STAT a 1\r\nSTAT item_size_max 1048576\r\nSTAT b\r\nEND\r\n");
  static const struct answer none = A ("END\r\n");
  static const struct answer garbage[] = {
    A ("STAT item_size_max 10x\r\nEND\r\n"), A ("STATS\r\nEND\r\n"),
    A ("STAT item_size_max \r\nEND\r\n"), A ("ERROR\r\n"),
  };
  struct esp_wire_op op;

  (void) state;
  assert_int_equal (ask (ESP_WIRE_LIMIT, &good, &op), ESP_WIRE_OK);
  assert_int_equal (op.number, 1048576);
  assert_int_equal (ask (ESP_WIRE_LIMIT, &none, &op), ESP_WIRE_OK);
  assert_int_equal (op.number, 0);
  CHECK (ESP_WIRE_LIMIT, garbage, ESP_WIRE_GARBAGE);
}

/* An answer more than was asked for is not the next one's. */
static void
test_unasked (void **state)
{
  static const struct answer two = ENDLESS ("END\r\nEND\r\n");
  struct esp_wire_op op = { .verb = ESP_WIRE_GET, .key = KEY };
  int other;
  struct esp_wire *w = node_of (&two, &other);

  (void) state;
  assert_int_equal (esp_wire_do (w, &op), ESP_WIRE_ABSENT);
  assert_int_equal (esp_wire_do (w, &op), ESP_WIRE_GARBAGE);
  esp_wire_close (w);
  close (other);
}

/* A byte now and then: the whole is bounded by four time-outs. */
static void *
trickle (void *arg)
{
  int fd = *(int *) arg;

  (void) !write (fd, "VALUE " KEY " 0 100000 1\r\n", 31);
  while (send (fd, "x", 1, MSG_NOSIGNAL) == 1)
    usleep (5000);
  return NULL;
}

static void
test_trickle (void **state)
{
  static const struct answer none = ENDLESS ("");
  struct esp_wire_op op = { .verb = ESP_WIRE_GET, .key = KEY };
  int other;
  struct esp_wire *w = node_of (&none, &other);
  pthread_t t;

  (void) state;
  pthread_create (&t, NULL, trickle, &other);
  uint64_t begin = now_ms ();
  esp_wire_begin (w);
  assert_int_equal (esp_wire_do (w, &op), ESP_WIRE_TIMEOUT);
  assert_true (now_ms () - begin >= 1000);
  assert_true (now_ms () - begin < 10000);
  esp_wire_close (w);
  pthread_join (t, NULL);
  close (other);
}

/* A node that takes nothing. */
static void
test_deaf (void **state)
{
  static const struct answer none = ENDLESS ("");
  CLEANUP_FREE char *data = calloc (1, 4 << 20);
  struct esp_wire_op op = {
    .verb = ESP_WIRE_SET, .key = KEY, .data = data, .len = 4 << 20,
  };
  int other;
  struct esp_wire *w = node_of (&none, &other);

  (void) state;
  uint64_t begin = now_ms ();
  assert_int_equal (esp_wire_do (w, &op), ESP_WIRE_TIMEOUT);
  assert_true (now_ms () - begin < 10000);
  esp_wire_close (w);
  close (other);
}

/* --- binary ------------------------------------------------------------------ */

struct packet {
  uint8_t magic, op;
  uint16_t key, status;
  uint8_t extras;
  uint32_t body, number;
};

static size_t
pack (uint8_t *out, const struct packet *p, size_t body)
{
  memset (out, 'x', 24 + body);
  memset (out, 0, 24);
  out[0] = p->magic;
  out[1] = p->op;
  out[2] = (uint8_t) (p->key >> 8);
  out[3] = (uint8_t) p->key;
  out[4] = p->extras;
  out[6] = (uint8_t) (p->status >> 8);
  out[7] = (uint8_t) p->status;
  for (unsigned i = 0; i < 4; ++i) {
    out[8 + i] = (uint8_t) (p->body >> (24 - 8 * i));
    out[12 + i] = (uint8_t) (p->number >> (24 - 8 * i));
  }
  return 24 + body;
}

static enum esp_wire_result
ask_binary (enum esp_wire_verb verb, const struct packet *p)
{
  struct esp_wire_login login = { (char *) "u", (char *) "p" };
  const struct packet auth = { 0x81, 0x21, 0, 0, 0, 3, 1 };
  uint8_t bytes[8192];
  size_t n = pack (bytes, &auth, 3), body = p->body < 4000 ? p->body : 4000;
  enum esp_wire_result why;
  int fd[2];

  n += pack (bytes + n, p, body);
  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, fd), 0);
  assert_int_equal (write (fd[1], bytes, n), (ssize_t) n);
  struct esp_wire *w = esp_wire_new (fd[0], 300, &login, &why);
  if (!w) {
    close (fd[1]);
    return why;
  }
  struct esp_wire_op op = { .verb = verb, .key = KEY, .data = "x", .len = 1 };
  /* Both answers came at once: the second is taken as if it had been asked
   * for.
   */
  enum esp_wire_result r = esp_wire_send (w, &op);
  if (r == ESP_WIRE_OK)
    r = esp_wire_recv (w, &op);
  if (r == ESP_WIRE_OK && verb == ESP_WIRE_GET)
    assert_int_equal (op.value_len, p->body - 4);
  esp_wire_close (w);
  close (fd[1]);
  return r;
}

static void
test_binary (void **state)
{
  /* As no question stands, what came early is garbage. */
  static const struct packet p = { 0x81, 0x00, 0, 0, 4, 10, 2 };

  (void) state;
  assert_int_equal (ask_binary (ESP_WIRE_GET, &p), ESP_WIRE_GARBAGE);
}

/* Answers to one question, each from a thread that waits for it. */
struct late {
  int fd;
  uint8_t bytes[8192];
  size_t n;
};

static void *
answer_late (void *arg)
{
  struct late *l = arg;
  const struct packet auth = { 0x81, 0x21, 0, 0, 0, 3, 1 };
  uint8_t bytes[64], question[512];

  if (recv (l->fd, question, sizeof question, 0) > 0) {
    size_t n = pack (bytes, &auth, 3);
    (void) !send (l->fd, bytes, n, MSG_NOSIGNAL);
    if (recv (l->fd, question, sizeof question, 0) > 0)
      (void) !send (l->fd, l->bytes, l->n, MSG_NOSIGNAL);
  }
  return NULL;
}

static enum esp_wire_result
ask_late (enum esp_wire_verb verb, const struct packet *p)
{
  struct esp_wire_login login = { (char *) "u", (char *) "p" };
  enum esp_wire_result why, r;
  struct late l;
  pthread_t t;
  int fd[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, fd), 0);
  l.fd = fd[1];
  l.n = pack (l.bytes, p, p->body < 4000 ? p->body : 4000);
  pthread_create (&t, NULL, answer_late, &l);
  struct esp_wire *w = esp_wire_new (fd[0], 1000, &login, &why);
  assert_non_null (w);
  struct esp_wire_op op = { .verb = verb, .key = KEY, .data = "x", .len = 1 };
  r = esp_wire_do (w, &op);
  if (r == ESP_WIRE_OK && verb == ESP_WIRE_GET)
    assert_int_equal (op.value_len, p->body - 4);
  esp_wire_close (w);
  pthread_join (t, NULL);
  close (fd[1]);
  return r;
}

static void
test_binary_answers (void **state)
{
  static const struct {
    enum esp_wire_verb verb;
    struct packet p;
    enum esp_wire_result want;
  } cases[] = {
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 0, 4, 10, 2 }, ESP_WIRE_OK },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 1, 0, 9, 2 }, ESP_WIRE_ABSENT },
    { ESP_WIRE_ADD, { 0x81, 0x02, 0, 2, 0, 9, 2 }, ESP_WIRE_KEPT_OUT },
    { ESP_WIRE_SET, { 0x81, 0x01, 0, 0x82, 0, 9, 2 }, ESP_WIRE_FULL },
    { ESP_WIRE_SET, { 0x81, 0x01, 0, 3, 0, 9, 2 }, ESP_WIRE_TOO_LARGE },
    { ESP_WIRE_DELETE, { 0x81, 0x04, 0, 0, 0, 0, 2 }, ESP_WIRE_OK },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 0x20, 0, 9, 2 }, ESP_WIRE_DENIED },
    /* no answers to that */
    { ESP_WIRE_GET, { 0x80, 0x00, 0, 0, 4, 10, 2 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x01, 0, 0, 4, 10, 2 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 0, 4, 10, 3 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 0, 0, 10, 2 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 0, 4, 3, 2 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x00, 60000, 0, 4, 10, 2 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 0, 4, 0xffffffff, 2 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 1, 0, 100000, 2 }, ESP_WIRE_GARBAGE },
    { ESP_WIRE_VERSION, { 0x81, 0x0b, 0, 0, 0, 0xfffffff0, 2 },
      ESP_WIRE_GARBAGE },
    { ESP_WIRE_GET, { 0x81, 0x00, 0, 0, 4, 4004, 2 }, ESP_WIRE_TIMEOUT },
  };

  (void) state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    enum esp_wire_result r = ask_late (cases[i].verb, &cases[i].p);
    if (r != cases[i].want)
      fail_msg ("case %zu: %d, not %d", i, r, cases[i].want);
  }
}

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_values),
    cmocka_unit_test (test_values_that_are_none),
    cmocka_unit_test (test_changes), cmocka_unit_test (test_settings),
    cmocka_unit_test (test_unasked), cmocka_unit_test (test_trickle),
    cmocka_unit_test (test_deaf), cmocka_unit_test (test_binary),
    cmocka_unit_test (test_binary_answers),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
