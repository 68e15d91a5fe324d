/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes that lie: a small server that greets like a cache node and then says
 * whatever a test wants.
 */

#include "cluster-test.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define SEG 65536u
#define RP(n) key_of (ESP_CACHE_RP, (n), 16)
#define KEYS 12u

enum lie {
  RUBBISH, VERSION_ONLY, LONG_KEY, HUGE_LENGTH, WRAPPED_LENGTH, HALF_VALUE,
  OTHER_KEY, OTHER_VALUE, FLIPPED, ENDLESS, TRICKLE, CLOSES, ALL_STORED,
  ALL_LEASED, TWO_ANSWERS, RANDOM_CLOSE, LIES
};

struct liar {
  int fd;
  char name[40];
  enum lie lie;
  struct esp_sealer *sealer;
  pthread_t thread;
  _Atomic unsigned asked;
  _Atomic bool stop;
  _Atomic unsigned threads;
};

struct liar_conn {
  struct liar *l;
  int fd;
};

static bool
say (int fd, const void *bytes, size_t n)
{
  return send (fd, bytes, n, MSG_NOSIGNAL) == (ssize_t) n;
}

static bool
say_text (int fd, const char *text)
{
  return say (fd, text, strlen (text));
}

static bool
say_value (int fd, const char *key, const void *value, size_t n)
{
  char line[400];

  snprintf (line, sizeof line, "VALUE %s 0 %zu 1\r\n", key, n);
  return say_text (fd, line) && say (fd, value, n) &&
    say_text (fd, "\r\nEND\r\n");
}

/* A value that would be right for segment N. */
static size_t
sealed (struct liar *l, unsigned n, uint8_t *out)
{
  uint8_t data[SEG];
  struct esp_cache_key k = RP (n);
  struct esp_value_part part = { .length = SEG, .parts = 1, .put = 5 };

  fill_bytes (data, SEG, n, 0);
  return esp_value_seal (l->sealer, &k, &part, data, SEG, out);
}

static bool
trickle (struct liar *l, int fd, const char *key)
{
  char line[400];

  snprintf (line, sizeof line, "VALUE %s 0 65000 1\r\n", key);
  if (!say_text (fd, line))
    return false;
  while (!l->stop && say_text (fd, "x"))
    usleep (20000);
  return false;
}

static bool
endless (struct liar *l, int fd)
{
  char many[4096];

  memset (many, 'x', sizeof many);
  while (!l->stop && say (fd, many, sizeof many))
    ;
  return false;
}

static bool
lie_value (struct liar *l, int fd, const char *key)
{
  uint8_t value[SEG + ESP_VALUE_OVERHEAD];
  size_t n = sealed (l, l->lie == OTHER_VALUE ? 1000 : 0, value);
  char line[400], many[301];

  memset (many, 'k', 300);
  many[300] = 0;
  switch (l->lie) {
  case LONG_KEY:
    return say_value (fd, many, "abc", 3);
  case HUGE_LENGTH: case WRAPPED_LENGTH:
    snprintf (line, sizeof line, "VALUE %s 0 %s 1\r\nabc\r\nEND\r\n", key,
              l->lie == HUGE_LENGTH ? "1099511627776"
              : "18446744073709551614");
    return say_text (fd, line);
  case HALF_VALUE:
    snprintf (line, sizeof line, "VALUE %s 0 %zu 1\r\n", key, n);
    return say_text (fd, line) && say (fd, value, n / 2) && false;
  case OTHER_KEY:
    return say_value (fd, "00112233445566778899", value, n);
  case FLIPPED:
    value[n / 2] ^= 1;
    return say_value (fd, key, value, n);
  default:
    return say_value (fd, key, value, n);
  }
}

static bool
lie (struct liar *l, int fd, const char *key)
{
  static const uint8_t lease[32] = "ESPLEASE\1\1\0\0\0\0\0\0abcdefg";
  uint8_t rubbish[600];

  switch (l->lie) {
  case RUBBISH:
    fill_bytes (rubbish, sizeof rubbish, l->asked, 1);
    return say (fd, rubbish, sizeof rubbish);
  case VERSION_ONLY: return say_text (fd, "VERSION\r\n");
  case ENDLESS: return endless (l, fd);
  case TRICKLE: return trickle (l, fd, key);
  case CLOSES: return false;
  case ALL_STORED: return say_text (fd, "STORED\r\n");
  case ALL_LEASED: return say_value (fd, key, lease, sizeof lease);
  case TWO_ANSWERS: return say_text (fd, "END\r\nEND\r\n");
  case RANDOM_CLOSE: return l->asked % 3 && say_text (fd, "END\r\n");
  default: return lie_value (l, fd, key);
  }
}

/* One line that was asked (what follows a store is taken for lines, too). */
static bool
answer (struct liar *l, int fd, char *line)
{
  char *key = strchr (line, ' ');

  if (strncmp (line, "version", 7) == 0)
    return say_text (fd, "VERSION 1.6.18\r\n");
  if (strncmp (line, "stats", 5) == 0)
    return say_text (fd, "STAT item_size_max 1048576\r\nEND\r\n");
  l->asked++;
  if (key) {
    ++key;
    key[strcspn (key, " \r\n")] = 0;
  }
  return lie (l, fd, key ? key : "x");
}

static void *
conn_main (void *arg)
{
  struct liar_conn *c = arg;
  struct timeval t = { .tv_usec = 50000 };
  char buf[8192];

  setsockopt (c->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  setsockopt (c->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  while (!c->l->stop) {
    ssize_t n = recv (c->fd, buf, sizeof buf - 1, 0);
    if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
      continue;
    if (n <= 0)
      break;
    buf[n] = 0;
    if (!answer (c->l, c->fd, buf))
      break;
  }
  close (c->fd);
  c->l->threads--;
  free (c);
  return NULL;
}

static void *
liar_main (void *arg)
{
  struct liar *l = arg;

  while (!l->stop) {
    int fd = accept4 (l->fd, NULL, NULL, SOCK_CLOEXEC);
    pthread_t t;
    if (fd == -1)
      continue;
    struct liar_conn *c = malloc (sizeof *c);
    *c = (struct liar_conn) { l, fd };
    l->threads++;
    pthread_create (&t, NULL, conn_main, c);
    pthread_detach (t);
  }
  return NULL;
}

static struct liar *
liar_start (struct bench *b, enum lie lie)
{
  struct liar *l = calloc (1, sizeof *l);
  struct sockaddr_in in = {
    .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK)
  };
  socklen_t n = sizeof in;
  struct timeval t = { .tv_usec = 50000 };

  l->lie = lie;
  l->sealer = b->sealer;
  l->fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt (l->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  assert_int_equal (bind (l->fd, (struct sockaddr *) &in, sizeof in), 0);
  assert_int_equal (listen (l->fd, 50), 0);
  getsockname (l->fd, (struct sockaddr *) &in, &n);
  snprintf (l->name, sizeof l->name, "127.0.0.1:%u", ntohs (in.sin_port));
  pthread_create (&l->thread, NULL, liar_main, l);
  return l;
}

static void
liar_stop (struct liar *l)
{
  l->stop = true;
  pthread_join (l->thread, NULL);
  while (l->threads > 0)
    usleep (1000);
  close (l->fd);
  free (l);
}

/* All keys, from a cluster whose only node lies: never a wrong byte, bounded
 * time, and it is left out, or does no harm.
 */
static void
check_lie (struct bench *b, enum lie lie)
{
  struct liar *l = liar_start (b, lie);
  struct esp_shared_params p = {
    .nodes = l->name, .timeout_ms = 60, .lease_ms = 1000, .wait_ms = 100,
  };
  struct esp_cluster *c = esp_cluster_open (&p, b->sealer);
  uint8_t buf[SEG];

  assert_non_null (c);
  wait_out (c, 0);
  unit_error[0] = 0;
  uint64_t begin = now_ms ();
  for (unsigned i = 1; i <= KEYS; ++i) {
    struct esp_cache_key k = RP (i);
    struct esp_shared_ticket t = { 0 };
    assert_int_equal (get_all (c, &k, buf, SEG, &t), ESP_SHARED_MISS);
    fill_bytes (buf, SEG, i, 0);
    esp_cluster_put (c, &k, buf, SEG, 0, &t);
  }
  struct esp_cluster_counters n = counters (c);
  if (now_ms () - begin > 15000)
    fail_msg ("lie %d: %u ms", lie, (unsigned) (now_ms () - begin));
  assert_true (l->asked > 0);
  if (lie != ALL_LEASED) {
    /* (It may have been found good again by now.) */
    if (n.lies + n.errors == 0 || !strstr (unit_error, "left out"))
      fail_msg ("lie %d: %u lies, %u errors, %zu out", lie,
                (unsigned) n.lies, (unsigned) n.errors, cluster_out (c));
  }
  esp_cluster_close (c);
  liar_stop (l);
}

#define LIE(what)                                       \
  static void                                           \
  test_##what (void **state)                            \
  {                                                     \
    check_lie (*state, what);                           \
  }
LIE (RUBBISH)
LIE (VERSION_ONLY)
LIE (LONG_KEY)
LIE (HUGE_LENGTH)
LIE (WRAPPED_LENGTH)
LIE (HALF_VALUE)
LIE (OTHER_KEY)
LIE (OTHER_VALUE)
LIE (FLIPPED)
LIE (ENDLESS)
LIE (TRICKLE)
LIE (CLOSES)
LIE (ALL_STORED)
LIE (ALL_LEASED)
LIE (TWO_ANSWERS)
LIE (RANDOM_CLOSE)

/* Beside two that work: most keys are hits, all are right. */
static void
test_one_of_three (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  struct liar *l = liar_start (b, FLIPPED);
  char nodes[400];

  mc_start (b, 0, NULL);
  mc_start (b, 1, NULL);
  snprintf (nodes, sizeof nodes, "%s,%s", l->name, mc_list (b, 0, 2));
  struct esp_cluster *c = cluster_open (b, nodes);
  wait_out (c, 0);
  for (unsigned round = 0; round < 3; ++round)
    for (unsigned i = 1; i < 40; ++i) {
      struct esp_cache_key k = RP (i);
      fetch (c, &k, SEG, NULL);
    }
  assert_true (counters (c).lies >= 3);
  assert_int_equal (cluster_out (c), 1);
  _Atomic unsigned fetched = 0;
  for (unsigned i = 1; i < 40; ++i) {
    struct esp_cache_key k = RP (i);
    fetch (c, &k, SEG, &fetched);
  }
  assert_int_equal (fetched, 0);
  esp_cluster_close (c);
  liar_stop (l);
}

/* Something that is no cache node at all never comes into use. */
static void
test_no_cache_node (void **state)
{
  struct bench *b = *state;
  struct sockaddr_in in = {
    .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK)
  };
  socklen_t n = sizeof in;
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  char name[40];

  assert_int_equal (bind (fd, (struct sockaddr *) &in, sizeof in), 0);
  assert_int_equal (listen (fd, 5), 0);         /* and never accepts */
  getsockname (fd, (struct sockaddr *) &in, &n);
  snprintf (name, sizeof name, "127.0.0.1:%u", ntohs (in.sin_port));
  struct esp_cluster *c = cluster_open (b, name);
  assert_int_equal (cluster_out (c), 1);
  fetch (c, &(struct esp_cache_key) { .kind = ESP_CACHE_RP, .shift = 16 }, SEG,
         NULL);
  assert_int_equal (counters (c).hits + counters (c).leases, 0);
  esp_cluster_close (c);
  close (fd);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)
#define L(what) T (test_##what)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    L (RUBBISH), L (VERSION_ONLY), L (LONG_KEY), L (HUGE_LENGTH),
    L (WRAPPED_LENGTH), L (HALF_VALUE), L (OTHER_KEY), L (OTHER_VALUE),
    L (FLIPPED), L (ENDLESS), L (TRICKLE), L (CLOSES), L (ALL_STORED),
    L (ALL_LEASED), L (TWO_ANSWERS), L (RANDOM_CLOSE), T (test_one_of_three),
    T (test_no_cache_node),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
