/* SPDX-License-Identifier: BSD-3-Clause */
/* What a site says of its clients and needs, and of booting from venues.
 * Each change writes the document (`clients`, `needs`, or the venue's, version
 * 2) and the catalog in one transaction, like store/venue.h; a rebuild reads
 * the documents, `store check` compares them.
 */

#ifndef ESPALIER_SITE_H
#define ESPALIER_SITE_H

#include "store/store.h"

#pragma GCC visibility push(default)

#define ESP_CLIENTS_KIND "clients"
#define ESP_CLIENTS_VERSION 1
#define ESP_NEEDS_KIND "needs"
#define ESP_NEEDS_VERSION 1
#define ESP_CLIENTS_MAX 20000u
#define ESP_NEEDS_MAX 1000u

/* The entry's key is canonical (esp_client_key_parse), its kind is found from
 * that; CREATED and CHANGED are set here.  _add: EEXIST where the key is taken;
 * _set replaces an entry, ENOENT.  A venue that is not there, a name that is
 * no client's, or that another machine has by its MAC address, UUID or
 * address: reported, nothing changed.
 */
extern int esp_site_client_add (struct esp_store *store,
                                const struct esp_client *client);
extern int esp_site_client_set (struct esp_store *store,
                                const struct esp_client *client);
/* And its secret. */
extern int esp_site_client_delete (struct esp_store *store, const char *key);

/* The CHAP secret of client KEY: keys/chap/KEY (0600; KEY as
 * esp_path_component writes it).  12 to 256 characters of ASCII (RFC 7143: 96
 * bits at least) without blanks; NULL removes it.  _set: ENOENT where there
 * is no such client.  _get: malloced (the caller wipes it); ENOENT where there
 * is none, reported.
 */
extern int esp_site_chap_set (struct esp_store *store, const char *key,
                              const char *secret);
/* Can that be a secret of client KEY?  EINVAL, reported. */
extern int esp_site_chap_check (const char *key, const char *secret);
extern char *esp_site_chap_get (struct esp_store *store, const char *key);

/* A name is taken: EEXIST, there is none: ENOENT, and what is wrong with one:
 * EINVAL, reported.
 */
extern int esp_site_need_add (struct esp_store *store,
                              const struct esp_need *need);
extern int esp_site_need_set (struct esp_store *store,
                              const struct esp_need *need);
extern int esp_site_need_delete (struct esp_store *store, const char *name);

/* Replace the settings of venue boot->id: every field checked (kernel and
 * initrd: absolute file or "image:" path; networks; weight).
 */
extern int esp_site_venue_boot_set (struct esp_store *store,
                                    const struct esp_venue_boot *boot);

/* The documents' parsers, of a text in memory (for fuzzing): each field
 * checked, no key or name twice; EBADMSG, ENOTSUP, reported.
 */
extern int esp_site_parse_clients (const char *buf, size_t len,
                                   struct esp_client_list *out);
extern int esp_site_parse_needs (const char *buf, size_t len,
                                 struct esp_need_list *out);
/* And their writers: esp_doc_format's. */
extern char *esp_site_format_clients (const struct esp_client_list *list,
                                      size_t *len);
extern char *esp_site_format_needs (const struct esp_need_list *list,
                                    size_t *len);

#pragma GCC visibility pop
#endif /* ESPALIER_SITE_H */
