/* SPDX-License-Identifier: BSD-3-Clause */
/* A push: one restore point.
 *
 * The order is map, pack, index, manifest: what a manifest names is there
 * before it is.  Each of them is put only where there is none; what is
 * there already is compared, so that an attempt that was cut off anywhere
 * goes on, and two at once end with one object.  A further variant is added
 * to a manifest that is there by replacing it if it is unchanged, again and
 * again until that succeeds.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "center/push-internal.h"
#include "util/host.h"

#define TRIES 50

void
push_rp_clear (struct push_rp *p)
{
  int saved = errno;

  esp_rp_clear (&p->rp);
  if (p->layer)
    layer_put (p->layer);
  esp_map_free (p->map);
  free (p->map_bytes);
  if (p->key)
    esp_segment_key_free (p->key);
  free (p->segments);
  esp_cleanup_close (&p->journal);
  errno = saved;
}

/* --- what is to be pushed ------------------------------------------------------ */

static int
prepare (struct push_rp *p)
{
  struct push *push = p->push;
  struct esp_store *store = push->center->store;
  char what[64];

  p->variant = push->wish;
  p->layer = layer_get (store, &p->rp.uuid);
  if (!p->layer)
    esp_error ("restore point %s: its data cannot be opened: %m", p->rp.name);
  if (!p->layer || !(p->map = esp_rp_load_map (store, &p->rp.uuid)))
    return -1;
  p->segments = packing_segments (p->map, p->variant.shift, &p->n);
  p->map_bytes = p->segments ? esp_map_pack (p->map, &p->map_len) : NULL;
  if (!p->map_bytes)
    return -1;
  esp_digest_of (p->map_bytes, p->map_len, &p->map_digest);
  if (p->variant.key[0] &&
      !(p->key = esp_segment_key_begin (store, &p->variant,
                                        push->options->key_file)))
    return -1;
  snprintf (what, sizeof what, "%s.pack", p->variant.id);
  esp_center_rp_object (&p->rp.uuid, what, p->pack);
  snprintf (what, sizeof what, "%s.index", p->variant.id);
  esp_center_rp_object (&p->rp.uuid, what, p->index);
  return 0;
}

/* --- the map -------------------------------------------------------------------- */

/* THERE, the center's object, is a map of the same blocks: use its bytes. */
static int
take_their_map (struct push_rp *p, void *there, size_t len)
{
  CLEANUP_MAP struct esp_map *map = esp_map_unpack (there, len, p->rp.size,
                                                    "the map at the center");

  if (!map || esp_map_digest (map) != esp_map_digest (p->map))
    return 0;
  free (p->map_bytes);
  p->map_bytes = there;
  p->map_len = len;
  esp_digest_of (there, len, &p->map_digest);
  return 1;
}

static int
put_map (struct push_rp *p)
{
  struct esp_remote *remote = p->push->center->remote;
  char object[ESP_OBJECT_MAX], unheard[256];
  struct esp_catch outer;
  size_t len;
  void *there;
  int r;

  esp_center_rp_object (&p->rp.uuid, "map", object);
  if (esp_remote_put_absent (remote, object, p->map_bytes, p->map_len,
                             NULL) == 0)
    return 0;
  if (errno != EEXIST)
    return -1;
  there = esp_remote_get_all (remote, object, 2 * p->map_len + (1 << 20),
                              &len, NULL);
  if (!there && errno != EFBIG)
    return center_missing (p->push->center, object);
  outer = esp_catch_begin (unheard, sizeof unheard);
  r = there ? take_their_map (p, there, len) : 0;
  esp_catch_end (outer);
  if (r == 1)
    return 0;
  free (there);
  /* No manifest names it: left by a push of something else. */
  return esp_remote_put (remote, object, p->map_bytes, p->map_len, NULL);
}

/* A manifest is there: is it of the same blocks? */
static int
check_their_map (struct push_rp *p, const struct esp_manifest *m)
{
  CLEANUP_MAP struct esp_map *map = esp_center_map (p->push->center, m);

  if (!map)
    return -1;
  p->map_digest = m->map_digest;
  if (esp_map_digest (map) == esp_map_digest (p->map))
    return 0;
  errno = EEXIST;
  esp_error ("center %s has restore point %s with other blocks of its own (it "
             "was merged here, or there): it can get no further variant from "
             "this store", p->push->center->config.name, p->rp.name);
  return -1;
}

/* --- the index ------------------------------------------------------------------- */

static int
put_index (struct push_rp *p)
{
  const struct esp_index table = { p->variant.shift, p->n, p->segments };
  struct esp_remote *remote = p->push->center->remote;
  CLEANUP_FREE void *bytes = NULL, *there = NULL;
  size_t len, n;
  int r;

  bytes = esp_index_pack (&table, p->key, &len);
  if (!bytes)
    return -1;
  p->variant.index_size = len;
  esp_digest_of (bytes, len, &p->variant.index_digest);
  if (esp_remote_put_absent (remote, p->index, bytes, len, NULL) == 0)
    return 0;
  if (errno != EEXIST)
    return -1;
  there = esp_remote_get_all (remote, p->index, len + 1, &n, NULL);
  if (!there && errno != EFBIG)
    return center_missing (p->push->center, p->index);
  if (there && n == len && memcmp (there, bytes, len) == 0)
    return 0;
  /* Left by a push that ended in the middle; or the pack was taken from us. */
  if ((r = push_pack_is_ours (p)) == -1)
    return -1;
  if (r == 0)
    return push_wait_for_other (p);
  return esp_remote_put (remote, p->index, bytes, len, NULL);
}

/* --- the manifest ----------------------------------------------------------------- */

static int
write_manifest (struct push_rp *p, const struct esp_manifest *m,
                const struct esp_object *version)
{
  struct push *push = p->push;
  char object[ESP_OBJECT_MAX];
  CLEANUP_FREE char *text = NULL;
  size_t len;

  text = esp_manifest_format (m, push->signer, &len);
  if (!text)
    return -1;
  esp_center_rp_object (&p->rp.uuid, "manifest", object);
  return version
    ? esp_remote_put_if (push->center->remote, object, version, text, len,
                         NULL)
    : esp_remote_put_absent (push->center->remote, object, text, len, NULL);
}

static int
write_new (struct push_rp *p)
{
  struct esp_manifest m = {
    .rp = p->rp, .map_size = p->map_len, .map_digest = p->map_digest,
    .variants = &p->variant, .nvariants = 1,
    .pushed_by = p->push->pushed_by, .pushed = (uint64_t) time (NULL),
  };

  return write_manifest (p, &m, NULL);
}

/* Add our variant to M, or put it in the place of one whose pack is gone. */
static int
write_more (struct push_rp *p, struct esp_manifest *m,
            const struct esp_object *version)
{
  struct esp_variant *more;
  size_t i = 0;

  while (i < m->nvariants && strcmp (m->variants[i].id, p->variant.id) != 0)
    i++;
  if (i < m->nvariants) {
    if (esp_digest_eq (&m->variants[i].index_digest, &p->variant.index_digest) &&
        m->variants[i].pack_size == p->variant.pack_size)
      return 0;
    m->variants[i] = p->variant;
    return write_manifest (p, m, version);
  }
  more = reallocarray (m->variants, m->nvariants + 1, sizeof *more);
  if (!more)
    return center_no_memory ();
  m->variants = more;
  more[m->nvariants++] = p->variant;
  return write_manifest (p, m, version);
}

static int
put_manifest (struct push_rp *p)
{
  for (unsigned i = 0; i < TRIES; i++) {
    CLEANUP_MANIFEST struct esp_manifest m = { 0 };
    struct esp_object version;
    int r;

    if (esp_center_manifest (p->push->center, &p->rp.uuid, &m,
                             &version) == 0)
      r = write_more (p, &m, &version);
    else
      r = errno == ENOENT ? write_new (p) : -1;
    if (r == 0)
      return 0;
    if (errno != EEXIST && errno != ESTALE && errno != ENOENT)
      return -1;
    if (!center_pause (5 + (unsigned) random () % (10 * (i + 1))))
      break;
  }
  errno = esp_progress_interrupted () ? ECANCELED : ESTALE;
  esp_error ("center %s: the manifest of %s is replaced all the time: push "
             "again", p->push->center->config.name, p->rp.name);
  return -1;
}

/* --- all of it ------------------------------------------------------------------- */

static int
send_parts (struct push_rp *p)
{
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };
  int r;

  if (esp_center_manifest (p->push->center, &p->rp.uuid, &m, NULL) == 0)
    r = check_their_map (p, &m);
  else
    r = errno == ENOENT ? put_map (p) : -1;
  if (r == 0 && (r = push_pack (p)) == 0)
    r = put_index (p);
  return r;
}

int
push_send (struct push *push, const struct esp_rp *rp, unsigned threads,
           struct push_rp *p)
{
  *p = (struct push_rp) { .push = push, .threads = threads, .journal = -1 };
  if (esp_catalog_rp_get (esp_store_catalog (push->center->store), &rp->uuid,
                          &p->rp) == -1) {
    esp_error ("restore point %s was deleted meanwhile", rp->name);
    return -1;
  }
  if (prepare (p) == -1)
    return -1;
  p->taken = send_parts (p);
  return p->taken == -1 ? -1 : 0;
}

int
push_commit (struct push_rp *p)
{
  struct push *push = p->push;
  struct esp_center *center = push->center;

  if (p->taken == PUSH_TAKEN)
    push->done->already++;
  else if (put_manifest (p) == -1)
    return -1;
  else {
    push->done->rps++;
    push->done->segments += p->n;
    push->done->bytes_raw += p->rp.data_blocks << ESP_BLOCK_SHIFT;
  }
  return journal_remove (center->store, center->config.name, &p->rp.uuid,
                         p->variant.id);
}
