/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening origins, and what is known of them without a request
 * (center/origin.h).  Fetching is in origin-get.c.
 *
 * Of a center's index only the places of the entries are kept, 8 bytes each:
 * numbers and digests are those of `segments`, which all sources of a
 * restore point must agree with.  The index is checked for that, and for
 * being without gaps, when the origin is opened: what it says is the range
 * of requests and the size of buffers later.
 *
 * A plain image needs no index: segment N lies at N times the segment size.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "center/center.h"
#include "center/origin-internal.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/host.h"

/* Idle packers that an origin keeps; a chain has many origins. */
#define IDLE_PACKERS 4u

ESP_DEFINE_CLEANUP (origin, struct esp_origin *, esp_origin_close)

/* --- packers ------------------------------------------------------------- */

struct packer_node *
origin_packer (struct esp_origin *o)
{
  CLEANUP_FREE struct packer_node *fresh = NULL;

  {
    ESP_LOCK_SCOPE (&o->mutex);
    if (o->idle) {
      struct packer_node *p = o->idle;
      o->idle = p->next;
      o->nidle--;
      return p;
    }
  }
  fresh = calloc (1, sizeof *fresh);
  if (!fresh) {
    esp_error ("malloc: packer: %m");
    return NULL;
  }
  fresh->packer = esp_packer_new (o->codec, 0, o->key);
  return fresh->packer ? ESP_STEAL (fresh) : NULL;
}

static void
packer_free (struct packer_node *p)
{
  esp_packer_free (p->packer);
  free (p);
}

void
origin_packer_put (struct esp_origin *o, struct packer_node *p)
{
  if (!p)
    return;
  {
    ESP_LOCK_SCOPE (&o->mutex);
    if (o->nidle < IDLE_PACKERS) {
      p->next = o->idle;
      o->idle = p;
      o->nidle++;
      return;
    }
  }
  packer_free (p);
}

/* --- opening -------------------------------------------------------------- */

static int
bad_index (const struct esp_origin *o, size_t entry, const char *what)
{
  errno = EBADMSG;
  esp_error ("center %s: its index, kept at this server, is wrong at entry "
             "%zu: %s; pull the restore point again", o->name, entry, what);
  return -1;
}

/* Keep the places of INDEX, which must be without gaps and have the entries
 * that HAVE has.
 */
static int
take_places (struct esp_origin *o, const struct esp_index *index,
             const struct esp_variant *variant)
{
  uint64_t at = 0;

  if (index->n != o->n || variant->shift != o->shift)
    return bad_index (o, index->n, "it has not the segments of the restore "
                      "point");
  o->place = malloc ((o->n + 1) * sizeof *o->place);
  if (!o->place) {
    esp_error ("malloc: index of %zu segments: %m", o->n);
    return -1;
  }
  for (size_t i = 0; i < o->n; i++) {
    const struct esp_segment *s = &index->segments[i];

    if (s->number != esp_have_number (o->have, i))
      return bad_index (o, i, "another segment");
    if (s->offset != at)
      return bad_index (o, i, "a gap");
    if (s->stored == 0 ||
        s->stored > ((size_t) 1 << o->shift) + ESP_SEGMENT_OVERHEAD)
      return bad_index (o, i, "an impossible length");
    o->place[i] = at;
    at += s->stored;
  }
  o->place[o->n] = at;
  return at == variant->pack_size ? 0
    : bad_index (o, o->n, "the pack has another size");
}

static int
open_center (struct esp_origin *o, struct esp_store *store,
             const struct esp_source *source)
{
  const struct esp_variant *v = &source->variant;
  CLEANUP_INDEX struct esp_index index = { 0 };
  char what[64], object[ESP_OBJECT_MAX];

  if (esp_sources_index (store, esp_have_uuid (o->have), source->center,
                         &index) == -1 ||
      take_places (o, &index, v) == -1)
    return -1;
  o->codec = v->codec;
  if (v->key[0] && !(o->key = esp_segment_key_load (store, v, NULL)))
    return -1;
  snprintf (what, sizeof what, "%s.pack", v->id);
  o->object = strdup (esp_center_rp_object (esp_have_uuid (o->have), what,
                                            object));
  if (!o->object) {
    esp_error ("malloc: origin: %m");
    return -1;
  }
  o->expect.size = v->pack_size;
  o->shared = shared_remote_center (store, source->center);
  return o->shared ? 0 : -1;
}

static int
open_plain (struct esp_origin *o, const struct esp_source *source)
{
  CLEANUP_FREE char *base = NULL;

  o->plain = true;
  o->size = source->size;
  /* Numbers are 32 bits wide, and rise: look at the last one only. */
  if (o->n && (uint64_t) esp_have_number (o->have, o->n - 1) << o->shift
      >= o->size) {
    errno = EBADMSG;
    esp_error ("%s: its segments lie behind its end of %" PRIu64 " bytes",
               source->url, o->size);
    return -1;
  }
  if (nbd_pool_is_url (source->url)) {
    o->nbd = nbd_pool_get (source->url);
    return o->nbd ? 0 : -1;
  }
  if (plain_split (source->url, &base, &o->object) == -1)
    return -1;
  memcpy (o->expect.etag, source->etag, sizeof o->expect.etag);
  o->expect.size = source->size;
  o->shared = shared_remote_url (base, NULL);
  return o->shared ? 0 : -1;
}

struct esp_origin *
esp_origin_open (struct esp_store *store, struct esp_have *have,
                 const struct esp_source *source)
{
  ESP_CLEANUP (origin) struct esp_origin *o = calloc (1, sizeof *o);
  bool center = source->center[0] != 0;

  if (!o || pthread_mutex_init (&o->mutex, NULL) != 0 ||
      !(o->name = strdup (center ? source->center : source->url))) {
    esp_error ("malloc: origin: %m");
    return NULL;
  }
  o->have = have;
  o->shift = esp_have_shift (have);
  o->n = esp_have_entries (have);
  if ((center ? open_center (o, store, source) : open_plain (o, source)) == -1)
    return NULL;
  return ESP_STEAL (o);
}

void
esp_origin_close (struct esp_origin *o)
{
  struct packer_node *next;

  if (!o)
    return;
  for (struct packer_node *p = o->idle; p; p = next) {
    next = p->next;
    packer_free (p);
  }
  shared_remote_put (o->shared);
  nbd_pool_put (o->nbd);
  if (o->key)
    esp_segment_key_free (o->key);
  pthread_mutex_destroy (&o->mutex);
  free (o->place);
  free (o->object);
  free (o->name);
  free (o);
}

/* --- what is known -------------------------------------------------------- */

const char *
esp_origin_name (const struct esp_origin *o)
{
  return o->name;
}

uint64_t
origin_place (const struct esp_origin *o, size_t entry)
{
  return o->plain ? (uint64_t) esp_have_number (o->have, entry) << o->shift
    : o->place[entry];
}

size_t
origin_stored (const struct esp_origin *o, size_t entry)
{
  uint64_t at, len = UINT64_C (1) << o->shift;

  if (!o->plain)
    return o->place[entry + 1] - o->place[entry];
  at = origin_place (o, entry);
  return o->size - at < len ? o->size - at : len;
}

uint64_t
esp_origin_wire (const struct esp_origin *o, size_t first, size_t n)
{
  if (n == 0)
    return 0;
  return origin_place (o, first + n - 1) + origin_stored (o, first + n - 1) -
    origin_place (o, first);
}

bool
esp_origin_adjacent (const struct esp_origin *o, size_t first)
{
  return first + 1 < o->n &&
    origin_place (o, first) + origin_stored (o, first) ==
    origin_place (o, first + 1);
}
