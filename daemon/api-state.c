/* SPDX-License-Identifier: BSD-3-Clause */
/* The state as the page takes it: all that changes from look to look.  The
 * tree is added by api.c, and only for who has not got it yet.
 */

#include <config.h>

#include "api-internal.h"

#define CLIENTS 500u
#define BOOTS 12u

static json_t *
summary (const struct inventory *inv)
{
  uint64_t used = 0, own = 0, held = 0;

  for (size_t i = 0; i < inv->overlays.n; i++) {
    used += inv->overlays.o[i].used;
    held += inv->overlays.o[i].held;
  }
  for (size_t i = 0; i < inv->rps.list.n; i++)
    own += inv->rps.list.rp[i].data_blocks << ESP_BLOCK_SHIFT;
  return json_pack ("{s:I,s:I,s:I,s:I,s:I,s:I}",
                    "restore_points", (json_int_t) inv->rps.list.n,
                    "restore_point_bytes", (json_int_t) own,
                    "venues", (json_int_t) inv->venues.list.n,
                    "overlays", (json_int_t) inv->overlays.n,
                    "overlays_held", (json_int_t) held,
                    "overlay_bytes", (json_int_t) used);
}

json_t *
api_state (const struct config *config, const struct inventory *inv,
           const struct pulse *pulse)
{
  json_t *o = json_object ();

  json_object_set_new (o, "problems", api_problems (inv, pulse));
  json_object_set_new (o, "summary", summary (inv));
  json_object_set_new (o, "server", api_server (config, inv, pulse));
  json_object_set_new (o, "clients", api_clients (inv, pulse, CLIENTS));
  json_object_set_new (o, "venues", api_venues (inv));
  json_object_set_new (o, "hydration", api_hydration (inv, pulse));
  json_object_set_new (o, "cache", api_cache (pulse));
  json_object_set_new (o, "centers", api_centers (inv, pulse));
  json_object_set_new (o, "boots", api_boots (BOOTS));
  json_object_set_new (o, "history", api_history (pulse));
  return o;
}
