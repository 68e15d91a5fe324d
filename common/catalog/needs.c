/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog's needs: a name, a description, and the resources it takes.
 * Who serves them is not kept: boot/needs.h finds out.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/internal.h"
#include "util/host.h"

static int
no_need (const char *name)
{
  char text[2 * ESP_NAME_MAX];

  errno = ENOENT;
  esp_error ("no need '%s' (see 'espalier need list')",
             esp_escape (name, text, sizeof text));
  return -1;
}

static int
read_need_locked (struct esp_catalog *c, sqlite3_stmt *s, void *row)
{
  struct esp_need *need = row;

  if (!(need->name = catalog_column_text (s, 0)) ||
      !(need->description = catalog_column_text (s, 1)))
    return -1;
  return catalog_read_resources_locked (c,
                                        catalog_bind_locked
                                          (c, SQL_NEED_RESOURCES, "t",
                                           need->name),
                                        &need->resources, &need->nresources);
}

int
esp_catalog_need_get (struct esp_catalog *c, const char *name,
                      struct esp_need *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *s = catalog_bind_locked (c, SQL_NEED_GET, "t",
                                                       name);
  CLEANUP_NEED struct esp_need need = { 0 };

  if (catalog_one_row_locked (c, s) == -1)
    return errno == ENOENT ? no_need (name) : -1;
  if (read_need_locked (c, s, &need) == -1)
    return -1;
  *out = need;
  memset (&need, 0, sizeof need);
  return 0;
}

int
esp_catalog_need_list (struct esp_catalog *c, struct esp_need_list *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_NEED_LIST struct esp_need_list list = { 0 };

  if (catalog_read_rows_locked (c, catalog_bind_locked (c, SQL_NEED_LIST, ""),
                                &list.need, &list.n, sizeof *list.need,
                                read_need_locked) == -1)
    return -1;
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

static int
put_need_locked (struct esp_catalog *c, const struct esp_need *need)
{
  int rc = catalog_run_locked (c, SQL_NEED_PUT, "tt", need->name,
                               need->description ? need->description : "");

  if (rc == SQLITE_DONE)
    rc = catalog_run_locked (c, SQL_NEED_RESOURCES_DELETE, "t", need->name);
  for (size_t i = 0; i < need->nresources && rc == SQLITE_DONE; ++i) {
    const struct esp_resource *x = &need->resources[i];

    rc = catalog_run_locked (c, SQL_NEED_RESOURCE_INSERT, "tuttt", need->name,
                             (uint64_t) i, x->kind, x->name,
                             x->version ? x->version : "");
  }
  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}

int
esp_catalog_need_put (struct esp_catalog *c, const struct esp_need *need)
{
  CATALOG_LOCK_SCOPE (c);

  if (catalog_save_locked (c) == -1)
    return -1;
  return catalog_end_locked (c, put_need_locked (c, need));
}

int
esp_catalog_need_delete (struct esp_catalog *c, const char *name)
{
  CATALOG_LOCK_SCOPE (c);
  int rc = catalog_run_locked (c, SQL_NEED_DELETE, "t", name);

  if (rc != SQLITE_DONE)
    return catalog_fail (c, rc);
  return sqlite3_changes (c->db) ? 0 : no_need (name);
}

static int
set_all_locked (struct esp_catalog *c, const struct esp_need_list *list)
{
  int rc = catalog_run_locked (c, SQL_NEEDS_DELETE, ""), r = 0;

  if (rc != SQLITE_DONE)
    return catalog_fail (c, rc);
  for (size_t i = 0; i < list->n && r == 0; ++i)
    r = put_need_locked (c, &list->need[i]);
  return r;
}

int
esp_catalog_need_set_all (struct esp_catalog *c,
                          const struct esp_need_list *list)
{
  CATALOG_LOCK_SCOPE (c);

  if (catalog_save_locked (c) == -1)
    return -1;
  return catalog_end_locked (c, set_all_locked (c, list));
}
