/* SPDX-License-Identifier: BSD-3-Clause */
/* UUIDs: random ones (version 4), by libuuid. */

#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <uuid.h>

#include "util/name.h"

static_assert (sizeof (esp_uuid) == sizeof (uuid_t), "both are 16 bytes");

void
esp_uuid_new (esp_uuid *u)
{
  uuid_generate_random (u->b);
}

const char *
esp_uuid_text (const esp_uuid *u, char buf[ESP_UUID_TEXT])
{
  uuid_unparse_lower (u->b, buf);
  return buf;
}

int
esp_uuid_parse (const char *s, esp_uuid *u)
{
  uuid_t parsed;

  if (strlen (s) != ESP_UUID_TEXT - 1 || uuid_parse (s, parsed) < 0) {
    errno = EINVAL;
    return -1;
  }
  memcpy (u->b, parsed, sizeof u->b);
  return 0;
}

bool
esp_uuid_eq (const esp_uuid *a, const esp_uuid *b)
{
  return memcmp (a, b, sizeof *a) == 0;
}

bool
esp_uuid_is_null (const esp_uuid *u)
{
  return uuid_is_null (u->b);
}
