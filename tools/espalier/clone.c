/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier venue clone: disks of their own for many clients at once. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "clone.h"
#include "delay/delay.h"
#include "espalier.h"
#include "store/venue.h"

/* Digits that a number in a name is filled up to. */
#define WIDTH_MAX 9

/* A pattern of names: text, one number, text. */
struct pattern {
  char before[ESP_NAME_MAX + 1], after[ESP_NAME_MAX + 1];
  int width;
  bool zeroes;
};

/* The clones to be made. */
struct clones {
  char **names;
  size_t n;
};

static void
clones_clear (struct clones *c)
{
  for (size_t i = 0; c->names && i < c->n; i++)
    free (c->names[i]);
  free (c->names);
}

/* "%d", "%3d", "%03d" at P: how long it is, 0 when it is something else. */
static size_t
parse_number (const char *p, struct pattern *out)
{
  const char *begin = p++;

  out->zeroes = *p == '0';
  p += out->zeroes;
  out->width = 0;
  if (*p >= '1' && *p <= '0' + WIDTH_MAX)
    out->width = *p++ - '0';
  return *p == 'd' ? (size_t) (p + 1 - begin) : 0;
}

static int
parse_pattern (const struct args *args, struct pattern *out)
{
  const char *text = opt_value (args, "name"), *percent;
  size_t len;

  if (!text)
    return usage (args->cmd, "--name is missing: for example --name 'seat-%%03d'");
  percent = strchr (text, '%');
  len = percent ? parse_number (percent, out) : 0;
  if (!len || strchr (percent + len, '%'))
    return usage (args->cmd, "--name %s: write one %%d (or %%03d) where the "
                  "number shall stand, and no other %%", text);
  if (strlen (text) > ESP_NAME_MAX)
    return usage (args->cmd, "--name: names have at most %d bytes",
                  ESP_NAME_MAX);
  memcpy (out->before, text, (size_t) (percent - text));
  out->before[percent - text] = 0;
  strcpy (out->after, percent + len);
  return 0;
}

/* A number of at most MAX; *OUT keeps its value where it was not given. */
static int
parse_count (const struct args *args, const char *name, uint64_t min,
             uint64_t max, uint64_t *out)
{
  const char *text = opt_value (args, name);
  char *end;
  unsigned long long n;

  if (!text)
    return 0;
  errno = 0;
  n = strtoull (text, &end, 10);
  if (errno || end == text || *end || *text == '-' || n < min || n > max)
    return usage (args->cmd, "--%s %s: a number from %" PRIu64 " to %" PRIu64
                  " is needed", name, text, min, max);
  *out = n;
  return 0;
}

static void
make_names (const struct pattern *p, uint64_t start, uint64_t count,
            struct clones *out)
{
  out->names = xcalloc (count, sizeof *out->names);
  out->n = count;
  for (uint64_t i = 0; i < count; i++)
    out->names[i] = p->zeroes
      ? xasprintf ("%s%0*" PRIu64 "%s", p->before, p->width, start + i,
                   p->after)
      : xasprintf ("%s%*" PRIu64 "%s", p->before, p->width, start + i,
                   p->after);
}

static double
now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* Is all of TIP's chain here?  1, 0, or -1. */
static int
is_local (const esp_uuid *tip)
{
  esp_uuid at = *tip;

  while (!esp_uuid_is_null (&at)) {
    CLEANUP_RP struct esp_rp rp = { 0 };
    unsigned percent;

    if (esp_catalog_rp_get (cli_catalog (), &at, &rp) == -1) {
      esp_error ("the chain of the venue's restore point cannot be read: %m");
      return -1;
    }
    if (rp.kind == ESP_RP_DELAYED &&
        rp_local (cli.store, &rp, &percent) < rp.data_blocks << ESP_BLOCK_SHIFT)
      return 0;
    at = rp.parent;
  }
  return 1;
}

/* Clones will be booted from, all of them, soon: where a tip is not all
 * here, servers are asked to fetch the rest in the background.
 */
static int
wish_tips (const struct esp_venue *v, unsigned first, unsigned n,
           json_t *hydrating)
{
  for (unsigned d = first; d < first + n; d++) {
    int local = is_local (&v->disks[d]);

    if (local == 1)
      continue;
    if (local == -1 ||
        esp_hydrate_wish (cli.store, &v->disks[d], true) == -1)
      return CLI_FAILED;
    json_array_append_new (hydrating, json_uuid (&v->disks[d]));
  }
  return CLI_OK;
}

static int
report (const struct esp_export *e, bool one_disk, const struct clones *c,
        double seconds)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };
  json_t *names, *hydrating;

  if (esp_catalog_venue_get (cli_catalog (), e->name, &v) == -1)
    return CLI_FAILED;
  unsigned first = one_disk ? e->disk : 0, n = one_disk ? 1 : v.ndisks;
  hydrating = json_array ();
  if (wish_tips (&v, first, n, hydrating) != CLI_OK) {
    json_decref (hydrating);
    return CLI_FAILED;
  }
  const char *also = json_array_size (hydrating) == 0 ? ""
    : ": what is not here yet is fetched in the background";
  names = json_array ();
  for (size_t i = 0; i < c->n; i++)
    for (unsigned d = first; d < first + n; d++) {
      CLEANUP_FREE char *name = xasprintf ("%s/%u@%s", v.id, d, c->names[i]);
      json_array_append_new (names, json_string (name));
    }
  return cli_done (json_pack ("{s:s,s:o,s:o,s:f}", "venue", v.id, "overlays",
                              names, "hydrating", hydrating, "seconds",
                              seconds),
                   "venue %s: made %zu overlay%s for %s%s%s in %.2f s%s", v.id,
                   c->n * n, c->n * n == 1 ? "" : "s", c->names[0],
                   c->n > 1 ? " to " : "", c->n > 1 ? c->names[c->n - 1] : "",
                   seconds, also);
}

int
venue_clone_run (const struct args *args)
{
  __attribute__ ((cleanup (clones_clear))) struct clones c = { 0 };
  bool one_disk = strchr (args->arg[0], '/') != NULL;
  uint64_t count = 0, start = 1;
  struct esp_export e;
  struct pattern p;
  double begin;

  if (!opt_has (args, "count"))
    return usage (args->cmd, "--count is missing: for how many clients?");
  if (parse_pattern (args, &p) != 0 ||
      parse_count (args, "count", 1, ESP_CLONES_MAX, &count) != 0 ||
      parse_count (args, "start", 0, 999999999, &start) != 0)
    return CLI_USAGE;
  if (esp_export_parse (args->arg[0], &e) == -1)
    return CLI_USAGE;
  if (e.is_rp || e.client[0])
    return usage (args->cmd, "%s: VENUE or VENUE/DISK is needed", args->arg[0]);
  make_names (&p, start, count, &c);
  if (cli_open () != 0)
    return CLI_FAILED;
  begin = now ();
  if (esp_venue_clone (cli.store, e.name, one_disk ? (int) e.disk : -1,
                       c.names, c.n) == -1)
    return CLI_FAILED;
  return report (&e, one_disk, &c, now () - begin);
}

const struct opt venue_clone_options[] = {
  { "count", 0, "N", "for how many clients", false },
  { "name", 0, "PATTERN", "their names: 'seat-%03d' makes seat-001, seat-002 ...", false },
  { "start", 0, "N", "the first one's number (1)", false },
  { 0 },
};
