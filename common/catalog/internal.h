/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside the catalog: the connection, and how its statements are run. */

#ifndef ESPALIER_CATALOG_INTERNAL_H
#define ESPALIER_CATALOG_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sqlite3.h>

#include "catalog/catalog.h"

/* Every statement of the catalog stands in statements.c, in this order;
 * each is prepared once a connection, when it is first run.
 */
enum catalog_sql {
  SQL_BEGIN, SQL_COMMIT, SQL_ROLLBACK,
  SQL_SAVE, SQL_RELEASE, SQL_UNDO,
  SQL_INTEGRITY, SQL_FOREIGN_KEYS, SQL_UNREACHABLE, SQL_DATA_VERSION,

  SQL_RP_BY_NAME, SQL_RP_BY_RANGE, SQL_RP_GET, SQL_RP_NAME, SQL_RP_LIST,
  SQL_RP_SUBTREE,
  SQL_RP_CHILDREN, SQL_RP_INSERT, SQL_RP_UPDATE, SQL_RP_DELETE,
  SQL_RP_DESCENDS,
  SQL_RESOURCES, SQL_RESOURCE_INSERT, SQL_RESOURCES_DELETE,

  SQL_VENUE_GET, SQL_VENUE_LIST, SQL_VENUE_SUBTREE, SQL_VENUES_OF,
  SQL_VENUE_TIP, SQL_VENUE_PUT, SQL_VENUE_DELETE,
  SQL_DISK_INSERT, SQL_DISKS_DELETE,
  SQL_LOG, SQL_LOG_INSERT, SQL_LOG_DELETE,

  SQL_BOOT_GET, SQL_BOOT_LIST, SQL_BOOT_PUT, SQL_BOOT_DELETE,
  SQL_CLIENT_GET, SQL_CLIENT_LIST, SQL_CLIENT_PUT, SQL_CLIENT_DELETE,
  SQL_CLIENT_OF_NAME, SQL_CLIENTS_DELETE,
  SQL_SEEN_GET, SQL_SEEN_LIST, SQL_SEEN_PUT, SQL_SEEN_FORGET,
  SQL_NEED_GET, SQL_NEED_LIST, SQL_NEED_PUT, SQL_NEED_DELETE,
  SQL_NEED_RESOURCES, SQL_NEED_RESOURCE_INSERT, SQL_NEED_RESOURCES_DELETE,
  SQL_NEEDS_DELETE,
  SQL_MAX
};
extern const char *const catalog_sql_text[SQL_MAX];

struct esp_catalog {
  sqlite3 *db;
  char *file;                   /* for messages */
  bool readonly;
  /* Recursive; held by each call, and from begin to commit or rollback.
   * It protects all below, and the connection.
   */
  pthread_mutex_t lock;
  bool in_transaction;
  sqlite3_stmt *stmts[SQL_MAX];
};

#define CATALOG_LOCK_SCOPE(c) ESP_LOCK_SCOPE (&(c)->lock)

/* A statement that is reset, so that it holds no snapshot of the database,
 * where the scope ends.
 */
static inline __attribute__ ((unused)) void
catalog_reset (sqlite3_stmt **s)
{
  int saved = errno;
  if (*s)
    sqlite3_reset (*s);
  errno = saved;
}
#define CLEANUP_RESET __attribute__ ((cleanup (catalog_reset)))

/* Statement ID with its parameters bound from the left, one argument for
 * each letter of FMT: b const esp_uuid * (the null UUID is NULL), t const
 * char *, u uint64_t, x const void * and size_t.  What is bound must live
 * until the reset.  NULL and reported when it fails.
 */
extern sqlite3_stmt *catalog_bind_locked (struct esp_catalog *c,
                                          enum catalog_sql id,
                                          const char *fmt, ...);

/* Step: 1 a row, 0 the end, -1 an error, reported. */
extern int catalog_step_locked (struct esp_catalog *c, sqlite3_stmt *s);

/* Step to the only row of S (NULL: it could not be bound, which is
 * reported).  -1 with ENOENT, not reported, where there is none.
 */
static inline int
catalog_one_row_locked (struct esp_catalog *c, sqlite3_stmt *s)
{
  int r = s ? catalog_step_locked (c, s) : -1;

  if (r == 0)
    errno = ENOENT;
  return r == 1 ? 0 : -1;
}

/* Bind as above, run to the end, reset.  Returns the (extended) result
 * code of SQLite, SQLITE_DONE when it went well; reports nothing unless
 * binding fails (then SQLITE_NOMEM).
 */
#define catalog_run_locked(c, id, ...)                          \
  catalog_finish_locked (catalog_bind_locked ((c), (id), __VA_ARGS__))
extern int catalog_finish_locked (sqlite3_stmt *s);

/* Report what SQLite says about the result code RC; -1 with errno. */
extern int catalog_fail (struct esp_catalog *c, int rc);

/* Several statements as one, inside a transaction or not: save, then
 * release (R 0) or undo (R -1).  _end_ returns R, or -1 when that fails.
 */
extern int catalog_save_locked (struct esp_catalog *c);
extern int catalog_end_locked (struct esp_catalog *c, int r);

/* Columns. */
extern void catalog_column_uuid (sqlite3_stmt *s, int column, esp_uuid *out);
/* malloced, never NULL unless memory is short (reported). */
extern char *catalog_column_text (sqlite3_stmt *s, int column);

/* The text of a column in SIZE bytes at OUT, cut where it is longer. */
extern void catalog_column_into (sqlite3_stmt *s, int column, char *out,
                                 size_t size);

/* The rows of S (bound to whose resources they are): kind, name, version.
 * S is reset; NULL is -1.
 */
extern int catalog_read_resources_locked (struct esp_catalog *c,
                                          sqlite3_stmt *bound,
                                          struct esp_resource **list,
                                          size_t *n);
extern void catalog_resources_free (struct esp_resource *list, size_t n);

/* "no venue ..." */
extern int catalog_no_venue (const char *id);

/* One more element of SIZE bytes, zeroed, at the end of the array *BASE of
 * *N elements.  NULL and reported without memory.
 */
extern void *catalog_grow (void *base, size_t *n, size_t size);

/* All rows of S (bound; reset; NULL is -1), each read by READ into a further
 * element of SIZE bytes, zeroed, of the array *BASE of *N.  -1 leaves what was
 * read so far to its owner.
 */
typedef int (*catalog_row_fn) (struct esp_catalog *c, sqlite3_stmt *s,
                               void *row);
extern int catalog_read_rows_locked (struct esp_catalog *c,
                                     sqlite3_stmt *bound, void *base,
                                     size_t *n, size_t size,
                                     catalog_row_fn read);

/* Check the schema of an open connection; make it when CREATE, migrate an
 * older one.
 */
extern int catalog_schema (struct esp_catalog *c, bool create);

#endif /* ESPALIER_CATALOG_INTERNAL_H */
