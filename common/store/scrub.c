/* SPDX-License-Identifier: BSD-3-Clause */
/* store scrub: every local segment against its digest.
 *
 * A delayed restore point has its digests from its center.  A stored one
 * (and a root in place) gets them by the first scrub, or by a push: nobody
 * can say whether its blocks were right before that.  From then on they must
 * stay as they are.
 *
 * What is wrong in a delayed one is absent from then on, and is fetched at
 * once where this process can, else when somebody reads it.  When fetches fail
 * one after another, the rest of the restore point is not tried: it would only
 * wait for the same time-outs.  What is wrong in a stored one is asked from the
 * caller (another copy of the restore point), checked, and written in its
 * place (scrub-write.c); otherwise it is lost, and left as it is.  A root in
 * place is never written to.
 *
 * The page cache would answer for a disk that has lost its bits: it is asked
 * to forget a segment before it is read.  What a server has mapped stays, and
 * is checked as it is there.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/have-internal.h"
#include "store/scrub.h"
#include "store/scrub-internal.h"
#include "util/file.h"
#include "util/host.h"

#define FETCHES_FAIL 3          /* then the rest waits for who reads it */

/* One restore point under scrub. */
struct work {
  struct esp_store *store;
  struct esp_scrub *s;
  const struct esp_rp *rp;
  struct esp_map *map;
  int fd;                       /* its data */
  unsigned failed;              /* fetches of it, one after another */
  uint64_t done, total;         /* bytes, of all */
};

static void
tell (struct work *w, uint64_t offset, uint64_t len,
      enum esp_scrub_what what, const char *why)
{
  if (w->s->tell)
    w->s->tell (w->s->arg, w->rp, offset, len, what, why);
}

static int
advance (struct work *w, uint64_t bytes)
{
  w->done += bytes;
  if (!w->s->progress ||
      w->s->progress (w->s->progress_arg, w->done, w->total) == 0)
    return 0;
  errno = ECANCELED;
  esp_error ("the scrub was interrupted");
  return -1;
}

static void
forget (int fd, uint64_t offset, uint64_t len)
{
  /* Only a hint. */
  (void) posix_fadvise (fd, (off_t) offset, (off_t) len, POSIX_FADV_DONTNEED);
}

/* Count a segment that was wrong, and tell. */
static void
count_wrong (struct work *w, uint64_t offset, uint64_t len,
             enum esp_scrub_what what, const char *why)
{
  *(what == ESP_SCRUB_MENDED ? &w->s->mended
    : what == ESP_SCRUB_DROPPED ? &w->s->dropped : &w->s->lost) += 1;
  tell (w, offset, len, what, why);
}

/* --- delayed ones ----------------------------------------------------------- */

/* Fetch [OFFSET, OFFSET+LEN); -1, reported. */
static int
try_fetch (struct work *w, struct esp_have *h, uint64_t offset, uint64_t len)
{
  if (w->failed >= FETCHES_FAIL) {
    errno = EIO;
    esp_error ("not tried, as %d others could not be fetched", FETCHES_FAIL);
    return -1;
  }
  if (have_fetch (h, offset, len) == 0) {
    w->failed = 0;
    return 0;
  }
  w->failed++;
  return -1;
}

/* ENTRY was wrong.  Is there somebody who fetches it? */
static void
fetch_again (struct work *w, struct esp_have *h, size_t entry)
{
  uint64_t offset = have_entry_offset (h, entry);
  uint64_t len = have_entry_end (h, entry) - offset;
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  bool can = have_can_fetch () && !w->s->no_fetch;
  int r = can ? try_fetch (w, h, offset, len) : -1;

  esp_catch_end (outer);
  count_wrong (w, offset, len, r == 0 ? ESP_SCRUB_MENDED : ESP_SCRUB_DROPPED,
               can && r == -1 ? why : NULL);
}

static int
scrub_entry (struct work *w, struct esp_have *h, size_t entry)
{
  uint64_t offset = have_entry_offset (h, entry);
  size_t len = esp_have_raw_size (h, entry);

  if (esp_have_state (h, entry) != ESP_HAVE_ABSENT) {
    forget (w->fd, offset, have_entry_end (h, entry) - offset);
    w->s->segments++;
    w->s->bytes += len;
    if (esp_have_check (h, entry, true) != 1)
      fetch_again (w, h, entry);
  }
  return advance (w, len);
}

static int
scrub_delayed (struct work *w)
{
  struct esp_have *h = esp_have_open (w->store, &w->rp->uuid);
  int r = h && (w->fd = have_data_fd (h)) >= 0 ? 0 : -1;

  for (size_t i = 0; r == 0 && i < h->n; i++)
    r = scrub_entry (w, h, i);
  w->fd = -1;                   /* it was H's */
  esp_have_close (h);
  return r;
}

/* --- others -------------------------------------------------------------------- */

/* What stands behind the end of a root in place is zero. */
static int
read_run (struct work *w, uint8_t *raw, size_t len, uint64_t offset)
{
  size_t there = len;

  if (w->rp->kind == ESP_RP_IN_PLACE && offset + len > w->rp->size) {
    there = w->rp->size - offset;
    memset (raw + there, 0, len - there);
  }
  return esp_pread_all (w->fd, raw, there, offset);
}

static int
read_segment (struct work *w, unsigned shift, uint32_t number, uint8_t *raw)
{
  struct segment_run run = segment_runs (w->map, shift, number);

  while (segment_next (&run)) {
    if (read_run (w, raw, run.len, run.offset) == -1)
      return -1;
    raw += run.len;
  }
  return 0;
}

/* Does RAW, or what can be read, have DIGEST? */
static bool
is_right (const uint8_t *raw, size_t len, const esp_digest *digest)
{
  esp_digest is;

  esp_digest_of (raw, len, &is);
  return esp_digest_eq (&is, digest);
}

/* Put the caller's copy of segment S, if he has one, in its place. */
static int
mend_segment (struct work *w, unsigned shift, const struct esp_segment *s,
              uint8_t *raw, size_t len)
{
  if (w->rp->kind == ESP_RP_IN_PLACE) {
    errno = EROFS;
    esp_error ("it is a root in place, which is never written to");
    return -1;
  }
  if (esp_rp_writable (w->store) == -1 ||
      w->s->mend (w->s->arg, w->store, w->rp, shift, s->number, &s->digest,
                  raw, len) == -1)
    return -1;
  if (!is_right (raw, len, &s->digest)) {
    errno = EBADMSG;
    esp_error ("the copy is not right either");
    return -1;
  }
  if (scrub_write (w->store, w->rp, w->map, shift, s->number, raw) == -1)
    return -1;
  forget (w->fd, (uint64_t) s->number << shift, UINT64_C (1) << shift);
  if (read_segment (w, shift, s->number, raw) == 0 &&
      is_right (raw, len, &s->digest))
    return 0;
  errno = EIO;
  esp_error ("what was written does not come back: is the disk failing?");
  return -1;
}

/* Segment S is wrong, because of CAUSE (may be ""). */
static void
mend_or_lose (struct work *w, unsigned shift, const struct esp_segment *s,
              uint8_t *raw, size_t len, const char *cause)
{
  char why[512] = "", text[700];
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  bool ask = w->s->mend && !w->s->no_fetch;
  int r = ask ? mend_segment (w, shift, s, raw, len) : -1;

  esp_catch_end (outer);
  snprintf (text, sizeof text, "%s%s%s", cause, *cause && *why ? "; " : "",
            why);
  count_wrong (w, (uint64_t) s->number << shift, scrub_extent (w->rp, shift,
                                                               s->number),
               r == 0 ? ESP_SCRUB_MENDED : ESP_SCRUB_LOST,
               text[0] ? text : NULL);
}

static int
scrub_segment (struct work *w, const struct esp_index *table, bool first,
               struct esp_segment *s, uint8_t *raw)
{
  size_t len = (size_t) esp_segment_blocks (w->map, table->shift, s->number)
    << ESP_BLOCK_SHIFT;
  char why[128] = "";

  forget (w->fd, (uint64_t) s->number << table->shift,
          UINT64_C (1) << table->shift);
  w->s->segments++;
  w->s->bytes += len;
  if (read_segment (w, table->shift, s->number, raw) == -1)
    snprintf (why, sizeof why, "read: %s", strerror (errno));
  else if (first)
    esp_digest_of (raw, len, &s->digest);
  if (why[0] && first) {
    errno = EIO;
    esp_error ("%s", why);
    return -1;
  }
  if (!first && (why[0] || !is_right (raw, len, &s->digest)))
    mend_or_lose (w, table->shift, s, raw, len, why);
  return advance (w, len);
}

static int
open_data (struct work *w)
{
  CLEANUP_CLOSE int dir = -1;

  if (w->rp->kind == ESP_RP_IN_PLACE)
    return esp_rp_open_in_place (w->store, &w->rp->uuid);
  dir = esp_store_rp_dir (w->store, &w->rp->uuid);
  int fd = dir == -1 ? -1
    : openat (dir, ESP_RP_DATA, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd == -1)
    esp_error ("open: data of restore point %s: %m", w->rp->name);
  return fd;
}

/* The table, or (*FIRST) one whose digests are to be made. */
static int
load_table (struct work *w, struct esp_index *table, bool *first)
{
  *first = false;
  if (esp_segments_load (w->store, &w->rp->uuid, table) == 0)
    return 0;
  if (errno != ENOENT)
    return -1;
  *first = true;
  return segments_of_map (w->map, ESP_SEGMENT_SHIFT_DEFAULT, table);
}

static int
scrub_all (struct work *w, struct esp_index *table, bool first)
{
  CLEANUP_FREE uint8_t *raw = malloc ((size_t) 1 << table->shift);

  if (!raw) {
    esp_error ("malloc: segment: %m");
    return -1;
  }
  for (size_t i = 0; i < table->n; i++)
    if (scrub_segment (w, table, first, &table->segments[i], raw) == -1)
      return -1;
  if (!first || esp_store_readonly (w->store))
    return 0;
  if (esp_segments_save (w->store, &w->rp->uuid, table) == -1)
    return -1;
  w->s->first++;
  tell (w, 0, 0, ESP_SCRUB_FIRST, NULL);
  return 0;
}

static int
scrub_stored (struct work *w)
{
  CLEANUP_INDEX struct esp_index table = { 0 };
  bool first;
  int r = -1;

  w->map = esp_rp_load_map (w->store, &w->rp->uuid);
  if (w->map && load_table (w, &table, &first) == 0 &&
      (w->fd = open_data (w)) >= 0)
    r = scrub_all (w, &table, first);
  esp_map_free (ESP_STEAL (w->map));
  esp_cleanup_close (&w->fd);
  w->fd = -1;
  return r;
}

/* --- the whole ------------------------------------------------------------------ */

static int
scrub_rp (struct work *w)
{
  CLEANUP_CLOSE int lock = esp_rp_lock (w->store, w->rp, false);

  if (lock == -1)
    return -1;
  w->s->rps++;
  /* Its center may be the same that failed before: one try tells. */
  if (w->failed >= FETCHES_FAIL)
    w->failed = FETCHES_FAIL - 1;
  return w->rp->kind == ESP_RP_DELAYED ? scrub_delayed (w) : scrub_stored (w);
}

/* One that cannot be read is told, and the others go on. */
static int
scrub_one (struct work *w)
{
  uint64_t end = w->done + (w->rp->data_blocks << ESP_BLOCK_SHIFT);
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = scrub_rp (w);

  esp_catch_end (outer);
  w->done = end;
  if (r == 0)
    return 0;
  if (errno == ECANCELED) {
    esp_error ("%s", why);
    return -1;
  }
  w->s->unchecked++;
  tell (w, 0, 0, ESP_SCRUB_UNCHECKED, why);
  return 0;
}

int
esp_store_scrub (struct esp_store *store, const esp_uuid *one,
                 struct esp_scrub *scrub)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };
  struct work w = { .store = store, .s = scrub, .fd = -1 };
  int r = 0;

  if (esp_catalog_rp_list (esp_store_catalog (store), one, &list) == -1)
    return -1;
  if (one && list.n > 1) {      /* not what descends from it */
    for (size_t i = 1; i < list.n; i++)
      esp_rp_clear (&list.rp[i]);
    list.n = 1;
  }
  for (size_t i = 0; i < list.n; i++)
    w.total += list.rp[i].data_blocks << ESP_BLOCK_SHIFT;
  for (size_t i = 0; r == 0 && i < list.n; i++) {
    w.rp = &list.rp[i];
    r = scrub_one (&w);
  }
  return r;
}
