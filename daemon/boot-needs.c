/* SPDX-License-Identifier: BSD-3-Clause */
/* Choosing by needs: a page to tick them, a page of what serves them. */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot-internal.h"
#include "boot-items.h"
#include "boot/needs.h"
#include "daemon.h"
#include "util/cleanup.h"
#include "util/file.h"

/* --- ticking ---------------------------------------------------------------- */

#define FIRST_NEED 2u           /* behind "Show what fits" and a gap */

static bool
is_wanted (const struct visit *v, const struct esp_need *need)
{
  for (size_t i = 0; i < v->nwanted; ++i)
    if (v->wanted[i] == need)
      return true;
  return false;
}

/* This page with the I-th need ticked if it was not, and the other way round. */
static const char *
toggled (const struct visit *v, struct items *items, unsigned from, size_t i)
{
  const struct esp_need *need = &v->data->needs.need[i];
  CLEANUP_FREE char *prefix =
    esp_asprintf ("&page=needs&ticked=1&from=%u&at=%zu", from, i - from);
  const char *query;

  if (!prefix)
    return items_keep (items, NULL);
  query = items_keep (items, visit_query (v, prefix, need));
  if (is_wanted (v, need))
    return query;
  CLEANUP_FREE char *format = esp_asprintf ("%s&need=%%", prefix);
  CLEANUP_FREE char *others = visit_query (v, "", NULL);

  if (!format || !others)
    return items_keep (items, NULL);
  query = items_query (items, format, need->name);
  return items_keep (items, esp_asprintf ("%s%s", query, others));
}

int
page_needs (struct visit *v)
{
  CLEANUP_ITEMS struct items items = { 0 };
  const struct esp_need_list *needs = &v->data->needs;
  struct esp_script_menu menu = { .heading = "what do you need?",
                                  .back = "" };
  CLEANUP_FREE char *query = visit_query (v, "&page=needs&ticked=1", NULL);
  CLEANUP_FREE char *match = visit_query (v, "&page=match&ticked=1", NULL);
  unsigned from, at;

  if (needs->n == 0)
    return page_menu (v);
  if (!query || !match)
    return reply_error (v->r, 500, "no memory");
  from = visit_number (v, "from", (unsigned) needs->n - 1);
  at = visit_number (v, "at", ITEMS_PAGE - 1);
  size_t upto = needs->n - from > ITEMS_PAGE ? from + ITEMS_PAGE : needs->n;

  items_add (&items, "Show what fits", "", match, 'f');
  items_gap (&items);
  for (size_t i = from; i < upto; ++i)
    items_add (&items, needs->need[i].name, needs->need[i].description,
               toggled (v, &items, from, i),
               i - from < 9 ? (char) ('1' + i - from) : 0)->mark =
      is_wanted (v, &needs->need[i]) ? "[x]" : "[ ]";
  if (needs->n > ITEMS_PAGE)
    items_gap (&items);
  items_pages (&items, query, from, needs->n);
  if (request_query (v->r, "at") || v->nwanted == 0)
    menu.chosen = FIRST_NEED + (from + at < upto ? at : 0);
  return visit_reply (v, items_menu (&items, &v->page, &menu));
}

/* --- what fits ---------------------------------------------------------------- */

/* The venues that the machine may have; only the array is to be freed. */
static int
allowed_venues (const struct visit *v, struct esp_venue_list *out)
{
  out->n = 0;
  out->venue = calloc (v->data->venues.n + 1, sizeof *out->venue);
  if (!out->venue)
    return -1;
  for (size_t i = 0; i < v->data->venues.n; ++i)
    if (visit_allowed (v, &v->data->venues.venue[i]))
      out->venue[out->n++] = v->data->venues.venue[i];
  return 0;
}

static int
rank (const struct visit *v, struct esp_match_list *out)
{
  CLEANUP_RP_LIST struct esp_rp_list rps = { 0 };
  CLEANUP_FREE struct esp_venue *array = NULL;
  struct esp_venue_list venues = { 0 };
  int r;

  if (esp_catalog_rp_list (esp_store_catalog (daemon_store ()), NULL,
                           &rps) == -1 || allowed_venues (v, &venues) == -1)
    return -1;
  array = venues.venue;
  r = esp_needs_rank (&rps, &venues, &v->data->boots, v->wanted, v->nwanted,
                      out);
  /* The matches name venues of the array, which goes. */
  for (size_t i = 0; r == 0 && i < out->n; ++i)
    out->match[i].venue = boot_data_venue (v->data, out->match[i].venue->id);
  return r;
}

static int
show_matches (struct visit *v, const struct esp_match_list *list,
              const char *back)
{
  CLEANUP_ITEMS struct items items = { 0 };
  CLEANUP_FREE char *needs = visit_query (v, "&venue=%", NULL);
  struct esp_script_menu menu = {
    .heading = "what serves your needs", .back = back,
    .timeout = v->r->config->menu_timeout,
  };

  if (!needs)
    return reply_error (v->r, 500, "no memory");
  for (size_t i = 0; i < list->n && i < ITEMS_PAGE; ++i)
    items_add (&items, list->match[i].venue->id, list->match[i].why,
               items_query (&items, needs, list->match[i].venue->id),
               i < 9 ? (char) ('1' + i) : 0);
  items_gap (&items);
  items_add (&items, "Other needs", "", back, 'n');
  items_add (&items, "All venues", "", "", 'a');
  visit_audit (v, NULL, "menu", list->match[0].why);
  return visit_reply (v, items_menu (&items, &v->page, &menu));
}

int
page_match (struct visit *v)
{
  static const char *const nothing[] = {
    "No venue serves what you chose", NULL };
  CLEANUP_MATCH_LIST struct esp_match_list list = { 0 };
  CLEANUP_FREE char *back = visit_query (v, "&page=needs&ticked=1", NULL);

  if (!back)
    return reply_error (v->r, 500, "no memory");
  if (v->nwanted == 0)
    return page_needs (v);
  if (rank (v, &list) == -1)
    return visit_reply (v, NULL);
  if (list.n == 0)
    return visit_say (v, nothing, 5, back);
  return show_matches (v, &list, back);
}
