/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog: rows, trees, names, transactions, migration, concurrency. */

#include "unit.h"

#include <pthread.h>

#include "catalog/catalog.h"

static char *dir;
static struct esp_catalog *c;

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  c = esp_catalog_open (dir, true);
  unit_error[0] = 0;
  return c ? 0 : -1;
}

static int
teardown (void **state)
{
  (void) state;
  esp_catalog_close (c);
  unit_rmdir (dir);
  return 0;
}

/* UUID number N: the first two bytes count. */
static esp_uuid
uuid (unsigned n)
{
  esp_uuid u = { { n >> 8, n, 1, [15] = 1 } };
  return u;
}

static struct esp_rp
rp (unsigned n, unsigned parent, const char *name)
{
  struct esp_rp r = { .uuid = uuid (n), .size = 1 << 20, .created = 1000 + n,
                      .note = (char *) "" };
  if (parent)
    r.parent = uuid (parent);
  snprintf (r.name, sizeof r.name, "%s", name);
  return r;
}

static void
insert (unsigned n, unsigned parent, const char *name)
{
  struct esp_rp r = rp (n, parent, name);
  assert_int_equal (esp_catalog_rp_insert (c, &r), 0);
}

static void
put (const char *id, unsigned tip0, unsigned tip1, uint64_t revision)
{
  esp_uuid disks[2] = { uuid (tip0), uuid (tip1) };
  struct esp_venue v = { .description = (char *) "d", .revision = revision,
                         .created = 5, .changed = 6,
                         .ndisks = tip1 ? 2 : 1, .disks = disks };
  struct esp_venue_change x = { .revision = revision, .time = 7,
                                .action = (char *) "add",
                                .description = (char *) "d",
                                .ndisks = v.ndisks, .disks = disks };
  snprintf (v.id, sizeof v.id, "%s", id);
  assert_int_equal (esp_catalog_venue_put (c, &v, &x), 0);
}

/* --- restore points ---------------------------------------------------- */

static void
every_field_comes_back (void **state)
{
  struct esp_resource x[2] = { { (char *) "env", (char *) "win", (char *) "10" },
                               { (char *) "app", (char *) "ed", (char *) "" } };
  struct esp_rp in = rp (1, 0, "base"), out;

  (void) state;
  in.kind = ESP_RP_IN_PLACE;
  in.size = UINT64_C (1) << 46;
  in.data_blocks = 7;
  in.zero_blocks = 8;
  in.note = (char *) "it's; DROP TABLE rp; --";
  in.path = (char *) "/dev/disk/by-id/x'y";
  in.resources = x;
  in.nresources = 2;
  assert_int_equal (esp_catalog_rp_insert (c, &in), 0);
  assert_int_equal (esp_catalog_rp_get (c, &in.uuid, &out), 0);
  assert_true (esp_uuid_eq (&out.uuid, &in.uuid));
  assert_true (esp_uuid_is_null (&out.parent));
  assert_string_equal (out.name, "base");
  assert_string_equal (out.note, in.note);
  assert_string_equal (out.path, in.path);
  assert_int_equal (out.kind, ESP_RP_IN_PLACE);
  assert_int_equal (out.size, in.size);
  assert_int_equal (out.created, 1001);
  assert_int_equal (out.data_blocks, 7);
  assert_int_equal (out.zero_blocks, 8);
  assert_int_equal (out.depth, 1);
  assert_int_equal (out.nresources, 2);
  assert_string_equal (out.resources[0].name, "win");
  assert_string_equal (out.resources[1].version, "");
  esp_rp_clear (&out);
}

static void
get_of_nothing_is_silent (void **state)
{
  esp_uuid u = uuid (9);
  struct esp_rp out;

  (void) state;
  assert_int_equal (esp_catalog_rp_get (c, &u, &out), -1);
  assert_int_equal (errno, ENOENT);
  assert_string_equal (unit_error, "");
}

static void
find_as (const char *ref, const char *name)
{
  struct esp_rp out;

  assert_int_equal (esp_catalog_rp_find (c, ref, &out), 0);
  assert_string_equal (out.name, name);
  esp_rp_clear (&out);
}

static void
find_fails (const char *ref, int err, const char *text)
{
  struct esp_rp out;

  unit_error[0] = 0;
  assert_int_equal (esp_catalog_rp_find (c, ref, &out), -1);
  assert_int_equal (errno, err);
  assert_non_null (strstr (unit_error, text));
}

static void
find_takes_names_uuids_and_prefixes (void **state)
{
  (void) state;
  insert (0xabcd, 0, "one");
  insert (0xabce, 0, "two");
  insert (0x1234, 0, "abcd");
  find_as ("one", "one");
  find_as ("abcd", "abcd");             /* an exact name wins */
  find_as ("abcd01", "one");
  find_as ("ABCE", "two");
  find_as ("abce0", "two");
  find_as ("abce0100-0000", "two");
  find_as ("abce0100-0000-0000-0000-000000000001", "two");
  find_as ("abce0100000000000000000000000001", "two");
}

static void
find_refuses_what_is_not_there_or_not_unique (void **state)
{
  (void) state;
  insert (0xabcd, 0, "one");
  find_fails ("abc", ENOENT, "no restore point 'abc'");
  find_fails ("abc-d", ENOENT, "no restore point");
  find_fails ("abcd01000000000000000000000000010", ENOENT, "no restore");
  find_fails ("abcd0100-0000-0000-0000-000000000002", ENOENT, "no restore");
  find_fails ("abcd0100--0000", ENOENT, "no restore");
  find_fails ("", ENOENT, "no restore point ''");
  find_fails ("' OR 1=1 --", ENOENT, "no restore point '' OR");
  find_fails ("\xff\n%s", ENOENT, "\\xff");
  struct esp_rp r = rp (0xabcd, 0, "twin");
  r.uuid.b[15] = 2;
  assert_int_equal (esp_catalog_rp_insert (c, &r), 0);
  find_fails ("abcd", EEXIST, "one (abcd0100");
  assert_non_null (strstr (unit_error, "twin (abcd0100"));
  for (unsigned i = 3; i < 10; ++i) {
    r.uuid.b[15] = i;
    snprintf (r.name, sizeof r.name, "%0128u", i);
    assert_int_equal (esp_catalog_rp_insert (c, &r), 0);
  }
  find_fails ("abcd", EEXIST, "one (");
}

static void
list_is_names (const esp_uuid *start, const char *names)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
  char text[512] = "";

  assert_int_equal (esp_catalog_rp_list (c, start, &list), 0);
  for (size_t i = 0; i < list.n; ++i)
    sprintf (text + strlen (text), "%s%u ", list.rp[i].name, list.rp[i].depth);
  assert_string_equal (text, names);
}

static void
list_goes_down_each_branch_in_order (void **state)
{
  CLEANUP_RP_LIST struct esp_rp_list children = { 0 };
  esp_uuid u;

  (void) state;
  list_is_names (NULL, "");
  insert (1, 0, "a");
  insert (2, 0, "b");
  insert (3, 1, "a1");
  insert (4, 1, "a2");
  insert (5, 3, "a1x");
  insert (6, 2, "b1");
  list_is_names (NULL, "a1 a12 a1x3 a22 b1 b12 ");
  u = uuid (3);
  list_is_names (&u, "a12 a1x3 ");
  u = uuid (1);
  assert_int_equal (esp_catalog_rp_children (c, &u, &children), 0);
  assert_int_equal (children.n, 2);
  assert_string_equal (children.rp[1].name, "a2");
  assert_int_equal (children.rp[1].depth, 2);
  u = uuid (99);
  esp_rp_list_clear (&children);
  assert_int_equal (esp_catalog_rp_children (c, &u, &children), 0);
  assert_int_equal (children.n, 0);
  assert_int_equal (esp_catalog_rp_list (c, &u, &children), -1);
  assert_int_equal (errno, ENOENT);
}

static void
insert_refuses_taken_names_and_missing_parents (void **state)
{
  struct esp_rp r;

  (void) state;
  insert (1, 0, "a");
  r = rp (2, 0, "a");
  assert_int_equal (esp_catalog_rp_insert (c, &r), -1);
  assert_int_equal (errno, EEXIST);
  assert_non_null (strstr (unit_error, "'a'"));
  r = rp (1, 0, "b");
  assert_int_equal (esp_catalog_rp_insert (c, &r), -1);
  assert_int_equal (errno, EEXIST);
  r = rp (2, 7, "b");
  assert_int_equal (esp_catalog_rp_insert (c, &r), -1);
  assert_int_equal (errno, ENOENT);
  list_is_names (NULL, "a1 ");
  insert (2, 1, "b");                   /* nothing is left half open */
}

static void
update_replaces_the_row (void **state)
{
  struct esp_resource x = { (char *) "env", (char *) "e", (char *) "1" };
  struct esp_rp r, out;

  (void) state;
  insert (1, 0, "a");
  insert (2, 1, "b");
  insert (3, 2, "c");
  r = rp (3, 1, "renamed");
  r.resources = &x;
  r.nresources = 1;
  assert_int_equal (esp_catalog_rp_update (c, &r), 0);
  assert_int_equal (esp_catalog_rp_get (c, &r.uuid, &out), 0);
  assert_string_equal (out.name, "renamed");
  assert_int_equal (out.depth, 2);
  assert_int_equal (out.nresources, 1);
  esp_rp_clear (&out);
  r = rp (3, 1, "a");
  assert_int_equal (esp_catalog_rp_update (c, &r), -1);
  assert_int_equal (errno, EEXIST);
  r = rp (1, 3, "a");
  assert_int_equal (esp_catalog_rp_update (c, &r), -1);
  assert_int_equal (errno, ELOOP);
  r = rp (9, 0, "z");
  assert_int_equal (esp_catalog_rp_update (c, &r), -1);
  assert_int_equal (errno, ENOENT);
  list_is_names (NULL, "a1 b2 renamed2 ");
}

static void
delete_refuses_what_is_needed (void **state)
{
  esp_uuid u1 = uuid (1), u2 = uuid (2);

  (void) state;
  insert (1, 0, "a");
  insert (2, 1, "b");
  put ("v", 2, 0, 1);
  assert_int_equal (esp_catalog_rp_delete (c, &u1), -1);
  assert_int_equal (errno, EBUSY);
  assert_int_equal (esp_catalog_rp_delete (c, &u2), -1);
  assert_int_equal (errno, EBUSY);
  assert_int_equal (esp_catalog_venue_delete (c, "v"), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &u2), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &u1), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &u1), -1);
  assert_int_equal (errno, ENOENT);
}

static void
descends_walks_the_chain (void **state)
{
  esp_uuid a = uuid (1), b = uuid (2), x = uuid (3), none = uuid (4);

  (void) state;
  insert (1, 0, "a");
  insert (2, 1, "b");
  insert (3, 0, "x");
  assert_int_equal (esp_catalog_rp_descends (c, &b, &a), 1);
  assert_int_equal (esp_catalog_rp_descends (c, &b, &b), 1);
  assert_int_equal (esp_catalog_rp_descends (c, &a, &b), 0);
  assert_int_equal (esp_catalog_rp_descends (c, &b, &x), 0);
  assert_int_equal (esp_catalog_rp_descends (c, &none, &a), 0);
}

/* --- venues ------------------------------------------------------------ */

static void
venue_comes_back_with_its_log (void **state)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };
  esp_uuid tip, want = uuid (2);

  (void) state;
  insert (1, 0, "a");
  insert (2, 1, "b");
  put ("cafe", 1, 0, 1);
  put ("cafe", 1, 2, 2);
  assert_int_equal (esp_catalog_venue_get (c, "cafe", &v), 0);
  assert_int_equal (v.ndisks, 2);
  assert_int_equal (v.revision, 2);
  assert_int_equal (v.created, 5);
  assert_int_equal (v.changed, 6);
  assert_string_equal (v.description, "d");
  assert_int_equal (esp_catalog_venue_tip (c, "cafe", 1, &tip), 0);
  assert_true (esp_uuid_eq (&tip, &want));
  assert_int_equal (esp_catalog_venue_log (c, "cafe", &log), 0);
  assert_int_equal (log.n, 2);
  assert_int_equal (log.change[0].ndisks, 1);
  assert_int_equal (log.change[1].ndisks, 2);
  assert_true (esp_uuid_eq (&log.change[1].disks[1], &want));
  assert_string_equal (log.change[1].action, "add");
  log.n = 1;                            /* free what is cut off */
  free (log.change[1].action);
  free (log.change[1].description);
  free (log.change[1].disks);
  assert_int_equal (esp_catalog_venue_set_log (c, "cafe", &log), 0);
  esp_venue_log_clear (&log);
  assert_int_equal (esp_catalog_venue_log (c, "cafe", &log), 0);
  assert_int_equal (log.n, 1);
}

static void
missing_venues_are_told (void **state)
{
  struct esp_venue_log log = { 0 };
  struct esp_venue v;
  esp_uuid tip;

  (void) state;
  assert_int_equal (esp_catalog_venue_tip (c, "x", 0, &tip), -1);
  assert_int_equal (errno, ENOENT);
  assert_string_equal (unit_error, "");
  assert_int_equal (esp_catalog_venue_get (c, "x'; --", &v), -1);
  assert_int_equal (errno, ENOENT);
  assert_non_null (strstr (unit_error, "no venue 'x'; --'"));
  assert_int_equal (esp_catalog_venue_log (c, "x", &log), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_catalog_venue_set_log (c, "x", &log), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_catalog_venue_delete (c, "x"), -1);
  assert_int_equal (errno, ENOENT);
}

static void
venue_needs_a_disk_that_is_there (void **state)
{
  esp_uuid u = uuid (9);
  struct esp_venue v = { .id = "v", .description = (char *) "", .disks = &u };
  struct esp_venue_list list = { 0 };

  (void) state;
  assert_int_equal (esp_catalog_venue_put (c, &v, NULL), -1);
  assert_int_equal (errno, EINVAL);
  v.ndisks = 1;
  assert_int_equal (esp_catalog_venue_put (c, &v, NULL), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_catalog_venue_list (c, NULL, &list), 0);
  assert_int_equal (list.n, 0);
}

static void
venue_list_of_a_subtree_wants_every_disk_in_it (void **state)
{
  CLEANUP_VENUE_LIST struct esp_venue_list list = { 0 };
  esp_uuid b = uuid (2);

  (void) state;
  insert (1, 0, "a");
  insert (2, 1, "b");
  insert (3, 2, "c");
  put ("root", 1, 0, 1);
  put ("inside", 2, 3, 1);
  put ("half", 3, 1, 1);
  assert_int_equal (esp_catalog_venue_list (c, &b, &list), 0);
  assert_int_equal (list.n, 1);
  assert_string_equal (list.venue[0].id, "inside");
  esp_venue_list_clear (&list);
  assert_int_equal (esp_catalog_venue_list (c, NULL, &list), 0);
  assert_int_equal (list.n, 3);
  assert_string_equal (list.venue[0].id, "half");
  assert_int_equal (list.venue[0].ndisks, 2);
  esp_venue_list_clear (&list);
  assert_int_equal (esp_catalog_venues_of (c, &b, &list), 0);
  assert_int_equal (list.n, 1);
  assert_int_equal (list.venue[0].ndisks, 2);
}

/* --- transactions ------------------------------------------------------ */

static void
rollback_takes_everything_back (void **state)
{
  (void) state;
  assert_int_equal (esp_catalog_begin (c), 0);
  insert (1, 0, "a");
  assert_int_equal (esp_catalog_begin (c), -1);
  assert_int_equal (errno, EDEADLK);
  esp_catalog_rollback (c);
  esp_catalog_rollback (c);             /* without one: nothing */
  list_is_names (NULL, "");
  assert_int_equal (esp_catalog_commit (c), -1);
  assert_int_equal (errno, EINVAL);
  {
    CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
    assert_int_equal (esp_catalog_begin (c), 0);
    tx = c;
    insert (1, 0, "a");
  }
  list_is_names (NULL, "");
  assert_int_equal (esp_catalog_begin (c), 0);
  insert (1, 0, "a");
  assert_int_equal (esp_catalog_commit (c), 0);
  list_is_names (NULL, "a1 ");
}

static void *
list_from_another_thread (void *done)
{
  struct esp_rp_list list = { 0 };
  assert_int_equal (esp_catalog_rp_list (c, NULL, &list), 0);
  __atomic_store_n ((int *) done, (int) list.n, __ATOMIC_SEQ_CST);
  esp_rp_list_clear (&list);
  return NULL;
}

static void
transaction_holds_the_connection_for_its_thread (void **state)
{
  pthread_t t;
  int seen = -1;

  (void) state;
  assert_int_equal (esp_catalog_begin (c), 0);
  insert (1, 0, "a");
  pthread_create (&t, NULL, list_from_another_thread, &seen);
  insert (2, 0, "b");
  assert_int_equal (__atomic_load_n (&seen, __ATOMIC_SEQ_CST), -1);
  assert_int_equal (esp_catalog_commit (c), 0);
  pthread_join (t, NULL);
  assert_int_equal (seen, 2);
}

int
main (void)
{
#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (every_field_comes_back),
    T (get_of_nothing_is_silent),
    T (find_takes_names_uuids_and_prefixes),
    T (find_refuses_what_is_not_there_or_not_unique),
    T (list_goes_down_each_branch_in_order),
    T (insert_refuses_taken_names_and_missing_parents),
    T (update_replaces_the_row),
    T (delete_refuses_what_is_needed),
    T (descends_walks_the_chain),
    T (venue_comes_back_with_its_log),
    T (missing_venues_are_told),
    T (venue_needs_a_disk_that_is_there),
    T (venue_list_of_a_subtree_wants_every_disk_in_it),
    T (rollback_takes_everything_back),
    T (transaction_holds_the_connection_for_its_thread),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
