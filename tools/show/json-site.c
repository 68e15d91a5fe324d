/* SPDX-License-Identifier: BSD-3-Clause */
/* The objects of clients and needs (see json.c). */

#include <config.h>

#include <string.h>

#include "show.h"

/* Null for "". */
static json_t *
text_or_null (const char *s)
{
  return s && *s ? json_text (s) : json_null ();
}

const char *
client_kind_name (enum esp_client_kind kind)
{
  static const char *const names[] = {
    [ESP_CLIENT_MAC] = "mac", [ESP_CLIENT_UUID] = "uuid",
    [ESP_CLIENT_NETWORK] = "network",
  };

  return names[kind];
}

json_t *
json_client (const struct esp_client *x, uint64_t last_seen)
{
  json_t *o = json_object ();

  json_object_set_new (o, "key", json_text (x->key));
  json_object_set_new (o, "kind", json_string (client_kind_name (x->kind)));
  json_object_set_new (o, "name", text_or_null (x->name));
  json_object_set_new (o, "venue", text_or_null (x->venue));
  json_object_set_new (o, "boot", text_or_null (esp_boot_name (x->boot)));
  json_object_set_new (o, "chap", text_or_null (x->chap));
  json_object_set_new (o, "created", json_number (x->created));
  json_object_set_new (o, "changed", json_number (x->changed));
  json_object_set_new (o, "last_seen", last_seen ? json_number (last_seen)
                       : json_null ());
  return o;
}

/* The lines of TEXT. */
static json_t *
json_lines (const char *text)
{
  json_t *array = json_array ();

  for (size_t n; *text; text += n + (text[n] == '\n')) {
    n = strcspn (text, "\n");
    json_array_append_new (array, json_stringn (text, n));
  }
  return array;
}

json_t *
json_client_seen (const struct esp_client_seen *x,
                  const struct esp_client *entry)
{
  json_t *o = json_object ();

  json_object_set_new (o, "name", json_text (x->name));
  json_object_set_new (o, "entry", text_or_null (entry ? entry->key : ""));
  json_object_set_new (o, "venue", text_or_null (x->venue));
  json_object_set_new (o, "mac", text_or_null (x->mac));
  json_object_set_new (o, "uuid", text_or_null (x->uuid));
  json_object_set_new (o, "address", text_or_null (x->address));
  json_object_set_new (o, "needs", json_lines (x->needs ? x->needs : ""));
  json_object_set_new (o, "first", json_number (x->first));
  json_object_set_new (o, "last", json_number (x->last));
  json_object_set_new (o, "boots", json_number (x->boots));
  return o;
}

json_t *
json_need (const struct esp_need *x)
{
  json_t *o = json_object ();

  json_object_set_new (o, "name", json_text (x->name));
  json_object_set_new (o, "description", json_text (x->description));
  json_object_set_new (o, "resources",
                       json_resources (x->resources, x->nresources));
  return o;
}

json_t *
json_match (const struct esp_match *m, const struct esp_need *const *wanted,
            size_t n)
{
  json_t *o = json_object (), *serves = json_array (), *not = json_array ();

  for (size_t i = 0; i < n; i++)
    json_array_append_new (m->serves[i] ? serves : not,
                           json_text (wanted[i]->name));
  json_object_set_new (o, "venue", json_text (m->venue->id));
  json_object_set_new (o, "description", json_text (m->venue->description));
  json_object_set_new (o, "serves", serves);
  json_object_set_new (o, "serves_not", not);
  json_object_set_new (o, "extra", json_number (m->extra));
  json_object_set_new (o, "weight", json_number (m->weight));
  json_object_set_new (o, "why", json_text (m->why));
  return o;
}
