/* SPDX-License-Identifier: BSD-3-Clause */
/* Where errors and debug messages go.  The host is set once, before any
 * thread starts, so it is read without a lock; a thread that catches its
 * errors has a buffer of its own.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "util/host.h"

static struct esp_host the_host;

static __thread char *caught;
static __thread unsigned caught_size;

void
esp_set_host (const struct esp_host *host)
{
  the_host = *host;
}

char *
esp_catch_errors (char *buf, unsigned size)
{
  char *before = caught;

  caught = size ? buf : NULL;
  caught_size = size;
  if (caught)
    caught[0] = 0;
  return before;
}

struct esp_catch
esp_catch_begin (char *buf, unsigned size)
{
  struct esp_catch before = { caught, caught_size };

  esp_catch_errors (buf, size);
  return before;
}

void
esp_catch_end (struct esp_catch before)
{
  caught = before.buf;
  caught_size = before.size;
}

static void
print (const char *fmt, va_list args)
{
  flockfile (stderr);
  fputs ("espalier: ", stderr);
  vfprintf (stderr, fmt, args);
  fputc ('\n', stderr);
  funlockfile (stderr);
}

static void
deliver (const char *fmt, va_list args)
{
  if (caught) {
    if (!caught[0])
      vsnprintf (caught, caught_size, fmt, args);
  }
  else if (the_host.error)
    the_host.error (fmt, args);
  else
    print (fmt, args);
}

static void
deliver_text (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  deliver (fmt, args);
  va_end (args);
}

/* Any open may be the one too many, so what to do about that is said here. */
static void
deliver_emfile (const char *fmt, va_list args)
{
  struct rlimit limit = { 0 };
  char text[1024];

  vsnprintf (text, sizeof text, fmt, args);
  /* errno may be an older one; what was caught and is told again has it. */
  if (!strstr (text, strerror (EMFILE)) || strstr (text, "LimitNOFILE") || getrlimit (RLIMIT_NOFILE, &limit) == -1)
    deliver_text ("%s", text);
  else
    deliver_text ("%s: this process may have %llu open: allow it more "
                  "(LimitNOFILE= of its service, 'ulimit -n')", text,
                  (unsigned long long) limit.rlim_cur);
}

void
esp_error (const char *fmt, ...)
{
  int saved = errno;
  va_list args;

  va_start (args, fmt);
  if (saved == EMFILE)
    deliver_emfile (fmt, args);
  else
    deliver (fmt, args);
  va_end (args);
  errno = saved;
}

void
esp_warning (const char *fmt, ...)
{
  int saved = errno;
  char text[1024];
  va_list args;

  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  /* Not caught: a warning is not the cause of a failure. */
  char *buf = caught;
  caught = NULL;
  esp_error ("warning: %s", text);
  caught = buf;
  errno = saved;
}

void
esp_debug (const char *fmt, ...)
{
  int saved = errno;
  va_list args;

  if (!the_host.debug)
    return;
  va_start (args, fmt);
  the_host.debug (fmt, args);
  va_end (args);
  errno = saved;
}

const char *
esp_version (void)
{
  return PACKAGE_VERSION;
}
