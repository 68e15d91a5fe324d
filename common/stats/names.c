/* SPDX-License-Identifier: BSD-3-Clause */
/* What kinds and counters are called. */

#include <config.h>

#include "stats/stats.h"

struct counter { const char *name; bool gauge; };

static const struct counter disk[ESP_STATS_COUNTERS] = {
  [ESP_DISK_READS] = { "reads", false },
  [ESP_DISK_READ_BYTES] = { "read_bytes", false },
  [ESP_DISK_WRITES] = { "writes", false },
  [ESP_DISK_WRITE_BYTES] = { "write_bytes", false },
  [ESP_DISK_MISSES] = { "misses", false },
  [ESP_DISK_WAITED_US] = { "waited_us", false },
  [ESP_DISK_ERRORS] = { "errors", false },
  [ESP_DISK_CONNECTIONS] = { "connections", true },
  [ESP_DISK_SINCE] = { "since", true },
};

static const struct counter rp[ESP_STATS_COUNTERS] = {
  [ESP_RP_CENTER_SEGMENTS] = { "center_segments", false },
  [ESP_RP_CENTER_BYTES] = { "center_bytes", false },
  [ESP_RP_DIR_SEGMENTS] = { "dir_segments", false },
  [ESP_RP_DIR_BYTES] = { "dir_bytes", false },
  [ESP_RP_CLUSTER_SEGMENTS] = { "cluster_segments", false },
  [ESP_RP_CLUSTER_BYTES] = { "cluster_bytes", false },
  [ESP_RP_MEMORY_SEGMENTS] = { "memory_segments", false },
  [ESP_RP_MEMORY_BYTES] = { "memory_bytes", false },
  [ESP_RP_WAITS] = { "waits", false },
  [ESP_RP_LIES] = { "lies", false },
  [ESP_RP_FAILED] = { "failed", false },
};

static const struct counter tier[ESP_STATS_COUNTERS] = {
  [ESP_TIER_HITS] = { "hits", false },
  [ESP_TIER_MISSES] = { "misses", false },
  [ESP_TIER_READ_BYTES] = { "read_bytes", false },
  [ESP_TIER_WRITE_BYTES] = { "write_bytes", false },
  [ESP_TIER_WAITS] = { "waits", false },
  [ESP_TIER_WAITED_US] = { "waited_us", false },
  [ESP_TIER_EVICTIONS] = { "evictions", false },
  [ESP_TIER_ERRORS] = { "errors", false },
  [ESP_TIER_LIES] = { "lies", false },
  [ESP_TIER_LEASES] = { "leases", false },
  [ESP_TIER_TAKEOVERS] = { "takeovers", false },
  [ESP_TIER_ENTRIES] = { "entries", true },
  [ESP_TIER_BYTES] = { "bytes", true },
  [ESP_TIER_MAX] = { "max", true },
};

static const struct counter node[ESP_STATS_COUNTERS] = {
  [ESP_NODE_OUT] = { "out", true },
  [ESP_NODE_HITS] = { "hits", false },
  [ESP_NODE_MISSES] = { "misses", false },
  [ESP_NODE_ERRORS] = { "errors", false },
  [ESP_NODE_TIMEOUTS] = { "timeouts", false },
  [ESP_NODE_LIES] = { "lies", false },
  [ESP_NODE_ANSWER_US] = { "answer_us", true },
};

static const struct counter center[ESP_STATS_COUNTERS] = {
  [ESP_CENTER_OUT] = { "out", true },
  [ESP_CENTER_REQUESTS] = { "requests", false },
  [ESP_CENTER_BYTES] = { "bytes", false },
  [ESP_CENTER_ERRORS] = { "errors", false },
  [ESP_CENTER_FIRST_BYTE_US] = { "first_byte_us", true },
  [ESP_CENTER_BYTES_SECOND] = { "bytes_second", true },
};

static const struct counter process[ESP_STATS_COUNTERS] = {
  [ESP_PROCESS_CONNECTIONS] = { "connections", true },
  [ESP_PROCESS_SINCE] = { "since", true },
};

static const struct {
  const char *name;
  const struct counter *counters;
} kinds[ESP_STATS_KINDS] = {
  [ESP_STATS_PROCESS] = { "process", process },
  [ESP_STATS_TIER] = { "tier", tier },
  [ESP_STATS_NODE] = { "node", node },
  [ESP_STATS_CENTER] = { "center", center },
  [ESP_STATS_VENUE] = { "venue", disk },
  [ESP_STATS_CLIENT] = { "client", disk },
  [ESP_STATS_EXPORT] = { "export", disk },
  [ESP_STATS_RP] = { "rp", rp },
};

static bool
known (enum esp_stats_kind kind)
{
  return kind >= ESP_STATS_PROCESS && kind < ESP_STATS_KINDS;
}

const char *
esp_stats_kind_name (enum esp_stats_kind kind)
{
  return known (kind) ? kinds[kind].name : NULL;
}

const char *
esp_stats_counter_name (enum esp_stats_kind kind, unsigned n, bool *gauge)
{
  if (!known (kind) || n >= ESP_STATS_COUNTERS)
    return NULL;
  *gauge = kinds[kind].counters[n].gauge;
  return kinds[kind].counters[n].name;
}
