/* SPDX-License-Identifier: BSD-3-Clause */
/* The log: one line a message on standard error, written by one call, so that
 * lines of several threads do not mix.  Control characters in it are escaped:
 * what a client sent does not become a line of its own.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "util/host.h"

#define LINE 2048
#define TICKET_LIKE 40          /* characters */

static bool verbose, journal;

static bool
in_ticket (char c)
{
  return isalnum ((unsigned char) c) || c == '-' || c == '_';
}

void
log_hide (char *text)
{
  char *to = text;

  while (*text) {
    char c = *text++;
    size_t n = 0;

    *to++ = c;
    if (c != '+')
      continue;
    while (in_ticket (text[n]))
      n++;
    if (n >= TICKET_LIKE) {
      memcpy (to, "...", 3);
      to += 3;
      text += n;
    }
  }
  *to = 0;
}

static void
put_line (char level, const char *kind, const char *fmt, va_list args)
{
  int saved = errno;
  char text[LINE], line[LINE + 64];
  int n;

  vsnprintf (text, sizeof text, fmt, args);
  log_hide (text);
  for (char *p = text; *p; p++)
    if ((unsigned char) *p < 0x20 || *p == 0x7f)
      *p = ' ';
  if (journal)
    n = snprintf (line, sizeof line, "<%c>%s%s\n", level, kind, text);
  else
    n = snprintf (line, sizeof line, "espalierd: %s%s\n", kind, text);
  /* There is nowhere to say that nobody reads the log. */
  ssize_t written = write (STDERR_FILENO, line, (size_t) n);
  (void) written;
  errno = saved;
}

static void
host_error (const char *fmt, va_list args)
{
  /* Of the library's: "%s" with the text, or "warning: %s". */
  bool warning = strncmp (fmt, "warning: ", 9) == 0;

  put_line (warning ? '4' : '3', "", fmt, args);
}

static void
host_debug (const char *fmt, va_list args)
{
  if (verbose)
    put_line ('7', "debug: ", fmt, args);
}

void
log_info (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  put_line ('6', "", fmt, args);
  va_end (args);
}

bool
log_verbose (void)
{
  return verbose;
}

/* Is standard error what systemd reads?  (systemd.exec(5), $JOURNAL_STREAM) */
static bool
is_journal (void)
{
  const char *s = getenv ("JOURNAL_STREAM");
  unsigned long long dev, ino;
  struct stat st;

  return s && sscanf (s, "%llu:%llu", &dev, &ino) == 2 &&
    fstat (STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void
log_init (bool be_verbose)
{
  verbose = be_verbose;
  journal = is_journal ();
  esp_set_host (&(struct esp_host) { .error = host_error, .debug = host_debug });
}
