/* SPDX-License-Identifier: BSD-3-Clause */
/* One range of bytes (RFC 9110, section 14).  What is not understood, or asks
 * for several ranges, is answered with the whole: a server may ignore Range.
 */

#include <config.h>

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "http.h"

/* Digits at *S, which is then behind them.  A number that is too large is
 * UINT64_MAX: further than any end.
 */
static bool
number (const char **s, uint64_t *out)
{
  uint64_t n = 0;
  bool any = false;

  for (; **s >= '0' && **s <= '9'; ++*s) {
    any = true;
    if (__builtin_mul_overflow (n, 10, &n) ||
        __builtin_add_overflow (n, (uint64_t) (**s - '0'), &n))
      n = UINT64_MAX;
    if (n == UINT64_MAX) {
      *s += strspn (*s, "0123456789");
      break;
    }
  }
  *out = n;
  return any;
}

static const char *
blanks (const char *s)
{
  return s + strspn (s, " \t");
}

unsigned
range_parse (const char *header, uint64_t size, uint64_t *from, uint64_t *len)
{
  uint64_t first, last;
  bool has_first, has_last;

  *from = 0;
  *len = size;
  if (!header || strncasecmp (header, "bytes=", 6) != 0)
    return 200;
  header = blanks (header + 6);
  has_first = number (&header, &first);
  if (*header++ != '-')
    return 200;
  has_last = number (&header, &last);
  if (*blanks (header) || (!has_first && !has_last) ||
      (has_first && has_last && last < first))
    return 200;
  if (!has_first) {             /* the last LAST bytes */
    if (last == 0 || size == 0)
      return 416;
    *len = last < size ? last : size;
    *from = size - *len;
    return 206;
  }
  if (first >= size)
    return 416;
  if (!has_last || last >= size)
    last = size - 1;
  *from = first;
  *len = last - first + 1;
  return 206;
}
