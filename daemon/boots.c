/* SPDX-License-Identifier: BSD-3-Clause */
/* The last boots, for the page and the metrics: a ring in memory. */

#include <config.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "daemon.h"
#include "util/cleanup.h"

#define RING 256
#define KINDS 16

/* Protects all below. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct boot_seen ring[RING];
static size_t next, filled;
static struct { const char *what; uint64_t n; } kinds[KINDS];

static void
count (const char *what)
{
  for (size_t i = 0; i < KINDS; i++) {
    if (!kinds[i].what)
      kinds[i].what = what;
    if (strcmp (kinds[i].what, what) == 0) {
      kinds[i].n++;
      return;
    }
  }
}

void
boots_add (const struct boot_seen *boot)
{
  ESP_LOCK_SCOPE (&lock);
  ring[next] = *boot;
  next = (next + 1) % RING;
  if (filled < RING)
    filled++;
  count (boot->what);
}

size_t
boots_last (struct boot_seen *out, size_t max)
{
  ESP_LOCK_SCOPE (&lock);
  size_t n = filled < max ? filled : max;

  for (size_t i = 0; i < n; i++)
    out[i] = ring[(next + RING - 1 - i) % RING];
  return n;
}

uint64_t
boots_count (const char *what)
{
  ESP_LOCK_SCOPE (&lock);
  for (size_t i = 0; i < KINDS && kinds[i].what; i++)
    if (strcmp (kinds[i].what, what) == 0)
      return kinds[i].n;
  return 0;
}
