/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows: who asks for which, and what connections add up to.
 *
 * A row that somebody asked for is a block of memory of its own (whole cache
 * lines), with a number in the file while there is one free.  Adding to it
 * takes no lock and touches nothing else.
 *
 * Of some kinds (what a process serves: venues, restore points, centers) a
 * row stays when nobody uses it any more, with its counters; when numbers
 * run out, the one that is unused longest goes.  No kind takes so many that
 * there are none for the others.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "stats/internal.h"
#include "util/cleanup.h"

/* --- rows ---------------------------------------------------------------------- */

static bool
stays (enum esp_stats_kind kind)
{
  return kind == ESP_STATS_VENUE || kind == ESP_STATS_EXPORT ||
    kind == ESP_STATS_RP || kind == ESP_STATS_CENTER;
}

static struct slot *
slot_new (enum esp_stats_kind kind, const char *name)
{
  struct slot *s = aligned_alloc (STATS_CACHE_LINE, sizeof *s);

  if (!s)
    return NULL;
  memset (s, 0, sizeof *s);
  s->kind = kind;
  s->number = -1;
  s->name = strdup (name);
  if (s->name)
    return s;
  free (s);
  return NULL;
}

void
slot_free_locked (struct esp_stats *stats, struct slot *s)
{
  if (s->number >= 0) {
    stats->rows[s->number] = NULL;
    stats->changed[s->number] = true;
    stats->numbered[s->kind]--;
  }
  LIST_REMOVE (s, list);
  free (s->name);
  free (s);
}

static int
free_number_locked (struct esp_stats *stats)
{
  for (uint32_t i = 0; i < stats->used; ++i)
    if (!stats->rows[i])
      return (int) i;
  return stats->used < STATS_ROWS ? (int) stats->used++ : -1;
}

/* The number of who is unused longest, of KIND or (ANY) of any; -1. */
static int
take_number_locked (struct esp_stats *stats, enum esp_stats_kind kind,
                    bool any)
{
  struct slot *s;

  TAILQ_FOREACH (s, &stats->unused, unused)
    if (any || s->kind == kind)
      break;
  if (!s)
    return -1;
  int number = s->number;
  TAILQ_REMOVE (&stats->unused, s, unused);
  slot_free_locked (stats, s);
  return number;
}

static void
give_number_locked (struct esp_stats *stats, struct slot *s)
{
  bool may = stats->numbered[s->kind] < STATS_KIND_MAX;

  if (may)
    s->number = free_number_locked (stats);
  if (s->number < 0)
    s->number = take_number_locked (stats, s->kind, may);
  if (s->number < 0)
    return;
  stats->rows[s->number] = s;
  stats->changed[s->number] = true;
  stats->numbered[s->kind]++;
}

static struct slot *
find_locked (struct esp_stats *stats, enum esp_stats_kind kind,
             const char *name)
{
  struct slot *s;

  LIST_FOREACH (s, &stats->kinds[kind], list)
    if (strcmp (s->name, name) == 0)
      return s;
  return NULL;
}

struct slot *
slot_get_locked (struct esp_stats *stats, enum esp_stats_kind kind,
            const char *name)
{
  char shown[STATS_NAME];
  struct slot *s = NULL;

  stats_name (name, shown);
  if (kind != ESP_STATS_CLIENT)
    s = find_locked (stats, kind, shown);
  if (s && s->refs++ == 0)
    TAILQ_REMOVE (&stats->unused, s, unused);
  if (s)
    return s;
  s = slot_new (kind, shown);
  if (!s)
    return NULL;
  s->stats = stats;
  s->refs = 1;
  LIST_INSERT_HEAD (&stats->kinds[kind], s, list);
  give_number_locked (stats, s);
  return s;
}

static void leave_disk_locked (struct esp_stats *stats, struct slot *client);

static void
put_locked (struct esp_stats *stats, struct slot *s)
{
  if (--s->refs > 0)
    return;
  if (s->disk)
    leave_disk_locked (stats, s);
  if (stays (s->kind) && s->number >= 0)
    TAILQ_INSERT_TAIL (&stats->unused, s, unused);
  else
    slot_free_locked (stats, s);
}

struct esp_stats_row *
esp_stats_row (struct esp_stats *stats, enum esp_stats_kind kind,
               const char *name)
{
  ESP_LOCK_SCOPE (&stats->lock);
  struct slot *s = slot_get_locked (stats, kind, name);

  return s ? &s->row : &stats->nowhere;
}

void
esp_stats_row_put (struct esp_stats *stats, struct esp_stats_row *row)
{
  if (!row || row == &stats->nowhere)
    return;
  ESP_LOCK_SCOPE (&stats->lock);
  put_locked (stats, (struct slot *) row);
}

/* --- clients ---------------------------------------------------------------------- */

struct esp_stats_row *
esp_stats_client (struct esp_stats *stats, const char *name,
                  enum esp_stats_kind kind, const char *disk)
{
  ESP_LOCK_SCOPE (&stats->lock);
  struct slot *s = slot_get_locked (stats, ESP_STATS_CLIENT, name);

  if (!s)
    return NULL;
  ESP_STATS_SET (&s->row, ESP_DISK_CONNECTIONS, 1);
  ESP_STATS_SET (&s->row, ESP_DISK_SINCE, (uint64_t) time (NULL));
  s->disk = slot_get_locked (stats, kind, disk);
  if (s->disk)
    ESP_STATS_ADD (&s->disk->row, ESP_DISK_CONNECTIONS, 1);
  if (stats->process)
    ESP_STATS_ADD (&stats->process->row, ESP_PROCESS_CONNECTIONS, 1);
  return &s->row;
}

/* What CLIENT counted since the last time is its disk's too. */
static void
add_to_disk (struct slot *client)
{
  bool gauge;

  for (unsigned i = 0; i < ESP_STATS_COUNTERS; ++i) {
    uint64_t now = row_load (&client->row, i);
    if (now == client->added[i] ||
        !esp_stats_counter_name (ESP_STATS_CLIENT, i, &gauge) || gauge)
      continue;
    ESP_STATS_ADD (&client->disk->row, i, now - client->added[i]);
    client->added[i] = now;
  }
}

static void
leave_disk_locked (struct esp_stats *stats, struct slot *client)
{
  add_to_disk (client);
  ESP_STATS_ADD (&client->disk->row, ESP_DISK_CONNECTIONS, UINT64_MAX);
  put_locked (stats, client->disk);
  if (stats->process)
    ESP_STATS_ADD (&stats->process->row, ESP_PROCESS_CONNECTIONS, UINT64_MAX);
}

struct esp_stats_row *
esp_stats_client_ref (struct esp_stats_row *row)
{
  struct slot *s = (struct slot *) row;

  if (!row)
    return NULL;
  ESP_LOCK_SCOPE (&s->stats->lock);
  s->refs++;
  return row;
}

void
esp_stats_client_put (struct esp_stats_row *row)
{
  struct slot *s = (struct slot *) row;

  if (row) {
    ESP_LOCK_SCOPE (&s->stats->lock);
    put_locked (s->stats, s);
  }
}

void
clients_add_locked (struct esp_stats *stats)
{
  struct slot *s;

  LIST_FOREACH (s, &stats->kinds[ESP_STATS_CLIENT], list)
    if (s->disk)
      add_to_disk (s);
}
