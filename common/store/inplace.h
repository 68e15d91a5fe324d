/* SPDX-License-Identifier: BSD-3-Clause */
/* Root stores in place: a raw file or a block device that is read where it
 * is.  Nothing keeps others from changing it, so what identifies it is
 * recorded when it is added, and compared whenever it is opened and while
 * it is read.
 *
 * The restore point of one has no `data` in its directory; its meta has the
 * object "in-place" (docs/formats.md, "meta").
 */

#ifndef ESPALIER_INPLACE_H
#define ESPALIER_INPLACE_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#pragma GCC visibility push(default)

#define ESP_INPLACE_KEY "in-place"

struct esp_inplace {
  char *path;                   /* absolute; malloced */
  bool device;                  /* a block device */
  uint64_t dev, ino;            /* of a file; DEV is for people: it may
                                 * change at a restart */
  uint64_t size;                /* bytes */
  uint64_t mtime, mtime_ns, ctime, ctime_ns;    /* of a file */
  uint64_t samples;             /* a checksum of blocks of a device */
};

/* Look at the file or device PATH (absolute).  Refuses what is neither, is
 * empty or larger than ESP_DISK_MAX.  ID is cleared with esp_inplace_clear,
 * also after an error.
 */
extern int esp_inplace_capture (const char *path, struct esp_inplace *id);
extern void esp_inplace_clear (struct esp_inplace *id);
#define CLEANUP_INPLACE __attribute__ ((cleanup (esp_inplace_clear)))

/* The object "in-place" of a meta document; the caller json_decrefs it. */
extern json_t *esp_inplace_to_json (const struct esp_inplace *id);
/* And back; EBADMSG, reported with WHERE, for one that makes no sense. */
extern int esp_inplace_from_json (json_t *o, struct esp_inplace *id,
                                  const char *where);

/* Open it for reading if it still is what it was: the descriptor, or -1;
 * errno ESTALE (reported, with what to do) when it changed.
 */
extern int esp_inplace_open (const struct esp_inplace *id);

/* Is the open FD still what ID says?  Returns 0, or -1 with errno ESTALE or
 * that of a failure, reported.  For a file a system call; for a device 64
 * reads of 4 KiB.
 */
extern int esp_inplace_same (int fd, const struct esp_inplace *id);

#pragma GCC visibility pop
#endif /* ESPALIER_INPLACE_H */
