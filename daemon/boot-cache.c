/* SPDX-License-Identifier: BSD-3-Clause */
/* Files that were taken out of disk images, kept below daemon_dir()/boot/.
 *
 *   boot/format            "1\n": an older or newer one is wiped
 *       /UUID-HASH         of restore point UUID; HASH is that of what was wanted
 *       /tmp.XXXXXX/       one that is being made: renamed when it is whole
 *
 * A restore point never changes, so what is there is right for ever; it is kept
 * while there is room, and what was not asked for the longest goes first (its
 * modification time is that of the last use).
 *
 * A flight is one extraction: the first that asks makes it, others wait.  At
 * most TOGETHER run at a time.  A flight that failed stays for a while, so that
 * a machine that asks again and again does not cost a mount each time: longer
 * where the file is not there, which only a change of the settings mends (then
 * another one is wanted), short where the stack did not answer.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/host.h"
#include "util/sum.h"

#include "boot-cache.h"
#include "daemon.h"
#include "extract.h"

#define FORMAT "1\n"
#define TOGETHER 2u
#define BYTES_MAX (2ull << 30)
#define FILES_MAX 64u
#define REMEMBER_US 10000000ull
#define REMEMBER_SHORT_US 2000000ull

struct flight {
  struct flight *next;
  char tag[BOOT_TAG_MAX];
  unsigned users;
  bool done;
  int err;                      /* 0: it is there */
  uint64_t until;               /* esp_now_us: a failure is forgotten */
  char why[1024];
};

/* Protects all below. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct flight *flights;
static unsigned running;

static int
open_dir (void)
{
  CLEANUP_CLOSE int top = esp_open_dir (AT_FDCWD, daemon_dir ());
  int fd = top == -1 ? -1 : esp_make_dir (top, "boot", 0700);

  if (fd == -1)
    esp_error ("%s/boot: %m", daemon_dir ());
  return fd;
}

/* --- the start ---------------------------------------------------------------- */

static int
clear_temporary (void *arg, int fd, const char *name)
{
  (void) arg;
  return strncmp (name, "tmp.", 4) == 0 ? esp_remove_tree (fd, name) : 0;
}

static bool
same_format (int dir)
{
  CLEANUP_FREE char *text = NULL;
  size_t len;

  return esp_read_file (dir, "format", 64, &text, &len) == 0 &&
    strcmp (text, FORMAT) == 0;
}

int
boot_cache_start (void)
{
  CLEANUP_CLOSE int dir = open_dir ();

  if (dir == -1)
    return -1;
  if (!same_format (dir)) {
    CLEANUP_CLOSE int top = esp_open_dir (AT_FDCWD, daemon_dir ());

    close (esp_steal_fd (&dir));
    if (esp_remove_tree (top, "boot") == -1 || (dir = open_dir ()) == -1 ||
        esp_write_file_atomic (dir, "format", FORMAT, strlen (FORMAT),
                               0600) == -1)
      return -1;
  }
  return esp_each_entry (dir, clear_temporary, NULL);
}

/* --- room -------------------------------------------------------------------- */

struct room { uint64_t bytes; unsigned files; char oldest[256]; uint64_t at; };

static int
count_entry (void *arg, int fd, const char *name)
{
  struct room *room = arg;
  uint64_t at;
  struct stat st;

  if (fstatat (fd, name, &st, AT_SYMLINK_NOFOLLOW) == -1 ||
      !S_ISREG (st.st_mode) || strcmp (name, "format") == 0)
    return 0;
  room->bytes += (uint64_t) st.st_size;
  room->files++;
  at = (uint64_t) st.st_mtim.tv_sec * 1000000000 +
    (uint64_t) st.st_mtim.tv_nsec;
  if (!room->oldest[0] || at < room->at) {
    room->at = at;
    snprintf (room->oldest, sizeof room->oldest, "%s", name);
  }
  return 0;
}

/* One file always stays: that which was just made. */
static void
make_room (int dir)
{
  for (;;) {
    struct room room = { 0 };

    if (esp_each_entry (dir, count_entry, &room) == -1 || room.files <= 1 ||
        (room.bytes <= BYTES_MAX && room.files <= FILES_MAX) ||
        unlinkat (dir, room.oldest, 0) == -1)
      return;
  }
}

/* --- making one ---------------------------------------------------------------- */

/* Into a directory of its own, which is all that the extraction may write. */
static int
make_in (int dir, const char *temp, const esp_uuid *tip, const char *want,
         const char *tag)
{
  CLEANUP_FREE char *file = esp_asprintf ("%s/file", temp);
  const char *name = strrchr (temp, '/') + 1;
  CLEANUP_FREE char *below = esp_asprintf ("%s/file", name);
  struct stat st;

  if (!file || !below) {
    esp_error ("malloc: %m");
    return -1;
  }
  if (extract (tip, want, temp, "file") == -1)
    return -1;
  if (fstatat (dir, below, &st, AT_SYMLINK_NOFOLLOW) == -1 ||
      !S_ISREG (st.st_mode) || renameat (dir, below, dir, tag) == -1) {
    esp_error ("%s: %m", file);
    return -1;
  }
  return 0;
}

static int
make (const esp_uuid *tip, const char *want, const char *tag)
{
  CLEANUP_FREE char *temp = esp_asprintf ("%s/boot/tmp.XXXXXX", daemon_dir ());
  CLEANUP_CLOSE int dir = open_dir ();
  int r, err;

  if (dir == -1)
    return -1;
  if (!temp || !mkdtemp (temp)) {
    esp_error ("mkdtemp: %s/boot: %m", daemon_dir ());
    return -1;
  }
  r = make_in (dir, temp, tip, want, tag);
  err = errno;
  esp_remove_tree (dir, strrchr (temp, '/') + 1);
  if (r == 0)
    make_room (dir);
  errno = err;
  return r;
}

/* --- flights ------------------------------------------------------------------- */

static void
forget_old_locked (void)
{
  uint64_t now = esp_now_us ();

  for (struct flight **p = &flights; *p; ) {
    struct flight *f = *p;

    if (!f->done || f->users > 0 || (f->err != 0 && now < f->until)) {
      p = &f->next;
      continue;
    }
    *p = f->next;
    free (f);
  }
}

/* The flight of TAG, with one more user; *FIRST: it is the caller's to make. */
static struct flight *
join_locked (const char *tag, bool *first)
{
  struct flight *f;

  forget_old_locked ();
  *first = false;
  for (f = flights; f; f = f->next)
    if (strcmp (f->tag, tag) == 0)
      break;
  if (!f) {
    f = calloc (1, sizeof *f);
    if (!f) {
      esp_error ("malloc: %m");
      return NULL;
    }
    snprintf (f->tag, sizeof f->tag, "%s", tag);
    f->next = flights;
    flights = f;
    *first = true;
  }
  f->users++;
  return f;
}

static void
fly (struct flight *f, const esp_uuid *tip, const char *want)
{
  char why[sizeof f->why] = "";
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r = make (tip, want, f->tag), err = errno;

  esp_catch_end (before);
  ESP_LOCK_SCOPE (&lock);
  f->err = r == 0 ? 0 : err != 0 ? err : EIO;
  memcpy (f->why, why, sizeof why);
  f->until = esp_now_us () +
    (f->err == ENOENT ? REMEMBER_US : REMEMBER_SHORT_US);
  f->done = true;
  running--;
  pthread_cond_broadcast (&changed);
}

/* Make it, or wait until it is made. */
static int
make_once (const esp_uuid *tip, const char *want, const char *tag)
{
  struct flight *f;
  bool first;
  int err;

  {
    ESP_LOCK_SCOPE (&lock);
    f = join_locked (tag, &first);
    if (!f)
      return -1;
    while (first ? running >= TOGETHER : !f->done)
      pthread_cond_wait (&changed, &lock);
    if (first)
      running++;
  }
  if (first)
    fly (f, tip, want);
  err = f->err;
  if (err != 0)
    esp_error ("%s", f->why);
  ESP_LOCK_SCOPE (&lock);
  f->users--;
  errno = err;
  return err == 0 ? 0 : -1;
}

static int
open_cached (const char *tag)
{
  CLEANUP_CLOSE int dir = open_dir ();
  int fd;

  if (dir == -1)
    return -1;
  fd = openat (dir, tag, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd >= 0)
    futimens (fd, NULL);        /* only for the order in which they go */
  else if (errno != ENOENT)
    esp_error ("open: %s/boot/%s: %m", daemon_dir (), tag);
  return fd;
}

int
boot_cache_get (const esp_uuid *tip, const char *want, char tag[BOOT_TAG_MAX])
{
  char uuid[ESP_UUID_TEXT];

  snprintf (tag, BOOT_TAG_MAX, "%s-%016llx", esp_uuid_text (tip, uuid),
            (unsigned long long) esp_sum (want, strlen (want)));
  /* It may go between being made and being opened. */
  for (unsigned tries = 0; tries < 3; tries++) {
    int fd = open_cached (tag);

    if (fd >= 0 || errno != ENOENT)
      return fd;
    if (make_once (tip, want, tag) == -1)
      return -1;
  }
  esp_error ("%s/boot: there is no room for what is asked for at once",
             daemon_dir ());
  errno = ENOSPC;
  return -1;
}
