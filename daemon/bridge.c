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
/* Targets of one address that were never used: a room behind a NAT boots. */
#define UNUSED_MAX 128u

struct bridge bridge = {
  .gate = PTHREAD_RWLOCK_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,
  .changed = PTHREAD_COND_INITIALIZER, .dir = -1, .wake = -1,
};
static pthread_t watcher;

void
bridge_set_state_locked (struct target *t, enum target_state state)
{
  t->state = state;
  t->since = (uint64_t) time (NULL);
  t->since_us = esp_now_us ();
  pthread_cond_broadcast (&bridge.changed);
}

void
bridge_wake (void)
{
  const uint64_t one = 1;

  (void) !write (bridge.wake, &one, sizeof one);
}

/* --- the table ------------------------------------------------------------ */

static struct target *
find_locked (const char *client)
{
  for (struct target *t = bridge.table; t; t = t->next)
    if (t->state != TARGET_LEFT && strcmp (t->client, client) == 0)
      return t;
  return NULL;
}

void
bridge_remove_locked (struct target *t)
{
  struct target **p = &bridge.table;

  while (*p != t)
    p = &(*p)->next;
  *p = t->next;
  target_free (t);
  pthread_cond_broadcast (&bridge.changed);
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
    for (t = bridge.table; t && t->tid != tid; t = t->next)
      ;
    if (t)
      tid = tid % 0x7fffffff + 1;
  } while (t);
  return tid;
}

/* --- bridge_target -------------------------------------------------------- */

/* What client CLIENT has goes.  T is GOING, and ours. */
void
bridge_take_down (struct target *t)
{
  bool gone;

  {
    ESP_RDLOCK_SCOPE (&bridge.gate);
    gone = target_unmake (t, bridge.dir);
  }
  esp_debug ("bridge: %s %s", t->iqn, gone ? "is gone" : "is still held");
  ESP_LOCK_SCOPE (&bridge.lock);
  if (gone)
    bridge_remove_locked (t);
  else
    bridge_set_state_locked (t, TARGET_LEFT);
}

static void
answer (const struct target *t, struct bridge_target *out)
{
  strcpy (out->iqn, t->iqn);
  out->port = bridge.listen_at.port;
  out->lun = 1;
}

/* Wait for who is at work for T's client, or take T down; let go of the lock
 * meanwhile, so the table is to be looked at again.
 */
static void
give_way_locked (struct target *t)
{
  if (t->state == TARGET_MAKING || t->state == TARGET_GOING || t->renewing) {
    pthread_cond_wait (&bridge.changed, &bridge.lock);
    return;
  }
  bridge_set_state_locked (t, TARGET_GOING);
  pthread_mutex_unlock (&bridge.lock);
  bridge_take_down (t);
  pthread_mutex_lock (&bridge.lock);
}

/* Has ADDRESS as many targets as it may, to which nobody came?  Else one host that
 * invents machines would take all there is.
 */
static bool
too_many_locked (const char *address)
{
  unsigned n = 0;

  for (const struct target *t = bridge.table; t; t = t->next)
    n += !t->was_used && strcmp (t->address, address) == 0;
  return n >= UNUSED_MAX;
}

/* Room for a new target in the table, MAKING; NULL: OUT has one that is there,
 * or *ERR is set.  Waits for others who are at work for this client.
 */
static struct target *
claim (const struct bridge_want *want, struct bridge_target *out, bool *err)
{
  struct target *t;

  pthread_mutex_lock (&bridge.lock);
  while ((t = find_locked (want->client)) && !bridge.stopping) {
    if (t->state == TARGET_READY && !t->was_used && target_fits (t, want)
        && esp_now_us () - t->since_us < FRESH_US) {
      answer (t, out);
      pthread_mutex_unlock (&bridge.lock);
      return NULL;
    }
    give_way_locked (t);
  }
  bool full = too_many_locked (want->address);
  t = bridge.stopping || full ? NULL
    : target_new (want, free_tid_locked (want));
  *err = !t;
  if (t) {
    t->next = bridge.table;
    bridge.table = t;
    bridge_set_state_locked (t, TARGET_MAKING);
  }
  else if (bridge.stopping)
    esp_error ("espalierd is ending");
  else if (full)
    esp_error ("iSCSI: %s has %u targets that no machine came for: try again "
               "in a few minutes", want->address, UNUSED_MAX);
  pthread_mutex_unlock (&bridge.lock);
  return t;
}

static int
check (const struct config *config, const struct bridge_want *want)
{
  (void) config;
  if (bridge.dir == -1)
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
  if (bridge_start_if_needed () == -1)
    return -1;
  ESP_RDLOCK_SCOPE (&bridge.gate);
  if (!bridge.running) {
    esp_error ("iSCSI: tgtd has just ended: try again");
    errno = EAGAIN;
    return -1;
  }
  if (target_make (t, config, bridge.dir) == -1)
    return -1;
  /* Before the gate opens: who starts the processes again has to see it. */
  ESP_LOCK_SCOPE (&bridge.lock);
  answer (t, out);
  bridge_set_state_locked (t, TARGET_READY);
  bridge.made++;
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
    ESP_LOCK_SCOPE (&bridge.lock);
    bridge_remove_locked (t);
  }
  bridge_wake ();
  errno = saved;
  return r;
}

void
bridge_forget (const char *client)
{
  struct target *t;

  ESP_LOCK_SCOPE (&bridge.lock);
  while ((t = find_locked (client)) && !bridge.stopping)
    give_way_locked (t);
}

/* --- begin and end -------------------------------------------------------- */

/* What a killed daemon left. */
static int
clear (int rundir)
{
  /* tgtd cannot end while a disk that it has open does not answer. */
  if (proc_clear ("disks", bridge.dir) == -1
      || disks_unmount (bridge.dir) == -1
      || proc_clear ("tgtd", bridge.dir) == -1)
    return -1;
  close (esp_steal_fd (&bridge.dir));
  if (esp_remove_tree (rundir, "bridge") == -1)
    return -1;
  bridge.dir = esp_make_dir (rundir, "bridge", 0700);
  if (bridge.dir == -1)
    esp_error ("mkdir: %s/bridge: %m", daemon_dir ());
  return bridge.dir == -1 ? -1 : 0;
}

int
bridge_start (const struct config *config)
{
  int rundir CLEANUP_CLOSE = -1;

  rundir = esp_open_dir (AT_FDCWD, daemon_dir ());
  bridge.dir = rundir == -1 ? -1 : esp_make_dir (rundir, "bridge", 0700);
  if (bridge.dir == -1) {
    esp_error ("open: %s/bridge: %m", daemon_dir ());
    return -1;
  }
  bridge.stopping = bridge.running = false;
  if (clear (rundir) == -1)
    goto failed;
  if (!config->iscsi_listen || !*config->iscsi_listen)
    goto off;
  if (listen_parse (config->iscsi_listen, BRIDGE_PORT, &bridge.listen_at)
      == -1) {
    esp_error ("iscsi-listen: \"%s\" is not ADDRESS:PORT",
               config->iscsi_listen);
    goto failed;
  }
  bridge.wake = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bridge.wake >= 0
      && pthread_create (&watcher, NULL, bridge_watch, NULL) == 0)
    return 0;
  esp_error ("the iSCSI bridge cannot start: %m");
failed:
  if (bridge.dir >= 0)
    close (esp_steal_fd (&bridge.dir));
  return -1;
off:
  close (esp_steal_fd (&bridge.dir));
  unlinkat (rundir, "bridge", AT_REMOVEDIR);
  return 0;
}

void
bridge_stop (void)
{
  if (bridge.dir == -1)
    return;
  {
    ESP_LOCK_SCOPE (&bridge.lock);
    bridge.stopping = true;
    pthread_cond_broadcast (&bridge.changed);
  }
  bridge_wake ();
  pthread_join (watcher, NULL);
  {
    int rundir CLEANUP_CLOSE = -1;

    rundir = esp_open_dir (AT_FDCWD, daemon_dir ());
    close (esp_steal_fd (&bridge.dir));
    if (rundir >= 0)
      esp_remove_tree (rundir, "bridge");
  }
  close (esp_steal_fd (&bridge.wake));
  ESP_LOCK_SCOPE (&bridge.lock);
  while (bridge.table)
    bridge_remove_locked (bridge.table);
}

/* --- what others want to know --------------------------------------------- */

void
bridge_each (void (*fn) (void *arg, const struct bridge_seen *seen), void *arg)
{
  static const char *const names[] = {
    [TARGET_MAKING] = "making", [TARGET_READY] = "ready",
    [TARGET_USED] = "used", [TARGET_GOING] = "going", [TARGET_LEFT] = "going",
  };
  ESP_LOCK_SCOPE (&bridge.lock);

  for (const struct target *t = bridge.table; t; t = t->next) {
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
  ESP_LOCK_SCOPE (&bridge.lock);
  *out_made = bridge.made;
  *out_died = bridge.died;
}
