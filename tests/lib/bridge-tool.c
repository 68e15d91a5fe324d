/* SPDX-License-Identifier: BSD-3-Clause */
/* espalierd without its HTTP: the store, the stack and the iSCSI bridge, asked
 * by lines on standard input.
 *
 *   bridge-tool [OPTIONS OF ESPALIERD...]
 *
 *   target VENUE CLIENT DISKS ADDRESS [USER SECRET]    PORT IQN, or: error TEXT
 *   twice VENUE CLIENT DISKS ADDRESS                   the same from two threads
 *   many COUNT VENUE ADDRESS                           milliseconds in all, how
 *                                                      many were made; "-": 100 for each address
 *   each                                               CLIENT STATE IQN…, end
 *   counts                                             MADE DIED
 *   stack                                              the pid of nbdkit
 *   quit                                               or the end of the input
 */

#include <config.h>

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bridge.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/parts.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/host.h"

struct job {
  struct bridge_want want;
  char user[64], secret[64], line[1024];
};

static void *
job_run (void *arg)
{
  struct job *j = arg;
  const struct config *config = config_get ();
  struct bridge_target t;
  char why[700] = "";
  struct esp_catch before = esp_catch_begin (why, sizeof why);

  if (*j->user) {
    j->want.chap_user = j->user;
    j->want.chap_secret = j->secret;
  }
  if (bridge_target (config, &j->want, &t) == -1)
    snprintf (j->line, sizeof j->line, "error %s", why);
  else
    snprintf (j->line, sizeof j->line, "%u %s", t.port, t.iqn);
  esp_catch_end (before);
  config_put (config);
  return NULL;
}

static void
twice (const struct job *j)
{
  struct job a = *j, b = *j;
  pthread_t thread;

  pthread_create (&thread, NULL, job_run, &a);
  job_run (&b);
  pthread_join (thread, NULL);
  printf ("%s\n%s\n", a.line, b.line);
}

/* COUNT clients, 16 at once. */
static struct job *jobs;
static unsigned njobs, next_job;
static pthread_mutex_t jobs_lock = PTHREAD_MUTEX_INITIALIZER;

static void *
jobs_run (void *arg)
{
  (void) arg;
  for (;;) {
    unsigned i;

    pthread_mutex_lock (&jobs_lock);
    i = next_job++;
    pthread_mutex_unlock (&jobs_lock);
    if (i >= njobs)
      return NULL;
    job_run (&jobs[i]);
  }
}

static void
many (unsigned n, const char *venue, const char *address)
{
  uint64_t begin = esp_now_us ();
  pthread_t threads[16];
  unsigned bad = 0;

  jobs = calloc (n, sizeof *jobs);
  njobs = n;
  next_job = 0;
  for (unsigned i = 0; i < n; i++) {
    jobs[i].want.ndisks = 1;
    snprintf (jobs[i].want.venue, sizeof jobs[i].want.venue, "%s", venue);
    snprintf (jobs[i].want.client, sizeof jobs[i].want.client, "many-%u", i);
    if (strcmp (address, "-") == 0)
      snprintf (jobs[i].want.address, sizeof jobs[i].want.address,
                "127.0.1.%u", i / 100 + 1);
    else
      snprintf (jobs[i].want.address, sizeof jobs[i].want.address, "%s",
                address);
  }
  for (unsigned i = 0; i < 16; i++)
    pthread_create (&threads[i], NULL, jobs_run, NULL);
  for (unsigned i = 0; i < 16; i++)
    pthread_join (threads[i], NULL);
  for (unsigned i = 0; i < n; i++)
    if (strncmp (jobs[i].line, "error", 5) == 0 && bad++ == 0)
      printf ("%s\n", jobs[i].line);
  printf ("%" PRIu64 " %u\n", (esp_now_us () - begin) / 1000, n - bad);
  free (jobs);
}

static void
each_one (void *arg, const struct bridge_seen *s)
{
  (void) arg;
  printf ("%s %s %s %s %s\n", s->client, s->state, s->iqn, s->venue,
          s->address);
}

static bool
command (char *line)
{
  char verb[32] = "", venue[129] = "", client[129] = "", address[64] = "";
  struct job j = { 0 };
  unsigned n = 0;

  sscanf (line, "%31s", verb);
  if (sscanf (line, "%*s %128s %128s %u %63s %63s %63s", venue, client, &n,
              address, j.user, j.secret) >= 4) {
    strcpy (j.want.venue, venue);
    strcpy (j.want.client, client);
    strcpy (j.want.address, address);
    j.want.ndisks = n;
  }
  if (strcmp (verb, "target") == 0) {
    job_run (&j);
    printf ("%s\n", j.line);
  }
  else if (strcmp (verb, "twice") == 0)
    twice (&j);
  else if (strcmp (verb, "many") == 0
           && sscanf (line, "%*s %u %128s %63s", &n, venue, address) == 3)
    many (n, venue, address);
  else if (strcmp (verb, "each") == 0) {
    bridge_each (each_one, NULL);
    printf ("end\n");
  }
  else if (strcmp (verb, "counts") == 0) {
    uint64_t made, died;

    bridge_counts (&made, &died);
    printf ("%" PRIu64 " %" PRIu64 "\n", made, died);
  }
  else if (strcmp (verb, "stack") == 0) {
    struct stack_info info;

    stack_info (&info);
    printf ("%d\n", info.state == STACK_UP ? info.pid : 0);
  }
  else
    return false;
  fflush (stdout);
  return true;
}

int
main (int argc, char **argv)
{
  struct options o;
  struct config *config;
  char line[1024];

  if (options_parse (argc, argv, &o) == -1)
    return 2;
  log_init (o.verbose);
  config = config_load (&o.source);
  if (!config)
    return 1;
  config_use (config, NULL);
  signal (SIGPIPE, SIG_IGN);
  esp_raise_open_files ();
  if (daemon_start (config) == -1 || stack_start (config) == -1
      || bridge_start (config) == -1)
    return 1;
  printf ("ready\n");
  fflush (stdout);
  while (fgets (line, sizeof line, stdin) && command (line))
    ;
  bridge_stop ();
  stack_stop ();
  daemon_stop ();
  options_clear (&o);
  return 0;
}
