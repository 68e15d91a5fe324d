/* SPDX-License-Identifier: BSD-3-Clause */
/* The delayload filter's parameters. */

#include <config.h>

#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#include <nbdkit-filter.h>

#include "common/common.h"
#include "params.h"

#define THREADS_MAX 256u

struct esp_delay_params delayload_params = {
  .background = true,
  .profile = true,
};

static int
config_readahead (const char *value)
{
  uint64_t n;

  if (filter_config_size ("delayload-readahead", value, UINT64_C (64) << 10,
                          UINT64_C (1) << 30, &n) == -1)
    return -1;
  delayload_params.readahead = n ? n : ESP_READAHEAD_OFF;
  return 0;
}

int
delayload_config (nbdkit_next_config *next, nbdkit_backend *nxdata,
                  const char *key, const char *value)
{
  struct esp_delay_params *p = &delayload_params;

  if (strcmp (key, "delayload-background") == 0)
    return filter_config_switch (key, value, &p->background);
  if (strcmp (key, "delayload-profile") == 0)
    return filter_config_switch (key, value, &p->profile);
  if (strcmp (key, "delayload-rate") == 0)
    return filter_config_size (key, value, UINT64_C (16) << 10,
                               INT64_MAX / 16, &p->rate);
  if (strcmp (key, "delayload-max") == 0)
    return filter_config_size (key, value, UINT64_C (16) << 20, INT64_MAX,
                               &p->max);
  if (strcmp (key, "delayload-readahead") == 0)
    return config_readahead (value);
  if (strcmp (key, "delayload-threads") == 0)
    return filter_config_number (key, value, 1, THREADS_MAX, &p->threads);
  if (strcmp (key, "store") == 0)
    return filter_config_store (next, nxdata, value);
  return next (nxdata, key, value);
}
