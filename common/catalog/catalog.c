/* SPDX-License-Identifier: BSD-3-Clause */
/* The connection to catalog.db: opening, transactions, statements.
 *
 * WAL lets many processes read while one writes.  foreign_keys and a busy
 * time-out of ten seconds are set for each connection; synchronous is FULL:
 * with NORMAL a power loss may take back the last commits, and then the
 * catalog disagrees with the documents, which are the truth, until somebody
 * runs `store check`.  A commit costs a millisecond more, and commits are
 * made by people.
 *
 * The -wal and -shm files stay when the last connection closes: a reader
 * that may not write into the directory could not make them, and so finds
 * them.  On a file system that is mounted read-only and has none of them,
 * nobody can write either, and the database is opened as immutable.  That is
 * never done elsewhere: an immutable reader takes no locks and would read
 * nonsense below a writer.
 *
 * One recursive mutex a connection serialises its calls.  A thread that
 * begins a transaction keeps it until commit or rollback, so no other
 * thread's statement gets into it.
 *
 * Nobody else in the process may open and close catalog.db by other means:
 * closing any descriptor of it drops SQLite's POSIX locks.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "catalog/internal.h"
#include "util/file.h"
#include "util/host.h"

#define BUSY_MS 10000

/* --- errors ------------------------------------------------------------ */

static int
errno_of (int rc)
{
  switch (rc & 0xff) {
  case SQLITE_BUSY: case SQLITE_LOCKED: return EBUSY;
  case SQLITE_NOMEM: return ENOMEM;
  case SQLITE_READONLY: return EROFS;
  case SQLITE_FULL: return ENOSPC;
  case SQLITE_CORRUPT: case SQLITE_NOTADB: case SQLITE_ERROR: return EBADMSG;
  case SQLITE_PERM: case SQLITE_CANTOPEN: case SQLITE_AUTH: return EACCES;
  case SQLITE_CONSTRAINT: return EINVAL;
  default: return EIO;
  }
}

static const char *
advice (int err)
{
  switch (err) {
  case EBUSY: return ": another process is changing the store: try again";
  case EBADMSG: return ": make it anew with 'espalier store rebuild'";
  default: return "";
  }
}

int
catalog_fail (struct esp_catalog *c, int rc)
{
  int err = errno_of (rc);

  esp_error ("%s: %s%s", c->file, c->db ? sqlite3_errmsg (c->db)
             : sqlite3_errstr (rc), advice (err));
  errno = err;
  return -1;
}

/* --- opening ----------------------------------------------------------- */

/* "file:PATH?QUERY" with what means something to SQLite escaped. */
static char *
uri (const char *path, const char *query)
{
  static const char hex[] = "0123456789abcdef";
  char *r = malloc (5 + 3 * strlen (path) + 1 + strlen (query) + 1), *p = r;

  if (!r)
    return NULL;
  p = stpcpy (p, "file:");
  for (; *path; ++path)
    if (strchr ("?#%", *path)) {
      *p++ = '%';
      *p++ = hex[(unsigned char) *path >> 4];
      *p++ = hex[*path & 15];
    }
    else
      *p++ = *path;
  *p++ = '?';
  strcpy (p, query);
  return r;
}

static void
disconnect (struct esp_catalog *c)
{
  for (int i = 0; i < SQL_MAX; ++i) {
    sqlite3_finalize (c->stmts[i]);
    c->stmts[i] = NULL;
  }
  /* After a failed open too; nothing is left that it could refuse for. */
  sqlite3_close (c->db);
  c->db = NULL;
}

/* Connect and read something, so that what cannot work fails here.
 * Returns SQLite's result code.
 */
static int
connect_db (struct esp_catalog *c, const char *query)
{
  CLEANUP_FREE char *name = uri (c->file, query);
  int rc, one = 1;

  if (!name)
    return SQLITE_NOMEM;
  rc = sqlite3_open_v2 (name, &c->db,
                        SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX |
                        SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_READWRITE |
                        SQLITE_OPEN_CREATE, NULL);
  if (rc != SQLITE_OK)
    return rc;
  sqlite3_busy_timeout (c->db, BUSY_MS);
  sqlite3_db_config (c->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  sqlite3_file_control (c->db, NULL, SQLITE_FCNTL_PERSIST_WAL, &one);
  return sqlite3_exec (c->db,
                       "PRAGMA foreign_keys = ON;"
                       "PRAGMA synchronous = FULL;"
                       "PRAGMA journal_size_limit = 4194304;"
                       "PRAGMA trusted_schema = OFF;"
                       "PRAGMA cell_size_check = ON;"
                       "SELECT count (*) FROM sqlite_schema", NULL, NULL, NULL);
}

/* Nothing can write below DIR, and there is no WAL that would be missed. */
static bool
immutable (const char *dir, const char *file)
{
  CLEANUP_FREE char *wal = esp_asprintf ("%s-wal", file);
  struct statvfs fs;
  struct stat st;

  return wal && statvfs (dir, &fs) == 0 && (fs.f_flag & ST_RDONLY) &&
    (stat (wal, &st) == -1 || st.st_size == 0);
}

static int
connect_readonly (struct esp_catalog *c, const char *dir)
{
  int rc = connect_db (c, "mode=ro");

  if (rc == SQLITE_OK || !immutable (dir, c->file))
    return rc;
  disconnect (c);
  return connect_db (c, "mode=ro&immutable=1");
}

static bool
may_write (const char *dir, const char *file)
{
  return faccessat (AT_FDCWD, dir, W_OK, AT_EACCESS) == 0 &&
    (faccessat (AT_FDCWD, file, W_OK, AT_EACCESS) == 0 || errno == ENOENT);
}

static int
open_db (struct esp_catalog *c, const char *dir, bool create)
{
  int rc;

  if (!create && access (c->file, F_OK) == -1) {
    if (errno == ENOENT)
      esp_error ("%s is missing: make it anew with 'espalier store rebuild'",
                 c->file);
    else
      esp_error ("access: %s: %m", c->file);
    return -1;
  }
  c->readonly = !may_write (dir, c->file);
  if (c->readonly)
    rc = connect_readonly (c, dir);
  else
    rc = connect_db (c, create ? "mode=rwc" : "mode=rw");
  return rc == SQLITE_OK ? 0 : catalog_fail (c, rc);
}

static struct esp_catalog *
catalog_new (const char *dir, const char *name)
{
  struct esp_catalog *c = calloc (1, sizeof *c);
  pthread_mutexattr_t attr;

  if (!c || !(c->file = esp_asprintf ("%s/%s", dir, name))) {
    esp_error ("malloc: %m");
    free (c);
    return NULL;
  }
  pthread_mutexattr_init (&attr);
  pthread_mutexattr_settype (&attr, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init (&c->lock, &attr);
  pthread_mutexattr_destroy (&attr);
  return c;
}

struct esp_catalog *
esp_catalog_open_file (const char *path, const char *name, bool create)
{
  struct esp_catalog *c = catalog_new (path, name);
  int saved;

  if (!c)
    return NULL;
  if (open_db (c, path, create) == -1 || catalog_schema (c, create) == -1) {
    saved = errno;
    esp_catalog_close (c);
    errno = saved;
    return NULL;
  }
  return c;
}

struct esp_catalog *
esp_catalog_open (const char *path, bool create)
{
  return esp_catalog_open_file (path, ESP_CATALOG_FILE, create);
}

void
esp_catalog_close (struct esp_catalog *catalog)
{
  if (!catalog)
    return;
  disconnect (catalog);
  pthread_mutex_destroy (&catalog->lock);
  free (catalog->file);
  free (catalog);
}

bool
esp_catalog_readonly (const struct esp_catalog *catalog)
{
  return catalog->readonly;
}

/* --- statements -------------------------------------------------------- */

static sqlite3_stmt *
prepare_locked (struct esp_catalog *c, enum catalog_sql id)
{
  int rc;

  if (!c->stmts[id]) {
    rc = sqlite3_prepare_v3 (c->db, catalog_sql_text[id], -1,
                             SQLITE_PREPARE_PERSISTENT, &c->stmts[id], NULL);
    if (rc != SQLITE_OK) {
      catalog_fail (c, rc);
      return NULL;
    }
  }
  return c->stmts[id];
}

static int
bind_uuid (sqlite3_stmt *s, int i, const esp_uuid *u)
{
  if (esp_uuid_is_null (u))
    return sqlite3_bind_null (s, i);
  return sqlite3_bind_blob (s, i, u->b, sizeof u->b, SQLITE_STATIC);
}

static int
bind_one (sqlite3_stmt *s, int i, char kind, va_list *args)
{
  const void *p;

  switch (kind) {
  case 'b':
    return bind_uuid (s, i, va_arg (*args, const esp_uuid *));
  case 't':
    return sqlite3_bind_text (s, i, va_arg (*args, const char *), -1,
                              SQLITE_STATIC);
  case 'u':
    return sqlite3_bind_int64 (s, i, (int64_t) va_arg (*args, uint64_t));
  case 'x':
    p = va_arg (*args, const void *);
    return sqlite3_bind_blob64 (s, i, p, va_arg (*args, size_t),
                                SQLITE_STATIC);
  default:
    return SQLITE_MISUSE;
  }
}

sqlite3_stmt *
catalog_bind_locked (struct esp_catalog *c, enum catalog_sql id,
                     const char *fmt, ...)
{
  sqlite3_stmt *s = prepare_locked (c, id);
  int rc = SQLITE_OK;
  va_list args;

  if (!s)
    return NULL;
  va_start (args, fmt);
  for (int i = 0; fmt[i] && rc == SQLITE_OK; ++i)
    rc = bind_one (s, i + 1, fmt[i], &args);
  va_end (args);
  if (rc != SQLITE_OK) {
    catalog_fail (c, rc);
    return NULL;
  }
  return s;
}

int
catalog_step_locked (struct esp_catalog *c, sqlite3_stmt *s)
{
  int rc = sqlite3_step (s);

  if (rc == SQLITE_ROW)
    return 1;
  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}

int
catalog_finish_locked (sqlite3_stmt *s)
{
  int rc;

  if (!s)
    return SQLITE_NOMEM;
  while ((rc = sqlite3_step (s)) == SQLITE_ROW)
    ;
  sqlite3_reset (s);
  return rc;
}

void
catalog_column_uuid (sqlite3_stmt *s, int column, esp_uuid *out)
{
  const void *p = sqlite3_column_blob (s, column);

  memset (out, 0, sizeof *out);
  if (p && sqlite3_column_bytes (s, column) == sizeof out->b)
    memcpy (out->b, p, sizeof out->b);
}

char *
catalog_column_text (sqlite3_stmt *s, int column)
{
  const char *text = (const char *) sqlite3_column_text (s, column);
  char *r = strdup (text ? text : "");

  if (!r)
    esp_error ("strdup: %m");
  return r;
}

void
catalog_column_into (sqlite3_stmt *s, int column, char *out, size_t size)
{
  const char *text = (const char *) sqlite3_column_text (s, column);

  snprintf (out, size, "%s", text ? text : "");
}

/* --- transactions ------------------------------------------------------ */

int
esp_catalog_version (struct esp_catalog *c, uint64_t *out)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *s =
    catalog_bind_locked (c, SQL_DATA_VERSION, "");

  if (catalog_one_row_locked (c, s) == -1)
    return -1;
  *out = (uint64_t) sqlite3_column_int64 (s, 0);
  return 0;
}

int
esp_catalog_begin (struct esp_catalog *c)
{
  int rc;

  pthread_mutex_lock (&c->lock);
  if (c->in_transaction) {
    errno = EDEADLK;
    esp_error ("%s: a transaction inside a transaction", c->file);
  }
  else if (c->readonly) {
    errno = EROFS;
    esp_error ("%s: the store is read-only here: nothing can be changed",
               c->file);
  }
  else if ((rc = catalog_run_locked (c, SQL_BEGIN, "")) == SQLITE_DONE) {
    c->in_transaction = true;
    return 0;                   /* with the lock, until the end */
  }
  else
    catalog_fail (c, rc);
  pthread_mutex_unlock (&c->lock);
  return -1;
}

/* End the transaction of this thread: two locks, begin's and ours. */
static void
end_locked (struct esp_catalog *c)
{
  c->in_transaction = false;
  pthread_mutex_unlock (&c->lock);
}

int
esp_catalog_commit (struct esp_catalog *c)
{
  CATALOG_LOCK_SCOPE (c);
  int rc, r = 0;

  if (!c->in_transaction) {
    errno = EINVAL;
    esp_error ("%s: a commit without a transaction", c->file);
    return -1;
  }
  rc = catalog_run_locked (c, SQL_COMMIT, "");
  if (rc != SQLITE_DONE) {
    r = catalog_fail (c, rc);
    catalog_run_locked (c, SQL_ROLLBACK, "");   /* it is reported already */
    errno = errno_of (rc);
  }
  end_locked (c);
  return r;
}

void
esp_catalog_rollback (struct esp_catalog *c)
{
  CATALOG_LOCK_SCOPE (c);
  int saved = errno;

  if (c->in_transaction) {
    /* It fails only where SQLite has rolled back by itself. */
    catalog_run_locked (c, SQL_ROLLBACK, "");
    end_locked (c);
  }
  errno = saved;
}

int
catalog_save_locked (struct esp_catalog *c)
{
  int rc = catalog_run_locked (c, SQL_SAVE, "");

  return rc == SQLITE_DONE ? 0 : catalog_fail (c, rc);
}

int
catalog_end_locked (struct esp_catalog *c, int r)
{
  int saved = errno, rc;

  if (r == -1)
    catalog_run_locked (c, SQL_UNDO, "");
  rc = catalog_run_locked (c, SQL_RELEASE, "");
  if (r == 0 && rc != SQLITE_DONE) {
    r = catalog_fail (c, rc);
    saved = errno;
    catalog_run_locked (c, SQL_UNDO, "");
    catalog_run_locked (c, SQL_RELEASE, "");
  }
  errno = saved;
  return r;
}

/* --- soundness --------------------------------------------------------- */

static int
unsound (struct esp_catalog *c, const char *what, const char *text)
{
  esp_error ("%s: %s%s: make it anew with 'espalier store rebuild'", c->file,
             what, text ? text : "");
  errno = EBADMSG;
  return -1;
}

int
esp_catalog_check (struct esp_catalog *c)
{
  CATALOG_LOCK_SCOPE (c);
  CLEANUP_RESET sqlite3_stmt *integrity = NULL, *keys = NULL, *ring = NULL;
  const char *text;
  int r;

  if (!(integrity = catalog_bind_locked (c, SQL_INTEGRITY, "")) ||
      (r = catalog_step_locked (c, integrity)) == -1)
    return -1;
  text = r ? (const char *) sqlite3_column_text (integrity, 0) : NULL;
  if (!text || strcmp (text, "ok") != 0)
    return unsound (c, "damaged: ", text);
  if (!(keys = catalog_bind_locked (c, SQL_FOREIGN_KEYS, "")) ||
      (r = catalog_step_locked (c, keys)) == -1)
    return -1;
  if (r)
    return unsound (c, "rows point at nothing in table ",
                    (const char *) sqlite3_column_text (keys, 0));
  if (!(ring = catalog_bind_locked (c, SQL_UNREACHABLE, "")) ||
      (r = catalog_step_locked (c, ring)) == -1)
    return -1;
  if (r)
    return unsound (c, "parents go round in a ring at restore point ",
                    (const char *) sqlite3_column_text (ring, 0));
  return 0;
}
