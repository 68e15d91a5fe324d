/* SPDX-License-Identifier: BSD-3-Clause */
/* Restore points: making, renaming, deleting; what is refused and why. */

#include "rp-test.h"

#include <sys/stat.h>

#include "util/lock.h"

#define MIB (UINT64_C (1) << 20)

static void
root_and_child_read_right (void **state)
{
  struct tree *t = *state;
  int root = tree_add (t, -1, 3 * MIB + 5000, 100);
  int child = tree_add (t, root, 3 * MIB + 5000, 60);

  tree_verify (t, root);
  tree_verify (t, child);
}

static void
child_may_be_larger_and_reads_zero_there (void **state)
{
  struct tree *t = *state;
  int root = tree_add (t, -1, MIB + 100, 50);
  int child = tree_add (t, root, 5 * MIB + 7, 0);

  tree_verify (t, child);
}

static void
child_may_not_be_smaller (void **state)
{
  struct tree *t = *state;
  int root = tree_add (t, -1, MIB, 1);

  assert_null (tree_begin (t, "small", root, MIB - 1));
  assert_int_equal (errno, EINVAL);
  assert_non_null (strstr (unit_error, "smaller"));
}

static void
impossible_sizes_are_refused (void **state)
{
  struct tree *t = *state;

  assert_null (tree_begin (t, "none", -1, 0));
  assert_int_equal (errno, EINVAL);
  assert_null (tree_begin (t, "huge", -1, ESP_DISK_MAX + 1));
  assert_int_equal (errno, EFBIG);
}

static void
names_are_unique_and_checked (void **state)
{
  struct tree *t = *state;

  tree_add (t, -1, MIB, 1);
  assert_null (tree_begin (t, "rp-0", -1, MIB));
  assert_int_equal (errno, EEXIST);
  assert_null (tree_begin (t, "../x", -1, MIB));
  assert_int_equal (errno, EINVAL);
}

static void
name_taken_meanwhile_fails_the_commit_and_leaves_nothing (void **state)
{
  struct tree *t = *state;
  struct esp_draft *a = tree_begin (t, "same", -1, MIB);
  struct esp_draft *b = tree_begin (t, "same", -1, MIB);
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
  char text[ESP_UUID_TEXT];
  esp_uuid lost = b->rp.uuid;
  struct stat st;

  assert_int_equal (esp_draft_commit (a, NULL), 0);
  assert_int_equal (esp_draft_commit (b, NULL), -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (esp_catalog_rp_list (esp_store_catalog (t->store), NULL,
                                         &list), 0);
  assert_int_equal (list.n, 1);
  assert_int_equal (fstatat (esp_store_rps_fd (t->store),
                             esp_uuid_text (&lost, text), &st, 0), -1);
}

static void
data_is_read_only_and_meta_agrees_with_the_row (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, tree_add (t, -1, MIB, 9), 2 * MIB, 40);
  CLEANUP_RP struct esp_rp row = { 0 }, said = { 0 };
  CLEANUP_CLOSE int dir = esp_store_rp_dir (t->store, &t->m[i].uuid);
  struct stat st;

  tree_row (t, i, &row);
  assert_int_equal (esp_rp_load_meta (t->store, &row.uuid, &said, NULL), 0);
  assert_string_equal (row.name, said.name);
  assert_true (row.data_blocks == said.data_blocks && row.data_blocks > 0);
  assert_true (row.zero_blocks == said.zero_blocks);
  assert_int_equal (row.depth, 2);
  assert_int_equal (fstatat (dir, ESP_RP_DATA, &st, 0), 0);
  assert_int_equal (st.st_mode & 0777, 0444);
  assert_true (st.st_size == 2 * (off_t) MIB);
}

static void
rename_note_and_resources_reach_both (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, -1, MIB, 3);
  struct esp_resource r = { (char *) "app", (char *) "game", (char *) "2" };
  CLEANUP_RP struct esp_rp row = { 0 }, said = { 0 };

  assert_int_equal (esp_rp_rename (t->store, &t->m[i].uuid, "new"), 0);
  assert_int_equal (esp_rp_set_note (t->store, &t->m[i].uuid, "why"), 0);
  assert_int_equal (esp_rp_set_resources (t->store, &t->m[i].uuid, &r, 1), 0);
  tree_row (t, i, &row);
  assert_int_equal (esp_rp_load_meta (t->store, &row.uuid, &said, NULL), 0);
  assert_string_equal (row.name, "new");
  assert_string_equal (said.name, "new");
  assert_string_equal (row.note, "why");
  assert_string_equal (said.note, "why");
  assert_int_equal (said.nresources, 1);
  assert_string_equal (row.resources[0].name, "game");
  tree_verify (t, i);
}

static void
rename_to_a_taken_or_bad_name_changes_nothing (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, -1, MIB, 3);
  CLEANUP_RP struct esp_rp said = { 0 };

  tree_add (t, -1, MIB, 3);
  assert_int_equal (esp_rp_rename (t->store, &t->m[i].uuid, "rp-1"), -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (esp_rp_rename (t->store, &t->m[i].uuid, "a/b"), -1);
  assert_int_equal (esp_rp_set_note (t->store, &t->m[i].uuid, "\xff"), -1);
  assert_int_equal (esp_rp_load_meta (t->store, &t->m[i].uuid, &said, NULL),
                    0);
  assert_string_equal (said.name, "rp-0");
  assert_string_equal (said.note, "");
}

static void
delete_removes_a_leaf_only (void **state)
{
  struct tree *t = *state;
  int root = tree_add (t, -1, MIB, 3), child = tree_add (t, root, MIB, 3);
  CLEANUP_RP struct esp_rp gone = { 0 };

  assert_int_equal (esp_rp_delete (t->store, &t->m[root].uuid), -1);
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "rp-1"));
  assert_int_equal (esp_rp_delete (t->store, &t->m[child].uuid), 0);
  assert_int_equal (esp_catalog_rp_get (esp_store_catalog (t->store),
                                        &t->m[child].uuid, &gone), -1);
  assert_int_equal (esp_store_rp_dir (t->store, &t->m[child].uuid), -1);
  tree_verify (t, root);
  assert_int_equal (esp_rp_delete (t->store, &t->m[root].uuid), 0);
}

static void
delete_of_an_open_one_is_refused (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, -1, MIB, 3);
  struct esp_image *image = esp_image_open (t->store, &t->m[i].uuid);

  assert_int_equal (esp_rp_delete (t->store, &t->m[i].uuid), -1);
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "open"));
  esp_image_close (image);
  assert_int_equal (esp_rp_delete (t->store, &t->m[i].uuid), 0);
}

static void
delete_under_a_draft_is_refused (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, -1, MIB, 3);
  struct esp_draft *draft = tree_begin (t, "next", i, MIB);

  assert_int_equal (esp_rp_delete (t->store, &t->m[i].uuid), -1);
  assert_int_equal (errno, EBUSY);
  esp_draft_abort (draft);
  assert_int_equal (esp_rp_delete (t->store, &t->m[i].uuid), 0);
}

static void
delete_of_a_mapped_one_names_the_venue (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, -1, MIB, 3);
  struct esp_venue venue = {
    .id = "cafe", .description = (char *) "", .revision = 1, .ndisks = 1,
    .disks = &t->m[i].uuid,
  };
  struct esp_catalog *catalog = esp_store_catalog (t->store);

  assert_int_equal (esp_catalog_begin (catalog), 0);
  assert_int_equal (esp_catalog_venue_put (catalog, &venue, NULL), 0);
  assert_int_equal (esp_catalog_commit (catalog), 0);
  assert_int_equal (esp_rp_delete (t->store, &t->m[i].uuid), -1);
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "cafe"));
  tree_verify (t, i);
}

static void
a_damaged_map_is_not_loaded (void **state)
{
  struct tree *t = *state;
  int i = tree_add (t, -1, MIB, 30), k = tree_add (t, -1, MIB, 30);
  CLEANUP_CLOSE int a = esp_store_rp_dir (t->store, &t->m[i].uuid);
  CLEANUP_CLOSE int b = esp_store_rp_dir (t->store, &t->m[k].uuid);
  struct esp_map *map = esp_rp_load_map (t->store, &t->m[i].uuid);

  assert_non_null (map);
  esp_map_free (map);
  /* A sound map, but of another restore point. */
  assert_int_equal (unlinkat (a, ESP_RP_MAP, 0), 0);
  assert_int_equal (linkat (b, ESP_RP_MAP, a, ESP_RP_MAP, 0), 0);
  assert_null (esp_rp_load_map (t->store, &t->m[i].uuid));
  assert_int_equal (errno, EBADMSG);
}

/* --- diff ---------------------------------------------------------------- */

static void
naive_diff (const struct member *a, const struct member *b,
            struct esp_rp_diff *d)
{
  uint64_t end = a->size > b->size ? a->size : b->size, last = UINT64_MAX;

  memset (d, 0, sizeof *d);
  for (uint64_t i = 0; i < end; i++) {
    int ca = i < a->size ? a->bytes[i] : 0, cb = i < b->size ? b->bytes[i] : 0;

    if (ca == cb)
      continue;
    d->bytes++;
    d->blocks += i / ESP_BLOCK_SIZE != last;
    last = i / ESP_BLOCK_SIZE;
  }
}

static void
diff_agrees_with_bytes (void **state)
{
  struct tree *t = *state;
  struct esp_rp_diff got, want;

  srand (unit_seed ());
  tree_add (t, -1, 2 * MIB + 300, 200);
  tree_add (t, 0, 2 * MIB + 300, 100);
  tree_add (t, 0, 3 * MIB + 1, 100);
  tree_add (t, 1, 2 * MIB + 300, 20);
  tree_add (t, -1, MIB, 50);
  for (int a = 0; a < t->n; a++)
    for (int b = 0; b < t->n; b++) {
      naive_diff (&t->m[a], &t->m[b], &want);
      assert_int_equal (esp_rp_diff (t->store, &t->m[a].uuid, &t->m[b].uuid,
                                     &got, NULL, NULL), 0);
      assert_int_equal (got.blocks, want.blocks);
      assert_int_equal (got.bytes, want.bytes);
    }
}

/* --- in place --------------------------------------------------------------- */

static void
root_in_place_reads_the_file_and_notices_a_change (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *path = esp_asprintf ("%s.raw", t->dir);
  struct member *m = &t->m[t->n];
  CLEANUP_CLOSE int fd = open (path, O_RDWR|O_CREAT|O_TRUNC, 0644);
  struct esp_image *image;

  *m = (struct member) { .size = 2 * MIB + 512, .parent = -1 };
  m->bytes = calloc (1, m->size);
  memset (m->bytes + MIB, 'x', MIB + 512);
  assert_int_equal (ftruncate (fd, (off_t) m->size), 0);
  assert_int_equal (esp_pwrite_all (fd, m->bytes + MIB, MIB + 512, MIB), 0);
  if (esp_rp_create_in_place (t->store, "disk", path, "n", NULL, 0,
                              &m->uuid) == -1)
    fail_msg ("%s", unit_error);
  t->n++;
  tree_verify_all (t);
  /* Its child is stored, and meta's special object survives a rename. */
  tree_add (t, 0, m->size, 30);
  assert_int_equal (esp_rp_rename (t->store, &m->uuid, "disk-2"), 0);
  tree_verify_all (t);
  assert_int_equal (esp_pwrite_all (fd, "y", 1, 0), 0);
  image = esp_image_open (t->store, &m->uuid);
  if (image) {
    char c;

    assert_int_equal (esp_image_pread (image, &c, 1, MIB), -1);
    esp_image_close (image);
  }
  assert_int_equal (errno, ESTALE);
  unlink (path);
}

static void
root_in_place_refuses_other_formats (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *path = esp_asprintf ("%s.qcow2", t->dir);
  CLEANUP_CLOSE int fd = open (path, O_RDWR|O_CREAT|O_TRUNC, 0644);

  assert_int_equal (esp_pwrite_all (fd, "QFI\xfb\0\0\0\3", 8, 0), 0);
  assert_int_equal (ftruncate (fd, MIB), 0);
  assert_int_equal (esp_rp_create_in_place (t->store, "disk", path, NULL,
                                            NULL, 0, NULL), -1);
  assert_non_null (strstr (unit_error, "qcow2"));
  unlink (path);
}

/* --- crashes of a commit ------------------------------------------------------ */

static const char *die_at;

static void
die (const char *step)
{
  if (strcmp (step, die_at) == 0)
    _exit (9);
}

static void
print_finding (void *arg, const struct esp_finding *f)
{
  (void) arg;
  if (!f->mended)
    print_message ("# %s: %s\n", f->object, f->problem);
}

/* Whatever the step at which a commit is killed: the catalog is sound, and
 * there is either nothing or the whole of it.
 */
static void
killed_commits_leave_nothing_or_all (void **state)
{
  static const char *const steps[] = {
    "draft: before the data", "draft: before the chain", "draft: before meta",
    "publish: before the rename", "publish: after the rename",
    "publish: before the commit",
  };
  struct tree *t = *state;
  int status;

  tree_add (t, -1, MIB, 20);
  esp_store_close (t->store);
  t->store = NULL;
  for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    pid_t pid = fork ();

    assert_int_not_equal (pid, -1);
    if (pid == 0) {
      die_at = steps[i];
      esp_rp_test_step = die;
      tree_open (t);
      t->n = 1;
      tree_add (t, 0, MIB, 10);
      _exit (1);
    }
    waitpid (pid, &status, 0);
    assert_int_equal (WEXITSTATUS (status), 9);
    tree_open (t);
    {
      CLEANUP_RP_LIST struct esp_rp_list list = { 0 };

      assert_int_equal (esp_catalog_rp_list (esp_store_catalog (t->store),
                                             NULL, &list), 0);
      assert_int_equal (list.n, 1);
    }
    tree_verify (t, 0);
    esp_store_close (t->store);
    t->store = NULL;
  }
  /* Two were complete; both are adopted, though they have one name. */
  tree_open (t);
  {
    CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
    unsigned unmended;

    assert_int_equal (esp_store_check (t->store, true, print_finding, NULL,
                                       &unmended), 0);
    assert_int_equal (unmended, 0);
    assert_int_equal (esp_catalog_rp_list (esp_store_catalog (t->store), NULL,
                                           &list), 0);
    assert_int_equal (list.n, 3);
  }
}

#define TREE_TEST(f) cmocka_unit_test_setup_teardown (f, tree_setup, \
                                                      tree_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TREE_TEST (root_and_child_read_right),
    TREE_TEST (child_may_be_larger_and_reads_zero_there),
    TREE_TEST (child_may_not_be_smaller),
    TREE_TEST (impossible_sizes_are_refused),
    TREE_TEST (names_are_unique_and_checked),
    TREE_TEST (name_taken_meanwhile_fails_the_commit_and_leaves_nothing),
    TREE_TEST (data_is_read_only_and_meta_agrees_with_the_row),
    TREE_TEST (rename_note_and_resources_reach_both),
    TREE_TEST (rename_to_a_taken_or_bad_name_changes_nothing),
    TREE_TEST (delete_removes_a_leaf_only),
    TREE_TEST (delete_of_an_open_one_is_refused),
    TREE_TEST (delete_under_a_draft_is_refused),
    TREE_TEST (delete_of_a_mapped_one_names_the_venue),
    TREE_TEST (a_damaged_map_is_not_loaded),
    TREE_TEST (diff_agrees_with_bytes),
    TREE_TEST (root_in_place_reads_the_file_and_notices_a_change),
    TREE_TEST (root_in_place_refuses_other_formats),
    TREE_TEST (killed_commits_leave_nothing_or_all),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
