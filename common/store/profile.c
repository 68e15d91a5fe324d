/* SPDX-License-Identifier: BSD-3-Clause */
/* Boot profiles of restore points: the files, and what a tip takes over from
 * its ancestors.  What they mean: profile-merge.c; their bytes: center/format.h.
 *
 * The file of a restore point is what boots of *that tip* did.  A tip that
 * was never booted goes by its nearest ancestor's, less the units in which a
 * restore point between the two (or itself) has blocks: what an update wrote
 * the old boot did not read.  That difference is made when it is asked for,
 * from the tip's chain map (two memory reads a unit), and kept nowhere: the
 * first boot of the tip begins a profile of its own.
 *
 * A change (load, merge, save) is done by one process of a store at a time:
 * it holds an exclusive flock on run/boot-profiles.  The flock is only tried.
 * Meanwhile the restore point's directory is locked shared, so that nobody
 * deletes it or takes the unfinished file for a leftover.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/have.h"
#include "store/internal.h"
#include "store/rp-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define LOCK_NAME "boot-profiles"

/* Header, units of at most 16 bytes, and some air: beyond that it is none. */
#define FILE_MAX (4096 + 16 * (size_t) ESP_PROFILE_UNITS_MAX)

/* "restore-points/UUID/boot-profile" for messages. */
struct place { char text[sizeof "restore-points//" ESP_RP_PROFILE
                         + ESP_UUID_TEXT]; };

static struct place
place_of (const esp_uuid *uuid)
{
  struct place p;
  char text[ESP_UUID_TEXT];

  snprintf (p.text, sizeof p.text, "restore-points/%s/" ESP_RP_PROFILE,
            esp_uuid_text (uuid, text));
  return p;
}

/* --- loading ----------------------------------------------------------- */

/* The own profile of a restore point whose disk has SIZE bytes.  ENOENT is
 * not reported.
 */
static int
load (struct esp_store *store, const esp_uuid *uuid, uint64_t size,
      struct esp_profile *out)
{
  struct place place = place_of (uuid);
  const char *name = place.text + strlen ("restore-points/");
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  if (esp_read_file (esp_store_rps_fd (store), name, FILE_MAX, &buf,
                     &len) == -1) {
    if (errno != ENOENT)
      esp_error ("read: %s: %m", place.text);
    return -1;
  }
  return esp_profile_unpack (buf, len, size, place.text, out);
}

/* As load; a profile that is not sound is said once and counts as none. */
static int
load_sound (struct esp_store *store, const esp_uuid *uuid, uint64_t size,
            struct esp_profile *out)
{
  char cause[256] = "";
  struct esp_catch before = esp_catch_begin (cause, sizeof cause);
  int r = load (store, uuid, size, out);
  int err = errno;

  esp_catch_end (before);
  errno = err;
  if (r == 0 || err == ENOENT)
    return r;
  if (err == EBADMSG || err == ENOTSUP || err == EFBIG) {
    esp_warning ("a boot profile is not used: %s", cause);
    errno = ENOENT;
    return -1;
  }
  esp_error ("%s", cause);
  errno = err;
  return -1;
}

static int
disk_size (struct esp_store *store, const esp_uuid *uuid, uint64_t *size)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (esp_catalog_rp_get (esp_store_catalog (store), uuid, &rp) == -1)
    return -1;
  *size = rp.size;
  return 0;
}

int
esp_rp_profile_load (struct esp_store *store, const esp_uuid *uuid,
                     struct esp_profile *out)
{
  uint64_t size;

  memset (out, 0, sizeof *out);
  if (disk_size (store, uuid, &size) == -1)
    return -1;
  return load (store, uuid, size, out);
}

/* --- inheriting -------------------------------------------------------- */

/* Leave out what restore points newer than OWNER wrote. */
static int
drop_overwritten (struct esp_chain *chain, unsigned owner,
                  struct esp_profile *p)
{
  const uint64_t size = esp_chain_size (chain);
  size_t kept = 0;

  for (size_t i = 0; i < p->n; ++i) {
    uint64_t at = (uint64_t) p->units[i].unit << ESP_PROFILE_SHIFT;
    uint64_t len = UINT64_C (1) << ESP_PROFILE_SHIFT;
    unsigned newest;

    if (at >= size)
      continue;
    if (len > size - at)
      len = size - at;
    if (esp_chain_newest (chain, at, len, &newest) == -1)
      return -1;
    if (newest <= owner)
      p->units[kept++] = p->units[i];
  }
  p->n = kept;
  return 0;
}

int
esp_rp_profile (struct esp_store *store, const esp_uuid *tip,
                struct esp_profile *out)
{
  CLEANUP_CHAIN struct esp_chain *chain = esp_rp_open_chain (store, tip);

  memset (out, 0, sizeof *out);
  if (!chain)
    return -1;
  /* No ancestor's disk is larger than the tip's. */
  for (unsigned owner = esp_chain_depth (chain); owner > 0; --owner) {
    if (load_sound (store, esp_chain_owner (chain, owner),
                    esp_chain_size (chain), out) == 0) {
      if (drop_overwritten (chain, owner, out) == 0)
        return 0;
      esp_profile_clear (out);
      return -1;
    }
    if (errno != ENOENT)
      return -1;
  }
  return 0;
}

/* --- merging ----------------------------------------------------------- */

/* What CHILD, which has none of its own, goes by as far as it is PARENT's
 * own, into DIR.  1: there is nothing of that kind.
 */
static int
take_over (struct esp_store *store, const esp_uuid *child,
           const esp_uuid *parent, int dir)
{
  CLEANUP_PROFILE struct esp_profile own = { 0 }, p = { 0 };
  CLEANUP_CHAIN struct esp_chain *chain = esp_rp_open_chain (store, child);
  CLEANUP_FREE void *buf = NULL;
  unsigned owner = chain ? esp_chain_depth (chain) : 0;
  size_t len;

  if (!chain)
    return -1;
  if (load_sound (store, child, esp_chain_size (chain), &own) == 0)
    return 1;
  if (errno != ENOENT)
    return -1;
  while (owner > 0 && !esp_uuid_eq (esp_chain_owner (chain, owner), parent))
    owner--;
  if (owner == 0)
    return 1;                   /* an earlier attempt came as far as that */
  if (load_sound (store, parent, esp_chain_size (chain), &p) == -1)
    return errno == ENOENT ? 1 : -1;
  if (drop_overwritten (chain, owner, &p) == -1)
    return -1;
  if (p.n == 0)
    return 1;
  buf = esp_profile_pack (&p, &len);
  return buf ? esp_write_file_atomic (dir, ESP_RP_PROFILE, buf, len, 0644)
    : -1;
}

void
profile_take_over (struct esp_store *store, const struct esp_rp *child,
                   const esp_uuid *parent, int dir)
{
  char cause[512] = "";
  struct esp_catch before = esp_catch_begin (cause, sizeof cause);
  int r = take_over (store, &child->uuid, parent, dir);

  esp_catch_end (before);
  if (r == -1)
    esp_warning ("restore point %s: the boot profile of its parent is lost: "
                 "%s", child->name, cause);
}

/* --- saving ------------------------------------------------------------ */

/* The directory of UUID, locked (shared) against merging, deletion, gc. */
static int
lock_rp_dir (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (store, uuid);
  char text[ESP_UUID_TEXT];

  esp_uuid_text (uuid, text);
  if (dir == -1) {
    esp_error ("open: restore-points/%s: %m", text);
    return -1;
  }
  if (esp_lock (dir, false) == -1) {
    if (errno == EWOULDBLOCK)
      errno = EBUSY;
    esp_error ("restore point %s is being merged or deleted: %m", text);
    return -1;
  }
  return esp_steal_fd (&dir);
}

int
esp_rp_profile_save (struct esp_store *store, const esp_uuid *uuid,
                     const struct esp_profile *profile)
{
  CLEANUP_CLOSE int dir = -1;
  CLEANUP_FREE void *buf = NULL;
  size_t len;

  if (esp_rp_writable (store) == -1 ||
      (dir = lock_rp_dir (store, uuid)) == -1 ||
      !(buf = esp_profile_pack (profile, &len)))
    return -1;
  return esp_write_file_atomic (dir, ESP_RP_PROFILE, buf, len, 0644);
}

int
esp_rp_profile_change (struct esp_store *store, const esp_uuid *uuid,
                       int (*change) (void *arg, struct esp_profile *profile),
                       void *arg)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  CLEANUP_CLOSE int lock = -1;
  uint64_t size;

  if (esp_rp_writable (store) == -1)
    return -1;
  lock = openat (store->dirs[STORE_RUN], LOCK_NAME,
                 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock == -1) {
    esp_error ("open: run/" LOCK_NAME ": %m");
    return -1;
  }
  if (esp_lock (lock, true) == -1) {
    if (errno == EWOULDBLOCK)
      errno = EAGAIN;
    else
      esp_error ("flock: run/" LOCK_NAME ": %m");
    return -1;
  }
  if (disk_size (store, uuid, &size) == -1 ||
      (load_sound (store, uuid, size, &p) == -1 && errno != ENOENT) ||
      change (arg, &p) == -1)
    return -1;
  return esp_rp_profile_save (store, uuid, &p);
}
