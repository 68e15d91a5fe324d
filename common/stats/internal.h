/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside live counters: the file of a process (docs/formats.md, "Live
 * counters"), and what the files of this directory share:
 *
 *   stats.c    the process's counters: start, end, ticks, writing
 *   rows.c     rows, and clients
 *   file.c     the file: who lives
 *   format.c   its bytes; names.c what they are called
 *   each.c     reading
 *
 * Counters live in the process's own memory; its thread writes the rows that
 * changed into the file once a second, with pwrite, and readers pread it.
 * A shared mapping would need no thread, but then whoever adds could
 * meet SIGBUS (the file was cut short, the disk is full), or wait for
 * the disk: a page of a file that is just written back stalls who writes to
 * it.  A read of a client must do neither.
 *
 * What is visible is so for tests and fuzzers.
 */

#ifndef ESPALIER_STATS_INTERNAL_H
#define ESPALIER_STATS_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "stats/stats.h"

#pragma GCC visibility push(default)

/* --- format.c -------------------------------------------------------------- */
#define STATS_MAGIC "ESPSTATS"
#define STATS_VERSION 1u
#define STATS_HEADER 4096u              /* bytes before the rows */
#define STATS_HEADER_USED 128u          /* of them */
#define STATS_ROW 512u
#define STATS_ROWS 8192u
#define STATS_NAME (STATS_ROW - 144u)   /* with its NUL */
#define STATS_PROGRAM 32u               /* with its NUL */
#define STATS_KIND_MAX (STATS_ROWS / 8 * 3)     /* rows of one kind */

struct stats_header {
  uint32_t pid;
  uint32_t used;                /* rows behind these were never used */
  uint64_t since;               /* seconds since 1970 */
  uint64_t at;                  /* when the rows were written last */
  char program[STATS_PROGRAM];
};

extern void stats_header_format (const struct stats_header *h,
                                 uint8_t out[STATS_HEADER_USED]);
/* Reports nothing: -1 with EBADMSG, or ENOTSUP of another version. */
extern int stats_header_parse (const uint8_t in[STATS_HEADER_USED],
                               struct stats_header *h);

/* A row; KIND 0 is a free one. */
struct stats_row {
  unsigned kind;
  char name[STATS_NAME];
  uint64_t c[ESP_STATS_COUNTERS];
};
extern void stats_row_format (const struct stats_row *row,
                              uint8_t out[STATS_ROW]);
/* -1: damaged, or caught while it was written.  Never written reads as free;
 * a kind that is not known too.
 */
extern int stats_row_parse (const uint8_t in[STATS_ROW],
                            struct stats_row *row);
/* NAME as it stands in a row: one that is too long ends in a hash. */
extern void stats_name (const char *name, char out[STATS_NAME]);

/* --- file.c ------------------------------------------------------------------ */
/* The file of this process.  Nothing here is an error: at most a warning. */
struct stats_file {
  char *dir;
  bool told;                    /* that it cannot be made */
  int dirfd, fd;                /* -1: there is none */
  char name[32];
};
/* Make it, locked, with H and no rows. */
extern int stats_file_make (struct stats_file *f,
                            const struct stats_header *h);
/* Is it there still, under its name? */
extern bool stats_file_sound (const struct stats_file *f);
extern int stats_file_write (struct stats_file *f, uint32_t row,
                             const void *rows, size_t n);
extern int stats_file_write_header (struct stats_file *f,
                                    const struct stats_header *h);
/* Forget it; REMOVE: take it away too. */
extern void stats_file_close (struct stats_file *f, bool remove);
/* Is NAME the name of a process's file, or of one that was not finished? */
extern bool stats_file_name_ok (const char *name);
/* Open NAME of DIRFD when its process lives.  Else -1, with ENOENT, and it
 * is removed if we may; other errors are the caller's to report.
 */
extern int stats_file_open_live (int dirfd, const char *name);

/* --- stats.c ----------------------------------------------------------------- */
/* What this process counts, written now, so that it reads its own. */
extern void stats_publish_own (void);

#pragma GCC visibility pop

/* --- rows.c ---------------------------------------------------------------------- */
#define STATS_CACHE_LINE 64

struct slot {
  struct esp_stats_row row;     /* first, and in lines of its own */
  enum esp_stats_kind kind __attribute__ ((aligned (STATS_CACHE_LINE)));
  struct esp_stats *stats;
  unsigned refs;
  int number;                   /* in the file; -1: in none */
  LIST_ENTRY (slot) list;       /* of its kind */
  TAILQ_ENTRY (slot) unused;    /* refs is 0 */
  struct slot *disk;            /* CLIENT: whose counters grow too; counted */
  uint64_t added[ESP_STATS_COUNTERS];   /* to DISK */
  uint64_t written[ESP_STATS_COUNTERS];
  char *name;
};
LIST_HEAD (slots, slot);

struct ticker {
  LIST_ENTRY (ticker) list;
  esp_stats_fn fn;
  void *arg;
};

struct esp_stats {
  unsigned refs;                /* under the_lock */
  pthread_t thread;
  bool has_thread;

  pthread_mutex_t tick_lock;    /* protects what follows */
  LIST_HEAD (, ticker) tickers;
  struct stats_file file;
  struct stats_header header;
  unsigned ticks;

  pthread_mutex_t lock;         /* protects what follows */
  pthread_cond_t wake;
  bool stop;
  struct slots kinds[ESP_STATS_KINDS];
  TAILQ_HEAD (, slot) unused;
  struct slot *rows[STATS_ROWS];        /* by number */
  bool changed[STATS_ROWS];     /* to be written, whatever is in it */
  uint32_t used;                /* numbers from here were never given */
  unsigned numbered[ESP_STATS_KINDS];   /* rows that have one */
  struct slot *process;
  struct esp_stats_row nowhere; /* out of memory: counted for nobody */
};

/* A reference to a row; NULL when memory is out. */
extern struct slot *slot_get_locked (struct esp_stats *stats,
                                     enum esp_stats_kind kind,
                                     const char *name);
extern void slot_free_locked (struct esp_stats *stats, struct slot *slot);
/* What all clients counted since the last time is their disks' too. */
extern void clients_add_locked (struct esp_stats *stats);

static inline uint64_t
row_load (struct esp_stats_row *row, unsigned n)
{
  return atomic_load_explicit (&row->c[n], memory_order_relaxed);
}

#endif /* ESPALIER_STATS_INTERNAL_H */
