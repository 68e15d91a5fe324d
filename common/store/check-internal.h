/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of `store check` and `store rebuild` share. */

#ifndef ESPALIER_CHECK_INTERNAL_H
#define ESPALIER_CHECK_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "store/check.h"
#include "store/internal.h"
#include "store/rp-internal.h"

#define TEXT_MAX 512

/* The files of a restore point, in the order in which they are mended: each
 * needs those before it.
 */
enum part {
  PART_META, PART_MAP, PART_CHAIN, PART_SEGMENTS, PART_DATA, PART_HAVE,
  PART_SOURCES, PART_PROFILE, PARTS
};

/* A restore point as its files say. */
struct item {
  esp_uuid uuid;
  struct esp_rp rp;             /* meta; where that is bad the row, or none */
  char problem[PARTS][TEXT_MAX];        /* "": none */
  bool in_ring;                 /* its parents go round */
  bool flagged;                 /* look again, under the transaction */
  bool unknown;                 /* something could not even be read */
  bool lost;                    /* cannot be mended; WHY says why */
  bool needed;                  /* lost, but what descends from it is open */
  bool gone;                    /* not there any more */
  bool rebuilt;                 /* its chain is a new one */
  bool short_data;              /* data is short, but nothing is missing */
  char why[TEXT_MAX];
  struct item *parent;
  enum { ITEM_NEW, ITEM_ON_PATH, ITEM_PLACED } order;
};

struct check {
  struct esp_store *store;
  struct esp_catalog *catalog;  /* NULL: there is none that can be used */
  bool repair;
  bool in_transaction;
  esp_finding_fn fn;
  void *arg;
  unsigned unmended;
  struct item **items;          /* by uuid */
  size_t n;
  struct item **order;          /* parents first; n of them */
  struct esp_rp_list rows;      /* the catalog's, parents first */
  struct esp_rp **by_uuid;      /* rows.n of them */
};

/* --- check.c ------------------------------------------------------------ */
extern void check_tell (struct check *k, int kind, bool mended,
                        const char *object, const char *problem,
                        const char *remedy);
/* Does this errno mean that the bytes are wrong, rather than that we may not
 * or cannot read them, or do not know their version?
 */
extern bool check_is_damage (int err);

/* --- check-tree.c ------------------------------------------------------- */
/* List restore-points/: items that are not there any more are dropped, new
 * ones are flagged unless this is the FIRST pass.
 */
extern int check_list_items (struct check *k, bool first);
extern int check_list_rows (struct check *k);
/* Set k->order, and each item's parent. */
extern int check_make_order (struct check *k);
/* What is known of a restore point: meta, or the row where meta is bad. */
extern const struct esp_rp *check_known (const struct check *k,
                                         const struct item *it);
extern struct item *check_find (const struct check *k, const esp_uuid *uuid);
extern const struct esp_rp *check_row (const struct check *k,
                                       const esp_uuid *uuid);
/* Is UUID a restore point that venues and overlays can stand on? */
extern bool check_tip_ok (const struct check *k, const esp_uuid *uuid);
/* --- check-judge.c ------------------------------------------------------ */
extern void check_judge (struct check *k, struct item *it);
/* The first field in which the row differs from meta, or NULL. */
extern const char *check_differs (const struct esp_rp *meta,
                                  const struct esp_rp *row);
/* Set aside what check_judge found to be lost; forget rows of nothing. */
extern void check_remove_lost (struct check *k);
extern void check_rows_without_files (struct check *k);

/* --- check-rp.c --------------------------------------------------------- */
/* Read meta; false, and noted, when that cannot be done. */
extern bool check_read_meta (struct check *k, struct item *it);
/* Fill in what is wrong with IT's files; changes nothing. */
extern void check_examine (struct check *k, struct item *it);
extern bool check_has_problem (const struct item *it);
/* Note that errno and TEXT are wrong with PART. */
extern void check_note (struct item *it, enum part part, const char *text);

/* --- check-delayed.c ---------------------------------------------------- */
/* The same as check_examine, mend_remedy and mend_part for PART_SEGMENTS,
 * PART_HAVE, PART_SOURCES and PART_PROFILE; MAP may be NULL.
 */
extern void check_examine_delayed (struct check *k, struct item *it,
                                   const struct esp_map *map);
extern const char *mend_delayed_remedy (struct check *k,
                                        const struct item *it,
                                        enum part part);
extern int mend_delayed_part (struct check *k, struct item *it,
                              enum part part, int dir);
/* PART_DATA of a delayed one. */
extern int mend_delayed_data (struct item *it, int dir);

/* --- mend.c ------------------------------------------------------------- */
/* What --repair does about PART of IT, or NULL: it cannot be mended. */
extern const char *mend_remedy (struct check *k, const struct item *it,
                                enum part part);
/* Mend PART of IT. */
extern int mend_part (struct check *k, struct item *it, enum part part);
/* Insert RP into CATALOG; a name that is taken is replaced by a free one, in
 * its meta too.  RP then has it.
 */
extern int mend_adopt (struct esp_store *store, struct esp_catalog *catalog,
                       struct esp_rp *rp);
/* The same for an existing row. */
extern int mend_update (struct esp_store *store, struct esp_catalog *catalog,
                        struct esp_rp *rp);

/* --- aside.c ------------------------------------------------------------ */
/* Move NAME of the directory FROM, which is WAS below the store, to
 * damaged/AS (or AS-2, ...), with a text that says WHY beside it.  WHERE gets
 * "damaged/AS".
 */
extern int set_aside (struct esp_store *store, int from, const char *name,
                      const char *as, const char *was, const char *why,
                      char where[300]);

/* --- check-site.c ------------------------------------------------------- */
/* Behind the venues: clients are assigned to them. */
extern int check_site (struct check *k);

/* --- check-venue.c, check-rest.c --------------------------------------- */
extern int check_venues (struct check *k);
extern int check_overlays (struct check *k);
extern int check_tmp (struct check *k);

/* --- stats.c ------------------------------------------------------------ */
/* Bytes of disk that NAME and all below it take. */
extern uint64_t tree_usage (int dirfd, const char *name);

/* --- rebuild.c ---------------------------------------------------------- */
/* Rebuild the catalog of STORE, which must not be open elsewhere (EBUSY). */
extern int rebuild_catalog (struct esp_store *store, esp_finding_fn fn,
                            void *arg, unsigned *rps, unsigned *venues);

#endif /* ESPALIER_CHECK_INTERNAL_H */
