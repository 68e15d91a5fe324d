/* SPDX-License-Identifier: BSD-3-Clause */
/* Venues, clients and needs, kept in memory.
 *
 * A thousand machines that are switched on at once ask for some three thousand pages, and
 * reading a thousand venues takes milliseconds: so they are read when the
 * catalog changed, which SQLite tells in microseconds.  That machines booted is a
 * change, too; boot-seen.c writes it down at most twice a second.
 */

#include <config.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "boot-internal.h"
#include "daemon.h"
#include "util/cleanup.h"
#include "util/host.h"

/* Protects CURRENT; held while the lists are read, which others wait for. */
static pthread_mutex_t current_lock = PTHREAD_MUTEX_INITIALIZER;
static struct boot_data *current;

void
boot_data_put (struct boot_data *data)
{
  if (atomic_fetch_sub (&data->refs, 1) != 1)
    return;
  esp_venue_list_clear (&data->venues);
  esp_venue_boot_list_clear (&data->boots);
  esp_client_list_clear (&data->clients);
  esp_need_list_clear (&data->needs);
  free (data);
}

static struct boot_data *
data_read (struct esp_catalog *catalog, uint64_t version)
{
  CLEANUP_BOOT_DATA struct boot_data *data = calloc (1, sizeof *data);

  if (!data) {
    esp_error ("malloc: %m");
    return NULL;
  }
  data->refs = 1;
  data->version = version;
  if (esp_catalog_venue_list (catalog, NULL, &data->venues) == -1 ||
      esp_catalog_venue_boot_list (catalog, &data->boots) == -1 ||
      esp_catalog_client_list (catalog, &data->clients) == -1 ||
      esp_catalog_need_list (catalog, &data->needs) == -1)
    return NULL;
  return ESP_STEAL (data);
}

struct boot_data *
boot_data_get (void)
{
  struct esp_catalog *catalog = esp_store_catalog (daemon_store ());
  struct boot_data *data;
  uint64_t version;
  ESP_LOCK_SCOPE (&current_lock);

  /* Asked before it is read: what changes meanwhile is read the next time. */
  if (esp_catalog_version (catalog, &version) == -1)
    return NULL;
  if (!current || current->version != version) {
    data = data_read (catalog, version);
    if (!data)
      return NULL;
    if (current)
      boot_data_put (current);
    current = data;
  }
  atomic_fetch_add (&current->refs, 1);
  return current;
}

void
boot_data_clear (void)
{
  ESP_LOCK_SCOPE (&current_lock);
  if (current)
    boot_data_put (current);
  current = NULL;
}

static int
venue_by_id (const void *id, const void *venue)
{
  return strcmp (id, ((const struct esp_venue *) venue)->id);
}

const struct esp_venue *
boot_data_venue (const struct boot_data *data, const char *id)
{
  if (data->venues.n == 0)
    return NULL;
  return bsearch (id, data->venues.venue, data->venues.n,
                  sizeof *data->venues.venue, venue_by_id);
}

const struct esp_venue_boot *
boot_data_settings (const struct boot_data *data, const char *id)
{
  static const struct esp_venue_boot none = {
    .kernel = (char *) "", .initrd = (char *) "", .cmdline = (char *) "",
    .networks = (char *) "", .weight = ESP_WEIGHT_DEFAULT,
  };

  for (size_t i = 0; i < data->boots.n; ++i)
    if (strcmp (data->boots.boot[i].id, id) == 0)
      return &data->boots.boot[i];
  return &none;
}
