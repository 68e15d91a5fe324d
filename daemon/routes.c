/* SPDX-License-Identifier: BSD-3-Clause */
/* Which path is answered by what.  The first that fits counts. */

#include <config.h>

#include "boot.h"
#include "daemon.h"
#include "files.h"
#include "http.h"
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
  { "/venues/*/disk/*", san_disk },
  { "/venues/*/kernel", files_kernel },
  { "/venues/*/initrd", files_initrd },
  { NULL, NULL },
};
