/* SPDX-License-Identifier: BSD-3-Clause */
/* Counting: what this process has of it, and the thread that writes.
 *
 * One struct esp_stats for each process.  Once a second its thread calls what
 * engines registered, adds what clients counted to the rows of their disks,
 * and writes what changed.
 *
 * Locks, in this order: the_lock (the process's one, and opening), tick_lock
 * (a tick at a time, and the file), lock (rows).  I/O is done under the first
 * two only, which nobody takes who serves a read.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "stats/internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/host.h"

#define TICK_SECONDS 1
#define MAKE_AGAIN 16u          /* ticks between tries to make the file */
#define BATCH 64u               /* rows written at once */

static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_stats *the;

/* --- writing ------------------------------------------------------------------------ */

/* Row N into OUT if it is not as it was written. */
static bool
take_changed_locked (struct esp_stats *stats, uint32_t n,
                     uint8_t out[STATS_ROW])
{
  struct stats_row row = { .kind = 0 };
  struct slot *s = stats->rows[n];
  bool changed = stats->changed[n];

  for (unsigned i = 0; s && i < ESP_STATS_COUNTERS; ++i) {
    row.c[i] = row_load (&s->row, i);
    changed |= row.c[i] != s->written[i];
  }
  if (!changed)
    return false;
  stats->changed[n] = false;
  if (s) {
    memcpy (s->written, row.c, sizeof row.c);
    row.kind = s->kind;
    snprintf (row.name, sizeof row.name, "%s", s->name);
  }
  stats_row_format (&row, out);
  return true;
}

/* The next changed rows that follow each other, from *FIRST. */
static uint32_t
take_batch (struct esp_stats *stats, uint32_t *first, uint8_t *out)
{
  uint32_t n = 0;

  ESP_LOCK_SCOPE (&stats->lock);
  stats->header.used = stats->used;
  while (*first < stats->used && !take_changed_locked (stats, *first, out))
    ++*first;
  if (*first == stats->used)
    return 0;
  do
    n++;
  while (n < BATCH && *first + n < stats->used &&
         take_changed_locked (stats, *first + n, out + n * STATS_ROW));
  return n;
}

static int
write_changed (struct esp_stats *stats)
{
  uint8_t rows[BATCH * STATS_ROW];
  uint32_t n, first = 0;
  bool any = false;

  while ((n = take_batch (stats, &first, rows)) > 0) {
    if (stats_file_write (&stats->file, first, rows, n) == -1)
      return -1;
    first += n;
    any = true;
  }
  if (!any)
    return 0;                   /* an idle server writes nothing */
  stats->header.at = esp_now_us ();
  return stats_file_write_header (&stats->file, &stats->header);
}

/* What is in the file is not known any more. */
static void
all_changed (struct esp_stats *stats)
{
  ESP_LOCK_SCOPE (&stats->lock);
  memset (stats->changed, true, sizeof stats->changed);
}

/* Somebody removed it, or cut it short; or it could not be made before. */
static bool
have_file (struct esp_stats *stats)
{
  if (stats->file.fd >= 0 && stats_file_sound (&stats->file))
    return true;
  if (stats->file.fd < 0 && stats->ticks % MAKE_AGAIN != 0)
    return false;
  stats_file_close (&stats->file, true);
  all_changed (stats);
  return stats_file_make (&stats->file, &stats->header) == 0;
}

static void
tick (struct esp_stats *stats)
{
  struct ticker *t;

  ESP_LOCK_SCOPE (&stats->tick_lock);
  LIST_FOREACH (t, &stats->tickers, list)
    t->fn (t->arg);
  pthread_mutex_lock (&stats->lock);
  clients_add_locked (stats);
  pthread_mutex_unlock (&stats->lock);
  if (have_file (stats) && write_changed (stats) == -1) {
    esp_debug ("live counters: write: %s/%s: %m", stats->file.dir,
               stats->file.name);
    all_changed (stats);
  }
  stats->ticks++;
}

static void *
run (void *arg)
{
  struct esp_stats *stats = arg;
  struct timespec until;

  clock_gettime (CLOCK_MONOTONIC, &until);
  pthread_mutex_lock (&stats->lock);
  while (!stats->stop) {
    until.tv_sec += TICK_SECONDS;
    while (!stats->stop &&
           pthread_cond_timedwait (&stats->wake, &stats->lock, &until) == 0)
      ;
    if (stats->stop)
      break;
    pthread_mutex_unlock (&stats->lock);
    tick (stats);
    clock_gettime (CLOCK_MONOTONIC, &until);
    pthread_mutex_lock (&stats->lock);
  }
  pthread_mutex_unlock (&stats->lock);
  return NULL;
}

void
stats_publish_own (void)
{
  ESP_LOCK_SCOPE (&the_lock);
  if (the)
    tick (the);
}

/* --- what is called at each tick ---------------------------------------------------- */

int
esp_stats_on_tick (struct esp_stats *stats, esp_stats_fn fn, void *arg)
{
  struct ticker *t = malloc (sizeof *t);

  if (!t) {
    esp_error ("malloc: %m");
    return -1;
  }
  *t = (struct ticker) { .fn = fn, .arg = arg };
  ESP_LOCK_SCOPE (&stats->tick_lock);
  LIST_INSERT_HEAD (&stats->tickers, t, list);
  return 0;
}

void
esp_stats_off_tick (struct esp_stats *stats, esp_stats_fn fn, void *arg)
{
  struct ticker *t;

  ESP_LOCK_SCOPE (&stats->tick_lock);
  LIST_FOREACH (t, &stats->tickers, list)
    if (t->fn == fn && t->arg == arg)
      break;
  if (!t)
    return;
  LIST_REMOVE (t, list);
  t->fn (t->arg);
  free (t);
}

/* --- start and end ------------------------------------------------------------------- */

static void
destroy (struct esp_stats *stats)
{
  struct ticker *t;
  struct slot *s;

  while ((t = LIST_FIRST (&stats->tickers)) != NULL) {
    LIST_REMOVE (t, list);
    free (t);
  }
  for (int k = 0; k < ESP_STATS_KINDS; ++k)
    while ((s = LIST_FIRST (&stats->kinds[k])) != NULL)
      slot_free_locked (stats, s);
  stats_file_close (&stats->file, true);
  pthread_mutex_destroy (&stats->tick_lock);
  pthread_mutex_destroy (&stats->lock);
  pthread_cond_destroy (&stats->wake);
  free (stats->file.dir);
  free (stats);
}

static void
init (struct esp_stats *stats, const char *program)
{
  pthread_condattr_t attr;

  pthread_mutex_init (&stats->tick_lock, NULL);
  pthread_mutex_init (&stats->lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&stats->wake, &attr);
  pthread_condattr_destroy (&attr);
  TAILQ_INIT (&stats->unused);
  stats->refs = 1;
  stats->file.dirfd = stats->file.fd = -1;
  stats->header.pid = (uint32_t) getpid ();
  stats->header.since = (uint64_t) time (NULL);
  stats->header.at = esp_now_us ();
  snprintf (stats->header.program, STATS_PROGRAM, "%s", program);
}

static struct esp_stats *
stats_new (const char *dir, const char *program)
{
  struct esp_stats *stats = calloc (1, sizeof *stats);

  if (!stats)
    return NULL;
  init (stats, program);
  stats->file.dir = strdup (dir);
  stats->process = slot_get_locked (stats, ESP_STATS_PROCESS, "");
  if (!stats->file.dir || !stats->process) {
    destroy (stats);
    errno = ENOMEM;
    return NULL;
  }
  ESP_STATS_SET (&stats->process->row, ESP_PROCESS_SINCE,
                 stats->header.since);
  return stats;
}

struct esp_stats *
esp_stats_open (const char *dir, const char *program)
{
  ESP_LOCK_SCOPE (&the_lock);
  if (the) {
    the->refs++;
    return the;
  }
  struct esp_stats *stats = stats_new (dir, program);
  if (!stats) {
    esp_error ("malloc: %m");
    return NULL;
  }
  tick (stats);
  /* Without a thread there is nothing to see, but all goes on. */
  stats->has_thread = pthread_create (&stats->thread, NULL, run, stats) == 0;
  return the = stats;
}

void
esp_stats_close (struct esp_stats *stats)
{
  struct ticker *t;

  if (!stats)
    return;
  ESP_LOCK_SCOPE (&the_lock);
  if (--stats->refs > 0)
    return;
  the = NULL;
  pthread_mutex_lock (&stats->lock);
  stats->stop = true;
  pthread_cond_signal (&stats->wake);
  pthread_mutex_unlock (&stats->lock);
  if (stats->has_thread)
    pthread_join (stats->thread, NULL);
  LIST_FOREACH (t, &stats->tickers, list)
    t->fn (t->arg);
  destroy (stats);
}

char *
esp_stats_dir (struct esp_store *store)
{
  char *dir = esp_asprintf ("%s/run/stats", esp_store_path (store));

  if (!dir)
    esp_error ("malloc: %m");
  return dir;
}
