/* SPDX-License-Identifier: BSD-3-Clause */
/* Remotes: names, tries, errors.
 *
 * Every function of the contract fills an esp_op and hands it to
 * esp_op_run, which lets the driver try until it succeeds, fails for good, or `retries`
 * tries after the first have failed.  Between two tries it waits for a
 * random time up to 0.1 s, 0.2 s, 0.4 s ... 10 s ("full jitter": many
 * servers that lost the same center do not come back in step), or as long
 * as the server asks.  A GET keeps what the sink already has: the next try
 * asks for the rest.  Tries that brought much do not count, so that a long
 * transfer over a bad line ends, and still every operation does.
 *
 * A conditional put that is tried again may meet its own first try, whose
 * answer was lost: when the object is there and has exactly our bytes, it
 * is ours.
 */

#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "center/remote-internal.h"
#include "util/name.h"

#define BACKOFF_FIRST 100u              /* ms */
#define BACKOFF_MAX 10000u
#define PROGRESS (256u << 10)           /* bytes that make a try a good one */

/* --- outcomes ----------------------------------------------------------- */

static void
fill_try (struct esp_try *t, int err, const char *fmt, va_list args)
{
  t->err = err;
  t->again = t->quiet = false;
  vsnprintf (t->why, sizeof t->why, fmt, args);
}

int
esp_try_fail (struct esp_try *t, int err, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  fill_try (t, err, fmt, args);
  va_end (args);
  return -1;
}

int
esp_try_again (struct esp_try *t, int err, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  fill_try (t, err, fmt, args);
  va_end (args);
  t->again = true;
  return -1;
}

int
esp_try_quiet (struct esp_try *t, int err)
{
  t->err = err;
  t->again = false;
  t->quiet = true;
  t->why[0] = 0;
  return -1;
}

int
esp_try_errno (struct esp_try *t, const char *what)
{
  int err = errno;

  if (err == ENOENT)
    return esp_try_quiet (t, ENOENT);
  if (err == EPERM)
    err = EACCES;
  return esp_try_fail (t, err, "%s: %m", what);
}

/* --- names -------------------------------------------------------------- */

#define NAME_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" \
                   "0123456789/._~%-"

bool
esp_object_name_ok (const char *name)
{
  size_t len = strlen (name);

  if (len == 0 || len > 1000 || strspn (name, NAME_CHARS) != len)
    return false;
  /* What begins with a dot is the remotes' own: locks, uploads. */
  for (const char *p = name; ; ) {
    size_t n = strcspn (p, "/");
    if (n == 0 || n > 255 || *p == '.')
      return false;
    if (p[n] == 0)
      return true;
    p += n + 1;
  }
}

bool
esp_object_prefix_ok (const char *prefix)
{
  size_t len = strlen (prefix);

  if (len == 0 || prefix[len - 1] != '/')
    return len == 0 || esp_object_name_ok (prefix);
  CLEANUP_FREE char *name = strndup (prefix, len - 1);
  return name && esp_object_name_ok (name);
}

/* "" is the object that the URL itself names: a plain image; and of the verbs
 * on uploads the whole remote, or (in a directory) one without a name.
 */
static int
check_name (const struct esp_remote *r, const char *name, enum esp_verb verb)
{
  char shown[200];

  if (verb == ESP_VERB_LIST ? esp_object_prefix_ok (name)
      : esp_object_name_ok (name))
    return 0;
  if (*name == 0 && r->driver->kind != ESP_REMOTE_DIR
      && (verb == ESP_VERB_GET || verb == ESP_VERB_HEAD))
    return 0;
  if (*name == 0 && (verb == ESP_VERB_UPLOADS
                     || (r->driver->kind == ESP_REMOTE_DIR
                         && (verb == ESP_VERB_LOOK
                             || verb == ESP_VERB_REMOVE))))
    return 0;
  esp_error ("object \"%s\" of %s: a name has letters, digits, and -._~%% "
             "in components that do not begin with a dot",
             esp_escape (name, shown, sizeof shown), r->url);
  errno = EINVAL;
  return -1;
}

/* --- trying ------------------------------------------------------------- */

static bool
cancelled (const struct esp_op *op)
{
  return op->cancel && atomic_load_explicit (op->cancel, memory_order_relaxed);
}

static uint32_t
random_below (uint32_t n)
{
  uint32_t r;

  if (getrandom (&r, sizeof r, 0) != sizeof r)
    r = (uint32_t) clock ();    /* any number will do */
  return (uint32_t) (((uint64_t) r * n) >> 32);
}

/* Wait before the next try, or until it is cancelled. */
static void
back_off (const struct esp_op *op, const struct esp_try *t)
{
  unsigned n = op->tries < 10 ? op->tries : 10;
  unsigned most = BACKOFF_FIRST << n;
  unsigned ms = random_below (most < BACKOFF_MAX ? most : BACKOFF_MAX);

  if (ms < t->after * 1000)
    ms = t->after * 1000;
  while (ms && !cancelled (op)) {
    unsigned step = op->cancel && ms > 20 ? 20 : ms;
    struct timespec ts = { step / 1000, (long) (step % 1000) * 1000000 };
    nanosleep (&ts, NULL);
    ms -= step;
  }
}

static void
report (const struct esp_remote *r, const struct esp_op *op,
        const struct esp_try *t)
{
  errno = t->err;
  if (t->quiet)
    return;
  esp_error ("%s%s%s: %s%s", r->base, *op->name ? "/" : "", op->name, t->why,
             t->again && op->tries > 0 ? " (tried again, in vain)" : "");
}

/* Is what lies there what we meant to put? */
static bool
put_is_there (struct esp_remote *r, const struct esp_op *op)
{
  char caught[8];
  struct esp_catch before = esp_catch_begin (caught, sizeof caught);
  size_t len;
  struct esp_object object;
  CLEANUP_FREE void *there = esp_remote_get_all (r, op->name, op->size, &len,
                                                 &object);

  esp_catch_end (before);
  if (!there || len != op->size || memcmp (there, op->buf, len) != 0)
    return false;
  ((struct esp_op *) op)->out = object;
  return true;
}

/* One try; 0, or -1 with T filled. */
static int
attempt (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  if (cancelled (op))
    return esp_try_quiet (t, ECANCELED);
  if (r->driver->attempt[op->verb] (r, op, t) == 0)
    return 0;
  if (op->verb == ESP_VERB_PUT && op->tries > 0
      && (t->err == EEXIST || t->err == ESTALE) && put_is_there (r, op))
    return 0;
  return -1;
}

static int
run (struct esp_remote *r, struct esp_op *op)
{
  for (;;) {
    struct esp_try t = { 0 };
    uint64_t done = op->done;

    if (attempt (r, op, &t) == 0)
      return 0;
    if (op->done - done >= PROGRESS)
      op->tries = 0;
    if (!t.again || op->once || op->tries >= r->retries) {
      if (!t.quiet)
        atomic_fetch_add (&r->errors, 1);
      report (r, op, &t);
      errno = t.err;
      return -1;
    }
    esp_debug ("%s/%s: %s: will try again", r->base, op->name, t.why);
    atomic_fetch_add (&r->retried, 1);
    back_off (op, &t);
    op->tries++;
  }
}

int
esp_op_run (struct esp_remote *r, struct esp_op *op)
{
  if (check_name (r, op->name, op->verb) < 0)
    return -1;
  if (r->driver->attempt[op->verb])
    return run (r, op);
  if (op->verb == ESP_VERB_LIST || op->verb == ESP_VERB_UPLOADS) {
    errno = ENOTSUP;
    return -1;
  }
  esp_error ("%s: cannot be written: HTTP is for reading only", r->url);
  errno = EROFS;
  return -1;
}
