/* SPDX-License-Identifier: BSD-3-Clause */
/* Entries and their data: storing, reading, checking, dropping.
 *
 * Who reads a layer looks at the drop counter, at the states, copies, and
 * looks at the counter again.  So who takes data away
 *
 *   makes the entry ABSENT -> raises the counter -> punches the hole
 *
 * and a reader that copied anything of the hole finds the counter changed,
 * since it rose before; one that begins later finds the state.
 *
 * A drop and a store of one entry must not meet, or the hole would be
 * punched into fresh data: in this process `punch` keeps them apart, and
 * between processes the entry's OFD lock, which whoever fetches holds.
 * Dropping takes it through a descriptor of its own, so that it also meets
 * fetches of this process; an entry that is being fetched is not dropped.
 *
 * Counters: `missing` never is less than the number of entries that are not
 * CHECKED: it rises before a state changes, and falls behind.  So
 * "complete" is never true too early; a process that is killed in between
 * leaves it too high until somebody counts anew.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "store/have-internal.h"
#include "util/file.h"
#include "util/host.h"

static int
fail (const struct esp_have *h, const char *what)
{
  esp_error ("%s: data of restore point %s: %m", what, h->name);
  return -1;
}

/* --- counting ------------------------------------------------------------- */

void
have_count (struct esp_have *h)
{
  uint64_t missing = 0, local = 0;

  for (size_t i = 0; i < h->n; i++) {
    enum esp_have_state s = esp_have_state (h, i);

    missing += s != ESP_HAVE_CHECKED;
    if (s != ESP_HAVE_ABSENT)
      local += esp_have_raw_size (h, i);
  }
  atomic_store (&h->h->missing, missing);
  atomic_store (&h->h->local, local);
}

/* The state of ENTRY becomes TO; where FROM is not -1 only if it is FROM. */
static bool
change_state (struct esp_have *h, size_t entry, int from,
              enum esp_have_state to)
{
  struct have_header *c = h->h;
  uint8_t old = atomic_load_explicit (&h->state[entry], memory_order_acquire);

  atomic_fetch_add (&c->missing, 1);
  do
    if (from != -1 && old != from) {
      atomic_fetch_sub (&c->missing, 1);
      return false;
    }
  while (!atomic_compare_exchange_weak (&h->state[entry], &old, to));
  atomic_fetch_sub (&c->missing, (uint64_t) (old != ESP_HAVE_CHECKED) +
                    (to == ESP_HAVE_CHECKED));
  if (old == ESP_HAVE_ABSENT && to != ESP_HAVE_ABSENT)
    atomic_fetch_add (&c->local, esp_have_raw_size (h, entry));
  if (old != ESP_HAVE_ABSENT && to == ESP_HAVE_ABSENT)
    atomic_fetch_sub (&c->local, esp_have_raw_size (h, entry));
  return true;
}

/* --- runs ------------------------------------------------------------------ */

uint64_t
have_entry_offset (const struct esp_have *h, size_t entry)
{
  return (uint64_t) esp_have_number (h, entry) << h->shift;
}

uint64_t
have_entry_end (const struct esp_have *h, size_t entry)
{
  uint64_t end = have_entry_offset (h, entry) + (UINT64_C (1) << h->shift);
  uint64_t whole = esp_data_length (h->size);

  return end < whole ? end : whole;
}

/* Call FN for each run of the entry's data with its part of RAW. */
static int
each_run (struct esp_have *h, size_t entry, uint8_t *raw,
          int (*fn) (int fd, uint8_t *raw, size_t len, uint64_t offset),
          int fd)
{
  uint64_t b = have_entry_offset (h, entry) >> ESP_BLOCK_SHIFT, n;
  uint64_t end = have_entry_end (h, entry) >> ESP_BLOCK_SHIFT;

  for (; b < end; b += n)
    if (esp_map_run (h->map, b, end - b, &n) == ESP_DATA) {
      if (fn (fd, raw, n << ESP_BLOCK_SHIFT, b << ESP_BLOCK_SHIFT) == -1)
        return -1;
      raw += n << ESP_BLOCK_SHIFT;
    }
  return 0;
}

static int
write_run (int fd, uint8_t *raw, size_t len, uint64_t offset)
{
  return esp_pwrite_all (fd, raw, len, offset);
}

static int
read_run (int fd, uint8_t *raw, size_t len, uint64_t offset)
{
  return esp_pread_all (fd, raw, len, offset);
}

/* A segment's range has nothing but its own data and holes. */
static int
punch (struct esp_have *h, size_t entry, int fd)
{
  uint64_t offset = have_entry_offset (h, entry);

  return esp_punch (fd, offset, have_entry_end (h, entry) - offset);
}

/* --- storing --------------------------------------------------------------- */

/* Keep the digest of RAW where none was known. */
static int
keep_digest (struct esp_have *h, size_t entry, const void *raw, size_t len)
{
  uint8_t bytes[SEGMENTS_ENTRY];
  esp_digest digest;
  int fd;

  if (!h->table.growing || esp_have_digest (h, entry, &digest))
    return 0;
  fd = have_segments_fd (h);
  if (fd == -1)
    return -1;
  esp_digest_of (raw, len, &digest);
  segments_entry (bytes, esp_have_number (h, entry), &digest);
  if (esp_pwrite_all (fd, bytes, sizeof bytes, SEGMENTS_HEADER +
                      (uint64_t) entry * SEGMENTS_ENTRY) == 0)
    return 0;
  return fail (h, "write: table of segments");
}

/* Nothing of what could not be written whole may take space. */
static int
undo_store (struct esp_have *h, size_t entry, int fd)
{
  int saved = errno;

  fail (h, "write");
  if (esp_have_state (h, entry) == ESP_HAVE_ABSENT)
    (void) punch (h, entry, fd);
  errno = saved;
  return -1;
}

int
esp_have_store (struct esp_have *h, size_t entry, const void *raw, size_t len)
{
  int fd;

  if (have_begin_change (h) == -1 || (fd = have_data_fd (h)) == -1)
    return -1;
  if (len != esp_have_raw_size (h, entry)) {
    errno = EINVAL;
    esp_error ("restore point %s: segment %u has %zu bytes, not %zu",
               h->name, esp_have_number (h, entry),
               esp_have_raw_size (h, entry), len);
    return -1;
  }
  ESP_RDLOCK_SCOPE (&h->punch);
  /* What is here and was not checked is written over: it is no more. */
  change_state (h, entry, ESP_HAVE_LOCAL, ESP_HAVE_ABSENT);
  if (each_run (h, entry, (uint8_t *) raw, write_run, fd) == -1)
    return undo_store (h, entry, fd);
  if (keep_digest (h, entry, raw, len) == -1)
    return -1;
  change_state (h, entry, -1, ESP_HAVE_CHECKED);
  return 0;
}

int
esp_have_read (struct esp_have *h, size_t entry, void *raw)
{
  int fd = have_data_fd (h);

  if (fd == -1)
    return -1;
  if (each_run (h, entry, raw, read_run, fd) == 0)
    return 0;
  return fail (h, "read");
}

/* --- checking ---------------------------------------------------------------- */

/* Are the bytes of ENTRY right?  1, 0, or -1: cannot be read. */
static int
bytes_right (struct esp_have *h, size_t entry)
{
  size_t len = esp_have_raw_size (h, entry);
  CLEANUP_FREE void *raw = malloc (len ? len : 1);
  esp_digest want, is;

  if (raw == NULL)
    return fail (h, "malloc");
  if (!esp_have_digest (h, entry, &want))
    return 0;                   /* nobody knows: fetch it */
  if (esp_have_read (h, entry, raw) == -1)
    return -1;
  esp_digest_of (raw, len, &is);
  return esp_digest_eq (&want, &is);
}

/* The same, but not fooled by somebody who drops it meanwhile: S gets the
 * state that it had.  ABSENT: nothing to compare any more.
 */
static int
compare (struct esp_have *h, size_t entry, enum esp_have_state *s)
{
  uint64_t drops;
  int r;

  do {
    drops = have_drops (h);
    *s = esp_have_state (h, entry);
    r = *s == ESP_HAVE_ABSENT ? 0 : bytes_right (h, entry);
  } while (r != 1 && have_drops (h) != drops);
  return r;
}

static int
check_own (struct esp_have *h, size_t entry)
{
  enum esp_have_state s;
  int r = compare (h, entry, &s);

  if (s == ESP_HAVE_ABSENT)
    return 0;
  atomic_store_explicit (&h->own[entry], r == 1 ? HAVE_OWN_GOOD : HAVE_OWN_BAD,
                         memory_order_release);
  return r;
}

int
esp_have_check (struct esp_have *h, size_t entry, bool again)
{
  enum esp_have_state s = esp_have_state (h, entry);
  int r;

  if (s == ESP_HAVE_ABSENT)
    return 0;
  if (s == ESP_HAVE_CHECKED && !again)
    return 1;
  if (h->readonly)
    return check_own (h, entry);
  if (have_begin_change (h) == -1)
    return -1;
  ESP_RDLOCK_SCOPE (&h->punch);
  r = compare (h, entry, &s);
  if (s == ESP_HAVE_ABSENT)
    return 0;
  if (r == 1) {
    if (s == ESP_HAVE_LOCAL)
      change_state (h, entry, ESP_HAVE_LOCAL, ESP_HAVE_CHECKED);
    return 1;
  }
  esp_debug ("restore point %s: segment %u is not what it was: it is fetched "
             "again", h->name, esp_have_number (h, entry));
  change_state (h, entry, s, ESP_HAVE_ABSENT);
  atomic_fetch_add (&h->h->drops, 1);
  return r;
}

/* --- dropping ------------------------------------------------------------------ */

#define DROP_BATCH 32u

/* Under `punch`, exclusively.  Entries that are being fetched are left out;
 * those that are locked come to the front of LIST.
 */
static size_t
lock_entries (int fd, size_t *list, size_t n)
{
  size_t locked = 0;

  for (size_t i = 0; i < n; i++)
    if (have_ofd_lock (fd, HAVE_LOCK_ENTRIES + list[i], F_WRLCK, false) == 0)
      list[locked++] = list[i];
  return locked;
}

static int
drop_batch (struct esp_have *h, const size_t *entries, size_t n, int data,
            int locks)
{
  size_t list[DROP_BATCH];
  int r = 0;

  memcpy (list, entries, n * sizeof *list);
  ESP_WRLOCK_SCOPE (&h->punch);
  n = lock_entries (locks, list, n);
  for (size_t i = 0; i < n; i++)
    change_state (h, list[i], -1, ESP_HAVE_ABSENT);
  atomic_fetch_add (&h->h->drops, 1);
  for (size_t i = 0; i < n; i++)
    if (r == 0 && punch (h, list[i], data) == -1)
      r = fail (h, "fallocate");
  /* Not before the last hole: LIST may have an entry twice. */
  for (size_t i = 0; i < n; i++)
    have_ofd_lock (locks, HAVE_LOCK_ENTRIES + list[i], F_UNLCK, false);
  return r;
}

int
esp_have_drop (struct esp_have *h, const size_t *entries, size_t n)
{
  int data, locks;

  if (have_begin_change (h) == -1 || (data = have_data_fd (h)) == -1 ||
      (locks = have_drop_fd (h)) == -1)
    return -1;
  for (size_t k; n > 0; entries += k, n -= k) {
    k = n < DROP_BATCH ? n : DROP_BATCH;
    if (drop_batch (h, entries, k, data, locks) == -1)
      return -1;
  }
  return 0;
}

/* --- durability ----------------------------------------------------------------- */

int
have_sync (struct esp_have *h)
{
  int data = have_data_fd (h), table = -1;

  if (data == -1 ||
      (h->table.growing && (table = have_segments_fd (h)) == -1))
    return -1;
  if (fdatasync (data) == -1 || (table >= 0 && fdatasync (table) == -1))
    return fail (h, "fdatasync");
  if (msync (h->h, h->mapped, MS_SYNC) == -1)
    return fail (h, "msync");
  return 0;
}

int
esp_have_sync (struct esp_have *h)
{
  return h->readonly ? 0 : have_sync (h);
}
