/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files that implement center/center.h share.  Not for others. */

#ifndef ESPALIER_CENTER_CENTER_INTERNAL_H
#define ESPALIER_CENTER_CENTER_INTERNAL_H

#include <jansson.h>

#include "center/center.h"
#include "store/rp-internal.h"
#include "util/cleanup.h"

#define CENTERS_DIR "centers"

#define CLEANUP_CENTER_CONFIG \
  __attribute__ ((cleanup (esp_center_config_clear)))

/* --- config.c ----------------------------------------------------------- */
extern int center_config_delete (struct esp_store *store, const char *name);

#endif /* ESPALIER_CENTER_CENTER_INTERNAL_H */
