/* SPDX-License-Identifier: BSD-3-Clause */
/* The document `espalier`, which makes a directory a store: written last
 * when a store is made, never changed, and locked by all who have the store
 * open.  It says nothing that could be lost: when it is damaged or missing,
 * a repair writes it anew.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "store/internal.h"
#include "util/cleanup.h"
#include "util/doc.h"
#include "util/host.h"
#include "util/lock.h"

int
store_write_document (int fd)
{
  json_t *doc = json_pack ("{s:I, s:s}", "created", (json_int_t) time (NULL),
                           "created_by", esp_version ());
  int r;

  if (!doc) {
    errno = ENOMEM;
    esp_error ("json_pack: %m");
    return -1;
  }
  r = esp_doc_save (fd, STORE_DOCUMENT, ESP_STORE_KIND, ESP_STORE_VERSION,
                    doc, 0644);
  json_decref (doc);
  return r;
}

static int
report_document (const struct esp_store *store, const char *why, bool mendable)
{
  int saved = errno;

  if (mendable)
    esp_error ("%s: %s: 'espalier --store %s store check --repair' writes it"
               " anew", store->path, why, store->path);
  else if (saved == ENOENT)
    esp_error ("%s is not a store: make one with 'espalier --store %s init'",
               store->path, store->path);
  else
    esp_error ("%s: %s", store->path, why);
  errno = saved;
  return -1;
}

int
store_check_document (struct esp_store *store, bool damaged)
{
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  json_t *doc = esp_doc_load (store->fd, STORE_DOCUMENT, ESP_STORE_KIND,
                              ESP_STORE_VERSION);

  esp_catch_end (outer);
  if (doc) {
    json_decref (doc);
    return 0;
  }
  bool lost = errno == ENOENT &&
    faccessat (store->fd, store_dir_names[STORE_RPS], F_OK, 0) == 0;
  if (lost) {
    errno = ENOENT;
    snprintf (why, sizeof why, "its file '%s' is missing", STORE_DOCUMENT);
  }
  store->document_bad = lost || errno == EBADMSG;
  if (damaged && store->document_bad)
    return 0;
  return report_document (store, why, store->document_bad);
}

int
store_lock_document (struct esp_store *store)
{
  store->lock_fd = openat (store->fd, STORE_DOCUMENT,
                           O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  /* Without it only those who repair come here: as init, they lock the
   * directory.
   */
  if (store->lock_fd == -1 && errno == ENOENT && store->document_bad)
    store->lock_fd = openat (store->fd, ".",
                             O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (store->lock_fd == -1) {
    esp_error ("open: %s/%s: %m", store->path, STORE_DOCUMENT);
    return -1;
  }
  if (esp_lock (store->lock_fd, false) == 0)
    return 0;
  if (errno == EWOULDBLOCK) {
    errno = EBUSY;
    esp_error ("%s: 'espalier store rebuild' is running: try again when it"
               " is done", store->path);
  }
  else
    esp_error ("flock: %s/%s: %m", store->path, STORE_DOCUMENT);
  return -1;
}

int
store_mend_document (struct esp_store *store)
{
  if (!store->document_bad)
    return 0;
  if (esp_lock (store->lock_fd, true) == -1) {
    errno = EBUSY;
    esp_error ("%s is in use: stop its servers and other espalier commands,"
               " then repair", store->path);
    return -1;
  }
  if (store_write_document (store->fd) == -1)
    return -1;
  /* The lock was on the file that went. */
  esp_cleanup_close (&store->lock_fd);
  store->document_bad = false;
  return store_lock_document (store);
}
