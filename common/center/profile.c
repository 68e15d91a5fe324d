/* SPDX-License-Identifier: BSD-3-Clause */
/* Boot profiles: the order in which boots touch a disk (docs/formats.md,
 * "restore-points/UUID/boot-profile").  Advice, which nobody signs: a wrong
 * one costs time and never bytes, since what it names is checked when it is
 * fetched.  So its reader only takes care that it is bounded and sane.
 */

#include <config.h>

#include <string.h>

#include "center/format-internal.h"
#include "util/endian.h"
#include "util/sum.h"

#define MAGIC "ESPBOOTP"
#define FORMAT_VERSION 1u
#define BOOTS_MAX 65535u
#define RANK_END (ESP_PROFILE_UNITS_MAX * 16)

enum { H_MAGIC = 0, H_SUM = 8, H_VERSION = 16, H_SHIFT = 20, H_BOOTS = 24,
       H_UNITS = 28, HEAD = 32 };
enum { E_UNIT = 0, E_RANK = 4, E_BOOTS = 8, E_ZERO = 10, ENTRY = 12 };

static_assert (HEAD + (size_t) ENTRY * ESP_PROFILE_UNITS_MAX
               == ESP_PROFILE_BYTES_MAX, "the bound in the header");

void
esp_profile_clear (struct esp_profile *p)
{
  free (p->units);
  memset (p, 0, sizeof *p);
}

static int
compare (const void *a, const void *b)
{
  uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

  return x < y ? -1 : x > y;
}

/* Is no unit there twice?  0, 1 (one is), -1. */
static int
find_double (const struct esp_profile *p)
{
  CLEANUP_FREE uint32_t *units = malloc ((p->n ? p->n : 1) * sizeof *units);

  if (!units)
    return -1;
  for (size_t i = 0; i < p->n; ++i)
    units[i] = p->units[i].unit;
  qsort (units, p->n, sizeof *units, compare);
  for (size_t i = 1; i < p->n; ++i)
    if (units[i] == units[i - 1])
      return 1;
  return 0;
}

static bool
units_ok (const struct esp_profile *p, uint64_t units)
{
  uint32_t rank = 0;

  for (size_t i = 0; i < p->n; ++i) {
    const struct esp_profile_unit *u = &p->units[i];

    if (u->unit >= units || u->rank < rank || u->rank >= RANK_END ||
        u->boots == 0 || (p->boots < 16 && u->boots >> p->boots))
      return false;
    rank = u->rank;
  }
  return true;
}

/* Report with ERR what no reader would take. */
static int
check (const struct esp_profile *p, uint64_t disk_size, const char *where,
       int err)
{
  uint64_t units = (disk_size >> ESP_PROFILE_SHIFT)
    + (disk_size % (1u << ESP_PROFILE_SHIFT) != 0);
  int twice = units_ok (p, units) ? find_double (p) : 1;

  if (twice == -1)
    return format_no_memory (where);
  if (twice == 0)
    return 0;
  errno = err;
  esp_error ("%s: is damaged: its units make no sense", where);
  return -1;
}

void *
esp_profile_pack (const struct esp_profile *p, size_t *len)
{
  uint8_t *buf;

  if (p->n > ESP_PROFILE_UNITS_MAX || p->boots > BOOTS_MAX) {
    errno = EINVAL;
    esp_error ("boot profile: it has too many units or boots");
    return NULL;
  }
  if (check (p, ESP_DISK_MAX, "boot profile", EINVAL) == -1)
    return NULL;
  *len = HEAD + p->n * ENTRY;
  buf = calloc (1, *len);
  if (!buf) {
    format_no_memory ("boot profile");
    return NULL;
  }
  memcpy (buf + H_MAGIC, MAGIC, 8);
  esp_put32 (buf + H_VERSION, FORMAT_VERSION);
  esp_put32 (buf + H_SHIFT, ESP_PROFILE_SHIFT);
  esp_put32 (buf + H_BOOTS, p->boots);
  esp_put32 (buf + H_UNITS, (uint32_t) p->n);
  for (size_t i = 0; i < p->n; ++i) {
    uint8_t *e = buf + HEAD + i * ENTRY;

    esp_put32 (e + E_UNIT, p->units[i].unit);
    esp_put32 (e + E_RANK, p->units[i].rank);
    esp_put16 (e + E_BOOTS, p->units[i].boots);
  }
  esp_put64 (buf + H_SUM, esp_sum (buf + H_VERSION, *len - H_VERSION));
  return buf;
}

static int
check_header (const uint8_t *p, size_t len, const char *where)
{
  if (len < HEAD || memcmp (p + H_MAGIC, MAGIC, 8) != 0)
    return format_damaged (where, "it does not begin as a boot profile does");
  if (esp_get32 (p + H_VERSION) != FORMAT_VERSION) {
    errno = ENOTSUP;
    esp_error ("%s: the boot profile has version %u, which this espalier does "
               "not know: use a newer one", where,
               esp_get32 (p + H_VERSION));
    return -1;
  }
  if (esp_get32 (p + H_UNITS) > ESP_PROFILE_UNITS_MAX ||
      len != HEAD + (size_t) ENTRY * esp_get32 (p + H_UNITS))
    return format_damaged (where, "its length is wrong");
  if (esp_get64 (p + H_SUM) != esp_sum (p + H_VERSION, len - H_VERSION))
    return format_damaged (where, "its checksum is wrong");
  if (esp_get32 (p + H_SHIFT) != ESP_PROFILE_SHIFT ||
      esp_get32 (p + H_BOOTS) > BOOTS_MAX)
    return format_damaged (where, "its header makes no sense");
  return 0;
}

int
esp_profile_unpack (const void *buf, size_t len, uint64_t disk_size,
                    const char *where, struct esp_profile *out)
{
  CLEANUP_PROFILE struct esp_profile p = { 0 };
  const uint8_t *bytes = buf;

  if (check_header (bytes, len, where) == -1)
    return -1;
  p.boots = esp_get32 (bytes + H_BOOTS);
  p.n = esp_get32 (bytes + H_UNITS);
  p.units = calloc (p.n ? p.n : 1, sizeof *p.units);
  if (!p.units)
    return format_no_memory (where);
  for (size_t i = 0; i < p.n; ++i) {
    const uint8_t *e = bytes + HEAD + i * ENTRY;

    p.units[i].unit = esp_get32 (e + E_UNIT);
    p.units[i].rank = esp_get32 (e + E_RANK);
    p.units[i].boots = esp_get16 (e + E_BOOTS);
    if (esp_get16 (e + E_ZERO) != 0)
      return format_damaged (where, "its units make no sense");
  }
  if (check (&p, disk_size, where, EBADMSG) == -1)
    return -1;
  *out = p;
  memset (&p, 0, sizeof p);
  return 0;
}
