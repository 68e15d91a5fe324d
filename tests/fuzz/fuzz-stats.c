/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a file of live counters, with right or wrong checksums:
 * readers pass over what is damaged, and what they show makes sense.
 */

#include "patch.h"

#include <sys/file.h>

#include "stats/internal.h"
#include "util/endian.h"
#include "util/sum.h"

#define ROWS 4u
#define LEN (STATS_HEADER + ROWS * STATS_ROW)

static uint8_t sound[LEN], file[LEN];
static int fd = -1;

static struct part parts[] = {
  { 0, STATS_HEADER_USED }, { STATS_HEADER, 160 },
  { STATS_HEADER + STATS_ROW, STATS_ROW }, { 0, LEN },
};

static void
begin (void)
{
  struct stats_header h = { .pid = 7, .used = ROWS, .program = "nbdkit" };
  struct stats_row row = { .kind = ESP_STATS_VENUE, .name = "cafe/0" };

  patch_begin ();
  stats_header_format (&h, sound);
  for (unsigned i = 0; i < ROWS - 1; ++i) {     /* and one never written */
    row.kind += i;
    row.c[i] = i + 1;
    stats_row_format (&row, sound + STATS_HEADER + i * STATS_ROW);
  }
  fd = openat (patch_dirfd, "7", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  FUZZ_REQUIRE (fd >= 0 && flock (fd, LOCK_EX) == 0);
}

static void
seal (void)
{
  esp_put64 (file + 120, esp_sum (file, 120));
  for (uint8_t *row = file + STATS_HEADER; row < file + LEN; row += STATS_ROW)
    esp_put64 (row, esp_sum (row + 8, STATS_ROW - 8));
}

static unsigned rows;

static int
look (void *arg, const struct esp_stats_seen *row)
{
  (void) arg;
  FUZZ_REQUIRE (row->kind >= ESP_STATS_PROCESS &&
                row->kind < ESP_STATS_KINDS);
  FUZZ_REQUIRE (strlen (row->name) < STATS_NAME);
  FUZZ_REQUIRE (strlen (row->program) < STATS_PROGRAM);
  FUZZ_REQUIRE (row->pid >= 0);
  rows++;
  return 0;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  size_t len = LEN;
  unsigned before = fuzz_errors;

  if (fd == -1)
    begin ();
  if (size < 1)
    return 0;
  memcpy (file, sound, LEN);
  patch_apply (file, &len, parts, 4, data, size);
  if (data[0] & PATCH_SEAL)
    seal ();
  FUZZ_REQUIRE (ftruncate (fd, 0) == 0 &&
                esp_pwrite_all (fd, file, len, 0) == 0);
  rows = 0;
  FUZZ_REQUIRE (esp_stats_each (patch_dir, look, NULL) == 0);
  FUZZ_REQUIRE (rows <= STATS_ROWS);
  FUZZ_REQUIRE (fuzz_errors <= before + 1);
  /* What is not seen was said; a seal, or zeroes for a whole row, make
   * something else of it.
   */
  FUZZ_REQUIRE ((data[0] & PATCH_SEAL) || fuzz_errors > before ||
                rows == ROWS - 1 || size > STATS_ROW);
  return 0;
}
