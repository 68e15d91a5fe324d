/* SPDX-License-Identifier: BSD-3-Clause */
/* The texts of a center that are signed: a document (util/doc.h), behind it
 * the line of the signature.  The signature covers the whole document, its
 * first line too, and what kind it is.
 *
 * Read in this order: length, signature line cut off, first line (kind,
 * version, checksum), signature, and only then the JSON and its fields.  So
 * a newer version and damage on the way are told as such, and nothing that
 * was not signed reaches the parser of JSON.
 */

#include <config.h>

#include <string.h>

#include "center/format-internal.h"
#include "center/keys.h"
#include "store/fields.h"
#include "util/doc.h"

json_t *
text_add_pushed (json_t *doc, const char *by, uint64_t when)
{
  CLEANUP_JSON json_t *o = doc;

  if (!o || json_object_set_new (o, "pushed-by", json_string (by ? by : "")) ||
      json_object_set_new (o, "pushed", json_integer ((json_int_t) when)))
    return NULL;
  return ESP_STEAL (o);
}

bool
text_read_pushed (json_t *doc, char **by, uint64_t *when)
{
  const char *s = esp_field_string (doc, "pushed-by", PUSHED_BY_MAX);

  return s && (*by = strdup (s)) &&
    esp_field_u64 (doc, "pushed", 0, ESP_FIELD_TIME_MAX, when);
}

static char *
too_large (const char *where)
{
  errno = EFBIG;
  esp_error ("%s: is larger than 1 MiB: write a shorter note, or fewer"
             " resources", where);
  return NULL;
}

char *
text_format (json_t *doc, const char *kind, int version,
             const struct esp_signer *signer, const char *where, size_t *len)
{
  CLEANUP_FREE char *body = NULL, *text = NULL;

  if (!doc) {
    errno = EINVAL;
    esp_error ("%s: a text in it is not valid UTF-8, or no memory is left",
               where);
    return NULL;
  }
  if (!(body = esp_doc_format (kind, version, doc, len))) {
    if (errno == EFBIG)
      return too_large (where);
    esp_error ("%s: %m", where);
    return NULL;
  }
  text = signer ? esp_sign_text (signer, kind, body, len) : ESP_STEAL (body);
  if (text && *len > ESP_MANIFEST_MAX)
    return too_large (where);
  return ESP_STEAL (text);
}

json_t *
text_parse (const char *text, size_t len, const char *kind, int version,
            const struct esp_trust *trust, const char *where)
{
  size_t body;

  if (len > ESP_MANIFEST_MAX) {
    format_damaged (where, "it is larger than 1 MiB");
    return NULL;
  }
  if (esp_verify_text (NULL, kind, text, len, &body, where) == -1 ||
      esp_doc_check (text, body, kind, version, where) == -1 ||
      (trust && esp_verify_text (trust, kind, text, len, &body, where) == -1))
    return NULL;
  return esp_doc_parse (text, body, kind, version, where);
}
