/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog: rows, trees, names, transactions, migration, concurrency. */

#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

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

  char name[ESP_NAME_MAX + 1];
  uint64_t created;
  assert_int_equal (esp_catalog_rp_name (c, &in.uuid, name, &created), 0);
  assert_string_equal (name, "base");
  assert_int_equal (created, 1001);
}

static void
get_of_nothing_is_silent (void **state)
{
  esp_uuid u = uuid (9);
  struct esp_rp out;
  char name[ESP_NAME_MAX + 1];
  uint64_t created;

  (void) state;
  assert_int_equal (esp_catalog_rp_get (c, &u, &out), -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_catalog_rp_name (c, &u, name, &created), -1);
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

/* --- opening ------------------------------------------------------------ */

/* Open the database beside the catalog's back and run TEXT. */
static void
sql (const char *text)
{
  char file[4096];
  sqlite3 *db;

  snprintf (file, sizeof file, "%s/catalog.db", dir);
  assert_int_equal (sqlite3_open (file, &db), SQLITE_OK);
  if (sqlite3_exec (db, text, NULL, NULL, NULL) != SQLITE_OK)
    fail_msg ("%s", sqlite3_errmsg (db));
  sqlite3_close (db);
}

static void
reopen_fails (int err, const char *text)
{
  c = esp_catalog_open (dir, false);
  assert_null (c);
  assert_int_equal (errno, err);
  if (!strstr (unit_error, text))
    fail_msg ("'%s' does not contain '%s'", unit_error, text);
}

/* What step 4 of the schema made. */
#define UNDO_4 \
  "DROP TABLE venue_boot; DROP TABLE client; DROP TABLE client_seen;" \
  "DROP TABLE need_resource; DROP TABLE need;"

static void
older_schema_is_migrated (void **state)
{
  (void) state;
  insert (1, 0, "a");
  insert (2, 1, "b");
  put ("v", 2, 0, 1);
  esp_catalog_close (c);
  sql (UNDO_4 "DROP INDEX rp_parent; DROP INDEX venue_disk_tip;"
       "PRAGMA user_version = 1");
  c = esp_catalog_open (dir, false);
  assert_non_null (c);
  list_is_names (NULL, "a1 b2 ");
  /* All steps have run: the next one that opens it finds nothing to do. */
  sql ("DROP INDEX rp_parent; DROP INDEX venue_disk_tip");
}

/* What the table was before there were delayed restore points. */
static void
older_kinds_are_migrated (void **state)
{
  struct esp_rp r = rp (2, 1, "b"), out;

  (void) state;
  insert (1, 0, "a");
  esp_catalog_close (c);
  sql (UNDO_4 "PRAGMA writable_schema = ON;"
       "UPDATE sqlite_schema SET sql = replace (sql, '(0, 1, 2)', '(0, 1)');"
       "PRAGMA writable_schema = RESET; PRAGMA user_version = 2");
  c = esp_catalog_open (dir, false);
  assert_non_null (c);
  r.kind = ESP_RP_DELAYED;
  if (esp_catalog_rp_insert (c, &r) == -1)
    fail_msg ("%s", unit_error);
  assert_int_equal (esp_catalog_rp_get (c, &r.uuid, &out), 0);
  assert_int_equal (out.kind, ESP_RP_DELAYED);
  esp_rp_clear (&out);
  r.kind = 3;
  r.uuid = uuid (3);
  assert_int_equal (esp_catalog_rp_insert (c, &r), -1);
  assert_int_equal (esp_catalog_check (c), 0);
  /* Nothing but that text has changed. */
  list_is_names (NULL, "a1 b2 ");
}

static void
migration_that_fails_changes_nothing (void **state)
{
  (void) state;
  insert (1, 0, "a");
  esp_catalog_close (c);
  sql (UNDO_4 "DROP INDEX rp_parent; PRAGMA user_version = 1");
  reopen_fails (EBADMSG, "venue_disk_tip");     /* is there already */
  sql ("DROP INDEX venue_disk_tip");            /* and rp_parent is not */
  c = esp_catalog_open (dir, false);
  assert_non_null (c);
  list_is_names (NULL, "a1 ");
}

static void
what_is_no_catalog_is_refused (void **state)
{
  char cmd[4200];

  (void) state;
  esp_catalog_close (c);
  sql ("PRAGMA user_version = 99");
  reopen_fails (ENOTSUP, "newer espalier");
  sql ("PRAGMA user_version = 2; PRAGMA application_id = 5");
  reopen_fails (EBADMSG, "no catalog");
  snprintf (cmd, sizeof cmd, "rm %s/catalog.db*", dir);
  assert_int_equal (system (cmd), 0);
  reopen_fails (ENOENT, "store rebuild");
  snprintf (cmd, sizeof cmd, ": >%s/catalog.db", dir);
  assert_int_equal (system (cmd), 0);
  reopen_fails (EBADMSG, "store rebuild");
  snprintf (cmd, sizeof cmd, "yes garbage | head -c 9000 >%s/catalog.db", dir);
  assert_int_equal (system (cmd), 0);
  reopen_fails (EBADMSG, "store rebuild");
}

static void
damage_is_found (void **state)
{
  (void) state;
  insert (1, 0, "a");
  insert (2, 1, "b");
  insert (3, 2, "c");
  assert_int_equal (esp_catalog_check (c), 0);
  sql ("UPDATE rp SET parent = (SELECT uuid FROM rp WHERE name = 'c')"
       " WHERE name = 'b'");
  assert_int_equal (esp_catalog_check (c), -1);
  assert_int_equal (errno, EBADMSG);
  assert_non_null (strstr (unit_error, "in a ring"));
  struct esp_rp rp = { 0 };                     /* ends, in spite of it */
  esp_uuid u = uuid (3);
  assert_int_equal (esp_catalog_rp_get (c, &u, &rp), 0);
  esp_rp_clear (&rp);
  sql ("DELETE FROM rp WHERE name = 'a'");
  sql ("UPDATE rp SET parent = x'00' WHERE name = 'b'");
  assert_int_equal (esp_catalog_check (c), -1);
  assert_non_null (strstr (unit_error, "point at nothing"));
}

/* --- read-only ------------------------------------------------------------ */

/* In a child with a mount namespace of its own, DIR mounted read-only: open
 * and read.  Exits with a step's number, 0 when all went well, 77 when the
 * machine does not allow it.
 */
static void
use_readonly (int want_rows)
{
  struct esp_rp_list list;

  if (unshare (CLONE_NEWNS) == -1 ||
      mount (NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
      mount (dir, dir, NULL, MS_BIND, NULL) == -1 ||
      mount (NULL, dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == -1)
    _exit (77);
  c = esp_catalog_open (dir, false);
  if (!c)
    _exit (1);
  if (!esp_catalog_readonly (c))
    _exit (2);
  if (esp_catalog_rp_list (c, NULL, &list) == -1 || list.n != (size_t) want_rows)
    _exit (3);
  esp_rp_list_clear (&list);
  if (esp_catalog_begin (c) == 0 || errno != EROFS ||
      !strstr (unit_error, "read-only"))
    _exit (4);
  if (esp_catalog_check (c) == -1)
    _exit (5);
  esp_catalog_close (c);
  _exit (0);
}

static void
readonly_works (int want_rows)
{
  pid_t pid = fork ();
  int status;

  if (pid == 0)
    use_readonly (want_rows);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  if (WEXITSTATUS (status) == 77) {
    print_message ("# skipped: this machine allows no mount namespace\n");
    skip ();
  }
  assert_int_equal (WEXITSTATUS (status), 0);
}

static void
read_only_file_system_is_fine (void **state)
{
  char cmd[4200];

  (void) state;
  insert (1, 0, "a");
  esp_catalog_close (c);
  c = NULL;
  readonly_works (1);                   /* with the empty log beside it */
  snprintf (cmd, sizeof cmd, "rm -f %s/catalog.db-*", dir);
  assert_int_equal (system (cmd), 0);
  readonly_works (1);                   /* a copy of the file alone */
  /* A writer that was killed left its log. */
  pid_t pid = fork ();
  if (pid == 0) {
    struct esp_rp r = rp (2, 0, "b");
    c = esp_catalog_open (dir, false);
    _exit (c && esp_catalog_rp_insert (c, &r) == 0 ? 0 : 1);
  }
  int status;
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  readonly_works (2);
}

static void
user_without_permission_reads (void **state)
{
  pid_t pid;
  int status;

  (void) state;
  if (geteuid () != 0) {
    print_message ("# skipped: only root can become another user\n");
    skip ();
  }
  insert (1, 0, "a");
  assert_int_equal (chmod (dir, 0755), 0);
  pid = fork ();
  if (pid == 0) {
    struct esp_rp r = rp (2, 0, "b");
    struct esp_catalog *mine;
    if (setuid (65534) == -1 || !(mine = esp_catalog_open (dir, false)))
      _exit (1);
    if (!esp_catalog_readonly (mine) ||
        esp_catalog_rp_get (mine, &(esp_uuid) { { 0, 1, 1, [15] = 1 } },
                            &r) == -1)
      _exit (2);
    _exit (esp_catalog_begin (mine) == -1 && errno == EROFS ? 0 : 3);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
}

/* --- many at once --------------------------------------------------------- */

static int
read_until (const char *stop)
{
  struct esp_catalog *mine = esp_catalog_open (dir, false);

  while (mine && access (stop, F_OK) == -1) {
    struct esp_rp_list list;
    struct esp_venue_list venues;
    esp_uuid tip, root = uuid (1);

    if (esp_catalog_rp_list (mine, NULL, &list) == -1 || list.n < 1 ||
        esp_catalog_venue_list (mine, &root, &venues) == -1 ||
        esp_catalog_venue_tip (mine, "v", 0, &tip) == -1)
      return 1;
    esp_rp_list_clear (&list);
    esp_venue_list_clear (&venues);
  }
  return mine ? 0 : 2;
}

static void
six_readers_and_a_writer_meet_no_error (void **state)
{
  char stop[4096];
  pid_t pid[6];
  int status;

  (void) state;
  insert (1, 0, "root");
  put ("v", 1, 0, 1);
  snprintf (stop, sizeof stop, "%s/stop", dir);
  /* A connection must not be carried over a fork. */
  esp_catalog_close (c);
  for (int i = 0; i < 6; ++i)
    if ((pid[i] = fork ()) == 0)
      _exit (read_until (stop));
  c = esp_catalog_open (dir, false);
  for (unsigned i = 2; i < 400; ++i) {
    char name[32];

    snprintf (name, sizeof name, "n%u", i);
    assert_int_equal (esp_catalog_begin (c), 0);
    insert (i, i / 2, name);
    put ("v", i, 0, i);
    assert_int_equal (esp_catalog_commit (c), 0);
  }
  close (open (stop, O_CREAT | O_WRONLY, 0600));
  for (int i = 0; i < 6; ++i) {
    assert_int_equal (waitpid (pid[i], &status, 0), pid[i]);
    assert_int_equal (status, 0);
  }
  assert_int_equal (esp_catalog_check (c), 0);
}

static void
two_writers_wait_for_each_other (void **state)
{
  pid_t pid;
  int status;

  (void) state;
  esp_catalog_close (c);
  pid = fork ();
  c = esp_catalog_open (dir, false);
  for (unsigned i = 1; i < 200; ++i) {
    char name[32];
    struct esp_rp r = rp (pid ? i : i + 1000, 0, "");

    snprintf (name, sizeof name, "%d-%u", pid ? 1 : 2, i);
    strcpy (r.name, name);
    if (esp_catalog_rp_insert (c, &r) == -1 && !pid)
      _exit (1);
  }
  if (!pid)
    _exit (0);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  struct esp_rp_list list;
  assert_int_equal (esp_catalog_rp_list (c, NULL, &list), 0);
  assert_int_equal (list.n, 398);
  esp_rp_list_clear (&list);
}

/* --- large trees ----------------------------------------------------------- */

static double
now (void)
{
  struct timespec t;

  /* Of the processor: what else the machine does counts for nothing. */
  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* The times are printed, and only absurd ones fail: this is no benchmark. */
static void
large_tree_is_quick (void **state)
{
  struct esp_venue_list venues;
  struct esp_rp_list list;
  esp_uuid deep = uuid (1000), start = uuid (2), tip;
  struct esp_rp rp;
  double t;

  (void) state;
  assert_int_equal (esp_catalog_begin (c), 0);
  for (unsigned i = 1; i <= 10000; ++i) {
    char name[32];

    snprintf (name, sizeof name, "n%u", i);
    insert (i, i <= 1000 ? i - 1 : i % 1000 + 1, name);
    put (name, i, 0, 1);
  }
  assert_int_equal (esp_catalog_commit (c), 0);
  t = now ();
  assert_int_equal (esp_catalog_rp_list (c, NULL, &list), 0);
  print_message ("# rp_list of %zu: %.1f ms\n", list.n, (now () - t) * 1e3);
  assert_int_equal (list.n, 10000);
  esp_rp_list_clear (&list);
  t = now ();
  assert_int_equal (esp_catalog_venue_list (c, NULL, &venues), 0);
  print_message ("# venue_list of %zu: %.1f ms\n", venues.n,
                 (now () - t) * 1e3);
  assert_int_equal (venues.n, 10000);
  esp_venue_list_clear (&venues);
  t = now ();
  assert_int_equal (esp_catalog_venue_list (c, &start, &venues), 0);
  t = now () - t;
  print_message ("# venue_list below start: %zu in %.1f ms\n", venues.n,
                 t * 1e3);
  assert_true (venues.n > 9000 && venues.n < 10000);
  assert_true (t < 2);
  esp_venue_list_clear (&venues);
  t = now ();
  assert_int_equal (esp_catalog_rp_get (c, &deep, &rp), 0);
  print_message ("# rp_get at depth %u: %.2f ms\n", rp.depth,
                 (now () - t) * 1e3);
  assert_int_equal (rp.depth, 1000);
  esp_rp_clear (&rp);
  t = now ();
  for (unsigned i = 0; i < 10000; ++i)
    assert_int_equal (esp_catalog_venue_tip (c, "n77", 0, &tip), 0);
  print_message ("# venue_tip: %.1f us\n", (now () - t) * 1e2);
  assert_int_equal (esp_catalog_check (c), 0);
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
    T (older_schema_is_migrated),
    T (older_kinds_are_migrated),
    T (migration_that_fails_changes_nothing),
    T (what_is_no_catalog_is_refused),
    T (damage_is_found),
    T (read_only_file_system_is_fine),
    T (user_without_permission_reads),
    T (six_readers_and_a_writer_meet_no_error),
    T (two_writers_wait_for_each_other),
    T (large_tree_is_quick),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
