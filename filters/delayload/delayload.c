/* SPDX-License-Identifier: BSD-3-Clause */
/* The delayload filter: before a read goes down to the venue plugin, what it
 * needs and is not local is fetched.
 *
 * What is fetched when, and from where, is libespalier's (common/delay);
 * here are nbdkit's names for it.  The restore point that a connection reads
 * stands in the thread's slot right behind .open (util/stack.h).  Nothing
 * else of the disk is changed: size, extents and all that it can are the
 * plugin's, which knows them without any data.
 *
 * At SIGTERM nbdkit runs .finalize, but not .close, of clients that are
 * connected: so a reader ends in .finalize.
 */

#include <config.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <nbdkit-filter.h>

#include "common/common.h"
#include "params.h"
#include "delay/delay.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/stack.h"

/* From after_fork to cleanup; NULL without the venue plugin. */
static struct esp_store *store;
static struct esp_delay *delay;

static void
delayload_load (void)
{
  filter_load (ESP_MODULE_DELAYLOAD);
}

/* --- start and end ------------------------------------------------------- */

static int
delayload_after_fork (nbdkit_backend *backend)
{
  (void) backend;
  if (!esp_stack_has (ESP_MODULE_VENUE)) {
    nbdkit_debug ("delayload: the plugin is not venue: all is passed on");
    return 0;
  }
  CLEANUP_FREE char *path = esp_store_default_path (esp_stack_get_store ());
  if (!path)
    return -1;
  esp_raise_open_files ();
  store = esp_store_open (path);
  if (!store)
    return -1;
  delayload_params.ending = filter_is_ending;
  delay = esp_delay_start (store, &delayload_params);
  return delay ? 0 : -1;
}

static void
print_counters (void)
{
  struct esp_delay_counters c;

  esp_delay_counters (delay, &c);
  nbdkit_debug ("delayload: %llu reads, %llu missed and waited %llu ms; "
                "%llu requests for %llu segments, %llu bytes; "
                "%llu ahead, %llu of them used; %llu in the background; "
                "%llu errors, %llu lies, %llu hedged, %llu healed, "
                "%llu given back; %llu from memory, %llu from a directory, "
                "%llu from a cluster, %llu waited for there",
                (unsigned long long) c.reads, (unsigned long long) c.misses,
                (unsigned long long) c.waited_us / 1000,
                (unsigned long long) c.requests,
                (unsigned long long) c.segments,
                (unsigned long long) c.bytes_wire,
                (unsigned long long) c.ahead_segments,
                (unsigned long long) c.ahead_used,
                (unsigned long long) c.background_segments,
                (unsigned long long) c.errors, (unsigned long long) c.lies,
                (unsigned long long) c.hedged,
                (unsigned long long) c.healed_segments,
                (unsigned long long) c.evicted_segments,
                (unsigned long long) c.from_memory,
                (unsigned long long) c.from_dir,
                (unsigned long long) c.from_cluster,
                (unsigned long long) c.cluster_waits);
}

static void
delayload_cleanup (nbdkit_backend *backend)
{
  (void) backend;
  if (delay) {
    print_counters ();
    esp_delay_stop (ESP_STEAL (delay));
  }
  if (store)
    esp_store_close (ESP_STEAL (store));
}

/* --- connections --------------------------------------------------------- */

struct handle {
  struct esp_delay_reader *reader;      /* NULL: passes everything on */
  struct filter_counts counts;
};

static void
end_reader (struct handle *h)
{
  if (h->reader)
    esp_delay_reader_close (ESP_STEAL (h->reader));
}

static int
open_below (struct handle *h, nbdkit_next_open *next, nbdkit_context *context,
            int readonly, const char *exportname)
{
  ESP_STACK_SCOPE struct esp_stack_slot *slot = esp_stack_enter ();

  if (next (context, readonly, exportname) == -1)
    return -1;
  if (!delay || !slot->opened)
    return 0;
  h->reader = esp_delay_reader_open (delay, slot->image);
  if (!h->reader)
    return -1;
  filter_counts_begin (&h->counts, slot);
  esp_delay_reader_count (h->reader, h->counts.row);
  return 0;
}

static void *
delayload_open (nbdkit_next_open *next, nbdkit_context *context,
                int readonly, const char *exportname, int is_tls)
{
  CLEANUP_FREE struct handle *h = calloc (1, sizeof *h);

  (void) is_tls;
  if (!h) {
    nbdkit_error ("calloc: %m");
    return NULL;
  }
  if (open_below (h, next, context, readonly, exportname) == -1)
    return NULL;
  return ESP_STEAL (h);
}

static void
delayload_close (void *handle)
{
  struct handle *h = handle;

  end_reader (h);
  filter_counts_end (&h->counts);
  free (h);
}

static int
delayload_finalize (nbdkit_next *next, void *handle)
{
  (void) next;
  end_reader (handle);
  return 0;
}

/* --- verbs --------------------------------------------------------------- */

static int
delayload_pread (nbdkit_next *next, void *handle, void *buf, uint32_t count,
                 uint64_t offset, uint32_t flags, int *err)
{
  struct handle *h = handle;

  int r = !h->reader ? 0 : esp_delay_read (h->reader, offset, count, err);

  if (r == 0)
    r = next->pread (next, buf, count, offset, flags, err);
  return esp_stats_read (h->counts.asked, r, count);
}

static int
delayload_cache (nbdkit_next *next, void *handle, uint32_t count,
                 uint64_t offset, uint32_t flags, int *err)
{
  struct handle *h = handle;

  /* A hint: the read that comes says what is wrong. */
  if (h->reader)
    (void) esp_delay_prefetch (h->reader, offset, count);
  return next->cache (next, count, offset, flags, err);
}

static struct nbdkit_filter filter = {
  .name = "delayload",
  .longname = "espalier delayload filter",
  .description = "fetches from image centers what is read and is not here",
  .load = delayload_load,
  .config = delayload_config,
  .config_help = DELAYLOAD_HELP,
  .after_fork = delayload_after_fork,
  .cleanup = delayload_cleanup,
  .open = delayload_open,
  .close = delayload_close,
  .finalize = delayload_finalize,
  .pread = delayload_pread,
  .cache = delayload_cache,
};

/* nbdkit's macro defines it without a prototype; clang wants one. */
extern struct nbdkit_filter *filter_init (void);
NBDKIT_REGISTER_FILTER (filter)
