/* SPDX-License-Identifier: BSD-3-Clause */
/* Merging: every tip reads as before, after a merge, and after a merge that
 * was killed at any of its steps, and the merge can then be done again.
 */

#include "rp-test.h"

#include "util/lock.h"

#define MIB (UINT64_C (1) << 20)

static uint64_t
larger (uint64_t size)
{
  return size + (uint64_t) (rand () % 3) * ((unsigned) rand () % (MIB / 2));
}

/* A random tree; member 0 is a root. */
static void
grow (struct tree *t, int n)
{
  tree_add (t, -1, MIB + (unsigned) rand () % MIB, 150);
  while (t->n < n) {
    int parent = rand () % t->n;

    tree_add (t, parent, larger (t->m[parent].size), (unsigned) rand () % 120);
  }
}

/* Forget member I, whose only child is C. */
static void
merged (struct tree *t, int i, int c)
{
  t->m[i].gone = true;
  t->m[c].parent = t->m[i].parent;
}

/* Rows and documents say the same of every member. */
static void
verify_documents (struct tree *t)
{
  for (int i = 0; i < t->n; i++) {
    CLEANUP_RP struct esp_rp row = { 0 }, said = { 0 };
    struct esp_map *map;

    if (t->m[i].gone)
      continue;
    tree_row (t, i, &row);
    assert_int_equal (esp_rp_load_meta (t->store, &row.uuid, &said, NULL), 0);
    assert_true (esp_uuid_eq (&row.parent, &said.parent));
    assert_true (row.data_blocks == said.data_blocks);
    assert_true (row.zero_blocks == said.zero_blocks);
    map = esp_rp_load_map (t->store, &row.uuid);
    assert_non_null (map);
    assert_true (esp_map_count (map, ESP_DATA) == row.data_blocks);
    esp_map_free (map);
    if (t->m[i].parent >= 0)
      assert_true (esp_uuid_eq (&row.parent, &t->m[t->m[i].parent].uuid));
    else
      assert_true (esp_uuid_is_null (&row.parent));
  }
}

static void
random_merges_keep_every_byte (void **state)
{
  struct tree *t = *state;
  int c, k;

  srand (unit_seed ());
  grow (t, TREE_MAX);
  for (int round = 0; round < 300; round++) {
    int i = rand () % t->n;

    if (t->m[i].gone)
      continue;
    k = tree_children (t, i, &c);
    if (k != 1) {
      assert_int_equal (esp_rp_merge (t->store, &t->m[i].uuid, NULL, NULL),
                        -1);
      assert_int_equal (errno, EBUSY);
      continue;
    }
    if (esp_rp_merge (t->store, &t->m[i].uuid, NULL, NULL) == -1)
      fail_msg ("%s", unit_error);
    merged (t, i, c);
    tree_verify_all (t);
    verify_documents (t);
  }
}

static void
depth_and_directory_of_the_merged (void **state)
{
  struct tree *t = *state;
  CLEANUP_RP struct esp_rp row = { 0 };

  for (int i = 0; i < 4; i++)
    tree_add (t, i - 1, MIB, 20);
  assert_int_equal (esp_rp_merge (t->store, &t->m[1].uuid, NULL, NULL), 0);
  tree_row (t, 3, &row);
  assert_int_equal (row.depth, 3);
  assert_int_equal (esp_store_rp_dir (t->store, &t->m[1].uuid), -1);
  assert_int_equal (errno, ENOENT);
}

/* Merging member 0 of a chain is refused while member I is open. */
static void
refused_while_open (struct tree *t, int i)
{
  struct esp_image *image = esp_image_open (t->store, &t->m[i].uuid);

  assert_non_null (image);
  assert_int_equal (esp_rp_merge (t->store, &t->m[0].uuid, NULL, NULL), -1);
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "open"));
  esp_image_close (image);
}

static void
open_ones_are_not_merged (void **state)
{
  struct tree *t = *state;

  for (int i = 0; i < 3; i++)
    tree_add (t, i - 1, MIB, 20);
  for (int i = 0; i < 3; i++)
    refused_while_open (t, i);
  assert_int_equal (esp_rp_merge (t->store, &t->m[0].uuid, NULL, NULL), 0);
  merged (t, 0, 1);
  tree_verify_all (t);
}

static struct tree *the_tree;

static void
open_is_refused_while_it_merges_step (const char *step)
{
  if (strcmp (step, "merge: after a chain") != 0)
    return;
  assert_null (esp_image_open (the_tree->store, &the_tree->m[1].uuid));
  assert_null (tree_begin (the_tree, "late", 2, MIB));
}

static void
open_is_refused_while_it_merges (void **state)
{
  struct tree *t = the_tree = *state;

  for (int i = 0; i < 3; i++)
    tree_add (t, i - 1, MIB, 20);
  esp_rp_test_step = open_is_refused_while_it_merges_step;
  assert_int_equal (esp_rp_merge (t->store, &t->m[0].uuid, NULL, NULL), 0);
  esp_rp_test_step = NULL;
  merged (t, 0, 1);
  tree_verify_all (t);
}

static int
stop_at_once (void *arg, uint64_t done, uint64_t total)
{
  (void) arg;
  assert_true (done <= total);
  return -1;
}

static void
interrupted_merge_changes_nothing (void **state)
{
  struct tree *t = *state;

  tree_add (t, -1, MIB, 100);
  tree_add (t, 0, MIB, 20);
  assert_int_equal (esp_rp_merge (t->store, &t->m[0].uuid, stop_at_once, NULL),
                    -1);
  assert_int_equal (errno, ECANCELED);
  tree_verify_all (t);
  verify_documents (t);
}

static void
root_in_place_is_merged (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *path = esp_asprintf ("%s.raw", t->dir);
  CLEANUP_CLOSE int fd = open (path, O_RDWR|O_CREAT|O_TRUNC, 0644);
  struct member *m = &t->m[t->n];

  *m = (struct member) { .size = 6 * MIB + 512, .parent = -1 };
  m->bytes = malloc (m->size);
  for (uint64_t i = 0; i < m->size; i++)
    m->bytes[i] = (unsigned char) rand ();
  memset (m->bytes + MIB, 0, MIB);
  assert_int_equal (esp_pwrite_all (fd, m->bytes, m->size, 0), 0);
  assert_int_equal (esp_rp_create_in_place (t->store, "disk", path, NULL, NULL,
                                            0, &m->uuid), 0);
  t->n++;
  tree_add (t, 0, m->size + 5000, 30);
  if (esp_rp_merge (t->store, &m->uuid, NULL, NULL) == -1)
    fail_msg ("%s", unit_error);
  merged (t, 0, 1);
  unlink (path);
  tree_verify_all (t);
  verify_documents (t);
}

/* --- killed ------------------------------------------------------------------ */

static int die_after;

static void
die (const char *step)
{
  (void) step;
  if (die_after-- == 0)
    _exit (9);
}

/* In a process of its own: merge member I, dying at step K.  True when it
 * was killed, false when it ended by itself.
 */
static bool
merge_and_die (struct tree *t, int i, int k)
{
  pid_t pid = fork ();
  int status;

  assert_int_not_equal (pid, -1);
  if (pid == 0) {
    die_after = k;
    esp_rp_test_step = die;
    tree_open (t);
    _exit (esp_rp_merge (t->store, &t->m[i].uuid, NULL, NULL) == 0 ? 0 : 1);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  assert_true (WEXITSTATUS (status) == 9 || WEXITSTATUS (status) == 0);
  return WEXITSTATUS (status) == 9;
}

/* All tips read right; then do it again, if it was not done. */
static void
verify_and_redo (struct tree *t, int i)
{
  CLEANUP_RP struct esp_rp row = { 0 };
  int c = -1;

  tree_open (t);
  if (esp_catalog_rp_get (esp_store_catalog (t->store), &t->m[i].uuid,
                          &row) == 0) {
    tree_verify_all (t);
    if (esp_rp_merge (t->store, &t->m[i].uuid, NULL, NULL) == -1)
      fail_msg ("%s", unit_error);
  }
  assert_int_equal (tree_children (t, i, &c), 1);
  merged (t, i, c);
  tree_verify_all (t);
  verify_documents (t);
}

/* After each step at which a merge of member 1 can be killed, call VERIFY.  The
 * tree is a chain of five with a branch at its end.
 */
static void
killed_at_every_step (void (*verify) (struct tree *t, int i))
{
  bool killed = true;
  int k;

  srand (unit_seed ());
  for (k = 0; killed && k < 1000; k++) {
    void *fresh = NULL;
    struct tree *t;

    tree_setup (&fresh);
    t = fresh;
    for (int i = 0; i < 5; i++)
      tree_add (t, i - 1, MIB + (unsigned) i * 5000, 12);
    tree_add (t, 3, 2 * MIB, 12);
    esp_store_close (t->store);
    t->store = NULL;
    killed = merge_and_die (t, 1, k);
    if (killed)
      verify (t, 1);
    tree_teardown (&fresh);
  }
  assert_true (k > 10 && k < 1000);
  printf ("# killed at %d steps\n", k - 1);
}

static void
killed_at_every_step_every_tip_reads_right (void **state)
{
  (void) state;
  killed_at_every_step (verify_and_redo);
}

static void
print_finding (void *arg, const struct esp_finding *f)
{
  unsigned *n = arg;

  (*n)++;
  if (!f->mended)
    print_message ("# %s: %s\n", f->object, f->problem);
}

/* A repair leaves nothing to be found, and every tip reads right before and
 * after it, the merged one's too where it is still there.
 */
static void
verify_and_repair (struct tree *t, int i)
{
  CLEANUP_RP struct esp_rp row = { 0 };
  unsigned unmended = 99, found = 0;

  tree_open (t);
  if (esp_catalog_rp_get (esp_store_catalog (t->store), &t->m[i].uuid,
                          &row) == -1)
    t->m[i].gone = true;
  tree_verify_all (t);
  assert_int_equal (esp_store_check (t->store, true, print_finding, &found,
                                     &unmended), 0);
  assert_int_equal (unmended, 0);
  found = 0;
  assert_int_equal (esp_store_check (t->store, false, print_finding, &found,
                                     &unmended), 0);
  assert_int_equal (found, 0);
  tree_verify_all (t);
}

static void
killed_at_every_step_a_repair_leaves_nothing_to_find (void **state)
{
  (void) state;
  killed_at_every_step (verify_and_repair);
}

#define TREE_TEST(f) cmocka_unit_test_setup_teardown (f, tree_setup, \
                                                      tree_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TREE_TEST (random_merges_keep_every_byte),
    TREE_TEST (depth_and_directory_of_the_merged),
    TREE_TEST (open_ones_are_not_merged),
    TREE_TEST (open_is_refused_while_it_merges),
    TREE_TEST (interrupted_merge_changes_nothing),
    TREE_TEST (root_in_place_is_merged),
    TREE_TEST (killed_at_every_step_every_tip_reads_right),
    TREE_TEST (killed_at_every_step_a_repair_leaves_nothing_to_find),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
