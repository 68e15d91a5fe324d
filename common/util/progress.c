/* SPDX-License-Identifier: BSD-3-Clause */
/* A progress bar:
 *
 *   importing base [########--------]  52%  5.2G of 10G  410M/s  0:12 left
 *
 * One line that overwrites itself, as wide as the terminal.  What does not
 * fit is left out, the bar first.  The rate is the mean since the start:
 * copying holes makes anything shorter jump.
 */

#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "util/host.h"
#include "util/name.h"
#include "util/progress.h"

#define REDRAW_NS UINT64_C (100000000)  /* ten times a second */
#define WIDTH_MAX 200                   /* of the line, whatever the window */
#define BAR_MIN 10                      /* characters that a bar needs */
#define BAR_MAX 50

struct esp_progress {
  char label[64];
  bool shown;                   /* stderr is a terminal, and not QUIET */
  bool drawn;                   /* there is a line to clear */
  uint64_t start, last;         /* ns: when it began, was drawn last */
};

static volatile sig_atomic_t interrupted;

void
esp_progress_interrupt (void)
{
  interrupted = 1;
}

bool
esp_progress_interrupted (void)
{
  return interrupted != 0;
}

static uint64_t
now_ns (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

struct esp_progress *
esp_progress_new (const char *label, bool quiet)
{
  struct esp_progress *p = calloc (1, sizeof *p);

  if (!p) {
    esp_error ("malloc: %m");
    return NULL;
  }
  esp_escape (label, p->label, sizeof p->label);
  p->shown = !quiet && isatty (STDERR_FILENO);
  p->start = now_ns ();
  return p;
}

/* Columns of the terminal that a line may use. */
static unsigned
width (void)
{
  const char *env = getenv ("COLUMNS");
  struct winsize w;
  unsigned n = 0;

  if (ioctl (STDERR_FILENO, TIOCGWINSZ, &w) == 0)
    n = w.ws_col;
  if (n == 0 && env)
    n = (unsigned) strtoul (env, NULL, 10);
  if (n == 0)
    n = 80;
  /* One column less: writing into the last one makes some terminals wrap. */
  return n > WIDTH_MAX ? WIDTH_MAX : n > 1 ? n - 1 : 1;
}

static void
format_left (uint64_t seconds, char buf[32])
{
  unsigned long long s = seconds;

  if (s >= 360000)
    strcpy (buf, "days left");
  else if (s >= 3600)
    snprintf (buf, 32, "%llu:%02llu:%02llu left", s / 3600, s / 60 % 60,
              s % 60);
  else
    snprintf (buf, 32, "%llu:%02llu left", s / 60, s % 60);
}

/* Everything behind the bar: " 52%  5.2G of 10G  410M/s  0:12 left". */
static void
format_numbers (double elapsed, uint64_t done, uint64_t total, char *buf,
                size_t size)
{
  char d[16], t[16], r[16], left[32] = "";
  double rate = elapsed > 0 ? (double) done / elapsed : 0;

  if (rate >= 1 && done < total)
    format_left ((uint64_t) ((double) (total - done) / rate + 0.5), left);
  snprintf (buf, size, "%3u%%  %s of %s  %s/s  %s",
            total ? (unsigned) ((double) done * 100 / (double) total) : 100,
            esp_size_format (done, d), esp_size_format (total, t),
            esp_size_format ((uint64_t) rate, r), left);
}

static void
format_bar (char *buf, unsigned n, uint64_t done, uint64_t total)
{
  unsigned full = total
    ? (unsigned) ((double) n * (double) done / (double) total) : n;

  buf[0] = '[';
  for (unsigned i = 0; i < n; ++i)
    buf[1 + i] = i < full ? '#' : '-';
  strcpy (buf + 1 + n, "] ");
}

static void
draw (struct esp_progress *p, uint64_t now, uint64_t done, uint64_t total)
{
  char numbers[128], bar[BAR_MAX + 4] = "", line[512];
  unsigned cols = width ();

  format_numbers ((double) (now - p->start) / 1e9, done, total, numbers,
                  sizeof numbers);
  size_t used = strlen (p->label) + 1 + strlen (numbers) + 3;
  if (cols >= used + BAR_MIN)
    format_bar (bar, cols - used > BAR_MAX
                ? BAR_MAX : (unsigned) (cols - used), done, total);
  int n = snprintf (line, sizeof line, "%s %s%s", p->label, bar, numbers);
  if (n > (int) cols)
    line[cols] = 0;
  fprintf (stderr, "\r%s\033[K", line);
  fflush (stderr);
  p->drawn = true;
}

int
esp_progress_update (void *progress, uint64_t done, uint64_t total)
{
  struct esp_progress *p = progress;

  if (interrupted) {
    errno = ECANCELED;
    return -1;
  }
  if (!p->shown)
    return 0;
  if (done > total)
    done = total;
  uint64_t now = now_ns ();
  if (!p->drawn || now - p->last >= REDRAW_NS || done == total) {
    draw (p, now, done, total);
    p->last = now;
  }
  return 0;
}

void
esp_progress_clear (struct esp_progress *p)
{
  if (!p->drawn)
    return;
  fputs ("\r\033[K", stderr);
  fflush (stderr);
  p->drawn = false;
}

void
esp_progress_free (struct esp_progress *progress)
{
  if (!progress)
    return;
  esp_progress_clear (progress);
  free (progress);
}
