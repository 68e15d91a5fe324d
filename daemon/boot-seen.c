/* SPDX-License-Identifier: BSD-3-Clause */
/* What machines booted last, written down in the background.
 *
 * A boot never waits for a disk or for somebody who changes the store: what it
 * did goes into a ring, and a thread with a connection of its own to the
 * catalog writes all of the ring in one transaction, then rests for half a
 * second.  A ring that is full forgets the newest; so does a daemon that is killed:
 * what is lost is where a menu's cursor begins.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "boot-internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define RING 4096u
#define REST_NS 500000000

/* Protects RING … STOPPING. */
static pthread_mutex_t ring_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ring_filled;
static struct esp_client_seen ring[RING];
static size_t nring;
static bool stopping, started;

static struct esp_catalog *catalog;     /* the thread's own */
static pthread_t thread;

void
boot_seen_put (const struct esp_client_seen *seen)
{
  struct esp_client_seen copy = *seen;

  copy.needs = strdup (seen->needs ? seen->needs : "");
  if (!copy.needs)
    return;
  ESP_LOCK_SCOPE (&ring_lock);
  if (!started || nring == RING) {
    free (copy.needs);
    return;
  }
  ring[nring++] = copy;
  pthread_cond_signal (&ring_filled);
}

/* Take all of the ring, malloced; *N of them. */
static struct esp_client_seen *
take_locked (size_t *n)
{
  struct esp_client_seen *all = malloc (nring * sizeof *all);

  if (!all)
    return NULL;
  memcpy (all, ring, nring * sizeof *all);
  *n = nring;
  nring = 0;
  return all;
}

static int
write_all (const struct esp_client_seen *all, size_t n)
{
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (esp_catalog_begin (catalog) == -1)
    return -1;
  tx = catalog;
  for (size_t i = 0; i < n; ++i)
    if (esp_catalog_seen_put (catalog, &all[i], true) == -1)
      return -1;
  return esp_catalog_commit (ESP_STEAL (tx));
}

/* Half a second, or until we are to end. */
static void
rest_locked (void)
{
  struct timespec until;

  clock_gettime (CLOCK_MONOTONIC, &until);
  until.tv_nsec += REST_NS;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  while (!stopping &&
         pthread_cond_timedwait (&ring_filled, &ring_lock, &until) == 0)
    ;
}

static void *
writer (void *arg)
{
  ESP_LOCK_SCOPE (&ring_lock);

  (void) arg;
  for (;;) {
    struct esp_client_seen *all;
    size_t n = 0;

    while (nring == 0 && !stopping)
      pthread_cond_wait (&ring_filled, &ring_lock);
    if (nring == 0)
      return NULL;
    all = take_locked (&n);
    pthread_mutex_unlock (&ring_lock);
    if (all && write_all (all, n) == -1)
      esp_warning ("what %zu machines booted could not be written down", n);
    for (size_t i = 0; i < n; ++i)
      free (all[i].needs);
    free (all);
    pthread_mutex_lock (&ring_lock);
    rest_locked ();
  }
}

int
boot_seen_start (const struct config *config)
{
  pthread_condattr_t attr;
  int r;

  catalog = esp_catalog_open (config->store, false);
  if (!catalog)
    return -1;
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&ring_filled, &attr);
  pthread_condattr_destroy (&attr);
  stopping = false;
  r = pthread_create (&thread, NULL, writer, NULL);
  if (r != 0) {
    errno = r;
    esp_error ("pthread_create: %m");
    esp_catalog_close (ESP_STEAL (catalog));
    return -1;
  }
  ESP_LOCK_SCOPE (&ring_lock);
  started = true;
  return 0;
}

void
boot_seen_stop (void)
{
  pthread_mutex_lock (&ring_lock);
  bool running = started;
  started = false;
  stopping = true;
  if (running)
    pthread_cond_signal (&ring_filled);
  pthread_mutex_unlock (&ring_lock);
  if (!running)
    return;
  pthread_join (thread, NULL);
  esp_catalog_close (ESP_STEAL (catalog));
  pthread_cond_destroy (&ring_filled);
}
