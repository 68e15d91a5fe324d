/* SPDX-License-Identifier: BSD-3-Clause */
/* Removing a center from a store's list. */

#include <config.h>

#include "center/center-internal.h"

int
esp_center_remove (struct esp_store *store, const char *name, bool force)
{
  CLEANUP_CENTER_CONFIG struct esp_center_config c = { 0 };

  (void) force;                 /* nothing is delayed yet */
  if (esp_rp_writable (store) == -1 ||
      esp_center_load (store, name, &c) == -1)
    return -1;
  return center_config_delete (store, name);
}
