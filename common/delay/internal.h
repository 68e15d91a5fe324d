/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside delayed load (docs/delayed-load.md): what its files share.
 *
 *   engine.c   start, stop, points (the restore points that are in use)
 *   flight.c   flights: joining, queues, what becomes of them
 *   worker.c   pools of threads: a flight becomes a request
 *   looker.c   cached segments while all of those wait for a center
 *   request.c  a request: locks, checks, sources one after another
 *   cached.c   its questions to the segment cache, before the sources
 *   legs.c     its questions to sources: arriving, making way, hedging
 *   sources.c  where a restore point comes from; centers and their breakers
 *   reader.c   reads: what is missing, waiting for it
 *   ahead.c    read-ahead of sequential readers
 *   hydrate.c  the keeper: hydration, wishes, idle points; now.c while
 *              somebody waits for it
 *   bound.c    delayload-max
 *   recorder.c boot profiles: learnt (recording.c) and used (player.c)
 *
 * Locks: delay->lock protects everything here that is not constant or
 * atomic, and is held for no I/O; a point's sources_lock is held while its
 * sources are opened (only who wants to fetch of it waits), and never
 * together with delay->lock.  Hits take none.
 */

#ifndef ESPALIER_DELAY_INTERNAL_H
#define ESPALIER_DELAY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "cache/shared.h"
#include "center/origin.h"
#include "delay/delay.h"
#include "delay/recorder.h"
#include "store/have.h"

/* --- sizes and times ---------------------------------------------------- */
#define REQUEST_MAX (UINT64_C (4) << 20)        /* raw bytes in a request */
#define REQUEST_MIN (UINT64_C (256) << 10)      /* not split below */
#define THREADS_DEFAULT 16u
#define THREADS_MAX 256u
#define READAHEAD_DEFAULT (UINT64_C (16) << 20)
#define BACKGROUND_CONNECTIONS 2u
#define SECOND UINT64_C (1000000)               /* in microseconds */
#define LOOK_FIRST (SECOND / 50)        /* a demand's wait for a worker until
                                         * the looker looks for it */
/* Background makes way so long at a time: far below any time-out. */
#define YIELD_MAX (2 * SECOND)
#define WHY_MAX 512

/* Monotonic clock, microseconds. */
extern uint64_t delay_now (void);
extern void delay_cond_init (pthread_cond_t *cond);
/* Wait, at the longest until the time UNTIL; MUTEX is held. */
extern void delay_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex,
                             uint64_t until);

/* --- who waits ---------------------------------------------------------- */
enum delay_class { CLASS_DEMAND, CLASS_AHEAD, CLASS_BACKGROUND, CLASSES };

/* One read, or one hydration: for how many flights it still waits, and the
 * first cause of a failure.
 */
struct waiter {
  pthread_cond_t cond;
  unsigned pending;
  unsigned enough;              /* woken when so many are pending */
  int err;
  char why[WHY_MAX];
};
struct waiter_link {
  SLIST_ENTRY (waiter_link) next;
  struct waiter *waiter;
};

/* --- flights ------------------------------------------------------------ */
enum flight_state { FLIGHT_QUEUED, FLIGHT_FLYING, FLIGHT_ELSEWHERE };

/* One segment on its way. */
struct flight {
  LIST_ENTRY (flight) hash;
  TAILQ_ENTRY (flight) queue;   /* QUEUED: of its pool and class;
                                 * ELSEWHERE: of the engine, one of two */
  struct point *point;          /* counted */
  size_t entry;
  enum delay_class class;       /* the highest of those who want it */
  enum delay_class born;        /* of the first who wanted it */
  enum flight_state state;
  struct request *request;      /* FLYING */
  uint64_t since;               /* ELSEWHERE: another process has its lock */
  uint64_t due;                 /* ELSEWHERE: another server fetches it */
  struct esp_shared_ticket ticket;      /* from one question to the next */
  uint64_t look_at, look_after; /* the looker's: when next, and behind that */
  SLIST_HEAD (, waiter_link) links;
};
TAILQ_HEAD (flight_queue, flight);

/* Threads that fetch, for the restore points whose first source is one
 * center, so that a center that hangs keeps no thread from another's.
 */
struct pool {
  LIST_ENTRY (pool) list;
  struct esp_delay *delay;
  char *name;
  pthread_cond_t work, look;
  struct flight_queue queue[CLASSES];
  size_t queued[CLASSES];
  unsigned busy[CLASSES];
  unsigned idle;                /* threads that wait for work */
  unsigned nthreads;
  pthread_t *threads;
  pthread_t looker;
  bool has_looker;
};

/* --- where from ---------------------------------------------------------- */
/* A center (or a plain image's URL), whatever comes from it. */
struct center {
  LIST_ENTRY (center) list;
  char *name;
  uint64_t ttfb;                /* time to first byte, us; 0: not known */
  uint64_t speed;               /* bytes a second of one request */
  unsigned inflight, demands;   /* requests */
  bool out, trial;              /* trial: a request is trying it */
  bool quick;                   /* its last error came within a second, as
                                 * far as one can tell */
  unsigned fails;               /* in a row */
  uint64_t out_until;
  char why[WHY_MAX];            /* of its last error */
  struct esp_stats_row *row;
};

struct source {
  struct esp_origin *origin;
  struct center *center;
  uint64_t left_out;            /* until then: it lied about this one */
};
/* The sources of a restore point as they were loaded once. */
struct source_set {
  unsigned refs;
  uint64_t loaded;
  char why[WHY_MAX];            /* why there are none, or fewer */
  bool secret;                  /* one is encrypted, or it is not known */
  size_t n;
  struct source s[];
};

/* --- restore points ------------------------------------------------------ */
/* A sequential run of reads. */
struct stream {
  uint64_t begin, end;          /* what was read lies within */
  uint64_t read;                /* bytes of it */
  uint64_t ahead;               /* what was asked for ends here */
  uint64_t used;                /* clock of the reader */
};

struct point {
  LIST_ENTRY (point) list;
  struct esp_delay *delay;
  struct esp_have *have;
  esp_uuid uuid;
  unsigned refs;
  uint64_t idle_since;
  struct pool *pool;
  pthread_mutex_t sources_lock;
  struct source_set *sources;
  _Atomic uint64_t *ahead;      /* a bit an entry: fetched ahead, not used */
  size_t run_next, run_ahead, run;      /* of reads that miss: entries */
  struct esp_stats_row *row;    /* NULL: nothing to count yet */
};

/* --- requests ------------------------------------------------------------ */
/* One entry's. */
struct slot {
  struct flight *flight;        /* NULL: it was ended, or left */
  bool storing;
  bool asked;                   /* the segment cache waits for what becomes of
                                 * `ticket` */
  struct esp_shared_ticket ticket;
};

/* One question to one source. */
struct leg {
  struct request *request;
  LIST_ENTRY (leg) list;        /* of the engine, while it runs */
  size_t source;                /* of the request's set */
  size_t first, n;              /* entries */
  atomic_bool cancel;
  bool running, once, trial, counted;
  bool slow;                    /* was hedged since its body hardly moved */
  uint64_t begin, first_byte, hedge_at;
  atomic_uint_fast64_t bytes;
  uint64_t mark;                /* bytes at the last look at its body */
  int err;
  char why[WHY_MAX];
};

struct request {
  struct point *point;
  struct source_set *set;
  enum delay_class class;       /* the highest of its flights */
  enum delay_class began;       /* whose connection it takes */
  pthread_cond_t ended;         /* of its second leg */
  unsigned refs;
  size_t first, n, left;
  struct slot *slots;
  struct esp_shared *shared;    /* that was asked; no reference; or NULL */
  void *raw;                    /* of one segment that the cache gave */
  struct leg legs[2];
  int store_err;                /* could not be kept: no source's fault */
  char store_why[WHY_MAX];
};

/* --- the engine ----------------------------------------------------------- */
#define FLIGHT_BUCKETS 4096u

struct delay_counts {
  atomic_uint_fast64_t requests, segments, bytes_wire, bytes_raw;
  atomic_uint_fast64_t ahead_segments, ahead_used, background_segments;
  atomic_uint_fast64_t evicted, healed, hedged, errors, lies;
  atomic_uint_fast64_t from[3], cluster_waits;  /* by enum esp_shared_from */
};
struct reader_counts {
  atomic_uint_fast64_t hits, misses, waited;
};

struct dview;
struct hydration;
struct bound;

struct esp_delay {
  struct esp_store *store;      /* constant from here */
  struct esp_delay_params params;
  struct boots *boots;          /* or NULL */
  struct esp_stats *stats;

  pthread_mutex_t lock;         /* protects everything from here */
  atomic_bool stop;
  LIST_HEAD (, flight) flights[FLIGHT_BUCKETS];
  struct flight_queue elsewhere, busy;  /* busy: at another server */
  uint64_t tick_at;             /* when the ticker looks again by itself */
  LIST_HEAD (, pool) pools;
  LIST_HEAD (, center) centers;
  LIST_HEAD (, point) points;
  LIST_HEAD (, dview) views;
  LIST_HEAD (, esp_delay_reader) readers;
  LIST_HEAD (, leg) legs;
  unsigned hedges;              /* threads of second legs */
  pthread_cond_t tick;          /* the ticker has something to look at */
  pthread_cond_t keep;          /* the keeper has */
  pthread_cond_t calm;          /* background may go on; a center changed */
  uint64_t ahead_pending;       /* raw bytes */
  int64_t tokens;               /* of background, bytes */
  uint64_t tokens_at;
  uint64_t nospace_until;
  uint64_t stored;              /* bytes since the keeper looked at max */
  bool full;                    /* the store is near its max */
  pthread_t ticker, keeper;
  struct hydration *hydration;  /* the keeper's alone, as is `bound` */
  struct bound *bound;
  struct reader_counts closed;  /* of readers that were closed */
  struct delay_counts counts;
};

#define COUNT(delay, what, n) \
  atomic_fetch_add_explicit (&(delay)->counts.what, (n), memory_order_relaxed)

/* engine.c: a reference to the point of UUID; -1 reported; *OUT is NULL for
 * one that is not delayed.
 */
extern int point_get (struct esp_delay *delay, const esp_uuid *uuid,
                      struct point **out);
extern void point_ref_locked (struct point *point);
extern void point_put (struct point *point);
extern void point_put_locked (struct point *point);
/* What POINT counts; there is a row from the first call on. */
extern struct esp_stats_row *point_row_locked (struct point *point);
/* Close those that were idle since BEFORE. */
extern void points_close_idle (struct esp_delay *delay, uint64_t before);
/* Now, in the clock of esp_have_touch. */
extern uint8_t delay_age_tick (void);

/* flight.c */
/* Want ENTRY in CLASS; WAITER may be NULL.  1: it is a new flight, 0, -1
 * ENOMEM (not reported).
 */
extern int flight_want_locked (struct point *point, size_t entry,
                               enum delay_class class, struct waiter *waiter);
extern struct flight *flight_find_locked (struct point *point, size_t entry);
/* It is over: ERR 0, or why. */
extern void flight_end_locked (struct flight *flight, int err,
                               const char *why);
/* Out of its queue, to fly with REQUEST. */
extern void flight_take_locked (struct flight *flight,
                                struct request *request);
/* Back to the head of its queue. */
extern void flight_requeue_locked (struct flight *flight);
extern void flight_elsewhere_locked (struct flight *flight);
/* Another server fetches it: queued again at DUE. */
extern void flight_busy_locked (struct flight *flight, uint64_t due);
extern void flights_cancel_locked (struct esp_delay *delay);
extern void waiter_init (struct waiter *waiter);
/* Wait until nothing is pending, or UNTIL. */
extern void waiter_wait_locked (struct esp_delay *delay,
                                struct waiter *waiter, uint64_t until);
/* Waits for nothing any more. */
extern void waiter_clear_locked (struct esp_delay *delay,
                                 struct waiter *waiter);
/* How long a flight may be ELSEWHERE; tests make it shorter. */
extern __attribute__ ((visibility ("default")))
uint64_t esp_delay_test_elsewhere_max;
/* The thread that looks after ELSEWHERE and slow requests. */
extern void *ticker_run (void *delay);

/* worker.c */
extern struct pool *pool_get_locked (struct esp_delay *delay,
                                     const char *name);
extern void pool_wake_locked (struct pool *pool);
/* looker.c: a thread of a pool. */
extern void *looker_run (void *pool);
/* The stop flag is set and all were woken: wait for the threads; free. */
extern void pools_join (struct esp_delay *delay);
extern void pools_free (struct esp_delay *delay);
/* BYTES of background came. */
extern void tokens_take_locked (struct esp_delay *delay, uint64_t bytes);
/* When background may go on; 0: now. */
extern uint64_t tokens_wait_locked (struct esp_delay *delay);

/* request.c: SLOTS are flights of following entries, in state FLYING. */
extern struct request *request_new_locked (struct flight *first, size_t n);
extern void request_run (struct request *request);
/* Ask only the segment cache, and wait for nobody; then end it: what was not
 * there is queued again.
 */
extern void request_look (struct request *request);
extern void request_look_end_locked (struct request *request);
/* The flight that ENTRY still has to end, NULL where the other leg has it. */
extern struct flight *request_claim (struct request *request, size_t entry);
/* Keep what was claimed, and unlock it.  0, or -1 with request->store_err. */
extern int request_keep (struct request *request, size_t entry,
                         const void *raw, size_t len);
/* The flight of slot I is over. */
extern void request_slot_end_locked (struct request *request, size_t i,
                                     int err, const char *why);

/* The flight of slot I goes on without this request. */
extern struct flight *request_slot_leave_locked (struct request *request,
                                                 size_t i);
/* LEN bytes of FLIGHT's entry were kept, wherever they came from. */
extern void request_count_locked (struct esp_delay *delay,
                                  const struct flight *flight, size_t len);

/* cached.c: the segment cache (cache/shared.h), which is asked before the
 * sources.  All may be called where there is none.
 */
enum need {
  NEED_FETCH,
  NEED_NOTHING,                 /* it is here: its flight has to be ended */
  NEED_ELSEWHERE,               /* another process of this store has it */
  NEED_DONE,                    /* its flight was ended, or left */
  NEED_STOP,                    /* it could not be kept: request->store_err */
};
extern bool cached_is_there (void);
extern void cached_begin (struct request *request);
/* Ask for slot I's entry, which is locked. */
extern enum need cached_ask (struct request *request, size_t i);
/* The same without a lease, and without waiting for another's. */
extern enum need cached_look (struct request *request, size_t i);
/* Slot I's entry came from a source: give it to others. */
extern void cached_put (struct request *request, size_t i, const void *raw,
                        size_t len);
/* It did not. */
extern void cached_give_up (struct request *request, size_t i);
/* Give up what is left. */
extern void cached_end (struct request *request);

/* legs.c */
extern void leg_begin_locked (struct leg *leg, size_t source, bool trial,
                              uint64_t tried);
extern void leg_get (struct leg *leg);
extern void leg_end_locked (struct leg *leg);
/* Entries that are left, from the first one on, as far as they follow each
 * other in SOURCE; those behind are left to the next round.
 */
extern void leg_span_locked (const struct request *request,
                             const struct source *source, size_t *first,
                             size_t *n);
/* One of its flights was raised to CLASS. */
extern void request_raise_locked (struct request *request,
                                  enum delay_class class);
/* Legs that are later than usual: ask another source too. */
extern uint64_t request_hedge_locked (struct esp_delay *delay, uint64_t now);

/* sources.c */
extern struct source_set *sources_get (struct point *point, uint64_t since);
extern void sources_put (struct esp_delay *delay, struct source_set *set);
/* The best of SET but TRIED (a bit each) for N entries; -1: none now, *WHY
 * says why; -2: wait for delay->calm.  *TRIAL: it is OUT.
 */
extern int sources_choose_locked (struct esp_delay *delay,
                                  const struct source_set *set,
                                  uint64_t tried, enum delay_class class,
                                  bool *trial, char *why);
extern bool sources_have_other_locked (const struct source_set *set,
                                       size_t than, uint64_t tried);
/* When may background try again?  0: now. */
extern uint64_t sources_due_locked (const struct source_set *set);
extern void center_begin_locked (struct leg *leg);
extern void center_end_locked (struct leg *leg);

/* reader.c */
struct want { struct point *point; size_t entry; };
struct wants {
  struct want *w, few[32];
  size_t n, room;
};
extern int wants_add (struct wants *wants, struct point *point, size_t entry);
extern void wants_clear (struct wants *wants);
/* Want all, waiting for nothing; how many are new, -1 ENOMEM. */
extern int wants_queue_locked (const struct wants *wants,
                               enum delay_class class, struct waiter *waiter);

/* What connections to one tip share. */
struct dview {
  LIST_ENTRY (dview) list;
  struct esp_delay *delay;
  struct esp_image *image;      /* counted */
  struct esp_chain *chain;
  unsigned depth;
  unsigned refs;
  _Atomic (struct point *) *points;     /* by owner; NULL: not looked at */
  bool looked_at;               /* by the keeper; under the engine's lock */
  atomic_uint resolved;         /* owners that were looked at, from 1 */
  _Atomic (struct dview_fast *) fast;
};
/* All delayed points of a chain that has few. */
#define VIEW_FAST_MAX 16u
struct dview_fast {
  unsigned n;
  struct point *p[VIEW_FAST_MAX];
};
extern struct point point_not_delayed;
extern int dview_get (struct esp_delay *delay, const esp_uuid *uuid,
                     struct dview **out);
extern void dview_put (struct dview *view);
/* The point of OWNER, NULL where that is not delayed; -1 reported. */
extern int dview_point (struct dview *view, unsigned owner,
                       struct point **out);
/* Look at all owners (the keeper). */
extern void dview_resolve (struct dview *view);
/* What is missing of [OFFSET, OFFSET+COUNT). */
extern int dview_missing (struct dview *view, uint64_t offset, uint64_t count,
                         struct wants *out);

struct esp_delay_reader {
  LIST_ENTRY (esp_delay_reader) list;
  struct esp_delay *delay;
  struct dview *view;
  uint64_t size;
  pthread_mutex_t ahead_lock;   /* only tried; protects the streams */
  struct stream streams[4];
  uint64_t clock, cap;          /* the window is at most this */
  struct recorder *recorder;
  atomic_bool recording;
  struct esp_stats_row *row;    /* or NULL */
  char apart[64];               /* each read writes what follows, and only
                                 * reads what stands above */
  struct reader_counts counts;
};
extern void reader_moved (struct esp_delay_reader *reader, uint64_t offset,
                          uint64_t count);

/* ahead.c: of reads that miss outside of readers. */
extern void point_missed_locked (struct point *point, size_t first,
                                 size_t last);

/* hydrate.c */
extern void *keeper_run (void *delay);

/* bound.c: called by the keeper; takes away what is too much. */
extern void bound_keep (struct esp_delay *delay);
extern void bound_free (struct esp_delay *delay);

#endif /* ESPALIER_DELAY_INTERNAL_H */
