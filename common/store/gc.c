/* SPDX-License-Identifier: BSD-3-Clause */
/* store gc: what interrupted work left behind.
 *
 * Nothing that somebody works on is touched: whoever works in tmp/ holds a
 * flock there, files beside a document are written under the catalog's
 * transaction (or the restore point's lock), and overlays have a lock of
 * their own.  It does not judge: what is damaged is for `store check`.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "boot/ticket.h"
#include "overlay/admin.h"
#include "store/check-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

struct gc {
  struct esp_store *store;
  bool dry_run;
  void (*fn) (void *arg, const char *what, uint64_t bytes);
  void *arg;
  uint64_t freed;
  unsigned removed;
  const char *below;            /* for messages: where we are */
};

static void
count (struct gc *g, const char *what, uint64_t bytes)
{
  g->freed += bytes;
  g->removed++;
  if (g->fn)
    g->fn (g->arg, what, bytes);
}

static int
remove_entry (struct gc *g, int dirfd, const char *name)
{
  uint64_t bytes = tree_usage (dirfd, name);
  char what[600], shown[300];

  if (!g->dry_run && esp_remove_tree (dirfd, name) == -1)
    return -1;
  snprintf (what, sizeof what, "%s/%s", g->below,
            esp_escape (name, shown, sizeof shown));
  count (g, what, bytes);
  return 0;
}

/* --- tmp/ ---------------------------------------------------------------- */

static int
gc_tmp (void *arg, int dirfd, const char *name)
{
  CLEANUP_CLOSE int fd = -1;

  /* Clones that could not be finished when the store was opened. */
  if (strncmp (name, STORE_CLONE_PREFIX, strlen (STORE_CLONE_PREFIX)) == 0)
    return 0;
  return tmp_is_leftover (dirfd, name, &fd)
    ? remove_entry (arg, dirfd, name) : 0;
}

/* --- files that were being written --------------------------------------- */

/* ".HEX.new" (a document), "map.new", "chain.new". */
static bool
is_unfinished (const char *name)
{
  size_t n = strlen (name);

  return strcmp (name, "map.new") == 0 || strcmp (name, "map.new.new") == 0 ||
    strcmp (name, "chain.new") == 0 ||
    (name[0] == '.' && n > 5 && strcmp (name + n - 4, ".new") == 0);
}

static int
gc_unfinished (void *arg, int dirfd, const char *name)
{
  return is_unfinished (name) ? remove_entry (arg, dirfd, name) : 0;
}

static int
gc_rp (void *arg, int dirfd, const char *name)
{
  struct gc *g = arg;
  CLEANUP_CLOSE int fd = esp_open_dir (dirfd, name);
  char below[300];
  int r;

  if (fd == -1 || esp_lock (fd, true) == -1)
    return 0;                   /* in use: another time */
  snprintf (below, sizeof below, "restore-points/%.255s", name);
  g->below = below;
  r = esp_each_entry (fd, gc_unfinished, g);
  g->below = NULL;
  return r;
}

/* What lies in keys/ may not be ours to look at. */
static int
gc_secrets (struct gc *g)
{
  CLEANUP_CLOSE int fd = g->store->dirs[STORE_KEYS] == -1 ? -1
    : esp_open_dir (g->store->dirs[STORE_KEYS], "chap");

  g->below = "keys/chap";
  return fd == -1 ? 0 : esp_each_entry (fd, gc_unfinished, g);
}

static int
gc_documents (struct gc *g)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  int r;

  if (esp_catalog_begin (esp_store_catalog (g->store)) == -1)
    return -1;
  tx = esp_store_catalog (g->store);
  g->below = "venues";
  r = esp_each_entry (esp_store_venues_fd (g->store), gc_unfinished, g);
  g->below = ".";               /* clients, needs */
  if (r == 0)
    r = esp_each_entry (esp_store_fd (g->store), gc_unfinished, g);
  if (r == 0)
    r = gc_secrets (g);
  if (r == 0)
    r = esp_each_entry (esp_store_rps_fd (g->store), gc_rp, g);
  return r;
}

/* --- overlays ------------------------------------------------------------ */

static int
gc_overlay (struct gc *g, const struct esp_overlay_info *o)
{
  CLEANUP_FREE char *venue = esp_path_component (o->venue);
  CLEANUP_FREE char *disk = esp_path_component (o->disk);
  CLEANUP_FREE char *client = esp_path_component (o->client);
  const struct esp_overlay_id id = { venue, disk, client };
  char what[600];
  int r;

  if (!venue || !disk || !client) {
    esp_error ("malloc: %m");
    return -1;
  }
  if (o->held || o->damage)
    return 0;
  r = esp_overlay_expire (esp_store_overlays_fd (g->store), &id,
                          g->dry_run);
  if (r != 1)
    return r;
  snprintf (what, sizeof what, "overlay %.128s/%.10s@%.300s", o->venue,
            o->disk, o->client);
  count (g, what, o->used);
  return 0;
}

static int
any (void *arg, int dirfd, const char *name)
{
  (void) arg;
  (void) dirfd;
  (void) name;
  return 1;
}

/* Remove NAME where it is an empty directory; whoever makes an overlay
 * there just now makes the directory again.
 */
static int
gc_empty (struct gc *g, int dirfd, const char *name)
{
  CLEANUP_CLOSE int fd = esp_open_dir (dirfd, name);
  char what[300];

  if (fd == -1 || esp_each_entry (fd, any, NULL) != 0 ||
      (!g->dry_run && unlinkat (dirfd, name, AT_REMOVEDIR) == -1))
    return 0;
  snprintf (what, sizeof what, "empty directory overlays/.../%.200s", name);
  count (g, what, 0);
  return 0;
}

static int
gc_client (void *arg, int dirfd, const char *name)
{
  return gc_empty (arg, dirfd, name);
}

static int
gc_disk (void *arg, int dirfd, const char *name)
{
  CLEANUP_CLOSE int fd = esp_open_dir (dirfd, name);

  if (fd == -1)
    return 0;
  if (esp_each_entry (fd, gc_client, arg) == -1)
    return -1;
  return gc_empty (arg, dirfd, name);
}

static int
gc_venue (void *arg, int dirfd, const char *name)
{
  CLEANUP_CLOSE int fd = esp_open_dir (dirfd, name);

  if (fd == -1)
    return 0;
  if (esp_each_entry (fd, gc_disk, arg) == -1)
    return -1;
  return gc_empty (arg, dirfd, name);
}

static int
gc_overlays (struct gc *g)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };
  int fd = esp_store_overlays_fd (g->store);

  if (esp_overlay_list_all (fd, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; ++i)
    if (gc_overlay (g, &list.o[i]) == -1)
      return -1;
  return esp_each_entry (fd, gc_venue, g);
}

/* --- tickets ------------------------------------------------------------- */

static void
count_ticket (void *arg, const char *name, uint64_t bytes)
{
  char what[600], shown[300];

  snprintf (what, sizeof what, "run/tickets/%s",
            esp_escape (name, shown, sizeof shown));
  count (arg, what, bytes);
}

int
esp_store_gc (struct esp_store *store, bool dry_run,
              void (*fn) (void *arg, const char *what, uint64_t bytes),
              void *arg, uint64_t *freed, unsigned *removed)
{
  struct gc g = { .store = store, .dry_run = dry_run, .fn = fn, .arg = arg };

  if (esp_rp_writable (store) == -1)
    return -1;
  g.below = "tmp";
  if (esp_each_entry (esp_store_tmp_fd (store), gc_tmp, &g) == -1 ||
      gc_documents (&g) == -1 || gc_overlays (&g) == -1 ||
      esp_ticket_gc (store, (uint64_t) time (NULL), dry_run, count_ticket,
                     &g) == -1)
    return -1;
  if (freed)
    *freed = g.freed;
  if (removed)
    *removed = g.removed;
  return 0;
}
