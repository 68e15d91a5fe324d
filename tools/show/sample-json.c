/* SPDX-License-Identifier: BSD-3-Clause */
/* Live counters as JSON: each process's rows, by kind. */

#include <config.h>

#include <math.h>
#include <string.h>
#include <time.h>

#include "sample.h"

static const struct { enum esp_stats_kind kind; const char *key; } lists[] = {
  { ESP_STATS_PROCESS, "processes" },
  { ESP_STATS_TIER, "tiers" },
  { ESP_STATS_NODE, "nodes" },
  { ESP_STATS_CENTER, "centers" },
  { ESP_STATS_VENUE, "venues" },
  { ESP_STATS_EXPORT, "exports" },
  { ESP_STATS_RP, "restore_points" },
  { ESP_STATS_CLIENT, "clients" },
};

const char *
line_name (const struct line *l, struct esp_catalog *catalog,
           char buf[ESP_NAME_MAX + 1])
{
  esp_uuid uuid;
  uint64_t created;

  if (l->kind != ESP_STATS_RP || !catalog ||
      esp_uuid_parse (l->name, &uuid) == -1 ||
      esp_catalog_rp_name (catalog, &uuid, buf, &created) == -1)
    return l->name;
  return buf;
}

static void
set_names (json_t *o, const struct line *l, struct esp_catalog *catalog)
{
  char name[ESP_NAME_MAX + 1];

  if (l->kind == ESP_STATS_PROCESS)
    json_object_set_new (o, "program", json_text (l->program));
  else
    json_object_set_new (o, "name", json_text (line_name (l, catalog, name)));
  if (l->kind == ESP_STATS_RP)
    json_object_set_new (o, "uuid", json_text (l->name));
  json_object_set_new (o, "pid", json_integer (l->pid));
}

void
line_counters_json (json_t *o, const struct line *l, bool with_rates)
{
  json_t *rates = json_object ();
  const char *key;
  bool gauge;

  for (unsigned i = 0; (key = esp_stats_counter_name (l->kind, i, &gauge));
       i++) {
    json_object_set_new (o, key, strcmp (key, "out") == 0
                         ? json_boolean (l->c[i] != 0)
                         : json_number (l->c[i]));
    if (!gauge)
      json_object_set_new (rates, key,
                           json_real (round (100 * l->rate[i]) / 100));
  }
  if (with_rates && l->kind != ESP_STATS_PROCESS)
    json_object_set (o, "per_second", rates);
  json_decref (rates);
}

json_t *
line_json (const struct line *l, struct esp_catalog *catalog, bool rates)
{
  json_t *o = json_object ();

  set_names (o, l, catalog);
  line_counters_json (o, l, rates);
  return o;
}

json_t *
sample_list_json (const struct sample *sample, enum esp_stats_kind kind,
                  struct esp_catalog *catalog, bool rates, line_has_fn has,
                  const void *arg)
{
  json_t *list = json_array ();

  for (size_t i = 0; i < sample->n; i++)
    if (sample->line[i].kind == kind && (!has || has (arg, &sample->line[i])))
      json_array_append_new (list,
                             line_json (&sample->line[i], catalog, rates));
  return list;
}

json_t *
sample_json (const struct sample *sample, struct esp_catalog *catalog,
             double seconds, line_has_fn has, const void *arg)
{
  json_t *root = json_object ();

  json_object_set_new (root, "time", json_integer (time (NULL)));
  if (seconds > 0)
    json_object_set_new (root, "seconds",
                         json_real (round (100 * seconds) / 100));
  for (size_t s = 0; s < sizeof lists / sizeof lists[0]; s++)
    json_object_set_new (root, lists[s].key,
                         sample_list_json (sample, lists[s].kind, catalog,
                                           seconds > 0, has, arg));
  return root;
}
