/* SPDX-License-Identifier: BSD-3-Clause */
/* Flush: data first, then the bits that point at it.
 *
 * One thread flushes at a time.  Who comes while it runs waits for the next
 * whole flush (this one may have taken its snapshot before the caller's
 * writes), and all who wait share that one.  A failed fdatasync of data
 * poisons the overlay: see docs/overlay.md, "When things fail".
 */

#include <config.h>

#include <errno.h>
#include <unistd.h>

#include "overlay/internal.h"
#include "util/host.h"

/* Only the flusher. */
static int
sync_data (struct esp_overlay *o, struct esp_map_snapshot *s)
{
  if (fdatasync (o->data_fd) == 0)
    return 0;
  int e = errno;
  esp_error ("fdatasync: overlay of %s: %m: its flushes fail from here on, "
             "until it is opened again", overlay_who (o));
  if (s)
    esp_map_discard_snapshot (o->map, s);
  pthread_mutex_lock (&o->flush_mutex);
  o->poisoned = true;
  pthread_mutex_unlock (&o->flush_mutex);
  return e;
}

static int
sync_dirs_once (struct esp_overlay *o)
{
  const struct esp_overlay_id id = { o->venue, o->disk, o->client };

  if (o->dirs_synced)
    return 0;
  if (files_sync_dirs (o->place->fd, &id, o->dir_fd) == -1)
    return errno;
  o->dirs_synced = true;
  return 0;
}

/* One whole flush: 0 or an errno, reported.  Only the flusher. */
static int
flush_files (struct esp_overlay *o)
{
  bool durable = o->mode == ESP_OVERLAY_KEEP, empty;
  struct esp_map_snapshot *s = esp_map_snapshot (o->map, &empty);
  int r;

  if (!s && !empty)
    return errno;
  if (durable && (r = sync_data (o, s)) != 0)
    return r;
  if (s && esp_map_write (o->map, s, durable) == -1)
    return errno;
  return durable ? sync_dirs_once (o) : 0;
}

/* Begin generation flush_begun + 1 and do it.  flush_mutex is held before
 * and after, not meanwhile.
 */
static void
flush_one_locked (struct esp_overlay *o)
{
  o->flushing = true;
  uint64_t self = ++o->flush_begun;
  pthread_mutex_unlock (&o->flush_mutex);

  int r = 0;
  if (atomic_exchange (&o->dirty, false))
    r = flush_files (o);
  if (r)
    atomic_store (&o->dirty, true);

  pthread_mutex_lock (&o->flush_mutex);
  o->flushing = false;
  o->flush_done = self;
  o->flush_result = r;
  pthread_cond_broadcast (&o->flush_cond);
}

static int
flush (struct esp_overlay *o)
{
  if (!o->named || !overlay_is_ready (o))
    return 0;

  ESP_LOCK_SCOPE (&o->flush_mutex);
  /* Nothing to do, and nobody who still does it. */
  if (!o->flushing && !o->poisoned && !atomic_load (&o->dirty))
    return 0;
  uint64_t want = o->flush_begun + 1;
  while (o->flush_done < want && !o->poisoned)
    if (o->flushing)
      pthread_cond_wait (&o->flush_cond, &o->flush_mutex);
    else
      flush_one_locked (o);
  return o->poisoned ? EIO : o->flush_result;
}

int
esp_overlay_flush (struct esp_overlay *o, int *err)
{
  int r = flush (o);

  if (r == 0)
    return 0;
  *err = r;
  return -1;
}

int
flush_last (struct esp_overlay *o)
{
  int r = flush (o);

  if (r == 0 && o->named && overlay_is_ready (o) &&
      esp_map_mark_clean (o->map) == -1)
    r = errno;
  return r;
}
