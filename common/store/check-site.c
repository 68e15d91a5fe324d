/* SPDX-License-Identifier: BSD-3-Clause */
/* The documents `clients` and `needs`: against their rows, and what clients
 * are assigned to.
 *
 * As everywhere the document wins.  One that is damaged or missing is written
 * again from the rows; where there are none either, a damaged one is moved
 * away: then it is not known what it said.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/check-internal.h"
#include "store/site-internal.h"
#include "util/host.h"

/* --- both --------------------------------------------------------------- */

static const char from_rows[] =
  "the document is written again from the catalog";

/* A document that says nothing any more, and no rows. */
static void
lose (struct check *k, const char *name, const char *why)
{
  char where[300] = "moved to damaged/";
  bool mended = false;

  if (k->repair)
    mended = set_aside (k->store, esp_store_fd (k->store), name, name, name,
                        why, where) == 0;
  check_tell (k, ESP_DAMAGE, mended, name, why, where);
}

/* NAME could not be read, for the reason WHY; ROWS are its NROWS rows and
 * WRITE writes them.
 */
static void
bad_document (struct check *k, const char *name, int err, const char *why,
              const void *rows, size_t nrows,
              int (*write) (struct esp_store *, const void *))
{
  if (err == ENOENT && nrows == 0)
    return;
  if (err != ENOENT && !check_is_damage (err))
    check_tell (k, ESP_DAMAGE, false, name, why, NULL);
  else if (nrows)
    check_tell (k, ESP_DAMAGE, k->repair && write (k->store, rows) == 0, name,
                err == ENOENT ? "the document is missing" : why, from_rows);
  else
    lose (k, name, why);
}

static void
disagree (struct check *k, const char *name, int r)
{
  check_tell (k, ESP_DISAGREEMENT, k->repair && r == 0, name,
              "the document and the catalog say different things",
              "the catalog takes what the document says");
}

/* --- clients ------------------------------------------------------------ */

static bool
same_client (const struct esp_client *a, const struct esp_client *b)
{
  return strcmp (a->key, b->key) == 0 && a->kind == b->kind &&
    strcmp (a->name, b->name) == 0 && strcmp (a->venue, b->venue) == 0 &&
    a->boot == b->boot && strcmp (a->chap, b->chap) == 0 &&
    a->created == b->created && a->changed == b->changed;
}

static int
client_order (const void *a, const void *b)
{
  return strcmp (((const struct esp_client *) a)->key,
                 ((const struct esp_client *) b)->key);
}

/* Both lists are sorted by it. */
static bool
same_clients (struct esp_client_list *a, struct esp_client_list *b)
{
  if (a->n != b->n)
    return false;
  if (a->n == 0)
    return true;
  qsort (a->client, a->n, sizeof *a->client, client_order);
  qsort (b->client, b->n, sizeof *b->client, client_order);
  for (size_t i = 0; i < a->n; ++i)
    if (!same_client (&a->client[i], &b->client[i]))
      return false;
  return true;
}

static void
judge_client (struct check *k, const struct esp_client *x)
{
  char object[ESP_CLIENT_KEY_MAX + 16], problem[300];
  esp_uuid tip;

  snprintf (object, sizeof object, "client %s", x->key);
  if (x->venue[0] && k->catalog &&
      esp_catalog_venue_tip (k->catalog, x->venue, 0, &tip) == -1 &&
      errno == ENOENT) {
    snprintf (problem, sizeof problem, "its venue %s is not there: give it"
              " another with 'espalier client set --venue'", x->venue);
    check_tell (k, ESP_DISAGREEMENT, false, object, problem, NULL);
  }
  if (x->chap[0] && chap_exists (k->store, x->key) == 0)
    check_tell (k, ESP_DAMAGE, false, object, "its CHAP secret is missing:"
                " give it one with 'espalier client set --chap-secret'", NULL);
}

static int
write_clients (struct esp_store *store, const void *list)
{
  return site_write_clients (store, list);
}

static int
check_clients (struct check *k)
{
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 }, rows = { 0 };
  char why[TEXT_MAX] = "";
  struct esp_catch outer;
  int r, err;

  if (k->catalog && esp_catalog_client_list (k->catalog, &rows) == -1)
    return -1;
  outer = esp_catch_begin (why, sizeof why);
  r = site_read_clients (k->store, &list);
  err = errno;
  esp_catch_end (outer);
  if (r == -1)
    bad_document (k, SITE_CLIENTS, err, why, &rows, rows.n, write_clients);
  else if (k->catalog && !same_clients (&list, &rows))
    disagree (k, SITE_CLIENTS, k->repair
              ? esp_catalog_client_set_all (k->catalog, &list) : -1);
  const struct esp_client_list *known = r == -1 ? &rows : &list;
  for (size_t i = 0; i < known->n; ++i)
    judge_client (k, &known->client[i]);
  return 0;
}

/* --- needs -------------------------------------------------------------- */

static bool
same_need (const struct esp_need *a, const struct esp_need *b)
{
  if (strcmp (a->name, b->name) != 0 ||
      strcmp (a->description, b->description) != 0 ||
      a->nresources != b->nresources)
    return false;
  for (size_t i = 0; i < a->nresources; ++i)
    if (strcmp (a->resources[i].kind, b->resources[i].kind) != 0 ||
        strcmp (a->resources[i].name, b->resources[i].name) != 0 ||
        strcmp (a->resources[i].version, b->resources[i].version) != 0)
      return false;
  return true;
}

static int
need_order (const void *a, const void *b)
{
  return strcmp (((const struct esp_need *) a)->name,
                 ((const struct esp_need *) b)->name);
}

static bool
same_needs (struct esp_need_list *a, struct esp_need_list *b)
{
  if (a->n != b->n)
    return false;
  if (a->n == 0)
    return true;
  qsort (a->need, a->n, sizeof *a->need, need_order);
  qsort (b->need, b->n, sizeof *b->need, need_order);
  for (size_t i = 0; i < a->n; ++i)
    if (!same_need (&a->need[i], &b->need[i]))
      return false;
  return true;
}

static int
write_needs (struct esp_store *store, const void *list)
{
  return site_write_needs (store, list);
}

static int
check_needs (struct check *k)
{
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 }, rows = { 0 };
  char why[TEXT_MAX] = "";
  struct esp_catch outer;
  int r, err;

  if (k->catalog && esp_catalog_need_list (k->catalog, &rows) == -1)
    return -1;
  outer = esp_catch_begin (why, sizeof why);
  r = site_read_needs (k->store, &list);
  err = errno;
  esp_catch_end (outer);
  if (r == -1)
    bad_document (k, SITE_NEEDS, err, why, &rows, rows.n, write_needs);
  else if (k->catalog && !same_needs (&list, &rows))
    disagree (k, SITE_NEEDS, k->repair
              ? esp_catalog_need_set_all (k->catalog, &list) : -1);
  return 0;
}

int
check_site (struct check *k)
{
  return check_clients (k) == -1 || check_needs (k) == -1 ? -1 : 0;
}
