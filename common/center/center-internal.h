/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files that implement center/center.h share.  Not for others. */

#ifndef ESPALIER_CENTER_CENTER_INTERNAL_H
#define ESPALIER_CENTER_CENTER_INTERNAL_H

#include <jansson.h>

#include "center/center.h"
#include "center/cleanups.h"
#include "store/rp-internal.h"
#include "util/cleanup.h"

#define CENTERS_DIR "centers"

#define CLEANUP_CENTER_CONFIG \
  __attribute__ ((cleanup (esp_center_config_clear)))
#define CLEANUP_CENTER_REFS __attribute__ ((cleanup (esp_center_refs_clear)))

struct esp_center {
  struct esp_store *store;
  struct esp_center_config config;
  struct esp_remote *remote;
  struct esp_trust *trust;      /* NULL: --unsigned */
};

/* Room for "center NAME: OBJECT". */
#define CENTER_WHERE_MAX (ESP_NAME_MAX + ESP_OBJECT_MAX + 64)

/* Report "malloc" with ENOMEM.  Returns -1. */
extern int center_no_memory (void);
/* "center NAME: OBJECT", for messages.  Returns BUF. */
extern const char *center_where (const struct esp_center *center,
                                 const char *object,
                                 char buf[CENTER_WHERE_MAX]);
/* Report that OBJECT is damaged, as WHY says: EBADMSG.  Returns -1. */
extern int center_damaged (const struct esp_center *center,
                           const char *object, const char *why);
/* Something that was there, and must be, is not: reports the ENOENT that a
 * call left unreported; other errors were reported.  Returns -1.
 */
extern int center_missing (const struct esp_center *center,
                           const char *object);
/* "cafe7 (espalier 0.1.0)": who pushes; malloced. */
extern char *center_pushed_by (void);
/* Sleep about MS milliseconds; false when an interrupt came meanwhile. */
extern bool center_pause (unsigned ms);

/* An esp_sink_fn that fills BUF, which has ROOM; more is EPROTO, reported. */
struct center_buffer { uint8_t *buf; size_t len, room; };
extern int center_buffer_sink (void *buffer, const void *bytes, size_t len);
/* Is all of the delayed restore point UUID local?  1, 0, -1. */
extern int center_rp_whole (struct esp_store *store, const esp_uuid *uuid);

/* The remote that C names; only checked, nothing is sent. */
extern struct esp_remote *center_open_remote
  (const struct esp_center_config *c);

/* esp_center_reference, and the digest of its text. */
extern int center_reference (struct esp_center *center, const char *id,
                             struct esp_reference *out,
                             struct esp_object *version, esp_digest *digest);

/* --- config.c ----------------------------------------------------------- */
extern int center_config_delete (struct esp_store *store, const char *name);
/* STORE/centers; ENOENT (not reported) where it is not, unless CREATE. */
extern int center_config_dir (struct esp_store *store, bool create);

/* --- parallel.c --------------------------------------------------------- */
/* Call FN for 0 .. N-1 by several threads; it returns 0, or -1 to end it
 * all.  Returns 0, or -1 with the errno of the first that failed.
 */
extern int center_parallel (size_t n, unsigned threads,
                            int (*fn) (void *arg, size_t i), void *arg);
/* So many threads are worth it for small requests to CENTER. */
extern unsigned center_threads (const struct esp_center *center);
extern unsigned center_cores (void);

/* --- refs.c ------------------------------------------------------------- */
/* The document `refs` alone: summaries, not signed, hints only.  ENOENT is
 * not reported.
 */
extern int center_refs_hint (struct esp_center *center,
                             struct esp_center_refs *out);
/* RPS and the venue ID (NULL: none) get into the document, if they are not
 * in it.
 */
extern int center_refs_add (struct esp_center *center,
                            const struct esp_rp *const *rps, size_t nrps,
                            const char *id);

/* --- known.c: what this store knew last of a center's venues ------------ */
struct known_venue {
  char id[ESP_NAME_MAX + 1];
  esp_digest digest;            /* of the reference's text */
  uint64_t revision;            /* of the store's venue, when it was the same */
};
/* 1, 0 when it is not known, or -1. */
extern int center_known_get (struct esp_store *store, const char *center,
                             const char *id, struct known_venue *out);
extern int center_known_set (struct esp_store *store, const char *center,
                             const struct known_venue *venue);
extern void center_known_forget (struct esp_store *store, const char *center);

/* remove.c: EBUSY, reported, while variants with KEY are the only source of
 * what is not here yet.
 */
extern int center_key_check_unneeded (struct esp_store *store,
                                      const char *key);

#endif /* ESPALIER_CENTER_CENTER_INTERNAL_H */
