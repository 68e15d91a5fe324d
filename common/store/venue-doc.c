/* SPDX-License-Identifier: BSD-3-Clause */
/* The document of a venue, venues/ID: reading and writing it
 * (docs/formats.md, "venues/ID").  A reader trusts no field.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#include "store/cleanups.h"
#include "store/fields.h"
#include "store/internal.h"
#include "store/site-internal.h"
#include "store/venue.h"
#include "util/doc.h"
#include "util/host.h"

#define DISKS_MAX (ESP_DISK_NUMBER_MAX + 1u)
/* Nobody counts so far; a damaged document may. */
#define REVISION_MAX (UINT64_C (1) << 48)

/* --- reading ----------------------------------------------------------- */

/* The UUIDs of the array KEY. */
static bool
get_disks (json_t *o, esp_uuid **disks, unsigned *ndisks)
{
  bool bad = false;
  json_t *array = esp_doc_array (o, "disks", &bad), *v;
  size_t i, n = json_array_size (array);

  if (bad || n < 1 || n > DISKS_MAX || !(*disks = calloc (n, sizeof **disks)))
    return false;
  *ndisks = n;
  json_array_foreach (array, i, v)
    if (!json_is_string (v) ||
        esp_uuid_parse (json_string_value (v), &(*disks)[i]) == -1 ||
        esp_uuid_is_null (&(*disks)[i]))
      return false;
  return true;
}

static char *
get_string (json_t *o, const char *key)
{
  bool bad = false;
  const char *s = esp_doc_string (o, key, &bad);

  return bad || !s ? NULL : strdup (s);
}

static bool
get_change (json_t *o, struct esp_venue_change *x)
{
  bool bad = false;

  x->revision = esp_doc_u64 (o, "revision", 0, &bad);
  x->time = esp_doc_u64 (o, "time", 0, &bad);
  return !bad && x->revision > 0 && x->revision <= REVISION_MAX &&
    (x->action = get_string (o, "action")) &&
    (x->description = get_string (o, "description")) &&
    get_disks (o, &x->disks, &x->ndisks);
}

/* Revisions rise, and the last one is the venue's. */
static bool
get_log (json_t *doc, uint64_t revision, struct esp_venue_log *log)
{
  bool bad = false;
  json_t *array = esp_doc_array (doc, "log", &bad), *o;
  size_t i, n = json_array_size (array);
  uint64_t last = 0;

  if (bad || n == 0 || !(log->change = calloc (n, sizeof *log->change)))
    return false;
  log->n = n;
  json_array_foreach (array, i, o) {
    if (!get_change (o, &log->change[i]) || log->change[i].revision <= last)
      return false;
    last = log->change[i].revision;
  }
  return last == revision;
}

bool
esp_venue_read_fields (json_t *o, const char *id, struct esp_venue *v)
{
  bool bad = false;
  const char *s = esp_doc_string (o, "id", &bad);

  if (bad || !s || strcmp (s, id) != 0)
    return false;
  strcpy (v->id, id);           /* a valid name, so it fits */
  v->created = esp_doc_u64 (o, "created", 0, &bad);
  v->changed = esp_doc_u64 (o, "changed", 0, &bad);
  v->revision = esp_doc_u64 (o, "revision", 0, &bad);
  return !bad && v->revision > 0 && v->revision <= REVISION_MAX &&
    (v->description = get_string (o, "description")) &&
    get_disks (o, &v->disks, &v->ndisks);
}

void
venue_doc_clear (struct venue_doc *doc)
{
  esp_venue_clear (&doc->venue);
  esp_venue_log_clear (&doc->log);
  esp_venue_boot_clear (&doc->boot);
}

int
venue_read (struct esp_store *store, const char *id, struct venue_doc *out)
{
  CLEANUP_VENUE_DOC struct venue_doc d = { 0 };
  CLEANUP_JSON json_t *doc = NULL;

  if (esp_name_check (id, "venue") == -1)
    return -1;
  doc = esp_doc_load (esp_store_venues_fd (store), id, ESP_VENUE_KIND,
                      ESP_VENUE_VERSION);
  if (!doc)
    return -1;
  if (!esp_venue_read_fields (doc, id, &d.venue) ||
      !get_log (doc, d.venue.revision, &d.log) ||
      !venue_boot_read (doc, id, &d.boot)) {
    errno = EBADMSG;
    esp_error ("venues/%s: damaged: a field is missing or wrong: run"
               " 'espalier store check'", id);
    return -1;
  }
  *out = d;
  memset (&d, 0, sizeof d);
  return 0;
}

int
venue_read_to_change (struct esp_store *store, const char *id,
                      struct venue_doc *out)
{
  CLEANUP_VENUE struct esp_venue row = { 0 };

  if (venue_read (store, id, out) == 0)
    return 0;
  if (errno != ENOENT)
    return -1;
  /* This one reports that there is no such venue. */
  if (esp_catalog_venue_get (store->catalog, id, &row) == -1)
    return -1;
  errno = ENOENT;
  esp_error ("venue '%s': its document venues/%s is missing: run 'espalier"
             " store check --repair'", id, id);
  return -1;
}

int
esp_venue_load (struct esp_store *store, const char *id,
                struct esp_venue *venue, struct esp_venue_log *log)
{
  struct venue_doc doc;
  int r = venue_read (store, id, &doc);

  if (r == -1 && errno == ENOENT)
    esp_error ("no venue '%s': there is no document venues/%s", id, id);
  if (r == -1)
    return -1;
  *venue = doc.venue;
  *log = doc.log;
  esp_venue_boot_clear (&doc.boot);
  return 0;
}

/* --- writing ----------------------------------------------------------- */

static json_t *
make_disks (const esp_uuid *disks, unsigned n)
{
  json_t *array = json_array ();
  char text[ESP_UUID_TEXT];

  for (unsigned i = 0; array && i < n; ++i)
    if (json_array_append_new (array, json_string (esp_uuid_text (&disks[i],
                                                                  text)))) {
      json_decref (array);
      return NULL;
    }
  return array;
}

static json_t *
make_log (const struct esp_venue_log *log)
{
  json_t *array = json_array ();

  for (size_t i = 0; array && i < log->n; ++i) {
    const struct esp_venue_change *x = &log->change[i];
    json_t *o = json_pack ("{s:I, s:I, s:s, s:s, s:o}",
                           "revision", (json_int_t) x->revision,
                           "time", (json_int_t) x->time,
                           "action", x->action,
                           "description", x->description,
                           "disks", make_disks (x->disks, x->ndisks));
    if (json_array_append_new (array, o)) {
      json_decref (array);
      return NULL;
    }
  }
  return array;
}

json_t *
esp_venue_fields (const struct esp_venue *v)
{
  return json_pack ("{s:s, s:s, s:I, s:I, s:I, s:o}", "id", v->id,
                    "description", v->description,
                    "created", (json_int_t) v->created,
                    "changed", (json_int_t) v->changed,
                    "revision", (json_int_t) v->revision,
                    "disks", make_disks (v->disks, v->ndisks));
}

/* An older reader would lose the settings when it writes the document again,
 * so it must not read one that has any.
 */
int
venue_write (struct esp_store *store, const struct venue_doc *d)
{
  const char *id = d->venue.id;
  CLEANUP_JSON json_t *doc = esp_venue_fields (&d->venue);
  bool set = !esp_venue_boot_unset (&d->boot);

  if (!doc || json_object_set_new (doc, "log", make_log (&d->log)) == -1 ||
      (set && json_object_set_new (doc, "boot",
                                   venue_boot_json (&d->boot)) == -1)) {
    errno = ENOMEM;
    esp_error ("venues/%s: json_pack: %m", id);
    return -1;
  }
  return esp_doc_save (esp_store_venues_fd (store), id, ESP_VENUE_KIND,
                       set ? ESP_VENUE_VERSION : ESP_VENUE_VERSION_PLAIN, doc,
                       0644);
}
