/* SPDX-License-Identifier: BSD-3-Clause */
/* A pull: a restore point with all that it stands on, names and maps now,
 * data when it is read.
 *
 * Manifests first, the whole chain (pull-chain.c), then, a batch at a time, maps
 * and indexes side by side, then the restore points of the batch, from the
 * root to the tip, which become durable and visible together (store/have.h).
 * A batch ends early when it takes long.  What a cut leaves is complete, and
 * the next pull goes on behind it.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <string.h>

#include "center/pull-internal.h"
#include "center/push-internal.h"
#include "util/clock.h"
#include "util/bits.h"
#include "util/host.h"

#define BATCH ESP_RP_BATCH_MAX
#define BATCH_TIME 2000         /* ms, then what is there is committed */

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
create_item (struct pull *pull, struct esp_rp_batch *batch, size_t i)
{
  struct pulled *p = &pull->item[i];
  struct esp_source source = { .variant = *p->variant };
  struct esp_rp rp = p->m.rp;   /* its pointers stay the manifest's */

  rp.kind = ESP_RP_DELAYED;
  snprintf (rp.name, sizeof rp.name, "%s", name_here (pull, i));
  strcpy (source.center, pull->center->config.name);
  return esp_rp_batch_add (batch, &rp, p->map, p->variant->shift, &p->index,
                           &source, p->profile.n ? &p->profile : NULL);
}

static int64_t
now_ms (void)
{
  return (int64_t) (esp_now_us () / 1000);
}

/* The N items from LAST on are in the batch. */
static int
commit_items (struct pull *pull, struct esp_rp_batch *batch, size_t last,
              size_t n)
{
  if (esp_rp_batch_commit (batch) == -1)
    return -1;
  for (size_t i = last; i < last + n; i++) {
    struct pulled *p = &pull->item[i];
    pull->done->rps++;
    pull->done->segments += p->index.n;
    pull->done->bytes_raw += p->m.rp.data_blocks << ESP_BLOCK_SHIFT;
    esp_index_clear (&p->index);
  }
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

/* What failed is said already; what came before it is kept. */
static int
keep_items (struct pull *pull, struct esp_rp_batch *batch, size_t last,
            size_t n)
{
  int saved = errno;

  if (n > 0)
    (void) commit_items (pull, batch, last, n);
  errno = saved;
  return -1;
}

static int
create_batch (struct pull *pull, size_t first, size_t n)
{
  CLEANUP_RP_BATCH struct esp_rp_batch *batch =
    esp_rp_batch_new (pull->center->store);
  int64_t began = now_ms ();
  size_t added = 0;

  if (!batch)
    return -1;
  for (size_t k = 0; k < n; k++) {
    size_t i = first - k;
    if (create_item (pull, batch, i) == -1)
      return keep_items (pull, batch, i + 1, added);
    added++;
    esp_map_free (pull->item[i].map);
    pull->item[i].map = NULL;
    if (tell (pull, pull->n - i) == -1)
      return keep_items (pull, batch, i, added);
    if (now_ms () - began < BATCH_TIME)
      continue;
    if (commit_items (pull, batch, i, added) == -1)
      return -1;
    began = now_ms ();
    added = 0;
  }
  return added == 0 ? 0 : commit_items (pull, batch, first - n + 1, added);
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
