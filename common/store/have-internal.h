/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files that implement store/have.h share.  Not for others; what is
 * visible is so for tests and fuzzers.
 */

#ifndef ESPALIER_HAVE_INTERNAL_H
#define ESPALIER_HAVE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "store/have.h"
#include "store/rp-internal.h"
#include "util/endian.h"

/* --- the file `segments` (segments.c) ----------------------------------- */

#define SEGMENTS_MAGIC "ESPSEGMT"
#define SEGMENTS_VERSION 1u
#define SEGMENTS_HEADER 64u
#define SEGMENTS_ENTRY 40u
#define SEGMENTS_GROWING 1u     /* a flag: digests come with the first fetch */

/* A table whose header and length are right; ENTRIES are the file's bytes. */
struct segments {
  unsigned shift;
  size_t n;
  bool growing;
  const uint8_t *entries;
  void *mem;                    /* what holds them: malloced, or mapped */
  size_t mapped;                /* bytes; 0: malloced */
};

/* Take apart the LEN bytes of BUF, a table for a disk of SIZE bytes; OUT
 * points into BUF.  One error that names WHERE.
 */
extern __attribute__ ((visibility ("default")))
int segments_parse (const void *buf, size_t len, uint64_t size,
                           const char *where, struct segments *out);
/* The bytes of a table, malloced.  GROWING: those of TABLE's digests that
 * are all zero are not known yet.
 */
extern __attribute__ ((visibility ("default")))
void *segments_format (const struct esp_index *table, uint64_t size,
                              bool growing, size_t *len);
static inline uint32_t
segments_number (const struct segments *s, size_t entry)
{
  uint32_t v;

  memcpy (&v, s->entries + entry * SEGMENTS_ENTRY, sizeof v);
  return le32toh (v);
}
/* False where it is not known (yet). */
extern __attribute__ ((visibility ("default")))
bool segments_digest (const struct segments *s, size_t entry,
                             esp_digest *out);
/* The bytes of one entry. */
extern __attribute__ ((visibility ("default")))
void segments_entry (uint8_t bytes[SEGMENTS_ENTRY], uint32_t number,
                            const esp_digest *digest);
/* Has it exactly the segments in which MAP has data?  EBADMSG. */
extern int segments_fit (const struct segments *s, const struct esp_map *map,
                         const char *where);
/* The file of the directory DIR for a disk of SIZE bytes; a growing one is
 * mapped, so that other processes' digests are seen.  ENOENT is not reported.
 */
extern int segments_open (int dir, uint64_t size, const char *where,
                          struct segments *out);
extern void segments_clear (struct segments *s);
#define CLEANUP_SEGMENTS __attribute__ ((cleanup (segments_clear)))

/* The segments in which MAP has data, their digests zero. */
extern __attribute__ ((visibility ("default")))
int segments_of_map (const struct esp_map *map, unsigned shift,
                            struct esp_index *out);
/* A table without the places in a pack: what esp_segments_load gives. */
extern int segments_to_index (const struct segments *s, struct esp_index *out);
/* The first segment from NUMBER on in which MAP has data; false: none. */
extern bool segments_next (const struct esp_map *map, unsigned shift,
                           uint64_t *number);

/* --- the file `have` (have-file.c) --------------------------------------- */

#define HAVE_MAGIC "ESP-HAVE"
#define HAVE_VERSION 1u
#define HAVE_HEADER 4096u

/* The header as it is mapped.  Constant fields are little endian; the
 * counters are the host's own, and made anew whenever nobody has the file
 * open: on the disk they mean nothing.
 */
struct have_header {
  char magic[8];
  uint32_t version;
  _Atomic uint32_t clean;       /* all ones or 0: any byte order */
  uint64_t entries;
  uint32_t shift;
  uint32_t zero;
  uint8_t boot[16];             /* of who changed it last */
  uint64_t sum;                 /* if clean: of states and fields before */
  uint64_t zero2;
  _Alignas (64) _Atomic uint64_t drops;         /* rises before a hole */
  _Alignas (64) _Atomic uint64_t missing;       /* entries not CHECKED */
  _Atomic uint64_t local;       /* bytes of raw not ABSENT */
};
#define HAVE_CLEAN UINT32_MAX

static_assert (offsetof (struct have_header, sum) == 48 &&
               offsetof (struct have_header, drops) == 64 &&
               offsetof (struct have_header, missing) == 128 &&
               sizeof (struct have_header) <= HAVE_HEADER, "as on the disk");
static_assert (sizeof (_Atomic uint8_t) == 1 && ATOMIC_CHAR_LOCK_FREE == 2 &&
               ATOMIC_LLONG_LOCK_FREE == 2, "shared between processes");

/* Are these LEN bytes the file of N entries of SHIFT?  0, EBADMSG, ENOTSUP:
 * one error that names WHERE.  *BELIEVED: is it clean, with the right sum?
 */
extern __attribute__ ((visibility ("default")))
int have_parse (const void *buf, size_t len, size_t n, unsigned shift,
                       const char *where, bool *believed);
/* A new file, all entries in state STATES[i] (NULL: absent). */
extern __attribute__ ((visibility ("default")))
void *have_format (size_t n, unsigned shift, const uint8_t *states,
                          size_t *len);
extern __attribute__ ((visibility ("default")))
uint64_t have_sum (const struct have_header *h, const uint8_t *states,
                          size_t n);

/* --- an open one (have.c) ------------------------------------------------ */

struct esp_have {
  /* Protected by the table's lock. */
  struct esp_have *next;
  unsigned refs;

  /* Constant once it is open. */
  struct esp_store *store;
  esp_uuid uuid;
  char name[ESP_NAME_MAX + 1];  /* of the restore point, at its opening */
  char where[80];               /* "restore-points/UUID" */
  bool readonly;
  bool distrust;                /* read-only: CHECKED means LOCAL */
  int dir;                      /* locked, shared */
  int fd;                       /* `have`: flock; OFD locks of fetches */
  unsigned shift;
  size_t n;
  uint64_t bytes;
  uint64_t size;                /* of the disk */
  struct esp_map *map;
  struct segments table;
  uint64_t *bits;               /* a bit a segment number: has an entry */
  uint32_t *ranks;              /* entries before each word of bits */
  uint64_t numbers;             /* segments of the disk */
  struct have_header *h;        /* mapped */
  size_t mapped;
  _Atomic uint8_t *state, *age; /* in it */
  _Atomic uint8_t *own;         /* read-only: what this process found */

  pthread_mutex_t lock;         /* opening; beginning to change */
  bool open;
  atomic_bool changing;         /* the clean mark is gone, durably */

  /* Opened by who needs them first; under `lock`. */
  _Atomic int data_fd, segments_fd, drop_fd;

  /* Holes are punched by whoever holds it exclusively, data is written and
   * compared by those who hold it shared.
   */
  pthread_rwlock_t punch;
};

/* have-open.c: everything behind the table. */
extern int have_open_files (struct esp_have *h);
extern void have_close_files (struct esp_have *h);
/* Before the first change: take the clean mark away. */
extern int have_begin_change (struct esp_have *h);
/* `data`, `segments` for writing, `have` for a second set of OFD locks:
 * opened when first asked for.  -1, reported.
 */
extern int have_data_fd (struct esp_have *h);
extern int have_segments_fd (struct esp_have *h);
extern int have_drop_fd (struct esp_have *h);
/* OFD locks of byte AT of FD: exclusive, without waiting, or with. */
extern int have_ofd_lock (int fd, uint64_t at, short type, bool wait);
#define HAVE_LOCK_ENTRIES UINT64_C (4096)
#define HAVE_LOCK_JUDGE UINT64_C (0)

/* have-data.c */
extern uint64_t have_entry_offset (const struct esp_have *h, size_t entry);
extern uint64_t have_entry_end (const struct esp_have *h, size_t entry);
/* Take stock: counters from the states. */
extern void have_count (struct esp_have *h);
/* `own` of a read-only one. */
#define HAVE_OWN_GOOD 1
#define HAVE_OWN_BAD 2

static inline uint64_t
have_drops (const struct esp_have *h)
{
  return atomic_load_explicit (&h->h->drops, memory_order_acquire);
}

/* Has this process a fetcher? */
extern bool have_can_fetch (void);
/* Ask the fetcher for [OFFSET, OFFSET+LEN); without one EIO, reported. */
extern int have_fetch (struct esp_have *h, uint64_t offset, uint64_t len);

/* Sync data and digests; then states. */
extern int have_sync (struct esp_have *h);

/* --- delayed.c ----------------------------------------------------------- */
/* What esp_rp_create_delayed was given: see delayed_write_files in
 * rp-internal.h.
 */
struct delayed_parts {
  unsigned shift;
  const struct esp_index *index;        /* NULL: no digest is known yet */
  const struct esp_source *source;      /* may be NULL */
  const struct esp_profile *profile;    /* may be NULL */
};
/* The file `have` of DIR anew, by what is no hole in `data`. */
extern int delayed_write_have (int dir, const struct segments *table);
/* Is NAME a file that only delayed restore points (and `segments`) have? */
extern bool delayed_is_file (const char *name);

/* --- sources-file.c ------------------------------------------------------- */
#define SOURCES_MAX 64u         /* of a restore point */
/* Is it a center with its index, or the address of an image? */
extern bool sources_ok (const struct esp_source *source,
                        const struct esp_index *index);
/* "index-CENTER"; writing it, with its digest. */
extern void sources_index_name (const char *center,
                                char name[ESP_NAME_MAX + 16]);
extern int sources_write_index (int dir, const char *center,
                                const struct esp_index *index,
                                esp_digest *digest);
/* The first document `sources` of a new one, and index-CENTER. */
extern int sources_write_first (int dir, const struct esp_source *source,
                                const struct esp_index *index);
/* The document of DIR (RP is what it belongs to); INDEXES (may be NULL, else
 * the caller frees it) gets the digest of each index-NAME.  ENOENT is not
 * reported.
 */
extern int sources_load (int dir, const struct esp_rp *rp, const char *where,
                         struct esp_source_list *out, esp_digest **indexes);
extern int sources_save (int dir, const struct esp_source_list *list,
                         const esp_digest *indexes);
/* Has the INDEX of CENTER the segments and digests of TABLE?  EBADMSG. */
extern int sources_agree (const struct segments *table,
                          const struct esp_index *index, const char *center,
                          const char *where);
/* The index of CENTER, compared with DIGEST. */
extern int sources_read_index (int dir, const struct esp_source *source,
                               const esp_digest *digest, const char *where,
                               struct esp_index *out);

#endif /* ESPALIER_HAVE_INTERNAL_H */
