/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files that implement center/origin.h share. */

#ifndef ESPALIER_ORIGIN_INTERNAL_H
#define ESPALIER_ORIGIN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "center/origin.h"
#include "center/remote.h"

/* --- remotes, one for each place and process (origin-remotes.c) -------- */

struct shared_remote {
  struct esp_remote *remote;

  /* Below: protected by the table's mutex. */
  struct shared_remote *next;
  unsigned refs;
  char *id;
};

/* The remote of center NAME, or of BASE (a URL); counted.  NULL, reported. */
extern struct shared_remote *shared_remote_center (struct esp_store *store,
                                                   const char *name);
extern struct shared_remote *shared_remote_url
  (const char *base, const struct esp_remote_options *options);
extern void shared_remote_put (struct shared_remote *shared);

/* --- NBD servers, one pool of connections for each (origin-nbd.c) ------ */

struct nbd_pool;

/* Is URL one that libnbd connects to? */
extern bool nbd_pool_is_url (const char *url);
/* Counted; no connection is made yet.  NULL, reported. */
extern struct nbd_pool *nbd_pool_get (const char *url);
extern void nbd_pool_put (struct nbd_pool *pool);

/* How one read is done, as struct esp_get. */
struct nbd_read {
  uint64_t offset, len;
  uint64_t size;                /* that the disk must have (ESTALE); 0: any */
  esp_sink_fn sink;
  void *arg;
  const atomic_bool *cancel;
  bool once;
};
/* Errors are reported, as by esp_remote_get; ESTALE, too. */
extern int nbd_pool_read (struct nbd_pool *pool, const struct nbd_read *read);
extern int nbd_pool_size (struct nbd_pool *pool, uint64_t *size);
/* Tell FN each run that is not known to be zero, in order. */
typedef void (*nbd_data_fn) (void *arg, uint64_t offset, uint64_t len);
extern int nbd_pool_data (struct nbd_pool *pool, uint64_t size,
                          nbd_data_fn fn, void *arg);

/* --- plain images (plain.c) ---------------------------------------- */

/* URL as a remote and the name of an object there; malloced.  EINVAL,
 * reported: a URL that cannot be one.
 */
extern int plain_split (const char *url, char **base, char **object);

/* Is the image no longer what it WAS?  Its server is asked: 1 and WHY, or 0
 * when it still is, or cannot be asked.
 */
extern int plain_changed (struct esp_remote *remote, const char *object,
                          const char *url, const struct esp_object *was,
                          char *why, size_t size);
/* What to do about it: the end of each message about a changed image. */
#define PLAIN_CHANGED_ADVICE                                            \
  "put the old one back, or add the new one as another root store "     \
  "(espalier root add NAME URL --delayed)"

/* --- an origin ---------------------------------------------------------- */

struct packer_node;

struct esp_origin {
  struct esp_have *have;
  char *name;                   /* a center's name, or a URL */
  bool plain;
  unsigned shift;
  size_t n;                     /* entries */

  /* A center's variant: entry I lies in [place[I], place[I + 1]). */
  uint64_t *place;
  enum esp_codec codec;
  struct esp_segment_key *key;  /* NULL: not encrypted */

  uint64_t size;                /* a plain image's, bytes */

  struct shared_remote *shared; /* or NULL: nbd */
  struct nbd_pool *nbd;
  char *object;
  struct esp_object expect;

  pthread_mutex_t mutex;        /* protects the two below */
  struct packer_node *idle;     /* packers that no request has */
  unsigned nidle;
};

/* Where ENTRY begins on the wire, and how many bytes it has there. */
extern uint64_t origin_place (const struct esp_origin *o, size_t entry);
extern size_t origin_stored (const struct esp_origin *o, size_t entry);

/* A packer of O's from its pool (NULL, reported); plain images have none. */
struct packer_node { struct packer_node *next; struct esp_packer *packer; };
extern struct packer_node *origin_packer (struct esp_origin *o);
extern void origin_packer_put (struct esp_origin *o, struct packer_node *p);

#endif /* ESPALIER_ORIGIN_INTERNAL_H */
