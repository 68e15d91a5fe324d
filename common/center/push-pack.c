/* SPDX-License-Identifier: BSD-3-Clause */
/* A push: one restore point's pack.
 *
 * A pack that is certain to fit into one part is put as one object; others go
 * in parts, with a journal (push-parts.c).  Either way it becomes visible at
 * once and whole, and only where there is none yet.  Where there is one:
 *
 *   it is what we have packed       (an attempt of ours that was cut off, or
 *                                   another server with the same zstd): good
 *   the manifest lists the variant  somebody else pushed it: nothing to do
 *   neither, for a while            left by a push that ended in the middle:
 *                                   it is removed, and ours put
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/push-internal.h"
#include "store/have.h"
#include "util/bits.h"
#include "util/host.h"

#define OTHER_MS 20000u         /* how long another push may take between
                                 * its pack and its manifest */
#define SAMPLES 16

void
push_count (struct push *push, uint64_t stored, uint64_t resumed)
{
  ESP_LOCK_SCOPE (&push->lock);

  push->done->bytes_stored += stored;
  push->done->resumed += resumed;
}

int
push_tell (struct push *push, uint64_t raw)
{
  ESP_LOCK_SCOPE (&push->lock);

  push->moved += raw;
  if (!push->options->progress ||
      (push->moved - push->told < push->total / 256 &&
       push->moved < push->total))
    return 0;
  push->told = push->moved;
  if (push->options->progress (push->options->arg, push->moved,
                               push->total) == 0)
    return 0;
  errno = ECANCELED;
  esp_error ("interrupted: the same command goes on where it was");
  return -1;
}

/* --- what the store knows already ------------------------------------------ */

/* Digests that were kept tell damage from data: nothing damaged is pushed. */
static int
compare_kept (struct push_rp *p, const struct esp_index *kept)
{
  char text[ESP_UUID_TEXT];

  if (kept->shift != p->variant.shift)
    return 0;
  for (size_t i = 0; i < p->n && kept->n == p->n; i++)
    if (kept->segments[i].number != p->segments[i].number ||
        !esp_digest_eq (&kept->segments[i].digest, &p->segments[i].digest)) {
      errno = EBADMSG;
      esp_error ("restore point %s: its data at %llu is damaged: nothing of "
                 "it was pushed; see 'espalier store scrub' (%s)", p->rp.name,
                 (unsigned long long) p->segments[i].number
                 << p->variant.shift, esp_uuid_text (&p->rp.uuid, text));
      return -1;
    }
  return 0;
}

static int
keep_digests (struct push_rp *p)
{
  CLEANUP_INDEX struct esp_index kept = { 0 };
  const struct esp_index table = { p->variant.shift, p->n, p->segments };
  struct esp_store *store = p->push->center->store;

  if (esp_segments_load (store, &p->rp.uuid, &kept) == 0)
    return compare_kept (p, &kept);
  if (errno != ENOENT)
    return -1;
  return esp_store_readonly (store) ? 0
    : esp_segments_save (store, &p->rp.uuid, &table);
}

int
push_settle (struct push_rp *p)
{
  uint64_t offset = 0;

  for (size_t i = 0; i < p->n; i++) {
    p->segments[i].offset = offset;
    offset += p->segments[i].stored;
  }
  p->variant.segments = p->n;
  p->variant.pack_size = offset;
  return keep_digests (p);
}

/* --- a pack that is there ----------------------------------------------------- */

/* 1, 0, -1 (the caller catches what is reported). */
static int
look_at_segment (struct push_rp *p, struct esp_packer *packer, size_t i,
                 uint8_t *stored, uint8_t *raw)
{
  const struct esp_segment *s = &p->segments[i];
  struct center_buffer sample = { stored, 0, s->stored };
  const struct esp_get get = { .offset = s->offset, .len = s->stored,
                               .sink = center_buffer_sink, .arg = &sample };
  size_t len = (size_t) esp_segment_blocks (p->map, p->variant.shift,
                                            s->number) << ESP_BLOCK_SHIFT;

  if (esp_remote_get (p->push->center->remote, p->pack, &get) == -1)
    return -1;
  return esp_unpack_segment (packer, s->number, stored, sample.len, raw, len,
                             &s->digest, true, p->pack) == 0;
}

int
push_pack_is_ours (struct push_rp *p)
{
  CLEANUP_FREE uint8_t *stored = malloc (((size_t) 1 << p->variant.shift) +
                                         ESP_SEGMENT_OVERHEAD);
  CLEANUP_FREE uint8_t *raw = malloc ((size_t) 1 << p->variant.shift);
  CLEANUP_PACKER struct esp_packer *packer =
    esp_packer_new (p->variant.codec, p->push->level, p->key);
  struct esp_object there;
  int r = 1;

  if (!stored || !raw || !packer)
    return center_no_memory ();
  if (esp_remote_head (p->push->center->remote, p->pack, &there) == -1)
    return errno == ENOENT ? 0 : -1;
  if (there.size != p->variant.pack_size)
    return 0;
  for (size_t i = 0; i < SAMPLES && i < p->n && r == 1; i++)
    r = look_at_segment (p, packer, p->n <= SAMPLES ? i
                         : i * (p->n - 1) / (SAMPLES - 1), stored, raw);
  return r;
}

const struct esp_variant *
push_lists (const struct esp_manifest *m, const char *id)
{
  for (size_t i = 0; i < m->nvariants; i++)
    if (strcmp (m->variants[i].id, id) == 0)
      return &m->variants[i];
  return NULL;
}

int
push_is_listed (struct push_rp *p)
{
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };

  if (esp_center_manifest (p->push->center, &p->rp.uuid, &m, NULL) == 0)
    return push_lists (&m, p->variant.id) != NULL;
  return errno == ENOENT ? 0 : -1;
}

int
push_wait_for_other (struct push_rp *p)
{
  int r;

  for (unsigned ms = 0; ; ms += 250) {
    if ((r = push_is_listed (p)) != 0)
      return r == 1 ? PUSH_TAKEN : -1;
    if (ms >= OTHER_MS)
      return 0;
    if (ms == 0)
      esp_debug ("%s is there, but in no manifest: waiting for who put it",
                 p->pack);
    if (!center_pause (250)) {
      errno = ECANCELED;
      esp_error ("interrupted: the same command goes on where it was");
      return -1;
    }
  }
}

/* --- one object ------------------------------------------------------------ */

struct gather { struct push_rp *p; uint8_t *buf; size_t len; };

static int
gather (void *arg, size_t entry, const void *stored, size_t len, size_t raw)
{
  struct gather *g = arg;

  (void) entry;
  memcpy (g->buf + g->len, stored, len);
  g->len += len;
  return push_tell (g->p->push, raw);
}

static int
put_whole (struct push_rp *p, const void *buf, size_t len)
{
  struct esp_remote *remote = p->push->center->remote;
  int r;

  while (esp_remote_put_absent (remote, p->pack, buf, len, NULL) == -1) {
    if (errno != EEXIST)
      return -1;
    if ((r = push_pack_is_ours (p)) != 0)
      return r == 1 ? 0 : -1;
    if ((r = push_wait_for_other (p)) != 0)
      return r;
    if (esp_remote_delete (remote, p->pack) == -1)
      return -1;
  }
  push_count (p->push, len, 0);
  return 0;
}

static int
push_whole (struct push_rp *p, uint64_t room)
{
  CLEANUP_FREE uint8_t *buf = malloc (room ? room : 1);
  struct gather g = { p, buf, 0 };
  struct packing packing = {
    .layer = p->layer, .map = p->map, .shift = p->variant.shift,
    .codec = p->variant.codec, .level = p->push->level, .key = p->key,
    .threads = p->threads,
    .segments = p->segments, .n = p->n,
  };

  if (!buf)
    return center_no_memory ();
  if (packing_run (&packing, 0, p->n, gather, &g) == -1 ||
      push_settle (p) == -1)
    return -1;
  return put_whole (p, buf, g.len);
}

int
push_pack (struct push_rp *p)
{
  uint64_t most = (p->rp.data_blocks << ESP_BLOCK_SHIFT) +
    p->n * ESP_SEGMENT_OVERHEAD;

  return most <= PUSH_PART ? push_whole (p, most) : push_parts (p);
}
