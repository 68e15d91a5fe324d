/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog's restore points: finding, listing, changing rows. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/internal.h"
#include "util/host.h"

#define PREFIX_MIN 4                    /* hex digits */
#define CANDIDATES 5                    /* named in a message */

/* --- rows -------------------------------------------------------------- */

static int
read_rp_locked (struct esp_catalog *c, sqlite3_stmt *s, void *row)
{
  struct esp_rp *rp = row;
  const char *name;

  catalog_column_uuid (s, 0, &rp->uuid);
  name = (const char *) sqlite3_column_text (s, 1);
  snprintf (rp->name, sizeof rp->name, "%s", name ? name : "");
  catalog_column_uuid (s, 2, &rp->parent);
  rp->kind = sqlite3_column_int (s, 3);
  rp->size = sqlite3_column_int64 (s, 4);
  rp->created = sqlite3_column_int64 (s, 5);
  rp->data_blocks = sqlite3_column_int64 (s, 6);
  rp->zero_blocks = sqlite3_column_int64 (s, 7);
  if (!(rp->note = catalog_column_text (s, 8)))
    return -1;
  if (sqlite3_column_type (s, 9) != SQLITE_NULL &&
      !(rp->path = catalog_column_text (s, 9)))
    return -1;
  rp->depth = sqlite3_column_int (s, 10);
  return catalog_read_resources_locked (c,
                                        catalog_bind_locked (c, SQL_RESOURCES,
                                                             "b", &rp->uuid),
                                        &rp->resources, &rp->nresources);
}

static int
read_list_locked (struct esp_catalog *c, sqlite3_stmt *bound,
                  struct esp_rp_list *out)
{
  CLEANUP_RP_LIST struct esp_rp_list list = { 0 };

  if (catalog_read_rows_locked (c, bound,
                                &list.rp, &list.n, sizeof *list.rp,
                                read_rp_locked) == -1)
    return -1;
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

/* ENOENT is not reported. */
static int
get_locked (struct esp_catalog *c, const esp_uuid *uuid, struct esp_rp *out)
{
  CLEANUP_RESET sqlite3_stmt *s = catalog_bind_locked (c, SQL_RP_GET, "b",
                                                       uuid);
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (catalog_one_row_locked (c, s) == -1)
    return -1;
  if (read_rp_locked (c, s, &rp) == -1)
    return -1;
  *out = rp;
  memset (&rp, 0, sizeof rp);
  return 0;
}

static int
no_rp (const esp_uuid *uuid)
{
  char text[ESP_UUID_TEXT];

  errno = ENOENT;
  esp_error ("no restore point %s", esp_uuid_text (uuid, text));
  return -1;
}

/* --- finding ----------------------------------------------------------- */

static int
hex_digit (char ch)
{
  if (ch >= '0' && ch <= '9')
    return ch - '0';
  ch |= 0x20;
  return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* The first and the last UUID that begin with the text REF; dashes may
 * stand where a UUID has them.  false if no UUID begins so.
 */
static bool
prefix_range (const char *ref, esp_uuid *first, esp_uuid *last)
{
  unsigned n = 0;
  int d;

  memset (first, 0, sizeof *first);
  memset (last, 0xff, sizeof *last);
  for (; *ref; ++ref) {
    if (*ref == '-' && (n == 8 || n == 12 || n == 16 || n == 20) &&
        ref[-1] != '-')
      continue;
    if ((d = hex_digit (*ref)) == -1 || n == 32)
      return false;
    unsigned shift = n % 2 ? 0 : 4;
    first->b[n / 2] |= d << shift;
    last->b[n / 2] &= ~((d ^ 15) << shift);
    n++;
  }
  return n >= PREFIX_MIN;
}

static int
not_found (const char *ref)
{
  char text[2 * ESP_NAME_MAX];

  errno = ENOENT;
  esp_error ("no restore point '%s' (see 'espalier rp list')",
             esp_escape (ref, text, sizeof text));
  return -1;
}

/* By name; 1 when found, 0 when not. */
static int
find_name_locked (struct esp_catalog *c, const char *ref, esp_uuid *uuid)
{
  CLEANUP_RESET sqlite3_stmt *s = catalog_bind_locked (c, SQL_RP_BY_NAME, "t",
                                                       ref);
  int r;

  if (!s || (r = catalog_step_locked (c, s)) == -1)
    return -1;
  if (r)
    catalog_column_uuid (s, 0, uuid);
  return r;
}

/* By prefix; the number found, of which the first is *UUID and all stand in
 * TEXT for a message.
 */
static int
find_range_locked (struct esp_catalog *c, const esp_uuid *first,
                   const esp_uuid *last, esp_uuid *uuid, char *text,
                   size_t size)
{
  CLEANUP_RESET sqlite3_stmt *s =
    catalog_bind_locked (c, SQL_RP_BY_RANGE, "xxu", first->b, sizeof first->b,
                         last->b, sizeof last->b, (uint64_t) CANDIDATES + 1);
  char u[ESP_UUID_TEXT];
  size_t len = 0;
  esp_uuid one;
  int r, n = 0;

  if (!s)
    return -1;
  text[0] = 0;
  while ((r = catalog_step_locked (c, s)) == 1) {
    catalog_column_uuid (s, 0, &one);
    if (n++ == 0)
      *uuid = one;
    if (n <= CANDIDATES)
      len += snprintf (text + len, size - len, "%s%s (%s)", n > 1 ? ", " : "",
                       (const char *) sqlite3_column_text (s, 1),
                       esp_uuid_text (&one, u));
    else
      snprintf (text + len, size - len, " and more");
    if (len >= size)
      len = size - 1;
  }
  return r == -1 ? -1 : n;
}

static int
find_prefix_locked (struct esp_catalog *c, const char *ref, esp_uuid *uuid)
{
  char text[(CANDIDATES + 1) * (ESP_NAME_MAX + ESP_UUID_TEXT + 8)];
  esp_uuid first, last;
  int n;

  if (!prefix_range (ref, &first, &last))
    return not_found (ref);
  n = find_range_locked (c, &first, &last, uuid, text, sizeof text);
  if (n == 0)
    return not_found (ref);
  if (n > 1) {
    errno = EEXIST;
    esp_error ("'%s' is the beginning of more than one restore point: %s:"
               " give more digits, or the name", ref, text);
    return -1;
  }
  return n == 1 ? 0 : -1;
}

int
esp_catalog_rp_find (struct esp_catalog *c, const char *ref,
                     struct esp_rp *out)
{
  CATALOG_LOCK_SCOPE (c);
  esp_uuid uuid;
  int r = find_name_locked (c, ref, &uuid);

  if (r == -1 || (r == 0 && find_prefix_locked (c, ref, &uuid) == -1))
    return -1;
  r = get_locked (c, &uuid, out);
  /* Between two statements another process may have deleted it. */
  return r == -1 && errno == ENOENT ? not_found (ref) : r;
}

int
esp_catalog_rp_get (struct esp_catalog *c, const esp_uuid *uuid,
                    struct esp_rp *out)
{
  CATALOG_LOCK_SCOPE (c);

  return get_locked (c, uuid, out);
}

int
esp_catalog_rp_name (struct esp_catalog *c, const esp_uuid *uuid,
                     char name[ESP_NAME_MAX + 1], uint64_t *created)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *s =
    catalog_bind_locked (c, SQL_RP_NAME, "b", uuid);

  if (catalog_one_row_locked (c, s) == -1)
    return -1;
  snprintf (name, ESP_NAME_MAX + 1, "%s",
            (const char *) sqlite3_column_text (s, 0));
  *created = (uint64_t) sqlite3_column_int64 (s, 1);
  return 0;
}

int
esp_catalog_rp_list (struct esp_catalog *c, const esp_uuid *start,
                     struct esp_rp_list *out)
{
  CATALOG_LOCK_SCOPE (c);
  struct esp_rp_list list;

  if (!start)
    return read_list_locked (c, catalog_bind_locked (c, SQL_RP_LIST, ""), out);
  if (read_list_locked (c, catalog_bind_locked (c, SQL_RP_SUBTREE, "b", start),
                        &list) == -1)
    return -1;
  if (list.n == 0)
    return no_rp (start);
  *out = list;
  return 0;
}

int
esp_catalog_rp_children (struct esp_catalog *c, const esp_uuid *uuid,
                         struct esp_rp_list *out)
{
  CATALOG_LOCK_SCOPE (c);

  return read_list_locked (c, catalog_bind_locked (c, SQL_RP_CHILDREN, "b",
                                                   uuid), out);
}

static int
descends_locked (struct esp_catalog *c, const esp_uuid *uuid,
                 const esp_uuid *ancestor)
{
  CLEANUP_RESET sqlite3_stmt *s =
    catalog_bind_locked (c, SQL_RP_DESCENDS, "bb", uuid, ancestor);

  return s ? catalog_step_locked (c, s) : -1;
}

int
esp_catalog_rp_descends (struct esp_catalog *c, const esp_uuid *uuid,
                         const esp_uuid *ancestor)
{
  CATALOG_LOCK_SCOPE (c);

  return descends_locked (c, uuid, ancestor);
}

/* --- changing ---------------------------------------------------------- */

/* Say why a row was refused. */
static int
refused (struct esp_catalog *c, const struct esp_rp *rp, int rc)
{
  char text[ESP_UUID_TEXT];

  switch (rc) {
  case SQLITE_CONSTRAINT_UNIQUE:
    errno = EEXIST;
    esp_error ("there is already a restore point '%s': choose another name",
               rp->name);
    return -1;
  case SQLITE_CONSTRAINT_PRIMARYKEY:
    errno = EEXIST;
    esp_error ("restore point %s is in the catalog already",
               esp_uuid_text (&rp->uuid, text));
    return -1;
  case SQLITE_CONSTRAINT_FOREIGNKEY:
    errno = ENOENT;
    esp_error ("restore point '%s': its parent %s is not in the catalog",
               rp->name, esp_uuid_text (&rp->parent, text));
    return -1;
  default:
    return catalog_fail (c, rc);
  }
}

/* Insert or update (ID) the row itself. */
static int
write_row_locked (struct esp_catalog *c, enum catalog_sql id,
                  const struct esp_rp *rp)
{
  int rc = catalog_run_locked (c, id, "btbuuuuutt", &rp->uuid, rp->name,
                               &rp->parent, (uint64_t) rp->kind, rp->size,
                               rp->created, rp->data_blocks, rp->zero_blocks,
                               rp->note ? rp->note : "", rp->path);

  return rc == SQLITE_DONE ? 0 : refused (c, rp, rc);
}

static int
write_resources_locked (struct esp_catalog *c, const struct esp_rp *rp)
{
  int rc = catalog_run_locked (c, SQL_RESOURCES_DELETE, "b", &rp->uuid);

  for (size_t i = 0; i < rp->nresources && rc == SQLITE_DONE; ++i)
    rc = catalog_run_locked (c, SQL_RESOURCE_INSERT, "buttt", &rp->uuid,
                             (uint64_t) i, rp->resources[i].kind,
                             rp->resources[i].name, rp->resources[i].version);
  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}

int
esp_catalog_rp_insert (struct esp_catalog *c, const struct esp_rp *rp)
{
  CATALOG_LOCK_SCOPE (c);
  int r;

  if (catalog_save_locked (c) == -1)
    return -1;
  r = write_row_locked (c, SQL_RP_INSERT, rp);
  if (r == 0)
    r = write_resources_locked (c, rp);
  return catalog_end_locked (c, r);
}

static int
update_locked (struct esp_catalog *c, const struct esp_rp *rp)
{
  int ring = esp_uuid_is_null (&rp->parent) ? 0
    : descends_locked (c, &rp->parent, &rp->uuid);

  if (ring == -1)
    return -1;
  if (ring) {
    errno = ELOOP;
    esp_error ("restore point '%s' cannot descend from itself", rp->name);
    return -1;
  }
  if (write_row_locked (c, SQL_RP_UPDATE, rp) == -1)
    return -1;
  if (sqlite3_changes (c->db) == 0)
    return no_rp (&rp->uuid);
  return write_resources_locked (c, rp);
}

int
esp_catalog_rp_update (struct esp_catalog *c, const struct esp_rp *rp)
{
  CATALOG_LOCK_SCOPE (c);

  if (catalog_save_locked (c) == -1)
    return -1;
  return catalog_end_locked (c, update_locked (c, rp));
}

int
esp_catalog_rp_delete (struct esp_catalog *c, const esp_uuid *uuid)
{
  CATALOG_LOCK_SCOPE (c);
  char text[ESP_UUID_TEXT];
  int rc = catalog_run_locked (c, SQL_RP_DELETE, "b", uuid);

  if (rc == SQLITE_CONSTRAINT_FOREIGNKEY) {
    errno = EBUSY;
    esp_error ("restore point %s is needed by its children or by venues",
               esp_uuid_text (uuid, text));
    return -1;
  }
  if (rc != SQLITE_DONE)
    return catalog_fail (c, rc);
  return sqlite3_changes (c->db) ? 0 : no_rp (uuid);
}
