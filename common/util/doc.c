/* SPDX-License-Identifier: BSD-3-Clause */
/* Documents: a line that says what they are, then JSON.
 *
 * The line is looked at in the order kind, version, checksum: a newer
 * version may have another checksum and must still be told apart from
 * damage.  Numbers are JSON integers, so they end at INT64_MAX.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"
#include "util/name.h"
#include "util/sum.h"

#define MAGIC "espalier-"
#define SUM "xxh3:"
#define LINE_MAX_BYTES 128              /* of the first line, with newline */

ESP_DEFINE_CLEANUP (json, json_t *, json_decref)

static json_t *
damaged (const char *where, const char *why)
{
  esp_error ("%s: is damaged: %s", where, why);
  errno = EBADMSG;
  return NULL;
}

/* The first line, taken apart; every part is a string in TEXT. */
struct line {
  char text[LINE_MAX_BYTES];
  char *kind, *version, *sum;
  size_t len;                           /* with its newline */
};

static bool
split_line (const char *buf, size_t len, struct line *l)
{
  const char *end = memchr (buf, '\n',
                            len < LINE_MAX_BYTES ? len : LINE_MAX_BYTES);

  if (!end)
    return false;
  l->len = (size_t) (end - buf) + 1;
  memcpy (l->text, buf, l->len - 1);
  l->text[l->len - 1] = 0;
  if (strlen (l->text) != l->len - 1
      || strncmp (l->text, MAGIC, strlen (MAGIC)) != 0)
    return false;
  l->kind = l->text + strlen (MAGIC);
  l->version = strchr (l->kind, ' ');
  if (!l->version)
    return false;
  *l->version++ = 0;
  l->sum = strchr (l->version, ' ');
  if (l->sum)
    *l->sum++ = 0;
  return true;
}

/* A positive decimal number without a zero in front; 0 for anything else,
 * INT32_MAX where it is too large.
 */
static int
parse_version (const char *s)
{
  size_t n = strspn (s, "0123456789");

  if (n == 0 || s[n] || s[0] == '0')
    return 0;
  return n > 9 ? INT32_MAX : atoi (s);
}

/* Check the first line; where it is as it should be, *BODY is what follows.
 */
static bool
check_line (const char *buf, size_t len, const char *kind, int max_version,
            const char *where, size_t *body)
{
  struct line l;
  char want[32], text[64];

  if (!split_line (buf, len, &l)) {
    damaged (where, "it does not begin as a document does");
    return false;
  }
  if (strcmp (l.kind, kind) != 0) {
    esp_error ("%s: is a document of kind \"%s\", not \"%s\"", where,
               esp_escape (l.kind, text, sizeof text), kind);
    errno = EBADMSG;
    return false;
  }
  int version = parse_version (l.version);
  if (version == 0) {
    damaged (where, "its version is not a number");
    return false;
  }
  if (version > max_version) {
    esp_error ("%s: was written by a newer espalier (version %s, this one "
               "reads up to %d): use that one", where, l.version, max_version);
    errno = ENOTSUP;
    return false;
  }
  *body = l.len;
  snprintf (want, sizeof want, SUM "%016" PRIx64,
            esp_sum (buf + l.len, len - l.len));
  if (!l.sum || strcmp (l.sum, want) != 0) {
    damaged (where, "its checksum is wrong");
    return false;
  }
  return true;
}

static bool
check_doc (const char *buf, size_t len, const char *kind, int max_version,
           const char *where, size_t *body)
{
  if (len > ESP_DOC_MAX) {
    esp_error ("%s: is larger than a document can be", where);
    errno = EFBIG;
    return false;
  }
  return check_line (buf, len, kind, max_version, where, body);
}

int
esp_doc_check (const char *buf, size_t len, const char *kind, int max_version,
               const char *where)
{
  size_t body;

  return check_doc (buf, len, kind, max_version, where, &body) ? 0 : -1;
}

json_t *
esp_doc_parse (const char *buf, size_t len, const char *kind, int max_version,
               const char *where)
{
  json_error_t err;
  size_t body;

  if (!check_doc (buf, len, kind, max_version, where, &body))
    return NULL;
  ESP_CLEANUP (json) json_t *root =
    json_loadb (buf + body, len - body, JSON_REJECT_DUPLICATES, &err);
  if (!root)
    return damaged (where, err.text);
  if (!json_is_object (root))
    return damaged (where, "it holds no JSON object");
  return ESP_STEAL (root);
}

json_t *
esp_doc_load (int dirfd, const char *name, const char *kind, int max_version)
{
  CLEANUP_FREE char *buf = NULL;
  size_t len;

  if (esp_read_file (dirfd, name, ESP_DOC_MAX, &buf, &len) < 0) {
    if (errno != ENOENT)
      esp_error ("read: %s: %m", name);
    return NULL;
  }
  return esp_doc_parse (buf, len, kind, max_version, name);
}

char *
esp_doc_format (const char *kind, int version, json_t *root, size_t *len)
{
  CLEANUP_FREE char *json = json_dumps (root, JSON_INDENT (2));
  CLEANUP_FREE char *body = json ? esp_asprintf ("%s\n", json) : NULL;
  CLEANUP_FREE char *all = !body ? NULL
    : esp_asprintf (MAGIC "%s %d " SUM "%016" PRIx64 "\n%s", kind, version,
                    esp_sum (body, strlen (body)), body);

  if (!all) {
    errno = ENOMEM;
    return NULL;
  }
  *len = strlen (all);
  if (*len > ESP_DOC_MAX) {
    errno = EFBIG;
    return NULL;
  }
  return ESP_STEAL (all);
}

int
esp_doc_save (int dirfd, const char *name, const char *kind, int version,
              json_t *root, mode_t mode)
{
  size_t len;
  CLEANUP_FREE char *all = esp_doc_format (kind, version, root, &len);

  if (!all) {
    esp_error ("write: %s: %m", name);
    return -1;
  }
  return esp_write_file_atomic (dirfd, name, all, len, mode);
}

/* The value of KEY; NULL where it is absent, or O is no object (*BAD). */
static json_t *
lookup (json_t *o, const char *key, bool *bad)
{
  if (!json_is_object (o)) {
    *bad = true;
    return NULL;
  }
  return json_object_get (o, key);
}

const char *
esp_doc_string (json_t *o, const char *key, bool *bad)
{
  json_t *v = lookup (o, key, bad);

  if (!v)
    return NULL;
  if (!json_is_string (v)
      || strlen (json_string_value (v)) != json_string_length (v)) {
    *bad = true;
    return NULL;
  }
  return json_string_value (v);
}

uint64_t
esp_doc_u64 (json_t *o, const char *key, uint64_t dflt, bool *bad)
{
  json_t *v = lookup (o, key, bad);

  if (!v)
    return dflt;
  if (!json_is_integer (v) || json_integer_value (v) < 0) {
    *bad = true;
    return dflt;
  }
  return (uint64_t) json_integer_value (v);
}

json_t *
esp_doc_array (json_t *o, const char *key, bool *bad)
{
  json_t *v = lookup (o, key, bad);

  if (!v)
    return NULL;
  if (!json_is_array (v)) {
    *bad = true;
    return NULL;
  }
  return v;
}
