/* SPDX-License-Identifier: BSD-3-Clause */
/* S3: signed requests, errors, reading, conditional puts.
 *
 * libcurl signs (SigV4): it takes the path and the query as they are, so
 * names have only characters that need no escaping but '%', and queries are
 * written in order.  The SHA-256 of each body goes along, so that the server
 * notices one that was damaged on the way.
 *
 * Conditions: a store that does not know If-None-Match or If-Match ignores
 * them, and two servers would overwrite each other.  So before the first
 * conditional put an object is put, which must then be refused where it
 * should and accepted where it should, and is removed again.  Ceph compares
 * If-Match with the ETag without its quotes, which the probe finds out, too.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/evp.h>

#include "center/remote-internal.h"
#include "util/file.h"

/* --- requests --------------------------------------------------------------- */

static int
add_body_hash (struct esp_call *c)
{
  unsigned char digest[32];
  char hex[65];

  if (EVP_Digest (c->body ? c->body : "", c->nbody, digest, NULL,
                  EVP_sha256 (), NULL) != 1)
    return esp_try_fail (c->t, EIO, "SHA-256 failed");
  for (unsigned i = 0; i < sizeof digest; ++i)
    snprintf (hex + i * 2, 3, "%02x", digest[i]);
  return esp_call_header (c, "x-amz-content-sha256: %s", hex);
}

static int
add_credentials (struct esp_call *c)
{
  struct esp_s3 *s = &c->r->s3;
  ESP_LOCK_SCOPE (&s->lock);

  c->sign = s->credentials.access != NULL;
  if (s->credentials.token)
    return esp_call_header (c, "x-amz-security-token: %s",
                            s->credentials.token);
  return 0;
}

int
esp_s3_begin (struct esp_call *c, const char *name, const char *query)
{
  const struct esp_s3 *s = &c->r->s3;
  CLEANUP_FREE char *key =
    esp_asprintf ("%s%s%s", name ? s->prefix : "",
                  name && *s->prefix && *name ? "/" : "", name ? name : "");
  CLEANUP_FREE char *path = key ? esp_http_url (s->root, key) : NULL;

  if (path)
    c->url = esp_asprintf ("%s%s%s", path, *key ? "" : "/", query);
  if (!c->url)
    return esp_try_fail (c->t, ENOMEM, "malloc: %m");
  if (add_body_hash (c) < 0 || add_credentials (c) < 0)
    return -1;
  if (!c->body)
    return 0;
  return esp_call_header (c, "Content-Type: application/octet-stream");
}

/* --- errors ----------------------------------------------------------------- */

struct s3_error {
  char code[64], message[300];
};

static int
error_element (void *arg, const char *element, const char *text,
               unsigned depth)
{
  struct s3_error *e = arg;

  if (depth != 2)
    return 0;
  if (strcmp (element, "Code") == 0)
    snprintf (e->code, sizeof e->code, "%.60s", text);
  else if (strcmp (element, "Message") == 0)
    snprintf (e->message, sizeof e->message, "%.290s", text);
  return 0;
}

static void
read_error (const struct esp_reply *reply, struct s3_error *e)
{
  struct esp_try ignored;

  memset (e, 0, sizeof *e);
  /* Not every error is XML: a proxy's, one that was cut. */
  if (reply->ntext)
    esp_xml_each (reply->text, reply->ntext, error_element, e, &ignored);
}

void
esp_s3_code (const struct esp_reply *reply, char *code, size_t size)
{
  struct s3_error e;

  read_error (reply, &e);
  snprintf (code, size, "%s", e.code);
}

static bool
is_one_of (const char *s, const char *const *list)
{
  for (; *list; ++list)
    if (strcmp (s, *list) == 0)
      return true;
  return false;
}

/* New temporary credentials may stand in the file by now. */
static int
renew_credentials (struct esp_call *c, const struct s3_error *e)
{
  struct esp_remote *r = c->r;
  struct esp_s3_credentials fresh = { 0 };
  char caught[300] = "";
  struct esp_catch before = esp_catch_begin (caught, sizeof caught);
  int got = esp_s3_credentials_load (r->credentials, r->profile, &fresh);

  esp_catch_end (before);
  if (got == 0) {
    ESP_LOCK_SCOPE (&r->s3.lock);
    struct esp_s3_credentials old = r->s3.credentials;
    r->s3.credentials = fresh;
    esp_s3_credentials_clear (&old);
  }
  return esp_try_again (c->t, EACCES, "the credentials expired (%s)%s%s",
                        e->code, *caught ? ": " : "", caught);
}

static int
judge_error (struct esp_call *c)
{
  static const char *const again[] = {
    "ConditionalRequestConflict", "OperationAborted", "RequestTimeout",
    "SlowDown", "BadDigest", "XAmzContentSHA256Mismatch", NULL
  };
  static const char *const expired[] = { "ExpiredToken", "TokenRefreshRequired",
                                         NULL };
  struct s3_error e;
  CLEANUP_FREE char *detail = NULL;
  bool anonymous = !c->sign;

  read_error (&c->reply, &e);
  c->t->after = c->reply.after;
  if (is_one_of (e.code, expired))
    return renew_credentials (c, &e);
  if (strcmp (e.code, "NoSuchBucket") == 0)
    return esp_try_fail (c->t, EIO, "there is no bucket %s", c->r->s3.bucket);
  if (is_one_of (e.code, again))
    return esp_try_again (c->t, EIO, "the server says %ld %s %s",
                          c->reply.status, e.code, e.message);
  if (c->reply.status == 412)
    return esp_try_quiet (c->t, ESTALE);
  detail = esp_asprintf ("%s%s%s%s", e.code, *e.message ? ": " : "", e.message,
                         anonymous ? " (no credentials: see AWS_ACCESS_KEY_ID "
                         "or ~/.aws/credentials)" : "");
  return esp_call_status (c, detail ? detail : "");
}

int
esp_s3_run (struct esp_call *c)
{
  if (esp_call_run (c) < 0)
    return -1;
  return c->reply.status < 300 ? 0 : judge_error (c);
}

/* --- reading ---------------------------------------------------------------- */

static int
s3_read (struct esp_remote *r, struct esp_op *op, struct esp_try *t,
         const char *method,
         int (*fn) (struct esp_call *c, struct esp_op *op))
{
  CLEANUP_CALL struct esp_call c = { .r = r, .t = t, .method = method };

  if (esp_s3_begin (&c, op->name, "") < 0 || fn (&c, op) < 0)
    return -1;
  return c.reply.status >= 300 ? judge_error (&c) : 0;
}

static int
s3_get (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  return s3_read (r, op, t, "GET", esp_http_get);
}

int
esp_s3_head (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  return s3_read (r, op, t, "HEAD", esp_http_head);
}

/* --- conditional puts ---------------------------------------------------------- */

/* One put with the header CONDITION, or NULL; the new version goes to OUT. */
static int
put_once (struct esp_remote *r, const char *name, const void *buf, size_t len,
          const char *condition, struct esp_object *out, struct esp_try *t)
{
  CLEANUP_CALL struct esp_call c = {
    .r = r, .t = t, .method = "PUT", .body = len ? buf : "", .nbody = len,
  };

  if (esp_s3_begin (&c, name, "") < 0
      || (condition && esp_call_header (&c, "%s", condition) < 0)
      || esp_s3_run (&c) < 0)
    return -1;
  esp_reply_version (&c.reply, out->etag);
  out->size = len;
  return 0;
}

static int
delete_once (struct esp_remote *r, const char *name, struct esp_try *t)
{
  CLEANUP_CALL struct esp_call c = { .r = r, .t = t, .method = "DELETE" };

  if (esp_s3_begin (&c, name, "") < 0 || esp_s3_run (&c) < 0)
    return t->err == ENOENT ? 0 : -1;
  return 0;
}

/* Does a put under CONDITION go as it should?  1: it is accepted, 0: it is
 * refused, -1 with T filled.
 */
static int
try_condition (struct esp_remote *r, const char *name, const char *condition,
               struct esp_object *out, struct esp_try *t)
{
  if (put_once (r, name, "probe", 5, condition, out, t) == 0)
    return 1;
  return t->err == ESTALE ? 0 : -1;
}

static int
try_match (struct esp_remote *r, const char *name, const char *quote,
           const char *etag, struct esp_object *out, struct esp_try *t)
{
  char header[ESP_ETAG_MAX + 20];

  snprintf (header, sizeof header, "If-Match: %s%s%s", quote, etag, quote);
  return try_condition (r, name, header, out, t);
}

/* What the store knows of conditions; -1 with T filled. */
static int
probe_conditions (struct esp_remote *r, const char *name, struct esp_try *t)
{
  static const char other[] = "0123456789abcdef0123456789abcdef";
  struct esp_object v = { 0 };
  int a;

  if ((a = try_condition (r, name, "If-None-Match: *", &v, t)) != 1
      || (a = try_condition (r, name, "If-None-Match: *", &v, t)) != 0)
    return a < 0 ? -1 : ESP_COND_NONE;
  for (unsigned plain = 0; plain < 2; ++plain) {
    const char *quote = plain ? "" : "\"";
    if ((a = try_match (r, name, quote, other, &v, t)) != 0)
      return a < 0 ? -1 : ESP_COND_NONE;
    if ((a = try_match (r, name, quote, v.etag, &v, t)) != 0)
      return a < 0 ? -1 : plain ? ESP_COND_PLAIN : ESP_COND_QUOTED;
  }
  return ESP_COND_NONE;
}

/* The first who asks finds out, the others wait for it. */
static int
find_conditions (struct esp_remote *r, struct esp_try *t)
{
  struct esp_try ignored = { 0 };
  char name[64];
  uint64_t random;
  ESP_LOCK_SCOPE (&r->s3.probing);

  if (r->s3.conditions != ESP_COND_UNKNOWN)
    return r->s3.conditions;
  if (getrandom (&random, sizeof random, 0) != sizeof random)
    return esp_try_fail (t, errno, "getrandom: %m");
  snprintf (name, sizeof name, ".espalier-probe-%016" PRIx64, random);
  int found = probe_conditions (r, name, t);
  if (delete_once (r, name, &ignored) < 0)
    esp_debug ("%s: %s is left: %s", r->base, name, ignored.why);
  if (found >= 0)
    r->s3.conditions = found;
  return found;
}

/* The header for OP's condition into BUF (NULL: none). */
static int
condition_header (struct esp_remote *r, const struct esp_op *op, char *buf,
                  size_t size, struct esp_try *t)
{
  int known = op->mode == ESP_PUT_ALWAYS ? 0 : find_conditions (r, t);

  if (known < 0)
    return -1;
  if (known == ESP_COND_NONE)
    return esp_try_fail (t, ENOTSUP, "this S3 server ignores conditions "
                         "(If-None-Match, If-Match): two writers could "
                         "overwrite each other, so nothing is put there");
  if (op->mode == ESP_PUT_ABSENT)
    snprintf (buf, size, "If-None-Match: *");
  else if (op->mode == ESP_PUT_IF) {
    const char *quote = known == ESP_COND_QUOTED ? "\"" : "";
    snprintf (buf, size, "If-Match: %s%s%s", quote, op->version->etag, quote);
  }
  return 0;
}

int
esp_s3_put (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  char header[ESP_ETAG_MAX + 32] = "";

  if (condition_header (r, op, header, sizeof header, t) < 0)
    return -1;
  if (put_once (r, op->name, op->buf, op->size, *header ? header : NULL,
                &op->out, t) == 0)
    return 0;
  if (op->mode == ESP_PUT_ABSENT && t->err == ESTALE)
    t->err = EEXIST;
  if (op->mode == ESP_PUT_IF && t->err == ENOENT)
    t->err = ESTALE;
  return -1;
}

static int
s3_delete (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  return delete_once (r, op->name, t);
}

const struct esp_driver esp_s3_driver = {
  .kind = ESP_REMOTE_S3,
  .attempt = {
    [ESP_VERB_HEAD] = esp_s3_head,
    [ESP_VERB_LIST] = esp_s3_list,
    [ESP_VERB_GET] = s3_get,
    [ESP_VERB_PUT] = esp_s3_put,
    [ESP_VERB_DELETE] = s3_delete,
    [ESP_VERB_BEGIN] = esp_s3_parts_begin,
    [ESP_VERB_PART] = esp_s3_parts_put,
    [ESP_VERB_CHECK] = esp_s3_parts_check,
    [ESP_VERB_END] = esp_s3_parts_end,
    [ESP_VERB_ABORT] = esp_s3_parts_abort,
    [ESP_VERB_UPLOADS] = esp_s3_uploads,
    [ESP_VERB_LOOK] = esp_s3_uploads_look,
    [ESP_VERB_REMOVE] = esp_s3_uploads_remove,
  },
};
