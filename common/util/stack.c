/* SPDX-License-Identifier: BSD-3-Clause */
/* What the modules of one process share.  They all link one copy of this
 * library, so its variables are the process's.  nbdkit loads and configures
 * in one thread; the lock is for programs that do not.
 */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"
#include "util/stack.h"

static __thread struct esp_stack_slot slot;

static atomic_bool modules[ESP_MODULE_MAX];

static pthread_mutex_t store_lock = PTHREAD_MUTEX_INITIALIZER;
static char *store;     /* under store_lock; set once, kept to the end */

struct esp_stack_slot *
esp_stack_slot (void)
{
  return &slot;
}

struct esp_stack_slot *
esp_stack_enter (void)
{
  if (slot.depth == 0)
    memset (&slot, 0, sizeof slot);
  slot.depth++;
  return &slot;
}

void
esp_stack_leave (struct esp_stack_slot **s)
{
  if (--(*s)->depth == 0) {
    (*s)->asked = NULL;
    (*s)->row = NULL;
    (*s)->passed = false;
  }
}

void
esp_stack_add (enum esp_module module)
{
  atomic_store (&modules[module], true);
}

bool
esp_stack_has (enum esp_module module)
{
  return atomic_load (&modules[module]);
}

static char *absolute (const char *path);

/* PATH is not there: its directory made absolute, and its last component.
 */
static char *
absolute_missing (const char *path)
{
  CLEANUP_FREE char *copy = strdup (path);
  CLEANUP_FREE char *dir = NULL;
  size_t n = copy ? strlen (copy) : 0;

  if (!copy)
    return NULL;
  while (n > 1 && copy[n - 1] == '/')
    copy[--n] = 0;
  char *slash = strrchr (copy, '/');
  const char *last = slash ? slash + 1 : copy;
  if (slash)
    *slash = 0;
  dir = absolute (!slash ? "." : slash == copy ? "/" : copy);
  if (!dir || strcmp (last, ".") == 0)
    return ESP_STEAL (dir);
  if (strcmp (last, "..") == 0) {
    slash = strrchr (dir, '/');
    slash[slash == dir] = 0;
    return ESP_STEAL (dir);
  }
  return esp_asprintf ("%s/%s", dir[1] ? dir : "", last);
}

/* realpath, of which the end may be missing. */
static char *
absolute (const char *path)
{
  char *r = realpath (path, NULL);

  if (r || errno != ENOENT || strcmp (path, ".") == 0)
    return r;
  return absolute_missing (path);
}

int
esp_stack_set_store (const char *path)
{
  if (*path == 0 || strlen (path) >= PATH_MAX) {
    errno = EINVAL;
    esp_error ("store=: give the directory of a store");
    return -1;
  }
  CLEANUP_FREE char *full = absolute (path);
  if (!full) {
    esp_error ("store=%s: %m", path);
    return -1;
  }
  ESP_LOCK_SCOPE (&store_lock);
  if (!store)
    store = ESP_STEAL (full);
  else if (strcmp (store, full) != 0) {
    esp_error ("store=%s: store=%s was given before: "
               "one server has one store", full, store);
    errno = EINVAL;
    return -1;
  }
  return 0;
}

const char *
esp_stack_get_store (void)
{
  ESP_LOCK_SCOPE (&store_lock);
  return store;
}
