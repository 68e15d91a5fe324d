/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside store/site.h: the documents, and what check and rebuild need. */

#ifndef ESPALIER_SITE_INTERNAL_H
#define ESPALIER_SITE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <jansson.h>

#include "store/site.h"

/* MIN to MAX bytes of UTF-8 without control characters. */
extern bool site_text_ok (const char *s, size_t min, size_t max);

/* --- venue-boot.c ------------------------------------------------------- */
/* The object `boot` of a venue's document, and the reader of the document
 * DOC of venue ID, which has it or not; false: a field is wrong.
 */
extern json_t *venue_boot_json (const struct esp_venue_boot *boot);
extern bool venue_boot_read (json_t *doc, const char *id,
                             struct esp_venue_boot *out);

/* --- site-doc.c --------------------------------------------------------- */
/* The documents at the store's top.  Read: ENOENT is not reported; OUT is an
 * empty list then, too.
 */
#define SITE_CLIENTS "clients"
#define SITE_NEEDS "needs"
extern int site_read_clients (struct esp_store *store,
                              struct esp_client_list *out);
extern int site_read_needs (struct esp_store *store,
                            struct esp_need_list *out);
extern int site_write_clients (struct esp_store *store,
                               const struct esp_client_list *list);
extern int site_write_needs (struct esp_store *store,
                             const struct esp_need_list *list);
/* What is wrong with it, in words; NULL: nothing. */
extern const char *site_client_fault (const struct esp_client *x);
extern const char *site_need_fault (const struct esp_need *x);

/* --- site.c ------------------------------------------------------------- */
/* Within a transaction: who is assigned to venue ID gets none.  EBUSY,
 * reported, where there are any and not FORCE.
 */
extern int site_release_venue (struct esp_store *store, const char *id,
                               bool force);

/* --- chap.c ------------------------------------------------------------- */
/* Is there a secret of client KEY?  1, 0, or -1: nobody may look. */
extern int chap_exists (struct esp_store *store, const char *key);
/* Within a transaction: remove it, if it is there. */
extern int chap_remove (struct esp_store *store, const char *key);

#endif /* ESPALIER_SITE_INTERNAL_H */
