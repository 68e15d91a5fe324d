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

#include "store/fields.h"
#include "store/rp-internal.h"
#include "util/doc.h"
#include "util/host.h"

static const char *const kind_names[] = {
  [ESP_RP_STORED] = "stored",
  [ESP_RP_IN_PLACE] = "in-place",
  [ESP_RP_DELAYED] = "delayed",
};

const char *
esp_digest_text (uint64_t digest, char buf[17])
{
  snprintf (buf, 17, "%016" PRIx64, digest);
  return buf;
}

/* --- writing ----------------------------------------------------------- */

json_t *
esp_rp_to_meta (const struct esp_rp *rp, uint64_t map_digest)
{
  CLEANUP_JSON json_t *meta = NULL;
  char digest[17];

  if (esp_rp_check_words (rp) == -1)
    return NULL;
  meta = esp_rp_fields (rp);
  if (meta == NULL ||
      json_object_set_new (meta, "kind",
                           json_string (kind_names[rp->kind])) == -1 ||
      json_object_set_new (meta, ESP_META_DIGEST,
                           json_string (esp_digest_text (map_digest,
                                                         digest))) == -1) {
    errno = ENOMEM;
    esp_error ("json_pack: meta of restore point %s: %m", rp->name);
    return NULL;
  }
  return ESP_STEAL (meta);
}

/* --- reading: each returns false, with *FIELD set, on what is wrong ------ */

static bool
read_digest (json_t *meta, const char *key, uint64_t *out)
{
  const char *s = esp_field_string (meta, key, 16);

  if (!s || strlen (s) != 16 || strspn (s, "0123456789abcdef") != 16)
    return false;
  *out = strtoull (s, NULL, 16);
  return true;
}

static bool
read_kind (json_t *meta, struct esp_rp *rp)
{
  const char *s = esp_field_string (meta, "kind", 16);

  for (unsigned i = 0; s && i < sizeof kind_names / sizeof kind_names[0]; i++)
    if (strcmp (s, kind_names[i]) == 0) {
      rp->kind = (enum esp_rp_kind) i;
      return true;
    }
  return false;
}

static bool
read_path (json_t *meta, struct esp_rp *rp)
{
  json_t *o = json_object_get (meta, ESP_META_IN_PLACE);
  const char *s;

  if (rp->kind != ESP_RP_IN_PLACE)
    return o == NULL;
  s = esp_field_string (o, "path", 4095);
  return s && s[0] == '/' && esp_uuid_is_null (&rp->parent) &&
    (rp->path = strdup (s)) != NULL;
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
      !esp_field_u64 (meta, ESP_META_MAP_SIZE, 1, rp->size, &n))
    return ESP_META_MAP_SIZE;
  return NULL;
}

/* The name of the first field that is wrong, or NULL. */
static const char *
bad_field (json_t *meta, struct esp_rp *rp, uint64_t *map_digest)
{
  const char *field = esp_rp_read_fields (meta, rp);

  if (field)
    return field;
  if (!read_kind (meta, rp))
    return "kind";
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
  /* Who does not know delayed ones must not take this for damage. */
  return esp_doc_save (dir_fd, ESP_RP_META, ESP_RP_META_KIND,
                       rp.kind == ESP_RP_DELAYED ? ESP_RP_META_VERSION : 1,
                       meta, 0644);
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
