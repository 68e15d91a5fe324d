/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks behind the cache and the shared tiers: what they are asked, what they
 * are given, and that each lease is ended.  The tiers are played here: the
 * functions of cache/shared.h are this program's.
 */

#include "export-test.h"

#define SHIFT 16u
#define SEG (1u << SHIFT)
#define SEGMENTS 64u

enum item { NOTHING, VALUE, LEASE, WRITER };

/* What another server would see. */
struct esp_shared {
  pthread_mutex_t lock;
  enum item item[SEGMENTS];
  uint8_t *value[SEGMENTS];
  unsigned busy[SEGMENTS];      /* so often another one still fetches it; in
                                 * the end it puts BECOMES, or ran away */
  const uint8_t *becomes[SEGMENTS];
  unsigned gets, looks, hits, puts, refused, given_up, leases;
  unsigned writes[SEGMENTS];
  uint64_t lease;
};

static void
store (struct esp_shared *s, uint32_t segment, const void *bytes, size_t len)
{
  s->item[segment] = VALUE;
  s->value[segment] = realloc (s->value[segment], len);
  memcpy (s->value[segment], bytes, len);
}

enum esp_shared_answer
esp_shared_get (struct esp_shared *s, const struct esp_cache_key *key,
                void *buf, size_t len, unsigned flags,
                struct esp_shared_ticket *ticket)
{
  uint32_t n = key->segment;
  enum esp_shared_answer answer = ESP_SHARED_MISS;

  pthread_mutex_lock (&s->lock);
  s->gets++;
  s->looks += flags == ESP_SHARED_LOOK;
  if (s->busy[n] > 0 && flags == 0) {
    answer = ESP_SHARED_BUSY;
    ticket->again_ms = 2;
    if (--s->busy[n] == 0 && s->becomes[n])
      store (s, n, s->becomes[n], len);
  }
  else if (s->item[n] == VALUE) {
    memcpy (buf, s->value[n], len);
    s->hits++;
    answer = ESP_SHARED_HIT;
  }
  else if (s->item[n] == NOTHING && flags == 0) {
    ticket->lease = ++s->lease;
    s->item[n] = LEASE;
    s->leases++;
  }
  pthread_mutex_unlock (&s->lock);
  return answer;
}

/* With S locked: true if the lease was still TICKET's. */
static bool
end_lease (struct esp_shared *s, uint32_t n, struct esp_shared_ticket *ticket)
{
  bool mine = ticket->lease && s->item[n] == LEASE;

  if (ticket->lease)
    s->leases--;
  ticket->lease = 0;
  if (mine)
    s->item[n] = NOTHING;
  return mine;
}

void
esp_shared_put (struct esp_shared *s, const struct esp_cache_key *key,
                const void *buf, size_t len, unsigned flags,
                struct esp_shared_ticket *ticket)
{
  pthread_mutex_lock (&s->lock);
  assert_int_equal (flags, 0);
  if (end_lease (s, key->segment, ticket)) {
    store (s, key->segment, buf, len);
    s->puts++;
  }
  else
    s->refused++;
  pthread_mutex_unlock (&s->lock);
}

void
esp_shared_give_up (struct esp_shared *s, const struct esp_cache_key *key,
                    struct esp_shared_ticket *ticket)
{
  pthread_mutex_lock (&s->lock);
  end_lease (s, key->segment, ticket);
  s->given_up++;
  pthread_mutex_unlock (&s->lock);
}

void
esp_shared_write_begin (struct esp_shared *s, const struct esp_cache_key *key)
{
  pthread_mutex_lock (&s->lock);
  s->item[key->segment] = WRITER;
  s->writes[key->segment]++;
  pthread_mutex_unlock (&s->lock);
}

void
esp_shared_write_end (struct esp_shared *s, const struct esp_cache_key *key)
{
  pthread_mutex_lock (&s->lock);
  if (--s->writes[key->segment] == 0)
    s->item[key->segment] = NOTHING;
  pthread_mutex_unlock (&s->lock);
}

/* --- a rig ------------------------------------------------------------------------ */

struct rig {
  struct plugin p;
  struct esp_memory *memory;
  struct esp_shared shared;
  struct esp_cdisk *disk;
};

static void
rig_up (struct rig *r, uint64_t max)
{
  memset (r, 0, sizeof *r);
  plugin_init (&r->p, SEGMENTS * SEG - 1234);
  pthread_mutex_init (&r->shared.lock, NULL);
  r->memory = esp_memory_new (max, SHIFT);
  r->disk = plugin_open (&r->p, r->memory, &r->shared, SHIFT);
}

static void
rig_down (struct rig *r)
{
  assert_int_equal (r->shared.leases, 0);
  esp_cdisk_close (r->disk);
  esp_memory_free (r->memory);
  for (unsigned i = 0; i < SEGMENTS; ++i)
    free (r->shared.value[i]);
  plugin_clear (&r->p);
}

static void
test_what_is_fetched_is_put (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 64 * M);
  plugin_check (&r.p, r.disk, (uint32_t) r.p.size, 0);
  assert_int_equal (r.shared.puts, SEGMENTS);
  assert_true (r.p.reads <= 3);
  /* another server */
  struct esp_memory *memory = esp_memory_new (64 * M, SHIFT);
  struct esp_cdisk *disk = plugin_open (&r.p, memory, &r.shared, SHIFT);
  plugin_mark (&r.p);
  plugin_check (&r.p, disk, (uint32_t) r.p.size, 0);
  assert_int_equal (r.p.reads, 0);
  assert_int_equal (r.shared.hits, SEGMENTS);
  esp_cdisk_close (disk);
  esp_memory_free (memory);
  rig_down (&r);
}

/* A small read looks, and takes all that it finds; but it does not fetch, and
 * puts, a whole segment.
 */
static void
test_small_reads_only_look (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 64 * M);
  store (&r.shared, 3, r.p.bytes + 3 * SEG, SEG);
  plugin_check (&r.p, r.disk, 4096, 0);
  assert_int_equal (r.shared.looks, 1);
  assert_int_equal (r.p.read_bytes, 4096);
  assert_int_equal (r.shared.puts, 0);
  plugin_check (&r.p, r.disk, 4096, 3 * SEG + 8192);
  assert_int_equal (r.p.read_bytes, 4096);
  assert_int_equal (r.shared.hits, 1);
  plugin_check (&r.p, r.disk, SEG, 3 * SEG);
  assert_int_equal (r.p.read_bytes, 4096);
  assert_int_equal (r.shared.hits, 1);
  rig_down (&r);
}

/* Unless there is no memory that could keep a part. */
static void
test_without_memory_segments_are_whole (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 0);
  plugin_check (&r.p, r.disk, 4096, 8192);
  assert_int_equal (r.p.read_bytes, SEG);
  assert_int_equal (r.shared.puts, 1);
  plugin_check (&r.p, r.disk, 5000, 9000);
  plugin_check (&r.p, r.disk, SEG, 100);
  assert_int_equal (r.p.reads, 2);
  rig_down (&r);
}

static void
test_the_short_last_segment (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 0);
  plugin_check (&r.p, r.disk, 1, r.p.size - 1);
  assert_int_equal (r.p.read_bytes, SEG - 1234);
  assert_int_equal (r.shared.puts, 1);
  plugin_check (&r.p, r.disk, 1000, r.p.size - 1000);
  assert_int_equal (r.p.reads, 1);
  rig_down (&r);
}

static void
test_waits_for_another_server (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 64 * M);
  r.shared.busy[2] = 4;
  r.shared.becomes[2] = r.p.bytes + 2 * SEG;
  r.shared.busy[4] = 2;         /* went away: it is for us */
  plugin_check (&r.p, r.disk, 8 * SEG, 0);
  assert_int_equal (r.p.read_bytes, 7 * SEG);
  assert_int_equal (r.shared.puts, 7);
  assert_int_equal (r.shared.hits, 1);
  rig_down (&r);
}

static bool
yes (void)
{
  return true;
}

static void
test_stops_waiting_for_another_server (void **state)
{
  struct rig r;
  uint8_t *buf = malloc (4 * SEG);
  int err = 0;

  (void) state;
  rig_up (&r, 64 * M);
  r.shared.busy[1] = 1000000;
  struct esp_cdisk_below b = plugin_below (&r.p);
  b.ending = yes;
  assert_int_equal (esp_cdisk_read (r.disk, &b, buf, 4 * SEG, 0, &err), -1);
  assert_int_equal (err, ESHUTDOWN);
  assert_true (r.shared.given_up >= 1);
  r.shared.busy[1] = 0;
  plugin_check (&r.p, r.disk, 4 * SEG, 0);
  free (buf);
  rig_down (&r);
}

static void
test_errors_end_leases (void **state)
{
  struct rig r;

  (void) state;
  rig_up (&r, 64 * M);
  r.p.bad_at = 5 * SEG;
  r.p.bad_len = SEG;
  r.p.bad_errno = EIO;
  plugin_check_error (&r.p, r.disk, 10 * SEG, 0, EIO);
  assert_int_equal (r.shared.leases, 0);
  plugin_check_error (&r.p, r.disk, 3 * SEG - 5000, 4 * SEG + 500, EIO);
  assert_int_equal (r.shared.leases, 0);
  r.p.bad_len = 0;
  plugin_check (&r.p, r.disk, 10 * SEG, 0);
  rig_down (&r);
}

static void
test_writes_tell_each_segment (void **state)
{
  struct rig r;
  uint8_t *buf = calloc (1, 3 * SEG);
  int err;

  (void) state;
  rig_up (&r, 64 * M);
  plugin_check (&r.p, r.disk, 8 * SEG, 0);
  struct esp_cdisk_write *w = esp_cdisk_write_begin (r.disk, SEG + 10,
                                                     2 * SEG, &err);
  for (unsigned i = 0; i < 8; ++i)
    assert_int_equal (r.shared.writes[i], i >= 1 && i <= 3);
  memset (r.p.bytes + SEG + 10, 0, 2 * SEG);
  esp_cdisk_write_end (w, buf);
  for (unsigned i = 0; i < 8; ++i)
    assert_int_equal (r.shared.item[i], i >= 1 && i <= 3 ? NOTHING : VALUE);
  plugin_check (&r.p, r.disk, 8 * SEG, 0);
  free (buf);
  rig_down (&r);
}

/* --- threads ------------------------------------------------------------------------ */

static void *
read_segment_1 (void *arg)
{
  struct rig *r = arg;
  const struct esp_cdisk_below b = plugin_below (&r->p);
  uint8_t *buf = malloc (SEG);
  int err;

  assert_int_equal (esp_cdisk_read (r->disk, &b, buf, SEG, SEG, &err), 0);
  free (buf);
  return NULL;
}

/* What was on its way when it was written is nobody's. */
static void
test_a_late_fetch_is_not_put (void **state)
{
  struct rig r;
  pthread_t t;
  int err;

  (void) state;
  rig_up (&r, 64 * M);
  plugin_hang (&r.p, 0, true);
  assert_int_equal (pthread_create (&t, NULL, read_segment_1, &r), 0);
  plugin_wait_hanging (&r.p, 1);
  struct esp_cdisk_write *w = esp_cdisk_write_begin (r.disk, SEG, 1, &err);
  plugin_hang (&r.p, 0, false);
  pthread_join (t, NULL);
  r.p.bytes[SEG] ^= 0xff;
  esp_cdisk_write_end (w, NULL);
  assert_int_equal (r.shared.puts, 0);
  plugin_check (&r.p, r.disk, SEG, SEG);
  assert_int_equal (r.shared.puts, 1);
  rig_down (&r);
}

/* Sixteen who miss the same ask the shared tiers once. */
static void
test_one_question_for_all (void **state)
{
  struct rig r;
  pthread_t t[16];

  (void) state;
  rig_up (&r, 64 * M);
  plugin_hang (&r.p, 0, true);
  for (unsigned i = 0; i < 16; ++i)
    assert_int_equal (pthread_create (&t[i], NULL, read_segment_1, &r), 0);
  plugin_wait_hanging (&r.p, 1);
  plugin_hang (&r.p, 0, false);
  for (unsigned i = 0; i < 16; ++i)
    pthread_join (t[i], NULL);
  assert_int_equal (r.shared.gets, 1);
  assert_int_equal (r.p.reads, 1);
  rig_down (&r);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_what_is_fetched_is_put),
    cmocka_unit_test (test_small_reads_only_look),
    cmocka_unit_test (test_without_memory_segments_are_whole),
    cmocka_unit_test (test_the_short_last_segment),
    cmocka_unit_test (test_waits_for_another_server),
    cmocka_unit_test (test_stops_waiting_for_another_server),
    cmocka_unit_test (test_errors_end_leases),
    cmocka_unit_test (test_writes_tell_each_segment),
    cmocka_unit_test (test_a_late_fetch_is_not_put),
    cmocka_unit_test (test_one_question_for_all),
  };

  unit_init ();
  return cmocka_run_group_tests_name ("export-shared", tests, NULL, NULL);
}
