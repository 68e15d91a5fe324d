/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier stats: what the servers of a store do, now. */

#include <config.h>

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "stats.h"

#define INTERVAL_MAX 86400.0    /* seconds */

struct watch {
  const char *dir;
  struct choice choice;
  double interval;
  bool terminal;
};

/* --- a screen -------------------------------------------------------------------- */

/* Write TEXT over what the terminal shows: line by line, as many and as much
 * of them as there is room for (no wrapping: DECAWM off), so that nothing
 * scrolls or flickers.
 */
static void
draw (const char *text)
{
  struct winsize w;
  unsigned rows = ioctl (STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 1
    ? w.ws_row - 1u : 24u;

  fputs ("\033[H\033[?7l", stdout);
  for (unsigned i = 0; i < rows && *text; i++) {
    size_t len = strcspn (text, "\n");
    printf ("%.*s\033[K\n", (int) len, text);
    text += len + (text[len] == '\n');
  }
  fputs ("\033[J\033[?7h", stdout);
}

/* What sample_show prints, as a text.  (glibc's stdout is a variable.) */
static char *
show_into_text (const struct sample *s, const struct choice *choice)
{
  char *text = NULL;
  size_t len;
  FILE *real = stdout, *memory = open_memstream (&text, &len);

  if (!memory) {
    esp_error ("malloc: %m");
    exit (CLI_FAILED);
  }
  stdout = memory;
  sample_show (s, choice, true);
  stdout = real;
  fclose (memory);
  return text;
}

static bool
is_chosen (const void *choice, const struct line *line)
{
  return choice_has (choice, line);
}

static json_t *
json_of (const struct sample *s, const struct choice *choice, double seconds)
{
  return sample_json (s, cli.store ? cli_catalog () : NULL, seconds,
                      is_chosen, choice);
}

/* --- one look ---------------------------------------------------------------------- */

static int
print_once (const struct watch *w)
{
  CLEANUP_SAMPLE struct sample s = { 0 };

  if (sample_load (&s, w->dir, NULL) == -1)
    return CLI_FAILED;
  if (cli.json)
    return json_print (json_of (&s, &w->choice, 0));
  sample_show (&s, &w->choice, false);
  return CLI_OK;
}

/* --- many --------------------------------------------------------------------------- */

static int
print_json_line (json_t *root)
{
  int r = json_dumpf (root, stdout, JSON_COMPACT);

  json_decref (root);
  putchar ('\n');
  return r;
}

static void
print_block (const struct watch *w, const struct sample *s)
{
  static bool again;
  char when[32];

  if (w->terminal) {
    CLEANUP_FREE char *text = show_into_text (s, &w->choice);
    draw (text);
    return;
  }
  if (again)
    putchar ('\n');
  again = true;
  printf ("%s\n", esp_time_format ((uint64_t) time (NULL), when));
  sample_show (s, &w->choice, true);
}

/* Sleep; true when a signal says that it is enough. */
static bool
interrupted (const sigset_t *signals, double seconds)
{
  struct timespec t = { .tv_sec = (time_t) seconds };

  t.tv_nsec = (long) ((seconds - (double) t.tv_sec) * 1e9);
  return sigtimedwait (signals, NULL, &t) >= 0;
}

/* The same warning at each look is said once. */
static int
load_again (const struct watch *w, struct sample *s,
            const struct sample *before)
{
  static char said[512];
  char why[512] = "";

  esp_catch_errors (why, sizeof why);
  int r = sample_load (s, w->dir, before);
  esp_catch_errors (NULL, 0);
  if (*why && (r == -1 || strcmp (why, said) != 0)) {
    snprintf (said, sizeof said, "%s", why);
    esp_error ("%s", why);
  }
  return r;
}

static int
watch (const struct watch *w)
{
  CLEANUP_SAMPLE struct sample before = { 0 };
  sigset_t signals;

  sigemptyset (&signals);
  sigaddset (&signals, SIGINT);
  sigaddset (&signals, SIGTERM);
  sigaddset (&signals, SIGHUP);
  sigprocmask (SIG_BLOCK, &signals, NULL);
  if (load_again (w, &before, NULL) == -1)
    return CLI_FAILED;
  if (w->terminal)
    fputs ("\033[2J", stdout);
  while (fflush (stdout) == 0 && !interrupted (&signals, w->interval)) {
    struct sample now = { 0 };
    if (load_again (w, &now, &before) == -1)
      return CLI_FAILED;
    double seconds = (double) (now.taken - before.taken) / 1e6;
    if (cli.json)
      print_json_line (json_of (&now, &w->choice, seconds));
    else
      print_block (w, &now);
    sample_clear (&before);
    before = now;
  }
  return ferror (stdout) ? CLI_FAILED : CLI_OK;
}

/* --- the command ----------------------------------------------------------------------- */

/* The store for names, as far as it can be opened; where the counters of its
 * servers are.
 */
static char *
open_store (void)
{
  CLEANUP_FREE char *path = esp_store_default_path (cli.store_option);
  char why[512];

  if (!path)
    return NULL;
  esp_catch_errors (why, sizeof why);
  cli.store = esp_store_open (path);
  esp_catch_errors (NULL, 0);
  if (!cli.store) {
    cli.store = esp_store_open_damaged (path);
    if (!cli.store)
      return NULL;
    esp_warning ("names are not known: %s", why);
  }
  char *dir = esp_stats_dir (cli.store);
  if (cli_catalog ())
    return dir;
  esp_store_close (ESP_STEAL (cli.store));
  return dir;
}

/* Where the counters are (malloced), NULL after an error was printed. */
static char *
find_dir (const struct args *args)
{
  CLEANUP_FREE char *of_store = NULL;
  const char *dir = opt_value (args, "dir");
  struct stat st;

  if (!dir || cli.store_option)
    of_store = open_store ();
  if (!dir || (cli.store_option && !of_store))
    return ESP_STEAL (of_store);
  if (stat (dir, &st) == 0)
    return xstrdup (dir);
  esp_error ("--dir %s: %m", dir);
  return NULL;
}

static int
get_interval (const struct args *args, double *out)
{
  const char *text = opt_value (args, "interval");
  char *end;

  *out = 1;
  if (!text)
    return CLI_OK;
  if (!opt_has (args, "watch"))
    return usage (args->cmd, "--interval is for --watch");
  *out = strtod (text, &end);
  if (end == text || *end || !(*out >= 1 && *out <= INTERVAL_MAX))
    return usage (args->cmd, "--interval %s: give seconds, 1 to %.0f", text,
                  INTERVAL_MAX);
  return CLI_OK;
}

static int
stats_run (const struct args *args)
{
  CLEANUP_FREE char *dir = NULL;
  struct watch w = { .terminal = !cli.json && isatty (STDOUT_FILENO) };
  int r = get_interval (args, &w.interval);

  if (r != 0)
    return r;
  w.dir = dir = find_dir (args);
  if (!dir)
    return CLI_FAILED;
  r = choice_make (&w.choice, args);
  if (r == 0)
    r = opt_has (args, "watch") ? watch (&w) : print_once (&w);
  choice_clear (&w.choice);
  return r;
}

static const struct opt stats_options[] = {
  { "watch", 'w', NULL, "show again and again how fast all grows", false },
  { "interval", 0, "SECONDS", "so often (1)", false },
  { "dir", 0, "DIR", "the counters there (segcache-stats=DIR of nbdkit)", false },
  { 0 },
};

const struct command stats_commands[] = {
  { "stats", "[VENUE|RP ...] [--watch] [--interval SECONDS] [--dir DIR]",
    "Show what the servers do now: caches, centers, venues, clients",
    "What is counted since each server began; with --watch, how much a second.",
    stats_options, 0, ARGS_ANY, 0, stats_run },
  { 0 },
};
