/* SPDX-License-Identifier: BSD-3-Clause */
/* Power loss: all that an overlay writes is recorded.  Then, for many
 * instants and many ways of losing what was not synced (each write kept,
 * lost, or torn at any 512 bytes), its files are made as a disk would have
 * them, and opened.  Each sector must be what the last acknowledged flush
 * said, or a value that was written later; never anything else.
 *
 * Names are durable when their directory was synced: the test checks that
 * this was done before the first flush was acknowledged, and otherwise
 * takes files as there.
 */

#include "overlay-test.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define SECTOR 512u
#define SIZE ((2u << 20) + 5 * 4096u + 700)     /* not whole in any unit */
#define SECTORS ((SIZE + SECTOR - 1) / SECTOR)
#define STEPS 400
#define CUTS 300

/* --- the recorder --------------------------------------------------------- */

enum what { WRITE_DATA, SYNC, TRUNCATE, PUNCH, RENAME, ACK_FLUSH, CHANGE };

struct record {
  enum what what;
  int file;                     /* 0 data, 1 map; -1 neither */
  uint64_t offset, len;
  uint8_t *bytes;               /* WRITE_DATA */
  uint16_t *values;             /* ACK_FLUSH: of each sector */
  uint16_t value;               /* CHANGE: of sectors OFFSET.. LEN */
};

static struct record *records;
static size_t nrecords;
static bool recording;
static unsigned dirs_synced;    /* fsyncs of directories */

static struct record *
record (enum what what, int file, uint64_t offset, uint64_t len)
{
  records = realloc (records, (nrecords + 1) * sizeof *records);
  struct record *r = &records[nrecords++];
  memset (r, 0, sizeof *r);
  *r = (struct record) { .what = what, .file = file, .offset = offset,
                         .len = len };
  return r;
}

static int
file_of (int fd)
{
  char link[64], path[1024];

  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink (link, path, sizeof path - 1);
  path[n > 0 ? n : 0] = 0;
  const char *last = strrchr (path, '/');
  return !last ? -1 : strcmp (last, "/data") == 0 ? 0
    : strcmp (last, "/map") == 0 || strcmp (last, "/map.new") == 0 ? 1 : -1;
}

#pragma GCC visibility push(default)

ssize_t
pwrite (int fd, const void *buf, size_t n, off_t at)
{
  int file = recording ? file_of (fd) : -1;

  if (file >= 0) {
    struct record *r = record (WRITE_DATA, file, (uint64_t) at, n);
    r->bytes = malloc (n);
    memcpy (r->bytes, buf, n);
  }
  return syscall (SYS_pwrite64, fd, buf, n, at);
}

int
fdatasync (int fd)
{
  int file = recording ? file_of (fd) : -1;

  if (file >= 0)
    record (SYNC, file, 0, 0);
  return 0;                     /* recorded; the real one is slow */
}

int
fsync (int fd)
{
  struct stat st;
  int file = recording ? file_of (fd) : -1;

  if (file >= 0)
    record (SYNC, file, 0, 0);
  if (recording && fstat (fd, &st) == 0 && S_ISDIR (st.st_mode))
    dirs_synced++;
  return 0;
}

int
ftruncate (int fd, off_t len)
{
  int file = recording ? file_of (fd) : -1;

  if (file >= 0)
    record (TRUNCATE, file, (uint64_t) len, 0);
  return (int) syscall (SYS_ftruncate, fd, len);
}

int
fallocate (int fd, int mode, off_t at, off_t len)
{
  int file = recording ? file_of (fd) : -1;

  if (file >= 0)
    record (PUNCH, file, (uint64_t) at, (uint64_t) len);
  return (int) syscall (SYS_fallocate, fd, mode, at, len);
}

int
renameat2 (int from_dir, const char *from, int to_dir, const char *to,
           unsigned flags)
{
  if (recording && strcmp (to, "map") == 0)
    record (RENAME, 1, 0, 0);
  return (int) syscall (SYS_renameat2, from_dir, from, to_dir, to, flags);
}

#pragma GCC visibility pop

static bool
map_was_there (size_t cut)
{
  for (size_t i = 0; i < cut; ++i)
    if (records[i].what == RENAME)
      return true;
  return false;
}

/* --- what is done --------------------------------------------------------- */

/* Each change of a sector writes a value of its own, 16 bits repeated; 0 is
 * zeroes, and what is below has 1.
 */
static void
fill_value (uint8_t *buf, uint64_t n, uint16_t value)
{
  for (uint64_t i = 0; i < n; ++i)
    buf[i] = (uint8_t) (value >> (8 * (i & 1)));
}

static uint64_t
sector_len (uint64_t sector)
{
  uint64_t left = SIZE - sector * SECTOR;

  return left < SECTOR ? left : SECTOR;
}

static void
change (struct env *e, uint16_t *now, unsigned *seed, uint16_t value)
{
  static const unsigned most[] = { 1, 7, 8, 24, 700 };
  static uint8_t buf[SIZE + SECTOR];
  uint64_t n = (uint64_t) rand_r (seed) % most[rand_r (seed) % 5] + 1;
  uint64_t s = (uint64_t) rand_r (seed) % (SECTORS - n + 1);
  bool zero = rand_r (seed) % 4 == 0;

  if (rand_r (seed) % 2)
    s = rand_r (seed) % 64;             /* often the same few blocks */
  if (zero)
    value = 0;
  uint64_t len = (s + n) * SECTOR > SIZE ? SIZE - s * SECTOR : n * SECTOR;
  /* Allowed from the moment it begins. */
  record (CHANGE, -1, s, n)->value = value;
  fill_value (buf, len, value);
  if (zero)
    OK (ZERO (e, len, s * SECTOR));
  else
    OK (WRITE (e, buf, len, s * SECTOR));
  for (uint64_t i = s; i < s + n; ++i)
    now[i] = value;
}

static void
acknowledge (const uint16_t *now)
{
  struct record *r = record (ACK_FLUSH, -1, 0, 0);

  r->values = malloc (SECTORS * sizeof *now);
  memcpy (r->values, now, SECTORS * sizeof *now);
}

static void
run (struct env *e, unsigned *seed)
{
  uint16_t *now = malloc (SECTORS * sizeof *now);

  for (unsigned i = 0; i < SECTORS; ++i)
    now[i] = 1;
  recording = true;
  env_open (e);
  acknowledge (now);
  for (unsigned i = 0; i < STEPS; ++i) {
    if (rand_r (seed) % 12 == 0) {
      OK (FLUSH (e));
      assert_true (!map_was_there (nrecords) || dirs_synced >= 4);
      acknowledge (now);
    }
    else if (rand_r (seed) % 60 == 0) {
      env_close (e);            /* flushes, marks the map as clean */
      acknowledge (now);
      env_open (e);
    }
    else
      change (e, now, seed, (uint16_t) (i + 2));
  }
  recording = false;
  env_close (e);
  free (now);
}

/* --- what a disk has after the loss --------------------------------------- */

#define FILE_MAX (4u << 20)
struct image { uint8_t *bytes; uint64_t len; };

static void
apply_range (struct image *im, const struct record *r, uint64_t from,
             uint64_t to)
{
  if (r->what == PUNCH)
    memset (im->bytes + r->offset + from, 0, to - from);
  else
    memcpy (im->bytes + r->offset + from, r->bytes + from, to - from);
  if (r->what == WRITE_DATA && r->offset + to > im->len)
    im->len = r->offset + to;
}

/* Keep, lose or tear R. */
static void
apply_maybe (struct image *im, const struct record *r, unsigned *seed)
{
  unsigned fate = rand_r (seed) % 4;

  if (r->what == TRUNCATE) {
    im->len = r->offset;        /* names and lengths: see the head */
    return;
  }
  assert_true (r->offset + r->len <= FILE_MAX);
  if (fate == 0)
    return;
  if (fate == 1) {
    apply_range (im, r, 0, r->len);
    return;
  }
  for (uint64_t at = 0; at < r->len; ) {
    uint64_t n = SECTOR - (r->offset + at) % SECTOR;
    if (n > r->len - at)
      n = r->len - at;
    if (rand_r (seed) % 2)
      apply_range (im, r, at, at + n);
    at += n;
  }
}

static void
apply_whole (struct image *im, const struct record *r)
{
  if (r->what == TRUNCATE)
    im->len = r->offset;
  else
    apply_range (im, r, 0, r->len);
}

static void
build_image (struct image *im, int file, size_t cut, unsigned *seed)
{
  size_t synced = 0;

  memset (im->bytes, 0, FILE_MAX);
  im->len = 0;
  for (size_t i = 0; i < cut; ++i)
    if (records[i].file == file && records[i].what == SYNC)
      synced = i;
  for (size_t i = 0; i < cut; ++i) {
    const struct record *r = &records[i];
    if (r->file != file || r->what == SYNC || r->what == RENAME)
      continue;
    if (i < synced)
      apply_whole (im, r);
    else
      apply_maybe (im, r, seed);
  }
}

static void
put_file (const char *dir, const char *name, const struct image *im)
{
  char path[512];

  snprintf (path, sizeof path, "%s/cafe/0/seat-7/%s", dir, name);
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  assert_true (fd >= 0);
  assert_int_equal (write (fd, im->bytes, im->len), im->len);
  close (fd);
}

/* --- checking ------------------------------------------------------------- */

/* May sector S have VALUE after a loss at CUT? */
static bool
allowed (size_t cut, uint64_t s, uint16_t value)
{
  for (size_t i = cut; i-- > 0; ) {
    const struct record *r = &records[i];
    if (r->what == ACK_FLUSH)
      return r->values[s] == value;
    if (r->what == CHANGE && r->value == value &&
        s >= r->offset && s < r->offset + r->len)
      return true;
  }
  return value == 1;            /* before anything was done */
}

static void
check_sectors (struct env *e, size_t cut)
{
  static uint8_t disk[SIZE], want[SECTOR];

  OK (READ (e, disk, SIZE, 0));
  for (uint64_t s = 0; s < SECTORS; ++s) {
    const uint8_t *p = disk + s * SECTOR;
    uint16_t value = (uint16_t) (p[0] | p[1] << 8);
    fill_value (want, SECTOR, value);
    if (memcmp (p, want, sector_len (s)) != 0)
      fail_msg ("cut %zu: sector %u is garbage", cut, (unsigned) s);
    if (!allowed (cut, s, value))
      fail_msg ("cut %zu: sector %u has value %u, which is neither flushed "
                "nor newer", cut, (unsigned) s, value);
  }
}

/* The files as a loss at CUT leaves them. */
static void
lose (struct env *e, size_t cut, unsigned *seed)
{
  static uint8_t bytes[FILE_MAX];
  struct image im = { bytes, 0 };
  char path[512];

  build_image (&im, 0, cut, seed);
  put_file (e->dir, "data", &im);
  build_image (&im, 1, cut, seed);
  put_file (e->dir, "map", &im);
  snprintf (path, sizeof path, "%s/cafe/0/seat-7/map", e->dir);
  if (!map_was_there (cut))
    assert_int_equal (unlink (path), 0);
}

/* One into which nothing was written is removed when it is closed. */
static char *
save_document (struct env *e)
{
  char path[512], *text;
  size_t len;

  snprintf (path, sizeof path, "%s/cafe/0/seat-7/overlay", e->dir);
  assert_int_equal (esp_read_file (AT_FDCWD, path, 4096, &text, &len), 0);
  return text;
}

static void
restore_document (struct env *e, const char *text)
{
  char path[512];

  snprintf (path, sizeof path, "%s/cafe", e->dir);
  mkdir (path, 0700);
  strcat (path, "/0");
  mkdir (path, 0700);
  strcat (path, "/seat-7");
  mkdir (path, 0700);
  strcat (path, "/overlay");
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  assert_int_equal (write (fd, text, strlen (text)), strlen (text));
  close (fd);
}

static void
nothing_flushed_is_lost (void **state)
{
  unsigned seed = unit_seed ();
  struct env e;

  (void) state;
  env_init (&e, ESP_OVERLAY_KEEP, SIZE);
  fill_value (e.disk.bytes, SIZE, 1);
  run (&e, &seed);
  char *kept = save_document (&e);
  for (unsigned i = 0; i < CUTS; ++i) {
    size_t cut = (size_t) rand_r (&seed) % (nrecords + 1);
    restore_document (&e, kept);
    lose (&e, cut, &seed);
    env_open (&e);
    check_sectors (&e, cut);
    env_close (&e);
  }
  free (kept);
  printf ("# %zu records, %u losses\n", nrecords, CUTS);
  for (size_t i = 0; i < nrecords; ++i) {
    free (records[i].bytes);
    free (records[i].values);
  }
  free (records);
  env_end (&e);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (nothing_flushed_is_lost),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
