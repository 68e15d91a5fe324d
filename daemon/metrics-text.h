/* SPDX-License-Identifier: BSD-3-Clause */
/* Prometheus's text format, version 0.0.4: one family of samples after the
 * other (https://prometheus.io/docs/instrumenting/exposition_formats/).
 */

#ifndef ESPALIERD_METRICS_TEXT_H
#define ESPALIERD_METRICS_TEXT_H

#include <stdint.h>
#include <stdio.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE };
enum metric_unit {
  METRIC_PLAIN,                 /* as it is: a number, or bytes */
  METRIC_MICROSECONDS,          /* is written in seconds */
};

/* The two lines before a family; NAME without "espalier_". */
extern void metric_head (FILE *f, const char *name, enum metric_type type,
                         const char *help);
/* A sample.  LABELS: name, value, name, value …, NULL; NULL: none.  Values may
 * be any bytes.
 */
extern void metric_sample (FILE *f, const char *name,
                           const char *const *labels, uint64_t value,
                           enum metric_unit unit);

#endif /* ESPALIERD_METRICS_TEXT_H */
