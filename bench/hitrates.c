/* SPDX-License-Identifier: BSD-3-Clause */
/* hitrates: what the memory tier's policy keeps of recorded boots while others
 * read disks from end to end, against other policies.
 *
 *   hitrates DIR                 (bench/traces)
 *
 * A day is a list of reads, in order: boots, each a trace from when it began,
 * and scans at a steady rate.  It is replayed through the memory tier itself
 * (common/cache/memory.c; one thread, a fill ends before the next read
 * begins), and through a model of it in which another policy chooses which
 * segment goes: what a miss fetches, 4 KiB blocks, and the bound are the same.
 * Printed is the part of the bytes that boots read which was there; scans do
 * not count.  With a cache that holds all, all columns must be the same: that
 * is checked.
 */

#include <config.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/memory.h"
#include "cache/s3fifo.h"

#define MiB (UINT64_C (1) << 20)
#define SHIFT 18u
#define SEGMENT (UINT64_C (1) << SHIFT)
#define BLOCK 4096u
#define DISKS 4u
#define DISK_SEGMENTS 16384u            /* 4 GiB */
#define ALL (DISK_SEGMENTS * DISKS)

static void __attribute__ ((noreturn))
die (const char *what)
{
  fprintf (stderr, "hitrates: %s\n", what);
  exit (1);
}

static void *
allocate (size_t n, size_t size)
{
  void *p = calloc (n, size);

  if (!p)
    die ("out of memory");
  return p;
}

/* --- days ------------------------------------------------------------- */
struct access {
  int64_t time;                 /* us */
  uint64_t offset;
  uint32_t length;
  uint8_t disk;
  bool boot;
};

struct day {
  struct access *list;
  size_t n, room;
};

static void
day_add (struct day *day, struct access a)
{
  if (day->n == day->room) {
    day->room = day->room ? 2 * day->room : 4096;
    day->list = realloc (day->list, day->room * sizeof *day->list);
    if (!day->list)
      die ("out of memory");
  }
  day->list[day->n++] = a;
}

static void
add_boot (struct day *day, const struct day *trace, uint8_t disk,
          int64_t start)
{
  for (size_t i = 0; i < trace->n; ++i) {
    struct access a = trace->list[i];
    a.time += start;
    a.disk = disk;
    a.boot = true;
    day_add (day, a);
  }
}

/* Read SIZE bytes from a disk's begin, again and again until END. */
static void
add_scan (struct day *day, uint8_t disk, uint64_t size, uint32_t request,
          uint64_t bytes_second, int64_t start, int64_t end)
{
  uint64_t done = 0;

  for (int64_t t = start; t < end; done += request) {
    t = start + (int64_t) (done * 1000000 / bytes_second);
    day_add (day, (struct access) { .time = t, .offset = done % size,
        .length = request, .disk = disk });
  }
}

static int
by_time (const void *a, const void *b)
{
  const struct access *x = a, *y = b;

  if (x->time != y->time)
    return x->time < y->time ? -1 : 1;
  return (x > y) - (x < y);
}

static struct day
load (const char *dir, const char *name)
{
  struct day trace = { 0 };
  char path[4096], line[256];
  int64_t time, duration;
  uint64_t offset;
  uint32_t length;
  FILE *f;

  snprintf (path, sizeof path, "%s/%s", dir, name);
  f = fopen (path, "r");
  if (!f)
    die ("no traces there");
  while (fgets (line, sizeof line, f))
    if (line[0] != '#'
        && sscanf (line, "%" SCNd64 " %" SCNd64 " %" SCNu64 " %" SCNu32, &time,
                   &duration, &offset, &length) == 4)
      day_add (&trace, (struct access) { .time = time, .offset = offset,
          .length = length });
  fclose (f);
  return trace;
}

/* --- the tier itself -------------------------------------------------- */
static struct esp_cache_key
key_of (uint8_t disk, uint32_t segment)
{
  struct esp_cache_key key = { .shift = SHIFT, .kind = ESP_CACHE_EXPORT,
    .segment = segment };

  key.id[0] = disk;
  return key;
}

static bool
tier_read (void *arg, uint8_t disk, uint32_t segment, uint32_t at,
           uint32_t len)
{
  static char buf[SEGMENT], bytes[SEGMENT];
  struct esp_cache_key key = key_of (disk, segment);
  struct esp_memory *memory = arg;
  struct esp_fill fill;

  if (esp_memory_read (memory, &key, buf, at, len))
    return true;
  if (esp_memory_miss (memory, &key, buf, at, len, SEGMENT, false, &fill)
      != ESP_MEMORY_FETCH)
    die ("a miss that is none");
  esp_memory_fill_end (memory, &fill, bytes);
  return false;
}

/* --- a model of it ---------------------------------------------------- */
enum policy { LRU, CLOCK, S3_REQUESTS };

struct segment {
  struct segment *older, *newer;        /* LRU, CLOCK */
  struct esp_s3_node node;              /* S3_REQUESTS */
  uint64_t blocks;              /* that are there: 64 of 4 KiB */
  uint32_t misses;
  bool used, in;
};

struct model {
  enum policy policy;
  uint64_t max, there;          /* blocks */
  struct segment *oldest, *newest;
  struct esp_s3 s3;
  struct segment *segments;     /* ALL of them */
};

static void
list_put (struct model *m, struct segment *s)
{
  s->newer = NULL;
  s->older = m->newest;
  *(m->newest ? &m->newest->newer : &m->oldest) = s;
  m->newest = s;
}

static void
list_take (struct model *m, struct segment *s)
{
  *(s->older ? &s->older->newer : &m->oldest) = s->newer;
  *(s->newer ? &s->newer->older : &m->newest) = s->older;
}

static void
model_use (struct model *m, struct segment *s)
{
  if (m->policy == S3_REQUESTS)
    esp_s3_use (&s->node);
  else if (m->policy == CLOCK)
    s->used = true;
  else {
    list_take (m, s);
    list_put (m, s);
  }
}

/* The next one to go, which is not BUT. */
static struct segment *
model_pop (struct model *m, const struct segment *but)
{
  struct segment *s;

  for (;;) {
    if (m->policy == S3_REQUESTS) {
      struct esp_s3_node *node = esp_s3_pop (&m->s3);
      s = (struct segment *) (void *)
        ((char *) node - offsetof (struct segment, node));
      if (s != but) {
        esp_s3_gone (&m->s3, node);
        atomic_store (&node->uses, 0);
        return s;
      }
      esp_s3_back (&m->s3, node);
      continue;
    }
    s = m->oldest;
    list_take (m, s);
    if (s != but && !s->used)
      return s;
    s->used = false;
    list_put (m, s);
  }
}

static void
model_keep (struct model *m, struct segment *s, uint64_t blocks)
{
  uint32_t more = (uint32_t) __builtin_popcountll (blocks & ~s->blocks);

  while (m->there + more > m->max) {
    struct segment *gone = model_pop (m, s);
    m->there -= (uint32_t) __builtin_popcountll (gone->blocks);
    gone->blocks = 0;
    gone->misses = 0;
    gone->in = false;
  }
  m->there += more;
  s->blocks |= blocks;
  more = (uint32_t) __builtin_popcountll (s->blocks);
  if (m->policy == S3_REQUESTS && s->in)
    esp_s3_weigh (&m->s3, &s->node, more);
  else if (m->policy == S3_REQUESTS)
    esp_s3_insert (&m->s3, &s->node, more);
  else if (!s->in)
    list_put (m, s);
  else if (m->policy == LRU)
    model_use (m, s);
  s->in = true;
}

/* Blocks [FROM, TO). */
static uint64_t
mask (uint32_t from, uint32_t to)
{
  return ~UINT64_C (0) >> (64 - (to - from)) << from;
}

/* As memory-fill.c: what is needed, eight times that, all. */
static uint64_t
how_much (const struct segment *s, uint32_t from, uint32_t to)
{
  uint32_t size = 1;

  if (s->misses == 0)
    return mask (from, to);
  while (size < 8 * (to - from))
    size *= 2;
  if (s->misses > 1 || size >= 64)
    return ~UINT64_C (0);
  return mask (from / size * size, (to + size - 1) / size * size);
}

static bool
model_read (void *arg, uint8_t disk, uint32_t segment, uint32_t at,
            uint32_t len)
{
  struct model *m = arg;
  struct segment *s = &m->segments[disk * DISK_SEGMENTS + segment];
  uint32_t from = at / BLOCK, to = (at + len + BLOCK - 1) / BLOCK;
  uint64_t blocks;

  if ((mask (from, to) & ~s->blocks) == 0) {
    model_use (m, s);
    return true;
  }
  blocks = how_much (s, from, to);
  s->misses++;
  model_keep (m, s, blocks);
  return false;
}

/* --- replaying -------------------------------------------------------- */
typedef bool (*read_fn) (void *arg, uint8_t disk, uint32_t segment,
                         uint32_t at, uint32_t len);

/* The part of the boots' bytes that was there. */
static double
replay (const struct day *day, read_fn read, void *arg)
{
  uint64_t hit = 0, all = 0;

  for (size_t i = 0; i < day->n; ++i) {
    const struct access *a = &day->list[i];
    uint64_t end = a->offset + a->length;
    for (uint64_t at = a->offset, n; at < end; at += n) {
      n = SEGMENT - at % SEGMENT;
      if (n > end - at)
        n = end - at;
      bool there = read (arg, a->disk, (uint32_t) (at >> SHIFT),
                         (uint32_t) (at % SEGMENT), (uint32_t) n);
      if (!a->boot)
        continue;
      all += n;
      hit += there ? n : 0;
    }
  }
  return (double) hit / (double) all;
}

static double
replay_tier (const struct day *day, uint64_t max)
{
  struct esp_memory *memory = esp_memory_new (max, SHIFT);
  double r;

  if (!memory)
    exit (1);
  r = replay (day, tier_read, memory);
  esp_memory_free (memory);
  return r;
}

static double
replay_model (const struct day *day, uint64_t max, enum policy policy)
{
  struct model m = { .policy = policy, .max = max / BLOCK,
    .segments = allocate (ALL, sizeof *m.segments) };
  double r;

  for (uint32_t i = 0; i < ALL; ++i)
    m.segments[i].node.hash = i * UINT64_C (0x9e3779b97f4a7c15);
  if (esp_s3_init (&m.s3, m.max, (uint32_t) (max / 6144)) == -1)
    die ("out of memory");
  r = replay (day, model_read, &m);
  esp_s3_destroy (&m.s3);
  free (m.segments);
  return r;
}

static void
row (const char *what, const struct day *day, uint64_t max, bool holds_all)
{
  double tier = replay_tier (day, max);
  double lru = replay_model (day, max, LRU);
  double clock = replay_model (day, max, CLOCK);
  double requests = replay_model (day, max, S3_REQUESTS);

  printf ("| %s | %" PRIu64 "M | %.1f | %.1f | %.1f | %.1f |\n", what,
          max / MiB, 100 * tier, 100 * lru, 100 * clock, 100 * requests);
  fflush (stdout);
  if (holds_all && (tier != lru || tier != clock || tier != requests))
    die ("the model is not that of the memory tier");
}

int
main (int argc, char **argv)
{
  static const uint64_t sizes[] = { 32, 64, 96, 128, 192, 256 };
  static const struct {
    const char *name;
    uint64_t disk;              /* bytes that are scanned; 0: none */
    uint32_t request;
    uint64_t second;            /* bytes */
  } days[] = {
    { "boots", 0, 0, 0 },
    { "boots, a backup", 4096 * MiB, MiB, 16 * MiB },
    { "boots, a guest's search", 4096 * MiB, 32768, 16 * MiB },
    { "boots, 512 MiB again and again", 512 * MiB, 131072, 16 * MiB },
  };
  const int64_t second = 1000000, boots = 24, every = 10;
  struct day debian, small;

  if (argc != 2)
    die ("usage: hitrates DIR");
  debian = load (argv[1], "debian");
  small = load (argv[1], "small-linux");
  printf ("| day | memory | here | LRU | CLOCK | S3-FIFO by requests |\n"
          "|---|---|---|---|---|---|\n");
  for (unsigned d = 0; d < sizeof days / sizeof *days; ++d) {
    struct day day = { 0 };
    for (int64_t i = 0; i < boots; ++i)
      add_boot (&day, i % 3 == 2 ? &small : &debian, i % 3 == 2,
                i * every * second);
    if (days[d].disk)
      add_scan (&day, 2, days[d].disk, days[d].request, days[d].second, 0,
                boots * every * second);
    qsort (day.list, day.n, sizeof *day.list, by_time);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i)
      row (days[d].name, &day, sizes[i] * MiB, false);
    if (d == 0)
      row (days[d].name, &day, 4096 * MiB, true);
    free (day.list);
  }
  free (debian.list);
  free (small.list);
  return 0;
}
