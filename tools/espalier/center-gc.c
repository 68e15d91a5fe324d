/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier center gc: remove what interrupted pushes left at a center. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "center/center.h"
#include "espalier.h"

ESP_DEFINE_CLEANUP (center, struct esp_center *, esp_center_close)
#define CLEANUP_CENTER ESP_CLEANUP (center)

/* A push that runs puts a part every few minutes at the most: nothing younger
 * than this is anybody's to remove.
 */
#define IDLE_MIN UINT64_C (3600)
#define IDLE_MAX (UINT64_C (3650) * 86400)

struct gc { bool dry_run; json_t *removed; uint64_t n, bytes; };

/* "7d", "36h": seconds, 0 where it is none. */
static uint64_t
parse_age (const char *text)
{
  char *end;
  unsigned long long n = strtoull (text, &end, 10);
  uint64_t unit = strcmp (end, "d") == 0 ? 86400
    : strcmp (end, "h") == 0 ? 3600 : 0;

  return *text < '0' || *text > '9' || unit == 0 || n > IDLE_MAX / unit ? 0
    : n * unit;
}

static void
tell (void *arg, const char *object, const char *id, uint64_t bytes,
      uint64_t idle)
{
  struct gc *gc = arg;
  char size[16];

  gc->n++;
  gc->bytes += bytes;
  json_array_append_new (gc->removed,
                         json_pack ("{s:s,s:s,s:I,s:I}", "object", object,
                                    "id", id, "bytes", (json_int_t) bytes,
                                    "idle_seconds", (json_int_t) idle));
  if (!cli.json && !cli.quiet)
    printf ("%s %s (%s, %" PRIu64 " day%s old)\n",
            gc->dry_run ? "would remove" : "removed",
            *object ? object : id, esp_size_format (bytes, size),
            idle / 86400, idle / 86400 == 1 ? "" : "s");
}

static int
center_gc_run (const struct args *args)
{
  CLEANUP_CENTER struct esp_center *center = NULL;
  const char *age = opt_value (args, "older-than");
  uint64_t idle = age ? parse_age (age) : ESP_CENTER_GC_IDLE;
  struct gc gc = { .dry_run = opt_has (args, "dry-run") };
  char size[16];

  if (idle < IDLE_MIN)
    return usage (args->cmd, "--older-than %s: write a number of days or hours, "
                  "1h at the least: 7d, 36h", age);
  if (cli_open () != 0 ||
      !(center = esp_center_open (cli.store, args->arg[0])))
    return CLI_FAILED;
  gc.removed = json_array ();
  if (esp_center_gc (center, idle, gc.dry_run, tell, &gc) == -1) {
    json_decref (gc.removed);
    return CLI_FAILED;
  }
  return cli_done (json_pack ("{s:s,s:b,s:o,s:I}", "center", args->arg[0],
                              "dry_run", gc.dry_run, "removed", gc.removed,
                              "bytes", (json_int_t) gc.bytes),
                   "%s %" PRIu64 " leftover%s at center %s, %s",
                   gc.dry_run ? "would remove" : "removed", gc.n,
                   gc.n == 1 ? "" : "s", args->arg[0],
                   esp_size_format (gc.bytes, size));
}

static const struct opt gc_options[] = {
  { "older-than", 0, "AGE", "only what nobody touched for so long: 7d (the default), 36h", false },
  { "dry-run", 0, NULL, "say what would be removed, and leave it", false },
  { 0 },
};

const struct command center_gc_commands[] = {
  { "center gc", "CENTER [--older-than AGE] [--dry-run]",
    "Remove what interrupted pushes left at an image center",
    "Uploads that nobody ended, files that nobody finished.  A push that goes on\n"
    "later than that, from any server, begins anew.",
    gc_options, 1, 1, 0, center_gc_run },
  { 0 },
};
