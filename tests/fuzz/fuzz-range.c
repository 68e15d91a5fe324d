/* SPDX-License-Identifier: BSD-3-Clause */
/* Any text as a Range header of something with any size: a part lies within
 * it and is not empty.
 */

#include "fuzz.h"

#include "daemon/http.h"
#include "util/cleanup.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  uint64_t total, from = 1, len = 1;

  if (size < sizeof total)
    return 0;
  memcpy (&total, data, sizeof total);
  CLEANUP_FREE char *text = strndup ((const char *) data + sizeof total,
                                     size - sizeof total);
  unsigned r = range_parse (text, total, &from, &len);
  FUZZ_REQUIRE (r == 200 || r == 206 || r == 416);
  if (r == 200)
    FUZZ_REQUIRE (from == 0 && len == total);
  if (r == 206)
    FUZZ_REQUIRE (len > 0 && from < total && len <= total - from);
  return 0;
}
