/* SPDX-License-Identifier: BSD-3-Clause */
/* Documents: small JSON files that carry their kind, version and checksum.
 *
 *   espalier-KIND VERSION xxh3:0123456789abcdef\n
 *   { ... JSON ... }\n
 *
 * The checksum covers all bytes behind the first line.  docs/formats.md
 * lists the kinds.  A version that the reader does not know is refused
 * with ENOTSUP, damage with EBADMSG.
 */

#ifndef ESPALIER_DOC_H
#define ESPALIER_DOC_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <sys/types.h>
#include <jansson.h>

#pragma GCC visibility push(default)

#define ESP_DOC_MAX (16u << 20)         /* larger documents are refused */

/* Load the document NAME of KIND, at most MAX_VERSION.  The caller
 * json_decrefs it.  Reports one error that names the file, except ENOENT,
 * which is not reported.
 */
extern json_t *esp_doc_load (int dirfd, const char *name, const char *kind,
                             int max_version);

/* The same from memory (for fuzzing); WHERE is for messages. */
extern json_t *esp_doc_parse (const char *buf, size_t len, const char *kind,
                              int max_version, const char *where);

/* Only the first line of BUF, and the checksum of the rest: is it a sound
 * document of KIND, at most MAX_VERSION?  For what must be known before the
 * JSON is read at all.  Errors as esp_doc_parse.
 */
extern int esp_doc_check (const char *buf, size_t len, const char *kind,
                          int max_version, const char *where);

/* The text of a document, malloced, with a NUL that *LEN does not count.
 * ENOMEM, EFBIG; reports nothing.  ROOT stays the caller's.
 */
extern char *esp_doc_format (const char *kind, int version, json_t *root,
                             size_t *len);

/* Write ROOT atomically and durably as NAME.  ROOT stays the caller's. */
extern int esp_doc_save (int dirfd, const char *name, const char *kind,
                         int version, json_t *root, mode_t mode);

/* Typed access that trusts nothing.  A key that is absent gives DFLT (or
 * NULL); one of the wrong type, a negative number or a string with a NUL
 * sets *BAD.  Strings belong to the object.
 */
extern const char *esp_doc_string (json_t *o, const char *key, bool *bad);
extern uint64_t esp_doc_u64 (json_t *o, const char *key, uint64_t dflt,
                             bool *bad);
extern json_t *esp_doc_array (json_t *o, const char *key, bool *bad);

#pragma GCC visibility pop
#endif /* ESPALIER_DOC_H */
