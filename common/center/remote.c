/* SPDX-License-Identifier: BSD-3-Clause */
/* Remotes: the functions of the contract.  Each fills an esp_op;
 * remote-try.c makes it happen.
 */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "center/remote-internal.h"

static int
copy_string (char **to, const char *from)
{
  *to = from ? strdup (from) : NULL;
  return from && !*to ? -1 : 0;
}

static unsigned
or_default (unsigned value, unsigned dflt)
{
  return value ? value : dflt;
}

static int
copy_options (struct esp_remote *r, const struct esp_remote_options *o)
{
  static const struct esp_remote_options none;

  if (!o)
    o = &none;
  r->connect_timeout = or_default (o->connect_timeout, 10);
  r->timeout = or_default (o->timeout, 30);
  r->retries = o->retries == UINT_MAX ? 0 : or_default (o->retries, 4);
  r->connections = or_default (o->connections, 16);
  if (copy_string (&r->ca, o->ca) < 0 || copy_string (&r->cert, o->cert) < 0
      || copy_string (&r->key, o->key) < 0
      || copy_string (&r->proxy, o->proxy) < 0
      || copy_string (&r->credentials, o->credentials) < 0
      || copy_string (&r->profile, o->profile) < 0) {
    esp_error ("malloc: %m");
    return -1;
  }
  return 0;
}

static int
bad_option (const char *text, const char *value)
{
  esp_error ("%s%s", text, value);
  errno = EINVAL;
  return -1;
}

static int
check_file (const char *what, const char *file)
{
  if (!file || access (file, R_OK) == 0)
    return 0;
  esp_error ("%s: %s: %m", what, file);
  errno = EINVAL;
  return -1;
}

static int
check_options (const struct esp_remote *r)
{
  if (r->key && !r->cert)
    return bad_option ("a client's key needs its certificate, too: ", r->key);
  if (r->connections > 1024)
    return bad_option ("at most 1024 connections to one remote", "");
  if (r->timeout > 86400 || r->connect_timeout > 86400 || r->retries > 1000)
    return bad_option ("time-outs end at a day, retries at 1000", "");
  if (check_file ("certificates of authorities", r->ca) < 0
      || check_file ("client certificate", r->cert) < 0
      || check_file ("client key", r->key) < 0
      || check_file ("credentials", r->credentials) < 0)
    return -1;
  return 0;
}

static void
init_curl (void)
{
  curl_global_init (CURL_GLOBAL_DEFAULT);
}

ESP_DEFINE_CLEANUP (remote, struct esp_remote *, esp_remote_close)

struct esp_remote *
esp_remote_open (const char *url, const struct esp_remote_options *options)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  ESP_CLEANUP (remote) struct esp_remote *r = calloc (1, sizeof *r);

  pthread_once (&once, init_curl);
  if (!r) {
    esp_error ("malloc: %m");
    return NULL;
  }
  pthread_mutex_init (&r->s3.lock, NULL);
  pthread_mutex_init (&r->s3.probing, NULL);
  if (copy_options (r, options) < 0 || check_options (r) < 0
      || esp_remote_parse (r, url) < 0)
    return NULL;
  if (r->driver->kind == ESP_REMOTE_S3
      && esp_s3_credentials_load (r->credentials, r->profile,
                                  &r->s3.credentials) < 0)
    return NULL;
  if (r->driver->kind != ESP_REMOTE_DIR) {
    esp_pool_init (&r->pool, r->connections);
    r->pooled = true;
  }
  return ESP_STEAL (r);
}

void
esp_remote_close (struct esp_remote *r)
{
  if (!r)
    return;
  if (r->pooled)
    esp_pool_destroy (&r->pool);
  pthread_mutex_destroy (&r->s3.lock);
  pthread_mutex_destroy (&r->s3.probing);
  esp_s3_credentials_clear (&r->s3.credentials);
  char *strings[] = {
    r->url, r->base, r->path, r->ca, r->cert, r->key, r->proxy,
    r->credentials, r->profile, r->s3.bucket, r->s3.prefix, r->s3.region,
    r->s3.root, r->s3.sigv4
  };
  for (size_t i = 0; i < sizeof strings / sizeof *strings; ++i)
    free (strings[i]);
  free (r);
}

enum esp_remote_kind
esp_remote_kind (const struct esp_remote *r)
{
  return r->driver->kind;
}

bool
esp_remote_writable (const struct esp_remote *r)
{
  return r->driver->attempt[ESP_VERB_PUT] != NULL;
}

const char *
esp_remote_url (const struct esp_remote *r)
{
  return r->url;
}

/* Run OP and hand its version out. */
static int
start_out (struct esp_remote *r, struct esp_op *op, struct esp_object *out)
{
  int e = esp_op_run (r, op);

  if (e == 0 && out)
    *out = op->out;
  return e;
}

int
esp_remote_head (struct esp_remote *r, const char *name,
                 struct esp_object *out)
{
  struct esp_op op = { .verb = ESP_VERB_HEAD, .name = name };

  return start_out (r, &op, out);
}

int
esp_op_entry (struct esp_op *op, const char *name,
              const struct esp_object *object)
{
  if (op->nentries == op->capentries) {
    size_t cap = op->capentries ? op->capentries * 2 : 64;
    struct esp_entry *p = reallocarray (op->entries, cap, sizeof *p);
    if (!p)
      return -1;
    op->entries = p;
    op->capentries = cap;
  }
  struct esp_entry *e = &op->entries[op->nentries];
  e->name = strdup (name);
  e->object = *object;
  return e->name ? (op->nentries++, 0) : -1;
}

static void
clear_list (struct esp_op *op)
{
  int saved = errno;

  while (op->nentries)
    free (op->entries[--op->nentries].name);
  free (op->entries);
  op->entries = NULL;
  op->capentries = 0;
  errno = saved;
}

/* One page; OP's token leads to the next. */
static int
list_page (struct esp_remote *r, struct esp_op *op, esp_remote_list_fn fn,
           void *arg)
{
  int e = esp_op_run (r, op);

  for (size_t i = 0; e == 0 && i < op->nentries; ++i)
    e = fn (arg, op->entries[i].name, &op->entries[i].object);
  clear_list (op);
  return e;
}

int
esp_remote_list (struct esp_remote *r, const char *prefix,
                 esp_remote_list_fn fn, void *arg)
{
  CLEANUP_FREE char *token = NULL;

  do {
    struct esp_op op = { .verb = ESP_VERB_LIST, .name = prefix,
                         .token = token };
    int e = list_page (r, &op, fn, arg);
    token = op.token;
    if (e < 0)
      return -1;
  } while (token);
  return 0;
}

int
esp_remote_get (struct esp_remote *r, const char *name,
                const struct esp_get *get)
{
  struct esp_op op = {
    .verb = ESP_VERB_GET, .name = name, .offset = get->offset,
    .len = get->len, .expect = get->expect, .cancel = get->cancel,
    .sink = get->sink, .arg = get->arg, .gently = get->gently,
    .once = get->once,
  };

  if (get->len > UINT64_MAX - get->offset) {
    esp_error ("%s/%s: no object is so large", r->base, name);
    errno = EINVAL;
    return -1;
  }
  if (get->len == 0)            /* there is no range without bytes */
    return esp_remote_head (r, name, get->out);
  return start_out (r, &op, get->out);
}

/* A sink that keeps everything. */
struct keep {
  char *buf;
  size_t n, cap;
};

static int
keep_bytes (void *arg, const void *buf, size_t len)
{
  struct keep *k = arg;

  if (k->cap - k->n < len + 1) {
    size_t cap = (k->n + len) * 2 + 4096;
    char *p = realloc (k->buf, cap);
    if (!p) {
      esp_error ("malloc: %m");
      return -1;
    }
    k->buf = p;
    k->cap = cap;
  }
  memcpy (k->buf + k->n, buf, len);
  k->n += len;
  return 0;
}

void *
esp_remote_get_all (struct esp_remote *r, const char *name, size_t max,
                    size_t *len, struct esp_object *out)
{
  struct keep k = { 0 };
  struct esp_op op = {
    .verb = ESP_VERB_GET, .name = name, .whole = true, .max = max,
    .sink = keep_bytes, .arg = &k,
  };

  if (start_out (r, &op, out) < 0 || (!k.buf && keep_bytes (&k, "", 0) < 0)) {
    int saved = errno;
    free (k.buf);
    errno = saved;
    return NULL;
  }
  k.buf[k.n] = 0;
  *len = k.n;
  return k.buf;
}

static int
put (struct esp_remote *r, const char *name, enum esp_put_mode mode,
     const struct esp_object *version, const void *buf, size_t len,
     struct esp_object *out)
{
  struct esp_op op = {
    .verb = ESP_VERB_PUT, .name = name, .mode = mode, .version = version,
    .buf = buf, .size = len,
  };

  return start_out (r, &op, out);
}

int
esp_remote_put_absent (struct esp_remote *r, const char *name,
                       const void *buf, size_t len, struct esp_object *out)
{
  return put (r, name, ESP_PUT_ABSENT, NULL, buf, len, out);
}

int
esp_remote_put_if (struct esp_remote *r, const char *name,
                   const struct esp_object *version, const void *buf,
                   size_t len, struct esp_object *out)
{
  return put (r, name, ESP_PUT_IF, version, buf, len, out);
}

int
esp_remote_put (struct esp_remote *r, const char *name, const void *buf,
                size_t len, struct esp_object *out)
{
  return put (r, name, ESP_PUT_ALWAYS, NULL, buf, len, out);
}

int
esp_remote_delete (struct esp_remote *r, const char *name)
{
  struct esp_op op = { .verb = ESP_VERB_DELETE, .name = name };

  return esp_op_run (r, &op);
}

int
esp_remote_parts_begin (struct esp_remote *r, const char *name,
                        char id[ESP_UPLOAD_ID_MAX])
{
  struct esp_op op = { .verb = ESP_VERB_BEGIN, .name = name, .id_out = id };

  return esp_op_run (r, &op);
}

int
esp_remote_parts_put (struct esp_remote *r, const char *name, const char *id,
                      unsigned number, const void *buf, size_t len,
                      struct esp_part *part)
{
  struct esp_op op = {
    .verb = ESP_VERB_PART, .name = name, .id = id, .number = number,
    .buf = buf, .size = len, .part = part,
  };

  if (number < 1 || number > 10000) {
    esp_error ("%s/%s: part %u: parts are numbered from 1 to 10000", r->base,
               name, number);
    errno = EINVAL;
    return -1;
  }
  part->number = number;
  part->size = len;
  return esp_op_run (r, &op);
}

int
esp_remote_parts_check (struct esp_remote *r, const char *name,
                        const char *id, const struct esp_part *parts,
                        unsigned nparts)
{
  struct esp_op op = {
    .verb = ESP_VERB_CHECK, .name = name, .id = id, .parts = parts,
    .nparts = nparts,
  };

  if (esp_op_run (r, &op) < 0)
    return errno == ENOENT ? 0 : -1;
  return op.intact;
}

int
esp_remote_parts_end (struct esp_remote *r, const char *name, const char *id,
                      const struct esp_part *parts, unsigned nparts,
                      struct esp_object *out)
{
  struct esp_op op = {
    .verb = ESP_VERB_END, .name = name, .id = id, .parts = parts,
    .nparts = nparts,
  };

  return start_out (r, &op, out);
}

int
esp_remote_parts_abort (struct esp_remote *r, const char *name,
                        const char *id)
{
  struct esp_op op = { .verb = ESP_VERB_ABORT, .name = name, .id = id };

  return esp_op_run (r, &op);
}

void
esp_remote_counters (const struct esp_remote *r,
                     struct esp_remote_counters *out)
{
  out->requests = atomic_load (&r->requests);
  out->retries = atomic_load (&r->retried);
  out->errors = atomic_load (&r->errors);
  out->bytes_in = atomic_load (&r->bytes_in);
  out->bytes_out = atomic_load (&r->bytes_out);
}
