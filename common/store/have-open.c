/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening and closing the file `have`, and what may be believed of it.
 *
 * Three locks between processes, all on this file:
 *
 *   flock, shared       everybody who has it open, from opening to closing.
 *                       Who gets it exclusively is alone: at the opening it
 *                       counts anew (a process that was killed may have left
 *                       the counters off), at the closing it marks the file
 *                       as clean.
 *   OFD lock of byte 0  judging: while it is held nobody takes the clean
 *                       mark away, and two do not judge at once.
 *   OFD lock of byte 4096 + entry: who fetches the entry, or drops it.
 *
 * What is believed:
 *
 *   clean, sum right            all states
 *   clean, sum wrong            nothing: all LOCAL
 *   not clean, of this boot     all states: the page cache is right
 *   not clean, of another boot  CHECKED becomes LOCAL
 *   no header                   nothing: LOCAL, or ABSENT where data has a hole
 *
 * Before a process changes anything it takes the mark away, writes this
 * boot's id, and syncs both; each process does so once, also when another
 * did (that one may not have come to its sync).  So a state that was changed
 * in one boot and is found in another is never believed, in whatever order
 * the kernel wrote pages: no sync is needed between data and states.
 *
 * A store that cannot be written is mapped for reading.  Nothing is judged
 * then, only distrusted: what this process has verified itself it remembers
 * in memory of its own (`own`), and goes by it only while the shared state
 * is not ABSENT, so that a server that may write can take segments away.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "store/have-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

static int
fail (const struct esp_have *h, const char *what)
{
  esp_error ("%s: restore point %s: %m", what, h->name);
  return -1;
}

int
have_ofd_lock (int fd, uint64_t at, short type, bool wait)
{
  struct flock l = {
    .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t) at, .l_len = 1,
  };
  int r;

  do
    r = fcntl (fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &l);
  while (r == -1 && errno == EINTR);
  return r;
}

static int
lock_shared (int fd)
{
  int r;

  do
    r = flock (fd, LOCK_SH);
  while (r == -1 && errno == EINTR);
  return r;
}

/* --- descriptors for those who write ------------------------------------- */

static int
open_once (struct esp_have *h, _Atomic int *fd, const char *name)
{
  int r = atomic_load_explicit (fd, memory_order_acquire);

  if (r != -1)
    return r;
  ESP_LOCK_SCOPE (&h->lock);
  r = atomic_load (fd);
  if (r == -1) {
    r = openat (h->dir, name, (h->readonly ? O_RDONLY : O_RDWR) | O_NOFOLLOW |
                O_CLOEXEC);
    if (r == -1)
      esp_error ("open: %s/%s: %m", h->where, name);
    else
      atomic_store_explicit (fd, r, memory_order_release);
  }
  return r;
}

int
have_data_fd (struct esp_have *h)
{
  return open_once (h, &h->data_fd, ESP_RP_DATA);
}

int
have_segments_fd (struct esp_have *h)
{
  return open_once (h, &h->segments_fd, ESP_RP_SEGMENTS);
}

int
have_drop_fd (struct esp_have *h)
{
  return open_once (h, &h->drop_fd, ESP_RP_HAVE);
}

/* --- the restore point ---------------------------------------------------- */

static int
open_rp (struct esp_have *h)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  char text[ESP_UUID_TEXT];

  snprintf (h->where, sizeof h->where, "restore-points/%s",
            esp_uuid_text (&h->uuid, text));
  if (esp_rp_load_meta (h->store, &h->uuid, &rp, NULL) == -1)
    return -1;
  strcpy (h->name, rp.name);
  if (rp.kind != ESP_RP_DELAYED) {
    errno = ENOENT;
    esp_error ("restore point %s is no delayed one: all of it is here",
               h->name);
    return -1;
  }
  h->size = rp.size;
  h->dir = esp_rp_lock (h->store, &rp, false);
  if (h->dir == -1 || !(h->map = esp_rp_load_map (h->store, &h->uuid)))
    return -1;
  h->bytes = esp_map_count (h->map, ESP_DATA) << ESP_BLOCK_SHIFT;
  return 0;
}

static int
make_ranks (struct esp_have *h)
{
  uint64_t words;

  h->numbers = ((h->size - 1) >> h->shift) + 1;
  words = h->numbers / 64 + 1;
  h->bits = calloc (words, sizeof *h->bits);
  h->ranks = calloc (words, sizeof *h->ranks);
  if (!h->bits || !h->ranks)
    return fail (h, "malloc");
  for (size_t i = 0; i < h->n; i++) {
    uint32_t number = segments_number (&h->table, i);

    h->bits[number / 64] |= UINT64_C (1) << (number % 64);
  }
  for (uint64_t w = 1; w < words; w++)
    h->ranks[w] = h->ranks[w - 1] + __builtin_popcountll (h->bits[w - 1]);
  return 0;
}

static int
open_table (struct esp_have *h)
{
  if (segments_open (h->dir, h->size, h->where, &h->table) == -1) {
    if (errno == ENOENT) {
      errno = EBADMSG;
      esp_error ("restore point %s: its table of segments is missing: run "
                 "'espalier store check --repair'", h->name);
    }
    return -1;
  }
  if (segments_fit (&h->table, h->map, h->where) == -1)
    return -1;
  h->shift = h->table.shift;
  h->n = h->table.n;
  return make_ranks (h);
}

/* --- the mapping ----------------------------------------------------------- */

static int
map_file (struct esp_have *h, size_t len)
{
  void *p = mmap (NULL, len, h->readonly ? PROT_READ : PROT_READ | PROT_WRITE,
                  MAP_SHARED, h->fd, 0);

  if (p == MAP_FAILED)
    return fail (h, "mmap: " ESP_RP_HAVE);
  h->h = p;
  h->mapped = len;
  h->state = (_Atomic uint8_t *) p + HAVE_HEADER;
  h->age = h->state + h->n;
  return 0;
}

static void
unmap (struct esp_have *h)
{
  if (h->h)
    munmap (h->h, h->mapped);
  h->h = NULL;
}

/* Is the descriptor that of the file which has the name now? */
static bool
same_file (const struct esp_have *h)
{
  struct stat ours, named;

  return fstat (h->fd, &ours) == 0 &&
    fstatat (h->dir, ESP_RP_HAVE, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
    ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

/* Open the file and lock it, *ALONE if nobody else has it. */
static int
open_locked (struct esp_have *h, bool *alone)
{
  do {
    esp_cleanup_close (&h->fd);
    h->fd = openat (h->dir, ESP_RP_HAVE,
                    (h->readonly ? O_RDONLY : O_RDWR) | O_NOFOLLOW |
                    O_CLOEXEC);
    if (h->fd == -1)
      return -1;
    *alone = esp_lock (h->fd, true) == 0;
    if (!*alone && lock_shared (h->fd) == -1)
      return fail (h, "flock: " ESP_RP_HAVE);
  } while (!same_file (h));
  return 0;
}

/* --- judging ---------------------------------------------------------------- */

static bool
of_this_boot (const struct esp_have *h)
{
  return memcmp (h->h->boot, esp_boot_id (), sizeof h->h->boot) == 0;
}

/* Nothing that is CHECKED here is believed any more; with ALL nothing at
 * all.
 */
static void
disbelieve (struct esp_have *h, bool all)
{
  for (size_t i = 0; i < h->n; i++) {
    uint8_t s = atomic_load_explicit (&h->state[i], memory_order_relaxed);

    if (all || s >= ESP_HAVE_CHECKED)
      atomic_store_explicit (&h->state[i], ESP_HAVE_LOCAL,
                             memory_order_relaxed);
  }
  h->h->clean = 0;
  memcpy (h->h->boot, esp_boot_id (), sizeof h->h->boot);
}

/* Under the lock of byte 0.  BELIEVED: it is clean, and its sum is right. */
static void
judge (struct esp_have *h, bool alone, bool believed)
{
  bool clean = h->h->clean != 0;

  if (h->readonly) {
    h->distrust = clean ? !believed : !of_this_boot (h);
    return;
  }
  if (clean && !believed) {
    esp_debug ("restore point %s: its states are damaged: all that is local "
               "is checked again", h->name);
    disbelieve (h, true);
  }
  else if (!clean && !of_this_boot (h)) {
    esp_debug ("restore point %s: not closed cleanly: all that is local is "
               "checked again", h->name);
    disbelieve (h, false);
  }
  else if (!alone)
    return;                     /* others count */
  have_count (h);
}

/* The file's bytes are no `have` of ours: a new one, if nobody uses it. */
static int
make_anew (struct esp_have *h, bool alone)
{
  if (h->readonly || !alone) {
    errno = h->readonly ? EBADMSG : EBUSY;
    esp_error (h->readonly
               ? "restore point %s: its file " ESP_RP_HAVE " is damaged: run "
               "'espalier store check --repair'"
               : "restore point %s: its file " ESP_RP_HAVE " is damaged, and "
               "a server uses it: stop that, then try again", h->name);
    return -1;
  }
  esp_warning ("restore point %s: its file " ESP_RP_HAVE " is missing or "
               "damaged: all that is local is checked again", h->name);
  return delayed_write_have (h->dir, &h->table);
}

/* The file is not there.  Two who find that must not make two: whoever holds
 * the lock on `segments` looks again.
 */
static int
make_missing (struct esp_have *h)
{
  CLEANUP_CLOSE int fd = openat (h->dir, ESP_RP_SEGMENTS,
                                 O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  int r;

  do
    r = fd == -1 ? -1 : flock (fd, LOCK_EX);
  while (r == -1 && errno == EINTR);
  if (r == -1)
    return fail (h, "flock: " ESP_RP_SEGMENTS);
  if (faccessat (h->dir, ESP_RP_HAVE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
    return 0;
  return make_anew (h, true);
}

/* Look whether the file is right; 1: it was made anew, open it again. */
static int
look (struct esp_have *h, bool alone)
{
  char text[512] = "";
  struct esp_catch outer;
  bool believed = false;
  struct stat st;
  int r;

  if (fstat (h->fd, &st) == -1)
    return fail (h, "stat: " ESP_RP_HAVE);
  if (!S_ISREG (st.st_mode) || st.st_size < (off_t) HAVE_HEADER)
    return make_anew (h, alone) == 0 ? 1 : -1;
  if (map_file (h, st.st_size) == -1)
    return -1;
  outer = esp_catch_begin (text, sizeof text);
  r = have_parse (h->h, h->mapped, h->n, h->shift, h->where, &believed);
  esp_catch_end (outer);
  if (r == 0)
    judge (h, alone, believed);
  else if (errno == EBADMSG)
    r = make_anew (h, alone) == 0 ? 1 : -1;
  else
    esp_error ("%s", text);
  return r;
}

static int
open_and_look (struct esp_have *h, bool *alone)
{
  int r;

  if (open_locked (h, alone) == -1) {
    if (errno != ENOENT)
      return fail (h, "open: " ESP_RP_HAVE);
    return make_missing (h) == 0 ? 1 : -1;
  }
  if (have_ofd_lock (h->fd, HAVE_LOCK_JUDGE, h->readonly ? F_RDLCK : F_WRLCK,
                     true) == -1)
    return fail (h, "lock: " ESP_RP_HAVE);
  r = look (h, *alone);
  have_ofd_lock (h->fd, HAVE_LOCK_JUDGE, F_UNLCK, false);
  if (r != 0)
    unmap (h);
  return r;
}

static int
open_have (struct esp_have *h)
{
  bool alone = false;
  int r;

  /* Made anew more than once: somebody damages it faster than we mend. */
  for (int i = 0; (r = open_and_look (h, &alone)) == 1; i++)
    if (i == 3) {
      errno = EBADMSG;
      return fail (h, "open: " ESP_RP_HAVE);
    }
  if (r == -1)
    return -1;
  if (alone && lock_shared (h->fd) == -1)
    return fail (h, "flock: " ESP_RP_HAVE);
  if (h->readonly && !(h->own = calloc (h->n + 1, 1)))
    return fail (h, "malloc");
  return 0;
}

int
have_open_files (struct esp_have *h)
{
  h->readonly = esp_store_readonly (h->store);
  return open_rp (h) == -1 || open_table (h) == -1 || open_have (h) == -1
    ? -1 : 0;
}

/* --- changing --------------------------------------------------------------- */

static int
take_mark_locked (struct esp_have *h)
{
  int r;

  if (have_ofd_lock (h->fd, HAVE_LOCK_JUDGE, F_WRLCK, true) == -1)
    return fail (h, "lock: " ESP_RP_HAVE);
  memcpy (h->h->boot, esp_boot_id (), sizeof h->h->boot);
  h->h->clean = 0;
  r = msync (h->h, HAVE_HEADER, MS_SYNC);
  if (r == -1)
    fail (h, "msync: " ESP_RP_HAVE);
  have_ofd_lock (h->fd, HAVE_LOCK_JUDGE, F_UNLCK, false);
  return r;
}

int
have_begin_change (struct esp_have *h)
{
  if (atomic_load_explicit (&h->changing, memory_order_acquire))
    return 0;
  if (h->readonly)
    return esp_rp_writable (h->store);
  ESP_LOCK_SCOPE (&h->lock);
  if (atomic_load (&h->changing))
    return 0;
  if (take_mark_locked (h) == -1)
    return -1;
  atomic_store_explicit (&h->changing, true, memory_order_release);
  return 0;
}

/* --- closing ---------------------------------------------------------------- */

/* Data, digests and states are durable, and nobody else has the file. */
static int
mark_clean (struct esp_have *h)
{
  h->h->sum = htole64 (have_sum (h->h, (const uint8_t *) h->state, h->n));
  h->h->clean = HAVE_CLEAN;
  return msync (h->h, HAVE_HEADER, MS_SYNC);
}

static void
close_clean (struct esp_have *h)
{
  if (h->readonly || !h->h || h->h->clean || esp_lock (h->fd, true) == -1)
    return;
  if (have_sync (h) == -1) {
    /* Pages that could not be written may be gone from the cache. */
    disbelieve (h, false);
    return;
  }
  if (mark_clean (h) == -1)
    fail (h, "msync: " ESP_RP_HAVE);
}

static void
close_fd (_Atomic int *fd)
{
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

void
have_close_files (struct esp_have *h)
{
  int saved = errno;

  if (h->open)
    close_clean (h);
  unmap (h);
  close_fd (&h->data_fd);
  close_fd (&h->segments_fd);
  close_fd (&h->drop_fd);
  esp_cleanup_close (&h->fd);
  esp_cleanup_close (&h->dir);
  h->fd = h->dir = -1;
  esp_map_free (h->map);
  h->map = NULL;
  segments_clear (&h->table);
  free (h->bits);
  free (h->ranks);
  free ((void *) h->own);
  h->bits = NULL;
  h->ranks = NULL;
  h->own = NULL;
  errno = saved;
}
