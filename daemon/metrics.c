/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /metrics: the daemon, the store, and what servers count. */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "bridge.h"
#include "daemon.h"
#include "inventory.h"
#include "metrics-text.h"
#include "metrics.h"
#include "util/host.h"

#define PLAIN METRIC_PLAIN

static void
put_one (FILE *f, const char *name, enum metric_type type, const char *help,
         uint64_t value)
{
  metric_head (f, name, type, help);
  metric_sample (f, name, NULL, value, PLAIN);
}

/* --- the daemon ------------------------------------------------------------- */

static void
put_stack (FILE *f)
{
  struct stack_info stack;

  stack_info (&stack);
  put_one (f, "stack_up", METRIC_GAUGE,
           "1 while the disk server (nbdkit) runs.", stack.state == STACK_UP);
  put_one (f, "stack_restarts_total", METRIC_COUNTER,
           "How often the disk server was started again.", stack.restarts);
}

static void
put_request (void *arg, const char *pattern, unsigned status, uint64_t n)
{
  char code[16];
  const char *labels[] = { "route", pattern, "code", code, NULL };

  if (status < 10)              /* a class */
    snprintf (code, sizeof code, "%uxx", status);
  else
    snprintf (code, sizeof code, "%u", status);
  metric_sample (arg, "http_requests_total", labels, n, PLAIN);
}

static void
put_boots (FILE *f)
{
  static const char *const ways[] = {
    "menu", "iscsi", "http", "nbdroot", "refused", "failed" };

  metric_head (f, "boots_total", METRIC_COUNTER,
               "What machines that asked were told to do.");
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    const char *labels[] = { "way", ways[i], NULL };
    metric_sample (f, "boots_total", labels, boots_count (ways[i]), PLAIN);
  }
}

struct states { struct { const char *name; uint64_t n; } s[8]; size_t n; };

static void
count_state (void *arg, const struct bridge_seen *seen)
{
  struct states *states = arg;
  size_t i = 0;

  while (i < states->n && strcmp (states->s[i].name, seen->state) != 0)
    i++;
  if (i == sizeof states->s / sizeof states->s[0])
    return;
  if (i == states->n) {
    states->s[i].name = seen->state;
    states->n++;
  }
  states->s[i].n++;
}

static void
put_bridge (FILE *f)
{
  struct states states = { .n = 0 };
  uint64_t made, died;

  bridge_each (count_state, &states);
  metric_head (f, "bridge_targets", METRIC_GAUGE,
               "iSCSI targets that there are now.");
  for (size_t i = 0; i < states.n; i++) {
    const char *labels[] = { "state", states.s[i].name, NULL };
    metric_sample (f, "bridge_targets", labels, states.s[i].n, PLAIN);
  }

  bridge_counts (&made, &died);
  put_one (f, "bridge_targets_made_total", METRIC_COUNTER,
           "iSCSI targets that were made.", made);
  put_one (f, "bridge_targets_died_total", METRIC_COUNTER,
           "iSCSI targets whose programs died.", died);
}

static void
put_daemon (FILE *f)
{
  const char *labels[] = { "version", esp_version (), NULL };

  metric_head (f, "build_info", METRIC_GAUGE, "Which version runs.");
  metric_sample (f, "build_info", labels, 1, PLAIN);
  put_stack (f);
  metric_head (f, "http_requests_total", METRIC_COUNTER,
               "Requests, by route and class of status.");
  http_each_count (put_request, f);
  put_boots (f);
  put_bridge (f);
}

/* --- the store ---------------------------------------------------------------- */

static void
put_rps (FILE *f, const struct inventory *inv)
{
  static const enum esp_rp_kind kinds[] = {
    ESP_RP_STORED, ESP_RP_IN_PLACE, ESP_RP_DELAYED };
  uint64_t own = 0;

  metric_head (f, "restore_points", METRIC_GAUGE, "Restore points.");
  for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
    const struct esp_rp like = { .kind = kinds[k] };
    const char *labels[] = { "kind", rp_kind_name (&like), NULL };
    uint64_t n = 0;
    for (size_t i = 0; i < inv->rps.list.n; i++)
      n += inv->rps.list.rp[i].kind == kinds[k];
    metric_sample (f, "restore_points", labels, n, PLAIN);
  }
  for (size_t i = 0; i < inv->rps.list.n; i++)
    if (inv->rps.list.rp[i].kind != ESP_RP_IN_PLACE)
      own += inv->rps.list.rp[i].data_blocks << ESP_BLOCK_SHIFT;
  put_one (f, "restore_point_data_bytes", METRIC_GAUGE,
           "Data of all restore points, local or not.", own);
}

static void
put_delayed (FILE *f, const struct inventory *inv)
{
  uint64_t all = 0, local = 0;

  for (size_t i = 0; i < inv->ndelayed; i++) {
    all += inv->delayed[i].bytes;
    local += inv->delayed[i].local;
  }
  put_one (f, "delayed_bytes", METRIC_GAUGE,
           "Data of restore points that come from image centers.", all);
  put_one (f, "delayed_local_bytes", METRIC_GAUGE,
           "What of that is local.", local);
}

/* What the overlays of a venue are: which of these numbers? */
enum sum { SUM_N, SUM_HELD, SUM_BYTES, SUM_DAMAGED };

static uint64_t
one (const struct esp_overlay_info *o, enum sum sum)
{
  switch (sum) {
  case SUM_N: return 1;
  case SUM_HELD: return o->held;
  case SUM_BYTES: return o->used;
  case SUM_DAMAGED: return o->damage != NULL;
  }
  return 0;
}

static bool
is_rp (const struct esp_overlay_info *o)
{
  return strncmp (o->venue, "rp:", 3) == 0;
}

/* Overlays are sorted by directory, so those of a venue stand together; those
 * over restore points are added up in one.
 */
static void
put_overlays (FILE *f, const struct inventory *inv, const char *name,
              const char *help, enum sum sum)
{
  const struct esp_overlay_info_list *l = &inv->overlays;
  const char *of_rps[] = { "venue", "rp:", NULL };
  uint64_t rps = 0, nrps = 0;

  metric_head (f, name, METRIC_GAUGE, help);
  for (size_t i = 0, end; i < l->n; i = end) {
    const char *labels[] = { "venue", l->o[i].venue, NULL };
    uint64_t n = 0;
    for (end = i; end < l->n &&
         strcmp (l->o[end].venue, l->o[i].venue) == 0; end++)
      n += one (&l->o[end], sum);
    if (is_rp (&l->o[i])) {
      rps += n;
      nrps++;
    }
    else
      metric_sample (f, name, labels, n, PLAIN);
  }
  if (nrps > 0)
    metric_sample (f, name, of_rps, rps, PLAIN);
}

static void
put_store (FILE *f, const struct inventory *inv)
{
  put_rps (f, inv);
  put_delayed (f, inv);
  put_one (f, "venues", METRIC_GAUGE, "Venues.", inv->venues.list.n);
  put_overlays (f, inv, "overlays", "Overlays of clients.", SUM_N);
  put_overlays (f, inv, "overlays_held", "Overlays that are open now.",
                SUM_HELD);
  put_overlays (f, inv, "overlay_bytes", "Bytes on disk of overlays.",
                SUM_BYTES);
  put_overlays (f, inv, "overlays_damaged", "Overlays with damage.",
                SUM_DAMAGED);
  put_one (f, "store_size_bytes", METRIC_GAUGE,
           "Size of the store's file system.", inv->disk_size);
  put_one (f, "store_free_bytes", METRIC_GAUGE,
           "What of it is free.", inv->disk_free);
  put_one (f, "store_readonly", METRIC_GAUGE,
           "1 where the store cannot be written.", inv->readonly);
}

/* --- the answer ----------------------------------------------------------------- */

int
metrics_handle (struct request *r)
{
  CLEANUP_INVENTORY const struct inventory *inv =
    inventory_get (daemon_store ());
  char *text = NULL;
  size_t len = 0;
  FILE *f = inv ? open_memstream (&text, &len) : NULL;

  if (!f)
    return reply_error (r, 500, "the store cannot be read: see the log of "
                        "espalierd");
  put_daemon (f);
  put_store (f, inv);
  metrics_pulse (f, pulse_begin ());
  pulse_end ();
  if (fclose (f) != 0) {
    free (text);
    return reply_error (r, 500, "out of memory");
  }
  return reply_take (r, 200, "text/plain; version=0.0.4; charset=utf-8", text,
                     len);
}
