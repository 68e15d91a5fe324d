/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as another server's answer: refused, or venues in order, each with
 * a name that is one, and disks.
 */

#include "fuzz.h"

#include "daemon/peers.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct peer_answer a;

  if (peer_answer_parse ((const char *) data, size, &a) == -1) {
    FUZZ_REQUIRE (!a.venue && a.n == 0);
    return 0;
  }
  for (size_t i = 0; i < a.n; ++i) {
    FUZZ_REQUIRE (esp_name_ok (a.venue[i].id));
    FUZZ_REQUIRE (a.venue[i].ndisks >= 1 && a.venue[i].disks);
    FUZZ_REQUIRE (i == 0 ||
                  strcmp (a.venue[i - 1].id, a.venue[i].id) < 0);
  }
  peer_answer_clear (&a);
  return 0;
}
