/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog's venues, their disks and their logs. */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/internal.h"
#include "util/host.h"

int
catalog_no_venue (const char *id)
{
  char text[2 * ESP_NAME_MAX];

  errno = ENOENT;
  esp_error ("no venue '%s' (see 'espalier venue list')",
             esp_escape (id, text, sizeof text));
  return -1;
}

/* --- reading ----------------------------------------------------------- */

/* A row of VENUE_ROWS: one disk.  It begins the next venue of LIST when its
 * id is a new one.
 */
static int
read_disk (sqlite3_stmt *s, struct esp_venue_list *list)
{
  const char *id = (const char *) sqlite3_column_text (s, 0);
  struct esp_venue *v = list->n ? &list->venue[list->n - 1] : NULL;
  size_t ndisks;
  esp_uuid *disk;

  if (!v || strcmp (v->id, id) != 0) {
    if (!(v = catalog_grow (&list->venue, &list->n, sizeof *v)))
      return -1;
    snprintf (v->id, sizeof v->id, "%s", id);
    v->created = sqlite3_column_int64 (s, 2);
    v->changed = sqlite3_column_int64 (s, 3);
    v->revision = sqlite3_column_int64 (s, 4);
    if (!(v->description = catalog_column_text (s, 1)))
      return -1;
  }
  ndisks = v->ndisks;
  if (!(disk = catalog_grow (&v->disks, &ndisks, sizeof *disk)))
    return -1;
  v->ndisks = ndisks;
  catalog_column_uuid (s, 5, disk);
  return 0;
}

static int
read_venues_locked (struct esp_catalog *c, sqlite3_stmt *bound,
                    struct esp_venue_list *out)
{
  CLEANUP_RESET sqlite3_stmt *s = bound;
  CLEANUP_VENUE_LIST struct esp_venue_list list = { 0 };
  int r;

  if (!s)
    return -1;
  while ((r = catalog_step_locked (c, s)) == 1)
    if (read_disk (s, &list) == -1)
      return -1;
  if (r == -1)
    return -1;
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

int
esp_catalog_venue_get (struct esp_catalog *c, const char *id,
                       struct esp_venue *out)
{
  CATALOG_LOCK_SCOPE (c);
  struct esp_venue_list list;

  if (read_venues_locked (c, catalog_bind_locked (c, SQL_VENUE_GET, "t", id),
                          &list) == -1)
    return -1;
  if (list.n == 0)
    return catalog_no_venue (id);
  *out = list.venue[0];
  free (list.venue);
  return 0;
}

int
esp_catalog_venue_list (struct esp_catalog *c, const esp_uuid *start,
                        struct esp_venue_list *out)
{
  CATALOG_LOCK_SCOPE (c);

  if (start)
    return read_venues_locked (c, catalog_bind_locked (c, SQL_VENUE_SUBTREE,
                                                       "b", start), out);
  return read_venues_locked (c, catalog_bind_locked (c, SQL_VENUE_LIST, ""),
                             out);
}

int
esp_catalog_venues_of (struct esp_catalog *c, const esp_uuid *uuid,
                       struct esp_venue_list *out)
{
  CATALOG_LOCK_SCOPE (c);

  return read_venues_locked (c, catalog_bind_locked (c, SQL_VENUES_OF, "b",
                                                     uuid), out);
}

int
esp_catalog_venue_tip (struct esp_catalog *c, const char *id, unsigned disk,
                       esp_uuid *tip)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *s =
    catalog_bind_locked (c, SQL_VENUE_TIP, "tu", id, (uint64_t) disk);

  if (catalog_one_row_locked (c, s) == -1)
    return -1;
  catalog_column_uuid (s, 0, tip);
  return 0;
}

static int
read_change (struct esp_catalog *c, sqlite3_stmt *s, void *row)
{
  struct esp_venue_change *change = row;
  const void *disks = sqlite3_column_blob (s, 4);
  int len = sqlite3_column_bytes (s, 4);

  change->revision = sqlite3_column_int64 (s, 0);
  change->time = sqlite3_column_int64 (s, 1);
  if (!(change->action = catalog_column_text (s, 2)) ||
      !(change->description = catalog_column_text (s, 3)))
    return -1;
  if (!disks || len % sizeof (esp_uuid) != 0)
    return catalog_fail (c, SQLITE_CORRUPT);
  if (!(change->disks = malloc (len))) {
    esp_error ("malloc: %m");
    return -1;
  }
  memcpy (change->disks, disks, len);
  change->ndisks = len / sizeof (esp_uuid);
  return 0;
}

int
esp_catalog_venue_log (struct esp_catalog *c, const char *id,
                       struct esp_venue_log *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };

  if (catalog_read_rows_locked (c, catalog_bind_locked (c, SQL_LOG, "t", id),
                                &log.change, &log.n, sizeof *log.change,
                                read_change) == -1)
    return -1;
  if (log.n == 0) {
    struct esp_venue_list list;

    /* A venue without history is possible, a log without venue is not. */
    if (read_venues_locked (c, catalog_bind_locked (c, SQL_VENUE_GET, "t", id),
                            &list) == -1)
      return -1;
    if (list.n == 0)
      return catalog_no_venue (id);
    esp_venue_list_clear (&list);
  }
  *out = log;
  memset (&log, 0, sizeof log);
  return 0;
}

/* --- changing ---------------------------------------------------------- */

/* RC of a statement about venue ID: 0, or reported. */
static int
ran (struct esp_catalog *c, const char *id, int rc)
{
  if (rc == SQLITE_DONE)
    return 0;
  if (rc != SQLITE_CONSTRAINT_FOREIGNKEY)
    return catalog_fail (c, rc);
  errno = ENOENT;
  esp_error ("venue '%s': a restore point that it maps is not in the catalog",
             id);
  return -1;
}

static int
put_disks_locked (struct esp_catalog *c, const struct esp_venue *v)
{
  int rc = catalog_run_locked (c, SQL_DISKS_DELETE, "t", v->id);

  for (unsigned i = 0; i < v->ndisks && rc == SQLITE_DONE; ++i)
    rc = catalog_run_locked (c, SQL_DISK_INSERT, "tub", v->id, (uint64_t) i,
                             &v->disks[i]);
  return ran (c, v->id, rc);
}

static int
append_locked (struct esp_catalog *c, const char *id,
               const struct esp_venue_change *x)
{
  return ran (c, id,
              catalog_run_locked (c, SQL_LOG_INSERT, "tuuttx", id,
                                  x->revision, x->time, x->action,
                                  x->description ? x->description : "",
                                  x->disks, x->ndisks * sizeof x->disks[0]));
}

static int
put_locked (struct esp_catalog *c, const struct esp_venue *v,
            const struct esp_venue_change *change)
{
  int rc = catalog_run_locked (c, SQL_VENUE_PUT, "ttuuu", v->id,
                               v->description ? v->description : "",
                               v->created, v->changed, v->revision);

  if (ran (c, v->id, rc) == -1 || put_disks_locked (c, v) == -1)
    return -1;
  return change ? append_locked (c, v->id, change) : 0;
}

int
esp_catalog_venue_put (struct esp_catalog *c, const struct esp_venue *venue,
                       const struct esp_venue_change *change)
{
  CATALOG_LOCK_SCOPE (c);

  if (venue->ndisks == 0) {
    errno = EINVAL;
    esp_error ("venue '%s': it needs at least one disk", venue->id);
    return -1;
  }
  if (catalog_save_locked (c) == -1)
    return -1;
  return catalog_end_locked (c, put_locked (c, venue, change));
}

static int
set_log_locked (struct esp_catalog *c, const char *id,
                const struct esp_venue_log *log)
{
  int r = ran (c, id, catalog_run_locked (c, SQL_LOG_DELETE, "t", id));

  for (size_t i = 0; i < log->n && r == 0; ++i)
    r = append_locked (c, id, &log->change[i]);
  return r;
}

int
esp_catalog_venue_set_log (struct esp_catalog *c, const char *id,
                           const struct esp_venue_log *log)
{
  CATALOG_LOCK_SCOPE (c);
  esp_uuid tip;

  if (esp_catalog_venue_tip (c, id, 0, &tip) == -1)
    return errno == ENOENT ? catalog_no_venue (id) : -1;
  if (catalog_save_locked (c) == -1)
    return -1;
  return catalog_end_locked (c, set_log_locked (c, id, log));
}

int
esp_catalog_venue_delete (struct esp_catalog *c, const char *id)
{
  CATALOG_LOCK_SCOPE (c);
  int rc = catalog_run_locked (c, SQL_VENUE_DELETE, "t", id);

  if (ran (c, id, rc) == -1)
    return -1;
  return sqlite3_changes (c->db) ? 0 : catalog_no_venue (id);
}
