/* SPDX-License-Identifier: BSD-3-Clause */
/* The file of the directory: whose it is, how large, who uses it.
 *
 * Users hold a shared flock on the directory as long as they have the file
 * open.  Who gets it exclusively is alone and may make the file anew, or begin
 * another era; every opener tries that first, and then takes the file as it
 * is.  (A lock on the file would not keep anybody from making a second one
 * when somebody removed the first: then writes of some would not be seen by
 * others.)
 *
 * Nothing is synced but two marks.  A new file says whose it is before it
 * has a size, so that we never take somebody's file for a half-made one of
 * ours.  And before an export is written for the first time in an era, the
 * header says so: what the disk has of the index after a loss of power may
 * be older than the last write, and would give old bytes.  So at the first
 * open of a boot an era that says that it was written ends: exports' values
 * are sealed with their era.  Restore points' never change: they stay.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "cache/dir-internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/guard.h"
#include "util/host.h"
#include "util/lock.h"
#include "util/name.h"
#include "util/sum.h"

#define GROUPS_WANTED 16u       /* before groups get larger */
#define WAIT_MS 10000u          /* for who makes the file, or counts in it */
#define BAD_TRIES 10u           /* of 10 ms: see try_attach */

/* --- the header ------------------------------------------------------------ */

uint64_t
cdir_sum (const struct cdir_fixed *fixed)
{
  return esp_sum (fixed, offsetof (struct cdir_fixed, sum));
}

void
cdir_geometry (uint64_t max, struct cdir_fixed *out, uint64_t *slots)
{
  uint64_t set = CDIR_WAYS * (uint64_t) CDIR_SLOT;
  uint64_t sets = (max - CDIR_HEADER - CDIR_SLOT)
    / (set + sizeof (struct cdir_set));
  unsigned group = CDIR_GROUP_MAX;

  while (group > CDIR_GROUP_MIN && sets / group < GROUPS_WANTED)
    group /= 2;
  *out = (struct cdir_fixed) {
    .magic = CDIR_MAGIC, .version = CDIR_VERSION, .whole = 1,
    .order = CDIR_ORDER, .max = max, .slot = CDIR_SLOT, .ways = CDIR_WAYS,
    .groups = sets / group, .group = group, .set = sizeof (struct cdir_set),
  };
  sets = out->groups * group;
  *slots = (CDIR_HEADER + sets * sizeof (struct cdir_set) + CDIR_SLOT - 1)
    / CDIR_SLOT * CDIR_SLOT;
  out->file = *slots + sets * set;
}

enum judgement { GOOD, UNMADE, OTHER_VERSION, DAMAGED, FOREIGN };

static bool
max_ok (uint64_t max)
{
  return max >= ESP_CDIR_MAX_LOWEST && max <= ESP_CDIR_MAX_HIGHEST;
}

/* Is FIXED what belongs to its MAX, in a file of SIZE bytes? */
static bool
consistent (const struct cdir_fixed *fixed, uint64_t size)
{
  struct cdir_fixed right;
  uint64_t slots;

  if (fixed->sum != cdir_sum (fixed) || !max_ok (fixed->max))
    return false;
  cdir_geometry (fixed->max, &right, &slots);
  memcpy (right.boot, fixed->boot, sizeof right.boot);
  right.era = fixed->era;
  right.sum = fixed->sum;
  return memcmp (&right, fixed, sizeof right) == 0 && size == right.file;
}

static bool
all_zero (const void *p, size_t n)
{
  const uint8_t *b = p;

  return b[0] == 0 && memcmp (b, b + 1, n - 1) == 0;
}

/* What lies there.  -1: it cannot be read (reported). */
static int
judge (const struct esp_cdir *dir, struct cdir_fixed *fixed)
{
  struct stat st;
  size_t n;

  memset (fixed, 0, sizeof *fixed);
  if (fstat (dir->fd, &st) == -1) {
    esp_error ("stat: %s: %m", dir->path);
    return -1;
  }
  n = st.st_size < (off_t) sizeof *fixed ? (size_t) st.st_size
    : sizeof *fixed;
  if (esp_pread_all (dir->fd, fixed, n, 0) == -1) {
    esp_error ("read: %s: %m", dir->path);
    return -1;
  }
  if (all_zero (fixed, sizeof *fixed) && st.st_size <= (off_t) CDIR_HEADER)
    return UNMADE;
  if (memcmp (fixed->magic, CDIR_MAGIC, sizeof fixed->magic) != 0)
    return FOREIGN;
  if (n < sizeof *fixed)
    return DAMAGED;
  if (fixed->version != CDIR_VERSION)
    return OTHER_VERSION;
  if (!fixed->whole)
    return UNMADE;
  return consistent (fixed, (uint64_t) st.st_size) ? GOOD : DAMAGED;
}

static int
foreign (const struct esp_cdir *dir)
{
  errno = EEXIST;
  esp_error ("%s: is not a segment cache's: give another directory, or move"
             " it away", dir->path);
  return -1;
}

/* --- making it ------------------------------------------------------------- */

/* An export was not written yet. */
static int
write_header (const struct esp_cdir *dir, struct cdir_fixed *fixed)
{
  uint8_t both[sizeof *fixed + sizeof fixed->era];

  fixed->sum = cdir_sum (fixed);
  memcpy (both, fixed, sizeof *fixed);
  memcpy (both + sizeof *fixed, &fixed->era, sizeof fixed->era);
  return esp_pwrite_all (dir->fd, both, sizeof both, 0);
}

static uint64_t
new_era (void)
{
  uint64_t era = 0;

  /* It fails for so few bytes only when it is interrupted early in boot. */
  while (getrandom (&era, 5, 0) != 5 || era <= CDIR_WRITTEN)
    ;
  return era;
}

/* The index gets its blocks now: a mapped hole on a full disk is a SIGBUS. */
static int
lay_out (const struct esp_cdir *dir, struct cdir_fixed *fixed, uint64_t slots)
{
  fixed->whole = 0;
  if (ftruncate (dir->fd, 0) == -1 || write_header (dir, fixed) == -1 ||
      esp_sync_data (dir->fd) == -1 ||
      ftruncate (dir->fd, (off_t) fixed->file) == -1)
    return -1;
  errno = posix_fallocate (dir->fd, 0, (off_t) slots);
  if (errno)
    return -1;
  fixed->whole = 1;
  return write_header (dir, fixed);
}

static int
make (const struct esp_cdir *dir, uint64_t max)
{
  struct cdir_fixed fixed;
  uint64_t slots;

  cdir_geometry (max, &fixed, &slots);
  memcpy (fixed.boot, esp_boot_id (), sizeof fixed.boot);
  fixed.era = new_era ();
  if (lay_out (dir, &fixed, slots) == 0)
    return 0;
  esp_error ("write: %s: %m", dir->path);
  if (ftruncate (dir->fd, 0) == -1)
    esp_debug ("truncate: %s: %m", dir->path);
  return -1;
}

/* --- mapping --------------------------------------------------------------- */

static int
map (struct esp_cdir *dir, const struct cdir_fixed *fixed)
{
  struct cdir_fixed same;
  void *p;

  cdir_geometry (fixed->max, &same, &dir->slots);
  dir->groups = fixed->groups;
  dir->group = fixed->group;
  dir->max = fixed->max;
  dir->era = fixed->era;
  dir->map_len = CDIR_HEADER + fixed->groups * fixed->group * fixed->set;
  if (esp_guard_reserve (dir->map_len) == 0) {
    p = mmap (NULL, dir->map_len, PROT_READ | PROT_WRITE, MAP_SHARED, dir->fd,
              0);
    if (p != MAP_FAILED) {
      dir->map = p;
      return 0;
    }
    esp_guard_release (dir->map_len);
  }
  esp_error ("mmap: %s: %m", dir->path);
  return -1;
}

static void
unmap (struct esp_cdir *dir)
{
  if (!dir->map)
    return;
  munmap (dir->map, dir->map_len);
  esp_guard_release (dir->map_len);
  dir->map = NULL;
}

/* --- opening --------------------------------------------------------------- */

/* All of it but `written` is in one line of the processor's cache. */
static int
begin_boot_mapped (void *arg)
{
  struct cdir_header *h = cdir_header (arg);

  memcpy (h->fixed.boot, esp_boot_id (), sizeof h->fixed.boot);
  if (atomic_load (&h->written) != h->fixed.era)
    h->fixed.era = new_era ();
  h->fixed.sum = cdir_sum (&h->fixed);
  atomic_store (&h->written, h->fixed.era);
  cdir_recount (arg);
  return 0;
}

/* The first open of this boot, alone.  1: it cannot be read. */
static int
begin_boot (struct esp_cdir *dir, const struct cdir_fixed *fixed)
{
  int r;

  (void) esp_boot_id ();        /* not for the first time while guarded */
  if (map (dir, fixed) == -1)
    return -1;
  r = esp_guard_call (begin_boot_mapped, dir);
  unmap (dir);
  return r == -1 ? 1 : 0;
}

static int
anew (struct esp_cdir *dir, uint64_t max)
{
  esp_warning ("%s: is damaged: begins anew", dir->path);
  return make (dir, max);
}

/* The file is ours alone: let it be sound. */
static int
prepare (struct esp_cdir *dir, uint64_t max)
{
  struct cdir_fixed fixed;
  int r;

  switch (judge (dir, &fixed)) {
  case GOOD:
    if (fixed.max != max) {
      esp_debug ("%s: is for %" PRIu64 " bytes: begins anew", dir->path,
                 fixed.max);
      return make (dir, max);
    }
    if (memcmp (fixed.boot, esp_boot_id (), sizeof fixed.boot) == 0)
      return 0;
    r = begin_boot (dir, &fixed);
    return r == 1 ? anew (dir, max) : r;
  case UNMADE:
    return make (dir, max);
  case OTHER_VERSION:
    esp_debug ("%s: is of version %" PRIu32 ": begins anew", dir->path,
               fixed.version);
    return make (dir, max);
  case DAMAGED:
    return anew (dir, max);
  case FOREIGN:
    return foreign (dir);
  default:
    return -1;
  }
}

/* Others may use the file: take it as it is.  0: it cannot be used. */
static int
join (struct esp_cdir *dir, uint64_t max)
{
  struct cdir_fixed fixed;
  int r = judge (dir, &fixed);

  if (r == -1)
    return -1;
  if (r == FOREIGN)
    return foreign (dir);
  if (r != GOOD)
    return 0;
  if (memcmp (fixed.boot, esp_boot_id (), sizeof fixed.boot) != 0) {
    errno = EBUSY;
    esp_error ("%s: another machine uses it: each needs a directory of its"
               " own", dir->path);
    return -1;
  }
  if (fixed.max != max)
    esp_warning ("%s: others use it with segcache-max=%" PRIu64 ": so does"
                 " this process", dir->path, fixed.max);
  return map (dir, &fixed) == 0 ? 1 : -1;
}

/* 0: there is none, and CREATE is not set. */
static int
open_file (struct esp_cdir *dir, bool create)
{
  struct stat st;

  if (dir->fd != -1)
    close (dir->fd);            /* of the last try */
  dir->fd = openat (dir->dirfd, CDIR_FILE, O_RDWR | (create ? O_CREAT : 0)
                    | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
  if (dir->fd == -1 && errno == ENOENT && !create)
    return 0;
  if (dir->fd == -1 || fstat (dir->fd, &st) == -1) {
    esp_error ("open: %s: %m", dir->path);
    return -1;
  }
  return S_ISREG (st.st_mode) ? 1 : foreign (dir);
}

/* 1 with the shared lock and a map, 0 to try again, -1 reported. */
static int
try_attach (struct esp_cdir *dir, uint64_t max, unsigned *bad)
{
  int r;

  if (esp_lock (dir->dirfd, true) == 0) {
    if (open_file (dir, true) == -1 || prepare (dir, max) == -1)
      return -1;
  }
  else if (errno != EWOULDBLOCK) {
    esp_error ("flock: %s: %m", dir->path);
    return -1;
  }
  if (esp_lock (dir->dirfd, false) == -1)
    return 0;                   /* somebody prepares it */
  r = open_file (dir, false);
  if (r == 1)
    r = join (dir, max);
  if (r != 0)
    return r;
  /* It may not have been made yet, or been left half made; and of several
   * that see that one must get it alone.
   */
  flock (dir->dirfd, LOCK_UN);  /* cannot fail for a lock that is held */
  if (++*bad < BAD_TRIES)
    return 0;
  errno = EBUSY;
  esp_error ("%s: was removed, is damaged, or of another version, and others"
             " use it: restart them", dir->path);
  return -1;
}

static int
open_where (struct esp_cdir *dir, const char *where)
{
  if (esp_guard_init () == -1) {
    esp_error ("sigaction: %m");
    return -1;
  }
  dir->dirfd = open (where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir->dirfd == -1)
    esp_error ("open: %s: %m", where);
  return dir->dirfd == -1 ? -1 : 0;
}

int
cdir_attach (struct esp_cdir *dir, const char *where, uint64_t max)
{
  unsigned bad = 0;
  char n[16];
  int r;

  if (!max_ok (max)) {
    errno = EINVAL;
    esp_error ("%s: cannot be of at most %s: 16M is the least, 64T the most",
               dir->path, esp_size_format (max, n));
    return -1;
  }
  if (open_where (dir, where) == -1)
    return -1;
  for (unsigned ms = 0; ms < WAIT_MS; ms += 10) {
    r = try_attach (dir, max, &bad);
    if (r != 0)
      return r == 1 ? 0 : -1;
    /* flock has no time-out, and a signal for one is the host's. */
    nanosleep (&(struct timespec) { .tv_nsec = 10000000 }, NULL);
  }
  errno = EBUSY;
  esp_error ("%s: is locked by another process", dir->path);
  return -1;
}

void
cdir_detach (struct esp_cdir *dir)
{
  unmap (dir);
  if (dir->fd != -1)
    close (dir->fd);
  if (dir->dirfd != -1)
    close (dir->dirfd);         /* and so the lock */
}
