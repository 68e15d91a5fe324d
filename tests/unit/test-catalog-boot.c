/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog's tables of booting: venues' settings, clients, what was seen
 * of them, needs; and the way there from a catalog that had none.
 */

#include "unit.h"

#include <sqlite3.h>
#include <time.h>

#include "catalog/catalog.h"

static char *dir;
static struct esp_catalog *c;

static void
sql (const char *text)
{
  char file[4200], *err = NULL;
  sqlite3 *db;

  snprintf (file, sizeof file, "%s/catalog.db", dir);
  assert_int_equal (sqlite3_open (file, &db), SQLITE_OK);
  if (sqlite3_exec (db, text, NULL, NULL, &err) != SQLITE_OK)
    fail_msg ("%s", err);
  sqlite3_close (db);
}

static int
setup (void **state)
{
  esp_uuid tip = { { 1 } };
  struct esp_rp rp = { .uuid = tip, .name = "base", .size = 4096,
                       .note = (char *) "" };
  struct esp_venue v = { .id = "cafe", .description = (char *) "",
                         .revision = 1, .ndisks = 1, .disks = &tip };

  (void) state;
  dir = unit_mkdir ();
  c = esp_catalog_open (dir, true);
  if (!c || esp_catalog_rp_insert (c, &rp) == -1 ||
      esp_catalog_venue_put (c, &v, NULL) == -1)
    return -1;
  strcpy (v.id, "bar");
  unit_error[0] = 0;
  return esp_catalog_venue_put (c, &v, NULL);
}

static int
teardown (void **state)
{
  (void) state;
  esp_catalog_close (c);
  unit_rmdir (dir);
  return 0;
}

static void
error_is (int want, const char *text)
{
  assert_int_equal (errno, want);
  if (!strstr (unit_error, text))
    fail_msg ("\"%s\" does not say \"%s\"", unit_error, text);
}

/* --- ways to boot ---------------------------------------------------------- */

static void
ways_have_names (void **state)
{
  static const char *const names[] = { "", "iscsi", "http", "nbdroot" };
  enum esp_boot boot;

  (void) state;
  for (unsigned i = 0; i < 4; ++i) {
    assert_string_equal (esp_boot_name (i), names[i]);
    assert_int_equal (esp_boot_parse (names[i], &boot), 0);
    assert_int_equal (boot, i);
  }
  assert_string_equal (esp_boot_name (4), "");
  assert_string_equal (esp_boot_name (-1), "");
  assert_int_equal (esp_boot_parse ("ISCSI\n", &boot), -1);
  error_is (EINVAL, "use iscsi, http or nbdroot");
  assert_int_equal (boot, 3);
}

/* --- venues' settings ------------------------------------------------------ */

static struct esp_venue_boot settings = {
  .id = "cafe", .boot = ESP_BOOT_NBDROOT, .kernel = (char *) "image:/vmlinuz",
  .initrd = (char *) "/srv/initrd", .cmdline = (char *) "quiet 'x'",
  .networks = (char *) "10.0.0.0/24 fd00::/64", .weight = 0,
};

static void
settings_are (const char *id, const struct esp_venue_boot *want)
{
  CLEANUP_VENUE_BOOT struct esp_venue_boot b = { 0 };

  if (esp_catalog_venue_boot_get (c, id, &b) == -1)
    fail_msg ("%s", unit_error);
  assert_string_equal (b.id, id);
  assert_int_equal (b.boot, want->boot);
  assert_string_equal (b.kernel, want->kernel);
  assert_string_equal (b.initrd, want->initrd);
  assert_string_equal (b.cmdline, want->cmdline);
  assert_string_equal (b.networks, want->networks);
  assert_int_equal (b.weight, want->weight);
}

static const struct esp_venue_boot defaults = {
  .kernel = (char *) "", .initrd = (char *) "", .cmdline = (char *) "",
  .networks = (char *) "", .weight = ESP_WEIGHT_DEFAULT,
};

static size_t
settings_count (void)
{
  CLEANUP_VENUE_BOOT_LIST struct esp_venue_boot_list list = { 0 };

  assert_int_equal (esp_catalog_venue_boot_list (c, &list), 0);
  for (size_t i = 1; i < list.n; ++i)
    assert_true (strcmp (list.boot[i - 1].id, list.boot[i].id) < 0);
  return list.n;
}

static void
venue_without_settings_has_defaults (void **state)
{
  struct esp_venue_boot b = { 0 };

  (void) state;
  settings_are ("cafe", &defaults);
  assert_int_equal (settings_count (), 0);
  assert_int_equal (esp_catalog_venue_boot_get (c, "pub", &b), -1);
  error_is (ENOENT, "no venue 'pub'");
}

static void
settings_come_back_and_stay (void **state)
{
  struct esp_venue_boot second = defaults;
  CLEANUP_VENUE struct esp_venue v = { 0 };

  (void) state;
  assert_int_equal (esp_catalog_venue_boot_put (c, &settings), 0);
  settings_are ("cafe", &settings);
  strcpy (second.id, "bar");
  second.weight = ESP_WEIGHT_MAX;
  assert_int_equal (esp_catalog_venue_boot_put (c, &second), 0);
  assert_int_equal (settings_count (), 2);
  /* A venue that is changed keeps them. */
  assert_int_equal (esp_catalog_venue_get (c, "cafe", &v), 0);
  v.revision = 2;
  assert_int_equal (esp_catalog_venue_put (c, &v, NULL), 0);
  settings_are ("cafe", &settings);
}

static void
settings_go (void **state)
{
  struct esp_venue_boot none = defaults;

  (void) state;
  assert_int_equal (esp_catalog_venue_boot_put (c, &settings), 0);
  strcpy (none.id, "cafe");
  none.kernel = NULL;                   /* as good as "" */
  assert_true (esp_venue_boot_unset (&none));
  assert_int_equal (esp_catalog_venue_boot_put (c, &none), 0);
  settings_are ("cafe", &defaults);
  assert_int_equal (settings_count (), 0);
  assert_int_equal (esp_catalog_venue_boot_put (c, &settings), 0);
  assert_int_equal (esp_catalog_venue_delete (c, "cafe"), 0);
  assert_int_equal (settings_count (), 0);
}

static void
settings_of_nothing_are_refused (void **state)
{
  struct esp_venue_boot b = settings, none = defaults;

  (void) state;
  strcpy (b.id, "pub");
  strcpy (none.id, "pub");
  assert_int_equal (esp_catalog_venue_boot_put (c, &b), -1);
  error_is (ENOENT, "no venue 'pub'");
  unit_error[0] = 0;
  assert_int_equal (esp_catalog_venue_boot_put (c, &none), -1);
  error_is (ENOENT, "no venue 'pub'");
  strcpy (b.id, "cafe");
  b.weight = ESP_WEIGHT_MAX + 1;
  assert_int_equal (esp_catalog_venue_boot_put (c, &b), -1);
  assert_int_equal (settings_count (), 0);
}

/* --- clients ---------------------------------------------------------------- */

static struct esp_client
client (const char *key, enum esp_client_kind kind, const char *name)
{
  struct esp_client x = { .kind = kind, .venue = "cafe", .chap = (char *) "u",
                          .boot = ESP_BOOT_HTTP, .created = 5, .changed = 6 };

  snprintf (x.key, sizeof x.key, "%s", key);
  snprintf (x.name, sizeof x.name, "%s", name);
  return x;
}

static void
put_client (const char *key, enum esp_client_kind kind, const char *name)
{
  struct esp_client x = client (key, kind, name);

  if (esp_catalog_client_put (c, &x) == -1)
    fail_msg ("%s", unit_error);
}

static void
keys_are (const char *want)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };
  char text[512] = "";

  assert_int_equal (esp_catalog_client_list (c, &list), 0);
  for (size_t i = 0; i < list.n; ++i) {
    strcat (text, list.client[i].key);
    strcat (text, " ");
  }
  assert_string_equal (text, want);
}

static void
client_comes_back (void **state)
{
  CLEANUP_CLIENT struct esp_client x = { 0 };

  (void) state;
  put_client ("52:54:00:00:00:01", ESP_CLIENT_MAC, "seat-1");
  assert_int_equal (esp_catalog_client_get (c, "52:54:00:00:00:01", &x), 0);
  assert_int_equal (x.kind, ESP_CLIENT_MAC);
  assert_string_equal (x.name, "seat-1");
  assert_string_equal (x.venue, "cafe");
  assert_int_equal (x.boot, ESP_BOOT_HTTP);
  assert_string_equal (x.chap, "u");
  assert_int_equal (x.created, 5);
  assert_int_equal (x.changed, 6);
  assert_int_equal (esp_catalog_client_get (c, "10.0.0.1", &x), -1);
  error_is (ENOENT, "no client '10.0.0.1'");
}

static void
clients_are_in_order (void **state)
{
  (void) state;
  put_client ("10.0.0.0/8", ESP_CLIENT_NETWORK, "");
  put_client ("10.0.0.0/24", ESP_CLIENT_NETWORK, "");
  put_client ("4c4c4544-0043-3510-8052-b4c04f4a4e31", ESP_CLIENT_UUID, "");
  put_client ("52:54:00:00:00:02", ESP_CLIENT_MAC, "");
  put_client ("52:54:00:00:00:01", ESP_CLIENT_MAC, "");
  keys_are ("52:54:00:00:00:01 52:54:00:00:00:02"
            " 4c4c4544-0043-3510-8052-b4c04f4a4e31 10.0.0.0/24 10.0.0.0/8 ");
}

static void
two_clients_have_two_names (void **state)
{
  struct esp_client x = client ("52:54:00:00:00:02", ESP_CLIENT_MAC, "seat-1");

  (void) state;
  put_client ("52:54:00:00:00:01", ESP_CLIENT_MAC, "seat-1");
  assert_int_equal (esp_catalog_client_put (c, &x), -1);
  error_is (EEXIST, "is client 52:54:00:00:00:01's");
  keys_are ("52:54:00:00:00:01 ");
  /* The same one may keep it, and give it away. */
  put_client ("52:54:00:00:00:01", ESP_CLIENT_MAC, "seat-1");
  put_client ("52:54:00:00:00:01", ESP_CLIENT_MAC, "");
  assert_int_equal (esp_catalog_client_put (c, &x), 0);
}

static void
client_is_deleted (void **state)
{
  (void) state;
  put_client ("10.0.0.0/8", ESP_CLIENT_NETWORK, "");
  /* Its venue may go: what the operator said stays. */
  assert_int_equal (esp_catalog_venue_delete (c, "cafe"), 0);
  keys_are ("10.0.0.0/8 ");
  assert_int_equal (esp_catalog_client_delete (c, "10.0.0.0/8"), 0);
  keys_are ("");
  assert_int_equal (esp_catalog_client_delete (c, "10.0.0.0/8"), -1);
  error_is (ENOENT, "no client '10.0.0.0/8'");
}

/* --- what was seen ----------------------------------------------------------- */

static void
see (const char *name, const char *venue, const char *needs, bool booted)
{
  struct esp_client_seen s = { .mac = "52:54:00:00:00:01",
                               .address = "10.0.0.1",
                               .needs = (char *) needs };

  snprintf (s.name, sizeof s.name, "%s", name);
  snprintf (s.venue, sizeof s.venue, "%s", venue);
  if (esp_catalog_seen_put (c, &s, booted) == -1)
    fail_msg ("%s", unit_error);
}

static void
boots_are_counted (void **state)
{
  CLEANUP_CLIENT_SEEN struct esp_client_seen s = { 0 };
  uint64_t now = (uint64_t) time (NULL);

  (void) state;
  assert_int_equal (esp_catalog_seen_get (c, "seat-1", &s), -1);
  assert_int_equal (errno, ENOENT);
  assert_string_equal (unit_error, "");
  see ("seat-1", "cafe", "Office\nCS2", true);
  sql ("UPDATE client_seen SET first = 9, last = 9");
  see ("seat-1", "", NULL, false);
  see ("seat-1", "bar", NULL, true);
  assert_int_equal (esp_catalog_seen_get (c, "seat-1", &s), 0);
  assert_string_equal (s.venue, "bar");
  assert_string_equal (s.mac, "52:54:00:00:00:01");
  assert_string_equal (s.uuid, "");
  assert_string_equal (s.address, "10.0.0.1");
  assert_string_equal (s.needs, "Office\nCS2");
  assert_int_equal (s.first, 9);
  assert_in_range (s.last, now, now + 60);
  assert_int_equal (s.boots, 2);
}

static void
needs_are_forgotten_when_none_is_ticked (void **state)
{
  CLEANUP_CLIENT_SEEN_LIST struct esp_client_seen_list list = { 0 };

  (void) state;
  see ("b", "cafe", "Office", true);
  see ("a", "cafe", NULL, true);
  see ("b", "", "", false);
  assert_int_equal (esp_catalog_seen_list (c, &list), 0);
  assert_int_equal (list.n, 2);
  assert_string_equal (list.seen[0].name, "a");
  assert_string_equal (list.seen[0].needs, "");
  assert_string_equal (list.seen[1].venue, "cafe");
  assert_string_equal (list.seen[1].needs, "");
}

static void
longest_unseen_is_forgotten (void **state)
{
  CLEANUP_CLIENT_SEEN_LIST struct esp_client_seen_list list = { 0 };
  struct esp_client_seen s = { 0 };

  (void) state;
  sql ("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
       " WHERE i < 10000) INSERT INTO client_seen"
       " SELECT 'm' || i, '', '', '', '', '', 1, 20000 - i, 1 FROM n");
  see ("m10000", "", NULL, true);               /* is there: nobody goes */
  see ("new", "", NULL, true);
  assert_int_equal (esp_catalog_seen_list (c, &list), 0);
  assert_int_equal (list.n, ESP_SEEN_MAX);
  assert_int_equal (esp_catalog_seen_get (c, "m9999", &s), -1);
  assert_int_equal (esp_catalog_seen_get (c, "new", &s), 0);
  esp_client_seen_clear (&s);
  assert_int_equal (esp_catalog_seen_get (c, "m10000", &s), 0);
  esp_client_seen_clear (&s);
}

/* --- needs -------------------------------------------------------------------- */

static struct esp_resource takes[] = {
  { (char *) "env", (char *) "Windows", (char *) "11" },
  { (char *) "app", (char *) "CS2", NULL },
};

static void
need_comes_back (void **state)
{
  struct esp_need in = { .name = (char *) "CS2 tournament; --",
                         .description = NULL, .resources = takes,
                         .nresources = 2 };
  CLEANUP_NEED struct esp_need out = { 0 };
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 };

  (void) state;
  assert_int_equal (esp_catalog_need_put (c, &in), 0);
  assert_int_equal (esp_catalog_need_get (c, in.name, &out), 0);
  assert_string_equal (out.name, in.name);
  assert_string_equal (out.description, "");
  assert_int_equal (out.nresources, 2);
  assert_string_equal (out.resources[0].kind, "env");
  assert_string_equal (out.resources[0].version, "11");
  assert_string_equal (out.resources[1].name, "CS2");
  assert_string_equal (out.resources[1].version, "");
  in.nresources = 1;                            /* replaced as a whole */
  in.description = (char *) "d";
  assert_int_equal (esp_catalog_need_put (c, &in), 0);
  in.name = (char *) "A";
  in.nresources = 0;
  assert_int_equal (esp_catalog_need_put (c, &in), 0);
  assert_int_equal (esp_catalog_need_list (c, &list), 0);
  assert_int_equal (list.n, 2);
  assert_string_equal (list.need[0].name, "A");
  assert_int_equal (list.need[0].nresources, 0);
  assert_int_equal (list.need[1].nresources, 1);
  assert_string_equal (list.need[1].description, "d");
}

static void
need_is_deleted (void **state)
{
  struct esp_need in = { .name = (char *) "Office", .resources = takes,
                         .nresources = 2 };
  struct esp_need out;

  (void) state;
  assert_int_equal (esp_catalog_need_put (c, &in), 0);
  assert_int_equal (esp_catalog_need_delete (c, "Office"), 0);
  assert_int_equal (esp_catalog_need_get (c, "Office", &out), -1);
  error_is (ENOENT, "no need 'Office'");
  unit_error[0] = 0;
  assert_int_equal (esp_catalog_need_delete (c, "Off\x1b[1mice"), -1);
  error_is (ENOENT, "no need 'Off\\x1b[1mice'");
  assert_int_equal (esp_catalog_check (c), 0);
}

/* --- from schema 3 -------------------------------------------------------------- */

static void
catalog_without_booting_is_migrated (void **state)
{
  CLEANUP_VENUE_LIST struct esp_venue_list venues = { 0 };

  (void) state;
  esp_catalog_close (c);
  sql ("DROP TABLE venue_boot; DROP TABLE client; DROP TABLE client_seen;"
       "DROP TABLE need_resource; DROP TABLE need; PRAGMA user_version = 3");
  c = esp_catalog_open (dir, false);
  assert_non_null (c);
  assert_int_equal (esp_catalog_venue_list (c, NULL, &venues), 0);
  assert_int_equal (venues.n, 2);
  settings_are ("cafe", &defaults);
  settings_come_back_and_stay (NULL);
  client_comes_back (NULL);
  unit_error[0] = 0;
  boots_are_counted (NULL);
  need_comes_back (NULL);
  assert_int_equal (esp_catalog_check (c), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown (fn, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    T (ways_have_names),
    T (venue_without_settings_has_defaults),
    T (settings_come_back_and_stay),
    T (settings_go),
    T (settings_of_nothing_are_refused),
    T (client_comes_back),
    T (clients_are_in_order),
    T (two_clients_have_two_names),
    T (client_is_deleted),
    T (boots_are_counted),
    T (needs_are_forgotten_when_none_is_ticked),
    T (longest_unseen_is_forgotten),
    T (need_comes_back),
    T (need_is_deleted),
    T (catalog_without_booting_is_migrated),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
