/* SPDX-License-Identifier: BSD-3-Clause */
/* Removing a center from a store's list, or a key from its keys.  A restore
 * point of which not all is local, and which has no other source, would miss
 * the rest for ever: that is refused.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "center/center-internal.h"
#include "store/have.h"
#include "util/host.h"

#define NAMED_MAX 8             /* restore points that the message names */

/* What shall go: a center, or a key. */
struct loss { const char *center, *key; };

static bool
is_lost (const struct esp_source *source, const struct loss *loss)
{
  return loss->center ? strcmp (source->center, loss->center) == 0
    : source->center[0] && strcmp (source->variant.key, loss->key) == 0;
}

/* Can SOURCE be asked when that is gone? */
static bool
is_other (struct esp_store *store, const struct esp_source *source,
          const struct loss *loss)
{
  CLEANUP_CENTER_CONFIG struct esp_center_config c = { 0 };
  char unheard[256];
  struct esp_catch outer;
  int r;

  if (!source->center[0])
    return true;                /* a plain image */
  if (is_lost (source, loss))
    return false;
  outer = esp_catch_begin (unheard, sizeof unheard);
  r = esp_center_load (store, source->center, &c);
  esp_catch_end (outer);
  return r == 0;
}

/* Is what shall go in the only source of RP?  1; 0: it is in none, or there
 * are others (*FURTHER: both); -1.
 */
static int
only_source (struct esp_store *store, const struct esp_rp *rp,
             const struct loss *loss, bool *further)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  bool has = false, others = false;

  if (esp_sources_load (store, &rp->uuid, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++) {
    has |= is_lost (&list.s[i], loss);
    others |= is_other (store, &list.s[i], loss);
  }
  *further = has && others;
  return has && !others;
}

static int
needs (struct esp_store *store, const struct esp_rp *rp,
       const struct loss *loss)
{
  bool further;
  int r = rp->kind == ESP_RP_DELAYED
    ? only_source (store, rp, loss, &further) : 0;

  if (r != 1)
    return r;
  r = center_rp_whole (store, &rp->uuid);
  return r == -1 ? -1 : !r;
}

static int
check_needed (struct esp_store *store, const struct loss *loss)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
  char names[NAMED_MAX * (ESP_NAME_MAX + 2) + 1] = "";
  size_t needed = 0, at = 0;

  if (esp_catalog_rp_list (esp_store_catalog (store), NULL, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++) {
    int r = needs (store, &list.rp[i], loss);
    if (r == -1)
      return -1;
    if (r == 1 && needed++ < NAMED_MAX)
      at += (size_t) snprintf (names + at, sizeof names - at, "%s%s",
                               at ? ", " : "", list.rp[i].name);
  }
  if (needed == 0)
    return 0;
  errno = EBUSY;
  esp_error ("%s %s %s what is not here yet of %zu "
             "restore point%s (%s%s): 'espalier hydrate RP --now' first, or "
             "%s it with --force", loss->center ? "center" : "key",
             loss->center ? loss->center : loss->key,
             loss->center ? "is the only source of" : "is needed for",
             needed, needed == 1 ? "" : "s", names,
             needed > NAMED_MAX ? ", ..." : "",
             loss->center ? "remove" : "delete");
  return -1;
}

int
center_key_check_unneeded (struct esp_store *store, const char *key)
{
  return check_needed (store, &(struct loss) { .key = key });
}

/* Where there are others, nobody needs to ask for it any more.  Where it was
 * the only one it stays, should it be added again.
 */
static int
forget_sources (struct esp_store *store, const char *center)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };

  if (esp_catalog_rp_list (esp_store_catalog (store), NULL, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++) {
    bool further = false;
    if (list.rp[i].kind != ESP_RP_DELAYED)
      continue;
    if (only_source (store, &list.rp[i],
                     &(struct loss) { .center = center }, &further) == -1 ||
        (further && esp_sources_remove (store, &list.rp[i].uuid,
                                        center) == -1))
      return -1;
  }
  return 0;
}

int
esp_center_remove (struct esp_store *store, const char *name, bool force)
{
  CLEANUP_CENTER_CONFIG struct esp_center_config c = { 0 };

  if (esp_rp_writable (store) == -1 ||
      esp_center_load (store, name, &c) == -1)
    return -1;
  if (!force && check_needed (store, &(struct loss) { .center = name }) == -1)
    return -1;
  if (forget_sources (store, name) == -1 ||
      center_config_delete (store, name) == -1)
    return -1;
  center_known_forget (store, name);
  return 0;
}
