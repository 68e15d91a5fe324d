/* SPDX-License-Identifier: BSD-3-Clause */
/* Which path is answered by what.  The first that fits counts. */

#include <config.h>

#include "api.h"
#include "boot.h"
#include "daemon.h"
#include "files.h"
#include "http.h"
#include "metrics.h"
#include "page.h"
#include "peers.h"
#include "san.h"

/* Alive?  With "stack": and can it serve disks?  For load balancers and
 * probes.
 */
static int
healthz (struct request *r)
{
  struct stack_info info;

  stack_info (&info);
  if (request_query (r, "stack") && info.state != STACK_UP)
    return reply_error (r, 503, "the NBD server does not answer");
  return reply (r, 200, "text/plain; charset=utf-8", "ok\n", 3);
}

const struct route routes[] = {
  { "/boot.ipxe", boot_script },
  { "/healthz", healthz },
  { "/peer/venues", peers_handler },
  { "/", page_handle },
  { "/page/*", page_file_handle },
  { "/api/state", api_state_handle },
  { "/api/tree", api_tree_handle },
  { "/api/venues", api_venues_handle },
  { "/api/venues/*", api_venue_handle },
  { "/api/clients", api_clients_handle },
  { "/api/overlays", api_overlays_handle },
  { "/api/hydration", api_hydration_handle },
  { "/api/cache", api_cache_handle },
  { "/api/centers", api_centers_handle },
  { "/api/boots", api_boots_handle },
  { "/api/server", api_server_handle },
  { "/metrics", metrics_handle },
  { "/venues/*/disk/*", san_disk },
  { "/venues/*/kernel", files_kernel },
  { "/venues/*/initrd", files_initrd },
  { NULL, NULL },
};
