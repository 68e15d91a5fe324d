/* SPDX-License-Identifier: BSD-3-Clause */
/* A new catalog.db from the documents: meta of each restore point, venues/ID,
 * clients and needs.
 *
 * It is written beside the old one as catalog.db.new, in one transaction,
 * closed (so that no log belongs to it), and renamed; the old one becomes
 * catalog.db.old, with its log.  A crash leaves the old one, or none, and
 * then the next command says to rebuild.  Processes that have the old one
 * open would go on with it, and take the new one's log for theirs, so all
 * of this needs the store's lock exclusively.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/check-internal.h"
#include "store/site-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define NEW_FILE ESP_CATALOG_FILE ".new"
#define OLD_FILE ESP_CATALOG_FILE ".old"

struct rebuild {
  struct esp_store *store;
  struct esp_catalog *catalog;
  esp_finding_fn fn;
  void *arg;
  struct esp_rp_list found;
  unsigned rps, venues;
};

static void
tell (struct rebuild *b, const char *what, const char *name,
      const char *problem)
{
  char object[300], shown[256];
  struct esp_finding f = { .kind = ESP_DAMAGE, .object = object,
                           .problem = problem };

  snprintf (object, sizeof object, "%s %s", what,
            esp_escape (name, shown, sizeof shown));
  if (b->fn)
    b->fn (b->arg, &f);
}

/* --- restore points ------------------------------------------------------ */

static int
read_meta (void *arg, int dirfd, const char *name)
{
  struct rebuild *b = arg;
  struct esp_rp_list *l = &b->found;
  char text[TEXT_MAX] = "";
  struct esp_catch outer;
  struct esp_rp *more, rp;
  esp_uuid uuid;
  int r;

  (void) dirfd;
  if (esp_uuid_parse (name, &uuid) == -1)
    return 0;                   /* store check tells */
  outer = esp_catch_begin (text, sizeof text);
  r = esp_rp_load_meta (b->store, &uuid, &rp, NULL);
  esp_catch_end (outer);
  if (r == -1) {
    tell (b, "restore point", name, text);
    return 0;
  }
  if (!(more = reallocarray (l->rp, l->n + 1, sizeof *more))) {
    esp_error ("malloc: %m");
    esp_rp_clear (&rp);
    return -1;
  }
  l->rp = more;
  l->rp[l->n++] = rp;
  return 0;
}

static int
by_uuid (const void *a, const void *b)
{
  return memcmp (&((const struct esp_rp *) a)->uuid,
                 &((const struct esp_rp *) b)->uuid, sizeof (esp_uuid));
}

static struct esp_rp *
find (const struct rebuild *b, const esp_uuid *uuid)
{
  const struct esp_rp key = { .uuid = *uuid };

  return b->found.n ? bsearch (&key, b->found.rp, b->found.n, sizeof key,
                               by_uuid) : NULL;
}

enum { FOUND_NEW, FOUND_ON_PATH, FOUND_IN, FOUND_OUT };

/* Insert RP and, before it, its ancestors.  PATH has room for all. */
static int
insert_chain (struct rebuild *b, struct esp_rp *rp, struct esp_rp **path,
              unsigned char *state)
{
  size_t n = 0;
  bool in;

  for (; rp && state[rp - b->found.rp] == FOUND_NEW;
       rp = find (b, &path[n - 1]->parent)) {
    state[rp - b->found.rp] = FOUND_ON_PATH;
    path[n++] = rp;
  }
  /* Where the walk ended: at a root, or at one that is decided on; else
   * the parent is missing, or it is a ring.
   */
  in = n > 0 && (rp ? state[rp - b->found.rp] == FOUND_IN
                 : esp_uuid_is_null (&path[n - 1]->parent));
  while (n > 0) {
    struct esp_rp *next = path[--n];

    state[next - b->found.rp] = in ? FOUND_IN : FOUND_OUT;
    if (in && mend_adopt (b->store, b->catalog, next) == -1)
      return -1;
    if (in)
      b->rps++;
    else
      tell (b, "restore point", next->name, "its parent is missing");
  }
  return 0;
}

static int
insert_rps (struct rebuild *b)
{
  CLEANUP_FREE struct esp_rp **path = calloc (b->found.n + 1, sizeof *path);
  CLEANUP_FREE unsigned char *state = calloc (b->found.n + 1, 1);

  if (!path || !state) {
    esp_error ("malloc: %m");
    return -1;
  }
  if (b->found.n)
    qsort (b->found.rp, b->found.n, sizeof *b->found.rp, by_uuid);
  for (size_t i = 0; i < b->found.n; ++i)
    if (insert_chain (b, &b->found.rp[i], path, state) == -1)
      return -1;
  return 0;
}

/* --- venues -------------------------------------------------------------- */

static int
insert_venue (void *arg, int dirfd, const char *name)
{
  struct rebuild *b = arg;
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };
  char text[TEXT_MAX] = "";
  struct esp_catch outer;
  int r;

  (void) dirfd;
  if (!esp_name_ok (name))
    return 0;
  outer = esp_catch_begin (text, sizeof text);
  r = venue_read (b->store, name, &d);
  if (r == 0)
    r = venue_copy_to_catalog (b->catalog, &d);
  esp_catch_end (outer);
  if (r == 0)
    b->venues++;
  else
    tell (b, "venue", name, text);
  return 0;
}

/* --- clients and needs --------------------------------------------------- */

/* R is what reading and taking over the document NAME gave. */
static int
took (struct rebuild *b, const char *name, int r, int err, const char *text)
{
  if (r == -1 && err != ENOENT)
    tell (b, "document", name, text);
  return r == -1 && err == ENOMEM ? -1 : 0;
}

static int
insert_clients (struct rebuild *b)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };
  char text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = site_read_clients (b->store, &list);

  if (r == 0)
    r = esp_catalog_client_set_all (b->catalog, &list);
  esp_catch_end (outer);
  return took (b, SITE_CLIENTS, r, errno, text);
}

static int
insert_needs (struct rebuild *b)
{
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 };
  char text[TEXT_MAX] = "";
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = site_read_needs (b->store, &list);

  if (r == 0)
    r = esp_catalog_need_set_all (b->catalog, &list);
  esp_catch_end (outer);
  return took (b, SITE_NEEDS, r, errno, text);
}

static int
fill (struct rebuild *b)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (esp_catalog_begin (b->catalog) == -1)
    return -1;
  tx = b->catalog;
  if (esp_each_entry (esp_store_rps_fd (b->store), read_meta, b) == -1 ||
      insert_rps (b) == -1 ||
      esp_each_entry (esp_store_venues_fd (b->store), insert_venue, b) == -1 ||
      insert_clients (b) == -1 || insert_needs (b) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}

/* --- the files ----------------------------------------------------------- */

/* NAME-wal and NAME-shm go; an error shows when the new one is made. */
static void
remove_logs (int fd, const char *name)
{
  char file[64];

  snprintf (file, sizeof file, "%s-wal", name);
  unlinkat (fd, file, 0);
  snprintf (file, sizeof file, "%s-shm", name);
  unlinkat (fd, file, 0);
}

static int
rename_if_there (int fd, const char *from, const char *to)
{
  if (renameat (fd, from, fd, to) == 0 || errno == ENOENT)
    return 0;
  esp_error ("rename: %s: %m", from);
  return -1;
}

static int
put_in_place (int fd)
{
  remove_logs (fd, OLD_FILE);
  if (rename_if_there (fd, ESP_CATALOG_FILE, OLD_FILE) == -1 ||
      rename_if_there (fd, ESP_CATALOG_FILE "-wal", OLD_FILE "-wal") == -1)
    return -1;
  remove_logs (fd, ESP_CATALOG_FILE);
  if (renameat (fd, NEW_FILE, fd, ESP_CATALOG_FILE) == -1 ||
      esp_sync_dir (fd) == -1) {
    esp_error ("rename: %s: %m", NEW_FILE);
    return -1;
  }
  return 0;
}

static void
rebuild_clear (struct rebuild *b)
{
  int saved = errno;

  esp_catalog_close (b->catalog);
  esp_rp_list_clear (&b->found);
  errno = saved;
}

static int
write_new (struct rebuild *b)
{
  int fd = esp_store_fd (b->store);

  unlinkat (fd, NEW_FILE, 0);   /* of a rebuild that was interrupted */
  remove_logs (fd, NEW_FILE);
  b->catalog = esp_catalog_open_file (esp_store_path (b->store), NEW_FILE,
                                      true);
  if (!b->catalog || fill (b) == -1)
    return -1;
  /* Closing moves the log's content into the file. */
  esp_catalog_close (ESP_STEAL (b->catalog));
  remove_logs (fd, NEW_FILE);
  return put_in_place (fd);
}

int
rebuild_catalog (struct esp_store *store, esp_finding_fn fn, void *arg,
                 unsigned *rps, unsigned *venues)
{
  __attribute__ ((cleanup (rebuild_clear))) struct rebuild b = {
    .store = store, .fn = fn, .arg = arg,
  };
  int r;

  if (esp_lock (store->lock_fd, true) == -1) {
    errno = EBUSY;
    esp_error ("%s is in use: stop its servers and other espalier commands,"
               " then rebuild", store->path);
    return -1;
  }
  r = write_new (&b);
  /* Nobody can be in the way of a lock that becomes a weaker one. */
  esp_lock (store->lock_fd, false);
  if (rps)
    *rps = b.rps;
  if (venues)
    *venues = b.venues;
  return r;
}

int
esp_store_rebuild (const char *path, esp_finding_fn fn, void *arg,
                   unsigned *rps, unsigned *venues)
{
  struct esp_store *store = esp_store_open_damaged (path);
  int r, saved;

  if (!store)
    return -1;
  r = store_mend_document (store);
  if (r == 0)
    r = rebuild_catalog (store, fn, arg, rps, venues);
  saved = errno;
  esp_store_close (store);
  errno = saved;
  return r;
}
