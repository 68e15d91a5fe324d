/* SPDX-License-Identifier: BSD-3-Clause */
/* Remotes: what a URL says.
 *
 * Credentials have no place in a URL: it stands in the catalog, in process
 * lists and in messages.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "center/remote-internal.h"
#include "util/file.h"
#include "util/name.h"

#define URL_MAX 2048

static int
bad_url (const char *url, const char *why)
{
  char shown[300];

  esp_error ("%s: %s", esp_escape (url, shown, sizeof shown), why);
  errno = EINVAL;
  return -1;
}

static int
no_memory (void)
{
  esp_error ("malloc: %m");
  return -1;
}

/* Cut slashes off the end of S. */
static void
trim_slashes (char *s)
{
  size_t n = strlen (s);

  while (n > 0 && s[n - 1] == '/')
    s[--n] = 0;
}

/* --- directories -------------------------------------------------------- */

static int
parse_dir (struct esp_remote *r, const char *url, const char *path)
{
  int len;

  if (*path != '/')
    return bad_url (url, "a directory is file:///DIRECTORY or an absolute "
                         "path");
  char *plain = path == url ? NULL : curl_easy_unescape (NULL, path, 0, &len);
  if (plain && strlen (plain) != (size_t) len) {
    curl_free (plain);
    return bad_url (url, "a path has no NUL");
  }
  r->path = strdup (plain ? plain : path);
  curl_free (plain);
  if (!r->path)
    return no_memory ();
  trim_slashes (r->path + 1);
  r->base = strdup (r->path);
  r->driver = &esp_dir_driver;
  return r->base ? 0 : no_memory ();
}

static int
parse_file (struct esp_remote *r, const char *url)
{
  const char *rest = url + strlen ("file://");

  if (strncasecmp (rest, "localhost/", 10) == 0)
    rest += 9;
  return parse_dir (r, url, rest);
}

/* --- HTTP --------------------------------------------------------------- */

/* Has the URL that part? */
static bool
has_part (CURLU *u, CURLUPart part)
{
  char *s = NULL;
  bool has = curl_url_get (u, part, &s, 0) == CURLUE_OK && s && *s;

  curl_free (s);
  return has;
}

static const char *
judge_http (CURLU *u, const char *url)
{
  CURLUcode e = curl_url_set (u, CURLUPART_URL, url, 0);

  if (e != CURLUE_OK)
    return curl_url_strerror (e);
  if (strncasecmp (url, "http://", 7) != 0
      && strncasecmp (url, "https://", 8) != 0)
    return "http:// or https:// is needed";
  if (has_part (u, CURLUPART_USER) || has_part (u, CURLUPART_PASSWORD))
    return "no user and no password in a URL: put them into ~/.netrc (HTTP) "
           "or ~/.aws/credentials (S3)";
  if (has_part (u, CURLUPART_QUERY) || has_part (u, CURLUPART_FRAGMENT)
      || strchr (url, '?') || strchr (url, '#'))
    return "a URL with ? or # is not supported";
  return NULL;
}

/* NULL when URL is sound, else what is wrong. */
static const char *
http_fault (const char *url)
{
  CURLU *u = curl_url ();
  const char *why = u ? judge_http (u, url) : "malloc failed";

  curl_url_cleanup (u);
  return why;
}

static int
parse_http (struct esp_remote *r, const char *url)
{
  const char *why = http_fault (url);

  if (why)
    return bad_url (url, why);
  r->base = strdup (url);
  if (!r->base)
    return no_memory ();
  trim_slashes (r->base);
  r->driver = &esp_http_driver;
  return 0;
}

/* --- S3 ----------------------------------------------------------------- */

struct s3_query {
  char *endpoint, *region, *addressing;
};

static void
clear_s3_query (struct s3_query *q)
{
  free (q->endpoint);
  free (q->region);
  free (q->addressing);
}

static int
set_s3_query (struct s3_query *q, const char *key, const char *value)
{
  char **to = strcmp (key, "endpoint") == 0 ? &q->endpoint
    : strcmp (key, "region") == 0 ? &q->region
    : strcmp (key, "addressing") == 0 ? &q->addressing : NULL;
  char *plain = to && !*to ? curl_easy_unescape (NULL, value, 0, NULL) : NULL;

  if (!plain || !*plain) {
    curl_free (plain);
    errno = EINVAL;
    return -1;
  }
  *to = strdup (plain);
  curl_free (plain);
  return *to ? 0 : -1;
}

static int
parse_s3_query (const char *url, const char *text, struct s3_query *q)
{
  CLEANUP_FREE char *copy = strdup (text);
  char *save, *at = copy;

  if (!copy)
    return no_memory ();
  for (char *p; (p = strtok_r (at, "&", &save)) != NULL; at = NULL) {
    char *eq = strchr (p, '=');
    if (eq)
      *eq = 0;
    if (!eq || set_s3_query (q, p, eq + 1) < 0)
      return bad_url (url, "after the ? stand endpoint=URL, region=NAME and "
                           "addressing=path|virtual, each once, with & "
                           "between them");
  }
  return 0;
}

static const char *
default_region (void)
{
  static const char *const names[] = { "AWS_REGION", "AWS_DEFAULT_REGION" };

  for (size_t i = 0; i < 2; ++i) {
    const char *s = getenv (names[i]);
    if (s && *s)
      return s;
  }
  return "us-east-1";
}

static bool
word_ok (const char *s)
{
  size_t n = strlen (s);

  return n >= 1 && n <= 255
    && strspn (s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                  "0123456789._-") == n && *s != '.' && *s != '-';
}

/* The URL of the bucket: ENDPOINT/BUCKET or SCHEME://BUCKET.HOST. */
static char *
s3_root (const struct esp_s3 *s, const struct s3_query *q)
{
  CLEANUP_FREE char *amazon = NULL;
  const char *endpoint = q->endpoint;

  if (!endpoint) {
    amazon = esp_asprintf ("https://s3.%s.amazonaws.com", s->region);
    if (!amazon)
      return NULL;
    endpoint = amazon;
  }
  const char *host = strstr (endpoint, "//") + 2;
  bool path = q->addressing ? strcmp (q->addressing, "path") == 0
    : q->endpoint != NULL;
  int scheme = (int) (host - endpoint);
  int len = (int) strcspn (host, "/");
  return path
    ? esp_asprintf ("%.*s%.*s/%s", scheme, endpoint, len, host, s->bucket)
    : esp_asprintf ("%.*s%s.%.*s", scheme, endpoint, s->bucket, len, host);
}

/* NULL when all parts are sound. */
static const char *
s3_fault (const struct esp_s3 *s, const struct s3_query *q)
{
  const char *why = q->endpoint ? http_fault (q->endpoint) : NULL;

  if (why)
    return why;
  if (q->endpoint) {
    const char *path = strchr (strstr (q->endpoint, "//") + 2, '/');
    if (path && path[1])
      return "an endpoint has no path: http://HOST:PORT";
  }
  if (!word_ok (s->bucket) || strlen (s->bucket) < 3)
    return "an S3 center is s3://BUCKET/PREFIX?endpoint=URL";
  if (*s->prefix && !esp_object_name_ok (s->prefix))
    return "the prefix behind the bucket has letters, digits and -._~%/";
  if (!word_ok (s->region))
    return "that is no region";
  if (q->addressing && strcmp (q->addressing, "path") != 0
      && strcmp (q->addressing, "virtual") != 0)
    return "addressing is path or virtual";
  return NULL;
}

static int
fill_s3 (struct esp_remote *r, const char *url, const struct s3_query *q)
{
  struct esp_s3 *s = &r->s3;
  const char *rest = url + strlen ("s3://");
  size_t all = strcspn (rest, "?"), bucket = strcspn (rest, "/?");
  const char *prefix = rest + bucket;

  prefix += strspn (prefix, "/");
  s->bucket = strndup (rest, bucket);
  s->prefix = strndup (prefix, prefix < rest + all
                       ? (size_t) (rest + all - prefix) : 0);
  s->region = strdup (q->region ? q->region : default_region ());
  if (!s->bucket || !s->prefix || !s->region)
    return no_memory ();
  trim_slashes (s->prefix);
  const char *why = s3_fault (s, q);
  if (why)
    return bad_url (url, why);
  s->root = s3_root (s, q);
  s->sigv4 = esp_asprintf ("aws:amz:%s:s3", s->region);
  r->base = esp_asprintf ("s3://%s%s%s", s->bucket, *s->prefix ? "/" : "",
                          s->prefix);
  r->driver = &esp_s3_driver;
  return s->root && s->sigv4 && r->base ? 0 : no_memory ();
}

static int
parse_s3 (struct esp_remote *r, const char *url)
{
  __attribute__ ((cleanup (clear_s3_query))) struct s3_query q = { 0 };
  const char *query = strchr (url, '?');

  if (query && parse_s3_query (url, query + 1, &q) < 0)
    return -1;
  return fill_s3 (r, url, &q);
}

int
esp_remote_parse (struct esp_remote *r, const char *url)
{
  if (strlen (url) > URL_MAX)
    return bad_url (url, "a URL has at most 2048 bytes");
  r->url = strdup (url);
  if (!r->url)
    return no_memory ();
  if (*url == '/')
    return parse_dir (r, url, url);
  if (strncasecmp (url, "file://", 7) == 0)
    return parse_file (r, url);
  if (strncasecmp (url, "http://", 7) == 0
      || strncasecmp (url, "https://", 8) == 0)
    return parse_http (r, url);
  if (strncasecmp (url, "s3://", 5) == 0)
    return parse_s3 (r, url);
  return bad_url (url, "a remote is file:///DIRECTORY, http://HOST/PATH, "
                       "https://HOST/PATH or "
                       "s3://BUCKET/PREFIX?endpoint=URL");
}
