/* SPDX-License-Identifier: BSD-3-Clause */
/* What servers and the daemon count, as JSON. */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "api-internal.h"
#include "bridge.h"
#include "daemon.h"
#include "peers.h"
#include "util/host.h"


/* --- hydration ------------------------------------------------------------------ */

/* The rows of restore points, sorted by their UUID's text as samples are. */
static const struct line *
rp_lines (const struct pulse *pulse, size_t *n)
{
  size_t from = 0, to;

  while (from < pulse->now.n && pulse->now.line[from].kind != ESP_STATS_RP)
    from++;
  for (to = from; to < pulse->now.n &&
       pulse->now.line[to].kind == ESP_STATS_RP; to++)
    ;
  *n = to - from;
  return pulse->now.line + from;
}

static int
compare_name (const void *name, const void *line)
{
  return strcmp (name, ((const struct line *) line)->name);
}

/* What all servers count of the restore point, or NULL where none has it. */
static json_t *
live_rp (const struct pulse *pulse, const esp_uuid *uuid)
{
  char text[ESP_UUID_TEXT];
  size_t n;
  const struct line *lines = rp_lines (pulse, &n);
  const struct line *l = n == 0 ? NULL
    : bsearch (esp_uuid_text (uuid, text), lines, n, sizeof *l, compare_name);
  struct line sum;
  json_t *o;

  if (!l)
    return json_null ();
  while (l > lines && strcmp (l[-1].name, text) == 0)
    l--;
  sample_sum (&pulse->now, (size_t) (l - pulse->now.line), &sum);
  o = json_object ();
  line_counters_json (o, &sum, true);
  return o;
}

static json_t *
delayed_json (const struct delayed *d, const struct pulse *pulse)
{
  json_t *o = json_object ();

  json_object_set_new (o, "name", json_text (d->rp->name));
  json_object_set_new (o, "uuid", json_uuid (&d->rp->uuid));
  json_object_set_new (o, "bytes", json_number (d->bytes));
  json_object_set_new (o, "local_bytes", json_number (d->local));
  json_object_set_new (o, "wished", json_boolean (d->wished));
  json_object_set_new (o, "live", live_rp (pulse, &d->rp->uuid));
  return o;
}

json_t *
api_hydration (const struct inventory *inv, const struct pulse *pulse)
{
  json_t *list = json_array ();

  for (size_t i = 0; i < inv->ndelayed; i++)
    json_array_append_new (list, delayed_json (&inv->delayed[i], pulse));
  return list;
}

/* --- caches ----------------------------------------------------------------------- */

/* The rows of KIND, those of all processes in one. */
static json_t *
sums (const struct pulse *pulse, enum esp_stats_kind kind)
{
  json_t *list = json_array ();
  struct line sum;

  for (size_t i = 0; i < pulse->now.n;) {
    i += sample_sum (&pulse->now, i, &sum);
    if (sum.kind != kind)
      continue;
    json_t *o = json_object ();
    json_object_set_new (o, "name", json_text (sum.name));
    line_counters_json (o, &sum, true);
    json_array_append_new (list, o);
  }
  return list;
}

json_t *
api_cache (const struct pulse *pulse)
{
  return json_pack ("{s:o,s:o}", "tiers", sums (pulse, ESP_STATS_TIER),
                    "nodes", sums (pulse, ESP_STATS_NODE));
}

/* --- the last minutes ----------------------------------------------------------- */

static json_t *
tier_history (const struct pulse *p, unsigned tier, unsigned from)
{
  json_t *hits = json_array (), *misses = json_array ();

  for (unsigned i = from; i < PULSE_POINTS; i++) {
    const struct pulse_point *at = &p->point[(p->next + i) % PULSE_POINTS];
    json_array_append_new (hits, json_number (at->tier[tier].hits));
    json_array_append_new (misses, json_number (at->tier[tier].misses));
  }
  return json_pack ("{s:o,s:o}", "hits", hits, "misses", misses);
}

json_t *
api_history (const struct pulse *p)
{
  json_t *read = json_array (), *written = json_array ();
  json_t *tiers = json_object ();
  /* All of it from the first: what was not looked at is no line of zeroes. */
  unsigned from = p->beats < PULSE_POINTS
    ? PULSE_POINTS - (unsigned) p->beats : 0;

  for (unsigned i = from; i < PULSE_POINTS; i++) {
    const struct pulse_point *at = &p->point[(p->next + i) % PULSE_POINTS];
    json_array_append_new (read, json_number (at->read_bytes));
    json_array_append_new (written, json_number (at->write_bytes));
  }
  for (unsigned t = 0; t < PULSE_TIERS; t++)
    json_object_set_new (tiers, pulse_tier_names[t],
                         tier_history (p, t, from));
  return json_pack ("{s:i,s:o,s:o,s:o}", "seconds", PULSE_SECONDS,
                    "read_bytes", read, "write_bytes", written, "tiers",
                    tiers);
}

/* --- boots, the server ------------------------------------------------------------- */

json_t *
api_boots (size_t max)
{
  struct boot_seen *boots = calloc (max, sizeof *boots);
  size_t n = boots ? boots_last (boots, max) : 0;
  json_t *list = json_array ();

  for (size_t i = 0; i < n; i++) {
    json_t *o = json_object ();
    json_object_set_new (o, "time", json_number (boots[i].at));
    json_object_set_new (o, "client", json_text (boots[i].client));
    json_object_set_new (o, "venue", boots[i].venue[0]
                         ? json_text (boots[i].venue) : json_null ());
    json_object_set_new (o, "address", json_text (boots[i].address));
    json_object_set_new (o, "what", json_text (boots[i].what));
    json_array_append_new (list, o);
  }
  free (boots);
  return list;
}

static json_t *
stack_json (void)
{
  struct stack_info s;
  const char *state;

  stack_info (&s);
  state = s.state == STACK_UP ? "up" : s.state == STACK_DOWN ? "down"
    : "starting";
  json_t *o = json_object ();
  json_object_set_new (o, "state", json_string (state));
  json_object_set_new (o, "ours", json_boolean (s.ours));
  json_object_set_new (o, "pid", s.pid > 0 ? json_integer (s.pid)
                                           : json_null ());
  json_object_set_new (o, "since", json_number (s.since));
  json_object_set_new (o, "restarts", json_integer (s.restarts));
  json_object_set_new (o, "why", s.state == STACK_DOWN ? json_text (s.why)
                                                       : json_null ());
  return o;
}

/* Not its name: that ends in what keeps others from using it. */
static void
add_target (void *list, const struct bridge_seen *seen)
{
  json_t *o = json_object ();

  json_object_set_new (o, "client", json_text (seen->client));
  json_object_set_new (o, "venue", json_text (seen->venue));
  json_object_set_new (o, "address", json_text (seen->address));
  json_object_set_new (o, "state", json_text (seen->state));
  json_object_set_new (o, "since", json_number (seen->since));
  json_array_append_new (list, o);
}

static json_t *
bridge_json (void)
{
  json_t *targets = json_array ();
  uint64_t made, died;

  bridge_each (add_target, targets);
  bridge_counts (&made, &died);
  return json_pack ("{s:I,s:I,s:o}", "made", (json_int_t) made, "died",
                    (json_int_t) died, "targets", targets);
}

/* Another espalierd of the site. */
static void
add_server (void *list, const struct peer_seen *seen)
{
  json_t *o = json_object ();

  json_object_set_new (o, "url", json_text (seen->url));
  json_object_set_new (o, "state", json_text (seen->state));
  json_object_set_new (o, "answered", seen->answered
                       ? json_number (seen->answered) : json_null ());
  json_object_set_new (o, "connections", json_integer (seen->connections));
  json_object_set_new (o, "why", *seen->why ? json_text (seen->why)
                                            : json_null ());
  json_array_append_new (list, o);
}

static json_t *
servers_json (void)
{
  json_t *list = json_array ();

  peers_each (add_server, list);
  return list;
}

json_t *
api_server (const struct config *config, const struct inventory *inv,
            const struct pulse *pulse)
{
  json_t *o = json_object ();

  json_object_set_new (o, "title", json_text (config->title));
  json_object_set_new (o, "version", json_text (esp_version ()));
  json_object_set_new (o, "store", json_pack ("{s:o,s:I,s:I,s:b}", "path",
                                              json_text (config->store),
                                              "size",
                                              (json_int_t) inv->disk_size,
                                              "free",
                                              (json_int_t) inv->disk_free,
                                              "readonly", inv->readonly));
  json_object_set_new (o, "stack", stack_json ());
  json_object_set_new (o, "bridge", bridge_json ());
  json_object_set_new (o, "servers", servers_json ());
  json_object_set_new (o, "processes",
                       sample_list_json (&pulse->now, ESP_STATS_PROCESS, NULL,
                                         false, NULL, NULL));
  return o;
}
