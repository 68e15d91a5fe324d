/* SPDX-License-Identifier: BSD-3-Clause */
/* Copies of restore points that were made here, at the centers of the store:
 * where one of them was pushed, a segment that went bad on this disk can be
 * had back.
 */

#ifndef ESPALIER_COPIES_H
#define ESPALIER_COPIES_H

#include <stddef.h>
#include <stdint.h>

#include "center/format.h"
#include "store/store.h"

#pragma GCC visibility push(default)

/* Asks no center yet.  Not for several threads at once. */
struct esp_copies;
extern struct esp_copies *esp_copies_new (struct esp_store *store);
extern void esp_copies_free (struct esp_copies *copies);

/* Put the LEN bytes of raw of RP's segment NUMBER (of size 1 << SHIFT), which
 * have DIGEST, into RAW, from the first center that has them so, in whatever
 * variant of that segment size.  Returns the center's name.  NULL with ENOENT,
 * and one error that says of each center why it could not.
 *
 * A center that does not answer is not asked again: with many segments to mend
 * its time-out is waited for once.
 */
extern const char *esp_copies_get (struct esp_copies *copies,
                                   const struct esp_rp *rp, unsigned shift,
                                   uint32_t number, const esp_digest *digest,
                                   void *raw, size_t len);

#pragma GCC visibility pop
#endif /* ESPALIER_COPIES_H */
