/* SPDX-License-Identifier: BSD-3-Clause */
/* The store as a whole: making one, opening it, its directories.
 *
 * A directory is a store when it has the document `espalier`, which is
 * written last when a store is made and never changed.  Whoever opens the
 * store with its catalog keeps a shared lock on that document; replacing
 * catalog.db needs it exclusively, since SQLite's processes would go on with
 * the old file and the new one's log.
 *
 * An open store is one object for each directory (by device and inode, so
 * whatever the path) and process: nbdkit's modules share its catalog
 * connection.  One that is opened as damaged has no catalog and is the
 * caller's own.
 *
 * Restore points, overlays and tmp hold what is on people's disks: their
 * directories are for the owner and the group only (0750), keys/ for the
 * owner.  Venues and the catalog are names and numbers (0755).
 *
 * Lock order: the registry's mutex, then a catalog's.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

const char *const store_dir_names[STORE_DIRS] = {
  [STORE_RPS] = "restore-points",
  [STORE_VENUES] = "venues",
  [STORE_OVERLAYS] = "overlays",
  [STORE_TMP] = "tmp",
  [STORE_KEYS] = "keys",
  [STORE_RUN] = "run",
};

static const mode_t dir_modes[STORE_DIRS] = {
  [STORE_RPS] = 0750, [STORE_VENUES] = 0755, [STORE_OVERLAYS] = 0750,
  [STORE_TMP] = 0750, [STORE_KEYS] = 0700, [STORE_RUN] = 0755,
};

/* --- where it is ------------------------------------------------------- */

static char *
below_home (void)
{
  const char *xdg = getenv ("XDG_DATA_HOME"), *home = getenv ("HOME");

  /* A relative one is to be ignored, says the specification of XDG. */
  if (xdg && xdg[0] == '/')
    return esp_asprintf ("%s/espalier", xdg);
  if (home && home[0] == '/')
    return esp_asprintf ("%s/.local/share/espalier", home);
  errno = EINVAL;
  return NULL;
}

static char *
absolute (const char *path)
{
  if (path[0] == '/')
    return strdup (path);
  CLEANUP_FREE char *cwd = getcwd (NULL, 0);
  return cwd ? esp_asprintf ("%s/%s", cwd, path) : NULL;
}

char *
esp_store_default_path (const char *option)
{
  const char *path = option ? option : getenv ("ESPALIER_STORE");
  char *r;

  if (option && !option[0]) {
    errno = EINVAL;
    esp_error ("the store's path is empty: give the directory of a store");
    return NULL;
  }
  if (path && path[0])
    r = absolute (path);
  else if (geteuid () == 0)
    r = strdup ("/var/lib/espalier");
  else
    r = below_home ();
  if (!r)
    esp_error ("cannot tell where the store is (%s): give --store DIR or set"
               " ESPALIER_STORE", errno == EINVAL ? "HOME is not set"
               : strerror (errno));
  return r;
}

/* --- making ------------------------------------------------------------ */

/* Make PATH and its parents, as mkdir -p does. */
static int
make_path (const char *path)
{
  CLEANUP_FREE char *p = strdup (path);
  struct stat st;

  if (!p)
    return -1;
  for (char *s = p + strspn (p, "/"); *s; ) {
    s += strcspn (s, "/");
    char end = *s;
    *s = 0;
    if (mkdir (p, 0755) == -1 && errno != EEXIST &&
        (stat (p, &st) == -1 || !S_ISDIR (st.st_mode)))
      return -1;
    *s = end;
    s += strspn (s, "/");
  }
  return 0;
}

/* A fresh file system has this; it does not make a directory a used one. */
static int
not_empty (void *arg, int dirfd, const char *name)
{
  (void) arg;
  (void) dirfd;
  return strcmp (name, "lost+found") != 0;
}

static int
check_vacant (int fd, const char *path)
{
  struct stat st;
  int r;

  if (fstatat (fd, STORE_DOCUMENT, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    errno = EEXIST;
    esp_error ("%s is a store already", path);
    return -1;
  }
  r = esp_each_entry (fd, not_empty, NULL);
  if (r == 1) {
    errno = EEXIST;
    esp_error ("%s is not empty: a store needs a directory of its own", path);
  }
  return r == 0 ? 0 : -1;
}

static int
make_contents (int fd, const char *path)
{
  for (int i = 0; i < STORE_DIRS; ++i)
    if (mkdirat (fd, store_dir_names[i], dir_modes[i]) == -1) {
      esp_error ("mkdir: %s/%s: %m", path, store_dir_names[i]);
      return -1;
    }
  struct esp_catalog *catalog = esp_catalog_open (path, true);
  if (!catalog)
    return -1;
  esp_catalog_close (catalog);
  return store_write_document (fd);
}

/* Take away what an init that failed has made in an empty directory. */
static void
unmake_contents (int fd)
{
  static const char *const files[] = {
    ESP_CATALOG_FILE, ESP_CATALOG_FILE "-wal", ESP_CATALOG_FILE "-shm",
  };
  int saved = errno;

  /* Errors are ignored: the failure is reported, this is only tidiness. */
  for (size_t i = 0; i < sizeof files / sizeof files[0]; ++i)
    unlinkat (fd, files[i], 0);
  for (int i = 0; i < STORE_DIRS; ++i)
    unlinkat (fd, store_dir_names[i], AT_REMOVEDIR);
  errno = saved;
}

static int
init_dir (int fd, const char *path)
{
  /* The lock on the directory keeps a second init away. */
  if (esp_lock (fd, true) == -1) {
    esp_error ("%s: another process is making a store there", path);
    return -1;
  }
  if (check_vacant (fd, path) == -1)
    return -1;
  if (make_contents (fd, path) == -1) {
    unmake_contents (fd);
    return -1;
  }
  return 0;
}

int
esp_store_init (const char *path)
{
  CLEANUP_CLOSE int fd = -1;

  if (make_path (path) == -1) {
    esp_error ("mkdir: %s: %m", path);
    return -1;
  }
  fd = open (path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd == -1) {
    esp_error ("open: %s: %m", path);
    return -1;
  }
  return init_dir (fd, path);
}

/* --- opening ----------------------------------------------------------- */

static void
store_free (struct esp_store *store)
{
  int saved = errno;

  esp_catalog_close (store->catalog);
  for (int i = 0; i < STORE_DIRS; ++i)
    esp_cleanup_close (&store->dirs[i]);
  esp_cleanup_close (&store->lock_fd);
  esp_cleanup_close (&store->fd);
  free (store->path);
  free (store);
  errno = saved;
}

static struct esp_store *
store_new (const char *path)
{
  struct esp_store *store = calloc (1, sizeof *store);

  if (!store || !(store->path = absolute (path))) {
    esp_error ("malloc: %m");
    free (store);
    return NULL;
  }
  store->fd = store->lock_fd = -1;
  for (int i = 0; i < STORE_DIRS; ++i)
    store->dirs[i] = -1;
  return store;
}

static int
open_top (struct esp_store *store)
{
  struct stat st;

  store->fd = open (store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (store->fd == -1 && errno == ENOENT)
    esp_error ("there is no store at %s: make one with 'espalier --store %s"
               " init', or name another with --store (store= for nbdkit)",
               store->path, store->path);
  else if (store->fd == -1 && errno == EACCES)
    esp_error ("open: %s: %m: run this as the user who owns the store",
               store->path);
  else if (store->fd == -1)
    esp_error ("open: %s: %m", store->path);
  if (store->fd == -1)
    return -1;
  if (fstat (store->fd, &st) == -1) {
    esp_error ("fstat: %s: %m", store->path);
    return -1;
  }
  store->dev = st.st_dev;
  store->ino = st.st_ino;
  store->readonly = faccessat (store->fd, ".", W_OK, AT_EACCESS) == -1;
  return 0;
}

static int
open_dirs (struct esp_store *store)
{
  for (int i = 0; i < STORE_DIRS; ++i) {
    /* Copying a store may lose empty directories: they are made again. */
    store->dirs[i] = store->readonly
      ? esp_open_dir (store->fd, store_dir_names[i])
      : esp_make_dir (store->fd, store_dir_names[i], dir_modes[i]);
    /* Keys are their owner's; nobody else needs to open them. */
    if (store->dirs[i] == -1 && !(i == STORE_KEYS && errno == EACCES)) {
      esp_error ("open: %s/%s: %m%s", store->path, store_dir_names[i],
                 errno == EACCES ? ": run this as the user who owns the store"
                 : "");
      return -1;
    }
  }
  return 0;
}

/* All but the catalog. */
static struct esp_store *
open_files (const char *path, bool damaged)
{
  struct esp_store *store = store_new (path);

  if (!store)
    return NULL;
  if (open_top (store) == -1 || store_check_document (store, damaged) == -1 ||
      open_dirs (store) == -1 || store_lock_document (store) == -1) {
    store_free (store);
    return NULL;
  }
  return store;
}

int
store_open_catalog (struct esp_store *store)
{
  store->catalog = esp_catalog_open (store->path, false);
  if (!store->catalog)
    return -1;
  if (esp_catalog_readonly (store->catalog))
    store->readonly = true;
  return 0;
}

/* Stores of this process that are open, and the lock of the list and of
 * each store's count.
 */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_store *registry;

static struct esp_store *
registered_locked (const char *path)
{
  struct esp_store *s;
  struct stat st;

  if (stat (path, &st) == -1)
    return NULL;                /* open_top says why */
  for (s = registry; s; s = s->next)
    if (s->dev == st.st_dev && s->ino == st.st_ino)
      break;
  return s;
}

struct esp_store *
esp_store_open (const char *path)
{
  ESP_LOCK_SCOPE (&registry_lock);
  struct esp_store *store = registered_locked (path);

  if (!store) {
    if (!(store = open_files (path, false)))
      return NULL;
    if (store_open_catalog (store) == -1) {
      store_free (store);
      return NULL;
    }
    store->next = registry;
    registry = store;
    store_finish_clones (store);
  }
  store->refs++;
  return store;
}

struct esp_store *
esp_store_open_damaged (const char *path)
{
  struct esp_store *store = open_files (path, true);

  if (store)
    store->refs = 1;
  return store;
}

void
esp_store_close (struct esp_store *store)
{
  if (!store)
    return;
  ESP_LOCK_SCOPE (&registry_lock);
  if (--store->refs)
    return;
  /* One that was opened as damaged is not in the list. */
  for (struct esp_store **p = &registry; *p; p = &(*p)->next)
    if (*p == store) {
      *p = store->next;
      break;
    }
  store_free (store);
}

/* --- its parts --------------------------------------------------------- */

const char *
esp_store_path (const struct esp_store *store)
{
  return store->path;
}

bool
esp_store_readonly (const struct esp_store *store)
{
  return store->readonly;
}

struct esp_catalog *
esp_store_catalog (struct esp_store *store)
{
  return store->catalog;
}

int
esp_store_fd (const struct esp_store *store)
{
  return store->fd;
}

int
esp_store_rps_fd (const struct esp_store *store)
{
  return store->dirs[STORE_RPS];
}

int
esp_store_overlays_fd (const struct esp_store *store)
{
  return store->dirs[STORE_OVERLAYS];
}

int
esp_store_venues_fd (const struct esp_store *store)
{
  return store->dirs[STORE_VENUES];
}

int
esp_store_tmp_fd (const struct esp_store *store)
{
  return store->dirs[STORE_TMP];
}

int
esp_store_rp_dir (const struct esp_store *store, const esp_uuid *uuid)
{
  char text[ESP_UUID_TEXT];

  return esp_open_dir (store->dirs[STORE_RPS], esp_uuid_text (uuid, text));
}
