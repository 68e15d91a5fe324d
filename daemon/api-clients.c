/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients: connections and overlays, put together by export name.
 *
 * A seat is VENUE/DISK@CLIENT.  It may have an overlay, connections, or both; a
 * client without a name shares its seat with all others of that disk.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "api-internal.h"
#include "util/host.h"

struct seat {
  char *name;                   /* the export, without a ticket */
  struct line sum;              /* CLIENT; sums of its connections */
  unsigned connections;
  const struct esp_overlay_info *overlay;       /* or NULL */
};

struct seats { struct seat *seat; size_t n; };

static void
seats_clear (struct seats *s)
{
  for (size_t i = 0; i < s->n; i++)
    free (s->seat[i].name);
  free (s->seat);
}

/* --- collecting ----------------------------------------------------------------- */

static bool
parse (const char *text, struct esp_export *e)
{
  char drop[16];
  struct esp_catch outer = esp_catch_begin (drop, sizeof drop);
  int r = esp_export_parse (text, e);

  esp_catch_end (outer);
  return r == 0;
}

/* An export as it is shown: canonical, and never with its ticket. */
static char *
shown_export (const char *text)
{
  char buf[ESP_EXPORT_MAX];
  struct esp_export e;

  if (parse (text, &e))
    return strdup (esp_export_format (&e, buf, sizeof buf));
  return strndup (text, strcspn (text, "+"));
}

static void
add_connection (struct seats *s, const struct line *l)
{
  struct seat *seat = &s->seat[s->n];

  *seat = (struct seat) { .name = shown_export (l->name), .sum = *l,
                          .connections = 1 };
  if (seat->name)
    s->n++;
}

static void
add_overlay (struct seats *s, const struct esp_overlay_info *o)
{
  struct seat *seat = &s->seat[s->n];

  *seat = (struct seat) { .name = overlay_name (o), .overlay = o,
                          .sum.kind = ESP_STATS_CLIENT };
  if (seat->name)
    s->n++;
}

static int
by_name (const void *a, const void *b)
{
  const struct seat *x = a, *y = b;
  return strcmp (x->name, y->name);
}

static void
merge (struct seat *to, struct seat *from)
{
  bool older = to->connections == 0 ||
    from->sum.c[ESP_DISK_SINCE] < to->sum.c[ESP_DISK_SINCE];

  for (unsigned i = 0; i < ESP_STATS_COUNTERS && from->connections; i++) {
    if (i != ESP_DISK_SINCE)
      to->sum.c[i] += from->sum.c[i];
    else if (older)
      to->sum.c[i] = from->sum.c[i];
    to->sum.rate[i] += from->sum.rate[i];
  }
  to->connections += from->connections;
  if (from->overlay)
    to->overlay = from->overlay;
  free (from->name);
}

static void
merge_same (struct seats *s)
{
  size_t n = 0;

  if (s->n > 0)
    qsort (s->seat, s->n, sizeof *s->seat, by_name);
  for (size_t i = 0; i < s->n; i++)
    if (n > 0 && strcmp (s->seat[n - 1].name, s->seat[i].name) == 0)
      merge (&s->seat[n - 1], &s->seat[i]);
    else
      s->seat[n++] = s->seat[i];
  s->n = n;
}

static int
by_use (const void *a, const void *b)
{
  const struct seat *x = a, *y = b;
  uint64_t xt = x->overlay ? x->overlay->last_seen : 0;
  uint64_t yt = y->overlay ? y->overlay->last_seen : 0;

  if (!x->connections != !y->connections)
    return x->connections ? -1 : 1;
  if (!x->connections && xt != yt)
    return xt > yt ? -1 : 1;
  return strcmp (x->name, y->name);
}

static void
collect (struct seats *s, const struct inventory *inv,
         const struct pulse *pulse)
{
  size_t most = inv->overlays.n + pulse->now.n;

  s->n = 0;
  s->seat = calloc (most + 1, sizeof *s->seat);
  for (size_t i = 0; s->seat && i < pulse->now.n; i++)
    if (pulse->now.line[i].kind == ESP_STATS_CLIENT)
      add_connection (s, &pulse->now.line[i]);
  for (size_t i = 0; s->seat && i < inv->overlays.n; i++)
    add_overlay (s, &inv->overlays.o[i]);
  merge_same (s);
  if (s->n > 0)
    qsort (s->seat, s->n, sizeof *s->seat, by_use);
}

/* --- objects -------------------------------------------------------------------- */

/* The overlay's object without what stands around it already; and, while it is
 * held, without a time that is always now.
 */
static json_t *
overlay_json (const struct inventory *inv, const struct seat *seat)
{
  static const char *const known[] = {
    "overlay", "venue", "disk", "client", "holder" };
  json_t *o;

  if (!seat->overlay)
    return json_null ();
  o = json_overlay (seat->overlay, &inv->rps);
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    json_object_del (o, known[i]);
  if (seat->overlay->held)
    json_object_set_new (o, "last_seen", json_null ());
  json_object_set_new (o, "held", json_boolean (seat->overlay->held));
  return o;
}

static void
set_names (json_t *o, const struct seat *seat)
{
  struct esp_export e;
  bool known = parse (seat->name, &e);

  json_object_set_new (o, "export", json_text (seat->name));
  json_object_set_new (o, "client", known && e.client[0]
                       ? json_text (e.client)
                       : seat->overlay ? json_text (seat->overlay->client)
                       : json_null ());
  json_object_set_new (o, "venue", known && !e.is_rp ? json_text (e.name)
                       : json_null ());
  json_object_set_new (o, "disk", known && !e.is_rp ? json_number (e.disk)
                       : json_null ());
  json_object_set_new (o, "restore_point", known && e.is_rp
                       ? json_text (e.name) : json_null ());
}

static void
set_machine (json_t *o, const struct inventory *inv)
{
  const char *name = json_string_value (json_object_get (o, "client"));
  const struct esp_client_seen *seen = name ? inventory_seen (inv, name)
                                            : NULL;

  json_object_set_new (o, "address", seen && seen->address[0]
                       ? json_text (seen->address) : json_null ());
  json_object_set_new (o, "mac", seen && seen->mac[0]
                       ? json_text (seen->mac) : json_null ());
}

static json_t *
seat_json (const struct inventory *inv, const struct seat *seat)
{
  json_t *o = json_object ();

  set_names (o, seat);
  set_machine (o, inv);
  json_object_set_new (o, "connected", json_boolean (seat->connections > 0));
  line_counters_json (o, &seat->sum, true);
  json_object_set_new (o, "connections", json_number (seat->connections));
  if (seat->connections == 0) {
    json_object_set_new (o, "since", json_null ());
    json_object_set_new (o, "per_second", json_null ());
  }
  json_object_set_new (o, "overlay", overlay_json (inv, seat));
  return o;
}

json_t *
api_clients (const struct inventory *inv, const struct pulse *pulse,
             size_t max)
{
  __attribute__ ((cleanup (seats_clear))) struct seats s = { .n = 0 };
  json_t *list = json_array ();
  size_t connected = 0;

  collect (&s, inv, pulse);
  for (size_t i = 0; i < s.n; i++) {
    connected += s.seat[i].connections > 0;
    if (i < max)
      json_array_append_new (list, seat_json (inv, &s.seat[i]));
  }
  return json_pack ("{s:I,s:I,s:o}", "total", (json_int_t) s.n, "connected",
                    (json_int_t) connected, "clients", list);
}
