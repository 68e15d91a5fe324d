/* SPDX-License-Identifier: BSD-3-Clause */
/* What there is to check: the directories of restore-points/, the rows of
 * the catalog, and the order in which to go through them.
 */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/check-internal.h"
#include "util/file.h"
#include "util/host.h"

/* --- look-ups ------------------------------------------------------------ */

static int
by_item (const void *key, const void *elem)
{
  return memcmp (key, &(*(struct item *const *) elem)->uuid,
                 sizeof (esp_uuid));
}

struct item *
check_find (const struct check *k, const esp_uuid *uuid)
{
  struct item **p = k->n ? bsearch (uuid, k->items, k->n, sizeof *k->items,
                                    by_item) : NULL;

  return p ? *p : NULL;
}

static int
by_row (const void *key, const void *elem)
{
  return memcmp (key, &(*(struct esp_rp *const *) elem)->uuid,
                 sizeof (esp_uuid));
}

const struct esp_rp *
check_row (const struct check *k, const esp_uuid *uuid)
{
  struct esp_rp **p = k->by_uuid
    ? bsearch (uuid, k->by_uuid, k->rows.n, sizeof *k->by_uuid, by_row) : NULL;

  return p ? *p : NULL;
}

bool
check_tip_ok (const struct check *k, const esp_uuid *uuid)
{
  const struct item *it = check_find (k, uuid);

  return it && !it->lost;
}

/* --- listing ------------------------------------------------------------- */

/* Insert a new item for UUID where it belongs; NULL without memory. */
static struct item *
add_item (struct check *k, const esp_uuid *uuid)
{
  struct item **more = reallocarray (k->items, k->n + 1, sizeof *more);
  struct item *it = calloc (1, sizeof *it);
  size_t at = k->n;

  if (more)
    k->items = more;
  if (!more || !it) {
    free (it);
    esp_error ("malloc: %m");
    return NULL;
  }
  /* The directory is read in order, so this is nearly always the end. */
  while (at > 0 && memcmp (&k->items[at - 1]->uuid, uuid, sizeof *uuid) > 0)
    at--;
  memmove (&k->items[at + 1], &k->items[at],
           (k->n - at) * sizeof *k->items);
  it->uuid = *uuid;
  k->items[at] = it;
  k->n++;
  return it;
}

static void
stranger (struct check *k, int dirfd, const char *name)
{
  char object[600], shown[300], was[400], where[300];
  bool mended = false;

  snprintf (object, sizeof object, "restore-points/%s",
            esp_escape (name, shown, sizeof shown));
  snprintf (was, sizeof was, "restore-points/%.255s", name);
  if (k->repair)
    mended = set_aside (k->store, dirfd, name, name, was,
                        "It is not named as a restore point is.", where) == 0;
  check_tell (k, ESP_LEFTOVER, mended, object,
              "its name is not that of a restore point",
              "moved to damaged/");
}

struct listing { struct check *k; bool first; };

static int
list_one (void *arg, int dirfd, const char *name)
{
  struct listing *l = arg;
  char text[ESP_UUID_TEXT];
  struct item *it;
  esp_uuid uuid;

  if (esp_uuid_parse (name, &uuid) == -1 ||
      strcmp (esp_uuid_text (&uuid, text), name) != 0) {
    if (!l->first)
      stranger (l->k, dirfd, name);
    return 0;
  }
  it = check_find (l->k, &uuid);
  if (!it) {
    if (!(it = add_item (l->k, &uuid)))
      return -1;
    it->flagged = !l->first;
  }
  it->gone = false;
  return 0;
}

int
check_list_items (struct check *k, bool first)
{
  struct listing l = { .k = k, .first = first };
  size_t n = 0;

  for (size_t i = 0; i < k->n; ++i)
    k->items[i]->gone = true;
  if (esp_each_entry (esp_store_rps_fd (k->store), list_one, &l) == -1)
    return -1;
  for (size_t i = 0; i < k->n; ++i)
    if (k->items[i]->gone) {
      esp_rp_clear (&k->items[i]->rp);
      free (k->items[i]);
    }
    else
      k->items[n++] = k->items[i];
  k->n = n;
  return 0;
}

static int
compare_rows (const void *a, const void *b)
{
  return memcmp (&(*(struct esp_rp *const *) a)->uuid,
                 &(*(struct esp_rp *const *) b)->uuid, sizeof (esp_uuid));
}

int
check_list_rows (struct check *k)
{
  if (!k->catalog)
    return 0;
  if (esp_catalog_rp_list (k->catalog, NULL, &k->rows) == -1)
    return -1;
  k->by_uuid = calloc (k->rows.n + 1, sizeof *k->by_uuid);
  if (!k->by_uuid) {
    esp_error ("malloc: %m");
    return -1;
  }
  for (size_t i = 0; i < k->rows.n; ++i)
    k->by_uuid[i] = &k->rows.rp[i];
  qsort (k->by_uuid, k->rows.n, sizeof *k->by_uuid, compare_rows);
  return 0;
}

/* --- the order: parents first -------------------------------------------- */

const struct esp_rp *
check_known (const struct check *k, const struct item *it)
{
  return it->rp.size ? &it->rp : check_row (k, &it->uuid);
}

static void
find_parents (struct check *k)
{
  for (size_t i = 0; i < k->n; ++i) {
    const struct esp_rp *rp = check_known (k, k->items[i]);
    k->items[i]->parent = rp ? check_find (k, &rp->parent) : NULL;
  }
}

/* Place IT behind its ancestors. */
static void
place (struct check *k, struct item *it, struct item **path, size_t *placed)
{
  size_t n = 0;

  for (; it && it->order == ITEM_NEW; it = it->parent) {
    it->order = ITEM_ON_PATH;
    path[n++] = it;
  }
  /* We met a part of this very path: a ring. */
  for (; it && it->order == ITEM_ON_PATH && !it->in_ring; it = it->parent)
    it->in_ring = true;
  while (n > 0) {
    path[--n]->order = ITEM_PLACED;
    k->order[(*placed)++] = path[n];
  }
}

int
check_make_order (struct check *k)
{
  CLEANUP_FREE struct item **path = calloc (k->n + 1, sizeof *path);
  size_t placed = 0;

  k->order = calloc (k->n + 1, sizeof *k->order);
  if (!path || !k->order) {
    esp_error ("malloc: %m");
    return -1;
  }
  find_parents (k);
  for (size_t i = 0; i < k->n; ++i)
    place (k, k->items[i], path, &placed);
  return 0;
}

