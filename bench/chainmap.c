/* SPDX-License-Identifier: BSD-3-Clause */
/* chainmap [--quick] [DIR]: measures chain maps of a 1 TiB disk (1 Mi
 * tiles) and prints a table.  DIR (a temporary directory there; default
 * $TMPDIR or /tmp) needs 1.2 GiB of space.  All times are of the CPU, so that
 * a busy machine does not change them much, but that of "build".
 * docs/chain-map.md says how to read it.
 *
 *   empty        nobody wrote anything
 *   uniform      every tile has one owner
 *   typical      every tile is owned, 1 % of the tiles have two owners
 *   fragmented   every tile has two owners: the worst case
 */

#include <config.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "chain/chain.h"
#include "util/file.h"

#define DISK (UINT64_C (1) << 40)
#define TILES (DISK >> ESP_TILE_SHIFT)
#define BLOCKS (DISK >> ESP_BLOCK_SHIFT)

static int dirfd_;
static unsigned lookups = 4000000, depth = 1000;

static void
die (const char *what)
{
  perror (what);
  exit (EXIT_FAILURE);
}

static double
clock_now (clockid_t id)
{
  struct timespec ts;

  clock_gettime (id, &ts);
  return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static uint64_t
rnd (uint64_t *s)
{
  /* xorshift64: cheap against a look-up. */
  *s ^= *s << 13;
  *s ^= *s >> 7;
  *s ^= *s << 17;
  return *s;
}

static int
compare (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return x < y ? -1 : x > y;
}

static double
median (double *v, unsigned n)
{
  qsort (v, n, sizeof *v, compare);
  return v[n / 2];
}

/* Resident memory of this process in KiB: of its own, of files it maps. */
static void
resident (uint64_t *own, uint64_t *mapped)
{
  FILE *f = fopen ("/proc/self/status", "r");
  char line[256];
  uint64_t n;

  *own = *mapped = 0;
  while (f && fgets (line, sizeof line, f)) {
    sscanf (line, "RssAnon: %" SCNu64, own);
    if (sscanf (line, "RssFile: %" SCNu64, &n) == 1 ||
        sscanf (line, "RssShmem: %" SCNu64, &n) == 1)
      *mapped += n;
  }
  if (f)
    fclose (f);
}

/* --- making ----------------------------------------------------------- */

static struct esp_chain *
build (const char *name, const struct esp_map *map, struct esp_chain *parent)
{
  esp_uuid u;

  esp_uuid_new (&u);
  if (esp_chain_build (dirfd_, name, &u, map, parent) == -1)
    exit (EXIT_FAILURE);
  struct esp_chain *chain = esp_chain_open (dirfd_, name);
  if (!chain)
    exit (EXIT_FAILURE);
  return chain;
}

/* A child of PARENT that owns one block in one of each STEP tiles. */
static struct esp_chain *
fragment (const char *name, struct esp_chain *parent, unsigned step)
{
  struct esp_map *map = esp_map_new (DISK);

  if (!map)
    exit (EXIT_FAILURE);
  for (uint64_t t = 0; t < TILES; t += step)
    esp_map_set (map, t * ESP_TILE_BLOCKS + t % ESP_TILE_BLOCKS, 1, ESP_DATA,
                 NULL);
  struct esp_chain *chain = build (name, map, parent);
  esp_map_free (map);
  return chain;
}

/* --- measuring -------------------------------------------------------- */

static volatile uint64_t sink;

/* Nanoseconds for a look-up of a random block. */
static double
random_lookups (struct esp_chain *chain)
{
  uint64_t seed = 88172645463325252u, sum = 0;
  double start = clock_now (CLOCK_THREAD_CPUTIME_ID);

  for (unsigned i = 0; i < lookups; ++i) {
    struct esp_run run;

    if (esp_chain_run (chain, rnd (&seed) % BLOCKS, 1, &run) == -1)
      exit (EXIT_FAILURE);
    sum += run.owner;
  }
  sink += sum;
  return (clock_now (CLOCK_THREAD_CPUTIME_ID) - start) / lookups * 1e9;
}

/* Nanoseconds for a look-up of each tile in turn. */
static double
sequential_lookups (struct esp_chain *chain)
{
  double start = clock_now (CLOCK_THREAD_CPUTIME_ID);
  uint64_t sum = 0;

  for (uint64_t t = 0; t < TILES; ++t) {
    struct esp_run run;

    if (esp_chain_run (chain, t * ESP_TILE_BLOCKS, ESP_TILE_BLOCKS,
                       &run) == -1)
      exit (EXIT_FAILURE);
    sum += run.owner;
  }
  sink += sum;
  return (clock_now (CLOCK_THREAD_CPUTIME_ID) - start) / TILES * 1e9;
}

/* Nanoseconds for the newest owner of a random 256 KiB segment. */
static double
newest (struct esp_chain *chain)
{
  uint64_t seed = 88172645463325252u, sum = 0;
  double start = clock_now (CLOCK_THREAD_CPUTIME_ID);

  for (unsigned i = 0; i < lookups; ++i) {
    unsigned owner;

    if (esp_chain_newest (chain, rnd (&seed) % (DISK >> 18) << 18, 1 << 18,
                          &owner) == -1)
      exit (EXIT_FAILURE);
    sum += owner;
  }
  sink += sum;
  return (clock_now (CLOCK_THREAD_CPUTIME_ID) - start) / lookups * 1e9;
}

/* Milliseconds for a walk over all runs of the disk. */
static double
walk (struct esp_chain *chain, uint64_t *runs)
{
  double start = clock_now (CLOCK_THREAD_CPUTIME_ID);

  *runs = 0;
  for (uint64_t b = 0; b < BLOCKS; ++*runs) {
    struct esp_run run;

    if (esp_chain_run (chain, b, BLOCKS - b, &run) == -1)
      exit (EXIT_FAILURE);
    b += run.nblocks;
  }
  return (clock_now (CLOCK_THREAD_CPUTIME_ID) - start) * 1e3;
}

static double
open_us (const char *name)
{
  double v[201];

  for (unsigned i = 0; i < 201; ++i) {
    double start = clock_now (CLOCK_THREAD_CPUTIME_ID);
    struct esp_chain *chain = esp_chain_open (dirfd_, name);

    v[i] = (clock_now (CLOCK_THREAD_CPUTIME_ID) - start) * 1e6;
    if (!chain)
      exit (EXIT_FAILURE);
    esp_chain_close (chain);
  }
  return median (v, 201);
}

/* One row; CHAIN is closed.  Memory is what this chain map adds. */
static void
row (const char *what, const char *name, struct esp_chain *chain)
{
  uint64_t own[2], mapped[2], runs;
  struct stat st;

  esp_chain_close (chain);
  resident (&own[0], &mapped[0]);
  chain = esp_chain_open (dirfd_, name);
  if (!chain || fstatat (dirfd_, name, &st, 0) == -1)
    die (name);
  double first = walk (chain, &runs);   /* checks every chunk */
  double again = walk (chain, &runs);
  double r = random_lookups (chain), s = sequential_lookups (chain);
  double n = newest (chain);
  resident (&own[1], &mapped[1]);
  printf ("%-11s %9.1f %9.1f %9.1f %8" PRIi64 " %8" PRIu64
          " %7.1f %7.1f %7.1f %8.1f %8.1f %8.1f\n", what,
          esp_chain_bytes (chain) / 1048576., st.st_blocks / 2048.,
          (mapped[1] - mapped[0]) / 1024., (int64_t) (own[1] - own[0]),
          esp_chain_subtables (chain), 1e3 / r, 1e3 / s, 1e3 / n, first,
          again, open_us (name));
  esp_chain_close (chain);
}

static void
table (struct esp_chain *uniform, struct esp_chain *empty)
{
  struct esp_chain *typical = fragment ("typical", uniform, 100);
  struct esp_chain *worst = fragment ("worst", uniform, 1);

  printf ("%-11s %9s %9s %9s %8s %8s %7s %7s %7s %8s %8s %8s\n", "1 TiB",
          "file", "on disk", "resident", "own", "sub-", "random", "by",
          "newest", "walk, ms", "walk, ms", "open");
  printf ("%-11s %9s %9s %9s %8s %8s %7s %7s %7s %8s %8s %8s\n", "",
          "MiB", "MiB", "MiB", "KiB", "tables", "M/s", "tile", "M/s",
          "first", "again", "us");
  row ("empty", "empty", empty);
  row ("uniform", "uniform", uniform);
  row ("typical", "typical", typical);
  row ("fragmented", "worst", worst);
  unlinkat (dirfd_, "worst", 0);
}

/* --- depth ------------------------------------------------------------ */

/* A chain of `depth` restore points over BASE, each of which changes PLACES
 * places of up to 2 MiB; the time of each build.
 */
static void
grow (const char *base, unsigned places)
{
  struct esp_chain *parent = esp_chain_open (dirfd_, base);
  double wall[100], cpu[100];
  char names[2][16] = { "a", "b" };
  uint64_t seed = 1234567;

  if (!parent)
    exit (EXIT_FAILURE);
  for (unsigned d = esp_chain_depth (parent) + 1; d <= depth; ++d) {
    struct esp_map *map = esp_map_new (DISK);

    for (unsigned i = 0; map && i < places; ++i)
      esp_map_set (map, rnd (&seed) % (BLOCKS - 512), 1 + rnd (&seed) % 512,
                   ESP_DATA, NULL);
    unlinkat (dirfd_, names[d % 2], 0);
    double w = clock_now (CLOCK_MONOTONIC);
    double c = clock_now (CLOCK_THREAD_CPUTIME_ID);
    struct esp_chain *chain = build (names[d % 2], map, parent);
    wall[d % 100] = (clock_now (CLOCK_MONOTONIC) - w) * 1e3;
    cpu[d % 100] = (clock_now (CLOCK_THREAD_CPUTIME_ID) - c) * 1e3;
    esp_chain_close (parent);
    esp_map_free (map);
    parent = chain;
  }
  printf ("depth %4u over %-8s %2u changes each: build %5.1f ms (%5.1f ms CPU),"
          " file %5.1f MiB, open %5.1f us, random %5.1f M/s\n",
          esp_chain_depth (parent), base, places, median (wall, 100),
          median (cpu, 100), esp_chain_bytes (parent) / 1048576.,
          open_us (names[depth % 2]), 1e3 / random_lookups (parent));
  esp_chain_close (parent);
  unlinkat (dirfd_, names[0], 0);
  unlinkat (dirfd_, names[1], 0);
}

int
main (int argc, char *argv[])
{
  const char *base = getenv ("TMPDIR");
  char *dir;
  int i = 1;

  if (i < argc && strcmp (argv[i], "--quick") == 0) {
    lookups /= 10;
    depth = 150;
    i++;
  }
  if (i < argc)
    base = argv[i];
  setlinebuf (stdout);
  dir = esp_asprintf ("%s/espalier-chainmap-XXXXXX", base ? base : "/tmp");
  if (!dir || !mkdtemp (dir))
    die ("mkdtemp");
  dirfd_ = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dirfd_ == -1)
    die (dir);

  struct esp_map *map = esp_map_new (DISK);
  if (!map)
    return EXIT_FAILURE;
  struct esp_chain *empty = build ("empty", map, NULL);
  esp_map_set (map, 0, BLOCKS, ESP_DATA, NULL);
  struct esp_chain *uniform = build ("uniform", map, NULL);
  esp_map_free (map);
  table (uniform, empty);
  printf ("\n");
  grow ("empty", 1);
  grow ("empty", 64);
  grow ("typical", 1);
  grow ("typical", 64);

  close (dirfd_);
  esp_remove_tree (AT_FDCWD, dir);
  free (dir);
  return 0;
}
