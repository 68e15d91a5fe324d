/* SPDX-License-Identifier: BSD-3-Clause */

#include <config.h>

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "notify.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

void
notify (const char *state)
{
  const char *path = getenv ("NOTIFY_SOCKET");
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  CLEANUP_CLOSE int fd = -1;
  size_t n;

  if (!path || !*path || (n = strlen (path)) >= sizeof addr.sun_path)
    return;
  memcpy (addr.sun_path, path, n);
  if (*path == '@')             /* an abstract one */
    addr.sun_path[0] = 0;
  fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd == -1 ||
      sendto (fd, state, strlen (state), MSG_NOSIGNAL, (struct sockaddr *) &addr,
              (socklen_t) (offsetof (struct sockaddr_un, sun_path) + n)) == -1)
    esp_warning ("sendto: %s: %m", path);
}

void
notify_reloading (void)
{
  char text[80];

  snprintf (text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
            esp_now_us ());
  notify (text);
}
