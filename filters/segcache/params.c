/* SPDX-License-Identifier: BSD-3-Clause */
/* The segcache filter's parameters. */

#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "cache/dir.h"
#include "cache/nodes.h"
#include "center/format.h"
#include "common/common.h"
#include "names.h"
#include "params.h"
#include "util/cleanup.h"
#include "util/name.h"
#include "util/stack.h"

#define KiB UINT64_C (1024)
#define MiB (KiB << 10)
#define MEMORY_DEFAULT (256 * MiB)
#define MINUTE 60000u           /* ms */

struct segcache_params segcache_params = {
  .shift = 18,
};

static bool memory_given;

/* Of all parameters that are not ours, in their order: without segcache-id
 * this tells disks apart that have the same name and size.
 */
static esp_digest plugin_says;

bool
segcache_has_shared (void)
{
  return segcache_params.shared.dir || segcache_params.shared.nodes;
}

void
segcache_params_free (void)
{
  struct segcache_params *p = &segcache_params;

  free ((char *) p->shared.dir);
  free ((char *) p->shared.nodes);
  free ((char *) p->shared.key_file);
  free ((char *) p->shared.sasl_file);
  free ((char *) p->shared.tls_ca);
  free ((char *) p->shared.tls_certificate);
  free ((char *) p->shared.tls_key);
  free ((char *) p->stats);
}

/* --- one at a time --------------------------------------------------------- */

static int
config_memory (const char *value)
{
  uint64_t *memory = &segcache_params.memory;

  memory_given = true;
  *memory = 0;
  if (strcmp (value, "off") == 0)
    return 0;
  return filter_config_size ("segcache-memory", value, MiB, INT64_MAX, memory);
}

static int
config_max (const char *value)
{
  char from[16], to[16];
  uint64_t n;

  if (esp_size_parse (value, "segcache-max", &n) == -1)
    return -1;
  if (n < ESP_CDIR_MAX_LOWEST || n > ESP_CDIR_MAX_HIGHEST) {
    nbdkit_error ("segcache-max=%s: give a size from %s to %s", value,
                  esp_size_format (ESP_CDIR_MAX_LOWEST, from),
                  esp_size_format (ESP_CDIR_MAX_HIGHEST, to));
    return -1;
  }
  segcache_params.shared.dir_max = n;
  return 0;
}

static int
config_segment (const char *value)
{
  const uint64_t min = UINT64_C (1) << ESP_SEGMENT_SHIFT_MIN;
  const uint64_t max = UINT64_C (1) << ESP_SEGMENT_SHIFT_MAX;
  uint64_t n;

  if (esp_size_parse (value, "segcache-segment", &n) == -1)
    return -1;
  if (n < min || n > max || (n & (n - 1)) != 0) {
    nbdkit_error ("segcache-segment=%s: give 64K, 128K, 256K, 512K, 1M, 2M "
                  "or 4M", value);
    return -1;
  }
  segcache_params.shift = (unsigned) __builtin_ctzll (n);
  return 0;
}

/* A path, which may not be there yet, absolute. */
static int
config_path (const char *key, const char *value, const char **out)
{
  if (*value == 0) {
    nbdkit_error ("%s=: give a path", key);
    return -1;
  }
  free ((char *) *out);
  *out = nbdkit_absolute_path (value);
  return *out ? 0 : -1;
}

static int
config_nodes (const char *value)
{
  const char **nodes = &segcache_params.shared.nodes;

  if (esp_nodes_is_file (value))
    return config_path ("segcache-nodes", value, nodes);
  if (!strpbrk (value, ":,") && access (value, F_OK) == 0) {
    nbdkit_error ("segcache-nodes=%s: there is a file of that name: write "
                  "./%s for the file, %s:%u for a node", value, value, value,
                  ESP_NODE_PORT);
    return -1;
  }
  free ((char *) *nodes);
  *nodes = strdup (value);
  if (!*nodes)
    nbdkit_error ("strdup: %m");
  return *nodes ? 0 : -1;
}

/* --- what is not ours -------------------------------------------------------- */

/* What VALUE names, wherever the server was started: malloced. */
static char *
whole_path (const char *value)
{
  char *path = realpath (value, NULL);

  return path ? path : strdup (value);
}

static int
note_other (const char *key, const char *value)
{
  CLEANUP_FREE char *path = whole_path (value);
  esp_digest d[3] = { plugin_says };

  if (!path) {
    nbdkit_error ("strdup: %m");
    return -1;
  }
  names_look (key, value);
  esp_digest_of (key, strlen (key), &d[1]);
  esp_digest_of (path, strlen (path), &d[2]);
  esp_digest_of (d, sizeof d, &plugin_says);
  return 0;
}

static void
default_id (void)
{
  static char id[65];

  if (!segcache_params.id)
    segcache_params.id = esp_digest_hex (&plugin_says, id);
}

/* --- all ------------------------------------------------------------------- */

/* Who the nodes and this server are.  1: it is none of ours. */
static int
config_files (const char *key, const char *value)
{
  struct esp_shared_params *p = &segcache_params.shared;

  if (strcmp (key, "segcache-key-file") == 0)
    return config_path (key, value, &p->key_file);
  if (strcmp (key, "segcache-sasl-file") == 0)
    return config_path (key, value, &p->sasl_file);
  if (strcmp (key, "segcache-tls-ca") == 0)
    return config_path (key, value, &p->tls_ca);
  if (strcmp (key, "segcache-tls-certificate") == 0)
    return config_path (key, value, &p->tls_certificate);
  if (strcmp (key, "segcache-tls-key") == 0)
    return config_path (key, value, &p->tls_key);
  return 1;
}

/* 1: it is none of ours. */
static int
config_shared (const char *key, const char *value)
{
  struct esp_shared_params *p = &segcache_params.shared;

  if (strcmp (key, "segcache-dir") == 0)
    return config_path (key, value, &p->dir);
  if (strcmp (key, "segcache-max") == 0)
    return config_max (value);
  if (strcmp (key, "segcache-nodes") == 0)
    return config_nodes (value);
  if (strcmp (key, "segcache-timeout") == 0)
    return filter_config_number (key, value, 1, MINUTE, &p->timeout_ms);
  if (strcmp (key, "segcache-lease") == 0)
    return filter_config_number (key, value, 100, MINUTE, &p->lease_ms);
  if (strcmp (key, "segcache-wait") == 0)
    return filter_config_number (key, value, 1, 10 * MINUTE, &p->wait_ms);
  return config_files (key, value);
}

int
segcache_config (nbdkit_next_config *next, nbdkit_backend *nxdata,
                 const char *key, const char *value)
{
  struct segcache_params *p = &segcache_params;
  int r = config_shared (key, value);

  if (r <= 0)
    return r;
  if (strcmp (key, "segcache-memory") == 0)
    return config_memory (value);
  if (strcmp (key, "segcache-segment") == 0)
    return config_segment (value);
  if (strcmp (key, "segcache-id") == 0) {
    p->id = value;              /* nbdkit keeps it */
    return 0;
  }
  if (strcmp (key, "segcache-names") == 0)
    return names_config (value);
  if (strcmp (key, "segcache-stats") == 0)
    return config_path (key, value, &p->stats);
  if (strcmp (key, "store") == 0)
    return filter_config_store (next, nxdata, value);
  return note_other (key, value) == -1 ? -1 : next (nxdata, key, value);
}

static int
check_venue (void)
{
  if (!segcache_params.stats)
    return 0;
  nbdkit_error ("segcache-stats: over the venue plugin live counters are in "
                "the store: leave it out");
  return -1;
}

/* Each client would read what the first one wrote, or read. */
static int
check_others (void)
{
  if (!segcache_params.overlay_below)
    return 0;
  nbdkit_error ("segcache: the overlay filter is below: clients would read "
                "each other's writes: give --filter=overlay before "
                "--filter=segcache");
  return -1;
}

/* Who gives one of these means more than would happen. */
static int
check_used (void)
{
  const struct esp_shared_params *p = &segcache_params.shared;

  if (p->dir_max > 0 && !p->dir)
    nbdkit_error ("segcache-max: is for a directory: give segcache-dir, or "
                  "leave it out");
  else if (p->sasl_file && !p->nodes)
    nbdkit_error ("segcache-sasl-file: is for nodes: give segcache-nodes, or "
                  "leave it out");
  else if (p->key_file && !segcache_has_shared ())
    nbdkit_error ("segcache-key-file: is for a directory or nodes: give "
                  "segcache-dir or segcache-nodes, or leave it out");
  else
    return 0;
  return -1;
}

int
segcache_config_complete (nbdkit_next_config_complete *next,
                          nbdkit_backend *nxdata)
{
  bool venue = esp_stack_has (ESP_MODULE_VENUE);

  default_id ();
  if (!memory_given)
    segcache_params.memory = venue ? 0 : MEMORY_DEFAULT;
  if ((venue ? check_venue () : check_others ()) == -1 ||
      esp_shared_check (&segcache_params.shared) == -1 ||
      check_used () == -1)
    return -1;
  return next (nxdata);
}
