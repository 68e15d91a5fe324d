/* SPDX-License-Identifier: BSD-3-Clause */
/* What is in the store, as JSON: the command line's objects, with what only a
 * daemon knows beside them.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "api-internal.h"

json_t *
api_points (const struct inventory *inv, bool local)
{
  json_t *list = json_array ();

  for (size_t i = 0; i < inv->rps.list.n; i++) {
    json_t *o = json_rp (&inv->rps.list.rp[i], &inv->rps, &inv->venues);
    if (!local) {
      json_object_del (o, "local_bytes");
      json_object_del (o, "local_percent");
    }
    json_array_append_new (list, o);
  }
  return list;
}

json_t *
api_venue (const struct inventory *inv, const struct esp_venue *venue)
{
  json_t *o = json_venue (venue, &inv->rps);

  json_venue_boot (o, &inv->boots.boot[venue - inv->venues.list.venue]);
  return o;
}

json_t *
api_venues (const struct inventory *inv)
{
  json_t *list = json_array ();

  for (size_t i = 0; i < inv->venues.list.n; i++)
    json_array_append_new (list, api_venue (inv, &inv->venues.list.venue[i]));
  return list;
}

json_t *
api_overlays (const struct inventory *inv)
{
  json_t *list = json_array ();

  for (size_t i = 0; i < inv->overlays.n; i++)
    json_array_append_new (list, json_overlay (&inv->overlays.o[i],
                                               &inv->rps));
  return list;
}

/* --- centers -------------------------------------------------------------------- */

/* Append PARAMETER (LEN bytes) of a URL where it is one of those that are no
 * secret.
 */
static void
add_parameter (char *to, const char *parameter, size_t len)
{
  static const char *const harmless[] = { "region=", "endpoint=" };

  /* An endpoint is a URL: it may have a user, too. */
  if (memchr (parameter, '@', len))
    return;
  for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
    if (strncmp (parameter, harmless[i], strlen (harmless[i])) == 0) {
      strcat (to, strchr (to, '?') ? "&" : "?");
      strncat (to, parameter, len);
    }
}

char *
api_public_url (const char *url)
{
  char *out = calloc (1, strlen (url) + 2);
  const char *host = strstr (url, "://");
  size_t end, at;

  if (!out)
    return NULL;
  if (!host)
    return strncat (out, url, strcspn (url, "?#"));
  host += 3;
  strncat (out, url, (size_t) (host - url));
  end = strcspn (host, "/?#");
  for (at = end; at > 0 && host[at - 1] != '@'; at--)
    ;
  strncat (out, host + at, end - at);
  strncat (out, host + end, strcspn (host + end, "?#"));
  host += end + strcspn (host + end, "?#");
  while (*host == '?' || *host == '&') {
    size_t len = strcspn (++host, "&#");
    add_parameter (out, host, len);
    host += len;
  }
  return out;
}

bool
api_live (const struct pulse *pulse, enum esp_stats_kind kind,
          const char *name, struct line *sum)
{
  for (size_t i = 0; i < pulse->now.n;) {
    i += sample_sum (&pulse->now, i, sum);
    if (sum->kind == kind && strcmp (sum->name, name) == 0)
      return true;
  }
  return false;
}

static json_t *
center_json (const struct esp_center_config *c, const struct pulse *pulse)
{
  CLEANUP_FREE char *url = api_public_url (c->url);
  json_t *o = json_object (), *live = json_null ();
  struct line sum;

  if (api_live (pulse, ESP_STATS_CENTER, c->name, &sum)) {
    live = json_object ();
    line_counters_json (live, &sum, true);
  }
  json_object_set_new (o, "name", json_text (c->name));
  json_object_set_new (o, "url", json_text (url));
  json_object_set_new (o, "unsigned", json_boolean (c->unsigned_ok));
  json_object_set_new (o, "created", json_number (c->created));
  json_object_set_new (o, "live", live);
  return o;
}

json_t *
api_centers (const struct inventory *inv, const struct pulse *pulse)
{
  json_t *list = json_array ();

  for (size_t i = 0; i < inv->centers.n; i++)
    json_array_append_new (list, center_json (&inv->centers.c[i], pulse));
  return list;
}
