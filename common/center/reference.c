/* SPDX-License-Identifier: BSD-3-Clause */
/* References: a venue as a center has it, without its history
 * (docs/formats.md, "venues/ID").
 *
 * A signature cannot tell an old reference from a new one.  Who fetches keeps
 * the revision that it saw last, and may so tell one that was put back.
 */

#include <config.h>

#include <string.h>

#include "center/format-internal.h"
#include "store/fields.h"

#define KIND "reference"
#define FORMAT_VERSION 1

void
esp_reference_clear (struct esp_reference *r)
{
  esp_venue_clear (&r->venue);
  free (r->pushed_by);
  memset (r, 0, sizeof *r);
}

static bool
read_fields (json_t *doc, const char *id, struct esp_reference *r)
{
  return esp_venue_read_fields (doc, id, &r->venue) &&
    strlen (r->venue.description) <= ESP_FIELD_DESCRIPTION_MAX &&
    r->venue.created <= ESP_FIELD_TIME_MAX &&
    r->venue.changed <= ESP_FIELD_TIME_MAX &&
    text_read_pushed (doc, &r->pushed_by, &r->pushed);
}

static int
read_reference (json_t *doc, const char *id, const char *where, int err,
                struct esp_reference *r)
{
  if (read_fields (doc, id, r))
    return 0;
  errno = err;
  esp_error ("%s: a field is missing or wrong, or it is of another venue",
             where);
  return -1;
}

int
esp_reference_parse (const char *text, size_t len, const char *id,
                     const struct esp_trust *trust, const char *where,
                     struct esp_reference *out)
{
  CLEANUP_JSON json_t *doc = NULL;
  CLEANUP_REFERENCE struct esp_reference r = { 0 };

  if (esp_name_check (id, "venue") == -1 ||
      !(doc = text_parse (text, len, KIND, FORMAT_VERSION, trust, where)) ||
      read_reference (doc, id, where, EBADMSG, &r) == -1)
    return -1;
  *out = r;
  memset (&r, 0, sizeof r);
  return 0;
}

char *
esp_reference_format (const struct esp_reference *r,
                      const struct esp_signer *signer, size_t *len)
{
  CLEANUP_JSON json_t *doc = NULL;
  CLEANUP_REFERENCE struct esp_reference again = { 0 };
  char where[ESP_NAME_MAX + 32];

  if (esp_name_check (r->venue.id, "venue") == -1)
    return NULL;
  snprintf (where, sizeof where, "reference of venue %s", r->venue.id);
  doc = text_add_pushed (esp_venue_fields (&r->venue), r->pushed_by,
                         r->pushed);
  if (doc && read_reference (doc, r->venue.id, where, EINVAL, &again) == -1)
    return NULL;
  return text_format (doc, KIND, FORMAT_VERSION, signer, where, len);
}
