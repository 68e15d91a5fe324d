/* SPDX-License-Identifier: BSD-3-Clause */
/* The fields of a restore point, as its `meta` in a store and its manifest
 * at an image center have them (docs/formats.md, "meta").  What they say is
 * checked field by field: readers of these documents size tables by it.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/fields.h"
#include "store/rp-internal.h"
#include "util/doc.h"
#include "util/host.h"

#define NOTE_MAX (64u << 10)
#define RESOURCES_MAX 1024u

/* --- writing ----------------------------------------------------------- */

/* TEXT, called WHAT, of restore point NAME: valid UTF-8 of at most MAX bytes. */
static int
check_text (const char *name, const char *what, const char *text, size_t max)
{
  CLEANUP_JSON json_t *utf8 = json_string (text);

  if (utf8 && strlen (text) <= max)
    return 0;
  errno = EINVAL;
  if (utf8)
    esp_error ("restore point %s: its %s is longer than %zu bytes", name, what,
               max);
  else
    esp_error ("restore point %s: its %s is not valid UTF-8", name, what);
  return -1;
}

int
esp_rp_check_words (const struct esp_rp *rp)
{
  if (rp->note && check_text (rp->name, "note", rp->note, NOTE_MAX) == -1)
    return -1;
  if (rp->nresources > RESOURCES_MAX) {
    errno = EINVAL;
    esp_error ("restore point %s: it has %zu resources, more than %u",
               rp->name, rp->nresources, RESOURCES_MAX);
    return -1;
  }
  for (size_t i = 0; i < rp->nresources; i++)
    if (check_text (rp->name, "resource's name", rp->resources[i].name,
                    ESP_NAME_MAX) == -1 ||
        check_text (rp->name, "resource's version", rp->resources[i].version,
                    ESP_NAME_MAX) == -1)
      return -1;
  return 0;
}

json_t *
esp_resources_json (const struct esp_resource *list, size_t n)
{
  CLEANUP_JSON json_t *array = json_array ();

  for (size_t i = 0; array && i < n; i++) {
    const struct esp_resource *r = &list[i];

    if (json_array_append_new (array, json_pack ("{s:s, s:s, s:s}",
                                                 "kind", r->kind,
                                                 "name", r->name,
                                                 "version",
                                                 r->version ? r->version
                                                 : "")) == -1)
      return NULL;
  }
  return ESP_STEAL (array);
}

json_t *
esp_rp_fields (const struct esp_rp *rp)
{
  char uuid[ESP_UUID_TEXT], parent[ESP_UUID_TEXT];
  bool root = esp_uuid_is_null (&rp->parent);

  return json_pack ("{s:s, s:s, s:s?, s:I, s:I, s:I, s:I, s:s, s:o}",
                    "uuid", esp_uuid_text (&rp->uuid, uuid),
                    "name", rp->name,
                    "parent", root ? NULL : esp_uuid_text (&rp->parent, parent),
                    "size", (json_int_t) rp->size,
                    "created", (json_int_t) rp->created,
                    "data-blocks", (json_int_t) rp->data_blocks,
                    "zero-blocks", (json_int_t) rp->zero_blocks,
                    "note", rp->note ? rp->note : "",
                    "resources", esp_resources_json (rp->resources,
                                                     rp->nresources));
}

/* --- reading ----------------------------------------------------------- */

bool
esp_field_uuid (json_t *o, const char *key, bool null_ok, esp_uuid *out)
{
  json_t *v = json_object_get (o, key);
  bool bad = false;
  const char *s;

  memset (out, 0, sizeof *out);
  if (null_ok && json_is_null (v))
    return true;
  s = esp_doc_string (o, key, &bad);
  return !bad && s && esp_uuid_parse (s, out) == 0 && !esp_uuid_is_null (out);
}

bool
esp_field_u64 (json_t *o, const char *key, uint64_t min, uint64_t max,
          uint64_t *out)
{
  bool bad = false;

  *out = esp_doc_u64 (o, key, UINT64_MAX, &bad);
  return !bad && *out >= min && *out <= max;
}

const char *
esp_field_string (json_t *o, const char *key, size_t max)
{
  bool bad = false;
  const char *s = esp_doc_string (o, key, &bad);

  return !bad && s && strlen (s) <= max ? s : NULL;
}

static bool
read_name (json_t *o, struct esp_rp *rp)
{
  const char *s = esp_field_string (o, "name", ESP_NAME_MAX);

  if (!s || !esp_name_ok (s))
    return false;
  strcpy (rp->name, s);
  return true;
}

static bool
read_note (json_t *o, struct esp_rp *rp)
{
  const char *s = esp_field_string (o, "note", NOTE_MAX);

  return s && (rp->note = strdup (s)) != NULL;
}

static bool
resource_ok (const char *kind, const char *name, const char *version)
{
  return kind && name && version && name[0] &&
    (strcmp (kind, "env") == 0 || strcmp (kind, "app") == 0);
}

static bool
read_resource (json_t *o, struct esp_resource *r)
{
  const char *kind = esp_field_string (o, "kind", 3);
  const char *name = esp_field_string (o, "name", ESP_NAME_MAX);
  const char *version = esp_field_string (o, "version", ESP_NAME_MAX);

  if (!resource_ok (kind, name, version))
    return false;
  r->kind = strdup (kind);
  r->name = strdup (name);
  r->version = strdup (version);
  return r->kind && r->name && r->version;
}

bool
esp_resources_read (json_t *o, size_t max, struct esp_resource **list,
                    size_t *nlist)
{
  bool bad = false;
  json_t *array = esp_doc_array (o, "resources", &bad);
  size_t n = json_array_size (array);

  if (bad || !array || n > max)
    return false;
  if (!(*list = calloc (n ? n : 1, sizeof **list)))
    return false;
  for (size_t i = 0; i < n; i++) {
    *nlist = i + 1;
    if (!read_resource (json_array_get (array, i), &(*list)[i]))
      return false;
  }
  return true;
}

const char *
esp_rp_read_fields (json_t *o, struct esp_rp *rp)
{
  uint64_t blocks;

  if (!json_is_object (o))
    return "(the whole document)";
  if (!esp_field_uuid (o, "uuid", false, &rp->uuid))
    return "uuid";
  if (!read_name (o, rp))
    return "name";
  if (!esp_field_uuid (o, "parent", true, &rp->parent) ||
      esp_uuid_eq (&rp->uuid, &rp->parent))
    return "parent";
  if (!esp_field_u64 (o, "size", 1, ESP_DISK_MAX, &rp->size))
    return "size";
  if (!esp_field_u64 (o, "created", 0, ESP_FIELD_TIME_MAX, &rp->created))
    return "created";
  blocks = esp_blocks (rp->size);
  if (!esp_field_u64 (o, "data-blocks", 0, blocks, &rp->data_blocks))
    return "data-blocks";
  if (!esp_field_u64 (o, "zero-blocks", 0, blocks - rp->data_blocks,
                      &rp->zero_blocks))
    return "zero-blocks";
  if (!read_note (o, rp))
    return "note";
  return esp_resources_read (o, RESOURCES_MAX, &rp->resources,
                             &rp->nresources) ? NULL : "resources";
}
