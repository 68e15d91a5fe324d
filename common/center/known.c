/* SPDX-License-Identifier: BSD-3-Clause */
/* What this store knew last of a center's venues: when its own venue and the
 * center's reference were the same, after a push or a pull.  The document
 * centers/NAME:venues ("NAME:venues" is no name, so no center is called so).
 *
 * The digest of the reference's text tells a push whether somebody replaced
 * it since; the revision tells a pull whether the venue was changed here
 * since.  A fetch does not move it: who has looked at another one's change
 * has not taken it.
 *
 * Changes are read, changed and written under the catalog's write
 * transaction, which is the store's lock.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "center/center-internal.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/host.h"

#define KNOWN_KIND "center-venues"
#define KNOWN_VERSION 1

static const char *
known_name (const char *center, char buf[ESP_NAME_MAX + 16])
{
  snprintf (buf, ESP_NAME_MAX + 16, "%s:venues", center);
  return buf;
}

/* The document; a new one where there is none, or one that cannot be read:
 * then nothing is known, which is what a push and a pull are careful with.
 */
static json_t *
known_load (int dirfd, const char *center)
{
  char name[ESP_NAME_MAX + 16], why[256] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  json_t *doc = esp_doc_load (dirfd, known_name (center, name), KNOWN_KIND,
                              KNOWN_VERSION);
  int saved = errno;

  esp_catch_end (outer);
  if (doc)
    return doc;
  if (saved != ENOENT)
    esp_warning ("%s: what was known of the center's venues is forgotten", why);
  doc = json_pack ("{s:{}}", "venues");
  if (!doc)
    center_no_memory ();
  return doc;
}

static int
read_known (json_t *o, const char *id, struct known_venue *out)
{
  bool bad = false;
  const char *digest;

  memset (out, 0, sizeof *out);
  snprintf (out->id, sizeof out->id, "%s", id);
  if (!json_is_object (o))
    return 0;
  digest = esp_doc_string (o, "digest", &bad);
  out->revision = esp_doc_u64 (o, "revision", 0, &bad);
  return !bad && digest && esp_digest_parse (digest, &out->digest);
}

int
center_known_get (struct esp_store *store, const char *center,
                  const char *id, struct known_venue *out)
{
  CLEANUP_CLOSE int fd = center_config_dir (store, false);
  CLEANUP_JSON json_t *doc = fd == -1 ? NULL : known_load (fd, center);

  if (!doc)
    return -1;
  return read_known (json_object_get (json_object_get (doc, "venues"), id),
                     id, out);
}

static int
known_save (int dirfd, const char *center, const struct known_venue *v)
{
  CLEANUP_JSON json_t *doc = known_load (dirfd, center);
  char name[ESP_NAME_MAX + 16], hex[65];
  json_t *o;

  if (!doc)
    return -1;
  o = json_pack ("{s:s, s:I}", "digest", esp_digest_hex (&v->digest, hex),
                 "revision", (json_int_t) v->revision);
  if (json_object_set_new (json_object_get (doc, "venues"), v->id, o) == -1)
    return center_no_memory ();
  return esp_doc_save (dirfd, known_name (center, name), KNOWN_KIND,
                       KNOWN_VERSION, doc, 0600);
}

int
center_known_set (struct esp_store *store, const char *center,
                  const struct known_venue *venue)
{
  CLEANUP_CLOSE int fd = center_config_dir (store, true);
  CLEANUP_ROLLBACK struct esp_catalog *tx = NULL;

  if (fd == -1) {
    esp_error ("open: " CENTERS_DIR ": %m");
    return -1;
  }
  if (esp_catalog_begin (esp_store_catalog (store)) == -1)
    return -1;
  tx = esp_store_catalog (store);       /* rolled back: no row changes */
  return known_save (fd, center, venue);
}

void
center_known_forget (struct esp_store *store, const char *center)
{
  CLEANUP_CLOSE int fd = center_config_dir (store, false);
  char name[ESP_NAME_MAX + 16];

  /* Left behind it would do no harm: it says only what was. */
  if (fd >= 0)
    unlinkat (fd, known_name (center, name), 0);
}
