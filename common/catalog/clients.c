/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog's clients: what the operator said of them, and what they did
 * last.
 *
 * The two are tables of their own.  An entry is for a machine or a network and
 * comes from a document; what was seen is written with each boot, by the
 * name that the machine's overlay has, and is in no document.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catalog/internal.h"
#include "util/host.h"

/* --- entries ------------------------------------------------------------ */

static int
no_client (const char *key)
{
  char text[2 * ESP_NAME_MAX];

  errno = ENOENT;
  esp_error ("no client '%s' (see 'espalier client list')",
             esp_escape (key, text, sizeof text));
  return -1;
}

static int
read_client (struct esp_catalog *c, sqlite3_stmt *s, void *row)
{
  struct esp_client *client = row;

  (void) c;
  catalog_column_into (s, 0, client->key, sizeof client->key);
  client->kind = sqlite3_column_int (s, 1);
  catalog_column_into (s, 2, client->name, sizeof client->name);
  catalog_column_into (s, 3, client->venue, sizeof client->venue);
  client->boot = sqlite3_column_int (s, 4);
  client->created = sqlite3_column_int64 (s, 6);
  client->changed = sqlite3_column_int64 (s, 7);
  return (client->chap = catalog_column_text (s, 5)) ? 0 : -1;
}

int
esp_catalog_client_get (struct esp_catalog *c, const char *key,
                        struct esp_client *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *s = catalog_bind_locked (c, SQL_CLIENT_GET, "t",
                                                       key);
  CLEANUP_CLIENT struct esp_client client = { 0 };

  if (catalog_one_row_locked (c, s) == -1)
    return errno == ENOENT ? no_client (key) : -1;
  if (read_client (c, s, &client) == -1)
    return -1;
  *out = client;
  memset (&client, 0, sizeof client);
  return 0;
}

int
esp_catalog_client_list (struct esp_catalog *c, struct esp_client_list *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_CLIENT_LIST struct esp_client_list list = { 0 };

  if (catalog_read_rows_locked (c, catalog_bind_locked (c, SQL_CLIENT_LIST, ""),
                                &list.client, &list.n, sizeof *list.client,
                                read_client) == -1)
    return -1;
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

static int
name_taken_locked (struct esp_catalog *c, const char *name)
{
  CLEANUP_RESET sqlite3_stmt *s = catalog_bind_locked (c, SQL_CLIENT_OF_NAME,
                                                       "t", name);
  char key[ESP_CLIENT_KEY_MAX + 1];

  if (catalog_one_row_locked (c, s) == -1)
    return -1;
  catalog_column_into (s, 0, key, sizeof key);
  esp_error ("the name '%s' is client %s's: two machines with one name would"
             " share an overlay", name, key);
  errno = EEXIST;
  return -1;
}

int
esp_catalog_client_put (struct esp_catalog *c, const struct esp_client *x)
{
  CATALOG_LOCK_SCOPE (c);
  int rc = catalog_run_locked (c, SQL_CLIENT_PUT, "tuttutuu", x->key,
                               (uint64_t) x->kind, x->name, x->venue,
                               (uint64_t) x->boot, x->chap ? x->chap : "",
                               x->created, x->changed);

  if (rc == SQLITE_CONSTRAINT_UNIQUE)
    return name_taken_locked (c, x->name);
  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}

int
esp_catalog_client_delete (struct esp_catalog *c, const char *key)
{
  CATALOG_LOCK_SCOPE (c);
  int rc = catalog_run_locked (c, SQL_CLIENT_DELETE, "t", key);

  if (rc != SQLITE_DONE)
    return catalog_fail (c, rc);
  return sqlite3_changes (c->db) ? 0 : no_client (key);
}

static int
set_all_locked (struct esp_catalog *c, const struct esp_client_list *list)
{
  int rc = catalog_run_locked (c, SQL_CLIENTS_DELETE, ""), r = 0;

  if (rc != SQLITE_DONE)
    return catalog_fail (c, rc);
  for (size_t i = 0; i < list->n && r == 0; ++i)
    r = esp_catalog_client_put (c, &list->client[i]);
  return r;
}

int
esp_catalog_client_set_all (struct esp_catalog *c,
                            const struct esp_client_list *list)
{
  CATALOG_LOCK_SCOPE (c);

  if (catalog_save_locked (c) == -1)
    return -1;
  return catalog_end_locked (c, set_all_locked (c, list));
}

/* --- what was seen ------------------------------------------------------ */

static int
read_seen (struct esp_catalog *c, sqlite3_stmt *s, void *row)
{
  struct esp_client_seen *seen = row;

  (void) c;
  catalog_column_into (s, 0, seen->name, sizeof seen->name);
  catalog_column_into (s, 1, seen->venue, sizeof seen->venue);
  catalog_column_into (s, 2, seen->mac, sizeof seen->mac);
  catalog_column_into (s, 3, seen->uuid, sizeof seen->uuid);
  catalog_column_into (s, 4, seen->address, sizeof seen->address);
  seen->first = sqlite3_column_int64 (s, 6);
  seen->last = sqlite3_column_int64 (s, 7);
  seen->boots = sqlite3_column_int64 (s, 8);
  return (seen->needs = catalog_column_text (s, 5)) ? 0 : -1;
}

int
esp_catalog_seen_get (struct esp_catalog *c, const char *name,
                      struct esp_client_seen *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *s = catalog_bind_locked (c, SQL_SEEN_GET, "t",
                                                       name);
  CLEANUP_CLIENT_SEEN struct esp_client_seen seen = { 0 };

  if (catalog_one_row_locked (c, s) == -1 || read_seen (c, s, &seen) == -1)
    return -1;
  *out = seen;
  memset (&seen, 0, sizeof seen);
  return 0;
}

int
esp_catalog_seen_list (struct esp_catalog *c, struct esp_client_seen_list *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_CLIENT_SEEN_LIST struct esp_client_seen_list list = { 0 };

  if (catalog_read_rows_locked (c, catalog_bind_locked (c, SQL_SEEN_LIST, ""),
                                &list.seen, &list.n, sizeof *list.seen,
                                read_seen) == -1)
    return -1;
  *out = list;
  memset (&list, 0, sizeof list);
  return 0;
}

static int
put_seen_locked (struct esp_catalog *c, const struct esp_client_seen *x,
                 bool booted)
{
  int rc = catalog_run_locked (c, SQL_SEEN_PUT, "ttttttuu", x->name, x->venue,
                               x->mac, x->uuid, x->address, x->needs,
                               (uint64_t) time (NULL), (uint64_t) booted);

  if (rc == SQLITE_DONE)
    rc = catalog_run_locked (c, SQL_SEEN_FORGET, "tu", x->name,
                             (uint64_t) ESP_SEEN_MAX);
  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}

int
esp_catalog_seen_put (struct esp_catalog *c,
                      const struct esp_client_seen *seen, bool booted)
{
  CATALOG_LOCK_SCOPE (c);

  if (catalog_save_locked (c) == -1)
    return -1;
  return catalog_end_locked (c, put_seen_locked (c, seen, booted));
}
