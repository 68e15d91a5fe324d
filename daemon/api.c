/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests to the API.
 *
 * An answer's text is kept for a second, behind a lock: ten open pages cost
 * what one costs.  Its ETag is its checksum, so who has it already gets 304;
 * therefore no answer has a time in it that only says now.
 */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api-internal.h"
#include "api.h"
#include "daemon.h"
#include "util/clock.h"
#include "util/host.h"
#include "util/sum.h"

#define FRESH 1000000u          /* microseconds */
#define TAG 24u                 /* bytes of an ETag, with its NUL */
#define BOOTS_MAX 1000u
#define CLIENTS_MAX 20000u

/* --- texts ------------------------------------------------------------------------ */

struct answer {
  pthread_mutex_t lock;         /* protects what follows */
  char *text;
  size_t len;
  char tag[TAG];
  uint64_t stale_at;
};
#define ANSWER { .lock = PTHREAD_MUTEX_INITIALIZER }

typedef json_t *(*build_fn) (const struct request *r,
                             const struct inventory *inv,
                             const struct pulse *pulse);

static void
tag_of (const char *text, size_t len, char tag[TAG])
{
  snprintf (tag, TAG, "%016" PRIx64, esp_sum (text, len));
}

/* ROOT as text, taken over; NULL: reported. */
static char *
text_of (json_t *root)
{
  char *text = root ? json_dumps (root, JSON_COMPACT) : NULL;

  json_decref (root);
  if (!text)
    esp_error ("json: out of memory");
  return text;
}

static char *
build_text (const struct request *r, build_fn build)
{
  CLEANUP_INVENTORY const struct inventory *inv =
    inventory_get (daemon_store ());
  json_t *root;

  if (!inv)
    return NULL;
  root = build (r, inv, pulse_begin ());
  pulse_end ();
  return text_of (root);
}

static int
refresh_locked (struct answer *a, const struct request *r, build_fn build)
{
  if (a->text && esp_now_us () < a->stale_at)
    return 0;
  char *text = build_text (r, build);
  if (!text)
    return -1;
  free (a->text);
  a->text = text;
  a->len = strlen (text);
  tag_of (a->text, a->len, a->tag);
  a->stale_at = esp_now_us () + FRESH;
  return 0;
}

/* --- replies ---------------------------------------------------------------------- */

static int
reply_text (struct request *r, const char *text, size_t len, const char *tag)
{
  uint64_t from, n;
  int result;
  unsigned status;

  reply_header (r, "Cache-Control", "no-cache");
  status = http_range (r, len, tag, &from, &n, &result);
  if (status == 0)
    return result;
  return reply (r, status, "application/json", text + from, n);
}

static int
reply_failed (struct request *r)
{
  return reply_error (r, 500, "the store cannot be read: see the log of "
                      "espalierd");
}

static int
handle (struct request *r, struct answer *a, build_fn build)
{
  ESP_LOCK_SCOPE (&a->lock);
  if (refresh_locked (a, r, build) == -1)
    return reply_failed (r);
  return reply_text (r, a->text, a->len, a->tag);
}

/* --- one subject each ----------------------------------------------------------- */

/* A handler api_NAME_handle that answers with what EXPR makes. */
#define HANDLER(name, expr)                                             \
  static json_t *                                                       \
  build_##name (const struct request *r, const struct inventory *inv,   \
                const struct pulse *pulse)                              \
  {                                                                     \
    (void) r;                                                           \
    (void) inv;                                                         \
    (void) pulse;                                                       \
    return expr;                                                        \
  }                                                                     \
                                                                        \
  int                                                                   \
  api_##name##_handle (struct request *r)                               \
  {                                                                     \
    static struct answer answer = ANSWER;                               \
    return handle (r, &answer, build_##name);                           \
  }

HANDLER (tree, api_points (inv, true))
HANDLER (venues, api_venues (inv))
HANDLER (clients, api_clients (inv, pulse, CLIENTS_MAX))
HANDLER (overlays, api_overlays (inv))
HANDLER (hydration, api_hydration (inv, pulse))
HANDLER (cache, api_cache (pulse))
HANDLER (centers, api_centers (inv, pulse))
HANDLER (boots, api_boots (BOOTS_MAX))
HANDLER (server, api_server (r->config, inv, pulse))

/* --- one venue --------------------------------------------------------------------- */

static json_t *
venue_json (const struct inventory *inv, const struct esp_venue *venue,
            const struct esp_venue_log *log)
{
  json_t *o = api_venue (inv, venue), *overlays = json_array ();

  for (size_t i = 0; i < inv->overlays.n; i++)
    if (strcmp (inv->overlays.o[i].venue, venue->id) == 0)
      json_array_append_new (overlays, json_overlay (&inv->overlays.o[i],
                                                     &inv->rps));
  json_object_set_new (o, "log", json_venue_log (log, &inv->rps));
  json_object_set_new (o, "overlays", overlays);
  return o;
}

int
api_venue_handle (struct request *r)
{
  CLEANUP_VENUE_LOG struct esp_venue_log log = { 0 };
  CLEANUP_INVENTORY const struct inventory *inv =
    inventory_get (daemon_store ());
  const struct esp_venue *venue;
  char tag[TAG];

  if (!inv)
    return reply_failed (r);
  venue = venue_index_get (&inv->venues, r->part[0]);
  if (!venue)
    return reply_error (r, 404, "there is no such venue: see /api/venues");
  if (esp_catalog_venue_log (esp_store_catalog (daemon_store ()), venue->id,
                             &log) == -1)
    return reply_failed (r);
  CLEANUP_FREE char *text = text_of (venue_json (inv, venue, &log));
  if (!text)
    return reply_failed (r);
  tag_of (text, strlen (text), tag);
  return reply_text (r, text, strlen (text), tag);
}

/* --- the state ------------------------------------------------------------------------ */

static json_t *
build_state (const struct request *r, const struct inventory *inv,
             const struct pulse *pulse)
{
  return api_state (r->config, inv, pulse);
}

static json_t *
build_points (const struct request *r, const struct inventory *inv,
              const struct pulse *pulse)
{
  (void) r;
  (void) pulse;
  return api_points (inv, false);
}

/* STATE and the tree as one object; the tree's restore points only where the
 * client has not got them.  malloced; NULL: no memory.
 */
static char *
join (const struct answer *state, const struct answer *tree, bool points)
{
  char *text;

  if (asprintf (&text, "%.*s,\"tree\":{\"tag\":\"%s\"%s%s}}",
                (int) state->len - 1, state->text, tree->tag,
                points ? ",\"points\":" : "", points ? tree->text : "") == -1)
    return NULL;
  return text;
}

int
api_state_handle (struct request *r)
{
  static struct answer state = ANSWER, tree = ANSWER;
  const char *has = request_query (r, "tree");
  char tag[TAG];

  ESP_LOCK_SCOPE (&state.lock);
  ESP_LOCK_SCOPE (&tree.lock);
  if (refresh_locked (&state, r, build_state) == -1 ||
      refresh_locked (&tree, r, build_points) == -1)
    return reply_failed (r);
  bool points = !has || strcmp (tree.tag, has) != 0;
  CLEANUP_FREE char *text = join (&state, &tree, points);
  if (!text)
    return reply_failed (r);
  tag_of (text, strlen (text), tag);
  return reply_text (r, text, strlen (text), tag);
}

/* --- beginning, end --------------------------------------------------------------------- */

int
api_start (const struct config *config)
{
  (void) config;
  return pulse_start (daemon_store ());
}

void
api_stop (void)
{
  pulse_stop ();
  inventory_end ();
}
