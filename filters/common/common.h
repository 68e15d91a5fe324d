/* SPDX-License-Identifier: BSD-3-Clause */
/* What all filters do in the same way with nbdkit: how they come up, and
 * parameters that look alike.  No state: each filter links a copy.
 */

#ifndef ESPALIER_FILTERS_COMMON_H
#define ESPALIER_FILTERS_COMMON_H

#include <stdbool.h>
#include <stdint.h>

#include <nbdkit-filter.h>

#include "stats/stats.h"
#include "util/stack.h"

/* For .load: messages of the library go to nbdkit, and MODULE is known to
 * the others of the stack.
 */
extern void filter_load (enum esp_module module);

/* Is the server ending, or the client of this thread gone? */
extern bool filter_is_ending (void);

/* --- live counters ---------------------------------------------------------- */
/* What a connection counts; both may be NULL. */
struct filter_counts {
  struct esp_stats_row *row;    /* what only this filter knows */
  struct esp_stats_row *asked;  /* what the client asks: NULL where a filter of
                                 * ours above counts that */
};
/* In .open, behind what is below. */
extern void filter_counts_begin (struct filter_counts *counts,
                                 const struct esp_stack_slot *slot);
extern void filter_counts_end (struct filter_counts *counts);

/* --- parameters: 0, or -1, reported ---------------------------------------- */
/* store= is everybody's; below, only the venue plugin takes it. */
extern int filter_config_store (nbdkit_next_config *next,
                                nbdkit_backend *nxdata, const char *value);
extern int filter_config_switch (const char *key, const char *value,
                                 bool *out);
/* A size from MIN to MAX bytes, or 0. */
extern int filter_config_size (const char *key, const char *value,
                               uint64_t min, uint64_t max, uint64_t *out);
extern int filter_config_number (const char *key, const char *value,
                                 unsigned min, unsigned max, unsigned *out);

#endif /* ESPALIER_FILTERS_COMMON_H */
