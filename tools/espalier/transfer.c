/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier push and pull: between a store and an image center. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "center/center.h"
#include "delay/delay.h"
#include "espalier.h"

ESP_DEFINE_CLEANUP (center, struct esp_center *, esp_center_close)
ESP_DEFINE_CLEANUP (delay, struct esp_delay *, esp_delay_stop)
#define CLEANUP_DELAY ESP_CLEANUP (delay)
#define CLEANUP_CENTER ESP_CLEANUP (center)
#define CLEANUP_REFS __attribute__ ((cleanup (esp_center_refs_clear)))
#define CLEANUP_KEYS __attribute__ ((cleanup (esp_key_info_list_clear)))

/* A venue wins over a restore point of the same name; a UUID is always a
 * restore point.
 */
bool
is_venue (const char *ref)
{
  esp_uuid tip;
  return esp_catalog_venue_tip (cli_catalog (), ref, 0, &tip) == 0;
}

/* RP is what REF, which is no venue, means. */
int
find_rp_or_venue (const char *ref, struct esp_rp *rp)
{
  char why[512] = "";
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  int r = esp_catalog_rp_find (cli_catalog (), ref, rp), saved = errno;

  esp_catch_end (outer);
  errno = saved;
  if (r == -1)
    esp_error ("%s%s", errno == ENOENT ? "there is no such venue, and " : "",
               why);
  return r;
}

static json_t *
json_transfer (const char *key, const char *what, const char *center,
               const struct esp_transfer *t)
{
  json_t *o = json_object ();

  json_object_set_new (o, key, json_string (what));
  json_object_set_new (o, "center", json_string (center));
  json_object_set_new (o, "restore_points", json_number (t->rps));
  json_object_set_new (o, "venues", json_number (t->venues));
  if (strcmp (key, "pulled") == 0)
    json_object_set_new (o, "kept", json_number (t->kept));
  json_object_set_new (o, "already", json_number (t->already));
  json_object_set_new (o, "segments", json_number (t->segments));
  json_object_set_new (o, "bytes", json_number (t->bytes_raw));
  json_object_set_new (o, "stored_bytes", json_number (t->bytes_stored));
  json_object_set_new (o, "resumed_bytes", json_number (t->resumed));
  return o;
}

static const char *
plural (uint64_t n)
{
  return n == 1 ? "" : "s";
}

/* --- push ------------------------------------------------------------------- */

/* The id of the store's signing key; "" where it has none. */
static int
signing_key (char id[17])
{
  CLEANUP_KEYS struct esp_key_info_list keys = { 0 };

  id[0] = 0;
  if (esp_key_list (cli.store, &keys) == -1)
    return CLI_FAILED;
  for (size_t i = 0; i < keys.n; i++)
    if (strcmp (keys.key[i].kind, "signing") == 0)
      strcpy (id, keys.key[i].id);
  return 0;
}

/* Said once: when the key was made. */
static void
tell_new_key (const char *before)
{
  char id[17];

  if (before[0] || cli.quiet || cli.json || signing_key (id) != 0 || !id[0])
    return;
  printf ("made this store's signing key %s: for another server, 'espalier "
          "key public >FILE' here, 'espalier key trust NAME FILE' there\n", id);
}

static int
push_object (struct esp_center *center, const struct args *args,
             const struct esp_push_options *options,
             struct esp_transfer *done)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  const char *ref = args->arg[0];
  bool force = opt_has (args, "force");

  if (is_venue (ref))
    return esp_push_venue (center, ref, force, options, done);
  if (find_rp_or_venue (ref, &rp) == -1)
    return -1;
  if (!force)
    return esp_push_rp (center, &rp.uuid, options, done);
  return usage (args->cmd, "--force is for venues, and %s is a restore point",
                ref);
}

static int
push_run (const struct args *args)
{
  CLEANUP_CENTER struct esp_center *center = NULL;
  struct esp_transfer done = { 0 };
  struct esp_push_options options = {
    .variant = opt_value (args, "variant"),
    .key_file = opt_value (args, "key-file"),
    .no_sign = opt_has (args, "no-sign"),
    .progress = esp_progress_update,
  };
  char before[17], stored[16], raw[16], resumed[16], earlier[48] = "";
  struct esp_variant wish;
  int level, r;

  if (options.variant &&
      esp_variant_parse (options.variant, &wish, &level) == -1)
    return CLI_USAGE;
  /* Who gives a key wants what is sent encrypted. */
  if (options.key_file && (!options.variant || !wish.key[0]))
    return usage (args->cmd, "--key-file is for a variant that is encrypted: "
                  "name the key, too, such as --variant 256K,zstd,key=NAME");
  if (cli_open () != 0 || signing_key (before) != 0 ||
      !(center = esp_center_open (cli.store, args->arg[1])))
    return CLI_FAILED;
  {
    CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("pushing");
    options.arg = bar;
    r = push_object (center, args, &options, &done);
  }
  if (!options.no_sign)
    tell_new_key (before);
  if (r != 0)
    return r == CLI_USAGE ? r : CLI_FAILED;
  if (done.resumed > 0)
    snprintf (earlier, sizeof earlier, ", and %s before it was cut off",
              esp_size_format (done.resumed, resumed));
  return cli_done (cli.json ? json_transfer ("pushed", args->arg[0],
                                             args->arg[1], &done) : NULL,
                   "pushed %s to %s: %" PRIu64 " restore point%s (%s, sent "
                   "%s%s), %" PRIu64 " there already", args->arg[0],
                   args->arg[1], done.rps, plural (done.rps),
                   esp_size_format (done.bytes_raw, raw),
                   esp_size_format (done.bytes_stored, stored), earlier,
                   done.already);
}

/* --- pull --now -------------------------------------------------------------- */

struct tips { esp_uuid *uuid; size_t n; };

static void
add_tip (struct tips *tips, const esp_uuid *uuid)
{
  for (size_t i = 0; i < tips->n; i++)
    if (esp_uuid_eq (&tips->uuid[i], uuid))
      return;
  tips->uuid = reallocarray (tips->uuid, tips->n + 1, sizeof *uuid);
  if (!tips->uuid)
    abort ();
  tips->uuid[tips->n++] = *uuid;
}

static int
add_tips_of (struct tips *tips, const char *venue)
{
  CLEANUP_VENUE struct esp_venue v = { 0 };

  if (esp_catalog_venue_get (cli_catalog (), venue, &v) == -1)
    return -1;
  for (unsigned d = 0; d < v.ndisks; d++)
    add_tip (tips, &v.disks[d]);
  return 0;
}

/* Load what the tips need; what a server of this store fetches already is
 * not fetched again.
 */
static int
load_now (const struct tips *tips)
{
  const struct esp_delay_params params = { .background = false };
  CLEANUP_DELAY struct esp_delay *delay = NULL;
  CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("loading");

  if (tips->n > 0 && !(delay = esp_delay_start (cli.store, &params)))
    return -1;
  for (size_t i = 0; i < tips->n; i++)
    if (esp_delay_hydrate (delay, &tips->uuid[i], esp_progress_update,
                           bar) == -1)
      return -1;
  return 0;
}

/* --- pull ------------------------------------------------------------------- */

/* What REF means at CENTER: a venue there, else a restore point by its UUID,
 * name, or the beginning of its UUID.
 */
struct target { bool venue; esp_uuid uuid; };

static int
ambiguous (const char *ref, const char *center)
{
  esp_error ("center %s has several restore points that %s could mean: give "
             "more of the UUID ('espalier fetch %s' shows them)", center, ref,
             center);
  return -1;
}

/* 1: SURE, by name; else by the beginning of the UUID. */
static int
match (const struct esp_rp *rp, const char *ref)
{
  char text[ESP_UUID_TEXT];

  if (strcmp (rp->name, ref) == 0)
    return 2;
  return strlen (ref) >= 4 &&
    strncmp (esp_uuid_text (&rp->uuid, text), ref, strlen (ref)) == 0;
}

static int
find_rp (const struct esp_center_refs *refs, const char *ref,
         const char *center, esp_uuid *out)
{
  int best = 0, count = 0;

  for (size_t i = 0; i < refs->nrps; i++) {
    int m = match (&refs->rps[i], ref);
    if (m == 0 || m < best)
      continue;
    count = m > best ? 1 : count + 1;
    best = m;
    *out = refs->rps[i].uuid;
  }
  if (count > 1)
    return ambiguous (ref, center);
  if (count == 1)
    return 0;
  esp_error ("center %s has no venue and no restore point %s: 'espalier fetch "
             "%s' shows what it has", center, ref, center);
  return -1;
}

int
center_find_rp (struct esp_center *center, const char *ref, esp_uuid *out)
{
  CLEANUP_REFS struct esp_center_refs refs = { 0 };

  if (esp_uuid_parse (ref, out) == 0)
    return 0;
  if (esp_name_check (ref, "restore point") == -1 ||
      esp_center_refs (center, &refs) == -1)
    return -1;
  return find_rp (&refs, ref, esp_center_name (center), out);
}

static int
find_target (struct esp_center *center, const char *ref, struct target *out)
{
  CLEANUP_REFERENCE struct esp_reference venue = { 0 };
  esp_uuid unused;

  *out = (struct target) { .venue = false };
  if (esp_uuid_parse (ref, &unused) == 0)
    return center_find_rp (center, ref, &out->uuid);
  if (esp_name_check (ref, "venue or restore point") == -1)
    return -1;
  if (esp_center_reference (center, ref, &venue, NULL) == 0) {
    out->venue = true;
    return 0;
  }
  return errno == ENOENT ? center_find_rp (center, ref, &out->uuid) : -1;
}

static int
pull_all (struct esp_center *center, const struct esp_pull_options *options,
          struct esp_transfer *done, struct tips *tips)
{
  CLEANUP_REFS struct esp_center_refs refs = { 0 };
  int r = 0;

  if (esp_center_refs (center, &refs) == -1)
    return -1;
  /* One that was changed here does not keep the others away. */
  for (size_t i = 0; i < refs.nvenues && !esp_progress_interrupted (); i++)
    if (esp_pull_venue (center, refs.venues[i].venue.id, options, done) == -1 ||
        add_tips_of (tips, refs.venues[i].venue.id) == -1)
      r = -1;
  return r;
}

static int
pull_object (struct esp_center *center, const struct args *args,
             const struct esp_pull_options *options,
             struct esp_transfer *done, struct tips *tips)
{
  struct target target;

  if (args->n == 1)
    return pull_all (center, options, done, tips);
  if (find_target (center, args->arg[1], &target) == -1)
    return -1;
  if (!target.venue) {
    add_tip (tips, &target.uuid);
    return esp_pull_rp (center, &target.uuid, options, done);
  }
  if (!options->as)
    return esp_pull_venue (center, args->arg[1], options, done) == -1 ? -1
      : add_tips_of (tips, args->arg[1]);
  return usage (args->cmd, "--as is for restore points, and %s is a venue",
                args->arg[1]);
}

/* Could that be a variant's id: "256K-zstd", "1M-none-school"?  What push
 * takes, "256K,zstd", would never be found.
 */
static bool
is_variant_id (const char *s)
{
  static const char *const sizes[] = {
    "64K-", "128K-", "256K-", "512K-", "1M-", "2M-", "4M-",
  };

  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    size_t n = strlen (sizes[i]);
    if (strncmp (s, sizes[i], n) == 0 && (strncmp (s + n, "zstd", 4) == 0 ||
                                          strncmp (s + n, "none", 4) == 0))
      return s[n + 4] == 0 || (s[n + 4] == '-' && s[n + 5]);
  }
  return false;
}

static int
check_pull (const struct args *args)
{
  const char *variant = opt_value (args, "variant");

  if (args->n == 1 && !opt_has (args, "all"))
    return usage (args->cmd, "what?  Give a venue, a restore point, or --all");
  if (args->n == 2 && opt_has (args, "all"))
    return usage (args->cmd, "--all goes without %s", args->arg[1]);
  if (opt_has (args, "all") && opt_has (args, "as"))
    return usage (args->cmd, "--as is for one restore point");
  if (variant && !is_variant_id (variant))
    return usage (args->cmd, "--variant %s: write it as the center has it: "
                  "SEGMENT-zstd or SEGMENT-none, and -KEY where it is "
                  "encrypted, such as 64K-none or 256K-zstd-school", variant);
  if (opt_has (args, "as") &&
      esp_name_check (opt_value (args, "as"), "restore point") == -1)
    return CLI_USAGE;
  return 0;
}

/* Names and maps take moments: no bar, but an interrupt ends it cleanly. */
static int
pull_progress (void *arg, uint64_t done, uint64_t total)
{
  (void) arg;
  (void) done;
  (void) total;
  return esp_progress_interrupted () ? -1 : 0;
}

/* The last line of a pull. */
static int
pull_done (const struct args *args, const char *what,
           const struct esp_transfer *done)
{
  const char *center = args->arg[0];
  json_t *json = cli.json ? json_transfer ("pulled", what, center, done)
    : NULL;
  char raw[16];

  if (done->kept > 0 && args->n == 2)
    return cli_done (json, "kept venue %s: it was changed here, and not at %s "
                     "('espalier pull %s %s --force' takes the center's)", what,
                     center, center, what);
  if (done->rps == 0 && opt_has (args, "now"))
    return cli_done (json, "pulled %s from %s: all of its data is here", what,
                     center);
  if (done->rps == 0)
    return cli_done (json, "pulled %s from %s: all of its restore points were "
                     "here%s", what, center, done->kept == 0 ? "" :
                     "; kept venues that were changed here alone");
  return cli_done (json, "pulled %s from %s: %" PRIu64 " new restore point%s "
                   "with %s of data, which %s", what, center, done->rps,
                   plural (done->rps), esp_size_format (done->bytes_raw, raw),
                   opt_has (args, "now") ? "is all here"
                   : "comes when it is read");
}

static int
pull_run (const struct args *args)
{
  CLEANUP_CENTER struct esp_center *center = NULL;
  struct esp_transfer done = { 0 };
  struct esp_pull_options options = {
    .variant = opt_value (args, "variant"), .as = opt_value (args, "as"),
    .force = opt_has (args, "force"), .progress = pull_progress,
  };
  const char *what = args->n == 2 ? args->arg[1] : "all venues";
  struct tips tips = { 0 };
  int r;

  if (check_pull (args) != 0)
    return CLI_USAGE;
  if (cli_open () != 0 ||
      !(center = esp_center_open (cli.store, args->arg[0])))
    return CLI_FAILED;
  {
    CLEANUP_PROGRESS struct esp_progress *bar = work_begin ("pulling");
    options.arg = bar;
    r = pull_object (center, args, &options, &done, &tips);
  }
  if (r == 0 && opt_has (args, "now"))
    r = load_now (&tips);
  free (tips.uuid);
  if (r != 0)
    return r == CLI_USAGE ? r : CLI_FAILED;
  return pull_done (args, what, &done);
}

static const struct opt push_options[] = {
  { "variant", 0, "TEXT", "how to pack: SEGMENT[,zstd[:LEVEL]|none][,key=NAME]", false },
  { "key-file", 0, "FILE", "take the variant's key from a file", false },
  { "no-sign", 0, NULL, "do not sign: others can read it only as an unsigned center", false },
  { "force", 0, NULL, "replace a venue that somebody else replaced", false },
  { 0 },
};

static const struct opt pull_options[] = {
  { "all", 0, NULL, "every venue of the center", false },
  { "now", 0, NULL, "end when all of the data is here", false },
  { "variant", 0, "ID", "take this packing where a restore point has it", false },
  { "as", 0, "NAME", "what the restore point is called here", false },
  { "force", 0, NULL, "also a venue that was changed here", false },
  { 0 },
};

const struct command transfer_commands[] = {
  { "push", "RP|VENUE CENTER [--variant TEXT] [--key-file FILE] [--no-sign] [--force]",
    "Send a restore point, or a venue, to an image center",
    "What it stands on goes along; what the center has is not sent again.  When it\n"
    "is interrupted, the same command goes on where it was.",
    push_options, 2, 2, 0, push_run },
  { "pull", "CENTER RP|VENUE|--all [--now] [--variant ID] [--as NAME] [--force]",
    "Take a restore point, or a venue, from an image center",
    "Names and maps come now, data when it is read: it can be served at once.",
    pull_options, 1, 2, 0, pull_run },
  { 0 },
};
