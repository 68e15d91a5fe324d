/* SPDX-License-Identifier: BSD-3-Clause */
/* replay: read from an NBD server what a machine once read while it booted
 * (bench/trace), with the pauses that it made, and tell how long it waited.
 *
 *   replay [--clients N] [--no-pauses] TRACE URI
 *
 * What a machine sends next depends on what it was answered.  So a request is
 * sent when all requests that had been answered before it in the trace have
 * been answered here too, and then as much later as it was in the trace.
 * Requests that were in flight together are so here, and a slow answer moves
 * all that follows.
 *
 * With --clients each of N connections, begun together, replays all of it; a
 * %d in the URI becomes 0 .. N-1.  One line of JSON is printed: "seconds" from
 * the first request to the last answer, "waited" the part of it during which
 * at least one read was in flight (both of the slowest client, and of the
 * median one), and of all clients' reads the latencies.
 */

#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libnbd.h>

#define CLIENTS_MAX 1024
#define IN_FLIGHT_MAX 256
#define LENGTH_MAX (32u << 20)

struct request {
  int64_t begin, end;           /* us, in the trace */
  uint64_t offset;
  uint32_t length;
  size_t needs;                 /* so many of by_end must be answered */
};

static struct request *trace;
static size_t ntrace;
static size_t *by_end;          /* requests in the order of their answers */
static bool pauses = true;

struct client {
  pthread_t thread;
  char *uri;
  struct nbd_handle *nbd;
  int64_t *sent, *answered;     /* us; answered 0: not yet */
  bool failed;
  size_t in_flight;
  int64_t busy_since, waited;   /* us with a read in flight */
  int64_t total;
};

static void __attribute__ ((noreturn, format (printf, 1, 2)))
die (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  fputs ("replay: ", stderr);
  vfprintf (stderr, fmt, args);
  fputc ('\n', stderr);
  exit (1);
}

static void *
allocate (size_t n, size_t size)
{
  void *p = calloc (n ? n : 1, size);

  if (!p)
    die ("out of memory");
  return p;
}

static int64_t
now_us (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* --- the trace --------------------------------------------------------- */

static void
parse_line (const char *path, unsigned number, const char *line)
{
  struct request *r = &trace[ntrace];
  uint64_t length;

  if (line[0] == '#' || line[0] == '\n')
    return;
  if (sscanf (line, "%" SCNd64 " %" SCNd64 " %" SCNu64 " %" SCNu64,
              &r->begin, &r->end, &r->offset, &length) != 4 ||
      r->begin < 0 || r->end < 0 || length > LENGTH_MAX ||
      (ntrace > 0 && r->begin < r[-1].begin))
    die ("%s:%u: not a line of a trace", path, number);
  r->end += r->begin;
  r->length = (uint32_t) length;
  ntrace++;
}

static int
compare_end (const void *a, const void *b)
{
  const struct request *x = &trace[*(const size_t *) a];
  const struct request *y = &trace[*(const size_t *) b];

  return (x->end > y->end) - (x->end < y->end);
}

static void
load_trace (const char *path)
{
  FILE *f = fopen (path, "r");
  char line[256];
  unsigned number = 0;
  size_t room = 0, needs = 0;

  if (!f)
    die ("%s: %s", path, strerror (errno));
  while (fgets (line, sizeof line, f)) {
    if (ntrace == room) {
      room = room ? 2 * room : 1024;
      trace = realloc (trace, room * sizeof *trace);
      if (!trace)
        die ("out of memory");
    }
    parse_line (path, ++number, line);
  }
  fclose (f);
  if (ntrace == 0)
    die ("%s: no requests in it", path);
  by_end = allocate (ntrace, sizeof *by_end);
  for (size_t i = 0; i < ntrace; ++i)
    by_end[i] = i;
  qsort (by_end, ntrace, sizeof *by_end, compare_end);
  for (size_t i = 0; i < ntrace; ++i) {
    while (needs < ntrace && trace[by_end[needs]].end <= trace[i].begin &&
           by_end[needs] < i)
      needs++;
    trace[i].needs = needs;
  }
}

/* --- one client -------------------------------------------------------- */

struct answer {
  struct client *client;
  size_t i;
  void *buf;
};

static int
on_answer (void *arg, int *error)
{
  struct answer *a = arg;
  struct client *c = a->client;

  c->answered[a->i] = now_us ();
  if (*error)
    c->failed = true;
  if (--c->in_flight == 0)
    c->waited += c->answered[a->i] - c->busy_since;
  free (a->buf);
  free (a);
  return 1;
}

static void
handle_events (struct client *c, int timeout_ms)
{
  if (nbd_poll (c->nbd, timeout_ms) == -1)
    die ("%s: %s", c->uri, nbd_get_error ());
  if (c->failed)
    die ("%s: a read failed", c->uri);
}

static void
send_read (struct client *c, size_t i)
{
  struct answer *a = allocate (1, sizeof *a);

  while (c->in_flight >= IN_FLIGHT_MAX)
    handle_events (c, -1);
  *a = (struct answer) { c, i, allocate (trace[i].length, 1) };
  c->sent[i] = now_us ();
  if (c->in_flight++ == 0)
    c->busy_since = c->sent[i];
  if (nbd_aio_pread (c->nbd, a->buf, trace[i].length, trace[i].offset,
                     (nbd_completion_callback) { .callback = on_answer,
                                                 .user_data = a }, 0) == -1)
    die ("%s: %s", c->uri, nbd_get_error ());
}

/* Handle what comes until TIME. */
static void
wait_until (struct client *c, int64_t time)
{
  int64_t left;

  while ((left = time - now_us ()) > 0) {
    struct timespec t = { .tv_nsec = left * 1000 };

    if (left >= 1000)
      handle_events (c, (int) (left / 1000));
    else
      nanosleep (&t, NULL);
  }
}

static void
replay_one (struct client *c, size_t i, size_t *seen, int64_t *last)
{
  const struct request *r = &trace[i];
  int64_t think;

  while (*seen < r->needs) {
    size_t k = by_end[*seen];

    while (c->answered[k] == 0)
      handle_events (c, -1);
    if (c->answered[k] > *last)
      *last = c->answered[k];
    ++*seen;
  }
  think = r->begin - (r->needs ? trace[by_end[r->needs - 1]].end : 0);
  if (pauses)
    wait_until (c, *last + think);
  if (r->length > 0)
    send_read (c, i);
  else
    c->answered[i] = now_us () + (pauses ? r->end - r->begin : 0);
}

static void *
client_run (void *arg)
{
  struct client *c = arg;
  int64_t begin = now_us (), last = begin;
  size_t seen = 0;

  for (size_t i = 0; i < ntrace; ++i)
    replay_one (c, i, &seen, &last);
  while (c->in_flight > 0)
    handle_events (c, -1);
  c->total = now_us () - begin;
  nbd_shutdown (c->nbd, 0);
  nbd_close (c->nbd);
  return NULL;
}

static void
client_connect (struct client *c, const char *uri, int number)
{
  const char *at = strstr (uri, "%d");

  if ((at ? asprintf (&c->uri, "%.*s%d%s", (int) (at - uri), uri, number,
                      at + 2) : asprintf (&c->uri, "%s", uri)) == -1)
    die ("out of memory");
  c->sent = allocate (ntrace, sizeof *c->sent);
  c->answered = allocate (ntrace, sizeof *c->answered);
  c->nbd = nbd_create ();
  if (!c->nbd || nbd_connect_uri (c->nbd, c->uri) == -1)
    die ("%s", nbd_get_error ());
}

/* --- the result -------------------------------------------------------- */

static int
compare_time (const void *a, const void *b)
{
  int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;

  return (x > y) - (x < y);
}

static double
percentile (const int64_t *sorted, size_t n, double part)
{
  size_t i = (size_t) (part * (double) n);

  return n ? (double) sorted[i < n ? i : n - 1] / 1000 : 0;
}

static void
print_result (const struct client *clients, int n)
{
  int64_t *latency = allocate (ntrace * (size_t) n, sizeof *latency);
  int64_t *total = allocate ((size_t) n, sizeof *total);
  int64_t *waited = allocate ((size_t) n, sizeof *waited);
  size_t nreads = 0;
  uint64_t bytes = 0;

  for (int c = 0; c < n; ++c) {
    total[c] = clients[c].total;
    waited[c] = clients[c].waited;
    for (size_t i = 0; i < ntrace; ++i)
      if (trace[i].length > 0) {
        latency[nreads++] = clients[c].answered[i] - clients[c].sent[i];
        bytes += trace[i].length;
      }
  }
  qsort (latency, nreads, sizeof *latency, compare_time);
  qsort (total, (size_t) n, sizeof *total, compare_time);
  qsort (waited, (size_t) n, sizeof *waited, compare_time);
  printf ("{\"clients\": %d, \"reads\": %zu, \"bytes\": %" PRIu64 ", "
          "\"seconds\": %.6f, \"seconds_median\": %.6f, "
          "\"waited\": %.6f, \"waited_median\": %.6f, \"p50_ms\": %.3f, "
          "\"p99_ms\": %.3f, \"max_ms\": %.3f}\n", n, nreads, bytes,
          (double) total[n - 1] / 1e6, (double) total[n / 2] / 1e6,
          (double) waited[n - 1] / 1e6, (double) waited[n / 2] / 1e6,
          percentile (latency, nreads, 0.5),
          percentile (latency, nreads, 0.99), percentile (latency, nreads, 1));
  free (latency);
  free (total);
  free (waited);
}

int
main (int argc, char *argv[])
{
  static const struct option options[] = {
    { "clients", required_argument, NULL, 'c' },
    { "no-pauses", no_argument, NULL, 'n' },
    { NULL, 0, NULL, 0 }
  };
  struct client *clients;
  int opt, n = 1;

  while ((opt = getopt_long (argc, argv, "", options, NULL)) != -1)
    if (opt == 'c')
      n = atoi (optarg);
    else if (opt == 'n')
      pauses = false;
    else
      return 2;
  if (argc - optind != 2 || n < 1 || n > CLIENTS_MAX)
    die ("usage: replay [--clients N] [--no-pauses] TRACE URI");
  load_trace (argv[optind]);
  clients = allocate ((size_t) n, sizeof *clients);
  for (int i = 0; i < n; ++i)
    client_connect (&clients[i], argv[optind + 1], i);
  for (int i = 0; i < n; ++i)
    if (pthread_create (&clients[i].thread, NULL, client_run,
                        &clients[i]) != 0)
      die ("pthread_create");
  for (int i = 0; i < n; ++i)
    pthread_join (clients[i].thread, NULL);
  print_result (clients, n);
  return 0;
}
