/* SPDX-License-Identifier: BSD-3-Clause */
/* Keeping what a client wrote as a restore point: the bytes, who may not,
 * a larger disk, a crash at each step, and that size costs nothing.
 */

#include "rp-test.h"

#include <sys/stat.h>

#include "overlay-test.h"
#include "util/doc.h"

#define MIB (UINT64_C (1) << 20)

static const struct esp_export seat = { .name = "cafe", .client = "seat-7" };

struct keep {
  struct tree *t;
  struct env e;
  unsigned char *bytes;         /* what the client sees */
};

/* Open the overlay of seat-7 over member TIP. */
static void
client_open (struct keep *k, struct tree *t, int tip)
{
  CLEANUP_FREE char *dir = esp_asprintf ("%s/overlays", t->dir);
  struct member *m = &t->m[tip];

  memset (k, 0, sizeof *k);
  k->t = t;
  k->e.params.grace = 30;
  k->e.disk = (struct disk) { .bytes = m->bytes, .size = m->size };
  k->e.below = disk_below (&k->e.disk);
  k->e.place = esp_overlay_place_open (dir, &k->e.params);
  assert_non_null (k->e.place);
  k->e.o = esp_overlay_open (k->e.place, &seat7, &m->uuid, m->size);
  if (k->e.o == NULL)
    fail_msg ("%s", unit_error);
  k->bytes = malloc (m->size);
  memcpy (k->bytes, m->bytes, m->size);
}

/* N random writes and zeroes of any alignment. */
static void
client_write (struct keep *k, unsigned n)
{
  unsigned char buf[20000];
  uint64_t size = k->e.disk.size;

  for (unsigned i = 0; i < n; i++) {
    uint64_t len = (unsigned) rand () % sizeof buf + 1;
    uint64_t at = (unsigned) rand () % size;
    int c = rand () % 4 ? rand () % 255 + 1 : 0;

    if (len > size - at)
      len = size - at;
    memset (buf, c, sizeof buf);
    memset (k->bytes + at, c, len);
    if (c)
      OK (WRITE (&k->e, buf, len, at));
    else
      OK (ZERO (&k->e, len, at));
  }
  OK (FLUSH (&k->e));
}

static void
client_close (struct keep *k)
{
  env_close (&k->e);
}

static int names;               /* used up, by killed processes too */

/* What the client wrote becomes the next member over TIP. */
static int
keep_size (struct keep *k, int tip, uint64_t size)
{
  struct tree *t = k->t;
  struct member *m = &t->m[t->n];
  char name[32];

  snprintf (name, sizeof name, "kept-%d", names);
  if (esp_rp_create_from_overlay (t->store, name, &seat, size, "note", NULL, 0,
                                  &m->uuid) == -1)
    return -1;
  m->size = size ? size : t->m[tip].size;
  m->parent = tip;
  names++;
  m->bytes = realloc (k->bytes, m->size);
  memset (m->bytes + t->m[tip].size, 0, m->size - t->m[tip].size);
  k->bytes = NULL;
  return t->n++;
}

static bool
overlay_is_there (struct tree *t)
{
  struct stat st;

  return fstatat (esp_store_overlays_fd (t->store), "cafe/0/seat-7", &st,
                  0) == 0;
}

static void
what_was_written_is_kept_and_the_client_begins_anew (void **state)
{
  struct tree *t = *state;
  struct keep k;
  int root, kept;

  srand (unit_seed ());
  root = tree_add (t, -1, 3 * MIB + 1536, 200);
  client_open (&k, t, root);
  client_write (&k, 60);
  client_close (&k);
  kept = keep_size (&k, root, 0);
  if (kept == -1)
    fail_msg ("%s", unit_error);
  tree_verify_all (t);
  assert_false (overlay_is_there (t));
  /* A second round over the new tip; the map is loaded and merged too. */
  client_open (&k, t, kept);
  client_write (&k, 30);
  client_close (&k);
  kept = keep_size (&k, kept, 0);
  assert_int_not_equal (kept, -1);
  tree_verify_all (t);
  assert_int_equal (esp_rp_merge (t->store, &t->m[1].uuid, NULL, NULL), 0);
  t->m[1].gone = true;
  tree_verify_all (t);
}

static void
own_files_and_modes_are_those_of_a_restore_point (void **state)
{
  struct tree *t = *state;
  struct keep k;
  struct stat st;
  CLEANUP_CLOSE int dir = -1;
  int root = tree_add (t, -1, MIB, 10), kept;

  client_open (&k, t, root);
  client_write (&k, 5);
  client_close (&k);
  kept = keep_size (&k, root, 0);
  dir = esp_store_rp_dir (t->store, &t->m[kept].uuid);
  assert_int_equal (fstatat (dir, "overlay", &st, 0), -1);
  assert_int_equal (fstatat (dir, "lock", &st, 0), -1);
  assert_int_equal (fstatat (dir, "data", &st, 0), 0);
  assert_int_equal (st.st_mode & 0777, 0444);
}

static void
a_larger_disk_reads_zero_at_its_end (void **state)
{
  struct tree *t = *state;
  struct keep k;
  struct esp_map *map;
  int root, kept;

  srand (unit_seed ());
  root = tree_add (t, -1, MIB + 700, 100);
  client_open (&k, t, root);
  client_write (&k, 40);
  client_close (&k);
  assert_int_equal (keep_size (&k, root, MIB), -1);
  assert_int_equal (errno, EINVAL);
  kept = keep_size (&k, root, 70 * MIB + 1);
  if (kept == -1)
    fail_msg ("%s", unit_error);
  tree_verify_all (t);
  map = esp_rp_load_map (t->store, &t->m[kept].uuid);
  assert_non_null (map);
  assert_true (map->size == 70 * MIB + 1);
  esp_map_free (map);
  /* With a child, merged both ways. */
  tree_add (t, kept, 71 * MIB, 50);
  assert_int_equal (esp_rp_merge (t->store, &t->m[root].uuid, NULL, NULL), 0);
  t->m[root].gone = true;
  tree_verify_all (t);
  assert_int_equal (esp_rp_merge (t->store, &t->m[kept].uuid, NULL, NULL), 0);
  t->m[kept].gone = true;
  tree_verify_all (t);
}

static void
connected_client_is_refused (void **state)
{
  struct tree *t = *state;
  struct keep k;
  int root = tree_add (t, -1, MIB, 10);

  client_open (&k, t, root);
  client_write (&k, 5);
  assert_int_equal (keep_size (&k, root, 0), -1);
  assert_int_equal (errno, EBUSY);
  client_close (&k);
  assert_int_not_equal (keep_size (&k, root, 0), -1);
  tree_verify_all (t);
}

static void
none_and_an_untouched_one_are_refused (void **state)
{
  struct tree *t = *state;
  struct keep k = { .t = t };
  int root = tree_add (t, -1, MIB, 10);

  assert_int_equal (keep_size (&k, root, 0), -1);
  assert_int_equal (errno, ENOENT);
  client_open (&k, t, root);
  client_close (&k);
  assert_int_equal (keep_size (&k, root, 0), -1);
  assert_true (errno == ENOENT || errno == ENODATA);
  free (k.bytes);
}

static void
a_taken_name_changes_nothing (void **state)
{
  struct tree *t = *state;
  struct keep k;
  int root = tree_add (t, -1, MIB, 10);

  client_open (&k, t, root);
  client_write (&k, 5);
  client_close (&k);
  assert_int_equal (esp_rp_create_from_overlay (t->store, "rp-0", &seat, 0,
                                                NULL, NULL, 0, NULL), -1);
  assert_int_equal (errno, EEXIST);
  assert_true (overlay_is_there (t));
  assert_int_not_equal (keep_size (&k, root, 0), -1);
  tree_verify_all (t);
}

static void
tip_of_an_overlay_is_not_deleted_or_merged (void **state)
{
  struct tree *t = *state;
  struct keep k;
  int root = tree_add (t, -1, MIB, 10);

  client_open (&k, t, root);
  client_write (&k, 5);
  client_close (&k);
  assert_int_equal (esp_rp_delete (t->store, &t->m[root].uuid), -1);
  assert_int_equal (errno, EBUSY);
  assert_non_null (strstr (unit_error, "cafe/0@seat-7"));
  tree_add (t, root, MIB, 2);
  assert_int_equal (esp_rp_merge (t->store, &t->m[root].uuid, NULL, NULL), -1);
  assert_int_equal (errno, EBUSY);
  free (k.bytes);
}

/* --- killed -------------------------------------------------------------------- */

static void
print_finding (void *arg, const struct esp_finding *f)
{
  (void) arg;
  if (!f->mended)
    print_message ("# %s: %s\n", f->object, f->problem);
}

static int die_after;

static void
die (const char *step)
{
  (void) step;
  if (die_after-- == 0)
    _exit (9);
}

/* A repair adopts it where it has no row; then it reads as BYTES. */
static void
repaired (struct tree *t, const unsigned char *bytes)
{
  char name[32];
  CLEANUP_RP struct esp_rp rp = { 0 };
  CLEANUP_IMAGE struct esp_image *image = NULL;
  CLEANUP_FREE unsigned char *buf = malloc (MIB);
  unsigned unmended = 99;

  assert_int_equal (esp_store_check (t->store, true, print_finding, NULL,
                                     &unmended), 0);
  assert_int_equal (unmended, 0);
  snprintf (name, sizeof name, "kept-%d", names);
  if (esp_catalog_rp_find (esp_store_catalog (t->store), name, &rp) == -1)
    fail_msg ("%s", unit_error);
  assert_true (rp.size == 2 * MIB);
  image = esp_image_open (t->store, &rp.uuid);
  assert_non_null (image);
  assert_int_equal (esp_image_pread (image, buf, MIB, 0), 0);
  assert_memory_equal (buf, bytes, MIB);
}

/* Until the rename the overlay goes on as it was; behind it, it is away and
 * its bytes are in a complete directory.
 */
static void
killed_at_every_step_the_bytes_are_somewhere (void **state)
{
  struct tree *t = *state;
  int root = tree_add (t, -1, MIB, 10), status = 0, before = 0, behind = 0;

  for (int step = 0; step < 20; step++) {
    struct keep k;
    pid_t pid;

    client_open (&k, t, root);
    client_write (&k, 5);
    client_close (&k);
    names++;
    pid = fork ();
    if (pid == 0) {
      die_after = step;
      esp_rp_test_step = die;
      t->store = NULL;
      tree_open (t);
      _exit (keep_size (&k, root, 2 * MIB) == -1 ? 1 : 0);
    }
    assert_int_equal (waitpid (pid, &status, 0), pid);
    if (WEXITSTATUS (status) == 9 && overlay_is_there (t)) {
      before++;
      /* The client comes back, and reads what it wrote. */
      CLEANUP_FREE unsigned char *want = k.bytes;
      client_open (&k, t, root);
      for (uint64_t i = 0; i < MIB; i += 65536) {
        unsigned char buf[65536];

        OK (READ (&k.e, buf, sizeof buf, i));
        assert_memory_equal (buf, want + i, sizeof buf);
      }
      client_close (&k);
      free (k.bytes);
    }
    else {
      behind++;
      repaired (t, k.bytes);
      free (k.bytes);
    }
    esp_overlay_reset (esp_store_overlays_fd (t->store), &seat7);
    if (WEXITSTATUS (status) == 0)
      break;
    assert_int_equal (WEXITSTATUS (status), 9);
  }
  assert_int_equal (WEXITSTATUS (status), 0);
  assert_true (before >= 3 && behind >= 3);
}

/* --- 10 GiB ---------------------------------------------------------------------- */

static void
ten_gigabytes_are_kept_without_copying (void **state)
{
  struct tree *t = *state;
  uint64_t size = UINT64_C (10) << 30;
  CLEANUP_CLOSE int data = -1;
  struct stat before, after;
  struct keep k;
  struct esp_map *map;
  int root = tree_add (t, -1, MIB, 1), dir;
  char text[ESP_UUID_TEXT], name[ESP_UUID_TEXT + 32];
  esp_uuid big;

  client_open (&k, t, root);
  client_write (&k, 5);
  client_close (&k);
  free (k.bytes);
  /* Exchange its files for those of a client that wrote 10 GiB. */
  dir = openat (esp_store_overlays_fd (t->store), "cafe/0/seat-7",
                O_RDONLY|O_DIRECTORY);
  assert_int_not_equal (dir, -1);
  assert_int_equal (unlinkat (dir, "map", 0), 0);
  map = esp_map_new (size);
  esp_map_set (map, 0, esp_blocks (size), ESP_DATA, NULL);
  assert_int_equal (esp_map_create (map, dir, "map"), 0);
  assert_int_equal (esp_map_mark_clean (map), 0);
  esp_map_free (map);
  data = openat (dir, "data", O_RDWR);
  assert_int_equal (ftruncate (data, (off_t) size), 0);
  {
    /* The document says the size of the disk. */
    CLEANUP_JSON json_t *doc = esp_doc_load (dir, "overlay", "overlay", 1);

    assert_non_null (doc);
    json_object_set_new (doc, "size", json_integer ((json_int_t) size));
    assert_int_equal (esp_doc_save (dir, "overlay", "overlay", 1, doc, 0600),
                      0);
  }
  close (dir);
  assert_int_equal (fstat (data, &before), 0);
  if (esp_rp_create_from_overlay (t->store, "big", &seat, 0, NULL, NULL, 0,
                                  &big) == -1)
    fail_msg ("%s", unit_error);
  /* The same file. */
  snprintf (name, sizeof name, "%s/data", esp_uuid_text (&big, text));
  assert_int_equal (fstatat (esp_store_rps_fd (t->store), name, &after, 0), 0);
  assert_int_equal (after.st_ino, before.st_ino);
}

#define KEEP_TEST(f) cmocka_unit_test_setup_teardown (f, tree_setup, \
                                                      tree_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    KEEP_TEST (what_was_written_is_kept_and_the_client_begins_anew),
    KEEP_TEST (own_files_and_modes_are_those_of_a_restore_point),
    KEEP_TEST (a_larger_disk_reads_zero_at_its_end),
    KEEP_TEST (connected_client_is_refused),
    KEEP_TEST (none_and_an_untouched_one_are_refused),
    KEEP_TEST (a_taken_name_changes_nothing),
    KEEP_TEST (tip_of_an_overlay_is_not_deleted_or_merged),
    KEEP_TEST (killed_at_every_step_the_bytes_are_somewhere),
    KEEP_TEST (ten_gigabytes_are_kept_without_copying),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
