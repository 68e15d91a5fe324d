/* SPDX-License-Identifier: BSD-3-Clause */
/* S3: multipart uploads.
 *
 * The end of an upload must not replace an object.  If-None-Match goes along
 * with it; stores that do not look at it there (Ceph) are asked before with
 * a HEAD.  In such a store two uploads of one object that end in the same
 * instant leave the later one: both are packs of the same segments, whose
 * digests stand in an index that is put conditionally, so no reader is ever
 * deceived, though one of the two would fetch in vain.
 *
 * An end whose answer was lost meets "no such upload" when it is tried
 * again: an object of that size and that many parts is then ours.
 */

#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "center/remote-internal.h"
#include "util/file.h"

char *
esp_s3_upload_query (const char *id, const char *fmt, ...)
{
  char first[100];
  va_list args;

  va_start (args, fmt);
  vsnprintf (first, sizeof first, fmt, args);
  va_end (args);
  char *escaped = curl_easy_escape (NULL, id, 0);
  char *query = escaped ? esp_asprintf ("?%suploadId=%s", first, escaped)
    : NULL;
  curl_free (escaped);
  return query;
}

int
esp_s3_upload_begin (struct esp_call *c, const struct esp_op *op,
                     char *query)
{
  CLEANUP_FREE char *q = query;

  if (!q)
    return esp_try_fail (c->t, ENOMEM, "malloc: %m");
  if (strlen (op->id) >= ESP_UPLOAD_ID_MAX || !*op->id)
    return esp_try_fail (c->t, EINVAL, "that is no upload's id");
  return esp_s3_begin (c, op->name, q);
}

/* --- begin ------------------------------------------------------------------- */

static int
begin_element (void *arg, const char *element, const char *text,
               unsigned depth)
{
  if (depth == 2 && strcmp (element, "UploadId") == 0
      && strlen (text) < ESP_UPLOAD_ID_MAX)
    strcpy (arg, text);
  return 0;
}

int
esp_s3_parts_begin (struct esp_remote *r, struct esp_op *op,
                    struct esp_try *t)
{
  CLEANUP_CALL struct esp_call c = {
    .r = r, .t = t, .method = "POST", .body = "",
  };

  op->id_out[0] = 0;
  if (esp_s3_begin (&c, op->name, "?uploads=") < 0 || esp_s3_run (&c) < 0
      || esp_xml_each (c.reply.text ? c.reply.text : "", c.reply.ntext,
                       begin_element, op->id_out, t) < 0)
    return -1;
  return *op->id_out ? 0 : esp_try_fail (t, EPROTO, "the server begins an "
                                         "upload without an id");
}

/* --- a part ------------------------------------------------------------------- */

int
esp_s3_parts_put (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  CLEANUP_CALL struct esp_call c = {
    .r = r, .t = t, .method = "PUT", .body = op->size ? op->buf : "",
    .nbody = op->size,
  };

  if (esp_s3_upload_begin (&c, op, esp_s3_upload_query (op->id, "partNumber=%u&",
                                               op->number)) < 0
      || esp_s3_run (&c) < 0)
    return -1;
  esp_reply_version (&c.reply, op->part->etag);
  return *op->part->etag ? 0 : esp_try_fail (t, EPROTO, "the server takes a "
                                             "part and gives it no ETag");
}

/* --- check -------------------------------------------------------------------- */

/* A page of the list of parts. */
struct parts_page {
  struct esp_op *op;
  unsigned number;              /* of this part */
  uint64_t size;
  char etag[ESP_ETAG_MAX];
  unsigned found;               /* of op->parts, so far */
  bool truncated;
  unsigned next;                /* the page behind this part */
};

static void
end_part (struct parts_page *p)
{
  for (unsigned i = 0; i < p->op->nparts; ++i) {
    const struct esp_part *want = &p->op->parts[i];
    if (want->number == p->number && want->size == p->size
        && strcmp (want->etag, p->etag) == 0) {
      p->found++;
      return;
    }
  }
}

static void
part_etag (struct parts_page *p, const char *text)
{
  size_t n = strlen (text);

  if (n >= 2 && *text == '"' && text[n - 1] == '"') {
    text++;
    n -= 2;
  }
  snprintf (p->etag, sizeof p->etag, "%.*s", (int) (n < 1000 ? n : 0), text);
}

static int
part_element (void *arg, const char *element, const char *text,
              unsigned depth)
{
  struct parts_page *p = arg;

  if (depth == 3 && strcmp (element, "PartNumber") == 0)
    p->number = (unsigned) strtoul (text, NULL, 10);
  else if (depth == 3 && strcmp (element, "Size") == 0)
    p->size = strtoull (text, NULL, 10);
  else if (depth == 3 && strcmp (element, "ETag") == 0)
    part_etag (p, text);
  else if (depth == 2 && strcmp (element, "Part") == 0)
    end_part (p);
  else if (depth == 2 && strcmp (element, "IsTruncated") == 0)
    p->truncated = strcmp (text, "true") == 0;
  else if (depth == 2 && strcmp (element, "NextPartNumberMarker") == 0)
    p->next = (unsigned) strtoul (text, NULL, 10);
  return 0;
}

static int
read_parts_page (struct esp_remote *r, struct parts_page *p, unsigned after,
                 struct esp_try *t)
{
  CLEANUP_CALL struct esp_call c = { .r = r, .t = t, .method = "GET" };

  p->truncated = false;
  if (esp_s3_upload_begin (&c, p->op,
                         esp_s3_upload_query (p->op->id, "max-parts=1000&"
                                       "part-number-marker=%u&", after)) < 0
      || esp_s3_run (&c) < 0)
    return -1;
  return esp_xml_each (c.reply.text ? c.reply.text : "", c.reply.ntext,
                       part_element, p, t);
}

int
esp_s3_parts_check (struct esp_remote *r, struct esp_op *op,
                    struct esp_try *t)
{
  struct parts_page p = { .op = op };
  unsigned after;

  do {
    after = p.next;
    if (read_parts_page (r, &p, after, t) < 0)
      return -1;
  } while (p.truncated && p.next > after);
  op->intact = p.found == op->nparts;
  return 0;
}

/* --- end ----------------------------------------------------------------------- */

static char *
parts_xml (const struct esp_op *op)
{
  char *text = NULL;
  size_t len;
  FILE *f = open_memstream (&text, &len);

  if (!f)
    return NULL;
  fputs ("<CompleteMultipartUpload "
         "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">", f);
  for (unsigned i = 0; i < op->nparts; ++i)
    fprintf (f, "<Part><PartNumber>%u</PartNumber><ETag>\"%s\"</ETag></Part>",
             op->parts[i].number, op->parts[i].etag);
  fputs ("</CompleteMultipartUpload>", f);
  if (fclose (f) == 0)
    return text;
  free (text);
  return NULL;
}

struct end_answer {
  char etag[ESP_ETAG_MAX];
  bool complete;
};

static int
end_element (void *arg, const char *element, const char *text,
             unsigned depth)
{
  struct end_answer *a = arg;
  struct parts_page p;

  if (depth == 1)
    a->complete = strcmp (element, "CompleteMultipartUploadResult") == 0;
  else if (depth == 2 && strcmp (element, "ETag") == 0) {
    part_etag (&p, text);
    memcpy (a->etag, p.etag, sizeof a->etag);
  }
  return 0;
}

/* 200 may be an error, too: the server says it before it begins. */
static int
judge_end (struct esp_call *c, struct esp_op *op)
{
  struct end_answer a = { .etag = "" };
  char code[64];

  if (esp_xml_each (c->reply.text ? c->reply.text : "", c->reply.ntext,
                    end_element, &a, c->t) < 0)
    return -1;
  if (a.complete) {
    memcpy (op->out.etag, a.etag, sizeof a.etag);
    return 0;
  }
  esp_s3_code (&c->reply, code, sizeof code);
  if (strcmp (code, "PreconditionFailed") == 0)
    return esp_try_quiet (c->t, EEXIST);
  return esp_try_again (c->t, EIO, "the server cannot end the upload: %s",
                        code);
}

static uint64_t
total_size (const struct esp_op *op)
{
  uint64_t n = 0;

  for (unsigned i = 0; i < op->nparts; ++i)
    n += op->parts[i].size;
  return n;
}

/* Is the object that is there the one that OP's first try made? */
static bool
is_ours (const struct esp_op *op, const struct esp_object *there)
{
  char end[20];

  snprintf (end, sizeof end, "-%u", op->nparts);
  size_t n = strlen (end), m = strlen (there->etag);
  return op->tries > 0 && there->size == total_size (op) && m > n
    && strcmp (there->etag + m - n, end) == 0;
}

/* 0: nothing is there; 1: what this upload made; -1 with T filled. */
static int
look_before (struct esp_remote *r, const struct esp_op *op,
             struct esp_object *there, struct esp_try *t)
{
  struct esp_op head = { .verb = ESP_VERB_HEAD, .name = op->name };

  if (esp_s3_head (r, &head, t) < 0)
    return t->err == ENOENT ? 0 : -1;
  *there = head.out;
  return is_ours (op, there) ? 1 : esp_try_quiet (t, EEXIST);
}

static int
end_upload (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  CLEANUP_FREE char *xml = parts_xml (op);
  CLEANUP_CALL struct esp_call c = {
    .r = r, .t = t, .method = "POST", .body = xml,
    .nbody = xml ? strlen (xml) : 0, .patience = 10,
  };

  if (!xml)
    return esp_try_fail (t, ENOMEM, "malloc: %m");
  if (esp_s3_upload_begin (&c, op, esp_s3_upload_query (op->id, "%s", "")) < 0
      || esp_call_header (&c, "If-None-Match: *") < 0)
    return -1;
  if (esp_s3_run (&c) == 0)
    return judge_end (&c, op);
  if (t->err == ESTALE)
    t->err = EEXIST;
  return -1;
}

int
esp_s3_parts_end (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  int there = look_before (r, op, &op->out, t);

  if (there < 0)
    return -1;
  if (there == 0 && end_upload (r, op, t) < 0)
    return -1;
  op->out.size = total_size (op);
  /* Ceph does not tell it in its answer. */
  return *op->out.etag ? 0 : esp_s3_head (r, op, t);
}

int
esp_s3_parts_abort (struct esp_remote *r, struct esp_op *op,
                    struct esp_try *t)
{
  CLEANUP_CALL struct esp_call c = { .r = r, .t = t, .method = "DELETE" };

  if (esp_s3_upload_begin (&c, op, esp_s3_upload_query (op->id, "%s", "")) < 0
      || esp_s3_run (&c) < 0)
    return t->err == ENOENT ? 0 : -1;
  return 0;
}
