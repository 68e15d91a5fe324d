/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /peer/venues, from both sides: what a server says of itself to the
 * others, and how they read it.  Nothing in it is trusted: it only decides
 * which URLs a script names.
 *
 *   {"espalierd": 1, "instance": UUID, "stack": "up", "connections": 12,
 *    "venues": {"cafe": [UUID, ...], ...}}
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "daemon.h"
#include "peers.h"
#include "stats/stats.h"
#include "util/cleanup.h"

/* --- reading --------------------------------------------------------------- */

void
peer_answer_clear (struct peer_answer *answer)
{
  for (size_t i = 0; i < answer->n; i++)
    free (answer->venue[i].disks);
  free (answer->venue);
  memset (answer, 0, sizeof *answer);
}

static int
read_venue (const char *id, json_t *disks, struct peer_venue *out)
{
  size_t i, n = json_array_size (disks);
  json_t *v;

  if (!esp_name_ok (id) || n < 1 || n > ESP_DISK_NUMBER_MAX + 1u)
    return -1;
  strcpy (out->id, id);
  out->ndisks = n;
  out->disks = calloc (n, sizeof *out->disks);
  if (!out->disks)
    return -1;
  json_array_foreach (disks, i, v)
    if (!json_is_string (v) ||
        esp_uuid_parse (json_string_value (v), &out->disks[i]) == -1)
      return -1;
  return 0;
}

static int
read_venues (json_t *venues, struct peer_answer *out)
{
  const char *id;
  json_t *disks;

  if (!json_is_object (venues))
    return -1;
  out->venue = calloc (json_object_size (venues) + 1, sizeof *out->venue);
  if (!out->venue)
    return -1;
  json_object_foreach (venues, id, disks)
    if (read_venue (id, disks, &out->venue[out->n++]) == -1)
      return -1;
  return 0;
}

static int
compare_venues (const void *a, const void *b)
{
  return strcmp (((const struct peer_venue *) a)->id,
                 ((const struct peer_venue *) b)->id);
}

static int
read_answer (json_t *root, struct peer_answer *out)
{
  const char *instance = json_string_value (json_object_get (root, "instance"));
  const char *stack = json_string_value (json_object_get (root, "stack"));
  json_int_t connections =
    json_integer_value (json_object_get (root, "connections"));
  esp_uuid u;

  if (json_integer_value (json_object_get (root, "espalierd")) != 1 ||
      !instance || esp_uuid_parse (instance, &u) == -1 || !stack ||
      connections < 0 || connections > 1000000)
    return -1;
  esp_uuid_text (&u, out->instance);
  out->up = strcmp (stack, "up") == 0;
  out->connections = connections;
  if (read_venues (json_object_get (root, "venues"), out) == -1)
    return -1;
  qsort (out->venue, out->n, sizeof *out->venue, compare_venues);
  return 0;
}

int
peer_answer_parse (const char *text, size_t len, struct peer_answer *out)
{
  json_t *root = json_loadb (text, len, JSON_REJECT_DUPLICATES, NULL);
  int r;

  memset (out, 0, sizeof *out);
  r = root ? read_answer (root, out) : -1;
  json_decref (root);
  if (r == 0)
    return 0;
  peer_answer_clear (out);
  errno = EPROTO;
  return -1;
}

bool
peer_answer_has (const struct peer_answer *answer,
                 const struct esp_venue *venue)
{
  struct peer_venue key = { .ndisks = 0 };
  const struct peer_venue *v;

  strcpy (key.id, venue->id);
  if (answer->n == 0 ||
      !(v = bsearch (&key, answer->venue, answer->n, sizeof key,
                     compare_venues)) || v->ndisks != venue->ndisks)
    return false;
  for (unsigned i = 0; i < v->ndisks; i++)
    if (!esp_uuid_eq (&v->disks[i], &venue->disks[i]))
      return false;
  return true;
}

/* --- answering ------------------------------------------------------------- */

static int
add_connections (void *arg, const struct esp_stats_seen *row)
{
  if (row->kind == ESP_STATS_PROCESS)
    *(uint64_t *) arg += row->c[ESP_PROCESS_CONNECTIONS];
  return 0;
}

static json_t *
venue_disks (const struct esp_venue *venue)
{
  char text[ESP_UUID_TEXT];
  json_t *array = json_array ();

  for (unsigned i = 0; i < venue->ndisks; i++)
    json_array_append_new (array, json_string (esp_uuid_text (&venue->disks[i],
                                                              text)));
  return array;
}

int
peers_handler (struct request *r)
{
  CLEANUP_VENUE_LIST struct esp_venue_list list = { 0 };
  CLEANUP_FREE char *dir = esp_stats_dir (daemon_store ());
  struct stack_info stack;
  uint64_t connections = 0;
  json_t *venues;

  if (!dir || esp_stats_each (dir, add_connections, &connections) == -1 ||
      esp_catalog_venue_list (esp_store_catalog (daemon_store ()), NULL,
                              &list) == -1)
    return reply_error (r, 500, "the store cannot be read now");
  stack_info (&stack);
  venues = json_object ();
  for (size_t i = 0; i < list.n; i++)
    json_object_set_new (venues, list.venue[i].id,
                         venue_disks (&list.venue[i]));
  return reply_json (r, 200, json_pack ("{si ss ss sI so}",
                                        "espalierd", 1,
                                        "instance", peers_instance (),
                                        "stack", stack.state == STACK_UP
                                        ? "up" : "down",
                                        "connections",
                                        (json_int_t) connections,
                                        "venues", venues));
}
