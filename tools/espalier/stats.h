/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier stats: what its files share. */

#ifndef ESPALIER_CLI_STATS_H
#define ESPALIER_CLI_STATS_H

#include "espalier.h"
#include "sample.h"

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

#endif /* ESPALIER_CLI_STATS_H */
