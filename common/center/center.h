/* SPDX-License-Identifier: BSD-3-Clause */
/* Image centers: which ones a store knows, and what moves between them.
 *
 * A center is a document STORE/centers/NAME (mode 0600: URLs and paths of
 * credentials are nobody else's business).  What lies there is in
 * center/format.h, how it is reached in center/remote.h.
 *
 * Like git: restore points are objects that never change, venues are
 * references.  Nothing is visible before it is complete: maps, packs and
 * indexes first, then the manifest, parents before children, the venue's
 * reference last.
 */

#ifndef ESPALIER_CENTER_H
#define ESPALIER_CENTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "center/format.h"
#include "center/keys.h"
#include "center/remote.h"
#include "store/store.h"
#include "util/progress.h"

#pragma GCC visibility push(default)

/* --- what is known ---------------------------------------------------- */
struct esp_center_config {
  char name[ESP_NAME_MAX + 1];
  char *url;
  char *ca, *cert, *key, *proxy, *credentials, *profile;  /* NULL: default */
  unsigned connect_timeout, timeout, retries, connections;    /* 0: default */
  bool unsigned_ok;             /* --unsigned */
  uint64_t created;
};
struct esp_center_config_list { struct esp_center_config *c; size_t n; };
extern void esp_center_config_clear (struct esp_center_config *c);
extern void esp_center_config_list_clear (struct esp_center_config_list *l);

/* EEXIST; EINVAL (names, URL, files that are not there): reported. */
extern int esp_center_add (struct esp_store *store,
                           const struct esp_center_config *config);
/* EBUSY, naming them, while restore points that are not all local have no
 * other source, unless FORCE.
 */
extern int esp_center_remove (struct esp_store *store, const char *name,
                              bool force);
extern int esp_center_load (struct esp_store *store, const char *name,
                            struct esp_center_config *out);
extern int esp_center_list (struct esp_store *store,
                            struct esp_center_config_list *out);

/* --- an open center --------------------------------------------------- */
struct esp_center;
extern struct esp_center *esp_center_open (struct esp_store *store,
                                           const char *name);
extern void esp_center_close (struct esp_center *center);
extern const char *esp_center_name (const struct esp_center *center);
extern struct esp_remote *esp_center_remote (struct esp_center *center);
extern struct esp_store *esp_center_store (struct esp_center *center);

/* Names of objects; BUF has ESP_OBJECT_MAX bytes.  WHAT: "manifest", "map",
 * "boot-profile", or a variant's id followed by ".index" or ".pack".
 */
#define ESP_OBJECT_MAX 256
extern const char *esp_center_rp_object (const esp_uuid *uuid,
                                         const char *what, char *buf);

/* ENOENT is not reported.  Signatures are checked as the center says.
 * VERSION may be NULL.
 */
extern int esp_center_manifest (struct esp_center *center,
                                const esp_uuid *uuid,
                                struct esp_manifest *out,
                                struct esp_object *version);
extern int esp_center_reference (struct esp_center *center, const char *id,
                                 struct esp_reference *out,
                                 struct esp_object *version);
extern struct esp_map *esp_center_map (struct esp_center *center,
                                       const struct esp_manifest *m);
extern int esp_center_index (struct esp_center *center,
                             const struct esp_manifest *m,
                             const struct esp_variant *variant,
                             const struct esp_map *map,
                             const char *key_file, struct esp_index *out);

/* --- what is there ---------------------------------------------------- */
/* The document `refs`, or, where the remote can be listed and it is missing or
 * older, what a list says.
 */
struct esp_center_refs {
  struct esp_reference *venues; size_t nvenues;
  struct esp_rp *rps; size_t nrps;      /* of their manifests */
  size_t bad;                   /* left out, with a warning: damaged, or not
                                 * signed by somebody who is trusted */
};
extern void esp_center_refs_clear (struct esp_center_refs *refs);
extern int esp_center_refs (struct esp_center *center,
                            struct esp_center_refs *out);

/* --- moving ----------------------------------------------------------- */
/* What has been done, for the last line of the command. */
struct esp_transfer {
  uint64_t rps, venues;         /* moved */
  uint64_t kept;                /* venues changed here alone: left as they are */
  uint64_t already;             /* restore points that were there */
  uint64_t segments, bytes_raw, bytes_stored;   /* moved */
  uint64_t resumed;             /* bytes that an earlier attempt had moved */
};

struct esp_push_options {
  const char *variant;          /* as esp_variant_parse; NULL: default */
  const char *key_file;         /* NULL: the store's keys/ */
  bool no_sign;                 /* push unsigned */
  unsigned threads;             /* packing; 0: cores */
  esp_progress_fn progress;     /* bytes of raw */
  void *arg;
};
/* Push restore point UUID and what it stands on; what the center has in that
 * variant is not sent again.  Writes the restore point's `segments`.
 * Interrupted (ECANCELED) or cut off, the next push of the same goes on.
 * Several at once are safe: who comes second finds it there.
 */
extern int esp_push_rp (struct esp_center *center, const esp_uuid *uuid,
                        const struct esp_push_options *options,
                        struct esp_transfer *done);
/* The same, and then the venue's reference, replaced only if it still is what
 * this store knew last (or FORCE): ESTALE, reported: who replaced it, when.
 */
extern int esp_push_venue (struct esp_center *center, const char *id,
                           bool force, const struct esp_push_options *options,
                           struct esp_transfer *done);

/* Journals of pushes that nobody went on with for a week: their uploads end,
 * and they go.  FN as esp_store_gc's.
 */
extern int esp_push_gc (struct esp_store *store, bool dry_run,
                        void (*fn) (void *arg, const char *what,
                                    uint64_t bytes),
                        void *arg);

struct esp_pull_options {
  const char *variant;          /* an id to be preferred; NULL: the best */
  const char *key_file;
  const char *as;               /* the name of the restore point here; NULL:
                                 * as there (not for a venue) */
  bool force;                   /* a venue that was changed here, too */
  esp_progress_fn progress;
  void *arg;
};
/* Names and maps now, data when it is read (delayed restore points).  What
 * the store has stays, and gets the center as one more source.
 */
extern int esp_pull_rp (struct esp_center *center, const esp_uuid *uuid,
                        const struct esp_pull_options *options,
                        struct esp_transfer *done);
/* EEXIST, reported: the venue has been changed here since it was pulled. */
extern int esp_pull_venue (struct esp_center *center, const char *id,
                           const struct esp_pull_options *options,
                           struct esp_transfer *done);

/* Read everything of UUID at the center (all variants, or one) and check it
 * against manifest, map, index and digests.  Each finding is reported;
 * returns their number, or -1, reported: EINVAL, there is no such variant;
 * ENOKEY or EKEYREJECTED, nothing is wrong with what could be checked, but
 * the key of a variant is missing, or is another one.
 */
extern int64_t esp_center_verify (struct esp_center *center,
                                  const esp_uuid *uuid, const char *variant,
                                  const char *key_file,
                                  esp_progress_fn progress, void *arg);

/* Is the center what pushes and pulls need?  FN gets each answer ("writable",
 * OK or not, and a text that says what to do where it is not).  Returns how
 * many are not well.
 */
typedef void (*esp_center_check_fn) (void *arg, const char *what, bool ok,
                                     const char *text);
extern int64_t esp_center_check (struct esp_center *center,
                                 esp_center_check_fn fn, void *arg);

/* Remove what interrupted pushes (of any server) left at the center, and of
 * which nothing was written for IDLE seconds: uploads that were not ended,
 * files that were not finished.  FN gets each that was removed (DRY_RUN: would
 * be): its object ("" if that is not known), its id, bytes, seconds since it
 * was touched.  EROFS, reported: a center that can only be read.
 */
#define ESP_CENTER_GC_IDLE (UINT64_C (7) * 86400)
typedef void (*esp_center_gc_fn) (void *arg, const char *object,
                                  const char *id, uint64_t bytes,
                                  uint64_t idle);
extern int esp_center_gc (struct esp_center *center, uint64_t idle,
                          bool dry_run, esp_center_gc_fn fn, void *arg);

#pragma GCC visibility pop
#endif /* ESPALIER_CENTER_H */
