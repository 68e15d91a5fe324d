/* SPDX-License-Identifier: BSD-3-Clause */
/* A push: a restore point with all that it stands on.
 *
 * First the whole chain is looked at: which of it the center has, which can
 * be packed at all.  Only then anything is sent, parents before children, so
 * that a center never has a manifest whose parent is missing.  The tip is open
 * as long, so nobody deletes or merges anything of the chain.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/push-internal.h"
#include "store/have.h"
#include "store/image.h"
#include "util/bits.h"
#include "util/host.h"

#define VARIANT_DEFAULT "256K,zstd"
#define DEPTH_MAX 32767u
#define BATCH 32                /* small restore points sent side by side */
#define BATCH_THREADS 8
#define BATCH_BYTES (UINT64_C (8) << 20)        /* of raw, for a small one */

/* The chain, root first, and what is to be done with each. */
struct link { struct esp_rp rp; bool there; };
struct links { struct link *link; size_t n; };

static void
links_clear (struct links *l)
{
  for (size_t i = 0; i < l->n; i++)
    esp_rp_clear (&l->link[i].rp);
  free (l->link);
}
#define CLEANUP_LINKS __attribute__ ((cleanup (links_clear)))

static int
add_link (struct links *l, const esp_uuid *uuid, struct esp_catalog *catalog)
{
  struct link *more = reallocarray (l->link, l->n + 1, sizeof *more);
  char text[ESP_UUID_TEXT];

  if (!more)
    return center_no_memory ();
  l->link = more;
  more[l->n] = (struct link) { .there = false };
  if (l->n < DEPTH_MAX &&
      esp_catalog_rp_get (catalog, uuid, &more[l->n].rp) == 0) {
    l->n++;
    return 0;
  }
  esp_error ("there is no restore point %s", esp_uuid_text (uuid, text));
  return -1;
}

static int
load_chain (struct esp_store *store, const esp_uuid *tip, struct links *l)
{
  esp_uuid next = *tip;

  while (!esp_uuid_is_null (&next)) {
    if (add_link (l, &next, esp_store_catalog (store)) == -1)
      return -1;
    next = l->link[l->n - 1].rp.parent;
  }
  for (size_t i = 0; i < l->n / 2; i++) {
    struct link t = l->link[i];
    l->link[i] = l->link[l->n - 1 - i];
    l->link[l->n - 1 - i] = t;
  }
  return 0;
}

/* --- what the center has ------------------------------------------------------ */

struct looking { struct push *push; struct links *links; };

/* Is the pack of V there as its manifest says?  One of another size is
 * damage, and is removed to make room: 0.
 */
static int
pack_is_there (struct push *push, const esp_uuid *uuid,
               const struct esp_variant *v)
{
  char what[64], object[ESP_OBJECT_MAX];
  struct esp_object there;

  snprintf (what, sizeof what, "%s.pack", v->id);
  esp_center_rp_object (uuid, what, object);
  if (esp_remote_head (push->center->remote, object, &there) == -1)
    return errno == ENOENT ? 0 : -1;
  if (there.size == v->pack_size)
    return 1;
  esp_warning ("center %s: %s has %llu bytes, not %llu: it is put anew",
               push->center->config.name, object,
               (unsigned long long) there.size,
               (unsigned long long) v->pack_size);
  return esp_remote_delete (push->center->remote, object);
}

/* May the center's restore point stay as it is, without our variant?  Where
 * nobody asked for one, and where we have not all of its data.
 */
static int
other_variant_will_do (struct push *push, const struct esp_rp *rp)
{
  int whole;

  if (!push->options->variant)
    return 1;
  if (rp->kind != ESP_RP_DELAYED)
    return 0;
  whole = center_rp_whole (push->center->store, &rp->uuid);
  return whole == -1 ? -1 : !whole;
}

static int
look (void *arg, size_t i)
{
  struct looking *l = arg;
  struct link *link = &l->links->link[i];
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };
  const struct esp_variant *v;
  int r;

  if (esp_center_manifest (l->push->center, &link->rp.uuid, &m, NULL) == -1)
    return errno == ENOENT ? 0 : -1;
  v = push_lists (&m, l->push->wish.id);
  if (!v && m.nvariants > 0) {
    if ((r = other_variant_will_do (l->push, &link->rp)) == -1)
      return -1;
    if (r == 1)
      v = &m.variants[0];
  }
  if (!v)
    return 0;
  if ((r = pack_is_there (l->push, &link->rp.uuid, v)) == -1)
    return -1;
  link->there = r == 1;
  return 0;
}

/* --- what we have -------------------------------------------------------------- */

static int
check_all (struct push *push, const struct links *l)
{
  for (size_t i = 0; i < l->n; i++) {
    const struct link *link = &l->link[i];
    if (link->there) {
      push->done->already++;
      continue;
    }
    if (delayed_require_whole (push->center->store, &link->rp,
                               "pushed") == -1)
      return -1;
    push->total += link->rp.data_blocks << ESP_BLOCK_SHIFT;
  }
  return 0;
}

/* --- moving ---------------------------------------------------------------------- */

static int
update_refs (struct push *push, const struct links *l)
{
  CLEANUP_FREE const struct esp_rp **rps = calloc (l->n + 1, sizeof *rps);

  if (!rps)
    return center_no_memory ();
  for (size_t i = 0; i < l->n; i++)
    rps[i] = &l->link[i].rp;
  return center_refs_add (push->center, rps, l->n, NULL);
}

/* Restore points whose packs are small are sent side by side, since each
 * waits for the center most of the time; one that is large has all threads
 * for itself.  Manifests follow one after another, parents first.
 */
struct batch {
  struct push *push;
  const struct esp_rp *rp[BATCH];
  struct push_rp sent[BATCH];
  size_t n;
  unsigned threads;             /* that pack each */
};

static int
send_one (void *arg, size_t i)
{
  struct batch *b = arg;
  return push_send (b->push, b->rp[i], b->threads, &b->sent[i]);
}

static unsigned
pack_threads (const struct push *push)
{
  return push->options->threads ? push->options->threads : center_cores ();
}

static int
push_batch (struct batch *b)
{
  unsigned side_by_side = b->push->center->config.connections;
  int r, saved;

  if (side_by_side == 0 || side_by_side > BATCH_THREADS)
    side_by_side = BATCH_THREADS;
  b->threads = b->n > 1 ? 1 : pack_threads (b->push);
  for (size_t i = 0; i < b->n; i++)
    b->sent[i] = (struct push_rp) { .journal = -1 };
  r = center_parallel (b->n, side_by_side, send_one, b);
  for (size_t i = 0; i < b->n && r == 0; i++)
    r = push_commit (&b->sent[i]);
  saved = errno;
  for (size_t i = 0; i < b->n; i++)
    push_rp_clear (&b->sent[i]);
  b->n = 0;
  errno = saved;
  return r;
}

static bool
is_small (const struct esp_rp *rp)
{
  return rp->data_blocks << ESP_BLOCK_SHIFT <= BATCH_BYTES;
}

static int
push_links (struct push *push, struct links *l)
{
  CLEANUP_FREE struct batch *b = calloc (1, sizeof *b);

  if (!b)
    return center_no_memory ();
  b->push = push;
  for (size_t i = 0; i < l->n; i++) {
    const struct esp_rp *rp = &l->link[i].rp;
    if (l->link[i].there)
      continue;
    if (b->n > 0 && (b->n == BATCH || !is_small (rp) ||
                     !is_small (b->rp[b->n - 1])) && push_batch (b) == -1)
      return -1;
    b->rp[b->n++] = rp;
  }
  return b->n > 0 ? push_batch (b) : 0;
}

static int
push_chain (struct push *push, struct links *l)
{
  if (push_links (push, l) == -1 || update_refs (push, l) == -1)
    return -1;
  return center_profile_push (push->center, &l->link[l->n - 1].rp.uuid,
                              l->link[l->n - 1].rp.size);
}

static int
run (struct push *push, const esp_uuid *uuid)
{
  CLEANUP_LINKS struct links l = { 0 };
  CLEANUP_IMAGE struct esp_image *tip = NULL;
  struct looking looking = { push, &l };

  tip = esp_image_open (push->center->store, uuid);
  if (!tip || load_chain (push->center->store, uuid, &l) == -1 ||
      center_parallel (l.n, center_threads (push->center), look,
                       &looking) == -1 ||
      check_all (push, &l) == -1)
    return -1;
  return push_chain (push, &l);
}

static int
begin (struct push *push)
{
  const char *variant = push->options->variant;
  struct esp_center *center = push->center;

  if (!esp_remote_writable (center->remote)) {
    errno = EROFS;
    esp_error ("center %s can only be read (%s): push to the directory or S3 "
               "bucket behind it", center->config.name,
               esp_remote_url (center->remote));
    return -1;
  }
  if (esp_variant_parse (variant ? variant : VARIANT_DEFAULT, &push->wish,
                         &push->level) == -1)
    return -1;
  push->pushed_by = center_pushed_by ();
  if (!push->pushed_by)
    return center_no_memory ();
  if (push->options->no_sign)
    return 0;
  push->signer = esp_signer_load (center->store, true);
  return push->signer ? 0 : -1;
}

int
esp_push_rp (struct esp_center *center, const esp_uuid *uuid,
             const struct esp_push_options *options,
             struct esp_transfer *done)
{
  struct push push = { .center = center, .options = options, .done = done };
  int r, saved;

  pthread_mutex_init (&push.lock, NULL);
  r = begin (&push);
  if (r == 0)
    r = run (&push, uuid);
  saved = errno;
  if (push.signer)
    esp_signer_free (push.signer);
  free (push.pushed_by);
  pthread_mutex_destroy (&push.lock);
  errno = saved;
  return r;
}
