/* SPDX-License-Identifier: BSD-3-Clause */
/* Fields that several documents have: a store's and an image center's
 * (docs/formats.md).  Not for others.
 *
 * The readers trust nothing and report nothing: they say what is wrong, and
 * the caller knows where.
 */

#ifndef ESPALIER_FIELDS_H
#define ESPALIER_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "catalog/catalog.h"

/* The member KEY of O, which must be there: a UUID that is not the null one
 * (with NULL_OK, JSON's null is read as that); a number of MIN to MAX; a
 * string of at most MAX bytes, which belongs to O (NULL: wrong).
 */
extern bool esp_field_uuid (json_t *o, const char *key, bool null_ok,
                            esp_uuid *out);
extern bool esp_field_u64 (json_t *o, const char *key, uint64_t min,
                           uint64_t max, uint64_t *out);
extern const char *esp_field_string (json_t *o, const char *key, size_t max);

/* Seconds since the epoch: far enough in the future. */
#define ESP_FIELD_TIME_MAX (UINT64_C (1) << 40)
#define ESP_FIELD_DESCRIPTION_MAX 4096u

/* A restore point: all of RP but kind, depth and path.  The reader gives the
 * name of the first field that is wrong, or NULL; RP, zeroed before, is to
 * be cleared in both cases.  NULL from the writer: no memory, not reported.
 */
extern json_t *esp_rp_fields (const struct esp_rp *rp);
extern const char *esp_rp_read_fields (json_t *o, struct esp_rp *rp);

/* The member `resources` of O: an array of at most MAX.  What was read of it is
 * the caller's to free in both cases (esp_rp_clear, esp_need_clear).
 */
extern json_t *esp_resources_json (const struct esp_resource *list, size_t n);
extern bool esp_resources_read (json_t *o, size_t max,
                                struct esp_resource **list, size_t *n);

/* A venue without its history.  The reader wants it to be ID. */
extern json_t *esp_venue_fields (const struct esp_venue *v);
extern bool esp_venue_read_fields (json_t *o, const char *id,
                                   struct esp_venue *v);

#endif /* ESPALIER_FIELDS_H */
