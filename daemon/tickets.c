/* SPDX-License-Identifier: BSD-3-Clause */
/* The site's key of tickets, and export names with tickets. */

#include <config.h>

#include <pthread.h>
#include <stdio.h>

#include "daemon.h"
#include "parts.h"
#include "util/cleanup.h"

/* Protects KEY until it is set. */
static pthread_mutex_t key_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_ticket_key *key;

void
tickets_stop (void)
{
  if (key)
    esp_ticket_key_free (key);
  key = NULL;
}

const struct esp_ticket_key *
daemon_ticket_key (void)
{
  ESP_LOCK_SCOPE (&key_lock);
  if (!key)
    key = esp_ticket_key_load (daemon_store (), true);
  return key;
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
