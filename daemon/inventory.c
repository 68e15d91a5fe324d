/* SPDX-License-Identifier: BSD-3-Clause */
/* One reading of the store for all who ask.
 *
 * Whoever finds the last one too old reads it anew, behind a lock: those who
 * come meanwhile wait for that one, so that ten open pages cost what one costs.
 * A reading is never changed, and lives as long as somebody uses it.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "delay/delay.h"
#include "inventory.h"
#include "store/have.h"
#include "util/clock.h"
#include "util/host.h"

#define FRESH 1000000u          /* microseconds */
#define REST 5u                 /* times what the reading took */

static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
/* Protected by the_lock, with the counts of references. */
static struct inventory *last;
static uint64_t stale_at;       /* microseconds of the monotonic clock */

static void
put_locked (struct inventory *i)
{
  if (!i || --i->refs > 0)
    return;
  rp_index_clear (&i->rps);
  venue_index_clear (&i->venues);
  esp_venue_boot_list_clear (&i->boots);
  esp_overlay_info_list_clear (&i->overlays);
  esp_center_config_list_clear (&i->centers);
  esp_client_seen_list_clear (&i->seen);
  free (i->delayed);
  free (i);
}

/* --- reading ---------------------------------------------------------------- */

static int
read_boots (struct inventory *i, struct esp_store *store)
{
  const struct esp_venue_list *venues = &i->venues.list;

  i->boots.boot = calloc (venues->n + 1, sizeof *i->boots.boot);
  if (!i->boots.boot) {
    esp_error ("malloc: %m");
    return -1;
  }
  for (; i->boots.n < venues->n; i->boots.n++)
    if (esp_catalog_venue_boot_get (esp_store_catalog (store),
                                    venues->venue[i->boots.n].id,
                                    &i->boots.boot[i->boots.n]) == -1)
      return -1;
  return 0;
}

static int
read_delayed (struct inventory *i, struct esp_store *store)
{
  i->delayed = calloc (i->rps.list.n + 1, sizeof *i->delayed);
  if (!i->delayed) {
    esp_error ("malloc: %m");
    return -1;
  }
  for (size_t n = 0; n < i->rps.list.n; n++) {
    const struct esp_rp *rp = &i->rps.list.rp[n];
    if (rp->kind != ESP_RP_DELAYED)
      continue;
    struct delayed *d = &i->delayed[i->ndelayed++];
    *d = (struct delayed) {
      .rp = rp, .bytes = rp->data_blocks << ESP_BLOCK_SHIFT };
    d->local = rp_local (store, rp, &(unsigned) { 0 });
    d->wished = d->local < d->bytes && esp_hydrate_wished (store, &rp->uuid);
  }
  return 0;
}

static void
read_disk (struct inventory *i, struct esp_store *store)
{
  struct statvfs fs;

  i->readonly = esp_store_readonly (store);
  if (fstatvfs (esp_store_fd (store), &fs) == -1)
    return;                     /* 0 of 0: not known */
  i->disk_size = (uint64_t) fs.f_blocks * fs.f_frsize;
  i->disk_free = (uint64_t) fs.f_bavail * fs.f_frsize;
}

static int
compare_seen (const void *a, const void *b)
{
  const struct esp_client_seen *x = a, *y = b;
  return strcmp (x->name, y->name);
}

const struct esp_client_seen *
inventory_seen (const struct inventory *i, const char *name)
{
  struct esp_client_seen key = { 0 };

  if (i->seen.n == 0)
    return NULL;
  snprintf (key.name, sizeof key.name, "%s", name);
  return bsearch (&key, i->seen.seen, i->seen.n, sizeof key, compare_seen);
}

static int
read_store (struct inventory *i, struct esp_store *store)
{
  if (rp_index_read (&i->rps, store, NULL) == -1 ||
      venue_index_read (&i->venues, store) == -1 ||
      read_boots (i, store) == -1 ||
      esp_overlay_list (esp_store_overlays_fd (store), NULL,
                        &i->overlays) == -1 ||
      esp_center_list (store, &i->centers) == -1 ||
      esp_catalog_seen_list (esp_store_catalog (store), &i->seen) == -1 ||
      read_delayed (i, store) == -1)
    return -1;
  i->rps.venues = &i->venues;
  if (i->seen.n > 0)
    qsort (i->seen.seen, i->seen.n, sizeof *i->seen.seen, compare_seen);
  read_disk (i, store);
  return 0;
}

static struct inventory *
read_new_locked (struct esp_store *store)
{
  struct inventory *i = calloc (1, sizeof *i);
  uint64_t began = esp_now_us (), ended, took;

  if (!i) {
    esp_error ("malloc: %m");
    return NULL;
  }
  i->refs = 1;
  if (read_store (i, store) == -1) {
    put_locked (i);
    return NULL;
  }
  ended = esp_now_us ();
  took = REST * (ended - began);
  stale_at = ended + (took > FRESH ? took : FRESH);
  return i;
}

/* --- sharing ----------------------------------------------------------------- */

const struct inventory *
inventory_get (struct esp_store *store)
{
  ESP_LOCK_SCOPE (&the_lock);
  if (!last || esp_now_us () >= stale_at) {
    struct inventory *i = read_new_locked (store);
    if (!i)
      return NULL;
    put_locked (last);
    last = i;
  }
  last->refs++;
  return last;
}

void
inventory_put (const struct inventory *inventory)
{
  ESP_LOCK_SCOPE (&the_lock);
  put_locked ((struct inventory *) inventory);
}

void
inventory_end (void)
{
  ESP_LOCK_SCOPE (&the_lock);
  put_locked (last);
  last = NULL;
}
