/* SPDX-License-Identifier: BSD-3-Clause */
/* The venue plugin's parameters. */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "catalog/catalog.h"
#include "store/venue.h"
#include "util/stack.h"

#include "venue.h"

char *params_store;
const char *default_venue;
const esp_uuid *start;
struct esp_gate_params params_gate = { .peer = nbdkit_peer_name };

static const char *start_ref;           /* start= as given, or NULL */
static esp_uuid start_uuid;
static char *audit_path;                /* absolute, or NULL */

void
params_free (void)
{
  free (params_store);
  free (audit_path);
}

static int
config_required (const char *value)
{
  int b = nbdkit_parse_bool (value);

  if (b == -1) {
    nbdkit_error ("require-ticket=%s: give on or off", value);
    return -1;
  }
  params_gate.require_ticket = b;
  return 0;
}

static int
config_audit (const char *value)
{
  free (audit_path);
  params_gate.audit = audit_path = nbdkit_absolute_path (value);
  return audit_path ? 0 : -1;
}

int
venue_config (const char *key, const char *value)
{
  if (strcmp (key, "store") == 0)
    return esp_stack_set_store (value);

  if (strcmp (key, "venue") == 0) {
    if (esp_name_check (value, "venue") == -1)
      return -1;
    default_venue = value;
    return 0;
  }

  if (strcmp (key, "start") == 0) {
    start_ref = value;
    return 0;
  }

  if (strcmp (key, "require-ticket") == 0)
    return config_required (value);

  if (strcmp (key, "audit") == 0)
    return config_audit (value);

  nbdkit_error ("unknown parameter '%s': venue takes store=DIR, venue=ID, "
                "start=RP, require-ticket=on|off and audit=FILE", key);
  return -1;
}

int
venue_config_complete (void)
{
  params_store = esp_store_default_path (esp_stack_get_store ());
  return params_store ? 0 : -1;
}

/* Resolve start= and make sure that venue= can be served. */
static int
check_served (struct esp_store *s)
{
  struct esp_export export = { .is_rp = false };
  CLEANUP_RP struct esp_rp rp = { 0 };
  esp_uuid tip;

  if (start_ref) {
    if (esp_catalog_rp_find (esp_store_catalog (s), start_ref, &rp) == -1)
      return -1;
    start_uuid = rp.uuid;
    start = &start_uuid;
  }

  if (!default_venue)
    return 0;
  snprintf (export.name, sizeof export.name, "%s", default_venue);
  return esp_export_tip (s, &export, start, &tip);
}

int
params_check (struct esp_store *s)
{
  return check_served (s) == -1 ? -1 : esp_gate_check (s, &params_gate);
}
