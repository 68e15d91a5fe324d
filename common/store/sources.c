/* SPDX-License-Identifier: BSD-3-Clause */
/* The sources of a delayed restore point: reading and changing them.  Their
 * files are sources-file.c's.
 *
 * A change is made within a transaction of the catalog, as all that only one
 * may do at a time; nothing is changed in the catalog.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/have-internal.h"
#include "util/host.h"

/* --- reading ------------------------------------------------------------------ */

static int
open_place (struct esp_store *store, const esp_uuid *uuid, struct esp_rp *rp,
            char where[80])
{
  char text[ESP_UUID_TEXT];
  int dir;

  snprintf (where, 80, "restore-points/%s", esp_uuid_text (uuid, text));
  if (esp_rp_load_meta (store, uuid, rp, NULL) == -1)
    return -1;
  if (rp->kind != ESP_RP_DELAYED) {
    errno = ENOENT;
    esp_error ("restore point %s is no delayed one", rp->name);
    return -1;
  }
  dir = esp_store_rp_dir (store, uuid);
  if (dir == -1)
    esp_error ("open: %s: %m", where);
  return dir;
}

/* None is an empty list. */
static int
load (int dir, const struct esp_rp *rp, const char *where,
      struct esp_source_list *out, esp_digest **indexes)
{
  if (sources_load (dir, rp, where, out, indexes) == 0)
    return 0;
  if (errno != ENOENT)
    return -1;
  out->s = calloc (1, sizeof *out->s);
  if (indexes)
    *indexes = calloc (SOURCES_MAX + 1, sizeof **indexes);
  if (out->s && (!indexes || *indexes))
    return 0;
  esp_error ("malloc: sources: %m");
  return -1;
}

int
esp_sources_load (struct esp_store *store, const esp_uuid *uuid,
                  struct esp_source_list *out)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  char where[80];
  CLEANUP_CLOSE int dir = open_place (store, uuid, &rp, where);

  memset (out, 0, sizeof *out);
  return dir == -1 ? -1 : load (dir, &rp, where, out, NULL);
}

/* The place of CENTER in LIST, or its length. */
static size_t
find (const struct esp_source_list *list, const char *center)
{
  size_t i;

  for (i = 0; i < list->n; i++)
    if (strcmp (list->s[i].center, center) == 0)
      break;
  return i;
}

int
esp_sources_index (struct esp_store *store, const esp_uuid *uuid,
                   const char *center, struct esp_index *out)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  CLEANUP_FREE esp_digest *indexes = NULL;
  CLEANUP_RP struct esp_rp rp = { 0 };
  char where[80];
  CLEANUP_CLOSE int dir = open_place (store, uuid, &rp, where);
  size_t i;

  memset (out, 0, sizeof *out);
  if (dir == -1 || load (dir, &rp, where, &list, &indexes) == -1)
    return -1;
  i = find (&list, center);
  if (i < list.n && center[0])
    return sources_read_index (dir, &list.s[i], &indexes[i], where, out);
  errno = ENOENT;
  esp_error ("restore point %s does not come from center %s", rp.name, center);
  return -1;
}

/* --- changing ------------------------------------------------------------------ */

/* Append SOURCE to LIST, or put it in the place of that center's. */
static int
put (struct esp_source_list *list, esp_digest *indexes,
     const struct esp_source *source, const esp_digest *index)
{
  size_t i = find (list, source->center);
  struct esp_source copy = *source, *more;

  if (i == SOURCES_MAX) {
    errno = E2BIG;
    esp_error ("a restore point has at most %u sources", SOURCES_MAX);
    return -1;
  }
  more = reallocarray (list->s, i >= list->n ? list->n + 1 : list->n,
                       sizeof *more);
  copy.url = source->url ? strdup (source->url) : NULL;
  if (!more || (source->url && !copy.url)) {
    if (more)
      list->s = more;
    esp_error ("malloc: sources: %m");
    return -1;
  }
  list->s = more;
  if (i == list->n)
    list->n++;
  else
    free (list->s[i].url);
  list->s[i] = copy;
  indexes[i] = *index;
  return 0;
}

static int
add (int dir, const struct esp_rp *rp, const char *where,
     const struct esp_source *source, const struct esp_index *index)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  CLEANUP_SEGMENTS struct segments table = { 0 };
  CLEANUP_FREE esp_digest *indexes = NULL;
  esp_digest digest = { { 0 } };

  if (segments_open (dir, rp->size, where, &table) == -1) {
    if (errno == ENOENT)
      esp_error ("open: %s/" ESP_RP_SEGMENTS ": %m", where);
    return -1;
  }
  if ((index && sources_agree (&table, index, source->center, where) == -1) ||
      load (dir, rp, where, &list, &indexes) == -1 ||
      (index && sources_write_index (dir, source->center, index, &digest) == -1) ||
      put (&list, indexes, source, &digest) == -1)
    return -1;
  return sources_save (dir, &list, indexes);
}

int
esp_sources_add (struct esp_store *store, const esp_uuid *uuid,
                 const struct esp_source *source,
                 const struct esp_index *index)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  CLEANUP_RP struct esp_rp rp = { 0 };
  char where[80];
  CLEANUP_CLOSE int dir = -1;

  if (!sources_ok (source, index)) {
    errno = EINVAL;
    esp_error ("a source is a center with its index, or the address of an "
               "image");
    return -1;
  }
  if (esp_rp_writable (store) == -1 ||
      esp_catalog_begin (esp_store_catalog (store)) == -1)
    return -1;
  tx = esp_store_catalog (store);
  dir = open_place (store, uuid, &rp, where);
  return dir == -1 ? -1 : add (dir, &rp, where, source, index);
}

static int
take_away (int dir, const struct esp_rp *rp, const char *where,
           const char *center)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  CLEANUP_FREE esp_digest *indexes = NULL;
  char name[ESP_NAME_MAX + 16];
  size_t i;

  if (load (dir, rp, where, &list, &indexes) == -1)
    return -1;
  i = find (&list, center);
  if (i == list.n) {
    errno = ENOENT;
    esp_error ("restore point %s does not come from center %s", rp->name,
               center);
    return -1;
  }
  free (list.s[i].url);
  list.n--;
  memmove (&list.s[i], &list.s[i + 1], (list.n - i) * sizeof *list.s);
  memmove (&indexes[i], &indexes[i + 1], (list.n - i) * sizeof *indexes);
  if (sources_save (dir, &list, indexes) == -1)
    return -1;
  sources_index_name (center, name);
  /* Without its source nobody reads it. */
  (void) unlinkat (dir, name, 0);
  return 0;
}

int
esp_sources_remove (struct esp_store *store, const esp_uuid *uuid,
                    const char *center)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  CLEANUP_RP struct esp_rp rp = { 0 };
  char where[80];
  CLEANUP_CLOSE int dir = -1;

  if (esp_rp_writable (store) == -1 ||
      esp_catalog_begin (esp_store_catalog (store)) == -1)
    return -1;
  tx = esp_store_catalog (store);
  dir = open_place (store, uuid, &rp, where);
  return dir == -1 ? -1 : take_away (dir, &rp, where, center);
}
