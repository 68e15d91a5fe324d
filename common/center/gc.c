/* SPDX-License-Identifier: BSD-3-Clause */
/* What interrupted pushes left at a center.
 *
 * A push that runs, or that will go on, of this server or any other, needs
 * its upload.  Nobody at the center says who still will; what tells is age:
 * a push that runs puts a part every few seconds or minutes, and one that was
 * cut off is gone on with within a week or its own store's gc ends it.  An upload
 * that was taken away all the same costs that push its beginning, and
 * nobody any data: nothing of it was visible.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "center/center-internal.h"
#include "util/host.h"

struct gc {
  struct esp_center *center;
  bool dry_run;
  esp_center_gc_fn fn;
  void *arg;
};

static int
remove_one (struct gc *g, const struct esp_upload *u)
{
  uint64_t now = (uint64_t) time (NULL);
  int r = g->dry_run ? 1 : esp_remote_uploads_remove (g->center->remote, u);

  if (r == 1)
    g->fn (g->arg, u->name, u->id, u->bytes,
           now > u->changed ? now - u->changed : 0);
  return r == -1 ? -1 : 0;
}

int
esp_center_gc (struct esp_center *center, uint64_t idle, bool dry_run,
               esp_center_gc_fn fn, void *arg)
{
  CLEANUP_UPLOAD_LIST struct esp_upload_list list = { 0 };
  struct gc g = { center, dry_run, fn, arg };

  if (esp_remote_uploads (center->remote, idle, &list) == -1) {
    if (errno == ENOTSUP) {
      errno = EROFS;
      esp_error ("center %s can only be read (%s): clean up at the directory "
                 "or S3 bucket behind it", center->config.name,
                 esp_remote_url (center->remote));
    }
    return -1;
  }
  for (size_t i = 0; i < list.n; i++)
    if (remove_one (&g, &list.u[i]) == -1)
      return -1;
  return 0;
}
