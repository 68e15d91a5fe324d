/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration's file.  Lines of "name = value"; a line that begins with
 * '#' is a comment, and so is what follows a blank and '#'.  A value may stand
 * in double quotes, then it is taken as it is; without a value, a name is set to
 * nothing.  Values are UTF-8; a file has at most 1 MiB.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config-internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

#define FILE_LIMIT (1u << 20)
#define NAMES_MAX 64

/* Where in a file we are, and where it set what. */
struct place {
  const char *file;
  unsigned line;
  unsigned set_in[NAMES_MAX];
};

static int __attribute__ ((format (printf, 2, 3)))
complain (const struct place *at, const char *fmt, ...)
{
  char text[512];
  va_list args;

  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  errno = EINVAL;
  esp_error ("%s:%u: %s", at->file, at->line, text);
  return -1;
}

static char *
skip_blanks (char *s)
{
  return s + strspn (s, " \t");
}

static void
trim_end (char *s)
{
  size_t n = strlen (s);

  while (n > 0 && strchr (" \t\r", s[n - 1]))
    s[--n] = 0;
}

/* Only a comment or nothing may follow a closing quote. */
static int
unquote (struct place *at, char **value)
{
  char *end = strchr (*value + 1, '"'), *rest;

  /* nbd-options = --a "b c": the quotes belong to words.c */
  if (!end)
    return complain (at, "the quote (\") has no end");
  rest = skip_blanks (end + 1);
  if (*rest && *rest != '#')
    return 1;
  *end = 0;
  ++*value;
  return 0;
}

static void
cut_comment (char *s)
{
  bool quoted = false;

  for (char *p = s; *p; p++) {
    if (*p == '"')
      quoted = !quoted;
    if (*p == '#' && !quoted && (p == s || p[-1] == ' ' || p[-1] == '\t')) {
      *p = 0;
      break;
    }
  }
  trim_end (s);
}

/* A name is set once; a list may have many lines. */
static int
check_once (struct place *at, const char *name)
{
  const char *near;
  const struct config_name *n = config_find (name, &near);

  if (!n || n->kind == KIND_URLS)
    return 0;
  unsigned *line = &at->set_in[n - config_names];
  if (*line)
    return complain (at, "%s is set in line %u already", name, *line);
  *line = at->line;
  return 0;
}

static int
parse_line (struct config *config, struct place *at, char *s)
{
  char *name = skip_blanks (s), *value, where[4200];
  size_t n = strcspn (name, " \t=#\r");
  int r = 1;

  if (!*name || *name == '#' || *name == '\r')
    return 0;
  value = skip_blanks (name + n);
  if (n == 0 || *value != '=')
    return complain (at, "not NAME = VALUE");
  name[n] = 0;
  value = skip_blanks (value + 1);
  if (*value == '"' && (r = unquote (at, &value)) == -1)
    return -1;
  if (r == 1)
    cut_comment (value);
  if (check_once (at, name) == -1)
    return -1;
  snprintf (where, sizeof where, "%s:%u", at->file, at->line);
  return config_set (config, where, name, value);
}

int
config_parse (struct config *config, const char *file, const char *text,
              size_t len)
{
  struct place at = { .file = file };
  const char *end = text + len;

  while (text < end) {
    const char *nl = memchr (text, '\n', (size_t) (end - text));
    CLEANUP_FREE char *line = strndup (text, (size_t) ((nl ? nl : end) - text));

    at.line++;
    if (!line)
      abort ();
    if (strlen (line) != (size_t) ((nl ? nl : end) - text))
      return complain (&at, "a NUL byte");
    if (parse_line (config, &at, line) == -1)
      return -1;
    text = nl ? nl + 1 : end;
  }
  return 0;
}

/* --- all of it ------------------------------------------------------------------ */

static int
read_config (struct config *config, const char *given)
{
  const char *file = given ? given : CONFIG_FILE;
  CLEANUP_FREE char *text = NULL;
  size_t len;

  if (esp_read_file (AT_FDCWD, file, FILE_LIMIT, &text, &len) == -1) {
    if (!given && errno == ENOENT)
      return 0;
    esp_error ("open: %s: %m", file);
    return -1;
  }
  return config_parse (config, file, text, len);
}

static int
set_options (struct config *config, const struct config_source *source)
{
  bool cleared = false;

  for (size_t i = 0; i < source->noptions; i++) {
    const struct config_option *o = &source->option[i];
    char where[64];

    if (!cleared && strcmp (o->name, "server") == 0) {
      config_clear_list (config);
      cleared = true;
    }
    snprintf (where, sizeof where, "--%s", o->name);
    if (config_set (config, where, o->name, o->value) == -1)
      return -1;
  }
  return 0;
}

struct config *
config_load (const struct config_source *source)
{
  struct config *config = config_new ();

  if (read_config (config, source->file) == -1 ||
      set_options (config, source) == -1 || config_finish (config) == -1) {
    config_put (config);
    return NULL;
  }
  return config;
}
