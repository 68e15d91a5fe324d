/* SPDX-License-Identifier: BSD-3-Clause */
/* Checking what lies at a center: everything of one restore point is read, and
 * compared with what its manifest, map and index say.
 *
 * What is wrong is a finding, reported, and the check goes on with the
 * rest; a center that cannot be reached ends it.  A variant whose key is not
 * here is no finding: nobody knows whether it is damaged.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "center/push-internal.h"
#include "util/bits.h"
#include "util/host.h"

#define REQUEST (UINT64_C (8) << 20)    /* bytes of the pack asked for at once */
#define TOLD_MAX 10             /* bad segments of a pack that are named */

struct verify {
  struct esp_center *center;
  const char *key_file;
  esp_progress_fn progress;
  void *arg;
  struct esp_manifest m;
  struct esp_map *map;
  int64_t findings;
  int unchecked;                /* errno of a key that was missing or wrong */
  uint64_t total, done;         /* bytes of packs */
};

/* One pack, by chunks of segments. */
struct pack {
  struct verify *v;
  const struct esp_variant *variant;
  struct esp_segment_key *key;
  struct esp_index index;
  char object[ESP_OBJECT_MAX];
  size_t *chunk;                /* the first entry of each, and the end */
  size_t nchunks;
  pthread_mutex_t lock;         /* protects bad, and v's progress */
  uint64_t bad;
};

/* Is what a call failed with a finding?  It was reported. */
static bool
is_finding (int e)
{
  return e == EBADMSG || e == ENOENT || e == EKEYREJECTED || e == ENOTSUP ||
    e == EPROTO;
}

static int
count (struct verify *v)
{
  if (!is_finding (errno))
    return -1;
  v->findings++;
  return 0;
}

/* --- segments -------------------------------------------------------------- */

static int
advance (struct pack *p, uint64_t bytes)
{
  ESP_LOCK_SCOPE (&p->lock);
  struct verify *v = p->v;

  v->done += bytes;
  if (!v->progress || v->progress (v->arg, v->done, v->total) == 0)
    return 0;
  errno = ECANCELED;
  return -1;
}

static void
tell_bad (struct pack *p, const struct esp_segment *s)
{
  ESP_LOCK_SCOPE (&p->lock);

  if (p->bad++ < TOLD_MAX)
    esp_error ("center %s: %s: segment %u (at %llu, %u bytes) is damaged",
               p->v->center->config.name, p->object, s->number,
               (unsigned long long) s->offset, s->stored);
}

static void
check_segment (struct pack *p, struct esp_packer *packer,
               const struct esp_segment *s, const uint8_t *stored,
               uint8_t *raw)
{
  size_t len = (size_t) esp_segment_blocks (p->v->map, p->index.shift,
                                            s->number) << ESP_BLOCK_SHIFT;

  if (esp_unpack_segment (packer, s->number, stored, s->stored, raw, len,
                          &s->digest, true, p->object) == -1)
    tell_bad (p, s);
}

static int
check_chunk (void *arg, size_t i)
{
  struct pack *p = arg;
  const struct esp_segment *first = &p->index.segments[p->chunk[i]];
  const struct esp_segment *last = &p->index.segments[p->chunk[i + 1] - 1];
  uint64_t len = last->offset + last->stored - first->offset;
  CLEANUP_FREE uint8_t *buf = malloc (len);
  CLEANUP_FREE uint8_t *raw = malloc ((size_t) 1 << p->index.shift);
  CLEANUP_PACKER struct esp_packer *packer =
    esp_packer_new (p->variant->codec, 0, p->key);
  struct center_buffer b = { buf, 0, len };
  const struct esp_get get = { .offset = first->offset, .len = len,
                               .sink = center_buffer_sink, .arg = &b };

  if (!buf || !raw || !packer)
    return center_no_memory ();
  if (esp_remote_get (p->v->center->remote, p->object, &get) == -1)
    return -1;
  for (const struct esp_segment *s = first; s <= last; s++)
    check_segment (p, packer, s, buf + (s->offset - first->offset), raw);
  return advance (p, len);
}

static int
cut_into_chunks (struct pack *p)
{
  uint64_t begin = 0;

  p->chunk = calloc (p->index.n + 1, sizeof *p->chunk);
  if (!p->chunk)
    return center_no_memory ();
  for (size_t i = 0; i < p->index.n; i++) {
    const struct esp_segment *s = &p->index.segments[i];
    if (i > 0 && s->offset + s->stored - begin <= REQUEST)
      continue;
    p->chunk[p->nchunks++] = i;
    begin = s->offset;
  }
  p->chunk[p->nchunks] = p->index.n;
  return 0;
}

/* --- variants --------------------------------------------------------------- */

static int
check_size (struct pack *p)
{
  struct esp_object there;
  char why[128];

  if (esp_remote_head (p->v->center->remote, p->object, &there) == -1)
    return center_missing (p->v->center, p->object);
  if (there.size == p->variant->pack_size)
    return 0;
  snprintf (why, sizeof why, "it has %llu bytes, not %llu",
            (unsigned long long) there.size,
            (unsigned long long) p->variant->pack_size);
  return center_damaged (p->v->center, p->object, why);
}

/* Remember that the key of P's variant, which was asked for, is not here. */
static int
leave_out (struct pack *p)
{
  struct verify *v = p->v;

  if (errno != ENOKEY && errno != EKEYREJECTED)
    return -1;
  v->unchecked = errno;
  esp_error ("center %s: restore point %s: its variant %s was not checked",
             v->center->config.name, v->m.rp.name, p->variant->id);
  return 0;
}

static int
check_pack (struct pack *p)
{
  struct verify *v = p->v;
  char what[64];

  snprintf (what, sizeof what, "%s.pack", p->variant->id);
  esp_center_rp_object (&v->m.rp.uuid, what, p->object);
  if (p->variant->key[0] &&
      !(p->key = esp_segment_key_load (v->center->store, p->variant,
                                       v->key_file)))
    return leave_out (p);
  if (esp_center_index (v->center, &v->m, p->variant, v->map, v->key_file,
                        &p->index) == -1 ||
      check_size (p) == -1 || cut_into_chunks (p) == -1)
    return -1;
  if (center_parallel (p->nchunks, center_cores (), check_chunk, p) == -1)
    return -1;
  if (p->bad > TOLD_MAX)
    esp_error ("center %s: %s: %llu segments are damaged in all",
               v->center->config.name, p->object,
               (unsigned long long) p->bad);
  v->findings += (int64_t) p->bad;
  return 0;
}

/* Variants with one segment size have the same digests. */
static int
compare (struct verify *v, const struct pack *a, const struct pack *b)
{
  for (size_t i = 0; i < a->index.n && a->index.n == b->index.n; i++)
    if (!esp_digest_eq (&a->index.segments[i].digest,
                        &b->index.segments[i].digest)) {
      esp_error ("center %s: restore point %s: its variants %s and %s are not "
                 "of the same data", v->center->config.name, v->m.rp.name,
                 a->variant->id, b->variant->id);
      v->findings++;
      return 0;
    }
  return 0;
}

static void
pack_clear (struct pack *p)
{
  if (p->key)
    esp_segment_key_free (p->key);
  esp_index_clear (&p->index);
  free (p->chunk);
  pthread_mutex_destroy (&p->lock);
}

/* What was asked for is not there: a typing error, perhaps, but no damage. */
static int
no_variant (const struct verify *v, const char *only)
{
  CLEANUP_FREE char *list = NULL;
  size_t size;

  {
    CLEANUP_FCLOSE FILE *f = open_memstream (&list, &size);
    for (size_t i = 0; f && i < v->m.nvariants; i++)
      fprintf (f, "%s%s", i ? ", " : "", v->m.variants[i].id);
  }
  errno = EINVAL;
  esp_error ("center %s: restore point %s has no variant %s: it has %s",
             v->center->config.name, v->m.rp.name, only, list ? list : "others");
  return -1;
}

static int
check_variants (struct verify *v, const char *only)
{
  struct pack *packs = calloc (v->m.nvariants + 1, sizeof *packs);
  size_t n = 0;
  int r = 0;

  if (!packs)
    return center_no_memory ();
  for (size_t i = 0; i < v->m.nvariants && r == 0; i++) {
    struct pack *p = &packs[n];
    if (only && strcmp (only, v->m.variants[i].id) != 0)
      continue;
    n++;
    p->v = v;
    p->variant = &v->m.variants[i];
    pthread_mutex_init (&p->lock, NULL);
    if (check_pack (p) == -1)
      r = count (v);
    for (struct pack *q = packs; r == 0 && q < p; q++)
      if (q->index.shift == p->index.shift && p->index.n > 0)
        r = compare (v, q, p);
  }
  for (size_t i = 0; i < n; i++)
    pack_clear (&packs[i]);
  free (packs);
  if (n > 0 || r == -1)
    return r;
  if (only && v->m.nvariants > 0)
    return no_variant (v, only);
  errno = ENOENT;
  esp_error ("center %s: restore point %s has no variant at all",
             v->center->config.name, v->m.rp.name);
  return count (v);
}

/* --- all of it ---------------------------------------------------------------- */

static int
check_parent (struct verify *v)
{
  char object[ESP_OBJECT_MAX];

  if (esp_uuid_is_null (&v->m.rp.parent))
    return 0;
  esp_center_rp_object (&v->m.rp.parent, "manifest", object);
  if (esp_remote_head (v->center->remote, object, NULL) == 0)
    return 0;
  center_missing (v->center, object);
  return count (v);
}

static int
check_profile (struct verify *v)
{
  CLEANUP_PROFILE struct esp_profile profile = { 0 };

  if (center_profile_get (v->center, &v->m.rp.uuid, v->m.rp.size, &profile,
                          NULL) == 0 || errno == ENOENT)
    return 0;
  return count (v);
}

static int
verify (struct verify *v, const esp_uuid *uuid, const char *variant)
{
  char object[ESP_OBJECT_MAX];

  if (esp_center_manifest (v->center, uuid, &v->m, NULL) == -1) {
    center_missing (v->center, esp_center_rp_object (uuid, "manifest",
                                                     object));
    return count (v);
  }
  for (size_t i = 0; i < v->m.nvariants; i++)
    if (!variant || strcmp (variant, v->m.variants[i].id) == 0)
      v->total += v->m.variants[i].pack_size;
  if (check_parent (v) == -1 || check_profile (v) == -1)
    return -1;
  v->map = esp_center_map (v->center, &v->m);
  return v->map ? check_variants (v, variant) : count (v);
}

int64_t
esp_center_verify (struct esp_center *center, const esp_uuid *uuid,
                   const char *variant, const char *key_file,
                   esp_progress_fn progress, void *arg)
{
  struct verify v = { .center = center, .key_file = key_file,
                      .progress = progress, .arg = arg };
  int r = verify (&v, uuid, variant), saved = errno;

  esp_manifest_clear (&v.m);
  esp_map_free (v.map);
  errno = r == 0 && v.unchecked ? v.unchecked : saved;
  return r == -1 || (v.findings == 0 && v.unchecked) ? -1 : v.findings;
}
