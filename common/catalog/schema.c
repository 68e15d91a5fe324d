/* SPDX-License-Identifier: BSD-3-Clause */
/* The schema of catalog.db, and the way from each version to the next.
 *
 * PRAGMA user_version is the version, application_id says that the file is
 * a catalog at all.  steps[] is the only description of the schema: a new
 * catalog takes all of them, an older one those that it lacks, both in one
 * transaction.  A step that has been released is never changed; the next
 * version is one more step.  A newer version is refused: we could not know
 * what its tables mean.
 *
 * Restore points are keyed by their UUIDs, venues by their ids: names that
 * documents use too, so a rebuild gives the same rows.  Depth is not kept:
 * it follows from the parents, and a merge would have to change it in a
 * whole subtree.  A venue's log keeps its disks as one blob of UUIDs
 * without a foreign key: history may name restore points that are gone.
 *
 * A client's venue is no foreign key either: when a venue's document was lost,
 * what the operator said of the machine must survive a rebuild.  (Deleting
 * a venue looks for such clients itself: store/venue-delete.c.)
 */

#include <config.h>

#include <errno.h>

#include "catalog/internal.h"
#include "util/host.h"

#define APPLICATION_ID 0x45737061       /* "Espa" */

static const char *const steps[] = {
  /* 1: the tables */
  "CREATE TABLE rp ("
  "  uuid BLOB PRIMARY KEY NOT NULL CHECK (length (uuid) = 16),"
  "  name TEXT NOT NULL UNIQUE,"
  "  parent BLOB REFERENCES rp (uuid),"
  "  kind INTEGER NOT NULL CHECK (kind IN (0, 1)),"
  "  size INTEGER NOT NULL,"
  "  created INTEGER NOT NULL,"
  "  data_blocks INTEGER NOT NULL,"
  "  zero_blocks INTEGER NOT NULL,"
  "  note TEXT NOT NULL,"
  "  path TEXT"
  ");"
  "CREATE TABLE resource ("
  "  rp BLOB NOT NULL REFERENCES rp (uuid) ON DELETE CASCADE,"
  "  seq INTEGER NOT NULL,"
  "  kind TEXT NOT NULL,"
  "  name TEXT NOT NULL,"
  "  version TEXT NOT NULL,"
  "  PRIMARY KEY (rp, seq)"
  ") WITHOUT ROWID;"
  "CREATE TABLE venue ("
  "  id TEXT PRIMARY KEY NOT NULL,"
  "  description TEXT NOT NULL,"
  "  created INTEGER NOT NULL,"
  "  changed INTEGER NOT NULL,"
  "  revision INTEGER NOT NULL"
  ") WITHOUT ROWID;"
  "CREATE TABLE venue_disk ("
  "  venue TEXT NOT NULL REFERENCES venue (id) ON DELETE CASCADE,"
  "  disk INTEGER NOT NULL,"
  "  tip BLOB NOT NULL REFERENCES rp (uuid),"
  "  PRIMARY KEY (venue, disk)"
  ") WITHOUT ROWID;"
  "CREATE TABLE venue_log ("
  "  venue TEXT NOT NULL REFERENCES venue (id) ON DELETE CASCADE,"
  "  revision INTEGER NOT NULL,"
  "  time INTEGER NOT NULL,"
  "  action TEXT NOT NULL,"
  "  description TEXT NOT NULL,"
  "  disks BLOB NOT NULL,"
  "  PRIMARY KEY (venue, revision)"
  ") WITHOUT ROWID;",

  /* 2: the ways back: from a parent to its children, from a tip to venues */
  "CREATE INDEX rp_parent ON rp (parent, created, name);"
  "CREATE INDEX venue_disk_tip ON venue_disk (tip);",

  /* 3: delayed restore points.  A CHECK cannot be altered, and the table
   * cannot be replaced while others refer to it; the rows stay as they are,
   * so its text is changed (sqlite.org/lang_altertable.html, "otheralter").
   * Making and dropping a table tells other connections to read it again.
   */
  "PRAGMA writable_schema = ON;"
  "UPDATE sqlite_schema"
  "  SET sql = replace (sql, 'kind IN (0, 1)', 'kind IN (0, 1, 2)')"
  "  WHERE type = 'table' AND name = 'rp';"
  "PRAGMA writable_schema = RESET;"
  "CREATE TABLE bump (x); DROP TABLE bump;",

  /* 4: booting.  kind and boot as enum esp_client_kind and esp_boot */
  "CREATE TABLE venue_boot ("
  "  venue TEXT PRIMARY KEY NOT NULL REFERENCES venue (id) ON DELETE CASCADE,"
  "  boot INTEGER NOT NULL CHECK (boot BETWEEN 0 AND 3),"
  "  kernel TEXT NOT NULL,"
  "  initrd TEXT NOT NULL,"
  "  cmdline TEXT NOT NULL,"
  "  networks TEXT NOT NULL,"
  "  weight INTEGER NOT NULL CHECK (weight BETWEEN 0 AND 1000)"
  ") WITHOUT ROWID;"
  "CREATE TABLE client ("
  "  key TEXT PRIMARY KEY NOT NULL,"
  "  kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 2),"
  "  name TEXT UNIQUE,"
  "  venue TEXT NOT NULL,"
  "  boot INTEGER NOT NULL CHECK (boot BETWEEN 0 AND 3),"
  "  chap TEXT NOT NULL,"
  "  created INTEGER NOT NULL,"
  "  changed INTEGER NOT NULL"
  ") WITHOUT ROWID;"
  "CREATE TABLE client_seen ("
  "  name TEXT PRIMARY KEY NOT NULL,"
  "  venue TEXT NOT NULL,"
  "  mac TEXT NOT NULL,"
  "  uuid TEXT NOT NULL,"
  "  address TEXT NOT NULL,"
  "  needs TEXT NOT NULL,"
  "  first INTEGER NOT NULL,"
  "  last INTEGER NOT NULL,"
  "  boots INTEGER NOT NULL"
  ") WITHOUT ROWID;"
  "CREATE INDEX client_seen_last ON client_seen (last);"
  "CREATE TABLE need ("
  "  name TEXT PRIMARY KEY NOT NULL,"
  "  description TEXT NOT NULL"
  ") WITHOUT ROWID;"
  "CREATE TABLE need_resource ("
  "  need TEXT NOT NULL REFERENCES need (name) ON DELETE CASCADE,"
  "  seq INTEGER NOT NULL,"
  "  kind TEXT NOT NULL,"
  "  name TEXT NOT NULL,"
  "  version TEXT NOT NULL,"
  "  PRIMARY KEY (need, seq)"
  ") WITHOUT ROWID;",
};
#define SCHEMA ((int) (sizeof steps / sizeof steps[0]))

static int
exec_locked (struct esp_catalog *c, const char *sql)
{
  int rc = sqlite3_exec (c->db, sql, NULL, NULL, NULL);

  return rc == SQLITE_OK ? 0 : catalog_fail (c, rc);
}

/* A number that a pragma gives. */
static int
pragma_locked (struct esp_catalog *c, const char *sql, int *out)
{
  sqlite3_stmt *s = NULL;
  int rc = sqlite3_prepare_v2 (c->db, sql, -1, &s, NULL);

  if (rc == SQLITE_OK && (rc = sqlite3_step (s)) == SQLITE_ROW) {
    *out = sqlite3_column_int (s, 0);
    rc = SQLITE_OK;
  }
  sqlite3_finalize (s);
  return rc == SQLITE_OK ? 0 : catalog_fail (c, rc);
}

static int
foreign (struct esp_catalog *c)
{
  errno = EBADMSG;
  esp_error ("%s: this is no catalog: make it anew with"
             " 'espalier store rebuild'", c->file);
  return -1;
}

/* The version of what is there: 0 for an empty database, which is a catalog
 * only where we make it now.
 */
static int
version_locked (struct esp_catalog *c, bool create, int *version)
{
  int id, tables;

  if (pragma_locked (c, "PRAGMA application_id", &id) == -1 ||
      pragma_locked (c, "PRAGMA user_version", version) == -1 ||
      pragma_locked (c, "SELECT count (*) FROM sqlite_schema", &tables) == -1)
    return -1;
  if (*version == 0)
    return create && id == 0 && tables == 0 ? 0 : foreign (c);
  if (id != APPLICATION_ID || *version < 0)
    return foreign (c);
  if (*version > SCHEMA) {
    errno = ENOTSUP;
    esp_error ("%s: made by a newer espalier (schema %d; this one knows %d):"
               " use that one, or 'espalier store rebuild' with this one",
               c->file, *version, SCHEMA);
    return -1;
  }
  return 0;
}

/* The steps may do what is forbidden otherwise: step 3 writes the schema. */
static int
steps_locked (struct esp_catalog *c, int version)
{
  int r = 0;

  sqlite3_db_config (c->db, SQLITE_DBCONFIG_DEFENSIVE, 0, NULL);
  for (int i = version; r == 0 && i < SCHEMA; ++i)
    r = exec_locked (c, steps[i]);
  sqlite3_db_config (c->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  return r;
}

static int
migrate_locked (struct esp_catalog *c, bool create)
{
  char stamp[96];
  int version;

  /* Under the lock: another process may have been faster. */
  if (version_locked (c, create, &version) == -1)
    return -1;
  if (steps_locked (c, version) == -1)
    return -1;
  snprintf (stamp, sizeof stamp,
            "PRAGMA application_id = %d; PRAGMA user_version = %d",
            APPLICATION_ID, SCHEMA);
  return exec_locked (c, stamp);
}

int
catalog_schema (struct esp_catalog *c, bool create)
{
  int version;

  if (version_locked (c, create, &version) == -1)
    return -1;
  if (version == SCHEMA)
    return 0;
  if (c->readonly) {
    errno = EROFS;
    esp_error ("%s: made by an older espalier (schema %d; this one needs %d),"
               " and it cannot be changed here: run 'espalier store check'"
               " where the store can be written", c->file, version, SCHEMA);
    return -1;
  }
  if (version == 0 && exec_locked (c, "PRAGMA journal_mode = WAL") == -1)
    return -1;
  if (exec_locked (c, "BEGIN IMMEDIATE") == -1)
    return -1;
  if (migrate_locked (c, create) == -1 || exec_locked (c, "COMMIT") == -1) {
    /* The error is reported; this only ends what began. */
    sqlite3_exec (c->db, "ROLLBACK", NULL, NULL, NULL);
    return -1;
  }
  return 0;
}
