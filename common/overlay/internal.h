/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of common/overlay/ share.  docs/overlay.md has the states,
 * the order of locks, and why each pair of operations is right.
 */

#ifndef ESPALIER_OVERLAY_INTERNAL_H
#define ESPALIER_OVERLAY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "overlay/admin.h"
#include "overlay/overlay.h"
#include "store/map.h"
#include "util/cleanup.h"

#define OVERLAY_KIND "overlay"
#define OVERLAY_VERSION 2
#define OVERLAY_DATA "data"
#define OVERLAY_MAP "map"

#define OVERLAY_STRIPES 64u

/* --- space: quota, floor (space.c) ------------------------------------- */

struct place_space {
  pthread_mutex_t mutex;        /* protects CHECKED while fstatvfs runs */
  _Atomic int64_t budget;       /* bytes that may grow before a look */
  _Atomic int64_t checked;      /* CLOCK_MONOTONIC_COARSE of the last look, s */
};

/* One message for each episode of failures, not one for each request. */
struct complaint { _Atomic int64_t last; };

/* Take N blocks of space for O before they are written.  -1 with *ERR
 * ENOSPC.  space_return gives N blocks back.
 */
extern int space_reserve (struct esp_overlay *o, uint64_t n, int *err);
extern void space_return (struct esp_overlay *o, uint64_t n);
/* May O complain about WHAT now?  False within an episode. */
extern bool space_complain (struct complaint *c);

/* --- an overlay -------------------------------------------------------- */

enum overlay_phase { OVERLAY_OPENING, OVERLAY_OPEN, OVERLAY_CLOSING };

struct esp_overlay {
  /* Protected by place->mutex. */
  struct esp_overlay *next;
  enum overlay_phase phase;
  unsigned refs;

  /* Set when it is opened, then constant. */
  struct esp_overlay_place *place;
  char *venue, *disk, *client;  /* NULL: private */
  enum esp_overlay_mode mode;
  esp_uuid tip;
  uint64_t size;
  uint64_t quota_blocks;        /* UINT64_MAX: no limit */
  bool named;                   /* has files in the place: a directory */
  bool spills;                  /* data is in the place's file system */
  uint64_t created;
  int dir_fd, lock_fd;          /* NAMED only, else -1 */
  bool clone;                   /* exists, also while it is not READY */

  /* Set under SETUP before READY, then constant. */
  pthread_mutex_t setup;
  _Atomic bool ready;           /* data and map are there */
  int data_fd;
  const uint8_t *mapping;       /* of data; NULL: use pread */
  size_t mapping_size;

  struct esp_map *map;          /* lock-free */
  pthread_rwlock_t stripes[OVERLAY_STRIPES];    /* docs/overlay.md */
  _Atomic uint64_t used;        /* blocks: DATA and reserved */
  _Atomic bool dirty;           /* something to flush */
  struct complaint no_space;

  /* Flush (flush.c), protected by flush_mutex. */
  pthread_mutex_t flush_mutex;
  pthread_cond_t flush_cond;
  bool flushing;
  uint64_t flush_begun, flush_done;
  int flush_result;             /* errno of generation flush_done, 0: good */
  bool poisoned;                /* a sync of data failed */
  bool dirs_synced;             /* only the flusher */
};

/* Make data and map, at the first write.  -1 with *ERR. */
extern int overlay_setup (struct esp_overlay *o, int *err);
/* Map the data file for reading, if there is room. */
extern void overlay_map_data (struct esp_overlay *o);

/* Whose it is, for messages. */
static inline const char *
overlay_who (const struct esp_overlay *o)
{
  return o->client ? o->client : "(private)";
}

static inline bool
overlay_is_ready (const struct esp_overlay *o)
{
  return atomic_load_explicit (&o->ready, memory_order_acquire);
}

/* After data or states were changed. */
static inline void
overlay_touch (struct esp_overlay *o)
{
  /* Sequentially consistent: if it is already set, the flusher has not
   * taken it yet, so its fdatasync comes after our pwrite.
   */
  if (!atomic_load (&o->dirty))
    atomic_store (&o->dirty, true);
}

/* Flush for the last close: returns 0, or an errno, reported. */
extern int flush_last (struct esp_overlay *o);

/* --- a place ----------------------------------------------------------- */

/* A DISCARD overlay that waits for the end of its grace. */
struct expiry {
  struct expiry *next;
  char *venue, *disk, *client;
  int64_t deadline;             /* seconds since the epoch */
};

struct esp_overlay_place {
  struct esp_overlay_place *next;       /* protected by the list's mutex */
  unsigned refs;                /* likewise: users, and overlays */
  unsigned users;               /* likewise: opens by our caller */
  char *path;                   /* NULL: memory only */
  int fd;                       /* -1: memory only */
  struct esp_overlay_params params;
  char boot_id[40];

  pthread_mutex_t mutex;        /* registry: OVERLAYS, EXPIRIES, thread */
  pthread_cond_t changed;       /* an entry changed its phase or went */
  struct esp_overlay *overlays;
  struct expiry *expiries;
  pthread_cond_t wake;          /* the thread has something to do */
  bool has_thread, stop;
  pthread_t thread;

  struct place_space space;
};

extern void place_ref (struct esp_overlay_place *p);
extern void place_unref (struct esp_overlay_place *p);

/* The entry of ID that is open; waits while it is in another phase.  NULL
 * where there is none.  The mutex is held before and after.
 */
extern struct esp_overlay *place_find_locked (struct esp_overlay_place *p,
                                              const struct esp_overlay_id *id);
extern void place_add_locked (struct esp_overlay_place *p,
                              struct esp_overlay *o);
extern void place_remove_locked (struct esp_overlay_place *p,
                                 struct esp_overlay *o);

/* Grace (grace.c).  Remember that the client left, or that it was found. */
extern void grace_begin (struct esp_overlay_place *p,
                         const struct esp_overlay_id *id, int64_t deadline);
/* End the thread; free the list. */
extern void grace_stop (struct esp_overlay_place *p);
extern void grace_forget (struct esp_overlay_place *p);

/* --- files (files.c) --------------------------------------------------- */

struct overlay_doc {
  enum esp_overlay_mode mode;
  esp_uuid tip;
  uint64_t size, created;
  unsigned grace;               /* seconds, as its server had it then */
  char boot_id[40];
  bool clone;                   /* exists without a map, too: then nothing was
                                 * written to it (venue clone) */
};

/* Load or save the document.  0, or -1 with errno; ENOENT is not reported. */
extern int files_load_doc (int dir_fd, struct overlay_doc *doc);
/* The same; errors say whose it is, and what to do. */
extern int files_load_doc_of (int dir_fd, const struct esp_overlay_id *id,
                              struct overlay_doc *doc);
/* Report EBADMSG: WHAT of ID is wrong; -1. */
extern int files_damaged (const struct esp_overlay_id *id, const char *what);
extern int files_save_doc (int dir_fd, const struct overlay_doc *doc);
/* This boot's id. */
extern void files_boot_id (char boot_id[40]);

/* Open the directory of ID below PLACE_FD.  -1 with errno, not reported. */
extern int files_open_dir (int place_fd, const struct esp_overlay_id *id);
/* Open (CREATE: make) ID's directory and take its lock.  -1 with errno:
 * ENOENT (not reported), EBUSY (reported with the holder unless QUIET).
 */
struct files_lock { int dir_fd, lock_fd; };
extern int files_lock (int place_fd, const struct esp_overlay_id *id,
                       bool create, bool quiet, struct files_lock *out);
/* Is a process other than a dead one its holder? */
extern bool files_is_held (int lock_fd);
/* Has NAME? */
extern bool files_has (int dir_fd, const char *name);
/* Remove data, map and document: the locked overlay has nothing any more. */
extern int files_empty (int dir_fd);
/* Remove ID's directory, which is locked by the caller, and parents that
 * are empty then.  Reports one error.
 */
extern int files_remove (int place_fd, const struct esp_overlay_id *id,
                         int dir_fd);
/* fsync the directories from ID's own up to the place. */
extern int files_sync_dirs (int place_fd, const struct esp_overlay_id *id,
                            int dir_fd);

/* When the grace of a client that left at SECONDS is over: never early,
 * though times are whole seconds.
 */
static inline int64_t
files_deadline (int64_t seconds, unsigned grace)
{
  return seconds + (grace ? (int64_t) grace + 1 : 0);
}

/* What is to become of a locked overlay whose document is DOC, at the
 * time NOW.  *DEADLINE is set for FATE_GRACE.
 */
enum fate {
  FATE_KEEP,                    /* goes on */
  FATE_GRACE,                   /* DISCARD that may still be asked for */
  FATE_OVER,                    /* DISCARD whose grace is over, or empty */
};
extern enum fate files_fate (int dir_fd, int lock_fd,
                             const struct overlay_doc *doc, int64_t now,
                             unsigned grace, int64_t *deadline);

/* Of a locked overlay whose holder died without a word: its grace begins
 * now.
 */
extern void files_begin_grace (int lock_fd);

#endif /* ESPALIER_OVERLAY_INTERNAL_H */
