/* SPDX-License-Identifier: BSD-3-Clause */
/* Cleanups of keys and packers.  Inside the library only. */

#ifndef ESPALIER_CENTER_CLEANUPS_H
#define ESPALIER_CENTER_CLEANUPS_H

#include "center/format.h"
#include "center/keys.h"
#include "util/cleanup.h"

ESP_DEFINE_CLEANUP (segment_key, struct esp_segment_key *,
                    esp_segment_key_free)
ESP_DEFINE_CLEANUP (signer, struct esp_signer *, esp_signer_free)
ESP_DEFINE_CLEANUP (packer, struct esp_packer *, esp_packer_free)
#define CLEANUP_SEGMENT_KEY ESP_CLEANUP (segment_key)
#define CLEANUP_SIGNER ESP_CLEANUP (signer)
#define CLEANUP_PACKER ESP_CLEANUP (packer)

#endif /* ESPALIER_CENTER_CLEANUPS_H */
