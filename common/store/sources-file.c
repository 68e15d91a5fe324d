/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a delayed restore point can be fetched from: the document `sources`,
 * and for each center its index in clear (docs/formats.md, "sources",
 * "index-NAME").
 *
 * The document names the digest of each index-NAME, which is written first:
 * so an index that does not belong to the document's variant (a crash
 * between the two) is noticed, and its source is left out.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "center/variant-json.h"
#include "store/have-internal.h"
#include "util/doc.h"
#include "util/endian.h"
#include "util/file.h"
#include "util/host.h"

#define SOURCES_KIND "sources"
#define SOURCES_VERSION 1
#define URL_MAX 4096u
#define INDEX_MAGIC "ESPINDEX"
#define INDEX_HEAD 32u
#define INDEX_ENTRY 48u

void
esp_source_list_clear (struct esp_source_list *list)
{
  int saved = errno;

  for (size_t i = 0; i < list->n; i++)
    free (list->s[i].url);
  free (list->s);
  memset (list, 0, sizeof *list);
  errno = saved;
}

/* --- the document ---------------------------------------------------------- */

static json_t *
source_to_json (const struct esp_source *s, const esp_digest *index)
{
  CLEANUP_JSON json_t *o = json_object ();
  char hex[65];

  if (!o)
    return NULL;
  if (s->center[0] == 0)
    return json_object_set_new (o, "url", json_string (s->url)) ||
      json_object_set_new (o, "etag", json_string (s->etag)) ||
      json_object_set_new (o, "size", json_integer ((json_int_t) s->size))
      ? NULL : ESP_STEAL (o);
  return json_object_set_new (o, "center", json_string (s->center)) ||
    json_object_set_new (o, "variant", variant_to_json (&s->variant)) ||
    json_object_set_new (o, "index-sha256",
                         json_string (esp_digest_hex (index, hex)))
    ? NULL : ESP_STEAL (o);
}

int
sources_save (int dir, const struct esp_source_list *list,
              const esp_digest *indexes)
{
  CLEANUP_JSON json_t *doc = json_object ();
  json_t *array = json_array ();

  if (doc && json_object_set_new (doc, SOURCES_KIND, array) == 0) {
    size_t i;

    for (i = 0; i < list->n; i++)
      if (json_array_append_new (array, source_to_json (&list->s[i],
                                                        &indexes[i])))
        break;
    if (i == list->n)
      return esp_doc_save (dir, ESP_RP_SOURCES, SOURCES_KIND, SOURCES_VERSION,
                           doc, 0644);
  }
  errno = EINVAL;
  esp_error (ESP_RP_SOURCES ": an address is not valid UTF-8, or there is no "
             "memory");
  return -1;
}

/* A string of at most MAX bytes, or NULL. */
static const char *
string_of (json_t *o, const char *key, size_t max)
{
  bool bad = false;
  const char *s = esp_doc_string (o, key, &bad);

  return !bad && s && strlen (s) <= max ? s : NULL;
}

static bool
read_image (json_t *o, struct esp_source *s)
{
  const char *url = string_of (o, "url", URL_MAX);
  const char *etag = string_of (o, "etag", sizeof s->etag - 1);
  bool bad = false;

  s->size = esp_doc_u64 (o, "size", 0, &bad);
  if (bad || !url || !url[0] || !etag)
    return false;
  strcpy (s->etag, etag);
  s->url = strdup (url);
  return s->url != NULL;
}

static bool
read_source (json_t *o, const struct esp_rp *rp, struct esp_source *s,
             esp_digest *index)
{
  const char *center = string_of (o, "center", ESP_NAME_MAX);
  const char *hex = string_of (o, "index-sha256", 64);

  memset (s, 0, sizeof *s);
  if (!json_object_get (o, "center"))
    return read_image (o, s);
  if (!center || !esp_name_ok (center) || !hex ||
      !esp_digest_parse (hex, index) ||
      variant_from_json (json_object_get (o, "variant"), rp,
                         &s->variant) != NULL)
    return false;
  strcpy (s->center, center);
  return true;
}

static int
damaged (const char *where, const char *what)
{
  errno = EBADMSG;
  esp_error ("%s/%s makes no sense", where, what);
  return -1;
}

static int
read_all (json_t *array, const struct esp_rp *rp, const char *where,
          struct esp_source_list *out, esp_digest *indexes)
{
  size_t n = json_array_size (array);

  if (!array || n > SOURCES_MAX)
    return damaged (where, ESP_RP_SOURCES);
  out->s = calloc (n + 1, sizeof *out->s);
  if (!out->s) {
    esp_error ("malloc: sources: %m");
    return -1;
  }
  for (size_t i = 0; i < n; i++) {
    out->n = i + 1;
    if (!read_source (json_array_get (array, i), rp, &out->s[i], &indexes[i]))
      return damaged (where, ESP_RP_SOURCES);
  }
  return 0;
}

int
sources_load (int dir, const struct esp_rp *rp, const char *where,
              struct esp_source_list *out, esp_digest **indexes)
{
  CLEANUP_FREE esp_digest *digests = calloc (SOURCES_MAX + 1, sizeof *digests);
  CLEANUP_JSON json_t *doc = esp_doc_load (dir, ESP_RP_SOURCES, SOURCES_KIND,
                                           SOURCES_VERSION);
  bool bad = false;

  memset (out, 0, sizeof *out);
  if (!digests) {
    esp_error ("malloc: sources: %m");
    return -1;
  }
  if (!doc)
    return -1;
  if (read_all (esp_doc_array (doc, SOURCES_KIND, &bad), rp, where, out,
                digests) == -1) {
    esp_source_list_clear (out);
    return -1;
  }
  if (indexes)
    *indexes = ESP_STEAL (digests);
  return 0;
}

/* --- indexes ----------------------------------------------------------------- */

void
sources_index_name (const char *center, char name[ESP_NAME_MAX + 16])
{
  snprintf (name, ESP_NAME_MAX + 16, ESP_RP_INDEX "%s", center);
}

int
sources_write_index (int dir, const char *center,
                     const struct esp_index *index, esp_digest *digest)
{
  char name[ESP_NAME_MAX + 16];
  CLEANUP_FREE void *buf = NULL;
  size_t len;

  buf = esp_index_pack (index, NULL, &len);
  if (!buf)
    return -1;
  esp_digest_of (buf, len, digest);
  sources_index_name (center, name);
  return esp_write_file_atomic (dir, name, buf, len, 0644);
}

/* The bytes are those that the document names: what they say is checked
 * only so far that nobody is led astray.
 */
static int
parse_index (const uint8_t *p, size_t len, const struct esp_variant *v,
             struct esp_index *out)
{
  if (len < INDEX_HEAD || memcmp (p, INDEX_MAGIC, 8) != 0 ||
      esp_get32 (p + 8) != 1 || esp_get32 (p + 12) != v->shift ||
      esp_get64 (p + 16) != v->segments ||
      (len - INDEX_HEAD) / INDEX_ENTRY != v->segments ||
      (len - INDEX_HEAD) % INDEX_ENTRY != 0)
    return -1;
  *out = (struct esp_index) { .shift = v->shift, .n = v->segments };
  out->segments = calloc (out->n + 1, sizeof *out->segments);
  if (!out->segments)
    return -1;
  p += INDEX_HEAD;
  for (size_t i = 0; i < out->n; i++, p += INDEX_ENTRY) {
    struct esp_segment *s = &out->segments[i];

    s->number = esp_get32 (p);
    s->stored = esp_get32 (p + 4);
    s->offset = esp_get64 (p + 8);
    memcpy (s->digest.b, p + 16, ESP_DIGEST_SIZE);
    if (s->offset > v->pack_size || s->stored > v->pack_size - s->offset ||
        (i > 0 && s->number <= s[-1].number))
      return -1;
  }
  return 0;
}

int
sources_read_index (int dir, const struct esp_source *source,
                    const esp_digest *digest, const char *where,
                    struct esp_index *out)
{
  char name[ESP_NAME_MAX + 16];
  size_t max = INDEX_HEAD + source->variant.segments * INDEX_ENTRY, len;
  CLEANUP_FREE char *buf = NULL;
  esp_digest is;

  memset (out, 0, sizeof *out);
  sources_index_name (source->center, name);
  if (esp_read_file (dir, name, max, &buf, &len) == -1 && errno != EFBIG) {
    esp_error ("read: %s/%s: %m", where, name);
    return -1;
  }
  if (buf)
    esp_digest_of (buf, len, &is);
  if (buf && esp_digest_eq (&is, digest) &&
      parse_index ((uint8_t *) buf, len, &source->variant, out) == 0)
    return 0;
  esp_index_clear (out);
  errno = EBADMSG;
  esp_error ("%s/%s is damaged, or not that of its source: run 'espalier "
             "store check --repair'", where, name);
  return -1;
}

int
sources_agree (const struct segments *t, const struct esp_index *index,
               const char *center, const char *where)
{
  esp_digest d;
  size_t i;

  for (i = 0; i < index->n && index->n == t->n && index->shift == t->shift; i++)
    if (index->segments[i].number != segments_number (t, i) ||
        (segments_digest (t, i, &d) &&
         !esp_digest_eq (&d, &index->segments[i].digest)))
      break;
  if (i == t->n && i == index->n && index->shift == t->shift)
    return 0;
  errno = EBADMSG;
  esp_error ("%s: the index of center %s is of other segments than those that "
             "are kept: it has another segment size, or lies", where, center);
  return -1;
}

/* --- the first one --------------------------------------------------------- */

bool
sources_ok (const struct esp_source *s, const struct esp_index *index)
{
  if (s->center[0] == 0)
    return !index && s->url && strlen (s->url) <= URL_MAX;
  return index && esp_name_ok (s->center);
}

int
sources_write_first (int dir, const struct esp_source *source,
                     const struct esp_index *index)
{
  struct esp_source_list list = { (struct esp_source *) source, 1 };
  esp_digest digest = { { 0 } };

  if (!source)
    list.n = 0;
  else if (!sources_ok (source, index)) {
    errno = EINVAL;
    esp_error ("a source is a center with its index, or the address of an "
               "image");
    return -1;
  }
  else if (index &&
           sources_write_index (dir, source->center, index, &digest) == -1)
    return -1;
  return sources_save (dir, &list, &digest);
}

