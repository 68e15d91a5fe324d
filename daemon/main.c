/* SPDX-License-Identifier: BSD-3-Clause */
/* espalierd: begin, signals, end.
 *
 * This thread blocks the signals that the daemon knows before there are others,
 * and then waits for them.  Parts are started in the order of their table and
 * ended in the other, so that what is used outlives who uses it: no new
 * requests, bridges, the stack, the store.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api.h"
#include "boot.h"
#include "bridge.h"
#include "daemon.h"
#include "files.h"
#include "log.h"
#include "notify.h"
#include "options.h"
#include "parts.h"
#include "peers.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

enum { OK = 0, FAILED = 1 };

/* Others add a line. */
static const struct part {
  int (*start) (const struct config *config);
  void (*stop) (void);
} parts[] = {
  { daemon_start, daemon_stop },
  { api_start, api_stop },
  { stack_start, stack_stop },
  { files_start, files_stop },
  { bridge_start, bridge_stop },
  { peers_set, peers_stop },
  { boot_start, boot_stop },
  { http_start, http_stop },
};
#define NPARTS (sizeof parts / sizeof *parts)

/* --- the configuration ------------------------------------------------------------ */

static void
print_config (const struct config *config)
{
  struct config_setting s;
  char *text;

  for (size_t i = 0; config_setting (i, &s); i++)
    for (size_t k = 0; (text = config_text (config, s.name, k)); k++) {
      bool quote = strchr (text, '#') || text[strspn (text, " \t")] == '"';
      printf ("%s =%s%s%s%s\n", s.name, *text ? " " : "", quote ? "\"" : "",
              text, quote ? "\"" : "");
      free (text);
    }
}

static void
needs_restart (const char *name)
{
  esp_warning ("%s has changed: it counts when espalierd is restarted", name);
}

static void
reload (const struct config_source *source)
{
  struct config *config;

  notify_reloading ();
  config = config_load (source);
  if (config) {
    config_use (config, needs_restart);
    CLEANUP_CONFIG const struct config *now = config_get ();
    if (peers_set (now) == -1)
      esp_error ("the list of servers stays as it was");
    log_info ("the configuration was read again");
  }
  else
    esp_error ("the configuration stays as it was");
  notify ("READY=1");
}

/* --- signals ------------------------------------------------------------------------ */

static sigset_t
handled (void)
{
  sigset_t set;

  sigemptyset (&set);
  sigaddset (&set, SIGHUP);
  sigaddset (&set, SIGTERM);
  sigaddset (&set, SIGINT);
  return set;
}

/* Until one of them says that we are to end; it is returned. */
static int
serve (const struct config_source *source)
{
  const struct timespec second = { .tv_sec = 1 };
  const sigset_t set = handled ();

  for (;;) {
    int signal = sigtimedwait (&set, NULL, &second);
    if (signal == SIGHUP)
      reload (source);
    else if (signal > 0)
      return signal;
    http_reap ();
  }
}

static void
at_once (int number)
{
  (void) number;
  _exit (FAILED);               /* what we started dies with us */
}

/* From now on, one of them ends us where we are. */
static void
end_at_once (void)
{
  struct sigaction action = { .sa_handler = at_once };
  sigset_t set = handled ();

  sigaction (SIGTERM, &action, NULL);
  sigaction (SIGINT, &action, NULL);
  sigdelset (&set, SIGHUP);
  pthread_sigmask (SIG_UNBLOCK, &set, NULL);
}

/* --- begin and end -------------------------------------------------------------------- */

/* For scripts: where we listen, as NAME=PORT; there while we do. */
static int
write_ports (void)
{
  char text[80];
  int n = snprintf (text, sizeof text, "http=%u\nnbd=%u\n", http_port (),
                    stack_port ());
  CLEANUP_FREE char *path = esp_asprintf ("%s/ports", daemon_dir ());

  return path ? esp_write_file_atomic (AT_FDCWD, path, text, (size_t) n, 0600)
    : -1;
}

static void
remove_ports (void)
{
  CLEANUP_FREE char *path = esp_asprintf ("%s/ports", daemon_dir ());

  if (path)
    unlink (path);
}

static int
run (const struct options *o)
{
  CLEANUP_CONFIG const struct config *config = config_get ();
  size_t n;
  int r = OK;

  for (n = 0; n < NPARTS && r == OK; n++)
    if (parts[n].start (config) == -1)
      r = FAILED;
  if (r == OK && write_ports () == -1)
    r = FAILED;
  if (r == OK) {
    notify ("READY=1");
    log_info ("espalierd %s, store %s", esp_version (), config->store);
    int signal = serve (&o->source);
    notify ("STOPPING=1");
    log_info ("ending: signal %d", signal);
    remove_ports ();
  }
  end_at_once ();
  while (n-- > 0)
    parts[n].stop ();
  return r;
}

static int
act (const struct options *o)
{
  struct config *config;
  const sigset_t set = handled ();

  config = config_load (&o->source);
  if (!config)
    return FAILED;
  config_use (config, needs_restart);
  if (o->action == ACTION_PRINT)
    print_config (config);
  if (o->action != ACTION_RUN)
    return fflush (stdout) == 0 ? OK : FAILED;
  signal (SIGPIPE, SIG_IGN);
  pthread_sigmask (SIG_BLOCK, &set, NULL);
  umask (0077);
  esp_raise_open_files ();
  return run (o);
}

int
main (int argc, char **argv)
{
  struct options o;
  int r;

  setlocale (LC_ALL, "");
  r = options_parse (argc, argv, &o);
  log_init (o.verbose);
  if (r == 0 && o.action == ACTION_HELP)
    options_help ();
  else if (r == 0 && o.action == ACTION_VERSION)
    printf ("espalierd %s\n", esp_version ());
  else if (r == 0)
    r = act (&o);
  options_clear (&o);
  return r;
}
