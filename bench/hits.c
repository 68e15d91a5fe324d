/* SPDX-License-Identifier: BSD-3-Clause */
/* hits: what a read costs that the memory tier answers, beside memcpy from a
 * plain buffer of the same size, at the same places.
 *
 *   hits [--mib N] [--threads N]
 *
 * CPU time of the reading threads for a read; the best of five turns.
 */

#include <config.h>

#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/memory.h"

#define SHIFT 18u
#define SEGMENT (1u << SHIFT)
#define THREADS_MAX 64
#define TURNS 5
#define BYTES (UINT64_C (512) << 20)    /* of a thread's turn */

static struct esp_memory *memory;
static char *flat;
static uint32_t segments;

struct reader {
  pthread_t thread;
  uint32_t len;
  uint64_t state;               /* of its chance */
  bool plain;
  double ns;
};

static void __attribute__ ((noreturn))
die (const char *what)
{
  fprintf (stderr, "hits: %s\n", what);
  exit (1);
}

static struct esp_cache_key
key_of (uint32_t segment)
{
  return (struct esp_cache_key) { .id = "what is hit ....", .shift = SHIFT,
    .kind = ESP_CACHE_EXPORT, .segment = segment };
}

static void
fill (uint32_t segment, const char *bytes)
{
  struct esp_cache_key key = key_of (segment);
  static char buf[SEGMENT];
  struct esp_fill f;

  if (esp_memory_miss (memory, &key, buf, 0, SEGMENT, SEGMENT, true, &f)
      != ESP_MEMORY_FETCH)
    die ("a miss that is none");
  esp_memory_fill_end (memory, &f, bytes);
}

static uint32_t
chance (struct reader *r, uint32_t n)
{
  r->state = r->state * UINT64_C (6364136223846793005) + 1;
  return (uint32_t) (r->state >> 33) % n;
}

static void
read_one (struct reader *r, char *buf)
{
  uint32_t segment = chance (r, segments);
  uint32_t at = chance (r, SEGMENT / r->len) * r->len;
  struct esp_cache_key key = key_of (segment);

  if (r->plain)
    memcpy (buf, flat + (size_t) segment * SEGMENT + at, r->len);
  else if (!esp_memory_read (memory, &key, buf, at, r->len))
    die ("a miss");
  __asm__ volatile ("" : : "r" (buf) : "memory");
}

static double
cpu_now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &t);
  return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

static void *
reader_run (void *arg)
{
  struct reader *r = arg;
  uint64_t n = BYTES / r->len;
  char *buf = aligned_alloc (4096, SEGMENT);
  double begin;

  memset (buf, 1, SEGMENT);
  begin = cpu_now ();
  for (uint64_t i = 0; i < n; ++i)
    read_one (r, buf);
  r->ns = (cpu_now () - begin) / (double) n;
  free (buf);
  return NULL;
}

static double
turn (unsigned threads, uint32_t len, bool plain)
{
  struct reader readers[THREADS_MAX];
  double sum = 0;

  for (unsigned i = 0; i < threads; ++i) {
    readers[i] = (struct reader) { .len = len, .plain = plain, .state = i };
    if (pthread_create (&readers[i].thread, NULL, reader_run,
                        &readers[i]) != 0)
      die ("pthread_create");
  }
  for (unsigned i = 0; i < threads; ++i) {
    pthread_join (readers[i].thread, NULL);
    sum += readers[i].ns;
  }
  return sum / threads;
}

static void
measure (unsigned threads, uint32_t len)
{
  double tier = 1e18, plain = 1e18;

  for (unsigned i = 0; i < TURNS; ++i) {
    double t = turn (threads, len, false), p = turn (threads, len, true);
    tier = t < tier ? t : tier;
    plain = p < plain ? p : plain;
  }
  printf ("%4u KiB, %u threads: %6.0f ns, memcpy %6.0f ns\n", len / 1024,
          threads, tier, plain);
}

static void
prepare (size_t size)
{
  segments = (uint32_t) (size / SEGMENT);
  memory = esp_memory_new (size, SHIFT);
  flat = aligned_alloc (2 << 20, size);
  if (!memory || !flat)
    die ("no memory");
  memset (flat, 1, size);
  for (uint32_t i = 0; i < segments; ++i)
    fill (i, flat);
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "mib", required_argument, NULL, 'm' },
    { "threads", required_argument, NULL, 't' },
    { NULL, 0, NULL, 0 },
  };
  static const uint32_t lengths[] = { 4096, 65536, SEGMENT };
  unsigned long mib = 256, threads = 2;
  int c;

  while ((c = getopt_long (argc, argv, "", options, NULL)) != -1)
    if (c == 'm')
      mib = strtoul (optarg, NULL, 10);
    else if (c == 't')
      threads = strtoul (optarg, NULL, 10);
    else
      return 2;
  if (optind != argc || mib < 1 || mib > 1 << 20 || threads < 1
      || threads > THREADS_MAX)
    die ("usage: hits [--mib N] [--threads N]");
  prepare (mib << 20);
  for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; ++i)
    measure ((unsigned) threads, lengths[i]);
  esp_memory_free (memory);
  free (flat);
  return 0;
}
