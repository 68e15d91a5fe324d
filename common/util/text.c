/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes and times as people write and read them. */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "util/host.h"
#include "util/name.h"

static int
bad_size (const char *s, const char *what, const char *why, int err)
{
  char text[64];

  esp_error ("%s: \"%s\" %s", what, esp_escape (s, text, sizeof text), why);
  errno = err;
  return -1;
}

/* The unit at S as a factor; 0 where there is no such unit. */
static uint64_t
size_unit (const char *s)
{
  static const char letters[] = "bkmgtpe";
  char c = *s >= 'A' && *s <= 'Z' ? (char) (*s + ('a' - 'A')) : *s;
  const char *p = c ? strchr (letters, c) : NULL;

  if (!c)
    return 1;
  if (c == 's' && !s[1])
    return 512;
  /* "iB" may follow what it belongs to: "KiB", not "BiB". */
  if (!p || (s[1] && (p == letters || strcmp (s + 1, "iB") != 0)))
    return 0;
  return UINT64_C (1) << (10 * (p - letters));
}

int
esp_size_parse (const char *s, const char *what, uint64_t *out)
{
  const char *p = s;
  uint64_t n = 0, unit;
  bool over = false;

  for (; *p >= '0' && *p <= '9'; ++p)
    over |= __builtin_mul_overflow (n, 10, &n)
      || __builtin_add_overflow (n, (uint64_t) (*p - '0'), &n);
  if (p == s)
    return bad_size (s, what, "is no size: write a number of bytes, or one "
                     "with a unit, such as 64K, 256M, 10G or 1T", EINVAL);
  unit = size_unit (p);
  if (!unit)
    return bad_size (s, what, "has an unknown unit: use K, M, G, T, P or E "
                     "behind a whole number", EINVAL);
  over |= __builtin_mul_overflow (n, unit, &n);
  if (over || n > INT64_MAX)
    return bad_size (s, what, "is too large: less than 8E is possible",
                     ERANGE);
  *out = n;
  return 0;
}

const char *
esp_size_format (uint64_t n, char buf[16])
{
  static const char units[] = "\0KMGTPE";
  double v = (double) n;
  unsigned u = 0;

  while (v >= 999.5) {
    v /= 1024;
    ++u;
  }
  int digits = u == 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;
  int len = snprintf (buf, 15, "%.*f", digits, v);
  if (digits) {
    while (buf[len - 1] == '0')
      --len;
    if (buf[len - 1] == '.')
      --len;
  }
  buf[len] = units[u];
  buf[len + 1] = 0;
  return buf;
}

const char *
esp_time_format (uint64_t seconds, char buf[32])
{
  time_t t = (time_t) seconds;
  struct tm tm;

  if (seconds > INT64_MAX || !localtime_r (&t, &tm)
      || !strftime (buf, 32, "%Y-%m-%d %H:%M:%S", &tm))
    strcpy (buf, "?");
  return buf;
}
