/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory of this host: get, put, forget.
 *
 * A segment's value is sealed in parts of a slot each.  A part's head is in
 * the index, its data in the slot: so data are whole pages of the file, are
 * read right into the caller's buffer, and most often with one pread for the
 * whole segment.
 *
 * No locks: dir-index.c has how ways change hands.  What keeps old bytes out
 * is the epoch in the home set of an export's key, the set of its part 0:
 *
 *   get     epoch, heads, slots, epoch again: another one, and it is a miss
 *   put     (epoch, by the caller before it fetched) take: PENDING; write;
 *           epoch: another one, and it is given up; VALID, by a swap that
 *           fails where a forget freed the way meanwhile
 *   forget  epoch + 1; free all ways that may be the key's
 *
 * All of these are sequentially consistent, so either the forget finds the
 * put's ways, or the put finds the forget's epoch.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "cache/dir-internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

/* One get, or put. */
struct op {
  struct esp_cdir *dir;
  struct cdir_spot spot;
  size_t length;
  unsigned n;                   /* parts */
  uint64_t epoch;
  bool ok;
  struct cdir_part part[CDIR_PARTS];
};

static void
count (atomic_uint_fast64_t *counter, uint64_t n)
{
  atomic_fetch_add_explicit (counter, n, memory_order_relaxed);
}

/* --- opening ---------------------------------------------------------------- */

static int
open_dir (struct esp_cdir *cdir, const char *dir, uint64_t max)
{
  if (mkdir (dir, 0700) == -1 && errno != EEXIST) {
    esp_error ("mkdir: %s: %m", dir);
    return -1;
  }
  cdir->path = esp_asprintf ("%s/" CDIR_FILE, dir);
  if (!cdir->path) {
    esp_error ("%s: %m", dir);
    return -1;
  }
  return cdir_attach (cdir, dir, max);
}

struct esp_cdir *
esp_cdir_open (const char *dir, uint64_t max, const struct esp_sealer *sealer)
{
  struct esp_cdir *cdir = calloc (1, sizeof *cdir);
  int saved;

  if (!cdir) {
    esp_error ("%s: %m", dir);
    return NULL;
  }
  cdir->dirfd = cdir->fd = -1;
  cdir->sealer = sealer;
  pthread_mutex_init (&cdir->lock, NULL);
  if (open_dir (cdir, dir, max) == 0)
    return cdir;
  saved = errno;
  esp_cdir_close (cdir);
  errno = saved;
  return NULL;
}

void
esp_cdir_close (struct esp_cdir *dir)
{
  if (!dir)
    return;
  cdir_detach (dir);
  pthread_mutex_destroy (&dir->lock);
  free (dir->path);
  free (dir);
}

/* --- what get and put share ------------------------------------------------- */

static bool
op_begin (struct op *op, struct esp_cdir *dir, const struct esp_cache_key *key,
          size_t len)
{
  if (atomic_load_explicit (&dir->broken, memory_order_relaxed) ||
      key->shift < ESP_SEGMENT_SHIFT_MIN ||
      key->shift > ESP_SEGMENT_SHIFT_MAX ||
      len == 0 || len > 1u << key->shift)
    return false;
  op->dir = dir;
  op->length = len;
  op->n = (unsigned) ((len + CDIR_SLOT - 1) / CDIR_SLOT);
  op->ok = false;
  cdir_spot (dir, key, &op->spot);
  return true;
}

static size_t
part_len (const struct op *op, unsigned part)
{
  size_t rest = op->length - part * (size_t) CDIR_SLOT;

  return rest < CDIR_SLOT ? rest : CDIR_SLOT;
}

static bool
same_epoch (const struct op *op)
{
  return atomic_load (&cdir_home (op->dir, &op->spot)->epoch) == op->epoch;
}

/* The parts from FIRST on whose slots follow each other in the file, and are
 * all to be written, or none; their bytes to *LEN.
 */
static unsigned
run_of (const struct op *op, unsigned first, size_t *len)
{
  const struct cdir_part *part = op->part;
  unsigned n = 0;

  *len = 0;
  do {
    *len += part_len (op, first + n);
    ++n;
  } while (first + n < op->n && part[first + n].way == part[first].way &&
           part[first + n].set == part[first].set + n &&
           part[first + n].mine == part[first].mine);
  return n;
}

static void
disk_error (struct esp_cdir *dir, const char *call)
{
  atomic_bool *told = errno == ENOSPC ? &dir->told_full : &dir->told_io;

  count (&dir->errors, 1);
  if (!atomic_exchange (told, true))
    esp_warning ("%s: %s: %m: what does not fit or cannot be read is fetched"
                 " again", call, dir->path);
}

/* --- get ---------------------------------------------------------------------- */

static int
look (void *arg)
{
  struct op *op = arg;

  op->epoch = atomic_load (&cdir_home (op->dir, &op->spot)->epoch);
  for (unsigned p = 0; p < op->n; ++p) {
    op->part[p].part = p;
    op->part[p].mine = false;
    if (!cdir_find (op->dir, &op->spot, op->length, &op->part[p]))
      return 0;
  }
  op->ok = true;
  return 0;
}

/* Nobody needs to ask a restore point's: it never changes. */
static int
got (void *arg)
{
  struct op *op = arg;

  op->ok = op->spot.key->kind != ESP_CACHE_EXPORT || same_epoch (op);
  for (unsigned p = 0; op->ok && p < op->n; ++p)
    cdir_touch (op->dir, &op->spot, &op->part[p]);
  return 0;
}

struct bad { struct op *op; unsigned first, n; bool was_there; };

static int
free_bad (void *arg)
{
  struct bad *bad = arg;

  for (unsigned p = bad->first; p < bad->first + bad->n; ++p)
    if (cdir_release (bad->op->dir, &bad->op->spot, &bad->op->part[p]))
      bad->was_there = true;
  return 0;
}

/* They cannot be read, or opened.  True: they were still what we asked for. */
static bool
remove_bad (struct op *op, unsigned first, unsigned n)
{
  struct bad bad = { .op = op, .first = first, .n = n };

  return cdir_guarded (op->dir, free_bad, &bad) == 0 && bad.was_there;
}

static bool
read_slots (struct op *op, uint8_t *buf)
{
  size_t len;

  for (unsigned p = 0, n; p < op->n; p += n) {
    n = run_of (op, p, &len);
    if (esp_pread_all (op->dir->fd, buf + p * (size_t) CDIR_SLOT, len,
                       cdir_slot (op->dir, &op->spot, &op->part[p])) == 0)
      continue;
    disk_error (op->dir, "read");
    remove_bad (op, p, n);
    return false;
  }
  return true;
}

static bool
open_values (struct op *op, uint8_t *buf)
{
  for (unsigned p = 0; p < op->n; ++p)
    if (esp_value_open_apart (op->dir->sealer, op->spot.key, op->part[p].head,
                              buf + p * (size_t) CDIR_SLOT, part_len (op, p))
        != ESP_VALUE_OK) {
      if (remove_bad (op, p, 1))
        count (&op->dir->lies, 1);
      return false;
    }
  return true;
}

bool
esp_cdir_get (struct esp_cdir *dir, const struct esp_cache_key *key,
              void *buf, size_t len, uint64_t *epoch)
{
  struct op op;

  *epoch = 0;
  if (!op_begin (&op, dir, key, len) || cdir_guarded (dir, look, &op) == -1) {
    count (&dir->misses, 1);
    return false;
  }
  *epoch = op.epoch;
  if (op.ok && read_slots (&op, buf) && open_values (&op, buf) &&
      cdir_guarded (dir, got, &op) == 0 && op.ok) {
    count (&dir->hits, 1);
    count (&dir->bytes_read, len);
    return true;
  }
  count (&dir->misses, 1);
  return false;
}

/* --- put ---------------------------------------------------------------------- */

static int
give_up (void *arg)
{
  struct op *op = arg;

  for (unsigned p = 0; p < op->n; ++p)
    if (op->part[p].mine)
      cdir_release (op->dir, &op->spot, &op->part[p]);
  return 0;
}

/* A way for each part that is not there already. */
static int
take (void *arg)
{
  struct op *op = arg;
  unsigned uses, way = 0;

  uses = cdir_ghost (op->dir, &op->spot) ? 1 : 0;
  for (unsigned p = 0; p < op->n; ++p) {
    struct cdir_part *part = &op->part[p];

    part->part = p;
    part->mine = false;
    if (!cdir_find (op->dir, &op->spot, op->length, part) &&
        !cdir_take (op->dir, &op->spot, way, uses, part)) {
      op->n = p;
      return give_up (op);
    }
    way = part->way;
  }
  op->ok = true;
  return 0;
}

static int
write_heads (void *arg)
{
  struct op *op = arg;

  for (unsigned p = 0; p < op->n; ++p)
    if (op->part[p].mine)
      cdir_write_head (op->dir, &op->spot, &op->part[p]);
  return 0;
}

static int
publish (void *arg)
{
  struct op *op = arg;

  op->ok = same_epoch (op);
  for (unsigned p = 0; p < op->n && op->ok; ++p)
    if (op->part[p].mine)
      op->ok = cdir_publish (op->dir, &op->spot, &op->part[p],
                             part_len (op, p));
  return op->ok ? 0 : give_up (op);
}

/* What goes to the slots: BUF, or ROOM (as long) where it is encrypted.  NULL:
 * there are no random bytes.
 */
static const uint8_t *
seal (struct op *op, const uint8_t *buf, uint8_t *room)
{
  struct esp_value_part vp = { .length = (uint32_t) op->length,
                               .parts = (uint16_t) op->n };

  for (unsigned p = 0; p < op->n; ++p) {
    struct cdir_part *part = &op->part[p];
    size_t at = p * (size_t) CDIR_SLOT;

    vp.part = (uint16_t) p;
    vp.put = cdir_put_id (op->dir, op->spot.key, part->word);
    if (part->mine &&
        !esp_value_seal_apart (op->dir->sealer, op->spot.key, &vp, buf + at,
                               part_len (op, p), room ? room + at : NULL,
                               part->head))
      return NULL;
  }
  return room ? room : buf;
}

static bool
write_slots (struct op *op, const uint8_t *sealed)
{
  size_t len;

  for (unsigned p = 0, n; p < op->n; p += n) {
    n = run_of (op, p, &len);
    if (!op->part[p].mine)
      continue;
    if (esp_pwrite_all (op->dir->fd, sealed + p * (size_t) CDIR_SLOT, len,
                        cdir_slot (op->dir, &op->spot, &op->part[p])) == -1) {
      disk_error (op->dir, "write");
      return false;
    }
    count (&op->dir->bytes_written, len);
  }
  return true;
}

static bool
fill (struct op *op, const void *buf)
{
  CLEANUP_FREE uint8_t *room = NULL;
  const uint8_t *sealed;

  if (esp_sealer_secret (op->dir->sealer) && !(room = malloc (op->length)))
    return false;
  sealed = seal (op, buf, room);
  return sealed && cdir_guarded (op->dir, write_heads, op) == 0 &&
    write_slots (op, sealed);
}

/* The cache is not what a file system may be full of: where less than a
 * twentieth of it (at most 1 GiB) is free, only slots that have their space
 * already are written; so, for simplicity, nothing until most of them have.
 */
#define FREE_MOST (UINT64_C (1) << 30)

static bool
look_at_space (struct esp_cdir *dir)
{
  struct statvfs fs;
  struct stat st;
  uint64_t floor;

  if (fstatvfs (dir->fd, &fs) == -1 || fstat (dir->fd, &st) == -1)
    return false;
  floor = (uint64_t) fs.f_blocks * fs.f_frsize / 20;
  if (floor > FREE_MOST)
    floor = FREE_MOST;
  return (uint64_t) fs.f_bavail * fs.f_frsize < floor &&
    (uint64_t) st.st_blocks * 512 < dir->max / 20 * 19;
}

/* Looked at once a second. */
static bool
is_tight (struct esp_cdir *dir)
{
  struct timespec now;
  uint64_t then = atomic_load_explicit (&dir->space_at, memory_order_relaxed);

  clock_gettime (CLOCK_MONOTONIC_COARSE, &now);
  if (then != (uint64_t) now.tv_sec + 1 &&
      atomic_compare_exchange_strong (&dir->space_at, &then,
                                      (uint64_t) now.tv_sec + 1))
    atomic_store (&dir->tight, look_at_space (dir));
  if (!atomic_load_explicit (&dir->tight, memory_order_relaxed))
    return false;
  if (!atomic_exchange (&dir->told_full, true))
    esp_warning ("%s: its file system is nearly full: nothing more is kept "
                 "there until it is not", dir->path);
  return true;
}

bool
esp_cdir_put (struct esp_cdir *dir, const struct esp_cache_key *key,
              const void *buf, size_t len, uint64_t epoch)
{
  struct op op;

  if (!op_begin (&op, dir, key, len) || is_tight (dir))
    return false;
  op.epoch = epoch;
  if (cdir_guarded (dir, take, &op) == -1 || !op.ok)
    return false;
  if (fill (&op, buf))
    return cdir_guarded (dir, publish, &op) == 0 && op.ok;
  cdir_guarded (dir, give_up, &op);     /* else they are given up in a minute */
  return false;
}

/* --- forget ------------------------------------------------------------------- */

static int
forget (void *arg)
{
  struct op *op = arg;

  atomic_fetch_add (&cdir_home (op->dir, &op->spot)->epoch, 1);
  cdir_drop (op->dir, &op->spot);
  return 0;
}

void
esp_cdir_forget (struct esp_cdir *dir, const struct esp_cache_key *key)
{
  struct op op;

  op.dir = dir;
  if (key->shift < ESP_SEGMENT_SHIFT_MIN || key->shift > ESP_SEGMENT_SHIFT_MAX)
    return;
  cdir_spot (dir, key, &op.spot);
  if ((key->kind == ESP_CACHE_EXPORT && cdir_mark_written (dir) == -1) ||
      cdir_guarded (dir, forget, &op) == -1)
    cdir_cut (dir);
}

/* --- counters ----------------------------------------------------------------- */

struct used { struct esp_cdir *dir; int64_t used; };

static int
load_used (void *arg)
{
  struct used *u = arg;

  u->used = atomic_load (&cdir_header (u->dir)->used);
  return 0;
}

void
esp_cdir_counters (struct esp_cdir *dir, struct esp_cdir_counters *out)
{
  struct used u = { .dir = dir };

  if (!atomic_load (&dir->broken))
    cdir_guarded (dir, load_used, &u);
  *out = (struct esp_cdir_counters) {
    .hits = atomic_load (&dir->hits),
    .misses = atomic_load (&dir->misses),
    .bytes_read = atomic_load (&dir->bytes_read),
    .bytes_written = atomic_load (&dir->bytes_written),
    .evictions = atomic_load (&dir->evictions),
    .errors = atomic_load (&dir->errors),
    .lies = atomic_load (&dir->lies),
    .used = u.used < 0 ? 0 : (uint64_t) u.used < dir->max
      ? (uint64_t) u.used : dir->max,
    .max = dir->max,
  };
}
