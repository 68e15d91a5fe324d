/* SPDX-License-Identifier: BSD-3-Clause */
/* Where errors and debug messages go.  The host is set once, before any
 * thread starts, so it is read without a lock; a thread that catches its
 * errors has a buffer of its own.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <xxhash.h>

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
to_host (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  if (the_host.error)
    the_host.error (fmt, args);
  else
    print (fmt, args);
  va_end (args);
}

/* --- what is said again and again ---------------------------------------- */

#define SELDOM 10               /* seconds */
#define REMEMBERED 32

static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  uint64_t hash;
  int64_t at;                   /* seconds, monotonic */
  unsigned more;                /* not delivered since */
} said[REMEMBERED];

/* Has TEXT been said a moment ago?  *MORE: how often it was kept back. */
static bool
is_repeated (const char *text, unsigned *more)
{
  uint64_t hash = XXH3_64bits (text, strlen (text));
  struct timespec now;
  bool repeated;

  clock_gettime (CLOCK_MONOTONIC, &now);
  pthread_mutex_lock (&said_lock);
  typeof (&said[0]) s = &said[hash % REMEMBERED];
  bool known = s->hash == hash;
  repeated = known && now.tv_sec < s->at + SELDOM;
  if (repeated)
    s->more++;
  else {
    *more = known ? s->more : 0;
    s->hash = hash;
    s->at = now.tv_sec;
    s->more = 0;
  }
  pthread_mutex_unlock (&said_lock);
  return repeated;
}

static void
deliver_seldom (const char *fmt, va_list args)
{
  char text[2048];
  unsigned more;

  vsnprintf (text, sizeof text, fmt, args);
  if (is_repeated (text, &more))
    return;
  if (more)
    to_host ("%s (and %u times more before)", text, more);
  else
    to_host ("%s", text);
}

static void
deliver (const char *fmt, va_list args)
{
  if (caught) {
    if (!caught[0])
      vsnprintf (caught, caught_size, fmt, args);
  }
  else if (the_host.seldom)
    deliver_seldom (fmt, args);
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
  if (!strstr (text, strerror (EMFILE)) || strstr (text, "LimitNOFILE") ||
      getrlimit (RLIMIT_NOFILE, &limit) == -1)
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
