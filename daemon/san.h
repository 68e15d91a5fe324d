/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks over HTTP, read-only: docs/boot.md, "HTTP SAN". */

#ifndef ESPALIERD_SAN_H
#define ESPALIERD_SAN_H

#include "http.h"

/* The handler of "/venues/<ID>/disk/<N>". */
extern int san_disk (struct request *r);
/* End all reads and close the connections; no request is there any more. */
extern void san_stop (void);

#endif /* ESPALIERD_SAN_H */
