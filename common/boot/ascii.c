/* SPDX-License-Identifier: BSD-3-Clause */
/* A legible stand-in in ASCII.
 *
 * Each character is taken by itself, with the few exceptions that kana need
 * (kya, tta).  Chinese characters become capitalised syllables, so that one sees
 * where each begins: WangBa.  Nothing here is reversible, and different texts may
 * become the same: where that matters, as in a menu, esp_ascii_distinct mends
 * it.
 */

#include <config.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/ascii-internal.h"
#include "boot/ascii.h"
#include "util/cleanup.h"

/* --- UTF-8 ---------------------------------------------------------------- */

/* The character at *P, which goes behind it; -1, one byte further, where there
 * is no valid one.
 */
static int32_t
next_char (const unsigned char **p)
{
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  const unsigned char *s = *p;
  unsigned n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3
    : s[0] >> 3 == 30 ? 4 : 0;
  uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);

  for (unsigned i = 1; i < n; ++i) {
    if (s[i] >> 6 != 2) {       /* the NUL at the end, too */
      n = 0;
      break;
    }
    c = c << 6 | (s[i] & 0x3f);
  }
  if (n == 0 || c < least[n] || c > 0x10ffff || c >> 11 == 0x1b) {
    ++*p;
    return -1;
  }
  *p += n;
  return (int32_t) c;
}

/* --- the text as it grows ------------------------------------------------- */

struct text {
  char *buf;                    /* with room for all that can come */
  size_t len;
  enum esp_ascii_rest rest;
  size_t lost;
  bool blank;                   /* one is due before the next character */
  bool marked;                  /* the last was a '?' for what is lost */
  bool kana, doubled;           /* the last was kana; it was a small tsu */
};

static void
put (struct text *t, const char *s)
{
  if (*s == 0)
    return;
  if (t->blank && t->len > 0)
    t->buf[t->len++] = ' ';
  t->blank = t->marked = false;
  while (*s)
    t->buf[t->len++] = *s++;
}

static void
put_lost (struct text *t, int32_t c, unsigned byte)
{
  char code[16];
  bool marked = t->marked && !t->blank;

  t->lost++;
  if (t->rest == ESP_ASCII_MARK) {
    if (!marked)
      put (t, "?");
    t->marked = true;
    return;
  }
  snprintf (code, sizeof code, c < 0 ? "%%%02X" : "U+%04X",
            c < 0 ? byte : (unsigned) c);
  put (t, code);
}

static void
put_syllable (struct text *t, const char *s)
{
  put (t, (char []) { (char) (s[0] - 'a' + 'A'), 0 });
  put (t, s + 1);
}

/* "ki" and a small "ya" are "kya", "shi" and it "sha". */
static void
join_small_y (struct text *t)
{
  t->len--;
  if (t->len > 0 && t->buf[t->len - 1] != 'h' && t->buf[t->len - 1] != 'j')
    t->buf[t->len++] = 'y';
}

static void
put_kana (struct text *t, uint32_t hiragana, const char *s)
{
  if (hiragana == 0x3063) {     /* small tsu */
    t->doubled = t->kana = true;
    return;
  }
  if ((hiragana == 0x3083 || hiragana == 0x3085 || hiragana == 0x3087) &&
      t->kana && !t->blank && t->len > 1 && t->buf[t->len - 1] == 'i') {
    join_small_y (t);
    s++;
  }
  if (t->doubled && s[0] && !strchr ("aeiou", s[0]))
    put (t, (char []) { s[0] == 'c' ? 't' : s[0], 0 });
  put (t, s);
  t->doubled = false;
  t->kana = true;
}

static bool
is_blank (int32_t c)
{
  return (c >= 0 && c <= ' ') || (c >= 0x7f && c <= 0xa0) ||
    (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x3000;
}

static void
put_char (struct text *t, int32_t c, unsigned byte)
{
  char buf[16];
  const char *s;

  if (is_blank (c)) {
    t->blank = true;
    return;
  }
  if (c >= 0 && (s = ascii_han ((uint32_t) c))) {
    put_syllable (t, s);
    t->kana = t->doubled = false;
    return;
  }
  s = c < 0 ? NULL : ascii_letter ((uint32_t) c, buf);
  if (s && ((c >= 0x3041 && c <= 0x3096) || (c >= 0x30a1 && c <= 0x30f6))) {
    put_kana (t, (uint32_t) (c >= 0x30a1 ? c - 0x60 : c), s);
    return;
  }
  t->kana = t->doubled = false;
  if (s)
    put (t, s);
  else
    put_lost (t, c, byte);
}

char *
esp_ascii (const char *text, enum esp_ascii_rest rest, size_t *lost)
{
  const unsigned char *p = (const unsigned char *) text;
  struct text t = { .rest = rest };

  /* The longest are "U+10FFFF" and its like; a blank before each. */
  t.buf = malloc (strlen (text) * 16 + 1);
  if (!t.buf)
    return NULL;
  while (*p) {
    unsigned byte = *p;

    put_char (&t, next_char (&p), byte);
  }
  t.buf[t.len] = 0;
  if (lost)
    *lost = t.lost;
  char *cut = realloc (t.buf, t.len + 1);
  return cut ? cut : t.buf;
}

/* --- lines of a menu ------------------------------------------------------ */

/* Cut S to WIDTH columns; what was cut shows. */
static void
clip (char *s, size_t width)
{
  if (strlen (s) > width)
    memcpy (s + width - 3, "...", 4);
}

char *
esp_ascii_line (const char *name, const char *description, size_t width)
{
  size_t lost, lost_more = 0;
  CLEANUP_FREE char *n = esp_ascii (name, ESP_ASCII_CODES, &lost);
  CLEANUP_FREE char *d = esp_ascii (description ? description : "",
                                    ESP_ASCII_MARK, &lost_more);
  char *line;
  int r;

  if (!n || !d)
    return NULL;
  if (*d == 0 || strcmp (d, "?") == 0)
    r = asprintf (&line, "%s", *n ? n : "?");
  else if (lost > 0 && lost_more == 0)
    r = asprintf (&line, "%s (%s)", d, n);
  else
    r = asprintf (&line, "%s - %s", n, d);
  if (r < 0)
    return NULL;
  clip (line, width);
  return line;
}

/* Is LINES[AT] as one before it? */
static bool
seen_before (char *const *lines, size_t at)
{
  for (size_t i = 0; i < at; ++i)
    if (strcmp (lines[i], lines[at]) == 0)
      return true;
  return false;
}

static char *
numbered (const char *line, unsigned number, size_t width)
{
  char tail[16], *s;
  size_t n = (size_t) snprintf (tail, sizeof tail, " (%u)", number);
  size_t keep = strlen (line) + n > width ? width - n : strlen (line);

  return asprintf (&s, "%.*s%s", (int) keep, line, tail) < 0 ? NULL : s;
}

int
esp_ascii_distinct (char **lines, size_t n, size_t width)
{
  for (size_t i = 0; i < n; ++i) {
    CLEANUP_FREE char *plain = NULL;

    for (unsigned number = 2; *lines[i] && seen_before (lines, i); ++number) {
      char *s;

      if (!plain)
        plain = ESP_STEAL (lines[i]);
      s = numbered (plain, number, width);
      if (!s) {
        lines[i] = ESP_STEAL (plain);
        return -1;
      }
      free (lines[i]);
      lines[i] = s;
    }
  }
  return 0;
}
