/* SPDX-License-Identifier: BSD-3-Clause */
/* The pulse: a thread that looks at all live counters.
 *
 * The counters of a server end with it, and another server begins at 0.  Who
 * adds up what is there at the moment sees sums that shrink, which Prometheus
 * takes for a restart of all of them, and counts again what the others have.
 * So each row's growth is added to totals of our own.  What a server counted
 * behind our last look at it is lost: two seconds at most.
 *
 * The totals of a daemon begin at 0: a row that was there at the first look
 * is counted from what it was.  (It would be counted twice by who adds up
 * over a restart of the daemon.)
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pulse.h"
#include "util/host.h"

#define TOTALS_MAX 8192u        /* more names than that are not kept */

const char *const pulse_tier_names[PULSE_TIERS] = {
  [PULSE_MEMORY] = "memory", [PULSE_DIR] = "dir", [PULSE_CLUSTER] = "cluster",
};

static struct {
  pthread_t thread;
  char *dir;                    /* of the counters */

  pthread_mutex_t lock;         /* protects what follows */
  pthread_cond_t wake;
  bool stop;
  struct pulse pulse;
} the = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* --- totals ------------------------------------------------------------------ */

/* Under which name LINE is added up; NULL: it is not. */
static const char *
total_name (const struct line *l)
{
  switch (l->kind) {
  case ESP_STATS_TIER:
  case ESP_STATS_NODE:
  case ESP_STATS_CENTER:
  case ESP_STATS_EXPORT:
    return l->name;
  case ESP_STATS_VENUE:
    return strncmp (l->name, "rp:", 3) == 0 ? "rp:" : l->name;
  case ESP_STATS_RP:
    return "";
  default:
    return NULL;
  }
}

static int
compare_total (enum esp_stats_kind kind, const char *name,
               const struct pulse_total *t)
{
  if (kind != t->kind)
    return kind < t->kind ? -1 : 1;
  return strcmp (name, t->name);
}

/* NULL: memory is out, or there are too many. */
static struct pulse_total *
total_get (struct pulse *p, enum esp_stats_kind kind, const char *name)
{
  size_t low = 0, high = p->ntotals;

  while (low < high) {
    size_t mid = low + (high - low) / 2;
    int r = compare_total (kind, name, &p->total[mid]);
    if (r == 0)
      return &p->total[mid];
    if (r > 0)
      low = mid + 1;
    else
      high = mid;
  }
  struct pulse_total *t = p->ntotals < TOTALS_MAX
    ? reallocarray (p->total, p->ntotals + 1, sizeof *t) : NULL;
  char *copy = t ? strdup (name) : NULL;
  if (t)
    p->total = t;
  if (!copy)
    return NULL;
  memmove (&t[low + 1], &t[low], (p->ntotals++ - low) * sizeof *t);
  t[low] = (struct pulse_total) { .kind = kind, .name = copy };
  return &t[low];
}

static void
point_add (struct pulse_point *point, const struct line *l, unsigned i,
           uint64_t grew)
{
  if (l->kind == ESP_STATS_VENUE || l->kind == ESP_STATS_EXPORT) {
    if (i == ESP_DISK_READ_BYTES)
      point->read_bytes += grew;
    if (i == ESP_DISK_WRITE_BYTES)
      point->write_bytes += grew;
    if (i == ESP_DISK_ERRORS)
      point->errors += grew;
  }
  for (unsigned t = 0; l->kind == ESP_STATS_TIER && t < PULSE_TIERS; t++) {
    if (strcmp (l->name, pulse_tier_names[t]) != 0)
      continue;
    if (i == ESP_TIER_HITS)
      point->tier[t].hits += grew;
    if (i == ESP_TIER_MISSES)
      point->tier[t].misses += grew;
  }
}

static int
take_line (struct pulse *p, struct pulse_point *point, const struct line *l,
           const struct line *before)
{
  const char *name = total_name (l);
  struct pulse_total *t;
  bool gauge;

  if (!name)
    return 0;
  if (!(t = total_get (p, l->kind, name)))
    return -1;
  for (unsigned i = 0; esp_stats_counter_name (l->kind, i, &gauge); i++) {
    uint64_t from = before ? before->c[i] : p->beats == 0 ? l->c[i] : 0;
    if (gauge || l->c[i] <= from)
      continue;
    t->c[i] += l->c[i] - from;
    point_add (point, l, i, l->c[i] - from);
  }
  return 0;
}

int
pulse_take (struct pulse *p, const struct sample *before,
            const struct sample *now)
{
  struct pulse_point *point = &p->point[p->next];
  int r = 0;

  *point = (struct pulse_point) { .read_bytes = 0 };
  for (size_t i = 0; i < now->n; i++)
    if (take_line (p, point, &now->line[i],
                   sample_same (before, &now->line[i])) == -1)
      r = -1;
  point->read_bytes /= PULSE_SECONDS;
  point->write_bytes /= PULSE_SECONDS;
  p->next = (p->next + 1) % PULSE_POINTS;
  p->beats++;
  return r;
}

void
pulse_clear (struct pulse *p)
{
  for (size_t i = 0; i < p->ntotals; i++)
    free (p->total[i].name);
  free (p->total);
  sample_clear (&p->now);
  *p = (struct pulse) { .beats = 0 };
}

/* --- the thread --------------------------------------------------------------- */

/* What cannot be read now may be the next time; it is told once. */
static void
beat (void)
{
  static bool told;
  char why[256] = "";
  struct sample now;

  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = sample_load (&now, the.dir, the.pulse.beats > 0
                       ? &the.pulse.now : NULL);
  esp_catch_end (outer);
  if (r == -1 && !told)
    esp_error ("live counters cannot be read: %s", why);
  told = r == -1;
  if (r == -1)
    return;
  ESP_LOCK_SCOPE (&the.lock);
  pulse_take (&the.pulse, &the.pulse.now, &now);
  sample_clear (&the.pulse.now);
  the.pulse.now = now;
}

/* True when it is time to end. */
static bool
wait_a_beat (void)
{
  struct timespec until;

  clock_gettime (CLOCK_MONOTONIC, &until);
  until.tv_sec += PULSE_SECONDS;
  ESP_LOCK_SCOPE (&the.lock);
  while (!the.stop &&
         pthread_cond_timedwait (&the.wake, &the.lock, &until) != ETIMEDOUT)
    ;
  return the.stop;
}

static void *
run (void *arg)
{
  do
    beat ();
  while (!wait_a_beat ());
  return arg;
}

int
pulse_start (struct esp_store *store)
{
  pthread_condattr_t attr;
  int r;

  the.dir = esp_stats_dir (store);
  if (!the.dir)
    return -1;
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&the.wake, &attr);
  pthread_condattr_destroy (&attr);
  the.stop = false;
  if ((r = pthread_create (&the.thread, NULL, run, NULL)) != 0) {
    errno = r;
    esp_error ("pthread_create: %m");
    pthread_cond_destroy (&the.wake);
    free (ESP_STEAL (the.dir));
    return -1;
  }
  return 0;
}

void
pulse_stop (void)
{
  if (!the.dir)
    return;
  pthread_mutex_lock (&the.lock);
  the.stop = true;
  pthread_cond_signal (&the.wake);
  pthread_mutex_unlock (&the.lock);
  pthread_join (the.thread, NULL);
  pthread_cond_destroy (&the.wake);
  pulse_clear (&the.pulse);
  free (ESP_STEAL (the.dir));
}

const struct pulse *
pulse_begin (void)
{
  pthread_mutex_lock (&the.lock);
  return &the.pulse;
}

void
pulse_end (void)
{
  pthread_mutex_unlock (&the.lock);
}
