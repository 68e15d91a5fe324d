/* SPDX-License-Identifier: BSD-3-Clause */

#include <config.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "words.h"

void
words_clear (struct words *words)
{
  for (size_t i = 0; i < words->n; i++)
    free (words->word[i]);
  free (words->word);
  *words = (struct words) { 0 };
}

void
words_add (struct words *words, const char *word)
{
  words->word = realloc (words->word, (words->n + 2) * sizeof *words->word);
  if (!words->word || !(words->word[words->n] = strdup (word)))
    abort ();
  words->word[++words->n] = NULL;
}

static bool
is_blank (char c)
{
  return c == ' ' || c == '\t';
}

/* Copy the word at *S to BUF; *S is then behind it. */
static int
take (const char **s, char *buf)
{
  bool quoted = false;

  for (; **s && (quoted || !is_blank (**s)); ++*s)
    if (**s == '"')
      quoted = !quoted;
    else
      *buf++ = **s;
  *buf = 0;
  return quoted ? -1 : 0;
}

int
words_split (const char *s, struct words *out)
{
  CLEANUP_FREE char *buf = malloc (strlen (s) + 1);

  *out = (struct words) { 0 };
  if (!buf)
    abort ();
  for (;;) {
    while (is_blank (*s))
      s++;
    if (!*s)
      return 0;
    if (take (&s, buf) == -1) {
      words_clear (out);
      errno = EINVAL;
      return -1;
    }
    words_add (out, buf);
  }
}
