/* SPDX-License-Identifier: BSD-3-Clause */
/* Chain maps against naively flattened arrays, for random trees. */

#include "unit.h"

#include <sys/stat.h>

#include "chain/chain.h"

#define MIB (UINT64_C (1) << 20)
#define DEPTH 60u

static char *dir;
static int dirfd_ = -1;

static uint64_t
rnd (unsigned *seed, uint64_t n)
{
  return ((uint64_t) rand_r (seed) << 31 | rand_r (seed)) % n;
}

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  dirfd_ = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return dirfd_ == -1 ? -1 : 0;
}

static int
teardown (void **state)
{
  (void) state;
  close (dirfd_);
  unit_rmdir (dir);
  return 0;
}

/* --- the naive twin --------------------------------------------------- */

struct answer { uint16_t owner; uint8_t state; };

struct model {
  uint64_t size;
  unsigned depth;
  struct answer *blocks;
  esp_uuid owners[DEPTH + 1];
  struct esp_chain *chain;
};

static void
grow (struct model *m, uint64_t size)
{
  uint64_t old = esp_blocks (m->size), new = esp_blocks (size);

  m->blocks = realloc (m->blocks, (new ? new : 1) * sizeof *m->blocks);
  memset (m->blocks + old, 0, (new - old) * sizeof *m->blocks);
  m->size = size;
}

static void
random_range (struct model *m, struct esp_map *map, unsigned *seed)
{
  uint64_t n = esp_blocks (m->size), block, len;
  enum esp_state s = rnd (seed, 4) ? ESP_DATA : ESP_ZERO;

  switch (rnd (seed, 3)) {
  case 0:                       /* whole tiles */
    block = rnd (seed, esp_tiles (m->size)) * ESP_TILE_BLOCKS;
    len = (1 + rnd (seed, 3)) * ESP_TILE_BLOCKS;
    break;
  case 1:                       /* a few blocks */
    block = rnd (seed, n);
    len = 1 + rnd (seed, 20);
    break;
  default:
    block = rnd (seed, n);
    len = 1 + rnd (seed, 700);
  }
  if (len > n - block)
    len = n - block;
  esp_map_set (map, block, len, s, NULL);
  for (uint64_t i = block; i < block + len; ++i)
    m->blocks[i] = (struct answer) { .owner = m->depth, .state = s };
}

/* One more restore point over what M is, with N random ranges. */
static void
add_layer (struct model *m, unsigned n, unsigned *seed)
{
  struct esp_map *map = esp_map_new (m->size);
  char name[32];

  m->depth++;
  while (n-- > 0)
    random_range (m, map, seed);
  esp_uuid_new (&m->owners[m->depth]);
  snprintf (name, sizeof name, "%u-%u", *seed, m->depth);
  assert_int_equal (esp_chain_build (dirfd_, name, &m->owners[m->depth], map,
                                     m->chain), 0);
  esp_chain_close (m->chain);
  m->chain = esp_chain_open (dirfd_, name);
  assert_non_null (m->chain);
  assert_int_equal (unlinkat (dirfd_, name, 0), 0);
  esp_map_free (map);
}

static void
free_model (struct model *m)
{
  esp_chain_close (m->chain);
  free (m->blocks);
}

static bool
same (struct answer a, struct answer b)
{
  return a.owner == b.owner && a.state == b.state;
}

/* Walk the chain in runs from BLOCK, at most MAX blocks at a time. */
static void
check_runs (const struct model *m, uint64_t block, uint64_t end, uint64_t max)
{
  while (block < end) {
    struct esp_run run;
    uint64_t most = max < end - block ? max : end - block, n = 1;

    assert_int_equal (esp_chain_run (m->chain, block, most, &run), 0);
    while (n < most && same (m->blocks[block], m->blocks[block + n]))
      n++;
    assert_int_equal (run.state, m->blocks[block].state);
    assert_int_equal (run.owner, m->blocks[block].owner);
    assert_int_equal (run.nblocks, n);
    block += n;
  }
}

static void
check_newest (const struct model *m, unsigned *seed)
{
  for (unsigned i = 0; i < 100; ++i) {
    uint64_t offset = rnd (seed, m->size);
    uint64_t len = rnd (seed, 3) ? rnd (seed, 5 * MIB) : rnd (seed, m->size);
    unsigned owner, expected = 0;

    if (len > m->size - offset)
      len = m->size - offset;
    if (len > 0)
      for (uint64_t b = offset / 4096; b <= (offset + len - 1) / 4096; ++b)
        if (m->blocks[b].owner > expected)
          expected = m->blocks[b].owner;
    assert_int_equal (esp_chain_newest (m->chain, offset, len, &owner), 0);
    assert_int_equal (owner, expected);
  }
}

static void
check_all (const struct model *m, unsigned *seed)
{
  uint64_t n = esp_blocks (m->size), bad_at, block = rnd (seed, n);

  assert_int_equal (esp_chain_size (m->chain), m->size);
  assert_int_equal (esp_chain_depth (m->chain), m->depth);
  check_runs (m, 0, n, n);
  check_runs (m, block, n, 1 + rnd (seed, 1000));
  check_newest (m, seed);
  assert_int_equal (esp_chain_check (m->chain, &bad_at), 0);
}

/* --- tests ------------------------------------------------------------ */

static void
random_tree_reads_as_its_flattened_array (void **state)
{
  unsigned seed = unit_seed ();

  (void) state;
  for (unsigned round = 0; round < 6; ++round) {
    struct model m = { 0 };
    unsigned depth = 1 + rnd (&seed, DEPTH);

    grow (&m, 1 + rnd (&seed, 150 * MIB));
    for (unsigned d = 0; d < depth; ++d) {
      if (rnd (&seed, 4) == 0)
        grow (&m, m.size + rnd (&seed, rnd (&seed, 2) ? 6000 : 5 * MIB));
      add_layer (&m, rnd (&seed, 12), &seed);
      if (d % 8 == 0)
        check_all (&m, &seed);
    }
    check_all (&m, &seed);
    free_model (&m);
  }
}

static void
owners_are_numbered_from_the_root (void **state)
{
  unsigned seed = 1;
  struct model m = { 0 };
  esp_uuid other;

  (void) state;
  grow (&m, 3 * MIB);
  for (unsigned d = 1; d <= 5; ++d)
    add_layer (&m, 1, &seed);
  for (unsigned d = 1; d <= 5; ++d) {
    assert_true (esp_uuid_eq (esp_chain_owner (m.chain, d), &m.owners[d]));
    assert_int_equal (esp_chain_find_owner (m.chain, &m.owners[d]), d);
  }
  esp_uuid_new (&other);
  assert_int_equal (esp_chain_find_owner (m.chain, &other), 0);
  free_model (&m);
}

static void
large_empty_disk_is_one_run_and_no_space (void **state)
{
  struct model m = { .chain = NULL };
  struct esp_map *map = esp_map_new (UINT64_C (1) << 40);
  struct esp_run run;
  struct stat st;
  unsigned owner;

  (void) state;
  esp_uuid_new (&m.owners[1]);
  assert_int_equal (esp_chain_build (dirfd_, "large", &m.owners[1], map, NULL), 0);
  m.chain = esp_chain_open (dirfd_, "large");
  assert_non_null (m.chain);
  assert_int_equal (esp_chain_run (m.chain, 5, (1 << 28) - 5, &run), 0);
  assert_int_equal (run.state, ESP_ABSENT);
  assert_int_equal (run.nblocks, (1 << 28) - 5);
  assert_int_equal (esp_chain_newest (m.chain, 0, UINT64_C (1) << 40, &owner), 0);
  assert_int_equal (owner, 0);
  assert_int_equal (fstatat (dirfd_, "large", &st, 0), 0);
  assert_true (st.st_blocks * 512 <= 32768);
  esp_chain_close (m.chain);
  esp_map_free (map);
}

static void
one_block_far_away_is_found (void **state)
{
  struct model m = { .chain = NULL };
  struct esp_map *map = esp_map_new (UINT64_C (1) << 40);
  const uint64_t far = (1 << 28) - 77;
  struct esp_run run;

  (void) state;
  esp_map_set (map, far, 1, ESP_ZERO, NULL);
  esp_uuid_new (&m.owners[1]);
  assert_int_equal (esp_chain_build (dirfd_, "far", &m.owners[1], map, NULL), 0);
  m.chain = esp_chain_open (dirfd_, "far");
  assert_non_null (m.chain);
  assert_int_equal (esp_chain_subtables (m.chain), 1);
  assert_int_equal (esp_chain_run (m.chain, 0, 1 << 28, &run), 0);
  assert_int_equal (run.nblocks, far);
  assert_int_equal (esp_chain_run (m.chain, far, 77, &run), 0);
  assert_int_equal (run.nblocks, 1);
  assert_int_equal (run.state, ESP_ZERO);
  assert_int_equal (run.owner, 1);
  esp_chain_close (m.chain);
  esp_map_free (map);
}

static void
tile_that_becomes_uniform_has_no_subtable (void **state)
{
  struct esp_map *map = esp_map_new (2 * MIB + 8192);
  esp_uuid u[2];
  struct esp_chain *root, *child;
  struct esp_run run;

  (void) state;
  esp_uuid_new (&u[0]);
  esp_uuid_new (&u[1]);
  esp_map_set (map, 10, 500, ESP_DATA, NULL);
  assert_int_equal (esp_chain_build (dirfd_, "u0", &u[0], map, NULL), 0);
  root = esp_chain_open (dirfd_, "u0");
  assert_int_equal (esp_chain_subtables (root), 2);
  esp_map_set (map, 0, 514, ESP_DATA, NULL);
  assert_int_equal (esp_chain_build (dirfd_, "u1", &u[1], map, root), 0);
  child = esp_chain_open (dirfd_, "u1");
  assert_int_equal (esp_chain_subtables (child), 0);
  assert_int_equal (esp_chain_run (child, 0, 514, &run), 0);
  assert_int_equal (run.owner, 2);
  assert_int_equal (run.nblocks, 514);
  esp_chain_close (root);
  esp_chain_close (child);
  esp_map_free (map);
}

static void
build_refuses_what_cannot_be (void **state)
{
  struct esp_map *map = esp_map_new (2 * MIB), *small = esp_map_new (MIB);
  esp_uuid u;
  struct esp_chain *root;

  (void) state;
  esp_uuid_new (&u);
  assert_int_equal (esp_chain_build (dirfd_, "r", &u, map, NULL), 0);
  assert_int_equal (esp_chain_build (dirfd_, "r", &u, map, NULL), -1);
  assert_int_equal (errno, EEXIST);
  root = esp_chain_open (dirfd_, "r");
  assert_int_equal (esp_chain_build (dirfd_, "s", &u, small, root), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (faccessat (dirfd_, "s", F_OK, 0), -1);
  esp_chain_close (root);
  esp_map_free (map);
  esp_map_free (small);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (random_tree_reads_as_its_flattened_array),
    cmocka_unit_test (owners_are_numbered_from_the_root),
    cmocka_unit_test (large_empty_disk_is_one_run_and_no_space),
    cmocka_unit_test (one_block_far_away_is_found),
    cmocka_unit_test (tile_that_becomes_uniform_has_no_subtable),
    cmocka_unit_test (build_refuses_what_cannot_be),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, setup, teardown);
}
