/* SPDX-License-Identifier: BSD-3-Clause */
/* The grace of DISCARD overlays: a thread of each place that removes those
 * for which nobody came back.
 *
 * A list holds what is to be looked at and when.  What the list says is
 * only a hint: at the deadline the overlay is claimed in the registry (so
 * that an open in this process waits), locked (so that other processes
 * stay away), and its files decide: files_fate.
 */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "overlay/internal.h"
#include "util/file.h"
#include "util/host.h"

static void
expiry_free (struct expiry *e)
{
  free (e->venue);
  free (e->disk);
  free (e->client);
  free (e);
}

ESP_DEFINE_CLEANUP (expiry, struct expiry *, expiry_free)

static struct expiry *
expiry_new (const struct esp_overlay_id *id, int64_t deadline)
{
  ESP_CLEANUP (expiry) struct expiry *e = calloc (1, sizeof *e);

  if (!e || !(e->venue = strdup (id->venue)) ||
      !(e->disk = strdup (id->disk)) || !(e->client = strdup (id->client)))
    return NULL;
  e->deadline = deadline;
  return ESP_STEAL (e);
}

static bool
is_expiry_of (const struct expiry *e, const struct esp_overlay_id *id)
{
  return strcmp (e->client, id->client) == 0 &&
    strcmp (e->disk, id->disk) == 0 && strcmp (e->venue, id->venue) == 0;
}

void
grace_begin (struct esp_overlay_place *p, const struct esp_overlay_id *id,
             int64_t deadline)
{
  /* Without memory it is found by the next start of a server. */
  struct expiry *fresh = expiry_new (id, deadline);

  if (!fresh)
    return;
  ESP_LOCK_SCOPE (&p->mutex);
  for (struct expiry **at = &p->expiries; *at; at = &(*at)->next)
    if (is_expiry_of (*at, id)) {
      struct expiry *old = *at;
      *at = old->next;
      expiry_free (old);
      break;
    }
  fresh->next = p->expiries;
  p->expiries = fresh;
  pthread_cond_signal (&p->wake);
}

/* --- looking at one overlay --------------------------------------------- */

/* Put a mark into the registry that makes opens of ID wait; false where it
 * is open.
 */
static bool
claim (struct esp_overlay_place *p, struct esp_overlay *mark)
{
  const struct esp_overlay_id id = { mark->venue, mark->disk, mark->client };

  mark->phase = OVERLAY_CLOSING;
  ESP_LOCK_SCOPE (&p->mutex);
  if (place_find_locked (p, &id))
    return false;
  place_add_locked (p, mark);
  return true;
}

static void
unclaim (struct esp_overlay_place *p, struct esp_overlay *mark)
{
  ESP_LOCK_SCOPE (&p->mutex);
  place_remove_locked (p, mark);
}

/* The locked overlay ID: remove it, or say until when it stays.  0: it is
 * not for us.
 */
static int64_t
judge_locked (struct esp_overlay_place *p, const struct esp_overlay_id *id,
              const struct files_lock *l)
{
  struct overlay_doc doc;
  int64_t deadline = 0;

  if (files_load_doc (l->dir_fd, &doc) == -1) {
    /* What a crash left of one that was being made; damage is for the
     * operator to see.
     */
    if (errno == ENOENT && !files_has (l->dir_fd, OVERLAY_MAP))
      files_remove (p->fd, id, l->dir_fd);
    return 0;
  }
  switch (files_fate (l->dir_fd, l->lock_fd, &doc, time (NULL),
                      p->params.grace, &deadline)) {
  case FATE_GRACE:
    files_begin_grace (l->lock_fd);
    return deadline;
  case FATE_OVER:
    esp_debug ("overlay %s/%s@%s: removed, its grace is over",
               id->venue, id->disk, id->client);
    files_remove (p->fd, id, l->dir_fd);
    return 0;
  default:
    return 0;
  }
}

static void
judge (struct esp_overlay_place *p, const struct esp_overlay_id *id)
{
  struct esp_overlay mark = { .venue = (char *) id->venue,
                              .disk = (char *) id->disk,
                              .client = (char *) id->client };
  struct files_lock l = { -1, -1 };
  int64_t deadline = 0;

  if (!claim (p, &mark))
    return;
  if (files_lock (p->fd, id, false, true, &l) == 0)
    deadline = judge_locked (p, id, &l);
  if (l.lock_fd >= 0) {
    close (l.lock_fd);
    close (l.dir_fd);
  }
  unclaim (p, &mark);
  if (deadline)
    grace_begin (p, id, deadline);
}

/* --- what is there at the start ----------------------------------------- */

struct scan {
  struct esp_overlay_place *p;
  const char *names[2];
  unsigned depth;
};

static int
scan_entry (void *arg, int dir_fd, const char *name)
{
  struct scan *s = arg;

  {
    ESP_LOCK_SCOPE (&s->p->mutex);
    if (s->p->stop)
      return 1;
  }
  if (s->depth == 2) {
    const struct esp_overlay_id id = { s->names[0], s->names[1], name };
    judge (s->p, &id);
    return 0;
  }
  CLEANUP_CLOSE int sub = esp_open_dir (dir_fd, name);
  if (sub == -1)
    return 0;                   /* not a directory: not ours */
  s->names[s->depth++] = name;
  int r = esp_each_entry (sub, scan_entry, s);
  s->depth--;
  return r == 1 ? 1 : 0;
}

/* --- the thread --------------------------------------------------------- */

/* Wait for the next deadline; take one that is over off the list.  NULL:
 * stop.
 */
static struct expiry *
next_over_locked (struct esp_overlay_place *p)
{
  while (!p->stop) {
    struct expiry **first = NULL;
    for (struct expiry **at = &p->expiries; *at; at = &(*at)->next)
      if (!first || (*at)->deadline < (*first)->deadline)
        first = at;
    if (!first) {
      pthread_cond_wait (&p->wake, &p->mutex);
      continue;
    }
    struct expiry *e = *first;
    if (e->deadline <= time (NULL)) {
      *first = e->next;
      return e;
    }
    struct timespec until = { .tv_sec = e->deadline };
    pthread_cond_timedwait (&p->wake, &p->mutex, &until);
  }
  return NULL;
}

static void *
grace_thread (void *arg)
{
  struct esp_overlay_place *p = arg;
  struct scan scan = { .p = p };
  struct expiry *e;

  esp_each_entry (p->fd, scan_entry, &scan);
  pthread_mutex_lock (&p->mutex);
  while ((e = next_over_locked (p))) {
    const struct esp_overlay_id id = { e->venue, e->disk, e->client };
    pthread_mutex_unlock (&p->mutex);
    judge (p, &id);
    expiry_free (e);
    pthread_mutex_lock (&p->mutex);
  }
  pthread_mutex_unlock (&p->mutex);
  return NULL;
}

int
esp_overlay_place_start (struct esp_overlay_place *place)
{
  ESP_LOCK_SCOPE (&place->mutex);
  if (place->has_thread || place->fd == -1)
    return 0;
  place->stop = false;
  int r = pthread_create (&place->thread, NULL, grace_thread, place);
  if (r) {
    errno = r;
    esp_error ("pthread_create: %m");
    return -1;
  }
  place->has_thread = true;
  return 0;
}

void
grace_stop (struct esp_overlay_place *p)
{
  bool has_thread;

  {
    ESP_LOCK_SCOPE (&p->mutex);
    has_thread = p->has_thread;
    p->stop = true;
    pthread_cond_signal (&p->wake);
  }
  if (!has_thread)
    return;
  pthread_join (p->thread, NULL);
  ESP_LOCK_SCOPE (&p->mutex);
  p->has_thread = p->stop = false;
}

void
grace_forget (struct esp_overlay_place *p)
{
  while (p->expiries) {
    struct expiry *e = p->expiries;
    p->expiries = e->next;
    expiry_free (e);
  }
}
