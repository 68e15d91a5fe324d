/* SPDX-License-Identifier: BSD-3-Clause */
/* tmp/: what is being made, and what is being removed.
 *
 * Whoever works on a directory in tmp/ holds its flock; gc removes what it
 * can lock itself, but leaves an empty directory alone that is a minute old
 * at most: it may be between mkdir and flock.  Should gc be faster all the
 * same, the maker notices: a new directory counts only when it still has its
 * name after it was locked.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

#define YOUNG 60                /* seconds */

static const char *
unique_name (const char *what, char name[64])
{
  char text[ESP_UUID_TEXT];
  esp_uuid u;

  esp_uuid_new (&u);
  snprintf (name, 64, "%s-%s", what, esp_uuid_text (&u, text));
  return name;
}

/* Make and lock NAME.  1 when gc took it away meanwhile. */
static int
make_locked (int tmp_fd, const char *name, int *fd)
{
  struct stat st;

  if (mkdirat (tmp_fd, name, 0750) == -1)
    return -1;
  if ((*fd = esp_open_dir (tmp_fd, name)) == -1)
    return errno == ENOENT ? 1 : -1;
  if (esp_lock (*fd, true) == 0 &&
      fstatat (tmp_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
    return 0;
  bool taken = errno == EWOULDBLOCK || errno == ENOENT;
  unlinkat (tmp_fd, name, AT_REMOVEDIR);        /* if it is still there */
  esp_cleanup_close (fd);
  return taken ? 1 : -1;
}

static int
any (void *arg, int dirfd, const char *name)
{
  (void) arg;
  (void) dirfd;
  (void) name;
  return 1;
}

bool
tmp_is_leftover (int tmp_fd, const char *name, int *fd)
{
  struct stat st;

  *fd = -1;
  if (strncmp (name, "push-", 5) == 0)
    return false;               /* a push that may go on: esp_push_gc */
  *fd = esp_open_dir (tmp_fd, name);
  if (*fd == -1)
    return errno == ENOTDIR || errno == ELOOP;  /* a file: not ours */
  if (esp_lock (*fd, true) == -1)
    return false;
  return fstat (*fd, &st) == 0 && st.st_nlink > 0 &&
    (st.st_ctime + YOUNG < time (NULL) || esp_each_entry (*fd, any, NULL) == 1);
}

int
esp_store_tmp_dir (struct esp_store *store, char name[64])
{
  int fd, r;

  do
    r = make_locked (esp_store_tmp_fd (store), unique_name ("draft", name),
                     &fd);
  while (r == 1);
  if (r == -1) {
    esp_error ("mkdir: %s/tmp: %m", store->path);
    return -1;
  }
  return fd;
}

int
esp_store_discard (struct esp_store *store, int from, const char *name)
{
  CLEANUP_CLOSE int fd = esp_open_dir (from, name);
  char gone[64];

  /* Keeps gc from doing the same work.  It is no error when somebody holds
   * it: the caller knows what may be removed.
   */
  if (fd >= 0)
    esp_lock (fd, true);
  if (renameat (from, name, esp_store_tmp_fd (store),
                unique_name ("gone", gone)) == -1 ||
      esp_sync_dir (from) == -1) {
    esp_error ("rename: %s to tmp/%s: %m", name, gone);
    return -1;
  }
  return esp_remove_tree (esp_store_tmp_fd (store), gone);
}

int
store_damaged_dir (struct esp_store *store)
{
  int fd = esp_make_dir (store->fd, STORE_DAMAGED, 0750);

  if (fd == -1)
    esp_error ("mkdir: %s/%s: %m", store->path, STORE_DAMAGED);
  return fd;
}
