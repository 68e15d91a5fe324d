/* SPDX-License-Identifier: BSD-3-Clause */
/* Batches of delayed restore points: children over parents that are not
 * visible yet, all or nothing, and a kill at any step.
 */

#include "have-test.h"

#define MIB (UINT64_C (1) << 20)
#define N 3

static const char *die_at;

static void
die (const char *step)
{
  if (strcmp (step, die_at) == 0)
    _exit (9);
}

/* A chain of N, each with random blocks; nothing is made. */
static void
prepare (struct tree *t, struct delayed *d)
{
  for (int i = 0; i < N; i++) {
    delayed_prepare (t, &d[i], i - 1, 2 * MIB, 20);
    t->n++;
  }
}

static int
add (struct esp_rp_batch *b, struct delayed *d, const char *name)
{
  struct member *m = &d->t->m[d->member];
  struct esp_rp rp = { .uuid = m->uuid, .size = m->size, .created = 1 };
  struct esp_source source;

  if (m->parent >= 0)
    rp.parent = d->t->m[m->parent].uuid;
  snprintf (rp.name, sizeof rp.name, "%s-%d", name, d->member);
  delayed_source (d, &source);
  return esp_rp_batch_add (b, &rp, d->map, SHIFT, &d->index, &source, NULL);
}

static int
make_all (struct tree *t, struct delayed *d)
{
  CLEANUP_RP_BATCH struct esp_rp_batch *b = esp_rp_batch_new (t->store);

  for (int i = 0; i < N; i++)
    if (add (b, &d[i], "rp") == -1)
      return -1;
  return esp_rp_batch_commit (b);
}

static size_t
rows (struct tree *t)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };

  assert_int_equal (esp_catalog_rp_list (esp_store_catalog (t->store), NULL,
                                         &list), 0);
  return list.n;
}

static int
count_entry (void *arg, int fd, const char *name)
{
  (void) fd;
  (void) name;
  ++*(size_t *) arg;
  return 0;
}

static size_t
entries (int fd)
{
  size_t n = 0;

  assert_int_equal (esp_each_entry (fd, count_entry, &n), 0);
  return n;
}

static void
assert_sound (struct tree *t, bool repair)
{
  unsigned left = 1;

  assert_int_equal (esp_store_check (t->store, repair, NULL, NULL, &left), 0);
  assert_int_equal (left, 0);
}

/* Any fetcher that has the bytes of all of them. */
static int
fetch (void *arg, struct esp_store *store, const esp_uuid *uuid,
       uint64_t offset, uint64_t len)
{
  struct delayed *d = arg;

  for (int i = 0; i < N; i++)
    if (esp_uuid_eq (&d[i].t->m[d[i].member].uuid, uuid))
      return delayed_fetch (&d[i], store, uuid, offset, len);
  errno = ENOENT;
  return -1;
}

static void
verify_all (struct tree *t, struct delayed *d)
{
  esp_have_set_fetcher (fetch, d);
  for (int i = 0; i < N; i++) {
    CLEANUP_RP struct esp_rp rp = { 0 };
    tree_row (t, i, &rp);
    assert_int_equal (rp.depth, i + 1);
    tree_verify (t, i);
  }
  esp_have_set_fetcher (NULL, NULL);
}

static void
clear (struct delayed *d)
{
  for (int i = 0; i < N; i++)
    delayed_clear (&d[i]);
}

static void
a_chain_of_one_batch_reads_right (void **state)
{
  struct tree *t = *state;
  struct delayed d[N];

  prepare (t, d);
  assert_int_equal (make_all (t, d), 0);
  verify_all (t, d);
  assert_sound (t, false);
  assert_int_equal (entries (esp_store_tmp_fd (t->store)), 0);
  clear (d);
}

static void
nothing_is_visible_before_the_commit_or_without_one (void **state)
{
  struct tree *t = *state;
  struct delayed d[N];
  struct esp_rp_batch *b = esp_rp_batch_new (t->store);

  prepare (t, d);
  for (int i = 0; i < N; i++)
    assert_int_equal (add (b, &d[i], "rp"), 0);
  assert_int_equal (rows (t), 0);
  assert_int_equal (entries (esp_store_rps_fd (t->store)), 0);
  esp_rp_batch_free (b);
  assert_int_equal (rows (t), 0);
  assert_int_equal (entries (esp_store_tmp_fd (t->store)), 0);
  clear (d);
}

/* The last one's name is taken in the very end: none of them stays. */
static void
one_that_fails_takes_back_all (void **state)
{
  struct tree *t = *state;
  struct delayed d[N];
  CLEANUP_RP_BATCH struct esp_rp_batch *b = esp_rp_batch_new (t->store);

  prepare (t, d);
  for (int i = 0; i < N; i++)
    assert_int_equal (add (b, &d[i], "rp"), 0);
  tree_add (t, -1, MIB, 5);     /* rp-3 */
  assert_int_equal (esp_rp_rename (t->store, &t->m[3].uuid, "rp-2"), 0);
  assert_int_equal (esp_rp_batch_commit (b), -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (rows (t), 1);
  assert_int_equal (entries (esp_store_rps_fd (t->store)), 1);
  assert_int_equal (entries (esp_store_tmp_fd (t->store)), 0);
  assert_sound (t, false);
  /* It can be used again. */
  for (int i = 0; i < N; i++)
    assert_int_equal (add (b, &d[i], "other"), 0);
  assert_int_equal (esp_rp_batch_commit (b), 0);
  verify_all (t, d);
  clear (d);
}

static void
a_bad_member_leaves_the_others (void **state)
{
  struct tree *t = *state;
  struct delayed d[N];
  CLEANUP_RP_BATCH struct esp_rp_batch *b = esp_rp_batch_new (t->store);

  prepare (t, d);
  assert_int_equal (add (b, &d[0], "rp"), 0);
  assert_int_equal (add (b, &d[0], "rp"), -1);  /* twice */
  assert_int_equal (errno, EINVAL);
  assert_int_equal (add (b, &d[2], "rp"), -1);  /* without its parent */
  assert_int_equal (errno, ENOENT);
  assert_int_equal (add (b, &d[1], "rp"), 0);
  assert_int_equal (add (b, &d[2], "rp"), 0);
  assert_int_equal (esp_rp_batch_commit (b), 0);
  verify_all (t, d);
  clear (d);
}

/* Killed anywhere, nothing is visible; the same again makes all of it, and
 * what was left of the first time is gone.
 */
static void
killed_anywhere_the_next_time_makes_all (void **state)
{
  static const char *const steps[] = {
    "draft: before the chain", "delayed: after segments and have",
    "draft: before meta", "draft: before the sync",
    "publish: before the rename", "publish: after the rename",
    "publish: before the commit",
  };
  struct tree *t = *state;
  struct delayed d[N];
  int status;

  prepare (t, d);
  for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    esp_store_close (t->store);
    t->store = NULL;
    pid_t pid = fork ();
    assert_int_not_equal (pid, -1);
    if (pid == 0) {
      die_at = steps[i];
      esp_rp_test_step = die;
      tree_open (t);
      make_all (t, d);
      _exit (1);
    }
    waitpid (pid, &status, 0);
    assert_int_equal (WEXITSTATUS (status), 9);
    tree_open (t);
    assert_int_equal (rows (t), 0);
  }
  assert_int_equal (entries (esp_store_rps_fd (t->store)), N);
  assert_int_equal (make_all (t, d), 0);
  verify_all (t, d);
  assert_int_equal (entries (esp_store_rps_fd (t->store)), N);
  assert_sound (t, true);
  assert_int_equal (rows (t), N);
  clear (d);
}

/* A stored restore point without a row is somebody's work, and stays. */
static void
a_stored_orphan_is_not_replaced (void **state)
{
  struct tree *t = *state;
  struct delayed d[N];
  char text[ESP_UUID_TEXT];

  prepare (t, d);
  tree_add (t, -1, MIB, 5);
  assert_int_equal (esp_catalog_rp_delete (esp_store_catalog (t->store),
                                           &t->m[3].uuid), 0);
  t->m[0].uuid = t->m[3].uuid;
  assert_int_equal (make_all (t, d), -1);
  assert_int_equal (errno, EEXIST);
  assert_non_null (strstr (unit_error, "the catalog does not know it"));
  assert_int_equal (faccessat (esp_store_rps_fd (t->store),
                               esp_uuid_text (&t->m[3].uuid, text), F_OK, 0),
                    0);
  assert_int_equal (rows (t), 0);
  clear (d);
}

int
main (void)
{
#define T(f) cmocka_unit_test_setup_teardown (f, tree_setup, tree_teardown)
  const struct CMUnitTest tests[] = {
    T (a_chain_of_one_batch_reads_right),
    T (nothing_is_visible_before_the_commit_or_without_one),
    T (one_that_fails_takes_back_all),
    T (a_bad_member_leaves_the_others),
    T (killed_anywhere_the_next_time_makes_all),
    T (a_stored_orphan_is_not_replaced),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
