/* SPDX-License-Identifier: BSD-3-Clause */
/* A variant as JSON, in manifests and in the store's `sources`.  Inside the
 * library only.
 */

#ifndef ESPALIER_VARIANT_JSON_H
#define ESPALIER_VARIANT_JSON_H

#include <jansson.h>

#include "center/format.h"

/* NULL: no memory (not reported). */
extern json_t *variant_to_json (const struct esp_variant *v);
/* The name of the first field that is wrong, or NULL. */
extern const char *variant_from_json (json_t *o, const struct esp_rp *rp,
                                      struct esp_variant *v);

#endif /* ESPALIER_VARIANT_JSON_H */
