/* SPDX-License-Identifier: BSD-3-Clause */
/* S3: ListObjectsV2, a page a request.  Keys come URL-encoded, because XML
 * cannot hold every byte that a key may have; keys that are no names of
 * objects (somebody else's) are left out.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "center/remote-internal.h"
#include "util/file.h"

struct page {
  struct esp_remote *r;
  struct esp_op *op;
  struct esp_try *t;
  char *key;                    /* of this entry, decoded */
  struct esp_object object;
  bool truncated;
  char *token;                  /* the next page's */
};

static void
clear_page (struct page *p)
{
  int saved = errno;

  free (p->key);
  free (p->token);
  errno = saved;
}

static int
decode_key (struct page *p, const char *text)
{
  int len;
  char *plain = curl_easy_unescape (NULL, text, 0, &len);

  if (!plain)
    return esp_try_fail (p->t, ENOMEM, "malloc: %m");
  int e = esp_xml_copy (p->t, &p->key, strlen (plain) == (size_t) len ? plain : "");
  curl_free (plain);
  return e;
}

static void
copy_etag (struct page *p, const char *text)
{
  size_t n = strlen (text);

  if (n >= 2 && *text == '"' && text[n - 1] == '"') {
    text++;
    n -= 2;
  }
  if (n >= sizeof p->object.etag)
    n = 0;
  memcpy (p->object.etag, text, n);
  p->object.etag[n] = 0;
}

/* The entry is complete. */
static int
end_entry (struct page *p)
{
  const char *prefix = p->r->s3.prefix, *name = p->key ? p->key : "";
  size_t n = strlen (prefix);

  if (n && (strncmp (name, prefix, n) != 0 || name[n++] != '/'))
    return 0;
  name += n;
  if (esp_object_name_ok (name)
      && strncmp (name, p->op->name, strlen (p->op->name)) == 0
      && esp_op_entry (p->op, name, &p->object) < 0)
    return esp_try_fail (p->t, ENOMEM, "malloc: %m");
  memset (&p->object, 0, sizeof p->object);
  return 0;
}

static int
page_element (void *arg, const char *element, const char *text,
              unsigned depth)
{
  struct page *p = arg;

  if (depth == 3 && strcmp (element, "Key") == 0)
    return decode_key (p, text);
  if (depth == 3 && strcmp (element, "Size") == 0)
    p->object.size = strtoull (text, NULL, 10);
  else if (depth == 3 && strcmp (element, "ETag") == 0)
    copy_etag (p, text);
  else if (depth == 2 && strcmp (element, "Contents") == 0)
    return end_entry (p);
  else if (depth == 2 && strcmp (element, "IsTruncated") == 0)
    p->truncated = strcmp (text, "true") == 0;
  else if (depth == 2 && strcmp (element, "NextContinuationToken") == 0)
    return esp_xml_copy (p->t, &p->token, text);
  return 0;
}

/* "?continuation-token=...&...": the parameters in order. */
static char *
page_query (const struct esp_remote *r, const struct esp_op *op)
{
  CLEANUP_FREE char *prefix =
    esp_asprintf ("%s%s%s", r->s3.prefix, *r->s3.prefix ? "/" : "", op->name);
  char *token = op->token ? curl_easy_escape (NULL, op->token, 0) : NULL;
  char *escaped = prefix ? curl_easy_escape (NULL, prefix, 0) : NULL;
  char *query = NULL;

  if (escaped && (token || !op->token))
    query = esp_asprintf ("?%s%s%sencoding-type=url&list-type=2&max-keys=1000"
                          "&prefix=%s", token ? "continuation-token=" : "",
                          token ? token : "", token ? "&" : "", escaped);
  curl_free (token);
  curl_free (escaped);
  return query;
}

int
esp_s3_page (struct esp_remote *r, const char *query, esp_xml_fn fn,
             void *arg, struct esp_try *t)
{
  CLEANUP_CALL struct esp_call c = { .r = r, .t = t, .method = "GET" };

  if (!query)
    return esp_try_fail (t, ENOMEM, "malloc: %m");
  if (esp_s3_begin (&c, NULL, query) < 0)
    return -1;
  if (esp_s3_run (&c) < 0)
    return t->err != ENOENT ? -1
      : esp_try_fail (t, EIO, "there is no bucket %s", r->s3.bucket);
  return esp_xml_each (c.reply.text ? c.reply.text : "", c.reply.ntext, fn,
                       arg, t);
}

int
esp_s3_list (struct esp_remote *r, struct esp_op *op, struct esp_try *t)
{
  __attribute__ ((cleanup (clear_page))) struct page p =
    { .r = r, .op = op, .t = t };
  CLEANUP_FREE char *query = page_query (r, op);

  if (esp_s3_page (r, query, page_element, &p, t) < 0)
    return -1;
  if (p.truncated && (!p.token || (op->token
                                   && strcmp (p.token, op->token) == 0)))
    return esp_try_fail (t, EPROTO, "the server's list does not end");
  free (op->token);
  op->token = p.truncated ? ESP_STEAL (p.token) : NULL;
  return 0;
}
