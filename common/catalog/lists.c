/* SPDX-License-Identifier: BSD-3-Clause */
/* What the catalog hands out: growing it, and freeing it. */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "catalog/internal.h"
#include "util/host.h"

void *
catalog_grow (void *base, size_t *n, size_t size)
{
  char **array = base;
  char *r = *array;

  /* The array has room for the next power of two. */
  if ((*n & (*n - 1)) == 0) {
    r = reallocarray (*array, *n ? *n * 2 : 1, size);
    if (!r) {
      esp_error ("realloc: %m");
      return NULL;
    }
    *array = r;
  }
  return memset (r + (*n)++ * size, 0, size);
}

int
catalog_read_rows_locked (struct esp_catalog *c, sqlite3_stmt *bound,
                          void *base, size_t *n, size_t size,
                          catalog_row_fn read)
{
  CLEANUP_RESET sqlite3_stmt *s = bound;
  void *row;
  int r;

  if (!s)
    return -1;
  while ((r = catalog_step_locked (c, s)) == 1)
    if (!(row = catalog_grow (base, n, size)) || read (c, s, row) == -1)
      return -1;
  return r;
}

static int
read_resource (struct esp_catalog *c, sqlite3_stmt *s, void *row)
{
  struct esp_resource *x = row;

  (void) c;
  return (x->kind = catalog_column_text (s, 0)) &&
    (x->name = catalog_column_text (s, 1)) &&
    (x->version = catalog_column_text (s, 2)) ? 0 : -1;
}

int
catalog_read_resources_locked (struct esp_catalog *c, sqlite3_stmt *bound,
                               struct esp_resource **list, size_t *n)
{
  return catalog_read_rows_locked (c, bound, list, n, sizeof **list,
                                   read_resource);
}

void
catalog_resources_free (struct esp_resource *list, size_t n)
{
  for (size_t i = 0; i < n; ++i) {
    free (list[i].kind);
    free (list[i].name);
    free (list[i].version);
  }
  free (list);
}

void
esp_rp_clear (struct esp_rp *rp)
{
  catalog_resources_free (rp->resources, rp->nresources);
  free (rp->note);
  free (rp->path);
  memset (rp, 0, sizeof *rp);
}

void
esp_rp_list_clear (struct esp_rp_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    esp_rp_clear (&list->rp[i]);
  free (list->rp);
  memset (list, 0, sizeof *list);
}

void
esp_venue_clear (struct esp_venue *venue)
{
  free (venue->description);
  free (venue->disks);
  memset (venue, 0, sizeof *venue);
}

void
esp_venue_list_clear (struct esp_venue_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    esp_venue_clear (&list->venue[i]);
  free (list->venue);
  memset (list, 0, sizeof *list);
}

void
esp_venue_log_clear (struct esp_venue_log *log)
{
  for (size_t i = 0; i < log->n; ++i) {
    free (log->change[i].action);
    free (log->change[i].description);
    free (log->change[i].disks);
  }
  free (log->change);
  memset (log, 0, sizeof *log);
}

void
esp_venue_boot_clear (struct esp_venue_boot *boot)
{
  free (boot->kernel);
  free (boot->initrd);
  free (boot->cmdline);
  free (boot->networks);
  memset (boot, 0, sizeof *boot);
}

void
esp_venue_boot_list_clear (struct esp_venue_boot_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    esp_venue_boot_clear (&list->boot[i]);
  free (list->boot);
  memset (list, 0, sizeof *list);
}

void
esp_client_clear (struct esp_client *client)
{
  free (client->chap);
  memset (client, 0, sizeof *client);
}

void
esp_client_list_clear (struct esp_client_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    esp_client_clear (&list->client[i]);
  free (list->client);
  memset (list, 0, sizeof *list);
}

void
esp_client_seen_clear (struct esp_client_seen *seen)
{
  free (seen->needs);
  memset (seen, 0, sizeof *seen);
}

void
esp_client_seen_list_clear (struct esp_client_seen_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    esp_client_seen_clear (&list->seen[i]);
  free (list->seen);
  memset (list, 0, sizeof *list);
}

void
esp_need_clear (struct esp_need *need)
{
  free (need->name);
  free (need->description);
  catalog_resources_free (need->resources, need->nresources);
  memset (need, 0, sizeof *need);
}

void
esp_need_list_clear (struct esp_need_list *list)
{
  for (size_t i = 0; i < list->n; ++i)
    esp_need_clear (&list->need[i]);
  free (list->need);
  memset (list, 0, sizeof *list);
}
