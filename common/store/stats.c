/* SPDX-License-Identifier: BSD-3-Clause */
/* What uses the space of a store. */

#include <config.h>

#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <fcntl.h>

#include "overlay/admin.h"
#include "store/check-internal.h"
#include "store/have.h"
#include "util/file.h"
#include "util/host.h"

static int
add_usage (void *arg, int dirfd, const char *name)
{
  *(uint64_t *) arg += tree_usage (dirfd, name);
  return 0;
}

uint64_t
tree_usage (int dirfd, const char *name)
{
  uint64_t sum = esp_disk_usage (dirfd, name);
  CLEANUP_CLOSE int fd = esp_open_dir (dirfd, name);
  char text[TEXT_MAX];
  struct esp_catch outer;

  if (fd == -1)
    return sum;                 /* a file, or gone */
  outer = esp_catch_begin (text, sizeof text);
  /* What cannot be read is not counted. */
  esp_each_entry (fd, add_usage, &sum);
  esp_catch_end (outer);
  return sum;
}

/* A file of a restore point's directory. */
static int
add_file (void *arg, int dir, const char *name)
{
  struct esp_store_stats *s = arg;

  *(strcmp (name, ESP_RP_DATA) == 0 ? &s->rp_data : &s->rp_maps) +=
    esp_disk_usage (dir, name);
  return 0;
}

static void
add_rp (struct esp_store *store, const struct esp_rp *rp,
        struct esp_store_stats *s)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (store, &rp->uuid);
  uint64_t local = 0;

  s->rps++;
  s->roots += esp_uuid_is_null (&rp->parent);
  s->in_place += rp->kind == ESP_RP_IN_PLACE;
  if (rp->depth > s->max_depth)
    s->max_depth = rp->depth;
  if (rp->kind == ESP_RP_DELAYED) {
    s->delayed++;
    s->delayed_data += rp->data_blocks << ESP_BLOCK_SHIFT;
    /* What cannot be read counts as not local. */
    if (esp_have_peek (store, &rp->uuid, &local) == 0)
      s->delayed_local += local;
  }
  if (dir != -1)
    esp_each_entry (dir, add_file, s);
}

/* A tip is a restore point without children: in the order of the list the
 * next one does not lie deeper.
 */
static int
add_rps (struct esp_store *store, struct esp_store_stats *s)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };

  if (esp_catalog_rp_list (esp_store_catalog (store), NULL, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; ++i) {
    add_rp (store, &list.rp[i], s);
    if (i + 1 == list.n || list.rp[i + 1].depth <= list.rp[i].depth)
      s->virtual_size += list.rp[i].size;
  }
  return 0;
}

static int
add_overlays (struct esp_store *store, struct esp_store_stats *s)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };

  if (esp_overlay_list (esp_store_overlays_fd (store), NULL, &list) == -1)
    return -1;
  s->overlays = list.n;
  s->overlay_data = tree_usage (esp_store_fd (store), "overlays");
  return 0;
}

static int
add_file_system (struct esp_store *store, struct esp_store_stats *s)
{
  struct statvfs fs;

  if (fstatvfs (esp_store_fd (store), &fs) == -1) {
    esp_error ("statvfs: %s: %m", esp_store_path (store));
    return -1;
  }
  s->fs_size = (uint64_t) fs.f_blocks * fs.f_frsize;
  s->fs_free = (uint64_t) fs.f_bavail * fs.f_frsize;
  return 0;
}

/* What is in the directory NAME, without itself. */
static uint64_t
below_usage (int fd, const char *name)
{
  return tree_usage (fd, name) - esp_disk_usage (fd, name);
}

int
esp_store_stats (struct esp_store *store, struct esp_store_stats *out)
{
  static const char *const files[] = {
    ESP_CATALOG_FILE, ESP_CATALOG_FILE "-wal", ESP_CATALOG_FILE "-shm",
  };
  CLEANUP_VENUE_LIST struct esp_venue_list venues = { 0 };
  int fd = esp_store_fd (store);

  memset (out, 0, sizeof *out);
  if (add_rps (store, out) == -1 || add_overlays (store, out) == -1 ||
      add_file_system (store, out) == -1 ||
      esp_catalog_venue_list (esp_store_catalog (store), NULL, &venues) == -1)
    return -1;
  out->venues = venues.n;
  for (size_t i = 0; i < sizeof files / sizeof files[0]; ++i)
    out->catalog += esp_disk_usage (fd, files[i]);
  out->leftovers = below_usage (fd, "tmp") + below_usage (fd, STORE_DAMAGED);
  return 0;
}
