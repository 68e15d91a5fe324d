/* SPDX-License-Identifier: BSD-3-Clause */
/* The venue plugin: an export name becomes a tip, a tip becomes an image,
 * and the image is read.
 *
 * Everything that knows of files, maps and the catalog is in libespalier;
 * here are nbdkit's names for it.  A handle holds one reference to an image,
 * which all connections to the same tip share, and so keeps that restore
 * point from being deleted or merged while the connection lasts.  A venue
 * is looked up once, when a connection opens: what it is mapped to later
 * reaches new connections only.
 *
 * The store is opened twice: in get_ready, to refuse a wrong path, venue or
 * start before nbdkit forks and while somebody reads its messages, and
 * closed again; then in after_fork, since SQLite must not be carried across
 * a fork.
 *
 * Whether a client may have what it asks for is boot/gate.h's to say; the
 * overlay filter asks before this plugin, and opens nothing for who may not.
 *
 * With the overlay filter above, that one may pin the tip (util/stack.h):
 * a client that kept its writes goes on over the tip they were made over.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/gate.h"
#include "catalog/catalog.h"
#include "chain/chain.h"
#include "stats/stats.h"
#include "store/image.h"
#include "store/store.h"
#include "store/venue.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/name.h"
#include "util/stack.h"

#include "venue.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* A tip can be taken from its venue and deleted between our look at the
 * catalog and the opening of its files; so often we look again.
 */
#define OPEN_TRIES 5

struct esp_store *store;
static struct esp_stats *stats;         /* open as long as the store */

static void
venue_load (void)
{
  static const struct esp_host host = {
    .error = nbdkit_verror,
    .debug = nbdkit_vdebug,
    .seldom = true,
  };

  esp_set_host (&host);
  esp_stack_add (ESP_MODULE_VENUE);
}

static void
venue_unload (void)
{
  params_free ();
}

static void
venue_dump_plugin (void)
{
  printf ("espalier_version=%s\n", esp_version ());
  printf ("espalier_nbdkit_version=%s\n", NBDKIT_BUILD_VERSION);
  printf ("espalier_store_version=%u\n", (unsigned) ESP_STORE_VERSION);
  printf ("espalier_chain_version=%u\n", (unsigned) ESP_CHAIN_VERSION);
  printf ("espalier_chain_depth_max=%u\n", ESP_CHAIN_DEPTH_MAX);
  printf ("espalier_disk_max=%" PRIu64 "\n", ESP_DISK_MAX);
  printf ("espalier_block_size=%" PRIu64 "\n", ESP_BLOCK_SIZE);
}

static int
venue_get_ready (void)
{
  struct esp_store *s = esp_store_open (params_store);
  int r;

  if (!s)
    return -1;
  r = params_check (s);
  esp_store_close (s);
  if (r == -1)
    return -1;

  if (!esp_stack_has (ESP_MODULE_OVERLAY))
    fprintf (stderr, "nbdkit: venue: exports are read-only; "
             "for writable disks add --filter=overlay\n");
  return 0;
}

static int
venue_after_fork (void)
{
  esp_raise_open_files ();
  store = esp_store_open (params_store);
  if (!store || esp_image_keep_idle (true) == -1)
    return -1;
  CLEANUP_FREE char *dir = esp_stats_dir (store);
  if (dir)
    stats = esp_stats_open (dir, "nbdkit");
  esp_gate_open (store, &params_gate);
  return stats ? 0 : -1;
}

static void
venue_cleanup (void)
{
  esp_image_keep_idle (false);
  esp_gate_close ();
  if (stats)
    esp_stats_close (ESP_STEAL (stats));
  if (store)
    esp_store_close (ESP_STEAL (store));
}

/* --- connections ----------------------------------------------------- */

struct handle {
  struct esp_image *image;
  struct esp_export export;
  char tip_name[ESP_NAME_MAX + 1];
  uint64_t tip_created;         /* seconds since the epoch */
  char *description;            /* made when it is asked for */
  struct esp_stats_row *row;    /* of this connection, or NULL */
  struct esp_stats_row *asked;  /* the same, where no filter of ours counts */
};

/* esp_image_open, but what it says goes to WHY. */
static struct esp_image *
open_image (const esp_uuid *tip, char *why, unsigned size)
{
  struct esp_image *image;

  esp_catch_errors (why, size);
  image = esp_image_open (store, tip);
  esp_catch_errors (NULL, 0);
  return image;
}

/* The image that EXPORT asks for now.  A pin of the overlay filter decides
 * what is opened, but not whether: the venue has to be one of ours.
 */
static struct esp_image *
find_image (const struct esp_export *export)
{
  const struct esp_stack_slot *slot = esp_stack_slot ();
  struct esp_image *image;
  char why[1024];
  esp_uuid tip;

  for (int i = 1; ; i++) {
    if (esp_export_tip (store, export, start, &tip) == -1)
      return NULL;
    if (slot->pinned)
      tip = slot->pin;
    image = open_image (&tip, why, sizeof why);
    if (image)
      return image;
    if (errno != ENOENT || slot->pinned || i == OPEN_TRIES) {
      nbdkit_error ("%s", why);
      return NULL;
    }
    nbdkit_debug ("venue: %s: looking again: %s", export->name, why);
  }
}

/* What messages and descriptions say of the tip; its UUID if need be. */
static void
name_tip (struct handle *h)
{
  const esp_uuid *tip = esp_image_uuid (h->image);

  if (esp_catalog_rp_name (esp_store_catalog (store), tip, h->tip_name,
                           &h->tip_created) == -1)
    esp_uuid_text (tip, h->tip_name);
}

static void
venue_close (void *handle)
{
  struct handle *h = handle;

  esp_stats_client_put (h->row);
  if (h->image)
    esp_image_close (h->image);
  free (h->description);
  free (h);
}

ESP_DEFINE_CLEANUP (handle, struct handle *, venue_close)

/* The connection counts for its venue's disk, or for its restore point by the
 * name that this has.
 */
static void
count_connection (struct handle *h, struct esp_stack_slot *slot)
{
  struct esp_export disk = h->export;
  char name[ESP_EXPORT_MAX], text[ESP_EXPORT_MAX];

  disk.client[0] = 0;
  if (disk.is_rp)
    snprintf (disk.name, sizeof disk.name, "%s", h->tip_name);
  esp_export_format (&h->export, name, sizeof name);
  h->row = esp_stats_client (stats, slot->asked ? slot->asked : name,
                             ESP_STATS_VENUE,
                             esp_export_format (&disk, text, sizeof text));
  h->asked = slot->depth == 0 ? h->row : NULL;
  slot->row = h->row;
}

/* May the client, and what does it ask for? */
static int
admit (struct handle *h)
{
  const char *name = nbdkit_export_name ();
  bool readonly;                /* nothing is ever written here */

  if (!name || esp_gate_pass (name, &readonly) == -1 ||
      esp_export_parse (name, &h->export) == -1)
    return -1;
  memset (h->export.ticket, 0, sizeof h->export.ticket);
  return 0;
}

static void *
venue_open (int readonly __attribute__ ((unused)))
{
  struct esp_stack_slot *slot = esp_stack_slot ();
  ESP_CLEANUP (handle) struct handle *h = calloc (1, sizeof *h);
  char text[ESP_EXPORT_MAX];

  if (!h) {
    nbdkit_error ("calloc: %m");
    return NULL;
  }
  if (admit (h) == -1)
    return NULL;
  h->image = find_image (&h->export);
  if (!h->image) {
    esp_gate_failed ("disk");
    return NULL;
  }

  name_tip (h);
  esp_gate_opened (h->tip_name);
  nbdkit_debug ("venue: open %s: tip %s, depth %u, %" PRIu64 " bytes",
                esp_export_format (&h->export, text, sizeof text),
                h->tip_name, esp_chain_depth (esp_image_chain (h->image)),
                esp_image_size (h->image));

  count_connection (h, slot);
  slot->opened = true;
  slot->tip = *esp_image_uuid (h->image);
  slot->image = h->image;
  return ESP_STEAL (h);
}

/* "What the venue says of itself — tip NAME, date". */
static const char *
venue_export_description (void *handle)
{
  struct handle *h = handle;
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  char why[256], date[32] = "no date";
  const char *said = "";

  /* A venue that is gone meanwhile still has a tip to tell of. */
  esp_catch_errors (why, sizeof why);
  if (!h->export.is_rp
      && esp_catalog_venue_get (esp_store_catalog (store), h->export.name,
                                &venue) == 0)
    said = venue.description;
  esp_catch_errors (NULL, 0);

  if (h->tip_created)
    esp_time_format (h->tip_created, date);
  free (h->description);
  h->description = esp_asprintf ("%s%stip %s, %s", said, *said ? " — " : "",
                                 h->tip_name, date);
  return h->description;
}

static int64_t
venue_get_size (void *handle)
{
  struct handle *h = handle;

  return esp_image_size (h->image);
}

/* Any offset will do; whole blocks are copied fastest. */
static int
venue_block_size (void *handle __attribute__ ((unused)),
                  uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
  *minimum = 1;
  *preferred = ESP_BLOCK_SIZE;
  *maximum = UINT32_MAX;
  return 0;
}

/* Nobody writes, so all connections see the same bytes. */
static int
venue_can_multi_conn (void *handle __attribute__ ((unused)))
{
  return 1;
}

/* --- data ------------------------------------------------------------ */

/* NBD knows few errors; what the engine tells apart (a damaged layer, a
 * root store that changed in place) is an I/O error to the client.  The
 * engine has reported which it was.
 */
static int
to_client (int r)
{
  if (r == -1 && errno != ENOMEM)
    errno = EIO;
  return r;
}

static int
venue_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
             uint32_t flags __attribute__ ((unused)))
{
  struct handle *h = handle;
  int r = to_client (esp_image_pread (h->image, buf, count, offset));

  return esp_stats_read (h->asked, r, count);
}

struct add_extent {
  struct nbdkit_extents *extents;
  bool only_one;
};

static int
add_extent (void *arg, uint64_t offset, uint64_t len, enum esp_state state)
{
  static const uint32_t type[] = {
    [ESP_ABSENT] = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO,
    [ESP_DATA] = 0,
    [ESP_ZERO] = NBDKIT_EXTENT_ZERO,
  };
  const struct add_extent *a = arg;

  if (nbdkit_add_extent (a->extents, offset, len, type[state]) == -1)
    return -1;
  return a->only_one;
}

/* The engine clips its runs to the request, as nbdkit 1.32 must have it:
 * an extent that goes on beyond 4 GiB ends that server.
 */
static int
venue_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
               struct nbdkit_extents *extents)
{
  struct handle *h = handle;
  struct add_extent a = {
    .extents = extents,
    .only_one = flags & NBDKIT_FLAG_REQ_ONE,
  };

  return to_client (esp_image_extents (h->image, offset, count,
                                       add_extent, &a));
}

static int
venue_cache (void *handle, uint32_t count, uint64_t offset,
             uint32_t flags __attribute__ ((unused)))
{
  struct handle *h = handle;

  return to_client (esp_image_cache (h->image, offset, count));
}

static struct nbdkit_plugin plugin = {
  .name = "venue",
  .longname = "Espalier venues",
  .version = PACKAGE_VERSION,
  .description = "Serves the disks of an Espalier store: venues, and any "
                 "restore point.",
  .load = venue_load,
  .unload = venue_unload,
  .dump_plugin = venue_dump_plugin,
  .config = venue_config,
  .config_complete = venue_config_complete,
  .config_help = VENUE_HELP,
  .magic_config_key = "store",
  .get_ready = venue_get_ready,
  .after_fork = venue_after_fork,
  .cleanup = venue_cleanup,
  .list_exports = venue_list_exports,
  .default_export = venue_default_export,
  .open = venue_open,
  .close = venue_close,
  .export_description = venue_export_description,
  .get_size = venue_get_size,
  .block_size = venue_block_size,
  .can_multi_conn = venue_can_multi_conn,
  .pread = venue_pread,
  .extents = venue_extents,
  .cache = venue_cache,
  .errno_is_preserved = 1,
};

/* nbdkit's macro defines it without a prototype; clang wants one. */
extern struct nbdkit_plugin *plugin_init (void);
NBDKIT_REGISTER_PLUGIN (plugin)
