/* SPDX-License-Identifier: BSD-3-Clause */
/* Real cache nodes for tests, each on a Unix socket of its own, and what
 * servers do with them.
 */

#ifndef ESPALIER_CLUSTER_TEST_H
#define ESPALIER_CLUSTER_TEST_H

#include "unit.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "cache/cluster.h"
#include "cache/nodes.h"
#include "cache/wire.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define NODES_MAX 4
#ifndef TIMEOUT
#define TIMEOUT 200u            /* of a node, ms */
#endif
#ifndef LEASE
#define LEASE 1000u             /* ms */
#endif
#ifndef WAIT
#define WAIT 5000u              /* for others' leases, ms */
#endif

struct mc {
  pid_t pid;                    /* 0: does not run */
  char path[100];               /* of its socket */
};

struct bench {
  char *dir;
  struct mc mc[NODES_MAX];
  struct esp_sealer *sealer;
};

static inline __attribute__ ((unused)) uint64_t
now_ms (void)
{
  return esp_now_us () / 1000;
}

static inline bool
have_memcached (void)
{
  return system ("memcached -V >/dev/null 2>&1") == 0;
}

static inline bool
mc_listens (const struct mc *m)
{
  struct sockaddr_un u = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  strcpy (u.sun_path, m->path);
  bool r = connect (fd, (struct sockaddr *) &u, sizeof u) == 0;
  close (fd);
  return r;
}

/* Start node I; OPTIONS: a NULL-terminated list of at most 8, or NULL. */
static inline __attribute__ ((unused)) void
mc_start (struct bench *b, unsigned i, const char *const *options)
{
  struct mc *m = &b->mc[i];
  const char *argv[20] = {
    "memcached", "-u", "root", "-t", "2", "-s", m->path, NULL
  };
  size_t n = 7;

  snprintf (m->path, sizeof m->path, "%s/n%u", b->dir, i);
  while (options && *options && n < 18)
    argv[n++] = *options++;
  unlink (m->path);
  m->pid = fork ();
  assert_true (m->pid >= 0);
  if (m->pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    int null = open ("/dev/null", O_RDWR);
    dup2 (null, 1);
    dup2 (null, 2);
    execvp (argv[0], (char **) argv);
    _exit (127);
  }
  for (unsigned t = 0; t < 20000 && !mc_listens (m); ++t)
    usleep (2000);
  assert_true (mc_listens (m));
}

static inline __attribute__ ((unused)) void
mc_kill (struct bench *b, unsigned i)
{
  if (b->mc[i].pid <= 0)
    return;
  kill (b->mc[i].pid, SIGKILL);
  waitpid (b->mc[i].pid, NULL, 0);
  b->mc[i].pid = 0;
}

/* It answers nothing more when this returns: a signal takes its time. */
static inline __attribute__ ((unused)) void
mc_stop (struct bench *b, unsigned i)
{
  int status;

  assert_int_equal (kill (b->mc[i].pid, SIGSTOP), 0);
  assert_int_equal (waitpid (b->mc[i].pid, &status, WUNTRACED),
                    b->mc[i].pid);
  assert_true (WIFSTOPPED (status));
}

/* "unix:…,unix:…" of nodes [FROM, TO). */
static inline __attribute__ ((unused)) const char *
mc_list (struct bench *b, unsigned from, unsigned to)
{
  static _Thread_local char text[NODES_MAX * 120];
  size_t n = 0;

  text[0] = 0;
  for (unsigned i = from; i < to; ++i)
    n += (size_t) snprintf (text + n, sizeof text - n, "%sunix:%s/n%u",
                            i > from ? "," : "", b->dir, i);
  return text;
}

static inline __attribute__ ((unused)) int
bench_setup (void **state)
{
  struct bench *b = calloc (1, sizeof *b);

  b->dir = unit_mkdir ();
  b->sealer = esp_sealer_new (NULL);
  assert_non_null (b->sealer);
  *state = b;
  return 0;
}

static inline __attribute__ ((unused)) int
bench_teardown (void **state)
{
  struct bench *b = *state;

  for (unsigned i = 0; i < NODES_MAX; ++i)
    mc_kill (b, i);
  esp_sealer_free (b->sealer);
  unit_rmdir (b->dir);
  free (b);
  return 0;
}

/* --- servers ------------------------------------------------------------------ */
static inline __attribute__ ((unused)) struct esp_cluster *
cluster_open_with (const struct esp_sealer *sealer, const char *nodes)
{
  struct esp_shared_params p = {
    .nodes = nodes, .timeout_ms = TIMEOUT, .lease_ms = LEASE, .wait_ms = WAIT,
  };
  struct esp_cluster *c = esp_cluster_open (&p, sealer);

  if (!c)
    fail_msg ("%s", unit_error);
  return c;
}

static inline __attribute__ ((unused)) struct esp_cluster *
cluster_open (struct bench *b, const char *nodes)
{
  return cluster_open_with (b->sealer, nodes);
}

/* How many nodes are out. */
static inline __attribute__ ((unused)) size_t
cluster_out (struct esp_cluster *c)
{
  struct esp_node_counters n[NODES_MAX];
  size_t all = esp_cluster_nodes (c, n, NODES_MAX), out = 0;

  for (size_t i = 0; i < all; ++i)
    out += n[i].out;
  return out;
}

/* Until OUT of them are, at most 60 s. */
static inline __attribute__ ((unused)) void
wait_out (struct esp_cluster *c, size_t out)
{
  for (unsigned i = 0; i < 6000 && cluster_out (c) != out; ++i)
    usleep (10000);
  assert_int_equal (cluster_out (c), out);
}

static inline __attribute__ ((unused)) struct esp_cluster_counters
counters (struct esp_cluster *c)
{
  struct esp_cluster_counters n;

  esp_cluster_counters (c, &n);
  return n;
}

static inline __attribute__ ((unused)) struct esp_cache_key
key_of (enum esp_cache_kind kind, uint32_t segment, uint8_t shift)
{
  struct esp_cache_key k = {
    .kind = (uint8_t) kind, .segment = segment, .shift = shift
  };

  memset (k.id, 0x5a, sizeof k.id);
  return k;
}

/* What lies in SEGMENT in its VERSION. */
static inline __attribute__ ((unused)) void
fill_bytes (uint8_t *buf, size_t len, uint32_t segment, uint32_t version)
{
  uint64_t x = (uint64_t) segment << 32 | version;

  for (size_t i = 0; i < len; ++i) {
    x = x * UINT64_C (6364136223846793005) + UINT64_C (1442695040888963407);
    buf[i] = (uint8_t) (x >> 56);
  }
}

static inline __attribute__ ((unused)) bool
is_bytes (const uint8_t *buf, size_t len, uint32_t segment, uint32_t version)
{
  CLEANUP_FREE uint8_t *want = malloc (len);

  fill_bytes (want, len, segment, version);
  return memcmp (buf, want, len) == 0;
}

/* Ask until it is no longer BUSY. */
static inline __attribute__ ((unused)) enum esp_shared_answer
get_all (struct esp_cluster *c, const struct esp_cache_key *k, void *buf,
         size_t len, struct esp_shared_ticket *t)
{
  enum esp_shared_answer a;

  while ((a = esp_cluster_get (c, k, buf, len, 0, t)) == ESP_SHARED_BUSY)
    usleep ((useconds_t) t->again_ms * 1000);
  return a;
}

/* Get it right, from the cluster or from "the center"; *FETCHED counts. */
static inline __attribute__ ((unused)) void
fetch (struct esp_cluster *c, const struct esp_cache_key *k, size_t len,
       _Atomic unsigned *fetched)
{
  CLEANUP_FREE uint8_t *buf = malloc (len);
  struct esp_shared_ticket t = { 0 };

  if (get_all (c, k, buf, len, &t) == ESP_SHARED_HIT) {
    assert_true (is_bytes (buf, len, k->segment, 0));
    return;
  }
  if (fetched)
    atomic_fetch_add (fetched, 1);
  fill_bytes (buf, len, k->segment, 0);
  esp_cluster_put (c, k, buf, len, 0, &t);
}

#define NEEDS_MEMCACHED()                                       \
  do {                                                          \
    if (!have_memcached ()) {                                   \
      print_message ("# memcached is not installed\n");         \
      skip ();                                                  \
    }                                                           \
  } while (0)

#endif /* ESPALIER_CLUSTER_TEST_H */
