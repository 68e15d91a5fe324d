/* SPDX-License-Identifier: BSD-3-Clause */
/* Overlays, and what was left in tmp/. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "overlay/admin.h"
#include "store/check-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

/* --- overlays ------------------------------------------------------------ */

/* The directory of O below its parent, *PARENT (the caller closes it), and
 * its NAME (malloced).
 */
static int
find_overlay (struct check *k, const struct esp_overlay_info *o, int *parent,
              char **name)
{
  CLEANUP_FREE char *venue = esp_path_component (o->venue);
  CLEANUP_FREE char *disk = esp_path_component (o->disk);

  *name = esp_path_component (o->client);
  if (!venue || !disk || !*name)
    return -1;
  CLEANUP_CLOSE int dir = esp_open_dir (esp_store_overlays_fd (k->store),
                                        venue);
  *parent = dir == -1 ? -1 : esp_open_dir (dir, disk);
  return *parent == -1 ? -1 : 0;
}

/* What is wrong with O, "" if nothing is. */
static void
examine_overlay (struct check *k, const struct esp_overlay_info *o,
                 char problem[TEXT_MAX])
{
  char u[ESP_UUID_TEXT];

  problem[0] = 0;
  if (o->damage)
    snprintf (problem, TEXT_MAX, "%s", o->damage);
  else if (!esp_uuid_is_null (&o->tip) && !check_tip_ok (k, &o->tip))
    snprintf (problem, TEXT_MAX,
              "the restore point %s that it is over is missing or damaged",
              esp_uuid_text (&o->tip, u));
}

/* Look at one, now: an overlay that was just being made when it was listed,
 * or is open, is no damage.
 */
static bool
is_bad (struct check *k, const struct esp_overlay_info *o,
           char problem[TEXT_MAX])
{
  CLEANUP_OVERLAY_INFO struct esp_overlay_info now = { 0 };
  CLEANUP_FREE char *venue = esp_path_component (o->venue);
  CLEANUP_FREE char *disk = esp_path_component (o->disk);
  CLEANUP_FREE char *client = esp_path_component (o->client);
  const struct esp_overlay_id id = { venue, disk, client };
  char text[TEXT_MAX];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = venue && disk && client
    ? esp_overlay_info (esp_store_overlays_fd (k->store), &id, &now) : -1;

  esp_catch_end (outer);
  if (r == -1 || now.held)
    return false;
  examine_overlay (k, &now, problem);
  return problem[0] != 0;
}

static bool
set_overlay_aside (struct check *k, const struct esp_overlay_info *o,
                   const char *why, char where[300])
{
  CLEANUP_CLOSE int parent = -1;
  CLEANUP_FREE char *name = NULL;
  char as[300], was[800];

  if (find_overlay (k, o, &parent, &name) == -1)
    return false;
  CLEANUP_CLOSE int dir = esp_open_dir (parent, name);
  CLEANUP_CLOSE int lock = dir == -1 ? -1
    : openat (dir, ESP_OVERLAY_LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (lock >= 0 && esp_lock (lock, true) == -1)
    return false;               /* a client came just now */
  snprintf (as, sizeof as, "overlay-%.60s-%.10s-%.120s", o->venue, o->disk,
            name);
  for (char *p = as; *p; ++p)
    if (*p == '/')
      *p = '_';
  snprintf (was, sizeof was, "overlays/%.255s/%.255s/%.255s", o->venue,
            o->disk, name);
  return set_aside (k->store, parent, name, as, was, why, where) == 0;
}

static void
judge_overlay (struct check *k, const struct esp_overlay_info *o)
{
  char problem[TEXT_MAX], object[500], where[300] = "moved to damaged/";
  bool mended = false;

  if (o->held)
    return;                     /* whoever has it open has checked it */
  if (!is_bad (k, o, problem))
    return;
  snprintf (object, sizeof object, "overlay %.128s/%.10s@%.255s", o->venue,
            o->disk, o->client);
  if (k->repair)
    mended = set_overlay_aside (k, o, problem, where);
  check_tell (k, ESP_DAMAGE, mended, object, problem, where);
}

int
check_overlays (struct check *k)
{
  CLEANUP_OVERLAY_INFO_LIST struct esp_overlay_info_list list = { 0 };

  if (esp_overlay_list (esp_store_overlays_fd (k->store), NULL, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; ++i)
    judge_overlay (k, &list.o[i]);
  return 0;
}

/* --- tmp/ ---------------------------------------------------------------- */

static int
judge_tmp (void *arg, int dirfd, const char *name)
{
  struct check *k = arg;
  CLEANUP_CLOSE int fd = -1;
  char object[400], shown[256];
  bool mended = false;

  if (!tmp_is_leftover (dirfd, name, &fd))
    return 0;
  snprintf (object, sizeof object, "tmp/%s",
            esp_escape (name, shown, sizeof shown));
  if (k->repair)
    mended = esp_remove_tree (dirfd, name) == 0;
  check_tell (k, ESP_LEFTOVER, mended, object,
              "work that was interrupted left it", "removed");
  return 0;
}

int
check_tmp (struct check *k)
{
  return esp_each_entry (esp_store_tmp_fd (k->store), judge_tmp, k);
}
