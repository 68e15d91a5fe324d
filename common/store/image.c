/* SPDX-License-Identifier: BSD-3-Clause */
/* Images: a tip's chain map and the layers that it names.
 *
 * An image is one object for each restore point and process, however many
 * connections have it open.  Opening one reads the tip's chain map and
 * nothing of the other restore points, so depth costs nothing; a layer is
 * opened by the first read that needs it and stays open with the image.
 *
 * `layers` has a pointer for each owner of the chain, set once by whoever
 * opens the layer first: a read finds its layer without a lock.
 *
 * Where a tile has several owners, a view (view.c) has it in one piece from
 * its first read on.
 *
 * Locks: `table_lock` protects the table and the reference counts and is
 * held for no I/O; an image's `lock` is held while it is opened, by the one
 * who opens it and those who wait for the same.  Never both at once.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/image.h"
#include "store/layer.h"
#include "store/view.h"
#include "util/cleanup.h"
#include "util/guard.h"
#include "util/host.h"
#include "util/lock.h"

struct esp_image {
  /* Protected by table_lock. */
  struct esp_image *next;
  unsigned refs;

  /* Constant. */
  struct esp_store *store;
  esp_uuid uuid;

  /* Protected by lock until `open`, then constant (layers' elements are set
   * once, atomically).
   */
  pthread_mutex_t lock;
  bool open;
  int dir;                      /* of the restore point, locked */
  struct esp_chain *chain;
  uint64_t size;                /* of the disk, bytes */
  _Atomic (struct layer *) *layers;     /* by owner, 1 .. depth */
  _Atomic (struct view *) view; /* NULL: nobody needed it yet */
};

#define TABLE_SIZE 1024u

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_image *table[TABLE_SIZE];

/* --- the table -------------------------------------------------------- */

static struct esp_image **
bucket (const esp_uuid *uuid)
{
  unsigned h;

  memcpy (&h, uuid->b, sizeof h);       /* random bits */
  return &table[h % TABLE_SIZE];
}

/* Find or add the image, with one more reference; NULL: out of memory. */
static struct esp_image *
find (struct esp_store *store, const esp_uuid *uuid)
{
  struct esp_image **head = bucket (uuid), *image;

  ESP_LOCK_SCOPE (&table_lock);
  for (image = *head; image; image = image->next)
    if (image->store == store && esp_uuid_eq (&image->uuid, uuid)) {
      image->refs++;
      return image;
    }
  if (!(image = calloc (1, sizeof *image)))
    return NULL;
  pthread_mutex_init (&image->lock, NULL);
  image->store = store;
  image->uuid = *uuid;
  image->dir = -1;
  image->refs = 1;
  image->next = *head;
  return *head = image;
}

/* Close what is open of IMAGE. */
static void
unopen (struct esp_image *image)
{
  int saved = errno;

  view_put (image->view);
  image->view = NULL;
  if (image->layers)
    for (unsigned i = 1; i <= esp_chain_depth (image->chain); ++i)
      if (image->layers[i])
        layer_put (image->layers[i]);
  free ((void *) image->layers);
  image->layers = NULL;
  esp_chain_close (image->chain);
  image->chain = NULL;
  esp_cleanup_close (&image->dir);
  image->dir = -1;
  errno = saved;
}

void
esp_image_close (struct esp_image *image)
{
  if (!image)
    return;
  pthread_mutex_lock (&table_lock);
  bool last = --image->refs == 0;
  if (last) {
    struct esp_image **p = bucket (&image->uuid);
    while (*p != image)
      p = &(*p)->next;
    *p = image->next;
  }
  pthread_mutex_unlock (&table_lock);
  if (last) {
    unopen (image);
    pthread_mutex_destroy (&image->lock);
    free (image);
  }
}

/* --- opening ---------------------------------------------------------- */

static int
fail (const struct esp_image *image, const char *what)
{
  char text[ESP_UUID_TEXT];

  esp_error ("restore point %s%s", esp_uuid_text (&image->uuid, text), what);
  return -1;
}

/* Is the directory that we locked still the restore point's?  A deletion
 * may have moved it away before we had the lock.
 */
static bool
still_there (const struct esp_image *image)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (image->store, &image->uuid);
  struct stat ours, named;

  if (dir == -1 || fstat (dir, &named) == -1 ||
      fstat (image->dir, &ours) == -1)
    return false;
  if (named.st_ino != ours.st_ino || named.st_dev != ours.st_dev) {
    errno = ENOENT;
    return false;
  }
  return true;
}

static int
lock_dir (struct esp_image *image)
{
  image->dir = esp_store_rp_dir (image->store, &image->uuid);
  if (image->dir == -1)
    return fail (image, errno == ENOENT ? " does not exist" : ": open: %m");
  if (esp_lock (image->dir, false) == -1) {
    if (errno != EWOULDBLOCK)
      return fail (image, ": flock: %m");
    errno = EBUSY;
    return fail (image, " is being merged or deleted: try again later");
  }
  if (!still_there (image))
    return fail (image, errno == ENOENT ? " does not exist any more"
                 : ": open: %m");
  return 0;
}

/* The tip's chain map.  By its whole name, for the messages: the lock keeps
 * the directory where it is.
 */
static int
open_chain (struct esp_image *image)
{
  char name[ESP_UUID_TEXT + sizeof "/" ESP_RP_CHAIN];

  esp_uuid_text (&image->uuid, name);
  strcat (name, "/" ESP_RP_CHAIN);
  image->chain = esp_chain_open (esp_store_rps_fd (image->store), name);
  if (!image->chain)
    return -1;
  unsigned depth = esp_chain_depth (image->chain);
  if (!esp_uuid_eq (esp_chain_owner (image->chain, depth), &image->uuid)) {
    errno = EBADMSG;
    return fail (image, ": its chain map is another restore point's: run "
                 "'espalier store check --repair'");
  }
  return 0;
}

static int
open_parts (struct esp_image *image)
{
  if (lock_dir (image) == -1 || open_chain (image) == -1)
    return -1;
  image->size = esp_chain_size (image->chain);
  image->layers = calloc (esp_chain_depth (image->chain) + 1,
                          sizeof *image->layers);
  if (!image->layers)
    return fail (image, ": out of memory: %m");
  return 0;
}

static int
ensure_open (struct esp_image *image)
{
  ESP_LOCK_SCOPE (&image->lock);

  if (image->open)
    return 0;
  if (open_parts (image) == -1) {
    unopen (image);
    return -1;
  }
  image->open = true;
  return 0;
}

struct esp_image *
esp_image_open (struct esp_store *store, const esp_uuid *uuid)
{
  struct esp_image *image = find (store, uuid);

  if (!image) {
    esp_error ("out of memory: %m");
    return NULL;
  }
  if (ensure_open (image) == -1) {
    int saved = errno;
    esp_image_close (image);
    errno = saved;
    return NULL;
  }
  return image;
}

uint64_t
esp_image_size (const struct esp_image *image)
{
  return image->size;
}

const esp_uuid *
esp_image_uuid (const struct esp_image *image)
{
  return &image->uuid;
}

struct esp_chain *
esp_image_chain (struct esp_image *image)
{
  return image->chain;
}

/* --- runs ------------------------------------------------------------- */

/* The first open by any thread wins. */
static struct layer *
open_layer (struct esp_image *image, unsigned owner)
{
  struct layer *expected = NULL;
  struct layer *l = layer_get (image->store,
                               esp_chain_owner (image->chain, owner));

  if (l && !atomic_compare_exchange_strong (&image->layers[owner], &expected,
                                            l)) {
    layer_put (l);
    l = expected;
  }
  return l;
}

static inline struct layer *
get_layer (struct esp_image *image, unsigned owner)
{
  struct layer *l = atomic_load_explicit (&image->layers[owner],
                                          memory_order_acquire);

  return __builtin_expect (l != NULL, 1) ? l : open_layer (image, owner);
}

static int
check_range (const struct esp_image *image, uint64_t count, uint64_t offset)
{
  if (count <= image->size && offset <= image->size - count)
    return 0;
  errno = EINVAL;
  return fail (image, ": a request goes beyond the end of the disk");
}

/* Call FN for each run of [OFFSET, OFFSET+COUNT), clipped; it returns 0 to
 * go on.  What else it returns is returned.
 */
typedef int (*run_fn) (void *arg, struct esp_image *image,
                       const struct esp_run *run, uint64_t offset,
                       uint64_t len);

static inline __attribute__ ((always_inline)) int
each_run (struct esp_image *image, uint64_t offset, uint64_t count,
          run_fn fn, void *arg)
{
  if (check_range (image, count, offset) == -1)
    return -1;
  while (count > 0) {
    uint64_t block = offset >> ESP_BLOCK_SHIFT;
    struct esp_run run;

    if (esp_chain_run (image->chain, block,
                       esp_blocks (offset + count) - block, &run) == -1)
      return -1;
    uint64_t len = ((block + run.nblocks) << ESP_BLOCK_SHIFT) - offset;
    if (len > count)
      len = count;
    int r = fn (arg, image, &run, offset, len);
    if (r != 0)
      return r;
    offset += len;
    count -= len;
  }
  return 0;
}

static int
read_run (void *arg, struct esp_image *image, const struct esp_run *run,
          uint64_t offset, uint64_t len)
{
  uint8_t **buf = arg;

  if (run->state != ESP_DATA)
    memset (*buf, 0, len);
  else {
    struct layer *l = get_layer (image, run->owner);
    if (!l || layer_read (l, *buf, len, offset) == -1)
      return -1;
  }
  *buf += len;
  return 0;
}

/* --- tiles of several owners, read through a view ------------------------ */

/* The first by any thread wins.  NULL: there is none. */
static struct view *
get_view (struct esp_image *image)
{
  struct view *v = atomic_load_explicit (&image->view, memory_order_acquire);
  struct view *expected = NULL;

  if (v || esp_chain_depth (image->chain) < 2)
    return v;
  v = view_get (image->store, &image->uuid, image->size);
  if (v && !atomic_compare_exchange_strong (&image->view, &expected, v)) {
    view_put (v);
    v = expected;
  }
  return v;
}

struct parts {
  unsigned n;
  struct view_part part[ESP_TILE_BLOCKS];
};

/* 1: a layer of the tile cannot be read so. */
static int
add_part (void *arg, struct esp_image *image, const struct esp_run *run,
          uint64_t offset, uint64_t len)
{
  struct parts *p = arg;
  struct view_part *part = &p->part[p->n++];

  *part = (struct view_part) { .offset = offset, .len = len };
  if (run->state != ESP_DATA)
    return 0;
  struct layer *l = get_layer (image, run->owner);
  if (!l)
    return -1;
  part->src = layer_mapping (l, len, offset, &part->serial);
  return part->src ? 0 : 1;
}

/* A tile of one run reads as well from where it is. */
static void
add_tile (struct esp_image *image, struct view *v, uint64_t tile)
{
  uint64_t start = tile << ESP_TILE_SHIFT, left = image->size - start;
  struct parts p;

  p.n = 0;
  if (each_run (image, start, left < ESP_TILE_SIZE ? left : ESP_TILE_SIZE,
                add_part, &p) != 0 || p.n == 1)
    p.n = 0;
  view_add (v, tile, p.part, p.n);
}

/* For how many of the COUNT bytes at OFFSET the answer is the same: does the
 * view have them?
 */
static uint64_t
stretch (struct esp_image *image, struct view *v, uint64_t offset,
         uint64_t count, bool *has)
{
  uint64_t end = offset + count, at = offset;

  while (at < end) {
    uint64_t tile = at >> ESP_TILE_SHIFT;

    if (view_state (v, tile) == VIEW_UNKNOWN)
      add_tile (image, v, tile);
    bool h = view_state (v, tile) == VIEW_HAS;
    if (at == offset)
      *has = h;
    else if (h != *has)
      break;
    at = (tile + 1) << ESP_TILE_SHIFT;
  }
  return (at < end ? at : end) - offset;
}

static int
read_runs (struct esp_image *image, uint8_t *buf, uint64_t count,
           uint64_t offset)
{
  return each_run (image, offset, count, read_run, &buf);
}

/* Where the view fails, the runs tell which layer it is. */
static int
read_stretch (struct esp_image *image, struct view *v, bool has, uint8_t *buf,
              uint64_t n, uint64_t offset)
{
  if (has && esp_guard_copy (buf, view_at (v, offset), n) == 0)
    return 0;
  return read_runs (image, buf, n, offset);
}

int
esp_image_pread (struct esp_image *image, void *buf, uint64_t count,
                 uint64_t offset)
{
  struct view *v = get_view (image);

  if (!v)
    return read_runs (image, buf, count, offset);
  if (check_range (image, count, offset) == -1)
    return -1;
  while (count > 0) {
    bool has = false;
    uint64_t n = stretch (image, v, offset, count, &has);

    if (read_stretch (image, v, has, buf, n, offset) == -1)
      return -1;
    buf = (uint8_t *) buf + n;
    count -= n;
    offset += n;
  }
  return 0;
}

static int
cache_run (void *arg, struct esp_image *image, const struct esp_run *run,
           uint64_t offset, uint64_t len)
{
  (void) arg;
  if (run->state == ESP_DATA) {
    struct layer *l = get_layer (image, run->owner);
    if (!l)
      return -1;
    layer_cache (l, len, offset);
  }
  return 0;
}

int
esp_image_cache (struct esp_image *image, uint64_t offset, uint64_t count)
{
  return each_run (image, offset, count, cache_run, NULL);
}

/* Runs of one state, joined whoever owns them. */
struct join {
  esp_extent_fn fn;
  void *arg;
  uint64_t offset, len;         /* not told yet */
  enum esp_state state;
};

static int
tell (struct join *j)
{
  return j->len ? j->fn (j->arg, j->offset, j->len, j->state) : 0;
}

static int
join_run (void *arg, struct esp_image *image, const struct esp_run *run,
          uint64_t offset, uint64_t len)
{
  struct join *j = arg;

  (void) image;
  if (j->len && run->state == j->state) {
    j->len += len;
    return 0;
  }
  int r = tell (j);
  j->offset = offset;
  j->len = len;
  j->state = run->state;
  return r;
}

int
esp_image_extents (struct esp_image *image, uint64_t offset, uint64_t count,
                   esp_extent_fn fn, void *arg)
{
  struct join j = { .fn = fn, .arg = arg };
  int r = each_run (image, offset, count, join_run, &j);

  if (r == 0)
    r = tell (&j);
  return r == -1 ? -1 : 0;
}
