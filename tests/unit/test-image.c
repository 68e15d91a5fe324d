/* SPDX-License-Identifier: BSD-3-Clause */
/* Images over several layers against naive bytes; layers that are cut
 * short or changed behind our back.
 */

#include "unit.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/file.h>

#include "store/image.h"
#include "store/inplace.h"
#include "store/map.h"
#include "store/rp.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/guard.h"

#define KIB UINT64_C (1024)
#define MIB (KIB * KIB)
#define DEPTH_MAX 12u

static char *dir;
static struct esp_store *store;

static uint64_t
rnd (unsigned *seed, uint64_t n)
{
  return ((uint64_t) rand_r (seed) << 31 | rand_r (seed)) % n;
}

static int
setup (void **state)
{
  char *path;

  (void) state;
  dir = unit_mkdir ();
  path = esp_asprintf ("%s/store", dir);
  if (esp_store_init (path) == -1)
    return -1;
  store = esp_store_open (path);
  free (path);
  return store ? 0 : -1;
}

static int
teardown (void **state)
{
  (void) state;
  esp_store_close (store);
  unit_rmdir (dir);
  return 0;
}

/* --- a tree by hand, with its bytes ----------------------------------- */

struct tree {
  uint64_t size;
  unsigned depth;
  uint8_t *bytes;               /* of the tip, whole blocks */
  uint8_t *states;              /* of its blocks */
  esp_uuid uuid[DEPTH_MAX + 1];
};

static int
rp_dir (const esp_uuid *u)
{
  char text[ESP_UUID_TEXT];
  int fd = esp_make_dir (esp_store_rps_fd (store), esp_uuid_text (u, text), 0755);

  assert_true (fd >= 0);
  return fd;
}

static void
resize (struct tree *t, uint64_t size)
{
  uint64_t old = esp_blocks (t->size), new = esp_blocks (size);

  t->bytes = realloc (t->bytes, new * ESP_BLOCK_SIZE);
  memset (t->bytes + old * ESP_BLOCK_SIZE, 0, (new - old) * ESP_BLOCK_SIZE);
  t->states = realloc (t->states, new);
  memset (t->states + old, ESP_ABSENT, new - old);
  t->size = size;
}

/* One random range of the new layer: into its data and map, and the twin. */
static void
random_range (struct tree *t, struct esp_map *map, int data, unsigned *seed)
{
  uint64_t n = esp_blocks (t->size), block = rnd (seed, n);
  uint64_t len = 1 + rnd (seed, rnd (seed, 2) ? 8 : 600);
  enum esp_state s = rnd (seed, 3) ? ESP_DATA : ESP_ZERO;

  if (len > n - block)
    len = n - block;
  esp_map_set (map, block, len, s, NULL);
  memset (t->states + block, s, len);
  for (uint64_t i = block * ESP_BLOCK_SIZE; i < (block + len) * ESP_BLOCK_SIZE; ++i)
    t->bytes[i] = s == ESP_DATA && i < t->size ? rand_r (seed) : 0;
  if (s == ESP_DATA)
    assert_int_equal (esp_pwrite_all (data, t->bytes + block * ESP_BLOCK_SIZE,
                                      len * ESP_BLOCK_SIZE,
                                      block * ESP_BLOCK_SIZE), 0);
}

static void
build_chain (struct tree *t, int fd, const struct esp_map *map)
{
  struct esp_chain *parent = NULL;

  if (t->depth > 1) {
    int pfd = rp_dir (&t->uuid[t->depth - 1]);
    parent = esp_chain_open (pfd, ESP_RP_CHAIN);
    assert_non_null (parent);
    close (pfd);
  }
  assert_int_equal (esp_chain_build (fd, ESP_RP_CHAIN, &t->uuid[t->depth],
                                     map, parent), 0);
  esp_chain_close (parent);
}

static void
add_layer (struct tree *t, unsigned ranges, unsigned *seed)
{
  struct esp_map *map = esp_map_new (t->size);

  t->depth++;
  esp_uuid_new (&t->uuid[t->depth]);
  int fd = rp_dir (&t->uuid[t->depth]);
  int data = openat (fd, ESP_RP_DATA, O_RDWR | O_CREAT, 0444);
  assert_int_equal (ftruncate (data, esp_blocks (t->size) * ESP_BLOCK_SIZE), 0);
  while (ranges-- > 0)
    random_range (t, map, data, seed);
  build_chain (t, fd, map);
  esp_map_free (map);
  close (data);
  close (fd);
}

static struct tree
new_tree (uint64_t size, unsigned depth, unsigned *seed)
{
  struct tree t = { 0 };

  resize (&t, size);
  for (unsigned i = 0; i < depth; ++i)
    add_layer (&t, 6, seed);
  return t;
}

static void
free_tree (struct tree *t)
{
  free (t->bytes);
  free (t->states);
}

/* --- reading ---------------------------------------------------------- */

static void
check_read (const struct tree *t, struct esp_image *image, uint64_t offset,
            uint64_t count)
{
  uint8_t *buf = malloc (count + 1);

  memset (buf, 0xa5, count + 1);
  assert_int_equal (esp_image_pread (image, buf, count, offset), 0);
  assert_memory_equal (buf, t->bytes + offset, count);
  assert_int_equal (buf[count], 0xa5);
  free (buf);
}

static void
check_random_reads (const struct tree *t, struct esp_image *image,
                    unsigned *seed, unsigned n)
{
  while (n-- > 0) {
    uint64_t offset = rnd (seed, t->size);
    uint64_t count = 1 + rnd (seed, rnd (seed, 2) ? 20000 : 3 * MIB);

    if (count > t->size - offset)
      count = t->size - offset;
    check_read (t, image, offset, count);
  }
}

static void
reads_match_naive_bytes (void **state)
{
  unsigned seed = unit_seed ();

  (void) state;
  for (unsigned round = 0; round < 5; ++round) {
    struct tree t = new_tree (1 + rnd (&seed, 6 * MIB), 1 + rnd (&seed, 6),
                              &seed);
    resize (&t, t.size + rnd (&seed, 2 * MIB));
    add_layer (&t, 5, &seed);

    struct esp_image *image = esp_image_open (store, &t.uuid[t.depth]);
    assert_non_null (image);
    assert_int_equal (esp_image_size (image), t.size);
    check_read (&t, image, 0, t.size);
    check_read (&t, image, t.size - 1, 1);
    check_read (&t, image, t.size, 0);
    check_random_reads (&t, image, &seed, 100);
    esp_image_close (image);
    free_tree (&t);
  }
}

static void
read_beyond_the_end_is_refused (void **state)
{
  unsigned seed = 3;
  struct tree t = new_tree (100000, 1, &seed);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);
  char buf[2];

  (void) state;
  assert_int_equal (esp_image_pread (image, buf, 2, 99999), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (esp_image_pread (image, buf, UINT64_MAX, 1), -1);
  esp_image_close (image);
  free_tree (&t);
}

struct extents { const struct tree *t; uint64_t offset, n; unsigned calls, stop; };

static int
check_extent (void *arg, uint64_t offset, uint64_t len, enum esp_state s)
{
  struct extents *e = arg;

  assert_int_equal (offset, e->offset);
  assert_true (len > 0);
  for (uint64_t b = offset / 4096; b <= (offset + len - 1) / 4096; ++b)
    assert_int_equal (e->t->states[b], s);
  if (offset % 4096 == 0 && offset > 0 && e->calls > 0)
    assert_int_not_equal (e->t->states[offset / 4096 - 1], s);
  e->offset += len;
  e->calls++;
  return e->calls == e->stop;
}

static void
extents_are_joined_clipped_and_in_order (void **state)
{
  unsigned seed = unit_seed ();
  struct tree t = new_tree (5 * MIB + 12345, 6, &seed);
  struct esp_image *image = esp_image_open (store, &t.uuid[t.depth]);

  (void) state;
  for (unsigned i = 0; i < 100; ++i) {
    uint64_t offset = rnd (&seed, t.size), count = 1 + rnd (&seed, t.size - offset);
    struct extents e = { .t = &t, .offset = offset };

    assert_int_equal (esp_image_extents (image, offset, count, check_extent, &e), 0);
    assert_int_equal (e.offset, offset + count);
    if (e.calls > 1) {
      struct extents s = { .t = &t, .offset = offset, .stop = 1 };
      assert_int_equal (esp_image_extents (image, offset, count, check_extent, &s), 0);
      assert_int_equal (s.calls, 1);
    }
    assert_int_equal (esp_image_cache (image, offset, count), 0);
  }
  esp_image_close (image);
  free_tree (&t);
}

/* --- opening ---------------------------------------------------------- */

static void
second_open_is_the_same_image (void **state)
{
  unsigned seed = 5;
  struct tree t = new_tree (MIB, 2, &seed);
  struct esp_image *a = esp_image_open (store, &t.uuid[2]);
  struct esp_image *b = esp_image_open (store, &t.uuid[2]);

  (void) state;
  assert_ptr_equal (a, b);
  esp_image_close (a);
  check_read (&t, b, 0, t.size);
  esp_image_close (b);
  free_tree (&t);
}

static void
unknown_restore_point_is_enoent (void **state)
{
  esp_uuid u;

  (void) state;
  esp_uuid_new (&u);
  assert_null (esp_image_open (store, &u));
  assert_int_equal (errno, ENOENT);
  assert_non_null (strstr (unit_error, "does not exist"));
}

static void
open_image_locks_its_restore_point (void **state)
{
  unsigned seed = 6;
  struct tree t = new_tree (MIB, 1, &seed);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);
  int fd = rp_dir (&t.uuid[1]);

  (void) state;
  assert_int_equal (flock (fd, LOCK_EX | LOCK_NB), -1);
  esp_image_close (image);
  assert_int_equal (flock (fd, LOCK_EX | LOCK_NB), 0);
  assert_null (esp_image_open (store, &t.uuid[1]));
  assert_int_equal (errno, EBUSY);
  close (fd);
  free_tree (&t);
}

/* --- damage ----------------------------------------------------------- */

static void
truncate_layer (const esp_uuid *u, off_t size)
{
  int fd = rp_dir (u), data = openat (fd, ESP_RP_DATA, O_RDWR);

  assert_int_equal (ftruncate (data, size), 0);
  close (data);
  close (fd);
}

/* The tree has one layer of which all blocks are data. */
static struct tree
full_tree (uint64_t size)
{
  struct tree t = { .depth = 1 };
  struct esp_map *map = esp_map_new (size);

  resize (&t, size);
  esp_map_set (map, 0, esp_blocks (size), ESP_DATA, NULL);
  for (uint64_t i = 0; i < size; ++i)
    t.bytes[i] = i * 7 + i / 4096;
  esp_uuid_new (&t.uuid[1]);
  int fd = rp_dir (&t.uuid[1]);
  int data = openat (fd, ESP_RP_DATA, O_RDWR | O_CREAT, 0444);
  assert_int_equal (esp_pwrite_all (data, t.bytes, esp_blocks (size) * 4096, 0), 0);
  build_chain (&t, fd, map);
  esp_map_free (map);
  close (data);
  close (fd);
  return t;
}

static void
layer_cut_short_before_it_is_opened_is_eio (void **state)
{
  struct tree t = full_tree (300 * KIB);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);
  char buf[8192];

  (void) state;
  truncate_layer (&t.uuid[1], 100 * KIB);
  assert_int_equal (esp_image_pread (image, buf, 8192, 200 * KIB), -1);
  assert_int_equal (errno, EIO);
  assert_non_null (strstr (unit_error, "cut short"));
  check_read (&t, image, 0, 90 * KIB);
  esp_image_close (image);
  free_tree (&t);
}

/* The page in which a file ends reads as zero behind the end: wrong bytes. */
static void
layer_cut_in_mid_block_gives_no_zeroes_for_the_rest (void **state)
{
  struct tree t = full_tree (300 * KIB);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);
  char buf[4096];

  (void) state;
  truncate_layer (&t.uuid[1], 100 * KIB + 1000);
  assert_int_equal (esp_image_pread (image, buf, 4096, 100 * KIB), -1);
  assert_int_equal (errno, EIO);
  check_read (&t, image, 0, 100 * KIB);
  esp_image_close (image);
  free_tree (&t);
}

static void
layer_cut_short_while_it_is_read_is_eio (void **state)
{
  struct tree t = full_tree (300 * KIB);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);
  char buf[8192];

  (void) state;
  check_read (&t, image, 0, t.size);
  truncate_layer (&t.uuid[1], 100 * KIB);
  for (unsigned i = 0; i < 3; ++i) {
    assert_int_equal (esp_image_pread (image, buf, 8192, 200 * KIB), -1);
    assert_int_equal (errno, EIO);
  }
  check_read (&t, image, 0, 90 * KIB);
  esp_image_close (image);
  free_tree (&t);
}

/* --- idle layers ------------------------------------------------------ */

/* Has this process the data of restore point U mapped? */
static bool
mapped (const esp_uuid *u)
{
  char line[4096], text[ESP_UUID_TEXT];
  FILE *f = fopen ("/proc/self/maps", "r");
  bool found = false;

  assert_non_null (f);
  esp_uuid_text (u, text);
  while (fgets (line, sizeof line, f))
    found |= strstr (line, text) && strstr (line, "/" ESP_RP_DATA);
  fclose (f);
  return found;
}

static void
read_and_close (const struct tree *t)
{
  struct esp_image *image = esp_image_open (store, &t->uuid[1]);

  assert_non_null (image);
  check_read (t, image, 0, t->size);
  esp_image_close (image);
}

static void
layers_are_unmapped_at_once_by_default (void **state)
{
  struct tree t = full_tree (300 * KIB);

  (void) state;
  read_and_close (&t);
  assert_false (mapped (&t.uuid[1]));
  free_tree (&t);
}

static void
idle_layer_stays_mapped_and_locks_nothing (void **state)
{
  struct tree t = full_tree (300 * KIB);

  (void) state;
  assert_int_equal (esp_image_keep_idle (true), 0);
  read_and_close (&t);
  assert_true (mapped (&t.uuid[1]));
  int fd = rp_dir (&t.uuid[1]);
  assert_int_equal (flock (fd, LOCK_EX | LOCK_NB), 0);
  close (fd);
  read_and_close (&t);
  assert_int_equal (esp_image_keep_idle (false), 0);
  assert_false (mapped (&t.uuid[1]));
  free_tree (&t);
}

static void
idle_layer_of_a_replaced_file_is_read_anew (void **state)
{
  struct tree t = full_tree (300 * KIB);

  (void) state;
  assert_int_equal (esp_image_keep_idle (true), 0);
  read_and_close (&t);
  t.bytes[12345] ^= 0xff;
  int fd = rp_dir (&t.uuid[1]);
  assert_int_equal (esp_write_file_atomic (fd, ESP_RP_DATA, t.bytes,
                                           300 * KIB, 0444), 0);
  close (fd);
  read_and_close (&t);
  truncate_layer (&t.uuid[1], 100 * KIB);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);
  char buf[8192];
  assert_int_equal (esp_image_pread (image, buf, 8192, 200 * KIB), -1);
  assert_int_equal (errno, EIO);
  check_read (&t, image, 0, 90 * KIB);
  esp_image_close (image);
  assert_int_equal (esp_image_keep_idle (false), 0);
  free_tree (&t);
}

/* --- tiles of several owners (views) ---------------------------------------- */

/* A second layer with one block of each STEP, of the tree of one layer. */
static void
add_every (struct tree *t, unsigned step)
{
  struct esp_map *map = esp_map_new (t->size);

  t->depth++;
  esp_uuid_new (&t->uuid[t->depth]);
  int fd = rp_dir (&t->uuid[t->depth]);
  int data = openat (fd, ESP_RP_DATA, O_RDWR | O_CREAT, 0444);
  assert_int_equal (ftruncate (data, esp_blocks (t->size) * 4096), 0);
  for (uint64_t b = 0; b < t->size / 4096; b += step) {
    esp_map_set (map, b, 1, ESP_DATA, NULL);
    /* Few bytes: most of the file is holes, which are data as well. */
    memset (t->bytes + b * 4096, 0, 4096);
    if (b % (ESP_TILE_BLOCKS / 2) == 0) {
      memset (t->bytes + b * 4096, (int) (b >> 7) | 1, 4096);
      assert_int_equal (esp_pwrite_all (data, t->bytes + b * 4096, 4096,
                                        b * 4096), 0);
    }
  }
  build_chain (t, fd, map);
  esp_map_free (map);
  close (data);
  close (fd);
}

/* Mappings of the data of restore point U. */
static unsigned
count_mappings (const esp_uuid *u)
{
  char line[4096], text[ESP_UUID_TEXT];
  FILE *f = fopen ("/proc/self/maps", "r");
  unsigned n = 0;

  assert_non_null (f);
  esp_uuid_text (u, text);
  while (fgets (line, sizeof line, f))
    n += strstr (line, text) && strstr (line, "/" ESP_RP_DATA);
  fclose (f);
  return n;
}

static void
fragmented_tile_is_mapped_in_one_piece_while_it_is_read (void **state)
{
  struct tree t = full_tree (2 * MIB + 300 * KIB);

  (void) state;
  add_every (&t, 8);
  struct esp_image *image = esp_image_open (store, &t.uuid[2]);
  assert_int_equal (count_mappings (&t.uuid[2]), 0);
  check_read (&t, image, MIB + 5000, 4096);     /* its tile alone */
  assert_int_equal (count_mappings (&t.uuid[2]), 1 + 32);
  check_read (&t, image, 0, t.size);
  assert_int_equal (count_mappings (&t.uuid[2]), 1 + 32 + 32 + 10);
  esp_image_close (image);
  assert_int_equal (count_mappings (&t.uuid[1]), 0);
  assert_int_equal (count_mappings (&t.uuid[2]), 0);
  free_tree (&t);
}

static void
layer_of_a_fragmented_tile_that_is_cut_short_is_eio (void **state)
{
  struct tree t = full_tree (MIB);
  char buf[8192];

  (void) state;
  add_every (&t, 2);
  struct esp_image *image = esp_image_open (store, &t.uuid[2]);
  check_read (&t, image, 0, t.size);
  truncate_layer (&t.uuid[1], 100 * KIB);
  for (unsigned i = 0; i < 3; ++i) {
    assert_int_equal (esp_image_pread (image, buf, 8192, 200 * KIB), -1);
    assert_int_equal (errno, EIO);
  }
  assert_non_null (strstr (unit_error, "cut short"));
  check_read (&t, image, 0, 90 * KIB);
  check_read (&t, image, 512 * KIB, 4096);      /* the other layer's */
  esp_image_close (image);
  free_tree (&t);
}

/* Also when the image was closed and its view is idle. */
static void
replaced_layer_of_a_fragmented_tile_is_read_anew (void **state)
{
  struct tree t = full_tree (MIB + 300 * KIB);

  (void) state;
  add_every (&t, 4);
  assert_int_equal (esp_image_keep_idle (true), 0);
  for (unsigned i = 0; i < 3; ++i) {
    struct esp_image *image = esp_image_open (store, &t.uuid[2]);

    check_read (&t, image, 0, t.size);
    esp_image_close (image);
    assert_int_equal (count_mappings (&t.uuid[2]), 1 + 64 + 19);
    if (i == 0) {
      t.bytes[4096 + 17] ^= 0xff;       /* of the first layer */
      int fd = rp_dir (&t.uuid[1]);
      assert_int_equal (esp_write_file_atomic (fd, ESP_RP_DATA, t.bytes,
                                               MIB + 300 * KIB, 0644), 0);
      close (fd);
    }
  }
  assert_int_equal (esp_image_keep_idle (false), 0);
  assert_int_equal (count_mappings (&t.uuid[2]), 0);
  free_tree (&t);
}

/* A process has so many mappings; the rest of the disk is read all the same,
 * and what an idle view takes is there for the next.
 */
static void
views_leave_mappings_for_others (void **state)
{
  FILE *fp = fopen ("/proc/sys/vm/max_map_count", "r");
  unsigned max;

  (void) state;
  assert_non_null (fp);
  assert_int_equal (fscanf (fp, "%u", &max), 1);
  fclose (fp);
  if (max > 100000) {
    print_message ("vm.max_map_count is too large to be used up\n");
    skip ();
  }
  struct tree t = full_tree (max / 2 / 256 * MIB + 40 * MIB);
  add_every (&t, 2);
  assert_int_equal (esp_image_keep_idle (true), 0);
  for (unsigned i = 0; i < 2; ++i) {
    struct esp_image *image = esp_image_open (store, &t.uuid[2]);

    check_read (&t, image, 0, t.size);
    assert_in_range (count_mappings (&t.uuid[2]), max / 4 - 300, max / 4 + 1);
    esp_image_close (image);
    add_every (&t, 2);          /* the next tip: its view needs the room */
    t.uuid[2] = t.uuid[3];
    t.depth = 2;
  }
  assert_int_equal (esp_image_keep_idle (false), 0);
  free_tree (&t);
}

static void
missing_layer_is_an_error_of_the_read_only (void **state)
{
  unsigned seed = 9;
  struct tree t = new_tree (MIB, 3, &seed);
  char buf[4096], text[ESP_UUID_TEXT];

  (void) state;
  assert_int_equal (esp_remove_tree (esp_store_rps_fd (store),
                                     esp_uuid_text (&t.uuid[1], text)), 0);
  struct esp_image *image = esp_image_open (store, &t.uuid[3]);
  assert_non_null (image);
  for (uint64_t b = 0; b < 256; ++b) {
    struct esp_run run;
    assert_int_equal (esp_chain_run (esp_image_chain (image), b, 1, &run), 0);
    if (run.owner == 1 && run.state == ESP_DATA) {
      assert_int_equal (esp_image_pread (image, buf, 4096, b * 4096), -1);
      assert_int_equal (errno, ENOENT);
    }
    else
      check_read (&t, image, b * 4096, 4096);
  }
  esp_image_close (image);
  free_tree (&t);
}

static struct tree in_place_tree (const char *path, uint64_t size);

/* Takes all the address space that layers may map. */
static size_t
take_address_space (void)
{
  size_t sum = 0;

  for (size_t n = (size_t) 1 << 60; n > 0; n /= 2)
    while (esp_guard_reserve (n) == 0)
      sum += n;
  return sum;
}

static void
layers_that_cannot_be_mapped_are_read_all_the_same (void **state)
{
  char *path = esp_asprintf ("%s/raw5", dir), buf[8192];
  struct tree t = in_place_tree (path, 100001), full = full_tree (300 * KIB);
  size_t taken = take_address_space ();
  unsigned seed = 12;

  (void) state;
  resize (&t, 150000);
  add_layer (&t, 3, &seed);
  struct esp_image *image = esp_image_open (store, &t.uuid[2]);
  check_read (&t, image, 0, t.size);
  check_random_reads (&t, image, &seed, 50);
  assert_int_equal (esp_image_cache (image, 0, t.size), 0);
  esp_image_close (image);

  image = esp_image_open (store, &full.uuid[1]);
  check_read (&full, image, 0, full.size);
  truncate_layer (&full.uuid[1], 100 * KIB);
  assert_int_equal (esp_image_pread (image, buf, 8192, 200 * KIB), -1);
  assert_int_equal (errno, EIO);
  esp_image_close (image);
  esp_guard_release (taken);
  free_tree (&t);
  free_tree (&full);
  free (path);
}

static void
foreign_chain_map_is_refused (void **state)
{
  unsigned seed = 10;
  struct tree t = new_tree (MIB, 2, &seed);
  int a = rp_dir (&t.uuid[1]), b = rp_dir (&t.uuid[2]);

  (void) state;
  assert_int_equal (renameat (a, ESP_RP_CHAIN, b, ESP_RP_CHAIN), 0);
  assert_null (esp_image_open (store, &t.uuid[2]));
  assert_int_equal (errno, EBADMSG);
  close (a);
  close (b);
  free_tree (&t);
}

/* --- roots in place --------------------------------------------------- */

/* A root in place of SIZE bytes at PATH. */
static struct tree
in_place_tree (const char *path, uint64_t size)
{
  struct tree t = full_tree (size);
  struct esp_inplace id;
  json_t *meta = json_object ();
  int fd = rp_dir (&t.uuid[1]);
  int file = open (path, O_RDWR | O_CREAT | O_TRUNC, 0644);

  assert_int_equal (unlinkat (fd, ESP_RP_DATA, 0), 0);
  assert_int_equal (esp_pwrite_all (file, t.bytes, size, 0), 0);
  close (file);
  assert_int_equal (esp_inplace_capture (path, &id), 0);
  assert_int_equal (json_object_set_new (meta, ESP_INPLACE_KEY,
                                         esp_inplace_to_json (&id)), 0);
  assert_int_equal (esp_doc_save (fd, ESP_RP_META, ESP_RP_META_KIND,
                                  ESP_RP_META_VERSION, meta, 0644), 0);
  json_decref (meta);
  esp_inplace_clear (&id);
  close (fd);
  return t;
}

static void
root_in_place_is_read_where_it_is (void **state)
{
  char *path = esp_asprintf ("%s/raw", dir);
  struct tree t = in_place_tree (path, 100001);
  unsigned seed = 11;

  (void) state;
  /* Longer, so that the last block of the root is read whole. */
  resize (&t, 150000);
  add_layer (&t, 0, &seed);
  struct esp_image *image = esp_image_open (store, &t.uuid[2]);
  check_read (&t, image, 0, t.size);
  check_random_reads (&t, image, &seed, 20);
  esp_image_close (image);
  free_tree (&t);
  free (path);
}

static void
root_in_place_that_changed_is_stale_when_opened (void **state)
{
  char *path = esp_asprintf ("%s/raw1", dir), buf[10];
  struct tree t = in_place_tree (path, 100000);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);

  (void) state;
  assert_int_equal (truncate (path, 100001), 0);
  assert_int_equal (esp_image_pread (image, buf, 10, 0), -1);
  assert_int_equal (errno, ESTALE);
  assert_non_null (strstr (unit_error, "its size changed"));
  esp_image_close (image);
  free_tree (&t);
  free (path);
}

static void
root_in_place_that_changes_is_stale_within_seconds (void **state)
{
  char *path = esp_asprintf ("%s/raw2", dir), buf[10];
  struct tree t = in_place_tree (path, 100000);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);
  int fd = open (path, O_WRONLY), r = 0;

  (void) state;
  check_read (&t, image, 0, t.size);
  assert_int_equal (pwrite (fd, "x", 1, 50), 1);
  for (unsigned i = 0; i < 500 && r == 0; ++i) {
    usleep (10000);
    r = esp_image_pread (image, buf, 10, 0);
  }
  assert_int_equal (r, -1);
  assert_int_equal (errno, ESTALE);
  assert_int_equal (esp_image_pread (image, buf, 10, 0), -1);
  assert_int_equal (errno, ESTALE);
  close (fd);
  esp_image_close (image);
  free_tree (&t);
  free (path);
}

static void
root_in_place_that_is_cut_short_is_stale_not_a_crash (void **state)
{
  char *path = esp_asprintf ("%s/raw3", dir), buf[10];
  struct tree t = in_place_tree (path, 100000);
  struct esp_image *image = esp_image_open (store, &t.uuid[1]);

  (void) state;
  check_read (&t, image, 0, t.size);
  assert_int_equal (truncate (path, 10), 0);
  assert_int_equal (esp_image_pread (image, buf, 10, 90000), -1);
  assert_int_equal (errno, ESTALE);
  esp_image_close (image);
  free_tree (&t);
  free (path);
}

static void
identity_survives_json_and_refuses_nonsense (void **state)
{
  struct esp_inplace a, b;
  char *path = esp_asprintf ("%s/raw4", dir);
  int fd = open (path, O_RDWR | O_CREAT, 0644);

  (void) state;
  assert_int_equal (esp_inplace_capture (path, &a), -1);        /* empty */
  esp_inplace_clear (&a);
  assert_int_equal (esp_inplace_capture (dir, &a), -1);
  esp_inplace_clear (&a);
  assert_int_equal (ftruncate (fd, 12345), 0);
  assert_int_equal (esp_inplace_capture (path, &a), 0);
  json_t *o = esp_inplace_to_json (&a);
  assert_int_equal (esp_inplace_from_json (o, &b, "test"), 0);
  assert_string_equal (b.path, path);
  assert_int_equal (esp_inplace_same (fd, &b), 0);
  esp_inplace_clear (&b);
  json_object_set_new (o, "size", json_integer (-4));
  assert_int_equal (esp_inplace_from_json (o, &b, "test"), -1);
  assert_int_equal (errno, EBADMSG);
  esp_inplace_clear (&b);
  json_object_set_new (o, "size", json_integer (5));
  json_object_set_new (o, "samples", json_string ("12"));
  assert_int_equal (esp_inplace_from_json (o, &b, "test"), -1);
  esp_inplace_clear (&b);
  json_decref (o);
  esp_inplace_clear (&a);
  close (fd);
  free (path);
}

/* --- threads ---------------------------------------------------------- */

static const struct tree *shared;

/* Opens, reads and closes, so that images and layers come and go. */
static void *
read_many (void *arg)
{
  unsigned seed = (uintptr_t) arg;

  for (unsigned i = 0; i < 20; ++i) {
    unsigned d = 1 + rnd (&seed, shared->depth);
    struct esp_image *tip = esp_image_open (store, &shared->uuid[shared->depth]);
    struct esp_image *other = esp_image_open (store, &shared->uuid[d]);
    char buf[5000];

    if (!tip || !other)
      abort ();
    esp_image_close (other);
    for (unsigned j = 0; j < 50; ++j) {
      uint64_t offset = rnd (&seed, shared->size - sizeof buf);
      if (esp_image_pread (tip, buf, sizeof buf, offset) == -1 ||
          memcmp (buf, shared->bytes + offset, sizeof buf) != 0)
        abort ();
    }
    esp_image_close (tip);
  }
  return NULL;
}

static void
threads_open_and_read_the_same (void **state)
{
  unsigned seed = unit_seed ();
  struct tree t = new_tree (4 * MIB, 10, &seed);
  pthread_t id[4];

  (void) state;
  shared = &t;
  for (unsigned i = 0; i < 4; ++i)
    assert_int_equal (pthread_create (&id[i], NULL, read_many,
                                      (void *) (uintptr_t) (seed + i)), 0);
  for (unsigned i = 0; i < 4; ++i)
    pthread_join (id[i], NULL);
  free_tree (&t);
}

/* --- depth ------------------------------------------------------------ */

static void
depth_1000_opens_and_reads (void **state)
{
  struct esp_map *map = esp_map_new (8 * MIB);
  struct esp_chain *parent = NULL;
  esp_uuid u;
  char buf[4096];
  int fd = -1;

  (void) state;
  /* Layer N has block N % 2048 with the number N in it. */
  for (unsigned n = 1; n <= 1000; ++n) {
    memset (buf, n % 251, sizeof buf);
    esp_uuid_new (&u);
    close (fd);
    fd = rp_dir (&u);
    int data = openat (fd, ESP_RP_DATA, O_RDWR | O_CREAT, 0444);
    assert_int_equal (ftruncate (data, 8 * MIB), 0);
    assert_int_equal (pwrite (data, buf, sizeof buf, n * 4096), 4096);
    close (data);
    esp_map_set (map, n, 1, ESP_DATA, NULL);
    assert_int_equal (esp_chain_build (fd, ESP_RP_CHAIN, &u, map, parent), 0);
    esp_map_set (map, n, 1, ESP_ABSENT, NULL);
    esp_chain_close (parent);
    parent = esp_chain_open (fd, ESP_RP_CHAIN);
    assert_non_null (parent);
  }
  esp_chain_close (parent);
  close (fd);
  esp_map_free (map);

  struct esp_image *image = esp_image_open (store, &u);
  assert_non_null (image);
  for (unsigned n = 1; n <= 1000; ++n) {
    assert_int_equal (esp_image_pread (image, buf, 4096, n * 4096), 0);
    assert_int_equal ((uint8_t) buf[0], n % 251);
    assert_int_equal ((uint8_t) buf[4095], n % 251);
  }
  esp_image_close (image);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (reads_match_naive_bytes),
    cmocka_unit_test (read_beyond_the_end_is_refused),
    cmocka_unit_test (extents_are_joined_clipped_and_in_order),
    cmocka_unit_test (second_open_is_the_same_image),
    cmocka_unit_test (unknown_restore_point_is_enoent),
    cmocka_unit_test (open_image_locks_its_restore_point),
    cmocka_unit_test (layer_cut_short_before_it_is_opened_is_eio),
    cmocka_unit_test (layer_cut_in_mid_block_gives_no_zeroes_for_the_rest),
    cmocka_unit_test (layer_cut_short_while_it_is_read_is_eio),
    cmocka_unit_test (layers_are_unmapped_at_once_by_default),
    cmocka_unit_test (idle_layer_stays_mapped_and_locks_nothing),
    cmocka_unit_test (idle_layer_of_a_replaced_file_is_read_anew),
    cmocka_unit_test (fragmented_tile_is_mapped_in_one_piece_while_it_is_read),
    cmocka_unit_test (layer_of_a_fragmented_tile_that_is_cut_short_is_eio),
    cmocka_unit_test (replaced_layer_of_a_fragmented_tile_is_read_anew),
    cmocka_unit_test (views_leave_mappings_for_others),
    cmocka_unit_test (missing_layer_is_an_error_of_the_read_only),
    cmocka_unit_test (layers_that_cannot_be_mapped_are_read_all_the_same),
    cmocka_unit_test (foreign_chain_map_is_refused),
    cmocka_unit_test (root_in_place_is_read_where_it_is),
    cmocka_unit_test (root_in_place_that_changed_is_stale_when_opened),
    cmocka_unit_test (root_in_place_that_changes_is_stale_within_seconds),
    cmocka_unit_test (root_in_place_that_is_cut_short_is_stale_not_a_crash),
    cmocka_unit_test (identity_survives_json_and_refuses_nonsense),
    cmocka_unit_test (threads_open_and_read_the_same),
    cmocka_unit_test (depth_1000_opens_and_reads),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, setup, teardown);
}
