/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed restore points that this process has open: one object for each,
 * counted, and what can be asked of it without I/O.
 *
 * Locks: `table_lock` protects the table and the reference counts and is
 * held for no I/O; an object's `lock` is held while it is opened.  Never both
 * at once.  The last one who closes does so outside of the table: another
 * thread that opens it again meanwhile makes a new object, and waits for the
 * old one at the file's lock.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "store/have-internal.h"
#include "util/host.h"

#define TABLE_SIZE 1024u

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_have *table[TABLE_SIZE];

/* Set once, behind the fork, before anybody reads. */
static esp_fetch_fn fetch_fn;
static void *fetch_arg;

/* --- the table -------------------------------------------------------- */

static struct esp_have **
bucket (const esp_uuid *uuid)
{
  unsigned h;

  memcpy (&h, uuid->b, sizeof h);       /* random bits */
  return &table[h % TABLE_SIZE];
}

static struct esp_have *
have_new (struct esp_store *store, const esp_uuid *uuid)
{
  struct esp_have *h = calloc (1, sizeof *h);
  pthread_rwlockattr_t attr;

  if (h == NULL)
    return NULL;
  h->store = store;
  h->uuid = *uuid;
  h->refs = 1;
  h->dir = h->fd = -1;
  h->data_fd = h->segments_fd = h->drop_fd = -1;
  pthread_mutex_init (&h->lock, NULL);
  /* Many who write must not keep one who punches waiting for ever. */
  pthread_rwlockattr_init (&attr);
  pthread_rwlockattr_setkind_np (&attr,
                                 PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init (&h->punch, &attr);
  pthread_rwlockattr_destroy (&attr);
  return h;
}

/* Find or add, with one more reference; NULL: out of memory. */
static struct esp_have *
find (struct esp_store *store, const esp_uuid *uuid)
{
  struct esp_have **head = bucket (uuid), *h;

  ESP_LOCK_SCOPE (&table_lock);
  for (h = *head; h; h = h->next)
    if (h->store == store && esp_uuid_eq (&h->uuid, uuid)) {
      h->refs++;
      return h;
    }
  if (!(h = have_new (store, uuid)))
    return NULL;
  h->next = *head;
  return *head = h;
}

static int
ensure_open (struct esp_have *h)
{
  ESP_LOCK_SCOPE (&h->lock);

  if (h->open)
    return 0;
  if (have_open_files (h) == -1) {
    have_close_files (h);
    return -1;
  }
  h->open = true;
  return 0;
}

struct esp_have *
esp_have_open (struct esp_store *store, const esp_uuid *uuid)
{
  struct esp_have *h = find (store, uuid);

  if (!h) {
    esp_error ("out of memory: %m");
    return NULL;
  }
  if (ensure_open (h) == -1) {
    int saved = errno;
    esp_have_close (h);
    errno = saved;
    return NULL;
  }
  return h;
}

void
esp_have_close (struct esp_have *h)
{
  int saved = errno;

  if (!h)
    return;
  pthread_mutex_lock (&table_lock);
  bool last = --h->refs == 0;
  if (last) {
    struct esp_have **p = bucket (&h->uuid);
    while (*p != h)
      p = &(*p)->next;
    *p = h->next;
  }
  pthread_mutex_unlock (&table_lock);
  if (last) {
    have_close_files (h);
    pthread_rwlock_destroy (&h->punch);
    pthread_mutex_destroy (&h->lock);
    free (h);
  }
  errno = saved;
}

/* --- what it is -------------------------------------------------------- */

const esp_uuid *
esp_have_uuid (const struct esp_have *h)
{
  return &h->uuid;
}

unsigned
esp_have_shift (const struct esp_have *h)
{
  return h->shift;
}

size_t
esp_have_entries (const struct esp_have *h)
{
  return h->n;
}

uint64_t
esp_have_bytes (const struct esp_have *h)
{
  return h->bytes;
}

uint64_t
esp_have_local (const struct esp_have *h)
{
  return atomic_load_explicit (&h->h->local, memory_order_relaxed);
}

bool
esp_have_complete (const struct esp_have *h)
{
  return atomic_load_explicit (&h->h->missing, memory_order_acquire) == 0 &&
    !h->distrust;
}

/* --- entries ------------------------------------------------------------ */

size_t
esp_have_find (const struct esp_have *h, uint32_t number)
{
  uint64_t below;

  if (number >= h->numbers)
    return h->n;
  below = h->bits[number / 64] & ((UINT64_C (1) << (number % 64)) - 1);
  return h->ranks[number / 64] + __builtin_popcountll (below);
}

uint32_t
esp_have_number (const struct esp_have *h, size_t entry)
{
  return segments_number (&h->table, entry);
}

size_t
esp_have_raw_size (struct esp_have *h, size_t entry)
{
  return (size_t) esp_segment_blocks (h->map, h->shift,
                                      esp_have_number (h, entry))
    << ESP_BLOCK_SHIFT;
}

/* Read-only: what this process found counts where the shared state does not
 * say ABSENT, and is not to be believed.
 */
static enum esp_have_state
own_state (const struct esp_have *h, size_t entry, uint8_t shared)
{
  uint8_t own;

  if (shared == ESP_HAVE_ABSENT)
    return ESP_HAVE_ABSENT;
  if (shared == ESP_HAVE_CHECKED && !h->distrust)
    return ESP_HAVE_CHECKED;
  own = atomic_load_explicit (&h->own[entry], memory_order_acquire);
  return own == 0 ? ESP_HAVE_LOCAL
    : own == HAVE_OWN_BAD ? ESP_HAVE_ABSENT : ESP_HAVE_CHECKED;
}

enum esp_have_state
esp_have_state (const struct esp_have *h, size_t entry)
{
  uint8_t s = atomic_load_explicit (&h->state[entry], memory_order_acquire);

  if (__builtin_expect (h->readonly, 0))
    return own_state (h, entry, s);
  /* A state that was never written is damage that came while it was open. */
  return s <= ESP_HAVE_CHECKED ? (enum esp_have_state) s : ESP_HAVE_LOCAL;
}

bool
esp_have_digest (const struct esp_have *h, size_t entry, esp_digest *out)
{
  return segments_digest (&h->table, entry, out);
}

void
esp_have_touch (struct esp_have *h, size_t entry, uint8_t tick)
{
  /* Many read, few change: do not take the cache line for nothing. */
  if (!h->readonly &&
      atomic_load_explicit (&h->age[entry], memory_order_relaxed) != tick)
    atomic_store_explicit (&h->age[entry], tick, memory_order_relaxed);
}

uint8_t
esp_have_age (const struct esp_have *h, size_t entry)
{
  return atomic_load_explicit (&h->age[entry], memory_order_relaxed);
}

bool
esp_have_try_lock (struct esp_have *h, size_t entry)
{
  return !h->readonly &&
    have_ofd_lock (h->fd, HAVE_LOCK_ENTRIES + entry, F_WRLCK, false) == 0;
}

void
esp_have_unlock (struct esp_have *h, size_t entry)
{
  have_ofd_lock (h->fd, HAVE_LOCK_ENTRIES + entry, F_UNLCK, false);
}

/* --- fetching ------------------------------------------------------------ */

void
esp_have_set_fetcher (esp_fetch_fn fn, void *arg)
{
  fetch_arg = arg;
  fetch_fn = fn;
}

bool
have_can_fetch (void)
{
  return fetch_fn != NULL;
}

int
have_fetch (struct esp_have *h, uint64_t offset, uint64_t len)
{
  if (fetch_fn)
    return fetch_fn (fetch_arg, h->store, &h->uuid, offset, len);
  errno = EIO;
  esp_error ("restore point %s: what is read here is not local yet: serve it "
             "with 'nbdkit --filter=delayload', or run 'espalier hydrate %s "
             "--now' first", h->name, h->name);
  return -1;
}
