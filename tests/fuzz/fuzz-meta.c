/* SPDX-License-Identifier: BSD-3-Clause */
/* Any JSON as the document `meta`: refused with one error, or a restore
 * point whose fields keep their bounds and that is written as it was read.
 */

#include "fuzz.h"

#include "store/rp.h"
#include "util/bits.h"

static void
check_fields (const struct esp_rp *rp)
{
  FUZZ_REQUIRE (esp_name_ok (rp->name));
  FUZZ_REQUIRE (!esp_uuid_is_null (&rp->uuid));
  FUZZ_REQUIRE (!esp_uuid_eq (&rp->uuid, &rp->parent));
  FUZZ_REQUIRE (rp->size > 0 && rp->size <= ESP_DISK_MAX);
  FUZZ_REQUIRE (rp->data_blocks + rp->zero_blocks <= esp_blocks (rp->size));
  FUZZ_REQUIRE (rp->note != NULL);
  FUZZ_REQUIRE ((rp->kind == ESP_RP_IN_PLACE) == (rp->path != NULL));
  FUZZ_REQUIRE (!rp->path || rp->path[0] == '/');
  for (size_t i = 0; i < rp->nresources; i++)
    FUZZ_REQUIRE (rp->resources[i].kind && rp->resources[i].name[0] &&
                  rp->resources[i].version);
}

static void
round_trip (json_t *meta, const struct esp_rp *rp, uint64_t digest)
{
  json_t *again = esp_rp_to_meta (rp, digest);
  const char *key;
  json_t *v;

  FUZZ_REQUIRE (again);
  json_object_foreach (again, key, v)
    if (strcmp (key, "resources") != 0 && strcmp (key, "uuid") != 0 &&
        strcmp (key, "parent") != 0)
      FUZZ_REQUIRE (json_equal (v, json_object_get (meta, key)));
  json_decref (again);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  json_t *meta = json_loadb ((const char *) data, size, 0, NULL);
  CLEANUP_RP struct esp_rp rp = { 0 };
  unsigned before = fuzz_errors;
  uint64_t digest;
  int r;

  if (meta == NULL)
    return 0;
  r = esp_rp_from_meta (meta, &rp, &digest, "x");
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == 0) {
    check_fields (&rp);
    round_trip (meta, &rp, digest);
  }
  json_decref (meta);
  return 0;
}
