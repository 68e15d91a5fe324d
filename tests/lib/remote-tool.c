/* SPDX-License-Identifier: BSD-3-Clause */
/* remote-tool: remotes from a command line, for tests.
 *
 *   remote-tool [options] URL COMMAND ARGUMENTS... [-- COMMAND ...]
 *
 *   head NAME                    prints SIZE ETAG
 *   get NAME OFFSET LEN          bytes to standard output
 *   get-if NAME OFFSET LEN SIZE ETAG     the same, of that version
 *   all NAME MAX                 the whole object to standard output
 *   list PREFIX                  prints NAME SIZE ETAG
 *   put|put-absent NAME FILE     prints the new ETAG
 *   put-if NAME FILE ETAG        likewise
 *   delete NAME
 *   begin NAME                   prints an upload's id
 *   part NAME ID NUMBER FILE     prints NUMBER SIZE ETAG
 *   check|end NAME ID [NUMBER SIZE ETAG]...
 *   abort NAME ID
 *   uploads IDLE                 prints BYTES NAME ID of those left for IDLE s
 *   reap IDLE                    removes them: prints how many
 *   storm NAME LEN THREADS N     each thread gets N random pieces of LEN
 *                                bytes and compares them with the local file
 *                                given by --twin
 *   race NAME THREADS            each puts once, absent: prints how many won
 *   cancel NAME MS               a get of all of it, cancelled after MS;
 *                                prints how long it took to end
 *   stall NAME BYTES             a get whose sink stops after so many bytes,
 *                                until standard input ends
 *   counters                     requests=.. retries=.. errors=..
 *
 * Options: --ca F --cert F --key F --proxy URL --credentials F --profile P
 * --timeout S --connect-timeout S --retries N (0: none) --connections N
 * --once --gently --twin FILE
 *
 * Ends with 0, or with the name of the errno on standard error and 1.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "center/remote.h"
#include "util/cleanup.h"
#include "util/file.h"

static struct esp_remote_options options;
static bool once, gently;
static const char *twin;
static struct esp_remote *remote;

static void __attribute__ ((noreturn))
usage (const char *what)
{
  fprintf (stderr, "remote-tool: %s\n", what);
  exit (2);
}

static int
failed (void)
{
  fflush (stdout);
  fprintf (stderr, "%s\n", errno == ENOTSUP ? "ENOTSUP"
           : strerrorname_np (errno));
  return 1;
}

static int
write_out (void *arg, const void *buf, size_t len)
{
  (void) arg;
  return fwrite (buf, 1, len, stdout) == len ? 0 : -1;
}

static int
print_entry (void *arg, const char *name, const struct esp_object *o)
{
  (void) arg;
  printf ("%s %ju %s\n", name, (uintmax_t) o->size, o->etag);
  return 0;
}

static char *
load (const char *file, size_t *len)
{
  char *buf;

  if (esp_read_file (AT_FDCWD, file, 1u << 30, &buf, len) < 0) {
    perror (file);
    exit (2);
  }
  return buf;
}

static double
now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* --- commands ---------------------------------------------------------------- */

static int
cmd_head (char **a, int n)
{
  struct esp_object o;

  (void) n;
  if (esp_remote_head (remote, a[1], &o) < 0)
    return failed ();
  printf ("%ju %s\n", (uintmax_t) o.size, o.etag);
  return 0;
}

static int
cmd_get (char **a, int n)
{
  struct esp_object expect = { 0 };
  struct esp_get get = {
    .offset = strtoull (a[2], NULL, 0), .len = strtoull (a[3], NULL, 0),
    .sink = write_out, .gently = gently, .once = once,
  };

  if (n == 6) {
    expect.size = strtoull (a[4], NULL, 0);
    snprintf (expect.etag, sizeof expect.etag, "%s", a[5]);
    get.expect = &expect;
  }
  return esp_remote_get (remote, a[1], &get) < 0 ? failed () : 0;
}

static int
cmd_all (char **a, int n)
{
  size_t len;
  CLEANUP_FREE char *buf =
    esp_remote_get_all (remote, a[1], strtoull (a[2], NULL, 0), &len, NULL);

  (void) n;
  if (!buf)
    return failed ();
  fwrite (buf, 1, len, stdout);
  return 0;
}

static int
cmd_list (char **a, int n)
{
  (void) n;
  return esp_remote_list (remote, a[1], print_entry, NULL) < 0 ? failed () : 0;
}

static int
cmd_put (char **a, int n)
{
  struct esp_object o = { 0 }, version = { 0 };
  size_t len;
  CLEANUP_FREE char *buf = load (a[2], &len);
  int e;

  if (n == 4) {
    snprintf (version.etag, sizeof version.etag, "%s", a[3]);
    e = esp_remote_put_if (remote, a[1], &version, buf, len, &o);
  }
  else if (strcmp (a[0], "put") == 0)
    e = esp_remote_put (remote, a[1], buf, len, &o);
  else
    e = esp_remote_put_absent (remote, a[1], buf, len, &o);
  if (e < 0)
    return failed ();
  printf ("%s\n", o.etag);
  return 0;
}

static int
cmd_delete (char **a, int n)
{
  (void) n;
  return esp_remote_delete (remote, a[1]) < 0 ? failed () : 0;
}

static int
cmd_begin (char **a, int n)
{
  char id[ESP_UPLOAD_ID_MAX];

  (void) n;
  if (esp_remote_parts_begin (remote, a[1], id) < 0)
    return failed ();
  printf ("%s\n", id);
  return 0;
}

static int
cmd_part (char **a, int n)
{
  size_t len;
  CLEANUP_FREE char *buf = load (a[4], &len);
  struct esp_part part;

  (void) n;
  if (esp_remote_parts_put (remote, a[1], a[2], (unsigned) atoi (a[3]), buf,
                            len, &part) < 0)
    return failed ();
  printf ("%u %ju %s\n", part.number, (uintmax_t) part.size, part.etag);
  return 0;
}

static int
cmd_parts (char **a, int n)
{
  unsigned nparts = (unsigned) (n - 3) / 3;
  CLEANUP_FREE struct esp_part *parts = calloc (nparts + 1, sizeof *parts);
  struct esp_object o = { 0 };

  for (unsigned i = 0; i < nparts; ++i) {
    parts[i].number = (unsigned) atoi (a[3 + 3 * i]);
    parts[i].size = strtoull (a[4 + 3 * i], NULL, 0);
    snprintf (parts[i].etag, sizeof parts[i].etag, "%s", a[5 + 3 * i]);
  }
  if (strcmp (a[0], "check") == 0) {
    int there = esp_remote_parts_check (remote, a[1], a[2], parts, nparts);
    if (there < 0)
      return failed ();
    printf ("%d\n", there);
    return 0;
  }
  if (esp_remote_parts_end (remote, a[1], a[2], parts, nparts, &o) < 0)
    return failed ();
  printf ("%ju %s\n", (uintmax_t) o.size, o.etag);
  return 0;
}

static int
cmd_abort (char **a, int n)
{
  (void) n;
  return esp_remote_parts_abort (remote, a[1], a[2]) < 0 ? failed () : 0;
}

static int
cmd_uploads (char **a, int n)
{
  CLEANUP_UPLOAD_LIST struct esp_upload_list list = { 0 };
  unsigned gone = 0;
  int r;

  (void) n;
  if (esp_remote_uploads (remote, strtoull (a[1], NULL, 10), &list) < 0)
    return failed ();
  for (size_t i = 0; i < list.n; ++i)
    if (strcmp (a[0], "uploads") == 0)
      printf ("%ju %s %s\n", (uintmax_t) list.u[i].bytes, list.u[i].name,
              list.u[i].id);
    else if ((r = esp_remote_uploads_remove (remote, &list.u[i])) < 0)
      return failed ();
    else
      gone += (unsigned) r;
  if (strcmp (a[0], "reap") == 0)
    printf ("%u\n", gone);
  return 0;
}

/* --- many at once -------------------------------------------------------------- */

struct storm {
  const char *name, *data;
  size_t size, len;
  unsigned n, seed;
  int errnum;                   /* of the first failure; -1: wrong bytes */
};

struct piece {
  char *buf;
  size_t n;
};

static int
keep_piece (void *arg, const void *buf, size_t len)
{
  struct piece *p = arg;

  memcpy (p->buf + p->n, buf, len);
  p->n += len;
  return 0;
}

static void *
storm_thread (void *arg)
{
  struct storm *s = arg;
  CLEANUP_FREE char *buf = malloc (s->len);
  unsigned seed = s->seed;

  for (unsigned i = 0; i < s->n && s->errnum == 0; ++i) {
    struct piece p = { .buf = buf };
    struct esp_get get = {
      .offset = (size_t) rand_r (&seed) % (s->size - s->len + 1),
      .len = s->len, .sink = keep_piece, .arg = &p, .once = once,
      .gently = gently && s->seed % 2,
    };
    if (esp_remote_get (remote, s->name, &get) < 0)
      s->errnum = errno;
    else if (p.n != s->len || memcmp (buf, s->data + get.offset, s->len) != 0)
      s->errnum = -1;
  }
  return NULL;
}

static int
cmd_storm (char **a, int n)
{
  size_t size;
  CLEANUP_FREE char *data = load (twin, &size);
  unsigned nthreads = (unsigned) atoi (a[3]);
  CLEANUP_FREE pthread_t *threads = calloc (nthreads, sizeof *threads);
  CLEANUP_FREE struct storm *storms = calloc (nthreads, sizeof *storms);
  int r = 0;

  (void) n;
  for (unsigned i = 0; i < nthreads; ++i) {
    storms[i] = (struct storm) {
      .name = a[1], .data = data, .size = size, .seed = i,
      .len = strtoull (a[2], NULL, 0), .n = (unsigned) atoi (a[4]),
    };
    pthread_create (&threads[i], NULL, storm_thread, &storms[i]);
  }
  for (unsigned i = 0; i < nthreads; ++i) {
    pthread_join (threads[i], NULL);
    if (storms[i].errnum) {
      fprintf (stderr, "thread %u: %s\n", i, storms[i].errnum < 0
               ? "wrong bytes" : strerrorname_np (storms[i].errnum));
      r = 1;
    }
  }
  return r;
}

static void *
race_thread (void *arg)
{
  char text[40];
  const char *name = arg;
  int n = snprintf (text, sizeof text, "%p", (void *) &text);

  if (esp_remote_put_absent (remote, name, text, (size_t) n, NULL) == 0)
    return arg;
  if (errno != EEXIST)
    fprintf (stderr, "race: %s\n", strerrorname_np (errno));
  return NULL;
}

static int
cmd_race (char **a, int n)
{
  pthread_t threads[64];
  unsigned nthreads = (unsigned) atoi (a[2]), won = 0;
  void *r;

  (void) n;
  for (unsigned i = 0; i < nthreads && i < 64; ++i)
    pthread_create (&threads[i], NULL, race_thread, a[1]);
  for (unsigned i = 0; i < nthreads && i < 64; ++i) {
    pthread_join (threads[i], &r);
    won += r != NULL;
  }
  printf ("%u\n", won);
  return 0;
}

/* --- ends ------------------------------------------------------------------------ */

static atomic_bool cancel_flag;
static double cancelled_at;

static void *
cancel_thread (void *arg)
{
  usleep ((useconds_t) *(int *) arg * 1000);
  cancelled_at = now ();
  atomic_store (&cancel_flag, true);
  return NULL;
}

static int
drop (void *arg, const void *buf, size_t len)
{
  (void) arg;
  (void) buf;
  (void) len;
  return 0;
}

static int
cmd_cancel (char **a, int n)
{
  struct esp_object o;
  struct esp_get get = { .sink = drop, .cancel = &cancel_flag };
  int ms = atoi (a[2]);
  pthread_t thread;

  (void) n;
  if (esp_remote_head (remote, a[1], &o) < 0)
    return failed ();
  get.len = o.size;
  pthread_create (&thread, NULL, cancel_thread, &ms);
  int e = esp_remote_get (remote, a[1], &get);
  double end = now ();
  int err = errno;
  pthread_join (thread, NULL);
  errno = err;
  printf ("%d\n", (int) ((end - cancelled_at) * 1000));
  return e < 0 ? failed () : 0;
}

/* When *ARG bytes have come, says so, and waits. */
static int
stop_here (void *arg, const void *buf, size_t len)
{
  uint64_t *left = arg;
  char c;

  (void) buf;
  *left -= *left < len ? *left : len;
  if (*left)
    return 0;
  printf ("stalled\n");
  fflush (stdout);
  while (read (0, &c, 1) > 0)
    ;
  errno = ECANCELED;
  return -1;
}

static int
cmd_stall (char **a, int n)
{
  struct esp_object o;
  uint64_t left = strtoull (a[2], NULL, 0);
  struct esp_get get = {
    .sink = stop_here, .arg = &left, .gently = gently,
  };

  (void) n;
  if (esp_remote_head (remote, a[1], &o) < 0)
    return failed ();
  get.len = o.size;
  return esp_remote_get (remote, a[1], &get) < 0 ? failed () : 0;
}

static int
cmd_counters (char **a, int n)
{
  struct esp_remote_counters c;

  (void) a;
  (void) n;
  esp_remote_counters (remote, &c);
  printf ("requests=%ju retries=%ju errors=%ju in=%ju out=%ju\n",
          (uintmax_t) c.requests, (uintmax_t) c.retries, (uintmax_t) c.errors,
          (uintmax_t) c.bytes_in, (uintmax_t) c.bytes_out);
  return 0;
}

static const struct {
  const char *name;
  int min, max;                 /* words, with the command's */
  int (*fn) (char **a, int n);
} commands[] = {
  { "head", 2, 2, cmd_head }, { "get", 4, 4, cmd_get },
  { "get-if", 6, 6, cmd_get }, { "all", 3, 3, cmd_all },
  { "list", 2, 2, cmd_list }, { "put", 3, 3, cmd_put },
  { "put-absent", 3, 3, cmd_put }, { "put-if", 4, 4, cmd_put },
  { "delete", 2, 2, cmd_delete }, { "begin", 2, 2, cmd_begin },
  { "part", 5, 5, cmd_part }, { "check", 3, INT_MAX, cmd_parts },
  { "end", 3, INT_MAX, cmd_parts }, { "abort", 3, 3, cmd_abort },
  { "uploads", 2, 2, cmd_uploads }, { "reap", 2, 2, cmd_uploads },
  { "storm", 5, 5, cmd_storm }, { "race", 3, 3, cmd_race },
  { "cancel", 3, 3, cmd_cancel }, { "stall", 3, 3, cmd_stall },
  { "counters", 1, 1, cmd_counters },
};

static int
run (char **a, int n)
{
  for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i)
    if (strcmp (commands[i].name, a[0]) == 0) {
      if (n < commands[i].min || n > commands[i].max)
        usage ("wrong number of arguments");
      return commands[i].fn (a, n);
    }
  usage ("unknown command");
}

/* Options; returns the index of what follows. */
static int
parse_options (int argc, char **argv)
{
  const struct { const char *name; const char **to; } strings[] = {
    { "--ca", &options.ca }, { "--cert", &options.cert },
    { "--key", &options.key }, { "--proxy", &options.proxy },
    { "--credentials", &options.credentials },
    { "--profile", &options.profile }, { "--twin", &twin },
  };
  const struct { const char *name; unsigned *to; } numbers[] = {
    { "--timeout", &options.timeout }, { "--retries", &options.retries },
    { "--connect-timeout", &options.connect_timeout },
    { "--connections", &options.connections },
  };
  int i = 1;

  for (; i < argc && strncmp (argv[i], "--", 2) == 0; ++i) {
    bool found = true;
    if (strcmp (argv[i], "--once") == 0)
      once = true;
    else if (strcmp (argv[i], "--gently") == 0)
      gently = true;
    else
      found = false;
    for (size_t k = 0; !found && k < sizeof strings / sizeof *strings; ++k)
      if (strcmp (argv[i], strings[k].name) == 0 && i + 1 < argc) {
        *strings[k].to = argv[++i];
        found = true;
      }
    for (size_t k = 0; !found && k < sizeof numbers / sizeof *numbers; ++k)
      if (strcmp (argv[i], numbers[k].name) == 0 && i + 1 < argc) {
        unsigned v = (unsigned) atoi (argv[++i]);
        *numbers[k].to = v == 0 && numbers[k].to == &options.retries
          ? UINT_MAX : v;
        found = true;
      }
    if (!found)
      usage (argv[i]);
  }
  return i;
}

int
main (int argc, char **argv)
{
  int i = parse_options (argc, argv), r = 0;

  if (i + 1 >= argc)
    usage ("URL COMMAND ... are needed");
  remote = esp_remote_open (argv[i++], &options);
  if (!remote)
    return failed ();
  while (r == 0 && i < argc) {
    int n = 0;
    while (i + n < argc && strcmp (argv[i + n], "--") != 0)
      n++;
    if (n > 0)
      r = run (argv + i, n);
    i += n + 1;
  }
  esp_remote_close (remote);
  return r;
}
