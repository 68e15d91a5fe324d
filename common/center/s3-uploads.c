/* SPDX-License-Identifier: BSD-3-Clause */
/* S3: multipart uploads that nobody ended.  They are in no list of objects, and
 * are paid for all the same.  ListMultipartUploads says when each was begun,
 * ListParts when its last part came.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "center/remote-internal.h"
#include "util/file.h"

/* "2026-11-23T05:30:00.123Z"; what is none is far in the future, so that
 * nothing is taken for old by mistake.
 */
static uint64_t
seconds_of (const char *text)
{
  struct tm tm = { 0 };
  const char *end = strptime (text, "%Y-%m-%dT%H:%M:%S", &tm);
  time_t s = end && (*end == '.' || *end == 'Z') ? timegm (&tm) : -1;

  return s < 0 ? UINT64_MAX : (uint64_t) s;
}

/* --- all that there are --------------------------------------------------------- */

struct page {
  struct esp_remote *r;
  struct esp_op *op;
  struct esp_try *t;
  char *key, *id;               /* of this upload */
  uint64_t begun;
  bool truncated;
  char *next_key, *next_id;
};

static void
clear_page (struct page *p)
{
  int saved = errno;

  free (p->key);
  free (p->id);
  free (p->next_key);
  free (p->next_id);
  errno = saved;
}

/* Uploads of keys that are no names of ours are left out. */
static int
end_upload (struct page *p)
{
  const char *prefix = p->r->s3.prefix, *name = p->key ? p->key : "";
  size_t n = strlen (prefix);

  if (n && (strncmp (name, prefix, n) != 0 || name[n++] != '/'))
    return 0;
  name += n;
  if (!esp_object_name_ok (name) || !p->id
      || strlen (p->id) >= ESP_UPLOAD_ID_MAX)
    return 0;
  return esp_op_upload (p->op, name, p->id, p->begun) == 0 ? 0
    : esp_try_fail (p->t, ENOMEM, "malloc: %m");
}

static int
upload_element (void *arg, const char *element, const char *text,
                unsigned depth)
{
  struct page *p = arg;

  if (depth == 3 && strcmp (element, "Key") == 0)
    return esp_xml_copy (p->t, &p->key, text);
  if (depth == 3 && strcmp (element, "UploadId") == 0)
    return esp_xml_copy (p->t, &p->id, text);
  if (depth == 3 && strcmp (element, "Initiated") == 0)
    p->begun = seconds_of (text);
  else if (depth == 2 && strcmp (element, "Upload") == 0)
    return end_upload (p);
  else if (depth == 2 && strcmp (element, "IsTruncated") == 0)
    p->truncated = strcmp (text, "true") == 0;
  else if (depth == 2 && strcmp (element, "NextKeyMarker") == 0)
    return esp_xml_copy (p->t, &p->next_key, text);
  else if (depth == 2 && strcmp (element, "NextUploadIdMarker") == 0)
    return esp_xml_copy (p->t, &p->next_id, text);
  return 0;
}

/* "NAME=VALUE&" with VALUE escaped, malloced; "" without a value. */
static char *
parameter (const char *name, const char *value)
{
  char *escaped = curl_easy_escape (NULL, value ? value : "", 0);
  char *text = !escaped ? NULL : value ? esp_asprintf ("%s=%s&", name, escaped)
    : strdup ("");

  curl_free (escaped);
  return text;
}

/* The parameters in order, as they are signed. */
static char *
page_query (const struct esp_remote *r, const struct esp_op *op)
{
  CLEANUP_FREE char *where = esp_asprintf ("%s%s", r->s3.prefix,
                                           *r->s3.prefix ? "/" : "");
  CLEANUP_FREE char *key = NULL, *prefix = NULL, *id = NULL, *full = NULL;

  if (op->next_name && !(full = strdup (op->next_name)))
    return NULL;
  key = parameter ("key-marker", full);
  prefix = parameter ("prefix", where);
  id = parameter ("upload-id-marker", op->next_id);
  return where && key && prefix && id
    ? esp_asprintf ("?%smax-uploads=100&%s%suploads=", key, prefix, id) : NULL;
}

int
esp_s3_uploads (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  __attribute__ ((cleanup (clear_page))) struct page p =
    { .r = r, .op = op, .t = t };
  CLEANUP_FREE char *query = page_query (r, op);

  esp_upload_list_clear (&op->uploads);
  if (esp_s3_page (r, query, upload_element, &p, t) < 0)
    return -1;
  if (p.truncated
      && (!p.next_key || (op->next_name && op->next_id && p.next_id
                          && strcmp (p.next_key, op->next_name) == 0
                          && strcmp (p.next_id, op->next_id) == 0)))
    return esp_try_fail (t, EPROTO, "the server's list does not end");
  free (op->next_name);
  free (op->next_id);
  op->next_name = p.truncated ? ESP_STEAL (p.next_key) : NULL;
  op->next_id = p.truncated ? ESP_STEAL (p.next_id) : NULL;
  return 0;
}

/* --- one ------------------------------------------------------------------------------ */

struct parts {
  struct esp_upload sum;
  bool truncated;
  unsigned next;
};

static int
part_element (void *arg, const char *element, const char *text,
              unsigned depth)
{
  struct parts *p = arg;

  if (depth == 3 && strcmp (element, "LastModified") == 0) {
    uint64_t s = seconds_of (text);
    p->sum.changed = s > p->sum.changed ? s : p->sum.changed;
  }
  else if (depth == 3 && strcmp (element, "Size") == 0)
    p->sum.bytes += strtoull (text, NULL, 10);
  else if (depth == 2 && strcmp (element, "IsTruncated") == 0)
    p->truncated = strcmp (text, "true") == 0;
  else if (depth == 2 && strcmp (element, "NextPartNumberMarker") == 0)
    p->next = (unsigned) strtoul (text, NULL, 10);
  return 0;
}

/* What CHANGED says already, its beginning, counts where there are no parts. */
int
esp_s3_uploads_look (struct esp_remote *r, struct esp_op *op,
                     struct esp_try *t)
{
  struct parts p = { .sum.changed = op->upload->changed };
  unsigned after;

  do {
    CLEANUP_CALL struct esp_call c = { .r = r, .t = t, .method = "GET" };

    after = p.next;
    p.truncated = false;
    if (esp_s3_upload_begin (&c, op, esp_s3_upload_query
                             (op->id, "max-parts=1000&part-number-marker=%u&",
                              after)) < 0
        || esp_s3_run (&c) < 0
        || esp_xml_each (c.reply.text ? c.reply.text : "", c.reply.ntext,
                         part_element, &p, t) < 0)
      return -1;
  } while (p.truncated && p.next > after);
  op->upload->changed = p.sum.changed;
  op->upload->bytes = p.sum.bytes;
  return 0;
}

int
esp_s3_uploads_remove (struct esp_remote *r, struct esp_op *op,
                       struct esp_try *t)
{
  return esp_s3_parts_abort (r, op, t);
}
