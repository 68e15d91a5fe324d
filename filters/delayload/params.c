/* SPDX-License-Identifier: BSD-3-Clause */
/* The delayload filter's parameters. */

#include <config.h>

#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#include <nbdkit-filter.h>

#include "params.h"
#include "util/name.h"
#include "util/stack.h"

#define THREADS_MAX 256u

struct esp_delay_params delayload_params = {
  .background = true,
  .profile = true,
};

static int
config_switch (const char *key, const char *value, bool *out)
{
  int b = nbdkit_parse_bool (value);

  if (b == -1) {
    nbdkit_error ("%s=%s: give on or off", key, value);
    return -1;
  }
  *out = b;
  return 0;
}

/* A size from MIN to MAX, or 0. */
static int
config_size (const char *key, const char *value, uint64_t min, uint64_t max,
             uint64_t *out)
{
  char a[16], b[16];
  uint64_t n;

  if (esp_size_parse (value, key, &n) == -1)
    return -1;
  if (n > 0 && (n < min || n > max)) {
    nbdkit_error ("%s=%s: give a size from %s to %s, or 0", key, value,
                  esp_size_format (min, a), esp_size_format (max, b));
    return -1;
  }
  *out = n;
  return 0;
}

static int
config_readahead (const char *value)
{
  uint64_t n;

  if (config_size ("delayload-readahead", value, UINT64_C (64) << 10,
                   UINT64_C (1) << 30, &n) == -1)
    return -1;
  delayload_params.readahead = n ? n : ESP_READAHEAD_OFF;
  return 0;
}

static int
config_threads (const char *value)
{
  unsigned n;

  if (nbdkit_parse_unsigned ("delayload-threads", value, &n) == -1)
    return -1;
  if (n < 1 || n > THREADS_MAX) {
    nbdkit_error ("delayload-threads=%s: give a number from 1 to %u", value,
                  THREADS_MAX);
    return -1;
  }
  delayload_params.threads = n;
  return 0;
}

/* store= is everybody's; below, only the venue plugin takes it. */
static int
config_store (nbdkit_next_config *next, nbdkit_backend *nxdata,
              const char *value)
{
  if (esp_stack_set_store (value) == -1)
    return -1;
  return esp_stack_has (ESP_MODULE_VENUE) ? next (nxdata, "store", value) : 0;
}

int
delayload_config (nbdkit_next_config *next, nbdkit_backend *nxdata,
                  const char *key, const char *value)
{
  struct esp_delay_params *p = &delayload_params;

  if (strcmp (key, "delayload-background") == 0)
    return config_switch (key, value, &p->background);
  if (strcmp (key, "delayload-profile") == 0)
    return config_switch (key, value, &p->profile);
  if (strcmp (key, "delayload-rate") == 0)
    return config_size (key, value, UINT64_C (16) << 10, INT64_MAX / 16,
                        &p->rate);
  if (strcmp (key, "delayload-max") == 0)
    return config_size (key, value, UINT64_C (16) << 20, INT64_MAX, &p->max);
  if (strcmp (key, "delayload-readahead") == 0)
    return config_readahead (value);
  if (strcmp (key, "delayload-threads") == 0)
    return config_threads (value);
  if (strcmp (key, "store") == 0)
    return config_store (next, nxdata, value);
  return next (nxdata, key, value);
}
