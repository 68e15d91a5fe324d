/* SPDX-License-Identifier: BSD-3-Clause */
/* Changing what a site says of its clients and needs.
 *
 * As with venues (venue.c) the document is the truth and the catalog's rows
 * are copied from it.  A change is one catalog transaction: it reads the
 * document, changes what it read, makes all rows say the same, replaces the
 * document, and commits.  A crash before the document is replaced leaves
 * nothing; one behind that leaves a document that is newer than the rows, which
 * the next change, or `store check --repair`, copies.
 *
 * A deletion of a client removes its secret before the document is replaced:
 * after a crash in between there is an entry that lets nobody in, not a
 * secret of nobody.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "boot/address.h"
#include "store/internal.h"
#include "store/site-internal.h"
#include "util/host.h"

static int
no_memory (void)
{
  errno = ENOMEM;
  esp_error ("malloc: %m");
  return -1;
}

static int
lost (const char *document)
{
  errno = ENOENT;
  esp_error ("the store's document '%s' is missing: run 'espalier store check"
             " --repair'", document);
  return -1;
}

/* --- clients ------------------------------------------------------------ */

static struct esp_client *
find_client (const struct esp_client_list *list, const char *key)
{
  for (size_t i = 0; i < list->n; ++i)
    if (strcmp (list->client[i].key, key) == 0)
      return &list->client[i];
  return NULL;
}

/* The document, for a change: one that was lost is not taken for empty. */
static int
load_clients (struct esp_store *store, struct esp_client_list *list)
{
  CLEANUP_CLIENT_LIST struct esp_client_list rows = { 0 };

  if (site_read_clients (store, list) == 0)
    return 0;
  if (errno != ENOENT || esp_catalog_client_list (store->catalog, &rows) == -1)
    return -1;
  return rows.n ? lost (SITE_CLIENTS) : 0;
}

static int
store_clients (struct esp_store *store, const struct esp_client_list *list)
{
  if (esp_catalog_client_set_all (store->catalog, list) == -1)
    return -1;
  return site_write_clients (store, list);
}

/* The venue must be there, and nobody else may have the name. */
static int
check_client (struct esp_store *store, const struct esp_client_list *list,
              const struct esp_client *x)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  const char *why = site_client_fault (x);
  char text[ESP_CLIENT_KEY_MAX + 1];

  if (why) {
    errno = EINVAL;
    esp_error ("client %s: %s", esp_escape (x->key, text, sizeof text), why);
    return -1;
  }
  for (size_t i = 0; x->name[0] && i < list->n; ++i)
    if (strcmp (list->client[i].name, x->name) == 0 &&
        strcmp (list->client[i].key, x->key) != 0) {
      errno = EEXIST;
      esp_error ("the name '%s' is client %s's: two machines with one name"
                 " would share an overlay", x->name, list->client[i].key);
      return -1;
    }
  return x->venue[0] ? esp_catalog_venue_get (store->catalog, x->venue, &venue)
    : 0;
}

/* A copy of X with its kind, and dates. */
static int
copy_client (const struct esp_client *x, uint64_t created,
             struct esp_client *out)
{
  char key[ESP_CLIENT_KEY_MAX + 1];

  *out = *x;
  out->changed = (uint64_t) time (NULL);
  out->created = created ? created : out->changed;
  if (!(out->chap = strdup (x->chap ? x->chap : "")))
    return no_memory ();
  return esp_client_key_parse (x->key, &out->kind, key);
}

/* X into LIST in the place of OLD, or (NULL) at its end. */
static int
put_client (struct esp_store *store, struct esp_client_list *list,
            struct esp_client *old, const struct esp_client *x)
{
  struct esp_client new = { 0 }, *more;

  if (copy_client (x, old ? old->created : 0, &new) == -1 ||
      check_client (store, list, &new) == -1) {
    esp_client_clear (&new);
    return -1;
  }
  if (!old) {
    more = reallocarray (list->client, list->n + 1, sizeof *more);
    if (!more) {
      esp_client_clear (&new);
      return no_memory ();
    }
    list->client = more;
    old = memset (&more[list->n++], 0, sizeof *more);
  }
  esp_client_clear (old);
  *old = new;
  return 0;
}

static int
client_exists (const char *key)
{
  errno = EEXIST;
  esp_error ("there is already a client %s: change it with 'espalier client"
             " set'", key);
  return -1;
}

static int
no_client (const char *key)
{
  char text[128];

  errno = ENOENT;
  esp_error ("no client '%s' (see 'espalier client list')",
             esp_escape (key, text, sizeof text));
  return -1;
}

static int
too_many (const char *what, unsigned max)
{
  errno = ENOSPC;
  esp_error ("a site has at most %u %s", max, what);
  return -1;
}

static int
change_client (struct esp_store *store, const struct esp_client *x, bool add)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  struct esp_client *old;

  if (esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (load_clients (store, &list) == -1)
    return -1;
  old = find_client (&list, x->key);
  if (add && old)
    return client_exists (x->key);
  if (!add && !old)
    return no_client (x->key);
  if (add && list.n >= ESP_CLIENTS_MAX)
    return too_many ("clients", ESP_CLIENTS_MAX);
  if (put_client (store, &list, old, x) == -1 ||
      store_clients (store, &list) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}

int
esp_site_client_add (struct esp_store *store, const struct esp_client *client)
{
  return change_client (store, client, true);
}

int
esp_site_client_set (struct esp_store *store, const struct esp_client *client)
{
  return change_client (store, client, false);
}

int
esp_site_client_delete (struct esp_store *store, const char *key)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  struct esp_client *old;

  if (esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (load_clients (store, &list) == -1)
    return -1;
  if (!(old = find_client (&list, key)))
    return no_client (key);
  esp_client_clear (old);
  --list.n;
  memmove (old, old + 1, (size_t) (list.client + list.n - old) * sizeof *old);
  if (esp_catalog_client_set_all (store->catalog, &list) == -1 ||
      (chap_exists (store, key) == 1 && chap_remove (store, key) == -1) ||
      site_write_clients (store, &list) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}

static int
still_assigned (const char *id, const char *key, size_t n)
{
  errno = EBUSY;
  if (n == 1)
    esp_error ("venue '%s': client %s is assigned to it: give it another with"
               " 'espalier client set %s --venue ID', or let it choose with"
               " --force", id, key, key);
  else
    esp_error ("venue '%s': %zu clients are assigned to it (%s is the first):"
               " give them another with 'espalier client set', or let them"
               " choose with --force", id, n, key);
  return -1;
}

int
site_release_venue (struct esp_store *store, const char *id, bool force)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };
  const char *first = NULL;
  size_t n = 0;

  if (load_clients (store, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; ++i) {
    struct esp_client *x = &list.client[i];

    if (strcmp (x->venue, id) != 0)
      continue;
    if (n++ == 0)
      first = x->key;
    x->venue[0] = 0;
    x->changed = (uint64_t) time (NULL);
  }
  if (n == 0)
    return 0;
  return force ? store_clients (store, &list) : still_assigned (id, first, n);
}

/* --- needs -------------------------------------------------------------- */

static struct esp_need *
find_need (const struct esp_need_list *list, const char *name)
{
  for (size_t i = 0; i < list->n; ++i)
    if (strcmp (list->need[i].name, name) == 0)
      return &list->need[i];
  return NULL;
}

static int
load_needs (struct esp_store *store, struct esp_need_list *list)
{
  CLEANUP_NEED_LIST struct esp_need_list rows = { 0 };

  if (site_read_needs (store, list) == 0)
    return 0;
  if (errno != ENOENT || esp_catalog_need_list (store->catalog, &rows) == -1)
    return -1;
  return rows.n ? lost (SITE_NEEDS) : 0;
}

static int
store_needs (struct esp_store *store, const struct esp_need_list *list)
{
  if (esp_catalog_need_set_all (store->catalog, list) == -1)
    return -1;
  return site_write_needs (store, list);
}

static int
need_exists (const char *name)
{
  errno = EEXIST;
  esp_error ("there is already a need '%s': change it with 'espalier need"
             " set'", name);
  return -1;
}

static int
no_need (const char *name)
{
  char text[256];

  errno = ENOENT;
  esp_error ("no need '%s' (see 'espalier need list')",
             esp_escape (name, text, sizeof text));
  return -1;
}

static int
check_need (const struct esp_need *x)
{
  const char *why = site_need_fault (x);
  char text[64];

  if (!why)
    return 0;
  errno = EINVAL;
  esp_error ("need '%s': %s", esp_escape (x->name, text, sizeof text), why);
  return -1;
}

/* The list is written with X itself in the place of its old one, AT (its end:
 * one more), which stays OLD's.
 */
static int
store_with (struct esp_store *store, const struct esp_need_list *list,
            size_t at, const struct esp_need *x)
{
  struct esp_need_list with = { .n = at == list->n ? at + 1 : list->n };
  CLEANUP_FREE struct esp_need *need = calloc (with.n, sizeof *need);

  if (!need)
    return no_memory ();
  if (list->n)
    memcpy (need, list->need, list->n * sizeof *need);
  need[at] = *x;
  with.need = need;
  return store_needs (store, &with);
}

static int
change_need (struct esp_store *store, const struct esp_need *x, bool add)
{
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  struct esp_need *old;

  if (check_need (x) == -1 || esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (load_needs (store, &list) == -1)
    return -1;
  old = find_need (&list, x->name);
  if (add && old)
    return need_exists (x->name);
  if (!add && !old)
    return no_need (x->name);
  if (add && list.n >= ESP_NEEDS_MAX)
    return too_many ("needs", ESP_NEEDS_MAX);
  if (store_with (store, &list, old ? (size_t) (old - list.need) : list.n,
                  x) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}

int
esp_site_need_add (struct esp_store *store, const struct esp_need *need)
{
  return change_need (store, need, true);
}

int
esp_site_need_set (struct esp_store *store, const struct esp_need *need)
{
  return change_need (store, need, false);
}

int
esp_site_need_delete (struct esp_store *store, const char *name)
{
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 };
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
  struct esp_need *old;

  if (esp_catalog_begin (store->catalog) == -1)
    return -1;
  tx = store->catalog;
  if (load_needs (store, &list) == -1)
    return -1;
  if (!(old = find_need (&list, name)))
    return no_need (name);
  esp_need_clear (old);
  --list.n;
  memmove (old, old + 1, (size_t) (list.need + list.n - old) * sizeof *old);
  if (store_needs (store, &list) == -1)
    return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}
