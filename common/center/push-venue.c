/* SPDX-License-Identifier: BSD-3-Clause */
/* A push of a venue: its restore points, then its reference.
 *
 * The reference is replaced only if it is what this store knew last (known.c),
 * and, against who comes in between, only if it is still the version that was
 * looked at.  Otherwise somebody else's change would be lost: the message
 * says whose.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "center/push-internal.h"
#include "util/host.h"

#define TRIES 20

struct venue_push {
  struct esp_center *center;
  const struct esp_push_options *options;
  bool force;
  struct esp_venue venue;
  struct esp_signer *signer;
  char *pushed_by;
};

static bool
same_mapping (const struct esp_venue *a, const struct esp_venue *b)
{
  return a->ndisks == b->ndisks &&
    memcmp (a->disks, b->disks, a->ndisks * sizeof a->disks[0]) == 0 &&
    strcmp (a->description, b->description) == 0;
}

/* Who replaced it, when, and what to do. */
static int
somebody_else (const struct venue_push *p, const struct esp_reference *there)
{
  char when[32], who[160];

  errno = ESTALE;
  esp_error ("center %s: venue %s was replaced by %s on %s (revision %llu) "
             "since this store knew it last: 'espalier pull %s %s' takes that "
             "change, 'espalier push %s %s --force' overrides it",
             p->center->config.name, p->venue.id,
             esp_escape (there->pushed_by ? there->pushed_by : "somebody",
                         who, sizeof who),
             esp_time_format (there->pushed, when),
             (unsigned long long) there->venue.revision,
             p->center->config.name, p->venue.id, p->venue.id,
             p->center->config.name);
  return -1;
}

static int
remember (struct venue_push *p, const esp_digest *digest)
{
  struct known_venue known = {
    .digest = *digest, .revision = p->venue.revision
  };

  strcpy (known.id, p->venue.id);
  return center_known_set (p->center->store, p->center->config.name, &known);
}

/* May THERE, with DIGEST, be replaced?  1, 0 (it is the same), -1. */
static int
may_replace (struct venue_push *p, const struct esp_reference *there,
             const esp_digest *digest)
{
  struct known_venue known;
  int r;

  if (same_mapping (&there->venue, &p->venue))
    return remember (p, digest);
  if (p->force)
    return 1;
  r = center_known_get (p->center->store, p->center->config.name,
                        p->venue.id, &known);
  if (r == -1)
    return -1;
  if (r == 1 && esp_digest_eq (&known.digest, digest))
    return 1;
  return somebody_else (p, there);
}

static int
put_reference (struct venue_push *p, const struct esp_object *version)
{
  const struct esp_reference ref = {
    .venue = p->venue, .pushed_by = p->pushed_by,
    .pushed = (uint64_t) time (NULL),
  };
  CLEANUP_FREE char *text = NULL, *component = esp_path_component (p->venue.id);
  char object[ESP_OBJECT_MAX + 16];
  esp_digest digest;
  size_t len;
  int r;

  text = component ? esp_reference_format (&ref, p->signer, &len) : NULL;
  if (!text)
    return component ? -1 : center_no_memory ();
  snprintf (object, sizeof object, "venues/%s", component);
  r = version
    ? esp_remote_put_if (p->center->remote, object, version, text, len, NULL)
    : esp_remote_put_absent (p->center->remote, object, text, len, NULL);
  if (r == -1)
    return -1;
  esp_digest_of (text, len, &digest);
  return remember (p, &digest);
}

/* 1: it is there (or an error was reported with -1), 0: look again. */
static int
try_reference (struct venue_push *p)
{
  CLEANUP_REFERENCE struct esp_reference there = { 0 };
  struct esp_object version;
  esp_digest digest;
  int r = center_reference (p->center, p->venue.id, &there, &version, &digest);

  if (r == -1 && errno != ENOENT)
    return -1;
  if (r == -1)
    r = put_reference (p, NULL);
  else if ((r = may_replace (p, &there, &digest)) == 1)
    r = put_reference (p, &version);
  else
    return r == 0 ? 1 : -1;
  if (r == 0)
    return 1;
  return errno == EEXIST || errno == ESTALE || errno == ENOENT ? 0 : -1;
}

static int
push_reference (struct venue_push *p)
{
  int r = 0;

  for (unsigned i = 0; i < TRIES && r == 0; i++)
    r = try_reference (p);
  if (r == 1)
    return center_refs_add (p->center, NULL, 0, p->venue.id);
  if (r == 0) {
    errno = ESTALE;
    esp_error ("center %s: venue %s is replaced all the time: push again",
               p->center->config.name, p->venue.id);
  }
  return -1;
}

/* Before anything is sent that would be in vain. */
static int
look_first (struct venue_push *p)
{
  CLEANUP_REFERENCE struct esp_reference there = { 0 };
  esp_digest digest;

  if (center_reference (p->center, p->venue.id, &there, NULL, &digest) == -1)
    return errno == ENOENT ? 0 : -1;
  return may_replace (p, &there, &digest) == -1 ? -1 : 0;
}

static int
run (struct venue_push *p, const char *id, struct esp_transfer *done)
{
  if (esp_catalog_venue_get (esp_store_catalog (p->center->store), id,
                             &p->venue) == -1 || look_first (p) == -1)
    return -1;
  for (unsigned i = 0; i < p->venue.ndisks; i++)
    if (esp_push_rp (p->center, &p->venue.disks[i], p->options, done) == -1)
      return -1;
  if (!(p->pushed_by = center_pushed_by ()))
    return center_no_memory ();
  if (!p->options->no_sign &&
      !(p->signer = esp_signer_load (p->center->store, true)))
    return -1;
  if (push_reference (p) == -1)
    return -1;
  done->venues++;
  return 0;
}

int
esp_push_venue (struct esp_center *center, const char *id, bool force,
                const struct esp_push_options *options,
                struct esp_transfer *done)
{
  struct venue_push p = { .center = center, .options = options,
                          .force = force };
  int r = run (&p, id, done), saved = errno;

  esp_venue_clear (&p.venue);
  if (p.signer)
    esp_signer_free (p.signer);
  free (p.pushed_by);
  errno = saved;
  return r;
}
