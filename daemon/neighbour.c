/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernel's table of neighbours.  It is asked for whole: of the few hundred
 * entries that a site's network has, each is 100 bytes.
 */

#include <config.h>

#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "neighbour.h"
#include "util/cleanup.h"

/* States in which the hardware address was confirmed at some time. */
#define KNOWN (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT)

struct wanted {
  int family;
  unsigned char addr[16];
  unsigned len;
};

static bool
parse (const char *address, struct wanted *out)
{
  out->family = strchr (address, ':') ? AF_INET6 : AF_INET;
  out->len = out->family == AF_INET6 ? 16 : 4;
  return inet_pton (out->family, address, out->addr) == 1;
}

/* A socket on which the table was asked for; -1. */
static int
ask (int family)
{
  const struct timeval second = { .tv_sec = 1 };
  struct { struct nlmsghdr head; struct ndmsg body; } q = {
    .head = { .nlmsg_len = sizeof q, .nlmsg_type = RTM_GETNEIGH,
              .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
    .body = { .ndm_family = (unsigned char) family },
  };
  int fd = socket (AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

  if (fd == -1)
    return -1;
  if (setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second) == -1 ||
      send (fd, &q, sizeof q, 0) != (ssize_t) sizeof q) {
    close (fd);
    return -1;
  }
  return fd;
}

/* Is the message H the entry of W, with an Ethernet address? */
static bool
is_it (const struct nlmsghdr *h, const struct wanted *w,
       char mac[NEIGHBOUR_MAC_SIZE])
{
  const struct ndmsg *n = NLMSG_DATA (h);
  const unsigned char *to = NULL, *hw = NULL;
  int len = (int) h->nlmsg_len - (int) NLMSG_LENGTH (sizeof *n);

  if (h->nlmsg_type != RTM_NEWNEIGH || len < 0 || !(n->ndm_state & KNOWN))
    return false;
  for (const struct rtattr *a = (const void *) ((const char *) n +
                                                NLMSG_ALIGN (sizeof *n));
       RTA_OK (a, len); a = RTA_NEXT (a, len)) {
    if (a->rta_type == NDA_DST && RTA_PAYLOAD (a) == w->len)
      to = RTA_DATA (a);
    else if (a->rta_type == NDA_LLADDR && RTA_PAYLOAD (a) == 6)
      hw = RTA_DATA (a);
  }
  if (!to || !hw || memcmp (to, w->addr, w->len) != 0)
    return false;
  snprintf (mac, NEIGHBOUR_MAC_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", hw[0],
            hw[1], hw[2], hw[3], hw[4], hw[5]);
  return true;
}

int
neighbour_check (void)
{
  CLEANUP_CLOSE int fd = ask (AF_INET);

  return fd == -1 ? -1 : 0;
}

int
neighbour_mac (const char *address, char mac[NEIGHBOUR_MAC_SIZE])
{
  union { struct nlmsghdr head; char bytes[32768]; } buf;
  struct wanted w;
  CLEANUP_CLOSE int fd = -1;

  if (!parse (address, &w))
    return 0;
  fd = ask (w.family);
  while (fd >= 0) {
    ssize_t n = recv (fd, &buf, sizeof buf, 0);

    if (n <= 0)
      break;
    for (const struct nlmsghdr *h = &buf.head; NLMSG_OK (h, n);
         h = NLMSG_NEXT (h, n)) {
      if (h->nlmsg_type == NLMSG_ERROR)
        return -1;
      if (h->nlmsg_type == NLMSG_DONE)
        return 0;
      if (is_it (h, &w, mac))
        return 1;
    }
  }
  return -1;
}
