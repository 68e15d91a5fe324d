/* SPDX-License-Identifier: BSD-3-Clause */
/* What a site says of its clients and needs, and of booting from venues:
 * documents and rows change together, a rebuild gives the same rows, check
 * mends, and no document is trusted.
 */

#include "unit.h"

#include <sys/stat.h>

#include "store/check.h"
#include "store/rp.h"
#include "store/site.h"
#include "store/venue.h"
#include "util/doc.h"
#include "util/file.h"

static char *dir, *path;
static struct esp_store *store;
static struct esp_catalog *c;
static esp_uuid base, tip;

#define MAC "52:54:00:00:00:01"
#define MAC2 "52:54:00:00:00:02"
#define UUID "4c4c4544-0043-3510-8052-b4c04f4a4e31"

static int
make_rp (const char *name, const esp_uuid *parent, esp_uuid *uuid)
{
  CLEANUP_RP struct esp_rp p = { 0 };
  struct esp_draft *d;

  if (parent && esp_catalog_rp_get (c, parent, &p) == -1)
    return -1;
  d = esp_draft_begin (store, name, parent ? &p : NULL, 1 << 20);
  return d ? esp_draft_commit (d, uuid) : -1;
}

static void
open_store (void)
{
  store = esp_store_open (path);
  if (!store)
    fail_msg ("%s", unit_error);
  c = esp_store_catalog (store);
}

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  assert_true (asprintf (&path, "%s/store", dir) > 0);
  assert_int_equal (esp_store_init (path), 0);
  open_store ();
  if (make_rp ("base", NULL, &base) == -1 ||
      make_rp ("tip", &base, &tip) == -1 ||
      esp_venue_add (store, "cafe", &base, 1, "") == -1 ||
      esp_venue_add (store, "bar", &base, 1, "") == -1)
    fail_msg ("%s", unit_error);
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

static char *
at (const char *name)
{
  static char buf[4400];

  snprintf (buf, sizeof buf, "%s/%s", path, name);
  return buf;
}

static void
write_text (const char *name, const char *text)
{
  FILE *f = fopen (at (name), "w");

  assert_non_null (f);
  fputs (text, f);
  assert_int_equal (fclose (f), 0);
}

static void
fails (int r, int err, const char *text)
{
  assert_int_equal (r, -1);
  if (errno != err || !strstr (unit_error, text))
    fail_msg ("errno %d, \"%s\", not %d, \"%s\"", errno, unit_error, err,
              text);
  unit_error[0] = 0;
}

static void
ok (int r)
{
  if (r == -1)
    fail_msg ("%s", unit_error);
}

/* All rows as text, by name and key. */
static char *
rows (void)
{
  CLEANUP_CLIENT_LIST struct esp_client_list clients = { 0 };
  CLEANUP_NEED_LIST struct esp_need_list needs = { 0 };
  CLEANUP_VENUE_BOOT_LIST struct esp_venue_boot_list boots = { 0 };
  char *text = NULL;
  size_t size;
  FILE *f = open_memstream (&text, &size);

  ok (esp_catalog_client_list (c, &clients));
  ok (esp_catalog_need_list (c, &needs));
  ok (esp_catalog_venue_boot_list (c, &boots));
  for (size_t i = 0; i < clients.n; ++i) {
    const struct esp_client *x = &clients.client[i];
    fprintf (f, "client %s %d %s %s %s %s %d %d\n", x->key, x->kind, x->name,
             x->venue, esp_boot_name (x->boot), x->chap, x->created > 0,
             x->changed >= x->created);
  }
  for (size_t i = 0; i < needs.n; ++i) {
    fprintf (f, "need %s %s", needs.need[i].name, needs.need[i].description);
    for (size_t j = 0; j < needs.need[i].nresources; ++j)
      fprintf (f, " %s:%s=%s", needs.need[i].resources[j].kind,
               needs.need[i].resources[j].name,
               needs.need[i].resources[j].version);
    fprintf (f, "\n");
  }
  for (size_t i = 0; i < boots.n; ++i)
    fprintf (f, "boot %s %s %s %s %s %s %u\n", boots.boot[i].id,
             esp_boot_name (boots.boot[i].boot), boots.boot[i].kernel,
             boots.boot[i].initrd, boots.boot[i].cmdline,
             boots.boot[i].networks, boots.boot[i].weight);
  fclose (f);
  return text;
}

static void
rows_are (const char *want)
{
  CLEANUP_FREE char *text = rows ();

  assert_string_equal (text, want);
}

/* --- findings -------------------------------------------------------------- */

static char found[4096];

static void
on_finding (void *arg, const struct esp_finding *f)
{
  size_t n = strlen (found);

  (void) arg;
  snprintf (found + n, sizeof found - n, "%s: %s\n", f->object, f->problem);
}

static unsigned
check (bool repair)
{
  unsigned unmended = 9999;

  found[0] = 0;
  ok (esp_store_check (store, repair, on_finding, NULL, &unmended));
  return unmended;
}

static void
clean (void)
{
  check (false);
  assert_string_equal (found, "");
}

/* It is found, mended, and gone then. */
static void
mended (const char *what)
{
  if (check (false) == 0 || !strstr (found, what))
    fail_msg ("\"%s\" was not found, but: %s", what, found);
  if (check (true))
    fail_msg ("not mended: %s", found);
  clean ();
}

static void
rebuild (void)
{
  esp_store_close (store);
  found[0] = 0;
  ok (esp_store_rebuild (path, on_finding, NULL, NULL, NULL));
  open_store ();
}

/* --- clients ---------------------------------------------------------------- */

static struct esp_client
client (const char *key, const char *name, const char *venue)
{
  struct esp_client x = { .kind = 7 };

  snprintf (x.key, sizeof x.key, "%s", key);
  snprintf (x.name, sizeof x.name, "%s", name);
  snprintf (x.venue, sizeof x.venue, "%s", venue);
  return x;
}

static void
add (const char *key, const char *name, const char *venue)
{
  struct esp_client x = client (key, name, venue);

  ok (esp_site_client_add (store, &x));
}

static void
clients_are_added_changed_deleted (void **state)
{
  struct esp_client x = client (MAC, "seat-1", "cafe");

  (void) state;
  x.boot = ESP_BOOT_HTTP;
  x.chap = (char *) "user";
  ok (esp_site_client_add (store, &x));
  add ("10.0.0.0/24", "", "");
  rows_are ("client " MAC " 0 seat-1 cafe http user 1 1\n"
            "client 10.0.0.0/24 2     1 1\n");
  strcpy (x.venue, "bar");
  strcpy (x.name, "");
  x.chap = NULL;
  ok (esp_site_client_set (store, &x));
  rows_are ("client " MAC " 0  bar http  1 1\n"
            "client 10.0.0.0/24 2     1 1\n");
  ok (esp_site_client_delete (store, "10.0.0.0/24"));
  ok (esp_site_client_delete (store, MAC));
  rows_are ("");
  clean ();
}

static void
dates_of_a_client_are_kept (void **state)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };
  CLEANUP_CLIENT struct esp_client y = { 0 };
  struct esp_client x = client (MAC, "", "");
  CLEANUP_FREE char *text = NULL;
  size_t len;

  (void) state;
  add (MAC, "", "");
  ok (esp_catalog_client_list (c, &list));
  list.client[0].created = list.client[0].changed = 7;
  text = esp_site_format_clients (&list, &len);
  int fd = open (path, O_RDONLY | O_DIRECTORY);
  ok (esp_write_file_atomic (fd, "clients", text, len, 0644));
  close (fd);
  ok (esp_site_client_set (store, &x));
  ok (esp_catalog_client_get (c, MAC, &y));
  assert_int_equal (y.created, 7);
  assert_true (y.changed > 7);
}

static void
bad_clients_change_nothing (void **state)
{
  struct esp_client x = client (MAC, "seat-1", "cafe");
  struct { struct esp_client x; int err; const char *text; } bad[] = {
    { client (MAC, "", ""), EEXIST, "already a client " MAC },
    { client (MAC2, "seat-1", ""), EEXIST, "is client " MAC "'s" },
    { client (MAC2, "", "pub"), ENOENT, "no venue 'pub'" },
    { client (MAC2, "../x", ""), EINVAL, "a client's name" },
    { client (MAC2, "", "../x"), EINVAL, "venue" },
    { client (MAC2, MAC, ""), EINVAL, "another machine's" },
    { client (MAC2, UUID, ""), EINVAL, "another machine's" },
    { client (MAC2, "10.0.0.1", ""), EINVAL, "another machine's" },
    { client ("10.0.0.0/8", "net", ""), EINVAL, "many machines" },
    { client ("10.0.0.1/8", "", ""), EINVAL, "10.0.0.0/8" },
    { client ("52-54-00-00-00-02", "", ""), EINVAL, "key" },
    { client ("seat-2", "", ""), EINVAL, "seat-2" },
  };

  (void) state;
  ok (esp_site_client_add (store, &x));
  CLEANUP_FREE char *before = rows ();
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i)
    fails (esp_site_client_add (store, &bad[i].x), bad[i].err, bad[i].text);
  x = client (MAC2, "", "");
  x.chap = (char *) "a b";
  fails (esp_site_client_add (store, &x), EINVAL, "CHAP");
  x.chap = NULL;
  x.boot = 4;
  fails (esp_site_client_add (store, &x), EINVAL, "way to boot");
  fails (esp_site_client_set (store, &x), ENOENT, "no client '" MAC2 "'");
  fails (esp_site_client_delete (store, MAC2), ENOENT, "no client");
  rows_are (before);
  clean ();
  /* Its own name in another form is no other machine's. */
  x = client (MAC, MAC, "");
  ok (esp_site_client_set (store, &x));
}

/* --- CHAP ------------------------------------------------------------------- */

#define SECRET "correct-horse-battery"

static void
secrets_are_private (void **state)
{
  CLEANUP_FREE char *secret = NULL;
  struct stat st;

  (void) state;
  add (MAC, "", "");
  ok (esp_site_chap_set (store, MAC, SECRET));
  secret = esp_site_chap_get (store, MAC);
  assert_string_equal (secret, SECRET);
  assert_int_equal (stat (at ("keys/chap/52%3A54%3A00%3A00%3A00%3A01"), &st),
                    0);
  assert_int_equal (st.st_mode & 0777, 0600);
  assert_int_equal (stat (at ("keys/chap"), &st), 0);
  assert_int_equal (st.st_mode & 077, 0);
  /* One that others may read is refused, and private again when replaced. */
  chmod (at ("keys/chap/52%3A54%3A00%3A00%3A00%3A01"), 0644);
  assert_null (esp_site_chap_get (store, MAC));
  fails (-1, EACCES, "chmod 600");
  ok (esp_site_chap_set (store, MAC, SECRET "2"));
  free (secret);
  secret = esp_site_chap_get (store, MAC);
  assert_string_equal (secret, SECRET "2");
}

static void
bad_secrets_are_refused (void **state)
{
  char longest[258];

  (void) state;
  add ("10.0.0.0/24", "", "");
  assert_null (esp_site_chap_get (store, "10.0.0.0/24"));
  fails (-1, ENOENT, "client set 10.0.0.0/24 --chap-secret");
  fails (esp_site_chap_set (store, "10.0.0.0/24", "short"), EINVAL, "12 to");
  fails (esp_site_chap_set (store, "10.0.0.0/24", "has a blank in it"), EINVAL,
         "without blanks");
  fails (esp_site_chap_set (store, "10.0.0.0/24", "umlaut-\xc3\xa4-umlaut"),
         EINVAL, "ASCII");
  memset (longest, 'x', 257);
  longest[257] = 0;
  fails (esp_site_chap_set (store, "10.0.0.0/24", longest), EINVAL, "256");
  longest[256] = 0;
  ok (esp_site_chap_set (store, "10.0.0.0/24", longest));
  fails (esp_site_chap_set (store, MAC, SECRET), ENOENT, "no client");
  ok (esp_site_chap_set (store, "10.0.0.0/24", NULL));
  ok (esp_site_chap_set (store, "10.0.0.0/24", NULL));
  assert_null (esp_site_chap_get (store, "10.0.0.0/24"));
  fails (-1, ENOENT, "no CHAP secret");
}

static void
secret_goes_with_its_client (void **state)
{
  struct esp_client x = client (MAC, "", "");

  (void) state;
  x.chap = (char *) "user";
  ok (esp_site_client_add (store, &x));
  assert_int_equal (check (false), 1);
  assert_non_null (strstr (found, "its CHAP secret is missing"));
  ok (esp_site_chap_set (store, MAC, SECRET));
  clean ();
  ok (esp_site_client_delete (store, MAC));
  assert_int_equal (access (at ("keys/chap/52%3A54%3A00%3A00%3A00%3A01"), F_OK),
                    -1);
}

static void
count_removed (void *arg, const char *what, uint64_t bytes)
{
  (void) bytes;
  snprintf (found + strlen (found), sizeof found - strlen (found), "%s\n", what);
  ++*(unsigned *) arg;
}

/* What a crash left while a document or a secret was being written. */
static void
unfinished_files_go (void **state)
{
  unsigned n = 0, removed;
  uint64_t freed;

  (void) state;
  add (MAC, "", "");
  ok (esp_site_chap_set (store, MAC, SECRET));
  write_text (".0123456789abcdef.new", "x");
  write_text ("keys/chap/.0123456789abcdef.new", SECRET);
  found[0] = 0;
  ok (esp_store_gc (store, false, count_removed, &n, &freed, &removed));
  assert_int_equal (n, 2);
  assert_non_null (strstr (found, "keys/chap/.0123456789abcdef.new"));
  assert_int_equal (access (at ("clients"), F_OK), 0);
  CLEANUP_FREE char *secret = esp_site_chap_get (store, MAC);
  assert_string_equal (secret, SECRET);
  assert_int_equal (access (at ("keys/chap/.0123456789abcdef.new"), F_OK), -1);
}

/* --- needs ------------------------------------------------------------------- */

static struct esp_resource takes[] = {
  { (char *) "env", (char *) "Windows", (char *) "11" },
  { (char *) "app", (char *) "CS2", (char *) "" },
};

static void
needs_are_added_changed_deleted (void **state)
{
  struct esp_need x = { .name = (char *) "CS2 tournament",
                        .description = (char *) "d", .resources = takes,
                        .nresources = 2 };
  struct esp_need y = { .name = (char *) "办公" };

  (void) state;
  ok (esp_site_need_add (store, &x));
  ok (esp_site_need_add (store, &y));
  rows_are ("need CS2 tournament d env:Windows=11 app:CS2=\nneed 办公 \n");
  x.nresources = 1;
  x.description = NULL;
  ok (esp_site_need_set (store, &x));
  rows_are ("need CS2 tournament  env:Windows=11\nneed 办公 \n");
  fails (esp_site_need_add (store, &x), EEXIST, "already a need");
  ok (esp_site_need_delete (store, "CS2 tournament"));
  fails (esp_site_need_delete (store, "CS2 tournament"), ENOENT, "no need");
  fails (esp_site_need_set (store, &x), ENOENT, "no need");
  rows_are ("need 办公 \n");
  clean ();
}

static void
bad_needs_are_refused (void **state)
{
  static const char *const names[] = {
    "", " x", "x ", "-x", "a\nb", "a\x7f", "\xff\xfe", "\x1b[1m",
  };
  struct esp_resource twice[] = { takes[0], takes[0] };
  struct esp_need x = { .name = (char *) "x", .resources = twice,
                        .nresources = 2 };
  char longest[130];

  (void) state;
  fails (esp_site_need_add (store, &x), EINVAL, "twice");
  twice[1].kind = (char *) "dog";
  fails (esp_site_need_add (store, &x), EINVAL, "resource");
  twice[1].kind = (char *) "app";
  twice[1].name = (char *) "";
  fails (esp_site_need_add (store, &x), EINVAL, "resource");
  x.nresources = 0;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
    x.name = (char *) names[i];
    fails (esp_site_need_add (store, &x), EINVAL, "a need's name");
  }
  memset (longest, 'x', 129);
  longest[129] = 0;
  x.name = longest;
  fails (esp_site_need_add (store, &x), EINVAL, "128 bytes");
  longest[128] = 0;
  ok (esp_site_need_add (store, &x));
}

/* --- venues' settings ----------------------------------------------------------- */

static struct esp_venue_boot settings = {
  .id = "cafe", .boot = ESP_BOOT_NBDROOT, .kernel = (char *) "image:/vmlinuz",
  .initrd = (char *) "/srv/initrd", .cmdline = (char *) "quiet",
  .networks = (char *) "10.0.0.0/24,fd00::/64 10.0.0.0/24",
  .weight = 7,
};
#define SETTINGS "boot cafe nbdroot image:/vmlinuz /srv/initrd quiet" \
  " 10.0.0.0/24 fd00::/64 7\n"

/* The version of the venue's document; settings are no part of an old one. */
static void
version_is (int version)
{
  char *buf;
  size_t len;
  int fd = open (path, O_RDONLY | O_DIRECTORY), v = 0;

  assert_int_equal (esp_read_file (fd, "venues/cafe", 1 << 20, &buf, &len), 0);
  close (fd);
  assert_int_equal (sscanf (buf, "espalier-venue %d ", &v), 1);
  assert_int_equal (v, version);
  assert_int_equal (strstr (buf, "\"boot\"") != NULL, version == 2);
  if (version == 2) {           /* who knows version 1 only refuses it */
    assert_int_equal (esp_doc_check (buf, len, ESP_VENUE_KIND,
                                     ESP_VENUE_VERSION_PLAIN, "x"), -1);
    assert_int_equal (errno, ENOTSUP);
  }
  free (buf);
}

static void
settings_raise_the_version (void **state)
{
  struct esp_venue_boot none = { .id = "cafe", .weight = ESP_WEIGHT_DEFAULT };

  (void) state;
  version_is (1);
  ok (esp_site_venue_boot_set (store, &settings));
  version_is (2);
  rows_are (SETTINGS);
  clean ();
  ok (esp_site_venue_boot_set (store, &none));
  version_is (1);
  rows_are ("");
}

static void
settings_outlive_changes_of_the_venue (void **state)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };

  (void) state;
  ok (esp_site_venue_boot_set (store, &settings));
  ok (esp_venue_set (store, "cafe", &tip, 1, "new"));
  rows_are (SETTINGS);
  ok (esp_venue_rollback (store, "cafe", 0));
  rows_are (SETTINGS);
  version_is (2);
  ok (esp_catalog_venue_get (c, "cafe", &v));
  assert_int_equal (v.revision, 3);     /* settings make no revision */
  rebuild ();
  assert_string_equal (found, "");
  rows_are (SETTINGS);
  ok (esp_venue_delete (store, "cafe", false));
  rows_are ("");
}

static void
bad_settings_change_nothing (void **state)
{
  struct esp_venue_boot b;
  char longest[2100];

  (void) state;
  memset (longest, 'x', 2049);
  longest[2049] = 0;
#define BAD(field, value, text)                                         \
  b = settings;                                                         \
  b.field = value;                                                      \
  fails (esp_site_venue_boot_set (store, &b), EINVAL, text)
  BAD (boot, 4, "iscsi, http or nbdroot");
  BAD (kernel, (char *) "vmlinuz", "a kernel is an absolute path");
  BAD (kernel, (char *) "/", "a kernel");
  BAD (kernel, (char *) "image:vmlinuz", "a kernel");
  BAD (kernel, (char *) "image:(msdos1", "a kernel");
  BAD (kernel, (char *) "image:(msdos1)vmlinuz", "a kernel");
  BAD (kernel, (char *) "/a\nb", "a kernel");
  BAD (kernel, NULL, "needs a kernel");
  BAD (initrd, (char *) "x", "an initrd is");
  BAD (cmdline, longest, "a command line");
  BAD (cmdline, (char *) "a\nb", "a command line");
  BAD (networks, (char *) "10.0.0.1/24", "10.0.0.0/24");
  BAD (networks, (char *) "10.0.0.0/24 cafe", "no network");
  BAD (weight, 1001, "0 to 1000");
#undef BAD
  b = settings;
  strcpy (b.id, "pub");
  fails (esp_site_venue_boot_set (store, &b), ENOENT, "no venue 'pub'");
  rows_are ("");
  version_is (1);
  b = settings;
  b.kernel = (char *) "image:(msdos1)/vmlinuz";
  ok (esp_site_venue_boot_set (store, &b));
}

/* --- a venue to which clients are assigned ------------------------------------ */

static void
venue_with_clients_stays (void **state)
{
  (void) state;
  add (MAC, "", "cafe");
  fails (esp_venue_delete (store, "cafe", false), EBUSY,
         "client " MAC " is assigned");
  add (MAC2, "", "cafe");
  add ("10.0.0.0/8", "", "bar");
  CLEANUP_FREE char *before = rows ();
  fails (esp_venue_delete (store, "cafe", false), EBUSY, "2 clients");
  rows_are (before);
  clean ();
  ok (esp_venue_delete (store, "cafe", true));
  rows_are ("client " MAC " 0     1 1\nclient " MAC2 " 0     1 1\n"
            "client 10.0.0.0/8 2  bar   1 1\n");
  clean ();
}

static void
venue_that_was_lost_is_told (void **state)
{
  (void) state;
  add (MAC, "", "cafe");
  ok (esp_catalog_venue_delete (c, "cafe"));
  unlink (at ("venues/cafe"));
  assert_int_equal (check (true), 1);
  assert_non_null (strstr (found, "client " MAC ": its venue cafe is not"));
  /* And survives: it may come back, from a center perhaps. */
  rebuild ();
  rows_are ("client " MAC " 0  cafe   1 1\n");
}

/* --- documents that are lost, damaged, old ------------------------------------ */

static void
fill (void)
{
  struct esp_need x = { .name = (char *) "Office", .resources = takes,
                        .nresources = 2, .description = (char *) "" };

  add (MAC, "seat-1", "cafe");
  add (UUID, "", "");
  ok (esp_site_need_add (store, &x));
  ok (esp_site_venue_boot_set (store, &settings));
}

static void
rebuild_gives_the_same_rows (void **state)
{
  (void) state;
  fill ();
  CLEANUP_FREE char *before = rows ();
  rebuild ();
  assert_string_equal (found, "");
  rows_are (before);
  clean ();
}

static void
document_that_was_lost_comes_back (void **state)
{
  struct esp_client x = client (MAC2, "", "");
  struct esp_need y = { .name = (char *) "y" };

  (void) state;
  fill ();
  CLEANUP_FREE char *before = rows ();
  unlink (at ("clients"));
  unlink (at ("needs"));
  fails (esp_site_client_add (store, &x), ENOENT, "'clients' is missing");
  fails (esp_site_need_add (store, &y), ENOENT, "'needs' is missing");
  mended ("clients: the document is missing");
  rows_are (before);
  rebuild ();
  rows_are (before);
}

static void
damaged_document_is_written_again (void **state)
{
  struct esp_client x = client (MAC2, "", "");

  (void) state;
  fill ();
  CLEANUP_FREE char *before = rows ();
  write_text ("clients", "garbage");
  fails (esp_site_client_add (store, &x), EBADMSG, "clients");
  mended ("clients: clients: is damaged");
  write_text ("needs", "garbage");
  mended ("needs: needs: is damaged");
  rows_are (before);
}

static void
damaged_document_without_rows_is_set_aside (void **state)
{
  (void) state;
  write_text ("clients", "garbage");
  mended ("clients");
  assert_int_equal (access (at ("damaged/clients"), F_OK), 0);
  assert_int_equal (access (at ("clients"), F_OK), -1);
}

static void
newer_document_is_left_alone (void **state)
{
  (void) state;
  fill ();
  CLEANUP_FREE char *before = rows ();
  write_text ("clients", "espalier-clients 2 xxh3:0000000000000000\n{}\n");
  assert_int_equal (check (true), 1);
  assert_non_null (strstr (found, "newer espalier"));
  rows_are (before);
}

static void
rows_take_what_the_documents_say (void **state)
{
  struct esp_need_list none = { 0 };
  struct esp_venue_boot b = settings;

  (void) state;
  fill ();
  CLEANUP_FREE char *before = rows ();
  ok (esp_catalog_client_delete (c, MAC));
  mended ("clients: the document and the catalog");
  ok (esp_catalog_need_set_all (c, &none));
  mended ("needs: the document and the catalog");
  b.networks = (char *) "";
  ok (esp_catalog_venue_boot_put (c, &b));
  mended ("venue cafe: its document and the catalog");
  rows_are (before);
}

/* --- hostile documents ---------------------------------------------------------- */

#define CLIENT(rest) "{\"clients\":[{\"key\":\"" MAC "\"," rest "}]}"
#define REST "\"name\":\"\",\"venue\":\"\",\"boot\":\"\",\"chap\":\"\"," \
  "\"created\":1,\"changed\":1"
#define NEED(text) "{\"needs\":[" text "]}"

static int
parse (const char *kind, const char *json)
{
  json_t *root = json_loads (json, 0, NULL);
  CLEANUP_CLIENT_LIST struct esp_client_list clients = { 0 };
  CLEANUP_NEED_LIST struct esp_need_list needs = { 0 };
  size_t len;
  int r;

  if (!root)
    fail_msg ("no JSON: %s", json);
  CLEANUP_FREE char *text = esp_doc_format (kind, 1, root, &len);
  json_decref (root);
  r = strcmp (kind, "clients") == 0
    ? esp_site_parse_clients (text, len, &clients)
    : esp_site_parse_needs (text, len, &needs);
  if (r == -1) {
    assert_int_equal (clients.n + needs.n, 0);
    assert_int_equal (errno, EBADMSG);
    assert_non_null (strstr (unit_error, kind));
  }
  return r;
}

static void
hostile_clients_are_refused (void **state)
{
  static const char *const bad[] = {
    "{}", "{\"clients\":{}}", "{\"clients\":[1]}", "{\"clients\":[{}]}",
    "{\"clients\":[{" REST "}]}",
    CLIENT ("\"venue\":\"\",\"boot\":\"\",\"chap\":\"\",\"created\":1,"
            "\"changed\":1"),
    CLIENT ("\"name\":1,\"venue\":\"\",\"boot\":\"\",\"chap\":\"\","
            "\"created\":1,\"changed\":1"),
    CLIENT ("\"name\":\"../../x\",\"venue\":\"\",\"boot\":\"\",\"chap\":\"\","
            "\"created\":1,\"changed\":1"),
    CLIENT ("\"name\":\"\",\"venue\":\"/etc\",\"boot\":\"\",\"chap\":\"\","
            "\"created\":1,\"changed\":1"),
    CLIENT ("\"name\":\"\",\"venue\":\"\",\"boot\":\"tftp\",\"chap\":\"\","
            "\"created\":1,\"changed\":1"),
    CLIENT ("\"name\":\"\",\"venue\":\"\",\"boot\":\"\",\"chap\":\"a b\","
            "\"created\":1,\"changed\":1"),
    CLIENT ("\"name\":\"\",\"venue\":\"\",\"boot\":\"\",\"chap\":\"\","
            "\"created\":-1,\"changed\":1"),
    "{\"clients\":[{\"key\":\"10.0.0.1/8\"," REST "}]}",
    "{\"clients\":[{\"key\":\"525400000001\"," REST "}]}",
    "{\"clients\":[{\"key\":\"" MAC "\"," REST "},{\"key\":\"" MAC "\"," REST
      "}]}",
  };

  (void) state;
  assert_int_equal (parse ("clients", "{\"clients\":[]}"), 0);
  assert_int_equal (parse ("clients", CLIENT (REST)), 0);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i)
    if (parse ("clients", bad[i]) != -1)
      fail_msg ("taken: %s", bad[i]);
}

static void
hostile_needs_are_refused (void **state)
{
  static const char *const bad[] = {
    "{}", "{\"needs\":1}", NEED ("1"), NEED ("{}"),
    NEED ("{\"name\":\"\",\"description\":\"\",\"resources\":[]}"),
    NEED ("{\"name\":\"a\\nb\",\"description\":\"\",\"resources\":[]}"),
    NEED ("{\"name\":\"a\",\"description\":\"a\\nb\",\"resources\":[]}"),
    NEED ("{\"name\":\"a\",\"description\":\"\"}"),
    NEED ("{\"name\":\"a\",\"description\":\"\",\"resources\":[{}]}"),
    NEED ("{\"name\":\"a\",\"description\":\"\",\"resources\":[{\"kind\":"
          "\"cat\",\"name\":\"x\",\"version\":\"\"}]}"),
    NEED ("{\"name\":\"a\",\"description\":\"\",\"resources\":[{\"kind\":"
          "\"app\",\"name\":\"x\\u001b\",\"version\":\"\"}]}"),
    NEED ("{\"name\":\"a\",\"description\":\"\",\"resources\":[]},"
          "{\"name\":\"a\",\"description\":\"\",\"resources\":[]}"),
  };

  (void) state;
  assert_int_equal (parse ("needs", "{\"needs\":[]}"), 0);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i)
    if (parse ("needs", bad[i]) != -1)
      fail_msg ("taken: %s", bad[i]);
}

/* A venue's document with BOOT in it: 0, or -1 where it is refused. */
static int
load_with (const char *boot)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };
  int fd = open (at ("venues"), O_RDONLY | O_DIRECTORY);
  json_t *doc = esp_doc_load (fd, "cafe", ESP_VENUE_KIND, ESP_VENUE_VERSION);

  json_object_set_new (doc, "boot", json_loads (boot, JSON_DECODE_ANY, NULL));
  ok (esp_doc_save (fd, "cafe", ESP_VENUE_KIND, 2, doc, 0644));
  json_decref (doc);
  close (fd);
  return esp_venue_load (store, "cafe", &v, &log);
}

static void
hostile_settings_are_refused (void **state)
{
#define BOOT(way, kernel, networks, weight)                             \
  "{\"way\":\"" way "\",\"kernel\":\"" kernel "\",\"initrd\":\"\","     \
  "\"cmdline\":\"\",\"networks\":\"" networks "\",\"weight\":" weight "}"
  static const char *const bad[] = {
    "1", "null", "[]", "{}", BOOT ("pxe", "", "", "1"),
    BOOT ("", "vmlinuz", "", "1"), BOOT ("", "", "10.0.0.1/8", "1"),
    BOOT ("", "", "10.0.0.0/8  ::1", "1"), BOOT ("", "", "", "1001"),
    BOOT ("", "", "", "-1"), BOOT ("", "", "", "\"1\""),
  };

  (void) state;
  ok (load_with (BOOT ("http", "/k", "10.0.0.0/8 ::1", "0")));
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i)
    fails (load_with (bad[i]), EBADMSG, "a field is missing or wrong");
}

#define T(fn) cmocka_unit_test_setup_teardown (fn, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    T (clients_are_added_changed_deleted),
    T (dates_of_a_client_are_kept),
    T (bad_clients_change_nothing),
    T (secrets_are_private),
    T (bad_secrets_are_refused),
    T (secret_goes_with_its_client),
    T (unfinished_files_go),
    T (needs_are_added_changed_deleted),
    T (bad_needs_are_refused),
    T (settings_raise_the_version),
    T (settings_outlive_changes_of_the_venue),
    T (bad_settings_change_nothing),
    T (venue_with_clients_stays),
    T (venue_that_was_lost_is_told),
    T (rebuild_gives_the_same_rows),
    T (document_that_was_lost_comes_back),
    T (damaged_document_is_written_again),
    T (damaged_document_without_rows_is_set_aside),
    T (newer_document_is_left_alone),
    T (rows_take_what_the_documents_say),
    T (hostile_clients_are_refused),
    T (hostile_needs_are_refused),
    T (hostile_settings_are_refused),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
