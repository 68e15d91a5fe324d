/* SPDX-License-Identifier: BSD-3-Clause */
/* All statements of the catalog.  Values are bound, never formatted in.
 *
 * A tree is walked from the top, deepest first (ORDER BY on the queue of a
 * recursive query: https://www.sqlite.org/lang_with.html), which puts each
 * restore point right before what descends from it.  A chain is walked
 * upwards with a limit, so that even a damaged database with a ring of
 * parents ends.
 */

#include <config.h>

#include "catalog/internal.h"

#define RP_COLUMNS(t)                                                   \
  t "uuid, " t "name, " t "parent, " t "kind, " t "size, " t "created, " \
  t "data_blocks, " t "zero_blocks, " t "note, " t "path"

/* The chain of ?1: itself and its ancestors, numbered from 1. */
#define UPWARDS                                                         \
  "WITH RECURSIVE up (uuid, parent, n) AS ("                            \
  "  SELECT uuid, parent, 1 FROM rp WHERE uuid = ?1"                    \
  "  UNION ALL"                                                         \
  "  SELECT r.uuid, r.parent, up.n + 1 FROM up JOIN rp r ON r.uuid = up.parent" \
  "  WHERE up.n < 40000) "
#define DEPTH "(" UPWARDS "SELECT max (n) FROM up)"

/* Whatever START chooses and what descends from it: all columns.  The rows
 * come in the order of the walk only when nothing else is joined to them:
 * SQLite drops the ORDER BY of a query inside a join.
 */
#define TREE(start, top_depth)                                          \
  "WITH RECURSIVE tree (" RP_COLUMNS ("") ", depth) AS ("               \
  "  SELECT " RP_COLUMNS ("") ", " top_depth " FROM rp WHERE " start    \
  "  UNION ALL"                                                         \
  "  SELECT " RP_COLUMNS ("r.") ", tree.depth + 1"                      \
  "  FROM tree JOIN rp r ON r.parent = tree.uuid"                       \
  "  ORDER BY 11 DESC, 6, 2) "
/* Only the UUIDs, in any order. */
#define TREE_UUIDS(start)                                               \
  "WITH RECURSIVE tree (uuid) AS ("                                     \
  "  SELECT uuid FROM rp WHERE " start                                  \
  "  UNION ALL"                                                         \
  "  SELECT r.uuid FROM tree JOIN rp r ON r.parent = tree.uuid) "
#define TREE_ROWS "SELECT " RP_COLUMNS ("") ", depth FROM tree"

#define VENUE_ROWS                                                      \
  "SELECT v.id, v.description, v.created, v.changed, v.revision, k.tip" \
  " FROM venue v JOIN venue_disk k ON k.venue = v.id "
#define VENUE_ORDER " ORDER BY v.id, k.disk"

#define BOOT_COLUMNS(t) \
  t "venue, " t "boot, " t "kernel, " t "initrd, " t "cmdline, " \
  t "networks, " t "weight"
#define CLIENT_COLUMNS "key, kind, name, venue, boot, chap, created, changed"
#define SEEN_COLUMNS \
  "name, venue, mac, uuid, address, needs, first, last, boots"
/* What is remembered of a machine that does not say it this time. */
#define SEEN_KEEP(column) \
  column " = iif (excluded." column " = '', " column ", excluded." column ")"

const char *const catalog_sql_text[SQL_MAX] = {
  [SQL_BEGIN] = "BEGIN IMMEDIATE",
  [SQL_COMMIT] = "COMMIT",
  [SQL_ROLLBACK] = "ROLLBACK",
  [SQL_SAVE] = "SAVEPOINT several",
  [SQL_RELEASE] = "RELEASE several",
  [SQL_UNDO] = "ROLLBACK TO several",
  [SQL_INTEGRITY] = "PRAGMA integrity_check (1)",
  [SQL_FOREIGN_KEYS] = "PRAGMA foreign_key_check",
  [SQL_UNREACHABLE] =
    TREE_UUIDS ("parent IS NULL")
    "SELECT name FROM rp WHERE uuid NOT IN (SELECT uuid FROM tree) LIMIT 1",
  [SQL_DATA_VERSION] = "PRAGMA data_version",

  [SQL_RP_BY_NAME] = "SELECT uuid FROM rp WHERE name = ?1",
  [SQL_RP_BY_RANGE] =
    "SELECT uuid, name FROM rp WHERE uuid BETWEEN ?1 AND ?2"
    " ORDER BY uuid LIMIT ?3",
  [SQL_RP_GET] =
    "SELECT " RP_COLUMNS ("") ", " DEPTH " FROM rp WHERE uuid = ?1",
  [SQL_RP_NAME] = "SELECT name, created FROM rp WHERE uuid = ?1",
  [SQL_RP_LIST] = TREE ("parent IS NULL", "1") TREE_ROWS,
  [SQL_RP_SUBTREE] = TREE ("uuid = ?1", DEPTH) TREE_ROWS,
  [SQL_RP_CHILDREN] =
    "SELECT " RP_COLUMNS ("") ", 1 + " DEPTH " FROM rp WHERE parent = ?1"
    " ORDER BY created, name",
  [SQL_RP_INSERT] =
    "INSERT INTO rp (" RP_COLUMNS ("") ")"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
  [SQL_RP_UPDATE] =
    "UPDATE rp SET name = ?2, parent = ?3, kind = ?4, size = ?5,"
    " created = ?6, data_blocks = ?7, zero_blocks = ?8, note = ?9, path = ?10"
    " WHERE uuid = ?1",
  [SQL_RP_DELETE] = "DELETE FROM rp WHERE uuid = ?1",
  [SQL_RP_DESCENDS] = UPWARDS "SELECT 1 FROM up WHERE uuid = ?2",
  [SQL_RESOURCES] =
    "SELECT kind, name, version FROM resource WHERE rp = ?1 ORDER BY seq",
  [SQL_RESOURCE_INSERT] =
    "INSERT INTO resource (rp, seq, kind, name, version)"
    " VALUES (?1, ?2, ?3, ?4, ?5)",
  [SQL_RESOURCES_DELETE] = "DELETE FROM resource WHERE rp = ?1",

  [SQL_VENUE_GET] = VENUE_ROWS "WHERE v.id = ?1" VENUE_ORDER,
  [SQL_VENUE_LIST] = VENUE_ROWS VENUE_ORDER,
  [SQL_VENUE_SUBTREE] =
    TREE_UUIDS ("uuid = ?1") VENUE_ROWS
    "WHERE v.id NOT IN (SELECT venue FROM venue_disk"
    " WHERE tip NOT IN (SELECT uuid FROM tree))" VENUE_ORDER,
  [SQL_VENUES_OF] =
    VENUE_ROWS "WHERE v.id IN (SELECT venue FROM venue_disk WHERE tip = ?1)"
    VENUE_ORDER,
  [SQL_VENUE_TIP] = "SELECT tip FROM venue_disk WHERE venue = ?1 AND disk = ?2",
  [SQL_VENUE_PUT] =
    "INSERT INTO venue (id, description, created, changed, revision)"
    " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE SET"
    " description = ?2, created = ?3, changed = ?4, revision = ?5",
  [SQL_VENUE_DELETE] = "DELETE FROM venue WHERE id = ?1",
  [SQL_DISK_INSERT] =
    "INSERT INTO venue_disk (venue, disk, tip) VALUES (?1, ?2, ?3)",
  [SQL_DISKS_DELETE] = "DELETE FROM venue_disk WHERE venue = ?1",
  [SQL_LOG] =
    "SELECT revision, time, action, description, disks FROM venue_log"
    " WHERE venue = ?1 ORDER BY revision",
  [SQL_LOG_INSERT] =
    "INSERT OR REPLACE INTO venue_log"
    " (venue, revision, time, action, description, disks)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
  [SQL_LOG_DELETE] = "DELETE FROM venue_log WHERE venue = ?1",

  [SQL_BOOT_GET] =
    "SELECT v.id, " BOOT_COLUMNS ("b.") " FROM venue v"
    " LEFT JOIN venue_boot b ON b.venue = v.id WHERE v.id = ?1",
  [SQL_BOOT_LIST] =
    "SELECT venue, " BOOT_COLUMNS ("") " FROM venue_boot ORDER BY venue",
  [SQL_BOOT_PUT] =
    "INSERT OR REPLACE INTO venue_boot (" BOOT_COLUMNS ("") ")"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
  [SQL_BOOT_DELETE] = "DELETE FROM venue_boot WHERE venue = ?1",

  [SQL_CLIENT_GET] = "SELECT " CLIENT_COLUMNS " FROM client WHERE key = ?1",
  [SQL_CLIENT_LIST] =
    "SELECT " CLIENT_COLUMNS " FROM client ORDER BY kind, key",
  [SQL_CLIENT_PUT] =
    "INSERT INTO client (" CLIENT_COLUMNS ")"
    " VALUES (?1, ?2, nullif (?3, ''), ?4, ?5, ?6, ?7, ?8)"
    " ON CONFLICT (key) DO UPDATE SET kind = excluded.kind,"
    " name = excluded.name, venue = excluded.venue, boot = excluded.boot,"
    " chap = excluded.chap, created = excluded.created,"
    " changed = excluded.changed",
  [SQL_CLIENT_DELETE] = "DELETE FROM client WHERE key = ?1",
  [SQL_CLIENTS_DELETE] = "DELETE FROM client",
  [SQL_CLIENT_OF_NAME] = "SELECT key FROM client WHERE name = ?1",

  [SQL_SEEN_GET] = "SELECT " SEEN_COLUMNS " FROM client_seen WHERE name = ?1",
  [SQL_SEEN_LIST] = "SELECT " SEEN_COLUMNS " FROM client_seen ORDER BY name",
  /* ?6 is NULL where the needs stay as they were. */
  [SQL_SEEN_PUT] =
    "INSERT INTO client_seen (" SEEN_COLUMNS ")"
    " VALUES (?1, ?2, ?3, ?4, ?5, coalesce (?6, ''), ?7, ?7, ?8)"
    " ON CONFLICT (name) DO UPDATE SET"
    " " SEEN_KEEP ("venue") ", " SEEN_KEEP ("mac") ", " SEEN_KEEP ("uuid")
    ", " SEEN_KEEP ("address") ", needs = coalesce (?6, needs),"
    " last = ?7, boots = boots + ?8",
  [SQL_SEEN_FORGET] =
    "DELETE FROM client_seen WHERE (SELECT count (*) FROM client_seen) > ?2"
    " AND name = (SELECT name FROM client_seen WHERE name <> ?1"
    " ORDER BY last, name LIMIT 1)",

  [SQL_NEED_GET] = "SELECT name, description FROM need WHERE name = ?1",
  [SQL_NEED_LIST] = "SELECT name, description FROM need ORDER BY name",
  [SQL_NEED_PUT] =
    "INSERT INTO need (name, description) VALUES (?1, ?2)"
    " ON CONFLICT (name) DO UPDATE SET description = ?2",
  [SQL_NEED_DELETE] = "DELETE FROM need WHERE name = ?1",
  [SQL_NEEDS_DELETE] = "DELETE FROM need",
  [SQL_NEED_RESOURCES] =
    "SELECT kind, name, version FROM need_resource WHERE need = ?1"
    " ORDER BY seq",
  [SQL_NEED_RESOURCE_INSERT] =
    "INSERT INTO need_resource (need, seq, kind, name, version)"
    " VALUES (?1, ?2, ?3, ?4, ?5)",
  [SQL_NEED_RESOURCES_DELETE] = "DELETE FROM need_resource WHERE need = ?1",
};
