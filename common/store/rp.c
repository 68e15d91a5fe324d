/* SPDX-License-Identifier: BSD-3-Clause */
/* Restore points as members of the tree: locking, publishing, renaming.
 *
 * Two locks order changes of the tree.  The catalog's write transaction
 * serialises the changes themselves, and is held for moments.  The lock
 * (flock) on a restore point's directory says that its files are in use:
 * shared by everybody who reads it as a tip and by every draft over it from
 * beginning to end, exclusive for its deletion and its merging.  It is taken
 * before the transaction, never inside it, and nobody waits for it.
 *
 * So while a restore point is locked exclusively there can be no new child
 * of it: a draft could not have locked it.  What is not covered by locks
 * (venues) is looked at again inside the transaction.
 *
 * docs/restore-points.md has the order of every commit and what a crash at
 * each step leaves.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/rp-internal.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

void (*esp_rp_test_step) (const char *step);

int
esp_rp_writable (struct esp_store *store)
{
  if (!esp_store_readonly (store))
    return 0;
  errno = EROFS;
  esp_error ("the store %s is read-only: nothing can be changed in it",
             esp_store_path (store));
  return -1;
}

/* `store check` holds a lock while it looks at a restore point: some
 * milliseconds, which are no reason to refuse anything.
 */
#define LOCK_TRIES 30
#define LOCK_PAUSE_US 10000

static int
lock_patiently (int fd, bool exclusive)
{
  int r;

  for (unsigned i = 0; (r = esp_lock (fd, exclusive)) == -1 &&
         errno == EWOULDBLOCK && i < LOCK_TRIES; i++)
    usleep (LOCK_PAUSE_US);
  return r;
}

int
esp_rp_lock (struct esp_store *store, const struct esp_rp *rp, bool exclusive)
{
  CLEANUP_CLOSE int fd = esp_store_rp_dir (store, &rp->uuid);

  if (fd == -1) {
    esp_error ("open: the directory of restore point %s: %m", rp->name);
    return -1;
  }
  if (lock_patiently (fd, exclusive) == 0)
    return esp_steal_fd (&fd);
  if (errno != EWOULDBLOCK)
    esp_error ("flock: the directory of restore point %s: %m", rp->name);
  else {
    errno = EBUSY;
    esp_error (exclusive
               ? "restore point %s is open (a client, an import or an export "
               "reads it): try again when that has ended"
               : "restore point %s is being merged or deleted: try again when "
               "that has ended", rp->name);
  }
  return -1;
}

/* --- names --------------------------------------------------------------- */

/* Is there a restore point with just this name? */
static bool
name_taken (struct esp_store *store, const char *name)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  char unheard[512];
  struct esp_catch outer = esp_catch_begin (unheard, sizeof unheard);
  int r = esp_catalog_rp_find (esp_store_catalog (store), name, &rp);

  esp_catch_end (outer);
  /* NAME may also be the beginning of a UUID. */
  return r == 0 && strcmp (rp.name, name) == 0;
}

int
esp_rp_check_name (struct esp_store *store, const char *name)
{
  if (esp_name_check (name, "restore point") == -1)
    return -1;
  if (!name_taken (store, name))
    return 0;
  errno = EEXIST;
  esp_error ("restore point %s exists already: choose another name", name);
  return -1;
}

int
esp_rp_copy_resources (struct esp_rp *rp, const struct esp_resource *resources,
                       size_t nresources)
{
  rp->resources = calloc (nresources ? nresources : 1, sizeof *rp->resources);
  if (rp->resources == NULL)
    goto fail;
  for (size_t i = 0; i < nresources; i++) {
    struct esp_resource *r = &rp->resources[i];
    const char *version = resources[i].version;

    rp->nresources = i + 1;
    r->kind = strdup (resources[i].kind);
    r->name = strdup (resources[i].name);
    r->version = strdup (version ? version : "");
    if (!r->kind || !r->name || !r->version)
      goto fail;
  }
  return 0;

 fail:
  esp_error ("malloc: resources: %m");
  return -1;
}

/* --- chains -------------------------------------------------------------- */

struct esp_chain *
esp_rp_open_chain (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_CLOSE int fd = esp_store_rp_dir (store, uuid);
  char text[ESP_UUID_TEXT];

  if (fd == -1) {
    esp_error ("open: restore-points/%s: %m", esp_uuid_text (uuid, text));
    return NULL;
  }
  return esp_chain_open (fd, ESP_RP_CHAIN);
}

int
esp_rp_build_chain (struct esp_store *store, const struct esp_rp *rp,
                    int parent_fd, const struct esp_map *map, int dir_fd,
                    const char *name)
{
  CLEANUP_CHAIN struct esp_chain *parent = NULL;

  if (!esp_uuid_is_null (&rp->parent)) {
    parent = parent_fd >= 0 ? esp_chain_open (parent_fd, ESP_RP_CHAIN)
      : esp_rp_open_chain (store, &rp->parent);
    if (parent == NULL)
      return -1;
  }
  if (unlinkat (dir_fd, name, 0) == -1 && errno != ENOENT) {
    esp_error ("unlink: %s: %m", name);
    return -1;
  }
  return esp_chain_build (dir_fd, name, &rp->uuid, map, parent);
}

/* --- publishing ---------------------------------------------------------- */

/* The parent as it is now: still there? */
static int
look_at_parent (struct esp_store *store, struct esp_rp *rp)
{
  CLEANUP_RP struct esp_rp parent = { 0 };

  rp->depth = 1;
  if (esp_uuid_is_null (&rp->parent))
    return 0;
  if (esp_catalog_rp_get (esp_store_catalog (store), &rp->parent,
                          &parent) == -1) {
    esp_error ("the parent of restore point %s was deleted meanwhile",
               rp->name);
    return -1;
  }
  rp->depth = parent.depth + 1;
  return 0;
}

static int
sync_both (int a, int b)
{
  if (esp_sync_dir (a) == 0 && esp_sync_dir (b) == 0)
    return 0;
  esp_error ("fsync: directory of restore points: %m");
  return -1;
}

/* A directory of the name is there.  If it is a delayed restore point without
 * a row, a pull was killed between the rename and the commit (with the
 * transaction nobody else is there now): the same comes again, so what was
 * left goes.  Anything else is left to `store check`.
 */
static int
only_orphan (struct esp_store *store, const struct esp_rp *rp,
             const char *text)
{
  CLEANUP_RP struct esp_rp row = { 0 }, left = { 0 };
  CLEANUP_CLOSE int fd = -1;
  char unheard[512];
  struct esp_catch outer = esp_catch_begin (unheard, sizeof unheard);
  bool orphan =
    esp_catalog_rp_get (esp_store_catalog (store), &rp->uuid, &row) == -1 &&
    errno == ENOENT && rp->kind == ESP_RP_DELAYED &&
    esp_rp_load_meta (store, &rp->uuid, &left, NULL) == 0 &&
    left.kind == ESP_RP_DELAYED && (fd = esp_rp_lock (store, rp, true)) >= 0;

  esp_catch_end (outer);
  if (orphan)
    return 0;
  errno = EEXIST;
  esp_error (row.size > 0
             ? "restore-points/%s is here already: another command was faster"
             : "restore-points/%s is there, but the catalog does not know it: "
             "run 'espalier store check --repair'", text);
  return -1;
}

/* In place of the orphan TEXT: at once, so that its children, which may be
 * orphans, too, are never without it.
 */
static int
move_over (struct esp_store *store, const struct rp_made *made,
           const char *text)
{
  int rps = esp_store_rps_fd (store);

  if (renameat2 (made->from_fd, made->from, rps, text, RENAME_EXCHANGE) == 0)
    return esp_remove_tree (made->from_fd, made->from);
  /* Not every file system can do that. */
  return esp_store_discard (store, rps, text) == -1 ? -1
    : renameat (made->from_fd, made->from, rps, text);
}

static int
move_in (struct esp_store *store, const struct rp_made *made)
{
  int rps = esp_store_rps_fd (store), r;
  char text[ESP_UUID_TEXT];

  esp_uuid_text (&made->rp->uuid, text);
  r = renameat (made->from_fd, made->from, rps, text);
  if (r == -1 && (errno == ENOTEMPTY || errno == EEXIST)) {
    if (only_orphan (store, made->rp, text) == -1)
      return -1;
    r = move_over (store, made, text);
  }
  if (r == -1)
    esp_error ("rename: restore-points/%s: %m", text);
  return r;
}

/* Inside the transaction: look again, move, insert. */
static int
publish_one (struct esp_store *store, struct rp_made *made)
{
  if (esp_rp_check_name (store, made->rp->name) == -1 ||
      look_at_parent (store, made->rp) == -1)
    return -1;
  esp_rp_step ("publish: before the rename");
  if (move_in (store, made) == -1)
    return -1;
  made->moved = true;
  esp_rp_step ("publish: after the rename");
  return esp_catalog_rp_insert (esp_store_catalog (store), made->rp);
}

static int
publish_locked (struct esp_store *store, struct rp_made *made, size_t n)
{
  for (size_t i = 0; i < n; i++)
    if (publish_one (store, &made[i]) == -1)
      return -1;
  if (sync_both (esp_store_rps_fd (store), made[0].from_fd) == -1)
    return -1;
  /* The lock of a draft ends before anybody can know the name. */
  for (size_t i = 0; i < n; i++)
    esp_lock (made[i].dir_fd, false);
  esp_rp_step ("publish: before the commit");
  return esp_catalog_commit (esp_store_catalog (store));
}

/* Children first.  What fails here is a complete orphan for `store check`. */
static void
move_back (struct esp_store *store, struct rp_made *made, size_t n)
{
  int rps = esp_store_rps_fd (store);
  char text[ESP_UUID_TEXT];
  bool any = false;

  for (size_t i = n; i-- > 0; )
    if (made[i].moved) {
      esp_uuid_text (&made[i].rp->uuid, text);
      if (renameat (rps, text, made[i].from_fd, made[i].from) == 0)
        made[i].moved = false;
      any = true;
    }
  if (any)
    (void) sync_both (rps, made[0].from_fd);
}

int
esp_rp_publish (struct esp_store *store, struct rp_made *made, size_t n)
{
  struct esp_catalog *catalog = esp_store_catalog (store);
  int r, saved;

  if (esp_catalog_begin (catalog) == -1)
    return -1;
  r = publish_locked (store, made, n);
  if (r == -1) {
    saved = errno;
    move_back (store, made, n);
    esp_catalog_rollback (catalog);
    errno = saved;
  }
  return r;
}

/* --- changing what is said about a restore point -------------------------- */

/* Replace in OLD what CHANGED says, and write it. */
static int
save_changed (struct esp_store *store, json_t *old, const struct esp_rp *rp,
              uint64_t digest)
{
  CLEANUP_JSON json_t *changed = esp_rp_to_meta (rp, digest);
  CLEANUP_CLOSE int fd = -1;

  if (changed == NULL)
    return -1;
  /* `old` also has the fields that struct esp_rp does not. */
  if (json_object_update (old, changed) == -1) {
    errno = ENOMEM;
    esp_error ("malloc: meta of %s: %m", rp->name);
    return -1;
  }
  fd = esp_rp_lock (store, rp, false);
  return fd == -1 ? -1 : esp_meta_save (fd, old, rp->name);
}

/* Call CHANGE on the restore point as meta and as the catalog know it. */
static int
change_locked (struct esp_store *store, const esp_uuid *uuid,
               int (*change) (struct esp_rp *rp, const void *arg),
               const void *arg)
{
  struct esp_catalog *catalog = esp_store_catalog (store);
  CLEANUP_JSON json_t *meta = NULL;
  CLEANUP_RP struct esp_rp said = { 0 }, row = { 0 };
  uint64_t digest;

  if (esp_catalog_rp_get (catalog, uuid, &row) == -1) {
    esp_error ("the restore point was deleted meanwhile");
    return -1;
  }
  meta = esp_meta_load (store, uuid, &said, &digest);
  if (meta == NULL || change (&said, arg) == -1 || change (&row, arg) == -1 ||
      save_changed (store, meta, &said, digest) == -1)
    return -1;
  esp_rp_step ("change: after meta");
  return esp_catalog_rp_update (catalog, &row);
}

static int
change_rp (struct esp_store *store, const esp_uuid *uuid, const char *new_name,
           int (*change) (struct esp_rp *rp, const void *arg), const void *arg)
{
  struct esp_catalog *catalog = esp_store_catalog (store);
  int saved;

  if (esp_rp_writable (store) == -1 || esp_catalog_begin (catalog) == -1)
    return -1;
  if ((new_name == NULL || esp_rp_check_name (store, new_name) == 0) &&
      change_locked (store, uuid, change, arg) == 0 &&
      esp_catalog_commit (catalog) == 0)
    return 0;
  saved = errno;
  esp_catalog_rollback (catalog);
  errno = saved;
  return -1;
}

static int
change_name (struct esp_rp *rp, const void *arg)
{
  strcpy (rp->name, arg);
  return 0;
}

int
esp_rp_rename (struct esp_store *store, const esp_uuid *uuid, const char *name)
{
  if (esp_name_check (name, "restore point") == -1)
    return -1;
  return change_rp (store, uuid, name, change_name, name);
}

static int
change_note (struct esp_rp *rp, const void *arg)
{
  char *note = strdup (arg);

  if (note == NULL) {
    esp_error ("malloc: note: %m");
    return -1;
  }
  free (rp->note);
  rp->note = note;
  return 0;
}

int
esp_rp_set_note (struct esp_store *store, const esp_uuid *uuid,
                 const char *note)
{
  return change_rp (store, uuid, NULL, change_note, note);
}

struct resources { const struct esp_resource *r; size_t n; };

static int
change_resources (struct esp_rp *rp, const void *arg)
{
  const struct resources *new = arg;
  CLEANUP_RP struct esp_rp fresh = { 0 }, old = { 0 };

  if (esp_rp_copy_resources (&fresh, new->r, new->n) == -1)
    return -1;
  old.resources = rp->resources;
  old.nresources = rp->nresources;
  rp->resources = fresh.resources;
  rp->nresources = fresh.nresources;
  memset (&fresh, 0, sizeof fresh);
  return 0;
}

int
esp_rp_set_resources (struct esp_store *store, const esp_uuid *uuid,
                      const struct esp_resource *resources, size_t nresources)
{
  struct resources new = { resources, nresources };

  return change_rp (store, uuid, NULL, change_resources, &new);
}
