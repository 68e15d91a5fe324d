/* SPDX-License-Identifier: BSD-3-Clause */
/* Cleanups that the store and centers share.  Inside the library only. */

#ifndef ESPALIER_STORE_CLEANUPS_H
#define ESPALIER_STORE_CLEANUPS_H

#include <jansson.h>

#include "store/map.h"
#include "util/cleanup.h"

ESP_DEFINE_CLEANUP (json, json_t *, json_decref)
ESP_DEFINE_CLEANUP (map, struct esp_map *, esp_map_free)
#define CLEANUP_JSON ESP_CLEANUP (json)
#define CLEANUP_MAP ESP_CLEANUP (map)

#endif /* ESPALIER_STORE_CLEANUPS_H */
