/* SPDX-License-Identifier: BSD-3-Clause */
/* The catalog: what is named and mapped, in SQLite.  It is an index over
 * the documents in the store (restore points' meta, venues' files): all of
 * it can be made again from those.  Only this room speaks SQL.
 *
 * One esp_catalog is one connection; its calls are serialised inside, any
 * thread may call.  Never opened before a fork and used behind it.
 */

#ifndef ESPALIER_CATALOG_H
#define ESPALIER_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"
#include "util/name.h"

#pragma GCC visibility push(default)

struct esp_catalog;

enum esp_rp_kind {
  ESP_RP_STORED,                /* its blocks are in restore-points/UUID/data */
  ESP_RP_IN_PLACE,              /* a root in place: a file or device at `path` */
  ESP_RP_DELAYED,               /* in data too, once fetched: store/have.h */
};

struct esp_resource {
  char *kind;                   /* "env" or "app" */
  char *name;
  char *version;                /* "" where none was given */
};

/* A restore point as the catalog knows it. */
struct esp_rp {
  esp_uuid uuid;
  char name[ESP_NAME_MAX + 1];
  esp_uuid parent;              /* null: a root store */
  enum esp_rp_kind kind;
  uint64_t size;                /* of the disk, bytes */
  uint64_t created;             /* seconds since the epoch */
  unsigned depth;               /* 1: a root */
  uint64_t data_blocks;         /* own blocks */
  uint64_t zero_blocks;
  char *note;                   /* never NULL */
  char *path;                   /* of a root in place, else NULL */
  struct esp_resource *resources;
  size_t nresources;
};

struct esp_rp_list { struct esp_rp *rp; size_t n; };

struct esp_venue {
  char id[ESP_NAME_MAX + 1];
  char *description;            /* never NULL */
  uint64_t created, changed;    /* seconds since the epoch */
  uint64_t revision;            /* of the mapping: 1, 2, … */
  unsigned ndisks;              /* at least 1 */
  esp_uuid *disks;              /* the tip of each */
};

struct esp_venue_list { struct esp_venue *venue; size_t n; };

/* One change of a venue's mapping. */
struct esp_venue_change {
  uint64_t revision, time;
  char *action;                 /* "add", "set", "rollback to 2" */
  char *description;
  unsigned ndisks;
  esp_uuid *disks;
};

struct esp_venue_log { struct esp_venue_change *change; size_t n; };

/* How a machine boots. */
enum esp_boot {
  ESP_BOOT_UNSET,               /* as the venue says, else iSCSI */
  ESP_BOOT_ISCSI, ESP_BOOT_HTTP, ESP_BOOT_NBDROOT,
};
/* "iscsi", "http", "nbdroot", and "" for UNSET; -1, reported, for another. */
extern const char *esp_boot_name (enum esp_boot boot);
extern int esp_boot_parse (const char *s, enum esp_boot *out);

/* What a venue says of booting from it: all of it optional. */
#define ESP_WEIGHT_DEFAULT 100u
#define ESP_WEIGHT_MAX 1000u
struct esp_venue_boot {
  char id[ESP_NAME_MAX + 1];    /* the venue's */
  enum esp_boot boot;
  char *kernel, *initrd;        /* "/file", "image:/path"; "" where not set.
                                 * Never NULL, like the next two */
  char *cmdline;                /* more of the kernel's command line */
  char *networks;               /* who may: "10.0.0.0/24 fd00::/64"; "": all */
  unsigned weight;
};
/* Is nothing set in BOOT?  (NULL is "".) */
extern bool esp_venue_boot_unset (const struct esp_venue_boot *boot);
struct esp_venue_boot_list { struct esp_venue_boot *boot; size_t n; };

/* What the operator said of a machine, or of all of a network. */
enum esp_client_kind { ESP_CLIENT_MAC, ESP_CLIENT_UUID, ESP_CLIENT_NETWORK };
#define ESP_CLIENT_KEY_MAX 63
struct esp_client {
  char key[ESP_CLIENT_KEY_MAX + 1];     /* canonical: boot/address.h */
  enum esp_client_kind kind;
  char name[ESP_NAME_MAX + 1];  /* "": none; networks have none */
  char venue[ESP_NAME_MAX + 1]; /* "": it chooses */
  enum esp_boot boot;           /* UNSET: as its venue says */
  char *chap;                   /* user of CHAP, "" none; the secret is
                                 * keys/chap/KEY */
  uint64_t created, changed;    /* seconds since the epoch */
};
struct esp_client_list { struct esp_client *client; size_t n; };

/* What a machine did last.  May be lost; is in no document. */
struct esp_client_seen {
  char name[ESP_NAME_MAX + 1];  /* as in export names */
  char venue[ESP_NAME_MAX + 1]; /* booted last, "" none */
  char mac[18], uuid[ESP_UUID_TEXT], address[64];
  char *needs;                  /* ticked last, separated by newlines */
  uint64_t first, last;         /* seconds since the epoch */
  uint64_t boots;
};
struct esp_client_seen_list { struct esp_client_seen *seen; size_t n; };

/* Something that users ask for, and what it takes. */
#define ESP_NEED_RESOURCES_MAX 256u
struct esp_need {
  char *name;                   /* one line of 1 to 128 bytes of UTF-8, with
                                 * blanks: "CS2 tournament" */
  char *description;
  struct esp_resource *resources;
  size_t nresources;
};
struct esp_need_list { struct esp_need *need; size_t n; };

/* Free what the functions below filled in (not the struct itself); all
 * zero bytes are allowed.  The struct is zeroed.
 */
extern void esp_rp_clear (struct esp_rp *rp);
extern void esp_rp_list_clear (struct esp_rp_list *list);
extern void esp_venue_clear (struct esp_venue *venue);
extern void esp_venue_list_clear (struct esp_venue_list *list);
extern void esp_venue_log_clear (struct esp_venue_log *log);
extern void esp_venue_boot_clear (struct esp_venue_boot *boot);
extern void esp_venue_boot_list_clear (struct esp_venue_boot_list *list);
extern void esp_client_clear (struct esp_client *client);
extern void esp_client_list_clear (struct esp_client_list *list);
extern void esp_client_seen_clear (struct esp_client_seen *seen);
extern void esp_client_seen_list_clear (struct esp_client_seen_list *list);
extern void esp_need_clear (struct esp_need *need);
extern void esp_need_list_clear (struct esp_need_list *list);
#define CLEANUP_VENUE_BOOT __attribute__ ((cleanup (esp_venue_boot_clear)))
#define CLEANUP_VENUE_BOOT_LIST \
  __attribute__ ((cleanup (esp_venue_boot_list_clear)))
#define CLEANUP_CLIENT __attribute__ ((cleanup (esp_client_clear)))
#define CLEANUP_CLIENT_LIST __attribute__ ((cleanup (esp_client_list_clear)))
#define CLEANUP_CLIENT_SEEN __attribute__ ((cleanup (esp_client_seen_clear)))
#define CLEANUP_CLIENT_SEEN_LIST \
  __attribute__ ((cleanup (esp_client_seen_list_clear)))
#define CLEANUP_NEED __attribute__ ((cleanup (esp_need_clear)))
#define CLEANUP_NEED_LIST __attribute__ ((cleanup (esp_need_list_clear)))
#define CLEANUP_RP __attribute__ ((cleanup (esp_rp_clear)))
#define CLEANUP_RP_LIST __attribute__ ((cleanup (esp_rp_list_clear)))
#define CLEANUP_VENUE __attribute__ ((cleanup (esp_venue_clear)))
#define CLEANUP_VENUE_LIST __attribute__ ((cleanup (esp_venue_list_clear)))
#define CLEANUP_VENUE_LOG __attribute__ ((cleanup (esp_venue_log_clear)))

/* Open catalog.db in the directory PATH, made when CREATE and it is not
 * there; an older schema is migrated, a newer one refused (ENOTSUP).  On a
 * file system that is read-only it is opened for reading.
 */
extern struct esp_catalog *esp_catalog_open (const char *path, bool create);
/* The same for the file NAME in PATH (a rebuild makes one beside the old). */
#define ESP_CATALOG_FILE "catalog.db"
extern struct esp_catalog *esp_catalog_open_file (const char *path,
                                                  const char *name,
                                                  bool create);
extern void esp_catalog_close (struct esp_catalog *catalog);
extern bool esp_catalog_readonly (const struct esp_catalog *catalog);

/* A write transaction (BEGIN IMMEDIATE): it is also the lock under which
 * the store's trees are changed, so keep it short.  Calls do not nest and
 * hold the catalog for this thread.
 */
extern int esp_catalog_begin (struct esp_catalog *catalog);
extern int esp_catalog_commit (struct esp_catalog *catalog);
extern void esp_catalog_rollback (struct esp_catalog *catalog);

/* Roll back where the scope ends, unless the variable is NULL by then:
 *   CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;
 *   if (esp_catalog_begin (c) == -1) return -1;
 *   tx = c; ...
 *   return esp_catalog_commit (ESP_STEAL (tx));
 */
static inline __attribute__ ((unused)) void
esp_cleanup_rollback (struct esp_catalog **catalog)
{
  if (*catalog)
    esp_catalog_rollback (*catalog);
}
#define CLEANUP_ROLLBACK __attribute__ ((cleanup (esp_cleanup_rollback)))

/* --- restore points -------------------------------------------------- */
/* Find by name, by UUID, or by a prefix of a UUID (at least 4 hex digits)
 * that only one has.  An exact name wins.  ENOENT or EEXIST (ambiguous:
 * the message lists the candidates), reported.
 */
extern int esp_catalog_rp_find (struct esp_catalog *catalog, const char *ref,
                                struct esp_rp *out);
/* ENOENT is not reported. */
extern int esp_catalog_rp_get (struct esp_catalog *catalog,
                               const esp_uuid *uuid, struct esp_rp *out);
/* Only name and date: quick at any depth, for each client's connect.
 * ENOENT is not reported.
 */
extern int esp_catalog_rp_name (struct esp_catalog *catalog,
                                const esp_uuid *uuid,
                                char name[ESP_NAME_MAX + 1],
                                uint64_t *created);
/* All (START NULL), or START and what descends from it (ENOENT, reported,
 * where it is not there); each right before what descends from it, brothers
 * by date and name.
 */
extern int esp_catalog_rp_list (struct esp_catalog *catalog,
                                const esp_uuid *start,
                                struct esp_rp_list *out);
extern int esp_catalog_rp_children (struct esp_catalog *catalog,
                                    const esp_uuid *uuid,
                                    struct esp_rp_list *out);
/* Is ANCESTOR in the chain of UUID (or UUID itself)?  1, 0, or -1. */
extern int esp_catalog_rp_descends (struct esp_catalog *catalog,
                                    const esp_uuid *uuid,
                                    const esp_uuid *ancestor);
/* EEXIST when the name is taken. */
extern int esp_catalog_rp_insert (struct esp_catalog *catalog,
                                  const struct esp_rp *rp);
/* Replace all of the row with rp->uuid. */
extern int esp_catalog_rp_update (struct esp_catalog *catalog,
                                  const struct esp_rp *rp);
extern int esp_catalog_rp_delete (struct esp_catalog *catalog,
                                  const esp_uuid *uuid);

/* --- venues ---------------------------------------------------------- */
/* ENOENT is reported ("no venue ..."). */
extern int esp_catalog_venue_get (struct esp_catalog *catalog,
                                  const char *id, struct esp_venue *out);
/* By id.  START not NULL: only those of which every disk's tip descends
 * from (or is) START.
 */
extern int esp_catalog_venue_list (struct esp_catalog *catalog,
                                   const esp_uuid *start,
                                   struct esp_venue_list *out);
/* The fast way of an open: the tip of one disk.  ENOENT not reported. */
extern int esp_catalog_venue_tip (struct esp_catalog *catalog,
                                  const char *id, unsigned disk,
                                  esp_uuid *tip);
/* The venues of which a disk's tip is UUID. */
extern int esp_catalog_venues_of (struct esp_catalog *catalog,
                                  const esp_uuid *uuid,
                                  struct esp_venue_list *out);
/* Insert or replace VENUE, and append CHANGE to its log (NULL: keep the
 * log; esp_catalog_venue_set_log replaces it whole, for rebuilds).
 */
extern int esp_catalog_venue_put (struct esp_catalog *catalog,
                                  const struct esp_venue *venue,
                                  const struct esp_venue_change *change);
extern int esp_catalog_venue_set_log (struct esp_catalog *catalog,
                                      const char *id,
                                      const struct esp_venue_log *log);
extern int esp_catalog_venue_delete (struct esp_catalog *catalog,
                                     const char *id);
/* The changes, oldest first. */
extern int esp_catalog_venue_log (struct esp_catalog *catalog,
                                  const char *id, struct esp_venue_log *out);

/* --- booting (docs/boot.md) ------------------------------------------ */
/* A venue's settings; one that has none gets the defaults (and is not in the
 * list, which is by id).  _get and _put with a venue that is not there: ENOENT,
 * reported.  They go with their venue.
 */
extern int esp_catalog_venue_boot_get (struct esp_catalog *catalog,
                                       const char *id,
                                       struct esp_venue_boot *out);
extern int esp_catalog_venue_boot_list (struct esp_catalog *catalog,
                                        struct esp_venue_boot_list *out);
extern int esp_catalog_venue_boot_put (struct esp_catalog *catalog,
                                       const struct esp_venue_boot *boot);

/* Clients by canonical key.  _get and _delete: ENOENT is reported.  _put
 * inserts or replaces; EEXIST, reported, where another entry has the name.
 * Whether there is such a venue is not looked at.  By kind and key.
 */
extern int esp_catalog_client_get (struct esp_catalog *catalog,
                                   const char *key, struct esp_client *out);
extern int esp_catalog_client_list (struct esp_catalog *catalog,
                                    struct esp_client_list *out);
extern int esp_catalog_client_put (struct esp_catalog *catalog,
                                   const struct esp_client *client);
extern int esp_catalog_client_delete (struct esp_catalog *catalog,
                                      const char *key);
/* All of them become LIST. */
extern int esp_catalog_client_set_all (struct esp_catalog *catalog,
                                       const struct esp_client_list *list);

/* What was seen of the machine called NAME; ENOENT is not reported.  _put sets
 * LAST to now, keeps FIRST, and adds one to BOOTS where BOOTED; what SEEN
 * does not say ("", and NULL of needs) stays as it was.  By name.  At most
 * 10,000 machines are remembered: the one seen longest ago goes.
 */
#define ESP_SEEN_MAX 10000u
extern int esp_catalog_seen_get (struct esp_catalog *catalog,
                                 const char *name,
                                 struct esp_client_seen *out);
extern int esp_catalog_seen_list (struct esp_catalog *catalog,
                                  struct esp_client_seen_list *out);
extern int esp_catalog_seen_put (struct esp_catalog *catalog,
                                 const struct esp_client_seen *seen,
                                 bool booted);

/* Needs by name, and listed by it.  ENOENT is reported; _put inserts or replaces. */
extern int esp_catalog_need_get (struct esp_catalog *catalog,
                                 const char *name, struct esp_need *out);
extern int esp_catalog_need_list (struct esp_catalog *catalog,
                                  struct esp_need_list *out);
extern int esp_catalog_need_put (struct esp_catalog *catalog,
                                 const struct esp_need *need);
extern int esp_catalog_need_delete (struct esp_catalog *catalog,
                                    const char *name);
extern int esp_catalog_need_set_all (struct esp_catalog *catalog,
                                     const struct esp_need_list *list);

/* A number that is another one when somebody else (another process, or another
 * esp_catalog of this one) has changed something; what this esp_catalog changes
 * itself does not count.  For what is kept in memory: microseconds.
 */
extern int esp_catalog_version (struct esp_catalog *catalog, uint64_t *out);

/* PRAGMA integrity_check and foreign_key_check: 0 when sound; EBADMSG with
 * the first finding, reported.
 */
extern int esp_catalog_check (struct esp_catalog *catalog);

#pragma GCC visibility pop
#endif /* ESPALIER_CATALOG_H */
