/* SPDX-License-Identifier: BSD-3-Clause */
/* GET /metrics. */

#ifndef ESPALIERD_METRICS_H
#define ESPALIERD_METRICS_H

#include "http.h"
#include "pulse.h"

extern int metrics_handle (struct request *r);
/* Only what PULSE says; for tests. */
extern void metrics_pulse (FILE *f, const struct pulse *pulse);

#endif /* ESPALIERD_METRICS_H */
