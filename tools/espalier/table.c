/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables and fields for people.  Cells are kept until the table ends, then
 * printed in columns as wide as their widest cell.
 */

#include <config.h>

#include <inttypes.h>
#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "espalier.h"

#define COLUMNS_MAX 12
#define GAP 2

struct table {
  unsigned columns;
  bool right[COLUMNS_MAX];
  size_t width[COLUMNS_MAX];
  char **cell;                  /* columns for each row, the header first */
  size_t ncells, room;
};

bool
output_utf8 (void)
{
  return strcmp (nl_langinfo (CODESET), "UTF-8") == 0;
}

/* The columns of a terminal that S takes. */
static size_t
display_width (const char *s)
{
  wchar_t wide[512];
  size_t n = mbstowcs (wide, s, 511);
  int w;

  if (n == (size_t) -1)
    return strlen (s);
  wide[n > 511 ? 511 : n] = 0;
  w = wcswidth (wide, 511);
  return w < 0 ? strlen (s) : (size_t) w;
}

static void
add (struct table *t, char *text)
{
  unsigned c = (unsigned) (t->ncells % t->columns);
  size_t w = display_width (text);

  if (t->ncells == t->room) {
    t->room = t->room ? 2 * t->room : 64;
    t->cell = realloc (t->cell, t->room * sizeof *t->cell);
    if (!t->cell)
      abort ();
  }
  t->cell[t->ncells++] = text;
  if (w > t->width[c])
    t->width[c] = w;
}

struct table *
table_new (const char *header)
{
  struct table *t = xcalloc (1, sizeof *t);
  CLEANUP_FREE char *copy = xstrdup (header);
  char *save, *word, *heads[COLUMNS_MAX];

  for (word = strtok_r (copy, "|", &save); word && t->columns < COLUMNS_MAX;
       word = strtok_r (NULL, "|", &save)) {
    size_t len = strlen (word);
    if ((t->right[t->columns] = word[len - 1] == '>'))
      word[len - 1] = 0;
    heads[t->columns++] = word;
  }
  for (unsigned i = 0; i < t->columns; i++)
    add (t, xstrdup (heads[i]));
  return t;
}

/* Fill up a row that was left early. */
void
table_row (struct table *t)
{
  while (t->ncells % t->columns != 0)
    add (t, xstrdup (""));
}

void
table_cell (struct table *t, const char *text)
{
  size_t size = 4 * strlen (text) + 1;
  char *buf = xcalloc (1, size + 4);

  esp_escape (text, buf, size + 4);
  add (t, buf);
}

void
table_cellf (struct table *t, const char *fmt, ...)
{
  char *text;
  va_list args;

  va_start (args, fmt);
  if (vasprintf (&text, fmt, args) < 0)
    abort ();
  va_end (args);
  add (t, text);
}

void
table_size (struct table *t, uint64_t bytes)
{
  char buf[16];
  add (t, xstrdup (esp_size_format (bytes, buf)));
}

void
table_time (struct table *t, uint64_t seconds)
{
  char buf[32];
  add (t, xstrdup (seconds ? esp_time_format (seconds, buf) : "-"));
}

/* The width of the terminal on standard output; 0 where it is none. */
static size_t
terminal_width (void)
{
  struct winsize w;

  if (!isatty (STDOUT_FILENO) || ioctl (STDOUT_FILENO, TIOCGWINSZ, &w) != 0)
    return 0;
  return w.ws_col;
}

/* Print S, at most WIDTH columns of it (0: all). */
static void
print_clipped (const char *s, size_t width)
{
  mbstate_t state = { 0 };
  size_t used = 0;

  if (width == 0 || display_width (s) <= width) {
    fputs (s, stdout);
    return;
  }
  while (*s) {
    wchar_t wc;
    size_t n = mbrtowc (&wc, s, MB_CUR_MAX, &state);
    int w = n == (size_t) -1 || n == (size_t) -2 ? -1 : wcwidth (wc);
    if (w < 0 || used + (size_t) w > width)
      break;
    fwrite (s, 1, n, stdout);
    used += (size_t) w;
    s += n;
  }
}

static void
print_cell (const struct table *t, unsigned c, const char *s, bool end,
            size_t *at, size_t edge)
{
  size_t w = display_width (s), pad = t->width[c] > w ? t->width[c] - w : 0;

  if (c > 0)
    *at += (size_t) printf ("%*s", GAP, "");
  if (t->right[c])
    *at += (size_t) printf ("%*s", (int) pad, "");
  if (c == t->columns - 1 && edge > *at)
    print_clipped (s, edge - *at);
  else
    fputs (s, stdout);
  *at += w;
  if (!t->right[c] && !end)
    *at += (size_t) printf ("%*s", (int) pad, "");
}

void
table_end (struct table *t, const char *empty)
{
  size_t edge = terminal_width ();

  table_row (t);
  for (size_t i = 0; i < t->ncells; i += t->columns) {
    size_t at = 0;
    if (t->ncells == t->columns)
      break;
    unsigned filled = t->columns;       /* no blanks at the end of a line */
    while (filled > 1 && !*t->cell[i + filled - 1])
      filled--;
    for (unsigned c = 0; c < filled; c++)
      print_cell (t, c, t->cell[i + c], c == filled - 1, &at, edge);
    putchar ('\n');
  }
  if (t->ncells == t->columns)
    puts (empty);
  for (size_t i = 0; i < t->ncells; i++)
    free (t->cell[i]);
  free (t->cell);
  free (t);
}

/* --- fields ------------------------------------------------------------- */

void
field (const char *label, const char *fmt, ...)
{
  va_list args;

  printf ("%-16s ", label);
  va_start (args, fmt);
  vprintf (fmt, args);
  va_end (args);
  putchar ('\n');
}

void
field_size (const char *label, uint64_t bytes)
{
  char buf[16];

  if (bytes < 1024)
    field (label, "%" PRIu64, bytes);
  else
    field (label, "%s (%" PRIu64 " bytes)", esp_size_format (bytes, buf), bytes);
}

void
field_time (const char *label, uint64_t seconds)
{
  char buf[32];
  field (label, "%s", seconds ? esp_time_format (seconds, buf) : "-");
}

void
field_text (const char *label, const char *text)
{
  size_t size = 4 * strlen (text) + 4;
  CLEANUP_FREE char *buf = xcalloc (1, size);
  field (label, "%s", esp_escape (text, buf, size));
}
