/* SPDX-License-Identifier: BSD-3-Clause */
/* A pull of a venue: its restore points, then the venue here becomes what the
 * center's reference says, as a new revision of its history.
 *
 * Whether it was changed here since tells what known.c remembers: the
 * reference as this store knew it last, and the revision that the venue had
 * then.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/center-internal.h"
#include "store/venue.h"
#include "util/host.h"

struct venue_pull {
  struct esp_center *center;
  const struct esp_pull_options *options;
  struct esp_reference there;
  esp_digest digest;
  struct esp_venue here;        /* id "": there is none */
};

static int
load_here (struct venue_pull *p, const char *id)
{
  struct esp_catalog *catalog = esp_store_catalog (p->center->store);
  esp_uuid tip;

  if (esp_catalog_venue_tip (catalog, id, 0, &tip) == -1)
    return errno == ENOENT ? 0 : -1;
  return esp_catalog_venue_get (catalog, id, &p->here);
}

static bool
same (const struct esp_venue *a, const struct esp_venue *b)
{
  return a->ndisks == b->ndisks &&
    memcmp (a->disks, b->disks, a->ndisks * sizeof a->disks[0]) == 0 &&
    strcmp (a->description, b->description) == 0;
}

static int
refuse (const struct venue_pull *p)
{
  const char *center = p->center->config.name, *id = p->here.id;
  char when[32];

  errno = EEXIST;
  esp_error ("venue %s was changed here (revision %llu, %s), and center %s has "
             "something else: 'espalier pull %s %s --force' takes the center's "
             "('espalier venue rollback %s' goes back), 'espalier push %s %s "
             "--force' overrides the center's", id,
             (unsigned long long) p->here.revision,
             esp_time_format (p->here.changed, when), center, center, id, id,
             id, center);
  return -1;
}

/* 1: the venue becomes what the center says.  0: it stays as it is. */
static int
decide (struct venue_pull *p)
{
  struct known_venue known;
  int r;

  if (!p->here.id[0] || p->options->force)
    return 1;
  if (same (&p->here, &p->there.venue))
    return 1;                   /* nothing changes, but is remembered */
  r = center_known_get (p->center->store, p->center->config.name, p->here.id,
                        &known);
  if (r == -1)
    return -1;
  if (r == 1 && known.revision == p->here.revision)
    return 1;
  /* Only here: there is nothing to take. */
  if (r == 1 && esp_digest_eq (&known.digest, &p->digest))
    return 0;
  return refuse (p);
}

static int
set_venue (struct venue_pull *p)
{
  const struct esp_venue *v = &p->there.venue;
  struct esp_store *store = p->center->store;
  CLEANUP_VENUE struct esp_venue now = { 0 };
  struct known_venue known = { .digest = p->digest };
  int r = p->here.id[0]
    ? esp_venue_set (store, v->id, v->disks, v->ndisks, v->description)
    : esp_venue_add (store, v->id, v->disks, v->ndisks, v->description);

  if (r == -1 || esp_catalog_venue_get (esp_store_catalog (store), v->id,
                                        &now) == -1)
    return -1;
  strcpy (known.id, v->id);
  known.revision = now.revision;
  return center_known_set (store, p->center->config.name, &known);
}

static int
pull_disks (struct venue_pull *p, struct esp_transfer *done)
{
  for (unsigned i = 0; i < p->there.venue.ndisks; i++)
    if (esp_pull_rp (p->center, &p->there.venue.disks[i], p->options,
                     done) == -1)
      return -1;
  return 0;
}

static int
run (struct venue_pull *p, const char *id, struct esp_transfer *done)
{
  int r;

  if (esp_rp_writable (p->center->store) == -1 ||
      esp_name_check (id, "venue") == -1)
    return -1;
  if (center_reference (p->center, id, &p->there, NULL, &p->digest) == -1) {
    if (errno == ENOENT)
      esp_error ("center %s has no venue %s: 'espalier fetch %s' shows what it "
                 "has", p->center->config.name, id, p->center->config.name);
    return -1;
  }
  if (load_here (p, id) == -1 || (r = decide (p)) == -1)
    return -1;
  if (r == 0) {
    done->kept++;
    return 0;
  }
  if (pull_disks (p, done) == -1 || set_venue (p) == -1)
    return -1;
  done->venues++;
  return 0;
}

int
esp_pull_venue (struct esp_center *center, const char *id,
                const struct esp_pull_options *options,
                struct esp_transfer *done)
{
  struct venue_pull p = { .center = center, .options = options };
  int r = run (&p, id, done), saved = errno;

  esp_reference_clear (&p.there);
  esp_venue_clear (&p.here);
  errno = saved;
  return r;
}
