/* SPDX-License-Identifier: BSD-3-Clause */
/* The iSCSI bridge: the table of targets, and the thread that looks after
 * them.  docs/boot.md has the states.
 *
 * Locks, outermost first:
 *
 *   gate    shared: whoever makes or unmakes a target; exclusive: who starts
 *           or ends the two processes.  So nobody has half a target in a tgtd
 *           that is being replaced.
 *   lock    the table, states, counters.  Never held while something is asked.
 *
 * A target that is MAKING or GOING belongs to the thread that made it so;
 * others who want that client wait on the condition.  Two scripts for one machine
 * within seconds (a menu, a retry of HTTP) get one target: the second
 * waits for the first, or finds it fresh.  A later one is a new boot: what the
 * client had is taken down first, since its overlay is one client's.
 *
 * When tgtd or espalierd-disks ends, both are started again, and all targets are made again
 * under the same names: an initiator that tries for a while goes on.  What
 * was acknowledged lies in nbdkit, so nothing is lost by that.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/eventfd.h>

#include <xxhash.h>

#include "bridge-internal.h"
#include "daemon.h"
#include "log.h"
#include "parts.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/host.h"

#define SECOND UINT64_C (1000000)
/* A target that young, and not used yet, is what another script wants, too. */
#define FRESH_US (15 * SECOND)
/* How often sessions are looked at; more seldom with many targets. */
#define POLL_MS 2000
#define POLL_MS_EACH 5
/* So many ends of the processes within a minute, and we give up. */
#define ENDS_MAX 5

static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct target *table;    /* under lock, as all below */
static bool running;            /* both processes were started */
static bool stopping;
static uint64_t made, died;

static int dir = -1;            /* run/espalierd/bridge; -1: no bridge */
static struct listen_at listen_at;
static pthread_t watcher;
static int wake = -1;           /* eventfd: the watcher is to look now */

static void
set_state_locked (struct target *t, enum target_state state)
{
  t->state = state;
  t->since = (uint64_t) time (NULL);
  t->since_us = esp_now_us ();
  pthread_cond_broadcast (&changed);
}

static void
watcher_wake (void)
{
  const uint64_t one = 1;

  (void) !write (wake, &one, sizeof one);
}

/* --- the table ------------------------------------------------------------ */

static struct target *
find_locked (const char *client)
{
  for (struct target *t = table; t; t = t->next)
    if (t->state != TARGET_LEFT && strcmp (t->client, client) == 0)
      return t;
  return NULL;
}

static void
remove_locked (struct target *t)
{
  struct target **p = &table;

  while (*p != t)
    p = &(*p)->next;
  *p = t->next;
  target_free (t);
  pthread_cond_broadcast (&changed);
}

/* A target's number: always the same for a client, where that is free, since
 * tgtd makes one of a disk's names of it.
 */
static int
free_tid_locked (const struct bridge_want *want)
{
  XXH64_hash_t hash = XXH3_64bits (want->client, strlen (want->client));
  int tid = (int) (hash % 0x7ffffffe) + 1;
  struct target *t;

  do {
    for (t = table; t && t->tid != tid; t = t->next)
      ;
    if (t)
      tid = tid % 0x7fffffff + 1;
  } while (t);
  return tid;
}

/* --- the processes -------------------------------------------------------- */

/* Start both, unless they run.  The gate is held exclusively. */
static int
start_gated (void)
{
  if (running)
    return 0;
  if (disks_start (dir) == -1)
    return -1;
  if (tgt_start (dir, &listen_at) == -1) {
    int saved = errno;

    disks_stop (dir);
    errno = saved;
    return -1;
  }
  running = true;
  return 0;
}

static void
stop_gated (void)
{
  tgt_kill ();
  disks_stop (dir);
  tgt_stop (dir);
  running = false;
}

/* The watcher starts them: they end with the thread that did. */
static struct {                 /* under lock */
  bool wanted;
  uint64_t done;                /* how often it tried */
  char why[512];                /* "": it went well */
  int err;
} order;

static int
start_if_needed (void)
{
  uint64_t done;

  {
    ESP_RDLOCK_SCOPE (&gate);
    if (running)
      return 0;
  }
  ESP_LOCK_SCOPE (&lock);
  order.wanted = true;
  watcher_wake ();
  for (done = order.done; done == order.done && !stopping;)
    pthread_cond_wait (&changed, &lock);
  if (done != order.done && !*order.why)
    return 0;
  errno = order.err;
  esp_error ("%s", *order.why ? order.why : "espalierd is ending");
  return -1;
}

/* What start_if_needed waits for. */
static void
start_as_ordered (void)
{
  struct esp_catch before;
  char why[512] = "";
  int err;

  {
    ESP_LOCK_SCOPE (&lock);
    if (!order.wanted)
      return;
    order.wanted = false;
  }
  before = esp_catch_begin (why, sizeof why);
  {
    ESP_WRLOCK_SCOPE (&gate);
    err = start_gated () == -1 ? errno : 0;
  }
  esp_catch_end (before);
  ESP_LOCK_SCOPE (&lock);
  order.done++;
  order.err = err;
  strcpy (order.why, err ? why : "");
  pthread_cond_broadcast (&changed);
}

/* --- bridge_target -------------------------------------------------------- */

/* What client CLIENT has goes.  T is GOING, and ours. */
static void
take_down (struct target *t)
{
  bool gone;

  {
    ESP_RDLOCK_SCOPE (&gate);
    gone = target_unmake (t, dir);
  }
  esp_debug ("bridge: %s %s", t->iqn, gone ? "is gone" : "is still held");
  ESP_LOCK_SCOPE (&lock);
  if (gone)
    remove_locked (t);
  else
    set_state_locked (t, TARGET_LEFT);
}

static void
answer (const struct target *t, struct bridge_target *out)
{
  strcpy (out->iqn, t->iqn);
  out->port = listen_at.port;
  out->lun = 1;
}

/* Room for a new target in the table, MAKING; NULL: OUT has one that is there,
 * or *ERR is set.  Waits for others who are at work for this client.
 */
static struct target *
claim (const struct bridge_want *want, struct bridge_target *out, bool *err)
{
  struct target *t;

  pthread_mutex_lock (&lock);
  while ((t = find_locked (want->client)) && !stopping) {
    if (t->state == TARGET_MAKING || t->state == TARGET_GOING) {
      pthread_cond_wait (&changed, &lock);
      continue;
    }
    if (t->state == TARGET_READY && !t->was_used && target_fits (t, want)
        && esp_now_us () - t->since_us < FRESH_US) {
      answer (t, out);
      pthread_mutex_unlock (&lock);
      return NULL;
    }
    set_state_locked (t, TARGET_GOING);
    pthread_mutex_unlock (&lock);
    take_down (t);
    pthread_mutex_lock (&lock);
  }
  t = stopping ? NULL : target_new (want, free_tid_locked (want));
  *err = !t;
  if (t) {
    t->next = table;
    table = t;
    set_state_locked (t, TARGET_MAKING);
  }
  else if (stopping)
    esp_error ("espalierd is ending");
  pthread_mutex_unlock (&lock);
  return t;
}

static int
check (const struct config *config, const struct bridge_want *want)
{
  (void) config;
  if (dir == -1)
    esp_error ("there is no iSCSI here: espalierd runs with an empty "
               "iscsi-listen");
  else if (want->ndisks < 1 || want->ndisks > 255 || !*want->address)
    esp_error ("iSCSI: venue %s has no disk, or the client no address",
               want->venue);
  else
    return 0;
  errno = EINVAL;
  return -1;
}

static int
make (struct target *t, const struct config *config,
      struct bridge_target *out)
{
  if (start_if_needed () == -1)
    return -1;
  ESP_RDLOCK_SCOPE (&gate);
  if (!running) {
    esp_error ("iSCSI: tgtd has just ended: try again");
    errno = EAGAIN;
    return -1;
  }
  if (target_make (t, config, dir) == -1)
    return -1;
  /* Before the gate opens: who starts the processes again has to see it. */
  ESP_LOCK_SCOPE (&lock);
  answer (t, out);
  set_state_locked (t, TARGET_READY);
  made++;
  return 0;
}

int
bridge_target (const struct config *config, const struct bridge_want *want,
               struct bridge_target *out)
{
  bool err = false;
  struct target *t;
  int r, saved;

  if (check (config, want) == -1)
    return -1;
  t = claim (want, out, &err);
  if (!t)
    return err ? -1 : 0;
  r = make (t, config, out);
  saved = errno;
  if (r == -1) {
    ESP_LOCK_SCOPE (&lock);
    remove_locked (t);
  }
  watcher_wake ();
  errno = saved;
  return r;
}

/* --- the watcher ---------------------------------------------------------- */

/* Call FN for each target whose state is in the set WHICH (bits), without the
 * lock; what FN gets is GOING and the caller's, or untouched where KEEP.
 */
static size_t
collect (unsigned which, int **tids)
{
  ESP_LOCK_SCOPE (&lock);
  size_t n = 0, i = 0;

  for (struct target *t = table; t; t = t->next)
    n++;
  *tids = malloc ((n + 1) * sizeof **tids);
  for (struct target *t = table; t && *tids; t = t->next)
    if (which & (1u << t->state))
      (*tids)[i++] = t->tid;
  return i;
}

static struct target *
by_tid_locked (int tid, unsigned which)
{
  for (struct target *t = table; t; t = t->next)
    if (t->tid == tid)
      return which & (1u << t->state) ? t : NULL;
  return NULL;
}

#define LIVE (1u << TARGET_READY | 1u << TARGET_USED)
#define LEFT (1u << TARGET_LEFT)

/* The target TID becomes GOING if it is of WHICH; NULL: it is not. */
static struct target *
seize (int tid, unsigned which)
{
  ESP_LOCK_SCOPE (&lock);
  struct target *t = by_tid_locked (tid, which);

  if (t)
    set_state_locked (t, TARGET_GOING);
  return t;
}

/* How many are logged in, -1: not known. */
static ssize_t
logged_in (int tid)
{
  struct bridge_conn one;
  ESP_RDLOCK_SCOPE (&gate);

  return running ? tgt_conns (tid, &one, 1) : -1;
}

/* READY or USED, by who is logged in.  true: nobody came for too long. */
static bool
look (int tid, uint64_t grace_us)
{
  ssize_t n = logged_in (tid);
  ESP_LOCK_SCOPE (&lock);
  struct target *t = by_tid_locked (tid, LIVE);

  if (!t || n < 0)
    return false;
  if (n > 0)
    t->was_used = true;
  if (n > 0 && t->state == TARGET_READY)
    set_state_locked (t, TARGET_USED);
  else if (n == 0 && t->state == TARGET_USED)
    set_state_locked (t, TARGET_READY);
  return t->state == TARGET_READY && esp_now_us () - t->since_us > grace_us;
}

/* Newer tickets when half of their time is over. */
static void
renew (int tid, const struct config *config)
{
  struct target copy;
  uint64_t age;

  if (!config->require_ticket)
    return;
  {
    ESP_LOCK_SCOPE (&lock);
    struct target *t = by_tid_locked (tid, LIVE);

    if (!t)
      return;
    age = (esp_now_us () - t->fresh_us) / SECOND;
    if (age < config->ticket_valid / 2)
      return;
    copy = *t;
    t->fresh_us = esp_now_us ();
  }
  target_renew (&copy, config, dir);
}

static void
look_after_targets (const struct config *config)
{
  int *tids CLEANUP_FREE = NULL;
  size_t n = collect (LIVE, &tids);

  for (size_t i = 0; i < n; i++) {
    struct target *t;

    renew (tids[i], config);
    if (look (tids[i], config->bridge_grace * SECOND)
        && (t = seize (tids[i], LIVE))) {
      esp_debug ("bridge: nobody came for %s", t->iqn);
      take_down (t);
    }
  }
}

static void
try_again_left (void)
{
  int *tids CLEANUP_FREE = NULL;
  size_t n = collect (LEFT, &tids);

  for (size_t i = 0; i < n; i++) {
    struct target *t = seize (tids[i], LEFT);

    if (t)
      take_down (t);
  }
}

/* Again in new processes; the gate is held exclusively. */
static int
again_gated (struct target *t, const struct config *config, bool disks)
{
  if (disks && target_open_disks (t, config, dir) == -1)
    return -1;
  if (target_publish (t) == 0)
    return 0;
  target_close_disks (t, dir);
  return -1;
}

static void
all_again_gated (const struct config *config, bool disks)
{
  int *tids CLEANUP_FREE = NULL;
  size_t n = collect (LIVE, &tids);

  for (size_t i = 0; i < n; i++) {
    struct target *t = seize (tids[i], LIVE);

    if (!t)
      continue;
    bool ok = running && again_gated (t, config, disks) == 0;
    ESP_LOCK_SCOPE (&lock);
    if (ok)
      set_state_locked (t, TARGET_READY);
    else {
      esp_error ("iSCSI: %s at venue %s has lost its disk", t->client,
                 t->venue);
      died++;
      remove_locked (t);
    }
  }
}

/* What tgtd held, it holds no more. */
static void
forget_left (void)
{
  ESP_LOCK_SCOPE (&lock);
  struct target *next;

  for (struct target *t = table; t; t = next) {
    next = t->next;
    if (t->state == TARGET_LEFT)
      remove_locked (t);
  }
}

/* Has it ended too often to go on like that? */
static bool
too_often (void)
{
  static uint64_t ends[ENDS_MAX];
  static unsigned at;
  uint64_t now = esp_now_us (), oldest = ends[at];

  ends[at] = now;
  at = (at + 1) % ENDS_MAX;
  return oldest && now - oldest < 60 * SECOND;
}

/* One of the processes ended. */
static void
start_again (const struct config *config)
{
  ESP_WRLOCK_SCOPE (&gate);
  bool disks = proc_ended (&disks_proc, 0), often;
  char last[256];

  if (!running || (!disks && !proc_ended (&tgt_proc, 0)))
    return;
  often = too_often ();
  proc_log_last (disks ? "disks" : "tgtd", dir, last, sizeof last);
  esp_error ("%s has ended: %s", disks ? "espalierd-disks" : "tgtd", last);
  forget_left ();
  if (disks || often) {
    /* tgtd has files open that nobody answers for. */
    disks = true;
    stop_gated ();
    if (!often)
      start_gated ();
  }
  else {
    tgt_stop (dir);
    running = tgt_start (dir, &listen_at) == 0;
    if (!running)
      disks_stop (dir);
  }
  all_again_gated (config, disks);
}

/* Wait until a process ends, somebody wakes us, or it is time to look. */
static void
watch_wait (void)
{
  struct pollfd p[3] = { { .fd = wake, .events = POLLIN } };
  uint64_t n = 0;
  int ms;

  {
    ESP_RDLOCK_SCOPE (&gate);
    p[1] = (struct pollfd) { .fd = disks_proc.pidfd, .events = POLLIN };
    p[2] = (struct pollfd) { .fd = tgt_proc.pidfd, .events = POLLIN };
  }
  {
    ESP_LOCK_SCOPE (&lock);
    for (struct target *t = table; t; t = t->next)
      n++;
  }
  ms = n == 0 ? -1 : POLL_MS + (int) n * POLL_MS_EACH;
  if (poll (p, 3, ms) > 0 && p[0].revents)
    (void) !read (wake, &n, sizeof n);
}

static void *
watch (void *arg)
{
  (void) arg;
  for (;;) {
    watch_wait ();
    {
      ESP_LOCK_SCOPE (&lock);
      if (stopping)
        return NULL;
    }
    CLEANUP_CONFIG const struct config *config = config_get ();
    start_as_ordered ();
    start_again (config);
    look_after_targets (config);
    try_again_left ();
    proc_log_trim ("tgtd", dir);
    proc_log_trim ("disks", dir);
  }
}

/* --- begin and end -------------------------------------------------------- */

/* What a killed daemon left. */
static int
clear (int rundir)
{
  /* tgtd cannot end while a disk that it has open does not answer. */
  if (proc_clear ("disks", dir) == -1 || disks_unmount (dir) == -1
      || proc_clear ("tgtd", dir) == -1)
    return -1;
  close (esp_steal_fd (&dir));
  if (esp_remove_tree (rundir, "bridge") == -1)
    return -1;
  dir = esp_make_dir (rundir, "bridge", 0700);
  if (dir == -1)
    esp_error ("mkdir: %s/bridge: %m", daemon_dir ());
  return dir == -1 ? -1 : 0;
}

int
bridge_start (const struct config *config)
{
  int rundir CLEANUP_CLOSE = -1;

  rundir = esp_open_dir (AT_FDCWD, daemon_dir ());
  dir = rundir == -1 ? -1 : esp_make_dir (rundir, "bridge", 0700);
  if (dir == -1) {
    esp_error ("open: %s/bridge: %m", daemon_dir ());
    return -1;
  }
  stopping = running = false;
  if (clear (rundir) == -1)
    goto failed;
  if (!config->iscsi_listen || !*config->iscsi_listen)
    goto off;
  if (listen_parse (config->iscsi_listen, BRIDGE_PORT, &listen_at) == -1) {
    esp_error ("iscsi-listen: \"%s\" is not ADDRESS:PORT",
               config->iscsi_listen);
    goto failed;
  }
  wake = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake >= 0 && pthread_create (&watcher, NULL, watch, NULL) == 0)
    return 0;
  esp_error ("the iSCSI bridge cannot start: %m");
failed:
  if (dir >= 0)
    close (esp_steal_fd (&dir));
  return -1;
off:
  close (esp_steal_fd (&dir));
  unlinkat (rundir, "bridge", AT_REMOVEDIR);
  return 0;
}

void
bridge_stop (void)
{
  if (dir == -1)
    return;
  {
    ESP_LOCK_SCOPE (&lock);
    stopping = true;
    pthread_cond_broadcast (&changed);
  }
  watcher_wake ();
  pthread_join (watcher, NULL);
  {
    ESP_WRLOCK_SCOPE (&gate);
    int rundir CLEANUP_CLOSE = -1;

    stop_gated ();
    rundir = esp_open_dir (AT_FDCWD, daemon_dir ());
    close (esp_steal_fd (&dir));
    if (rundir >= 0)
      esp_remove_tree (rundir, "bridge");
  }
  close (esp_steal_fd (&wake));
  ESP_LOCK_SCOPE (&lock);
  while (table)
    remove_locked (table);
}

/* --- what others want to know --------------------------------------------- */

void
bridge_each (void (*fn) (void *arg, const struct bridge_seen *seen), void *arg)
{
  static const char *const names[] = {
    [TARGET_MAKING] = "making", [TARGET_READY] = "ready",
    [TARGET_USED] = "used", [TARGET_GOING] = "going", [TARGET_LEFT] = "going",
  };
  ESP_LOCK_SCOPE (&lock);

  for (const struct target *t = table; t; t = t->next) {
    struct bridge_seen seen = { .state = names[t->state], .since = t->since };

    strcpy (seen.venue, t->venue);
    strcpy (seen.client, t->client);
    strcpy (seen.address, t->address);
    strcpy (seen.iqn, t->iqn);
    fn (arg, &seen);
  }
}

void
bridge_counts (uint64_t *out_made, uint64_t *out_died)
{
  ESP_LOCK_SCOPE (&lock);
  *out_made = made;
  *out_died = died;
}
