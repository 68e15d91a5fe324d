/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier store scrub: is all that is local still what it was?  What is not
 * is fetched again: of delayed restore points by the engine (hydrate.c), of
 * others from a center that they were pushed to (center/copies.h).
 */

#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "center/copies.h"
#include "espalier.h"
#include "store/image.h"
#include "store/scrub.h"
#include "util/bits.h"

ESP_DEFINE_CLEANUP (image, struct esp_image *, esp_image_close)
#define CLEANUP_IMAGE ESP_CLEANUP (image)

struct run {
  struct esp_progress *bar;
  struct esp_copies *copies;    /* NULL until they are needed */
  const char *from;             /* the center that the last one came from */
  json_t *findings;
  struct venue_index venues;
};

/* --- who reads it ---------------------------------------------------------------- */

/* Does the disk of TIP show any block of [OFFSET, OFFSET+LEN) that is RP's?
 * (If that cannot be known: yes.)
 */
static bool
shows (const struct esp_rp *tip, const struct esp_rp *rp, uint64_t offset,
       uint64_t len)
{
  char why[256];
  struct esp_catch outer = esp_catch_begin (why, sizeof why);
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (cli.store,
                                                          &tip->uuid);
  struct esp_chain *chain = image ? esp_image_chain (image) : NULL;
  uint64_t b = offset >> ESP_BLOCK_SHIFT, end;
  struct esp_run run = { 0 };
  bool yes = !chain;

  for (end = chain ? esp_blocks (offset + len) : 0; b < end && !yes;
       b += run.nblocks)
    yes = esp_chain_run (chain, b, end - b, &run) == -1 ||
      (run.state == ESP_DATA &&
       esp_uuid_eq (esp_chain_owner (chain, run.owner), &rp->uuid));
  esp_catch_end (outer);
  return yes;
}

/* Names of the restore points, RP and what descends from it, that show the
 * range, and of the venues that map them.
 */
static void
add_concerned (struct run *run, const struct esp_rp *rp, uint64_t offset,
               uint64_t len, json_t *rps, json_t *venues)
{
  CLEANUP_RP_INDEX struct rp_index index = { 0 };

  if (rp_index_load (&index, &rp->uuid) != CLI_OK)
    return;                     /* reported; the finding stands without them */
  for (size_t i = 0; i < index.list.n; i++) {
    const struct esp_rp *tip = &index.list.rp[i];
    if (tip->size <= offset ||
        !shows (tip, rp, offset, len < tip->size - offset
                ? len : tip->size - offset))
      continue;
    json_array_append_new (rps, json_string (tip->name));
    json_t *uses = venue_index_json (&run->venues, &tip->uuid);
    json_array_extend (venues, uses);
    json_decref (uses);
  }
}

static void
print_names (const char *label, const json_t *names)
{
  json_t *name;
  size_t i;

  if (json_array_size (names) == 0)
    return;
  printf ("  %s:", label);
  json_array_foreach (names, i, name)
    printf (" %s", json_string_value (name));
  putchar ('\n');
}

/* --- findings -------------------------------------------------------------------- */

static const char *
what_name (enum esp_scrub_what what)
{
  switch (what) {
  case ESP_SCRUB_MENDED: return "mended";
  case ESP_SCRUB_DROPPED: return "dropped";
  case ESP_SCRUB_LOST: return "lost";
  case ESP_SCRUB_FIRST: return "first";
  case ESP_SCRUB_UNCHECKED: return "unchecked";
  }
  return "?";
}

static const char *
what_words (enum esp_scrub_what what, const char *why)
{
  switch (what) {
  case ESP_SCRUB_MENDED: return "were wrong: fetched again";
  case ESP_SCRUB_DROPPED: return why
      ? "are wrong, and could not be fetched again"
      : "are wrong: they are fetched again when they are read";
  case ESP_SCRUB_LOST: return "are wrong, and stay so";
  case ESP_SCRUB_FIRST: return "had no digests: from now on it is compared "
    "with what it is now";
  case ESP_SCRUB_UNCHECKED: return "cannot be checked";
  }
  return "?";
}

static void
print_finding (const struct esp_rp *rp, uint64_t offset, uint64_t len,
               enum esp_scrub_what what, const char *why, const char *from)
{
  printf ("%s: ", rp->name);
  if (len)
    printf ("%" PRIu64 " bytes at %" PRIu64 " ", len, offset);
  printf ("%s%s%s%s%s\n", what_words (what, why), from ? " from " : "",
          from ? from : "", why ? ": " : "", why ? why : "");
}

static void
tell (void *arg, const struct esp_rp *rp, uint64_t offset, uint64_t len,
      enum esp_scrub_what what, const char *why)
{
  struct run *run = arg;
  const char *from = what == ESP_SCRUB_MENDED ? run->from : NULL;
  json_t *rps = json_array (), *venues = json_array ();

  run->from = NULL;
  if (what == ESP_SCRUB_LOST || what == ESP_SCRUB_DROPPED)
    add_concerned (run, rp, offset, len, rps, venues);
  esp_progress_clear (run->bar);
  if (!cli.json && !(what == ESP_SCRUB_FIRST && cli.quiet)) {
    print_finding (rp, offset, len, what, why, from);
    print_names ("restore points that show them", rps);
    print_names ("venues", venues);
  }
  json_array_append_new
    (run->findings, json_pack ("{s:s,s:o,s:s,s:I,s:I,s:s?,s:s?,s:o,s:o}",
                               "restore_point", rp->name,
                               "uuid", json_uuid (&rp->uuid),
                               "what", what_name (what),
                               "offset", (json_int_t) offset,
                               "length", (json_int_t) len,
                               "why", why, "from", from,
                               "restore_points", rps, "venues", venues));
}

/* --- other copies ------------------------------------------------------------------ */

static int
mend (void *arg, struct esp_store *store, const struct esp_rp *rp,
      unsigned shift, uint32_t number, const esp_digest *digest, void *raw,
      size_t len)
{
  struct run *run = arg;

  if (!run->copies && !(run->copies = esp_copies_new (store)))
    return -1;
  run->from = esp_copies_get (run->copies, rp, shift, number, digest, raw,
                              len);
  return run->from ? 0 : -1;
}

/* --- the whole ------------------------------------------------------------------------ */

static json_t *
json_result (const struct esp_scrub *s, json_t *findings)
{
  return json_pack ("{s:O,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}",
                    "findings", findings,
                    "restore_points", (json_int_t) s->rps,
                    "first", (json_int_t) s->first,
                    "segments", (json_int_t) s->segments,
                    "bytes", (json_int_t) s->bytes,
                    "mended", (json_int_t) s->mended,
                    "dropped", (json_int_t) s->dropped,
                    "lost", (json_int_t) s->lost,
                    "unchecked", (json_int_t) s->unchecked);
}

static int
done (const struct esp_scrub *s, json_t *findings)
{
  char size[16];
  int r = cli_done (cli.json ? json_result (s, findings) : NULL,
                    "checked %u restore point%s, %s: mended %" PRIu64
                    ", to be fetched again %" PRIu64 ", lost %" PRIu64,
                    s->rps, s->rps == 1 ? "" : "s",
                    esp_size_format (s->bytes, size),
                    s->mended, s->dropped, s->lost);

  return s->lost || s->dropped || s->unchecked ? CLI_DAMAGE : r;
}

static int
scrub (struct run *run, const esp_uuid *one, bool no_fetch)
{
  struct esp_scrub scrub = {
    .tell = tell, .mend = mend, .arg = run, .no_fetch = no_fetch,
    .progress = esp_progress_update, .progress_arg = run->bar,
  };

  if (venue_index_load (&run->venues) != CLI_OK ||
      esp_store_scrub (cli.store, one, &scrub) == -1)
    return CLI_FAILED;
  esp_progress_clear (run->bar);
  return done (&scrub, run->findings);
}

static int
scrub_run (const struct args *args)
{
  CLEANUP_PROGRESS struct esp_progress *bar = NULL;
  CLEANUP_RP struct esp_rp rp = { 0 };
  struct run run;
  int r;

  if (cli_open () != 0 ||
      (args->n && esp_catalog_rp_find (cli_catalog (), args->arg[0],
                                       &rp) == -1))
    return CLI_FAILED;
  bar = work_begin ("checking");
  run = (struct run) { .bar = bar, .findings = json_array () };
  r = scrub (&run, args->n ? &rp.uuid : NULL, opt_has (args, "no-fetch"));
  esp_copies_free (run.copies);
  venue_index_clear (&run.venues);
  json_decref (run.findings);
  return r;
}

static const struct opt scrub_options[] = {
  { "no-fetch", 0, NULL, "say what is wrong, and ask no center", false },
  { 0 },
};

const struct command scrub_commands[] = {
  { "store scrub", "[RP] [--no-fetch]",
    "Compare all local data with their digests, and mend them",
    "What is wrong is fetched again from an image center that has it.  Exits\n"
    "with 3 where something remains wrong.  A restore point that was made here\n"
    "gets its digests by its first scrub.",
    scrub_options, 0, 1, 0, scrub_run },
  { 0 },
};
