/* SPDX-License-Identifier: BSD-3-Clause */
/* The menu of venues. */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot-internal.h"
#include "boot-items.h"
#include "daemon.h"
#include "util/cleanup.h"

/* The venue that the machine booted last, or the site's default. */
static const struct esp_venue *
preferred (const struct visit *v)
{
  CLEANUP_CLIENT_SEEN struct esp_client_seen seen = { 0 };
  const char *other = v->r->config->default_venue;
  const struct esp_venue *venue = NULL;

  if (esp_catalog_seen_get (esp_store_catalog (daemon_store ()), v->name,
                            &seen) == 0)
    venue = boot_data_venue (v->data, seen.venue);
  if (!venue && other)
    venue = boot_data_venue (v->data, other);
  return venue && visit_allowed (v, venue) ? venue : NULL;
}

/* The venues that the machine may have, the preferred one first; malloced. */
static const struct esp_venue **
list_venues (const struct visit *v, size_t *n)
{
  const struct esp_venue *first = preferred (v);
  const struct esp_venue **list = calloc (v->data->venues.n + 1,
                                          sizeof *list);

  *n = 0;
  if (!list)
    return NULL;
  if (first)
    list[(*n)++] = first;
  for (size_t i = 0; i < v->data->venues.n; ++i) {
    const struct esp_venue *venue = &v->data->venues.venue[i];

    if (venue != first && visit_allowed (v, venue))
      list[(*n)++] = venue;
  }
  return list;
}

static void
add_venue (struct items *items, const struct esp_venue *venue, size_t i)
{
  items_add (items, venue->id, venue->description,
             items_query (items, "&venue=%", venue->id),
             i < 9 ? (char) ('1' + i) : 0);
}

static int
show (struct visit *v, const struct esp_venue *const *list, size_t n)
{
  CLEANUP_ITEMS struct items items = { 0 };
  unsigned from = visit_number (v, "from", (unsigned) n - 1);
  size_t upto = n - from > ITEMS_PAGE ? from + ITEMS_PAGE : n;
  struct esp_script_menu menu = {
    .timeout = from == 0 ? v->r->config->menu_timeout : 0,
    .back = "",
  };

  for (size_t i = from; i < upto; ++i)
    add_venue (&items, list[i], i - from);
  if (v->data->needs.n > 0 || n > ITEMS_PAGE)
    items_gap (&items);
  if (v->data->needs.n > 0)
    items_add (&items, "Choose by needs", "", "&page=needs", 'n');
  items_pages (&items, "", from, n);
  return visit_reply (v, items_menu (&items, &v->page, &menu));
}

int
page_menu (struct visit *v)
{
  size_t n;
  CLEANUP_FREE const struct esp_venue **list = list_venues (v, &n);

  if (!list)
    return reply_error (v->r, 500, "no memory");
  if (n == 0)
    return visit_refuse (v, NULL, v->data->venues.n
                         ? "No venue is for this machine's network"
                         : "There are no venues yet");
  visit_audit (v, NULL, "menu", NULL);
  return show (v, list, n);
}
