/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory tier's policy: what a use is, scans, S3-FIFO against a plain
 * twin.
 */

#include "memory-test.h"

#include "cache/s3fifo.h"

/* --- scans ------------------------------------------------------------ */
/* A hot set of half the cache; a scan of ten times the cache, in requests of
 * SIZE bytes, while the hot set is read at random, 4 KiB for each 16 KiB of
 * the scan.  Hits in %.
 */
static double
hot_hits_during_scan (uint32_t size)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (4 << 20, SHIFT);
  unsigned seed = 1, hits = 0, reads_of_hot = 0;
  const uint32_t hot = (2 << 20) / SEGMENT;

  for (unsigned i = 0; i < 200 * hot; ++i)
    use (m, (uint32_t) rand_r (&seed) % hot,
         (uint32_t) rand_r (&seed) % 64 * BLOCK, BLOCK);
  for (uint64_t at = 0; at < 40 << 20; at += size) {
    uint32_t in = at % SEGMENT;
    uint32_t n = SEGMENT - in < size ? SEGMENT - in : size;
    use (m, 1000 + (uint32_t) (at / SEGMENT), in, n);
    if (n < size)
      use (m, 1001 + (uint32_t) (at / SEGMENT), 0, size - n);
    for (; reads_of_hot < at / 16384; ++reads_of_hot)
      hits += use (m, (uint32_t) rand_r (&seed) % hot,
                   (uint32_t) rand_r (&seed) % 64 * BLOCK, BLOCK);
  }
  return 100.0 * hits / reads_of_hot;
}

static void
a_scan_leaves_the_hot_set (void **state)
{
  static const uint32_t sizes[] = { 4096, 65536, SEGMENT, 63 * 512, 512 };

  (void) state;
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    double hits = hot_hits_during_scan (sizes[i]);
    printf ("# scan in requests of %u: %.2f %% of the hot set's reads hit\n",
            sizes[i], hits);
    assert_true (hits > 95);
  }
}

/* The uses that the policy knows of the first entry that was made. */
static unsigned
uses (struct esp_memory *m)
{
  return atomic_load (&entry_at (m, 1)->node.uses);
}

static void
pass (struct esp_memory *m, uint32_t size)
{
  for (uint32_t at = 0; at < SEGMENT; at += size)
    assert_true (reads (m, 0, at, SEGMENT - at < size ? SEGMENT - at : size));
}

static void
a_pass_is_one_use_whatever_its_requests (void **state)
{
  static const uint32_t sizes[] = { SEGMENT, 64 * KiB, 4096, 63 * 512, 512 };

  (void) state;
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);
    struct esp_fill fill;
    assert_int_equal (miss (m, 0, 0, SEGMENT, true, &fill), ESP_MEMORY_FETCH);
    end (m, 0, &fill);
    assert_int_equal (uses (m), 0);
    pass (m, sizes[i]);
    assert_int_equal (uses (m), 1);
    pass (m, sizes[i]);
    assert_int_equal (uses (m), 2);
  }
}

static void
a_block_again_and_again_is_used_each_time (void **state)
{
  CLEANUP_MEMORY struct esp_memory *m = esp_memory_new (1 << 20, SHIFT);

  (void) state;
  use (m, 0, 8 * KiB, BLOCK);
  for (unsigned i = 0; i < 5; ++i) {
    assert_int_equal (uses (m), i < 3 ? i : 3);
    assert_true (reads (m, 0, 8 * KiB, BLOCK));
  }
}

/* --- the policy against a plain twin ---------------------------------- */
#define NODES 300
#define TWIN_STEPS 256

/* The twin: arrays that are searched and shifted. */
struct twin {
  int small[NODES], main[NODES];        /* oldest first */
  int nsmall, nmain;
  int ghosts[NODES];
  uint32_t ghost_weight[NODES];
  int nghosts;
  uint32_t weight[NODES];
  int uses[NODES];
  uint64_t max;
  int ghosts_max;
};

static int
take_first (int *list, int *n)
{
  int first = list[0];

  memmove (list, list + 1, (size_t) --*n * sizeof *list);
  return first;
}

static uint64_t
twin_weight (const struct twin *t, const int *list, int n)
{
  uint64_t sum = 0;

  for (int i = 0; i < n; ++i)
    sum += t->weight[list[i]];
  return sum;
}

static void
twin_insert (struct twin *t, int id)
{
  for (int i = 0; i < t->nghosts; ++i)
    if (t->ghosts[i] == id) {
      t->ghosts[i] = -1;
      t->ghost_weight[i] = 0;
      t->main[t->nmain++] = id;
      return;
    }
  t->small[t->nsmall++] = id;
}

static void
twin_ghost (struct twin *t, int id)
{
  for (;;) {
    uint64_t sum = t->weight[id];
    for (int i = 0; i < t->nghosts; ++i)
      sum += t->ghost_weight[i];
    if (t->nghosts == 0 || (t->nghosts < t->ghosts_max && sum <= 2 * t->max))
      break;
    memmove (t->ghost_weight, t->ghost_weight + 1,
             (size_t) (t->nghosts - 1) * sizeof *t->ghost_weight);
    take_first (t->ghosts, &t->nghosts);
  }
  t->ghost_weight[t->nghosts] = t->weight[id];
  t->ghosts[t->nghosts++] = id;
}

static int
twin_pop (struct twin *t, bool *small)
{
  for (int step = 0; t->nsmall + t->nmain > 0; ++step) {
    *small = t->nsmall > 0
      && (t->nmain == 0
          || twin_weight (t, t->small, t->nsmall) > t->max / 10);
    int id = *small ? take_first (t->small, &t->nsmall)
      : take_first (t->main, &t->nmain);
    if (step >= TWIN_STEPS || t->uses[id] == 0)
      return id;
    t->uses[id] = *small ? 0 : t->uses[id] - 1;
    t->main[t->nmain++] = id;
  }
  return -1;
}

struct both {
  struct esp_s3 s3;
  struct esp_s3_node nodes[NODES];
  struct twin twin;
};

static void
both_let_one_go (struct both *p)
{
  struct esp_s3_node *node = esp_s3_pop (&p->s3);
  bool small;
  int id = twin_pop (&p->twin, &small);

  assert_int_equal (node - p->nodes, id);
  esp_s3_gone (&p->s3, node);
  node->uses = 0;
  p->twin.uses[id] = 0;
  if (small && p->twin.weight[id] > 0)
    twin_ghost (&p->twin, id);
}

/* The next one cannot go, and weighs something else meanwhile. */
static void
both_back (struct both *p, uint32_t weight)
{
  struct esp_s3_node *node = esp_s3_pop (&p->s3);
  struct twin *t = &p->twin;
  bool small;
  int id = twin_pop (t, &small);

  if (!node)
    return;
  assert_int_equal (node - p->nodes, id);
  weight %= node->weight + 1;
  esp_s3_weigh (&p->s3, node, weight);
  t->weight[id] = weight;
  esp_s3_back (&p->s3, node);
  if (small)
    t->small[t->nsmall++] = id;
  else
    t->main[t->nmain++] = id;
}

static void
both_come_or_use (struct both *p, int id, uint32_t weight)
{
  if (p->nodes[id].where != ESP_S3_OUT) {
    esp_s3_use (&p->nodes[id]);
    p->twin.uses[id] += p->twin.uses[id] < 3;
    return;
  }
  while (p->s3.small.weight + p->s3.main.weight + weight > p->twin.max)
    both_let_one_go (p);
  p->twin.weight[id] = weight;
  esp_s3_insert (&p->s3, &p->nodes[id], weight);
  twin_insert (&p->twin, id);
}

static void
the_policy_is_that_of_a_plain_twin (void **state)
{
  static struct both p = { .twin = { .max = 1000, .ghosts_max = 100 } };
  struct twin *t = &p.twin;
  unsigned seed = unit_seed ();

  (void) state;
  assert_int_equal (esp_s3_init (&p.s3, t->max, (uint32_t) t->ghosts_max), 0);
  for (int i = 0; i < NODES; ++i)
    p.nodes[i].hash = (uint64_t) i << (i % 3 * 20);
  for (int n = 0; n < 100000; ++n) {
    int r1 = rand_r (&seed) % NODES, r2 = rand_r (&seed) % NODES;
    uint32_t weight = (uint32_t) rand_r (&seed) % 65;
    if (rand_r (&seed) % 50 == 0)
      both_back (&p, weight);
    else
      both_come_or_use (&p, r1 < r2 ? r1 : r2, weight);
    assert_int_equal (p.s3.small.weight, twin_weight (t, t->small, t->nsmall));
    assert_int_equal (p.s3.main.weight, twin_weight (t, t->main, t->nmain));
  }
  esp_s3_destroy (&p.s3);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (a_scan_leaves_the_hot_set),
    cmocka_unit_test (a_pass_is_one_use_whatever_its_requests),
    cmocka_unit_test (a_block_again_and_again_is_used_each_time),
    cmocka_unit_test (the_policy_is_that_of_a_plain_twin),
  };
  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
