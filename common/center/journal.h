/* SPDX-License-Identifier: BSD-3-Clause */
/* The journal of a push: what of a pack is at the center already, so that a
 * push that was cut off goes on where it was (docs/formats.md,
 * "tmp/push-...").  Inside the library only.
 *
 * A sequence of records, each with its length and a checksum, appended and
 * synced: `begin` first, then one for each part that the center has taken,
 * in any order, then `end`, when the pack is complete there.  What follows
 * the first record that is cut or damaged is not believed, and is cut off.
 */

#ifndef ESPALIER_CENTER_JOURNAL_H
#define ESPALIER_CENTER_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "center/format.h"
#include "center/remote.h"
#include "store/store.h"

#pragma GCC visibility push(default)

#define JOURNAL_AGE_MAX (7 * 24 * 3600u)        /* seconds that gc keeps one */

/* What was begun. */
struct journal_begin {
  esp_uuid uuid;
  char center[ESP_NAME_MAX + 1];
  char *url;                    /* of the center; malloced */
  char object[256];             /* the pack's name */
  char id[ESP_UPLOAD_ID_MAX];   /* of the upload */
  struct esp_variant variant;   /* id, shift, codec, key, key_check, salt,
                                 * segments (of the whole pack) */
  int level;                    /* of the compression */
  esp_digest map_digest;        /* of the packed map */
};

/* A part: entries [FIRST, FIRST+N) of the index. */
struct journal_part {
  struct esp_part part;
  uint64_t first, n;
};

/* A journal in memory; all zero bytes are an empty one. */
struct journal {
  bool begun, ended;
  struct journal_begin begin;
  struct journal_part *parts;   /* by number */
  size_t nparts;
  struct esp_segment *segments; /* variant.segments of them; of what is in
                                 * parts `stored` and `digest` are set */
};
extern void journal_clear (struct journal *j);

/* Read the records of BUF into OUT; *VALID is where the first one begins
 * that is cut, damaged or makes no sense (LEN: none).  0, or -1 with ENOMEM,
 * reported.
 */
extern int journal_parse (const void *buf, size_t len, struct journal *out,
                          size_t *valid);

/* The bytes of a record, malloced (NULL: ENOMEM, not reported). */
extern void *journal_format_begin (const struct journal_begin *b, size_t *len);
extern void *journal_format_part (const struct journal_part *p,
                                  const struct esp_segment *segments,
                                  size_t *len);
extern void *journal_format_end (size_t *len);

/* --- the file --------------------------------------------------------- */
/* The journal of a push of UUID as VARIANT to CENTER, made when it is not
 * there, locked; J gets what it has.  Returns the descriptor, or -1: EBUSY
 * (not reported) while another process has it.
 */
extern int journal_open (struct esp_store *store, const char *center,
                         const esp_uuid *uuid, const char *variant,
                         struct journal *j);
/* Append a record, durably; BUF is freed (NULL: ENOMEM). */
extern int journal_append (int fd, void *buf, size_t len);
/* Forget all of it. */
extern int journal_truncate (int fd);
/* Remove the file of FD; FD stays open. */
extern int journal_remove (struct esp_store *store, const char *center,
                           const esp_uuid *uuid, const char *variant);

#pragma GCC visibility pop
#endif /* ESPALIER_CENTER_JOURNAL_H */
