/* SPDX-License-Identifier: BSD-3-Clause */
/* Export names and disks.  Plugins get the name and may do with it what they
 * like: `file dir=` has a disk for each, `curl` one for all; a filter cannot
 * ask.  Where two names were one disk and were cached as two, what is written
 * under one would not be seen under the other.  So:
 *
 *   EACH     each name is cached for itself
 *   ONE      all names are cached as the empty one
 *   UNKNOWN  only the empty name is cached; reads under others go to the
 *            plugin, and writes under them make the cache forget what it
 *            has of the empty one, which may be the same disk
 *
 * segcache-names says which; else parameters of the plugin tell where it is EACH.
 */

#include <config.h>

#include <stdatomic.h>
#include <string.h>

#include <nbdkit-filter.h>

#include "names.h"
#include "util/host.h"

enum mode { UNKNOWN, ONE, EACH };

static enum mode given, seen;

int
names_config (const char *value)
{
  if (strcmp (value, "each") == 0)
    given = EACH;
  else if (strcmp (value, "one") == 0)
    given = ONE;
  else {
    nbdkit_error ("segcache-names=%s: give each (the plugin has a disk for "
                  "each export name) or one (it has one for all)", value);
    return -1;
  }
  return 0;
}

/* nbdkit's own: file dir=, ondemand dir=, nbd dynamic-export=true.  (Others
 * with a `dir` do not write.)
 */
void
names_look (const char *key, const char *value)
{
  if (strcmp (key, "dir") == 0 || strcmp (key, "directory") == 0 ||
      (strcmp (key, "dynamic-export") == 0 && nbdkit_parse_bool (value) == 1))
    seen = EACH;
}

static enum mode
mode (void)
{
  return given ? given : seen;
}

const char *
names_cached_as (const char *name)
{
  return mode () == EACH ? name : "";
}

bool
names_unknown (const char *name)
{
  static atomic_flag said = ATOMIC_FLAG_INIT;

  if (mode () != UNKNOWN || *name == 0)
    return false;
  if (!atomic_flag_test_and_set (&said))
    esp_warning ("segcache: what clients call \"%s\" is not cached: give "
                 "segcache-names=each if the plugin has a disk for each "
                 "export name, segcache-names=one if it has one for all",
                 name);
  return true;
}
