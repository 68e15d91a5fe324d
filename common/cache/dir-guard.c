/* SPDX-License-Identifier: BSD-3-Clause */
/* The mapped file while it is open: when it fails, and the one sync.
 *
 * A process whose mapping failed (SIGBUS) gives and takes nothing any more;
 * but it goes on forgetting, and what it cannot forget it makes go: others may
 * still read what it cannot.
 */

#include <config.h>

#include <sys/mman.h>
#include <unistd.h>

#include "cache/dir-internal.h"
#include "util/cleanup.h"
#include "util/guard.h"
#include "util/host.h"

int
cdir_guarded (struct esp_cdir *dir, int (*fn) (void *arg), void *arg)
{
  int r = esp_guard_call (fn, arg);

  if (r == -1) {
    atomic_fetch_add (&dir->errors, 1);
    if (!atomic_exchange (&dir->broken, true))
      esp_warning ("%s: was cut, or its disk fails: not used until this"
                   " process is started again", dir->path);
  }
  return r;
}

static int
load_written (void *arg)
{
  return (int) atomic_load (&cdir_header (arg)->written);
}

static int
say_writing (void *arg)
{
  atomic_store (&cdir_header (arg)->written, CDIR_SAYING);
  return 0;
}

static int
say_written (void *arg)
{
  atomic_store (&cdir_header (arg)->written, CDIR_WRITTEN);
  return 0;
}

/* Whoever finds SAYING syncs, too: the other one may not be done. */
int
cdir_mark_written (struct esp_cdir *dir)
{
  int r;

  if (atomic_load (&dir->marked))
    return 0;
  ESP_LOCK_SCOPE (&dir->lock);
  r = cdir_guarded (dir, load_written, dir);
  if (r == -1)
    return -1;
  if (r != CDIR_WRITTEN &&
      (cdir_guarded (dir, say_writing, dir) == -1 ||
       msync (dir->map, CDIR_HEADER, MS_SYNC) == -1 ||
       cdir_guarded (dir, say_written, dir) == -1))
    return -1;
  atomic_store (&dir->marked, true);
  return 0;
}

/* All who have it mapped find nothing there. */
void
cdir_cut (struct esp_cdir *dir)
{
  if (ftruncate (dir->fd, 0) == -1)
    esp_error ("truncate: %s: %m: remove it, or what clients wrote may be"
               " hidden by what was there before", dir->path);
}
