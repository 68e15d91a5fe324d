/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier root add --delayed: an image that is read where it lies, when it
 * is read.
 */

#include <config.h>

#include "center/origin.h"
#include "plain.h"

/* The shift of --segment; 0 where it was not given. */
static int
parse_segment (const struct args *args, unsigned *shift)
{
  uint64_t size = 0;

  *shift = 0;
  if (!opt_has (args, "segment"))
    return 0;
  if (opt_size (args, "segment", &size) != 0)
    return CLI_USAGE;
  for (unsigned s = ESP_SEGMENT_SHIFT_MIN; s <= ESP_SEGMENT_SHIFT_MAX; s++)
    if (size == UINT64_C (1) << s) {
      *shift = s;
      return 0;
    }
  return usage (args->cmd, "--segment %s: 64K, 128K, 256K, 512K, 1M, 2M or 4M "
                "is needed", opt_value (args, "segment"));
}

int
plain_check (const struct args *args)
{
  unsigned shift;

  return parse_segment (args, &shift);
}

int
plain_add (const struct args *args, const char *name, const char *url,
           const char *note, const struct esp_resource *resources,
           size_t nresources, esp_uuid *uuid)
{
  unsigned shift;

  if (parse_segment (args, &shift) != 0)
    return CLI_USAGE;
  return esp_plain_add (cli.store, name, url, shift, note, resources,
                        nresources, uuid) == 0 ? CLI_OK : CLI_FAILED;
}
