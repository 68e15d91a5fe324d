/* SPDX-License-Identifier: BSD-3-Clause */
/* What the servers of the store count, looked at every two seconds: how fast
 * it grows, what it was in the last minutes, and totals that do not shrink
 * when a server ends and takes its counters with it.
 */

#ifndef ESPALIERD_PULSE_H
#define ESPALIERD_PULSE_H

#include "sample.h"

#define PULSE_SECONDS 2u
#define PULSE_POINTS 150u       /* five minutes */
enum { PULSE_MEMORY, PULSE_DIR, PULSE_CLUSTER, PULSE_TIERS };
extern const char *const pulse_tier_names[PULSE_TIERS];

/* Of one beat. */
struct pulse_point {
  uint64_t read_bytes, write_bytes;     /* all disks', a second */
  uint64_t errors;              /* requests of clients that failed */
  struct { uint64_t hits, misses; } tier[PULSE_TIERS];
};

/* What grew since this daemon began.  Restore points have one, with the name
 * "", and so have all disks "rp:NAME", with the name "rp:": their number has no
 * bound.  A server that ran before the daemon is counted from there on.
 */
struct pulse_total {
  enum esp_stats_kind kind;
  char *name;
  uint64_t c[ESP_STATS_COUNTERS];       /* gauges are 0 */
};

struct pulse {
  struct sample now;            /* with rates */
  unsigned long beats;
  struct pulse_total *total;
  size_t ntotals;
  struct pulse_point point[PULSE_POINTS];       /* a ring */
  unsigned next;                /* the oldest, and the next to be written */
};

/* Look at STORE's servers, from now on.  0, or -1. */
extern int pulse_start (struct esp_store *store);
extern void pulse_stop (void);
/* Hold still, and look; nothing slow before _end. */
extern const struct pulse *pulse_begin (void);
extern void pulse_end (void);

/* Take BEFORE's and NOW's difference into P's totals and points; for tests.
 * The first time (no beats) nothing has grown.
 */
extern int pulse_take (struct pulse *p, const struct sample *before,
                       const struct sample *now);
extern void pulse_clear (struct pulse *p);

#endif /* ESPALIERD_PULSE_H */
