/* SPDX-License-Identifier: BSD-3-Clause */
/* The thread that looks after the iSCSI bridge: it starts the two processes and
 * notices their end, sees who is logged in, and takes down what nobody comes
 * for.  Locks: bridge.c.
 */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bridge-internal.h"
#include "log.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#define SECOND UINT64_C (1000000)
/* How often sessions are looked at; more seldom with many targets. */
#define POLL_MS 2000
#define POLL_MS_EACH 5
/* So many ends of the processes within a minute, and we give up. */
#define ENDS_MAX 5

/* --- the processes -------------------------------------------------------- */

/* Start both, unless they run.  The gate is held exclusively. */
static int
start_gated (void)
{
  if (bridge.running)
    return 0;
  if (disks_start (bridge.dir) == -1)
    return -1;
  if (tgt_start (bridge.dir, &bridge.listen_at) == -1) {
    int saved = errno;

    disks_stop (bridge.dir);
    errno = saved;
    return -1;
  }
  bridge.running = true;
  return 0;
}

static void
stop_gated (void)
{
  tgt_kill ();
  disks_stop (bridge.dir);
  tgt_stop (bridge.dir);
  bridge.running = false;
}

/* The watcher starts them: they end with the thread that did. */
static struct {                 /* under lock */
  bool wanted;
  uint64_t done;                /* how often it tried */
  char why[512];                /* "": it went well */
  int err;
} order;

int
bridge_start_if_needed (void)
{
  uint64_t done;

  {
    ESP_RDLOCK_SCOPE (&bridge.gate);
    if (bridge.running)
      return 0;
  }
  ESP_LOCK_SCOPE (&bridge.lock);
  order.wanted = true;
  bridge_wake ();
  for (done = order.done; done == order.done && !bridge.stopping;)
    pthread_cond_wait (&bridge.changed, &bridge.lock);
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
    ESP_LOCK_SCOPE (&bridge.lock);
    if (!order.wanted)
      return;
    order.wanted = false;
  }
  before = esp_catch_begin (why, sizeof why);
  {
    ESP_WRLOCK_SCOPE (&bridge.gate);
    err = start_gated () == -1 ? errno : 0;
  }
  esp_catch_end (before);
  ESP_LOCK_SCOPE (&bridge.lock);
  order.done++;
  order.err = err;
  strcpy (order.why, err ? why : "");
  pthread_cond_broadcast (&bridge.changed);
}

/* --- the watcher ---------------------------------------------------------- */

/* Call FN for each target whose state is in the set WHICH (bits), without the
 * lock; what FN gets is GOING and the caller's, or untouched where KEEP.
 */
static size_t
collect (unsigned which, int **tids)
{
  ESP_LOCK_SCOPE (&bridge.lock);
  size_t n = 0, i = 0;

  for (struct target *t = bridge.table; t; t = t->next)
    n++;
  *tids = malloc ((n + 1) * sizeof **tids);
  for (struct target *t = bridge.table; t && *tids; t = t->next)
    if (which & (1u << t->state))
      (*tids)[i++] = t->tid;
  return i;
}

static struct target *
by_tid_locked (int tid, unsigned which)
{
  for (struct target *t = bridge.table; t; t = t->next)
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
  ESP_LOCK_SCOPE (&bridge.lock);
  struct target *t = by_tid_locked (tid, which);

  if (t)
    bridge_set_state_locked (t, TARGET_GOING);
  return t;
}

/* How many are logged in, -1: not known. */
static ssize_t
logged_in (int tid)
{
  struct bridge_conn one;
  ESP_RDLOCK_SCOPE (&bridge.gate);

  return bridge.running ? tgt_conns (tid, &one, 1) : -1;
}

/* READY or USED, by who is logged in.  true: nobody came for too long. */
static bool
look (int tid, uint64_t grace_us)
{
  ssize_t n = logged_in (tid);
  ESP_LOCK_SCOPE (&bridge.lock);
  struct target *t = by_tid_locked (tid, LIVE);

  if (!t || n < 0)
    return false;
  if (n > 0)
    t->was_used = true;
  if (n > 0 && t->state == TARGET_READY)
    bridge_set_state_locked (t, TARGET_USED);
  else if (n == 0 && t->state == TARGET_USED)
    bridge_set_state_locked (t, TARGET_READY);
  return t->state == TARGET_READY && esp_now_us () - t->since_us > grace_us;
}

/* Newer tickets when half of their time is over.  While they are on their way
 * the target stays: its number may be another venue's disk a moment later.
 */
static void
renew (int tid, const struct config *config)
{
  struct target copy, *t;
  uint64_t age;

  if (!config->require_ticket)
    return;
  {
    ESP_LOCK_SCOPE (&bridge.lock);
    t = by_tid_locked (tid, LIVE);
    if (!t)
      return;
    age = (esp_now_us () - t->fresh_us) / SECOND;
    if (age < bridge_ticket_seconds (config) / 2)
      return;
    t->renewing = true;
    t->fresh_us = esp_now_us ();
    copy = *t;
  }
  target_renew (&copy, config, bridge.dir);
  ESP_LOCK_SCOPE (&bridge.lock);
  t->renewing = false;
  pthread_cond_broadcast (&bridge.changed);
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
      bridge_take_down (t);
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
      bridge_take_down (t);
  }
}

/* Again in new processes; the gate is held exclusively. */
static int
again_gated (struct target *t, const struct config *config, bool disks)
{
  if (disks && target_open_disks (t, config, bridge.dir) == -1)
    return -1;
  if (target_publish (t) == 0)
    return 0;
  target_close_disks (t, bridge.dir);
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
    bool ok = bridge.running && again_gated (t, config, disks) == 0;
    ESP_LOCK_SCOPE (&bridge.lock);
    if (ok)
      bridge_set_state_locked (t, TARGET_READY);
    else {
      esp_error ("iSCSI: %s at venue %s has lost its disk", t->client,
                 t->venue);
      bridge.died++;
      bridge_remove_locked (t);
    }
  }
}

/* What tgtd held, it holds no more. */
static void
forget_left (void)
{
  ESP_LOCK_SCOPE (&bridge.lock);
  struct target *next;

  for (struct target *t = bridge.table; t; t = next) {
    next = t->next;
    if (t->state == TARGET_LEFT)
      bridge_remove_locked (t);
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
  ESP_WRLOCK_SCOPE (&bridge.gate);
  bool disks = proc_ended (&disks_proc, 0), often;
  char last[256];

  if (!bridge.running || (!disks && !proc_ended (&tgt_proc, 0)))
    return;
  often = too_often ();
  proc_log_last (disks ? "disks" : "tgtd", bridge.dir, last, sizeof last);
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
    tgt_stop (bridge.dir);
    bridge.running = tgt_start (bridge.dir, &bridge.listen_at) == 0;
    if (!bridge.running)
      disks_stop (bridge.dir);
  }
  all_again_gated (config, disks);
}

/* Wait until a process ends, somebody wakes us, or it is time to look. */
static void
watch_wait (void)
{
  struct pollfd p[3] = { { .fd = bridge.wake, .events = POLLIN } };
  uint64_t n = 0;
  int ms;

  {
    ESP_RDLOCK_SCOPE (&bridge.gate);
    p[1] = (struct pollfd) { .fd = disks_proc.pidfd, .events = POLLIN };
    p[2] = (struct pollfd) { .fd = tgt_proc.pidfd, .events = POLLIN };
  }
  {
    ESP_LOCK_SCOPE (&bridge.lock);
    for (struct target *t = bridge.table; t; t = t->next)
      n++;
  }
  ms = n == 0 ? -1 : POLL_MS + (int) n * POLL_MS_EACH;
  if (poll (p, 3, ms) > 0 && p[0].revents)
    (void) !read (bridge.wake, &n, sizeof n);
}

static bool
is_stopping (void)
{
  ESP_LOCK_SCOPE (&bridge.lock);
  return bridge.stopping;
}

void *
bridge_watch (void *arg)
{
  (void) arg;
  for (;;) {
    watch_wait ();
    if (is_stopping ())
      break;
    CLEANUP_CONFIG const struct config *config = config_get ();
    start_as_ordered ();
    start_again (config);
    look_after_targets (config);
    try_again_left ();
    proc_log_trim ("tgtd", bridge.dir);
    proc_log_trim ("disks", bridge.dir);
  }
  /* Here, since they would end with this thread anyway, in no order. */
  ESP_WRLOCK_SCOPE (&bridge.gate);
  stop_gated ();
  return NULL;
}
