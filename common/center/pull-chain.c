/* SPDX-License-Identifier: BSD-3-Clause */
/* A pull: the manifests of a chain, from the tip to what the store has.
 *
 * Who the parent is stands in the child's manifest, so they would come one
 * after another.  The center's document `refs` tells the whole chain at once:
 * it is not signed, and only says which manifests to ask for together; the
 * chain is then walked by what the manifests say, and what was not guessed
 * right is asked for alone.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/pull-internal.h"
#include "util/host.h"

#define DEPTH_MAX 32767u

static void
pulled_clear (struct pulled *p)
{
  esp_manifest_clear (&p->m);
  esp_map_free (p->map);
  p->map = NULL;
  esp_index_clear (&p->index);
  esp_profile_clear (&p->profile);
}

void
pull_clear (struct pull *pull)
{
  int saved = errno;

  for (size_t i = 0; i < pull->n; i++)
    pulled_clear (&pull->item[i]);
  free (pull->item);
  errno = saved;
}

/* --- guesses ---------------------------------------------------------------- */

/* Manifests that were asked for together, by UUID. */
struct guess { esp_uuid uuid; struct esp_manifest m; bool there; };
struct guesses {
  struct esp_center *center;
  struct guess *guess;
  size_t n;
  bool tried;
};

static void
guesses_clear (struct guesses *g)
{
  int saved = errno;

  for (size_t i = 0; i < g->n; i++)
    esp_manifest_clear (&g->guess[i].m);
  free (g->guess);
  errno = saved;
}
#define CLEANUP_GUESSES __attribute__ ((cleanup (guesses_clear)))

static int
compare_rp (const void *a, const void *b)
{
  const struct esp_rp *x = a, *y = b;
  return memcmp (&x->uuid, &y->uuid, sizeof x->uuid);
}

static bool
in_store (struct esp_store *store, const esp_uuid *uuid)
{
  char name[ESP_NAME_MAX + 1];
  uint64_t created;

  return esp_catalog_rp_name (esp_store_catalog (store), uuid, name,
                              &created) == 0;
}

/* UUID and its ancestors as REFS (sorted) says, up to what the store has. */
static int
guess_chain (struct guesses *g, const struct esp_center_refs *refs,
             const esp_uuid *uuid)
{
  struct esp_rp key = { .uuid = *uuid };
  const struct esp_rp *rp;

  g->guess = calloc (refs->nrps + 1, sizeof *g->guess);
  if (!g->guess)
    return center_no_memory ();
  while (g->n < refs->nrps && !esp_uuid_is_null (&key.uuid) &&
         !in_store (g->center->store, &key.uuid) &&
         (rp = bsearch (&key, refs->rps, refs->nrps, sizeof *rp,
                        compare_rp)) != NULL) {
    g->guess[g->n++].uuid = rp->uuid;
    key.uuid = rp->parent;
  }
  return 0;
}

static int
load_guess (void *arg, size_t i)
{
  struct guesses *g = arg;
  char unheard[256];
  struct esp_catch outer = esp_catch_begin (unheard, sizeof unheard);

  /* What fails is asked for again, and then it is said. */
  g->guess[i].there = esp_center_manifest (g->center, &g->guess[i].uuid,
                                           &g->guess[i].m, NULL) == 0;
  if (!g->guess[i].there)
    esp_manifest_clear (&g->guess[i].m);
  esp_catch_end (outer);
  return 0;
}

static int
make_guesses (struct guesses *g, const esp_uuid *uuid)
{
  CLEANUP_CENTER_REFS struct esp_center_refs refs = { 0 };
  char unheard[256];
  struct esp_catch outer;
  int r;

  g->tried = true;
  outer = esp_catch_begin (unheard, sizeof unheard);
  r = center_refs_hint (g->center, &refs);
  esp_catch_end (outer);
  if (r == -1)
    return 0;                   /* it works without */
  if (refs.nrps > 0)
    qsort (refs.rps, refs.nrps, sizeof *refs.rps, compare_rp);
  if (guess_chain (g, &refs, uuid) == -1)
    return -1;
  return center_parallel (g->n, center_threads (g->center), load_guess, g);
}

/* --- the chain ------------------------------------------------------------------ */

static int
hostile (const struct pull *pull, const esp_uuid *uuid, const char *what)
{
  char text[ESP_UUID_TEXT];

  errno = EBADMSG;
  esp_error ("center %s: restore point %s: %s: nothing of it was taken",
             pull->center->config.name, esp_uuid_text (uuid, text), what);
  return -1;
}

static int
load_manifest (struct pull *pull, struct guesses *g, const esp_uuid *uuid,
               struct esp_manifest *out)
{
  char text[ESP_UUID_TEXT];

  for (size_t i = 0; i < g->n; i++)
    if (g->guess[i].there && esp_uuid_eq (&g->guess[i].uuid, uuid)) {
      *out = g->guess[i].m;
      memset (&g->guess[i].m, 0, sizeof g->guess[i].m);
      g->guess[i].there = false;
      return 0;
    }
  if (esp_center_manifest (pull->center, uuid, out, NULL) == 0)
    return 0;
  if (errno == ENOENT)
    esp_error ("center %s has no restore point %s%s", pull->center->config.name,
               esp_uuid_text (uuid, text), pull->n > 0
               ? ", which another one there stands on" : "");
  return -1;
}

static int
check_link (const struct pull *pull, const struct esp_rp *rp)
{
  if (pull->n >= DEPTH_MAX)
    return hostile (pull, &rp->uuid, "its chain has no end");
  for (size_t i = 0; i < pull->n; i++)
    if (esp_uuid_eq (&pull->item[i].m.rp.uuid, &rp->parent))
      return hostile (pull, &rp->uuid, "it is its own ancestor");
  if (pull->n > 0 && rp->size > pull->item[pull->n - 1].m.rp.size)
    return hostile (pull, &rp->uuid, "its child's disk is smaller than its "
                    "own");
  return 0;
}

static int
add_item (struct pull *pull, struct guesses *g, const esp_uuid *uuid)
{
  struct pulled *more = reallocarray (pull->item, pull->n + 1, sizeof *more);

  if (!more)
    return center_no_memory ();
  pull->item = more;
  memset (&more[pull->n], 0, sizeof *more);
  if (load_manifest (pull, g, uuid, &more[pull->n].m) == -1 ||
      check_link (pull, &more[pull->n].m.rp) == -1) {
    pulled_clear (&more[pull->n]);
    return -1;
  }
  pull->n++;
  return 0;
}

/* What the store has must be what the child was made over. */
static int
check_local (const struct pull *pull)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (esp_uuid_is_null (&pull->local) || pull->n == 0)
    return 0;
  if (esp_catalog_rp_get (esp_store_catalog (pull->center->store),
                          &pull->local, &rp) == -1)
    return -1;
  if (rp.size <= pull->item[pull->n - 1].m.rp.size)
    return 0;
  return hostile (pull, &pull->item[pull->n - 1].m.rp.uuid,
                  "its disk is smaller than its parent's");
}

int
pull_chain (struct pull *pull, const esp_uuid *uuid)
{
  CLEANUP_GUESSES struct guesses g = { .center = pull->center };
  esp_uuid next = *uuid;

  while (!esp_uuid_is_null (&next) && !in_store (pull->center->store, &next)) {
    if (pull->n == 1 && !g.tried && make_guesses (&g, &next) == -1)
      return -1;
    if (add_item (pull, &g, &next) == -1)
      return -1;
    next = pull->item[pull->n - 1].m.rp.parent;
  }
  pull->local = next;
  return check_local (pull);
}
