/* SPDX-License-Identifier: BSD-3-Clause */
/* A store with a tree of restore points, each with the bytes that it must
 * read as, kept in plain memory: for the tests of store/rp.h.
 */

#ifndef ESPALIER_RP_TEST_H
#define ESPALIER_RP_TEST_H

#include "unit.h"

#include <sys/wait.h>

#include "store/check.h"
#include "store/rp-internal.h"
#include "store/venue.h"
#include "util/file.h"

#define TREE_MAX 16

struct member {
  esp_uuid uuid;
  uint64_t size;
  unsigned char *bytes;
  int parent;                   /* its number, -1: a root */
  bool gone;
};

struct tree {
  char *dir;
  struct esp_store *store;
  struct member m[TREE_MAX];
  int n;
};

static inline __attribute__ ((unused)) void
tree_open (struct tree *t)
{
  t->store = esp_store_open (t->dir);
  if (t->store == NULL)
    fail_msg ("%s", unit_error);
}

static inline __attribute__ ((unused)) int
tree_setup (void **state)
{
  struct tree *t = calloc (1, sizeof *t);

  t->dir = unit_mkdir ();
  assert_int_equal (esp_store_init (t->dir), 0);
  tree_open (t);
  *state = t;
  return 0;
}

static inline __attribute__ ((unused)) int
tree_teardown (void **state)
{
  struct tree *t = *state;

  for (int i = 0; i < t->n; i++)
    free (t->m[i].bytes);
  if (t->store)
    esp_store_close (t->store);
  unit_rmdir (t->dir);
  free (t);
  return 0;
}

static inline __attribute__ ((unused)) void
tree_row (struct tree *t, int i, struct esp_rp *rp)
{
  if (esp_catalog_rp_get (esp_store_catalog (t->store), &t->m[i].uuid,
                          rp) == -1)
    fail_msg ("member %d is not in the catalog: %s", i, unit_error);
}

/* Begin a draft over member PARENT (-1: a root). */
static inline __attribute__ ((unused)) struct esp_draft *
tree_begin (struct tree *t, const char *name, int parent, uint64_t size)
{
  CLEANUP_RP struct esp_rp rp = { 0 };

  if (parent == -1)
    return esp_draft_begin (t->store, name, NULL, size);
  tree_row (t, parent, &rp);
  return esp_draft_begin (t->store, name, &rp, size);
}

/* Write block B of DRAFT: C 0 makes it zero; and the same in BYTES. */
static inline __attribute__ ((unused)) void
draft_put (struct esp_draft *draft, unsigned char *bytes, uint64_t b, int c)
{
  unsigned char buf[ESP_BLOCK_SIZE];
  uint64_t at = b * ESP_BLOCK_SIZE, len = ESP_BLOCK_SIZE;

  if (len > draft->rp.size - at)
    len = draft->rp.size - at;
  memset (buf, 0, sizeof buf);
  memset (buf, c, len);
  memset (bytes + at, c, len);
  if (c)
    assert_int_equal (esp_pwrite_all (draft->data_fd, buf, sizeof buf, at), 0);
  esp_map_set (draft->map, b, 1, c ? ESP_DATA : ESP_ZERO, NULL);
}

/* Add a member over PARENT of SIZE bytes with N random blocks. */
static inline __attribute__ ((unused)) int
tree_add (struct tree *t, int parent, uint64_t size, unsigned n)
{
  struct member *m = &t->m[t->n];
  struct esp_draft *draft;
  char name[32];

  assert_true (t->n < TREE_MAX);
  snprintf (name, sizeof name, "rp-%d", t->n);
  draft = tree_begin (t, name, parent, size);
  if (draft == NULL)
    fail_msg ("%s", unit_error);
  *m = (struct member) { .size = size, .parent = parent };
  m->bytes = calloc (1, size);
  if (parent >= 0)
    memcpy (m->bytes, t->m[parent].bytes, t->m[parent].size);
  for (unsigned i = 0; i < n; i++)
    draft_put (draft, m->bytes, (unsigned) rand () % esp_blocks (size),
               rand () % 4 ? rand () % 255 + 1 : 0);
  if (esp_draft_commit (draft, &m->uuid) == -1)
    fail_msg ("%s", unit_error);
  return t->n++;
}

/* Member I reads as it must. */
static inline __attribute__ ((unused)) void
tree_verify (struct tree *t, int i)
{
  struct member *m = &t->m[i];
  CLEANUP_IMAGE struct esp_image *image = esp_image_open (t->store, &m->uuid);
  CLEANUP_FREE unsigned char *buf = malloc (m->size);

  if (image == NULL)
    fail_msg ("member %d: %s", i, unit_error);
  assert_true (esp_image_size (image) == m->size);
  if (esp_image_pread (image, buf, m->size, 0) == -1)
    fail_msg ("member %d: %s", i, unit_error);
  for (uint64_t b = 0; b < m->size; b++)
    if (buf[b] != m->bytes[b])
      fail_msg ("member %d differs at %llu: %02x, not %02x", i,
                (unsigned long long) b, buf[b], m->bytes[b]);
}

static inline __attribute__ ((unused)) void
tree_verify_all (struct tree *t)
{
  for (int i = 0; i < t->n; i++)
    if (!t->m[i].gone)
      tree_verify (t, i);
}

/* Member I has COUNT children; *ONLY gets the last. */
static inline __attribute__ ((unused)) int
tree_children (struct tree *t, int i, int *only)
{
  int count = 0;

  for (int k = 0; k < t->n; k++)
    if (!t->m[k].gone && t->m[k].parent == i) {
      count++;
      *only = k;
    }
  return count;
}

#endif /* ESPALIER_RP_TEST_H */
