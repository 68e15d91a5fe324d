/* SPDX-License-Identifier: BSD-3-Clause */
/* What iPXE would do with a script, as far as its way of reading goes: lines
 * joined at backslashes, words, comments, separators, ${settings}, options.
 * ipxe_skeleton writes it down without the texts, so that two scripts that
 * differ in texts alone have the same.
 */

#ifndef ESPALIER_IPXE_READ_H
#define ESPALIER_IPXE_READ_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The settings that WORD replaces, but ${nil}. */
static inline void
ipxe_settings (FILE *out, const char *word)
{
  const char *start = NULL;

  for (const char *p = word; *p; ++p) {
    if (p[0] == '$' && p[1] == '{')
      start = p;
    if (start && *p == '}') {
      if (strncmp (start, "${nil}", 6) != 0)
        fprintf (out, " %.*s", (int) (p + 1 - start), start);
      start = NULL;
    }
  }
}

static inline bool
ipxe_separates (const char *word)
{
  return strcmp (word, "||") == 0 || strcmp (word, "&&") == 0 ||
    strcmp (word, ";") == 0;
}

/* Words of a logical LINE, which is changed. */
static inline void
ipxe_line (FILE *out, char *line)
{
  bool command = true, options = false;
  char *save = NULL;

  for (char *w = strtok_r (line, " \t\r\v\f", &save); w;
       w = strtok_r (NULL, " \t\r\v\f", &save)) {
    if (*w == '#') {
      fputs (" #", out);
      break;
    }
    if (ipxe_separates (w)) {
      fprintf (out, " %s", w);
      command = true;
      continue;
    }
    ipxe_settings (out, w);
    if (command) {
      fprintf (out, " %s", w);
      command = *w == ':';      /* a label, and then a command */
      options = true;
    }
    else if (options && *w == '-' && strcmp (w, "--") != 0)
      fprintf (out, " %s", w);
    else
      options = options && (w[0] == '-' || w[0] == '0') && strcmp (w, "--") != 0;
  }
  putc ('\n', out);
}

/* malloced. */
static inline char *
ipxe_skeleton (const char *script)
{
  char *text, *line = strdup (""), *all = strdup (script), *save = all, *next;
  size_t size;
  FILE *out = open_memstream (&text, &size);

  for (char *p = all; p; p = next) {
    size_t n;

    next = strchr (p, '\n');
    if (next)
      *next++ = 0;
    line = realloc (line, strlen (line) + strlen (p) + 1);
    strcat (line, p);
    n = strlen (line);
    if (n > 0 && line[n - 1] == '\\') {
      line[n - 1] = 0;
      continue;
    }
    ipxe_line (out, line);
    line[0] = 0;
  }
  free (line);
  free (save);
  fclose (out);
  return text;
}

#endif /* ESPALIER_IPXE_READ_H */
