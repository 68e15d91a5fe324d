/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory's file, and how its parts call each other.  Only dir*.c, its
 * tests and its fuzzer.
 */

#ifndef ESPALIER_CACHE_DIR_INTERNAL_H
#define ESPALIER_CACHE_DIR_INTERNAL_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cache/dir.h"
#include "cache/value.h"

#define CDIR_FILE "segcache"
#define CDIR_MAGIC "ESPCACHE"
#define CDIR_VERSION 1u
#define CDIR_ORDER UINT64_C (0x0102030405060708)
#define CDIR_WAYS 16u
#define CDIR_SLOT ESP_CDIR_SLOT
#define CDIR_PARTS (ESP_VALUE_DATA_MAX / CDIR_SLOT)     /* at most, 64 */
#define CDIR_GROUP_MIN 4u       /* sets of a group: 4M have room in one */
#define CDIR_GROUP_MAX 64u

/* --- the file: docs/formats.md, "segcache" -------------------------------- */
/* The page at the front: this changes only while nobody else has the file
 * open; fields in the machine's byte order, since the file never leaves it.
 */
struct cdir_fixed {
  char magic[8];
  uint32_t version;
  uint32_t whole;               /* 0 while it is being made */
  uint64_t order;               /* CDIR_ORDER */
  uint64_t max;                 /* as it was asked for */
  uint32_t slot, ways;
  uint64_t groups;
  uint32_t group;               /* sets in a group: a power of two */
  uint32_t set;                 /* bytes */
  uint64_t file;                /* bytes of the file */
  uint8_t boot[16];             /* boot's id when `era` was last looked at */
  uint64_t era;                 /* exports' values of another one are void;
                                 * 40 bits, never 0, 1 or 2 */
  uint64_t zero[4];
  uint64_t sum;                 /* XXH3 of all before it */
};
static_assert (sizeof (struct cdir_fixed) == 128, "the size of the header");

/* The same, mapped by all. */
#define CDIR_HEADER 4096u
struct cdir_header {
  struct cdir_fixed fixed;
  _Atomic uint64_t written;     /* era: no; else enum cdir_written */
  uint8_t zero[56];
  _Atomic int64_t used;         /* bytes of valid data: for people */
};
static_assert (offsetof (struct cdir_header, used) == 192, "a line");

/* Was an export written (forgotten) in this era?  Not where `written` is the
 * era itself: a page of which the disk has half says yes.  SAYING: that is not
 * durable yet.
 */
enum cdir_written { CDIR_SAYING = 1, CDIR_WRITTEN = 2 };

/* A set. */
#define CDIR_HEAD_WORDS (ESP_VALUE_HEAD / 8)
struct cdir_set {
  _Atomic uint64_t way[CDIR_WAYS];
  _Atomic uint64_t epoch;       /* forgets of keys whose part 0 is here */
  _Atomic uint64_t clock;       /* ways that were taken */
  _Atomic uint32_t ghost[CDIR_WAYS];    /* of keys that were put out */
  uint8_t zero[48];
  _Atomic uint64_t head[CDIR_WAYS][CDIR_HEAD_WORDS];
  uint8_t zero2[256];
};
static_assert (sizeof (struct cdir_set) == 2048, "the size of a set");

/* A way: state (2 bits), uses (2), generation (24), stamp (12), tag (24),
 * from the lowest.  The generation rises with each change of hands.
 */
enum cdir_state { CDIR_FREE = 0, CDIR_PENDING = 1, CDIR_VALID = 2 };
#define CDIR_GEN_MASK 0xffffffu
#define CDIR_TAG_MASK 0xffffffu
#define CDIR_STAMP_MASK 0xfffu
#define CDIR_USES_MAX 3u

static inline uint64_t
cdir_way (enum cdir_state state, unsigned uses, uint32_t gen, unsigned stamp,
          uint32_t tag)
{
  return (uint64_t) state | (uint64_t) uses << 2 |
    (uint64_t) (gen & CDIR_GEN_MASK) << 4 |
    (uint64_t) (stamp & CDIR_STAMP_MASK) << 28 |
    (uint64_t) (tag & CDIR_TAG_MASK) << 40;
}
static inline enum cdir_state
cdir_state (uint64_t way)
{
  return way & 3;
}
static inline unsigned
cdir_uses (uint64_t way)
{
  return way >> 2 & 3;
}
static inline uint32_t
cdir_gen (uint64_t way)
{
  return way >> 4 & CDIR_GEN_MASK;
}
static inline unsigned
cdir_stamp (uint64_t way)
{
  return way >> 28 & CDIR_STAMP_MASK;
}
static inline uint32_t
cdir_tag (uint64_t way)
{
  return (uint32_t) (way >> 40);
}

/* --- an open one ------------------------------------------------------------ */
struct esp_cdir {
  int dirfd;                    /* the lock */
  int fd;
  char *path;
  const struct esp_sealer *sealer;
  uint8_t *map;                 /* header and sets */
  size_t map_len;
  uint64_t groups, max, era;
  unsigned group;
  uint64_t slots;               /* where they begin in the file */

  pthread_mutex_t lock;         /* held over the sync of `written` alone */
  atomic_bool marked;           /* it is said durably */
  atomic_bool broken;           /* the file failed us: misses from here on */
  atomic_bool told_full, told_io;
  atomic_bool tight;            /* the file system, as it was at ... */
  atomic_uint_fast64_t space_at;        /* second + 1 */
  atomic_uint_fast64_t hits, misses, bytes_read, bytes_written, evictions,
    errors, lies;
};

/* dir-file.c: open, check or make dir->path, in WHERE; lock and map it.
 * Reports.
 */
extern int cdir_attach (struct esp_cdir *dir, const char *where,
                        uint64_t max);
extern void cdir_detach (struct esp_cdir *dir);
/* The header of a new file of at most MAX bytes, and where its slots begin. */
extern void cdir_geometry (uint64_t max, struct cdir_fixed *out,
                           uint64_t *slots);
extern uint64_t cdir_sum (const struct cdir_fixed *fixed);

/* --- dir-guard.c ------------------------------------------------------------ */
/* Say durably that an export is written, once for each process.  -1: that
 * cannot be done (reports nothing).
 */
extern int cdir_mark_written (struct esp_cdir *dir);
/* FN with the mapped file guarded; -1: it failed, all are misses now. */
extern int cdir_guarded (struct esp_cdir *dir, int (*fn) (void *arg),
                         void *arg);
/* What cannot be forgotten must go: for all processes. */
extern void cdir_cut (struct esp_cdir *dir);

static inline struct cdir_header *
cdir_header (const struct esp_cdir *dir)
{
  return (struct cdir_header *) dir->map;
}

/* --- dir-index.c: all of it runs guarded ------------------------------------ */
/* A key's places. */
struct cdir_spot {
  const struct esp_cache_key *key;
  uint64_t hash, group;
  unsigned base;                /* set of part 0 in its group */
};
struct cdir_part {
  unsigned part, set, way;      /* set: within the group */
  uint64_t word;                /* the way's, as it was found or taken */
  bool mine;                    /* taken by this put */
  uint8_t head[ESP_VALUE_HEAD];
};

extern void cdir_spot (const struct esp_cdir *dir,
                       const struct esp_cache_key *key,
                       struct cdir_spot *spot);
extern struct cdir_set *cdir_home (const struct esp_cdir *dir,
                                   const struct cdir_spot *spot);
extern struct cdir_set *cdir_set_of (const struct esp_cdir *dir,
                                     const struct cdir_spot *spot,
                                     unsigned part);
/* Where the slot of PART is in the file. */
extern uint64_t cdir_slot (const struct esp_cdir *dir,
                           const struct cdir_spot *spot,
                           const struct cdir_part *part);
/* What `put` is in a value that lies in a way with WORD. */
extern uint64_t cdir_put_id (const struct esp_cdir *dir,
                             const struct esp_cache_key *key, uint64_t word);

/* Find part PART->part of a segment of LENGTH bytes. */
extern bool cdir_find (const struct esp_cdir *dir,
                       const struct cdir_spot *spot, size_t length,
                       struct cdir_part *part);
/* Take a way for it, WAY rather than another; it is PENDING.  USES: as what
 * it begins.  False: there is none, or another one puts it now.
 */
extern bool cdir_take (struct esp_cdir *dir, const struct cdir_spot *spot,
                       unsigned way, unsigned uses, struct cdir_part *part);
/* Did KEY leave a ghost? */
extern bool cdir_ghost (const struct esp_cdir *dir,
                        const struct cdir_spot *spot);
extern void cdir_write_head (const struct esp_cdir *dir,
                             const struct cdir_spot *spot,
                             const struct cdir_part *part);
/* PENDING becomes VALID, or FREE; it may be another's by now. */
extern bool cdir_publish (struct esp_cdir *dir, const struct cdir_spot *spot,
                          const struct cdir_part *part, size_t len);
extern bool cdir_release (struct esp_cdir *dir, const struct cdir_spot *spot,
                          const struct cdir_part *part);
/* It was used. */
extern void cdir_touch (const struct esp_cdir *dir,
                        const struct cdir_spot *spot,
                        const struct cdir_part *part);
/* Clear all that may be KEY's. */
extern void cdir_drop (struct esp_cdir *dir, const struct cdir_spot *spot);
/* At the first open of a boot: nobody is putting; count what is there. */
extern void cdir_recount (struct esp_cdir *dir);

#endif /* ESPALIER_CACHE_DIR_INTERNAL_H */
