/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of nodes: its text, whom a key belongs to, the file that is read
 * again.
 */

#include "cluster-test.h"

#define SEG 65536u
#define RP(n) key_of (ESP_CACHE_RP, (n), 16)
#define KEYS 24u

/* --- text ------------------------------------------------------------------------ */

static void
check_names (const char *text, size_t n, const char *const *names)
{
  struct esp_nodes *nodes = esp_nodes_parse (text, "nodes");

  if (!nodes)
    fail_msg ("%s", unit_error);
  assert_int_equal (nodes->n, n);
  for (size_t i = 0; i < n; ++i)
    assert_string_equal (nodes->node[i].name, names[i]);
  free (nodes);
}
#define NAMES(text, ...)                                                \
  do {                                                                  \
    static const char *const names[] = { __VA_ARGS__ };                 \
    check_names (text, sizeof names / sizeof names[0], names);          \
  } while (0)

static void
test_names (void **state)
{
  (void) state;
  NAMES ("a", "a:11211");
  NAMES ("Cache-1.Example:1", "cache-1.example:1");
  NAMES ("a:1,b:2", "a:1", "b:2");
  NAMES (" a:1 ,, b:2 ,", "a:1", "b:2");
  NAMES ("10.0.0.1:65535", "10.0.0.1:65535");
  NAMES ("[::1]", "[::1]:11211");
  NAMES ("[FE80::1%eth0]:5", "[fe80::1%eth0]:5");
  NAMES ("unix:/run/a", "unix:/run/a");
  NAMES ("unix:/Run/a:b,c:3", "unix:/Run/a:b", "c:3");
  NAMES ("# all of them\na:1 # one\n\nb:2\r\n#c:3", "a:1", "b:2");
}

static void
test_no_names (void **state)
{
  static const char *const bad[] = {
    "", " , \n", "#a", ":1", "a:", "a:0", "a:65536", "a:123456", "a:1x",
    "a:-1", "a b:1:2", "::1", "[::1", "[::1]x", "[::1]:", "[]:1", "[a_b]:1",
    "-a:1", ".a:1", "a/b:1", "unix:", "unix:a", "a:1,A:1", "a,a:11211", "unix", "UNIX:5",
    "a\x01:1", "\xc3\xa4:1", "unix:/a,unix:/a",
    "unix:/123456789012345678901234567890123456789012345678901234567890"
    "123456789012345678901234567890123456789012345678",
  };
  char many[257 * 6] = "", name[300];

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    unit_error[0] = 0;
    if (esp_nodes_check (bad[i], "here") == 0)
      fail_msg ("\"%s\" is taken", bad[i]);
    assert_int_equal (errno, EINVAL);
    assert_non_null (strstr (unit_error, "here: "));
  }
  for (unsigned i = 0; i < 256; ++i)
    snprintf (many + 5 * i, 6, "h%03u,", i);
  assert_int_equal (esp_nodes_check (many, "many"), 0);
  strcat (many, "x");
  assert_int_equal (esp_nodes_check (many, "many"), -1);
  memset (name, 'a', sizeof name);
  name[254] = 0;
  assert_int_equal (esp_nodes_check (name, "long"), -1);
  name[253] = 0;
  assert_int_equal (esp_nodes_check (name, "long"), 0);
}

static void
test_list_or_file (void **state)
{
  (void) state;
  assert_false (esp_nodes_is_file ("a:1,b:2"));
  assert_false (esp_nodes_is_file ("unix:/a"));
  assert_false (esp_nodes_is_file ("a:1,unix:/a,unix:/b"));
  assert_true (esp_nodes_is_file ("/etc/nodes"));
  assert_true (esp_nodes_is_file ("./nodes"));
  assert_true (esp_nodes_is_file ("etc/nodes"));
  struct esp_shared_params p = { .nodes = "/no/such/file" };
  assert_int_equal (esp_cluster_check (&p), -1);
  assert_non_null (strstr (unit_error, "/no/such/file"));
  p.nodes = "a:1";
  assert_int_equal (esp_cluster_check (&p), 0);
}

/* --- whom a key belongs to -------------------------------------------------------- */
#define MANY 20000u

static unsigned
owner (const char *const *names, unsigned n, uint32_t segment)
{
  struct esp_cache_key k = RP (segment);
  uint64_t best = 0, hash = esp_cache_key_hash (&k);
  unsigned found = 0;

  for (unsigned i = 0; i < n; ++i) {
    uint64_t s = esp_node_score (esp_node_hash (names[i]), hash);
    if (s > best) {
      best = s;
      found = i;
    }
  }
  return found;
}

/* A fourth node takes a quarter, all of it from where it was to itself. */
static void
test_fourth_node (void **state)
{
  static const char *const names[] = { "a:1", "b:1", "c:1", "d:1" };
  unsigned moved = 0, share[4] = { 0 };

  (void) state;
  for (uint32_t i = 0; i < MANY; ++i) {
    unsigned before = owner (names, 3, i), after = owner (names, 4, i);
    share[after]++;
    if (before != after) {
      assert_int_equal (after, 3);
      ++moved;
    }
  }
  for (unsigned i = 0; i < 4; ++i)
    assert_in_range (share[i], MANY / 4 * 95 / 100, MANY / 4 * 105 / 100);
  assert_in_range (moved, MANY / 4 * 95 / 100, MANY / 4 * 105 / 100);
}

static void
test_order_is_irrelevant (void **state)
{
  static const char *const one[] = { "a:1", "b:1", "c:1" };
  static const char *const two[] = { "c:1", "a:1", "b:1" };

  (void) state;
  for (uint32_t i = 0; i < 1000; ++i)
    assert_string_equal (one[owner (one, 3, i)], two[owner (two, 3, i)]);
}

/* Get all keys, right; how many were fetched. */
static unsigned
get_keys (struct esp_cluster *c)
{
  _Atomic unsigned fetched = 0;

  for (unsigned i = 0; i < KEYS; ++i) {
    struct esp_cache_key k = RP (i);
    fetch (c, &k, SEG, &fetched);
  }
  return fetched;
}

/* --- the nodes file ------------------------------------------------------------ */

/* The keeper's thread says what it thinks, too. */
static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;

static void
say (const char *fmt, va_list args)
{
  ESP_LOCK_SCOPE (&said_lock);
  unit_error_fn (fmt, args);
}

static bool
said (const char *what)
{
  ESP_LOCK_SCOPE (&said_lock);
  return strstr (unit_error, what);
}

static void
write_nodes (const char *path, const char *text)
{
  char temp[220];

  snprintf (temp, sizeof temp, "%s.new", path);
  FILE *f = fopen (temp, "w");
  fputs (text, f);
  fclose (f);
  assert_int_equal (rename (temp, path), 0);
}

/* Until there are N nodes and none is out, at most 10 s. */
static void
wait_nodes (struct esp_cluster *c, size_t n)
{
  for (unsigned i = 0; i < 1000; ++i) {
    if (esp_cluster_nodes (c, NULL, 0) == n && cluster_out (c) == 0)
      return;
    usleep (10000);
  }
  fail_msg ("%zu nodes, %zu out", esp_cluster_nodes (c, NULL, 0),
            cluster_out (c));
}

static void
test_nodes_file (void **state)
{
  NEEDS_MEMCACHED ();
  struct bench *b = *state;
  char path[200];

  snprintf (path, sizeof path, "%s/nodes", b->dir);
  for (unsigned i = 0; i < 3; ++i)
    mc_start (b, i, NULL);
  struct esp_cluster *c = cluster_open (b, path);
  assert_true (said (path));    /* it is not there yet */
  assert_int_equal (get_keys (c), KEYS);
  write_nodes (path, mc_list (b, 0, 2));
  wait_nodes (c, 2);
  assert_int_equal (get_keys (c), KEYS);
  assert_int_equal (get_keys (c), 0);
  write_nodes (path, mc_list (b, 0, 3));
  wait_nodes (c, 3);
  /* The third node takes a share; the others keep theirs. */
  unsigned moved = get_keys (c);
  assert_true (moved > 0 && moved < KEYS * 2 / 3);
  write_nodes (path, "no node:at all");
  for (unsigned i = 0; i < 500 && !said ("stay"); ++i)
    usleep (10000);
  assert_true (said ("stay"));
  assert_int_equal (esp_cluster_nodes (c, NULL, 0), 3);
  assert_int_equal (get_keys (c), 0);
  esp_cluster_close (c);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_names), cmocka_unit_test (test_no_names),
    cmocka_unit_test (test_list_or_file), cmocka_unit_test (test_fourth_node),
    cmocka_unit_test (test_order_is_irrelevant), T (test_nodes_file),
  };
  static const struct esp_host host = { .error = say };

  esp_set_host (&host);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
