/* SPDX-License-Identifier: BSD-3-Clause */
/* Origins: a delayed restore point's segments at one source, ready to be
 * fetched: a variant at a center, or a plain image (HTTP, S3, NBD, a file).
 * Everything between bytes on the wire and checked raw segments is here;
 * when and where from something is fetched is delay/'s.
 */

#ifndef ESPALIER_ORIGIN_H
#define ESPALIER_ORIGIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/have.h"

#pragma GCC visibility push(default)

struct esp_origin;

/* Connections to one center are shared by all its origins.  Reported:
 * ENOKEY, ENOENT (the center was removed from the store), EINVAL.  No request
 * is made yet.  HAVE stays open as long as the origin.
 */
extern struct esp_origin *esp_origin_open (struct esp_store *store,
                                           struct esp_have *have,
                                           const struct esp_source *source);
extern void esp_origin_close (struct esp_origin *origin);
/* For messages: the center's name, or the URL of a plain image. */
extern const char *esp_origin_name (const struct esp_origin *origin);
/* Bytes that entries [FIRST, FIRST+N) take on the wire. */
extern uint64_t esp_origin_wire (const struct esp_origin *origin,
                                 size_t first, size_t n);
/* Do entries FIRST and FIRST + 1 follow each other on the wire?  (In a plain
 * image there may be a gap.)
 */
extern bool esp_origin_adjacent (const struct esp_origin *origin,
                                 size_t first);

/* Fetch entries [FIRST, FIRST+N) in one request.  SEGMENT gets each as it is
 * complete and checked against its digest (where that is known; of a plain
 * image the digest is kept by esp_have_store); what it returns not 0 ends the
 * request (errno as it set it).  ARRIVED, when not NULL, is told of bytes from
 * the wire, and may wait a little (a background request that makes way).
 *
 * -1 with errno, as esp_remote_get; EBADMSG: this source gave wrong bytes
 * (digest, codec); ESTALE: a plain image is not what it was.  Nothing is
 * reported: WHY gets the text, the caller knows what it means.
 */
struct esp_origin_get {
  size_t first, n;
  int (*segment) (void *arg, size_t entry, const void *raw, size_t len);
  void (*arrived) (void *arg, size_t bytes);
  void *arg;
  const atomic_bool *cancel;
  bool gently, once;            /* center/remote.h */
  char why[512];
};
extern int esp_origin_get (struct esp_origin *origin,
                           struct esp_origin_get *get);

/* --- plain images ------------------------------------------------------ */
/* Look at the image URL (http://, https://, s3://, nbd:// and the other
 * NBD URIs, file://): its size and version; is it raw?  Other formats are
 * refused: they need preparation.  Connection options as a center's.
 */
struct esp_remote_options;
extern int esp_plain_look (const char *url,
                           const struct esp_remote_options *options,
                           struct esp_source *out);
/* Make it a root store whose blocks are fetched when they are read.  An
 * NBD server's block status tells holes.
 */
extern int esp_plain_add (struct esp_store *store, const char *name,
                          const char *url, unsigned shift, const char *note,
                          const struct esp_resource *resources,
                          size_t nresources, esp_uuid *uuid);

#pragma GCC visibility pop
#endif /* ESPALIER_ORIGIN_H */
