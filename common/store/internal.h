/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside the store: what an open one consists of. */

#ifndef ESPALIER_STORE_INTERNAL_H
#define ESPALIER_STORE_INTERNAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "store/store.h"

/* The directories of a store, by number. */
enum store_dir {
  STORE_RPS, STORE_VENUES, STORE_OVERLAYS, STORE_TMP, STORE_KEYS, STORE_RUN,
  STORE_DIRS
};
extern const char *const store_dir_names[STORE_DIRS];

struct esp_store {
  char *path;
  int fd;
  /* The document `espalier`, locked (shared) while the store is open with
   * its catalog, so that nobody puts another catalog.db in its place; a
   * rebuild locks it exclusively.
   */
  int lock_fd;
  int dirs[STORE_DIRS];
  bool readonly;
  bool document_bad;            /* damaged or missing: opened as damaged */
  struct esp_catalog *catalog;  /* NULL: opened as damaged */

  /* Below: protected by the registry's lock (store.c). */
  struct esp_store *next;
  dev_t dev;
  ino_t ino;
  unsigned refs;
};

/* The document that makes a directory a store; FD is the store's. */
#define STORE_DOCUMENT "espalier"
extern int store_write_document (int fd);
/* Is it there, sound, and of a version that we know?  One that is damaged,
 * or is missing where everything else is there, is for check to find, for
 * which alone DAMAGED is set.
 */
extern int store_check_document (struct esp_store *store, bool damaged);
extern int store_lock_document (struct esp_store *store);
/* Write the store's document anew if it was found bad; else nothing.  EBUSY:
 * somebody has the store open.
 */
extern int store_mend_document (struct esp_store *store);

/* What `venue clone` had begun when it was killed (clone.c): finish it.  The
 * note of its names in tmp/ begins with STORE_CLONE_PREFIX.  Never fails;
 * what cannot be done now is a warning.
 */
#define STORE_CLONE_PREFIX "clone-"
extern void store_finish_clones (struct esp_store *store);

/* Open the catalog of a store that was opened as damaged. */
extern int store_open_catalog (struct esp_store *store);

/* Is NAME in tmp/ something that nobody works on?  Then *FD (-1 for a file;
 * the caller closes it) holds its lock.
 */
extern bool tmp_is_leftover (int tmp_fd, const char *name, int *fd);

/* All that a venue's document says: whoever writes one has read one, so that
 * nothing is lost.  All zero bytes are allowed.
 */
struct venue_doc {
  struct esp_venue venue;
  struct esp_venue_log log;
  struct esp_venue_boot boot;
};
extern void venue_doc_clear (struct venue_doc *doc);
#define CLEANUP_VENUE_DOC __attribute__ ((cleanup (venue_doc_clear)))

/* A venue's document, as esp_venue_load, but ENOENT is not reported; and
 * writing it.
 */
extern int venue_read (struct esp_store *store, const char *id,
                       struct venue_doc *out);
extern int venue_write (struct esp_store *store, const struct venue_doc *doc);
/* The same, for a change: a document that is missing is reported, too. */
extern int venue_read_to_change (struct esp_store *store, const char *id,
                                 struct venue_doc *out);
/* Within a transaction: make the catalog's rows what the document says. */
extern int venue_copy_to_catalog (struct esp_catalog *catalog,
                                  const struct venue_doc *doc);

/* STORE/damaged/, made if it is not there: a descriptor that the caller
 * closes.
 */
extern int store_damaged_dir (struct esp_store *store);
#define STORE_DAMAGED "damaged"

#endif /* ESPALIER_STORE_INTERNAL_H */
