/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog's settings of booting from a venue, and the ways to boot.
 *
 * A venue without a row has the defaults.  A row goes with its venue by the
 * foreign key; changing a venue never touches it.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/internal.h"
#include "util/host.h"

static const char *const boot_names[] = {
  [ESP_BOOT_UNSET] = "", [ESP_BOOT_ISCSI] = "iscsi",
  [ESP_BOOT_HTTP] = "http", [ESP_BOOT_NBDROOT] = "nbdroot",
};
#define BOOTS (sizeof boot_names / sizeof boot_names[0])

const char *
esp_boot_name (enum esp_boot boot)
{
  return (unsigned) boot < BOOTS ? boot_names[boot] : "";
}

int
esp_boot_parse (const char *s, enum esp_boot *out)
{
  char text[64];

  for (unsigned i = 0; i < BOOTS; ++i)
    if (strcmp (s, boot_names[i]) == 0) {
      *out = (enum esp_boot) i;
      return 0;
    }
  esp_error ("\"%s\" is no way to boot: use iscsi, http or nbdroot",
             esp_escape (s, text, sizeof text));
  errno = EINVAL;
  return -1;
}

/* A row: the venue's id, then all of venue_boot, NULL where it has none. */
static int
read_boot (struct esp_catalog *c, sqlite3_stmt *s, void *row)
{
  struct esp_venue_boot *b = row;
  bool none = sqlite3_column_type (s, 1) == SQLITE_NULL;

  (void) c;
  catalog_column_into (s, 0, b->id, sizeof b->id);
  b->boot = sqlite3_column_int (s, 2);
  b->weight = none ? ESP_WEIGHT_DEFAULT
    : (unsigned) sqlite3_column_int (s, 7);
  return (b->kernel = catalog_column_text (s, 3)) &&
    (b->initrd = catalog_column_text (s, 4)) &&
    (b->cmdline = catalog_column_text (s, 5)) &&
    (b->networks = catalog_column_text (s, 6)) ? 0 : -1;
}

int
esp_catalog_venue_boot_get (struct esp_catalog *c, const char *id,
                            struct esp_venue_boot *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *s = catalog_bind_locked (c, SQL_BOOT_GET, "t",
                                                       id);
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };

  if (catalog_one_row_locked (c, s) == -1)
    return errno == ENOENT ? catalog_no_venue (id) : -1;
  if (read_boot (c, s, &boot) == -1)
    return -1;
  *out = boot;
  memset (&boot, 0, sizeof boot);
  return 0;
}

int
esp_catalog_venue_boot_list (struct esp_catalog *c,
                             struct esp_venue_boot_list *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_VENUE_BOOT_LIST struct esp_venue_boot_list list = { 0 };

  if (catalog_read_rows_locked (c, catalog_bind_locked (c, SQL_BOOT_LIST, ""),
                                &list.boot, &list.n, sizeof *list.boot,
                                read_boot) == -1)
    return -1;
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

static const char *
text (const char *s)
{
  return s ? s : "";
}

bool
esp_venue_boot_unset (const struct esp_venue_boot *b)
{
  return b->boot == ESP_BOOT_UNSET && b->weight == ESP_WEIGHT_DEFAULT &&
    !*text (b->kernel) && !*text (b->initrd) && !*text (b->cmdline) &&
    !*text (b->networks);
}

/* Where nothing is set there is no row, as after a rebuild. */
static int
forget_locked (struct esp_catalog *c, const char *id)
{
  esp_uuid tip;
  int rc;

  if (esp_catalog_venue_tip (c, id, 0, &tip) == -1)
    return errno == ENOENT ? catalog_no_venue (id) : -1;
  rc = catalog_run_locked (c, SQL_BOOT_DELETE, "t", id);
  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}

int
esp_catalog_venue_boot_put (struct esp_catalog *c,
                            const struct esp_venue_boot *b)
{
  CATALOG_LOCK_SCOPE (c);
  int rc;

  if (esp_venue_boot_unset (b))
    return forget_locked (c, b->id);
  rc = catalog_run_locked (c, SQL_BOOT_PUT, "tuttttu", b->id,
                           (uint64_t) b->boot, text (b->kernel),
                           text (b->initrd), text (b->cmdline),
                           text (b->networks), (uint64_t) b->weight);
  if (rc == SQLITE_CONSTRAINT_FOREIGNKEY)
    return catalog_no_venue (b->id);
  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}
