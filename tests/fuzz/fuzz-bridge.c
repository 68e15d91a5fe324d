/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as what tgtd says of a target's connections, and as names of a
 * venue and a client: the target's name is one that tgtd takes.
 */

#include "fuzz.h"

#include "daemon/bridge-internal.h"
#include "util/cleanup.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *s = malloc (size + 1);
  struct bridge_conn c[4];
  char iqn[224];
  size_t n;

  memcpy (s, data, size);
  s[size] = 0;
  n = bridge_conns_parse (s, c, 4);
  FUZZ_REQUIRE (n <= size / strlen ("Session: 0\nConnection: 0"));
  FUZZ_REQUIRE (bridge_conns_parse (s, NULL, 0) == n);
  bridge_iqn (s, s + strlen (s) / 2, size, iqn);
  FUZZ_REQUIRE (strlen (iqn) < sizeof iqn);
  FUZZ_REQUIRE (strspn (iqn, "abcdefghijklmnopqrstuvwxyz0123456789.:-")
                == strlen (iqn));
  return 0;
}
