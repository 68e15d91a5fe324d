/* SPDX-License-Identifier: BSD-3-Clause */
/* Which exports there are, and what the empty name means. */

#include <config.h>

#include <stdio.h>

#include "catalog/catalog.h"

#include "venue.h"

/* nbdkit 1.32 lists at most so many exports. */
#define LIST_MAX 10000

/* Add the disks of VENUE, as long as there is ROOM. */
static int
list_venue (struct nbdkit_exports *exports, const struct esp_venue *venue,
            size_t *room)
{
  char name[ESP_EXPORT_MAX];

  for (unsigned disk = 0; disk < venue->ndisks && *room > 0; disk++) {
    snprintf (name, sizeof name, disk ? "%s/%u" : "%s", venue->id, disk);
    if (nbdkit_add_export (exports, name, venue->description) == -1)
      return -1;
    --*room;
  }
  return 0;
}

int
venue_list_exports (int readonly __attribute__ ((unused)),
                    int is_tls __attribute__ ((unused)),
                    struct nbdkit_exports *exports)
{
  CLEANUP_VENUE_LIST struct esp_venue_list list = { 0 };
  size_t room = LIST_MAX;

  if (esp_catalog_venue_list (esp_store_catalog (store), start, &list) == -1)
    return -1;
  for (size_t i = 0; i < list.n; i++)
    if (list_venue (exports, &list.venue[i], &room) == -1)
      return -1;
  if (room == 0)
    nbdkit_debug ("venue: %zu venues, of which nbdkit lists %d disks",
                  list.n, LIST_MAX);
  return 0;
}

/* Why the empty name says nothing here, and what to say instead. */
static void
refuse_empty_name (const struct esp_venue_list *list)
{
  enum { SHOW = 10 };
  char names[SHOW * (ESP_NAME_MAX + 2) + 1] = "";
  size_t len = 0;

  if (list->n == 0) {
    nbdkit_error ("there is no venue to serve yet: make one with "
                  "'espalier venue add ID --disk RP'");
    return;
  }
  for (size_t i = 0; i < list->n && i < SHOW; i++)
    len += snprintf (names + len, sizeof names - len, "%s%s",
                     i ? ", " : "", list->venue[i].id);
  nbdkit_error ("the client named no venue, and there are %zu: %s%s; "
                "name one in the client's URI, or start the server with "
                "venue=ID", list->n, names, list->n > SHOW ? ", ..." : "");
}

const char *
venue_default_export (int readonly __attribute__ ((unused)),
                      int is_tls __attribute__ ((unused)))
{
  CLEANUP_VENUE_LIST struct esp_venue_list list = { 0 };

  if (default_venue)
    return default_venue;
  if (esp_catalog_venue_list (esp_store_catalog (store), start, &list) == -1)
    return NULL;
  if (list.n == 1)
    return nbdkit_strdup_intern (list.venue[0].id);
  refuse_empty_name (&list);
  return NULL;
}
