/* SPDX-License-Identifier: BSD-3-Clause */
/* The site's key of tickets, and export names with tickets. */

#include <config.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon.h"
#include "parts.h"
#include "util/cleanup.h"

/* The key, and those that it took the place of: somebody may be using them
 * still, and an operator changes it rarely.  Protected by key_lock.
 */
struct known { struct esp_ticket_key *key; struct known *before; };
static pthread_mutex_t key_lock = PTHREAD_MUTEX_INITIALIZER;
static struct known *known;

void
tickets_stop (void)
{
  while (known) {
    struct known *k = known;

    known = k->before;
    esp_ticket_key_free (k->key);
    free (k);
  }
}

static const struct esp_ticket_key *
load_key_locked (void)
{
  struct known *k = malloc (sizeof *k);

  if (!k)
    abort ();
  *k = (struct known) { esp_ticket_key_load (daemon_store (), true), known };
  if (!k->key) {
    free (k);
    return NULL;
  }
  known = k;
  return k->key;
}

const struct esp_ticket_key *
daemon_ticket_key (void)
{
  ESP_LOCK_SCOPE (&key_lock);
  return known && !esp_ticket_key_changed (daemon_store (), known->key)
    ? known->key : load_key_locked ();
}

int
daemon_export (const struct config *config, const struct esp_export *e,
               const char *address, char buf[ESP_EXPORT_MAX])
{
  struct esp_ticket t = { .export = *e, .readonly = e->client[0] == 0 };
  uint32_t valid = config->ticket_valid;
  uint32_t opens = config->ticket_opens < valid ? config->ticket_opens : valid;
  const struct esp_ticket_key *k;

  t.export.ticket[0] = 0;
  esp_export_format (&t.export, buf, ESP_EXPORT_MAX);
  if (!config->require_ticket)
    return 0;
  if (config->ticket_address)
    snprintf (t.address, sizeof t.address, "%s", address);
  k = daemon_ticket_key ();
  return k ? esp_ticket_issue (k, &t, opens, valid, buf) : -1;
}
