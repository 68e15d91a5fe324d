/* SPDX-License-Identifier: BSD-3-Clause */
/* A pull: which variant, and centers as further sources. */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/pull-internal.h"
#include "util/host.h"

/* --- which variant ------------------------------------------------------- */

static bool
has_key (struct pull *pull, const struct esp_variant *v)
{
  char unheard[256];
  struct esp_catch outer;
  struct esp_segment_key *key;

  if (!v->key[0])
    return true;
  outer = esp_catch_begin (unheard, sizeof unheard);
  key = esp_segment_key_load (pull->center->store, v,
                              pull->options->key_file);
  esp_catch_end (outer);
  if (key)
    esp_segment_key_free (key);
  return key != NULL;
}

/* How far from the segment size that serves best, then what is to be moved. */
static bool
better (const struct esp_variant *a, const struct esp_variant *b)
{
  int x = abs ((int) a->shift - (int) ESP_SEGMENT_SHIFT_DEFAULT);
  int y = abs ((int) b->shift - (int) ESP_SEGMENT_SHIFT_DEFAULT);

  return x != y ? x < y : a->pack_size < b->pack_size;
}

static const struct esp_variant *
no_variant (struct pull *pull, const struct esp_manifest *m)
{
  const char *name = pull->center->config.name;
  char key[3 * ESP_KEY_NAME_MAX];

  if (m->nvariants == 0) {
    errno = EBADMSG;
    esp_error ("center %s: the manifest of %s has no variant", name,
               m->rp.name);
    return NULL;
  }
  errno = ENOKEY;
  esp_error ("center %s has restore point %s only encrypted, with the key %s, "
             "which is not here, or is another one of that name: 'espalier key "
             "import %s FILE'", name, m->rp.name,
             esp_escape (m->variants[0].key, key, sizeof key),
             m->variants[0].key);
  return NULL;
}

/* The one that was asked for; NULL where it is not there. */
static const struct esp_variant *
wanted (struct pull *pull, const struct esp_manifest *m)
{
  for (size_t i = 0; pull->options->variant && i < m->nvariants; i++)
    if (strcmp (m->variants[i].id, pull->options->variant) == 0)
      return &m->variants[i];
  return NULL;
}

const struct esp_variant *
pull_choose (struct pull *pull, const struct esp_manifest *m, unsigned shift)
{
  const struct esp_variant *best = wanted (pull, m);

  if (best && (!shift || best->shift == shift))
    return best;                /* a key that is missing is said later */
  best = NULL;
  for (size_t i = 0; i < m->nvariants; i++) {
    const struct esp_variant *v = &m->variants[i];
    if ((!shift || v->shift == shift) && has_key (pull, v) &&
        (!best || better (v, best)))
      best = v;
  }
  return best || shift ? best : no_variant (pull, m);
}

/* --- further sources ------------------------------------------------------ */

/* Restore points that could have the center as one more source. */
struct further {
  struct pull *pull;
  struct esp_rp *rp;
  size_t n;
};

static void
further_clear (struct further *f)
{
  int saved = errno;

  for (size_t i = 0; i < f->n; i++)
    esp_rp_clear (&f->rp[i]);
  free (f->rp);
  errno = saved;
}
#define CLEANUP_FURTHER __attribute__ ((cleanup (further_clear)))

/* 1: CENTER is a source of RP already (and of the variant asked for). */
static int
has_source (struct pull *pull, const struct esp_rp *rp)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };

  if (esp_sources_load (pull->center->store, &rp->uuid, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++)
    if (strcmp (list.s[i].center, pull->center->config.name) == 0 &&
        (!pull->options->variant ||
         strcmp (list.s[i].variant.id, pull->options->variant) == 0))
      return 1;
  return 0;
}

static int
collect (struct further *f, const esp_uuid *uuid)
{
  struct esp_catalog *catalog = esp_store_catalog (f->pull->center->store);
  esp_uuid next = *uuid;

  while (!esp_uuid_is_null (&next)) {
    struct esp_rp rp = { 0 }, *more;
    int r = 1;
    if (esp_catalog_rp_get (catalog, &next, &rp) == -1)
      return -1;
    next = rp.parent;
    if (rp.kind == ESP_RP_DELAYED)
      r = has_source (f->pull, &rp);
    if (r != 0) {
      esp_rp_clear (&rp);
      if (r == -1)
        return -1;
      continue;
    }
    more = reallocarray (f->rp, f->n + 1, sizeof *more);
    if (!more) {
      esp_rp_clear (&rp);
      return center_no_memory ();
    }
    f->rp = more;
    more[f->n++] = rp;
  }
  return 0;
}

static int
add_variant (struct pull *pull, const struct esp_manifest *m,
             const struct esp_variant *v)
{
  struct esp_source source = { .variant = *v };
  CLEANUP_INDEX struct esp_index index = { 0 };
  CLEANUP_MAP struct esp_map *map = esp_center_map (pull->center, m);

  if (!map ||
      esp_center_index (pull->center, m, v, map, pull->options->key_file,
                        &index) == -1)
    return -1;
  strcpy (source.center, pull->center->config.name);
  return esp_sources_add (pull->center->store, &m->rp.uuid, &source, &index);
}

static int
add_source (struct pull *pull, const struct esp_rp *rp)
{
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };
  const struct esp_variant *v;
  struct esp_have *have;
  unsigned shift;

  if (esp_center_manifest (pull->center, &rp->uuid, &m, NULL) == -1)
    return errno == ENOENT ? 0 : -1;
  if (!(have = esp_have_open (pull->center->store, &rp->uuid)))
    return -1;
  shift = esp_have_shift (have);
  esp_have_close (have);
  v = pull_choose (pull, &m, shift);
  return v ? add_variant (pull, &m, v) : 0;
}

/* It is served as well without this source: what is wrong with it is said,
 * and the others go on.
 */
static int
try_source (void *arg, size_t i)
{
  struct further *f = arg;
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = add_source (f->pull, &f->rp[i]);

  esp_catch_end (outer);
  if (r == -1)
    esp_warning ("%s: the center is no source of restore point %s", why,
                 f->rp[i].name);
  return 0;
}

int
pull_add_sources (struct pull *pull, const esp_uuid *uuid)
{
  CLEANUP_FURTHER struct further f = { .pull = pull };

  if (collect (&f, uuid) == -1)
    return -1;
  return center_parallel (f.n, center_threads (pull->center), try_source, &f);
}
