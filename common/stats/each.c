/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading what all processes count. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stats/internal.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/host.h"

#define BATCH 64u               /* rows read at once */
#define LOOKS 5                 /* at one that is being written */

struct walk {
  const char *dir;
  int (*fn) (void *arg, const struct esp_stats_seen *row);
  void *arg;
};

/* One that changes under our eyes is looked at again. */
static int
read_header (int fd, struct stats_header *h)
{
  uint8_t bytes[STATS_HEADER_USED];

  for (int i = 0; i < LOOKS; ++i) {
    if (esp_pread_all (fd, bytes, sizeof bytes, 0) == -1)
      return -1;
    if (stats_header_parse (bytes, h) == 0)
      return 0;
  }
  return -1;
}

static int
read_row (int fd, uint32_t n, const uint8_t *bytes, struct stats_row *row)
{
  uint8_t again[STATS_ROW];

  if (stats_row_parse (bytes, row) == 0)
    return 0;
  for (int i = 0; i < LOOKS; ++i)
    if (esp_pread_all (fd, again, sizeof again,
                       STATS_HEADER + (uint64_t) n * STATS_ROW) == 0 &&
        stats_row_parse (again, row) == 0)
      return 0;
  return -1;
}

static int
show (const struct walk *w, const struct stats_header *h, uint32_t n,
      const struct stats_row *row)
{
  struct esp_stats_seen seen = {
    .pid = (int) h->pid,
    .program = h->program,
    .row = n,
    .since = h->since,
    .at = h->at,
    .kind = row->kind,
    .name = row->name,
  };

  memcpy (seen.c, row->c, sizeof seen.c);
  return w->fn (w->arg, &seen);
}

/* Rows of H's file from FIRST; *BAD counts those that are damaged. */
static int
each_batch (const struct walk *w, int fd, const struct stats_header *h,
            uint32_t first, unsigned *bad)
{
  uint8_t bytes[BATCH * STATS_ROW];
  uint32_t n = h->used - first < BATCH ? h->used - first : BATCH;
  struct stats_row row;

  if (esp_pread_all (fd, bytes, n * STATS_ROW,
                     STATS_HEADER + (uint64_t) first * STATS_ROW) == -1) {
    *bad += n;
    return 0;
  }
  for (uint32_t i = 0; i < n; ++i) {
    if (read_row (fd, first + i, bytes + i * STATS_ROW, &row) == -1)
      ++*bad;
    else if (row.kind && show (w, h, first + i, &row) == -1)
      return -1;
  }
  return 0;
}

static void
pass_over (const struct walk *w, const char *name)
{
  esp_warning ("live counters: %s/%s is passed over: %s", w->dir, name,
               errno == ENOTSUP ? "it is of another version of Espalier"
               : errno == EBADMSG || errno == EIO ? "it is damaged"
               : strerror (errno));
}

static int
each_row (const struct walk *w, const char *name, int fd)
{
  struct stats_header h;
  unsigned bad = 0;

  if (read_header (fd, &h) == -1) {
    pass_over (w, name);
    return 0;
  }
  for (uint32_t first = 0; first < h.used; first += BATCH)
    if (each_batch (w, fd, &h, first, &bad) == -1)
      return -1;
  if (bad)
    esp_warning ("live counters: %s/%s: %u rows are damaged, and passed over",
                 w->dir, name, bad);
  return 0;
}

static int
each_file (void *arg, int dirfd, const char *name)
{
  const struct walk *w = arg;

  if (!stats_file_name_ok (name))
    return 0;
  CLEANUP_CLOSE int fd = stats_file_open_live (dirfd, name);
  if (fd >= 0 && name[0] != '.')
    return each_row (w, name, fd);
  if (fd == -1 && errno != ENOENT)
    pass_over (w, name);
  return 0;
}

int
esp_stats_each (const char *dir,
                int (*fn) (void *arg, const struct esp_stats_seen *row),
                void *arg)
{
  const struct walk w = { .dir = dir, .fn = fn, .arg = arg };
  CLEANUP_CLOSE int fd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (fd == -1 && errno == ENOENT)
    return 0;                   /* nobody ever counted there */
  if (fd == -1) {
    esp_error ("open: %s: %m", dir);
    return -1;
  }
  stats_publish_own ();
  return esp_each_entry (fd, each_file, (void *) &w);
}
