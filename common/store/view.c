/* SPDX-License-Identifier: BSD-3-Clause */
/* A tip's fragmented tiles, each as one piece of memory.
 *
 * Layers are mapped whole, so a disk of a thousand layers is read from a
 * thousand places: for each run of some blocks the sub-table, the layer, and
 * the page tables around its place are read from main memory, and few of
 * those entries serve a second run.  A view is one range as large as the
 * disk.  When a tile that has several owners is first read, their runs are
 * mapped into it, each at its place on the disk.  From then on the tile reads
 * as if it had one owner: no look-up, one copy, and page tables as dense as
 * the disk.
 *
 * A run is mapped by mremap from the mapping of its layer: with an old size
 * of 0 it makes a second mapping of the same file, and no descriptor is
 * needed.  What is zero stays what the range is made of: anonymous memory
 * that is only read, which is the kernel's page of zeroes.
 *
 * A view is kept for a while when its image is closed, as layers are.  What a
 * tip reads as never changes, whatever is merged meanwhile, so it stays right;
 * but a layer whose file was replaced is mapped anew when it is next opened,
 * and the serial numbers tell: the tile is then made again.  So in a view
 * that begins a new use all tiles are UNKNOWN, though their mappings are there.
 *
 * The price is a mapping for each run, and a process has 65,530 of them by
 * default (vm.max_map_count): all views together take at most half, and idle
 * ones go first.  A tile that gets none is read run by run.
 *
 * Locks: a view's `lock` is held while a tile is added; readers take none, for
 * nobody reads a tile before it is one that the view HAS, and it stays so
 * until the view's use ends.  `idle_lock` protects the list of idle views, and
 * may be taken under a view's.
 */

#include <config.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "store/view.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/guard.h"

#define DEFAULT_MAP_COUNT 65530u
#define IDLE_MAX 64u

struct view {
  struct esp_store *store;
  esp_uuid uuid;
  uint8_t *range;
  uint64_t bytes;               /* of the range: whole tiles */
  _Atomic uint8_t *state;       /* by tile: enum view_state */

  pthread_mutex_t lock;         /* protects: */
  uint64_t *serial;             /* by tile: of its newest part; 0: not there */
  unsigned mappings;            /* that were taken from the budget */

  /* Protected by idle_lock, while it is in the list. */
  struct view *next;
  time_t idle_since;
};

static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;
static struct view *idle;
static unsigned nidle;
static bool keep_idle;

/* --- the budget --------------------------------------------------------- */

static atomic_uint in_use;

static unsigned
read_limit (void)
{
  unsigned max = DEFAULT_MAP_COUNT;
  FILE *fp = fopen ("/proc/sys/vm/max_map_count", "re");

  /* A system that does not say has the default. */
  if (fp) {
    if (fscanf (fp, "%u", &max) != 1)
      max = DEFAULT_MAP_COUNT;
    fclose (fp);
  }
  return max / 2 > 0 ? max / 2 : 1;
}

static bool
try_take (unsigned n)
{
  static atomic_uint limit;     /* 0: not known yet */
  unsigned max = atomic_load (&limit), now = atomic_load (&in_use);

  if (max == 0)
    atomic_store (&limit, max = read_limit ());
  do
    if (n > max || now > max - n)
      return false;
  while (!atomic_compare_exchange_weak (&in_use, &now, now + n));
  return true;
}

static bool
take (unsigned n)
{
  if (try_take (n))
    return true;
  view_trim (0);
  return try_take (n);
}

/* --- making and freeing ----------------------------------------------------- */

static void *
map_zeroes (void *at, uint64_t n)
{
  return mmap (at, n, PROT_READ,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
               | (at ? MAP_FIXED : 0), -1, 0);
}

static bool
map_range (struct view *v)
{
  if (esp_guard_reserve (v->bytes) == -1) {
    view_trim (0);
    if (esp_guard_reserve (v->bytes) == -1)
      return false;
  }
  void *p = map_zeroes (NULL, v->bytes);
  if (p == MAP_FAILED) {
    esp_guard_release (v->bytes);
    return false;
  }
  v->range = p;
  return true;
}

static void
view_free (struct view *v)
{
  if (v->range) {
    munmap (v->range, v->bytes);
    esp_guard_release (v->bytes);
  }
  atomic_fetch_sub (&in_use, v->mappings);
  pthread_mutex_destroy (&v->lock);
  free ((void *) v->state);
  free (v->serial);
  free (v);
}

/* The tables are as large as the disk and mostly never touched: calloc takes
 * such from the kernel, which gives memory where something is written.
 */
static struct view *
view_new (struct esp_store *store, const esp_uuid *uuid, uint64_t size)
{
  struct view *v = calloc (1, sizeof *v);

  if (!v)
    return NULL;
  pthread_mutex_init (&v->lock, NULL);
  v->store = store;
  v->uuid = *uuid;
  v->bytes = esp_tiles (size) << ESP_TILE_SHIFT;
  v->serial = calloc (esp_tiles (size), sizeof v->serial[0]);
  v->state = calloc (esp_tiles (size), sizeof v->state[0]);
  if (v->serial && v->state && map_range (v))
    return v;
  view_free (v);
  return NULL;
}

/* --- idle ones -------------------------------------------------------------- */

static time_t
now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &ts);
  return ts.tv_sec;
}

static struct view *
take_idle (struct esp_store *store, const esp_uuid *uuid, uint64_t size)
{
  struct view *v, **p;

  ESP_LOCK_SCOPE (&idle_lock);
  for (p = &idle; (v = *p) != NULL; p = &v->next)
    if (v->store == store && esp_uuid_eq (&v->uuid, uuid) &&
        v->bytes == esp_tiles (size) << ESP_TILE_SHIFT) {
      *p = v->next;
      nidle--;
      return v;
    }
  return NULL;
}

struct view *
view_get (struct esp_store *store, const esp_uuid *uuid, uint64_t size)
{
  struct view *v = take_idle (store, uuid, size);

  return v ? v : view_new (store, uuid, size);
}

/* Put V into the list; false where it cannot stay. */
static bool
rest (struct view *v)
{
  free ((void *) v->state);
  v->state = calloc (v->bytes >> ESP_TILE_SHIFT, sizeof v->state[0]);
  if (!v->state)
    return false;
  ESP_LOCK_SCOPE (&idle_lock);
  if (!keep_idle || nidle >= IDLE_MAX)
    return false;
  v->idle_since = now ();
  v->next = idle;
  idle = v;
  nidle++;
  return true;
}

void
view_put (struct view *v)
{
  if (v && !rest (v))
    view_free (v);
}

void
view_keep_idle (bool keep)
{
  ESP_LOCK_SCOPE (&idle_lock);
  keep_idle = keep;
}

/* Take those that are idle since BEFORE or longer out of the list. */
static struct view *
take_old (time_t before)
{
  struct view *taken = NULL, *v, **p;

  ESP_LOCK_SCOPE (&idle_lock);
  for (p = &idle; (v = *p) != NULL; )
    if (v->idle_since <= before) {
      *p = v->next;
      v->next = taken;
      taken = v;
      nidle--;
    }
    else
      p = &v->next;
  return taken;
}

void
view_trim (unsigned seconds)
{
  struct view *v = take_old (now () - (time_t) seconds), *next;

  for (; v; v = next) {
    next = v->next;
    view_free (v);
  }
}

/* --- tiles -------------------------------------------------------------------- */

enum view_state
view_state (const struct view *v, uint64_t tile)
{
  return atomic_load_explicit (&v->state[tile], memory_order_acquire);
}

static bool
map_part (struct view *v, const struct view_part *p)
{
  return !p->src || mremap ((void *) p->src, 0, p->len,
                            MREMAP_MAYMOVE | MREMAP_FIXED,
                            v->range + p->offset) != MAP_FAILED;
}

/* What was mapped of a tile before, or by an attempt that failed. */
static bool
clear (struct view *v, uint64_t tile)
{
  v->serial[tile] = 0;
  return map_zeroes (v->range + (tile << ESP_TILE_SHIFT), ESP_TILE_SIZE)
    != MAP_FAILED;
}

static bool
add_locked (struct view *v, uint64_t tile, const struct view_part *part,
            unsigned n)
{
  uint64_t newest = 1;

  for (unsigned i = 0; i < n; ++i)
    if (part[i].serial > newest)
      newest = part[i].serial;
  if (v->serial[tile] >= newest)
    return true;
  if ((v->serial[tile] && !clear (v, tile)) || !take (n))
    return false;
  /* Until the view is freed, also for a tile that fails or is made again. */
  v->mappings += n;
  for (unsigned i = 0; i < n; ++i)
    if (!map_part (v, &part[i])) {
      (void) clear (v, tile);   /* it is not used either way */
      return false;
    }
  v->serial[tile] = newest;
  return true;
}

void
view_add (struct view *v, uint64_t tile, const struct view_part *part,
          unsigned n)
{
  ESP_LOCK_SCOPE (&v->lock);
  if (view_state (v, tile) != VIEW_UNKNOWN)
    return;
  bool has = n > 0 && add_locked (v, tile, part, n);
  atomic_store_explicit (&v->state[tile], has ? VIEW_HAS : VIEW_HAS_NOT,
                         memory_order_release);
}

const void *
view_at (const struct view *v, uint64_t offset)
{
  return v->range + offset;
}
