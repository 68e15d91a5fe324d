/* SPDX-License-Identifier: BSD-3-Clause */
/* Hits of 256 KiB from cache nodes, by the engine and by libmemcached alone,
 * with as many connections.  bench/run runs it:
 *
 *   cluster fill NODES KEYS            puts KEYS segments there
 *   cluster ours NODES KEYS THREADS SECONDS
 *   cluster peer NODES KEYS THREADS SECONDS    (one node, host:port)
 *
 * Prints hits a second, and microseconds of this process' CPU for a hit.
 */

#include <config.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <libmemcached/memcached.h>

#include "cache/cluster.h"
#include "util/cleanup.h"

#define SHIFT 18
#define SIZE (1u << SHIFT)

static struct esp_cluster *cluster;
static const char *node;
static unsigned keys;
static _Atomic bool stop;

static void
die (const char *what)
{
  fprintf (stderr, "cluster: %s\n", what);
  exit (1);
}

static struct esp_cache_key
key_of (unsigned n)
{
  return (struct esp_cache_key) {
    .kind = ESP_CACHE_RP, .segment = n, .shift = SHIFT
  };
}

static void
get_ours (unsigned n, void *buf)
{
  struct esp_cache_key k = key_of (n);
  struct esp_shared_ticket t = { 0 };

  if (esp_cluster_get (cluster, &k, buf, SIZE, ESP_SHARED_LOOK, &t)
      != ESP_SHARED_HIT)
    die ("a miss");
}

static void
get_peer (memcached_st *m, unsigned n)
{
  struct esp_cache_key k = key_of (n);
  char text[ESP_CACHE_KEY_TEXT];
  memcached_return_t r;
  uint32_t flags;
  size_t len;

  esp_cache_key_text (&k, text);
  char *value = memcached_get (m, text, strlen (text), &len, &flags, &r);
  if (!value || len < SIZE)
    die ("a miss of libmemcached");
  free (value);
}

static memcached_st *
peer_open (void)
{
  const char *colon = strrchr (node, ':');
  CLEANUP_FREE char *host = strndup (node, (size_t) (colon - node));
  memcached_st *m = memcached_create (NULL);

  if (!m || memcached_server_add (m, host, (in_port_t) atoi (colon + 1))
      != MEMCACHED_SUCCESS)
    die ("libmemcached");
  memcached_behavior_set (m, MEMCACHED_BEHAVIOR_TCP_NODELAY, 1);
  return m;
}

static void *
work (void *arg)
{
  unsigned seed = (unsigned) (size_t) arg;
  CLEANUP_FREE void *buf = malloc (SIZE);
  memcached_st *m = cluster ? NULL : peer_open ();
  size_t n = 0;

  for (; !stop; ++n)
    if (m)
      get_peer (m, (unsigned) rand_r (&seed) % keys);
    else
      get_ours ((unsigned) rand_r (&seed) % keys, buf);
  if (m)
    memcached_free (m);
  return (void *) n;
}

static double
seconds (clockid_t clock)
{
  struct timespec t;

  clock_gettime (clock, &t);
  return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void
measure (unsigned threads, double how_long)
{
  pthread_t t[64];
  double begin = seconds (CLOCK_MONOTONIC);
  double cpu = seconds (CLOCK_PROCESS_CPUTIME_ID);
  size_t all = 0;

  for (unsigned i = 0; i < threads; ++i)
    if (pthread_create (&t[i], NULL, work, (void *) (size_t) (i + 1)) != 0)
      die ("pthread_create");
  usleep ((useconds_t) (how_long * 1e6));
  stop = true;
  for (unsigned i = 0; i < threads; ++i) {
    void *n;
    pthread_join (t[i], &n);
    all += (size_t) n;
  }
  begin = seconds (CLOCK_MONOTONIC) - begin;
  cpu = seconds (CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf ("%.1f %.2f\n", (double) all / begin, cpu * 1e6 / (double) all);
}

static void
fill (void)
{
  CLEANUP_FREE uint8_t *buf = malloc (SIZE);

  for (unsigned n = 0; n < keys; ++n) {
    struct esp_cache_key k = key_of (n);
    struct esp_shared_ticket t = { 0 };
    memset (buf, (int) n, SIZE);
    if (esp_cluster_get (cluster, &k, buf, SIZE, 0, &t) == ESP_SHARED_MISS)
      esp_cluster_put (cluster, &k, buf, SIZE, 0, &t);
    get_ours (n, buf);
  }
}

int
main (int argc, char *argv[])
{
  struct esp_shared_params p = { .timeout_ms = 5000 };      /* a busy machine */
  struct esp_sealer *sealer = esp_sealer_new (NULL);
  bool filling = argc == 4 && strcmp (argv[1], "fill") == 0;

  if (!filling && argc != 6)
    die ("fill NODES KEYS, or ours|peer NODES KEYS THREADS SECONDS");
  p.nodes = node = argv[2];
  keys = (unsigned) atoi (argv[3]);
  if (filling || strcmp (argv[1], "ours") == 0) {
    cluster = esp_cluster_open (&p, sealer);
    if (!cluster)
      return 1;
  }
  if (filling)
    fill ();
  else
    measure ((unsigned) atoi (argv[4]) % 65, atof (argv[5]));
  esp_cluster_close (cluster);
  esp_sealer_free (sealer);
  return 0;
}
