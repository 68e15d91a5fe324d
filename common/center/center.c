/* SPDX-License-Identifier: BSD-3-Clause */
/* An open image center: its remote, the keys that are trusted, and its small
 * objects, read and checked.
 *
 * Nothing that comes from a center is believed: sizes are bounded by what
 * they can be before anything is fetched, manifests and references are signed,
 * everything else is tied to a manifest by a digest.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "center/center-internal.h"
#include "store/have.h"
#include "util/bits.h"
#include "util/file.h"
#include "util/host.h"

int
center_no_memory (void)
{
  errno = ENOMEM;
  esp_error ("malloc: %m");
  return -1;
}

const char *
center_where (const struct esp_center *center, const char *object,
              char buf[CENTER_WHERE_MAX])
{
  snprintf (buf, CENTER_WHERE_MAX, "center %s: %s", center->config.name,
            object);
  return buf;
}

int
center_damaged (const struct esp_center *center, const char *object,
                const char *why)
{
  errno = EBADMSG;
  esp_error ("center %s: %s is damaged: %s", center->config.name, object, why);
  return -1;
}

int
center_missing (const struct esp_center *center, const char *object)
{
  if (errno == ENOENT)
    esp_error ("center %s: there is no %s", center->config.name, object);
  return -1;
}

char *
center_pushed_by (void)
{
  char host[128] = "";

  if (gethostname (host, sizeof host - 1) == -1 || !host[0])
    strcpy (host, "unknown host");
  return esp_asprintf ("%s (espalier %s)", host, esp_version ());
}

int
center_buffer_sink (void *buffer, const void *bytes, size_t len)
{
  struct center_buffer *b = buffer;

  if (len > b->room - b->len) {
    errno = EPROTO;
    esp_error ("a center sends more than was asked for");
    return -1;
  }
  memcpy (b->buf + b->len, bytes, len);
  b->len += len;
  return 0;
}

int
center_rp_whole (struct esp_store *store, const esp_uuid *uuid)
{
  struct esp_have *have = esp_have_open (store, uuid);
  bool whole;

  if (!have)
    return -1;
  whole = esp_have_complete (have);
  esp_have_close (have);
  return whole;
}

bool
center_pause (unsigned ms)
{
  struct timespec t = { ms / 1000, (long) (ms % 1000) * 1000000 };

  nanosleep (&t, NULL);         /* an interrupt may shorten it */
  return !esp_progress_interrupted ();
}

/* --- opening -------------------------------------------------------------- */

struct esp_remote *
center_open_remote (const struct esp_center_config *c)
{
  const struct esp_remote_options options = {
    .ca = c->ca, .cert = c->cert, .key = c->key, .proxy = c->proxy,
    .credentials = c->credentials, .profile = c->profile,
    .connect_timeout = c->connect_timeout, .timeout = c->timeout,
    .retries = c->retries, .connections = c->connections,
  };

  return esp_remote_open (c->url, &options);
}

static int
center_open (struct esp_center *center, const char *name)
{
  if (esp_center_load (center->store, name, &center->config) == -1 ||
      !(center->remote = center_open_remote (&center->config)))
    return -1;
  if (center->config.unsigned_ok)
    return 0;
  center->trust = esp_trust_load (center->store);
  return center->trust ? 0 : -1;
}

struct esp_center *
esp_center_open (struct esp_store *store, const char *name)
{
  struct esp_center *center = calloc (1, sizeof *center);
  int saved;

  if (!center) {
    center_no_memory ();
    return NULL;
  }
  center->store = store;
  if (center_open (center, name) == 0)
    return center;
  saved = errno;
  esp_center_close (center);
  errno = saved;
  return NULL;
}

void
esp_center_close (struct esp_center *center)
{
  if (!center)
    return;
  if (center->remote)
    esp_remote_close (center->remote);
  if (center->trust)
    esp_trust_free (center->trust);
  esp_center_config_clear (&center->config);
  free (center);
}

const char *
esp_center_name (const struct esp_center *center)
{
  return center->config.name;
}

struct esp_remote *
esp_center_remote (struct esp_center *center)
{
  return center->remote;
}

struct esp_store *
esp_center_store (struct esp_center *center)
{
  return center->store;
}

const char *
esp_center_rp_object (const esp_uuid *uuid, const char *what, char *buf)
{
  char text[ESP_UUID_TEXT];

  snprintf (buf, ESP_OBJECT_MAX, "restore-points/%s/%s",
            esp_uuid_text (uuid, text), what);
  return buf;
}

/* --- documents ------------------------------------------------------------ */

int
esp_center_manifest (struct esp_center *center, const esp_uuid *uuid,
                     struct esp_manifest *out, struct esp_object *version)
{
  CLEANUP_FREE char *text = NULL;
  char object[ESP_OBJECT_MAX], where[CENTER_WHERE_MAX];
  size_t len;

  memset (out, 0, sizeof *out);
  esp_center_rp_object (uuid, "manifest", object);
  text = esp_remote_get_all (center->remote, object, ESP_MANIFEST_MAX, &len,
                             version);
  if (!text)
    return -1;
  return esp_manifest_parse (text, len, uuid, center->trust,
                             center_where (center, object, where), out);
}

int
center_reference (struct esp_center *center, const char *id,
                  struct esp_reference *out, struct esp_object *version,
                  esp_digest *digest)
{
  CLEANUP_FREE char *text = NULL, *component = esp_path_component (id);
  char object[ESP_OBJECT_MAX + 16], where[CENTER_WHERE_MAX];
  size_t len;

  memset (out, 0, sizeof *out);
  if (!component)
    return center_no_memory ();
  snprintf (object, sizeof object, "venues/%s", component);
  text = esp_remote_get_all (center->remote, object, ESP_MANIFEST_MAX, &len,
                             version);
  if (!text)
    return -1;
  if (digest)
    esp_digest_of (text, len, digest);
  return esp_reference_parse (text, len, id, center->trust,
                              center_where (center, object, where), out);
}

int
esp_center_reference (struct esp_center *center, const char *id,
                      struct esp_reference *out, struct esp_object *version)
{
  return center_reference (center, id, out, version, NULL);
}

/* --- what a manifest ties together ----------------------------------------- */

/* The object OBJECT, which must have LEN bytes with DIGEST; malloced.  Not
 * more than LIMIT: what the object can be at most, whatever a manifest says.
 */
static void *
get_checked (struct esp_center *center, const char *object, uint64_t len,
             uint64_t limit, const esp_digest *digest)
{
  CLEANUP_FREE void *buf = NULL;
  esp_digest found;
  size_t got;

  if (len > limit || len > SIZE_MAX / 2) {
    center_damaged (center, object, "the manifest says it is larger than it can be");
    return NULL;
  }
  buf = esp_remote_get_all (center->remote, object, (size_t) len, &got, NULL);
  if (!buf && errno == EFBIG)
    errno = EBADMSG;
  if (!buf) {
    center_missing (center, object);
    return NULL;
  }
  esp_digest_of (buf, got, &found);
  if (got == len && esp_digest_eq (&found, digest))
    return ESP_STEAL (buf);
  center_damaged (center, object, "it is not what the manifest says");
  return NULL;
}

/* Two bits a block, and what compression may add to what it cannot press. */
static uint64_t
map_limit (uint64_t size)
{
  uint64_t states = esp_blocks (size) / 4;
  return states + states / 64 + 65536;
}

struct esp_map *
esp_center_map (struct esp_center *center, const struct esp_manifest *m)
{
  CLEANUP_FREE void *buf = NULL;
  CLEANUP_MAP struct esp_map *map = NULL;
  char object[ESP_OBJECT_MAX], where[CENTER_WHERE_MAX];

  esp_center_rp_object (&m->rp.uuid, "map", object);
  buf = get_checked (center, object, m->map_size, map_limit (m->rp.size),
                     &m->map_digest);
  if (!buf)
    return NULL;
  map = esp_map_unpack (buf, (size_t) m->map_size, m->rp.size,
                        center_where (center, object, where));
  if (!map)
    return NULL;
  if (esp_map_count (map, ESP_DATA) == m->rp.data_blocks &&
      esp_map_count (map, ESP_ZERO) == m->rp.zero_blocks)
    return ESP_STEAL (map);
  center_damaged (center, object, "it has not as many blocks as the manifest "
                  "says");
  return NULL;
}

static int
load_key (struct esp_center *center, const struct esp_variant *variant,
          const char *key_file, struct esp_segment_key **key)
{
  *key = NULL;
  if (!variant->key[0])
    return 0;
  *key = esp_segment_key_load (center->store, variant, key_file);
  return *key ? 0 : -1;
}

int
esp_center_index (struct esp_center *center, const struct esp_manifest *m,
                  const struct esp_variant *variant,
                  const struct esp_map *map, const char *key_file,
                  struct esp_index *out)
{
  CLEANUP_SEGMENT_KEY struct esp_segment_key *key = NULL;
  CLEANUP_FREE void *buf = NULL;
  char what[64], object[ESP_OBJECT_MAX], where[CENTER_WHERE_MAX];

  memset (out, 0, sizeof *out);
  if (load_key (center, variant, key_file, &key) == -1)
    return -1;
  snprintf (what, sizeof what, "%s.index", variant->id);
  esp_center_rp_object (&m->rp.uuid, what, object);
  /* A segment has a block at least. */
  buf = get_checked (center, object, variant->index_size,
                     48 * m->rp.data_blocks + 4096, &variant->index_digest);
  if (!buf)
    return -1;
  return esp_index_unpack (buf, (size_t) variant->index_size, variant, map,
                           key, center_where (center, object, where), out);
}
