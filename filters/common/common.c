/* SPDX-License-Identifier: BSD-3-Clause */
/* What all filters do in the same way with nbdkit. */

#include <config.h>

#include <nbdkit-filter.h>

#include "common/common.h"
#include "util/host.h"
#include "util/name.h"

void
filter_load (enum esp_module module)
{
  static const struct esp_host host = {
    .error = nbdkit_verror,
    .debug = nbdkit_vdebug,
    .seldom = true,
  };

  esp_set_host (&host);
  esp_stack_add (module);
}

/* nbdkit says so only to who would sleep: it returns at once. */
bool
filter_is_ending (void)
{
  return nbdkit_nanosleep (0, 1) == -1;
}

void
filter_counts_begin (struct filter_counts *counts,
                     const struct esp_stack_slot *slot)
{
  counts->row = esp_stats_client_ref (slot->row);
  counts->asked = slot->depth == 1 ? counts->row : NULL;
}

void
filter_counts_end (struct filter_counts *counts)
{
  esp_stats_client_put (counts->row);
  *counts = (struct filter_counts) { .row = NULL };
}

int
filter_config_store (nbdkit_next_config *next, nbdkit_backend *nxdata,
                     const char *value)
{
  if (esp_stack_set_store (value) == -1)
    return -1;
  return esp_stack_has (ESP_MODULE_VENUE) ? next (nxdata, "store", value) : 0;
}

int
filter_config_switch (const char *key, const char *value, bool *out)
{
  int b = nbdkit_parse_bool (value);

  if (b == -1) {
    nbdkit_error ("%s=%s: give on or off", key, value);
    return -1;
  }
  *out = b;
  return 0;
}

int
filter_config_size (const char *key, const char *value, uint64_t min,
                    uint64_t max, uint64_t *out)
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

int
filter_config_number (const char *key, const char *value, unsigned min,
                      unsigned max, unsigned *out)
{
  unsigned n;

  if (nbdkit_parse_unsigned (key, value, &n) == -1)
    return -1;
  if (n < min || n > max) {
    nbdkit_error ("%s=%s: give a number from %u to %u", key, value, min, max);
    return -1;
  }
  *out = n;
  return 0;
}
