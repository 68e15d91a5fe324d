/* SPDX-License-Identifier: BSD-3-Clause */
/* Any changes of a directory's header and index, or its file cut short:
 * refused, begun anew, or used; and then what is found is what was put, what
 * is put is found, and what is forgotten is gone.
 */

#include "patch.h"

#include <sys/stat.h>

#include "cache/dir-internal.h"
#include "util/sum.h"

#define MAX ESP_CDIR_MAX_LOWEST
#define KEYS 6u
#define PAGE 4096u
#define FRONT 65536u            /* bytes that hold header and index */

static struct part parts[] = {
  { 0, sizeof (struct cdir_header) },
  { CDIR_HEADER, 12 * sizeof (struct cdir_set) }, { 0, 65536 },
};
static uint8_t sound[MAX], front[FRONT];
static size_t size_of_file, pages[1000];
static unsigned n_pages;        /* that have data */
static struct esp_sealer *sealer;

/* Of 64K and 128K; one in two is an export's. */
static struct esp_cache_key
numbered (unsigned k)
{
  return (struct esp_cache_key) { .id = { 9 }, .segment = k,
                                  .shift = (uint8_t) (16 + k / 2 % 2),
                                  .kind = k % 2 };
}

static size_t
fill (unsigned k, uint8_t *buf)
{
  size_t len = 5000 + (k / 2 % 2) * 65536;

  for (size_t i = 0; i < len; ++i)
    buf[i] = (uint8_t) (i * (k + 3) % 251);
  return len;
}

static uint8_t bytes[1 << 17], got[1 << 17];

static bool
find (struct esp_cdir *d, unsigned k, uint64_t *epoch)
{
  struct esp_cache_key key = numbered (k);
  size_t len = fill (k, bytes);
  bool hit = esp_cdir_get (d, &key, got, len, epoch);

  FUZZ_REQUIRE (!hit || memcmp (got, bytes, len) == 0);
  return hit;
}

static bool
keep (struct esp_cdir *d, unsigned k)
{
  struct esp_cache_key key = numbered (k);
  uint64_t epoch;

  if (find (d, k, &epoch))
    return true;
  return esp_cdir_put (d, &key, bytes, fill (k, bytes), epoch);
}

static void
begin (void)
{
  struct esp_cdir *d;
  struct stat st;
  int fd;

  patch_begin ();
  sealer = esp_sealer_new (NULL);
  d = esp_cdir_open (patch_dir, MAX, sealer);
  FUZZ_REQUIRE (d);
  for (unsigned k = 0; k < KEYS; ++k)
    FUZZ_REQUIRE (keep (d, k));
  esp_cdir_close (d);
  fd = openat (patch_dirfd, CDIR_FILE, O_RDWR);
  FUZZ_REQUIRE (fd >= 0 && fstat (fd, &st) == 0);
  size_of_file = (size_t) st.st_size;
  FUZZ_REQUIRE (esp_pread_all (fd, sound, size_of_file, 0) == 0);
  close (fd);
  for (size_t at = FRONT; at < size_of_file; at += PAGE)
    if (memcmp (sound + at, sound + at + 1, PAGE - 1) != 0)
      pages[n_pages++] = at;
}

/* The data of the slots: a few pages. */
static void
restore (int fd)
{
  for (unsigned i = 0; i < n_pages; ++i)
    FUZZ_REQUIRE (esp_pwrite_all (fd, sound + pages[i], PAGE, pages[i]) == 0);
}

/* The file as it was, with DATA's changes at its front. */
static void
damage (int fd, const uint8_t *data, size_t size)
{
  size_t len = FRONT;

  memcpy (front, sound, FRONT);
  patch_apply (front, &len, parts, 3, data, size);
  if (data[0] & PATCH_SEAL) {
    uint64_t sum = esp_sum (front, offsetof (struct cdir_fixed, sum));
    memcpy (front + offsetof (struct cdir_fixed, sum), &sum, sizeof sum);
  }
  FUZZ_REQUIRE (ftruncate (fd, (off_t) size_of_file) == 0);
  FUZZ_REQUIRE (esp_pwrite_all (fd, front, FRONT, 0) == 0);
  restore (fd);
  if (len < FRONT)
    FUZZ_REQUIRE (ftruncate (fd, (off_t) len) == 0);
}

static void
use (struct esp_cdir *d)
{
  struct esp_cdir_counters c;
  uint64_t epoch;

  for (unsigned k = 0; k < KEYS; ++k) {
    struct esp_cache_key key = numbered (k);

    (void) find (d, k, &epoch);
    if (keep (d, k))
      FUZZ_REQUIRE (find (d, k, &epoch));
    esp_cdir_forget (d, &key);
    FUZZ_REQUIRE (!find (d, k, &epoch));
    (void) keep (d, k);
  }
  esp_cdir_counters (d, &c);
  FUZZ_REQUIRE (c.used <= c.max && c.max <= ESP_CDIR_MAX_HIGHEST);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct esp_cdir *d;
  unsigned before;
  int fd;

  if (size == 0)
    return 0;
  if (!sealer)
    begin ();
  fd = openat (patch_dirfd, CDIR_FILE, O_RDWR);
  FUZZ_REQUIRE (fd >= 0);
  damage (fd, data, size);
  before = fuzz_errors;
  d = esp_cdir_open (patch_dir, MAX, sealer);
  FUZZ_REQUIRE (d || fuzz_errors == before + 1);
  if (d) {
    FUZZ_REQUIRE (fuzz_errors <= before + 1);   /* "begins anew" */
    use (d);
    esp_cdir_close (d);
  }
  close (fd);
  return 0;
}
