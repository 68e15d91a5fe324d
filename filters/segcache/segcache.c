/* SPDX-License-Identifier: BSD-3-Clause */
/* The segcache filter: what others fetched already is not fetched again.
 *
 * It is one of two filters, by the plugin, which nbdkit loads first:
 *
 *   over venue         all requests are passed on, without a function of ours
 *                      on their way; between the fork and the end the process
 *                      has an esp_shared, which the delayload filter's
 *                      engine draws on (docs/segment-cache.md)
 *   over any other     each connection is an esp_cdisk (cache/export.h);
 *                      here are nbdkit's names for it
 *
 * nbdkit's after_fork goes from the plugin outwards, cleanup comes back
 * inwards: so, over venue, the engine starts before there is an esp_shared,
 * and stops when it has been taken away.  It asks anew for each request, so
 * both are right; and if the two filters were in the wrong order, nothing
 * would change.
 *
 * At SIGTERM nbdkit runs .finalize, but not .close, of clients that are
 * connected: so a disk ends in .finalize.
 */

#include <config.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <nbdkit-filter.h>

#include "cache/export.h"
#include "common/common.h"
#include "names.h"
#include "params.h"
#include "stats/stats.h"
#include "store/store.h"
#include "tiers.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/stack.h"

#define CHANGE_MAX (UINT32_C (512) << 20)       /* bytes */

/* From after_fork to cleanup; each may be NULL. */
static struct esp_memory *memory;
static struct esp_shared *shared;
static struct esp_stats *stats;

/* Was the delayload filter loaded before this one: is it below? */
static bool delayload_below;

/* Who was loaded before is below. */
static void
segcache_load (void)
{
  delayload_below = esp_stack_has (ESP_MODULE_DELAYLOAD);
  segcache_params.overlay_below = esp_stack_has (ESP_MODULE_OVERLAY);
  filter_load (ESP_MODULE_SEGCACHE);
}

/* --- start and end ------------------------------------------------------- */

static int
open_stats (const char *dir)
{
  stats = esp_stats_open (dir, "nbdkit");
  if (!stats)
    return -1;
  return tiers_count (stats, memory, shared);
}

static void
close_all (void)
{
  tiers_print (memory, shared);
  if (stats) {
    tiers_stop (stats);
    esp_stats_close (ESP_STEAL (stats));
  }
  if (shared)
    esp_shared_close (ESP_STEAL (shared));
  if (memory)
    esp_memory_free (ESP_STEAL (memory));
}

static int
plain_after_fork (nbdkit_backend *backend)
{
  const struct segcache_params *p = &segcache_params;

  (void) backend;
  esp_raise_open_files ();
  memory = esp_memory_new (p->memory, p->shift);
  if (!memory)
    return -1;
  if (segcache_has_shared () && !(shared = esp_shared_open (&p->shared)))
    return -1;
  return p->stats ? open_stats (p->stats) : 0;
}

static void
plain_cleanup (nbdkit_backend *backend)
{
  (void) backend;
  close_all ();
}

static int
venue_stats (void)
{
  CLEANUP_FREE char *path = esp_store_default_path (esp_stack_get_store ());
  struct esp_store *store = path ? esp_store_open (path) : NULL;

  if (!store)
    return -1;
  CLEANUP_FREE char *dir = esp_stats_dir (store);
  esp_store_close (store);
  return dir ? open_stats (dir) : -1;
}

static int
venue_after_fork (nbdkit_backend *backend)
{
  struct esp_shared_params p = segcache_params.shared;

  (void) backend;
  p.memory = segcache_params.memory;
  if (!segcache_has_shared () && p.memory == 0) {
    nbdkit_debug ("segcache: neither nodes, nor a directory, nor memory: "
                  "all is passed on");
    return 0;
  }
  if (!esp_stack_has (ESP_MODULE_DELAYLOAD))
    esp_warning ("segcache: without --filter=delayload nothing is fetched "
                 "over venue, and nothing cached");
  else if (!delayload_below)
    nbdkit_debug ("segcache: is below delayload: nothing depends on that, "
                  "but it is meant to stand above");
  shared = esp_shared_open (&p);
  if (!shared || venue_stats () == -1)
    return -1;
  esp_shared_set (shared);
  return 0;
}

static void
venue_cleanup (nbdkit_backend *backend)
{
  (void) backend;
  esp_shared_set (NULL);
  close_all ();
}

/* --- connections --------------------------------------------------------- */

struct handle {
  char *name;                   /* of the export */
  struct filter_counts counts;
  struct esp_cdisk *disk;       /* from .prepare to .finalize */
  bool unknown;                 /* reads pass it by (names.h) */
};

static void
end_disk (struct handle *h)
{
  if (h->disk)
    esp_cdisk_close (ESP_STEAL (h->disk));
  filter_counts_end (&h->counts);
}

static void
handle_free (struct handle *h)
{
  end_disk (h);
  free (h->name);
  free (h);
}

ESP_DEFINE_CLEANUP (handle, struct handle *, handle_free)

/* A filter above, if there is one, counts what the client asks. */
static void
begin_counts (struct handle *h, struct esp_stack_slot *slot)
{
  if (!stats)
    return;
  slot->row = esp_stats_client (stats, slot->asked ? slot->asked : h->name,
                                ESP_STATS_EXPORT, h->name);
  filter_counts_begin (&h->counts, slot);
  esp_stats_client_put (slot->row);     /* H has its own */
}

static void *
segcache_open (nbdkit_next_open *next, nbdkit_context *context, int readonly,
               const char *exportname, int is_tls)
{
  ESP_STACK_SCOPE struct esp_stack_slot *slot = esp_stack_enter ();
  ESP_CLEANUP (handle) struct handle *h = calloc (1, sizeof *h);

  (void) is_tls;
  if (!h || !(h->name = strdup (exportname))) {
    nbdkit_error ("malloc: %m");
    return NULL;
  }
  if (next (context, readonly, exportname) == -1)
    return NULL;
  begin_counts (h, slot);
  return ESP_STEAL (h);
}

static void
segcache_close (void *handle)
{
  handle_free (handle);
}

/* The size is known here, and may be asked for from here on. */
static int
segcache_prepare (nbdkit_next *next, void *handle, int readonly)
{
  struct handle *h = handle;
  uint32_t min, preferred, max;
  int64_t size = next->get_size (next);

  (void) readonly;
  if (size == -1 || next->block_size (next, &min, &preferred, &max) == -1)
    return -1;
  const struct esp_cdisk_params p = {
    .id = segcache_params.id,
    .name = names_cached_as (h->name),
    .size = (uint64_t) size,
    .shift = segcache_params.shift,
    .block_min = min,
    .block_max = max,
    .row = h->counts.row,
  };
  h->unknown = names_unknown (h->name);
  h->disk = esp_cdisk_open (memory, shared, &p);
  return h->disk ? 0 : -1;
}

static int
segcache_finalize (nbdkit_next *next, void *handle)
{
  (void) next;
  end_disk (handle);
  return 0;
}

/* --- verbs --------------------------------------------------------------- */

/* Others who use a directory that we could not open would not hear of what is
 * written here.
 */
static int
segcache_can_write (nbdkit_next *next, void *handle)
{
  (void) handle;
  if (segcache_params.shared.dir && !(shared && esp_shared_dir (shared)))
    return 0;
  return next->can_write (next);
}

/* Whatever the plugin can: it reads. */
static int
segcache_can_cache (nbdkit_next *next, void *handle)
{
  (void) next;
  (void) handle;
  return NBDKIT_CACHE_NATIVE;
}

static int
below_pread (void *arg, void *buf, uint32_t count, uint64_t offset, int *err)
{
  nbdkit_next *next = arg;

  return next->pread (next, buf, count, offset, 0, err);
}

static struct esp_cdisk_below
below (nbdkit_next *next)
{
  return (struct esp_cdisk_below) { .arg = next, .pread = below_pread,
                                    .ending = filter_is_ending };
}

static int
segcache_pread (nbdkit_next *next, void *handle, void *buf, uint32_t count,
                uint64_t offset, uint32_t flags, int *err)
{
  const struct handle *h = handle;
  const struct esp_cdisk_below b = below (next);

  (void) flags;
  int r = h->unknown ? next->pread (next, buf, count, offset, 0, err)
    : esp_cdisk_read (h->disk, &b, buf, count, offset, err);
  return esp_stats_read (h->counts.asked, r, count);
}

static int
segcache_cache (nbdkit_next *next, void *handle, uint32_t count,
                uint64_t offset, uint32_t flags, int *err)
{
  const struct handle *h = handle;
  const struct esp_cdisk_below b = below (next);

  (void) flags;
  (void) err;
  if (!h->unknown)
    esp_cdisk_fetch (h->disk, &b, count, offset);
  return 0;
}

static int
segcache_pwrite (nbdkit_next *next, void *handle, const void *buf,
                 uint32_t count, uint64_t offset, uint32_t flags, int *err)
{
  const struct handle *h = handle;
  struct esp_cdisk_write *w = esp_cdisk_write_begin (h->disk, offset, count,
                                                     err);

  if (!w)
    return -1;
  int r = next->pwrite (next, buf, count, offset, flags, err);
  esp_cdisk_write_end (w, r == 0 ? buf : NULL);
  return esp_stats_write (h->counts.asked, r, count);
}

/* Zero and trim: a part at a time, as each segment of it is remembered while
 * it is changed.
 */
static int
change (nbdkit_next *next, const struct handle *h, uint32_t count,
        uint64_t offset, uint32_t flags, int *err,
        int (*verb) (nbdkit_next *, uint32_t, uint64_t, uint32_t, int *))
{
  int r = 0;

  while (count > 0 && r == 0) {
    uint32_t n = count < CHANGE_MAX ? count : CHANGE_MAX;
    struct esp_cdisk_write *w = esp_cdisk_write_begin (h->disk, offset, n,
                                                       err);
    r = w ? verb (next, n, offset, flags, err) : -1;
    if (w)
      esp_cdisk_write_end (w, NULL);
    count -= n;
    offset += n;
  }
  return esp_stats_write (h->counts.asked, r, 0);
}

static int
segcache_zero (nbdkit_next *next, void *handle, uint32_t count,
               uint64_t offset, uint32_t flags, int *err)
{
  return change (next, handle, count, offset, flags, err, next->zero);
}

static int
segcache_trim (nbdkit_next *next, void *handle, uint32_t count,
               uint64_t offset, uint32_t flags, int *err)
{
  return change (next, handle, count, offset, flags, err, next->trim);
}

#define NAMES                                                           \
  .name = "segcache",                                                   \
  .longname = "espalier segcache filter",                               \
  .description = "draws on what this host and other servers have read", \
  .load = segcache_load,                                                \
  .unload = segcache_params_free,                                       \
  .config = segcache_config,                                            \
  .config_complete = segcache_config_complete,                          \
  .config_help = SEGCACHE_HELP

static struct nbdkit_filter over_venue = {
  NAMES,
  .after_fork = venue_after_fork,
  .cleanup = venue_cleanup,
};

static struct nbdkit_filter over_others = {
  NAMES,
  .after_fork = plain_after_fork,
  .cleanup = plain_cleanup,
  .open = segcache_open,
  .close = segcache_close,
  .prepare = segcache_prepare,
  .finalize = segcache_finalize,
  .can_write = segcache_can_write,
  .can_cache = segcache_can_cache,
  .pread = segcache_pread,
  .pwrite = segcache_pwrite,
  .zero = segcache_zero,
  .trim = segcache_trim,
  .cache = segcache_cache,
};

static struct nbdkit_filter *
which (void)
{
  return esp_stack_has (ESP_MODULE_VENUE) ? &over_venue : &over_others;
}

/* nbdkit's macro defines it without a prototype; clang wants one. */
extern struct nbdkit_filter *filter_init (void);
NBDKIT_REGISTER_FILTER (*which ())
