/* SPDX-License-Identifier: BSD-3-Clause */
/* The disks that espalierd-disks has: a table, which holds a reference to each,
 * as everybody does who has its file open.  A disk that was closed is in the
 * table no more, and answers with errors until the last reference goes.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disks-internal.h"
#include "util/cleanup.h"
#include "util/clock.h"

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct disk *table;      /* under table_lock */
static uint64_t next_ino = 2;   /* likewise; numbers are never used again */

static struct disk *
disk_find_locked (const char *name)
{
  for (struct disk *d = table; d; d = d->next)
    if (strcmp (d->name, name) == 0)
      return d;
  return NULL;
}

struct disk *
disk_get (struct disk *d)
{
  ESP_LOCK_SCOPE (&table_lock);
  d->refs++;
  return d;
}

struct disk *
disk_find (const char *name)
{
  ESP_LOCK_SCOPE (&table_lock);
  struct disk *d = disk_find_locked (name);

  if (d)
    d->refs++;
  return d;
}

struct disk *
disk_find_ino (uint64_t ino)
{
  ESP_LOCK_SCOPE (&table_lock);
  for (struct disk *d = table; d; d = d->next)
    if (d->ino == ino) {
      d->refs++;
      return d;
    }
  return NULL;
}

uint64_t
disk_ino (const struct disk *d)
{
  return d->ino;
}

uint64_t
disk_size (const struct disk *d)
{
  return d->size;
}

static void
disk_free (struct disk *d)
{
  disk_disconnect_locked (d);
  disk_forget_locked (d, UINT64_MAX);
  pthread_cond_destroy (&d->changed);
  pthread_mutex_destroy (&d->lock);
  free (d->uri);
  free (d);
}

void
disk_put (struct disk *d)
{
  bool last;

  if (!d)
    return;
  {
    ESP_LOCK_SCOPE (&table_lock);
    last = --d->refs == 0;
  }
  if (last)
    disk_free (d);
}

static struct disk *
disk_new (const char *name, const char *uri)
{
  struct disk *d = calloc (1, sizeof *d);

  if (!d)
    return NULL;
  d->uri = strdup (uri);
  if (!d->uri) {
    free (d);
    return NULL;
  }
  snprintf (d->name, sizeof d->name, "%s", name);
  d->refs = d->max = 1;
  d->last = &d->first;
  pthread_mutex_init (&d->lock, NULL);
  pthread_cond_init (&d->changed, NULL);
  return d;
}

int
disk_open (const char *name, const char *uri, uint64_t *size, char *why,
           size_t why_size)
{
  struct disk *d = disk_new (name, uri);
  struct nbd_handle *h;

  snprintf (why, why_size, "out of memory");
  if (!d)
    return -1;
  h = disk_connect (d, esp_now_us () + DISK_OPEN_S * UINT64_C (1000000), why,
                 why_size);
  if (!h) {
    disk_put (d);
    return -1;
  }
  d->conns[0].nbd = h;
  d->size = *size = (uint64_t) nbd_get_size (h);
  if (nbd_can_multi_conn (h) > 0)
    d->max = CONNS;
  ESP_LOCK_SCOPE (&table_lock);
  if (disk_find_locked (name)) {
    snprintf (why, why_size, "there is a disk %s", name);
    disk_free (d);
    return -1;
  }
  d->ino = next_ino++;
  d->next = table;
  table = d;
  return 0;
}

int
disk_uri (const char *name, const char *uri)
{
  struct disk *d = disk_find (name);
  char *copy = strdup (uri);

  if (!d || !copy) {
    free (copy);
    disk_put (d);
    return -1;
  }
  {
    ESP_LOCK_SCOPE (&d->lock);
    free (d->uri);
    d->uri = copy;
  }
  disk_put (d);
  return 0;
}

/* Out of the table, with the table's reference. */
static struct disk *
disk_steal (const char *name)
{
  ESP_LOCK_SCOPE (&table_lock);
  for (struct disk **p = &table; *p; p = &(*p)->next)
    if (!name || strcmp ((*p)->name, name) == 0) {
      struct disk *d = *p;

      *p = d->next;
      return d;
    }
  return NULL;
}

/* Wait until nobody is busy, for SECONDS at most. */
static void
disk_drain_locked (struct disk *d, unsigned seconds)
{
  struct timespec until;

  clock_gettime (CLOCK_REALTIME, &until);
  until.tv_sec += seconds;
  pthread_cond_broadcast (&d->changed);
  while ((d->busy || d->mending)
         && pthread_cond_timedwait (&d->changed, &d->lock, &until) == 0)
    ;
}

static void
disk_end (struct disk *d, bool hurry)
{
  d->closing = true;
  {
    ESP_LOCK_SCOPE (&d->lock);
    if (!hurry)
      disk_drain_locked (d, 1);
    d->cut = true;
    disk_drain_locked (d, hurry ? 1 : 2);
    if (!d->busy && !d->mending) {
      disk_last_flush_locked (d);
      disk_disconnect_locked (d);
    }
  }
  disk_put (d);
}

int
disk_close (const char *name)
{
  struct disk *d = disk_steal (name);

  if (!d)
    return -1;
  disk_end (d, false);
  return 0;
}

void
disk_close_all (void)
{
  uint64_t begin = esp_now_us ();
  struct disk *d;

  {
    ESP_LOCK_SCOPE (&table_lock);
    for (d = table; d; d = d->next)
      d->closing = true;
  }
  while ((d = disk_steal (NULL)))
    disk_end (d, esp_now_us () - begin > 3000000);
}
