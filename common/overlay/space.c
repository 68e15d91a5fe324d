/* SPDX-License-Identifier: BSD-3-Clause */
/* Space: the quota of a client, and the floor of free space of the place.
 *
 * Blocks are counted before they are written, so the count never exceeds
 * the quota, whatever threads do.  The floor is looked at by fstatvfs, but
 * not for each write: a look allows the place to grow by a budget, for at
 * most a second (others use the file system too); near the floor each
 * growth looks.
 */

#include <config.h>

#include <errno.h>
#include <sys/statvfs.h>

#include "overlay/internal.h"
#include "util/host.h"

#define BUDGET (INT64_C (16) << 20)
#define NEAR_FLOOR (UINT64_C (64) << 20)
#define EPISODE 60              /* seconds without a failure end it */

static int64_t
now_coarse (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &ts);
  return ts.tv_sec + 1;         /* 0 means never */
}

bool
space_complain (struct complaint *c)
{
  int64_t now = now_coarse ();
  int64_t last = atomic_exchange (&c->last, now);

  return last == 0 || now - last > EPISODE;
}

/* How much the place may grow: -1 when NEED bytes would pass the floor. */
static int
look (struct esp_overlay_place *p, int64_t need)
{
  struct statvfs fs;

  if (fstatvfs (p->fd, &fs) == -1)
    return 0;                   /* the write itself will tell */
  uint64_t avail = (uint64_t) fs.f_bavail * fs.f_frsize;
  if (avail < p->params.min_free + (uint64_t) need)
    return -1;
  atomic_store (&p->space.budget,
                avail - p->params.min_free > NEAR_FLOOR ? BUDGET : 0);
  atomic_store (&p->space.checked, now_coarse ());
  return 0;
}

static int
floor_reserve (struct esp_overlay_place *p, uint64_t bytes)
{
  int64_t need = (int64_t) bytes;

  if (atomic_load (&p->space.checked) == now_coarse () &&
      atomic_fetch_sub (&p->space.budget, need) >= need)
    return 0;
  ESP_LOCK_SCOPE (&p->space.mutex);
  return look (p, need);
}

static int
refuse (struct esp_overlay *o, uint64_t n, const char *why, int *err)
{
  char size[16];

  space_return (o, n);
  if (space_complain (&o->no_space))
    esp_error ("overlay %s/%s@%s: no space: %s (%s in use)",
               o->venue ? o->venue : "-", o->disk ? o->disk : "-",
               overlay_who (o), why,
               esp_size_format (esp_overlay_used (o), size));
  *err = ENOSPC;
  return -1;
}

int
space_reserve (struct esp_overlay *o, uint64_t n, int *err)
{
  if (n == 0)
    return 0;
  if (atomic_fetch_add (&o->used, n) + n > o->quota_blocks)
    return refuse (o, n, "overlay-quota is reached", err);
  if (o->spills && o->place->params.min_free &&
      floor_reserve (o->place, n << ESP_BLOCK_SHIFT) == -1)
    return refuse (o, n, "the file system is down to overlay-min-free", err);
  return 0;
}

void
space_return (struct esp_overlay *o, uint64_t n)
{
  atomic_fetch_sub (&o->used, n);
}

uint64_t
esp_overlay_used (const struct esp_overlay *o)
{
  return atomic_load (&o->used) << ESP_BLOCK_SHIFT;
}
