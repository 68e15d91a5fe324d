/* SPDX-License-Identifier: BSD-3-Clause */
/* Counting: the rows of this process, and the thread that writes them.
 *
 * One struct esp_stats for each process.  A *row* that somebody asked for is
 * a block of memory of its own (whole cache lines), with a number in the file
 * while there is one free.  Adding to it takes no lock and touches nothing
 * else.  Once a second the thread calls what engines registered, adds what
 * clients counted to the rows of their disks, and writes what changed.
 *
 * Of some kinds (what a process serves: venues, restore points, centers) a
 * row stays when nobody uses it any more, with its counters; when numbers
 * run out, the one that is unused longest goes.  No kind takes so many that
 * there are none for the others.
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
#include "util/file.h"
#include "util/host.h"

#define TICK_SECONDS 1
#define MAKE_AGAIN 16u          /* ticks between tries to make the file */
#define BATCH 64u               /* rows written at once */
#define CACHE_LINE 64

struct slot {
  struct esp_stats_row row;     /* first, and in lines of its own */
  enum esp_stats_kind kind __attribute__ ((aligned (CACHE_LINE)));
  struct esp_stats *stats;
  unsigned refs;
  int number;                   /* in the file; -1: in none */
  LIST_ENTRY (slot) list;       /* of its kind */
  TAILQ_ENTRY (slot) unused;    /* refs is 0 */
  struct slot *disk;            /* CLIENT: whose counters grow too; counted */
  uint64_t added[ESP_STATS_COUNTERS];   /* to DISK */
  uint64_t written[ESP_STATS_COUNTERS];
  char *name;
};
LIST_HEAD (slots, slot);

struct ticker {
  LIST_ENTRY (ticker) list;
  esp_stats_fn fn;
  void *arg;
};

struct esp_stats {
  unsigned refs;                /* under the_lock */
  pthread_t thread;
  bool has_thread;

  pthread_mutex_t tick_lock;    /* protects what follows */
  LIST_HEAD (, ticker) tickers;
  struct stats_file file;
  struct stats_header header;
  unsigned ticks;

  pthread_mutex_t lock;         /* protects what follows */
  pthread_cond_t wake;
  bool stop;
  struct slots kinds[ESP_STATS_KINDS];
  TAILQ_HEAD (, slot) unused;
  struct slot *rows[STATS_ROWS];        /* by number */
  bool changed[STATS_ROWS];     /* to be written, whatever is in it */
  uint32_t used;                /* numbers from here were never given */
  unsigned numbered[ESP_STATS_KINDS];   /* rows that have one */
  struct slot *process;
  struct esp_stats_row nowhere; /* out of memory: counted for nobody */
};

static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_stats *the;

/* --- rows ---------------------------------------------------------------------- */

static bool
stays (enum esp_stats_kind kind)
{
  return kind == ESP_STATS_VENUE || kind == ESP_STATS_EXPORT ||
    kind == ESP_STATS_RP || kind == ESP_STATS_CENTER;
}

static struct slot *
slot_new (enum esp_stats_kind kind, const char *name)
{
  struct slot *s = aligned_alloc (CACHE_LINE, sizeof *s);

  if (!s)
    return NULL;
  memset (s, 0, sizeof *s);
  s->kind = kind;
  s->number = -1;
  s->name = strdup (name);
  if (s->name)
    return s;
  free (s);
  return NULL;
}

static void
slot_free_locked (struct esp_stats *stats, struct slot *s)
{
  if (s->number >= 0) {
    stats->rows[s->number] = NULL;
    stats->changed[s->number] = true;
    stats->numbered[s->kind]--;
  }
  LIST_REMOVE (s, list);
  free (s->name);
  free (s);
}

static int
free_number_locked (struct esp_stats *stats)
{
  for (uint32_t i = 0; i < stats->used; ++i)
    if (!stats->rows[i])
      return (int) i;
  return stats->used < STATS_ROWS ? (int) stats->used++ : -1;
}

/* The number of who is unused longest, of KIND or (ANY) of any; -1. */
static int
take_number_locked (struct esp_stats *stats, enum esp_stats_kind kind,
                    bool any)
{
  struct slot *s;

  TAILQ_FOREACH (s, &stats->unused, unused)
    if (any || s->kind == kind)
      break;
  if (!s)
    return -1;
  int number = s->number;
  TAILQ_REMOVE (&stats->unused, s, unused);
  slot_free_locked (stats, s);
  return number;
}

static void
give_number_locked (struct esp_stats *stats, struct slot *s)
{
  bool may = stats->numbered[s->kind] < STATS_KIND_MAX;

  if (may)
    s->number = free_number_locked (stats);
  if (s->number < 0)
    s->number = take_number_locked (stats, s->kind, may);
  if (s->number < 0)
    return;
  stats->rows[s->number] = s;
  stats->changed[s->number] = true;
  stats->numbered[s->kind]++;
}

static struct slot *
find_locked (struct esp_stats *stats, enum esp_stats_kind kind,
             const char *name)
{
  struct slot *s;

  LIST_FOREACH (s, &stats->kinds[kind], list)
    if (strcmp (s->name, name) == 0)
      return s;
  return NULL;
}

/* A reference; NULL when memory is out. */
static struct slot *
get_locked (struct esp_stats *stats, enum esp_stats_kind kind,
            const char *name)
{
  char shown[STATS_NAME];
  struct slot *s = NULL;

  stats_name (name, shown);
  if (kind != ESP_STATS_CLIENT)
    s = find_locked (stats, kind, shown);
  if (s && s->refs++ == 0)
    TAILQ_REMOVE (&stats->unused, s, unused);
  if (s)
    return s;
  s = slot_new (kind, shown);
  if (!s)
    return NULL;
  s->stats = stats;
  s->refs = 1;
  LIST_INSERT_HEAD (&stats->kinds[kind], s, list);
  give_number_locked (stats, s);
  return s;
}

static void leave_disk_locked (struct esp_stats *stats, struct slot *client);

static void
put_locked (struct esp_stats *stats, struct slot *s)
{
  if (--s->refs > 0)
    return;
  if (s->disk)
    leave_disk_locked (stats, s);
  if (stays (s->kind) && s->number >= 0)
    TAILQ_INSERT_TAIL (&stats->unused, s, unused);
  else
    slot_free_locked (stats, s);
}

struct esp_stats_row *
esp_stats_row (struct esp_stats *stats, enum esp_stats_kind kind,
               const char *name)
{
  ESP_LOCK_SCOPE (&stats->lock);
  struct slot *s = get_locked (stats, kind, name);

  return s ? &s->row : &stats->nowhere;
}

void
esp_stats_row_put (struct esp_stats *stats, struct esp_stats_row *row)
{
  if (!row || row == &stats->nowhere)
    return;
  ESP_LOCK_SCOPE (&stats->lock);
  put_locked (stats, (struct slot *) row);
}

/* --- clients ---------------------------------------------------------------------- */

static uint64_t
load (struct esp_stats_row *row, unsigned n)
{
  return atomic_load_explicit (&row->c[n], memory_order_relaxed);
}

struct esp_stats_row *
esp_stats_client (struct esp_stats *stats, const char *name,
                  enum esp_stats_kind kind, const char *disk)
{
  ESP_LOCK_SCOPE (&stats->lock);
  struct slot *s = get_locked (stats, ESP_STATS_CLIENT, name);

  if (!s)
    return NULL;
  ESP_STATS_SET (&s->row, ESP_DISK_CONNECTIONS, 1);
  ESP_STATS_SET (&s->row, ESP_DISK_SINCE, (uint64_t) time (NULL));
  s->disk = get_locked (stats, kind, disk);
  if (s->disk)
    ESP_STATS_ADD (&s->disk->row, ESP_DISK_CONNECTIONS, 1);
  if (stats->process)
    ESP_STATS_ADD (&stats->process->row, ESP_PROCESS_CONNECTIONS, 1);
  return &s->row;
}

/* What CLIENT counted since the last time is its disk's too. */
static void
add_to_disk (struct slot *client)
{
  bool gauge;

  for (unsigned i = 0; i < ESP_STATS_COUNTERS; ++i) {
    uint64_t now = load (&client->row, i);
    if (now == client->added[i] ||
        !esp_stats_counter_name (ESP_STATS_CLIENT, i, &gauge) || gauge)
      continue;
    ESP_STATS_ADD (&client->disk->row, i, now - client->added[i]);
    client->added[i] = now;
  }
}

static void
leave_disk_locked (struct esp_stats *stats, struct slot *client)
{
  add_to_disk (client);
  ESP_STATS_ADD (&client->disk->row, ESP_DISK_CONNECTIONS, UINT64_MAX);
  put_locked (stats, client->disk);
  if (stats->process)
    ESP_STATS_ADD (&stats->process->row, ESP_PROCESS_CONNECTIONS, UINT64_MAX);
}

struct esp_stats_row *
esp_stats_client_ref (struct esp_stats_row *row)
{
  struct slot *s = (struct slot *) row;

  if (!row)
    return NULL;
  ESP_LOCK_SCOPE (&s->stats->lock);
  s->refs++;
  return row;
}

void
esp_stats_client_put (struct esp_stats_row *row)
{
  struct slot *s = (struct slot *) row;

  if (row) {
    ESP_LOCK_SCOPE (&s->stats->lock);
    put_locked (s->stats, s);
  }
}

/* --- writing ------------------------------------------------------------------------ */

static uint64_t
monotonic_us (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

/* Row N into OUT if it is not as it was written. */
static bool
take_changed_locked (struct esp_stats *stats, uint32_t n,
                     uint8_t out[STATS_ROW])
{
  struct stats_row row = { .kind = 0 };
  struct slot *s = stats->rows[n];
  bool changed = stats->changed[n];

  for (unsigned i = 0; s && i < ESP_STATS_COUNTERS; ++i) {
    row.c[i] = load (&s->row, i);
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
  stats->header.at = monotonic_us ();
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
  struct slot *s;

  ESP_LOCK_SCOPE (&stats->tick_lock);
  LIST_FOREACH (t, &stats->tickers, list)
    t->fn (t->arg);
  pthread_mutex_lock (&stats->lock);
  LIST_FOREACH (s, &stats->kinds[ESP_STATS_CLIENT], list)
    if (s->disk)
      add_to_disk (s);
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
  stats->header.at = monotonic_us ();
  snprintf (stats->header.program, STATS_PROGRAM, "%s", program);
}

static struct esp_stats *
stats_new (const char *dir, const char *program)
{
  struct esp_stats *stats = aligned_alloc (CACHE_LINE,
                                           (sizeof *stats | (CACHE_LINE - 1))
                                           + 1);

  if (!stats)
    return NULL;
  memset (stats, 0, sizeof *stats);
  init (stats, program);
  stats->file.dir = strdup (dir);
  stats->process = get_locked (stats, ESP_STATS_PROCESS, "");
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
