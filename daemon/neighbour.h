/* SPDX-License-Identifier: BSD-3-Clause */
/* What the kernel knows of a machine on a network of ours. */

#ifndef ESPALIERD_NEIGHBOUR_H
#define ESPALIERD_NEIGHBOUR_H

#include <stdbool.h>

#define NEIGHBOUR_MAC_SIZE 18   /* "52:54:00:12:34:56" */

/* The hardware (Ethernet) address of the machine at ADDRESS (text), from the kernel's table of
 * neighbours (rtnetlink(7)); it has just sent us something, so if it is on a
 * network of ours it is there.  1; 0: it is not (behind a router, this machine itself, a
 * Unix socket); -1: the table cannot be read.  Reports nothing.
 */
extern int neighbour_mac (const char *address, char mac[NEIGHBOUR_MAC_SIZE]);
/* Can it be asked for at all?  -1 with errno. */
extern int neighbour_check (void);

#endif /* ESPALIERD_NEIGHBOUR_H */
