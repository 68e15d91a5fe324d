/* SPDX-License-Identifier: BSD-3-Clause */
/* What espalier stats prints: a table for each kind of row.
 *
 * In tables what several processes count under one name is one line: sums,
 * but for what is a state, a measurement, or shared by them (a
 * directory's size): there the highest.  JSON (show/) has each process's row.
 */

#include <config.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "stats.h"

/* --- columns ----------------------------------------------------------------- */

enum how {
  AS_NAME, AS_PID, AS_PROGRAM,
  AS_NUMBER, AS_BYTES,          /* counter A; its rate where rates are shown */
  AS_BYTES_NOW, AS_BYTES_SECOND, AS_NUMBER_NOW, AS_TIME_NOW, AS_SINCE,
  AS_OUT,                       /* gauges */
  AS_PART,                      /* A of A and B, in percent */
  AS_AVERAGE,                   /* time: A for each of B */
};

struct column {
  const char *head;
  enum how how;
  unsigned a, b;
};

struct section {
  enum esp_stats_kind kind;
  bool each;                    /* rows of one name are different things */
  struct column column[12];
};

#define DISK_COLUMNS                                    \
  { "READS>", AS_NUMBER, ESP_DISK_READS, 0 },           \
  { "READ>", AS_BYTES, ESP_DISK_READ_BYTES, 0 },        \
  { "WRITES>", AS_NUMBER, ESP_DISK_WRITES, 0 },         \
  { "WRITTEN>", AS_BYTES, ESP_DISK_WRITE_BYTES, 0 },    \
  { "MISSES>", AS_NUMBER, ESP_DISK_MISSES, 0 },         \
  { "A MISS TAKES>", AS_AVERAGE, ESP_DISK_WAITED_US,    \
    ESP_DISK_MISSES },                                  \
  { "ERRORS>", AS_NUMBER, ESP_DISK_ERRORS, 0 }

static const struct section sections[] = {
  { ESP_STATS_PROCESS, true, {
      { "PROGRAM", AS_PROGRAM, 0, 0 },
      { "PID>", AS_PID, 0, 0 },
      { "SINCE", AS_SINCE, ESP_PROCESS_SINCE, 0 },
      { "CONNECTIONS>", AS_NUMBER_NOW, ESP_PROCESS_CONNECTIONS, 0 } } },
  { ESP_STATS_TIER, false, {
      { "TIER", AS_NAME, 0, 0 },
      { "HIT RATE>", AS_PART, ESP_TIER_HITS, ESP_TIER_MISSES },
      { "HITS>", AS_NUMBER, ESP_TIER_HITS, 0 },
      { "MISSES>", AS_NUMBER, ESP_TIER_MISSES, 0 },
      { "READ>", AS_BYTES, ESP_TIER_READ_BYTES, 0 },
      { "WRITTEN>", AS_BYTES, ESP_TIER_WRITE_BYTES, 0 },
      { "USED>", AS_BYTES_NOW, ESP_TIER_BYTES, 0 },
      { "OF>", AS_BYTES_NOW, ESP_TIER_MAX, 0 },
      { "EVICTED>", AS_NUMBER, ESP_TIER_EVICTIONS, 0 },
      { "WAITS>", AS_NUMBER, ESP_TIER_WAITS, 0 },
      { "ERRORS>", AS_NUMBER, ESP_TIER_ERRORS, 0 },
      { "LIES>", AS_NUMBER, ESP_TIER_LIES, 0 } } },
  { ESP_STATS_NODE, false, {
      { "NODE", AS_NAME, 0, 0 },
      { "STATE", AS_OUT, ESP_NODE_OUT, 0 },
      { "HIT RATE>", AS_PART, ESP_NODE_HITS, ESP_NODE_MISSES },
      { "HITS>", AS_NUMBER, ESP_NODE_HITS, 0 },
      { "MISSES>", AS_NUMBER, ESP_NODE_MISSES, 0 },
      { "ANSWER>", AS_TIME_NOW, ESP_NODE_ANSWER_US, 0 },
      { "TIME-OUTS>", AS_NUMBER, ESP_NODE_TIMEOUTS, 0 },
      { "ERRORS>", AS_NUMBER, ESP_NODE_ERRORS, 0 },
      { "LIES>", AS_NUMBER, ESP_NODE_LIES, 0 } } },
  { ESP_STATS_CENTER, false, {
      { "CENTER", AS_NAME, 0, 0 },
      { "STATE", AS_OUT, ESP_CENTER_OUT, 0 },
      { "REQUESTS>", AS_NUMBER, ESP_CENTER_REQUESTS, 0 },
      { "RECEIVED>", AS_BYTES, ESP_CENTER_BYTES, 0 },
      { "FIRST BYTE>", AS_TIME_NOW, ESP_CENTER_FIRST_BYTE_US, 0 },
      { "SPEED>", AS_BYTES_SECOND, ESP_CENTER_BYTES_SECOND, 0 },
      { "ERRORS>", AS_NUMBER, ESP_CENTER_ERRORS, 0 } } },
  { ESP_STATS_VENUE, false, {
      { "VENUE", AS_NAME, 0, 0 },
      { "CONNECTIONS>", AS_NUMBER_NOW, ESP_DISK_CONNECTIONS, 0 },
      DISK_COLUMNS } },
  { ESP_STATS_EXPORT, false, {
      { "EXPORT", AS_NAME, 0, 0 },
      { "CONNECTIONS>", AS_NUMBER_NOW, ESP_DISK_CONNECTIONS, 0 },
      DISK_COLUMNS } },
  { ESP_STATS_RP, false, {
      { "RESTORE POINT", AS_NAME, 0, 0 },
      { "FROM CENTERS>", AS_BYTES, ESP_RP_CENTER_BYTES, 0 },
      { "CLUSTER>", AS_BYTES, ESP_RP_CLUSTER_BYTES, 0 },
      { "DIRECTORY>", AS_BYTES, ESP_RP_DIR_BYTES, 0 },
      { "MEMORY>", AS_BYTES, ESP_RP_MEMORY_BYTES, 0 },
      { "WAITS>", AS_NUMBER, ESP_RP_WAITS, 0 },
      { "LIES>", AS_NUMBER, ESP_RP_LIES, 0 },
      { "FAILED>", AS_NUMBER, ESP_RP_FAILED, 0 } } },
  { ESP_STATS_CLIENT, true, {
      { "CLIENT", AS_NAME, 0, 0 },
      { "SINCE", AS_SINCE, ESP_DISK_SINCE, 0 },
      DISK_COLUMNS } },
};
#define NSECTIONS (sizeof sections / sizeof sections[0])

/* For names; NULL where the store cannot be opened. */
static struct esp_catalog *
catalog (void)
{
  return cli.store ? cli_catalog () : NULL;
}

/* --- cells --------------------------------------------------------------------- */

static void
cell_number (struct table *t, double n, bool rate)
{
  if (rate && n > 0 && n < 100)
    table_cellf (t, "%.1f", n);
  else
    table_cellf (t, "%.0f", n);
}

static void
cell_time (struct table *t, double us)
{
  if (us <= 0)
    table_cell (t, "-");
  else if (us < 1000)
    table_cellf (t, "%.0f us", us);
  else if (us < 1000000)
    table_cellf (t, us < 10000 ? "%.1f ms" : "%.0f ms", us / 1000);
  else
    table_cellf (t, "%.1f s", us / 1000000);
}

static void
cell_speed (struct table *t, uint64_t bytes)
{
  char size[16];

  if (bytes == 0)
    table_cell (t, "-");
  else
    table_cellf (t, "%s/s", esp_size_format (bytes, size));
}

static double
grown (const struct line *l, unsigned n, bool rates)
{
  return rates ? l->rate[n] : (double) l->c[n];
}

static void
cell_part (struct table *t, double a, double b)
{
  if (a + b <= 0)
    table_cell (t, "-");
  else
    table_cellf (t, "%.1f%%", 100 * a / (a + b));
}

static void
cell (struct table *t, const struct column *col, const struct line *l,
      bool rates)
{
  char name[ESP_NAME_MAX + 1];
  double a = grown (l, col->a, rates), b = grown (l, col->b, rates);

  switch (col->how) {
  case AS_NAME: table_cell (t, *l->name ? line_name (l, catalog (), name) : "\"\"");
    break;
  case AS_PID: table_cellf (t, "%d", l->pid); break;
  case AS_PROGRAM: table_cell (t, l->program); break;
  case AS_NUMBER: cell_number (t, a, rates); break;
  case AS_BYTES: table_size (t, (uint64_t) llround (a)); break;
  case AS_BYTES_NOW: table_size (t, l->c[col->a]); break;
  case AS_BYTES_SECOND: cell_speed (t, l->c[col->a]); break;
  case AS_NUMBER_NOW: table_cellf (t, "%" PRIu64, l->c[col->a]); break;
  case AS_TIME_NOW: cell_time (t, (double) l->c[col->a]); break;
  case AS_SINCE: table_time (t, l->c[col->a]); break;
  case AS_OUT: table_cell (t, l->c[col->a] ? "left out" : "good"); break;
  case AS_PART: cell_part (t, a, b); break;
  case AS_AVERAGE: cell_time (t, b > 0 ? a / b : 0); break;
  }
}

/* --- tables --------------------------------------------------------------------- */

static bool
grows (enum how how)
{
  return how == AS_NUMBER || how == AS_BYTES;
}

static struct table *
section_begin (const struct section *s, bool rates)
{
  CLEANUP_FREE char *header = xstrdup ("");

  for (unsigned i = 0; i < 12 && s->column[i].head; i++) {
    const char *head = s->column[i].head;
    bool slash = rates && grows (s->column[i].how);
    int len = (int) strcspn (head, ">");
    char *more = xasprintf ("%s%s%.*s%s%s", header, i ? "|" : "", len, head,
                            slash ? "/S" : "", head + len);
    free (header);
    header = more;
  }
  return table_new (header);
}

static void
print_row (struct table *t, const struct section *s, const struct line *l,
           bool rates)
{
  table_row (t);
  for (unsigned i = 0; i < 12 && s->column[i].head; i++)
    cell (t, &s->column[i], l, rates);
}

/* Returns how many were printed. */
static size_t
print_rows (struct table *t, const struct section *s,
            const struct sample *sample, const struct choice *choice,
            bool rates)
{
  size_t rows = 0;

  for (size_t i = 0; i < sample->n; i++) {
    struct line sum = sample->line[i];
    if (sum.kind != s->kind || !choice_has (choice, &sum))
      continue;
    if (!s->each)
      i += sample_sum (sample, i, &sum) - 1;
    print_row (t, s, &sum, rates);
    rows++;
  }
  return rows;
}

static bool
has_rows (const struct section *s, const struct sample *sample,
          const struct choice *choice)
{
  for (size_t i = 0; i < sample->n; i++)
    if (sample->line[i].kind == s->kind &&
        choice_has (choice, &sample->line[i]))
      return true;
  return false;
}

void
sample_show (const struct sample *sample, const struct choice *choice,
             bool rates)
{
  bool any = false;

  for (size_t i = 0; i < NSECTIONS; i++) {
    if (!has_rows (&sections[i], sample, choice))
      continue;
    if (any)
      putchar ('\n');
    any = true;
    struct table *t = section_begin (&sections[i], rates);
    print_rows (t, &sections[i], sample, choice, rates);
    table_end (t, "");
  }
  if (!any)
    puts (sample->n == 0 ? "no server runs"
          : "nothing was counted for these since the server began");
}
