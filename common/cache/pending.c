/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys that are to be deleted on a node that cannot be reached: a set, by
 * open addressing, never more than half full, at most PENDING_MAX keys.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "cache/cluster-internal.h"

#define ROOM_FIRST 64u

static bool
same (const struct esp_cache_key *a, const struct esp_cache_key *b)
{
  return memcmp (a->id, b->id, sizeof a->id) == 0 &&
    a->segment == b->segment && a->shift == b->shift && a->kind == b->kind;
}

/* Where KEY is, or would be. */
static size_t
slot_of (const struct pending *p, const struct esp_cache_key *key)
{
  size_t i = esp_cache_key_hash (key) & (p->room - 1);

  while (p->used[i] && !same (&p->keys[i], key))
    i = (i + 1) & (p->room - 1);
  return i;
}

static bool
grow (struct pending *p)
{
  struct pending big = { .room = p->room ? 2 * p->room : ROOM_FIRST };

  big.keys = calloc (big.room, sizeof *big.keys);
  big.used = calloc (big.room, sizeof *big.used);
  if (!big.keys || !big.used) {
    free (big.keys);
    free (big.used);
    return false;
  }
  for (size_t i = 0; i < p->room; ++i)
    if (p->used[i])
      pending_add (&big, &p->keys[i]);
  pending_clear (p);
  *p = big;
  return true;
}

bool
pending_add (struct pending *p, const struct esp_cache_key *key)
{
  if (2 * (p->n + 1) > p->room && !grow (p))
    return false;
  size_t i = slot_of (p, key);
  if (p->used[i])
    return true;
  if (p->n == PENDING_MAX)
    return false;
  p->keys[i] = *key;
  p->used[i] = true;
  p->n++;
  return true;
}

void
pending_clear (struct pending *p)
{
  free (p->keys);
  free (p->used);
  *p = (struct pending) { 0 };
}
