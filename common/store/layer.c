/* SPDX-License-Identifier: BSD-3-Clause */
/* Layers: how the bytes of a restore point are read.
 *
 * `data` is mapped whole and its descriptor closed; where the address space
 * that esp_guard_reserve shares out is used up, or the mapping fails, the
 * descriptor is kept and read with pread.  A root in place keeps its
 * descriptor in both cases: about once a second, when it is read, it is
 * compared with what it was (a device, where that takes reads, every ten).
 * Once it was found changed, it stays so until all its images are closed.
 *
 * How long a layer is says the file alone.  The chain map says which blocks
 * are in it, so a block behind its end means that it was cut short, before
 * we opened it or after: the mapping answers with SIGBUS then, which
 * esp_guard_copy turns into an error of the one read.
 *
 * Where the host asks for it, a layer that no image uses any more keeps its
 * mapping for a while: a client that comes again soon finds the pages mapped
 * and not only cached, which is most of what a short visit costs.  Such an
 * idle layer has no references and is not `open`: the next one who gets it
 * opens the file again and takes the mapping over only if it is of the same
 * file (its inode cannot be another's while we have it mapped).  An idle
 * layer locks nothing, so its restore point can be deleted or merged; the
 * space of a deleted one comes back when layer_trim drops the mapping.  A
 * delayed one closes its `have`: what is here may change while it is idle,
 * and the mapping is of the same file whatever is written or punched.
 *
 * Locks: `table_lock` protects the table and the reference counts and is
 * held for no I/O; a layer's `lock` is held while it is opened, by the one
 * who opens it and those who wait for the same.  Never both at once.  Reads
 * take none.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/inplace.h"
#include "store/layer-internal.h"
#include "store/rp.h"
#include "store/view.h"
#include "util/bits.h"
#include "util/cleanup.h"
#include "util/doc.h"
#include "util/guard.h"
#include "util/host.h"

struct layer {
  /* Protected by table_lock. */
  struct layer *next;
  unsigned refs;                /* 0: idle */
  uint64_t idle_since;          /* nanoseconds */

  /* Constant. */
  struct esp_store *store;
  esp_uuid uuid;

  /* Protected by lock until `open`, then constant. */
  pthread_mutex_t lock;
  bool open;
  const uint8_t *map;           /* NULL: not mapped */
  uint64_t mapped;              /* bytes */
  uint64_t serial;              /* of the mapping; never 0 */
  dev_t dev;                    /* of the mapped file */
  ino_t ino;
  int fd;                       /* -1: closed, since it is mapped */
  uint64_t size;                /* of the file */
  uint64_t limit;               /* size in whole blocks: see `limit_of` */
  struct esp_inplace inplace;   /* path NULL: a stored one */
  struct esp_have *have;        /* of a delayed one, else NULL */

  _Atomic uint64_t next_check;  /* of a root in place; nanoseconds */
  atomic_bool stale;
};

#define TABLE_SIZE 1024u

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct layer *table[TABLE_SIZE];

/* Idle layers; protected by table_lock.  Mappings are not free: a process
 * has 65,530 of them by default.
 */
#define IDLE_MAX 4096u
static bool keep_idle;
static unsigned nidle;

static atomic_uint_fast64_t last_serial;

/* --- the table -------------------------------------------------------- */

static struct layer **
bucket (const esp_uuid *uuid)
{
  unsigned h;

  memcpy (&h, uuid->b, sizeof h);       /* random bits */
  return &table[h % TABLE_SIZE];
}

/* Find or add the layer, with one more reference; NULL: out of memory. */
static struct layer *
find (struct esp_store *store, const esp_uuid *uuid)
{
  struct layer **head = bucket (uuid), *l;

  ESP_LOCK_SCOPE (&table_lock);
  for (l = *head; l; l = l->next)
    if (l->store == store && esp_uuid_eq (&l->uuid, uuid)) {
      if (l->refs++ == 0)
        nidle--;
      return l;
    }
  if (!(l = calloc (1, sizeof *l)))
    return NULL;
  pthread_mutex_init (&l->lock, NULL);
  l->store = store;
  l->uuid = *uuid;
  l->fd = -1;
  l->refs = 1;
  l->next = *head;
  return *head = l;
}

static void
unmap (struct layer *l)
{
  if (!l->map)
    return;
  munmap ((void *) l->map, l->mapped);
  esp_guard_release (l->mapped);
  l->map = NULL;
}

static void
free_layer (struct layer *l)
{
  unmap (l);
  esp_have_close (l->have);
  if (l->fd >= 0)
    close (l->fd);
  esp_inplace_clear (&l->inplace);
  pthread_mutex_destroy (&l->lock);
  free (l);
}

static uint64_t
now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &ts);
  return ts.tv_sec * UINT64_C (1000000000) + ts.tv_nsec;
}

/* The last reference to L is gone.  True where it stays, idle; *HAVE is to be
 * closed then.  `open` and `have` belong to the layer's own lock: whoever
 * gets L next comes by table_lock.
 */
static bool
rest_locked (struct layer *l, struct esp_have **have)
{
  if (!keep_idle || !l->map || l->inplace.path || nidle >= IDLE_MAX)
    return false;
  l->open = false;
  *have = ESP_STEAL (l->have);
  l->idle_since = now ();
  nidle++;
  return true;
}

static void
remove_locked (struct layer *l)
{
  struct layer **p = bucket (&l->uuid);

  while (*p != l)
    p = &(*p)->next;
  *p = l->next;
}

void
layer_put (struct layer *layer)
{
  struct esp_have *have = NULL;

  pthread_mutex_lock (&table_lock);
  bool last = --layer->refs == 0 && !rest_locked (layer, &have);
  if (last)
    remove_locked (layer);
  pthread_mutex_unlock (&table_lock);
  esp_have_close (have);
  if (last)
    free_layer (layer);
}

void
layer_keep_idle (bool keep)
{
  ESP_LOCK_SCOPE (&table_lock);
  keep_idle = keep;
}

/* Take the layers that are idle since BEFORE or longer out of the table;
 * they are linked by `next`.
 */
static struct layer *
take_idle (uint64_t before)
{
  struct layer *taken = NULL, *l, **p;

  ESP_LOCK_SCOPE (&table_lock);
  for (unsigned i = 0; i < TABLE_SIZE && nidle > 0; ++i)
    for (p = &table[i]; (l = *p) != NULL; )
      if (l->refs == 0 && l->idle_since <= before) {
        *p = l->next;
        l->next = taken;
        taken = l;
        nidle--;
      }
      else
        p = &l->next;
  return taken;
}

void
layer_trim (unsigned seconds)
{
  uint64_t t = now (), age = seconds * UINT64_C (1000000000);
  struct layer *l = take_idle (t > age ? t - age : 0), *next;

  for (; l; l = next) {
    next = l->next;
    free_layer (l);
  }
}

/* --- opening ---------------------------------------------------------- */

/* Report WHAT (with %m) of this layer.  Returns -1. */
static int
fail (const struct layer *l, const char *what)
{
  char text[ESP_UUID_TEXT];

  esp_error ("restore point %s: %s: %m", esp_uuid_text (&l->uuid, text), what);
  return -1;
}

static int
cut_short (const struct layer *l)
{
  char text[ESP_UUID_TEXT];

  errno = EIO;
  esp_error ("restore point %s: its data were cut short or cannot be read: "
             "run 'espalier store check'", esp_uuid_text (&l->uuid, text));
  return -1;
}

/* Open a root in place, as its meta says. */
static int
open_in_place (struct layer *l, int dir)
{
  char where[64] = "restore point ";

  unmap (l);
  json_t *meta = esp_doc_load (dir, ESP_RP_META, ESP_RP_META_KIND,
                               ESP_RP_META_VERSION);

  esp_uuid_text (&l->uuid, where + strlen (where));
  if (!meta)
    return errno == ENOENT ? fail (l, "open: meta") : -1;

  json_t *o = json_object_get (meta, ESP_INPLACE_KEY);
  int r;
  if (o)
    r = esp_inplace_from_json (o, &l->inplace, where);
  else {
    errno = ENOENT;
    r = fail (l, "open: data");
  }
  json_decref (meta);
  if (r == 0) {
    l->fd = esp_inplace_open (&l->inplace);
    l->size = l->inplace.size;
  }
  return l->fd == -1 ? -1 : 0;
}

static int
open_stored (struct layer *l, int dir)
{
  struct stat st;

  if (fstat (l->fd, &st) == -1)
    return fail (l, "stat: data");
  if (!S_ISREG (st.st_mode)) {
    errno = EBADMSG;
    return fail (l, "data is no regular file");
  }
  l->size = st.st_size;
  /* What an idle layer had mapped serves again if it is of this file. */
  if (st.st_dev != l->dev || st.st_ino != l->ino || l->size != l->mapped)
    unmap (l);
  l->dev = st.st_dev;
  l->ino = st.st_ino;
  return layer_may_be_delayed (dir, &st)
    ? layer_open_delayed (l->store, &l->uuid, &l->have) : 0;
}

static int
open_file (struct layer *l)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (l->store, &l->uuid);

  if (dir == -1)
    return fail (l, "open");
  l->fd = openat (dir, ESP_RP_DATA, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (l->fd == -1)
    return errno == ENOENT ? open_in_place (l, dir) : fail (l, "open: data");
  return open_stored (l, dir);
}

/* Address space is short: that of idle layers is there to be had. */
static int
reserve (uint64_t size)
{
  if (esp_guard_reserve (size) == 0)
    return 0;
  layer_trim (0);
  view_trim (0);
  return esp_guard_reserve (size);
}

static void
map_file (struct layer *l)
{
  if (l->size == 0 || reserve (l->size) == -1)
    return;
  void *p = mmap (NULL, l->size, PROT_READ, MAP_SHARED, l->fd, 0);
  if (p == MAP_FAILED) {
    char text[ESP_UUID_TEXT];
    esp_debug ("restore point %s: mmap: %m: reading with pread",
               esp_uuid_text (&l->uuid, text));
    esp_guard_release (l->size);
    return;
  }
  l->map = p;
  l->mapped = l->size;
  l->serial = atomic_fetch_add (&last_serial, 1) + 1;
}

/* After a failed attempt: as if it had not been. */
static void
unopen (struct layer *l)
{
  int saved = errno;

  unmap (l);
  if (l->fd >= 0)
    close (l->fd);
  l->fd = -1;
  esp_inplace_clear (&l->inplace);
  esp_have_close (ESP_STEAL (l->have));
  errno = saved;
}

static uint64_t
check_interval (const struct layer *l)
{
  return (l->inplace.device ? 10 : 1) * UINT64_C (1000000000);
}

/* Behind the end of a file its last page reads as zero.  A root in place may
 * end anywhere, and those zeroes are its disk's; `data` is whole blocks, so
 * one that ends within a block was cut there, and that block is lost.
 */
static uint64_t
limit_of (const struct layer *l)
{
  uint64_t up = l->inplace.path ? ESP_BLOCK_SIZE - 1 : 0;

  return (l->size + up) & ~(ESP_BLOCK_SIZE - 1);
}

static int
ensure_open (struct layer *l)
{
  ESP_LOCK_SCOPE (&l->lock);

  if (l->open)
    return 0;
  if (esp_guard_init () == -1)
    return fail (l, "sigaction");
  if (open_file (l) == -1) {
    unopen (l);
    return -1;
  }
  l->limit = limit_of (l);
  if (!l->map)
    map_file (l);
  if (l->map && !l->inplace.path) {
    close (l->fd);
    l->fd = -1;
  }
  atomic_store (&l->next_check, now () + check_interval (l));
  l->open = true;
  return 0;
}

struct layer *
layer_get (struct esp_store *store, const esp_uuid *uuid)
{
  struct layer *l = find (store, uuid);

  if (!l) {
    esp_error ("out of memory: %m");
    return NULL;
  }
  if (ensure_open (l) == -1) {
    int saved = errno;
    layer_put (l);
    errno = saved;
    return NULL;
  }
  return l;
}

/* --- reading ---------------------------------------------------------- */

static int
check_now (struct layer *l)
{
  if (esp_inplace_same (l->fd, &l->inplace) == 0)
    return 0;
  if (errno == ESTALE)
    atomic_store (&l->stale, true);
  return -1;
}

/* Has a root in place changed?  Looks when it is time to; one thread does. */
static int
check_in_place (struct layer *l)
{
  uint64_t t = now ();
  uint64_t due = atomic_load_explicit (&l->next_check, memory_order_relaxed);

  if (atomic_load_explicit (&l->stale, memory_order_relaxed)) {
    errno = ESTALE;
    esp_error ("root store in place %s: it changed since it was added",
               l->inplace.path);
    return -1;
  }
  if (t < due ||
      !atomic_compare_exchange_strong (&l->next_check, &due,
                                       t + check_interval (l)))
    return 0;
  return check_now (l);
}

/* A read failed.  A root in place that changed says so rather. */
static int
read_failed (struct layer *l)
{
  if (l->inplace.path && check_now (l) == -1)
    return -1;
  return cut_short (l);
}

static int
read_unmapped (struct layer *l, uint8_t *buf, uint64_t n, uint64_t offset)
{
  while (n > 0) {
    ssize_t r = pread (l->fd, buf, n, offset);

    if (r == -1 && errno == EINTR)
      continue;
    if (r == -1) {
      fail (l, "read: data");
      errno = EIO;
      return -1;
    }
    if (r == 0) {
      if (offset < l->size)
        return read_failed (l);
      /* The rest of the last block. */
      memset (buf, 0, n);
      return 0;
    }
    buf += r;
    n -= r;
    offset += r;
  }
  return 0;
}

/* Is there nothing to be done at a read but to copy?  Views read a plain layer
 * without layer_read, so one for which that does anything else is not plain.
 */
static inline bool
is_plain (const struct layer *l)
{
  return l->map && !l->inplace.path && !l->have;
}

const void *
layer_mapping (const struct layer *layer, uint64_t n, uint64_t offset,
               uint64_t *serial)
{
  if (!is_plain (layer) || offset + n > layer->limit)
    return NULL;
  *serial = layer->serial;
  return layer->map + offset;
}

int
layer_read_now (struct layer *layer, void *buf, uint64_t n, uint64_t offset)
{
  if (offset + n > layer->limit)
    return read_failed (layer);
  if (!layer->map)
    return read_unmapped (layer, buf, n, offset);
  if (esp_guard_copy (buf, layer->map + offset, n) == -1)
    return read_failed (layer);
  return 0;
}

int
layer_read (struct layer *layer, void *buf, uint64_t n, uint64_t offset)
{
  if (layer->have)
    return layer_read_delayed (layer, layer->have, buf, n, offset);
  if (layer->inplace.path && check_in_place (layer) == -1)
    return -1;
  return layer_read_now (layer, buf, n, offset);
}

void
layer_cache_now (struct layer *layer, uint64_t n, uint64_t offset)
{
  uint64_t end = offset + n < layer->size ? offset + n : layer->size;

  offset &= ~(ESP_BLOCK_SIZE - 1);
  if (offset >= end)
    return;
  /* Only a hint: that it fails costs the reader time, nothing else. */
  if (layer->map)
    (void) madvise ((void *) (layer->map + offset), end - offset,
                    MADV_WILLNEED);
  else
    (void) posix_fadvise (layer->fd, offset, end - offset,
                          POSIX_FADV_WILLNEED);
}

void
layer_cache (struct layer *layer, uint64_t n, uint64_t offset)
{
  if (layer->have)
    layer_cache_delayed (layer, layer->have, n, offset);
  else
    layer_cache_now (layer, n, offset);
}
