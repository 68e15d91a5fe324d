/* SPDX-License-Identifier: BSD-3-Clause */
/* What is looked up for each object that is shown: restore points by UUID,
 * venues by tip, overlays' names.
 */

#include <config.h>

#include <stdio.h>
#include <string.h>

#include "show.h"
#include "store/have.h"
#include "util/bits.h"
#include "util/host.h"

/* Room for N, also where N is 0. */
static void *
show_calloc (size_t n, size_t size)
{
  void *p = calloc (n ? n : 1, size);

  if (!p)
    esp_error ("malloc: %m");
  return p;
}

/* --- restore points by UUID ----------------------------------------------- */

static int
compare_rp (const void *a, const void *b)
{
  const struct esp_rp *const *x = a, *const *y = b;
  return memcmp (&(*x)->uuid, &(*y)->uuid, sizeof (esp_uuid));
}

int
rp_index_read (struct rp_index *index, struct esp_store *store,
               const esp_uuid *start)
{
  *index = (struct rp_index) { .store = store };
  if (esp_catalog_rp_list (esp_store_catalog (store), start,
                           &index->list) == -1)
    return -1;
  index->sorted = show_calloc (index->list.n, sizeof *index->sorted);
  if (!index->sorted) {
    rp_index_clear (index);
    return -1;
  }
  for (size_t i = 0; i < index->list.n; i++)
    index->sorted[i] = &index->list.rp[i];
  if (index->list.n > 0)
    qsort (index->sorted, index->list.n, sizeof *index->sorted, compare_rp);
  return 0;
}

void
rp_index_clear (struct rp_index *index)
{
  free (index->sorted);
  index->sorted = NULL;
  esp_rp_list_clear (&index->list);
}

const struct esp_rp *
rp_index_get (const struct rp_index *index, const esp_uuid *uuid)
{
  struct esp_rp key, *k = &key, **found;

  if (index->list.n == 0)
    return NULL;
  key.uuid = *uuid;
  found = bsearch (&k, index->sorted, index->list.n, sizeof *index->sorted,
                   compare_rp);
  return found ? *found : NULL;
}

const char *
rp_index_name (const struct rp_index *index, const esp_uuid *uuid,
               char buf[ESP_UUID_TEXT])
{
  const struct esp_rp *rp = rp_index_get (index, uuid);
  return rp ? rp->name : esp_uuid_text (uuid, buf);
}

/* --- venues by tip --------------------------------------------------------- */

static int
compare_use (const void *a, const void *b)
{
  const struct venue_use *x = a, *y = b;
  int r = memcmp (&x->tip, &y->tip, sizeof (esp_uuid));

  if (r == 0)
    r = strcmp (x->venue->id, y->venue->id);
  return r ? r : (x->disk > y->disk) - (x->disk < y->disk);
}

int
venue_index_read (struct venue_index *index, struct esp_store *store)
{
  size_t total = 0;

  *index = (struct venue_index) { 0 };
  if (esp_catalog_venue_list (esp_store_catalog (store), NULL,
                              &index->list) == -1)
    return -1;
  for (size_t i = 0; i < index->list.n; i++)
    total += index->list.venue[i].ndisks;
  index->use = show_calloc (total, sizeof *index->use);
  if (!index->use) {
    venue_index_clear (index);
    return -1;
  }
  for (size_t i = 0; i < index->list.n; i++) {
    const struct esp_venue *v = &index->list.venue[i];
    for (unsigned d = 0; d < v->ndisks; d++)
      index->use[index->n++] = (struct venue_use) { v->disks[d], v, d };
  }
  if (index->n)
    qsort (index->use, index->n, sizeof *index->use, compare_use);
  return 0;
}

void
venue_index_clear (struct venue_index *index)
{
  free (index->use);
  index->use = NULL;
  index->n = 0;
  esp_venue_list_clear (&index->list);
}

size_t
venue_index_first (const struct venue_index *index, const esp_uuid *tip)
{
  size_t low = 0, high = index->n;

  while (low < high) {
    size_t mid = low + (high - low) / 2;
    if (memcmp (&index->use[mid].tip, tip, sizeof *tip) < 0)
      low = mid + 1;
    else
      high = mid;
  }
  return low;
}

const struct esp_venue *
venue_index_get (const struct venue_index *index, const char *id)
{
  size_t low = 0, high = index->list.n;

  while (low < high) {
    size_t mid = low + (high - low) / 2;
    int r = strcmp (index->list.venue[mid].id, id);
    if (r == 0)
      return &index->list.venue[mid];
    if (r < 0)
      low = mid + 1;
    else
      high = mid;
  }
  return NULL;
}

json_t *
venue_index_json (const struct venue_index *index, const esp_uuid *tip)
{
  json_t *names = json_array ();

  for (size_t i = venue_index_first (index, tip);
       i < index->n && esp_uuid_eq (&index->use[i].tip, tip); i++)
    json_array_append_new (names, json_sprintf ("%s/%u",
                                                index->use[i].venue->id,
                                                index->use[i].disk));
  return names;
}

/* --- restore points ---------------------------------------------------- */

const char *
rp_kind_name (const struct esp_rp *rp)
{
  switch (rp->kind) {
  case ESP_RP_STORED: return "stored";
  case ESP_RP_IN_PLACE: return "in-place";
  case ESP_RP_DELAYED: return "delayed";
  }
  return "?";
}

uint64_t
rp_local (struct esp_store *store, const struct esp_rp *rp, unsigned *percent)
{
  uint64_t all = rp->data_blocks << ESP_BLOCK_SHIFT, local = 0;

  /* One whose file cannot be read has nothing that is known to be here. */
  if (esp_have_peek (store, &rp->uuid, &local) == -1 || local > all)
    local = 0;
  *percent = all ? (unsigned) ((double) local * 100 / (double) all) : 100;
  return local;
}

/* --- overlays ------------------------------------------------------------ */

/* Overlays over rp: exports are kept under the restore point's UUID. */
static const char rp_prefix[] = "rp:";

char *
overlay_name (const struct esp_overlay_info *o)
{
  bool rp = strncmp (o->venue, rp_prefix, sizeof rp_prefix - 1) == 0;
  char *name;

  if (asprintf (&name, "%s%s%s@%s", o->venue, rp ? "" : "/",
                rp ? "" : o->disk, o->client) == -1) {
    esp_error ("malloc: %m");
    abort ();
  }
  return name;
}

const char *
overlay_mode_name (enum esp_overlay_mode mode)
{
  switch (mode) {
  case ESP_OVERLAY_KEEP: return "keep";
  case ESP_OVERLAY_DISCARD: return "discard";
  case ESP_OVERLAY_MEMORY: return "memory";
  }
  return "?";
}

/* The tip of a venue's disk, from what was loaded, or else the catalog. */
static int
tip_now (const struct rp_index *rps, const char *venue, unsigned disk,
         esp_uuid *tip)
{
  const struct esp_venue *v;

  if (!rps->venues)
    return esp_catalog_venue_tip (esp_store_catalog (rps->store), venue, disk,
                                  tip);
  v = venue_index_get (rps->venues, venue);
  if (!v || disk >= v->ndisks)
    return -1;
  *tip = v->disks[disk];
  return 0;
}

bool
overlay_is_stale (const struct rp_index *rps,
                  const struct esp_overlay_info *o, esp_uuid *now)
{
  char *end;
  unsigned long disk = strtoul (o->disk, &end, 10);

  if (esp_uuid_is_null (&o->tip) || *end || !esp_name_ok (o->venue) ||
      disk > ESP_DISK_NUMBER_MAX)
    return false;
  return tip_now (rps, o->venue, (unsigned) disk, now) == 0 &&
    !esp_uuid_eq (now, &o->tip);
}
