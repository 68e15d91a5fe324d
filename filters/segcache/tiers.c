/* SPDX-License-Identifier: BSD-3-Clause */
/* The live counters of the cache's tiers and nodes: the engines count for
 * themselves; once a second that is copied into rows.  Everything here is
 * done by the thread of STATS, but for the beginning and the end.
 */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cluster.h"
#include "cache/dir.h"
#include "cache/nodes.h"
#include "tiers.h"
#include "util/cleanup.h"
#include "util/host.h"

struct node {
  struct esp_stats_row *row;    /* NULL: the place is free */
  bool seen;
  char name[ESP_NODE_NAME];
};

static struct {
  struct esp_stats *stats;
  struct esp_memory *memory;            /* these three: or NULL */
  struct esp_cdir *dir;
  struct esp_cluster *cluster;
  struct esp_stats_row *memory_row, *dir_row, *cluster_row;
  struct node node[ESP_NODES_MAX];
  struct esp_node_counters counters[ESP_NODES_MAX];
} tiers;

static void
set (struct esp_stats_row *row, unsigned n, uint64_t to)
{
  ESP_STATS_SET (row, n, to);
}

static void
copy_memory (void)
{
  struct esp_stats_row *r = tiers.memory_row;
  struct esp_memory_counters c;

  esp_memory_counters (tiers.memory, &c);
  set (r, ESP_TIER_HITS, c.hits);
  set (r, ESP_TIER_MISSES, c.misses);
  set (r, ESP_TIER_READ_BYTES, c.bytes_read);
  set (r, ESP_TIER_WRITE_BYTES, c.bytes_filled);
  set (r, ESP_TIER_WAITS, c.waits);
  set (r, ESP_TIER_WAITED_US, c.waited_us);
  set (r, ESP_TIER_EVICTIONS, c.evictions);
  set (r, ESP_TIER_ENTRIES, c.entries);
  set (r, ESP_TIER_BYTES, c.bytes);
  set (r, ESP_TIER_MAX, c.max);
}

static void
copy_dir (void)
{
  struct esp_stats_row *r = tiers.dir_row;
  struct esp_cdir_counters c;

  esp_cdir_counters (tiers.dir, &c);
  set (r, ESP_TIER_HITS, c.hits);
  set (r, ESP_TIER_MISSES, c.misses);
  set (r, ESP_TIER_READ_BYTES, c.bytes_read);
  set (r, ESP_TIER_WRITE_BYTES, c.bytes_written);
  set (r, ESP_TIER_EVICTIONS, c.evictions);
  set (r, ESP_TIER_ERRORS, c.errors);
  set (r, ESP_TIER_LIES, c.lies);
  set (r, ESP_TIER_BYTES, c.used);
  set (r, ESP_TIER_MAX, c.max);
}

static void
copy_cluster (void)
{
  struct esp_stats_row *r = tiers.cluster_row;
  struct esp_cluster_counters c;

  esp_cluster_counters (tiers.cluster, &c);
  set (r, ESP_TIER_HITS, c.hits);
  set (r, ESP_TIER_MISSES, c.misses);
  set (r, ESP_TIER_READ_BYTES, c.bytes_read);
  set (r, ESP_TIER_WRITE_BYTES, c.bytes_written);
  set (r, ESP_TIER_WAITS, c.waits);
  set (r, ESP_TIER_WAITED_US, c.waited_us);
  set (r, ESP_TIER_ERRORS, c.errors);
  set (r, ESP_TIER_LIES, c.lies);
  set (r, ESP_TIER_LEASES, c.leases);
  set (r, ESP_TIER_TAKEOVERS, c.takeovers);
}

/* --- nodes: their list may change ------------------------------------------ */

static struct node *
node_of (const char *name)
{
  struct node *free_one = NULL;

  for (unsigned i = 0; i < ESP_NODES_MAX; ++i) {
    struct node *n = &tiers.node[i];
    if (n->row && strcmp (n->name, name) == 0)
      return n;
    if (!n->row && !free_one)
      free_one = n;
  }
  if (free_one) {
    strcpy (free_one->name, name);
    free_one->row = esp_stats_row (tiers.stats, ESP_STATS_NODE, name);
  }
  return free_one;
}

static void
copy_node (const struct esp_node_counters *c)
{
  struct node *n = node_of (c->name);

  if (!n)
    return;
  n->seen = true;
  set (n->row, ESP_NODE_OUT, c->out);
  set (n->row, ESP_NODE_HITS, c->hits);
  set (n->row, ESP_NODE_MISSES, c->misses);
  set (n->row, ESP_NODE_ERRORS, c->errors);
  set (n->row, ESP_NODE_TIMEOUTS, c->timeouts);
  set (n->row, ESP_NODE_LIES, c->lies);
  set (n->row, ESP_NODE_ANSWER_US, c->answer_us);
}

/* The rows of those that were not seen go. */
static void
put_unseen (void)
{
  for (unsigned i = 0; i < ESP_NODES_MAX; ++i) {
    struct node *n = &tiers.node[i];
    if (n->row && !n->seen)
      esp_stats_row_put (tiers.stats, ESP_STEAL (n->row));
    n->seen = false;
  }
}

static void
copy_nodes (void)
{
  size_t n = esp_cluster_nodes (tiers.cluster, tiers.counters, ESP_NODES_MAX);

  for (size_t i = 0; i < n && i < ESP_NODES_MAX; ++i)
    copy_node (&tiers.counters[i]);
  put_unseen ();
}

/* --- all --------------------------------------------------------------------- */

static void
tick (void *arg)
{
  (void) arg;
  if (tiers.memory)
    copy_memory ();
  if (tiers.dir)
    copy_dir ();
  if (tiers.cluster) {
    copy_cluster ();
    copy_nodes ();
  }
}

static struct esp_stats_row *
row_of (const void *tier, const char *name)
{
  return tier ? esp_stats_row (tiers.stats, ESP_STATS_TIER, name) : NULL;
}

/* A filter without memory has one that keeps nothing. */
static bool
keeps_something (struct esp_memory *memory)
{
  struct esp_memory_counters c;

  esp_memory_counters (memory, &c);
  return c.max > 0;
}

int
tiers_count (struct esp_stats *stats, struct esp_memory *memory,
             struct esp_shared *shared)
{
  tiers.stats = stats;
  tiers.memory = memory && keeps_something (memory) ? memory : NULL;
  if (shared) {
    if (!memory)
      tiers.memory = esp_shared_memory (shared);
    tiers.dir = esp_shared_dir (shared);
    tiers.cluster = esp_shared_cluster (shared);
  }
  tiers.memory_row = row_of (tiers.memory, "memory");
  tiers.dir_row = row_of (tiers.dir, "dir");
  tiers.cluster_row = row_of (tiers.cluster, "cluster");
  return esp_stats_on_tick (stats, tick, NULL);
}

void
tiers_stop (struct esp_stats *stats)
{
  esp_stats_off_tick (stats, tick, NULL);
  put_unseen ();                /* all: none was seen since the last tick */
  esp_stats_row_put (stats, tiers.memory_row);
  esp_stats_row_put (stats, tiers.dir_row);
  esp_stats_row_put (stats, tiers.cluster_row);
}

/* --- for people ---------------------------------------------------------------- */

static void
print_memory (struct esp_memory *memory)
{
  struct esp_memory_counters c;

  esp_memory_counters (memory, &c);
  esp_debug ("segcache: memory: %" PRIu64 " hits, %" PRIu64 " misses, "
             "%" PRIu64 " bytes filled, %" PRIu64 " evictions, "
             "waited %" PRIu64 " ms", c.hits, c.misses, c.bytes_filled,
             c.evictions, c.waited_us / 1000);
}

static void
print_dir (struct esp_cdir *dir)
{
  struct esp_cdir_counters c;

  esp_cdir_counters (dir, &c);
  esp_debug ("segcache: directory: %" PRIu64 " hits, %" PRIu64 " misses, "
             "%" PRIu64 " bytes written, %" PRIu64 " evictions, "
             "%" PRIu64 " errors, %" PRIu64 " lies", c.hits, c.misses,
             c.bytes_written, c.evictions, c.errors, c.lies);
}

static void
print_cluster (struct esp_cluster *cluster)
{
  struct esp_cluster_counters c;

  esp_cluster_counters (cluster, &c);
  esp_debug ("segcache: nodes: %" PRIu64 " hits, %" PRIu64 " misses, "
             "%" PRIu64 " bytes written, %" PRIu64 " leases, "
             "%" PRIu64 " takeovers, waited %" PRIu64 " ms, "
             "%" PRIu64 " errors, %" PRIu64 " lies", c.hits, c.misses,
             c.bytes_written, c.leases, c.takeovers, c.waited_us / 1000,
             c.errors, c.lies);
}

void
tiers_print (struct esp_memory *memory, struct esp_shared *shared)
{
  if (!memory && shared)
    memory = esp_shared_memory (shared);
  if (memory && keeps_something (memory))
    print_memory (memory);
  if (shared && esp_shared_dir (shared))
    print_dir (esp_shared_dir (shared));
  if (shared && esp_shared_cluster (shared))
    print_cluster (esp_shared_cluster (shared));
}
