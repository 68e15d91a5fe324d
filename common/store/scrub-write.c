/* SPDX-License-Identifier: BSD-3-Clause */
/* Mending a stored restore point: right bytes over wrong ones.
 *
 * Its `data` never changes once it is there, servers have it mapped, and it is
 * read-only even to its owner (0444).  Mending is the one exception (merges
 * change blocks that nobody had), and harmless, because it only ever writes
 * what should be there already:
 *
 * - The file is written in place, not replaced.  Servers that have it mapped
 *   share its pages, and see the right bytes with their next read; a new file
 *   would leave them with the wrong ones until they open it again.
 * - A read at the same time gets, byte by byte, the old or the new one.  Where
 *   the old byte was right they are the same.  So nobody reads anything worse
 *   than before, and a crash in the middle leaves nothing worse behind.
 * - Whole blocks are written, so that the kernel need not read first what
 *   the disk may not be able to read, and the disk can put them elsewhere.
 * - The mode is opened for the owner for as long as it takes to open the file,
 *   with an exclusive lock on the file: another scrub, done first, would close
 *   it before this one opened.  A crash in between leaves 0644, which the next
 *   time that something is mended puts right, and nothing depends on.
 * - Deleting and merging need the restore point's lock exclusively, and the
 *   caller has it shared.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "center/format.h"
#include "store/scrub-internal.h"
#include "util/file.h"
#include "util/host.h"

/* --- the blocks of a segment ---------------------------------------------------- */

struct segment_run
segment_runs (const struct esp_map *map, unsigned shift, uint32_t number)
{
  unsigned blocks = shift - ESP_BLOCK_SHIFT;
  uint64_t all = esp_blocks (map->size), next = (uint64_t) number << blocks;
  uint64_t end = next + (UINT64_C (1) << blocks);

  return (struct segment_run) { map, next, end < all ? end : all, 0, 0 };
}

bool
segment_next (struct segment_run *run)
{
  while (run->next < run->end) {
    uint64_t n, at = run->next;
    enum esp_state state = esp_map_run (run->map, at, run->end - at, &n);

    run->next += n;
    if (state != ESP_DATA)
      continue;
    run->offset = at << ESP_BLOCK_SHIFT;
    run->len = n << ESP_BLOCK_SHIFT;
    return true;
  }
  return false;
}

uint64_t
scrub_extent (const struct esp_rp *rp, unsigned shift, uint32_t number)
{
  uint64_t offset = (uint64_t) number << shift, len = UINT64_C (1) << shift;

  return len < rp->size - offset ? len : rp->size - offset;
}

/* --- writing --------------------------------------------------------------------- */

static int
lock (int fd)
{
  int r;

  do
    r = flock (fd, LOCK_EX);
  while (r == -1 && errno == EINTR);
  return r;
}

/* Open the data in DIR for writing. */
static int
open_to_write (int dir)
{
  CLEANUP_CLOSE int shut = openat (dir, ESP_RP_DATA,
                                   O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  int fd, saved;

  if (shut == -1 || lock (shut) == -1 || fchmod (shut, 0644) == -1)
    return -1;
  fd = openat (dir, ESP_RP_DATA, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
  saved = errno;
  /* What is open stays open; without this it would only be less guarded. */
  (void) fchmod (shut, 0444);
  errno = saved;
  return fd;
}

static int
write_runs (int fd, const struct esp_map *map, unsigned shift,
            uint32_t number, const uint8_t *raw)
{
  struct segment_run run = segment_runs (map, shift, number);

  while (segment_next (&run)) {
    if (esp_pwrite_all (fd, raw, run.len, run.offset) == -1)
      return -1;
    raw += run.len;
  }
  return fdatasync (fd);
}

int
scrub_write (struct esp_store *store, const struct esp_rp *rp,
             const struct esp_map *map, unsigned shift, uint32_t number,
             const uint8_t *raw)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (store, &rp->uuid);
  CLEANUP_CLOSE int fd = dir == -1 ? -1 : open_to_write (dir);

  if (fd >= 0 && write_runs (fd, map, shift, number, raw) == 0)
    return 0;
  esp_error ("write: data of restore point %s: %m", rp->name);
  return -1;
}
