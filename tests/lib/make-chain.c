/* SPDX-License-Identifier: BSD-3-Clause */
/* make-chain STORE DEPTH SIZE SEED [RAW DEPTH...]
 *
 * Makes restore points d1 (a root) to dDEPTH, each over the one before, of
 * a disk of SIZE bytes, in a store that is there.  Each has random runs of
 * data and of zeroes.  What they come to is kept in memory as a naive flat
 * disk, and written to RAW.N after each of the depths N that are named.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/rp.h"
#include "util/file.h"

static uint64_t random_state;

/* A random number below N (xorshift64*, Vigna 2016). */
static uint64_t
below (uint64_t n)
{
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return (random_state * UINT64_C (0x2545f4914f6cdd1d) >> 16) % n;
}

/* Write N random blocks at BLOCK into the draft, and into FLAT. */
static int
put_data (struct esp_draft *draft, uint8_t *flat, uint64_t block, uint64_t n)
{
  for (uint64_t i = block; i < block + n; i++) {
    uint64_t buf[ESP_BLOCK_SIZE / 8] = { 0 };
    uint64_t at = i << ESP_BLOCK_SHIFT, len = ESP_BLOCK_SIZE;

    if (len > draft->rp.size - at)
      len = draft->rp.size - at;
    for (size_t k = 0; k < ESP_BLOCK_SIZE / 8; k++)
      buf[k] = below (UINT64_C (1) << 48) | 1;
    memset ((uint8_t *) buf + len, 0, ESP_BLOCK_SIZE - len);
    memcpy (flat + at, buf, len);
    if (esp_pwrite_all (draft->data_fd, buf, ESP_BLOCK_SIZE, at) == -1)
      return -1;
  }
  esp_map_set (draft->map, block, n, ESP_DATA, NULL);
  return 0;
}

static void
put_zero (struct esp_draft *draft, uint8_t *flat, uint64_t block, uint64_t n)
{
  uint64_t at = block << ESP_BLOCK_SHIFT, len = n << ESP_BLOCK_SHIFT;

  if (len > draft->rp.size - at)
    len = draft->rp.size - at;
  memset (flat + at, 0, len);
  esp_map_set (draft->map, block, n, ESP_ZERO, NULL);
}

/* One layer: in a root a quarter of the disk, else a few runs. */
static int
fill (struct esp_draft *draft, uint8_t *flat, bool root)
{
  uint64_t blocks = esp_blocks (draft->rp.size);
  uint64_t runs = root ? blocks / 64 + 1 : 3;

  for (uint64_t i = 0; i < runs; i++) {
    uint64_t block = below (blocks), n = 1 + below (24);

    if (n > blocks - block)
      n = blocks - block;
    if (i % 3 == 1 && !root) {
      /* Data under it would be a hole that nobody punched. */
      uint64_t run;
      if (esp_map_run (draft->map, block, n, &run) == ESP_ABSENT && run == n)
        put_zero (draft, flat, block, n);
    }
    else if (put_data (draft, flat, block, n) == -1)
      return -1;
  }
  return 0;
}

static int
write_raw (const char *raw, unsigned depth, const void *flat, uint64_t size)
{
  CLEANUP_FREE char *name = esp_asprintf ("%s.%u", raw, depth);
  CLEANUP_CLOSE int fd = open (name, O_CREAT|O_TRUNC|O_WRONLY|O_CLOEXEC, 0666);

  return fd == -1 ? -1 : esp_pwrite_all (fd, flat, size, 0);
}

/* Make restore point dN over PARENT (none for 1); it is the next parent. */
static int
make_layer (struct esp_store *store, unsigned n, struct esp_rp *parent,
            uint8_t *flat, uint64_t size)
{
  char name[16];
  struct esp_draft *draft;
  esp_uuid uuid;

  snprintf (name, sizeof name, "d%u", n);
  draft = esp_draft_begin (store, name, n > 1 ? parent : NULL, size);
  if (!draft)
    return -1;
  if (fill (draft, flat, n == 1) == -1) {
    perror ("make-chain: write");
    esp_draft_abort (draft);
    return -1;
  }
  if (esp_draft_commit (draft, &uuid) == -1)
    return -1;
  esp_rp_clear (parent);
  return esp_catalog_rp_get (esp_store_catalog (store), &uuid, parent);
}

int
main (int argc, char *argv[])
{
  if (argc < 5) {
    fprintf (stderr, "usage: make-chain STORE DEPTH SIZE SEED "
             "[RAW DEPTH...]\n");
    return 2;
  }

  unsigned depth = strtoul (argv[2], NULL, 10);
  uint64_t size = strtoull (argv[3], NULL, 10);
  uint8_t *flat = calloc (1, size);
  struct esp_store *store = esp_store_open (argv[1]);
  CLEANUP_RP struct esp_rp parent = { 0 };

  random_state = strtoull (argv[4], NULL, 10) * 2 + 1;
  if (!flat || !store)
    return 1;
  for (unsigned n = 1; n <= depth; n++) {
    if (make_layer (store, n, &parent, flat, size) == -1)
      return 1;
    for (int i = 6; i < argc; i++)
      if (strtoul (argv[i], NULL, 10) == n
          && write_raw (argv[5], n, flat, size) == -1) {
        perror ("make-chain: raw file");
        return 1;
      }
  }
  esp_store_close (store);
  free (flat);
  return 0;
}
