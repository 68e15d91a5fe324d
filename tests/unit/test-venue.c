/* SPDX-License-Identifier: BSD-3-Clause */
/* Venues: documents and rows change together; export names find tips. */

#include "unit.h"

#include <sys/stat.h>

#include "overlay/admin.h"
#include "store/venue.h"
#include "util/doc.h"
#include "util/cleanup.h"

static char *dir, *path;
static struct esp_store *store;
static struct esp_catalog *c;
static esp_uuid a, b, other;    /* b over a; another root */

static esp_uuid
add_rp (const char *name, const esp_uuid *parent)
{
  struct esp_rp rp = { .size = 4096, .created = 1, .note = (char *) "" };

  esp_uuid_new (&rp.uuid);
  if (parent)
    rp.parent = *parent;
  snprintf (rp.name, sizeof rp.name, "%s", name);
  assert_int_equal (esp_catalog_rp_insert (c, &rp), 0);
  return rp.uuid;
}

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  assert_true (asprintf (&path, "%s/store", dir) > 0);
  assert_int_equal (esp_store_init (path), 0);
  store = esp_store_open (path);
  assert_non_null (store);
  c = esp_store_catalog (store);
  a = add_rp ("a", NULL);
  b = add_rp ("b", &a);
  other = add_rp ("other", NULL);
  unit_error[0] = 0;
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  esp_store_close (store);
  free (path);
  unit_rmdir (dir);
  return 0;
}

/* Document and rows say the same; returns the revision. */
static uint64_t
both_agree (const char *id)
{
  CLEANUP_VENUE struct esp_venue v = { 0 }, w = { 0 };
  CLEANUP_VENUE_LOG struct esp_venue_log l = { 0 }, m = { 0 };

  assert_int_equal (esp_venue_load (store, id, &v, &l), 0);
  assert_int_equal (esp_catalog_venue_get (c, id, &w), 0);
  assert_int_equal (esp_catalog_venue_log (c, id, &m), 0);
  assert_int_equal (v.revision, w.revision);
  assert_int_equal (v.created, w.created);
  assert_int_equal (v.changed, w.changed);
  assert_string_equal (v.description, w.description);
  assert_int_equal (v.ndisks, w.ndisks);
  assert_memory_equal (v.disks, w.disks, v.ndisks * sizeof v.disks[0]);
  assert_int_equal (l.n, m.n);
  for (size_t i = 0; i < l.n; ++i) {
    assert_int_equal (l.change[i].revision, m.change[i].revision);
    assert_int_equal (l.change[i].time, m.change[i].time);
    assert_string_equal (l.change[i].action, m.change[i].action);
    assert_string_equal (l.change[i].description, m.change[i].description);
    assert_int_equal (l.change[i].ndisks, m.change[i].ndisks);
    assert_memory_equal (l.change[i].disks, m.change[i].disks,
                         l.change[i].ndisks * sizeof l.change[i].disks[0]);
  }
  return v.revision;
}

static void
fails (int r, int err, const char *text)
{
  assert_int_equal (r, -1);
  assert_int_equal (errno, err);
  if (!strstr (unit_error, text))
    fail_msg ("'%s' does not contain '%s'", unit_error, text);
  unit_error[0] = 0;
}

static void
add_writes_document_and_rows (void **state)
{
  esp_uuid disks[2] = { a, b };

  (void) state;
  assert_int_equal (esp_venue_add (store, "cafe", disks, 2, "d'or \"x\""), 0);
  assert_int_equal (both_agree ("cafe"), 1);
  assert_int_equal (esp_venue_add (store, "plain", &a, 1, NULL), 0);
  assert_int_equal (both_agree ("plain"), 1);
}

static void
add_refuses_bad_input_and_changes_nothing (void **state)
{
  struct esp_venue_list list;
  static esp_uuid many[257];
  esp_uuid none = { { 1 } };

  (void) state;
  fails (esp_venue_add (store, "../x", &a, 1, ""), EINVAL, "../x");
  fails (esp_venue_add (store, "", &a, 1, ""), EINVAL, "");
  fails (esp_venue_add (store, "x'; DROP", &a, 1, ""), EINVAL, "x'; DROP");
  fails (esp_venue_add (store, "x", &a, 0, ""), EINVAL, "1 to 256");
  fails (esp_venue_add (store, "x", many, 257, ""), EINVAL, "257");
  fails (esp_venue_add (store, "x", &none, 1, ""), ENOENT, "01000000-");
  fails (esp_venue_add (store, "x", &a, 1, "a\nb"), EINVAL, "control");
  fails (esp_venue_add (store, "x", &a, 1, "\xff"), EINVAL, "UTF-8");
  assert_int_equal (esp_catalog_venue_list (c, NULL, &list), 0);
  assert_int_equal (list.n, 0);
  assert_int_equal (esp_venue_add (store, "x", &a, 1, ""), 0);
  fails (esp_venue_add (store, "x", &a, 1, ""), EEXIST, "already a venue 'x'");
  assert_int_equal (both_agree ("x"), 1);
}

static void
set_keeps_what_is_not_given (void **state)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };

  (void) state;
  assert_int_equal (esp_venue_add (store, "v", &a, 1, "one"), 0);
  assert_int_equal (esp_venue_set (store, "v", &b, 1, NULL), 0);
  assert_int_equal (both_agree ("v"), 2);
  assert_int_equal (esp_venue_set (store, "v", NULL, 0, "two"), 0);
  assert_int_equal (both_agree ("v"), 3);
  assert_int_equal (esp_venue_set (store, "v", &b, 1, "two"), 0);
  assert_int_equal (esp_venue_set (store, "v", NULL, 0, NULL), 0);
  assert_int_equal (both_agree ("v"), 3);
  assert_int_equal (esp_catalog_venue_get (c, "v", &v), 0);
  assert_string_equal (v.description, "two");
  assert_true (esp_uuid_eq (&v.disks[0], &b));
  fails (esp_venue_set (store, "w", &a, 1, NULL), ENOENT, "no venue 'w'");
  fails (esp_venue_set (store, "../v", &a, 1, NULL), EINVAL, "../v");
}

static void
rollback_takes_an_earlier_revision (void **state)
{
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };
  esp_uuid tip;

  (void) state;
  assert_int_equal (esp_venue_add (store, "v", &a, 1, "one"), 0);
  fails (esp_venue_rollback (store, "v", 0), ENOENT, "no earlier revision");
  assert_int_equal (esp_venue_set (store, "v", &b, 1, "two"), 0);
  assert_int_equal (esp_venue_set (store, "v", &other, 1, NULL), 0);
  assert_int_equal (esp_venue_rollback (store, "v", 0), 0);
  assert_int_equal (esp_catalog_venue_tip (c, "v", 0, &tip), 0);
  assert_true (esp_uuid_eq (&tip, &b));
  assert_int_equal (esp_venue_rollback (store, "v", 1), 0);
  assert_int_equal (both_agree ("v"), 5);
  assert_int_equal (esp_catalog_venue_log (c, "v", &log), 0);
  assert_string_equal (log.change[4].action, "rollback to 1");
  assert_string_equal (log.change[4].description, "one");
  fails (esp_venue_rollback (store, "v", 9), ENOENT, "no revision 9");
  fails (esp_venue_rollback (store, "w", 1), ENOENT, "no venue 'w'");
}

static void
rollback_refuses_what_is_gone (void **state)
{
  char text[ESP_UUID_TEXT];

  (void) state;
  assert_int_equal (esp_venue_add (store, "v", &other, 1, ""), 0);
  assert_int_equal (esp_venue_set (store, "v", &a, 1, NULL), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &other), 0);
  fails (esp_venue_rollback (store, "v", 1), ENOENT,
         esp_uuid_text (&other, text));
  assert_int_equal (both_agree ("v"), 2);
}

static void
change_begins_with_a_document_that_is_newer (void **state)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };

  (void) state;
  assert_int_equal (esp_venue_add (store, "v", &a, 1, "one"), 0);
  assert_int_equal (esp_catalog_venue_get (c, "v", &v), 0);
  assert_int_equal (esp_catalog_venue_log (c, "v", &log), 0);
  assert_int_equal (esp_venue_set (store, "v", &b, 1, "two"), 0);
  /* As after a crash between document and commit: */
  assert_int_equal (esp_catalog_venue_put (c, &v, NULL), 0);
  assert_int_equal (esp_catalog_venue_set_log (c, "v", &log), 0);
  assert_int_equal (esp_venue_set (store, "v", NULL, 0, "three"), 0);
  assert_int_equal (both_agree ("v"), 3);
}

static void
write_doc (const char *id, const char *body)
{
  CLEANUP_FREE char *p = NULL;
  FILE *f;

  assert_true (asprintf (&p, "%s/venues/%s", path, id) > 0);
  f = fopen (p, "w");
  fputs (body, f);
  assert_int_equal (fclose (f), 0);
}

static void
documents_are_not_trusted (void **state)
{
  struct esp_venue v;
  struct esp_venue_log l;

  (void) state;
  fails (esp_venue_load (store, "v", &v, &l), ENOENT, "no venue 'v'");
  fails (esp_venue_load (store, "../espalier", &v, &l), EINVAL, "../espalier");
  assert_int_equal (esp_venue_add (store, "v", &a, 1, ""), 0);
  write_doc ("v", "espalier-venue 1 xxh3:0000000000000000\n{}\n");
  fails (esp_venue_load (store, "v", &v, &l), EBADMSG, "checksum");
  fails (esp_venue_set (store, "v", &b, 1, NULL), EBADMSG, "checksum");
  write_doc ("w", "espalier-venue 1 xxh3:0000000000000000\n{}\n");
  fails (esp_venue_add (store, "w", &b, 1, NULL), EEXIST, "check --repair");
  CLEANUP_FREE char *p = NULL;
  assert_true (asprintf (&p, "%s/venues/v", path) > 0);
  unlink (p);
  fails (esp_venue_set (store, "v", &b, 1, NULL), ENOENT, "check --repair");
}

/* Each variation of a valid document is refused. */
static void
every_field_of_a_document_is_checked (void **state)
{
  static const char *const bad[] = {
    "{}", "{\"id\": \"v\"}", "{\"id\": 1}", "{\"revision\": 2}",
    "{\"revision\": -1}", "{\"created\": \"x\"}", "{\"changed\": -5}",
    "{\"description\": null}", "{\"description\": \"a\\u0000b\"}",
    "{\"disks\": []}", "{\"disks\": [1]}", "{\"disks\": [\"zz\"]}",
    "{\"disks\": [\"00000000-0000-0000-0000-000000000000\"]}",
    "{\"disks\": {}}", "{\"log\": []}", "{\"log\": 1}", "{\"log\": [[]]}",
    "{\"log\": [{}]}",
  };
  struct esp_venue v;
  struct esp_venue_log l;

  (void) state;
  assert_int_equal (esp_venue_add (store, "v", &a, 1, ""), 0);
  int fd = esp_store_venues_fd (store);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    json_t *doc = esp_doc_load (fd, "v", "venue", 1);
    json_t *part = json_loads (bad[i], 0, NULL);
    json_object_set_new (doc, "id", json_string ("w"));
    if (i == 0)
      json_object_clear (doc);
    else if (part)
      json_object_update (doc, part);
    else                        /* jansson refuses \u0000 unless asked */
      json_object_del (doc, "description");
    assert_int_equal (esp_doc_save (fd, "w", "venue", 1, doc, 0644), 0);
    fails (esp_venue_load (store, "w", &v, &l), EBADMSG, "field");
    json_decref (part);
    json_decref (doc);
  }
}

/* --- deleting ---------------------------------------------------------- */

static void
delete_forgets_document_and_rows (void **state)
{
  struct esp_venue v;
  struct esp_venue_log l;

  (void) state;
  fails (esp_venue_delete (store, "v", false), ENOENT, "no venue 'v'");
  fails (esp_venue_delete (store, "../v", true), EINVAL, "../v");
  assert_int_equal (esp_venue_add (store, "v", &a, 1, ""), 0);
  assert_int_equal (esp_venue_delete (store, "v", false), 0);
  fails (esp_venue_load (store, "v", &v, &l), ENOENT, "no venue 'v'");
  fails (esp_catalog_venue_get (c, "v", &v), ENOENT, "no venue 'v'");
  assert_int_equal (esp_venue_add (store, "v", &b, 1, ""), 0);
  assert_int_equal (both_agree ("v"), 1);
}

static void
delete_refuses_what_clients_wrote_unless_forced (void **state)
{
  const struct esp_overlay_params params = { .mode = ESP_OVERLAY_KEEP };
  const struct esp_overlay_id id = { "v", "0", "seat-7" };
  CLEANUP_FREE char *dir_path = NULL;
  struct esp_overlay_info_list list;
  static char block[4096] = { 1 };
  int err;

  (void) state;
  assert_int_equal (esp_venue_add (store, "v", &a, 1, ""), 0);
  assert_true (asprintf (&dir_path, "%s/overlays", path) > 0);
  struct esp_overlay_place *place = esp_overlay_place_open (dir_path, &params);
  assert_non_null (place);
  struct esp_overlay *o = esp_overlay_open (place, &id, &a, 4096);
  assert_non_null (o);
  assert_int_equal (esp_overlay_pwrite (o, NULL, block, 4096, 0, true, &err),
                    0);
  fails (esp_venue_delete (store, "v", false), EBUSY, "'seat-7' is connected");
  fails (esp_venue_delete (store, "v", true), EBUSY, "'seat-7' is connected");
  assert_int_equal (both_agree ("v"), 1);
  esp_overlay_close (o);
  esp_overlay_place_close (place);
  fails (esp_venue_delete (store, "v", false), EBUSY, "what 1 client wrote");
  assert_int_equal (both_agree ("v"), 1);
  assert_int_equal (esp_venue_delete (store, "v", true), 0);
  assert_int_equal (esp_overlay_list (esp_store_overlays_fd (store), NULL,
                                      &list), 0);
  assert_int_equal (list.n, 0);
}

/* --- export names ------------------------------------------------------ */

static int
tip_of (const char *name, const esp_uuid *start, esp_uuid *tip)
{
  struct esp_export e;

  assert_int_equal (esp_export_parse (name, &e), 0);
  return esp_export_tip (store, &e, start, tip);
}

static void
export_names_find_tips (void **state)
{
  esp_uuid disks[2] = { a, b }, tip;

  (void) state;
  assert_int_equal (esp_venue_add (store, "v", disks, 2, ""), 0);
  assert_int_equal (tip_of ("v", NULL, &tip), 0);
  assert_true (esp_uuid_eq (&tip, &a));
  assert_int_equal (tip_of ("v/1@seat-7", NULL, &tip), 0);
  assert_true (esp_uuid_eq (&tip, &b));
  assert_int_equal (tip_of ("rp:other", NULL, &tip), 0);
  assert_true (esp_uuid_eq (&tip, &other));
  fails (tip_of ("v/2", NULL, &tip), ENOENT, "has no disk 2: it has 2");
  fails (tip_of ("w", NULL, &tip), ENOENT, "no venue 'w'");
  fails (tip_of ("rp:w", NULL, &tip), ENOENT, "no restore point 'w'");
}

static void
start_limits_to_a_subtree (void **state)
{
  esp_uuid half[2] = { b, a }, tip;

  (void) state;
  assert_int_equal (esp_venue_add (store, "in", &b, 1, ""), 0);
  assert_int_equal (esp_venue_add (store, "half", half, 2, ""), 0);
  assert_int_equal (tip_of ("in", &b, &tip), 0);
  assert_int_equal (tip_of ("half", &a, &tip), 0);
  assert_int_equal (tip_of ("rp:b", &a, &tip), 0);
  fails (tip_of ("half", &b, &tip), EACCES, "venue 'half' is outside");
  fails (tip_of ("half/1", &b, &tip), EACCES, "venue 'half' is outside");
  fails (tip_of ("rp:a", &b, &tip), EACCES, "restore point 'a' is outside");
  fails (tip_of ("rp:other", &a, &tip), EACCES, "outside");
  fails (tip_of ("w", &a, &tip), ENOENT, "no venue 'w'");
}

int
main (void)
{
#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (add_writes_document_and_rows),
    T (add_refuses_bad_input_and_changes_nothing),
    T (set_keeps_what_is_not_given),
    T (rollback_takes_an_earlier_revision),
    T (rollback_refuses_what_is_gone),
    T (change_begins_with_a_document_that_is_newer),
    T (documents_are_not_trusted),
    T (every_field_of_a_document_is_checked),
    T (delete_forgets_document_and_rows),
    T (delete_refuses_what_clients_wrote_unless_forced),
    T (export_names_find_tips),
    T (start_limits_to_a_subtree),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
