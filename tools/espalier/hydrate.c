/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier hydrate, and the engine of delayed load in this program: started
 * by the first read of something that is not local yet, so that every
 * command that reads works on what was only pulled.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "delay/delay.h"
#include "espalier.h"
#include "store/have.h"

#define CLEANUP_HAVE ESP_CLEANUP (have)
ESP_DEFINE_CLEANUP (have, struct esp_have *, esp_have_close)

/* --- the engine ------------------------------------------------------------- */

static pthread_mutex_t engine_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_delay *engine;        /* engine_lock; to the end */

static struct esp_delay *
engine_get (void)
{
  static const struct esp_delay_params params = { .background = false };

  ESP_LOCK_SCOPE (&engine_lock);
  if (!engine)
    engine = esp_delay_start (cli.store, &params);
  return engine;
}

/* esp_fetch_fn, until the engine puts its own in this place. */
static int
fetch (void *arg, struct esp_store *store, const esp_uuid *uuid,
       uint64_t offset, uint64_t len)
{
  struct esp_delay *delay = engine_get ();

  (void) arg;
  (void) store;
  return delay ? esp_delay_fetch (delay, uuid, offset, len) : -1;
}

void
cli_fetch_begin (void)
{
  esp_have_set_fetcher (fetch, NULL);
}

void
cli_fetch_end (void)
{
  esp_have_set_fetcher (NULL, NULL);
  esp_delay_stop (engine);
  engine = NULL;
}

/* --- hydrate ------------------------------------------------------------------ */

struct tip { esp_uuid uuid; char name[ESP_NAME_MAX + 1]; };

static int
add_tip (const esp_uuid *uuid, struct tip *tip)
{
  tip->uuid = *uuid;
  if (esp_catalog_rp_name (cli_catalog (), uuid, tip->name, &(uint64_t) { 0 })
      == -1)
    esp_uuid_text (uuid, tip->name);
  return 0;
}

/* The tips of a venue's disks, or one restore point; *TIPS is malloced.  A
 * venue wins over a restore point of the same name.
 */
static int
find_tips (const char *ref, struct tip **tips, unsigned *n)
{
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  CLEANUP_RP struct esp_rp rp = { 0 };
  esp_uuid tip;

  if (esp_catalog_venue_tip (cli_catalog (), ref, 0, &tip) == -1) {
    if (find_rp_or_venue (ref, &rp) == -1)
      return -1;
    *tips = xcalloc (1, sizeof **tips);
    *n = 1;
    return add_tip (&rp.uuid, *tips);
  }
  if (esp_catalog_venue_get (cli_catalog (), ref, &venue) == -1)
    return -1;
  *tips = xcalloc (venue.ndisks, sizeof **tips);
  for (*n = 0; *n < venue.ndisks; ++*n)
    add_tip (&venue.disks[*n], &(*tips)[*n]);
  return 0;
}

/* What of a chain is delayed, and of that local. */
struct amount { uint64_t total, local; };

static int
measure (const struct tip *tip, struct amount *a)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  uint64_t local;

  for (esp_uuid at = tip->uuid; !esp_uuid_is_null (&at); at = rp.parent) {
    esp_rp_clear (&rp);
    if (esp_catalog_rp_get (cli_catalog (), &at, &rp) == -1) {
      esp_error ("restore point %s: not in the catalog: run 'espalier store "
                 "check'", tip->name);
      return -1;
    }
    if (rp.kind != ESP_RP_DELAYED)
      continue;
    a->total += rp.data_blocks << ESP_BLOCK_SHIFT;
    if (esp_have_peek (cli.store, &at, &local) == 0)
      a->local += local;
  }
  return 0;
}

static int
hydrate_now (const struct tip *tip)
{
  CLEANUP_FREE char *label = xasprintf ("fetching %s", tip->name);
  CLEANUP_PROGRESS struct esp_progress *bar = work_begin (label);
  struct esp_delay *delay = engine_get ();

  if (!delay ||
      esp_delay_hydrate (delay, &tip->uuid, esp_progress_update, bar) == -1)
    return -1;
  return esp_hydrate_wish (cli.store, &tip->uuid, false);
}

/* Does a server have the store open that looks at wishes? */
static bool
server_runs (void)
{
  return esp_hydrate_server (cli.store);
}

static json_t *
json_tip (const struct tip *tip, const struct amount *a, bool wished)
{
  return json_pack ("{s:s,s:o,s:I,s:I,s:b}", "name", tip->name,
                    "uuid", json_uuid (&tip->uuid),
                    "bytes", (json_int_t) a->total,
                    "local_bytes", (json_int_t) a->local, "wished", wished);
}

static void
tell (const struct args *args, const struct tip *tip, const struct amount *a)
{
  char local[16], total[16];

  esp_size_format (a->local, local);
  esp_size_format (a->total, total);
  if (cli.quiet || cli.json)
    return;
  if (a->total == 0)
    printf ("%s: nothing of it comes from a center\n", tip->name);
  else if (opt_has (args, "now"))
    printf ("%s: all %s are local\n", tip->name, total);
  else if (opt_has (args, "off"))
    printf ("%s: not asked for any more; %s of %s are local\n", tip->name,
            local, total);
  else if (a->local == a->total)
    printf ("%s: all %s are local already\n", tip->name, total);
  else
    printf ("%s: %s of %s are local; %s\n", tip->name, local, total,
            server_runs () ? "the server fetches the rest"
            : "a server will fetch the rest when it runs ('espalier serve'), "
              "or --now does");
}

static int
hydrate_tip (const struct args *args, const struct tip *tip, json_t *list)
{
  bool now = opt_has (args, "now"), off = opt_has (args, "off");
  struct amount before = { 0, 0 }, after = { 0, 0 };

  if (measure (tip, &before) == -1)
    return -1;
  if (now && hydrate_now (tip) == -1)
    return -1;
  bool wish = !now && !off && before.local < before.total;
  if (!now && (wish || off) &&
      esp_hydrate_wish (cli.store, &tip->uuid, wish) == -1)
    return -1;
  if (measure (tip, &after) == -1)
    return -1;
  tell (args, tip, &after);
  json_array_append_new (list, json_tip (tip, &after, wish));
  return 0;
}

static int
hydrate_run (const struct args *args)
{
  CLEANUP_FREE struct tip *tips = NULL;
  unsigned n = 0;
  json_t *list;
  int r = CLI_OK;

  if (opt_has (args, "now") && opt_has (args, "off"))
    return usage (args->cmd, "give --now or --off, not both");
  if (cli_open () != 0 || find_tips (args->arg[0], &tips, &n) == -1)
    return CLI_FAILED;
  list = json_array ();
  for (unsigned i = 0; i < n && r == CLI_OK; i++)
    if (hydrate_tip (args, &tips[i], list) == -1)
      r = CLI_FAILED;
  if (r == CLI_OK && cli.json)
    return json_print (list);
  json_decref (list);
  return r;
}

static const struct opt hydrate_options[] = {
  { "now", 0, NULL, "fetch it now, and wait", false },
  { "off", 0, NULL, "do not ask for it any more", false },
  { 0 },
};

const struct command hydrate_commands[] = {
  { "hydrate", "RP|VENUE [--now] [--off]",
    "Make all data of a pulled restore point, or venue, local",
    "Servers of the store fetch it in the background, also when no client has\n"
    "it open, until it is all there.",
    hydrate_options, 1, 1, 0, hydrate_run },
  { 0 },
};
