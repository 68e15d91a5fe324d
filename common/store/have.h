/* SPDX-License-Identifier: BSD-3-Clause */
/* Delayed restore points: those whose blocks come from an image center when
 * they are needed.  Their kind is ESP_RP_DELAYED; map, chain and meta are
 * complete from the beginning, and beside them stand
 *
 *   data       as of any other, but holes where nothing was fetched yet
 *   segments   which segments there are, and each one's digest
 *   have       which of them are in `data`; shared by all processes (mmap)
 *   sources    document: where they can be fetched
 *   index-NAME the index of center NAME's pack (center/format.h), in clear
 *
 * Restore points that were made here may have `segments` too (push and scrub
 * write it), so that what is local can be checked.
 *
 * The table of segments is sorted by number and has only those with data:
 * an *entry* is a place in it, 0 .. n-1, and the same place in an index, and
 * in `have`.  An entry's state is a byte of `have`:
 *
 *   ABSENT  -> fetch, check, write to data -> CHECKED
 *   CHECKED -> taken away (esp_have_drop)  -> ABSENT
 *   LOCAL      in data, but written before a loss of power or by an unclean
 *              end of the machine: is checked before it is used, and then
 *              CHECKED or ABSENT
 *
 * Durability needs no order of writes: who opens `have` first after another
 * boot of the machine, and finds it not closed cleanly, makes each CHECKED
 * LOCAL.  After a kill of the process alone the page cache is still right.
 * A clean end (the last process closes it) syncs data, then `have` with its
 * checksum and the mark.  `have` that is damaged: all entries LOCAL.
 *
 * Reads never wait here: a layer's read looks at the states, copies, and
 * looks whether something was taken away meanwhile (a counter in `have` that
 * moves before a hole is punched); then it begins again.  What is missing it
 * asks from the *fetcher* that the process has set.
 *
 * One fetch for all processes: who fetches an entry locks its byte of `have`
 * (OFD locks: they end with the process, also when it is killed).
 */

#ifndef ESPALIER_HAVE_H
#define ESPALIER_HAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "center/format.h"
#include "store/store.h"
#include "util/cleanup.h"

#pragma GCC visibility push(default)

#define ESP_RP_SEGMENTS "segments"
#define ESP_RP_HAVE "have"
#define ESP_RP_SOURCES "sources"
#define ESP_RP_INDEX "index-"           /* and the center's name */
#define ESP_RP_PROFILE "boot-profile"   /* center/format.h, esp_profile_pack */

enum esp_have_state { ESP_HAVE_ABSENT, ESP_HAVE_LOCAL, ESP_HAVE_CHECKED };

/* --- opening ---------------------------------------------------------- */
/* One object for each restore point and process, counted.  ENOENT, reported,
 * for one that is not delayed.
 */
struct esp_have;
extern struct esp_have *esp_have_open (struct esp_store *store,
                                       const esp_uuid *uuid);
extern void esp_have_close (struct esp_have *have);

extern const esp_uuid *esp_have_uuid (const struct esp_have *have);
extern unsigned esp_have_shift (const struct esp_have *have);
extern size_t esp_have_entries (const struct esp_have *have);
extern uint64_t esp_have_bytes (const struct esp_have *have);   /* of raw, all */
extern uint64_t esp_have_local (const struct esp_have *have);   /* live */
/* The same without opening it: what `have` says, which a killed process may
 * have left a little off.  Reports nothing.
 */
extern int esp_have_peek (struct esp_store *store, const esp_uuid *uuid,
                          uint64_t *local);
/* All CHECKED now?  One load: for every read. */
extern bool esp_have_complete (const struct esp_have *have);

/* --- entries ---------------------------------------------------------- */
/* The first entry whose number is not less than NUMBER (n where none is):
 * constant time (a bitmap with ranks in memory).
 */
extern size_t esp_have_find (const struct esp_have *have, uint32_t number);
extern uint32_t esp_have_number (const struct esp_have *have, size_t entry);
/* Bytes of raw. */
extern size_t esp_have_raw_size (struct esp_have *have, size_t entry);
extern enum esp_have_state esp_have_state (const struct esp_have *have,
                                           size_t entry);
/* False for an entry whose digest is not known yet (a plain image). */
extern bool esp_have_digest (const struct esp_have *have, size_t entry,
                             esp_digest *out);

/* Write RAW, which was checked, to `data`, then the state.  A digest that
 * was not known is kept from here on (durable with the next sync).
 * ENOSPC, EIO: reported.
 */
extern int esp_have_store (struct esp_have *have, size_t entry,
                           const void *raw, size_t len);
/* Read raw out of `data` (esp_have_raw_size bytes); the state is not looked
 * at.
 */
extern int esp_have_read (struct esp_have *have, size_t entry, void *raw);
/* Check a LOCAL (or, with AGAIN, a CHECKED) entry: 1 it is right (CHECKED
 * now), 0 it was wrong (ABSENT now; a debug message), -1 cannot be read
 * (it is ABSENT then too: fetch it again).
 */
extern int esp_have_check (struct esp_have *have, size_t entry, bool again);
/* Give back the space of N entries. */
extern int esp_have_drop (struct esp_have *have, const size_t *entries,
                          size_t n);
/* When they were last used, in ticks of the caller's clock (wraps). */
extern void esp_have_touch (struct esp_have *have, size_t entry,
                            uint8_t tick);
extern uint8_t esp_have_age (const struct esp_have *have, size_t entry);

/* Between processes: true, and then no other process fetches ENTRY until it
 * is unlocked.  Never waits.  Threads of one process must agree themselves.
 */
extern bool esp_have_try_lock (struct esp_have *have, size_t entry);
extern void esp_have_unlock (struct esp_have *have, size_t entry);

/* Make what is CHECKED now durable (data, digests). */
extern int esp_have_sync (struct esp_have *have);

/* --- fetching --------------------------------------------------------- */
/* Make local what [OFFSET, OFFSET+LEN) of the disk needs of restore point
 * UUID's own data; called by reads that miss.  Returns 0 when it is all
 * there, or -1 with errno, reported.  NULL: a read that misses is EIO, with a
 * message that says what to do.  Set once, behind the fork.
 */
typedef int (*esp_fetch_fn) (void *arg, struct esp_store *store,
                             const esp_uuid *uuid, uint64_t offset,
                             uint64_t len);
extern void esp_have_set_fetcher (esp_fetch_fn fn, void *arg);

/* --- sources ---------------------------------------------------------- */
/* One source: a variant of a center, or a plain image. */
struct esp_source {
  char center[ESP_NAME_MAX + 1];        /* "" for a plain image */
  struct esp_variant variant;           /* of a center */
  char *url;                    /* of a plain image */
  char etag[128];               /* of a plain image: what it was */
  uint64_t size;                /* of a plain image, bytes */
};
struct esp_source_list { struct esp_source *s; size_t n; };
extern void esp_source_list_clear (struct esp_source_list *list);
#define CLEANUP_SOURCE_LIST \
  __attribute__ ((cleanup (esp_source_list_clear)))

extern int esp_sources_load (struct esp_store *store, const esp_uuid *uuid,
                             struct esp_source_list *out);
/* Add a center's variant (replaces that center's older one): its index must
 * agree with `segments` (EBADMSG: that center lies or has another packing),
 * and is kept as index-CENTER.  Remove it.
 */
extern int esp_sources_add (struct esp_store *store, const esp_uuid *uuid,
                            const struct esp_source *source,
                            const struct esp_index *index);
extern int esp_sources_remove (struct esp_store *store, const esp_uuid *uuid,
                               const char *center);
/* The index of CENTER for a delayed restore point. */
extern int esp_sources_index (struct esp_store *store, const esp_uuid *uuid,
                              const char *center, struct esp_index *out);

/* --- making one ------------------------------------------------------- */
/* A delayed restore point: RP has uuid, name, parent, size, created, note and
 * resources (as in a manifest); MAP its own blocks.  INDEX gives segments and
 * digests; for a plain image it is NULL and SHIFT counts.  PROFILE may be
 * NULL.  All or nothing, as a draft's commit; EEXIST when the UUID is there
 * (reported; look before), or the name is taken.  ENOENT without the parent.
 * MAP stays the caller's.
 */
extern int esp_rp_create_delayed (struct esp_store *store,
                                  const struct esp_rp *rp,
                                  struct esp_map *map, unsigned shift,
                                  const struct esp_index *index,
                                  const struct esp_source *source,
                                  const struct esp_profile *profile);

/* Many at once, with few waits for the disk: what was added is written, and
 * with the commit all of it becomes durable and then visible, in one
 * transaction: all or nothing, and after a crash each one is complete or not
 * there.  A parent is in the store, or was added before.  A batch has a
 * descriptor for each of its members; esp_rp_batch_add fails with EINVAL beyond
 * ESP_RP_BATCH_MAX.  An add that fails leaves what was added before.  After a
 * commit, however it ended, the batch is empty and can be used again.
 */
#define ESP_RP_BATCH_MAX 128
struct esp_rp_batch;
extern struct esp_rp_batch *esp_rp_batch_new (struct esp_store *store);
extern int esp_rp_batch_add (struct esp_rp_batch *batch,
                             const struct esp_rp *rp, struct esp_map *map,
                             unsigned shift, const struct esp_index *index,
                             const struct esp_source *source,
                             const struct esp_profile *profile);
extern int esp_rp_batch_commit (struct esp_rp_batch *batch);
/* What was not committed is forgotten.  NULL is allowed. */
extern void esp_rp_batch_free (struct esp_rp_batch *batch);
ESP_DEFINE_CLEANUP (rp_batch, struct esp_rp_batch *, esp_rp_batch_free)
#define CLEANUP_RP_BATCH ESP_CLEANUP (rp_batch)

/* --- digests of what was made here ------------------------------------- */
/* Write `segments` of a stored restore point: SHIFT, and DIGESTS in the order
 * of its entries.  And load it (ENOENT not reported): a sorted table, freed
 * by the caller with esp_index_clear (places in a pack are 0).
 */
extern int esp_segments_save (struct esp_store *store, const esp_uuid *uuid,
                              const struct esp_index *table);
extern int esp_segments_load (struct esp_store *store, const esp_uuid *uuid,
                              struct esp_index *out);

/* --- profiles ---------------------------------------------------------- */
/* The boot profile of a tip: its own, else that of its nearest ancestor
 * less the units in which newer restore points have blocks; empty where there
 * is none.  A damaged one counts as none (a warning says so).
 */
extern int esp_rp_profile (struct esp_store *store, const esp_uuid *tip,
                           struct esp_profile *out);
/* Only its own (ENOENT not reported); replace it (atomic, durable).  EBUSY,
 * reported: the restore point is being merged or deleted.
 */
extern int esp_rp_profile_load (struct esp_store *store, const esp_uuid *uuid,
                                struct esp_profile *out);
extern int esp_rp_profile_save (struct esp_store *store, const esp_uuid *uuid,
                                const struct esp_profile *profile);
/* Load a restore point's own profile (none, or damaged: empty), let CHANGE
 * change it, and save it: one process at a time, so that no change is lost.
 * EAGAIN, not reported, while another one is at it: try again later.
 */
extern int esp_rp_profile_change (struct esp_store *store,
                                  const esp_uuid *uuid,
                                  int (*change) (void *arg,
                                                 struct esp_profile *profile),
                                  void *arg);

/* The next three are pure; they report only that memory is short. */
/* Add a boot that touched the N different units of ORDER, in that order.
 * Units that none of the last 16 boots touched go.
 */
extern int esp_profile_merge (struct esp_profile *profile,
                              const uint32_t *order, size_t n);
/* What two sides (a store and a center) know of the same tip, in INTO: the
 * boots of both side by side, newest beside newest.  The same boot on both
 * sides counts once, and INTO with itself stays as it is.
 */
extern int esp_profile_union (struct esp_profile *into,
                              const struct esp_profile *other);
/* Did at least half of the (last 16) boots touch UNIT? */
extern bool esp_profile_wanted (const struct esp_profile *profile,
                                const struct esp_profile_unit *unit);

#pragma GCC visibility pop
#endif /* ESPALIER_HAVE_H */
