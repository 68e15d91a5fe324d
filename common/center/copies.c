/* SPDX-License-Identifier: BSD-3-Clause */
/* Copies of stored restore points at centers (copies.h).
 *
 * Each center of the store is a *place*.  Places are opened when something is
 * to be mended, not before; what a place has of one restore point (its
 * manifest, and the indexes of the variants with our segment size) is kept
 * until another restore point is asked for.
 *
 * Nothing that a center says is believed: what counts is that the bytes have
 * the digest that this store noted when they were right.  So an index that
 * has another digest for the segment says only that this copy is no copy.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "center/center-internal.h"
#include "center/copies.h"
#include "util/bits.h"
#include "util/host.h"

/* A variant of the restore point at hand. */
struct copy {
  const struct esp_variant *variant;    /* in the place's manifest */
  struct esp_segment_key *key;
  struct esp_packer *packer;
  struct esp_index index;
  char object[ESP_OBJECT_MAX];
  char why[256];                /* it is of no use because; or "" */
};

struct place {
  const char *name;
  struct esp_center *center;    /* NULL: not opened yet, or OUT */
  bool out;                     /* it does not answer: WHY */
  bool looked;                  /* for the restore point at hand: */
  struct esp_manifest m;
  struct copy *copies;
  size_t n;
  char why[256];
};

struct esp_copies {
  struct esp_store *store;
  struct esp_center_config_list centers;
  struct place *places;         /* one for each of them */
  esp_uuid uuid;                /* the restore point at hand */
  unsigned shift;
  struct esp_map *map;          /* its blocks, as the store knows them */
};

/* --- life -------------------------------------------------------------------- */

static void
forget_copies (struct place *p)
{
  for (size_t i = 0; i < p->n; i++) {
    struct copy *c = &p->copies[i];
    esp_cleanup_packer (&c->packer);
    esp_cleanup_segment_key (&c->key);
    esp_index_clear (&c->index);
  }
  free (p->copies);
  p->copies = NULL;
  p->n = 0;
  esp_manifest_clear (&p->m);
  p->looked = false;
  if (!p->out)
    p->why[0] = 0;
}

struct esp_copies *
esp_copies_new (struct esp_store *store)
{
  struct esp_copies *c = calloc (1, sizeof *c);

  if (!c) {
    center_no_memory ();
    return NULL;
  }
  c->store = store;
  if (esp_center_list (store, &c->centers) == -1) {
    free (c);
    return NULL;
  }
  c->places = calloc (c->centers.n + 1, sizeof *c->places);
  if (!c->places) {
    center_no_memory ();
    esp_copies_free (c);
    return NULL;
  }
  for (size_t i = 0; i < c->centers.n; i++)
    c->places[i].name = c->centers.c[i].name;
  return c;
}

void
esp_copies_free (struct esp_copies *c)
{
  int saved = errno;

  if (!c)
    return;
  for (size_t i = 0; c->places && i < c->centers.n; i++) {
    forget_copies (&c->places[i]);
    esp_center_close (c->places[i].center);
  }
  free (c->places);
  esp_center_config_list_clear (&c->centers);
  esp_map_free (c->map);
  free (c);
  errno = saved;
}

/* Begin with another restore point, or segment size. */
static int
turn_to (struct esp_copies *c, const struct esp_rp *rp, unsigned shift)
{
  if (c->map && esp_uuid_eq (&c->uuid, &rp->uuid) && c->shift == shift)
    return 0;
  for (size_t i = 0; i < c->centers.n; i++)
    forget_copies (&c->places[i]);
  esp_map_free (ESP_STEAL (c->map));
  c->uuid = rp->uuid;
  c->shift = shift;
  c->map = esp_rp_load_map (c->store, &rp->uuid);
  return c->map ? 0 : -1;
}

/* --- what a place has -------------------------------------------------------- */

/* Is a failure the center's, not of what was asked for there? */
static bool
is_down (int e)
{
  return e == EIO || e == ETIMEDOUT || e == EACCES || e == ENOMEM;
}

/* Errors from here on are caught in WHY; outer catches go on behind it. */
static int
open_copy (struct esp_copies *c, struct place *p, struct copy *copy)
{
  char what[64];

  snprintf (what, sizeof what, "%s.pack", copy->variant->id);
  esp_center_rp_object (&c->uuid, what, copy->object);
  if (copy->variant->key[0] &&
      !(copy->key = esp_segment_key_load (c->store, copy->variant, NULL)))
    return -1;
  copy->packer = esp_packer_new (copy->variant->codec, 0, copy->key);
  if (!copy->packer)
    return -1;
  return esp_center_index (p->center, &p->m, copy->variant, c->map, NULL,
                           &copy->index);
}

static int
open_copies (struct esp_copies *c, struct place *p)
{
  p->copies = calloc (p->m.nvariants + 1, sizeof *p->copies);
  if (!p->copies)
    return center_no_memory ();
  for (size_t i = 0; i < p->m.nvariants; i++) {
    struct copy *copy = &p->copies[p->n];
    if (p->m.variants[i].shift != c->shift)
      continue;
    copy->variant = &p->m.variants[i];
    p->n++;
    struct esp_catch outer = esp_catch_begin (copy->why, sizeof copy->why);
    int r = open_copy (c, p, copy), e = errno;
    esp_catch_end (outer);
    if (r == 0)
      copy->why[0] = 0;
    else if (is_down (e)) {
      esp_error ("%s", copy->why);
      errno = e;
      return -1;
    }
  }
  if (p->n == 0)
    snprintf (p->why, sizeof p->why, "it has no variant with segments of "
              "%u KiB, as the digests here are", 1u << (c->shift - 10));
  return 0;
}

static int
look (struct esp_copies *c, struct place *p)
{
  if (!p->center && !(p->center = esp_center_open (c->store, p->name)))
    return -1;
  if (esp_center_manifest (p->center, &c->uuid, &p->m, NULL) == 0)
    return open_copies (c, p);
  if (errno == ENOENT)
    snprintf (p->why, sizeof p->why, "it does not have it");
  return errno == ENOENT ? 0 : -1;
}

/* Look at P, once for each restore point; what went wrong stands in its WHY. */
static void
look_once (struct esp_copies *c, struct place *p)
{
  char why[256] = "";

  if (p->out || p->looked)
    return;
  p->looked = true;
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = look (c, p);
  esp_catch_end (outer);
  if (r == 0)
    return;
  p->out = !p->center || is_down (errno);
  memcpy (p->why, why, sizeof why);
}

/* --- a segment ------------------------------------------------------------------ */

static int
get_segment (struct place *p, struct copy *c, uint32_t number,
             const esp_digest *digest, void *raw, size_t len)
{
  const struct esp_segment *s = esp_index_find (&c->index, number);

  if (!s || !esp_digest_eq (&s->digest, digest)) {
    errno = EBADMSG;
    esp_error ("its copy has other bytes there");
    return -1;
  }
  CLEANUP_FREE uint8_t *stored = malloc (s->stored);
  struct center_buffer sink = { stored, 0, s->stored };
  const struct esp_get get = { .offset = s->offset, .len = s->stored,
                               .sink = center_buffer_sink, .arg = &sink };
  if (!stored)
    return center_no_memory ();
  if (esp_remote_get (p->center->remote, c->object, &get) == -1)
    return errno == ENOENT ? center_missing (p->center, c->object) : -1;
  return esp_unpack_segment (c->packer, number, stored, s->stored, raw, len,
                             digest, false, c->object);
}

/* Ask each of P's copies; 0, or -1 with P's WHY. */
static int
ask (struct esp_copies *c, struct place *p, uint32_t number,
     const esp_digest *digest, void *raw, size_t len)
{
  look_once (c, p);
  if (p->out)
    return -1;
  for (size_t i = 0; i < p->n; i++) {
    struct copy *copy = &p->copies[i];
    char why[256] = "";

    if (copy->why[0]) {
      memcpy (p->why, copy->why, sizeof p->why);
      continue;
    }
    struct esp_catch outer = esp_catch_begin (why, sizeof why);
    int r = get_segment (p, copy, number, digest, raw, len), e = errno;
    esp_catch_end (outer);
    if (r == 0)
      return 0;
    memcpy (p->why, why, sizeof p->why);
    p->out = is_down (e);
  }
  return -1;
}

/* "center hq: it does not have it; center far: connect: ..." */
static void
tell_all (const struct esp_copies *c, const struct esp_rp *rp)
{
  CLEANUP_FREE char *text = NULL;
  size_t size;
  FILE *f = open_memstream (&text, &size);

  for (size_t i = 0; f && i < c->centers.n; i++)
    fprintf (f, "%scenter %s: %s", i ? "; " : "", c->places[i].name,
             c->places[i].why);
  if (f)
    fclose (f);
  if (c->centers.n == 0)
    esp_error ("the store knows no center that could have a copy");
  else
    esp_error ("%s", text && *text ? text : rp->name);
}

const char *
esp_copies_get (struct esp_copies *c, const struct esp_rp *rp, unsigned shift,
                uint32_t number, const esp_digest *digest, void *raw,
                size_t len)
{
  if (turn_to (c, rp, shift) == -1)
    return NULL;
  for (size_t i = 0; i < c->centers.n; i++)
    if (ask (c, &c->places[i], number, digest, raw, len) == 0)
      return c->places[i].name;
  tell_all (c, rp);
  errno = ENOENT;
  return NULL;
}
