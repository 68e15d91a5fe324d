/* SPDX-License-Identifier: BSD-3-Clause */
/* The shared tiers, one after another: memory (restore points' segments
 * alone; an export has its own, in export.c), this host's directory, the
 * cluster.  A hit in a lower one fills those above; what was fetched goes to
 * all.  What a tier cannot do is its own trouble: it then has nothing.
 *
 * A ticket carries what the directory (an epoch) and the cluster (a lease)
 * have to know between a miss and its put.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cache/cluster.h"
#include "cache/dir.h"
#include "cache/memory.h"
#include "cache/shared.h"
#include "cache/tls.h"
#include "cache/value.h"
#include "util/cleanup.h"
#include "util/host.h"
#include "util/name.h"

#define DIR_MAX (UINT64_C (10) << 30)

struct esp_shared {
  struct esp_sealer *sealer;
  struct esp_memory *memory;    /* these three: or NULL */
  struct esp_cdir *dir;
  struct esp_cluster *cluster;
};

/* --- opening ---------------------------------------------------------------- */

static int
check_dir (const char *dir)
{
  struct stat st;

  if (!dir || stat (dir, &st) == -1 || S_ISDIR (st.st_mode))
    return 0;                   /* made when it is opened */
  errno = EINVAL;
  esp_error ("%s is not a directory: give one for the segment cache", dir);
  return -1;
}

static int
check_dir_max (uint64_t max)
{
  char from[16], to[16];

  if (max == 0 ||
      (max >= ESP_CDIR_MAX_LOWEST && max <= ESP_CDIR_MAX_HIGHEST))
    return 0;
  errno = EINVAL;
  esp_error ("segcache-max: give a size from %s to %s",
             esp_size_format (ESP_CDIR_MAX_LOWEST, from),
             esp_size_format (ESP_CDIR_MAX_HIGHEST, to));
  return -1;
}

static struct esp_sealer *
open_sealer (const char *key_file)
{
  return key_file ? esp_sealer_from_file (key_file) : esp_sealer_new (NULL);
}

int
esp_shared_check (const struct esp_shared_params *p)
{
  if (check_dir (p->dir) == -1 || check_dir_max (p->dir_max) == -1 ||
      tls_check_params (p) == -1 ||
      (p->nodes && esp_cluster_check (p) == -1))
    return -1;
  struct esp_sealer *sealer = open_sealer (p->key_file);
  if (!sealer)
    return -1;
  esp_sealer_free (sealer);
  return 0;
}

/* Without it the rest goes on. */
static struct esp_cdir *
open_dir (const struct esp_shared_params *p, const struct esp_sealer *sealer)
{
  char why[512] = "";
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  struct esp_cdir *dir = esp_cdir_open (p->dir, p->dir_max ? p->dir_max
                                        : DIR_MAX, sealer);

  esp_catch_end (before);
  if (!dir)
    esp_warning ("the segment cache goes on without its directory: %s", why);
  else if (*why)                /* what was wrong with it */
    esp_warning ("%s", why);
  return dir;
}

struct esp_shared *
esp_shared_open (const struct esp_shared_params *p)
{
  struct esp_shared *s = calloc (1, sizeof *s);

  if (!s) {
    esp_error ("calloc: %m");
    return NULL;
  }
  s->sealer = open_sealer (p->key_file);
  bool ok = s->sealer != NULL;
  /* Segments of all sizes. */
  if (ok && p->memory > 0)
    ok = (s->memory = esp_memory_new (p->memory, ESP_SEGMENT_SHIFT_MAX));
  if (ok && p->nodes)
    ok = (s->cluster = esp_cluster_open (p, s->sealer));
  if (ok && p->dir)
    s->dir = open_dir (p, s->sealer);
  if (ok)
    return s;
  int err = errno;
  esp_shared_close (s);
  errno = err;
  return NULL;
}

void
esp_shared_close (struct esp_shared *s)
{
  if (!s)
    return;
  if (s->cluster)
    esp_cluster_close (s->cluster);
  if (s->dir)
    esp_cdir_close (s->dir);
  if (s->memory)
    esp_memory_free (s->memory);
  if (s->sealer)
    esp_sealer_free (s->sealer);
  free (s);
}

struct esp_memory *
esp_shared_memory (struct esp_shared *s)
{
  return s->memory;
}

struct esp_cdir *
esp_shared_dir (struct esp_shared *s)
{
  return s->dir;
}

struct esp_cluster *
esp_shared_cluster (struct esp_shared *s)
{
  return s->cluster;
}

/* --- this process's ---------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t unused = PTHREAD_COND_INITIALIZER;
static struct esp_shared *current;
static unsigned refs;           /* of what is, or was, `current` */

void
esp_shared_set (struct esp_shared *s)
{
  ESP_LOCK_SCOPE (&lock);
  current = NULL;
  while (refs > 0)
    pthread_cond_wait (&unused, &lock);
  current = s;
}

struct esp_shared *
esp_shared_ref (void)
{
  ESP_LOCK_SCOPE (&lock);
  if (current)
    refs++;
  return current;
}

void
esp_shared_unref (struct esp_shared *s)
{
  ESP_LOCK_SCOPE (&lock);
  if (s && --refs == 0)
    pthread_cond_broadcast (&unused);
}

/* --- the tiers ---------------------------------------------------------------- */

static bool
in_memory (const struct esp_shared *s, const struct esp_cache_key *key)
{
  return s->memory && key->kind == ESP_CACHE_RP;
}

/* May, and can, values with FLAGS lie on nodes? */
static bool
in_cluster (const struct esp_shared *s, unsigned flags)
{
  return s->cluster &&
    (!(flags & ESP_SHARED_SECRET) || esp_sealer_secret (s->sealer));
}

/* Nobody waits for another here: each segment has one fetch in a process, and
 * one that is being kept already needs no second.
 */
static void
memory_keep (struct esp_shared *s, const struct esp_cache_key *key,
             const void *buf, size_t len)
{
  struct esp_fill fill;
  CLEANUP_FREE void *copy = NULL;

  if (!in_memory (s, key) || !(copy = malloc (len)))
    return;
  if (esp_memory_miss (s->memory, key, copy, 0, (uint32_t) len,
                       (uint32_t) len, true, &fill) == ESP_MEMORY_FETCH)
    esp_memory_fill_end (s->memory, &fill, fill.whole ? buf : NULL);
}

static void
memory_forget (struct esp_shared *s, const struct esp_cache_key *key,
               size_t len)
{
  struct esp_memory_write write;

  if (in_memory (s, key) &&
      esp_memory_write_begin (s->memory, key, 0, (uint32_t) len, &write) == 0)
    esp_memory_write_end (s->memory, &write, NULL);
}

static bool
dir_get (struct esp_shared *s, const struct esp_cache_key *key, void *buf,
         size_t len, struct esp_shared_ticket *ticket)
{
  if (!s->dir)
    return false;
  ticket->has_epoch = true;
  return esp_cdir_get (s->dir, key, buf, len, &ticket->epoch);
}

static void
dir_put (struct esp_shared *s, const struct esp_cache_key *key,
         const void *buf, size_t len, const struct esp_shared_ticket *ticket)
{
  if (s->dir && ticket->has_epoch)
    (void) esp_cdir_put (s->dir, key, buf, len, ticket->epoch);
}

/* --- reading -------------------------------------------------------------------- */

enum esp_shared_answer
esp_shared_get (struct esp_shared *s, const struct esp_cache_key *key,
                void *buf, size_t len, unsigned flags,
                struct esp_shared_ticket *ticket)
{
  ticket->len = len;
  if (in_memory (s, key) &&
      esp_memory_read (s->memory, key, buf, 0, (uint32_t) len)) {
    ticket->from = ESP_FROM_MEMORY;
    return ESP_SHARED_HIT;
  }
  if (dir_get (s, key, buf, len, ticket)) {
    ticket->from = ESP_FROM_DIR;
    memory_keep (s, key, buf, len);
    return ESP_SHARED_HIT;
  }
  if (!in_cluster (s, flags))
    return ESP_SHARED_MISS;
  enum esp_shared_answer answer = esp_cluster_get (s->cluster, key, buf, len,
                                                   flags, ticket);
  if (answer == ESP_SHARED_HIT) {
    ticket->from = ESP_FROM_CLUSTER;
    dir_put (s, key, buf, len, ticket);
    memory_keep (s, key, buf, len);
  }
  return answer;
}

/* Forgotten by all of this host: the tiers above the one that gave it were
 * filled with it.
 */
void
esp_shared_lied (struct esp_shared *s, const struct esp_cache_key *key,
                 struct esp_shared_ticket *ticket)
{
  char byte;

  memory_forget (s, key, ticket->len);
  if (s->dir) {
    esp_cdir_forget (s->dir, key);
    /* For the epoch: there is nothing of this length. */
    (void) esp_cdir_get (s->dir, key, &byte, sizeof byte, &ticket->epoch);
    ticket->has_epoch = true;
  }
  if (s->cluster && ticket->from == ESP_FROM_CLUSTER)
    esp_cluster_lied (s->cluster, key, ticket);
}

void
esp_shared_put (struct esp_shared *s, const struct esp_cache_key *key,
                const void *buf, size_t len, unsigned flags,
                struct esp_shared_ticket *ticket)
{
  memory_keep (s, key, buf, len);
  dir_put (s, key, buf, len, ticket);
  if (in_cluster (s, flags))
    esp_cluster_put (s->cluster, key, buf, len, flags, ticket);
}

void
esp_shared_give_up (struct esp_shared *s, const struct esp_cache_key *key,
                    struct esp_shared_ticket *ticket)
{
  if (s->cluster && ticket->lease)
    esp_cluster_give_up (s->cluster, key, ticket);
}

/* --- writing --------------------------------------------------------------------- */

void
esp_shared_write_begin (struct esp_shared *s, const struct esp_cache_key *key)
{
  if (s->dir)
    esp_cdir_forget (s->dir, key);
  if (s->cluster)
    esp_cluster_write_begin (s->cluster, key);
}

void
esp_shared_write_end (struct esp_shared *s, const struct esp_cache_key *key)
{
  if (s->dir)
    esp_cdir_forget (s->dir, key);
  if (s->cluster)
    esp_cluster_write_end (s->cluster, key);
}
