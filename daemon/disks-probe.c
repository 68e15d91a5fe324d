/* SPDX-License-Identifier: BSD-3-Clause */
/* Is the disk that a new connection shows still the one that was lost?
 *
 * A server that came back may have begun a client's overlay anew: it is kept in
 * memory only, or its grace is over, or somebody reset it.  NBD has no name for
 * that, and a guest that goes on over another disk than the one it wrote to ruins
 * both.  So we remember the beginnings of some writes that a flush has made
 * durable, and read them again.
 *
 * A probe may rightly differ where a request that nobody answered had reached the
 * disk; there are a few of those at most.  So the majority decides.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <xxhash.h>

#include "disks-internal.h"

static bool
overlap (const struct probe *p, uint64_t pos, uint64_t len)
{
  return pos < p->pos + p->len && p->pos < pos + len;
}

static bool
is_zero (const unsigned char *buf, size_t len)
{
  return len == 0 || (buf[0] == 0 && memcmp (buf, buf + 1, len - 1) == 0);
}

void
disk_probe_add_locked (struct disk *d, const struct entry *e)
{
  struct probe *p;

  for (unsigned i = 0; i < PROBES; i++)
    if (overlap (&d->probes[i], e->pos, e->len))
      d->probes[i].len = 0;
  if (!e->data)
    return;
  uint32_t len = e->len < PROBE_SIZE ? (uint32_t) e->len : PROBE_SIZE;
  if (is_zero (e->data, len))
    return;                     /* a fresh disk may well read as that */
  p = &d->probes[d->next_probe++ % PROBES];
  *p = (struct probe) {
    .pos = e->pos, .len = len, .hash = XXH3_64bits (e->data, len) };
}

/* Was it written to since by something that is not flushed? */
static bool
is_stale (const struct disk *d, const struct probe *p)
{
  for (const struct entry *e = d->first; e; e = e->next)
    if (overlap (p, e->pos, e->len))
      return true;
  return false;
}

int
disk_probe (struct disk *d, struct nbd_handle *h)
{
  unsigned same = 0, other = 0;
  char buf[PROBE_SIZE];

  for (unsigned i = 0; i < PROBES; i++) {
    const struct probe *p = &d->probes[i];
    struct op op = { .what = OP_READ, .buf = buf, .len = p->len,
                     .pos = p->pos };
    int r;

    if (p->len == 0 || is_stale (d, p))
      continue;
    r = disk_op (d, h, &op);
    if (r)
      return r;
    if (XXH3_64bits (buf, p->len) == p->hash)
      same++;
    else
      other++;
  }
  return other > same ? ESTALE : 0;
}
