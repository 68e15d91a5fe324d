/* SPDX-License-Identifier: BSD-3-Clause */
/* Parts of one upload, put by a few threads side by side.  Inside the
 * library only.
 */

#ifndef ESPALIER_CENTER_UPLOADS_H
#define ESPALIER_CENTER_UPLOADS_H

#include "center/journal.h"
#include "center/remote.h"

struct upload_buffer {
  uint8_t *data;
  size_t len, room;
  struct journal_part part;
};

/* Put parts of OBJECT's upload ID; each that the center has taken is appended
 * to the journal FD, with its entries of SEGMENTS.  NULL: reported.
 */
struct uploads;
extern struct uploads *uploads_new (struct esp_remote *remote,
                                    const char *object, const char *id,
                                    int journal,
                                    const struct esp_segment *segments);
/* An empty buffer (waits for one); NULL when a part failed (reported). */
extern struct upload_buffer *uploads_buffer (struct uploads *u);
/* Put BUFFER, in the background. */
extern void uploads_put (struct uploads *u, struct upload_buffer *buffer);
/* Wait for all; 0, or -1 (reported) when one failed.  *PARTS, malloced, gets
 * what was put, in no order.  Frees U.  With CANCEL nothing more is begun,
 * but what is on its way ends and is kept.
 */
extern int uploads_end (struct uploads *u, bool cancel,
                        struct journal_part **parts, size_t *n);

#endif /* ESPALIER_CENTER_UPLOADS_H */
