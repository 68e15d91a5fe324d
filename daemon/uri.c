/* SPDX-License-Identifier: BSD-3-Clause */
/* Decoding happens once and in place: a decoded text is never longer than what
 * it came from.  A path that could be read in two ways is refused rather than
 * made into another, so that nobody behind has to think of it.
 */

#include <config.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "uri.h"

/* --- text ------------------------------------------------------------------- */

/* Bytes of the character at S (N bytes are there), 0 where it is none.
 * RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF.
 */
static size_t
character (const unsigned char *s, size_t n)
{
  size_t len = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3
    : *s < 0xf5 ? 4 : 0;

  if (len == 0 || len > n)
    return 0;
  for (size_t i = 1; i < len; i++)
    if ((s[i] & 0xc0) != 0x80)
      return 0;
  if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) ||
      (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] > 0x8f))
    return 0;
  return len;
}

bool
uri_text_ok (const char *s, size_t n)
{
  const unsigned char *p = (const unsigned char *) s;

  while (n > 0) {
    size_t len = character (p, n);
    bool c1 = len == 2 && *p == 0xc2 && p[1] < 0xa0;

    if (len == 0 || *p < 0x20 || *p == 0x7f || c1)
      return false;
    p += len;
    n -= len;
  }
  return true;
}

static int
hex (char c)
{
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
    : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decode S up to its end in place; '+' is a blank where PLUS.  Returns the bytes
 * that it has then, or SIZE_MAX for a '%' without digits.
 */
static size_t
decode (char *s, bool plus)
{
  char *to = s, *from = s;

  while (*from) {
    if (*from == '%') {
      int high = hex (from[1]), low = high < 0 ? -1 : hex (from[2]);
      if (low < 0)
        return SIZE_MAX;
      *to++ = (char) (high << 4 | low);
      from += 3;
    }
    else {
      *to++ = *from == '+' && plus ? ' ' : *from;
      from++;
    }
  }
  *to = 0;
  return (size_t) (to - s);
}

/* --- path -------------------------------------------------------------------- */

static bool
has_encoded_slash (const char *s)
{
  while ((s = strchr (s, '%'))) {
    if (s[1] == '2' && (s[2] == 'f' || s[2] == 'F'))
      return true;
    s++;
  }
  return false;
}

/* "." and ".."; parts that are empty, but a slash at the end may be. */
static const char *
wrong_parts (const char *path)
{
  while (*path) {
    size_t n = strcspn (++path, "/");

    if (n == 0 && path[0] == '/')
      return "the path has an empty part (//)";
    if ((n == 1 && path[0] == '.') ||
        (n == 2 && path[0] == '.' && path[1] == '.'))
      return "the path has a part . or ..";
    path += n;
  }
  return NULL;
}

static const char *
decode_path (char *path)
{
  size_t n;

  if (*path != '/')
    return "the path does not begin with /";
  if (has_encoded_slash (path))
    return "the path has an encoded slash (%2F)";
  n = decode (path, false);
  if (n == SIZE_MAX)
    return "a % without two hexadecimal digits";
  if (!uri_text_ok (path, n))
    return "the path is not UTF-8, or has control characters";
  return wrong_parts (path);
}

/* --- query --------------------------------------------------------------------- */

static const char *
add_parameter (struct uri *uri, char *s)
{
  char *value = strchr (s, '=');
  size_t n, m = 0;
  struct uri_parameter *p = &uri->parameter[uri->nparameters];

  if (!*s)
    return NULL;                /* a&&b */
  if (uri->nparameters == URI_PARAMETERS)
    return "too many parameters";
  if (value)
    *value++ = 0;
  n = decode (s, true);
  if (value)
    m = decode (value, true);
  if (n == SIZE_MAX || m == SIZE_MAX)
    return "a % without two hexadecimal digits";
  if (!uri_text_ok (s, n))
    return NULL;                /* nobody asks for such a name */
  p->name = s;
  p->value = !value ? "" : m <= URI_VALUE_MAX && uri_text_ok (value, m) ? value
    : NULL;
  uri->nparameters++;
  return NULL;
}

static const char *
decode_query (struct uri *uri, char *query)
{
  const char *why = NULL;

  while (query && !why) {
    char *next = strchr (query, '&');

    if (next)
      *next++ = 0;
    why = add_parameter (uri, query);
    query = next;
  }
  return why;
}

/* --- all ------------------------------------------------------------------------ */

/* Behind the authority of an absolute URI. */
static char *
skip_host (char *s)
{
  static char root[] = "/";
  size_t n;

  if (strncmp (s, "http://", 7) != 0)
    return s;
  s += 7;
  n = strcspn (s, "/?");
  return s[n] ? s + n : root;
}

unsigned
uri_parse (const char *raw, struct uri *out, const char **why)
{
  char *path, *query;

  memset (out, 0, sizeof *out);
  *why = "the URL is too long";
  if (strlen (raw) > URI_MAX)
    return 414;
  out->buf = strdup (raw);
  if (!out->buf)
    abort ();
  path = skip_host (out->buf);
  query = strchr (path, '?');
  if (query)
    *query++ = 0;
  out->path = path;
  *why = decode_path (path);
  if (!*why)
    *why = decode_query (out, query);
  return *why ? 400 : 0;
}

void
uri_clear (struct uri *uri)
{
  free (uri->buf);
  memset (uri, 0, sizeof *uri);
}

const char *
uri_query (const struct uri *uri, const char *name, unsigned i)
{
  for (size_t n = 0; n < uri->nparameters; n++)
    if (strcmp (uri->parameter[n].name, name) == 0 && i-- == 0)
      return uri->parameter[n].value;
  return NULL;
}

bool
uri_match (const char *pattern, const char *path, char *buf,
           const char **part, size_t max)
{
  size_t k = 0;

  while (*pattern == '/' && *path == '/') {
    size_t n = strcspn (++pattern, "/"), m = strcspn (++path, "/");
    bool any = n == 1 && *pattern == '*';

    if (any ? m == 0 || k == max
        : n != m || strncmp (pattern, path, n) != 0)
      return false;
    if (any) {
      part[k++] = memcpy (buf, path, m);
      buf[m] = 0;
      buf += m + 1;
    }
    pattern += n;
    path += m;
  }
  return !*pattern && !*path;
}
