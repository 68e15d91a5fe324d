/* SPDX-License-Identifier: BSD-3-Clause */
/* Live counters: what one process writes, and what all read. */

#include "unit.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "stats/internal.h"
#include "util/cleanup.h"
#include "util/file.h"

static char *dir;               /* of each test */
static char *path;              /* DIR/our pid */

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  assert_true (asprintf (&path, "%s/%d", dir, (int) getpid ()) > 0);
  unit_error[0] = 0;
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  free (path);
  unit_rmdir (dir);
  return 0;
}

/* --- what readers see --------------------------------------------------------- */

struct found {
  enum esp_stats_kind kind;     /* look for this one */
  const char *name;
  int pid;                      /* 0: of any process */
  unsigned rows, all;
  struct esp_stats_seen last;
  char last_name[512];
};

static int
look (void *arg, const struct esp_stats_seen *row)
{
  struct found *f = arg;

  assert_in_range (row->kind, ESP_STATS_PROCESS, ESP_STATS_KINDS - 1);
  f->all++;
  if (row->kind != f->kind || (f->name && strcmp (row->name, f->name) != 0) ||
      (f->pid && row->pid != f->pid))
    return 0;
  f->rows++;
  f->last = *row;
  snprintf (f->last_name, sizeof f->last_name, "%s", row->name);
  return 0;
}

static struct found
find (enum esp_stats_kind kind, const char *name)
{
  struct found f = { .kind = kind, .name = name };

  assert_int_equal (esp_stats_each (dir, look, &f), 0);
  return f;
}

static unsigned
files (void)
{
  DIR *d = opendir (dir);
  unsigned n = 0;

  assert_non_null (d);
  for (struct dirent *e; (e = readdir (d)) != NULL; )
    n += strcmp (e->d_name, ".") != 0 && strcmp (e->d_name, "..") != 0;
  closedir (d);
  return n;
}

static void
test_counted_is_seen (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *row = esp_stats_row (s, ESP_STATS_TIER, "memory");

  ESP_STATS_ADD (row, ESP_TIER_HITS, 5);
  ESP_STATS_ADD (row, ESP_TIER_HITS, 2);
  ESP_STATS_SET (row, ESP_TIER_BYTES, UINT64_MAX);
  struct found f = find (ESP_STATS_TIER, "memory");
  assert_int_equal (f.rows, 1);
  assert_int_equal (f.last.c[ESP_TIER_HITS], 7);
  assert_int_equal (f.last.c[ESP_TIER_BYTES], UINT64_MAX);
  assert_int_equal (f.last.c[ESP_TIER_MISSES], 0);
  assert_int_equal (f.last.pid, getpid ());

  f = find (ESP_STATS_PROCESS, "");
  assert_int_equal (f.rows, 1);
  assert_int_equal (f.last.c[ESP_PROCESS_SINCE], f.last.since);
  assert_in_range (f.last.since, (uint64_t) time (NULL) - 60,
                   (uint64_t) time (NULL));
  esp_stats_row_put (s, row);
  esp_stats_close (s);
  assert_int_equal (files (), 0);
  assert_string_equal (unit_error, "");
}

/* As another process sees it: what stands in the file, without our help. */
static struct stats_row
row_in_file (unsigned n)
{
  uint8_t bytes[STATS_ROW];
  struct stats_row row;
  CLEANUP_CLOSE int fd = open (path, O_RDONLY);

  assert_true (fd >= 0);
  assert_int_equal (esp_pread_all (fd, bytes, sizeof bytes,
                                   STATS_HEADER + n * STATS_ROW), 0);
  assert_int_equal (stats_row_parse (bytes, &row), 0);
  return row;
}

static void
test_thread_writes (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *row = esp_stats_row (s, ESP_STATS_NODE, "a:1");
  bool seen = false;

  ESP_STATS_SET (row, ESP_NODE_HITS, 3);
  for (int i = 0; i < 1000 && !seen; ++i) {
    struct stats_row r = row_in_file (1);
    seen = r.kind == ESP_STATS_NODE && r.c[ESP_NODE_HITS] == 3 &&
      strcmp (r.name, "a:1") == 0;
    usleep (10000);
  }
  assert_true (seen);
  esp_stats_row_put (s, row);
  esp_stats_close (s);
}

static void
test_open_is_counted (void **state)
{
  (void) state;
  struct esp_stats *a = esp_stats_open (dir, "unit");
  struct esp_stats *b = esp_stats_open ("/does/not/matter", "other");

  assert_ptr_equal (a, b);
  esp_stats_close (a);
  assert_int_equal (find (ESP_STATS_PROCESS, "").rows, 1);
  esp_stats_close (b);
  assert_int_equal (find (ESP_STATS_PROCESS, "").rows, 0);
  esp_stats_close (NULL);
}

static void
test_rows_are_shared (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *a = esp_stats_row (s, ESP_STATS_TIER, "dir");
  struct esp_stats_row *b = esp_stats_row (s, ESP_STATS_TIER, "dir");
  struct esp_stats_row *c = esp_stats_row (s, ESP_STATS_NODE, "dir");

  assert_ptr_equal (a, b);
  assert_ptr_not_equal (a, c);
  esp_stats_row_put (s, a);
  assert_int_equal (find (ESP_STATS_TIER, "dir").rows, 1);
  esp_stats_row_put (s, b);
  assert_int_equal (find (ESP_STATS_TIER, "dir").rows, 0);
  assert_int_equal (find (ESP_STATS_NODE, "dir").rows, 1);
  esp_stats_row_put (s, c);
  esp_stats_row_put (s, NULL);
  esp_stats_close (s);
}

static void
test_what_is_served_stays (void **state)
{
  (void) state;
  static const enum esp_stats_kind kinds[] = {
    ESP_STATS_VENUE, ESP_STATS_EXPORT, ESP_STATS_RP, ESP_STATS_CENTER,
  };
  struct esp_stats *s = esp_stats_open (dir, "unit");

  for (unsigned i = 0; i < 4; ++i) {
    struct esp_stats_row *row = esp_stats_row (s, kinds[i], "x");
    ESP_STATS_ADD (row, 1, 40);
    esp_stats_row_put (s, row);
    assert_int_equal (find (kinds[i], "x").last.c[1], 40);
    row = esp_stats_row (s, kinds[i], "x");
    ESP_STATS_ADD (row, 1, 2);
    assert_int_equal (find (kinds[i], "x").rows, 1);
    assert_int_equal (find (kinds[i], "x").last.c[1], 42);
    esp_stats_row_put (s, row);
  }
  esp_stats_close (s);
}

/* --- clients ------------------------------------------------------------------ */

static void
test_clients_add_to_their_disk (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *a =
    esp_stats_client (s, "cafe/0@a", ESP_STATS_VENUE, "cafe/0");
  struct esp_stats_row *b =
    esp_stats_client (s, "cafe/0@b", ESP_STATS_VENUE, "cafe/0");
  struct found f;

  assert_ptr_not_equal (a, b);
  ESP_STATS_ADD (a, ESP_DISK_READS, 1);
  ESP_STATS_ADD (a, ESP_DISK_READ_BYTES, 4096);
  ESP_STATS_ADD (b, ESP_DISK_READS, 2);
  f = find (ESP_STATS_VENUE, "cafe/0");
  assert_int_equal (f.rows, 1);
  assert_int_equal (f.last.c[ESP_DISK_READS], 3);
  assert_int_equal (f.last.c[ESP_DISK_READ_BYTES], 4096);
  assert_int_equal (f.last.c[ESP_DISK_CONNECTIONS], 2);
  assert_int_equal (f.last.c[ESP_DISK_SINCE], 0);
  f = find (ESP_STATS_CLIENT, "cafe/0@a");
  assert_int_equal (f.last.c[ESP_DISK_READS], 1);
  assert_int_equal (f.last.c[ESP_DISK_CONNECTIONS], 1);
  assert_in_range (f.last.c[ESP_DISK_SINCE], (uint64_t) time (NULL) - 60,
                   (uint64_t) time (NULL));
  assert_int_equal (find (ESP_STATS_PROCESS, "")
                    .last.c[ESP_PROCESS_CONNECTIONS], 2);

  ESP_STATS_ADD (b, ESP_DISK_ERRORS, 1);        /* not seen by any tick */
  assert_ptr_equal (esp_stats_client_ref (b), b);
  esp_stats_client_put (b);
  assert_int_equal (find (ESP_STATS_CLIENT, "cafe/0@b").rows, 1);
  ESP_STATS_ADD (b, ESP_DISK_ERRORS, 1);
  esp_stats_client_put (b);
  f = find (ESP_STATS_VENUE, "cafe/0");
  assert_int_equal (f.last.c[ESP_DISK_READS], 3);
  assert_int_equal (f.last.c[ESP_DISK_ERRORS], 2);
  assert_int_equal (f.last.c[ESP_DISK_CONNECTIONS], 1);
  assert_int_equal (find (ESP_STATS_CLIENT, "cafe/0@b").rows, 0);
  esp_stats_client_put (a);
  f = find (ESP_STATS_VENUE, "cafe/0");
  assert_int_equal (f.last.c[ESP_DISK_CONNECTIONS], 0);
  assert_int_equal (f.last.c[ESP_DISK_READS], 3);
  assert_int_equal (find (ESP_STATS_PROCESS, "")
                    .last.c[ESP_PROCESS_CONNECTIONS], 0);
  esp_stats_close (s);
}

static void
test_requests_are_counted (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *c = esp_stats_client (s, "c", ESP_STATS_EXPORT, "x");

  errno = ENOSPC;
  assert_int_equal (esp_stats_read (c, 0, 512), 0);
  assert_int_equal (esp_stats_write (c, 0, 100), 0);
  assert_int_equal (esp_stats_write (c, 0, 0), 0);
  assert_int_equal (esp_stats_read (c, -1, 512), -1);
  assert_int_equal (esp_stats_write (c, -1, 512), -1);
  assert_int_equal (esp_stats_read (NULL, -1, 512), -1);
  assert_int_equal (esp_stats_write (NULL, 0, 512), 0);
  assert_int_equal (errno, ENOSPC);
  struct found f = find (ESP_STATS_EXPORT, "x");
  assert_int_equal (f.last.c[ESP_DISK_READS], 1);
  assert_int_equal (f.last.c[ESP_DISK_READ_BYTES], 512);
  assert_int_equal (f.last.c[ESP_DISK_WRITES], 2);
  assert_int_equal (f.last.c[ESP_DISK_WRITE_BYTES], 100);
  assert_int_equal (f.last.c[ESP_DISK_ERRORS], 2);
  esp_stats_client_put (c);
  esp_stats_close (s);
}

static void
test_two_clients_of_one_name (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *a =
    esp_stats_client (s, "cafe/0", ESP_STATS_VENUE, "cafe/0");
  struct esp_stats_row *b =
    esp_stats_client (s, "cafe/0", ESP_STATS_VENUE, "cafe/0");

  assert_ptr_not_equal (a, b);
  assert_int_equal (find (ESP_STATS_CLIENT, "cafe/0").rows, 2);
  esp_stats_client_put (a);
  assert_int_equal (find (ESP_STATS_CLIENT, "cafe/0").rows, 1);
  esp_stats_client_put (b);
  esp_stats_close (s);
}

/* --- ticks ----------------------------------------------------------------------- */

struct engine { struct esp_stats_row *row; unsigned calls; };

static void
on_tick (void *arg)
{
  struct engine *e = arg;

  ESP_STATS_SET (e->row, ESP_TIER_ENTRIES, ++e->calls);
}

static void
test_ticks (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct engine e = { .row = esp_stats_row (s, ESP_STATS_TIER, "memory") };

  assert_int_equal (esp_stats_on_tick (s, on_tick, &e), 0);
  struct found f = find (ESP_STATS_TIER, "memory");
  assert_true (f.last.c[ESP_TIER_ENTRIES] >= 1);
  esp_stats_off_tick (s, on_tick, &e);
  unsigned calls = e.calls;
  assert_true (calls >= 2);
  find (ESP_STATS_TIER, "memory");
  assert_int_equal (e.calls, calls);
  esp_stats_off_tick (s, on_tick, &e);          /* not there: nothing */
  assert_int_equal (e.calls, calls);
  esp_stats_row_put (s, e.row);
  esp_stats_close (s);
}

static void
test_close_ticks (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct engine e = { .row = esp_stats_row (s, ESP_STATS_TIER, "memory") };

  assert_int_equal (esp_stats_on_tick (s, on_tick, &e), 0);
  esp_stats_close (s);
  assert_true (e.calls >= 1);
}

/* --- names, and many rows ---------------------------------------------------------- */

static void
test_long_names (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  char a[5000], b[5000], most[STATS_NAME];

  memset (a, 'a', sizeof a);
  a[sizeof a - 1] = 0;
  memcpy (b, a, sizeof b);
  b[4000] = 'b';
  memcpy (most, a, sizeof most);
  most[STATS_NAME - 1] = 0;
  struct esp_stats_row *ra = esp_stats_row (s, ESP_STATS_EXPORT, a);
  struct esp_stats_row *rb = esp_stats_row (s, ESP_STATS_EXPORT, b);
  assert_ptr_not_equal (ra, rb);
  assert_ptr_equal (esp_stats_row (s, ESP_STATS_EXPORT, a), ra);
  struct found f = find (ESP_STATS_EXPORT, NULL);
  assert_int_equal (f.rows, 2);
  assert_int_equal (strlen (f.last_name), STATS_NAME - 1);
  assert_memory_equal (f.last_name, "aaaaaaaaaaaaaaa", 15);
  assert_non_null (strstr (f.last_name, "a..."));
  esp_stats_row (s, ESP_STATS_EXPORT, most);
  assert_int_equal (find (ESP_STATS_EXPORT, most).rows, 1);
  esp_stats_close (s);
}

static void
test_long_names_stay_utf8 (void **state)
{
  (void) state;
  char name[1000], shown[STATS_NAME];
  size_t n = 0;

  for (name[n++] = 'x'; n + 2 < sizeof name; n += 2)
    memcpy (name + n, "é", 2);
  name[n] = 0;
  for (int i = 0; i < 2; ++i) {         /* odd and even */
    stats_name (name + i, shown);
    char *dots = strstr (shown, "...");
    assert_non_null (dots);
    assert_int_equal ((dots - shown - !i) % 2, 0);
  }
}

enum { MANY = STATS_KIND_MAX + 1000 };

static void
test_many_clients (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row **c = calloc (MANY, sizeof *c);

  for (int i = 0; i < MANY; ++i) {
    c[i] = esp_stats_client (s, "c", ESP_STATS_VENUE, "v");
    ESP_STATS_ADD (c[i], ESP_DISK_READS, 1);
  }
  /* Not all are seen, but all are counted, and others are not kept out. */
  assert_int_equal (find (ESP_STATS_CLIENT, NULL).rows, STATS_KIND_MAX);
  assert_int_equal (find (ESP_STATS_VENUE, "v").last.c[ESP_DISK_READS], MANY);
  struct esp_stats_row *row = esp_stats_row (s, ESP_STATS_TIER, "dir");
  assert_int_equal (find (ESP_STATS_TIER, "dir").rows, 1);
  esp_stats_row_put (s, row);
  for (int i = 0; i < MANY; ++i)
    esp_stats_client_put (c[i]);
  assert_int_equal (find (ESP_STATS_CLIENT, NULL).rows, 0);
  assert_int_equal (find (ESP_STATS_VENUE, "v")
                    .last.c[ESP_DISK_CONNECTIONS], 0);
  free (c);
  esp_stats_close (s);
}

/* COUNT rows of KIND, one after the other, that nobody uses any more. */
static void
make_unused (struct esp_stats *s, enum esp_stats_kind kind, int count)
{
  char name[32];

  for (int i = 0; i < count; ++i) {
    snprintf (name, sizeof name, "v%d", i);
    esp_stats_row_put (s, esp_stats_row (s, kind, name));
  }
}

static void
test_unused_make_room (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *used = esp_stats_row (s, ESP_STATS_VENUE, "v");
  char name[32];

  /* The latest are there, and what is in use. */
  make_unused (s, ESP_STATS_VENUE, MANY);
  snprintf (name, sizeof name, "v%d", MANY - 1);
  assert_int_equal (find (ESP_STATS_VENUE, name).rows, 1);
  assert_int_equal (find (ESP_STATS_VENUE, "v0").rows, 0);
  assert_int_equal (find (ESP_STATS_VENUE, "v").rows, 1);
  assert_int_equal (find (ESP_STATS_VENUE, NULL).rows, STATS_KIND_MAX);

  /* The table is full: the oldest of any kind goes. */
  make_unused (s, ESP_STATS_EXPORT, MANY);
  make_unused (s, ESP_STATS_RP, MANY);
  struct found f = find (ESP_STATS_RP, NULL);
  assert_int_equal (f.all, STATS_ROWS);
  assert_int_equal (f.rows, STATS_KIND_MAX);
  assert_in_range (find (ESP_STATS_VENUE, NULL).rows, 1, STATS_KIND_MAX - 1);
  assert_int_equal (find (ESP_STATS_VENUE, "v").rows, 1);
  struct esp_stats_row *row = esp_stats_row (s, ESP_STATS_NODE, "n");
  assert_int_equal (find (ESP_STATS_NODE, "n").rows, 1);
  esp_stats_row_put (s, row);
  esp_stats_row_put (s, used);
  esp_stats_close (s);
}

/* All rows of a kind are in use: what is asked for counts, for nobody. */
static void
test_nothing_left (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row **v = calloc (MANY, sizeof *v);
  char name[32];

  for (int i = 0; i < MANY; ++i) {
    snprintf (name, sizeof name, "v%d", i);
    v[i] = esp_stats_row (s, ESP_STATS_VENUE, name);
    assert_non_null (v[i]);
    ESP_STATS_ADD (v[i], ESP_DISK_READS, 1);
  }
  assert_int_equal (find (ESP_STATS_VENUE, NULL).rows, STATS_KIND_MAX);
  for (int i = 0; i < MANY; ++i)
    esp_stats_row_put (s, v[i]);
  free (v);
  esp_stats_close (s);
}

/* --- many threads -------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 300 };

static void *
count_much (void *arg)
{
  struct esp_stats *s = arg;

  for (int i = 0; i < ROUNDS; ++i) {
    struct esp_stats_row *c =
      esp_stats_client (s, "c", ESP_STATS_VENUE, i % 2 ? "v" : "w");
    struct esp_stats_row *t = esp_stats_row (s, ESP_STATS_TIER, "memory");
    for (int k = 0; k < 10; ++k) {
      ESP_STATS_ADD (c, ESP_DISK_READS, 1);
      ESP_STATS_ADD (t, ESP_TIER_HITS, 1);
    }
    esp_stats_row_put (s, t);
    esp_stats_client_put (c);
  }
  return NULL;
}

static void
test_threads (void **state)
{
  (void) state;
  struct esp_stats *s = esp_stats_open (dir, "unit");
  struct esp_stats_row *t = esp_stats_row (s, ESP_STATS_TIER, "memory");
  pthread_t threads[THREADS];

  for (int i = 0; i < THREADS; ++i)
    assert_int_equal (pthread_create (&threads[i], NULL, count_much, s), 0);
  for (int i = 0; i < 50; ++i)
    find (ESP_STATS_CLIENT, NULL);
  for (int i = 0; i < THREADS; ++i)
    pthread_join (threads[i], NULL);
  assert_int_equal (find (ESP_STATS_TIER, "memory").last.c[ESP_TIER_HITS],
                    THREADS * ROUNDS * 10);
  assert_int_equal (find (ESP_STATS_VENUE, "v").last.c[ESP_DISK_READS] +
                    find (ESP_STATS_VENUE, "w").last.c[ESP_DISK_READS],
                    THREADS * ROUNDS * 10);
  assert_int_equal (find (ESP_STATS_CLIENT, NULL).rows, 0);
  assert_string_equal (unit_error, "");
  esp_stats_row_put (s, t);
  esp_stats_close (s);
}

/* --- other processes -------------------------------------------------------------------- */

/* A process that counts one row NAME until SIGTERM. */
static pid_t
start (const char *name)
{
  int ready[2], sig;
  sigset_t term;
  char c;

  sigemptyset (&term);
  sigaddset (&term, SIGTERM);
  assert_int_equal (pipe (ready), 0);
  pid_t pid = fork ();
  assert_true (pid >= 0);
  if (pid == 0) {
    sigprocmask (SIG_BLOCK, &term, NULL);
    struct esp_stats *s = esp_stats_open (dir, "child");
    ESP_STATS_ADD (esp_stats_row (s, ESP_STATS_VENUE, name), 0, 1);
    stats_publish_own ();
    if (write (ready[1], "x", 1) != 1 || sigwait (&term, &sig) != 0)
      _exit (1);
    esp_stats_close (s);
    _exit (0);
  }
  close (ready[1]);
  assert_int_equal (read (ready[0], &c, 1), 1);
  close (ready[0]);
  return pid;
}

static void
test_two_processes (void **state)
{
  (void) state;
  pid_t pa = start ("a"), pb = start ("b");
  int status;

  struct found f = { .kind = ESP_STATS_VENUE, .name = "b" };
  assert_int_equal (esp_stats_each (dir, look, &f), 0);
  assert_int_equal (f.rows, 1);
  assert_int_equal (f.last.pid, pb);
  assert_int_equal (find (ESP_STATS_VENUE, "a").rows, 1);

  /* One ends as it should, one is killed. */
  assert_int_equal (kill (pa, SIGTERM), 0);
  waitpid (pa, &status, 0);
  assert_int_equal (status, 0);
  assert_int_equal (find (ESP_STATS_VENUE, NULL).rows, 1);
  assert_int_equal (kill (pb, SIGKILL), 0);
  waitpid (pb, &status, 0);
  assert_int_equal (files (), 1);
  assert_int_equal (find (ESP_STATS_VENUE, NULL).rows, 0);
  assert_int_equal (files (), 0);
}

/* Who counts takes away what others left, without any reader. */
static void
test_writers_clean (void **state)
{
  (void) state;
  pid_t pa = start ("a");
  char other[300];
  int status;

  kill (pa, SIGKILL);
  waitpid (pa, &status, 0);
  snprintf (other, sizeof other, "%s/.new-0123456789abcdef", dir);
  close (open (other, O_CREAT | O_WRONLY, 0644));
  snprintf (other, sizeof other, "%s/notes", dir);
  close (open (other, O_CREAT | O_WRONLY, 0644));
  assert_int_equal (files (), 3);
  struct esp_stats *s = esp_stats_open (dir, "unit");
  assert_int_equal (files (), 2);               /* ours, and notes */
  assert_int_equal (access (path, F_OK), 0);
  assert_int_equal (access (other, F_OK), 0);
  esp_stats_close (s);
}

/* Another process of our number (in another container) lives. */
static void
test_same_number (void **state)
{
  (void) state;
  int fd = open (path, O_CREAT | O_RDWR, 0644);

  assert_int_equal (flock (fd, LOCK_EX), 0);
  struct esp_stats *s = esp_stats_open (dir, "unit");
  assert_int_equal (files (), 2);
  assert_int_equal (find (ESP_STATS_PROCESS, "").rows, 1);
  esp_stats_close (s);
  assert_int_equal (files (), 1);

  /* And when it died. */
  close (fd);
  s = esp_stats_open (dir, "unit");
  assert_int_equal (files (), 1);
  assert_int_equal (find (ESP_STATS_PROCESS, "").rows, 1);
  esp_stats_close (s);
}

/* --- what others do to the file ---------------------------------------------------------- */

static struct esp_stats *
open_with_row (void)
{
  struct esp_stats *s = esp_stats_open (dir, "unit");

  ESP_STATS_ADD (esp_stats_row (s, ESP_STATS_TIER, "dir"), ESP_TIER_HITS, 9);
  assert_int_equal (find (ESP_STATS_TIER, "dir").last.c[ESP_TIER_HITS], 9);
  return s;
}

static void
test_cut_short (void **state)
{
  (void) state;
  struct esp_stats *s = open_with_row ();

  assert_int_equal (truncate (path, 100), 0);
  ESP_STATS_ADD (esp_stats_row (s, ESP_STATS_TIER, "dir"), ESP_TIER_HITS, 1);
  assert_int_equal (find (ESP_STATS_TIER, "dir").last.c[ESP_TIER_HITS], 10);
  esp_stats_close (s);
  assert_int_equal (files (), 0);
}

static void
test_removed (void **state)
{
  (void) state;
  struct esp_stats *s = open_with_row ();
  char cmd[512];

  assert_int_equal (unlink (path), 0);
  assert_int_equal (find (ESP_STATS_TIER, "dir").last.c[ESP_TIER_HITS], 9);
  snprintf (cmd, sizeof cmd, "rm -r '%s'", dir);
  assert_int_equal (system (cmd), 0);
  stats_publish_own ();
  assert_int_equal (find (ESP_STATS_TIER, "dir").last.c[ESP_TIER_HITS], 9);
  esp_stats_close (s);
}

/* A file that lives, since it is locked, but whose process writes nothing:
 * what others may have done to it stays.
 */
static int
frozen (void)
{
  struct esp_stats *s = open_with_row ();
  CLEANUP_FREE char *copy = esp_asprintf ("%s/77", dir);
  CLEANUP_FREE char *cmd = esp_asprintf ("cp '%s' '%s'", path, copy);

  assert_int_equal (system (cmd), 0);
  int fd = open (copy, O_RDWR);
  assert_int_equal (flock (fd, LOCK_EX), 0);
  esp_stats_close (s);
  assert_int_equal (find (ESP_STATS_TIER, "dir").rows, 1);
  assert_string_equal (unit_error, "");
  return fd;
}

static void
damage (int fd, off_t at, const char *with)
{
  assert_int_equal (pwrite (fd, with, strlen (with), at), strlen (with));
}

static void
test_damaged_rows (void **state)
{
  (void) state;
  int fd = frozen ();

  damage (fd, STATS_HEADER + STATS_ROW + 17, "x");
  struct found f = find (ESP_STATS_TIER, NULL);
  assert_int_equal (f.rows, 0);
  assert_int_equal (f.all, 1);                  /* the process's own */
  assert_non_null (strstr (unit_error, "/77: 1 rows are damaged"));
  close (fd);
}

static void
test_damaged_header (void **state)
{
  (void) state;
  int fd = frozen ();

  damage (fd, 24, "\377");
  assert_int_equal (find (ESP_STATS_TIER, NULL).all, 0);
  assert_non_null (strstr (unit_error, "/77 is passed over: it is damaged"));
  unit_error[0] = 0;
  damage (fd, 8, "\2");
  assert_int_equal (find (ESP_STATS_TIER, NULL).all, 0);
  assert_non_null (strstr (unit_error, "another version"));
  unit_error[0] = 0;
  damage (fd, 0, "X");
  assert_int_equal (find (ESP_STATS_TIER, NULL).all, 0);
  assert_non_null (strstr (unit_error, "damaged"));
  close (fd);
}

static void
test_short_files (void **state)
{
  (void) state;
  int fd = frozen ();

  assert_int_equal (ftruncate (fd, STATS_HEADER + STATS_ROW + 100), 0);
  assert_int_equal (find (ESP_STATS_TIER, NULL).rows, 0);
  assert_non_null (strstr (unit_error, "damaged"));
  unit_error[0] = 0;
  assert_int_equal (ftruncate (fd, 0), 0);
  assert_int_equal (find (ESP_STATS_TIER, NULL).all, 0);
  assert_non_null (strstr (unit_error, "damaged"));
  close (fd);
}

static void
test_no_files (void **state)
{
  (void) state;
  CLEANUP_FREE char *sub = esp_asprintf ("%s/5", dir);
  CLEANUP_FREE char *link = esp_asprintf ("%s/6", dir);
  CLEANUP_FREE char *fifo = esp_asprintf ("%s/7", dir);

  assert_int_equal (mkdir (sub, 0755), 0);
  assert_int_equal (symlink ("/dev/zero", link), 0);
  assert_int_equal (mkfifo (fifo, 0644), 0);
  assert_int_equal (find (ESP_STATS_TIER, NULL).all, 0);
  assert_non_null (strstr (unit_error, "passed over"));
  assert_int_equal (access (sub, F_OK), 0);
  struct esp_stats *s = esp_stats_open (dir, "unit");
  assert_int_equal (find (ESP_STATS_PROCESS, NULL).rows, 1);
  esp_stats_close (s);
}

static int
stop (void *arg, const struct esp_stats_seen *row)
{
  (void) arg;
  (void) row;
  return -1;
}

static void
test_stop (void **state)
{
  (void) state;
  struct esp_stats *s = open_with_row ();

  assert_int_equal (esp_stats_each (dir, stop, NULL), -1);
  assert_string_equal (unit_error, "");
  esp_stats_close (s);
}

static void
test_no_directory (void **state)
{
  (void) state;
  CLEANUP_FREE char *gone = esp_asprintf ("%s/gone/stats", dir);
  CLEANUP_FREE char *file = esp_asprintf ("%s/file", dir);
  struct found f = { .kind = 0 };

  assert_int_equal (esp_stats_each (gone, look, &f), 0);
  close (open (file, O_CREAT | O_WRONLY, 0644));
  assert_int_equal (esp_stats_each (file, look, &f), -1);
  assert_non_null (strstr (unit_error, "open: "));

  /* Where nothing can be written, counting goes on. */
  struct esp_stats *s = esp_stats_open (gone, "unit");
  assert_non_null (s);
  struct esp_stats_row *row =
    esp_stats_client (s, "c", ESP_STATS_VENUE, "v");
  ESP_STATS_ADD (row, 0, 1);
  stats_publish_own ();
  esp_stats_client_put (row);
  assert_null (esp_stats_client_ref (NULL));
  esp_stats_client_put (NULL);
  esp_stats_close (s);
}

static void
test_names_of_counters (void **state)
{
  (void) state;
  bool gauge = false;

  assert_string_equal (esp_stats_kind_name (ESP_STATS_RP), "rp");
  assert_null (esp_stats_kind_name (0));
  assert_null (esp_stats_kind_name (ESP_STATS_KINDS));
  for (int k = ESP_STATS_PROCESS; k < ESP_STATS_KINDS; ++k) {
    unsigned n = 0;
    while (esp_stats_counter_name (k, n, &gauge))
      n++;
    assert_in_range (n, 2, ESP_STATS_COUNTERS);
    for (; n <= ESP_STATS_COUNTERS; ++n)
      assert_null (esp_stats_counter_name (k, n, &gauge));
  }
  assert_string_equal (esp_stats_counter_name (ESP_STATS_CLIENT,
                                               ESP_DISK_SINCE, &gauge),
                       "since");
  assert_true (gauge);
  esp_stats_counter_name (ESP_STATS_TIER, ESP_TIER_TAKEOVERS, &gauge);
  assert_false (gauge);
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (test_counted_is_seen),
    TEST (test_thread_writes),
    TEST (test_open_is_counted),
    TEST (test_rows_are_shared),
    TEST (test_what_is_served_stays),
    TEST (test_clients_add_to_their_disk),
    TEST (test_requests_are_counted),
    TEST (test_two_clients_of_one_name),
    TEST (test_ticks),
    TEST (test_close_ticks),
    TEST (test_long_names),
    TEST (test_long_names_stay_utf8),
    TEST (test_many_clients),
    TEST (test_unused_make_room),
    TEST (test_nothing_left),
    TEST (test_threads),
    TEST (test_two_processes),
    TEST (test_writers_clean),
    TEST (test_same_number),
    TEST (test_cut_short),
    TEST (test_removed),
    TEST (test_damaged_rows),
    TEST (test_damaged_header),
    TEST (test_short_files),
    TEST (test_no_files),
    TEST (test_stop),
    TEST (test_no_directory),
    TEST (test_names_of_counters),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
