/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside live counters: the file of a process (docs/formats.md, "Live
 * counters"), and what the files of this directory share.
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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
/* The file of this process.  All report at most a debug message. */
struct stats_file {
  char *dir;
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
#endif /* ESPALIER_STATS_INTERNAL_H */
