/* SPDX-License-Identifier: BSD-3-Clause */
/* The overlay filter: each client writes into an overlay of its own.
 *
 * All that is done to blocks is in libespalier (common/overlay); here are
 * nbdkit's names for it, the parameters, and the way from a connection to
 * its overlay: the name is taken apart in .open, where also a kept
 * overlay's tip is pinned for the venue plugin below (util/stack.h), and
 * the overlay is opened in .prepare, which is where the size is known.  Over
 * venue the gate (boot/gate.h) is asked before any of that.
 *
 * Nothing is opened before the fork.  At SIGTERM nbdkit runs .finalize, but
 * not .close, of clients that are connected: so .finalize flushes.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "boot/gate.h"
#include "client.h"
#include "common/common.h"
#include "params.h"
#include "overlay/overlay.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/stack.h"

/* From after_fork to cleanup. */
static struct esp_overlay_place *place;

static void
overlay_load (void)
{
  filter_load (ESP_MODULE_OVERLAY);
}

static void
overlay_unload (void)
{
  params_free ();
}

/* --- start and end ------------------------------------------------------- */

static int
overlay_get_ready (int thread_model)
{
  struct stat st;

  (void) thread_model;
  if (!params_dir)
    return 0;
  if (stat (params_dir, &st) == -1) {
    nbdkit_error ("overlays: %s: %m", params_dir);
    return -1;
  }
  if (!S_ISDIR (st.st_mode)) {
    nbdkit_error ("overlays: %s: is not a directory", params_dir);
    return -1;
  }
  return 0;
}

static int
overlay_after_fork (nbdkit_backend *backend)
{
  (void) backend;
  esp_raise_open_files ();
  place = esp_overlay_place_open (params_dir, &params);
  if (!place)
    return -1;
  return params_private_only ? 0 : esp_overlay_place_start (place);
}

static void
overlay_cleanup (nbdkit_backend *backend)
{
  (void) backend;
  esp_overlay_place_close (place);
  place = NULL;
}

/* --- connections --------------------------------------------------------- */

struct handle {
  struct client client;
  esp_uuid tip;                 /* null where it is not known */
  bool readonly;                /* nbdkit -r, or a read-only ticket */
  bool has_overlay;             /* to be opened; false: passes everything on */
  struct esp_overlay *overlay;
  struct filter_counts counts;
};

static void
handle_free (struct handle *h)
{
  esp_overlay_close (h->overlay);
  filter_counts_end (&h->counts);
  client_clear (&h->client);
  free (h);
}

ESP_DEFINE_CLEANUP (handle, struct handle *, handle_free)

static int
check_place (const struct client *c)
{
  if (c->is_private || !params_private_only)
    return 0;
  nbdkit_error ("@%s: clients with a name need a directory for their "
                "overlays: start nbdkit with overlay-dir=DIR, or with "
                "overlay-mode=memory", c->client);
  return -1;
}

/* Find out over which tip the client goes on, and pin it. */
static int
pin_tip (struct handle *h, struct esp_stack_slot *slot)
{
  const struct esp_overlay_id id = client_id (&h->client);
  struct esp_overlay_base base;

  if (h->client.is_private || h->client.is_rp)
    return 0;
  if (esp_overlay_peek (place, &id, &base) == -1)
    return -1;
  if (h->readonly)
    h->has_overlay = base.exists;
  if (base.exists && !esp_uuid_is_null (&base.tip)) {
    slot->pinned = true;
    slot->pin = base.tip;
  }
  return 0;
}

/* What was opened below: its tip. */
static int
take_tip (struct handle *h, const struct esp_stack_slot *slot)
{
  struct esp_overlay_base base;

  if (slot->opened)
    h->tip = slot->tip;
  if (!h->client.is_rp || h->client.is_private)
    return 0;
  if (client_set_rp (&h->client, &h->tip) == -1)
    return -1;
  if (!h->readonly)
    return 0;
  const struct esp_overlay_id id = client_id (&h->client);
  if (esp_overlay_peek (place, &id, &base) == -1)
    return -1;
  h->has_overlay = base.exists;
  return 0;
}

/* Whose overlay.  A read-only ticket that names no client is for the disk
 * below, whoever comes with it.
 */
static int
find_client (struct handle *h, const char *exportname)
{
  bool over_venue = esp_stack_has (ESP_MODULE_VENUE), readonly = false;
  enum client_from from = params_client;

  if (over_venue && esp_gate_pass (exportname, &readonly) == -1)
    return -1;
  if (readonly) {
    nbdkit_debug ("overlay: the ticket is read-only, and so is the export");
    h->readonly = true;
    from = CLIENT_CONNECTION;
  }
  h->has_overlay = !h->readonly;
  return client_parse (&h->client, exportname, over_venue, from);
}

static int
open_below (struct handle *h, struct esp_stack_slot *slot,
            nbdkit_next_open *next, nbdkit_context *context)
{
  if (check_place (&h->client) == -1 || pin_tip (h, slot) == -1)
    return -1;
  if (slot->depth == 1)
    slot->asked = h->client.name;
  /* Nobody ever writes below. */
  return next (context, 1, h->client.export) == -1 ? -1 : take_tip (h, slot);
}

static void *
overlay_open (nbdkit_next_open *next, nbdkit_context *context, int readonly,
              const char *exportname, int is_tls)
{
  ESP_STACK_SCOPE struct esp_stack_slot *slot = esp_stack_enter ();
  ESP_CLEANUP (handle) struct handle *h = calloc (1, sizeof *h);

  (void) is_tls;
  if (!h) {
    nbdkit_error ("calloc: %m");
    return NULL;
  }
  h->readonly = readonly;
  if (find_client (h, exportname) == -1 ||
      open_below (h, slot, next, context) == -1) {
    esp_gate_failed ("overlay");
    return NULL;
  }
  filter_counts_begin (&h->counts, slot);
  return ESP_STEAL (h);
}

static void
overlay_close (void *handle)
{
  handle_free (handle);
}

/* nbdkit asserts that these were asked before their verbs are used. */
static int64_t
ask_below (nbdkit_next *next)
{
  if (next->can_extents (next) == -1 || next->can_cache (next) == -1)
    return -1;
  return next->get_size (next);
}

static int
overlay_prepare (nbdkit_next *next, void *handle, int readonly)
{
  struct handle *h = handle;
  const struct esp_overlay_id id = client_id (&h->client);
  int64_t size = ask_below (next);

  (void) readonly;
  if (size == -1)
    return -1;
  if (!h->has_overlay)
    return 0;
  h->overlay = esp_overlay_open (place, h->client.is_private ? NULL : &id,
                                 &h->tip, (uint64_t) size);
  if (h->overlay)
    return 0;
  esp_gate_failed ("overlay");
  if (errno == ESTALE)
    nbdkit_error ("overlay %s/%s@%s was made over another disk than the one "
                  "below now (%" PRIi64 " bytes): connect again, and if that "
                  "does not help, reset it (espalier overlay reset)",
                  id.venue, id.disk, id.client, size);
  return -1;
}

/* Not reported to nbdkit: it would say so to nobody, and has been said. */
static int
overlay_finalize (nbdkit_next *next, void *handle)
{
  struct handle *h = handle;
  int err;

  (void) next;
  if (h->overlay)
    esp_overlay_flush (h->overlay, &err);
  return 0;
}

/* --- what the export can ------------------------------------------------- */

static int
overlay_block_size (nbdkit_next *next, void *handle, uint32_t *minimum,
                    uint32_t *preferred, uint32_t *maximum)
{
  (void) handle;
  if (next->block_size (next, minimum, preferred, maximum) == -1)
    return -1;
  if (*minimum == 0) {          /* below has no opinion */
    *minimum = 1;
    *preferred = ESP_BLOCK_SIZE;
    *maximum = UINT32_MAX;
  }
  else if (*preferred < ESP_BLOCK_SIZE)
    *preferred = ESP_BLOCK_SIZE;
  return 0;
}

static int
overlay_can_write (nbdkit_next *next, void *handle)
{
  const struct handle *h = handle;

  (void) next;
  return !h->readonly;
}

static int
overlay_yes (nbdkit_next *next, void *handle)
{
  (void) next;
  (void) handle;
  return 1;
}

static int
overlay_can_zero (nbdkit_next *next, void *handle)
{
  (void) next;
  (void) handle;
  return NBDKIT_ZERO_NATIVE;
}

static int
overlay_can_fua (nbdkit_next *next, void *handle)
{
  (void) next;
  (void) handle;
  return NBDKIT_FUA_NATIVE;
}

static int
overlay_can_cache (nbdkit_next *next, void *handle)
{
  (void) next;
  (void) handle;
  return NBDKIT_CACHE_NATIVE;
}

/* Connections of a private overlay do not see each other's writes. */
static int
overlay_can_multi_conn (nbdkit_next *next, void *handle)
{
  const struct handle *h = handle;

  if (h->overlay && h->client.is_private)
    return 0;
  return next->can_multi_conn (next);
}

/* --- the disk below ------------------------------------------------------ */

static int
below_pread (void *ctx, void *buf, uint64_t count, uint64_t offset, int *err)
{
  nbdkit_next *next = ctx;

  return next->pread (next, buf, (uint32_t) count, offset, 0, err);
}

static int
below_cache (void *ctx, uint64_t offset, uint64_t count, int *err)
{
  nbdkit_next *next = ctx;

  if (next->can_cache (next) == NBDKIT_CACHE_NONE)
    return 0;
  return next->cache (next, (uint32_t) count, offset, 0, err);
}

/* nbdkit knows "zero" and "hole" apart; a hole that is not zero has bytes
 * that somebody may read, so it is data.
 */
static enum esp_state
state_of_type (uint32_t type)
{
  if ((type & NBDKIT_EXTENT_ZERO) == 0)
    return ESP_DATA;
  return type & NBDKIT_EXTENT_HOLE ? ESP_ABSENT : ESP_ZERO;
}

static void
extents_free (struct nbdkit_extents *e)
{
  nbdkit_extents_free (e);
}
ESP_DEFINE_CLEANUP (extents, struct nbdkit_extents *, extents_free)

static int
below_extents (void *ctx, uint64_t offset, uint64_t count, bool req_one,
               esp_extent_fn fn, void *arg, int *err)
{
  nbdkit_next *next = ctx;
  ESP_CLEANUP (extents) struct nbdkit_extents *list =
    nbdkit_extents_new (offset, offset + count);

  if (!list) {
    *err = ENOMEM;
    return -1;
  }
  if (next->extents (next, (uint32_t) count, offset,
                     req_one ? NBDKIT_FLAG_REQ_ONE : 0, list, err) == -1)
    return -1;
  for (size_t i = 0; i < nbdkit_extents_count (list); ++i) {
    struct nbdkit_extent e = nbdkit_get_extent (list, i);
    int r = fn (arg, e.offset, e.length, state_of_type (e.type));
    if (r) {
      *err = EIO;
      return r == 1 ? 0 : -1;
    }
  }
  return 0;
}

static struct esp_below
below (nbdkit_next *next)
{
  return (struct esp_below) { .ctx = next, .pread = below_pread,
                              .extents = below_extents,
                              .cache = below_cache };
}

/* --- verbs --------------------------------------------------------------- */

static int
overlay_pread (nbdkit_next *next, void *handle, void *buf, uint32_t count,
               uint64_t offset, uint32_t flags, int *err)
{
  struct handle *h = handle;
  const struct esp_below b = below (next);

  int r = !h->overlay ? next->pread (next, buf, count, offset, flags, err)
    : esp_overlay_pread (h->overlay, &b, buf, count, offset, err);

  return esp_stats_read (h->counts.asked, r, count);
}

static int
overlay_pwrite (nbdkit_next *next, void *handle, const void *buf,
                uint32_t count, uint64_t offset, uint32_t flags, int *err)
{
  struct handle *h = handle;
  const struct esp_below b = below (next);

  int r = esp_overlay_pwrite (h->overlay, &b, buf, count, offset,
                              flags & NBDKIT_FLAG_FUA, err);

  return esp_stats_write (h->counts.asked, r, count);
}

/* Zero and trim: both leave zeroes that take no space. */
static int
overlay_zero (nbdkit_next *next, void *handle, uint32_t count,
              uint64_t offset, uint32_t flags, int *err)
{
  struct handle *h = handle;
  const struct esp_below b = below (next);

  int r = esp_overlay_zero (h->overlay, &b, count, offset,
                            flags & NBDKIT_FLAG_FUA, err);

  return esp_stats_write (h->counts.asked, r, 0);
}

static int
overlay_flush (nbdkit_next *next, void *handle, uint32_t flags, int *err)
{
  struct handle *h = handle;

  (void) next;
  (void) flags;
  return h->overlay ? esp_overlay_flush (h->overlay, err) : 0;
}

static int
add_extent (void *arg, uint64_t offset, uint64_t len, enum esp_state state)
{
  static const uint32_t types[] = {
    [ESP_ABSENT] = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO,
    [ESP_DATA] = 0,
    [ESP_ZERO] = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO,
  };

  return nbdkit_add_extent (arg, offset, len, types[state]);
}

static int
overlay_extents (nbdkit_next *next, void *handle, uint32_t count,
                 uint64_t offset, uint32_t flags,
                 struct nbdkit_extents *extents, int *err)
{
  struct handle *h = handle;
  const struct esp_below b = below (next);
  bool req_one = flags & NBDKIT_FLAG_REQ_ONE;

  /* Without an overlay too, so that nothing passes the request's end. */
  if (!h->overlay)
    return below_extents (next, offset, count, req_one, add_extent, extents,
                          err);
  return esp_overlay_extents (h->overlay, &b, offset, count, req_one,
                              add_extent, extents, err);
}

static int
overlay_cache (nbdkit_next *next, void *handle, uint32_t count,
               uint64_t offset, uint32_t flags, int *err)
{
  struct handle *h = handle;
  const struct esp_below b = below (next);

  (void) flags;
  if (!h->overlay)
    return below_cache (next, offset, count, err);
  return esp_overlay_cache (h->overlay, &b, offset, count, err);
}

static struct nbdkit_filter filter = {
  .name = "overlay",
  .longname = "espalier overlay filter",
  .description = "what each client writes stays its own",
  .load = overlay_load,
  .unload = overlay_unload,
  .config = params_config,
  .config_complete = params_config_complete,
  .config_help = PARAMS_HELP,
  .get_ready = overlay_get_ready,
  .after_fork = overlay_after_fork,
  .cleanup = overlay_cleanup,
  .open = overlay_open,
  .close = overlay_close,
  .prepare = overlay_prepare,
  .finalize = overlay_finalize,
  .block_size = overlay_block_size,
  .can_write = overlay_can_write,
  .can_flush = overlay_yes,
  .can_fua = overlay_can_fua,
  .can_trim = overlay_yes,
  .can_zero = overlay_can_zero,
  .can_fast_zero = overlay_yes,
  .can_extents = overlay_yes,
  .can_multi_conn = overlay_can_multi_conn,
  .can_cache = overlay_can_cache,
  .pread = overlay_pread,
  .pwrite = overlay_pwrite,
  .zero = overlay_zero,
  .trim = overlay_zero,
  .flush = overlay_flush,
  .extents = overlay_extents,
  .cache = overlay_cache,
};

/* nbdkit's macro defines it without a prototype; clang wants one. */
extern struct nbdkit_filter *filter_init (void);
NBDKIT_REGISTER_FILTER (filter)
