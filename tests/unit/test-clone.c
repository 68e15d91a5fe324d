/* SPDX-License-Identifier: BSD-3-Clause */
/* Bulk clones (store/clone.c, overlay/clone.c): all or nothing. */

#include "rp-test.h"

#include <signal.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>

#include "overlay/admin.h"

#define SIZE ((uint64_t) 8 << 20)

/* NAMES are n clients, "seat-1" on. */
struct clients { char **names; size_t n; };

static struct clients
clients_new (size_t n)
{
  struct clients c = { calloc (n, sizeof *c.names), n };

  for (size_t i = 0; i < n; i++)
    assert_true (asprintf (&c.names[i], "seat-%zu", i + 1) > 0);
  return c;
}

static void
clients_free (struct clients *c)
{
  for (size_t i = 0; i < c->n; i++)
    free (c->names[i]);
  free (c->names);
}
#define CLEANUP_CLIENTS __attribute__ ((cleanup (clients_free)))

/* A store with two roots and a venue of one disk, then two. */
static struct tree *
prepare (void **state, unsigned ndisks)
{
  struct tree *t = *state;
  esp_uuid disks[2];

  tree_add (t, -1, SIZE, 20);
  tree_add (t, -1, SIZE + 5, 20);
  disks[0] = t->m[0].uuid;
  disks[1] = t->m[1].uuid;
  assert_int_equal (esp_venue_add (t->store, "cafe", disks, ndisks, ""), 0);
  return t;
}

static size_t
count_overlays (struct tree *t, bool all)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };
  int fd = esp_store_overlays_fd (t->store);

  assert_int_equal (all ? esp_overlay_list_all (fd, &list)
                    : esp_overlay_list (fd, NULL, &list), 0);
  for (size_t i = 0; i < list.n; i++)
    assert_true (all || (!list.o[i].damage && !list.o[i].empty));
  return list.n;
}

static int
count_entry (void *arg, int dirfd, const char *name)
{
  (void) dirfd;
  (void) name;
  ++*(unsigned *) arg;
  return 0;
}

static unsigned
count_tmp (struct tree *t)
{
  unsigned n = 0;

  assert_int_equal (esp_each_entry (esp_store_tmp_fd (t->store), count_entry,
                                    &n), 0);
  return n;
}

static void
test_makes_kept_overlays_of_all_disks (void **state)
{
  struct tree *t = prepare (state, 2);
  CLEANUP_CLIENTS struct clients c = clients_new (7);
  CLEANUP_OVERLAY_INFO struct esp_overlay_info info = { 0 };
  const struct esp_overlay_id id = { "cafe", "1", "seat-7" };

  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, c.names, c.n), 0);
  assert_int_equal (count_overlays (t, false), 14);
  assert_int_equal (count_tmp (t), 0);
  assert_int_equal (esp_overlay_info (esp_store_overlays_fd (t->store), &id,
                                      &info), 0);
  assert_int_equal (info.mode, ESP_OVERLAY_KEEP);
  assert_true (esp_uuid_eq (&info.tip, &t->m[1].uuid));
  assert_int_equal (info.size, SIZE + 5);
  assert_false (info.empty || info.held);
  assert_null (info.damage);
}

static void
test_one_disk (void **state)
{
  struct tree *t = prepare (state, 2);
  CLEANUP_CLIENTS struct clients c = clients_new (3);

  assert_int_equal (esp_venue_clone (t->store, "cafe", 1, c.names, c.n), 0);
  assert_int_equal (count_overlays (t, false), 3);
  assert_int_equal (esp_venue_clone (t->store, "cafe", 2, c.names, c.n), -1);
  assert_int_equal (errno, ENOENT);
}

static void
test_refuses_those_that_exist (void **state)
{
  struct tree *t = prepare (state, 1);
  CLEANUP_CLIENTS struct clients few = clients_new (2), many = clients_new (5);

  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, few.names, 2), 0);
  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, many.names, 5), -1);
  assert_int_equal (errno, EEXIST);
  assert_non_null (strstr (unit_error, "cafe/0@seat-1, cafe/0@seat-2:"));
  assert_int_equal (count_overlays (t, true), 2);
  assert_int_equal (count_tmp (t), 0);
}

static void
test_refuses_a_connected_client (void **state)
{
  struct tree *t = prepare (state, 1);
  CLEANUP_CLIENTS struct clients c = clients_new (5);
  char path[300];
  const struct esp_overlay_params params = { .mode = ESP_OVERLAY_KEEP };
  const struct esp_overlay_id id = { "cafe", "0", "seat-3" };

  snprintf (path, sizeof path, "%s/overlays", t->dir);
  struct esp_overlay_place *place = esp_overlay_place_open (path, &params);
  struct esp_overlay *o = esp_overlay_open (place, &id, &t->m[0].uuid, SIZE);
  assert_non_null (o);
  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, c.names, c.n), -1);
  assert_int_equal (errno, EEXIST);
  assert_non_null (strstr (unit_error, "1 of the overlays exist: cafe/0@seat-3:"));
  assert_int_equal (count_overlays (t, true), 1);
  esp_overlay_close (o);
  esp_overlay_place_close (place);
  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, c.names, c.n), 0);
}

static void
test_refuses_bad_names (void **state)
{
  struct tree *t = prepare (state, 1);
  char *twice[] = { (char *) "a", (char *) "b", (char *) "a" };
  char *bad[] = { (char *) "a", (char *) "../b" };

  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, twice, 3), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, bad, 2), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, bad, 0), -1);
  assert_int_equal (esp_venue_clone (t->store, "bar", -1, bad, 1), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (count_overlays (t, true), 0);
  assert_int_equal (count_tmp (t), 0);
}

/* A clone is a disk that a client finds, writes to, and finds again. */
static void
test_a_clone_is_written_to (void **state)
{
  struct tree *t = prepare (state, 1);
  CLEANUP_CLIENTS struct clients c = clients_new (2);
  const struct esp_overlay_params params = { .mode = ESP_OVERLAY_DISCARD };
  const struct esp_overlay_id id = { "cafe", "0", "seat-2" };
  struct esp_overlay_base base;
  char path[300], buf[4096];
  int err;

  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, c.names, c.n), 0);
  snprintf (path, sizeof path, "%s/overlays", t->dir);
  for (int round = 0; round < 2; round++) {
    struct esp_overlay_place *place = esp_overlay_place_open (path, &params);
    assert_int_equal (esp_overlay_peek (place, &id, &base), 0);
    assert_true (base.exists && esp_uuid_eq (&base.tip, &t->m[0].uuid));
    struct esp_overlay *o = esp_overlay_open (place, &id, &base.tip, base.size);
    assert_non_null (o);
    memset (buf, 'x', sizeof buf);
    if (round == 0)
      assert_int_equal (esp_overlay_pwrite (o, NULL, buf, 4096, 8192, true,
                                            &err), 0);
    memset (buf, 0, sizeof buf);
    assert_int_equal (esp_overlay_pread (o, NULL, buf, 4096, 8192, &err), 0);
    assert_int_equal (buf[4095], 'x');
    esp_overlay_close (o);
    esp_overlay_place_close (place);
  }
}

/* --- kill ----------------------------------------------------------------- */

/* The child opens the store itself, as another process would. */
static pid_t
clone_in_child (struct tree *t, const struct clients *c)
{
  pid_t pid;

  esp_store_close (t->store);
  t->store = NULL;
  pid = fork ();
  if (pid == 0) {
    struct esp_store *s = esp_store_open (t->dir);
    _exit (!s || esp_venue_clone (s, "cafe", -1, c->names, c->n) == -1);
  }
  assert_true (pid > 0);
  return pid;
}

static void
kill_and_wait (pid_t pid)
{
  int status;

  kill (pid, SIGKILL);
  assert_int_equal (waitpid (pid, &status, 0), pid);
}

static int64_t
now_ns (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C (1000000000) + t.tv_nsec;
}

static void
test_kill_at_any_time (void **state)
{
  struct tree *t = prepare (state, 1);
  CLEANUP_CLIENTS struct clients c = clients_new (200);
  unsigned seen[2] = { 0, 0 };
  int64_t begin = now_ns (), whole;
  int status;

  srand (unit_seed ());
  waitpid (clone_in_child (t, &c), &status, 0);
  assert_int_equal (status, 0);
  whole = now_ns () - begin;
  tree_open (t);
  assert_int_equal (esp_venue_delete (t->store, "cafe", true), 0);
  assert_int_equal (esp_venue_add (t->store, "cafe", &t->m[0].uuid, 1, ""), 0);
  for (int round = 0; round < 40; round++) {
    pid_t pid = clone_in_child (t, &c);
    usleep ((unsigned) rand () % (unsigned) (whole * 2 / 1000));
    kill_and_wait (pid);
    tree_open (t);
    size_t n = count_overlays (t, false);
    if (n != 0 && n != c.n)
      fail_msg ("%zu of %zu overlays after a kill", n, c.n);
    seen[n != 0]++;
    assert_int_equal (esp_store_gc (t->store, false, NULL, NULL, NULL, NULL),
                      0);
    assert_int_equal (count_overlays (t, true), n);
    assert_int_equal (esp_venue_delete (t->store, "cafe", true), 0);
    assert_int_equal (esp_venue_add (t->store, "cafe", &t->m[0].uuid, 1, ""),
                      0);
  }
  printf ("# nothing %u times, all %u times\n", seen[0], seen[1]);
}

/* Kill the child when its note has its final name. */
static void
kill_behind_commit (struct tree *t, const struct clients *c)
{
  CLEANUP_CLOSE int fd = inotify_init1 (IN_CLOEXEC);
  char path[300], buf[4096] __attribute__ ((aligned (8)));

  snprintf (path, sizeof path, "%s/tmp", t->dir);
  assert_true (inotify_add_watch (fd, path, IN_MOVED_TO) >= 0);
  pid_t pid = clone_in_child (t, c);
  assert_true (read (fd, buf, sizeof buf) > 0);
  kill_and_wait (pid);
}

static void
test_kill_behind_the_commit_makes_all (void **state)
{
  struct tree *t = prepare (state, 1);
  CLEANUP_CLIENTS struct clients c = clients_new (2000);

  kill_behind_commit (t, &c);
  tree_open (t);
  assert_int_equal (count_overlays (t, false), c.n);
  assert_int_equal (count_tmp (t), 0);
}

/* What was not synced may be lost with the power: links, directories. */
static void
test_power_loss_behind_the_commit (void **state)
{
  struct tree *t = prepare (state, 1);
  CLEANUP_CLIENTS struct clients c = clients_new (2000);
  char path[400];

  kill_behind_commit (t, &c);
  snprintf (path, sizeof path, "%s/overlays/cafe/0/seat-1/overlay", t->dir);
  unlink (path);
  snprintf (path, sizeof path, "rm -rf %s/overlays/cafe/0/seat-2", t->dir);
  assert_int_equal (system (path), 0);
  tree_open (t);
  assert_int_equal (count_overlays (t, false), c.n);
}

/* A client that looked, or whose server died, leaves the clone as it was. */
static void
test_a_clone_outlives_a_client_that_wrote_nothing (void **state)
{
  struct tree *t = prepare (state, 1);
  CLEANUP_CLIENTS struct clients c = clients_new (1);
  const struct esp_overlay_params params = { .mode = ESP_OVERLAY_KEEP };
  const struct esp_overlay_id id = { "cafe", "0", "seat-1" };
  char path[300];
  esp_uuid uuid;
  struct esp_export e;

  assert_int_equal (esp_venue_clone (t->store, "cafe", -1, c.names, c.n), 0);
  snprintf (path, sizeof path, "%s/overlays", t->dir);
  struct esp_overlay_place *place = esp_overlay_place_open (path, &params);
  struct esp_overlay *o = esp_overlay_open (place, &id, &t->m[0].uuid, SIZE);
  int err;
  assert_non_null (o);
  assert_int_equal (esp_overlay_flush (o, &err), 0);
  esp_overlay_close (o);
  esp_overlay_place_close (place);
  assert_int_equal (esp_store_gc (t->store, false, NULL, NULL, NULL, NULL), 0);
  assert_int_equal (count_overlays (t, false), 1);
  /* There is nothing to be made a restore point of. */
  assert_int_equal (esp_export_parse ("cafe@seat-1", &e), 0);
  assert_int_equal (esp_rp_create_from_overlay (t->store, "new", &e, 0, "",
                                                NULL, 0, &uuid), -1);
  assert_int_equal (errno, ENODATA);
  assert_int_equal (esp_overlay_reset (esp_store_overlays_fd (t->store), &id),
                    0);
  assert_int_equal (count_overlays (t, true), 0);
}

/* gc leaves a note alone that could not be used when the store was opened. */
static void
test_gc_keeps_a_note (void **state)
{
  struct tree *t = prepare (state, 1);
  int tmp = esp_store_tmp_fd (t->store);

  assert_int_equal (mkdirat (tmp, "clone-x", 0700), 0);
  assert_int_equal (mkdirat (tmp, "clone-x/0", 0700), 0);
  assert_int_equal (mkdirat (tmp, "draft-x", 0700), 0);
  assert_int_equal (mkdirat (tmp, "draft-x/0", 0700), 0);
  esp_store_close (t->store);
  tree_open (t);
  assert_non_null (strstr (unit_error, "clones that were being made"));
  assert_int_equal (esp_store_gc (t->store, false, NULL, NULL, NULL, NULL), 0);
  assert_int_equal (count_tmp (t), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown (f, tree_setup, tree_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (test_makes_kept_overlays_of_all_disks),
    TEST (test_one_disk),
    TEST (test_refuses_those_that_exist),
    TEST (test_refuses_a_connected_client),
    TEST (test_refuses_bad_names),
    TEST (test_a_clone_is_written_to),
    TEST (test_kill_at_any_time),
    TEST (test_kill_behind_the_commit_makes_all),
    TEST (test_power_loss_behind_the_commit),
    TEST (test_a_clone_outlives_a_client_that_wrote_nothing),
    TEST (test_gc_keeps_a_note),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
