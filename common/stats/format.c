/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes of a file of live counters (docs/formats.md).
 *
 * Each row, and the header, ends its fields with a checksum of all of them:
 * a reader that comes while one is written sees that it is not whole, and
 * looks again.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "stats/internal.h"
#include "util/endian.h"
#include "util/sum.h"

_Static_assert (sizeof (struct esp_stats_row) == 8 * ESP_STATS_COUNTERS,
                "counters stand in a row as they are");

#define HEADER_SUM 120u
#define ROW_KIND 8u
#define ROW_COUNTERS 16u
#define ROW_NAME 144u

/* --- the header ------------------------------------------------------------ */

void
stats_header_format (const struct stats_header *h,
                     uint8_t out[STATS_HEADER_USED])
{
  memset (out, 0, STATS_HEADER_USED);
  memcpy (out, STATS_MAGIC, 8);
  esp_put32 (out + 8, STATS_VERSION);
  esp_put32 (out + 12, STATS_HEADER);
  esp_put32 (out + 16, STATS_ROW);
  esp_put32 (out + 20, STATS_ROWS);
  esp_put32 (out + 24, h->used);
  esp_put32 (out + 28, h->pid);
  esp_put64 (out + 32, h->since);
  esp_put64 (out + 40, h->at);
  memcpy (out + 48, h->program, STATS_PROGRAM);
  esp_put64 (out + HEADER_SUM, esp_sum (out, HEADER_SUM));
}

/* A program may be called anything; people read it. */
static void
get_program (const uint8_t *in, char out[STATS_PROGRAM])
{
  memcpy (out, in, STATS_PROGRAM);
  out[STATS_PROGRAM - 1] = 0;
  for (char *p = out; *p; ++p)
    if (*p < ' ' || *p > '~')
      *p = '?';
}

int
stats_header_parse (const uint8_t in[STATS_HEADER_USED],
                    struct stats_header *h)
{
  errno = EBADMSG;
  if (memcmp (in, STATS_MAGIC, 8) != 0)
    return -1;
  if (esp_get32 (in + 8) != STATS_VERSION) {
    errno = ENOTSUP;
    return -1;
  }
  if (esp_get64 (in + HEADER_SUM) != esp_sum (in, HEADER_SUM) ||
      esp_get32 (in + 12) != STATS_HEADER ||
      esp_get32 (in + 16) != STATS_ROW || esp_get32 (in + 20) != STATS_ROWS)
    return -1;
  h->used = esp_get32 (in + 24);
  h->pid = esp_get32 (in + 28);
  h->since = esp_get64 (in + 32);
  h->at = esp_get64 (in + 40);
  get_program (in + 48, h->program);
  return h->used <= STATS_ROWS && h->pid <= INT32_MAX ? 0 : -1;
}

/* --- rows ------------------------------------------------------------------- */

void
stats_row_format (const struct stats_row *row, uint8_t out[STATS_ROW])
{
  size_t len = strnlen (row->name, STATS_NAME - 1);

  memset (out, 0, STATS_ROW);
  esp_put32 (out + ROW_KIND, row->kind);
  esp_put32 (out + ROW_KIND + 4, (uint32_t) len);
  for (unsigned i = 0; i < ESP_STATS_COUNTERS; ++i)
    esp_put64 (out + ROW_COUNTERS + 8 * i, row->c[i]);
  memcpy (out + ROW_NAME, row->name, len);
  esp_put64 (out, esp_sum (out + 8, STATS_ROW - 8));
}

static bool
never_written (const uint8_t in[STATS_ROW])
{
  static const uint8_t zero[STATS_ROW];

  return memcmp (in, zero, STATS_ROW) == 0;
}

int
stats_row_parse (const uint8_t in[STATS_ROW], struct stats_row *row)
{
  uint32_t len = esp_get32 (in + ROW_KIND + 4);

  memset (row, 0, sizeof *row);
  if (never_written (in))
    return 0;
  if (esp_get64 (in) != esp_sum (in + 8, STATS_ROW - 8) ||
      len >= STATS_NAME || memchr (in + ROW_NAME, 0, len))
    return -1;
  uint32_t kind = esp_get32 (in + ROW_KIND);
  if (!esp_stats_kind_name (kind))
    return 0;
  row->kind = kind;
  memcpy (row->name, in + ROW_NAME, len);
  for (unsigned i = 0; i < ESP_STATS_COUNTERS; ++i)
    row->c[i] = esp_get64 (in + ROW_COUNTERS + 8 * i);
  return 0;
}

void
stats_name (const char *name, char out[STATS_NAME])
{
  enum { TAIL = 3 + 16 };               /* "..." and a hash */
  size_t len = strlen (name), keep = STATS_NAME - 1 - TAIL;

  memset (out, 0, STATS_NAME);
  if (len < STATS_NAME) {
    memcpy (out, name, len);
    return;
  }
  while (keep > 0 && ((unsigned char) name[keep] & 0xc0) == 0x80)
    keep--;                             /* not within a character */
  memcpy (out, name, keep);
  snprintf (out + keep, TAIL + 1, "...%016llx",
            (unsigned long long) esp_sum (name, len));
}
