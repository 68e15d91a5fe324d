/* SPDX-License-Identifier: BSD-3-Clause */
/* Manifests: a restore point as a center has it (docs/formats.md,
 * "restore-points/UUID/manifest").  Everything else of the restore point is
 * checked against it: the map and the indexes by their digests, the segments
 * by those in the indexes.  Only the boot profile is not: it is advice.
 */

#include <config.h>

#include <string.h>

#include "center/format-internal.h"
#include "store/fields.h"
#include "util/doc.h"

#define KIND "manifest"
#define FORMAT_VERSION 1
#define VARIANTS_MAX 64u
/* A packed map has its header, and for each page little more than it. */
#define MAP_MIN 48u
#define MAP_PAGE_MAX 4100u
#define MAP_EXTRA 1024u

void
esp_manifest_clear (struct esp_manifest *m)
{
  esp_rp_clear (&m->rp);
  free (m->variants);
  free (m->pushed_by);
  memset (m, 0, sizeof *m);
}

/* --- writing ----------------------------------------------------------- */

static json_t *
variants_to_json (const struct esp_manifest *m)
{
  CLEANUP_JSON json_t *array = json_array ();

  for (size_t i = 0; array && i < m->nvariants; ++i)
    if (json_array_append_new (array, variant_to_json (&m->variants[i])))
      return NULL;
  return ESP_STEAL (array);
}

static json_t *
manifest_to_json (const struct esp_manifest *m)
{
  CLEANUP_JSON json_t *doc = esp_rp_fields (&m->rp);
  char digest[65];

  if (!doc ||
      json_object_set_new (doc, "map-size",
                           json_integer ((json_int_t) m->map_size)) ||
      json_object_set_new (doc, "map-sha256",
                           json_string (esp_digest_hex (&m->map_digest,
                                                        digest))) ||
      json_object_set_new (doc, "variants", variants_to_json (m)))
    return NULL;
  return text_add_pushed (ESP_STEAL (doc), m->pushed_by, m->pushed);
}

/* --- reading: the name of the first field that is wrong, or NULL -------- */

static const char *
read_map (json_t *doc, struct esp_manifest *m)
{
  uint64_t pages = (esp_tiles (m->rp.size) + ESP_MAP_PAGE_TILES - 1)
    / ESP_MAP_PAGE_TILES;
  const char *s = esp_field_string (doc, "map-sha256", 64);

  if (!esp_field_u64 (doc, "map-size", MAP_MIN,
                      MAP_MIN + pages * MAP_PAGE_MAX + MAP_EXTRA,
                      &m->map_size))
    return "map-size";
  return s && esp_digest_parse (s, &m->map_digest) ? NULL : "map-sha256";
}

static bool
id_taken (const struct esp_manifest *m, const char *id)
{
  for (size_t i = 0; i < m->nvariants; ++i)
    if (strcmp (m->variants[i].id, id) == 0)
      return true;
  return false;
}

static const char *
read_variants (json_t *doc, struct esp_manifest *m)
{
  bool bad = false;
  json_t *array = esp_doc_array (doc, "variants", &bad), *o;
  size_t i, n = json_array_size (array);
  const char *field;

  if (bad || !array || n > VARIANTS_MAX)
    return "variants";
  m->variants = calloc (n ? n : 1, sizeof *m->variants);
  if (!m->variants)
    return "variants";
  json_array_foreach (array, i, o) {
    if ((field = variant_from_json (o, &m->rp, &m->variants[i])))
      return field;
    if (id_taken (m, m->variants[i].id))
      return "id";
    m->nvariants++;
  }
  return NULL;
}

static const char *
bad_field (json_t *doc, struct esp_manifest *m)
{
  const char *field;

  if ((field = esp_rp_read_fields (doc, &m->rp)) ||
      (field = read_map (doc, m)) || (field = read_variants (doc, m)))
    return field;
  return text_read_pushed (doc, &m->pushed_by, &m->pushed) ? NULL
    : "pushed-by or pushed";
}

static int
read_manifest (json_t *doc, const esp_uuid *uuid, const char *where, int err,
               struct esp_manifest *m)
{
  const char *field = bad_field (doc, m);

  if (field) {
    errno = err;
    esp_error ("%s: the field %s is missing or wrong", where, field);
    return -1;
  }
  if (esp_uuid_eq (uuid, &m->rp.uuid))
    return 0;
  errno = err;
  esp_error ("%s: belongs to another restore point", where);
  return -1;
}

int
esp_manifest_parse (const char *text, size_t len, const esp_uuid *uuid,
                    const struct esp_trust *trust, const char *where,
                    struct esp_manifest *out)
{
  CLEANUP_JSON json_t *doc = text_parse (text, len, KIND, FORMAT_VERSION, trust,
                                         where);
  CLEANUP_MANIFEST struct esp_manifest m = { 0 };

  if (!doc || read_manifest (doc, uuid, where, EBADMSG, &m) == -1)
    return -1;
  *out = m;
  memset (&m, 0, sizeof m);
  return 0;
}

char *
esp_manifest_format (const struct esp_manifest *m,
                     const struct esp_signer *signer, size_t *len)
{
  CLEANUP_JSON json_t *doc = manifest_to_json (m);
  CLEANUP_MANIFEST struct esp_manifest again = { 0 };
  char where[80], uuid[ESP_UUID_TEXT];

  snprintf (where, sizeof where, "manifest of restore point %s",
            esp_uuid_text (&m->rp.uuid, uuid));
  /* What we would not read again is not written. */
  if (doc && read_manifest (doc, &m->rp.uuid, where, EINVAL, &again) == -1)
    return NULL;
  return text_format (doc, KIND, FORMAT_VERSION, signer, where, len);
}
