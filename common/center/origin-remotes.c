/* SPDX-License-Identifier: BSD-3-Clause */
/* Remotes that origins share: one for each center (or base URL) and process,
 * so that a tree of a hundred restore points has one pool of connections to
 * its center, with its limit.
 *
 * A center's remote is found again by name, URL and date of its document: a
 * center that was removed and added anew under its name is another one, and
 * origins that are open keep theirs.  The table's mutex is held while a
 * center's document is read; no data path takes it.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "center/center.h"
#include "center/origin-internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct shared_remote *remotes;   /* protected by mutex */

static struct shared_remote *
no_memory (void)
{
  errno = ENOMEM;
  esp_error ("malloc: connection to an image center: %m");
  return NULL;
}

/* The one called ID, or one more; ID is taken over. */
static struct shared_remote *
share_locked (char *id, const char *url,
              const struct esp_remote_options *options)
{
  CLEANUP_FREE char *owned = id;
  CLEANUP_FREE struct shared_remote *fresh = NULL;

  if (!id)
    return no_memory ();
  for (struct shared_remote *s = remotes; s; s = s->next)
    if (strcmp (s->id, id) == 0) {
      s->refs++;
      return s;
    }
  fresh = calloc (1, sizeof *fresh);
  if (!fresh)
    return no_memory ();
  fresh->remote = esp_remote_open (url, options);
  if (!fresh->remote)
    return NULL;
  fresh->refs = 1;
  fresh->id = ESP_STEAL (owned);
  fresh->next = remotes;
  return remotes = ESP_STEAL (fresh);
}

struct shared_remote *
shared_remote_center (struct esp_store *store, const char *name)
{
  __attribute__ ((cleanup (esp_center_config_clear)))
    struct esp_center_config c = { 0 };

  ESP_LOCK_SCOPE (&mutex);
  if (esp_center_load (store, name, &c) == -1)
    return NULL;
  const struct esp_remote_options options = {
    .ca = c.ca, .cert = c.cert, .key = c.key, .proxy = c.proxy,
    .credentials = c.credentials, .profile = c.profile,
    .connect_timeout = c.connect_timeout, .timeout = c.timeout,
    .retries = c.retries, .connections = c.connections,
  };
  return share_locked (esp_asprintf ("center\n%s\n%s\n%" PRIu64 "\n%s",
                                     esp_store_path (store), name, c.created,
                                     c.url), c.url, &options);
}

struct shared_remote *
shared_remote_url (const char *base, const struct esp_remote_options *options)
{
  /* Options come from a look before the image is added; what is added later
   * has the defaults.
   */
  ESP_LOCK_SCOPE (&mutex);
  return share_locked (options ? esp_asprintf ("look\n%p\n%s",
                                               (const void *) options, base)
                       : esp_asprintf ("plain\n%s", base), base, options);
}

void
shared_remote_put (struct shared_remote *shared)
{
  if (!shared)
    return;
  {
    ESP_LOCK_SCOPE (&mutex);
    if (--shared->refs)
      return;
    for (struct shared_remote **at = &remotes; *at; at = &(*at)->next)
      if (*at == shared) {
        *at = shared->next;
        break;
      }
  }
  esp_remote_close (shared->remote);
  free (shared->id);
  free (shared);
}
