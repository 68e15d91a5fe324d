/* SPDX-License-Identifier: BSD-3-Clause */
/* Servers with different secrets on the same nodes, as while an operator
 * changes the key file on one after another: what others sealed is a miss, never
 * a lie, and keeps nobody.
 */

/* Long enough that nobody misses one on a busy machine. */
#define TIMEOUT 20000u
#define LEASE 2500u
#define WAIT 60000u
#include "cluster-test.h"

#define SEG 65536u
#define N 8u                    /* segments: more than lies that put a node out */

enum { OLD, NEW, NONE, SERVERS };

struct servers {
  struct esp_sealer *sealer[SERVERS];
  struct esp_cluster *c[SERVERS];
};

/* All on one node. */
static void
begin (struct bench *b, struct servers *s)
{
  uint8_t secret[32] = { 0 };

  mc_start (b, 0, NULL);
  for (unsigned i = 0; i < SERVERS; ++i) {
    secret[31] = (uint8_t) i;
    s->sealer[i] = esp_sealer_new (i == NONE ? NULL : secret);
    assert_non_null (s->sealer[i]);
    s->c[i] = cluster_open_with (s->sealer[i], mc_list (b, 0, 1));
  }
}

/* Nobody took anything for a lie. */
static void
end (struct servers *s)
{
  for (unsigned i = 0; i < SERVERS; ++i) {
    assert_int_equal (counters (s->c[i]).lies, 0);
    assert_int_equal (counters (s->c[i]).errors, 0);
    assert_int_equal (counters (s->c[i]).waits, 0);
    assert_int_equal (cluster_out (s->c[i]), 0);
    esp_cluster_close (s->c[i]);
    esp_sealer_free (s->sealer[i]);
  }
}

/* How many of the N segments C had to fetch; it has them all behind that. */
static unsigned
fetched (struct esp_cluster *c, enum esp_cache_kind kind, uint8_t shift)
{
  _Atomic unsigned n = 0;

  for (uint32_t i = 0; i < N; ++i) {
    struct esp_cache_key k = key_of (kind, i, shift);

    fetch (c, &k, (size_t) 1 << shift, &n);
    fetch (c, &k, (size_t) 1 << shift, NULL);
  }
  assert_true (counters (c).hits >= N);
  return n;
}

static void
side_by_side (struct bench *b, uint8_t shift)
{
  struct servers s;

  begin (b, &s);
  for (unsigned i = 0; i < SERVERS; ++i)
    assert_int_equal (fetched (s.c[i], ESP_CACHE_RP, shift), N);
  for (unsigned turn = 0; turn < 2; ++turn)
    for (unsigned i = 0; i < SERVERS; ++i)
      assert_int_equal (fetched (s.c[i], ESP_CACHE_RP, shift), 0);
  end (&s);
}

static void
test_restore_points_side_by_side (void **state)
{
  NEEDS_MEMCACHED ();
  side_by_side (*state, 16);
}

static void
test_parts_side_by_side (void **state)
{
  NEEDS_MEMCACHED ();
  side_by_side (*state, 20);    /* items of 1M have no room for it in one */
}

/* Two fetch the same at the same time: neither waits for the other. */
static void
test_leases (void **state)
{
  NEEDS_MEMCACHED ();
  uint8_t buf[SEG];
  struct servers s;

  begin (*state, &s);
  for (int kind = ESP_CACHE_RP; kind <= ESP_CACHE_EXPORT; ++kind) {
    struct esp_cache_key k = key_of (kind, 1, 16);
    struct esp_shared_ticket t[SERVERS] = { 0 };

    for (unsigned i = 0; i < SERVERS; ++i) {
      assert_int_equal (esp_cluster_get (s.c[i], &k, buf, SEG, 0, &t[i]),
                        ESP_SHARED_MISS);
      /* Of an export only one will put it. */
      assert_int_equal (t[i].lease != 0, kind == ESP_CACHE_RP || i == 0);
    }
    for (unsigned i = 0; i < SERVERS; ++i) {
      fill_bytes (buf, SEG, 1, 0);
      esp_cluster_put (s.c[i], &k, buf, SEG, 0, &t[i]);
    }
    for (unsigned i = 0; i < SERVERS; ++i) {
      struct esp_shared_ticket u = { 0 };

      assert_int_equal (esp_cluster_get (s.c[i], &k, buf, SEG, ESP_SHARED_LOOK,
                                         &u),
                        kind == ESP_CACHE_RP || i == 0 ? ESP_SHARED_HIT
                        : ESP_SHARED_MISS);
    }
  }
  end (&s);
}

/* An export's values have one place: who misses puts its own there, at once. */
static void
test_exports_take_turns (void **state)
{
  NEEDS_MEMCACHED ();
  struct servers s;

  begin (*state, &s);
  for (unsigned turn = 0; turn < 2; ++turn)
    for (unsigned i = 0; i < SERVERS; ++i) {
      assert_int_equal (fetched (s.c[i], ESP_CACHE_EXPORT, 16), N);
      assert_int_equal (fetched (s.c[i], ESP_CACHE_EXPORT, 16), 0);
    }
  end (&s);
}

/* Who writes takes away what others keep, and what they are about to keep. */
static void
test_writes_are_for_all (void **state)
{
  NEEDS_MEMCACHED ();
  struct esp_cache_key k = key_of (ESP_CACHE_EXPORT, 1, 16);
  uint8_t buf[SEG];
  struct servers s;

  begin (*state, &s);
  for (unsigned reader = 0; reader < SERVERS; ++reader)
    for (unsigned writer = 0; writer < SERVERS; ++writer) {
      struct esp_shared_ticket t = { 0 }, u = { 0 };

      fetch (s.c[reader], &k, SEG, NULL);
      esp_cluster_write_begin (s.c[writer], &k);
      esp_cluster_write_end (s.c[writer], &k);
      assert_int_equal (esp_cluster_get (s.c[reader], &k, buf, SEG, 0, &t),
                        ESP_SHARED_MISS);
      assert_int_not_equal (t.lease, 0);
      esp_cluster_write_begin (s.c[writer], &k);
      esp_cluster_write_end (s.c[writer], &k);
      esp_cluster_put (s.c[reader], &k, buf, SEG, 0, &t);
      assert_int_equal (esp_cluster_get (s.c[reader], &k, buf, SEG,
                                         ESP_SHARED_LOOK, &u),
                        ESP_SHARED_MISS);
    }
  end (&s);
}

#define T(name) cmocka_unit_test_setup_teardown (name, bench_setup, bench_teardown)

int
main (void)
{
  static const struct CMUnitTest tests[] = {
    T (test_restore_points_side_by_side), T (test_parts_side_by_side),
    T (test_leases), T (test_exports_take_turns), T (test_writes_are_for_all),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
