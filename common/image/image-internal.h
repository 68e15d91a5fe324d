/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files that implement image/source.h share. */

#ifndef ESPALIER_IMAGE_INTERNAL_H
#define ESPALIER_IMAGE_INTERNAL_H

#include <sys/stat.h>

#include "image/detect.h"
#include "image/source.h"
#include "util/cleanup.h"

#define ESP_READ_BYTES (UINT64_C (1) << 20)   /* of one request */

struct nbd_handle;

struct esp_image_source {
  char *path;                   /* for messages */
  char format[16];
  uint64_t size;
  struct stat st;               /* as it was when it was opened */
  int fd;                       /* of the file */
  struct esp_image *image;      /* a restore point instead */
  struct esp_server *server;    /* qemu-nbd, for formats that are not raw */
};

/* One walk from beginning to end, kept by each kind of source: how far it
 * is, and runs joined so that each that FN sees begins and ends at a block
 * (or at the end of the image).
 */
struct esp_walk {
  struct esp_image_source *source;
  esp_source_fn fn;
  void *arg;
  esp_progress_fn progress;
  void *parg;
  uint64_t told;                /* bytes done at the last progress call */
};

/* Hand on a run; tell the progress every now and then.  BUF NULL: zero. */
extern int esp_walk_run (struct esp_walk *w, uint64_t offset, uint64_t len,
                         const void *buf);

/* --- nbd.c: qemu-nbd as a child, spoken to by libnbd ------------------- */
struct esp_server;
/* Serve PATH of FORMAT; WRITABLE or not.  Errors end in qemu-nbd's words. */
extern struct esp_server *esp_server_start (const char *path,
                                            const char *format,
                                            bool writable);
extern uint64_t esp_server_size (struct esp_server *server);
/* Read all of it through W. */
extern int esp_server_read (struct esp_server *server, struct esp_walk *w);
/* Write LEN (at most ESP_READ_BYTES) bytes of BUF, which is copied; several
 * writes are under way at once.  _flush waits for all and flushes.
 */
extern int esp_server_write (struct esp_server *server, const void *buf,
                             uint64_t len, uint64_t offset);
extern int esp_server_flush (struct esp_server *server);
extern void esp_server_stop (struct esp_server *server);
ESP_DEFINE_CLEANUP (server, struct esp_server *, esp_server_stop)

/* --- run.c -------------------------------------------------------------- */
/* Run ARGV (found in PATH), wait for it.  What it prints goes to *TEXT
 * (malloced; NULL: not wanted; stderr too when ERRORS is true).  Returns its
 * exit status, 127 when there is no such program; -1 with errno, reported.
 */
extern int esp_run (const char *const *argv, bool errors, char **text);
/* The first line of TEXT, without "PROGRAM: " before it, in place. */
extern char *esp_first_line (char *text);
/* The path as qemu takes it for a file whatever it contains; malloced. */
extern char *esp_qemu_path (const char *path);

/* Is the whole of BUF zero? */
extern bool esp_is_zero (const void *buf, uint64_t len);

#endif /* ESPALIER_IMAGE_INTERNAL_H */
