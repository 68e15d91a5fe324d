/* SPDX-License-Identifier: BSD-3-Clause */
/* The stack: nbdkit, started and watched, or one that is there already.
 *
 * One thread does it all: it starts the process, hands on what it says, finds
 * out when it serves, notices its end, waits a while, starts it again.
 * It has two ends of time: what it waits for (a greeting on a connection of
 * our own, which lies in the socket's queue until the new server takes it),
 * and the order to end, an eventfd.
 *
 *   STARTING ──greeting──► UP ──ended──► DOWN ──0, 1, 2, 4 … 30 s──► STARTING
 *
 * One that is up is asked again now and then: while it does not answer it counts
 * as DOWN, but is left alone.
 */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "listen.h"
#include "log.h"
#include "parts.h"
#include "stack-internal.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/file.h"
#include "util/host.h"

#define WAIT_MAX 30             /* seconds between two starts */
#define STEADY 60               /* seconds up, and waiting begins at 0 again */
#define END_MS 10000            /* from SIGTERM to SIGKILL */
#define ASK_EVERY 5000          /* ms; who has not answered by then, does not */
#define GREETING "NBDMAGIC"

/* Protects INFO. */
static pthread_mutex_t info_lock = PTHREAD_MUTEX_INITIALIZER;
static struct stack_info info;

static pthread_t thread;
static bool running;
static int stop_fd = -1;        /* readable: end */
static int fds[2] = { -1, -1 }; /* what listens: Unix, TCP */
static unsigned nfds;
static unsigned port;
static char *path;              /* of the Unix socket */

/* The watcher's own. */
static struct stack_child server = { .pidfd = -1, .log = -1 };
static char said[1024];         /* a line of the server's, until its end */
static size_t nsaid;
static char last[256];          /* the last whole one */

void
stack_info (struct stack_info *out)
{
  ESP_LOCK_SCOPE (&info_lock);
  *out = info;
}

unsigned
stack_port (void)
{
  return port;
}

static void
set_state (enum stack_state state, int pid, const char *why)
{
  ESP_LOCK_SCOPE (&info_lock);
  if (info.state != state)
    info.since = (uint64_t) time (NULL);
  info.state = state;
  info.pid = pid;
  snprintf (info.why, sizeof info.why, "%s", why);
}

/* --- what it says ------------------------------------------------------------- */

static void
end_line (void)
{
  said[nsaid] = 0;
  nsaid = 0;
  if (!*said)
    return;
  log_info ("stack: %s", said);
  snprintf (last, sizeof last, "%.255s", said);
  log_hide (last);
}

/* Hand on what is there; lines that are too long come in pieces. */
static void
drain_log (void)
{
  char buf[4096];
  ssize_t n;

  while (server.log != -1 && (n = read (server.log, buf, sizeof buf)) != -1) {
    for (ssize_t i = 0; i < n; i++) {
      if (buf[i] == '\n' || nsaid == sizeof said - 1)
        end_line ();
      if (buf[i] != '\n')
        said[nsaid++] = buf[i];
    }
    if (n == 0) {
      close (server.log);
      server.log = -1;
    }
  }
}

static void
close_log (void)
{
  drain_log ();
  if (nsaid > 0)
    end_line ();
  if (server.log != -1)
    close (server.log);
  server.log = -1;
}

/* --- does it serve? ------------------------------------------------------------- */

/* A connection to our own socket, on which the server's greeting will come. */
static int
begin_probe (void)
{
  CLEANUP_CLOSE int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC |
                                 SOCK_NONBLOCK, 0);
  struct sockaddr_un addr = { .sun_family = AF_UNIX };

  strcpy (addr.sun_path, path);
  if (fd == -1 || connect (fd, (struct sockaddr *) &addr, sizeof addr) == -1)
    return -1;
  return esp_steal_fd (&fd);
}

/* Read it and say goodbye as the protocol wants it (flags, then the option
 * "abort"); was it the greeting?
 */
static bool
end_probe (int *probe)
{
  static const char bye[] = "\0\0\0\1" "IHAVEOPT" "\0\0\0\2" "\0\0\0\0";
  char buf[18];
  ssize_t n = recv (*probe, buf, sizeof buf, 0);
  bool ok = n == sizeof buf && memcmp (buf, GREETING, strlen (GREETING)) == 0;

  if (ok)
    send (*probe, bye, sizeof bye - 1, MSG_NOSIGNAL);
  close (*probe);
  *probe = -1;
  return ok;
}

/* --- one life of the process ------------------------------------------------------ */

static bool
told_to_end (int ms)
{
  struct pollfd p = { .fd = stop_fd, .events = POLLIN };

  return poll (&p, 1, ms) == 1;
}

/* SIGTERM, and when it does not end (its clients are connected), SIGKILL. */
static void
end_server (void)
{
  char why[64];

  kill (server.pid, SIGTERM);
  if (!stack_child_wait (&server, END_MS, why)) {
    log_info ("stack: still has clients after %d s: killed", END_MS / 1000);
    kill (server.pid, SIGKILL);
    stack_child_wait (&server, -1, why);
  }
  close_log ();
}

/* Asked when, esp_now_us, on PROBE (-1: not now), and what came of it. */
struct asking { int probe; uint64_t at; bool answers; };

static void
see_answer (struct asking *a, bool readable)
{
  bool late = esp_now_us () - a->at > ASK_EVERY * 1000ull;

  if (readable && end_probe (&a->probe) && !a->answers) {
    a->answers = true;
    set_state (STACK_UP, server.pid, "");
    log_info ("the stack serves (process %d)", (int) server.pid);
  }
  if (late && a->probe != -1 && a->answers) {
    a->answers = false;
    set_state (STACK_DOWN, server.pid, "it does not answer");
    esp_error ("the stack does not answer (process %d)", (int) server.pid);
  }
  if (late && a->probe == -1) {
    a->probe = begin_probe ();
    a->at = esp_now_us ();
  }
}

/* Until the process has ended, or we are told to. */
static void
watch (void)
{
  struct asking asking = { .probe = begin_probe (), .at = esp_now_us () };
  enum { STOP, ENDED, LOG, PROBE, N };
  bool over = false;

  while (!over) {
    struct pollfd p[N] = {
      [STOP] = { .fd = stop_fd, .events = POLLIN },
      [ENDED] = { .fd = server.pidfd, .events = POLLIN },
      [LOG] = { .fd = server.log, .events = POLLIN },
      [PROBE] = { .fd = asking.probe, .events = POLLIN },
    };
    if (poll (p, N, 1000) == -1)
      continue;
    if (p[LOG].revents)
      drain_log ();
    see_answer (&asking, p[PROBE].revents != 0);
    over = p[STOP].revents || p[ENDED].revents;
  }
  if (asking.probe != -1)
    close (asking.probe);
}

static void
note_end (void)
{
  char how[64], text[256];

  stack_child_wait (&server, -1, how);
  close_log ();
  snprintf (text, sizeof text, "%s%s%.150s", how, *last ? ": " : "", last);
  set_state (STACK_DOWN, 0, text);
  esp_error ("the stack has ended: %s", text);
  ESP_LOCK_SCOPE (&info_lock);
  info.restarts++;
}

/* Start it and see it through.  False: we are to end. */
static bool
one_life (void)
{
  CLEANUP_CONFIG const struct config *config = config_get ();

  *last = 0;
  set_state (STACK_STARTING, 0, "");
  if (stack_child_start (config, fds, nfds, &server) == -1) {
    set_state (STACK_DOWN, 0, "it could not be started");
    return !told_to_end (0);
  }
  set_state (STACK_STARTING, server.pid, "");
  watch ();
  if (told_to_end (0)) {
    end_server ();
    return false;
  }
  note_end ();
  return true;
}

static void *
keep_up (void *arg)
{
  int wait = 0;

  (void) arg;
  for (;;) {
    uint64_t begun = esp_now_us ();
    if (!one_life ())
      return NULL;
    if (esp_now_us () - begun > STEADY * 1000000ull)
      wait = 0;
    if (told_to_end (wait * 1000))
      return NULL;
    wait = wait == 0 ? 1 : wait * 2 > WAIT_MAX ? WAIT_MAX : wait * 2;
  }
}

/* --- one that is not ours ---------------------------------------------------------- */

static void *
keep_asking (void *arg)
{
  CLEANUP_CONFIG const struct config *config = config_get ();
  struct stack_info was = { .state = STACK_STARTING };
  char why[200];

  (void) arg;
  do {
    int r = stack_ask (config->nbd, ASK_EVERY, why, sizeof why);
    set_state (r == 0 ? STACK_UP : STACK_DOWN, 0, r == 0 ? "" : why);
    if (r == 0 && was.state != STACK_UP)
      log_info ("%s answers", config->nbd);
    if (r == -1 && was.state != STACK_DOWN)
      esp_error ("%s does not answer: %s", config->nbd, why);
    was.state = r == 0 ? STACK_UP : STACK_DOWN;
  } while (!told_to_end (ASK_EVERY));
  return NULL;
}

/* --- begin and end -------------------------------------------------------------------- */

static int
open_sockets (const struct config *config)
{
  struct listen_at at = { 0 };
  char text[96];

  path = esp_asprintf ("%s/nbd.sock", daemon_dir ());
  if (!path)
    abort ();
  fds[nfds] = listen_open_unix (path);
  if (fds[nfds] == -1)
    return -1;
  nfds++;
  if (*config->nbd_listen) {
    listen_parse (config->nbd_listen, 10809, &at);
    fds[nfds] = listen_open (&at, "NBD", "nbd-listen");
    if (fds[nfds] == -1)
      return -1;
    nfds++;
    port = at.port;
    log_info ("NBD on %s", listen_format (&at, text));
  }
  stack_uri_set (path, NULL, at.host, at.port);
  return 0;
}

int
stack_start (const struct config *config)
{
  info.ours = !config->nbd;
  info.since = (uint64_t) time (NULL);
  stop_fd = eventfd (0, EFD_CLOEXEC);
  if (stop_fd == -1) {
    esp_error ("eventfd: %m");
    return -1;
  }
  if (config->nbd)
    stack_uri_set (NULL, config->nbd, "", 0);
  else if (open_sockets (config) == -1)
    return -1;
  errno = pthread_create (&thread, NULL, config->nbd ? keep_asking : keep_up,
                          NULL);
  if (errno != 0) {
    esp_error ("pthread_create: %m");
    return -1;
  }
  running = true;
  return 0;
}

void
stack_stop (void)
{
  if (running) {
    eventfd_write (stop_fd, 1);
    pthread_join (thread, NULL);
    running = false;
  }
  for (unsigned i = 0; i < nfds; i++)
    close (fds[i]);
  nfds = 0;
  if (path)
    unlink (path);
  free (path);
  path = NULL;
  if (stop_fd != -1)
    close (stop_fd);
  stop_fd = -1;
}
