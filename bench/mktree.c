/* SPDX-License-Identifier: BSD-3-Clause */
/* mktree: fill a store for measurements.
 *
 *   mktree chain STORE PREFIX SIZE DEPTH LAYER-BYTES SEED [EXTENTS]
 *   mktree stack STORE ROOT DEPTH
 *   mktree venues STORE RP N
 *   mktree sparse STORE NAME SIZE BYTES SEED
 *
 * chain: PREFIX-1 is a root full of data; each further one, PREFIX-2 … PREFIX-DEPTH,
 * writes LAYER-BYTES in extents of 4 KiB to 256 KiB (the exponent is drawn
 * evenly, as updates write many small files and a few large ones) at random
 * places.  Every 8 bytes written say which layer and offset they are of, so
 * no two blocks are the same.  EXTENTS gets a line "LAYER OFFSET LENGTH" for
 * each, so that a peer's chain can be made of the same.
 *
 * stack: over the restore point ROOT, ROOT-2 … ROOT-DEPTH of one block each.
 * venues: N venues, v00000 and so on, that map to RP.
 * sparse: the root NAME with BYTES of data in extents of 4 KiB to 4 MiB, all
 * zeroes that take no space: for what depends on maps alone.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/source.h"
#include "store/rp.h"
#include "store/venue.h"
#include "util/file.h"

static uint64_t rng;

static uint64_t
next_random (void)              /* xorshift64* (Vigna 2016) */
{
  rng ^= rng >> 12;
  rng ^= rng << 25;
  rng ^= rng >> 27;
  return rng * UINT64_C (2685821657736338717);
}

static int
write_extent (struct esp_draft *draft, unsigned layer, uint64_t offset,
              uint64_t len)
{
  static uint64_t buf[(1 << 20) / sizeof (uint64_t)];
  uint64_t at, n, i;

  for (at = 0; at < len; at += n) {
    n = len - at < sizeof buf ? len - at : sizeof buf;
    for (i = 0; i < n / sizeof buf[0]; i++)
      buf[i] = ((uint64_t) layer << 48) | ((offset + at) / sizeof buf[0] + i);
    if (esp_pwrite_all (draft->data_fd, buf, n, offset + at) == -1) {
      perror ("mktree: pwrite");
      return -1;
    }
  }
  esp_map_set (draft->map, offset >> ESP_BLOCK_SHIFT, len >> ESP_BLOCK_SHIFT,
               ESP_DATA, NULL);
  return 0;
}

static int
fill_layer (struct esp_draft *draft, unsigned layer, uint64_t size,
            uint64_t bytes, FILE *extents)
{
  uint64_t offset, len, done;

  if (layer == 1)
    return write_extent (draft, 1, 0, size);
  for (done = 0; done < bytes; done += len) {
    len = ESP_BLOCK_SIZE << (next_random () % 7);
    offset = next_random () % (size / ESP_BLOCK_SIZE) * ESP_BLOCK_SIZE;
    if (len > size - offset)
      len = size - offset;
    if (write_extent (draft, layer, offset, len) == -1)
      return -1;
    if (extents)
      fprintf (extents, "%u %llu %llu\n", layer, (unsigned long long) offset,
               (unsigned long long) len);
  }
  return 0;
}

/* One more restore point NAME over *UUID (a root when FIRST), which becomes
 * the new one's.
 */
static struct esp_draft *
begin_layer (struct esp_store *store, const char *name, bool first,
             uint64_t size, const esp_uuid *uuid)
{
  CLEANUP_RP struct esp_rp parent = { 0 };

  if (!first
      && esp_catalog_rp_get (esp_store_catalog (store), uuid, &parent) == -1)
    return NULL;
  return esp_draft_begin (store, name, first ? NULL : &parent, size);
}

static int
chain_command (struct esp_store *store, char **argv)
{
  const char *prefix = argv[0];
  uint64_t size, depth, bytes;
  FILE *extents = NULL;
  char name[ESP_NAME_MAX + 1];
  esp_uuid uuid;
  int r = 0;

  if (esp_size_parse (argv[1], "SIZE", &size) == -1
      || esp_size_parse (argv[2], "DEPTH", &depth) == -1
      || esp_size_parse (argv[3], "LAYER-BYTES", &bytes) == -1)
    return -1;
  rng = strtoull (argv[4], NULL, 0) | 1;
  if (argv[5] && (extents = fopen (argv[5], "w")) == NULL) {
    perror (argv[5]);
    return -1;
  }
  for (unsigned layer = 1; layer <= depth && r == 0; layer++) {
    snprintf (name, sizeof name, "%s-%u", prefix, layer);
    struct esp_draft *draft
      = begin_layer (store, name, layer == 1, size, &uuid);
    if (draft == NULL)
      r = -1;
    else if (fill_layer (draft, layer, size, bytes, extents) == -1) {
      esp_draft_abort (draft);
      r = -1;
    }
    else
      r = esp_draft_commit (draft, &uuid);
  }
  if (extents && fclose (extents) == EOF) {
    perror (argv[5]);
    r = -1;
  }
  return r;
}

static int
stack_command (struct esp_store *store, char **argv)
{
  CLEANUP_RP struct esp_rp root = { 0 };
  char name[ESP_NAME_MAX + 1];
  uint64_t depth;
  esp_uuid uuid;

  if (esp_size_parse (argv[1], "DEPTH", &depth) == -1
      || esp_catalog_rp_find (esp_store_catalog (store), argv[0], &root) == -1)
    return -1;
  uuid = root.uuid;
  for (unsigned layer = 2; layer <= depth; layer++) {
    snprintf (name, sizeof name, "%s-%u", argv[0], layer);
    struct esp_draft *draft
      = begin_layer (store, name, false, root.size, &uuid);
    if (draft == NULL)
      return -1;
    if (write_extent (draft, layer, layer * ESP_BLOCK_SIZE,
                      ESP_BLOCK_SIZE) == -1) {
      esp_draft_abort (draft);
      return -1;
    }
    if (esp_draft_commit (draft, &uuid) == -1)
      return -1;
  }
  return 0;
}

static int
venues_command (struct esp_store *store, char **argv)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  char id[ESP_NAME_MAX + 1];
  uint64_t n;

  if (esp_size_parse (argv[1], "N", &n) == -1
      || esp_catalog_rp_find (esp_store_catalog (store), argv[0], &rp) == -1)
    return -1;
  for (unsigned i = 0; i < n; i++) {
    snprintf (id, sizeof id, "v%05u", i);
    if (esp_venue_add (store, id, &rp.uuid, 1, "a venue") == -1)
      return -1;
  }
  return 0;
}

static int
sparse_command (struct esp_store *store, char **argv)
{
  struct esp_draft *draft;
  uint64_t size, bytes, offset, len;
  esp_uuid uuid;

  if (esp_size_parse (argv[1], "SIZE", &size) == -1
      || esp_size_parse (argv[2], "BYTES", &bytes) == -1)
    return -1;
  rng = strtoull (argv[3], NULL, 0) | 1;
  draft = begin_layer (store, argv[0], true, size, NULL);
  if (draft == NULL)
    return -1;
  for (uint64_t done = 0; done < bytes; done += len) {
    len = ESP_BLOCK_SIZE << (next_random () % 11);
    offset = next_random () % (size / ESP_BLOCK_SIZE) * ESP_BLOCK_SIZE;
    if (len > size - offset)
      len = size - offset;
    esp_map_set (draft->map, offset >> ESP_BLOCK_SHIFT, len >> ESP_BLOCK_SHIFT,
                 ESP_DATA, NULL);
  }
  if (ftruncate (draft->data_fd, (off_t) size) == -1) {
    perror ("mktree: ftruncate");
    esp_draft_abort (draft);
    return -1;
  }
  return esp_draft_commit (draft, &uuid);
}

static const struct {
  const char *name, *usage;
  int min, max;                 /* arguments behind STORE */
  int (*fn) (struct esp_store *store, char **argv);
} commands[] = {
  { "chain", "STORE PREFIX SIZE DEPTH LAYER-BYTES SEED [EXTENTS]", 5, 6,
    chain_command },
  { "stack", "STORE ROOT DEPTH", 2, 2, stack_command },
  { "venues", "STORE RP N", 2, 2, venues_command },
  { "sparse", "STORE NAME SIZE BYTES SEED", 4, 4, sparse_command },
};

int
main (int argc, char *argv[])
{
  struct esp_store *store;
  int r;

  for (size_t i = 0; argc > 2 && i < sizeof commands / sizeof commands[0]; i++)
    if (strcmp (argv[1], commands[i].name) == 0
        && argc - 3 >= commands[i].min && argc - 3 <= commands[i].max) {
      store = esp_store_open (argv[2]);
      if (store == NULL)
        return 1;
      r = commands[i].fn (store, argv + 3);
      esp_store_close (store);
      return r == 0 ? 0 : 1;
    }
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
    fprintf (stderr, "usage: mktree %s %s\n", commands[i].name,
             commands[i].usage);
  return 2;
}
