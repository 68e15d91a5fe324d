/* SPDX-License-Identifier: BSD-3-Clause */
/* Remotes: where an image center, or a plain image, lies.  One small
 * interface over a directory, HTTP(S) and S3: named objects that are listed,
 * read by range, put when they are not there, replaced when they did not
 * change, deleted; large ones are put in parts, which may be resumed.
 *
 *   file:///srv/images   or an absolute path: a directory, also on NFS
 *   http:// https://     read-only, needs a server that knows Range
 *   s3://BUCKET[/PREFIX][?endpoint=URL&region=R&addressing=path|virtual]
 *
 * Objects' names are relative paths of [A-Za-z0-9/._~%-] without "." or ".."
 * components, and none that begins with a dot (the remotes' own files do);
 * others are refused (EINVAL) before anything is sent.  Over HTTP and S3 the
 * name "" is the object that the URL itself names (a plain image).
 *
 * Any number of threads use one remote at once: each request takes a
 * connection of a pool and gives it back, so that connections are reused.
 * Every request ends: connect time-out, low-speed limit, retries with
 * back-off and jitter up to `retries`.  Not used across a fork.
 *
 * Errors are reported (esp_error) with the object's whole name and what
 * the server said, but never a secret; the ENOENT, EEXIST and ESTALE that
 * the callers ask for are not reported, nor is an end that the sink or the
 * flag asked for: a sink reports its own errors.  A sink must not start a
 * request of the same remote.  errno:
 *   ENOENT     no such object
 *   EEXIST     put_absent: it is there
 *   ESTALE     put_if: it changed meanwhile
 *   EROFS      a remote that cannot be written
 *   EACCES     refused (401, 403, permissions)
 *   EPROTO     answers that break the rules: a 200 to a Range, a body of
 *              another length, a content that changed between two parts
 *   ETIMEDOUT  too slow, after all retries
 *   ECANCELED  the sink or the caller's flag said so
 *   EIO        anything else: 5xx after all retries, connection refused
 */

#ifndef ESPALIER_REMOTE_H
#define ESPALIER_REMOTE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

struct esp_remote;

/* How to reach it; all zero bytes are the defaults.  Strings are copied. */
struct esp_remote_options {
  const char *ca;               /* PEM of CAs to trust, instead of the system's */
  const char *cert, *key;       /* PEM, client certificate */
  const char *proxy;            /* NULL: the environment's */
  const char *credentials;      /* a file in the form of ~/.aws/credentials;
                                 * NULL: environment, then ~/.aws */
  const char *profile;          /* in that file; NULL: $AWS_PROFILE, "default" */
  unsigned connect_timeout;     /* seconds; 0: 10 */
  unsigned timeout;             /* seconds without progress; 0: 30 */
  unsigned retries;             /* 0: 4; UINT_MAX: none */
  unsigned connections;         /* at most, to this remote; 0: 16 */
};

enum esp_remote_kind { ESP_REMOTE_DIR, ESP_REMOTE_HTTP, ESP_REMOTE_S3 };

/* Parse URL and check the options (EINVAL, reported, saying what is wrong);
 * no request is made yet.
 */
extern struct esp_remote *esp_remote_open
  (const char *url, const struct esp_remote_options *options);
extern void esp_remote_close (struct esp_remote *remote);
extern enum esp_remote_kind esp_remote_kind (const struct esp_remote *remote);
extern bool esp_remote_writable (const struct esp_remote *remote);
/* Its URL, without credentials, for messages. */
extern const char *esp_remote_url (const struct esp_remote *remote);

/* What identifies one version of an object. */
#define ESP_ETAG_MAX 128
struct esp_object {
  char etag[ESP_ETAG_MAX];      /* "" where the server has none (then
                                 * Last-Modified, else the size, stands in) */
  uint64_t size;                /* bytes of the whole object */
};

/* Ask for size and version (HEAD). */
extern int esp_remote_head (struct esp_remote *remote, const char *name,
                            struct esp_object *out);

/* Call FN for each object below PREFIX ("venues/"), by name; it returns 0 to
 * go on, -1 to stop with an error.  ENOTSUP (not reported) over HTTP.
 */
typedef int (*esp_remote_list_fn) (void *arg, const char *name,
                                   const struct esp_object *object);
extern int esp_remote_list (struct esp_remote *remote, const char *prefix,
                            esp_remote_list_fn fn, void *arg);

/* Bytes as they arrive, in order.  Returns 0, or -1 to end the request
 * (errno as the sink set it).
 */
typedef int (*esp_sink_fn) (void *arg, const void *buf, size_t len);

/* Read [OFFSET, OFFSET+LEN) into SINK.  The answer must be exactly that: 206
 * (or 200 where the range is the whole object), the right Content-Range, all
 * bytes; else EPROTO.  When a transfer breaks in the middle, the rest is
 * asked for anew, from where it broke (with If-Range semantics: another
 * version is EPROTO, "changed"); the sink never gets a byte twice.
 * EXPECT, when not NULL: its etag (if not "") and its size (if not 0) must be
 * the object's.  CANCEL, when not NULL: ends the request soon after it is set.
 * OUT may be NULL.
 */
struct esp_get {
  uint64_t offset, len;
  const struct esp_object *expect;
  const atomic_bool *cancel;
  esp_sink_fn sink;
  void *arg;
  struct esp_object *out;
  bool gently;                  /* background: small receive buffer, so that
                                 * a sink that waits stops the sender */
  bool once;                    /* no retries: the caller has other sources */
};
extern int esp_remote_get (struct esp_remote *remote, const char *name,
                           const struct esp_get *get);

/* The whole of a small object, at most MAX bytes (EFBIG), malloced, with a
 * NUL behind it; the caller frees it.
 */
extern void *esp_remote_get_all (struct esp_remote *remote, const char *name,
                                 size_t max, size_t *len,
                                 struct esp_object *out);

/* Put a small object: only where there is none; only where it still is
 * VERSION; whatever is there.  Durable when they return 0.  OUT may be NULL.
 * A remote whose server ignores conditions (probed once, with an object
 * that is removed again) is refused for the first two: ENOTSUP.
 */
extern int esp_remote_put_absent (struct esp_remote *remote,
                                  const char *name, const void *buf,
                                  size_t len, struct esp_object *out);
extern int esp_remote_put_if (struct esp_remote *remote, const char *name,
                              const struct esp_object *version,
                              const void *buf, size_t len,
                              struct esp_object *out);
extern int esp_remote_put (struct esp_remote *remote, const char *name,
                           const void *buf, size_t len,
                           struct esp_object *out);
/* No error where it is not there. */
extern int esp_remote_delete (struct esp_remote *remote, const char *name);

/* --- large objects in parts ------------------------------------------ */
/* Parts are numbered from 1 and at least 5 MiB, but the last; they may be
 * put by several threads at once, again after a failure, and by another
 * process that knows ID.  Nothing of the object is visible before
 * esp_remote_parts_end.
 */
#define ESP_PART_MIN (5u << 20)
#define ESP_UPLOAD_ID_MAX 1024

struct esp_part {
  unsigned number;
  uint64_t size;
  char etag[ESP_ETAG_MAX];
};

extern int esp_remote_parts_begin (struct esp_remote *remote,
                                   const char *name,
                                   char id[ESP_UPLOAD_ID_MAX]);
/* Fills *PART. */
extern int esp_remote_parts_put (struct esp_remote *remote, const char *name,
                                 const char *id, unsigned number,
                                 const void *buf, size_t len,
                                 struct esp_part *part);
/* What is there of ID: is every one of PARTS still there as it was?  1, 0
 * (also when the upload is gone), -1.
 */
extern int esp_remote_parts_check (struct esp_remote *remote,
                                   const char *name, const char *id,
                                   const struct esp_part *parts,
                                   unsigned nparts);
/* Make the object of PARTS, in order, where there is none (EEXIST). */
extern int esp_remote_parts_end (struct esp_remote *remote, const char *name,
                                 const char *id,
                                 const struct esp_part *parts,
                                 unsigned nparts, struct esp_object *out);
extern int esp_remote_parts_abort (struct esp_remote *remote,
                                   const char *name, const char *id);

/* --- what was begun and not ended -------------------------------------- */
/* Uploads in parts that nobody ended, and a directory's files that nobody
 * finished writing: what interrupted pushes left.
 */
struct esp_upload {
  char *name;                   /* of the object; "" where that is not known */
  char *id;                     /* of esp_remote_parts_begin; of a directory
                                 * the path below it */
  uint64_t changed;             /* seconds since the epoch: the last time that
                                 * something of it was written */
  uint64_t bytes;               /* that lie there */
};
struct esp_upload_list { struct esp_upload *u; size_t n; };
extern void esp_upload_list_clear (struct esp_upload_list *list);
#define CLEANUP_UPLOAD_LIST __attribute__ ((cleanup (esp_upload_list_clear)))

/* Those of which nothing was written for IDLE seconds, in no order.  ENOTSUP,
 * not reported, over HTTP.
 */
extern int esp_remote_uploads (struct esp_remote *remote, uint64_t idle,
                               struct esp_upload_list *out);
/* Remove one, if nothing of it was written meanwhile: 1; 0 if something was,
 * or it is gone; or -1.
 */
extern int esp_remote_uploads_remove (struct esp_remote *remote,
                                      const struct esp_upload *upload);

/* Live counters, since it was opened (for `center check`, stats, tests). */
struct esp_remote_counters {
  uint64_t requests, retries, errors, bytes_in, bytes_out;
};
extern void esp_remote_counters (const struct esp_remote *remote,
                                 struct esp_remote_counters *out);

#pragma GCC visibility pop
#endif /* ESPALIER_REMOTE_H */
