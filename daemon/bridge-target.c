/* SPDX-License-Identifier: BSD-3-Clause */
/* One target: made of disks, logical units, an address and an account; and
 * taken down.  Who may call what when is bridge.c's matter.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/random.h>

#include <xxhash.h>

#include "boot/ticket.h"
#include "bridge-internal.h"
#include "daemon.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/host.h"

#define CONNS_MAX 32
/* How long a take-down waits for commands that are on their way. */
#define DRAIN_MS 3000
#define DRAIN_STEP_MS 20

static char *
copy (const char *s)
{
  return s ? strdup (s) : NULL;
}

struct target *
target_new (const struct bridge_want *want, int tid)
{
  struct target *t = calloc (1, sizeof *t);
  uint64_t nonce;

  if (!t || getrandom (&nonce, sizeof nonce, 0) != sizeof nonce)
    goto failed;
  t->chap_user = copy (want->chap_user);
  t->chap_secret = copy (want->chap_secret);
  if ((want->chap_user && !t->chap_user)
      || (want->chap_secret && !t->chap_secret))
    goto failed;
  strcpy (t->venue, want->venue);
  strcpy (t->client, want->client);
  strcpy (t->address, want->address);
  t->ndisks = want->ndisks;
  t->tid = tid;
  bridge_iqn (t->venue, t->client, nonce, t->iqn);
  return t;
failed:
  esp_error ("a new target: %m");
  target_free (t);
  return NULL;
}

void
target_free (struct target *t)
{
  if (!t)
    return;
  if (t->chap_secret)
    explicit_bzero (t->chap_secret, strlen (t->chap_secret));
  free (t->chap_secret);
  free (t->chap_user);
  free (t);
}

static bool
same (const char *a, const char *b)
{
  return a && b ? strcmp (a, b) == 0 : a == b;
}

bool
target_fits (const struct target *t, const struct bridge_want *want)
{
  return strcmp (t->venue, want->venue) == 0
    && strcmp (t->client, want->client) == 0
    && strcmp (t->address, want->address) == 0 && t->ndisks == want->ndisks
    && same (t->chap_user, want->chap_user)
    && same (t->chap_secret, want->chap_secret);
}

/* --- disks ---------------------------------------------------------------- */

static const char *
disk_name (const struct target *t, unsigned disk, char buf[32])
{
  snprintf (buf, 32, "%d-%u", t->tid, disk);
  return buf;
}

unsigned
bridge_ticket_seconds (const struct config *config)
{
  return config->ticket_valid < ESP_TICKET_OPENS_MAX ? config->ticket_valid
    : ESP_TICKET_OPENS_MAX;
}

/* What the disk is connected to; malloced.  Its ticket may wait as long as it is
 * valid: one that was renewed is used when a connection breaks, and not before.
 */
static char *
disk_export_uri (const struct target *t, const struct config *config,
                 unsigned disk)
{
  struct esp_export e = { .disk = disk };
  struct config patient = *config;
  char name[ESP_EXPORT_MAX];

  patient.ticket_opens = bridge_ticket_seconds (config);
  strcpy (e.name, t->venue);
  strcpy (e.client, t->client);
  if (daemon_export (&patient, &e, "", name) == -1)
    return NULL;
  return stack_uri (name);
}

void
target_close_disks (struct target *t, int dirfd)
{
  char name[32];

  for (unsigned i = 0; i < t->ndisks; i++)
    disks_close (dirfd, disk_name (t, i, name));
}

/* An error of a disk names it. */
static int
disk_open_one (const struct target *t, const struct config *config, int dirfd,
               unsigned disk)
{
  char name[32], why[512] = "", *uri CLEANUP_FREE = NULL;
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r, saved;

  uri = disk_export_uri (t, config, disk);
  r = uri ? disks_open (dirfd, disk_name (t, disk, name), uri) : -1;
  saved = errno;
  esp_catch_end (before);
  if (r == 0)
    return 0;
  errno = saved;
  esp_error ("iSCSI: disk %u of venue %s for %s: %s: see nbdkit's messages",
             disk, t->venue, t->client, why);
  return -1;
}

int
target_open_disks (struct target *t, const struct config *config, int dirfd)
{
  for (unsigned i = 0; i < t->ndisks; i++)
    if (disk_open_one (t, config, dirfd, i) == -1) {
      target_close_disks (t, dirfd);
      return -1;
    }
  t->fresh_us = esp_now_us ();
  return 0;
}

void
target_renew (struct target *t, const struct config *config, int dirfd)
{
  char name[32];

  for (unsigned i = 0; i < t->ndisks; i++) {
    char *uri CLEANUP_FREE = disk_export_uri (t, config, i);

    if (!uri || disks_uri (dirfd, disk_name (t, i, name), uri) == -1)
      return;                   /* reported; tried again */
  }
  t->fresh_us = esp_now_us ();
}

/* --- tgtd ----------------------------------------------------------------- */

/* The same disk of the same client always has the same names, so that a
 * system finds its disk again.
 */
static void
lun_describe (const struct target *t, unsigned disk, struct tgt_lun *l)
{
  char text[2 * ESP_NAME_MAX + 32], name[32];
  int n = snprintf (text, sizeof text, "%s/%u@%s", t->venue, disk, t->client);
  XXH128_hash_t hash = XXH3_128bits (text, (size_t) n);

  snprintf (l->path, sizeof l->path, "disks/%s", disk_name (t, disk, name));
  snprintf (l->serial, sizeof l->serial, "%016llx",
            (unsigned long long) hash.low64);
  snprintf (l->id, sizeof l->id, "%016llx%016llx",
            (unsigned long long) hash.high64, (unsigned long long) hash.low64);
}

static int
publish_rest (struct target *t)
{
  for (unsigned i = 0; i < t->ndisks; i++) {
    struct tgt_lun l;

    lun_describe (t, i, &l);
    if (tgt_lun_new (t->tid, i + 1, &l) == -1)
      return -1;
  }
  if (t->chap_user && tgt_chap (t->tid, t->chap_user, t->chap_secret) == -1)
    return -1;
  if (tgt_allow (t->tid, t->address) == 0)
    return 0;
  if (t->chap_user)
    tgt_chap_forget (t->chap_user);
  return -1;
}

int
target_publish (struct target *t)
{
  int saved;

  if (tgt_target_new (t->tid, t->iqn) == -1)
    return -1;
  if (publish_rest (t) == 0)
    return 0;
  saved = errno;
  tgt_target_delete (t->tid);
  errno = saved;
  return -1;
}

int
target_make (struct target *t, const struct config *config, int dirfd)
{
  int saved;

  if (target_open_disks (t, config, dirfd) == -1)
    return -1;
  if (target_publish (t) == 0)
    return 0;
  saved = errno;
  target_close_disks (t, dirfd);
  errno = saved;
  return -1;
}

static void
pause_ms (unsigned ms)
{
  nanosleep (&(struct timespec) { .tv_nsec = ms * 1000000L }, NULL);
}

/* Cut off who is logged in, until nobody is. */
static bool
cut_off (const struct target *t)
{
  struct bridge_conn conns[CONNS_MAX];

  for (unsigned ms = 0; ms < DRAIN_MS; ms += DRAIN_STEP_MS) {
    ssize_t n = tgt_conns (t->tid, conns, CONNS_MAX);

    if (n <= 0)
      return n == 0 || errno == ENOENT;
    for (ssize_t i = 0; i < n && i < CONNS_MAX; i++)
      tgt_conn_delete (t->tid, &conns[i]);
    pause_ms (DRAIN_STEP_MS);
  }
  return false;
}

bool
target_unmake (struct target *t, int dirfd)
{
  char ignored[256];
  struct esp_catch before = esp_catch_begin (ignored, sizeof ignored);
  bool gone = proc_ended (&tgt_proc, 0);

  if (!gone)
    tgt_offline (t->tid);
  /* What hangs in a disk would keep its commands, and so the target. */
  target_close_disks (t, dirfd);
  if (!gone && cut_off (t))
    for (unsigned ms = 0; ms < DRAIN_MS && !gone; ms += DRAIN_STEP_MS) {
      gone = tgt_target_delete (t->tid) == 0;
      if (!gone)
        pause_ms (DRAIN_STEP_MS);
    }
  esp_catch_end (before);
  if (gone && t->chap_user)
    tgt_chap_forget (t->chap_user);
  return gone;
}
