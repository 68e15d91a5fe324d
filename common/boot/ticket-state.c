/* SPDX-License-Identifier: BSD-3-Clause */
/* Which ticket of an export was used last: STORE/run/tickets/EXPORT.
 *
 * A file is a document of the newest ticket that was used (docs/formats.md);
 * one that is empty, or not there, says that none was.  It only ever changes
 * to a newer ticket, by a rename, so a reader needs no lock: the same ticket
 * again is let in, an older one refused, after one read.
 *
 * Who has a newer one locks the file (flock), looks again, and replaces it.
 * The lock is on the file that is replaced; who waited for it finds that its
 * name has another file by then, and begins anew.  Processes and threads that
 * bring the same new ticket all get in: the first writes it, the others find
 * it there.  It is synced before anybody is let in, so a power loss does not
 * bring an older ticket back.
 *
 * Nothing depends on a file once its ticket is no longer valid, and every
 * ticket that is older is too old to be used for the first time: those can
 * wait ESP_TICKET_OPENS_MAX, counted from before.  Then gc removes it, under
 * the same lock.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "boot/ticket.h"
#include "store/internal.h"
#include "util/cleanup.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define DIRECTORY "tickets"
#define KIND "ticket"
#define STATE_VERSION 1
#define LEFTOVER 3600           /* seconds until a file that was being written
                                 * is one that nobody writes any more */

ESP_DEFINE_CLEANUP (json, json_t *, json_decref)

/* What a file says. */
struct newest {
  char *export;                 /* canonical */
  char address[64];             /* it is bound to; "": to none */
  uint32_t issued, valid_until;
  uint8_t nonce[8];
};

static void
newest_clear (struct newest *n)
{
  free (n->export);
}

#define CLEANUP_NEWEST __attribute__ ((cleanup (newest_clear)))

/* --- reading and writing ------------------------------------------------- */

static bool
parse_nonce (const char *s, uint8_t nonce[8])
{
  unsigned v;

  if (!s || strlen (s) != 16 || strspn (s, "0123456789abcdef") != 16)
    return false;
  for (int i = 0; i < 8; i++) {
    sscanf (s + 2 * i, "%2x", &v);
    nonce[i] = (uint8_t) v;
  }
  return true;
}

static int
parse (json_t *o, const char *name, struct newest *out)
{
  bool bad = false;
  const char *export = esp_doc_string (o, "export", &bad);
  const char *address = esp_doc_string (o, "address", &bad);
  uint64_t issued = esp_doc_u64 (o, "issued", UINT64_MAX, &bad);
  uint64_t valid = esp_doc_u64 (o, "valid-until", UINT64_MAX, &bad);

  if (!export || issued > UINT32_MAX || valid > UINT32_MAX ||
      !parse_nonce (esp_doc_string (o, "nonce", &bad), out->nonce) || bad) {
    errno = EBADMSG;
    esp_error ("%s: is damaged: it does not say which ticket", name);
    return -1;
  }
  snprintf (out->address, sizeof out->address, "%s", address ? address : "");
  out->issued = (uint32_t) issued;
  out->valid_until = (uint32_t) valid;
  out->export = strdup (export);
  if (out->export)
    return 0;
  esp_error ("strdup: %m");
  return -1;
}

/* 1: there is one; 0: none was used; -1, reported. */
static int
load (int dirfd, const char *name, struct newest *out)
{
  struct stat st;

  if (fstatat (dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == -1) {
    if (errno == ENOENT)
      return 0;
    esp_error ("stat: %s: %m", name);
    return -1;
  }
  /* Another one may take its place here: then that is what is read. */
  if (st.st_size == 0)
    return 0;
  ESP_CLEANUP (json) json_t *o = esp_doc_load (dirfd, name, KIND, STATE_VERSION);
  if (!o)
    return errno == ENOENT ? 0 : -1;
  return parse (o, name, out) == -1 ? -1 : 1;
}

static int
save (int dirfd, const char *name, const char *export,
      const struct esp_ticket *t)
{
  char nonce[17];

  for (int i = 0; i < 8; i++)
    sprintf (nonce + 2 * i, "%02x", t->nonce[i]);
  ESP_CLEANUP (json) json_t *o =
    json_pack ("{s:s, s:s, s:I, s:I, s:s}", "export", export, "address",
               t->address, "issued", (json_int_t) t->issued, "valid-until",
               (json_int_t) t->valid_until, "nonce", nonce);
  if (!o) {
    errno = ENOMEM;
    esp_error ("json: %m");
    return -1;
  }
  return esp_doc_save (dirfd, name, KIND, STATE_VERSION, o, 0600);
}

/* --- the lock ------------------------------------------------------------ */

static bool
is_still (int fd, int dirfd, const char *name)
{
  struct stat a, b;

  return fstat (fd, &a) == 0 &&
    fstatat (dirfd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
    a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int
wait_for (int fd)
{
  int r;

  do
    r = flock (fd, LOCK_EX);
  while (r == -1 && errno == EINTR);
  return r;
}

/* NAME, locked, made where it is not there. */
static int
open_locked (int dirfd, const char *name)
{
  for (;;) {
    CLEANUP_CLOSE int fd = openat (dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC
                                   | O_NOFOLLOW | O_NOCTTY, 0600);

    if (fd == -1 || wait_for (fd) == -1) {
      esp_error ("lock: %s: %m", name);
      return -1;
    }
    if (is_still (fd, dirfd, name))
      return esp_steal_fd (&fd);
  }
}

/* --- who is let in ------------------------------------------------------- */

/* Below 0: T was issued before N; 0: it is that; above 0: after it.  N of a time
 * that is not yet (the clock was wrong, and was set back) is no measure: else
 * its client could not boot until then.
 */
static int
order (const struct esp_ticket *t, const struct newest *n, uint64_t now)
{
  if (n->issued > now && n->issued - now > ESP_TICKET_CLOCK_MAX)
    return 1;
  if (t->issued != n->issued)
    return t->issued < n->issued ? -1 : 1;
  return memcmp (t->nonce, n->nonce, sizeof n->nonce);
}

/* What the file says of T.  1: nothing yet: it is newer. */
static int
judge (int dirfd, const char *name, const char *export,
       const struct esp_ticket *t, uint64_t now, enum esp_ticket_state *state,
       char before[64])
{
  CLEANUP_NEWEST struct newest newest = { 0 };
  int r = load (dirfd, name, &newest);

  if (r == -1)
    return -1;
  if (r && strcmp (newest.export, export) != 0) {
    errno = EBADMSG;
    esp_error ("%s: is of another export, %s", name, newest.export);
    return -1;
  }
  if (t->address[0] && strcmp (newest.address, t->address) != 0)
    strcpy (before, newest.address);
  r = r ? order (t, &newest, now) : 1;
  *state = r < 0 ? ESP_TICKET_REPLAYED
    : r > 0 && now > t->opens_until ? ESP_TICKET_EXPIRED : ESP_TICKET_OK;
  return r > 0 && *state == ESP_TICKET_OK;
}

static int
take_newer (int dirfd, const char *name, const char *export,
            const struct esp_ticket *t, uint64_t now,
            enum esp_ticket_state *state, char before[64])
{
  CLEANUP_CLOSE int fd = open_locked (dirfd, name);
  int r;

  if (fd == -1)
    return -1;
  before[0] = 0;
  r = judge (dirfd, name, export, t, now, state, before);
  return r == 1 ? save (dirfd, name, export, t) : r;
}

static int
take (int dirfd, const char *name, const struct esp_ticket *t, uint64_t now,
      enum esp_ticket_state *state, char before[64])
{
  char export[ESP_EXPORT_MAX];
  int r;

  esp_export_format (&t->export, export, sizeof export);
  r = judge (dirfd, name, export, t, now, state, before);
  return r == 1
    ? take_newer (dirfd, name, export, t, now, state, before) : r;
}

/* As take, with messages that say where, and what to do. */
static int
take_in (struct esp_store *store, int dirfd, const char *name,
         const struct esp_ticket *t, uint64_t now,
         enum esp_ticket_state *state, char before[64])
{
  char why[1024];
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = take (dirfd, name, t, now, state, before);

  esp_catch_end (outer);
  if (r == -1 && errno == EBADMSG)
    esp_error ("%s/run/" DIRECTORY "/%s: remove this file, and the client's "
               "next boot gets in", esp_store_path (store), why);
  else if (r == -1)
    esp_error ("%s/run/" DIRECTORY "/%s", esp_store_path (store), why);
  return r;
}

int
esp_ticket_take (struct esp_store *store, const struct esp_ticket *t,
                 uint64_t now, enum esp_ticket_state *state, char before[64])
{
  char text[ESP_EXPORT_MAX];
  CLEANUP_CLOSE int dirfd = -1;
  CLEANUP_FREE char *name = NULL;

  before[0] = 0;
  *state = ESP_TICKET_OK;
  if (t->readonly)
    return 0;
  if (esp_store_readonly (store)) {
    errno = EROFS;
    esp_error ("%s: is read-only, so nobody can remember which ticket was used "
               "last: only read-only tickets open something here",
               esp_store_path (store));
    return -1;
  }
  name = esp_path_component (esp_export_format (&t->export, text,
                                                sizeof text));
  dirfd = esp_make_dir (store->dirs[STORE_RUN], DIRECTORY, 0700);
  if (!name || dirfd == -1) {
    esp_error ("open: %s/run/" DIRECTORY ": %m", esp_store_path (store));
    return -1;
  }
  return take_in (store, dirfd, name, t, now, state, before);
}

/* --- gc ------------------------------------------------------------------ */

/* Did whoever was writing NAME end long ago? */
static bool
is_leftover (int dirfd, const char *name)
{
  struct stat st;

  return fstatat (dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
    st.st_mtime < time (NULL) - LEFTOVER;
}

/* Does nothing depend on the locked file NAME?  One that cannot be read
 * stays: it keeps somebody out.
 */
static bool
is_over (int dirfd, const char *name, uint64_t now)
{
  CLEANUP_NEWEST struct newest newest = { 0 };
  char why[1024];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r = load (dirfd, name, &newest);

  esp_catch_end (before);
  if (r == 0)
    return is_leftover (dirfd, name);
  return r == 1 && now > newest.valid_until &&
    now > (uint64_t) newest.issued + ESP_TICKET_OPENS_MAX;
}

/* Remove NAME if nothing depends on it: is it one of those? */
static bool
expire (int dirfd, const char *name, uint64_t now, bool dry_run)
{
  CLEANUP_CLOSE int fd = -1;

  if (name[0] == '.')           /* no component: was being written */
    return is_leftover (dirfd, name) &&
      (dry_run || unlinkat (dirfd, name, 0) == 0);
  fd = openat (dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY
               | O_NONBLOCK);
  if (fd == -1 || esp_lock (fd, true) == -1 ||
      !is_still (fd, dirfd, name) || !is_over (dirfd, name, now))
    return false;
  return dry_run || unlinkat (dirfd, name, 0) == 0;
}

struct gc {
  uint64_t now;
  bool dry_run;
  void (*fn) (void *arg, const char *name, uint64_t bytes);
  void *arg;
};

static int
gc_entry (void *arg, int dirfd, const char *name)
{
  const struct gc *g = arg;
  uint64_t bytes = esp_disk_usage (dirfd, name);

  if (expire (dirfd, name, g->now, g->dry_run))
    g->fn (g->arg, name, bytes);
  return 0;
}

int
esp_ticket_gc (struct esp_store *store, uint64_t now, bool dry_run,
               void (*fn) (void *arg, const char *name, uint64_t bytes),
               void *arg)
{
  CLEANUP_CLOSE int dirfd = esp_open_dir (store->dirs[STORE_RUN], DIRECTORY);
  struct gc g = { now, dry_run, fn, arg };

  if (dirfd == -1 && errno == ENOENT)
    return 0;
  if (dirfd == -1) {
    esp_error ("open: %s/run/" DIRECTORY ": %m", esp_store_path (store));
    return -1;
  }
  return esp_each_entry (dirfd, gc_entry, &g);
}
