/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier stats: what its files share. */

#ifndef ESPALIER_CLI_STATS_H
#define ESPALIER_CLI_STATS_H

#include "espalier.h"
#include "stats/stats.h"

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

/* stats-load.c */
/* What is counted in DIR now, with rates since BEFORE (NULL: without).  -1
 * after an error was printed.
 */
extern int sample_load (struct sample *out, const char *dir,
                        const struct sample *before);
extern void sample_clear (struct sample *sample);
#define CLEANUP_SAMPLE __attribute__ ((cleanup (sample_clear)))

/* What the arguments name; no arguments: everything. */
struct choice {
  unsigned nargs;
  char **arg;
  struct esp_export *disks;     /* venues and their disks (and rp:NAME) */
  bool *whole;                  /* all disks of that venue */
  unsigned ndisks;
  esp_uuid *rps;                /* restore points */
  size_t nrps;
};
/* stats-choice.c: 0, or an exit status after an error was printed.  Without
 * an open store arguments are compared with names as they are.
 */
extern int choice_make (struct choice *choice, const struct args *args);
extern void choice_clear (struct choice *choice);
#define CLEANUP_CHOICE __attribute__ ((cleanup (choice_clear)))
extern bool choice_has (const struct choice *choice, const struct line *line);

/* stats-show.c */
/* Print tables; RATES: how fast all grows, not how much it is. */
extern void sample_show (const struct sample *sample,
                         const struct choice *choice, bool rates);
/* The object; SECONDS: since the sample before, 0 without one. */
extern json_t *sample_json (const struct sample *sample,
                            const struct choice *choice, double seconds);

#endif /* ESPALIER_CLI_STATS_H */
