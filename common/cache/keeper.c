/* SPDX-License-Identifier: BSD-3-Clause */
/* The cluster's two threads.  The keeper renews leases and reads the nodes
 * file again; it only asks nodes that are GOOD.  The prober asks those that
 * are OUT, one after the other, and looks names up: it may hang for a while,
 * which is why it has a thread of its own.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cache/cluster-internal.h"
#include "util/host.h"

#define TICK_MS 1000u

/* LOCK is held; at most UNTIL (ms), at most a tick. */
static void
wait_until_locked (struct esp_cluster *c, pthread_cond_t *cond, uint64_t until)
{
  uint64_t now = mono_ms (), most = now + TICK_MS;
  struct timespec t;

  if (until > most)
    until = most;
  if (until <= now)
    until = now + 1;
  t.tv_sec = (time_t) (until / 1000);
  t.tv_nsec = (long) (until % 1000) * 1000000;
  pthread_cond_timedwait (cond, &c->lock, &t);
}

/* --- the nodes file -------------------------------------------------------------- */

/* A file that was changed a moment ago may be half written, and its end come
 * within the same tick of the file system's clock: it is read once more.
 */
#define SETTLED 2               /* seconds */

static bool
file_changed (struct esp_cluster *c)
{
  struct stat st;

  if (stat (c->nodes_file, &st) == -1)
    memset (&st, 0, sizeof st);
  if (c->file_settled && (uint64_t) st.st_ino == c->file_ino &&
      st.st_size == c->file_size &&
      st.st_mtim.tv_sec == c->file_mtime.tv_sec &&
      st.st_mtim.tv_nsec == c->file_mtime.tv_nsec)
    return false;
  c->file_ino = (uint64_t) st.st_ino;
  c->file_size = st.st_size;
  c->file_mtime = st.st_mtim;
  c->file_settled = llabs ((long long) time (NULL) - st.st_mtim.tv_sec)
    >= SETTLED;
  return true;
}

static bool
same_nodes (const struct list *list, const struct esp_nodes *nodes)
{
  size_t found = 0;

  for (size_t i = 0; i < nodes->n; ++i)
    for (size_t j = 0; j < list->n; ++j)
      found += strcmp (list->node[j]->name.name, nodes->node[i].name) == 0;
  return found == nodes->n && found == list->n;
}

void
keeper_read_file (struct esp_cluster *c, bool first)
{
  char why[400] = "";

  if (!file_changed (c) && !first)
    return;
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  CLEANUP_FREE struct esp_nodes *nodes = esp_nodes_load (c->nodes_file);
  esp_catch_end (before);
  if (!nodes) {
    esp_warning ("cache nodes: %s: %s", why, first
                 ? "none is used until the file is right"
                 : "the ones that were read before stay");
    return;
  }
  CLEANUP_LIST struct list *list = list_current (c);
  if (!same_nodes (list, nodes) &&
      list_set (c, nodes, !first) == 0)
    esp_debug ("cache nodes: %zu of %s", nodes->n, c->nodes_file);
}

/* --- threads -------------------------------------------------------------------- */

static void *
keeper_main (void *arg)
{
  struct esp_cluster *c = arg;
  uint64_t every = c->lease_ms / 3, read_at = mono_ms () + TICK_MS;

  pthread_mutex_lock (&c->lock);
  while (!c->stop) {
    wait_until_locked (c, &c->keeper_cond, mono_ms () + (every / 2 + 1));
    if (c->stop)
      break;
    pthread_mutex_unlock (&c->lock);
    leases_renew (c);
    if (c->nodes_file && mono_ms () >= read_at) {
      keeper_read_file (c, false);
      read_at = mono_ms () + TICK_MS;
    }
    pthread_mutex_lock (&c->lock);
  }
  pthread_mutex_unlock (&c->lock);
  return NULL;
}

static bool
stopping (struct esp_cluster *c)
{
  ESP_LOCK_SCOPE (&c->lock);
  return c->stop;
}

/* Ask all that are due; when the next one is. */
static uint64_t
probe_due (struct esp_cluster *c)
{
  CLEANUP_LIST struct list *list = list_current (c);
  uint64_t next = UINT64_MAX;

  for (size_t i = 0; i < list->n && !stopping (c); ++i) {
    if (node_probe_at (list->node[i]) <= mono_ms ())
      node_probe (list->node[i]);
    node_ask_limit (list->node[i]);
    uint64_t at = node_probe_at (list->node[i]);
    next = at < next ? at : next;
  }
  return next;
}

static void *
prober_main (void *arg)
{
  struct esp_cluster *c = arg;

  pthread_mutex_lock (&c->lock);
  while (!c->stop) {
    c->probe_now = false;
    pthread_mutex_unlock (&c->lock);
    uint64_t next = probe_due (c);
    pthread_mutex_lock (&c->lock);
    c->probed = true;
    pthread_cond_broadcast (&c->probed_cond);
    if (!c->stop && !c->probe_now)
      wait_until_locked (c, &c->prober_cond, next);
  }
  pthread_mutex_unlock (&c->lock);
  return NULL;
}

void
keeper_wake (struct esp_cluster *cluster)
{
  ESP_LOCK_SCOPE (&cluster->lock);
  cluster->probe_now = true;
  pthread_cond_broadcast (&cluster->prober_cond);
}

int
keeper_start (struct esp_cluster *c)
{
  int err = pthread_create (&c->keeper, NULL, keeper_main, c);

  c->has_keeper = err == 0;
  if (err == 0) {
    err = pthread_create (&c->prober, NULL, prober_main, c);
    c->has_prober = err == 0;
  }
  if (err == 0) {               /* so that the first reads find nodes */
    uint64_t until = mono_ms () + c->timeout_ms;
    ESP_LOCK_SCOPE (&c->lock);
    while (!c->probed && mono_ms () < until)
      wait_until_locked (c, &c->probed_cond, until);
    return 0;
  }
  errno = err;
  esp_error ("pthread_create: %m");
  return -1;
}

void
keeper_stop (struct esp_cluster *c)
{
  pthread_mutex_lock (&c->lock);
  c->stop = true;
  pthread_cond_broadcast (&c->keeper_cond);
  pthread_cond_broadcast (&c->prober_cond);
  pthread_mutex_unlock (&c->lock);
  if (c->has_keeper)
    pthread_join (c->keeper, NULL);
  if (c->has_prober)
    pthread_join (c->prober, NULL);
}
