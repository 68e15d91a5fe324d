/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections to the stack, shared by all that read disks for HTTP. */

#ifndef ESPALIERD_SAN_POOL_H
#define ESPALIERD_SAN_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "util/name.h"

/* The size in bytes of restore point TIP, as the stack serves it (export
 * rp:UUID).  Connects where no connection is there.  EAGAIN where the stack
 * does not answer, reported; other errors are reported too.
 */
extern int pool_size (const esp_uuid *tip, uint64_t *size);

/* Begin to read LEN bytes (1 to 1 MiB, inside the disk) at POS of TIP; the
 * bytes arrive while the caller does something else.  NULL, reported.
 */
struct pool_read;
extern struct pool_read *pool_read_start (const esp_uuid *tip, uint64_t pos,
                                          size_t len);
/* Wait until they are there.  Where the connection broke, it is read once more
 * over a new one.  The bytes belong to the read.  NULL, reported: they cannot
 * be read.
 */
extern const char *pool_read_wait (struct pool_read *read);
/* Also while it is under way; NULL is allowed. */
extern void pool_read_free (struct pool_read *read);
/* Bytes that reads of all kinds hold at the moment: who only reads ahead
 * stops where it is much.
 */
extern uint64_t pool_bytes (void);

/* Close what is idle, break what is not, and wait until all is gone. */
extern void pool_stop (void);

#endif /* ESPALIERD_SAN_POOL_H */
