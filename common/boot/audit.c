/* SPDX-License-Identifier: BSD-3-Clause */
/* The audit log, in logfmt.
 *
 * A line is made whole and written once to a file that is opened for
 * appending, so the kernel puts it behind the others' whole.  Values come from
 * peers: what is not printable is written as \xNN, and what logfmt would
 * misread stands in quotes.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "boot/audit.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"
#include "util/name.h"

#define VALUE_MAX 1024          /* bytes of a value as it is written */
#define SELDOM 60               /* seconds between complaints */

/* V with '"' and '\' escaped; malloced. */
static char *
escape_quotes (const char *v)
{
  char *r = malloc (2 * strlen (v) + 1), *p = r;

  if (!r)
    return NULL;
  for (; *v; v++) {
    if (*v == '"' || *v == '\\')
      *p++ = '\\';
    *p++ = *v;
  }
  *p = 0;
  return r;
}

static bool
needs_quotes (const char *escaped)
{
  return *escaped == 0 || strpbrk (escaped, " \"\\=") != NULL;
}

static void
put_value (FILE *f, const char *v)
{
  CLEANUP_FREE char *quoted = escape_quotes (v);
  char text[VALUE_MAX];

  esp_escape (quoted ? quoted : "?", text, sizeof text);
  fprintf (f, needs_quotes (text) ? "\"%s\"" : "%s", text);
}

static void
put_line (FILE *f, const char *event, va_list args)
{
  time_t now = time (NULL);
  char when[32];
  const char *name, *value;
  struct tm tm;

  gmtime_r (&now, &tm);
  strftime (when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
  fprintf (f, "time=%s event=%s", when, event);
  while ((name = va_arg (args, const char *))) {
    value = va_arg (args, const char *);
    if (!value)
      continue;
    fprintf (f, " %s=", name);
    put_value (f, value);
  }
  fputc ('\n', f);
}

/* A file that cannot be written to is the same news for a while. */
static void
complain (const char *file)
{
  static atomic_uint_fast64_t next;
  uint64_t now = esp_now_us () / 1000000, at = atomic_load (&next);

  if (now >= at && atomic_compare_exchange_strong (&next, &at, now + SELDOM))
    esp_error ("audit: %s: %m: who opens what is not written down", file);
}

static void
append (const char *file, const char *line, size_t len)
{
  /* Never wait for whoever reads a pipe. */
  CLEANUP_CLOSE int fd = open (file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC
                               | O_NOCTTY | O_NONBLOCK, 0640);
  ssize_t n = fd == -1 ? -1 : write (fd, line, len);

  if (n == (ssize_t) len)
    return;
  if (n != -1)
    errno = ENOSPC;
  complain (file);
}

int
esp_audit_check (const char *file)
{
  CLEANUP_FREE char *dir = strdup (file);
  int r;

  if (!dir) {
    esp_error ("strdup: %m");
    return -1;
  }
  r = access (file, W_OK);
  if (r == -1 && errno == ENOENT)
    r = access (dirname (dir), W_OK | X_OK);
  if (r == -1)
    esp_error ("audit log: %s: %m: give a file that this server may write to",
               file);
  return r;
}

void
esp_audit (const char *file, const char *event, ...)
{
  CLEANUP_FREE char *line = NULL;
  size_t len = 0;
  FILE *f = open_memstream (&line, &len);
  va_list args;

  if (!f) {
    complain (file);
    return;
  }
  va_start (args, event);
  put_line (f, event, args);
  va_end (args);
  if (fclose (f) == 0)
    append (file, line, len);
  else
    complain (file);
}
