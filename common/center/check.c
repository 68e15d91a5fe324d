/* SPDX-License-Identifier: BSD-3-Clause */
/* Is a center what a push and a pull need?  Each question is asked of the
 * center itself, with objects that are removed again, and each answer says
 * what to do.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "center/center-internal.h"
#include "util/host.h"

#define PINGS 5
#define CLOCK_SLACK 120         /* seconds */
#define MANIFESTS_MAX 1000      /* that are looked at for their signatures */

struct checking {
  struct esp_center *center;
  esp_center_check_fn fn;
  void *arg;
  int64_t failed;
};

static void
tell (struct checking *c, const char *what, bool ok, const char *text)
{
  if (!ok)
    c->failed++;
  c->fn (c->arg, what, ok, text);
}

/* --- reach, latency ------------------------------------------------------------ */

static double
now_ms (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec * 1e3 + (double) t.tv_nsec / 1e6;
}

static int
compare_double (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;
  return (x > y) - (x < y);
}

static bool
check_reach (struct checking *c)
{
  double took[PINGS];
  char why[512] = "", text[600];
  struct esp_object there;

  for (int i = 0; i < PINGS; i++) {
    double begin = now_ms ();
    struct esp_catch outer = esp_catch_begin (why, sizeof why);
    int r = esp_remote_head (c->center->remote, "refs", &there), e = errno;
    esp_catch_end (outer);
    took[i] = now_ms () - begin;
    if (r == -1 && e != ENOENT) {
      tell (c, "reachable", false, why);
      return false;
    }
  }
  snprintf (text, sizeof text, "%s, first answer after %.1f ms",
            esp_remote_url (c->center->remote), took[0]);
  tell (c, "reachable", true, text);
  qsort (took, PINGS, sizeof took[0], compare_double);
  snprintf (text, sizeof text, "%.1f ms a request%s", took[PINGS / 2],
            took[PINGS / 2] > 50 ? ": larger segments (--variant 1M) help where "
            "reads are sequential" : "");
  tell (c, "latency", true, text);
  return true;
}

static int
no_name (void *arg, const char *name, const struct esp_object *object)
{
  (void) arg;
  (void) name;
  (void) object;
  return 0;
}

static void
check_list (struct checking *c)
{
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = esp_remote_list (c->center->remote, "venues/", no_name, NULL);
  int e = errno;

  esp_catch_end (outer);
  if (r == 0 || e == ENOTSUP)
    tell (c, "list", true, r == 0 ? "yes"
          : "not over HTTP: the document refs says what is there");
  else
    tell (c, "list", false, why);
}

/* --- writing ------------------------------------------------------------------------ */

static int
range_sink (void *arg, const void *buf, size_t len)
{
  char **p = arg;

  memcpy (*p, buf, len);
  *p += len;
  return 0;
}

/* Bytes 2 to 5 of an object that has "0123456789". */
static const char *
range_of (struct checking *c, const char *object)
{
  char buf[16] = "", *p = buf;
  const struct esp_get get = { .offset = 2, .len = 4, .sink = range_sink,
                               .arg = &p };

  if (esp_remote_get (c->center->remote, object, &get) == -1)
    return "a range cannot be read";
  return memcmp (buf, "2345", 4) == 0 ? NULL
    : "a range that is read has the wrong bytes";
}

/* The verbs on which a push stands, on OBJECT; NULL: all is well. */
static const char *
try_verbs (struct checking *c, const char *object)
{
  struct esp_remote *remote = c->center->remote;
  struct esp_object first, wrong;

  if (esp_remote_put_absent (remote, object, "0123456789", 10, &first) == -1)
    return "nothing can be written";
  if (esp_remote_put_absent (remote, object, "x", 1, NULL) == 0 ||
      errno != EEXIST)
    return "an object that is there is overwritten: it ignores If-None-Match";
  wrong = first;
  snprintf (wrong.etag, sizeof wrong.etag, "0123456789abcdef0123456789abcdef");
  if (esp_remote_put_if (remote, object, &wrong, "y", 1, NULL) == 0 ||
      errno != ESTALE)
    return "an object that changed is overwritten: it ignores If-Match";
  if (esp_remote_put_if (remote, object, &first, "0123456789", 10, NULL) == -1)
    return "an object that did not change cannot be replaced";
  return range_of (c, object);
}

static void
check_writes (struct checking *c)
{
  char object[64], text[ESP_UUID_TEXT], why[512] = "", all[800];
  const char *wrong;
  struct esp_catch outer;
  esp_uuid uuid;

  if (!esp_remote_writable (c->center->remote)) {
    tell (c, "writable", true, "no, by its kind: it can be pulled from");
    return;
  }
  esp_uuid_new (&uuid);
  snprintf (object, sizeof object, "check-%s", esp_uuid_text (&uuid, text));
  outer = esp_catch_begin (why, sizeof why);
  wrong = try_verbs (c, object);
  if (esp_remote_delete (c->center->remote, object) == -1 && !wrong)
    wrong = "what was written cannot be deleted";
  esp_catch_end (outer);
  snprintf (all, sizeof all, "%s%s%s", wrong ? wrong
            : "yes, with conditions, and by range", why[0] && wrong ? ": " : "",
            wrong ? why : "");
  tell (c, "writable", !wrong, all);
}

/* --- what is there ------------------------------------------------------------------- */

static void
check_range (struct checking *c)
{
  CLEANUP_FREE char *all = NULL;
  char why[512] = "", *buf, *p;
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  size_t len = 0;
  int r = -1;

  all = esp_remote_get_all (c->center->remote, "refs", 16u << 20, &len, NULL);
  buf = p = calloc (1, len + 1);
  if (all && buf && len > 2) {
    const struct esp_get get = { .offset = 1, .len = len - 2,
                                 .sink = range_sink, .arg = &p };
    r = esp_remote_get (c->center->remote, "refs", &get);
    if (r == 0 && memcmp (buf, all + 1, len - 2) != 0) {
      r = -1;
      snprintf (why, sizeof why, "a range that is read has the wrong bytes");
    }
  }
  esp_catch_end (outer);
  free (buf);
  if (all && len > 2)
    tell (c, "ranges", r == 0, r == 0 ? "yes" : why);
}

static void
check_clock (struct checking *c, const struct esp_center_refs *refs)
{
  uint64_t now = (uint64_t) time (NULL), newest = 0;
  char text[160], when[32];

  for (size_t i = 0; i < refs->nvenues; i++)
    if (refs->venues[i].pushed > newest)
      newest = refs->venues[i].pushed;
  if (newest <= now + CLOCK_SLACK)
    return;
  snprintf (text, sizeof text, "a venue was pushed at %s, which is in the "
            "future: set the clock here, or where it was pushed",
            esp_time_format (newest, when));
  tell (c, "clock", false, text);
}

/* What `refs` says of restore points is not signed: look at manifests. */
static unsigned
check_manifests (struct checking *c, const struct esp_center_refs *refs,
                 char *why, size_t size)
{
  unsigned bad = 0;

  for (size_t i = 0; i < refs->nrps && i < MANIFESTS_MAX; i++) {
    CLEANUP_MANIFEST struct esp_manifest m = { 0 };
    char this[512] = "";
    struct esp_catch outer = esp_catch_begin (this, sizeof this);
    int r = esp_center_manifest (c->center, &refs->rps[i].uuid, &m, NULL);
    esp_catch_end (outer);
    if (r == -1 && bad++ == 0)
      snprintf (why, size, "%s", this[0] ? this
                : "a manifest that refs names is missing");
  }
  return bad;
}

static void
check_contents (struct checking *c)
{
  CLEANUP_CENTER_REFS struct esp_center_refs refs = { 0 };
  char why[512] = "", text[700];
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = esp_center_refs (c->center, &refs);
  unsigned bad;

  esp_catch_end (outer);
  if (r == -1) {
    tell (c, "contents", false, why);
    return;
  }
  bad = check_manifests (c, &refs, why, sizeof why);
  snprintf (text, sizeof text, "%zu venue%s, %zu restore point%s%s", refs.nvenues,
            refs.nvenues == 1 ? "" : "s", refs.nrps, refs.nrps == 1 ? "" : "s",
            refs.nvenues + refs.nrps ? "" : ": nothing was pushed yet");
  tell (c, "contents", true, text);
  if (bad) {
    snprintf (text, sizeof text, "%u manifest%s cannot be believed, the first: %s",
              bad, bad == 1 ? "" : "s", why);
    tell (c, "signatures", false, text);
  }
  else if (refs.bad) {
    snprintf (text, sizeof text, "%zu object%s cannot be believed: see the "
              "warning%s", refs.bad, refs.bad == 1 ? "" : "s",
              refs.bad == 1 ? "" : "s");
    tell (c, "signatures", false, text);
  }
  else if (refs.nrps)
    tell (c, "signatures", true, c->center->trust ? "by keys that are trusted here"
          : "are not looked at (--unsigned)");
  check_clock (c, &refs);
}

/* --- leftovers ------------------------------------------------------------------ */

struct leftovers { size_t n; uint64_t bytes; };

static void
count_leftover (void *arg, const char *object, const char *id, uint64_t bytes,
                uint64_t idle)
{
  struct leftovers *l = arg;

  (void) object;
  (void) id;
  (void) idle;
  l->n++;
  l->bytes += bytes;
}

/* They cost space, and harm nobody. */
static void
check_leftovers (struct checking *c)
{
  struct leftovers l = { 0, 0 };
  char why[512] = "", text[700], size[16];
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = esp_remote_writable (c->center->remote)
    ? esp_center_gc (c->center, ESP_CENTER_GC_IDLE, true, count_leftover, &l)
    : 0;

  esp_catch_end (outer);
  if (r == -1 || l.n > 0) {
    snprintf (text, sizeof text, "%zu push%s that nobody went on with for a "
              "week (%s): 'espalier center gc %s' removes what they left",
              l.n, l.n == 1 ? "" : "es", esp_size_format (l.bytes, size),
              c->center->config.name);
    tell (c, "leftovers", r == 0, r == 0 ? text : why);
  }
}

int64_t
esp_center_check (struct esp_center *center, esp_center_check_fn fn,
                  void *arg)
{
  struct checking c = { center, fn, arg, 0 };

  if (!check_reach (&c))
    return c.failed;
  check_list (&c);
  check_range (&c);
  check_writes (&c);
  check_contents (&c);
  check_leftovers (&c);
  return c.failed;
}
