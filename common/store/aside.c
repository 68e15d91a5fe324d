/* SPDX-License-Identifier: BSD-3-Clause */
/* STORE/damaged/: what a repair could not mend.  Nothing is deleted; what is
 * there can be mended by hand and moved back.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "store/check-internal.h"
#include "util/file.h"
#include "util/host.h"

/* A name below damaged/ that is free: AS, AS-2, … */
static void
free_name (int dir, const char *as, char name[256])
{
  struct stat st;

  snprintf (name, 256, "%.200s", as);
  for (unsigned i = 2; fstatat (dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0; ++i)
    snprintf (name, 256, "%.200s-%u", as, i);
}

static int
write_why (int dir, const char *name, const char *was, const char *why)
{
  CLEANUP_FREE char *file = esp_asprintf ("%s.txt", name);
  char when[32];
  CLEANUP_FREE char *text =
    esp_asprintf ("%s was set aside by 'espalier store check --repair' at %s:\n"
                  "%s\n\n"
                  "To use it again, mend it, move it back to where it was\n"
                  "(%s), and run 'espalier store check --repair'.\n"
                  "If you do not need it any more, remove it.\n",
                  name, esp_time_format (time (NULL), when), why, was);

  if (!file || !text) {
    esp_error ("malloc: %m");
    return -1;
  }
  return esp_write_file_atomic (dir, file, text, strlen (text), 0640);
}

int
set_aside (struct esp_store *store, int from, const char *name,
           const char *as, const char *was, const char *why, char where[300])
{
  CLEANUP_CLOSE int dir = store_damaged_dir (store);
  char new[256];

  if (dir == -1)
    return -1;
  free_name (dir, as, new);
  snprintf (where, 300, STORE_DAMAGED "/%s", new);
  if (write_why (dir, new, was, why) == -1)
    return -1;
  if (renameat (from, name, dir, new) == -1 || esp_sync_dir (dir) == -1 ||
      esp_sync_dir (from) == -1) {
    esp_error ("rename: %s to %s: %m", name, where);
    return -1;
  }
  return 0;
}
