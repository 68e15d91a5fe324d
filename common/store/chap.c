/* SPDX-License-Identifier: BSD-3-Clause */
/* Secrets of CHAP: keys/chap/KEY, the secret and a line feed, 0600.
 *
 * They are in no document and not in the catalog, which others may read; what
 * held one is wiped.  A secret that is missing lets nobody in.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "center/keyfile.h"
#include "store/internal.h"
#include "store/site-internal.h"
#include "util/file.h"
#include "util/host.h"

#define CHAP_DIR "chap"
#define SECRET_MIN 12
#define SECRET_MAX 256

/* keys/chap/, made where CREATE; -1, ENOENT not reported.  The caller closes
 * it.
 */
static int
chap_fd (struct esp_store *store, bool create)
{
  int keys = keys_fd (store), fd;

  if (keys == -1)
    return -1;
  fd = create ? esp_make_dir (keys, CHAP_DIR, 0700)
    : esp_open_dir (keys, CHAP_DIR);
  if (fd == -1 && (create || errno != ENOENT))
    esp_error ("open: %s/keys/" CHAP_DIR ": %m", store->path);
  return fd;
}

int
esp_site_chap_check (const char *key, const char *s)
{
  size_t n = strlen (s);
  bool bad = n < SECRET_MIN || n > SECRET_MAX;

  for (size_t i = 0; i < n; ++i)
    bad |= s[i] <= ' ' || s[i] > '~';
  if (!bad)
    return 0;
  errno = EINVAL;
  esp_error ("client %s: a secret of CHAP has 12 to 256 characters of ASCII,"
             " without blanks", key);
  return -1;
}

static int
remove_secret (struct esp_store *store, const char *key, const char *entry)
{
  CLEANUP_CLOSE int dir = chap_fd (store, false);

  if (dir == -1)
    return errno == ENOENT ? 0 : -1;
  if (unlinkat (dir, entry, 0) == 0 ? esp_sync_dir (dir) == 0
      : errno == ENOENT)
    return 0;
  esp_error ("unlink: the CHAP secret of client %s: %m", key);
  return -1;
}

static int
write_secret (struct esp_store *store, const char *key, const char *entry,
              const char *secret)
{
  char text[SECRET_MAX + 2];
  CLEANUP_CLOSE int dir = -1;
  int r;

  if (esp_site_chap_check (key, secret) == -1 ||
      (dir = chap_fd (store, true)) == -1)
    return -1;
  r = snprintf (text, sizeof text, "%s\n", secret);
  /* A file that is replaced keeps its mode, which somebody may have changed;
   * mostly there is none.
   */
  fchmodat (dir, entry, 0600, 0);
  r = esp_write_file_atomic (dir, entry, text, (size_t) r, 0600);
  explicit_bzero (text, sizeof text);
  return r;
}

int
chap_remove (struct esp_store *store, const char *key)
{
  CLEANUP_FREE char *entry = esp_path_component (key);

  if (entry)
    return remove_secret (store, key, entry);
  esp_error ("malloc: %m");
  return -1;
}

/* The transaction changes nothing; it keeps others away, and gc. */
int
esp_site_chap_set (struct esp_store *store, const char *key,
                   const char *secret)
{
  CLEANUP_FREE char *entry = esp_path_component (key);
  CLEANUP_CLIENT struct esp_client client = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (!entry) {
    esp_error ("malloc: %m");
    return -1;
  }
  if (esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (!secret)
    return remove_secret (store, key, entry);
  if (esp_catalog_client_get (store->catalog, key, &client) == -1)
    return -1;
  return write_secret (store, key, entry, secret);
}

static char *
read_secret (int dir, const char *entry, const char *shown)
{
  char text[KEYFILE_MAX], *r;
  ssize_t n = keyfile_read (dir, entry, KEYFILE_SECRET, shown, text);

  if (n == -1)
    return NULL;
  if (n > 0 && text[n - 1] == '\n')
    text[n - 1] = 0;
  r = esp_site_chap_check (shown, text) == 0 ? strdup (text) : NULL;
  explicit_bzero (text, sizeof text);
  return r;
}

char *
esp_site_chap_get (struct esp_store *store, const char *key)
{
  CLEANUP_FREE char *entry = esp_path_component (key);
  CLEANUP_CLOSE int dir = chap_fd (store, false);
  CLEANUP_FREE char *shown = NULL;
  char *r;

  if (!entry || (dir == -1 && errno != ENOENT))
    return NULL;
  shown = esp_asprintf ("%s/keys/" CHAP_DIR "/%s", store->path, entry);
  if (!shown)
    return NULL;
  if (dir >= 0 && (r = read_secret (dir, entry, shown)))
    return r;
  if (dir == -1 || errno == ENOENT) {
    errno = ENOENT;
    esp_error ("client %s has no CHAP secret: give it one with 'espalier"
               " client set %s --chap-secret FILE'", key, key);
  }
  return NULL;
}

int
chap_exists (struct esp_store *store, const char *key)
{
  CLEANUP_FREE char *entry = esp_path_component (key);
  CLEANUP_CLOSE int dir = -1;

  if (store->dirs[STORE_KEYS] == -1 || !entry)
    return -1;
  dir = esp_open_dir (store->dirs[STORE_KEYS], CHAP_DIR);
  if (dir == -1)
    return errno == ENOENT ? 0 : -1;
  if (faccessat (dir, entry, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
    return 1;
  return errno == ENOENT ? 0 : -1;
}
