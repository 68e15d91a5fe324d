/* SPDX-License-Identifier: BSD-3-Clause */
/* Live counters as metrics: a table says what each is called.
 *
 * No label has the name of a client or of a restore point: there is no
 * bound to those.
 */

#include <config.h>

#include <string.h>

#include "metrics-text.h"
#include "metrics.h"

struct family {
  enum esp_stats_kind kind;
  unsigned counter;
  enum metric_unit unit;
  const char *name, *help;
};

#define N METRIC_PLAIN
#define US METRIC_MICROSECONDS

static const struct family families[] = {
  { ESP_STATS_VENUE, ESP_DISK_READS, N, "venue_reads_total",
    "Read requests of clients." },
  { ESP_STATS_VENUE, ESP_DISK_READ_BYTES, N, "venue_read_bytes_total",
    "Bytes that clients read." },
  { ESP_STATS_VENUE, ESP_DISK_WRITES, N, "venue_writes_total",
    "Write, trim and zero requests of clients." },
  { ESP_STATS_VENUE, ESP_DISK_WRITE_BYTES, N, "venue_written_bytes_total",
    "Bytes that clients wrote." },
  { ESP_STATS_VENUE, ESP_DISK_MISSES, N, "venue_misses_total",
    "Reads that waited for data from an image center." },
  { ESP_STATS_VENUE, ESP_DISK_WAITED_US, US, "venue_wait_seconds_total",
    "Time that those reads waited." },
  { ESP_STATS_VENUE, ESP_DISK_ERRORS, N, "venue_errors_total",
    "Requests of clients that failed." },
  { ESP_STATS_VENUE, ESP_DISK_CONNECTIONS, N, "venue_connections",
    "Open connections." },
  { ESP_STATS_TIER, ESP_TIER_HITS, N, "cache_hits_total",
    "Segments found in a tier of the cache." },
  { ESP_STATS_TIER, ESP_TIER_MISSES, N, "cache_misses_total",
    "Segments looked for in a tier of the cache in vain." },
  { ESP_STATS_TIER, ESP_TIER_READ_BYTES, N, "cache_read_bytes_total",
    "Bytes read from a tier of the cache." },
  { ESP_STATS_TIER, ESP_TIER_WRITE_BYTES, N, "cache_written_bytes_total",
    "Bytes put into a tier of the cache." },
  { ESP_STATS_TIER, ESP_TIER_WAITS, N, "cache_waits_total",
    "Segments that were waited for while another fetched them." },
  { ESP_STATS_TIER, ESP_TIER_WAITED_US, US, "cache_wait_seconds_total",
    "Time spent in these waits." },
  { ESP_STATS_TIER, ESP_TIER_EVICTIONS, N, "cache_evictions_total",
    "Segments that gave way to others." },
  { ESP_STATS_TIER, ESP_TIER_ERRORS, N, "cache_errors_total",
    "Operations of a tier that failed." },
  { ESP_STATS_TIER, ESP_TIER_LIES, N, "cache_corrupt_total",
    "Segments of a tier that were not what they should be." },
  { ESP_STATS_TIER, ESP_TIER_ENTRIES, N, "cache_entries",
    "Segments in a tier." },
  { ESP_STATS_TIER, ESP_TIER_BYTES, N, "cache_size_bytes",
    "Bytes in a tier." },
  { ESP_STATS_TIER, ESP_TIER_MAX, N, "cache_limit_bytes",
    "Bytes that a tier may have." },
  { ESP_STATS_NODE, ESP_NODE_OUT, N, "cache_node_left_out",
    "1 while a cache node is left out, because it does not answer." },
  { ESP_STATS_NODE, ESP_NODE_HITS, N, "cache_node_hits_total",
    "Segments found at a cache node." },
  { ESP_STATS_NODE, ESP_NODE_MISSES, N, "cache_node_misses_total",
    "Segments looked for at a cache node in vain." },
  { ESP_STATS_NODE, ESP_NODE_ERRORS, N, "cache_node_errors_total",
    "Requests to a cache node that failed." },
  { ESP_STATS_NODE, ESP_NODE_TIMEOUTS, N, "cache_node_timeouts_total",
    "Requests that a cache node did not answer in time." },
  { ESP_STATS_NODE, ESP_NODE_LIES, N, "cache_node_corrupt_total",
    "Segments of a cache node that were not what they should be." },
  { ESP_STATS_NODE, ESP_NODE_ANSWER_US, US, "cache_node_answer_seconds",
    "How long the last answer of a cache node took." },
  { ESP_STATS_CENTER, ESP_CENTER_OUT, N, "center_left_out",
    "1 while an image center is left out, because it does not answer." },
  { ESP_STATS_CENTER, ESP_CENTER_REQUESTS, N, "center_requests_total",
    "Requests to an image center." },
  { ESP_STATS_CENTER, ESP_CENTER_BYTES, N, "center_received_bytes_total",
    "Bytes received from an image center." },
  { ESP_STATS_CENTER, ESP_CENTER_ERRORS, N, "center_errors_total",
    "Requests to an image center that failed." },
  { ESP_STATS_CENTER, ESP_CENTER_FIRST_BYTE_US, US,
    "center_first_byte_seconds",
    "How long an image center takes to the first byte, smoothed." },
  { ESP_STATS_CENTER, ESP_CENTER_BYTES_SECOND, N,
    "center_speed_bytes_per_second", "How fast an image center sends." },
  { ESP_STATS_RP, ESP_RP_WAITS, N, "fetch_waits_total",
    "Reads that waited for a fetch." },
  { ESP_STATS_RP, ESP_RP_FAILED, N, "fetch_failures_total",
    "Segments that could be had from nowhere." },
  { ESP_STATS_RP, ESP_RP_LIES, N, "fetch_corrupt_total",
    "Segments that came damaged, and were fetched again." },
};
#define NFAMILIES (sizeof families / sizeof families[0])

/* Room for a disk's name in two. */
struct labels {
  char venue[ESP_NAME_MAX + 8];
  const char *l[7];
};

static const char *const *
disk_labels (const char *name, struct labels *labels)
{
  const char *slash = strrchr (name, '/');
  size_t len = slash ? (size_t) (slash - name) : strlen (name);

  if (len >= sizeof labels->venue)
    len = sizeof labels->venue - 1;
  memcpy (labels->venue, name, len);
  labels->venue[len] = 0;
  labels->l[0] = "venue";
  labels->l[1] = labels->venue;
  labels->l[2] = slash ? "disk" : NULL;
  labels->l[3] = slash ? slash + 1 : NULL;
  return labels->l;
}

static const char *const *
labels_of (enum esp_stats_kind kind, const char *name, struct labels *labels)
{
  memset (labels->l, 0, sizeof labels->l);
  switch (kind) {
  case ESP_STATS_VENUE: return disk_labels (name, labels);
  case ESP_STATS_TIER: labels->l[0] = "tier"; break;
  case ESP_STATS_NODE: labels->l[0] = "node"; break;
  case ESP_STATS_CENTER: labels->l[0] = "center"; break;
  default: return NULL;
  }
  labels->l[1] = name;
  return labels->l;
}

static void
put_total (FILE *f, const struct pulse *p, const struct family *fam)
{
  struct labels labels;

  metric_head (f, fam->name, METRIC_COUNTER, fam->help);
  for (size_t i = 0; i < p->ntotals; i++)
    if (p->total[i].kind == fam->kind)
      metric_sample (f, fam->name,
                     labels_of (fam->kind, p->total[i].name, &labels),
                     p->total[i].c[fam->counter], fam->unit);
}

static void
put_gauge (FILE *f, const struct pulse *p, const struct family *fam)
{
  struct labels labels;
  struct line sum;
  uint64_t of_rps = 0;          /* those have no bound: all in one */
  bool rps = false;

  metric_head (f, fam->name, METRIC_GAUGE, fam->help);
  for (size_t i = 0; i < p->now.n;) {
    i += sample_sum (&p->now, i, &sum);
    if (sum.kind != fam->kind)
      continue;
    if (fam->kind == ESP_STATS_VENUE && strncmp (sum.name, "rp:", 3) == 0) {
      of_rps += sum.c[fam->counter];
      rps = true;
      continue;
    }
    metric_sample (f, fam->name, labels_of (fam->kind, sum.name, &labels),
                   sum.c[fam->counter], fam->unit);
  }
  if (rps)
    metric_sample (f, fam->name, disk_labels ("rp:", &labels), of_rps, fam->unit);
}

/* --- where restore points' segments came from --------------------------------- */

static const struct { const char *source; unsigned segments, bytes; }
sources[] = {
  { "center", ESP_RP_CENTER_SEGMENTS, ESP_RP_CENTER_BYTES },
  { "dir", ESP_RP_DIR_SEGMENTS, ESP_RP_DIR_BYTES },
  { "cluster", ESP_RP_CLUSTER_SEGMENTS, ESP_RP_CLUSTER_BYTES },
  { "memory", ESP_RP_MEMORY_SEGMENTS, ESP_RP_MEMORY_BYTES },
};

static void
put_sources (FILE *f, const struct pulse *p, bool bytes, const char *name,
             const char *help)
{
  metric_head (f, name, METRIC_COUNTER, help);
  for (size_t i = 0; i < p->ntotals; i++) {
    if (p->total[i].kind != ESP_STATS_RP)
      continue;
    for (size_t s = 0; s < sizeof sources / sizeof sources[0]; s++) {
      const char *labels[] = { "source", sources[s].source, NULL };
      metric_sample (f, name, labels, p->total[i].c[bytes ? sources[s].bytes
                                                    : sources[s].segments],
                     METRIC_PLAIN);
    }
  }
}

static void
put_counts (FILE *f, const struct pulse *p)
{
  uint64_t clients = 0, processes = 0;

  for (size_t i = 0; i < p->now.n; i++) {
    clients += p->now.line[i].kind == ESP_STATS_CLIENT;
    processes += p->now.line[i].kind == ESP_STATS_PROCESS;
  }
  metric_head (f, "client_connections", METRIC_GAUGE,
               "Open connections of clients.");
  metric_sample (f, "client_connections", NULL, clients, METRIC_PLAIN);
  metric_head (f, "servers", METRIC_GAUGE,
               "Processes that serve the store.");
  metric_sample (f, "servers", NULL, processes, METRIC_PLAIN);
}

void
metrics_pulse (FILE *f, const struct pulse *p)
{
  bool gauge;

  put_counts (f, p);
  for (size_t i = 0; i < NFAMILIES; i++) {
    esp_stats_counter_name (families[i].kind, families[i].counter, &gauge);
    (gauge ? put_gauge : put_total) (f, p, &families[i]);
  }
  put_sources (f, p, false, "fetched_segments_total",
               "Segments of restore points that became local, by where they "
               "came from.");
  put_sources (f, p, true, "fetched_bytes_total",
               "Bytes of these segments.");
}
