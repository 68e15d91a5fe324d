/* SPDX-License-Identifier: BSD-3-Clause */
/* Boot profiles between a store and a center.  Both sides learn, so each
 * takes what the other knows: neither a push nor a pull loses a boot.  At the
 * center the object is replaced only if it is unchanged.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/push-internal.h"
#include "store/have.h"
#include "util/host.h"

#define TRIES 20

/* The center's profile; ENOENT (not reported) where it has none.  A damaged
 * one is said, and is EBADMSG.
 */
int
center_profile_get (struct esp_center *center, const esp_uuid *uuid,
                    uint64_t disk_size, struct esp_profile *out,
                    struct esp_object *version)
{
  char object[ESP_OBJECT_MAX], where[CENTER_WHERE_MAX];
  CLEANUP_FREE void *buf = NULL;
  size_t len;

  memset (out, 0, sizeof *out);
  esp_center_rp_object (uuid, "boot-profile", object);
  buf = esp_remote_get_all (center->remote, object, ESP_PROFILE_BYTES_MAX, &len,
                            version);
  if (!buf)
    return -1;
  return esp_profile_unpack (buf, len, disk_size,
                             center_where (center, object, where), out);
}

static bool
same_profile (const struct esp_profile *a, const struct esp_profile *b)
{
  return a->boots == b->boots && a->n == b->n &&
    (a->n == 0 || memcmp (a->units, b->units, a->n * sizeof *a->units) == 0);
}

/* 1: there, as it should be; 0: somebody was faster; -1. */
static int
try_push (struct esp_center *center, const esp_uuid *uuid,
          uint64_t disk_size, const struct esp_profile *mine)
{
  CLEANUP_PROFILE struct esp_profile there = { 0 }, both = { 0 };
  CLEANUP_FREE void *buf = NULL;
  char object[ESP_OBJECT_MAX];
  struct esp_object version;
  bool fresh = false;
  size_t len;
  int r;

  if (center_profile_get (center, uuid, disk_size, &there, &version) == -1) {
    if (errno != ENOENT && errno != EBADMSG)
      return -1;
    fresh = errno == ENOENT;
  }
  if (esp_profile_union (&both, &there) == -1 ||
      esp_profile_union (&both, mine) == -1)
    return -1;
  if (!fresh && same_profile (&both, &there))
    return 1;
  if (!(buf = esp_profile_pack (&both, &len)))
    return -1;
  esp_center_rp_object (uuid, "boot-profile", object);
  r = fresh ? esp_remote_put_absent (center->remote, object, buf, len, NULL)
    : esp_remote_put_if (center->remote, object, &version, buf, len, NULL);
  if (r == 0)
    return 1;
  return errno == EEXIST || errno == ESTALE || errno == ENOENT ? 0 : -1;
}

int
center_profile_push (struct esp_center *center, const esp_uuid *uuid,
                     uint64_t disk_size)
{
  CLEANUP_PROFILE struct esp_profile mine = { 0 };
  int r;

  if (esp_rp_profile_load (center->store, uuid, &mine) == -1)
    return errno == ENOENT ? 0 : -1;
  for (unsigned i = 0; mine.n > 0 && i < TRIES; i++)
    if ((r = try_push (center, uuid, disk_size, &mine)) != 0)
      return r == 1 ? 0 : -1;
  return 0;                     /* others are at it: the next push */
}

struct taking { const struct esp_profile *there; };

static int
take_profile (void *arg, struct esp_profile *mine)
{
  const struct taking *t = arg;
  return esp_profile_union (mine, t->there);
}

int
center_profile_pull (struct esp_center *center, const esp_uuid *uuid,
                     uint64_t disk_size)
{
  CLEANUP_PROFILE struct esp_profile there = { 0 };
  struct taking t = { &there };

  if (center_profile_get (center, uuid, disk_size, &there, NULL) == -1)
    return errno == ENOENT || errno == EBADMSG ? 0 : -1;
  if (there.n == 0 ||
      esp_rp_profile_change (center->store, uuid, take_profile, &t) == 0)
    return 0;
  return errno == EAGAIN ? 0 : -1;
}
