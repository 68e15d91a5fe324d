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

void
esp_rp_clear (struct esp_rp *rp)
{
  for (size_t i = 0; i < rp->nresources; ++i) {
    free (rp->resources[i].kind);
    free (rp->resources[i].name);
    free (rp->resources[i].version);
  }
  free (rp->resources);
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
