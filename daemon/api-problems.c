/* SPDX-License-Identifier: BSD-3-Clause */
/* What an operator should know, in words; worst first.
 *
 * "error": clients suffer, or will at any moment.  "warning": they do not
 * yet.  A kind of problem that many things have is told of some of them, and
 * then counted.
 */

#include <config.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api-internal.h"
#include "daemon.h"
#include "peers.h"

#define EACH 5u                 /* of a kind are told by name */
#define NEARLY_FULL 90u         /* percent of a quota */
#define LITTLE 5u               /* percent of the store's disk */
#define RECENT 15u              /* beats: half a minute */

struct list {
  json_t *errors, *warnings;
};

static void __attribute__ ((format (printf, 4, 5)))
add (json_t *to, const char *about, const char *name, const char *fmt, ...)
{
  json_t *o = json_object ();
  char text[512];
  va_list args;

  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  json_object_set_new (o, "about", json_string (about));
  json_object_set_new (o, "name", json_text (name));
  json_object_set_new (o, "text", json_text (text));
  json_array_append_new (to, o);
}

static void
and_more (json_t *to, const char *about, size_t n, const char *what)
{
  if (n > EACH)
    add (to, about, NULL, "%zu more %s", n - EACH, what);
}

/* --- the server ------------------------------------------------------------------ */

static void
look_at_stack (struct list *l)
{
  struct stack_info s;

  stack_info (&s);
  if (s.state == STACK_DOWN)
    add (l->errors, "stack", NULL, "the disk server does not run%s%s",
         s.why[0] ? ": " : "", s.why);
  else if (s.state == STACK_STARTING)
    add (l->warnings, "stack", NULL, "the disk server is starting");
}

static void
look_at_disk (struct list *l, const struct inventory *inv)
{
  char size[16];

  if (inv->readonly)
    add (l->errors, "store", NULL, "the store cannot be written");
  if (inv->disk_size == 0 || inv->disk_free >= inv->disk_size / 100 * LITTLE)
    return;
  esp_size_format (inv->disk_free, size);
  if (inv->disk_free < inv->disk_size / 100)
    add (l->errors, "store", NULL, "the store's disk is full: %s are free; "
         "clients cannot write soon", size);
  else
    add (l->warnings, "store", NULL, "the store's disk is nearly full: %s are "
         "free", size);
}

/* Requests of clients that failed a moment ago. */
static void
look_at_errors (struct list *l, const struct pulse *p)
{
  uint64_t errors = 0;

  for (unsigned i = 1; i <= RECENT; i++)
    errors += p->point[(p->next + PULSE_POINTS - i) % PULSE_POINTS].errors;
  if (errors > 0)
    add (l->errors, "clients", NULL, "%" PRIu64 " request%s of clients failed "
         "in the last %u seconds", errors, errors == 1 ? "" : "s",
         RECENT * PULSE_SECONDS);
}

/* --- centers, nodes ----------------------------------------------------------------- */

/* Is there data that only a center has, and none that answers? */
static bool
is_cut_off (const struct inventory *inv, const struct pulse *p)
{
  bool missing = false;

  for (size_t i = 0; i < inv->ndelayed && !missing; i++)
    missing = inv->delayed[i].local < inv->delayed[i].bytes;
  for (size_t i = 0; i < p->now.n; i++)
    if (p->now.line[i].kind == ESP_STATS_CENTER &&
        !p->now.line[i].c[ESP_CENTER_OUT])
      return false;
  return missing;
}

static void
look_at_rows (struct list *l, const struct inventory *inv,
              const struct pulse *p)
{
  bool cut_off = is_cut_off (inv, p);
  struct line sum;

  for (size_t i = 0; i < p->now.n;) {
    i += sample_sum (&p->now, i, &sum);
    if (sum.kind == ESP_STATS_CENTER && sum.c[ESP_CENTER_OUT])
      add (cut_off ? l->errors : l->warnings, "center", sum.name,
           "image center %s does not answer%s", sum.name, cut_off
           ? ", and no other does: clients wait for what is not local yet"
           : "");
    if (sum.kind == ESP_STATS_NODE && sum.c[ESP_NODE_OUT])
      add (l->warnings, "node", sum.name,
           "cache node %s does not answer, and is left out", sum.name);
  }
}

static void
look_at_server (void *list, const struct peer_seen *seen)
{
  struct list *l = list;

  if (strcmp (seen->state, "silent") == 0)
    add (l->warnings, "server", seen->url, "the server %s does not answer: "
         "machines are not sent there", seen->url);
}

/* --- overlays ------------------------------------------------------------------------ */

static bool
is_nearly_full (const struct esp_overlay_info *o)
{
  return o->quota > 0 && o->used / NEARLY_FULL >= o->quota / 100;
}

static void
look_at_overlays (struct list *l, const struct inventory *inv)
{
  size_t damaged = 0, full = 0;

  for (size_t i = 0; i < inv->overlays.n; i++) {
    const struct esp_overlay_info *o = &inv->overlays.o[i];
    CLEANUP_FREE char *name = overlay_name (o);
    if (o->damage && ++damaged <= EACH)
      add (l->errors, "overlay", name, "the overlay %s is damaged: %s", name,
           o->damage);
    if (!o->damage && is_nearly_full (o) && ++full <= EACH)
      add (l->warnings, "overlay", name, "the overlay %s has used %.0f%% of "
           "its quota", name, (double) o->used * 100 / (double) o->quota);
  }
  and_more (l->errors, "overlay", damaged, "overlays are damaged");
  and_more (l->warnings, "overlay", full, "overlays are nearly full");
}

/* --- all of them ---------------------------------------------------------------------- */

static void
append (json_t *to, json_t *list, const char *severity)
{
  json_t *o;
  size_t i;

  json_array_foreach (list, i, o) {
    json_object_set_new (o, "severity", json_string (severity));
    json_array_append (to, o);
  }
  json_decref (list);
}

json_t *
api_problems (const struct inventory *inv, const struct pulse *pulse)
{
  struct list l = { json_array (), json_array () };
  json_t *all = json_array ();

  look_at_stack (&l);
  look_at_disk (&l, inv);
  look_at_errors (&l, pulse);
  look_at_rows (&l, inv, pulse);
  peers_each (look_at_server, &l);
  look_at_overlays (&l, inv);
  append (all, l.errors, "error");
  append (all, l.warnings, "warning");
  return all;
}
