/* SPDX-License-Identifier: BSD-3-Clause */
/* The store, the directory of what the daemon makes, the key of tickets.
 *
 * STORE/run/espalierd/lock is locked while a daemon runs: with it, what else
 * lies in that directory is ours, or was left by one that was killed.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"
#include "parts.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

static struct esp_store *store;
static char *dir;
static int lock_fd = -1;

struct esp_store *
daemon_store (void)
{
  return store;
}

const char *
daemon_dir (void)
{
  return dir;
}

/* --- one daemon for each store ------------------------------------------------- */

static int
make_dir (const char *path)
{
  CLEANUP_FREE char *run = esp_asprintf ("%s/run", path);
  CLEANUP_CLOSE int run_fd = -1, fd = -1;

  dir = esp_asprintf ("%s/run/espalierd", path);
  if (!run || !dir)
    abort ();
  run_fd = esp_make_dir (AT_FDCWD, run, 0700);
  if (run_fd != -1)
    fd = esp_make_dir (run_fd, "espalierd", 0700);
  if (fd == -1) {
    esp_error ("mkdir: %s: %m", dir);
    return -1;
  }
  return 0;
}

static int
take_lock (void)
{
  CLEANUP_FREE char *path = esp_asprintf ("%s/lock", dir);
  CLEANUP_CLOSE int fd = -1;
  struct esp_holder holder;
  char text[128];

  fd = path ? open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (fd == -1) {
    esp_error ("open: %s/lock: %m", dir);
    return -1;
  }
  if (esp_lock (fd, true) == -1) {
    if (errno != EWOULDBLOCK)
      esp_error ("flock: %s: %m", path);
    else if (esp_holder_read (fd, &holder) == 0 && holder.pid != 0)
      esp_error ("%s has this store already: %s", 
                 esp_holder_describe (&holder, text, sizeof text),
                 esp_store_path (store));
    else
      esp_error ("another espalierd has this store already: %s",
                 esp_store_path (store));
    return -1;
  }
  esp_holder_self (&holder);
  if (esp_holder_write (fd, &holder) == -1) {
    esp_error ("write: %s: %m", path);
    return -1;
  }
  lock_fd = esp_steal_fd (&fd);
  return 0;
}

int
daemon_start (const struct config *config)
{
  store = esp_store_open (config->store);
  if (!store)
    return -1;
  if (esp_store_readonly (store)) {
    errno = EROFS;
    esp_error ("%s: the store is on a file system that cannot be written: "
               "espalierd needs STORE/run", config->store);
    return -1;
  }
  if (make_dir (esp_store_path (store)) == -1 || take_lock () == -1)
    return -1;
  /* The stack looks for it, too. */
  return config->require_ticket && !daemon_ticket_key () ? -1 : 0;
}

void
daemon_stop (void)
{
  tickets_stop ();
  if (lock_fd != -1) {
    esp_holder_erase (lock_fd);
    close (lock_fd);
    lock_fd = -1;
  }
  if (store)
    esp_store_close (store);
  store = NULL;
  free (dir);
  dir = NULL;
}
