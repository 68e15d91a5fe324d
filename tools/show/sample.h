/* SPDX-License-Identifier: BSD-3-Clause */
/* Live counters as they are shown: samples, and rates between two. */

#ifndef ESPALIER_SAMPLE_H
#define ESPALIER_SAMPLE_H

#include "show.h"
#include "stats/stats.h"

/* --- sample-load.c ------------------------------------------------------------ */

/* A row as it was read, and how fast it grows. */
struct line {
  enum esp_stats_kind kind;
  int pid;
  unsigned row;
  uint64_t since, at;           /* of the process: esp_stats_seen */
  char *program, *name;
  uint64_t c[ESP_STATS_COUNTERS];
  double rate[ESP_STATS_COUNTERS];      /* a second; 0 of gauges */
};

/* All rows at one time, by kind, name, process and row. */
struct sample {
  uint64_t taken;               /* microseconds of the monotonic clock */
  struct line *line;
  size_t n, room;
};

/* What is counted in DIR now, with rates since BEFORE (NULL: without).  -1
 * after an error was reported.
 */
extern int sample_load (struct sample *out, const char *dir,
                        const struct sample *before);
extern void sample_clear (struct sample *sample);
#define CLEANUP_SAMPLE __attribute__ ((cleanup (sample_clear)))

/* The same row in BEFORE; NULL, also for another client that has its number
 * now.
 */
extern const struct line *sample_same (const struct sample *before,
                                       const struct line *line);
/* Line I and those of its kind and name behind it as one: sums, but for what
 * is a state, a measurement, or shared by the processes: there the highest.
 * Returns how many lines that are.
 */
extern size_t sample_sum (const struct sample *sample, size_t i,
                          struct line *sum);

/* --- sample-json.c -------------------------------------------------------- */

/* What people call LINE; BUF is for a restore point, whose name CATALOG (or
 * NULL) has.
 */
extern const char *line_name (const struct line *line,
                              struct esp_catalog *catalog,
                              char buf[ESP_NAME_MAX + 1]);
/* Set LINE's counters in O; RATES: what grew a second, too. */
extern void line_counters_json (json_t *o, const struct line *line,
                                bool rates);
/* The object of a row; RATES: with what grew a second. */
extern json_t *line_json (const struct line *line,
                          struct esp_catalog *catalog, bool rates);
/* The array of KIND's rows for which HAS (ARG) is true (NULL: of all). */
typedef bool (*line_has_fn) (const void *arg, const struct line *line);
extern json_t *sample_list_json (const struct sample *sample,
                                 enum esp_stats_kind kind,
                                 struct esp_catalog *catalog, bool rates,
                                 line_has_fn has, const void *arg);
/* The object of all kinds; SECONDS: since the sample before, 0 without one. */
extern json_t *sample_json (const struct sample *sample,
                            struct esp_catalog *catalog, double seconds,
                            line_has_fn has, const void *arg);

#endif /* ESPALIER_SAMPLE_H */
