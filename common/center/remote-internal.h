/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of remotes share (remote.h has the contract).
 *
 * remote.c checks arguments, tries, waits and tries again, counts, and is
 * the only one that reports errors.  A driver (dir.c, http.c, s3.c) makes
 * one try of one operation: it returns 0, or -1 with the try's outcome
 * filled in.  http-call.c makes one HTTP request over a connection of the
 * pool in http-pool.c.
 */

#ifndef ESPALIER_REMOTE_INTERNAL_H
#define ESPALIER_REMOTE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

#include "center/remote.h"
#include "util/cleanup.h"
#include "util/host.h"

/* How one try ended, when it failed. */
struct esp_try {
  int err;                      /* errno for the caller */
  bool again;                   /* another try may go better */
  bool quiet;                   /* is not reported (again) */
  unsigned after;               /* seconds: not before, says the server */
  char why[512];                /* for people */
};

/* Fill T and return -1: a failure for good, or one to try again. */
extern int esp_try_fail (struct esp_try *t, int err, const char *fmt, ...)
  ESP_PRINTF (3, 4);
extern int esp_try_again (struct esp_try *t, int err, const char *fmt, ...)
  ESP_PRINTF (3, 4);
/* One that the caller asked for, or reported himself. */
extern int esp_try_quiet (struct esp_try *t, int err);
/* From errno, after a system call. */
extern int esp_try_errno (struct esp_try *t, const char *what);

enum esp_verb {
  ESP_VERB_HEAD, ESP_VERB_LIST, ESP_VERB_GET, ESP_VERB_PUT, ESP_VERB_DELETE,
  ESP_VERB_BEGIN, ESP_VERB_PART, ESP_VERB_CHECK, ESP_VERB_END,
  ESP_VERB_ABORT, ESP_VERB_UPLOADS, ESP_VERB_LOOK, ESP_VERB_REMOVE,
  ESP_VERBS
};
enum esp_put_mode { ESP_PUT_ALWAYS, ESP_PUT_ABSENT, ESP_PUT_IF };

/* One entry of a list. */
struct esp_entry {
  char *name;
  struct esp_object object;
};

/* One operation, through all its tries. */
struct esp_op {
  enum esp_verb verb;
  const char *name;             /* for LIST: the prefix */
  unsigned tries;               /* that failed before this one */
  bool once;
  const atomic_bool *cancel;
  struct esp_object out;

  /* GET.  A whole object (WHOLE) has no range and at most MAX bytes. */
  uint64_t offset, len;
  bool whole, gently;
  size_t max;
  const struct esp_object *expect;
  esp_sink_fn sink;
  void *arg;
  uint64_t done;                /* bytes that the sink has */
  bool known;                   /* OUT is that of an earlier answer */

  /* PUT, PART */
  const void *buf;
  size_t size;
  enum esp_put_mode mode;
  const struct esp_object *version;

  /* LIST: a page; TOKEN, malloced, where there is more */
  struct esp_entry *entries;
  size_t nentries, capentries;
  char *token;

  /* parts */
  char *id_out;                 /* BEGIN: ESP_UPLOAD_ID_MAX bytes */
  const char *id;
  unsigned number;
  struct esp_part *part;
  const struct esp_part *parts;
  unsigned nparts;
  bool intact;                  /* CHECK */

  /* UPLOADS: a page, and the place of the next, malloced, "" where it begins;
   * LOOK fills UPLOAD's changed and bytes; REMOVE
   */
  struct esp_upload_list uploads;
  char *next_name, *next_id;
  struct esp_upload *upload;
};

/* Add an entry to OP's page; 0, or -1 with errno. */
extern int esp_op_entry (struct esp_op *op, const char *name,
                         const struct esp_object *object);

/* Add an upload (begun at CHANGED) to OP's page; 0, or -1 with errno. */
extern int esp_op_upload (struct esp_op *op, const char *name, const char *id,
                          uint64_t changed);

/* Check OP's name, let the driver try, report what fails for good. */
extern int esp_op_run (struct esp_remote *r, struct esp_op *op);

/* May NAME be an object's, PREFIX a list's?  Report nothing. */
#pragma GCC visibility push(default)  /* for tests */
extern bool esp_object_name_ok (const char *name);
extern bool esp_object_prefix_ok (const char *prefix);
#pragma GCC visibility pop

typedef int (*esp_attempt_fn) (struct esp_remote *r, struct esp_op *op,
                               struct esp_try *t);
struct esp_driver {
  enum esp_remote_kind kind;
  esp_attempt_fn attempt[ESP_VERBS];    /* NULL: it cannot */
};
extern const struct esp_driver esp_dir_driver;
extern const struct esp_driver esp_http_driver;
extern const struct esp_driver esp_s3_driver;

/* --- connections (http-pool.c) ---------------------------------------- */
/* A connection is an easy handle in a multi handle of its own, so that the
 * thread that waits for it can also look at the caller's flag.
 */
struct esp_conn {
  CURL *easy;
  CURLM *multi;
  bool gently;
  struct esp_conn *next;
};

struct esp_pool {
  pthread_mutex_t lock;         /* all below */
  pthread_cond_t freed[2];      /* [gently], and who waits for it */
  unsigned waiting[2];
  struct esp_conn *idle[2];     /* last used first; [gently] */
  unsigned total, gentle;       /* that exist; of them gentle */
  unsigned max;
};
extern int esp_pool_init (struct esp_pool *pool, unsigned max);
extern void esp_pool_destroy (struct esp_pool *pool);
/* Wait for a connection; NULL with errno (ECANCELED, ENOMEM). */
extern struct esp_conn *esp_pool_take (struct esp_pool *pool, bool gently,
                                       const atomic_bool *cancel);
extern void esp_pool_give (struct esp_pool *pool, struct esp_conn *conn);

/* --- the remote ------------------------------------------------------- */
struct esp_s3_credentials {
  char *access, *secret, *token;        /* access NULL: none, unsigned */
};
#pragma GCC visibility push(default)  /* for tests */
extern void esp_s3_credentials_clear (struct esp_s3_credentials *c);
/* From the file and profile of the options, the environment, ~/.aws.
 * Reports one error; finding none is none.
 */
extern int esp_s3_credentials_load (const char *file, const char *profile,
                                    struct esp_s3_credentials *out);
#pragma GCC visibility pop

struct esp_s3 {
  char *bucket, *prefix, *region;       /* prefix "" or without slashes at
                                         * its ends */
  char *root;                   /* URL of the bucket, no slash at its end */
  char *sigv4;                  /* curl's words: aws:amz:REGION:s3 */
  pthread_mutex_t lock;         /* credentials */
  struct esp_s3_credentials credentials;
  pthread_mutex_t probing;      /* conditions; held during the probe */
  enum { ESP_COND_UNKNOWN, ESP_COND_QUOTED, ESP_COND_PLAIN,
         ESP_COND_NONE } conditions;
};

struct esp_remote {
  const struct esp_driver *driver;
  char *url;                    /* as given; it has no credentials */
  char *base;                   /* object names in messages begin with it */
  char *path;                   /* dir: the directory */
  struct esp_pool pool;         /* http, s3 */
  bool pooled;
  struct esp_s3 s3;
  char *ca, *cert, *key, *proxy, *credentials, *profile;
  unsigned connect_timeout, timeout, retries, connections;
  atomic_uint_fast64_t requests, retried, errors, bytes_in, bytes_out;
};

/* Fill R's places from URL (remote-url.c).  EINVAL, reported. */
extern int esp_remote_parse (struct esp_remote *r, const char *url);

/* --- one HTTP request (http-call.c) ------------------------------------ */
struct esp_reply {
  long status;
  char etag[ESP_ETAG_MAX];      /* as sent */
  char modified[64];
  int64_t length;               /* Content-Length, or -1 */
  bool chunked;
  bool ranged;                  /* Content-Range was there, and makes sense: */
  uint64_t first, last, total;
  unsigned after;               /* Retry-After, seconds */
  char *text;                   /* the body, where no on_body takes it; with
                                 * a NUL */
  size_t ntext;
};

struct esp_call {
  struct esp_remote *r;
  struct esp_try *t;
  const char *method;
  char *url;                    /* freed by esp_call_clear, like all below */
  struct curl_slist *headers;
  const void *body;             /* NULL: none; not freed */
  size_t nbody;
  bool ranged;
  uint64_t first, last;
  const atomic_bool *cancel;
  bool gently, follow, sign;
  unsigned patience;            /* times the time-out; 0: 1 */
  /* Called once the headers of a 2xx are there; -1 with T filled ends it. */
  int (*on_headers) (struct esp_call *c);
  /* The body of a 2xx; without it, it is kept in the reply's text. */
  int (*on_body) (struct esp_call *c, const void *buf, size_t len);
  struct esp_op *op;            /* for the two */
  struct esp_reply reply;
  bool stopped;                 /* one of the two filled T */
};
extern void esp_call_clear (struct esp_call *c);
#define CLEANUP_CALL __attribute__ ((cleanup (esp_call_clear)))
/* 0 when there is an answer, whatever its status; else -1 with T filled. */
extern int esp_call_run (struct esp_call *c);
/* Add a header, "Name: value"; 0, or -1 with T filled. */
extern int esp_call_header (struct esp_call *c, const char *fmt, ...)
  ESP_PRINTF (2, 3);
/* The failure that a status stands for; DETAIL may be "". */
extern int esp_call_status (struct esp_call *c, const char *detail);
/* The version that the reply's headers tell, without its size. */
extern void esp_reply_version (const struct esp_reply *reply, char *etag);

/* BASE/NAME as a URL, malloced (http.c). */
extern char *esp_http_url (const char *base, const char *name);
/* GET and HEAD by a call that is filled but for what they need (http.c). */
extern int esp_http_get (struct esp_call *c, struct esp_op *op);
extern int esp_http_head (struct esp_call *c, struct esp_op *op);

/* --- S3 ----------------------------------------------------------------- */
/* Begin C: the object NAME's URL with QUERY ("" or "?..."), the headers that
 * are signed.  C->body and C->method are set before.
 */
extern int esp_s3_begin (struct esp_call *c, const char *name,
                         const char *query);
/* Run it; a status that is not 2xx fails with what the XML says. */
extern int esp_s3_run (struct esp_call *c);
/* The Code of an error's XML, "" if there is none. */
extern void esp_s3_code (const struct esp_reply *reply, char *code,
                         size_t size);
extern int esp_s3_list (struct esp_remote *r, struct esp_op *op,
                        struct esp_try *t);
extern int esp_s3_put (struct esp_remote *r, struct esp_op *op,
                       struct esp_try *t);
extern int esp_s3_head (struct esp_remote *r, struct esp_op *op,
                        struct esp_try *t);
extern int esp_s3_parts_begin (struct esp_remote *r, struct esp_op *op,
                               struct esp_try *t);
extern int esp_s3_parts_put (struct esp_remote *r, struct esp_op *op,
                             struct esp_try *t);
extern int esp_s3_parts_check (struct esp_remote *r, struct esp_op *op,
                               struct esp_try *t);
extern int esp_s3_parts_end (struct esp_remote *r, struct esp_op *op,
                             struct esp_try *t);
extern int esp_s3_parts_abort (struct esp_remote *r, struct esp_op *op,
                               struct esp_try *t);
extern int esp_s3_uploads (struct esp_remote *r, struct esp_op *op,
                           struct esp_try *t);
extern int esp_s3_uploads_look (struct esp_remote *r, struct esp_op *op,
                                struct esp_try *t);
extern int esp_s3_uploads_remove (struct esp_remote *r, struct esp_op *op,
                                  struct esp_try *t);
/* Begin C, of the upload OP->id of OP->name, with the QUERY of
 * esp_s3_upload_query, which it frees: "?uploadId=ID" behind what FMT says.
 */
extern int esp_s3_upload_begin (struct esp_call *c, const struct esp_op *op,
                                char *query);
extern char *esp_s3_upload_query (const char *id, const char *fmt, ...)
  ESP_PRINTF (2, 3);

/* Replace *TO by a copy of TEXT; 0, or -1 with T filled. */
extern int esp_xml_copy (struct esp_try *t, char **to, const char *text);
/* Call FN for each element of the XML text at its end, with the text that it
 * held itself and how deep it lies (the root: 1).  -1 with T filled when it
 * is no XML, or FN returns -1 with T filled.
 */
typedef int (*esp_xml_fn) (void *arg, const char *element, const char *text,
                           unsigned depth);
#pragma GCC visibility push(default)  /* for tests */
extern int esp_xml_each (const char *text, size_t len, esp_xml_fn fn,
                         void *arg, struct esp_try *t);
#pragma GCC visibility pop
/* One page of a list of the bucket: FN gets its elements.  QUERY NULL: out
 * of memory.
 */
extern int esp_s3_page (struct esp_remote *r, const char *query,
                        esp_xml_fn fn, void *arg, struct esp_try *t);

/* --- directories --------------------------------------------------------- */
extern int esp_dir_parts_begin (struct esp_remote *r, struct esp_op *op,
                                struct esp_try *t);
extern int esp_dir_parts_put (struct esp_remote *r, struct esp_op *op,
                              struct esp_try *t);
extern int esp_dir_parts_check (struct esp_remote *r, struct esp_op *op,
                                struct esp_try *t);
extern int esp_dir_parts_end (struct esp_remote *r, struct esp_op *op,
                              struct esp_try *t);
extern int esp_dir_parts_abort (struct esp_remote *r, struct esp_op *op,
                                struct esp_try *t);
extern int esp_dir_uploads (struct esp_remote *r, struct esp_op *op,
                            struct esp_try *t);
extern int esp_dir_uploads_look (struct esp_remote *r, struct esp_op *op,
                                 struct esp_try *t);
extern int esp_dir_uploads_remove (struct esp_remote *r, struct esp_op *op,
                                   struct esp_try *t);
#define ESP_DIR_TMP ".tmp"
#define ESP_DIR_UPLOADS ".uploads"
struct stat;
extern void esp_dir_object (const struct stat *st, struct esp_object *out);
/* The remote's directory, and one below it by a relative path ("" is the
 * directory itself), never through a symbolic link; MAKE: where it is not
 * there, durably.  A descriptor, or -1 with T filled.
 */
extern int esp_dir_root (struct esp_remote *r, struct esp_try *t);
extern int esp_dir_open (int root, const char *path, bool make,
                         struct esp_try *t);
/* The directory of NAME; *BASE is NAME's last component. */
extern int esp_dir_parent (int root, const char *name, bool make,
                           const char **base, struct esp_try *t);
/* The center's lock; it ends with the descriptor. */
extern int esp_dir_lock (struct esp_remote *r, int dirfd, const char *name,
                         struct esp_try *t);
/* Give the synced file FROM in FROMFD the name NAME where there is none:
 * EEXIST.  Durable.
 */
extern int esp_dir_link (struct esp_remote *r, int root, int fromfd,
                         const char *from, const char *name,
                         struct esp_try *t);

#endif /* ESPALIER_REMOTE_INTERNAL_H */
