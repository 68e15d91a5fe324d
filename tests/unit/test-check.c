/* SPDX-License-Identifier: BSD-3-Clause */
/* Looking after a store: every kind of damage is found, mended or set
 * aside; nothing is told that is not so.
 */

#include "unit.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "overlay/admin.h"
#include "store/check.h"
#include "store/image.h"
#include "store/rp.h"
#include "store/venue.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/doc.h"
#include "util/file.h"

#define SIZE (UINT64_C (3) << 20)

static char *dir, *path;
static struct esp_store *store;
static esp_uuid base, child, tip;       /* a chain of three */

/* --- findings ------------------------------------------------------------ */

static char found[8192];
static unsigned nfound, nmended;

static void
on_finding (void *arg, const struct esp_finding *f)
{
  size_t n = strlen (found);

  (void) arg;
  nfound++;
  nmended += f->mended;
  snprintf (found + n, sizeof found - n, "%s: %s [%s]%s\n", f->object,
            f->problem, f->remedy ? f->remedy : "-",
            f->mended ? " mended" : "");
}

/* The number of findings that remain. */
static unsigned
check (bool repair)
{
  unsigned unmended = 12345;

  found[0] = 0;
  nfound = nmended = 0;
  unit_error[0] = 0;
  if (esp_store_check (store, repair, on_finding, NULL, &unmended) == -1)
    fail_msg ("check failed: %s\n%s", unit_error, found);
  assert_int_equal (nfound - nmended, unmended);
  return unmended;
}

static void
expect (const char *text)
{
  if (!strstr (found, text))
    fail_msg ("'%s' was not told, but:\n%s", text, found);
}

static void
clean (void)
{
  if (check (false) || nfound)
    fail_msg ("the store should be clean, but:\n%s", found);
}

/* --- a store -------------------------------------------------------------- */

static int
make_rp (const char *name, const esp_uuid *parent, uint64_t block, int byte,
         esp_uuid *uuid)
{
  CLEANUP_RP struct esp_rp p = { 0 };
  static char buf[4096];
  struct esp_draft *d;

  if (parent && esp_catalog_rp_get (esp_store_catalog (store), parent,
                                    &p) == -1)
    return -1;
  d = esp_draft_begin (store, name, parent ? &p : NULL, SIZE);
  if (!d)
    return -1;
  memset (buf, byte, sizeof buf);
  assert_int_equal (esp_pwrite_all (d->data_fd, buf, sizeof buf, block * 4096),
                    0);
  esp_map_set (d->map, block, 1, ESP_DATA, NULL);
  return esp_draft_commit (d, uuid);
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
  assert_int_equal (make_rp ("base", NULL, 700, 'a', &base), 0);
  assert_int_equal (make_rp ("child", &base, 300, 'b', &child), 0);
  assert_int_equal (make_rp ("tip", &child, 1, 'c', &tip), 0);
  assert_int_equal (esp_venue_add (store, "cafe", &tip, 1, "a"), 0);
  assert_int_equal (esp_venue_set (store, "cafe", NULL, 0, "b"), 0);
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

/* A path below the store; one at a time. */
static const char *
at (const char *fmt, ...)
{
  static char p[4096];
  size_t n = snprintf (p, sizeof p, "%s/", path);
  va_list args;

  va_start (args, fmt);
  vsnprintf (p + n, sizeof p - n, fmt, args);
  va_end (args);
  return p;
}

static const char *
rp_file (const esp_uuid *u, const char *file)
{
  char text[ESP_UUID_TEXT];

  return at ("restore-points/%s%s%s", esp_uuid_text (u, text),
             file ? "/" : "", file ? file : "");
}

static void
flip (const char *p, off_t offset)
{
  CLEANUP_CLOSE int fd = open (p, O_RDWR);
  unsigned char byte;

  assert_true (fd >= 0);
  assert_int_equal (pread (fd, &byte, 1, offset), 1);
  byte ^= 0x5a;
  assert_int_equal (pwrite (fd, &byte, 1, offset), 1);
}

static void
write_text (const char *p, const char *text)
{
  FILE *f = fopen (p, "w");

  assert_non_null (f);
  fputs (text, f);
  assert_int_equal (fclose (f), 0);
}

static void
run (const char *fmt, ...)
{
  CLEANUP_FREE char *cmd = NULL;
  va_list args;

  va_start (args, fmt);
  assert_true (vasprintf (&cmd, fmt, args) > 0);
  va_end (args);
  assert_int_equal (system (cmd), 0);
}

static bool
exists (const char *p)
{
  return access (p, F_OK) == 0;
}

static void
reads (const esp_uuid *u, uint64_t block, int byte)
{
  struct esp_image *image = esp_image_open (store, u);
  char buf[4096];

  assert_non_null (image);
  assert_int_equal (esp_image_pread (image, buf, 4096, block * 4096), 0);
  assert_int_equal (buf[0], byte);
  assert_int_equal (buf[4095], byte);
  esp_image_close (image);
}

static void
all_read (void)
{
  reads (&tip, 1, 'c');
  reads (&tip, 300, 'b');
  reads (&tip, 700, 'a');
  reads (&tip, 2, 0);
}

/* It is found, repair mends it, and everything reads as before. */
static void
found_and_mended (const char *text)
{
  assert_true (check (false) > 0);
  expect (text);
  assert_int_equal (check (true), 0);
  expect (text);
  expect ("mended");
  clean ();
  all_read ();
}

/* --- sound ---------------------------------------------------------------- */

static void
sound_store_is_clean (void **state)
{
  (void) state;
  clean ();
  assert_int_equal (check (true), 0);
  assert_int_equal (nfound, 0);
  all_read ();
}

/* --- restore points that can be mended ------------------------------------ */

static void
missing_chain_is_made_again (void **state)
{
  (void) state;
  unlink (rp_file (&child, "chain"));
  found_and_mended ("chain map is made again");
}

static void
damaged_chain_is_made_again (void **state)
{
  struct stat st;

  (void) state;
  assert_int_equal (stat (rp_file (&child, "chain"), &st), 0);
  for (off_t o = 0; o < st.st_size; o += st.st_size / 5 + 1) {
    flip (rp_file (&child, "chain"), o);
    found_and_mended ("chain map is made again");
  }
  assert_int_equal (truncate (rp_file (&child, "chain"), st.st_size / 2), 0);
  found_and_mended ("chain map is made again");
  write_text (rp_file (&child, "chain"), "");
  found_and_mended ("chain map is made again");
}

static void
all_chains_are_made_again_parents_first (void **state)
{
  (void) state;
  unlink (rp_file (&base, "chain"));
  unlink (rp_file (&child, "chain"));
  unlink (rp_file (&tip, "chain"));
  found_and_mended ("chain map is made again");
  assert_int_equal (nfound, 0);
}

/* A chain that is sound in itself, of other contents. */
static void
chain_of_others_is_made_again (void **state)
{
  esp_uuid other;
  char text[ESP_UUID_TEXT];

  (void) state;
  run ("cp '%s' %s/x", rp_file (&base, "chain"), dir);
  run ("cp %s/x '%s'", dir, rp_file (&child, "chain"));
  found_and_mended ("chain map is that of another disk");
  /* One of the same restore point, before its map changed. */
  assert_int_equal (make_rp ("other", &base, 5, 'd', &other), 0);
  run ("cp '%s' %s/x", rp_file (&child, "chain"), dir);
  CLEANUP_CLOSE int fd = esp_store_rp_dir (store, &child);
  struct esp_map *map = esp_map_new (SIZE);
  CLEANUP_CLOSE int bfd = esp_store_rp_dir (store, &base);
  struct esp_chain *parent = esp_chain_open (bfd, "chain");
  esp_map_set (map, 301, 1, ESP_DATA, NULL);
  assert_int_equal (unlinkat (fd, "chain", 0), 0);
  assert_int_equal (esp_chain_build (fd, "chain", &child, map, parent), 0);
  esp_chain_close (parent);
  esp_map_free (map);
  found_and_mended ("not what its map and its parent's");
  (void) esp_uuid_text (&other, text);
}

static void
map_is_made_again_from_the_chain (void **state)
{
  (void) state;
  unlink (rp_file (&child, "map"));
  found_and_mended ("map is made again from the chain map");
  write_text (rp_file (&child, "map"), "garbage");
  found_and_mended ("map is made again from the chain map");
  run ("cp '%s' %s/x", rp_file (&base, "map"), dir);
  run ("cp %s/x '%s'", dir, rp_file (&child, "map"));
  found_and_mended ("not the one that meta was made for");
}

static void
meta_is_written_again_from_the_row (void **state)
{
  (void) state;
  unlink (rp_file (&child, "meta"));
  found_and_mended ("meta is written again");
  write_text (rp_file (&child, "meta"), "garbage");
  found_and_mended ("meta is written again");
}

static void
wrong_counts_are_counted_again (void **state)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  uint64_t digest;

  (void) state;
  assert_int_equal (esp_rp_load_meta (store, &child, &rp, &digest), 0);
  rp.data_blocks = 17;
  json_t *meta = esp_rp_to_meta (&rp, digest);
  CLEANUP_CLOSE int fd = esp_store_rp_dir (store, &child);
  assert_int_equal (esp_doc_save (fd, "meta", ESP_RP_META_KIND,
                                  ESP_RP_META_VERSION, meta, 0644), 0);
  json_decref (meta);
  found_and_mended ("counted again");
}

static void
short_data_without_loss_is_made_longer (void **state)
{
  (void) state;
  chmod (rp_file (&child, "data"), 0644);
  assert_int_equal (truncate (rp_file (&child, "data"), 301 * 4096), 0);
  found_and_mended ("made longer");
}

/* --- restore points that cannot ------------------------------------------- */

static void
set_aside_with_descendants (const esp_uuid *u, const char *why)
{
  char text[ESP_UUID_TEXT];
  esp_uuid t;

  assert_true (check (false) > 0);
  expect (why);
  expect ("moved to damaged/");
  assert_true (exists (rp_file (u, NULL)));
  assert_int_equal (check (true), 0);
  expect ("damaged/restore-point-");
  expect ("damaged/venue-cafe");
  clean ();
  assert_false (exists (rp_file (u, NULL)));
  assert_false (exists (rp_file (&tip, NULL)));
  assert_true (exists (at ("damaged/restore-point-%s/chain",
                           esp_uuid_text (&tip, text))));
  assert_true (exists (at ("damaged/restore-point-%s.txt",
                           esp_uuid_text (u, text))));
  assert_true (exists (at ("damaged/venue-cafe.txt")));
  assert_int_equal (esp_catalog_venue_tip (esp_store_catalog (store), "cafe",
                                           0, &t), -1);
}

static void
truncated_data_is_set_aside_and_comes_back (void **state)
{
  char text[ESP_UUID_TEXT];

  (void) state;
  run ("cp --sparse=always '%s' %s/x", rp_file (&child, "data"), dir);
  chmod (rp_file (&child, "data"), 0644);
  assert_int_equal (truncate (rp_file (&child, "data"), 300 * 4096), 0);
  set_aside_with_descendants (&child, "data has 1228800 bytes of 3145728");
  reads (&base, 700, 'a');
  /* As the text says: mend it, move it back, repair. */
  run ("cp --sparse=always %s/x '%s'", dir,
       at ("damaged/restore-point-%s/data", esp_uuid_text (&child, text)));
  run ("cd %s && mv damaged/restore-point-%s restore-points/%s", path,
       text, text);
  esp_uuid_text (&tip, text);
  run ("cd %s && mv damaged/restore-point-%s restore-points/%s && mv"
       " damaged/venue-cafe venues/cafe", path, text, text);
  assert_int_equal (check (true), 0);
  clean ();
  all_read ();
}

static void
missing_data_is_set_aside (void **state)
{
  (void) state;
  unlink (rp_file (&base, "data"));
  set_aside_with_descendants (&base, "data has 0 bytes");
}

static void
map_and_chain_lost_is_set_aside (void **state)
{
  (void) state;
  unlink (rp_file (&child, "map"));
  unlink (rp_file (&child, "chain"));
  set_aside_with_descendants (&child, "map");
}

static void
meta_without_row_is_set_aside (void **state)
{
  (void) state;
  struct esp_catalog *c = esp_store_catalog (store);
  assert_int_equal (esp_catalog_venue_delete (c, "cafe"), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &tip), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &child), 0);
  unlink (rp_file (&child, "meta"));
  set_aside_with_descendants (&child, "meta");
}

static void
missing_parent_sets_aside (void **state)
{
  (void) state;
  run ("rm -r '%s'", rp_file (&base, NULL));
  assert_true (check (false) >= 3);
  expect ("its files are missing");
  expect ("its parent");
  assert_int_equal (check (true), 0);
  clean ();
  assert_false (exists (rp_file (&tip, NULL)));
}

static void
what_is_open_is_not_moved_away (void **state)
{
  (void) state;
  struct esp_image *image = esp_image_open (store, &tip);
  assert_non_null (image);
  chmod (rp_file (&child, "data"), 0644);
  assert_int_equal (truncate (rp_file (&child, "data"), 0), 0);
  assert_true (check (true) >= 2);
  expect ("open: disconnect");
  assert_true (exists (rp_file (&tip, NULL)));
  assert_true (exists (rp_file (&child, NULL)));
  esp_image_close (image);
  assert_int_equal (check (true), 0);
  clean ();
  assert_false (exists (rp_file (&tip, NULL)));
}

static void
newer_version_is_left_alone (void **state)
{
  (void) state;
  write_text (rp_file (&child, "meta"),
              "espalier-restore-point 9 xxh3:0000000000000000\n{}\n");
  assert_true (check (true) > 0);
  expect ("newer espalier");
  assert_true (exists (rp_file (&child, NULL)));
  assert_true (exists (rp_file (&tip, NULL)));
  assert_false (exists (at ("damaged")));
}

static void
strangers_are_set_aside (void **state)
{
  (void) state;
  mkdir (at ("restore-points/not-a-uuid"), 0755);
  write_text (at ("restore-points/file"), "x");
  write_text (at ("venues/.0123.new"), "x");
  write_text (at ("venues/a b"), "x");
  assert_int_equal (check (false), 4);
  assert_int_equal (check (true), 0);
  clean ();
  assert_true (exists (at ("damaged/not-a-uuid")));
}

/* --- rows ------------------------------------------------------------------ */

static void
orphans_are_adopted (void **state)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
  struct esp_catalog *c = esp_store_catalog (store);
  esp_uuid u;

  (void) state;
  assert_int_equal (esp_catalog_venue_delete (c, "cafe"), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &tip), 0);
  assert_int_equal (esp_catalog_rp_delete (c, &child), 0);
  assert_int_equal (make_rp ("child", NULL, 0, 'x', &u), 0);
  assert_int_equal (check (false), 3);          /* two and the venue */
  expect ("the catalog does not know it");
  assert_int_equal (check (true), 0);
  expect ("adopted as 'child-2'");
  clean ();
  all_read ();
  assert_int_equal (esp_catalog_rp_list (c, &child, &list), 0);
  assert_string_equal (list.rp[0].name, "child-2");
  assert_int_equal (list.n, 2);
}

static void
rows_take_what_meta_says (void **state)
{
  struct esp_resource x = { (char *) "app", (char *) "x", (char *) "" };
  struct esp_catalog *c = esp_store_catalog (store);
  struct esp_rp rp;

  (void) state;
  for (int i = 0; i < 5; ++i) {
    assert_int_equal (esp_catalog_rp_get (c, &child, &rp), 0);
    esp_uuid parent = rp.parent;
    switch (i) {
    case 0: strcpy (rp.name, "renamed"); break;
    case 1: free (rp.note); rp.note = strdup ("other"); break;
    case 2: rp.data_blocks++; break;
    case 3: rp.resources = malloc (sizeof x); rp.nresources = 1;
      rp.resources[0] = (struct esp_resource) { strdup (x.kind),
        strdup (x.name), strdup (x.version) }; break;
    case 4: memset (&rp.parent, 0, sizeof parent); break;
    }
    assert_int_equal (esp_catalog_rp_update (c, &rp), 0);
    esp_rp_clear (&rp);
    found_and_mended ("say different things");
  }
}

static void
row_without_files_goes (void **state)
{
  struct esp_catalog *c = esp_store_catalog (store);
  struct esp_rp rp;

  (void) state;
  esp_uuid u;
  assert_int_equal (make_rp ("gone", &tip, 9, 'x', &u), 0);
  run ("rm -r '%s'", rp_file (&u, NULL));
  found_and_mended ("its files are missing");
  assert_int_equal (esp_catalog_rp_get (c, &u, &rp), -1);
}

/* --- venues ---------------------------------------------------------------- */

static void
venue_document_comes_back (void **state)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };

  (void) state;
  unlink (at ("venues/cafe"));
  found_and_mended ("its document is missing");
  write_text (at ("venues/cafe"), "garbage");
  found_and_mended ("venue cafe");
  assert_int_equal (esp_venue_load (store, "cafe", &v, &log), 0);
  assert_int_equal (log.n, 2);
}

static void
venue_rows_take_what_the_document_says (void **state)
{
  struct esp_catalog *c = esp_store_catalog (store);
  esp_uuid t;

  (void) state;
  assert_int_equal (esp_catalog_venue_delete (c, "cafe"), 0);
  found_and_mended ("different things");
  struct esp_venue_log none = { 0 };
  assert_int_equal (esp_catalog_venue_set_log (c, "cafe", &none), 0);
  found_and_mended ("different things");
  assert_int_equal (esp_catalog_venue_tip (c, "cafe", 0, &t), 0);
}

static void
venue_that_is_garbage_is_set_aside (void **state)
{
  (void) state;
  write_text (at ("venues/lost"), "garbage");
  assert_int_equal (check (true), 0);
  expect ("damaged/venue-lost");
  clean ();
}

/* --- tmp, overlays, in place ------------------------------------------------ */

static void
leftovers_in_tmp_go (void **state)
{
  char name[64];

  (void) state;
  CLEANUP_CLOSE int held = esp_store_tmp_dir (store, name);

  assert_true (held >= 0);
  mkdir (at ("tmp/draft-old"), 0755);
  write_text (at ("tmp/draft-old/data"), "x");
  assert_int_equal (check (false), 1);
  assert_int_equal (check (true), 0);
  clean ();
  assert_true (exists (at ("tmp/%s", name)));
}

static void
make_overlay (const char *client, const char *mode, const esp_uuid *over)
{
  char text[ESP_UUID_TEXT];

  run ("mkdir -p %s/overlays/cafe/0/%s", path, client);
  CLEANUP_CLOSE int fd = open (at ("overlays/cafe/0/%s", client),
                               O_RDONLY | O_DIRECTORY);
  json_t *doc = json_pack ("{s:s, s:s, s:I, s:I}", "mode", mode,
                           "tip", esp_uuid_text (over, text),
                           "size", (json_int_t) SIZE,
                           "created", (json_int_t) 1);
  assert_int_equal (esp_doc_save (fd, "overlay", "overlay", 1, doc, 0600), 0);
  json_decref (doc);
  struct esp_map *map = esp_map_new (SIZE);
  esp_map_set (map, 3, 1, ESP_DATA, NULL);
  assert_int_equal (esp_map_create (map, fd, "map"), 0);
  esp_map_free (map);
  write_text (at ("overlays/cafe/0/%s/data", client), "");
  assert_int_equal (truncate (at ("overlays/cafe/0/%s/data", client), SIZE), 0);
  write_text (at ("overlays/cafe/0/%s/lock", client), "");
}

static void
overlays_are_checked (void **state)
{
  esp_uuid none = { { 7 } };

  (void) state;
  make_overlay ("good", "keep", &tip);
  clean ();
  make_overlay ("astray", "keep", &none);
  make_overlay ("torn", "keep", &tip);
  write_text (at ("overlays/cafe/0/torn/map"), "garbage");
  make_overlay ("nodoc", "keep", &tip);
  write_text (at ("overlays/cafe/0/nodoc/overlay"), "garbage");
  assert_int_equal (check (false), 3);
  expect ("overlay cafe/0@astray");
  expect ("overlay cafe/0@torn");
  expect ("overlay cafe/0@nodoc");
  assert_int_equal (check (true), 0);
  clean ();
  assert_true (exists (at ("overlays/cafe/0/good/map")));
  assert_true (exists (at ("damaged/overlay-cafe-0-astray/map")));
}

static void
root_in_place_that_changed_is_told (void **state)
{
  CLEANUP_FREE char *image = NULL;
  esp_uuid u;

  (void) state;
  assert_true (asprintf (&image, "%s/disk.img", dir) > 0);
  write_text (image, "");
  assert_int_equal (truncate (image, 1 << 20), 0);
  assert_int_equal (esp_rp_create_in_place (store, "disk", image, "", NULL, 0,
                                            &u), 0);
  clean ();
  assert_int_equal (truncate (image, 2 << 20), 0);
  assert_int_equal (check (true), 1);
  expect ("restore point disk");
  assert_true (exists (rp_file (&u, "meta")));
  unlink (image);
  assert_int_equal (check (true), 1);
  assert_true (exists (rp_file (&u, "meta")));
}

/* --- the catalog ------------------------------------------------------------ */

/* All rows as text. */
static char *
dump (void)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
  CLEANUP_VENUE_LIST struct esp_venue_list venues = { 0 };
  struct esp_catalog *c = esp_store_catalog (store);
  char *text = NULL, u[ESP_UUID_TEXT], p[ESP_UUID_TEXT];
  size_t size;
  FILE *f = open_memstream (&text, &size);

  assert_int_equal (esp_catalog_rp_list (c, NULL, &list), 0);
  for (size_t i = 0; i < list.n; ++i) {
    struct esp_rp *r = &list.rp[i];
    fprintf (f, "%s %s %s %d %ld %ld %u %ld %ld %s %s\n", r->name,
             esp_uuid_text (&r->uuid, u), esp_uuid_text (&r->parent, p),
             r->kind, (long) r->size, (long) r->created, r->depth,
             (long) r->data_blocks, (long) r->zero_blocks, r->note,
             r->path ? r->path : "-");
    for (size_t j = 0; j < r->nresources; ++j)
      fprintf (f, " %s %s %s\n", r->resources[j].kind, r->resources[j].name,
               r->resources[j].version);
  }
  assert_int_equal (esp_catalog_venue_list (c, NULL, &venues), 0);
  for (size_t i = 0; i < venues.n; ++i) {
    CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };
    struct esp_venue *v = &venues.venue[i];
    fprintf (f, "%s %s %ld %ld %ld %s\n", v->id, v->description,
             (long) v->created, (long) v->changed, (long) v->revision,
             esp_uuid_text (&v->disks[0], u));
    assert_int_equal (esp_catalog_venue_log (c, v->id, &log), 0);
    for (size_t j = 0; j < log.n; ++j)
      fprintf (f, " %ld %ld %s %s %u %s\n", (long) log.change[j].revision,
               (long) log.change[j].time, log.change[j].action,
               log.change[j].description, log.change[j].ndisks,
               esp_uuid_text (log.change[j].disks, u));
  }
  fclose (f);
  return text;
}

static void
rebuild (void)
{
  unsigned rps = 0, venues = 0;

  found[0] = 0;
  if (esp_store_rebuild (path, on_finding, NULL, &rps, &venues) == -1)
    fail_msg ("rebuild: %s", unit_error);
  assert_string_equal (found, "");
  assert_int_equal (rps, 3);
  assert_int_equal (venues, 1);
}

static void
rebuild_gives_the_same_rows (void **state)
{
  CLEANUP_FREE char *before = NULL;
  struct esp_resource x[2] = {
    { (char *) "env", (char *) "win", (char *) "11" },
    { (char *) "app", (char *) "ed'; --", (char *) "" } };

  (void) state;
  assert_int_equal (esp_rp_set_note (store, &tip, "it's; DROP TABLE rp; --"),
                    0);
  assert_int_equal (esp_rp_set_resources (store, &tip, x, 2), 0);
  before = dump ();
  assert_int_equal (esp_store_rebuild (path, NULL, NULL, NULL, NULL), -1);
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "is in use"));
  for (int i = 0; i < 4; ++i) {
    esp_store_close (store);
    store = NULL;
    switch (i) {
    case 0: break;
    case 1: run ("rm %s/catalog.db*", path); break;
    case 2: write_text (at ("catalog.db"), "This is no database at all.");
      break;
    case 3: run ("cp /dev/null %s", at ("catalog.db")); break;
    }
    rebuild ();
    store = esp_store_open (path);
    assert_non_null (store);
    CLEANUP_FREE char *after = dump ();
    assert_string_equal (before, after);
    clean ();
  }
  assert_true (exists (at ("catalog.db.old")));
}

static void
sql (const char *text)
{
  sqlite3 *db;

  assert_int_equal (sqlite3_open (at ("catalog.db"), &db), SQLITE_OK);
  assert_int_equal (sqlite3_exec (db, text, NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close (db);
}

static void
newer_catalog_is_refused_and_rebuilt (void **state)
{
  CLEANUP_FREE char *before = dump ();

  (void) state;
  esp_store_close (store);
  sql ("PRAGMA user_version = 99");
  store = esp_store_open (path);
  assert_null (store);
  assert_int_equal (errno, ENOTSUP);
  rebuild ();
  store = esp_store_open (path);
  CLEANUP_FREE char *after = dump ();
  assert_string_equal (before, after);
}

static void
check_repairs_a_damaged_catalog (void **state)
{
  CLEANUP_FREE char *before = dump ();

  (void) state;
  esp_store_close (store);
  write_text (at ("catalog.db"), "garbage");
  run ("rm -f %s/catalog.db-*", path);
  store = esp_store_open_damaged (path);
  assert_non_null (store);
  assert_true (check (false) > 0);
  expect ("catalog.db");
  esp_store_close (store);
  store = esp_store_open_damaged (path);
  assert_int_equal (check (true), 0);
  CLEANUP_FREE char *after = dump ();
  assert_string_equal (before, after);
  esp_store_close (store);
  /* Rows that point at nothing. */
  sql ("PRAGMA foreign_keys = OFF; DELETE FROM rp WHERE name = 'child'");
  store = esp_store_open (path);
  assert_true (check (false) > 0);
  expect ("point at nothing");
  assert_int_equal (check (true), 0);
  CLEANUP_FREE char *again = dump ();
  assert_string_equal (before, again);
  clean ();
}

static void
rebuild_tells_what_it_leaves_out (void **state)
{
  unsigned rps, venues;

  (void) state;
  esp_store_close (store);
  store = NULL;
  write_text (rp_file (&child, "meta"), "garbage");
  write_text (at ("venues/bad"), "garbage");
  found[0] = 0;
  assert_int_equal (esp_store_rebuild (path, on_finding, NULL, &rps, &venues),
                    0);
  assert_int_equal (rps, 1);
  assert_int_equal (venues, 0);
  expect ("its parent is missing");
  expect ("venue bad");
  expect ("venue cafe");
}

/* --- beside others ----------------------------------------------------------- */

static void *
make_and_delete (void *arg)
{
  for (int i = 0; i < 60; ++i) {
    esp_uuid u, w;
    char name[32];

    snprintf (name, sizeof name, "%s-%d", (char *) arg, i);
    assert_int_equal (make_rp (name, &tip, 10 + i, 'x', &u), 0);
    assert_int_equal (esp_venue_add (store, name, &u, 1, ""), 0);
    assert_int_equal (esp_venue_delete (store, name, false), 0);
    snprintf (name, sizeof name, "%s-%d-c", (char *) arg, i);
    assert_int_equal (make_rp (name, &u, 20 + i, 'y', &w), 0);
    if (i % 3 == 0)
      assert_int_equal (esp_rp_merge (store, &u, NULL, NULL), 0);
    assert_int_equal (esp_rp_delete (store, &w), 0);
    if (i % 3)
      assert_int_equal (esp_rp_delete (store, &u), 0);
  }
  return NULL;
}

static _Atomic bool finished;

static void *
check_meanwhile (void *arg)
{
  unsigned *findings = arg, unmended;

  while (!finished) {
    usleep (1000);              /* not all of the time: others want locks */
    /* An assertion in this thread would end the program without a word. */
    if (esp_store_check (store, false, on_finding, NULL, &unmended) == -1) {
      snprintf (found, sizeof found, "%s", unit_error);
      unmended = 1;
    }
    *findings += unmended;
  }
  return NULL;
}

static void
check_beside_changes_finds_nothing (void **state)
{
  static unsigned findings;     /* an assertion below leaves this function */
  pthread_t t;

  (void) state;
  findings = 0;
  found[0] = 0;
  finished = false;
  assert_int_equal (pthread_create (&t, NULL, check_meanwhile, &findings), 0);
  make_and_delete ((char *) "r");
  finished = true;
  pthread_join (t, NULL);
  if (findings)
    fail_msg ("told beside changes:\n%s", found);
  clean ();
}

/* Change without end, until the parent kills us. */
static void
write_until_killed (unsigned round)
{
  struct esp_store *mine;
  char name[64];
  esp_uuid u;

  /* The child must not use the parent's connection. */
  mine = store = esp_store_open_damaged (path);
  (void) mine;
  esp_store_close (store);
  store = esp_store_open (path);
  for (unsigned i = 0; store; ++i) {
    snprintf (name, sizeof name, "k%u-%u", round, i);
    if (make_rp (name, &tip, i % 700, 'k', &u) == -1 ||
        esp_venue_add (store, name, &u, 1, "x") == -1 ||
        esp_venue_set (store, "cafe", &u, 1, NULL) == -1 ||
        esp_rp_set_note (store, &u, "note") == -1 ||
        esp_venue_rollback (store, "cafe", 0) == -1 ||
        esp_venue_delete (store, name, false) == -1 ||
        (i % 2 && esp_rp_delete (store, &u) == -1))
      _exit (1);
  }
  _exit (2);
}

static void
killed_writer_leaves_what_repair_mends (void **state)
{
  unsigned seed = unit_seed ();

  (void) state;
  srand (seed);
  esp_store_close (store);
  for (unsigned round = 0; round < 40; ++round) {
    int status;
    pid_t pid = fork ();

    assert_true (pid >= 0);
    if (pid == 0)
      write_until_killed (round);
    usleep (2000 + rand () % 40000);    /* the moment is what is random */
    kill (pid, SIGKILL);
    assert_int_equal (waitpid (pid, &status, 0), pid);
    assert_true (WIFSIGNALED (status));
    store = esp_store_open (path);
    assert_non_null (store);
    assert_int_equal (check (true), 0);
    clean ();
    all_read ();
    esp_store_close (store);
  }
  store = esp_store_open (path);
}

/* --- gc, stats ---------------------------------------------------------------- */

static void
gc_removes_leftovers_only (void **state)
{
  uint64_t freed = 0;
  unsigned removed = 0;
  char name[64];

  (void) state;
  CLEANUP_CLOSE int held = esp_store_tmp_dir (store, name);

  assert_true (held >= 0);
  mkdir (at ("tmp/gone-old"), 0755);
  write_text (at ("tmp/gone-old/data"), "xxxxxxxx");
  write_text (at ("venues/.01234.new"), "x");
  write_text (rp_file (&tip, "chain.new"), "x");
  make_overlay ("kept", "keep", &tip);
  make_overlay ("thrown", "discard", &tip);     /* of another boot */
  run ("mkdir -p %s/overlays/empty/0", path);
  assert_int_equal (esp_store_gc (store, true, NULL, NULL, &freed, &removed),
                    0);
  assert_true (removed >= 5);
  assert_true (exists (at ("tmp/gone-old/data")));
  assert_int_equal (esp_store_gc (store, false, NULL, NULL, &freed, &removed),
                    0);
  assert_true (removed >= 5);
  assert_true (freed > 0);
  assert_false (exists (at ("tmp/gone-old")));
  assert_true (exists (at ("tmp/%s", name)));
  assert_false (exists (at ("venues/.01234.new")));
  assert_false (exists (rp_file (&tip, "chain.new")));
  assert_true (exists (at ("overlays/cafe/0/kept/map")));
  assert_false (exists (at ("overlays/cafe/0/thrown")));
  assert_false (exists (at ("overlays/empty")));
  assert_int_equal (esp_store_gc (store, false, NULL, NULL, &freed, &removed),
                    0);
  assert_int_equal (removed, 0);
  assert_int_equal (freed, 0);
  clean ();
  all_read ();
}

static void
stats_add_up (void **state)
{
  struct esp_store_stats s;

  (void) state;
  make_overlay ("kept", "keep", &tip);
  mkdir (at ("tmp/x"), 0755);
  write_text (at ("tmp/x/data"), "xxxx");
  assert_int_equal (esp_store_stats (store, &s), 0);
  assert_int_equal (s.rps, 3);
  assert_int_equal (s.roots, 1);
  assert_int_equal (s.in_place, 0);
  assert_int_equal (s.venues, 1);
  assert_int_equal (s.overlays, 1);
  assert_int_equal (s.max_depth, 3);
  assert_int_equal (s.virtual_size, SIZE);
  assert_true (s.rp_data >= 3 * 4096 && s.rp_data < SIZE);
  assert_true (s.rp_maps > 0);
  assert_true (s.overlay_data > 0);
  assert_true (s.catalog > 0);
  assert_true (s.leftovers > 0);
  assert_true (s.fs_size > s.fs_free);
}

int
main (void)
{
#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (sound_store_is_clean),
    T (missing_chain_is_made_again),
    T (damaged_chain_is_made_again),
    T (all_chains_are_made_again_parents_first),
    T (chain_of_others_is_made_again),
    T (map_is_made_again_from_the_chain),
    T (meta_is_written_again_from_the_row),
    T (wrong_counts_are_counted_again),
    T (short_data_without_loss_is_made_longer),
    T (truncated_data_is_set_aside_and_comes_back),
    T (missing_data_is_set_aside),
    T (map_and_chain_lost_is_set_aside),
    T (meta_without_row_is_set_aside),
    T (missing_parent_sets_aside),
    T (what_is_open_is_not_moved_away),
    T (newer_version_is_left_alone),
    T (strangers_are_set_aside),
    T (orphans_are_adopted),
    T (rows_take_what_meta_says),
    T (row_without_files_goes),
    T (venue_document_comes_back),
    T (venue_rows_take_what_the_document_says),
    T (venue_that_is_garbage_is_set_aside),
    T (leftovers_in_tmp_go),
    T (overlays_are_checked),
    T (root_in_place_that_changed_is_told),
    T (rebuild_gives_the_same_rows),
    T (newer_catalog_is_refused_and_rebuilt),
    T (check_repairs_a_damaged_catalog),
    T (rebuild_tells_what_it_leaves_out),
    T (check_beside_changes_finds_nothing),
    T (killed_writer_leaves_what_repair_mends),
    T (gc_removes_leftovers_only),
    T (stats_add_up),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
