/* SPDX-License-Identifier: BSD-3-Clause */
/* The document `meta` of a restore point (docs/formats.md, "meta").
 *
 * It holds all that the catalog knows of a restore point, so that a lost
 * catalog is made again from these alone, and ties the map to it by a
 * digest.  What it says is checked field by field: a reader of this document
 * sizes tables and opens paths by it.
 *
 * Two fields are there only sometimes.  `map-digest-next`: a merge replaces
 * map and meta, two files, so for a moment the map may have either digest.
 * `map-size`: an overlay that was kept as a larger disk has a map of the old
 * size; the blocks behind it are absent.  Rewriting the map instead would
 * make the keeping two steps.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/rp-internal.h"
#include "util/doc.h"
#include "util/host.h"

#define NOTE_MAX (64u << 10)
#define RESOURCES_MAX 1024u
#define CREATED_MAX (UINT64_C (1) << 40)

static const char *const kind_names[] = {
  [ESP_RP_STORED] = "stored",
  [ESP_RP_IN_PLACE] = "in-place",
};

const char *
esp_digest_text (uint64_t digest, char buf[17])
{
  snprintf (buf, 17, "%016" PRIx64, digest);
  return buf;
}

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

static json_t *
resources_to_json (const struct esp_rp *rp)
{
  CLEANUP_JSON json_t *array = json_array ();

  for (size_t i = 0; array && i < rp->nresources; i++) {
    const struct esp_resource *r = &rp->resources[i];

    if (json_array_append_new (array, json_pack ("{s:s, s:s, s:s}",
                                                 "kind", r->kind,
                                                 "name", r->name,
                                                 "version", r->version)) == -1)
      return NULL;
  }
  return ESP_STEAL (array);
}

json_t *
esp_rp_to_meta (const struct esp_rp *rp, uint64_t map_digest)
{
  char uuid[ESP_UUID_TEXT], parent[ESP_UUID_TEXT], digest[17];
  bool root = esp_uuid_is_null (&rp->parent);
  json_t *meta;

  if (esp_rp_check_words (rp) == -1)
    return NULL;
  meta = json_pack ("{s:s, s:s, s:s?, s:s, s:I, s:I, s:I, s:I, s:s, s:o,"
                    " s:s}",
                    "uuid", esp_uuid_text (&rp->uuid, uuid),
                    "name", rp->name,
                    "parent", root ? NULL : esp_uuid_text (&rp->parent, parent),
                    "kind", kind_names[rp->kind],
                    "size", (json_int_t) rp->size,
                    "created", (json_int_t) rp->created,
                    "data-blocks", (json_int_t) rp->data_blocks,
                    "zero-blocks", (json_int_t) rp->zero_blocks,
                    "note", rp->note ? rp->note : "",
                    "resources", resources_to_json (rp),
                    ESP_META_DIGEST, esp_digest_text (map_digest, digest));
  if (meta == NULL) {
    errno = ENOMEM;
    esp_error ("json_pack: meta of restore point %s: %m", rp->name);
  }
  return meta;
}

/* --- reading: each returns false, with *FIELD set, on what is wrong ------ */

static bool
read_uuid (json_t *meta, const char *key, bool null_ok, esp_uuid *out)
{
  json_t *v = json_object_get (meta, key);
  bool bad = false;
  const char *s;

  memset (out, 0, sizeof *out);
  if (null_ok && json_is_null (v))
    return true;
  s = esp_doc_string (meta, key, &bad);
  return !bad && s && esp_uuid_parse (s, out) == 0 && !esp_uuid_is_null (out);
}

static bool
read_u64 (json_t *meta, const char *key, uint64_t min, uint64_t max,
          uint64_t *out)
{
  bool bad = false;

  *out = esp_doc_u64 (meta, key, UINT64_MAX, &bad);
  return !bad && *out >= min && *out <= max;
}

/* A string of at most MAX bytes; absent is wrong. */
static const char *
read_string (json_t *o, const char *key, size_t max)
{
  bool bad = false;
  const char *s = esp_doc_string (o, key, &bad);

  return !bad && s && strlen (s) <= max ? s : NULL;
}

static bool
read_digest (json_t *meta, const char *key, uint64_t *out)
{
  const char *s = read_string (meta, key, 16);

  if (!s || strlen (s) != 16 || strspn (s, "0123456789abcdef") != 16)
    return false;
  *out = strtoull (s, NULL, 16);
  return true;
}

static bool
read_kind (json_t *meta, struct esp_rp *rp)
{
  const char *s = read_string (meta, "kind", 16);

  for (unsigned i = 0; s && i < sizeof kind_names / sizeof kind_names[0]; i++)
    if (strcmp (s, kind_names[i]) == 0) {
      rp->kind = (enum esp_rp_kind) i;
      return true;
    }
  return false;
}

static bool
read_name (json_t *meta, struct esp_rp *rp)
{
  const char *s = read_string (meta, "name", ESP_NAME_MAX);

  if (!s || !esp_name_ok (s))
    return false;
  strcpy (rp->name, s);
  return true;
}

static bool
read_path (json_t *meta, struct esp_rp *rp)
{
  json_t *o = json_object_get (meta, ESP_META_IN_PLACE);
  const char *s;

  if (rp->kind != ESP_RP_IN_PLACE)
    return o == NULL;
  s = read_string (o, "path", 4095);
  return s && s[0] == '/' && esp_uuid_is_null (&rp->parent) &&
    (rp->path = strdup (s)) != NULL;
}

static bool
read_note (json_t *meta, struct esp_rp *rp)
{
  const char *s = read_string (meta, "note", NOTE_MAX);

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
  const char *kind = read_string (o, "kind", 3);
  const char *name = read_string (o, "name", ESP_NAME_MAX);
  const char *version = read_string (o, "version", ESP_NAME_MAX);

  if (!resource_ok (kind, name, version))
    return false;
  r->kind = strdup (kind);
  r->name = strdup (name);
  r->version = strdup (version);
  return r->kind && r->name && r->version;
}

static bool
read_resources (json_t *meta, struct esp_rp *rp)
{
  bool bad = false;
  json_t *array = esp_doc_array (meta, "resources", &bad);
  size_t n = json_array_size (array);

  if (bad || !array || n > RESOURCES_MAX)
    return false;
  rp->resources = calloc (n ? n : 1, sizeof *rp->resources);
  if (rp->resources == NULL)
    return false;
  for (size_t i = 0; i < n; i++) {
    rp->nresources = i + 1;
    if (!read_resource (json_array_get (array, i), &rp->resources[i]))
      return false;
  }
  return true;
}

/* The fields that are there only sometimes. */
static const char *
bad_option (json_t *meta, const struct esp_rp *rp)
{
  uint64_t n;

  if (json_object_get (meta, ESP_META_DIGEST_NEXT) &&
      !read_digest (meta, ESP_META_DIGEST_NEXT, &n))
    return ESP_META_DIGEST_NEXT;
  if (json_object_get (meta, ESP_META_MAP_SIZE) &&
      !read_u64 (meta, ESP_META_MAP_SIZE, 1, rp->size, &n))
    return ESP_META_MAP_SIZE;
  return NULL;
}

/* The name of the first field that is wrong, or NULL. */
static const char *
bad_field (json_t *meta, struct esp_rp *rp, uint64_t *map_digest)
{
  uint64_t blocks;

  if (!json_is_object (meta))
    return "(the whole document)";
  if (!read_uuid (meta, "uuid", false, &rp->uuid))
    return "uuid";
  if (!read_name (meta, rp))
    return "name";
  if (!read_uuid (meta, "parent", true, &rp->parent) ||
      esp_uuid_eq (&rp->uuid, &rp->parent))
    return "parent";
  if (!read_kind (meta, rp))
    return "kind";
  if (!read_u64 (meta, "size", 1, ESP_DISK_MAX, &rp->size))
    return "size";
  if (!read_u64 (meta, "created", 0, CREATED_MAX, &rp->created))
    return "created";
  blocks = esp_blocks (rp->size);
  if (!read_u64 (meta, "data-blocks", 0, blocks, &rp->data_blocks))
    return "data-blocks";
  if (!read_u64 (meta, "zero-blocks", 0, blocks - rp->data_blocks,
                 &rp->zero_blocks))
    return "zero-blocks";
  if (!read_note (meta, rp))
    return "note";
  if (!read_resources (meta, rp))
    return "resources";
  if (!read_path (meta, rp))
    return ESP_META_IN_PLACE;
  if (!read_digest (meta, ESP_META_DIGEST, map_digest))
    return ESP_META_DIGEST;
  return bad_option (meta, rp);
}

int
esp_rp_from_meta (json_t *meta, struct esp_rp *rp, uint64_t *map_digest,
                  const char *where)
{
  const char *field;
  uint64_t digest;

  memset (rp, 0, sizeof *rp);
  field = bad_field (meta, rp, map_digest ? map_digest : &digest);
  if (field == NULL)
    return 0;
  esp_rp_clear (rp);
  errno = EBADMSG;
  esp_error ("%s: the field %s is missing or wrong", where, field);
  return -1;
}

/* --- files -------------------------------------------------------------- */

static void
where_is (const esp_uuid *uuid, char buf[80])
{
  char text[ESP_UUID_TEXT];

  snprintf (buf, 80, "restore-points/%s/" ESP_RP_META,
            esp_uuid_text (uuid, text));
}

/* Open the directory of UUID, and report. */
static int
open_rp (struct esp_store *store, const esp_uuid *uuid)
{
  char text[ESP_UUID_TEXT];
  int fd = esp_store_rp_dir (store, uuid);

  if (fd == -1)
    esp_error ("open: restore-points/%s: %m", esp_uuid_text (uuid, text));
  return fd;
}

json_t *
esp_meta_load (struct esp_store *store, const esp_uuid *uuid,
               struct esp_rp *rp, uint64_t *digest)
{
  CLEANUP_CLOSE int fd = open_rp (store, uuid);
  CLEANUP_JSON json_t *meta = NULL;
  CLEANUP_RP struct esp_rp found = { 0 };
  char where[80];

  if (fd == -1)
    return NULL;
  where_is (uuid, where);
  meta = esp_doc_load (fd, ESP_RP_META, ESP_RP_META_KIND, ESP_RP_META_VERSION);
  if (meta == NULL) {
    if (errno == ENOENT)
      esp_error ("open: %s: %m", where);
    return NULL;
  }
  if (esp_rp_from_meta (meta, &found, digest, where) == -1)
    return NULL;
  if (!esp_uuid_eq (&found.uuid, uuid)) {
    errno = EBADMSG;
    esp_error ("%s: belongs to another restore point", where);
    return NULL;
  }
  if (rp) {
    *rp = found;
    memset (&found, 0, sizeof found);
  }
  return ESP_STEAL (meta);
}

int
esp_rp_load_meta (struct esp_store *store, const esp_uuid *uuid,
                  struct esp_rp *rp, uint64_t *map_digest)
{
  CLEANUP_JSON json_t *meta = esp_meta_load (store, uuid, rp, map_digest);

  return meta ? 0 : -1;
}

int
esp_meta_save (int dir_fd, json_t *meta, const char *where)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  /* What we would not read again is not written. */
  if (esp_rp_from_meta (meta, &rp, NULL, where) == -1)
    return -1;
  return esp_doc_save (dir_fd, ESP_RP_META, ESP_RP_META_KIND,
                       ESP_RP_META_VERSION, meta, 0644);
}

/* --- the map that belongs to a meta ------------------------------------- */

/* The map in DIR_FD as a disk of MAP_SIZE, if its digest is DIGEST. */
static struct esp_map *
map_of (int dir_fd, uint64_t map_size, uint64_t digest)
{
  CLEANUP_MAP struct esp_map *map = NULL;

  map = esp_map_load (dir_fd, ESP_RP_MAP, map_size, false);
  if (map && esp_map_digest (map) != digest) {
    errno = EBADMSG;
    esp_error ("the map is not the one that meta was made for");
    return NULL;
  }
  return ESP_STEAL (map);
}

/* Grow MAP to SIZE.  Takes MAP. */
static struct esp_map *
map_grow (struct esp_map *map, uint64_t size)
{
  CLEANUP_MAP struct esp_map *small = map;

  if (small == NULL || small->size == size)
    return ESP_STEAL (small);
  return esp_map_copy (small, size);
}

struct esp_map *
esp_rp_load_map (struct esp_store *store, const esp_uuid *uuid)
{
  CLEANUP_CLOSE int fd = -1;
  CLEANUP_JSON json_t *meta = NULL;
  CLEANUP_RP struct esp_rp rp = { 0 };
  char text[ESP_UUID_TEXT], first[512], second[512];
  uint64_t digest, map_size, next;
  struct esp_catch outer;
  struct esp_map *map;
  bool bad = false;
  int saved;

  meta = esp_meta_load (store, uuid, &rp, &digest);
  if (meta == NULL || (fd = open_rp (store, uuid)) == -1)
    return NULL;
  map_size = esp_doc_u64 (meta, ESP_META_MAP_SIZE, rp.size, &bad);

  outer = esp_catch_begin (first, sizeof first);
  map = map_of (fd, map_size, digest);
  saved = errno;
  if (map == NULL && read_digest (meta, ESP_META_DIGEST_NEXT, &next)) {
    esp_catch_begin (second, sizeof second);
    map = map_of (fd, rp.size, next);
  }
  esp_catch_end (outer);
  if (map)
    return map_grow (map, rp.size);
  errno = saved;
  esp_error ("restore-points/%s/" ESP_RP_MAP ": %s",
             esp_uuid_text (uuid, text), first);
  return NULL;
}
