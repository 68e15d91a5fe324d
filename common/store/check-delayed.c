/* SPDX-License-Identifier: BSD-3-Clause */
/* Checking and mending the files of delayed restore points, and the
 * `segments` and the boot profile that others may have.
 *
 *   segments  of a delayed one: made again from the index of a center that
 *             is kept beside it, else the restore point is lost here (it is
 *             set aside; pull it again).  Of a stored one: removed.
 *   have      made anew: all that is in `data` is checked before it is used
 *   sources   a source whose index is damaged is dropped, all of them where
 *             the document itself is
 *   profile   removed: boots teach another one
 *
 * What the segments contain is for `store scrub`.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/check-internal.h"
#include "store/have-internal.h"
#include "util/file.h"
#include "util/host.h"
#include "util/lock.h"

/* A restore point's directory, and what is known of it. */
struct place {
  int dir;
  const struct esp_rp *rp;
  const char *where;
};

static bool
is_delayed (const struct item *it)
{
  return it->rp.kind == ESP_RP_DELAYED;
}

static int
missing (const char *name)
{
  errno = EBADMSG;
  esp_error ("%s is missing", name);
  return -1;
}

/* --- looking: each returns 0, or -1 after it reported ----------------------- */

static int
look_at_segments (const struct place *p, const struct esp_map *map,
                  bool needed, struct segments *out)
{
  if (segments_open (p->dir, p->rp->size, p->where, out) == -1)
    return errno != ENOENT ? -1 : needed ? missing (ESP_RP_SEGMENTS) : 0;
  return map ? segments_fit (out, map, p->where) : 0;
}

/* 1: right; 0: it says that it is clean, but its sum is wrong. */
static int
read_have (const struct place *p, const struct segments *table)
{
  CLEANUP_FREE char *buf = NULL;
  bool believed;
  size_t len;

  if (esp_read_file (p->dir, ESP_RP_HAVE, HAVE_HEADER + 2 * table->n, &buf,
                     &len) == -1) {
    esp_error ("read: " ESP_RP_HAVE ": %m");
    return -1;
  }
  if (have_parse (buf, len, table->n, table->shift, p->where,
                  &believed) == -1)
    return -1;
  return believed || ((struct have_header *) buf)->clean == 0;
}

static int
look_at_have (const struct place *p, const struct segments *table)
{
  int r = read_have (p, table);

  /* A server may have begun to change it while we read. */
  if (r == 0 && (r = read_have (p, table)) == 0) {
    errno = EBADMSG;
    esp_error ("the states in " ESP_RP_HAVE " are damaged");
  }
  return r == 1 ? 0 : -1;
}

/* The source in LIST whose index is no good, or -1; reported. */
static int
bad_source (const struct place *p, const struct segments *table,
            const struct esp_source_list *list, const esp_digest *indexes)
{
  for (size_t i = 0; i < list->n; i++) {
    CLEANUP_INDEX struct esp_index index = { 0 };

    if (list->s[i].center[0] &&
        (sources_read_index (p->dir, &list->s[i], &indexes[i], p->where,
                             &index) == -1 ||
         sources_agree (table, &index, list->s[i].center, p->where) == -1))
      return i;
  }
  return -1;
}

static int
look_at_sources (const struct place *p, const struct segments *table)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  CLEANUP_FREE esp_digest *indexes = NULL;

  if (sources_load (p->dir, p->rp, p->where, &list, &indexes) == -1)
    return errno == ENOENT ? missing (ESP_RP_SOURCES) : -1;
  return bad_source (p, table, &list, indexes) == -1 ? 0 : -1;
}

#define PROFILE_MAX (8u << 20)          /* no sound one is as long */

static int
look_at_profile (const struct place *p)
{
  CLEANUP_PROFILE struct esp_profile profile = { 0 };
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  if (esp_read_file (p->dir, ESP_RP_PROFILE, PROFILE_MAX, &buf, &len) == -1) {
    if (errno == ENOENT)
      return 0;
    esp_error ("read: " ESP_RP_PROFILE ": %m");
    return -1;
  }
  return esp_profile_unpack (buf, len, p->rp->size, ESP_RP_PROFILE, &profile);
}

/* Note what R, with errno and TEXT, says of PART. */
static bool
noted (struct item *it, enum part part, int r, const char *text)
{
  if (r == -1)
    check_note (it, part, text);
  return r == -1;
}

void
check_examine_delayed (struct check *k, struct item *it,
                       const struct esp_map *map)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (k->store, &it->uuid);
  CLEANUP_SEGMENTS struct segments table = { 0 };
  char text[TEXT_MAX] = "";
  const struct place p = { dir, &it->rp, "its files" };
  struct esp_catch outer;

  if (dir == -1)
    return;                     /* told with the data */
  outer = esp_catch_begin (text, sizeof text);
  bool bad = noted (it, PART_SEGMENTS,
                    look_at_segments (&p, map, is_delayed (it), &table), text);
  if (!bad && is_delayed (it)) {
    text[0] = 0;
    noted (it, PART_HAVE, look_at_have (&p, &table), text);
    text[0] = 0;
    noted (it, PART_SOURCES, look_at_sources (&p, &table), text);
  }
  text[0] = 0;
  noted (it, PART_PROFILE, look_at_profile (&p), text);
  esp_catch_end (outer);
}

/* --- segments ------------------------------------------------------------------ */

/* A center's index from which the table can be made: its bytes. */
static void *
table_from_index (struct check *k, const struct item *it, int dir,
                  size_t *len)
{
  CLEANUP_MAP struct esp_map *map = esp_rp_load_map (k->store, &it->uuid);
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  CLEANUP_FREE esp_digest *indexes = NULL;

  if (!map ||
      sources_load (dir, &it->rp, "its files", &list, &indexes) == -1)
    return NULL;
  for (size_t i = 0; i < list.n; i++) {
    CLEANUP_INDEX struct esp_index index = { 0 };
    CLEANUP_FREE void *buf = NULL;
    struct segments s;

    if (list.s[i].center[0] &&
        sources_read_index (dir, &list.s[i], &indexes[i], "its files",
                            &index) == 0 &&
        (buf = segments_format (&index, map->size, false, len)) != NULL &&
        segments_parse (buf, *len, map->size, "its files", &s) == 0 &&
        segments_fit (&s, map, "its files") == 0)
      return ESP_STEAL (buf);
  }
  return NULL;
}

static bool
can_make_table (struct check *k, const struct item *it)
{
  CLEANUP_CLOSE int dir = esp_store_rp_dir (k->store, &it->uuid);
  CLEANUP_FREE void *buf = NULL;
  char text[TEXT_MAX];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  size_t len;

  buf = table_from_index (k, it, dir, &len);
  esp_catch_end (outer);
  return buf != NULL;
}

static int
remove_file (int dir, const char *name)
{
  if ((unlinkat (dir, name, 0) == 0 || errno == ENOENT) &&
      esp_sync_dir (dir) == 0)
    return 0;
  esp_error ("unlink: %s: %m", name);
  return -1;
}

static int
mend_segments (struct check *k, struct item *it, int dir)
{
  CLEANUP_FREE void *buf = NULL;
  size_t len;

  if (!is_delayed (it))
    return remove_file (dir, ESP_RP_SEGMENTS);
  buf = table_from_index (k, it, dir, &len);
  return buf ? esp_write_file_atomic (dir, ESP_RP_SEGMENTS, buf, len, 0644)
    : -1;
}

/* --- have ------------------------------------------------------------------------- */

/* Nobody may have it open while it is replaced: the lock, or -1. */
static int
lock_have (int dir)
{
  CLEANUP_CLOSE int fd = openat (dir, ESP_RP_HAVE,
                                 O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

  if (fd == -1)                 /* not there, or no file */
    return open ("/dev/null", O_RDONLY | O_CLOEXEC);
  if (esp_lock (fd, true) == 0)
    return esp_steal_fd (&fd);
  errno = EBUSY;
  esp_error ("it is in use: stop what serves it, then repair again");
  return -1;
}

static int
mend_have (struct item *it, int dir)
{
  CLEANUP_SEGMENTS struct segments table = { 0 };
  CLEANUP_CLOSE int lock = lock_have (dir);

  return lock == -1 ||
    segments_open (dir, it->rp.size, "its files", &table) == -1
    ? -1 : delayed_write_have (dir, &table);
}

/* The states first, by what there is now: what was cut off must never look
 * as if it had been checked.
 */
int
mend_delayed_data (struct item *it, int dir)
{
  CLEANUP_SEGMENTS struct segments table = { 0 };
  CLEANUP_CLOSE int lock = lock_have (dir);
  CLEANUP_CLOSE int fd = -1;

  if (lock == -1 ||
      segments_open (dir, it->rp.size, "its files", &table) == -1)
    return -1;
  fd = openat (dir, ESP_RP_DATA, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
               0644);
  if (fd == -1) {
    esp_error ("open: " ESP_RP_DATA ": %m");
    return -1;
  }
  if (delayed_write_have (dir, &table) == -1)
    return -1;
  if (ftruncate (fd, (off_t) esp_data_length (it->rp.size)) == 0 &&
      fsync (fd) == 0 && esp_sync_dir (dir) == 0)
    return 0;
  esp_error ("ftruncate: " ESP_RP_DATA ": %m");
  return -1;
}

/* --- sources ------------------------------------------------------------------------ */

/* Drop what is bad until nothing is. */
static int
drop_bad_sources (const struct place *p, const struct segments *table,
                  struct esp_source_list *list, esp_digest *indexes)
{
  int i;

  while ((i = bad_source (p, table, list, indexes)) >= 0) {
    char name[ESP_NAME_MAX + 16];

    snprintf (name, sizeof name, ESP_RP_INDEX "%s", list->s[i].center);
    remove_file (p->dir, name);
    free (list->s[i].url);
    list->n--;
    memmove (&list->s[i], &list->s[i + 1], (list->n - i) * sizeof *list->s);
    memmove (&indexes[i], &indexes[i + 1], (list->n - i) * sizeof *indexes);
  }
  return sources_save (p->dir, list, indexes);
}

static int
mend_sources (struct item *it, int dir)
{
  CLEANUP_SOURCE_LIST struct esp_source_list list = { 0 };
  CLEANUP_SEGMENTS struct segments table = { 0 };
  CLEANUP_FREE esp_digest *indexes = NULL;
  const struct place p = { dir, &it->rp, "its files" };
  char text[TEXT_MAX];
  struct esp_catch outer = esp_catch_begin (text, sizeof text);
  int r = sources_load (dir, &it->rp, p.where, &list, &indexes);

  esp_catch_end (outer);
  if (r == -1)                  /* an empty list, then */
    return sources_save (dir, &list, NULL);
  if (segments_open (dir, it->rp.size, p.where, &table) == -1)
    return -1;
  outer = esp_catch_begin (text, sizeof text);
  r = drop_bad_sources (&p, &table, &list, indexes);
  esp_catch_end (outer);
  return r;
}

/* --- which ----------------------------------------------------------------------------- */

const char *
mend_delayed_remedy (struct check *k, const struct item *it, enum part part)
{
  switch (part) {
  case PART_SEGMENTS:
    if (!is_delayed (it))
      return "it is removed: 'espalier store scrub' writes another";
    return can_make_table (k, it)
      ? "it is made again from the index of a center" : NULL;
  case PART_HAVE:
    return "it is made anew: all that is local is checked before it is used";
  case PART_SOURCES:
    return "the damaged source is dropped: pull it again";
  default:
    return "it is removed: the next boots teach another";
  }
}

int
mend_delayed_part (struct check *k, struct item *it, enum part part, int dir)
{
  switch (part) {
  case PART_SEGMENTS: return mend_segments (k, it, dir);
  case PART_HAVE: return mend_have (it, dir);
  case PART_SOURCES: return mend_sources (it, dir);
  default: return remove_file (dir, ESP_RP_PROFILE);
  }
}
