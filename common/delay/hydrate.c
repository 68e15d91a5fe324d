/* SPDX-License-Identifier: BSD-3-Clause */
/* Hydration: the rest of what is used becomes local, behind what clients
 * wait for.
 *
 * The keeper is one thread: it looks at the owners of new views, feeds
 * background flights, calls what bounds the store (bound.c) and what learns
 * boots (recorder.c), and closes points that nobody uses.
 *
 * A *job* is a tip that is to be local: one that is open in this process, or
 * that somebody wished (a file in run/hydrate/).  It has a view of its own,
 * so that the tip stays while it is worked on; one that was only open ends
 * when the clients are gone.  Where it is says the cursor: the units of the
 * boot profile, then the entries of each restore point from root to tip.
 * After a pass that left something out it begins again; so no position is
 * kept, and nothing is ever counted as done that is not there.
 *
 * Between processes each restore point has one hydrator: who has the flock
 * on run/hydrate/UUID.lock.  The others look again later.
 */

#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "delay/internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define WISH_DIR "run/hydrate"
#define LOOK_EVERY (2 * SECOND)         /* for wishes and new tips */
#define TICK (SECOND / 20)
/* An open point keeps its restore point from being deleted: not for long. */
#define IDLE_POINT (2 * SECOND)
#define FEED_MAX (UINT64_C (16) << 20)  /* raw bytes that may be queued */

struct job {
  SLIST_ENTRY (job) next;
  struct dview *view;
  bool wished, done;
  uint64_t not_before;
  struct waiter waiter;
  struct esp_profile profile;
  size_t unit;                  /* of the profile */
  unsigned owner;               /* 1 .. depth; 0: still the profile */
  size_t entry;
  bool missed;                  /* this pass left something out */
  int lock;                     /* of the owner; -1: none */
};

struct hydration {
  SLIST_HEAD (, job) jobs;
  uint64_t look_at, close_at;
};

/* --- wishes ---------------------------------------------------------------- */

static int
wish_dir (struct esp_store *store, bool make)
{
  int fd = make ? esp_make_dir (esp_store_fd (store), WISH_DIR, 0700)
    : esp_open_dir (esp_store_fd (store), WISH_DIR);

  if (fd == -1 && (make || errno != ENOENT))
    esp_error ("open: %s/" WISH_DIR ": %m", esp_store_path (store));
  return fd;
}

int
esp_hydrate_wish (struct esp_store *store, const esp_uuid *uuid, bool wish)
{
  CLEANUP_CLOSE int dir = wish_dir (store, wish);
  char name[ESP_UUID_TEXT];

  if (dir == -1)
    return !wish && errno == ENOENT ? 0 : -1;
  esp_uuid_text (uuid, name);
  if (wish)
    return esp_write_file_atomic (dir, name, "", 0, 0600);
  if (unlinkat (dir, name, 0) == -1 && errno != ENOENT) {
    esp_error ("unlink: " WISH_DIR "/%s: %m", name);
    return -1;
  }
  return 0;
}

bool
esp_hydrate_wished (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_CLOSE int dir = esp_open_dir (esp_store_fd (store), WISH_DIR);
  char name[ESP_UUID_TEXT];

  return dir >= 0 &&
    faccessat (dir, esp_uuid_text (uuid, name), F_OK, 0) == 0;
}

/* Processes that fulfil wishes hold `server`, shared. */
#define SERVER_LOCK "server.lock"

static int
open_server_lock (struct esp_store *store, bool make)
{
  CLEANUP_CLOSE int dir = wish_dir (store, make);

  return dir == -1 ? -1
    : openat (dir, SERVER_LOCK, O_RDWR | (make ? O_CREAT : 0) | O_CLOEXEC |
              O_NOFOLLOW, 0600);
}

bool
esp_hydrate_server (struct esp_store *store)
{
  CLEANUP_CLOSE int fd = open_server_lock (store, false);

  return fd >= 0 && esp_lock (fd, true) == -1 && errno == EWOULDBLOCK;
}

/* The lock of UUID's hydrator: a descriptor, -1 where another has it. */
static int
lock_point (struct esp_delay *delay, const esp_uuid *uuid)
{
  CLEANUP_CLOSE int dir = wish_dir (delay->store, true);
  char name[ESP_UUID_TEXT + sizeof ".lock"];

  if (dir == -1)
    return -1;
  esp_uuid_text (uuid, name);
  strcat (name, ".lock");
  CLEANUP_CLOSE int fd = openat (dir, name, O_RDWR | O_CREAT | O_CLOEXEC |
                                 O_NOFOLLOW, 0600);
  if (fd == -1 || esp_lock (fd, true) == -1)
    return -1;
  return esp_steal_fd (&fd);
}

/* --- jobs -------------------------------------------------------------------- */

static void
job_unlock (struct job *j)
{
  if (j->lock >= 0)
    close (j->lock);
  j->lock = -1;
}

static void
job_free (struct esp_delay *delay, struct job *j)
{
  pthread_mutex_lock (&delay->lock);
  waiter_clear_locked (delay, &j->waiter);
  pthread_mutex_unlock (&delay->lock);
  job_unlock (j);
  esp_profile_clear (&j->profile);
  dview_put (j->view);
  free (j);
}

static struct job *
find_job (struct hydration *h, const esp_uuid *uuid)
{
  struct job *j;

  SLIST_FOREACH (j, &h->jobs, next)
    if (esp_uuid_eq (esp_image_uuid (j->view->image), uuid))
      return j;
  return NULL;
}

/* Is there a job for UUID, or can there be one?  Errors are only debugged:
 * nobody waits here.
 */
static struct job *
add_job (struct esp_delay *delay, const esp_uuid *uuid)
{
  struct job *j = find_job (delay->hydration, uuid);
  char why[WHY_MAX];

  if (j)
    return j;
  j = calloc (1, sizeof *j);
  if (!j)
    return NULL;
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r = dview_get (delay, uuid, &j->view);
  if (r == 0 && esp_rp_profile (delay->store, uuid, &j->profile) == -1)
    memset (&j->profile, 0, sizeof j->profile);
  esp_catch_end (before);
  if (r == -1) {
    int err = errno;
    esp_debug ("hydration: %s", why);
    free (j);
    errno = err;
    return NULL;
  }
  j->lock = -1;
  waiter_init (&j->waiter);
  SLIST_INSERT_HEAD (&delay->hydration->jobs, j, next);
  return j;
}

static int
each_wish (void *arg, int dirfd, const char *name)
{
  struct esp_delay *delay = arg;
  struct job *j;
  esp_uuid uuid;

  (void) dirfd;
  if (esp_uuid_parse (name, &uuid) == -1)
    return 0;                   /* a lock */
  j = add_job (delay, &uuid);
  if (j)
    j->wished = true;
  else if (errno == ENOENT)
    (void) esp_hydrate_wish (delay->store, &uuid, false);
  return 0;
}

#define TIPS_MAX 256

/* The tips that clients have open. */
static unsigned
open_tips (struct esp_delay *delay, esp_uuid tips[TIPS_MAX])
{
  struct dview *v;
  unsigned n = 0;

  ESP_LOCK_SCOPE (&delay->lock);
  LIST_FOREACH (v, &delay->views, list)
    if (n < TIPS_MAX)
      tips[n++] = *esp_image_uuid (v->image);
  return n;
}

static bool
clients_left (struct job *j)
{
  ESP_LOCK_SCOPE (&j->view->delay->lock);
  return j->view->refs == 1;    /* ours */
}

static void
look_for_jobs (struct esp_delay *delay)
{
  CLEANUP_CLOSE int dir = esp_open_dir (esp_store_fd (delay->store),
                                        WISH_DIR);
  esp_uuid tips[TIPS_MAX];
  struct job *j, *next;

  SLIST_FOREACH (j, &delay->hydration->jobs, next)
    j->wished = false;
  if (dir >= 0)
    (void) esp_each_entry (dir, each_wish, delay);
  for (unsigned i = open_tips (delay, tips); i > 0; --i)
    (void) add_job (delay, &tips[i - 1]);
  for (j = SLIST_FIRST (&delay->hydration->jobs); j; j = next) {
    next = SLIST_NEXT (j, next);
    if (j->wished || !clients_left (j))
      continue;
    SLIST_REMOVE (&delay->hydration->jobs, j, job, next);
    job_free (delay, j);
  }
}

/* --- feeding ----------------------------------------------------------------- */

/* How much may be queued: less where the rate is small. */
static size_t
feed_max (const struct esp_delay *delay, const struct point *p)
{
  uint64_t bytes = delay->params.rate && delay->params.rate < FEED_MAX
    ? delay->params.rate : FEED_MAX;
  size_t n = (size_t) (bytes >> esp_have_shift (p->have));

  return n < 2 ? 2 : n;
}

/* Queue one entry.  False: enough for now. */
static bool
feed_one (struct job *j, struct point *p, size_t entry)
{
  struct esp_delay *delay = p->delay;

  ESP_LOCK_SCOPE (&delay->lock);
  if (j->waiter.err || j->waiter.pending >= feed_max (delay, p))
    return false;
  if (esp_have_state (p->have, entry) == ESP_HAVE_CHECKED)
    return true;
  if (flight_want_locked (p, entry, CLASS_BACKGROUND, &j->waiter) == -1)
    return false;
  j->missed = true;
  return true;
}

/* The profile's units.  True: all were queued. */
static bool
feed_profile (struct job *j)
{
  uint64_t size = esp_image_size (j->view->image);

  for (; j->unit < j->profile.n; j->unit++) {
    __attribute__ ((cleanup (wants_clear))) struct wants wants = { .n = 0 };
    uint64_t at = (uint64_t) j->profile.units[j->unit].unit
      << ESP_PROFILE_SHIFT;
    uint64_t len = UINT64_C (1) << ESP_PROFILE_SHIFT;
    if (at >= size)
      continue;
    if (len > size - at)
      len = size - at;
    if (dview_missing (j->view, at, len, &wants) == -1)
      continue;
    for (size_t i = 0; i < wants.n; ++i)
      if (!feed_one (j, wants.w[i].point, wants.w[i].entry))
        return false;
  }
  return true;
}

/* The entries of one owner.  True: all were queued, or are another's. */
static bool
feed_owner (struct esp_delay *delay, struct job *j)
{
  struct point *p;

  if (dview_point (j->view, j->owner, &p) == -1) {
    j->missed = true;
    return true;
  }
  if (!p || esp_have_complete (p->have))
    return true;
  if (j->lock == -1)
    j->lock = lock_point (delay, &p->uuid);
  if (j->lock == -1) {
    j->missed = true;           /* look again, whether the other did it */
    return true;
  }
  for (; j->entry < esp_have_entries (p->have); j->entry++)
    if (!feed_one (j, p, j->entry))
      return false;
  return true;
}

/* True: the pass is over. */
static bool
feed_pass (struct esp_delay *delay, struct job *j)
{
  if (j->owner == 0) {
    if (!feed_profile (j))
      return false;
    j->owner = 1;
  }
  while (j->owner <= j->view->depth) {
    if (!feed_owner (delay, j))
      return false;
    pthread_mutex_lock (&delay->lock);
    bool flying = j->waiter.pending > 0;
    pthread_mutex_unlock (&delay->lock);
    if (flying && j->lock >= 0)
      return false;             /* keep the lock until they have come */
    job_unlock (j);
    j->entry = 0;
    j->owner++;
  }
  return true;
}

/* All of a chain is there: make that durable. */
static int
sync_chain (struct dview *v)
{
  struct point *p;

  for (unsigned i = 1; i <= v->depth; ++i) {
    if (dview_point (v, i, &p) == -1)
      return -1;
    if (p && esp_have_sync (p->have) == -1)
      return -1;
  }
  return 0;
}

static void
pass_over (struct esp_delay *delay, struct job *j, uint64_t now)
{
  const esp_uuid *uuid = esp_image_uuid (j->view->image);
  char text[ESP_UUID_TEXT];

  if (j->missed) {
    j->not_before = now + SECOND / 2;
    j->done = false;
  }
  else {
    j->not_before = now + 10 * SECOND;  /* something may be taken away */
    if (!j->done && sync_chain (j->view) == 0) {
      j->done = true;
      esp_debug ("hydration: restore point %s is complete",
                 esp_uuid_text (uuid, text));
    }
    if (j->done && j->wished)
      (void) esp_hydrate_wish (delay->store, uuid, false);
  }
  j->owner = j->unit = j->entry = 0;
  j->missed = false;
}

/* A flight failed: wait with the rest. */
static bool
failed (struct esp_delay *delay, struct job *j, uint64_t now)
{
  ESP_LOCK_SCOPE (&delay->lock);
  if (!j->waiter.err)
    return false;
  esp_debug ("hydration waits: %s", j->waiter.why);
  j->waiter.err = 0;
  j->missed = true;
  j->not_before = now + 2 * SECOND;
  j->owner = j->unit = j->entry = 0;
  return true;
}

static void
feed (struct esp_delay *delay, uint64_t now)
{
  struct job *j;

  pthread_mutex_lock (&delay->lock);
  bool pause = delay->nospace_until > now || delay->full;
  pthread_mutex_unlock (&delay->lock);
  if (pause)
    return;
  SLIST_FOREACH (j, &delay->hydration->jobs, next) {
    if (j->not_before > now)
      continue;
    if (failed (delay, j, now))
      job_unlock (j);
    else if (feed_pass (delay, j))
      pass_over (delay, j, now);
  }
}

/* --- the keeper ----------------------------------------------------------------- */

static void
resolve_views (struct esp_delay *delay)
{
  struct dview *v;

  for (;;) {
    pthread_mutex_lock (&delay->lock);
    LIST_FOREACH (v, &delay->views, list)
      if (!v->looked_at)
        break;
    if (v) {
      v->looked_at = true;
      v->refs++;
    }
    pthread_mutex_unlock (&delay->lock);
    if (!v)
      return;
    dview_resolve (v);
    dview_put (v);
  }
}

static void
keep (struct esp_delay *delay)
{
  struct hydration *h = delay->hydration;
  uint64_t now = delay_now ();

  resolve_views (delay);
  if (delay->boots)
    boots_tick (delay->boots);
  if (delay->params.max)
    bound_keep (delay);
  if (delay->params.background) {
    if (now >= h->look_at) {
      look_for_jobs (delay);
      h->look_at = now + LOOK_EVERY;
    }
    feed (delay, now);
  }
  if (now >= h->close_at) {
    points_close_idle (delay, now - IDLE_POINT);
    h->close_at = now + SECOND;
  }
}

/* With nobody there, and nothing to do, it sleeps long. */
static uint64_t
next_locked (struct esp_delay *delay)
{
  const struct hydration *h = delay->hydration;
  bool quiet = LIST_EMPTY (&delay->readers) && SLIST_EMPTY (&h->jobs);

  return delay_now () + (quiet ? LOOK_EVERY : TICK);
}

void *
keeper_run (void *arg)
{
  struct esp_delay *delay = arg;
  struct hydration h = { .look_at = 0 };
  CLEANUP_CLOSE int server = -1;
  struct job *j;

  if (delay->params.background && !esp_store_readonly (delay->store)) {
    server = open_server_lock (delay->store, true);
    if (server >= 0)
      (void) esp_lock (server, false);  /* only for what commands say */
  }
  SLIST_INIT (&h.jobs);
  h.close_at = delay_now () + IDLE_POINT;
  delay->hydration = &h;
  while (!atomic_load (&delay->stop)) {
    keep (delay);
    ESP_LOCK_SCOPE (&delay->lock);
    if (!atomic_load (&delay->stop))
      delay_cond_wait (&delay->keep, &delay->lock, next_locked (delay));
  }
  while ((j = SLIST_FIRST (&h.jobs)) != NULL) {
    SLIST_REMOVE_HEAD (&h.jobs, next);
    job_free (delay, j);
  }
  return NULL;
}
