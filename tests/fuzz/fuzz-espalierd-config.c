/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as espalierd's configuration file: what is refused has one error
 * with its line, what is accepted is printed and read again to the same.
 */

#include "fuzz.h"

#include "daemon/config.h"
#include "daemon/listen.h"
#include "util/cleanup.h"

static void
require_same (const struct config *a, const struct config *b)
{
  struct config_setting s;

  for (size_t i = 0; config_setting (i, &s); i++)
    for (size_t k = 0; k < 70; k++) {
      CLEANUP_FREE char *one = config_text (a, s.name, k);
      CLEANUP_FREE char *two = config_text (b, s.name, k);
      FUZZ_REQUIRE (!one == !two && (!one || strcmp (one, two) == 0));
    }
}

static void
read_again (const struct config *c)
{
  struct config *d = config_new ();
  struct config_setting s;
  char *text;

  for (size_t i = 0; config_setting (i, &s); i++)
    for (size_t k = 0; (text = config_text (c, s.name, k)); k++) {
      FUZZ_REQUIRE (config_set (d, "again", s.name, text) == 0);
      free (text);
    }
  require_same (c, d);
  config_put (d);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  CLEANUP_FREE char *exact = malloc (size ? size : 1);
  struct config *c = config_new ();
  unsigned before = fuzz_errors;
  struct listen_at at;
  int r;

  memcpy (exact, data, size);
  r = config_parse (c, "fuzz", exact, size);
  FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  if (r == 0) {
    FUZZ_REQUIRE (!*c->listen || listen_parse (c->listen, 1, &at) == 0);
    FUZZ_REQUIRE (c->menu_timeout <= 86400 && c->nservers <= 64);
    read_again (c);
    before = fuzz_errors;
    r = config_finish (c);
    FUZZ_REQUIRE (fuzz_errors == before + (r == -1));
  }
  config_put (c);
  return 0;
}
