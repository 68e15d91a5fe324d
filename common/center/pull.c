/* SPDX-License-Identifier: BSD-3-Clause */
/* A pull: a restore point with all that it stands on, names and maps now,
 * data when it is read.
 *
 * Manifests first, the whole chain (pull-chain.c), then, a batch at a time, maps
 * and indexes side by side, then the restore points of the batch one after
 * another, from the root to the tip: each is complete before the next
 * begins.  What a cut leaves is complete, and the next pull goes on behind it.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/pull-internal.h"
#include "center/push-internal.h"
#include "util/bits.h"
#include "util/host.h"

#define BATCH 64

/* --- before anything changes --------------------------------------------------- */

/* The name that M gets here. */
static const char *
name_here (const struct pull *pull, size_t i)
{
  return i == 0 && pull->options->as ? pull->options->as
    : pull->item[i].m.rp.name;
}

static int
check_name (const struct pull *pull, size_t i)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  const char *name = name_here (pull, i);
  char unheard[512], text[ESP_UUID_TEXT];
  struct esp_catch outer = esp_catch_begin (unheard, sizeof unheard);
  int r = esp_catalog_rp_find (esp_store_catalog (pull->center->store), name,
                               &rp);

  esp_catch_end (outer);
  if (r == -1 || strcmp (rp.name, name) != 0)
    return 0;                   /* NAME may be the beginning of a UUID */
  errno = EEXIST;
  esp_error ("restore point %s of center %s: another one here (%s) has that "
             "name: 'espalier rp rename %s NEWNAME'%s", name,
             pull->center->config.name, esp_uuid_text (&rp.uuid, text), name,
             i == 0 ? ", or give the new one another name by --as" : "");
  return -1;
}

static int
check_items (struct pull *pull)
{
  if (pull->options->as &&
      esp_name_check (pull->options->as, "restore point") == -1)
    return -1;
  for (size_t i = 0; i < pull->n; i++) {
    struct pulled *p = &pull->item[i];
    if (check_name (pull, i) == -1 ||
        !(p->variant = pull_choose (pull, &p->m, 0)))
      return -1;
  }
  return 0;
}

/* --- fetching -------------------------------------------------------------------- */

struct batch { struct pull *pull; size_t first; };

/* A profile that cannot be read is none: it saves time, nothing else. */
static int
fetch_profile (struct pull *pull, struct pulled *p)
{
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = center_profile_get (pull->center, &p->m.rp.uuid, p->m.rp.size,
                              &p->profile, NULL);
  int e = errno;

  esp_catch_end (outer);
  if (r == 0)
    return 0;
  esp_profile_clear (&p->profile);
  if (e != ENOENT)
    esp_warning ("%s: it is not used", why);
  return 0;
}

/* Items from the end of the list are nearer to the root. */
static int
fetch_item (void *arg, size_t i)
{
  struct batch *b = arg;
  struct pull *pull = b->pull;
  struct pulled *p = &pull->item[b->first - i];

  p->map = esp_center_map (pull->center, &p->m);
  if (!p->map ||
      esp_center_index (pull->center, &p->m, p->variant, p->map,
                        pull->options->key_file, &p->index) == -1)
    return -1;
  return fetch_profile (pull, p);
}

static int
create_item (struct pull *pull, size_t i)
{
  struct pulled *p = &pull->item[i];
  struct esp_source source = { .variant = *p->variant };
  struct esp_rp rp = p->m.rp;   /* its pointers stay the manifest's */

  rp.kind = ESP_RP_DELAYED;
  snprintf (rp.name, sizeof rp.name, "%s", name_here (pull, i));
  strcpy (source.center, pull->center->config.name);
  if (esp_rp_create_delayed (pull->center->store, &rp, p->map,
                             p->variant->shift, &p->index, &source,
                             p->profile.n ? &p->profile : NULL) == -1)
    return -1;
  pull->done->rps++;
  pull->done->segments += p->index.n;
  pull->done->bytes_raw += rp.data_blocks << ESP_BLOCK_SHIFT;
  return 0;
}

static int
tell (struct pull *pull, size_t done)
{
  if (!pull->options->progress ||
      pull->options->progress (pull->options->arg, done, pull->n) == 0)
    return 0;
  errno = ECANCELED;
  esp_error ("interrupted: what came is complete, the same command goes on");
  return -1;
}

static int
create_batch (struct pull *pull, size_t first, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    struct pulled *p = &pull->item[first - i];
    if (create_item (pull, first - i) == -1)
      return -1;
    esp_map_free (p->map);
    p->map = NULL;
    esp_index_clear (&p->index);
    if (tell (pull, pull->n - (first - i)) == -1)
      return -1;
  }
  return 0;
}

static int
pull_items (struct pull *pull)
{
  size_t left = pull->n;

  while (left > 0) {
    struct batch b = { pull, left - 1 };
    size_t n = left < BATCH ? left : BATCH;
    if (center_parallel (n, center_threads (pull->center), fetch_item,
                         &b) == -1 ||
        create_batch (pull, left - 1, n) == -1)
      return -1;
    left -= n;
  }
  return 0;
}

/* Learn what the center knows of the boots of a tip that was here. */
static int
refresh_profile (struct pull *pull, const esp_uuid *uuid)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (esp_catalog_rp_get (esp_store_catalog (pull->center->store), uuid,
                          &rp) == -1)
    return -1;
  return center_profile_pull (pull->center, uuid, rp.size);
}

static int
known_there (struct pull *pull, const esp_uuid *uuid)
{
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };

  return pull->n > 0 ? 0 : esp_center_manifest (pull->center, uuid, &m, NULL);
}

int
esp_pull_rp (struct esp_center *center, const esp_uuid *uuid,
             const struct esp_pull_options *options,
             struct esp_transfer *done)
{
  CLEANUP_PULL struct pull pull = {
    .center = center, .options = options, .done = done
  };

  if (esp_rp_writable (center->store) == -1 ||
      pull_chain (&pull, uuid) == -1 || check_items (&pull) == -1 ||
      pull_items (&pull) == -1)
    return -1;
  if (esp_uuid_is_null (&pull.local))
    return 0;
  if (pull.n == 0 && known_there (&pull, uuid) == -1)
    return errno == ENOENT ? 0 : -1;    /* here, and not there: nothing to do */
  if (pull_add_sources (&pull, &pull.local) == -1)
    return -1;
  if (pull.n > 0)
    return 0;
  done->already++;
  return refresh_profile (&pull, uuid);
}
