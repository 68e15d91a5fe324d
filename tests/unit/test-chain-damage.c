/* SPDX-License-Identifier: BSD-3-Clause */
/* Damaged chain maps: an error, or the right answers; never wrong ones,
 * never a crash.
 */

#include "unit.h"

#include <sys/stat.h>

#include "chain/chain.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/sum.h"

#define MIB (UINT64_C (1) << 20)
#define SIZE (5 * MIB - 30000)
#define BLOCKS 1273u
#define DEPTH 3u

/* Where things are in the file (docs/formats.md, "chain"). */
#define OWNERS_AT 4096u
#define BODY_AT 8192u
#define CHUNK 65536u
#define SUBS_AT (BODY_AT + CHUNK)

struct answer { unsigned owner; enum esp_state state; };

static char *dir;
static int dirfd_ = -1;
static esp_uuid owners[DEPTH];
static struct answer answers[BLOCKS];
static char *file;              /* a sound chain map */
static size_t file_len;

static uint64_t
rnd (unsigned *seed, uint64_t n)
{
  return ((uint64_t) rand_r (seed) << 31 | rand_r (seed)) % n;
}

/* --- a sound file ----------------------------------------------------- */

static void
fill_map (struct esp_map *map, unsigned owner, unsigned *seed)
{
  for (unsigned i = 0; i < 6; ++i) {
    uint64_t block = rnd (seed, BLOCKS), n = 1 + rnd (seed, 200);
    enum esp_state s = 1 + rnd (seed, 2);

    if (n > BLOCKS - block)
      n = BLOCKS - block;
    esp_map_set (map, block, n, s, NULL);
    for (uint64_t b = block; b < block + n; ++b)
      answers[b] = (struct answer) { .owner = owner, .state = s };
  }
}

static int
setup (void **state)
{
  struct esp_chain *parent = NULL;
  unsigned seed = 20261123;
  char name[] = "0";

  (void) state;
  dir = unit_mkdir ();
  dirfd_ = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (unsigned d = 0; d < DEPTH; ++d, ++name[0]) {
    struct esp_map *map = esp_map_new (SIZE);

    fill_map (map, d + 1, &seed);
    esp_uuid_new (&owners[d]);
    if (esp_chain_build (dirfd_, name, &owners[d], map, parent) == -1)
      return -1;
    esp_map_free (map);
    esp_chain_close (parent);
    parent = esp_chain_open (dirfd_, name);
  }
  if (esp_chain_subtables (parent) < 3)
    return -1;
  esp_chain_close (parent);
  name[0]--;
  return esp_read_file (dirfd_, name, 1 << 20, &file, &file_len);
}

static int
teardown (void **state)
{
  (void) state;
  free (file);
  close (dirfd_);
  unit_rmdir (dir);
  return 0;
}

/* --- using one -------------------------------------------------------- */

static bool
owners_right (struct esp_chain *chain)
{
  bool right = esp_chain_size (chain) == SIZE &&
    esp_chain_depth (chain) == DEPTH;

  for (unsigned d = 1; d <= DEPTH && right; ++d)
    right = esp_uuid_eq (esp_chain_owner (chain, d), &owners[d - 1]);
  return right;
}

/* Every block's answer: true if all that were given are right.  *ERRORS
 * gets the number of those that were refused.
 */
static bool
answers_right (struct esp_chain *chain, unsigned *errors)
{
  bool right = true;
  uint64_t n;

  *errors = 0;
  for (uint64_t b = 0; b < BLOCKS; b += n) {
    struct esp_run run;

    n = 101;                    /* a step after an error */
    if (esp_chain_run (chain, b, BLOCKS - b, &run) == -1) {
      right &= errno == EBADMSG || errno == EIO;
      ++*errors;
      continue;
    }
    n = run.nblocks;
    for (uint64_t i = b; i < b + n; ++i)
      right &= run.owner == answers[i].owner && run.state == answers[i].state;
  }
  return right;
}

static bool
newest_right (struct esp_chain *chain)
{
  bool right = true;

  for (unsigned first = 0; first < BLOCKS; first += 64) {
    unsigned owner, expected = 0;

    for (unsigned b = first; b < first + 64 && b < BLOCKS; ++b)
      if (answers[b].owner > expected)
        expected = answers[b].owner;
    uint64_t offset = first * ESP_BLOCK_SIZE;
    uint64_t len = 64 * ESP_BLOCK_SIZE;
    if (len > SIZE - offset)
      len = SIZE - offset;
    if (esp_chain_newest (chain, offset, len, &owner) == 0)
      right &= owner == expected;
  }
  return right;
}

/* Write BYTES as the file "x", open and use it.  The number of errors. */
static unsigned
try_file (const char *bytes, size_t len)
{
  int fd = openat (dirfd_, "x", O_RDWR | O_CREAT | O_TRUNC, 0644);
  unsigned errors;
  uint64_t bad_at;

  assert_int_equal (esp_pwrite_all (fd, bytes, len, 0), 0);
  close (fd);
  struct esp_chain *chain = esp_chain_open (dirfd_, "x");
  if (!chain)
    return 1;
  assert_true (owners_right (chain));
  assert_true (answers_right (chain, &errors));
  assert_true (newest_right (chain));
  if (esp_chain_check (chain, &bad_at) == -1) {
    assert_true (bad_at >= BODY_AT && bad_at < len);
    errors++;
  }
  else
    assert_int_equal (errors, 0);
  esp_chain_close (chain);
  return errors;
}

/* --- tests ------------------------------------------------------------ */

static void
sound_file_has_no_errors (void **state)
{
  (void) state;
  assert_int_equal (try_file (file, file_len), 0);
}

static void
flip (size_t at, char how)
{
  unsigned errors;

  file[at] ^= how;
  errors = try_file (file, file_len);
  file[at] ^= how;
  /* Only the gap behind the owners is nobody's. */
  if (at < OWNERS_AT + DEPTH * 16 || at >= BODY_AT)
    assert_true (errors > 0);
}

static void
every_flipped_byte_is_found (void **state)
{
  unsigned seed = unit_seed ();

  (void) state;
  for (size_t at = 0; at < file_len; ) {
    flip (at, 1 + rnd (&seed, 255));
    bool dull = (at >= 150 && at < 4000) || (at > 4200 && at < BODY_AT) ||
      (at > BODY_AT + 32 && at < SUBS_AT - 32);
    at += dull ? 1 + rnd (&seed, 90) : 1 + rnd (&seed, 2);
  }
}

static void
file_cut_short_is_eio_when_opened (void **state)
{
  (void) state;
  for (size_t len = 0; len < file_len; len += len < 9000 ? 101 : 997) {
    int fd = openat (dirfd_, "x", O_RDWR | O_CREAT | O_TRUNC, 0644);

    assert_int_equal (esp_pwrite_all (fd, file, len, 0), 0);
    close (fd);
    assert_null (esp_chain_open (dirfd_, "x"));
    assert_int_equal (errno, EIO);
  }
}

static void
longer_file_is_refused (void **state)
{
  char *longer = calloc (file_len + 1, 1);

  (void) state;
  memcpy (longer, file, file_len);
  assert_int_equal (try_file (longer, file_len + 1), 1);
  assert_int_equal (errno, EBADMSG);
  free (longer);
}

static void
file_cut_short_while_it_is_open_is_eio (void **state)
{
  (void) state;
  for (int touched = 0; touched < 2; ++touched) {
    int fd = openat (dirfd_, "x", O_RDWR | O_CREAT | O_TRUNC, 0644);
    struct esp_run run;
    unsigned errors;
    uint64_t bad_at;

    assert_int_equal (esp_pwrite_all (fd, file, file_len, 0), 0);
    struct esp_chain *chain = esp_chain_open (dirfd_, "x");
    assert_non_null (chain);
    if (touched)
      assert_true (answers_right (chain, &errors));
    assert_int_equal (ftruncate (fd, 4096), 0);
    unit_error[0] = 0;
    assert_int_equal (esp_chain_run (chain, 0, BLOCKS, &run), -1);
    assert_int_equal (errno, EIO);
    assert_string_not_equal (unit_error, "");
    /* Once is enough. */
    unit_error[0] = 0;
    assert_int_equal (esp_chain_run (chain, 5, 1, &run), -1);
    assert_int_equal (errno, EIO);
    assert_string_equal (unit_error, "");
    assert_int_equal (esp_chain_check (chain, &bad_at), -1);
    assert_int_equal (errno, EIO);
    esp_chain_close (chain);
    close (fd);
  }
}

/* --- right checksums, wrong numbers ----------------------------------- */

static size_t
body_len (void)
{
  return esp_get64 (file + 96);
}

/* Make all checksums of BYTES right again. */
static void
seal (char *bytes)
{
  size_t sums_at = esp_get64 (file + 72), n = body_len ();

  for (size_t i = 0; i * CHUNK < n; ++i) {
    size_t len = n - i * CHUNK < CHUNK ? n - i * CHUNK : CHUNK;
    esp_put64 (bytes + sums_at + 8 * i, esp_sum (bytes + BODY_AT + i * CHUNK, len));
  }
  esp_put64 (bytes + 104, esp_sum (bytes + OWNERS_AT, DEPTH * 16));
  esp_put64 (bytes + 112, esp_sum (bytes + sums_at, (n + CHUNK - 1) / CHUNK * 8));
  esp_put64 (bytes + 4088, esp_sum (bytes, 4088));
}

/* A copy of the file with N bytes at AT replaced and sealed, as "x". */
static void
forge (size_t at, const void *value, size_t n)
{
  char *copy = malloc (file_len);
  int fd = openat (dirfd_, "x", O_RDWR | O_CREAT | O_TRUNC, 0644);

  memcpy (copy, file, file_len);
  memcpy (copy + at, value, n);
  seal (copy);
  assert_int_equal (esp_pwrite_all (fd, copy, file_len, 0), 0);
  close (fd);
  free (copy);
}

static void
unknown_version_is_enotsup (void **state)
{
  (void) state;
  forge (8, "\2\0\0\0", 4);
  assert_null (esp_chain_open (dirfd_, "x"));
  assert_int_equal (errno, ENOTSUP);
  assert_non_null (strstr (unit_error, "version 2"));
}

static void
headers_that_make_no_sense_are_refused (void **state)
{
  static const unsigned fields[] = { 12, 16, 20, 24, 28, 32, 36, 40, 48, 56,
                                     64, 72, 80, 88, 96 };
  static const uint32_t values[] = { 0, 1, 0x7fffffff, 0xffffffff };

  (void) state;
  for (unsigned f = 0; f < sizeof fields / sizeof fields[0]; ++f)
    for (unsigned v = 0; v < 4; ++v) {
      struct esp_chain *chain;

      if (esp_get32 (file + fields[f]) == values[v])
        continue;
      uint32_t le = htole32 (values[v]);
      forge (fields[f], &le, 4);
      chain = esp_chain_open (dirfd_, "x");
      /* The size alone may change within its last tile. */
      if (chain)
        assert_int_equal (esp_blocks (esp_chain_size (chain)) >> 8, BLOCKS >> 8);
      else
        assert_true (errno == EBADMSG || errno == EIO);
      esp_chain_close (chain);
    }
}

static void
tile_entries_out_of_range_are_damage (void **state)
{
  static const uint32_t bad[] = { 0x80000000u + 100, 0xffffffff, 4, 0x8000,
                                  0x8004, 0x10001, 0x7fff };

  (void) state;
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    uint32_t le = htole32 (bad[i]);
    struct esp_run run;
    uint64_t bad_at;
    unsigned owner;

    forge (BODY_AT + 4, &le, 4);
    struct esp_chain *chain = esp_chain_open (dirfd_, "x");
    assert_non_null (chain);
    assert_int_equal (esp_chain_run (chain, 300, 1, &run), -1);
    assert_int_equal (errno, EBADMSG);
    assert_int_equal (esp_chain_newest (chain, MIB, MIB, &owner), -1);
    assert_int_equal (errno, EBADMSG);
    assert_int_equal (esp_chain_check (chain, &bad_at), -1);
    assert_int_equal (bad_at, BODY_AT + 4);
    esp_chain_close (chain);
  }
}

static void
subtable_entries_out_of_range_are_damage (void **state)
{
  static const uint16_t bad[] = { 4, 0x8000, 0x8004, 0xffff };
  unsigned tile = 0;

  (void) state;
  while (esp_get32 (file + BODY_AT + 4 * tile) != 0x80000000u)
    tile++;
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    uint16_t le = htole16 (bad[i]);
    struct esp_run run;
    uint64_t bad_at;

    forge (SUBS_AT + 2 * 9, &le, 2);
    struct esp_chain *chain = esp_chain_open (dirfd_, "x");
    assert_non_null (chain);
    assert_int_equal (esp_chain_run (chain, tile * 256 + 9, 1, &run), -1);
    assert_int_equal (errno, EBADMSG);
    assert_int_equal (esp_chain_check (chain, &bad_at), -1);
    assert_int_equal (bad_at, SUBS_AT);
    esp_chain_close (chain);
  }
}

static void
build_over_a_damaged_parent_leaves_nothing (void **state)
{
  uint32_t le = htole32 (0x8004);
  struct esp_map *map = esp_map_new (SIZE);
  esp_uuid u;

  (void) state;
  esp_uuid_new (&u);
  forge (BODY_AT + 4, &le, 4);
  struct esp_chain *parent = esp_chain_open (dirfd_, "x");
  assert_int_equal (esp_chain_build (dirfd_, "child", &u, map, parent), -1);
  assert_int_equal (errno, EBADMSG);
  assert_int_equal (faccessat (dirfd_, "child", F_OK, 0), -1);
  esp_chain_close (parent);
  esp_map_free (map);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (sound_file_has_no_errors),
    cmocka_unit_test (every_flipped_byte_is_found),
    cmocka_unit_test (file_cut_short_is_eio_when_opened),
    cmocka_unit_test (longer_file_is_refused),
    cmocka_unit_test (file_cut_short_while_it_is_open_is_eio),
    cmocka_unit_test (unknown_version_is_enotsup),
    cmocka_unit_test (headers_that_make_no_sense_are_refused),
    cmocka_unit_test (tile_entries_out_of_range_are_damage),
    cmocka_unit_test (subtable_entries_out_of_range_are_damage),
    cmocka_unit_test (build_over_a_damaged_parent_leaves_nothing),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, setup, teardown);
}
