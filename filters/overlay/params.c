/* SPDX-License-Identifier: BSD-3-Clause */
/* The overlay filter's parameters. */

#include <config.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <nbdkit-filter.h>

#include "common/common.h"
#include "params.h"
#include "store/store.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/name.h"
#include "util/stack.h"

struct esp_overlay_params params = {
  .mode = ESP_OVERLAY_KEEP,
  .min_free = UINT64_C (256) << 20,
  .grace = 30,
};
enum client_from params_client = CLIENT_CONNECTION;
char *params_dir;
bool params_private_only;

static char *dir_given;         /* overlay-dir=, absolute */

void
params_free (void)
{
  free (dir_given);
  free (params_dir);
}

/* The place of VALUE among CHOICES, "WHAT=a|b|c" on an error. */
static int
parse_choice (const char *what, const char *value,
              const char *const *choices, int n)
{
  for (int i = 0; i < n; ++i)
    if (strcmp (value, choices[i]) == 0)
      return i;
  nbdkit_error ("%s=%s: give %s, %s or %s", what, value,
                choices[0], choices[1], choices[2]);
  return -1;
}

static int
config_mode (const char *value)
{
  static const char *const names[] = { "keep", "discard", "memory" };
  int i = parse_choice ("overlay-mode", value, names, 3);

  if (i >= 0)
    params.mode = i;
  return i < 0 ? -1 : 0;
}

static int
config_client (const char *value)
{
  static const char *const names[] = { "connection", "peer", "export" };
  int i = parse_choice ("overlay-client", value, names, 3);

  if (i >= 0)
    params_client = i;
  return i < 0 ? -1 : 0;
}

static int
config_quota (const char *value)
{
  uint64_t quota;

  if (esp_size_parse (value, "overlay-quota", &quota) == -1)
    return -1;
  if (quota > 0 && quota < ESP_BLOCK_SIZE) {
    nbdkit_error ("overlay-quota=%s: give at least one block of 4K, or 0 "
                  "for no limit", value);
    return -1;
  }
  params.quota = quota;
  return 0;
}

static int
config_dir (const char *value)
{
  free (dir_given);
  dir_given = nbdkit_realpath (value);
  return dir_given ? 0 : -1;
}

int
params_config (nbdkit_next_config *next, nbdkit_backend *nxdata,
                const char *key, const char *value)
{
  if (strcmp (key, "overlay-mode") == 0)
    return config_mode (value);
  if (strcmp (key, "overlay-client") == 0)
    return config_client (value);
  if (strcmp (key, "overlay-quota") == 0)
    return config_quota (value);
  if (strcmp (key, "overlay-min-free") == 0)
    return esp_size_parse (value, "overlay-min-free", &params.min_free);
  if (strcmp (key, "overlay-grace") == 0)
    return nbdkit_parse_unsigned ("overlay-grace", value, &params.grace);
  if (strcmp (key, "overlay-dir") == 0)
    return config_dir (value);
  if (strcmp (key, "store") == 0)
    return filter_config_store (next, nxdata, value);
  return next (nxdata, key, value);
}

/* Where overlays are kept: overlay-dir, else the store's, else no place for
 * named ones.
 */
static int
choose_dir (void)
{
  const char *store = esp_stack_get_store ();

  if (dir_given) {
    params_dir = strdup (dir_given);
    return params_dir ? 0 : -1;
  }
  if (store || esp_stack_has (ESP_MODULE_VENUE)) {
    CLEANUP_FREE char *path = esp_store_default_path (store);
    params_dir = path ? esp_asprintf ("%s/overlays", path) : NULL;
    return params_dir ? 0 : -1;
  }
  const char *tmp = getenv ("TMPDIR");
  params_private_only = true;
  params_dir = nbdkit_realpath (tmp ? tmp : "/var/tmp");
  return params_dir ? 0 : -1;
}

int
params_config_complete (nbdkit_next_config_complete *next,
                        nbdkit_backend *nxdata)
{
  if (params.mode != ESP_OVERLAY_MEMORY && choose_dir () == -1)
    return -1;
  if (params_private_only && params_client != CLIENT_CONNECTION) {
    nbdkit_error ("overlay-client needs a directory that is there "
                  "after a restart: give overlay-dir=DIR, or "
                  "overlay-mode=memory");
    return -1;
  }
  return next (nxdata);
}
