/* SPDX-License-Identifier: BSD-3-Clause */
/* venue clone: disks of their own for many clients at once.
 *
 * All or nothing, whatever happens, with a handful of syncs.  Order:
 *
 *   1  tmp/draft-UUID: the document `clones` (all names), and a directory
 *      for each disk with its pattern (overlay/clone.c); synced
 *   2  all names locked; any that exists ends it here
 *   3  the draft is renamed to tmp/clone-UUID, tmp/ synced: done, from here
 *      on a crash does not take it back
 *   4  overlays made, locks let go
 *   5  the file system synced (syncfs: one for all), tmp/clone-UUID removed
 *
 * Who opens the store next and finds a tmp/clone-UUID that nobody holds
 * finishes it (store_finish_clones).  Before 3 there are empty directories at
 * most, which hold nothing and are not listed.
 *
 * The catalog's transaction is held from the look at the venue until the
 * overlays are there, so that it cannot be mapped elsewhere, and its tips not
 * be deleted, in between.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlay/clone.h"
#include "store/internal.h"
#include "store/rp-internal.h"
#include "store/venue.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define CLONES_DOC "clones"
#define CLONES_KIND "clones"
#define CLONES_VERSION 1

ESP_DEFINE_CLEANUP (bulk, struct esp_overlay_bulk *, esp_overlay_bulk_free)

static int
no_memory (void)
{
  errno = ENOMEM;
  esp_error ("malloc: clones: %m");
  return -1;
}

/* --- the names ------------------------------------------------------------------ */

/* Of ndisks * nclients overlays: those of a disk one after another. */
struct names {
  char *venue, **clients;       /* components of paths */
  size_t nclients;
  char (*disks)[12];
  unsigned ndisks;
  struct esp_overlay_id *ids;
  size_t n;
};

static void
names_clear (struct names *s)
{
  free (s->venue);
  for (size_t i = 0; s->clients && i < s->nclients; i++)
    free (s->clients[i]);
  free (s->clients);
  free (s->disks);
  free (s->ids);
}
#define CLEANUP_NAMES __attribute__ ((cleanup (names_clear)))

static int
names_reserve (struct names *s, size_t nclients, unsigned ndisks)
{
  s->nclients = nclients;
  s->ndisks = ndisks;
  s->n = nclients * ndisks;
  s->clients = calloc (nclients, sizeof *s->clients);
  s->disks = calloc (ndisks, sizeof *s->disks);
  s->ids = calloc (s->n, sizeof *s->ids);
  return s->clients && s->disks && s->ids ? 0 : no_memory ();
}

static void
names_cross (struct names *s)
{
  for (unsigned d = 0; d < s->ndisks; d++)
    for (size_t i = 0; i < s->nclients; i++)
      s->ids[d * s->nclients + i] =
        (struct esp_overlay_id) { s->venue, s->disks[d], s->clients[i] };
}

static int
compare (const void *a, const void *b)
{
  return strcmp (*(char *const *) a, *(char *const *) b);
}

/* Are all clients' names good, and different? */
static int
check_clients (char *const *clients, size_t n)
{
  CLEANUP_FREE char **sorted = malloc (n * sizeof *sorted);

  if (!sorted)
    return no_memory ();
  for (size_t i = 0; i < n; i++)
    if (esp_client_check (clients[i]) == -1)
      return -1;
  memcpy (sorted, clients, n * sizeof *sorted);
  qsort (sorted, n, sizeof *sorted, compare);
  for (size_t i = 1; i < n; i++)
    if (strcmp (sorted[i - 1], sorted[i]) == 0) {
      errno = EINVAL;
      esp_error ("client name %s: given twice", sorted[i]);
      return -1;
    }
  return 0;
}

/* The disks of V (or its disk ONLY, where that is not -1) for CLIENTS. */
static int
names_fill (struct names *s, const struct esp_venue *v, int only,
            char *const *clients, size_t n)
{
  if (only >= 0 && (unsigned) only >= v->ndisks) {
    errno = ENOENT;
    esp_error ("venue %s has no disk %d: it has %u", v->id, only, v->ndisks);
    return -1;
  }
  if (names_reserve (s, n, only >= 0 ? 1 : v->ndisks) == -1)
    return -1;
  s->venue = esp_path_component (v->id);
  for (size_t i = 0; i < n; i++)
    if (!(s->clients[i] = esp_path_component (clients[i])))
      return no_memory ();
  for (unsigned d = 0; d < s->ndisks; d++)
    snprintf (s->disks[d], sizeof s->disks[d], "%u",
              only >= 0 ? (unsigned) only : d);
  if (!s->venue)
    return no_memory ();
  names_cross (s);
  return 0;
}

static int
names_save (const struct names *s, int dir_fd)
{
  json_t *disks = json_array (), *clients = json_array ();
  CLEANUP_JSON json_t *root =
    json_pack ("{s:s,s:o,s:o}", "venue", s->venue, "disks", disks, "clients",
               clients);

  if (!root)
    return no_memory ();
  for (unsigned d = 0; d < s->ndisks; d++)
    if (json_array_append_new (disks, json_string (s->disks[d])) == -1)
      return no_memory ();
  for (size_t i = 0; i < s->nclients; i++)
    if (json_array_append_new (clients, json_string (s->clients[i])) == -1)
      return no_memory ();
  return esp_doc_save (dir_fd, CLONES_DOC, CLONES_KIND, CLONES_VERSION, root,
                       0600);
}

/* One component of a path out of the document. */
static const char *
component (json_t *value)
{
  const char *s = json_string_value (value);

  return s && *s && *s != '.' && strlen (s) <= 255 && !strchr (s, '/') ? s
    : NULL;
}

static int
names_parse (struct names *s, json_t *root)
{
  bool bad = false;
  json_t *disks = esp_doc_array (root, "disks", &bad);
  json_t *clients = esp_doc_array (root, "clients", &bad);
  const char *venue = component (json_object_get (root, "venue"));

  if (bad || !venue || !disks || !clients ||
      json_array_size (disks) > ESP_DISK_NUMBER_MAX + 1) {
    errno = EBADMSG;
    return -1;
  }
  if (names_reserve (s, json_array_size (clients),
                     (unsigned) json_array_size (disks)) == -1)
    return -1;
  s->venue = strdup (venue);
  for (unsigned d = 0; d < s->ndisks; d++) {
    const char *disk = component (json_array_get (disks, d));
    if (!disk || strlen (disk) >= sizeof s->disks[d]) {
      errno = EBADMSG;
      return -1;
    }
    strcpy (s->disks[d], disk);
  }
  for (size_t i = 0; i < s->nclients; i++) {
    const char *client = component (json_array_get (clients, i));
    if (!client) {
      errno = EBADMSG;
      return -1;
    }
    if (!(s->clients[i] = strdup (client)))
      return no_memory ();
  }
  if (!s->venue)
    return no_memory ();
  names_cross (s);
  return 0;
}

/* --- making ----------------------------------------------------------------------- */

static int
open_pattern (int dir_fd, const struct names *s, unsigned d, bool make)
{
  int fd = make ? esp_make_dir (dir_fd, s->disks[d], 0700)
    : esp_open_dir (dir_fd, s->disks[d]);

  if (fd == -1)
    esp_error ("open: clones of disk %s: %m", s->disks[d]);
  return fd;
}

/* Write the draft DIR_FD (step 1). */
static int
write_draft (struct esp_store *store, int dir_fd, const struct names *s,
             const struct esp_venue *v)
{
  for (unsigned d = 0; d < s->ndisks; d++) {
    CLEANUP_RP struct esp_rp rp = { 0 };
    CLEANUP_CLOSE int fd = open_pattern (dir_fd, s, d, true);
    const esp_uuid *tip = &v->disks[atoi (s->disks[d])];

    if (fd == -1)
      return -1;
    if (esp_catalog_rp_get (store->catalog, tip, &rp) == -1) {
      if (errno == ENOENT)
        esp_error ("venue %s: the restore point of disk %s is gone", v->id,
                   s->disks[d]);
      return -1;
    }
    if (esp_overlay_pattern (fd, tip, rp.size) == -1)
      return -1;
    if (esp_sync_dir (fd) == -1) {
      esp_error ("fsync: tmp: %m");
      return -1;
    }
  }
  return names_save (s, dir_fd);
}

/* Step 3. */
static int
commit_draft (struct esp_store *store, char name[64])
{
  int tmp = esp_store_tmp_fd (store);
  char done[64];

  snprintf (done, sizeof done, STORE_CLONE_PREFIX "%.50s",
            name + strlen ("draft-"));
  if (renameat (tmp, name, tmp, done) == -1 || esp_sync_dir (tmp) == -1) {
    esp_error ("rename: tmp/%s: %m", name);
    return -1;
  }
  strcpy (name, done);
  return 0;
}

static int
make_overlays (struct esp_overlay_bulk *b, int dir_fd, const struct names *s)
{
  for (unsigned d = 0; d < s->ndisks; d++) {
    CLEANUP_CLOSE int fd = open_pattern (dir_fd, s, d, false);
    if (fd == -1 || esp_overlay_bulk_make (b, d * s->nclients, s->nclients,
                                           fd) == -1)
      return -1;
  }
  return 0;
}

/* Step 5.  Not done, it is done by who opens the store next. */
static void
forget_note (struct esp_store *store, const char *name)
{
  if (syncfs (esp_store_overlays_fd (store)) == -1)
    esp_warning ("syncfs: %s/overlays: %m", store->path);
  else
    esp_remove_tree (esp_store_tmp_fd (store), name);
}

/* Steps 2 to 4. */
static int
make_locked (struct esp_store *store, const struct names *s, int dir_fd,
             char name[64])
{
  ESP_CLEANUP (bulk) struct esp_overlay_bulk *b =
    esp_overlay_bulk_lock (esp_store_overlays_fd (store), s->ids, s->n);

  if (!b)
    return -1;
  if (commit_draft (store, name) == 0 && make_overlays (b, dir_fd, s) == 0)
    return 0;
  esp_overlay_bulk_undo (b);
  return -1;
}

static int
clone_draft (struct esp_store *store, const struct names *s,
             const struct esp_venue *v)
{
  char name[64];
  CLEANUP_CLOSE int fd = esp_store_tmp_dir (store, name);

  if (fd == -1)
    return -1;
  if (write_draft (store, fd, s, v) == 0 &&
      make_locked (store, s, fd, name) == 0) {
    forget_note (store, name);
    return 0;
  }
  int saved = errno;
  esp_remove_tree (esp_store_tmp_fd (store), name);
  errno = saved;
  return -1;
}

int
esp_venue_clone (struct esp_store *store, const char *id, int disk,
                 char *const *clients, size_t n)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  CLEANUP_VENUE struct esp_venue v = { 0 };
  CLEANUP_NAMES struct names s = { 0 };

  if (esp_rp_writable (store) == -1 || esp_name_check (id, "venue") == -1)
    return -1;
  if (n == 0 || n > ESP_CLONES_MAX) {
    errno = EINVAL;
    esp_error ("%zu clients: 1 to %d can be made at once", n, ESP_CLONES_MAX);
    return -1;
  }
  if (check_clients (clients, n) == -1 ||
      esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (esp_catalog_venue_get (store->catalog, id, &v) == -1 ||
      names_fill (&s, &v, disk, clients, n) == -1)
    return -1;
  return clone_draft (store, &s, &v);
}

/* --- after a crash ------------------------------------------------------------------ */

static int
finish (struct esp_store *store, int dir_fd, const char *name)
{
  CLEANUP_NAMES struct names s = { 0 };
  CLEANUP_JSON json_t *root = esp_doc_load (dir_fd, CLONES_DOC,
                                                  CLONES_KIND, CLONES_VERSION);

  if (!root || names_parse (&s, root) == -1)
    return -1;
  for (unsigned d = 0; d < s.ndisks; d++) {
    CLEANUP_CLOSE int fd = open_pattern (dir_fd, &s, d, false);
    if (fd == -1 ||
        esp_overlay_clones_finish (esp_store_overlays_fd (store),
                                   s.ids + d * s.nclients, s.nclients,
                                   fd) == -1)
      return -1;
  }
  forget_note (store, name);
  return 0;
}

static int
finish_entry (void *arg, int tmp_fd, const char *name)
{
  struct esp_store *store = arg;
  char why[256] = "";
  struct esp_catch outer;
  int r;

  if (strncmp (name, STORE_CLONE_PREFIX, strlen (STORE_CLONE_PREFIX)) != 0)
    return 0;
  CLEANUP_CLOSE int fd = esp_open_dir (tmp_fd, name);
  if (fd == -1 || esp_lock (fd, true) == -1)
    return 0;                   /* who makes them still does */
  outer = esp_catch_begin (why, sizeof why);
  r = finish (store, fd, name);
  esp_catch_end (outer);
  if (r == -1)
    esp_warning ("%s/tmp/%s: clones that were being made cannot be finished "
                 "now: %s", store->path, name, why);
  return 0;
}

void
store_finish_clones (struct esp_store *store)
{
  int saved = errno;

  if (!store->readonly)
    (void) esp_each_entry (esp_store_tmp_fd (store), finish_entry, store);
  errno = saved;
}
