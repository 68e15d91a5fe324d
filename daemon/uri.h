/* SPDX-License-Identifier: BSD-3-Clause */
/* The target of a request, taken apart and decoded.  Pure. */

#ifndef ESPALIERD_URI_H
#define ESPALIERD_URI_H

#include <stdbool.h>
#include <stddef.h>

#define URI_MAX 8192            /* bytes, as sent */
#define URI_PARAMETERS 128
#define URI_VALUE_MAX 1024      /* bytes, decoded */

struct uri_parameter {
  const char *name;
  const char *value;            /* NULL: not UTF-8, control characters, too
                                 * long */
};
struct uri {
  const char *path;             /* begins with '/' */
  struct uri_parameter parameter[URI_PARAMETERS];
  size_t nparameters;
  char *buf;                    /* what the others point into */
};

/* Is S (N bytes) UTF-8 without control characters? */
extern bool uri_text_ok (const char *s, size_t n);

/* Take RAW apart: PATH?QUERY, or http://HOST/PATH?QUERY.  Returns 0, or the
 * status to answer with: 414 where it is too long, 400 for a path that is
 * not absolute, has empty parts, "." or "..", a slash that is encoded, NUL or
 * another control character, bytes that are not UTF-8; for '%' without two
 * hexadecimal digits, for more than URI_PARAMETERS parameters.  *WHY then says
 * what is wrong, in static text.  Reports nothing.
 */
extern unsigned uri_parse (const char *raw, struct uri *out, const char **why);
extern void uri_clear (struct uri *uri);

/* The value of the I-th parameter NAME, or NULL. */
extern const char *uri_query (const struct uri *uri, const char *name,
                              unsigned i);

/* Does PATH fit PATTERN, in which a part of "*" alone stands for any?  Those
 * parts are copied into BUF (strlen (PATH) + 1 bytes), PART has up to MAX of them.
 */
extern bool uri_match (const char *pattern, const char *path, char *buf,
                       const char **part, size_t max);

#endif /* ESPALIERD_URI_H */
